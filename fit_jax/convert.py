"""Brings models in and out.

HF is a Hugging Face folder or hub id (import also takes a llama2.c .bin file), OURS a folder that `import` wrote, RUN
the folder of a training run.
"""

from argparse import Namespace

from fit_jax.cli import execute, run
from fit_jax.files import is_url
from fit_jax.options import Parser, add_trust_code, new_folder


def add_options(parser: Parser) -> None:
    """The four actions, each with its options."""
    actions = parser.add_subparsers(title="commands")

    def action(name: str, about: str, source: str, target: str) -> Parser:
        added = actions.add_parser(name, help=about, description=f"{about[0].upper()}{about[1:]}.")
        added.add_argument("--from", metavar=source, dest="source", help="the model", required=True)
        added.add_argument(
            "--to", metavar=target, dest="target", help="a new folder", required=True, type=new_folder("--to")
        )
        return added

    parser = action("import", "bring a model into the form that training reads fastest", "HF", "OURS")
    parser.add_argument(
        "--quantize", choices=("none", "int8", "nf4"), default="none", help="how projections are stored"
    )
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="of the weights; the model's own by default")
    parser.set_defaults(run=_import)
    parser = action("export-merged", "write a Hugging Face folder, adapters merged", "RUN_OR_OURS", "HF")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float16"), help="of the weights; the base model's by default"
    )
    add_trust_code(parser)
    parser.set_defaults(run=_export_merged)
    parser = action("export-adapter", "write the adapter of a run in PEFT's format", "RUN", "PEFT")
    add_trust_code(parser)
    parser.set_defaults(run=_export_adapter)
    about = "compare a model here with transformers' own, on this machine; status 1 where they disagree"
    parser = actions.add_parser("check", help=about, description=f"{about.capitalize()}.")
    parser.add_argument("--model", metavar="HF", help="the model", required=True)
    parser.set_defaults(run=_check)


def main(arguments: list[str]) -> int | None:
    """Runs the command."""
    return execute("python -m fit_jax.convert", __doc__, add_options, arguments)


def _import(given: Namespace) -> None:
    from fit_jax.conversion.convert import import_model

    model = import_model(given.source, given.target, given.quantize, given.dtype)
    print(f"{given.target}: {model.family}, {model.layers} layers, width {model.width}, vocabulary {model.vocab_size}")


def _export_merged(given: Namespace) -> None:
    from fit_jax.conversion.convert import export_merged
    from fit_jax.runs.remote_folder import working_folder

    with working_folder(given.source, "--from", writes=False) as folder:
        source = str(folder) if is_url(given.source) else given.source
        agreement = export_merged(source, given.target, given.dtype, given.trust_code)
    print(f"{given.target}: logits differ by at most {agreement.largest:.3g} from the unmerged model")


def _export_adapter(given: Namespace) -> None:
    from fit_jax.conversion.convert import export_adapter
    from fit_jax.runs.remote_folder import working_folder

    with working_folder(given.source, "--from", writes=False) as folder:
        export_adapter(str(folder), given.target, given.trust_code)
    print(f"{given.target}: adapter written; read back, it is the one that was trained")


def _check(given: Namespace) -> int:
    from fit_jax.conversion.check import check_parity, print_parity

    rows = check_parity(given.model)
    print_parity(rows)
    return 0 if all(row.passed for row in rows) else 1


if __name__ == "__main__":
    run(main)

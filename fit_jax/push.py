"""Pushes the model of a run to the Hugging Face hub, with the code and the prompts that ask it."""

from argparse import Namespace

from fit_jax.cli import execute, run
from fit_jax.options import Parser, add_trust_code


def add_options(parser: Parser) -> None:
    """The run, the repository, and what of the model goes there."""
    parser.add_argument("folder", metavar="RUN", help="the run_dir of a training run")
    parser.add_argument(
        "--to",
        metavar="USER/NAME",
        dest="target",
        help="the repository; the token is that of `hf auth login` or HF_TOKEN",
        required=True,
    )
    about = "push the whole model, adapters merged (default: the adapter, where one was trained on a pretrained model)"
    parser.add_argument("--merged", action="store_true", help=about)
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    add_trust_code(parser)
    parser.set_defaults(run=_push)


def main(arguments: list[str]) -> int | None:
    """Runs the command."""
    return execute("python -m fit_jax.push", __doc__, add_options, arguments)


def _push(given: Namespace) -> None:
    from fit_jax.conversion.push import push
    from fit_jax.runs.remote_folder import working_folder

    with working_folder(given.folder, writes=False) as folder:
        pushed = push(folder, given.target, given.merged, given.private, given.trust_code)
    print(f"{given.target}: {'adapter' if pushed.adapter else 'model'} pushed: {pushed.address}")
    if pushed.base is not None:
        print(f"note: the adapter stands on {pushed.base}, a folder that others lack; --merged pushes the whole model")


if __name__ == "__main__":
    run(main)

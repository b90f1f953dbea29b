"""`python -m fit_jax.convert`: models in and out.

    python -m fit_jax.convert import         --from HF --to OURS [--quantize int8|nf4] [--dtype float32|bfloat16]
    python -m fit_jax.convert export-merged  --from RUN_OR_OURS --to HF [--dtype float32|bfloat16|float16]
    python -m fit_jax.convert export-adapter --from RUN --to PEFT
    python -m fit_jax.convert check          --model HF

HF is a Hugging Face folder or hub id (import also takes a llama2.c .bin file), OURS a folder that `import` wrote, RUN
the folder of a training run. `check` compares with transformers on this machine; its status is 1 where they disagree.
"""

from pathlib import Path

from fit_jax.doors import take_option
from fit_jax.errors import InputError, run_command

OPTIONS = {
    "import": ("from", "to", "quantize", "dtype"),
    "export-merged": ("from", "to", "dtype"),
    "export-adapter": ("from", "to"),
    "check": ("model",),
}
CHOICES = {"quantize": ("none", "int8", "nf4"), "dtype": ("float32", "bfloat16", "float16")}


def main(arguments: list[str]) -> int:
    """Runs one conversion."""
    if not arguments or {"-h", "--help"} & set(arguments):
        print(__doc__)
        return 0
    action, rest = arguments[0], arguments[1:]
    if action not in OPTIONS:
        raise InputError(f"convert {action}: there is no such action; choose among {', '.join(OPTIONS)}")
    given = {}
    for name in OPTIONS[action]:
        given[name], rest = take_option(rest, name)
        if not given[name] and name not in CHOICES:
            raise InputError(f"convert {action}: --{name} is missing")
        if given[name] is not None and given[name] not in CHOICES.get(name, (given[name],)):
            raise InputError(f"--{name} {given[name]}: choose among {', '.join(CHOICES[name])}")
    if rest:
        raise InputError(f"convert {action}: {rest[0]!r} is no option; there are --{', --'.join(OPTIONS[action])}")
    return _check(given["model"]) if action == "check" else _convert(action, given)


def _convert(action: str, given: dict[str, str | None]) -> int:
    from fit_jax import conversion

    source, target = given["from"], Path(given["to"])
    if action == "import":
        model = conversion.import_model(source, target, given["quantize"] or "none", given["dtype"])
        print(f"{target}: {model.family}, {model.layers} layers, width {model.width}, vocabulary {model.vocab_size}")
    elif action == "export-merged":
        agreement = conversion.export_merged(source, target, given["dtype"])
        print(f"{target}: logits differ by at most {agreement.largest:.3g} from the unmerged model")
    else:
        conversion.export_adapter(source, target)
        print(f"{target}: adapter written; read back, it is the one that was trained")
    return 0


def _check(name: str) -> int:
    from fit_jax.conversion_check import check_parity, print_parity

    rows = check_parity(name)
    print_parity(rows)
    return 0 if all(row.passed for row in rows) else 1


if __name__ == "__main__":
    run_command(main)

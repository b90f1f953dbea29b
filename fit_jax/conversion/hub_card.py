"""A run's card as the hub shows it: by the library of what was uploaded, with its licence and the code that asks it."""

import re
from collections.abc import Sequence
from keyword import iskeyword
from pathlib import Path
from typing import Any

import yaml

from fit_jax.errors import InputError
from fit_jax.focus import prompt_file
from fit_jax.focus.example import Example
from fit_jax.foreign import exists, read_text
from fit_jax.hub import local_folder
from fit_jax.markdown import as_block, as_code
from fit_jax.runs.run import Run

_README = "README.md"
# What a card's front matter says of a licence; the last two where it is none that the hub knows.
_LICENCE = ("license", "license_name", "license_link")

_LOAD_MERGED = """from huggingface_hub import hf_hub_download
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("{name}")
"""
_LOAD_ADAPTER = """from huggingface_hub import hf_hub_download
from peft import AutoPeftModelForCausalLM
from transformers import AutoTokenizer

model = AutoPeftModelForCausalLM.from_pretrained("{name}")
"""
_ASK = """tokenizer = AutoTokenizer.from_pretrained("{name}")
asked = {{}}
exec(open(hf_hub_download("{name}", "prompt.py")).read(), asked)

prompt = asked["build_prompt"]({instruction!r}, {texts})
ids = tokenizer(prompt, add_special_tokens=False, return_tensors="pt")
end = tokenizer.convert_tokens_to_ids(asked["END"])
written = model.generate(**ids, max_new_tokens=16, do_sample=False, eos_token_id=end)
print(tokenizer.decode(written[0, ids["input_ids"].shape[1] :], skip_special_tokens=True).strip())
"""


def hub_card(card: str, run: Run, name: str, adapter: bool) -> str:
    """The card of a repository.

    Args:
        card: The run's card (`fit_jax.evaluation.model_card`).
        run: The run.
        name: The repository, `USER/NAME`.
        adapter: Whether the adapter alone is uploaded, for peft; else the whole model, for transformers.
    """
    front, text = _parts(card)
    base = run.model.pretrained
    licence = {} if base is None else _licence_of(base)
    if base is not None and exists(Path(base)):
        front.pop("base_model", None)  # a folder of this machine, which the hub would refuse
    front |= licence | {"library_name": "peft" if adapter else "transformers"}
    for index in front.get("model-index", []):
        index["name"] = name.partition("/")[2]
    head, mark, rest = text.partition("## How to ask")
    stated = _about_licence(base, licence)
    return f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n{head}{stated}{_usage(run, name, adapter)}{mark}{rest}"


def _parts(card: str) -> tuple[dict[str, Any], str]:
    """The front matter of a card, {} where it has none that can be read, and the text below."""
    found = re.match(r"---\r?\n(.*?\n)---\r?\n", card, re.DOTALL)
    try:
        front = yaml.safe_load(found[1]) if found else None
    except (yaml.YAMLError, ValueError, RecursionError):
        front = None
    return (front if isinstance(front, dict) else {}), card[found.end() :] if found else card


def _licence_of(base: str) -> dict[str, str]:
    """What the card of a base model says of its licence; {} where it has no card, or that says nothing."""
    try:
        front, _ = _parts(read_text(local_folder(base, (_README,), "model") / _README))
    except InputError:
        return {}
    said = {field: front.get(field) for field in _LICENCE}
    found = {field: text for field, text in said.items() if isinstance(text, str)}
    return found if "license" in found else {}


def _about_licence(base: str | None, licence: dict[str, str]) -> str:
    if licence:
        said = f"That of the base model, as its card says: {as_code(licence.get('license_name', licence['license']))}."
    else:
        missing = "no card of the base model was found that says one"
        why = "the model was trained from scratch" if base is None else missing
        said = f"None is stated here: {why}."
    return f"## Licence\n\n{said} The data of the training may have terms of their own.\n\n"


def _usage(run: Run, name: str, adapter: bool) -> str:
    """The exact prompt, and the code that loads and asks the model."""
    text = run.encoder.text
    instruction = next(iter(prompt_file.focus_instructions(text).values()), "")
    blank = Example("prompt", {slot: f"{{{slot}}}" for slot in text.slots}, (), 0, {})
    load = (_LOAD_ADAPTER if adapter else _LOAD_MERGED) + _ASK
    code = load.format(name=name, instruction=instruction, texts=_as_arguments(text.slots))
    prompt = as_block(run.encoder.render(blank, instruction) + "\n", "")
    return (
        "## Use\n\n`prompt.py` builds the prompts that the model was trained on, this one for instance:\n\n"
        f"{prompt}\n\n{as_block(code, 'python')}\n\n"
    )


def _as_arguments(slots: Sequence[str]) -> str:
    """Arguments of `build_prompt` for an input's texts, some of whose names may be none in Python."""
    if all(slot.isascii() and slot.isidentifier() and not iskeyword(slot) for slot in slots):
        return ", ".join(f'{slot}="..."' for slot in slots)
    return "**{" + ", ".join(f'{slot!r}: "..."' for slot in slots) + "}"

"""`prompt.py`: how a model is asked, as a few lines of Python that need nothing, for whoever serves it elsewhere.

Of a mixture there is one for each task, `prompt_TASK.py`.
"""

from collections.abc import Mapping
from pprint import pformat

from fit_jax.focus.example import TaskText
from fit_jax.focus.instructions import first_instruction
from fit_jax.focus.prompts import PromptEncoder
from fit_jax.focus.spec import FOCUS_TYPES, spec_for

NAME = "prompt.py"

_FILE = '''"""The prompts that this model was trained on, for tokenizers called with add_special_tokens=False."""

# The answer ends in END.
START, END, CUE = {start!r}, {end!r}, {cue!r}
TASK, INPUT = {instruction!r}, {input!r}
# One paraphrase of each focus instruction; "" asks without any.
INSTRUCTIONS = {instructions}
# Names of the texts that make an input; those that are no names in Python go as **{{"a name": "..."}}.
TEXTS = {texts!r}


def build_prompt(instruction="", /, **texts):
    """The prompt for the texts that TEXTS names under a focus instruction."""
    if texts.keys() != set(TEXTS):
        raise TypeError(f"build_prompt() takes a focus instruction, then by name these texts: {{', '.join(TEXTS)}}")
    lines = (TASK, {order})
    return {start_of} + "\\n".join(line.strip() for line in lines if line.strip()) + CUE
'''
# In the place of START where an instruction is the system turn.
_SYSTEM = "(({before!r} + instruction.strip() + {after!r}) if instruction.strip() else START)"


def encoders(encoder: PromptEncoder) -> dict[str, PromptEncoder]:
    """The encoder of each task by the name of the file that says how to ask it."""
    of_tasks = {f"prompt_{name}.py": encoder.of_task(name) for name in encoder.text.parts}
    return of_tasks or {NAME: encoder}


def prompt_file(encoder: PromptEncoder) -> str:
    """The source of a module whose `build_prompt` gives the text of the prompts that an encoder encodes.

    The text's tokens, without any that the tokenizer would add, are the encoder's.
    """
    text, frame = encoder.text, encoder.frame
    lines = {"before": "instruction, INPUT.format_map(texts)", "after": "INPUT.format_map(texts), instruction"}
    start_of = "START"
    if encoder.place == "system":
        before, after = encoder.system_turn
        start_of = _SYSTEM.format(before=before, after=after)
    return _FILE.format(
        start=frame.start,
        end=frame.end,
        cue=frame.cue,
        instruction=text.instruction,
        input=text.input_template,
        instructions=pformat(focus_instructions(text), width=110, sort_dicts=False),
        texts=text.slots,
        order=lines.get(encoder.place, "INPUT.format_map(texts)"),
        start_of=start_of,
    )


def focus_instructions(text: TaskText) -> Mapping[str, str]:
    """The first paraphrase of every focus instruction of a task, by its specification."""
    specs = [spec_for(focus, feature) for feature in text.spurious for focus in FOCUS_TYPES[1:]]
    return {str(spec): first_instruction(text, spec) for spec in specs}

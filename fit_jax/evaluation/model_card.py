"""`MODEL_CARD.md`: what the model is, what it was trained on, and how well it follows focus instructions."""

from collections.abc import Sequence

import yaml

from fit_jax.config import Config
from fit_jax.config_files import dump_config
from fit_jax.data.task import Task
from fit_jax.evaluation.queries import Prediction
from fit_jax.evaluation.result_summary import summary
from fit_jax.focus.instructions import first_instruction
from fit_jax.focus.spec import FOCUS_TYPES, spec_for
from fit_jax.markdown import as_block, as_code, as_text

METHODS = {
    "fit": "focus instruction tuning: focus labels, with the focus instruction in the prompt",
    "sft_y": "supervised fine-tuning on the true labels, without focus instructions",
    "sft_y_focus": "supervised fine-tuning on focus labels, without focus instructions",
    "poe": "product of experts: true labels, against a model of the spurious features alone, without instructions",
    "group_dro": "group DRO: true labels, the worst group's loss, without focus instructions",
}
# By whether each question has answers of its own.
UNSEEN = {
    False: "Which label is tied to a spurious value is learnt from the training data alone: focus on a value that "
    "training never showed can do no better than chance.",
    True: "Each question has answers of its own. Focus on a feature that training never showed can be followed as far "
    "as the base model knows what it suggests: on the unseen features of BBQ the paper reports 82 to 84 % for its "
    "pretrained models.",
}
ANSWERS = {
    False: "Answers were chosen among the task's candidates, not generated freely.",
    True: "Answers were generated freely and matched to the task's candidates.",
}


def model_card(config: Config, task: Task, predictions: Sequence[Prediction]) -> str:
    """The card in the Hugging Face form: YAML front matter, then Markdown.

    Args:
        config: The run that made the model.
        task: What it was trained on and asked about.
        predictions: Its evaluation.
    """
    base = config.model.pretrained
    front = {"tags": ["focus-instruction-tuning", "fit_jax", config.task.name], "pipeline_tag": "text-generation"}
    if base:
        front = {"base_model": base, **front}
    if config.lora.rank:
        front["library_name"] = "peft"
    origin = (
        as_code(base)
        if base
        else f"a decoder of {config.model.layers} layers and width {config.model.width}, from scratch"
    )
    method = METHODS.get(config.train.method, as_code(config.train.method))
    how = f"LoRA of rank {config.lora.rank}, alpha {config.lora.alpha:g}" if config.lora.rank else "all parameters"
    features = ", ".join(f"{as_code(key)} ({as_text(name)})" for key, name in task.text.spurious.items())
    parts = [
        "---\n" + yaml.safe_dump(front, sort_keys=False) + "---",
        f"# {as_text(config.task.name)}: a model that follows focus instructions",
        f"- Base model: {origin}\n- Trained: {how}\n- Method: {method}\n"
        f"- Task: {as_text(task.text.instruction)}\n- Core feature: {as_text(task.text.core)}\n"
        f"- Spurious features: {features}\n"
        f"- Training examples: {len(task.splits['train'].examples)}\n- Seed: {config.seed}",
        "## How to ask",
        f"The focus instruction stands {config.focus.place} the input, for instance:",
        _instructions(task),
        "## Limits",
        UNSEEN[task.splits["validation"].examples[0].own_answers],
        ANSWERS[any(p.meant is not None for p in predictions)],
        summary("Focus accuracy", predictions, task).replace("\n#", "\n##").replace("# Focus", "## Focus", 1),
        "## Configuration",
        as_block(dump_config(config), "yaml"),
    ]
    return "\n\n".join(parts) + "\n"


def _instructions(task: Task) -> str:
    specs = [spec_for(focus, feature) for feature in task.features[:1] for focus in FOCUS_TYPES[1:]]
    return "\n".join(f"- {as_code(str(spec))}: {as_text(first_instruction(task.text, spec))}" for spec in specs)

"""`MODEL_CARD.md`: what the model is, what it was trained on, and how well it follows focus instructions."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import yaml

from fit_jax.config import Config
from fit_jax.config_files import dump_config
from fit_jax.data.dataset_cards import ORIGINS
from fit_jax.data.splits import Split
from fit_jax.data.task import Task
from fit_jax.evaluation.metrics import main_set, pooled
from fit_jax.evaluation.queries import Prediction
from fit_jax.evaluation.result_summary import summary
from fit_jax.evaluation.result_tables import PARAPHRASE_NAMES
from fit_jax.files import asked_name
from fit_jax.focus.instructions import first_instruction
from fit_jax.focus.spec import FOCUS_TYPES, spec_for
from fit_jax.markdown import as_block, as_code, as_text
from fit_jax.tables import Table

METHODS = {
    "fit": "focus instruction tuning: focus labels, with the focus instruction in the prompt",
    "sft_y": "supervised fine-tuning on the true labels, without focus instructions",
    "sft_y_focus": "supervised fine-tuning on focus labels, without focus instructions",
    "poe": "product of experts: true labels, beside a model that knows the bias alone, without focus instructions",
    "group_dro": "group DRO: true labels, the worst group's loss, without focus instructions",
    "group_balanced": "true labels, each group as often as the others, without focus instructions",
    "jtt": "just train twice: true labels, examples that a first model got wrong repeated, without focus instructions",
    "dfr": "DFR: true labels, the last layer trained again on balanced groups, without focus instructions",
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


class DataSource(NamedTuple):
    """Where a run's data came from, as far as it is known.

    Attributes:
        files: Names of the files of data of one's own.
        hub: The data set of the hub that they are.
        prints: Fingerprints by the split whose examples they are of.
    """

    files: tuple[str, ...] = ()
    hub: str | None = None
    prints: Mapping[str, str] = {}


def model_card(
    config: Config,
    task: Task,
    predictions: Sequence[Prediction],
    source: DataSource = DataSource(),  # noqa: B008
    came_as: str | None = None,
) -> str:
    """The card in the Hugging Face form: YAML front matter, then Markdown.

    Args:
        config: The run that made the model.
        task: What it was trained on and asked about.
        predictions: Its evaluation.
        source: Where the data came from.
        came_as: How the base's files held its weights quantised; None where they were plain.
    """
    hubs = [source.hub] if source.hub else []
    parts = [
        *card_head(config, hubs, model_index(config, task, predictions, source)),
        f"{how_made(config, came_as)}\n{about_task(task)}\n"
        f"- Training examples: {len(task.splits['train'].examples)}\n- Seed: {seeds(config)}",
        "## How to ask",
        f"{stands(config)}, for instance:",
        example_instructions(task),
        about_data(config, task, source),
        "## Limits",
        UNSEEN[task.splits["validation"].examples[0].own_answers],
        ANSWERS[any(p.meant is not None for p in predictions)],
        summary("Focus accuracy", predictions, task).replace("\n#", "\n##").replace("# Focus", "## Focus", 1),
        "## Configuration",
        as_block(dump_config(replace(config, run_dir=asked_name(config.run_dir))), "yaml"),
    ]
    return "\n\n".join(parts) + "\n"


def stands(config: Config) -> str:
    """Where the focus instruction stands, as the beginning of a sentence."""
    place = config.focus.place
    return f"The focus instruction {'is the system turn' if place == 'system' else f'stands {place} the input'}"


def seeds(config: Config) -> str:
    """The run's seed, and those of the data and of the questions where they have their own."""
    own = {"of the data": config.task.seed, "of the paraphrases asked": config.evaluation.seed}
    return "; ".join([str(config.seed), *(f"{name} {seed}" for name, seed in own.items() if seed is not None)])


def card_head(config: Config, hubs: Sequence[str], index: Sequence[Mapping[str, Any]]) -> list[str]:
    """The front matter and the title: what the hub reads, with the data sets of the hub and the results."""
    base = config.model.pretrained
    front: dict[str, Any] = {"base_model": base} if base else {}
    front["tags"] = ["focus-instruction-tuning", "fit_jax", config.task.name]
    front["pipeline_tag"] = "text-generation"
    if hubs:
        front["datasets"] = list(hubs)
    front["model-index"] = list(index)
    does = "tuned to follow focus instructions" if (method := config.train.method) == "fit" else f"trained by {method}"
    return [
        "---\n" + yaml.safe_dump(front, sort_keys=False) + "---",
        f"# {as_text(config.task.name)}: a model {as_text(does)}",
    ]


def how_made(config: Config, came_as: str | None) -> str:
    """The lines on the base model, what was trained of it, and by which method; `came_as` as `model_card`'s."""
    base = config.model.pretrained
    origin = (
        as_code(base)
        if base
        else f"a decoder of {config.model.layers} layers and width {config.model.width}, from scratch"
    )
    method = METHODS.get(config.train.method, as_code(config.train.method))
    how = f"LoRA of rank {config.lora.rank}, alpha {config.lora.alpha:g}" if config.lora.rank else "all parameters"
    origin += f", which came quantised ({came_as}) and was read as plain weights" if came_as else ""
    return f"- Base model: {origin}\n- Trained: {how}\n- Method: {method}"


def about_task(task: Task) -> str:
    """The lines on a task and its features."""
    features = ", ".join(f"{as_code(key)} ({as_text(name)})" for key, name in task.text.spurious.items())
    return (
        f"- Task: {as_text(task.text.instruction)}\n- Core feature: {as_text(task.text.core)}\n"
        f"- Spurious features: {features}"
    )


def example_instructions(task: Task) -> str:
    """The first paraphrase of each focus type, for the task's first feature."""
    specs = [spec_for(focus, feature) for feature in task.features[:1] for focus in FOCUS_TYPES[1:]]
    return "\n".join(f"- {as_code(str(spec))}: {as_text(first_instruction(task.text, spec))}" for spec in specs)


def model_index(
    config: Config, task: Task, predictions: Sequence[Prediction], source: DataSource
) -> list[dict[str, Any]]:
    """The focus accuracies of the main table, as the hub reads results."""
    from huggingface_hub import EvalResult
    from huggingface_hub.repocard_data import eval_results_to_model_index

    cells = pooled(predictions)
    paraphrases = main_set(key[0] for key in cells)
    results = [
        EvalResult(
            task_type="text-generation",
            task_name="following focus instructions",
            dataset_type=source.hub or config.task.name,
            dataset_name=task.text.name,
            dataset_split=split,
            metric_type="accuracy",
            metric_name=f"focus accuracy of {focus}, {PARAPHRASE_NAMES[paraphrases]}",
            metric_value=round(cell.accuracy, 4),
        )
        for (asked, split, focus), cell in cells.items()
        if asked == paraphrases
    ]
    return eval_results_to_model_index(task.text.name, results)


def about_data(config: Config, task: Task, source: DataSource) -> str:
    """Where the data came from, and what each split of them comes to."""
    home = ORIGINS.get(config.task.name)
    files = [as_code(name) for name in ([source.hub] if source.hub else source.files)]
    known = ", ".join(files) or (as_text(home.home) if home else "not known here")
    licence = as_text(home.licence) if home else "not stated here"
    left_out = "".join(f"\n- Rows left out, {as_text(why)}: {count:,}" for why, count in task.dropped.items())
    rows = [
        (name, f"{len(split.examples):,}", _rho(split), source.prints.get(name, "–"))
        for name, split in task.splits.items()
    ]
    caption = (
        "rho = P(y = y_s | s) as it came out over all values of a feature, in flipped splits of the swapped label; the "
        "table “The data” below has each value. Where the fingerprint is the same, so are the examples and their order."
    )
    table = Table("Splits", caption, ("split", "examples", "rho realised", "fingerprint"), rows)
    splits = table.markdown().replace("## ", "### ", 1)
    return f"## Data\n\n- From: {known}\n- Licence of the texts: {licence}{left_out}\n\n{splits}"


def _rho(split: Split) -> str:
    found = []
    for feature, values in split.rho.items():
        count = sum(rho.count for rho in values.values())
        mean = sum(rho.realised * rho.count for rho in values.values()) / max(count, 1)
        found.append(f"{feature} {mean:.3f}")
    return ", ".join(found) or "–"

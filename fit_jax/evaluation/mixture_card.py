"""`MODEL_CARD.md` of a mixture: what its model was trained on, task by task, and how well it follows on each."""

from collections.abc import Mapping
from dataclasses import replace

from fit_jax.config import Config
from fit_jax.config_files import dump_config
from fit_jax.data.task import Task
from fit_jax.evaluation.mixture_report import Answers, mixture_tables
from fit_jax.evaluation.model_card import (
    ANSWERS,
    UNSEEN,
    DataSource,
    about_data,
    about_task,
    card_head,
    example_instructions,
    how_made,
    model_index,
    seeds,
    stands,
)
from fit_jax.files import asked_name
from fit_jax.markdown import as_block, as_text


def mixture_card(
    config: Config,
    configs: Mapping[str, Config],
    task: Task,
    predictions: Answers,
    sources: Mapping[str, DataSource],
    came_as: str | None = None,
) -> str:
    """The card in the Hugging Face form: YAML front matter, then Markdown.

    Args:
        config: The run that made the model.
        configs: By task, the run as one of that task.
        task: The mixture.
        predictions: The answers by task.
        sources: Where the data came from, by task.
        came_as: How the base's files held its weights quantised; None where they were plain.
    """
    index = [
        entry
        for name, part in task.parts.items()
        for entry in model_index(configs[name], part, predictions[name], sources[name])
    ]
    hubs = [source.hub for source in sources.values() if source.hub]
    said = "\n".join(f"- {as_text(note)}" for note in task.notes)
    own_answers = {part.splits["validation"].examples[0].own_answers for part in task.parts.values()}
    written = {any(p.meant is not None for p in given) for given in predictions.values()}
    parts = [
        *card_head(config, hubs, index),
        f"{how_made(config, came_as)}\n{said}\n- Seed: {seeds(config)}",
        "## How to ask",
        f"{stands(config)}, for instance:",
    ]
    for name, part in task.parts.items():
        parts += [f"### Task {as_text(name)}", about_task(part), example_instructions(part)]
    for name, part in task.parts.items():
        data = about_data(configs[name], part, sources[name]).replace("\n### ", "\n#### ")
        parts.append(data.replace("## Data", f"## Data of {as_text(name)}", 1))
    parts += [
        "## Limits",
        *(UNSEEN[kind] for kind in sorted(own_answers)),
        *(ANSWERS[kind] for kind in sorted(written)),
    ]
    parts += [table.markdown() for table in mixture_tables(predictions, task)]
    parts += [
        "## Configuration",
        as_block(dump_config(replace(config, run_dir=asked_name(config.run_dir))), "yaml"),
    ]
    return "\n\n".join(parts) + "\n"

"""TFDS builders of the tasks, which write their splits as ArrayRecord.

`python -m fit_jax.data build` runs them; `tfds build --imports=fit_jax.data.builders --file_format=array_record fit_ss`
does the same where TensorFlow is installed. What they write is read without TensorFlow by `tfds.data_source` and by
the task source `array_record`.
"""

import dataclasses
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from fit_jax.config import TaskConfig
from fit_jax.data.array_record import VERSION, config_name
from fit_jax.data.dataset_cards import card, origin
from fit_jax.data.kept_task import plain_rho
from fit_jax.data.task import Task
from fit_jax.data.tasks import TASKS, build_task
from fit_jax.errors import InputError
from fit_jax.files import make_folder, write_text
from fit_jax.focus.example import Example
from fit_jax.foreign import named


@dataclasses.dataclass(eq=False, kw_only=True)
class FitConfig(tfds.core.BuilderConfig):
    """What to build: a task config and a seed."""

    task: TaskConfig = dataclasses.field(default_factory=TaskConfig)
    seed: int = 0


class FitBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Writes the splits of one task, in their order."""

    VERSION = tfds.core.Version(VERSION)
    TASK: ClassVar[str]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Names the default config after the task."""
        cls.BUILDER_CONFIGS = [FitConfig(name="default", task=TaskConfig(name=cls.TASK))]
        super().__init_subclass__(**kwargs)

    def __init__(self, *, task: TaskConfig | None = None, **kwargs: Any) -> None:
        """`task` is the config's task config with the place where the source files lie."""
        self._task = task
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        source = origin(self.TASK)
        text = tfds.features.Text()
        spurious = {"feature": text, "value": text, "label": np.int64}
        return tfds.core.DatasetInfo(
            builder=self,
            description=f"Splits of the fit_jax task {self.TASK} for focus instruction tuning.",
            homepage=source.home,
            citation=source.citation,
            license=source.licence,
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(),
            features=tfds.features.FeaturesDict(
                {
                    "uid": text,
                    "slots": tfds.features.Sequence({"name": text, "text": text}),
                    "candidates": tfds.features.Sequence(text),
                    "label": np.int64,
                    "spurious": tfds.features.Sequence(spurious),
                    "slices": tfds.features.Sequence({"name": text, "value": text}),
                    "own_answers": np.bool_,
                    "cluster": text,
                }
            ),
        )

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        del dl_manager  # the files are found through FIT_JAX_DATA, the task config or the hub
        config = self.builder_config
        assert isinstance(config, FitConfig)
        task = build_task(self._task or config.task, config.seed)
        _metadata(self).update(_of_task(task))
        return {name: _records(split.examples) for name, split in task.splits.items()}

    def _generate_examples(self, **kwargs: Any) -> Iterator[tuple[int, dict[str, Any]]]:
        raise NotImplementedError  # `_split_generators` returns the iterators themselves


# TFDS knows a builder by its class's name: the task `bbq_nlg` is built by FitBbqNlg, as the data set `fit_bbq_nlg`.
BUILDERS: dict[str, type[FitBuilder]] = {
    task: type(f"Fit{task.title().replace('_', '')}", (FitBuilder,), {"TASK": task, "__doc__": f"Builder of `{task}`."})
    for task in TASKS
}


def build_records(config: TaskConfig, seed: int, out: Path) -> Path:
    """Writes a task's splits as a TFDS data set in ArrayRecord format, with its card.

    Returns:
        The data set's folder. A data set that is already there is left as it is.

    Raises:
        InputError: The task cannot be built, or the folder not written to.
    """
    if config.source == "array_record":
        raise InputError("task.source array_record: records are built from `files` or from the `hub`")
    if config.name not in BUILDERS:
        raise InputError(f"task.name: there is no task {config.name!r}; the tasks are {', '.join(BUILDERS)}")
    make_folder(out)
    tfds.disable_progress_bar()
    logging.getLogger("absl").setLevel(logging.ERROR)  # it warns that a config is one's own
    name = config_name(config, seed)
    wanted = name if name == "default" else FitConfig(name=name, task=config, seed=seed)
    builder = BUILDERS[config.name](task=config, config=wanted, data_dir=str(out), file_format="array_record")
    try:
        builder.download_and_prepare()
    except FileExistsError as error:
        raise InputError(
            f"{named(out)}: another process has written the same data set there meanwhile; use it, or start again"
        ) from error
    folder = Path(builder.data_dir)
    if not (folder / "README.md").exists():
        write_text(folder / "README.md", _metadata(builder)["card"])
    return folder


def _metadata(builder: FitBuilder) -> dict[str, Any]:
    metadata = builder.info.metadata
    assert isinstance(metadata, dict), "made by `_info`"
    return metadata


def _of_task(task: Task) -> dict[str, Any]:
    """What a task is besides its examples, as plain JSON."""
    return {
        "text": dataclasses.asdict(task.text),
        "rho": {name: plain_rho(split.rho) for name, split in task.splits.items()},
        "correlation": {name: dict(split.correlation) for name, split in task.splits.items() if split.correlation},
        "notes": list(task.notes),
        "dropped": dict(task.dropped),
        "card": card(task),
    }


def _records(examples: Sequence[Example]) -> Iterator[tuple[int, dict[str, Any]]]:
    for number in range(len(examples)):
        example = examples[number]
        yield (
            number,
            {
                "uid": example.uid,
                "slots": [{"name": name, "text": text} for name, text in example.slots.items()],
                "candidates": list(example.candidates),
                "label": example.label,
                "spurious": [{"feature": f, "value": v, "label": y} for f, (v, y) in example.spurious.items()],
                "slices": [{"name": name, "value": value} for name, value in example.slices.items()],
                "own_answers": example.own_answers,
                "cluster": example.cluster,
            },
        )

"""TFDS builders of the tasks, which write their splits as ArrayRecord.

`python -m fit_jax.data build` runs them; `tfds build --imports=fit_jax.data.builders --file_format=array_record fit_ss`
does the same where TensorFlow is installed. What they write is read without TensorFlow by `tfds.data_source` and by
the task source `array_record`.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from fit_jax.config import TaskConfig
from fit_jax.data.dataset_cards import card, origin
from fit_jax.data.tasks import Task, build_task
from fit_jax.focus.example import Example

# Where the data lie and how they are read does not change what is built.
_PLACE_FIELDS = ("data_dir", "source", "malformed")


def dataset_name(task: str) -> str:
    """Name of a task's TFDS data set."""
    return f"fit_{task}"


def config_name(config: TaskConfig, seed: int) -> str:
    """Name of the TFDS config that holds a task's splits: `default`, or one that tells the task config and seed."""
    fields = {k: v for k, v in dataclasses.asdict(config).items() if k not in _PLACE_FIELDS}
    plain = {k: v for k, v in dataclasses.asdict(TaskConfig(name=config.name)).items() if k not in _PLACE_FIELDS}
    if fields == plain and seed == 0:
        return "default"
    digest = hashlib.blake2b(json.dumps(fields, sort_keys=True).encode(), digest_size=4).hexdigest()
    return f"seed{seed}_{digest}"


@dataclasses.dataclass(eq=False, kw_only=True)
class FitConfig(tfds.core.BuilderConfig):
    """What to build: a task config and a seed."""

    task: TaskConfig = dataclasses.field(default_factory=TaskConfig)
    seed: int = 0


class FitBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Writes the splits of one task, in their order."""

    VERSION = tfds.core.Version("1.0.0")
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
                }
            ),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator[tuple[int, dict]]]:
        del dl_manager  # the files are found through FIT_JAX_DATA, the task config or the hub
        task = build_task(self._task or self.builder_config.task, self.builder_config.seed)
        self.info.metadata.update(metadata(task))
        return {name: _records(split.examples) for name, split in task.splits.items()}

    def _generate_examples(self, **kwargs: Any) -> Iterator[tuple[int, dict]]:
        raise NotImplementedError  # `_split_generators` returns the iterators themselves


class FitDemo(FitBuilder):
    """Builder of the task `demo`."""

    TASK = "demo"


class FitSs(FitBuilder):
    """Builder of the task `ss`."""

    TASK = "ss"


class FitSmnli(FitBuilder):
    """Builder of the task `smnli`."""

    TASK = "smnli"


class FitShans(FitBuilder):
    """Builder of the task `shans`."""

    TASK = "shans"


class FitBbq(FitBuilder):
    """Builder of the task `bbq`."""

    TASK = "bbq"


class FitBbqNlg(FitBuilder):
    """Builder of the task `bbq_nlg`."""

    TASK = "bbq_nlg"


class FitJsonl(FitBuilder):
    """Builder of the task `jsonl`, the user's own data; it needs a config that names the YAML file."""

    TASK = "jsonl"


BUILDERS = {builder.TASK: builder for builder in (FitDemo, FitSs, FitSmnli, FitShans, FitBbq, FitBbqNlg, FitJsonl)}


def metadata(task: Task) -> dict[str, Any]:
    """What a task is besides its examples, as plain JSON."""
    return {
        "text": dataclasses.asdict(task.text),
        "rho": {name: split.rho for name, split in task.splits.items()},
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
            },
        )

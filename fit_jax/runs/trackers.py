"""Runs in Weights & Biases, MLflow and Trackio; what fails there is reported once and never stops a run.

Where each keeps its runs is for its own environment variables to say (`WANDB_MODE`, `MLFLOW_TRACKING_URI`,
`TRACKIO_SPACE_ID` and others). The run's folder remembers by what name each tracker knows it, so that a resumed run
goes on there as well.
"""

import dataclasses
import json
import os
import secrets
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from fit_jax.errors import InputError, reason
from fit_jax.files import write_text
from fit_jax.foreign import exists, is_installed, read_object
from fit_jax.parallel.processes import is_lead
from fit_jax.runs.run import Run
from fit_jax.runs.run_folder import TRACKERS
from fit_jax.training.metrics import scalars

# The project or experiment of a tracker whose environment names none.
_PROJECT = "fit_jax"
_TABLE = "focus_accuracy"
_PARAMETERS_AT_ONCE = 100  # more MLflow refuses
_REMEDY = "move it away, and the trackers begin the run again"

Rows = Sequence[Sequence[Any]]


def check_trackers(names: Collection[str]) -> None:
    """Refuses a tracker whose package is not installed.

    Raises:
        InputError: It is not.
    """
    for name in names:
        if not is_installed(name):
            raise InputError(
                f"train.trackers: {name} is not installed; `pip install '.[{name}]'`, or leave it out of train.trackers"
            )


class Trackers:
    """A run's trackers, on the lead process; on others, and where the config names none, all of this does nothing."""

    def __init__(self, names: Sequence[str], folder: Path, config: Mapping[str, object]) -> None:
        """Nothing is opened yet.

        Args:
            names: As in `train.trackers`.
            folder: The run's folder.
            config: What the run is, by dotted name.
        """
        self._names = list(names)
        self._path = folder / TRACKERS
        self._title = folder.resolve().name
        self._config = config
        self._opened: dict[str, _Tracker] = {}

    def open(self) -> None:
        """Begins the run in every tracker, or goes on with it.

        Raises:
            InputError: The file in which the run's folder remembers their names is damaged.
        """
        waiting = [name for name in self._names if name not in self._opened]
        if not waiting:
            return
        known = dict(read_object(self._path, _REMEDY).values) if exists(self._path) else {}
        for name in waiting:
            self._attempt(name, lambda name=name: self._open(name, known.get(name)))
        known |= {name: tracker.name for name, tracker in self._opened.items()}
        write_text(self._path, json.dumps(known) + "\n")

    def write(self, record: Mapping[str, Any]) -> None:
        """Hands on a record of `metrics.jsonl`."""
        for name, tracker in list(self._opened.items()):
            self._attempt(name, lambda tracker=tracker: tracker.write(scalars(record), record["step"]))

    def write_table(self, header: Sequence[str], rows: Rows) -> None:
        """Hands on the table of focus accuracy; errors as `open`."""
        self.open()
        for name, tracker in list(self._opened.items()):
            self._attempt(name, lambda tracker=tracker: tracker.write_table(header, rows))

    def close(self, failed: bool) -> None:
        """Ends the run in every tracker that was opened."""
        for name, tracker in list(self._opened.items()):
            self._attempt(name, lambda tracker=tracker: tracker.close(failed))
        self._opened.clear()

    def _open(self, name: str, known: str | None) -> None:
        self._opened[name] = _KINDS[name](self._title, known, self._config)

    def _attempt(self, name: str, act: Callable[[], None]) -> None:
        """Does something with a tracker, which is left alone from then on if it fails."""
        try:
            with redirect_stdout(sys.stderr):  # which goes to the run's log
                act()
        except Exception as error:  # each raises what it likes, and none is worth a run
            self._names.remove(name)
            self._opened.pop(name, None)
            print(f"warning: {name} is left out from here on: {reason(error)}", flush=True)


@contextmanager
def tracked(run: Run) -> Iterator[Trackers]:
    """The trackers of a run, opened by its training and closed at the end."""
    names = run.config.train.trackers if is_lead() else ()
    trackers = Trackers(names, run.folder, _described(run))
    try:
        yield trackers
    except BaseException:
        trackers.close(failed=True)
        raise
    trackers.close(failed=False)


def _described(run: Run) -> dict[str, Any]:
    """The resolved config by dotted name."""
    sections = dataclasses.asdict(run.config)
    sections |= {"model": dataclasses.asdict(run.model), "lora": dataclasses.asdict(run.lora)}
    flat = {}
    for section, value in sections.items():
        fields = (
            {f"{section}.{field}": v for field, v in value.items()} if isinstance(value, dict) else {section: value}
        )
        flat.update(fields)
    return flat


class _Tracker(Protocol):
    """One of them; `name` is what it finds the run by when that goes on."""

    name: str

    def __init__(self, title: str, known: str | None, config: Mapping[str, object]) -> None: ...
    def write(self, values: Mapping[str, float], step: int) -> None: ...
    def write_table(self, header: Sequence[str], rows: Rows) -> None: ...
    def close(self, failed: bool) -> None: ...


class _Board:
    """What W&B's library and Trackio's, which is made after it, have in common."""

    _library: Any
    _run: Any

    def write(self, values: Mapping[str, float], step: int) -> None:
        self._run.log(dict(values), step=step)

    def write_table(self, header: Sequence[str], rows: Rows) -> None:
        self._run.log({_TABLE: self._library.Table(columns=list(header), data=[list(row) for row in rows])})


class _Wandb(_Board):
    def __init__(self, title: str, known: str | None, config: Mapping[str, object]) -> None:
        self._library = import_module("wandb")
        self.name = known or secrets.token_hex(4)
        self._run = self._library.init(
            project=os.environ.get("WANDB_PROJECT", _PROJECT),
            name=title,
            id=self.name,
            resume="allow",
            config=dict(config),
            settings=self._library.Settings(console="off", silent=True),
        )

    def close(self, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))


class _MLflow:
    def __init__(self, title: str, known: str | None, config: Mapping[str, object]) -> None:
        library = import_module("mlflow")
        self._metric = library.entities.Metric
        self._client = library.MlflowClient()
        self.name = known or self._begun(library, title, config)
        if known is not None:
            self._client.update_run(known, status="RUNNING")

    def _begun(self, library: Any, title: str, config: Mapping[str, Any]) -> str:
        """The name that MLflow gives to a new run."""
        experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME", _PROJECT)
        found = self._client.get_experiment_by_name(experiment)
        place = found.experiment_id if found else self._client.create_experiment(experiment)
        name = self._client.create_run(place, run_name=title).info.run_id
        parameters = [library.entities.Param(field, str(value)) for field, value in config.items()]
        for start in range(0, len(parameters), _PARAMETERS_AT_ONCE):
            self._client.log_batch(name, params=parameters[start : start + _PARAMETERS_AT_ONCE])
        return name

    def write(self, values: Mapping[str, float], step: int) -> None:
        now = round(time.time() * 1000)
        metrics = [self._metric(name, value, now, step) for name, value in values.items()]
        self._client.log_batch(self.name, metrics=metrics)

    def write_table(self, header: Sequence[str], rows: Rows) -> None:
        content = {"columns": list(header), "data": [list(row) for row in rows]}
        self._client.log_dict(self.name, content, f"{_TABLE}.json")

    def close(self, failed: bool) -> None:
        self._client.set_terminated(self.name, "FAILED" if failed else "FINISHED")


class _Trackio(_Board):
    def __init__(self, title: str, known: str | None, config: Mapping[str, object]) -> None:
        self._library = import_module("trackio")
        self.name = known or f"{title}-{secrets.token_hex(4)}"
        self._run = self._library.init(
            project=os.environ.get("TRACKIO_PROJECT", _PROJECT),
            name=self.name,
            resume="allow",
            config=dict(config),
            embed=False,
        )

    def close(self, failed: bool) -> None:
        self._run.finish()


_KINDS: dict[str, type[_Tracker]] = {"wandb": _Wandb, "mlflow": _MLflow, "trackio": _Trackio}

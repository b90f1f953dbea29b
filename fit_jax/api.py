"""What a Python program does with fit_jax: tune a model, ask it, evaluate it (docs/api.md).

`import fit_jax` gives these names without loading JAX; the modules `fit_jax.train` and `fit_jax.evaluate` are the
commands of those names, so here tuning is `tune` and a model evaluates itself.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

from fit_jax.config import load_config
from fit_jax.data.own_data import read_description
from fit_jax.errors import InputError
from fit_jax.evaluation import result_tables
from fit_jax.evaluation.interactive import FocusAnswer, FocusQuestions, slot_names
from fit_jax.evaluation.metrics import focus_accuracy
from fit_jax.evaluation.queries import Prediction
from fit_jax.files import check_folder_name, make_folder, write_text
from fit_jax.foreign import shown
from fit_jax.runs.evaluating import evaluate_run, evaluation_name
from fit_jax.runs.job import train_and_report
from fit_jax.runs.run import Run, set_up, subject
from fit_jax.runs.run_folder import has_checkpoint, locked, opened_config

if TYPE_CHECKING:
    import pandas

Features = str | Sequence[str] | None
Text = str | Mapping[str, str]


@dataclass(frozen=True)
class Answer:
    """What a model answers to one text under one focus instruction.

    Attributes:
        answer: The most probable candidate.
        probabilities: Of each candidate, given that the answer is one of them.
        instruction: The words of the focus instruction; empty where there is none.
        focus: What is focused on and ignored, as in `focus(core) & ignore(keyword)`.
    """

    answer: str
    probabilities: Mapping[str, float]
    instruction: str
    focus: str


class Scores:
    """The focus accuracies of an evaluation.

    Attributes:
        rows: One mapping for each split, focus type, feature and paraphrase set, as in `focus_accuracy.jsonl`.
        predictions: Every answer.
    """

    def __init__(self, run: Run, predictions: Sequence[Prediction]) -> None:
        """Counts an evaluation's answers."""
        self._run = run
        self.predictions = predictions
        self.rows: list[dict[str, Any]] = focus_accuracy(
            predictions, run.config.train.method, run.config.seed, run.task.text.name
        )

    def to_pandas(self) -> "pandas.DataFrame":
        """The rows as a table."""
        import pandas

        return pandas.DataFrame(self.rows)

    def to_markdown(self) -> str:
        """The report's tables."""
        return result_tables.summary("Focus accuracy", self.predictions, self._run.task)


class FocusModel:
    """A tuned model, ready to be asked.

    Attributes:
        folder: Its run folder.
        features: What can be focused on and ignored, `core` first.
        slots: Names of the texts that make up an input.
    """

    def __init__(
        self,
        run: Run,
        checkpoint: int | Literal["best", "last"] = "best",
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        """Reads a checkpoint of a run, which was opened with `settings`.

        Raises:
            InputError: There is no such checkpoint.
        """
        self._run = run
        self._settings = dict(settings or {})
        self._checkpoint: int | Literal["best", "last"] = checkpoint
        self._subject = subject(run, checkpoint)
        self.folder = run.folder
        self.features = ("core", *run.task.features)
        self.slots = slot_names(run.task.text)

    def ask(
        self, text: Text, focus: Features = None, ignore: Features = None, candidates: Sequence[str] = ()
    ) -> Answer:
        """The answer to a text under one focus instruction, none where neither feature is named.

        Args:
            text: The text, or each text of the input by its name in `slots`.
            focus: Features to focus on, of `features`.
            ignore: Features to ignore.
            candidates: The answers to choose from; the task's own where none are given.

        Raises:
            InputError: An unknown feature, a missing text, or answers that must be given and are not.
        """
        return self.ask_batch([text], focus, ignore, candidates)[0]

    def ask_all(self, text: Text, candidates: Sequence[str] = ()) -> list[Answer]:
        """The answers to a text under each focus type of each feature; otherwise as `ask`."""
        questions = FocusQuestions(self._run.task, None, None, _several(candidates))
        (answers,) = questions.answers(self._subject, [_filled(questions, text)])
        return [_answer(a) for a in answers]

    def ask_batch(
        self, texts: Iterable[Text], focus: Features = None, ignore: Features = None, candidates: Sequence[str] = ()
    ) -> list[Answer]:
        """The answers to many texts, in their order; otherwise as `ask`."""
        questions = FocusQuestions(self._run.task, _names(focus), _names(ignore), _several(candidates))
        filled = [_filled(questions, text) for text in texts]
        return [_answer(a) for (a,) in questions.answers(self._subject, filled)]

    def ask_frame(
        self,
        frame: "pandas.DataFrame",
        focus: Features = None,
        ignore: Features = None,
        candidates: Sequence[str] = (),
    ) -> "pandas.DataFrame":
        """A copy of a table, whose columns hold the texts by their names in `slots`, with columns for the answers.

        Returns:
            The table with `answer` and, for each candidate, `p(CANDIDATE)`.

        Raises:
            InputError: As `ask`, or the table lacks a column.
        """
        if missing := [name for name in self.slots if name not in frame.columns]:
            raise InputError(
                f"the table has no column {missing[0]!r}; its columns must include {', '.join(self.slots)}"
            )
        rows = [dict(zip(self.slots, row)) for row in zip(*(frame[name] for name in self.slots))]
        for number, row in enumerate(rows):
            if empty := [name for name, value in row.items() if not isinstance(value, str)]:
                raise InputError(f"row {number} of the table holds no text in {empty[0]!r}; fill it, or drop the row")
        answers = self.ask_batch(rows, focus, ignore, candidates)
        names = list(answers[0].probabilities) if answers else []
        columns = {f"p({name})": [a.probabilities[name] for a in answers] for name in names}
        return frame.assign(answer=[a.answer for a in answers], **columns)

    def evaluate(self, name: str | None = None, settings: Mapping[str, Any] | None = None) -> Scores:
        """Asks every focus type of every split and writes a report, as `fit-jax evaluate`.

        Args:
            name: The report is kept in `evaluations/NAME` of the run folder; by default named after what differs from
                the training's own report, which is renewed where nothing does.
            settings: Fields of the config by dotted name, such as `{"evaluation.splits": ["low"]}`.

        Raises:
            InputError: A split that the task lacks, a field that cannot change, or a name that is taken.
        """
        asked = {**self._settings, **(settings or {})}
        run = set_up(opened_config(self.folder, _options(asked))) if settings else self._run
        with locked(self.folder):
            name = name or evaluation_name(run, self._checkpoint)
            return Scores(run, evaluate_run(run, self._checkpoint, name).predictions)


def load(
    folder: str | Path,
    checkpoint: int | Literal["best", "last"] = "best",
    settings: Mapping[str, Any] | None = None,
) -> FocusModel:
    """The model of a run folder, wherever that lies now.

    Args:
        folder: A run folder.
        checkpoint: Its best checkpoint by validation, its last, or that of a step.
        settings: Fields of its config that may differ, by dotted name, such as `{"mesh.data": 1}`.

    Raises:
        InputError: The folder holds no trained run, or it does not fit this machine.
    """
    return FocusModel(set_up(opened_config(Path(folder), _options(settings))), checkpoint, settings)


def tune(
    run_dir: str | Path,
    config: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    *,
    rows: Iterable[Mapping[str, Any]] | None = None,
    description: Mapping[str, Any] | None = None,
) -> FocusModel:
    """Trains a model, or what is left of its training, and reports on it, as `fit-jax train`.

    Args:
        run_dir: The run folder; started again with the same one, a run goes on where it was.
        config: A config file, or the name of one that comes with the package, such as `demo`.
        settings: Fields of the config by dotted name, such as `{"train.steps": 100}`.
        rows: Data of one's own: mappings, a pandas DataFrame or a `datasets.Dataset`. They are kept in the run folder.
        description: What the columns of the rows mean: the fields of a description file (docs/own_data.md) but `files`.

    Raises:
        InputError: What the config or the description says is unknown, missing or does not fit together.
        TrainingFailed: The loss is no longer a number.
    """
    folder = Path(run_dir)
    given = [] if config is None else ["--config", str(config)]
    given += [*_options(settings), "--run_dir", str(folder)]
    if (rows is None) != (description is None):
        raise InputError("tune: rows and description belong together; give both, or name a task in the config")
    if rows is not None and description is not None:
        check_folder_name(str(folder), "run_dir")
        given += ["--task.name", "jsonl", "--task.file", str(_keep_source(folder / "source", rows, description))]
    return FocusModel(train_and_report(load_config(given)))


def _keep_source(folder: Path, rows: Iterable[Mapping[str, Any]], description: Mapping[str, Any]) -> Path:
    """Writes rows and their description into a folder; returns the description's path."""
    make_folder(folder)
    in_pandas = getattr(rows, "to_dict", None) if hasattr(rows, "columns") else None
    records = rows if in_pandas is None else in_pandas("records")
    try:
        lines = "".join(json.dumps(_without_gaps(row), default=_plain) + "\n" for row in records)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"tune: rows must hold text, numbers and lists ({shown(str(error))})") from error
    path = folder / "description.yaml"
    try:
        words = yaml.safe_dump({**description, "files": ["rows.jsonl"]}, sort_keys=False)
    except (TypeError, yaml.YAMLError) as error:
        raise InputError(f"tune: description must hold text, numbers and lists ({shown(str(error))})") from error
    for place, content in ((path, words), (folder / "rows.jsonl", lines)):
        if has_checkpoint(folder.parent) and place.is_file() and place.read_text("utf-8") != content:
            raise InputError(
                f"{folder.parent}: holds a run of other rows or another description; give the same ones, or choose "
                "another run_dir"
            )
        write_text(place, content)
    read_description(path)
    return path


def _without_gaps(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row in which null stands for what pandas calls NaN."""
    return {name: None if isinstance(value, float) and isnan(value) else value for name, value in row.items()}


def _plain(value: Any) -> Any:
    """A number of NumPy's as one of Python's."""
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"{type(value).__name__} is neither")


def _options(settings: Mapping[str, Any] | None) -> list[str]:
    """Settings as the command line gives them."""
    return [part for name, value in (settings or {}).items() for part in (f"--{name}", _written(value))]


def _written(value: Any) -> str:
    try:
        return value if isinstance(value, str) else json.dumps(value)
    except (TypeError, ValueError) as error:
        raise InputError(f"settings: {shown(value)} is no value of a field; give text, numbers and lists") from error


def _names(features: Features) -> str:
    """Features as `--focus` and `--ignore` take them."""
    return features if isinstance(features, str) else ",".join(features or ())


def _several(candidates: Sequence[str]) -> Sequence[str]:
    if isinstance(candidates, str):
        raise InputError(f"candidates: {shown(candidates)} is one text; give a list of answers")
    return candidates


def _filled(questions: FocusQuestions, text: Text) -> dict[str, str]:
    if isinstance(text, str):
        return questions.fill(text, ())
    if not isinstance(text, Mapping):
        raise InputError(f"ask: {shown(text)} is no text; give a text, or each text of the input by its name")
    return questions.fill(None, [f"{name}={value}" for name, value in text.items()])


def _answer(found: FocusAnswer) -> Answer:
    shares = dict(zip(found.candidates, map(float, found.probabilities)))
    return Answer(found.answer, shares, found.instruction, str(found.spec))

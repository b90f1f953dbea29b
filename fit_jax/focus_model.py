"""A tuned model that is asked from Python: what `fit_jax.tune` and `fit_jax.load` return."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fit_jax.errors import InputError
from fit_jax.evaluation.attribution import Attributor, pieces
from fit_jax.evaluation.interactive import (
    FocusAnswer,
    FocusQuestions,
    LabelledText,
    asked_spec,
    common_candidates,
    labelled_texts,
)
from fit_jax.evaluation.scoring import Scorer
from fit_jax.focus.example import CORE, Turn
from fit_jax.focus.instructions import first_instruction
from fit_jax.focus_inputs import (
    Features,
    Text,
    answer_list,
    feature_list,
    filled,
    frame_rows,
    option_list,
    probability_column,
    questions_of,
    text_list,
)
from fit_jax.focus_results import Answer, Attribution, Scores
from fit_jax.foreign import shown
from fit_jax.runs.copying import copy_run
from fit_jax.runs.evaluating import evaluate_run, evaluation_name
from fit_jax.runs.parts import one_task
from fit_jax.runs.run import Run, load_model, set_up, subject_of
from fit_jax.runs.run_folder import locked, opened_config

if TYPE_CHECKING:
    import pandas

Checkpoint = int | Literal["best", "last"]

# A text asked alone is padded to a multiple of so many tokens: one program then serves texts of many lengths.
_ALONE = 256


class FocusModel:
    """A tuned model, ready to be asked.

    Attributes:
        folder: Its run folder.
        step: Its checkpoint's step; 0 before tuning.
        features: What can be focused on and ignored, `core` first.
        names: What focus instructions call each feature.
        slots: Names of the texts that make up an input.
        candidates: The answers to choose from; none where each example has its own.
        splits: Names of the task's splits that can be looked at.
    """

    def __init__(
        self,
        run: Run,
        checkpoint: Checkpoint = "best",
        settings: Mapping[str, Any] | None = None,
        trust_code: bool = False,
    ) -> None:
        """Reads a checkpoint of a run, which was opened with `settings` and `trust_code`.

        Raises:
            InputError: There is no such checkpoint, or the run is of several tasks.
        """
        one_task(run, None, "ask them with python -m fit_jax.steer RUN --part NAME")
        self._run = run
        self._settings = dict(settings or {})
        self._trust_code = trust_code
        self._checkpoint: Checkpoint = checkpoint
        self._model = load_model(run, checkpoint)
        self._subject = subject_of(run, self._model)
        self._alone = replace(self._subject, scorer=Scorer(self._model.graphdef, run.mesh, rows=1, step=_ALONE))
        self.folder = run.folder
        self.step = self._model.step
        self.names = {CORE: run.task.text.core, **run.task.text.spurious}
        self.features = tuple(self.names)
        self.slots = run.task.text.slots
        self.candidates = common_candidates(run.task)
        self.splits = tuple(name for name in run.task.splits if name != "train")

    def __repr__(self) -> str:
        """The folder, the task, and what can be focused on."""
        task, features = self._run.task.text.name, ", ".join(self.features)
        return f"FocusModel({str(self.folder)!r}, task {task!r}, step {self.step}, features {features})"

    def ask(
        self,
        text: Text,
        focus: Features = None,
        ignore: Features = None,
        candidates: Sequence[str] = (),
        instruction: str | None = None,
        earlier: Sequence[Answer] = (),
    ) -> Answer:
        """The answer to a text under one focus instruction, none where neither feature is named.

        Args:
            text: The text, or each text of the input by its name in `slots`.
            focus: Features to focus on, of `features`.
            ignore: Features to ignore.
            candidates: The answers to choose from; the task's own where none are given.
            instruction: A focus instruction in one's own words, in place of `focus` and `ignore`.
            earlier: What was answered about the text before, in the same conversation; the last instruction holds.

        Raises:
            InputError: An unknown feature, a missing text, answers that must be given and are not, or earlier ones and
                no instruction now.
        """
        return self.ask_batch([text], focus, ignore, candidates, instruction, earlier)[0]

    def ask_all(self, text: Text, candidates: Sequence[str] = ()) -> list[Answer]:
        """The answers to a text under each focus type of each feature; otherwise as `ask`."""
        questions = FocusQuestions(self._run.task, None, None, answer_list(candidates))
        (answers,) = questions.answers(self._alone, [filled(questions, text)])
        return [_answer(a) for a in answers]

    def ask_batch(
        self,
        texts: Iterable[Text],
        focus: Features = None,
        ignore: Features = None,
        candidates: Sequence[str] = (),
        instruction: str | None = None,
        earlier: Sequence[Answer] = (),
    ) -> list[Answer]:
        """The answers to many texts, in their order; `earlier` stands before each; otherwise as `ask`."""
        questions = questions_of(self._run.task, focus, ignore, candidates, instruction, _turns(earlier))
        inputs = [filled(questions, text) for text in text_list(texts)]
        asked = self._alone if len(inputs) == 1 else self._subject
        return [_answer(a) for (a,) in questions.answers(asked, inputs)]

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
            InputError: As `ask`, or the table lacks a column, has one twice, or has one of those that are added.
        """
        rows = frame_rows(frame, self.slots, answer_list(candidates) or self.candidates)
        answers = self.ask_batch(rows, focus, ignore, candidates)
        names = answer_list(candidates) or self.candidates
        columns = {probability_column(name): [a.probabilities[name] for a in answers] for name in names}
        return frame.assign(answer=[a.answer for a in answers], **columns)

    def attribute(
        self,
        text: Text,
        focus: Features = None,
        ignore: Features = None,
        answer: str | None = None,
        candidates: Sequence[str] = (),
        instruction: str | None = None,
    ) -> Attribution:
        """Which parts of the prompt an answer rests on; the model's own answer where none is named; otherwise as `ask`.

        Raises:
            InputError: As `ask`, or the answer is none of the candidates.
        """
        questions = questions_of(self._run.task, focus, ignore, candidates, instruction)
        slots = filled(questions, text)
        if answer is None:
            ((found,),) = questions.answers(self._alone, [slots])
            answer = found.answer
        if answer not in questions.candidates:
            raise InputError(f"answer {shown(answer)}: is none of {', '.join(map(shown, questions.candidates))}")
        (prompt,) = questions.prompts(self._run.encoder, slots)
        weights = self._attributor.attribute(self._model.params, prompt, questions.candidates.index(answer))
        parts, sums, start = [], [], 0
        for part, tokens in pieces(self._run.encoder.tokenizer, prompt.prompt.tolist()):
            parts.append(part)
            sums.append(float(weights[start : start + tokens].sum()))
            start += tokens
        return Attribution(answer, tuple(parts), tuple(sums))

    @cached_property
    def _attributor(self) -> Attributor:
        return Attributor(self._model.graphdef, self._run.mesh, _ALONE)

    def instruction(self, focus: Features = None, ignore: Features = None) -> str:
        """The words in which `ask` says what to focus on and to ignore; errors as there."""
        task, focus, ignore = self._run.task, feature_list(focus, "focus"), feature_list(ignore, "ignore")
        return first_instruction(task.text, asked_spec(task, focus, ignore))

    def examples(self, split: str, count: int) -> list[LabelledText]:
        """The first texts of a split of the task, with the answers that their features point to.

        Raises:
            InputError: The task has no such split, or has not kept its examples, or `count` is negative.
        """
        return labelled_texts(self._run.task, split, count)

    def copy_to(self, folder: str | Path, examples: int = 25) -> None:
        """Writes a new run folder that holds what asking this model needs, and nothing else.

        Args:
            folder: The folder.
            examples: How many examples of each split it holds.

        Raises:
            InputError: The folder is there already or cannot be written, or the model is the one before tuning.
        """
        copy_run(self._run, self._model, Path(folder), examples)

    def evaluate(self, name: str | None = None, settings: Mapping[str, Any] | None = None) -> Scores:
        """Asks every focus type of every split and writes a report, as `fit-jax evaluate`.

        Args:
            name: The report is kept in `evaluations/NAME` of the run folder; by default named after what differs from
                the training's own report, which is renewed where nothing does.
            settings: Fields of the config by dotted name, such as `{"evaluation.splits": ["low"]}`.

        Raises:
            InputError: A split that the task lacks, a field that cannot change, or a name that is taken.
        """
        if not (name is None or isinstance(name, str)):
            raise InputError(f"evaluate: name: {shown(name)} is no text; settings go by their name, as in settings=...")
        run = self._run
        if settings:
            asked = opened_config(self.folder, option_list(self._settings, settings))
            run = set_up(asked, trust_code=self._trust_code)
        with locked(self.folder):
            name = name or evaluation_name(run, self._checkpoint)
            (evaluation,) = evaluate_run(run, self._checkpoint, name).values()
            return Scores(run, evaluation.predictions)


def _turns(earlier: object) -> list[Turn]:
    if not (isinstance(earlier, Sequence) and all(isinstance(answer, Answer) for answer in earlier)):
        raise InputError(f"earlier: {shown(earlier)} is no list of answers; give what `ask` returned before")
    return [Turn(answer.instruction, answer.answer) for answer in earlier]


def _answer(found: FocusAnswer) -> Answer:
    shares = dict(zip(found.candidates, map(float, found.probabilities)))
    return Answer(found.answer, shares, found.instruction, "" if found.spec is None else str(found.spec))

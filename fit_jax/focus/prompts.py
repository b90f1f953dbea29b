"""Examples and focus instructions to token ids, with the answer boundary carried from construction."""

from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import dataclass, replace
from itertools import chain, product
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from jaxtyping import Int32

from fit_jax.errors import InputError
from fit_jax.focus.conversation_start import ConversationStart
from fit_jax.focus.example import Example, TaskText
from fit_jax.focus.templates import PromptForm, prompt_form

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Tokens = Int32[np.ndarray, " T"]

# Ends and beginnings of lines, one of each kind of character a pre-tokenizer may treat in its own way.
_LINE_ENDS = ("word", "A", "7", ".", '!"', ")", "it's", "é", "中", "🙂", "…", "-", "$", "_")
_LINE_STARTS = ("Focus", "a", "7", '"q', "(b", "'s", "é", "中", "🙂", "…", "-", "$5", "_", ".5")


@dataclass(frozen=True, slots=True)
class EncodedPrompt:
    """A prompt and its candidate answers as token ids; an answer's tokens follow the prompt's.

    Attributes:
        prompt: Everything before the answer.
        answers: Per candidate, in the example's order: the answer's tokens and its end token.
    """

    prompt: Tokens
    answers: tuple[Tokens, ...]

    def __len__(self) -> int:
        """Tokens of a row that holds the prompt with every answer; an answer's end token is predicted, not read."""
        return len(self.prompt) + sum(len(answer) - 1 for answer in self.answers)


class _Pieces(NamedTuple):
    """A prompt as texts that tokenise independently of each other, and its last text with each answer after it."""

    prompt: list[str]
    answered: tuple[str, ...]


class _Layout(NamedTuple):
    """How the prompts of one task are put together.

    Attributes:
        text: The task's words.
        form: The fixed text around them.
        gap: The ends of lines that the form's cue begins with.
        cue: What is left of it.
        cue_parts: The cue is tokenised apart from the text before it.
        conversation: What stands before the last user's text in a conversation.
    """

    text: TaskText
    form: PromptForm
    gap: str
    cue: str
    cue_parts: bool
    conversation: ConversationStart


class Frame(NamedTuple):
    """What stands around the user's text: before it, after it, and the text of the token that ends the answer."""

    start: str
    cue: str
    end: str


def common_prefix(sequences: Sequence[Tokens]) -> int:
    """How many tokens all of one or more sequences begin with alike."""
    first = sequences[0]
    shared = len(first)
    for other in sequences[1:]:
        shared = min(shared, len(other))
        differs = first[:shared] != other[:shared]
        if differs.any():
            shared = int(differs.argmax())
    return shared


class PromptEncoder:
    """Turns examples under focus instructions into prompts, the same for training, evaluation and steering.

    A prompt holds the task instruction, the input and the focus instruction on lines of their own, then the cue; with a
    chat template all of it but the cue is one user turn, and the answer is the assistant's. Where an example was asked
    about before (`Example.earlier`), those turns stand before the instruction, which then stands alone.

    Args:
        tokenizer: Any Hugging Face tokenizer.
        text: The task's words; those of a mixture have each example's.
        place: The focus instruction stands `before` or `after` the input, or is the `system` turn (without a chat
            template the first line); after it, the prompts of one example under several focus instructions share a
            long prefix. In later turns it is the user's text, wherever the first one stood.
        template: `auto` (the tokenizer's chat template where it has one) or `plain`.
        sequence_length: Most tokens of a prompt with all its answers (`len` of an `EncodedPrompt`); None for no limit.
        long_text: An example over `sequence_length`: `error`, or `cut` its longest input texts until it fits.

    Attributes:
        place: As above.
        end_id: The token that ends every answer.
        lines_part: The tokenizer keeps lines apart, so that each is tokenised once however many prompts share it.
        mismatches: Prompts encoded so far whose tokens were no prefix of those of prompt and answer together; their
            common prefix was used, so the answer starts with the tokens that straddle the boundary.
        cuts: Prompts encoded so far whose input was cut.
    """

    def __init__(
        self,
        tokenizer: "PreTrainedTokenizerBase",
        text: TaskText,
        place: Literal["before", "after", "system"] = "after",
        template: Literal["auto", "plain"] = "auto",
        sequence_length: int | None = None,
        long_text: Literal["error", "cut"] = "error",
    ) -> None:
        self.tokenizer = tokenizer
        self.text = text
        self.sequence_length = sequence_length
        self.mismatches = 0
        self.cuts = 0
        self.place = place
        self._long_text = long_text
        self.lines_part = self._part([f"{end}\n" for end in _LINE_ENDS], _LINE_STARTS)
        self._layouts = {each.name: self._layout(each, template) for each in text.each}
        self._form = self._layouts[text.each[0].name].form
        self.end_id = self._form.end_id

    def encode(self, examples: Sequence[Example], instructions: Sequence[str]) -> list[EncodedPrompt]:
        """Encodes each example under the focus instruction beside it; "" is none. One call of the tokenizer in all.

        Raises:
            InputError: An input is longer than `sequence_length` (with `long_text` "error", or where cutting is not
                enough), lacks a slot of the template, or holds the text of a control token.
        """
        encoded = self._encode([self._pieces(e, i) for e, i in zip(examples, instructions, strict=True)])
        limit = self.sequence_length
        if limit is None:
            return encoded
        return [
            prompt if len(prompt) <= limit else self._shortened(example, instruction, len(prompt), limit)
            for prompt, example, instruction in zip(encoded, examples, instructions)
        ]

    def of_task(self, name: str) -> "PromptEncoder":
        """The encoder of one task of a mixture, by its name."""
        one = copy(self)
        one.text = self.text.parts[name]
        one._form = self._layouts[name].form
        return one

    def render(self, example: Example, instruction: str, answer: str | None = None) -> str:
        """The prompt as a person reads it, with the answer and its end token where one is given."""
        layout = self._of(example)
        frame, form = self._frame(layout.form), layout.form
        start, lines = self._last_turn(layout, example, instruction)
        given = "" if answer is None else form.lead + answer + form.trail + frame.end
        return frame.start.removesuffix(form.start) + start + "\n".join(lines) + frame.cue + given

    @property
    def frame(self) -> Frame:
        """The text around the user's own in every prompt of one task."""
        return self._frame(self._form)

    @property
    def system_turn(self) -> tuple[str, str]:
        """In a prompt of one task what stands before a system turn's text and after it; errors as `encode`."""
        before, between = self._layouts[self.text.name].conversation.system()
        return self.frame.start.removesuffix(self._form.start) + before, between

    def _frame(self, form: PromptForm) -> Frame:
        *first, end = self.tokenizer.convert_ids_to_tokens([*form.start_ids, form.end_id])
        return Frame("".join(first) + form.start, form.cue, end)

    def _of(self, example: Example) -> _Layout:
        return self._layouts[self.text.of(example).name]

    def _layout(self, text: TaskText, template: str) -> _Layout:
        form = prompt_form(self.tokenizer, text.cue, template)
        cue = form.cue.lstrip("\n")
        gap = form.cue.removesuffix(cue)
        parts = bool(cue) and self.lines_part and self._part([end + gap for end in _LINE_ENDS], [cue])
        chat = template == "auto" and bool(self.tokenizer.chat_template)
        conversation = ConversationStart(self.tokenizer, form, chat, self._frame(form).end)
        return _Layout(text, form, gap, cue, parts, conversation)

    def _lines(self, words: TaskText, example: Example, instruction: str) -> list[str]:
        """The parts of the user's text that are not empty."""
        try:
            text = words.input_template.format_map(example.slots)
        except (KeyError, IndexError) as error:
            raise InputError(
                f"{example.named}: the input template of task {words.name} uses slot {error}, "
                f"the example has {', '.join(example.slots) or 'none'}"
            ) from error
        focused = (instruction, text) if self.place == "before" else (text, instruction)
        return [line for part in (words.instruction, *focused) if (line := part.strip())]

    def _last_turn(self, layout: _Layout, example: Example, instruction: str) -> tuple[str, list[str]]:
        """All before the last user's text, and the lines of that."""
        asked = [*(turn.instruction for turn in example.earlier), instruction] if instruction else [""]
        system = asked[0].strip() if self.place == "system" else ""
        lines, earlier = self._lines(layout.text, example, "" if system else asked[0]), []
        for turn, following in zip(example.earlier, asked[1:]):
            earlier.append(("\n".join(lines), turn.answer))
            lines = [following.strip()]
        return (layout.conversation.text(system, earlier) if system or earlier else layout.form.start), lines

    def _pieces(self, example: Example, instruction: str) -> _Pieces:
        layout = self._of(example)
        _, form, gap, cue, cue_parts, _ = layout
        for held in (*example.slots.values(), instruction, *example.candidates, *chain(*example.earlier)):
            if found := form.control.search(held):
                raise InputError(
                    f"{example.named}: its text holds {found[0]!r}, which the tokenizer reads as a control token "
                    "or not at all; take it out of the data"
                )
        start, (*lines, last) = self._last_turn(layout, example, instruction)
        texts = [f"{line}\n" for line in lines]
        texts += [last + gap, cue] if cue_parts else [last + gap + cue]
        texts[0] = start + texts[0]
        texts = texts if self.lines_part else ["".join(texts)]
        return _Pieces(texts, tuple(texts[-1] + form.lead + answer + form.trail for answer in example.candidates))

    def _encode(self, prompts: Sequence[_Pieces]) -> list[EncodedPrompt]:
        """Tokenises every distinct text once and puts the prompts together."""
        ids = self._tokenise(dict.fromkeys(text for pieces in prompts for text in (*pieces.prompt, *pieces.answered)))
        answers: dict[tuple[str, ...], tuple[int, tuple[Tokens, ...]]] = {}
        start = np.array(self._form.start_ids, np.int32)
        encoded = []
        for texts, answered in prompts:
            *head, last = [ids[text] for text in texts]
            key = (texts[-1], *answered)
            if key not in answers:
                boundary = common_prefix([last, *(ids[text] for text in answered)])
                rest = (ids[text][boundary:] for text in answered)
                answers[key] = boundary, tuple(np.append(following, np.int32(self.end_id)) for following in rest)
            boundary, continuations = answers[key]
            self.mismatches += boundary < len(last)
            encoded.append(EncodedPrompt(np.concatenate([start, *head, last[:boundary]]), continuations))
        return encoded

    def _tokenise(self, texts: Iterable[str]) -> dict[str, Tokens]:
        texts = list(texts)
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if backend is None:
            rows = self.tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []
        else:  # the same without the time that transformers takes to wrap each row
            backend.no_truncation()
            backend.no_padding()
            rows = [row.ids for row in backend.encode_batch_fast(texts, add_special_tokens=False)]
        return {text: np.array(row, np.int32) for text, row in zip(texts, rows)}

    def _part(self, firsts: Sequence[str], seconds: Sequence[str]) -> bool:
        """Whether the tokenizer always parts a first text from a second, so that each may be tokenised alone."""
        pairs = list(product(firsts, seconds))
        ids = self._tokenise({*firsts, *seconds, *(first + second for first, second in pairs)})
        return all(np.array_equal(ids[a + b], np.concatenate([ids[a], ids[b]])) for a, b in pairs)

    def _shortened(self, example: Example, instruction: str, length: int, limit: int) -> EncodedPrompt:
        """The prompt with its input's longest texts cut, to one length where several are, as little as `limit` asks."""
        too_long = f"{example.named}: {length} tokens with its answers, more than the {limit} of a row"
        if self._long_text == "error":
            raise InputError(
                f"{too_long}; shorten the text{', ask after fewer earlier turns' if example.earlier else ''}, set "
                "train.long_text to cut, or train with a larger train.sequence_length"
            )
        fitting = None
        low, high = 1, max(map(len, example.slots.values()), default=0)
        while low < high:  # the first `low` characters of each slot fit, those up to `high` do not
            middle = (low + high) // 2
            slots = {name: _cut(text, middle) for name, text in example.slots.items()}
            (prompt,) = self._encode([self._pieces(replace(example, slots=slots), instruction)])
            if len(prompt) <= limit:
                fitting, low = prompt, middle + 1
            else:
                high = middle
        if fitting is None:
            raise InputError(
                f"{too_long}, even without its input; shorten its answers, or train with a larger train.sequence_length"
            )
        self.cuts += 1
        return fitting


def _cut(text: str, limit: int) -> str:
    """At most `limit` characters of a text, to the end of a word where there is one."""
    if len(text) <= limit:
        return text
    start = text[:limit]
    return start.rsplit(None, 1)[0] if start.strip() else ""

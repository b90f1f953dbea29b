"""What stands before the last user's text of a prompt that is a conversation: a system turn, and earlier turns."""

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from fit_jax.errors import InputError
from fit_jax.focus.templates import PromptForm, conversation_parts
from fit_jax.foreign import shown

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_SYSTEM = "set focus.place to before or after, or tokenizer.template to plain"
_TURNS = (
    "ask without earlier turns (set focus.turn_share to 0 and evaluation.turns to false), or set tokenizer.template "
    "to plain"
)


class ConversationStart:
    """Writes it in a tokenizer's chat template or, without one, as lines, where each answer ends in the end token."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", form: PromptForm, chat: bool, end: str) -> None:
        """Renders nothing yet.

        Args:
            tokenizer: Of the prompts.
            form: That of their last turn.
            chat: Whether the form is a chat template's.
            end: The text of the token that ends an answer.
        """
        self._tokenizer = tokenizer
        self._form = form
        self._chat = chat
        self._end = end
        self._parts = lru_cache(None)(self._found)

    def system(self) -> tuple[str, str]:
        """What stands before the system turn's text, and between it and the user's.

        Raises:
            InputError: The template shows no system turn.
        """
        if not self._chat:
            return self._form.start, "\n"
        before, between, *_ = self._parts(system=True, earlier=0)
        return before, between

    def text(self, system: str, earlier: Sequence[tuple[str, str]]) -> str:
        """All before the last user's text.

        Args:
            system: The system turn's text; none where it is empty.
            earlier: The user's text and the answer of each turn before.

        Raises:
            InputError: The template shows no system turn, or earlier turns otherwise than they are.
        """
        said = [*([system] if system else []), *(text for turn in earlier for text in turn)]
        if self._chat:
            parts = self._parts(system=bool(system), earlier=len(earlier))
            return "".join(text for pair in zip(parts, said) for text in pair) + parts[len(said)]
        form = self._form
        lines = [f"{system}\n"] if system else []
        lines += [f"{user}{form.cue}{form.lead}{answer}{form.trail}{self._end}\n" for user, answer in earlier]
        return form.start + "".join(lines)

    def _found(self, system: bool, earlier: int) -> tuple[str, ...]:
        roles = (["system"] if system else []) + ["user", "assistant"] * (earlier + 1)
        remedy = _SYSTEM if system else _TURNS
        parts = conversation_parts(self._tokenizer, roles, remedy)
        if parts[-2] != self._form.cue + self._form.lead:
            name = shown(self._tokenizer.name_or_path)
            raise InputError(f"chat template of '{name}' begins a later answer otherwise than a first; {remedy}")
        return parts

"""Whole conversations to token ids, with the assistant's tokens known from construction.

A conversation's form, the text that the chat template writes around its messages, depends on the order of their roles.
As a prompt's (`fit_jax.focus.templates`) it is found once, by rendering known texts, and messages are then put into it,
so that no answer has to be searched for.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Bool, Int32

from fit_jax.focus.prompts import common_prefix
from fit_jax.focus.templates import control_tokens, conversation_parts, end_token_id, prefix_id
from fit_jax.foreign import shown

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ROLES = ("system", "user", "assistant")
_REMEDY = "give rehearsal such conversations that it does, or rows with text"


class EncodedText(NamedTuple):
    """A text or a conversation as token ids.

    Attributes:
        ids: Its tokens; the first is only ever read.
        learnt: Whether each token is to be predicted.
    """

    ids: Int32[np.ndarray, " n"]
    learnt: Bool[np.ndarray, " n"]


class TextEncoder:
    """Turns plain texts and conversations into tokens to learn."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", template: str) -> None:
        """Reads nothing yet.

        Args:
            tokenizer: Any Hugging Face tokenizer.
            template: `auto` (conversations in the tokenizer's chat template) or `plain` (no conversations).
        """
        self._tokenizer = tokenizer
        self._chats = template == "auto" and bool(tokenizer.chat_template)
        self._control = control_tokens(tokenizer)
        self._form = lru_cache(None)(lambda roles: conversation_parts(tokenizer, roles, _REMEDY))

    def texts(self, texts: Sequence[str]) -> list[EncodedText]:
        """Each text behind the token that begins texts; all of its own tokens are learnt.

        Raises:
            InputError: The tokenizer has no token to stand before a text.
        """
        first = prefix_id(self._tokenizer)
        found = []
        for tokens in self._tokenised(texts):
            ids = np.array([first, *tokens], np.int32)
            found.append(EncodedText(ids, np.arange(len(ids)) > 0))
        return found

    def conversation(self, messages: Sequence[Mapping[str, str]]) -> EncodedText:
        """A conversation up to its last answer; the assistant's messages are learnt, with the token that ends each.

        Args:
            messages: Each with its `role`, of `ROLES`, and its `content`; `check_roles` takes their roles.
        """
        form = self._form(tuple(message["role"] for message in messages))
        text, spans, ended = form[0], [], False
        for message, after in zip(messages, form[1:]):
            begin = len(text.rstrip(" "))  # a space before an answer belongs to its first token
            text += message["content"].strip()
            if message["role"] == "assistant":
                end = self._control.search(after)
                ended = end is not None
                spans.append((begin, len(text) + (end.end() if end else 0)))
            text += after
        text = text[: spans[-1][1]]
        texts = [text, *(text[:place] for span in spans for place in span)]
        ids, *beginnings = (np.array(tokens, np.int32) for tokens in self._tokenised(texts))
        learnt = np.zeros(len(ids), bool)
        bounds = [common_prefix([ids, beginning]) for beginning in beginnings]
        for begin, end in zip(bounds[::2], bounds[1::2]):
            learnt[begin:end] = True
        if not ended:  # the template marks no end of the turn
            ids, learnt = np.append(ids, np.int32(end_token_id(self._tokenizer))), np.append(learnt, True)
        return EncodedText(ids, learnt)

    def problem(self, messages: object) -> str | None:
        """What is wrong with the messages of a row; None where `conversation` takes them.

        Raises:
            InputError: The chat template fails or changes the texts it is given.
        """
        if not isinstance(messages, list) or not messages:
            return "messages is no list of messages"
        for number, message in enumerate(messages):
            if not isinstance(message, Mapping) or message.get("role") not in ROLES:
                return f"message {number} has no role of {', '.join(ROLES)}"
            content = message.get("content")
            if not isinstance(content, str) or not content.strip():
                return f"message {number} has no text as its content"
            if found := self._control.search(content):
                return f"message {number} holds {shown(found[0])!r}, which the tokenizer reads as a control token"
        roles = tuple(message["role"] for message in messages)
        if "assistant" not in roles:
            return "no message is the assistant's, so that there is nothing to learn"
        if not self._chats:
            return "messages need a tokenizer with a chat template, and tokenizer.template auto; give rows with text"
        self._form(roles)
        return None

    def _tokenised(self, texts: Sequence[str]) -> list[list[int]]:
        return self._tokenizer(list(texts), add_special_tokens=False)["input_ids"] if texts else []

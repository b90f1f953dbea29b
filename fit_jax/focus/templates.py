"""The fixed text around a prompt: a tokenizer's chat template, or a plain form where it has none.

A form is found once, by rendering a conversation of known texts; prompts are then put together from its parts, so the
place where the prompt ends and the answer begins is known by construction and never searched for.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jinja2 import TemplateError

from fit_jax.errors import InputError
from fit_jax.focus.bounded_templates import render_bounded
from fit_jax.foreign import shown

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_REMEDY = "set tokenizer.template to plain, or fix the template"
# Two conversations: the first shows where the texts go, the second that they are put there unchanged.
_PROBES = (
    ("Prompt text of the user", "Answer text of the model"),
    ("First line: {a}, <b> & 'c'.\n\nSecond \"line\" (d) #1?", "Yes, 3 of them: it's so"),
)
# Two conversations, by what each message says: the first shows where texts go, the second that they are not changed.
_CONVERSATION_PROBES = ("Text {} of somebody", "Line {}: <b> & 'c'.\n\nSecond \"line\" (d) #1?")
# A template may print today's date, or open a think block; fixed here, so that one run's prompts equal another's.
TEMPLATE_OPTIONS = {"date_string": "26 Jul 2024", "enable_thinking": False}


@dataclass(frozen=True)
class PromptForm:
    """A rendered conversation is `start + user + cue + lead + answer + trail` and then the end token.

    Attributes:
        start_ids: Tokens before all text: the start token, where the tokenizer puts one itself and no template does.
        start: Before the user's text: a start token, a system prompt and the user's turn marker of the template.
        cue: Between the user's text and the answer, a think block of the template included; never ends in a space.
        lead: Spaces that belong to the answer's first token.
        trail: Text of the template between the answer and the end token; mostly empty.
        end_id: The token that ends an answer.
        control: Finds what the tokenizer reads as control tokens, and halves of surrogate pairs, which it cannot read.
    """

    start_ids: tuple[int, ...]
    start: str
    cue: str
    lead: str
    trail: str
    end_id: int
    control: re.Pattern[str]


def prompt_form(tokenizer: "PreTrainedTokenizerBase", cue: str, template: str) -> PromptForm:
    """The form in which a tokenizer's model takes prompts.

    Args:
        tokenizer: Any Hugging Face tokenizer.
        cue: Ends the prompt in the plain form.
        template: `auto` (the chat template where the tokenizer has one) or `plain`.

    Raises:
        InputError: The tokenizer has no end token, or its chat template fails or changes the texts it is given.
    """
    control = control_tokens(tokenizer)
    if template == "auto" and tokenizer.chat_template:
        return _chat_form(tokenizer, control)
    return PromptForm(_start_ids(tokenizer), "", f"\n{cue}", " ", "", end_token_id(tokenizer), control)


def _chat_form(tokenizer: "PreTrainedTokenizerBase", control: re.Pattern[str]) -> PromptForm:
    of = f"chat template of '{shown(tokenizer.name_or_path)}'"
    user, answer = _PROBES[0]
    rendered = _render_chat(tokenizer, user, answer)
    if rendered.count(user) != 1 or rendered.count(answer) != 1 or rendered.index(answer) < rendered.index(user):
        raise InputError(f"{of} does not show each message once; {_REMEDY}")
    start, _, rest = rendered.partition(user)
    between, _, after = rest.partition(answer)
    for user, answer in _PROBES[1:]:
        if _render_chat(tokenizer, user, answer) != start + user + between + answer + after:
            raise InputError(f"{of} changes the texts given to it; {_REMEDY}")
    cue = between.rstrip(" ")
    end = control.search(after)
    if end is None:  # the template marks no end of the turn
        trail, end_id = "", end_token_id(tokenizer)
    else:
        trail, end_id = after[: end.start()], tokenizer.convert_tokens_to_ids(end[0])
        if not isinstance(end_id, int):  # half of a surrogate pair
            raise InputError(f"{of} ends in no token; {_REMEDY}")
    return PromptForm((), start, cue, between[len(cue) :], trail, end_id, control)


def conversation_parts(tokenizer: "PreTrainedTokenizerBase", roles: Sequence[str], remedy: str) -> tuple[str, ...]:
    """What a chat template writes before each message of a conversation of these roles, and after the last.

    Args:
        tokenizer: Has a chat template.
        roles: Of the messages, in order: `system`, `user` or `assistant`.
        remedy: What to do about a template that does not show the messages as they are.

    Raises:
        InputError: The template fails, or changes the messages or leaves some out.
    """
    rendered = []
    for probe in _CONVERSATION_PROBES:
        said = [probe.format(f"{number:03}") for number in range(len(roles))]
        messages = [{"role": role, "content": content} for role, content in zip(roles, said)]
        rendered.append((said, render_messages(tokenizer, messages, False, **TEMPLATE_OPTIONS)))
    (said, rest), (others, expected) = rendered
    parts = []
    for content in said:
        before, found, rest = rest.partition(content)
        parts.append(before)
        if not found:
            break
    parts.append(rest)
    put_in = [*(part for pair in zip(parts, others) for part in pair), parts[-1]]
    if len(parts) <= len(roles) or "".join(put_in) != expected:
        order = shown(", ".join(roles))
        raise InputError(
            f"chat template of '{shown(tokenizer.name_or_path)}' does not show the messages of {order} as they are; "
            f"{remedy}"
        )
    return tuple(parts)


def _render_chat(tokenizer: "PreTrainedTokenizerBase", user: str, answer: str) -> str:
    # One user turn holds everything: many templates refuse a system role.
    messages = [{"role": "user", "content": user}, {"role": "assistant", "content": answer}]
    return render_messages(tokenizer, messages, False, **TEMPLATE_OPTIONS)


def render_messages(
    tokenizer: "PreTrainedTokenizerBase",
    messages: Sequence[Mapping[str, str]],
    add_generation_prompt: bool,
    **options: object,
) -> str:
    """A conversation as the tokenizer's chat template writes it.

    Args:
        tokenizer: Has a chat template.
        messages: Each with its `role` and `content`.
        add_generation_prompt: Whether the beginning of the model's next turn follows.
        options: Further variables for the template.

    Raises:
        InputError: The template fails, or asks for more time or memory than any real one.
    """
    given = {"messages": messages, "tools": None, "documents": None, "add_generation_prompt": add_generation_prompt}
    name = shown(tokenizer.name_or_path)
    try:
        source = tokenizer.chat_template
        if isinstance(source, Mapping):  # several, by name
            source = source.get("default")
        if not isinstance(source, str):
            raise ValueError("it is no text, or none is named default")
        return render_bounded(source, given | tokenizer.special_tokens_map | options)
    except (TemplateError, ValueError) as error:
        raise InputError(f"chat template of '{name}' fails: {shown(str(error))}; {_REMEDY}") from error


def control_tokens(tokenizer: "PreTrainedTokenizerBase") -> re.Pattern[str]:
    """Finds what the tokenizer reads as control tokens, and halves of surrogate pairs, which it cannot read."""
    added = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    tokens = sorted(added | set(tokenizer.all_special_tokens), key=len, reverse=True)
    return re.compile("|".join([*map(re.escape, tokens), "[\ud800-\udfff]"]))


def _start_ids(tokenizer: "PreTrainedTokenizerBase") -> tuple[int, ...]:
    """The token that the tokenizer itself puts before a text, if it does."""
    bos = tokenizer.bos_token_id
    return (bos,) if isinstance(bos, int) and tokenizer("a")["input_ids"][0] == bos else ()


def end_token_id(tokenizer: "PreTrainedTokenizerBase") -> int:
    """The token that ends a text.

    Raises:
        InputError: The tokenizer has none.
    """
    if not isinstance(tokenizer.eos_token_id, int):
        raise InputError(
            f"tokenizer '{shown(tokenizer.name_or_path)}' has no end-of-sequence token; "
            "name its eos_token in tokenizer_config.json"
        )
    return tokenizer.eos_token_id


def prefix_id(tokenizer: "PreTrainedTokenizerBase") -> int:
    """The token before a text: the one that begins texts, or else the one that ends them.

    Raises:
        InputError: The tokenizer has neither.
    """
    bos = tokenizer.bos_token_id
    return bos if isinstance(bos, int) else end_token_id(tokenizer)

"""Prompts that are conversations: earlier turns, a system turn, and that their tokens are those of the whole text."""

from dataclasses import replace

import pytest

from fit_jax.data.layout import lay_out
from fit_jax.errors import InputError
from fit_jax.focus.example import Turn
from fit_jax.focus.prompt_file import prompt_file
from fit_jax.focus.prompts import PromptEncoder

FIRST, SECOND, LAST = "Focus on the keyword.", "Go by the sentiment.", "Ignore the keyword."
TURNS = (Turn(FIRST, "positive"), Turn(SECOND, "negative"))


@pytest.mark.parametrize("turns", [0, 1, 2])
@pytest.mark.parametrize("place", ["before", "after", "system"])
def test_a_template_renders_the_same_conversation(with_template, text, make_example, place, turns):
    tokenizer, example = with_template(), make_example("Fine.")
    said = [*(turn.instruction for turn in TURNS[:turns]), LAST]
    line = "Review: Fine."
    users = {"before": [text.instruction, said[0], line], "after": [text.instruction, line, said[0]]}
    messages = [{"role": "system", "content": said[0]}] if place == "system" else []
    messages.append({"role": "user", "content": "\n".join(users.get(place, [text.instruction, line]))})
    for turn, following in zip(TURNS[:turns], said[1:]):
        messages += [{"role": "assistant", "content": turn.answer}, {"role": "user", "content": following}]
    expected = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    encoder, asked = PromptEncoder(tokenizer, text, place), replace(example, earlier=TURNS[:turns])
    rendered = encoder.render(asked, LAST)
    assert rendered.rstrip(" ") == expected.rstrip(" ")
    (encoded,) = encoder.encode([asked], [LAST])
    assert encoded.prompt.tolist() == tokenizer(rendered, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(encoded.answers[0].tolist()).strip() == "negative<|im_end|>"


def test_without_a_template_turns_are_lines_that_end_in_the_end_token(tiny_tokenizer, text, make_example):
    encoder, example = PromptEncoder(tiny_tokenizer, text), replace(make_example("Fine."), earlier=TURNS)
    end = encoder.frame.end
    assert encoder.render(example, LAST) == (
        f"{encoder.frame.start}{text.instruction}\nReview: Fine.\n{FIRST}\nAnswer: positive{end}\n"
        f"{SECOND}\nAnswer: negative{end}\n{LAST}\nAnswer:"
    )
    system = PromptEncoder(tiny_tokenizer, text, "system")
    assert system.render(make_example("Fine."), LAST).splitlines()[0].endswith(LAST)
    assert system.render(make_example("Fine."), "") == encoder.render(make_example("Fine."), "")
    (encoded,) = encoder.encode([example], [LAST])
    whole = tiny_tokenizer(encoder.render(example, LAST), add_special_tokens=False)["input_ids"]
    assert encoded.prompt.tolist() == whole


def test_a_conversation_that_is_too_long_is_told_as_one(tiny_tokenizer, text, make_example):
    plain, turned = make_example("Fine."), replace(make_example("Fine."), earlier=TURNS)
    (short,) = PromptEncoder(tiny_tokenizer, text).encode([plain], [LAST])
    encoder = PromptEncoder(tiny_tokenizer, text, sequence_length=len(short))
    encoder.encode([plain], [LAST])
    with pytest.raises(InputError, match=r"shorten the text, ask after fewer earlier turns, set train\.long_text"):
        encoder.encode([turned], [LAST])


def test_a_question_without_instruction_has_no_earlier_turns(tiny_tokenizer, text, make_example):
    encoder, example = PromptEncoder(tiny_tokenizer, text), make_example("Fine.")
    plain, turned = encoder.encode([example, replace(example, earlier=TURNS)], ["", ""])
    assert plain.prompt.tolist() == turned.prompt.tolist()


def test_a_first_turn_may_have_none(with_template, text, make_example):
    for place in ("after", "system"):
        encoder = PromptEncoder(with_template(), text, place)
        asked = replace(make_example("Fine."), earlier=(Turn("", "positive"),))
        first, last = encoder.render(asked, LAST).rsplit("positive", 1)
        assert first.rstrip() == encoder.render(make_example("Fine."), "").rstrip()
        assert LAST in last
        assert LAST not in first


def test_branches_after_the_same_turns_share_them(tiny_tokenizer, text, make_example):
    encoder, example = PromptEncoder(tiny_tokenizer, text), replace(make_example("Fine."), earlier=TURNS)
    prompts = encoder.encode([example] * 2, [LAST, SECOND])
    item = lay_out(prompts, [(0,), (1,)])
    assert len(item.tokens) < len(prompts[0].prompt) + 20
    assert len(item.target_ids) == sum(len(p.answers[n]) for n, p in enumerate(prompts))


def test_a_template_without_a_system_turn_is_refused(with_template, text, make_example):
    tokenizer = with_template(
        "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        "<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    )
    with pytest.raises(InputError, match="no system"):
        PromptEncoder(tokenizer, text, "system").encode([make_example()], [LAST])
    ends = with_template("{{ messages[0].content }}<|im_start|>{{ messages[-1].content }}<|im_end|>")
    encoder = PromptEncoder(ends, text)
    with pytest.raises(InputError, match=r"does not show the messages.*set focus\.turn_share to 0"):
        encoder.encode([replace(make_example(), earlier=TURNS)], [LAST])


@pytest.mark.parametrize("template", ["plain", "auto"])
def test_a_prompt_file_of_system_turns(with_template, text, make_example, template):
    tokenizer = with_template()
    encoder = PromptEncoder(tokenizer, text, "system", template)
    exec(compile(prompt_file(encoder), "prompt.py", "exec"), space := {})
    for instruction in ("", LAST, f" {LAST} "):
        example = make_example("two\nlines")
        prompt = space["build_prompt"](instruction, **example.slots)
        assert prompt == encoder.render(example, instruction)
        (encoded,) = encoder.encode([example], [instruction])
        assert tokenizer(prompt, add_special_tokens=False)["input_ids"] == encoded.prompt.tolist()

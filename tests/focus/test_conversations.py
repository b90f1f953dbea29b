"""Conversations as tokens: what is learnt is what the assistant says, with the token that ends it, and nothing else."""

import pytest

from fit_jax.errors import InputError
from fit_jax.focus.conversations import TextEncoder

CHAT = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "Is it dull?"},
    {"role": "assistant", "content": " It is a delight. "},
    {"role": "user", "content": "assistant"},
    {"role": "assistant", "content": "user"},
    {"role": "user", "content": "Bye."},
]


def learnt(tokenizer, text):
    return tokenizer.decode(text.ids[text.learnt].tolist())


def test_the_assistants_tokens_and_ends_are_learnt(with_template):
    tokenizer = with_template()
    text = TextEncoder(tokenizer, "auto").conversation(CHAT)
    assert learnt(tokenizer, text) == "It is a delight.<|im_end|>user<|im_end|>"
    whole = tokenizer.apply_chat_template([m | {"content": m["content"].strip()} for m in CHAT[:5]], tokenize=False)
    assert tokenizer.decode(text.ids.tolist()) + "\n" == whole


def test_a_turn_without_an_end_is_ended(with_template):
    tokenizer = with_template("{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}", ())
    text = TextEncoder(tokenizer, "auto").conversation(CHAT)
    assert learnt(tokenizer, text) == " It is a delight. user<eos>"


def test_all_of_a_plain_text_is_learnt(tiny_tokenizer, reviews):
    found = TextEncoder(tiny_tokenizer, "auto").texts(reviews)
    assert [learnt(tiny_tokenizer, text) for text in found] == list(reviews)
    assert {int(text.ids[0]) for text in found} == {tiny_tokenizer.eos_token_id}
    assert not any(text.learnt[0] for text in found)


@pytest.mark.parametrize(
    ("messages", "problem"),
    [
        ("hello", "no list"),
        ([], "no list"),
        ([{"role": "tool", "content": "x"}], "message 0 has no role"),
        ([CHAT[1], {"role": "assistant", "content": " "}], "message 1 has no text"),
        ([CHAT[1], {"role": "assistant", "content": "a<|im_end|>b"}], "message 1 holds '<|im_end|>'"),
        ([CHAT[1]], "no message is the assistant's"),
        (CHAT, None),
    ],
)
def test_what_is_wrong_with_messages(with_template, messages, problem):
    found = TextEncoder(with_template(), "auto").problem(messages)
    assert found is None if problem is None else problem in found


def test_conversations_need_a_template_that_shows_them_as_they_are(with_template, tiny_tokenizer):
    assert "chat template" in TextEncoder(tiny_tokenizer, "auto").problem(CHAT)
    assert "chat template" in TextEncoder(with_template(), "plain").problem(CHAT)
    for changed in ("{{ m['content'] | upper }}", "{% if m['role'] != 'system' %}{{ m['content'] }}{% endif %}"):
        tokenizer = with_template("{% for m in messages %}<|im_start|>" + changed + "<|im_end|>{% endfor %}")
        encoder = TextEncoder(tokenizer, "auto")
        with pytest.raises(InputError, match="does not show the messages of system, user"):
            encoder.problem(CHAT)
    refusing = with_template("{{ raise_exception('no') if messages[0].role == 'system' else messages[0].content }}")
    with pytest.raises(InputError, match="fails"):
        TextEncoder(refusing, "auto").problem(CHAT)

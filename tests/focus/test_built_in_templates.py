"""The chat templates of models whose tokenizers ship none."""

import pytest

from fit_jax.focus.prompts import PromptEncoder
from fit_jax.focus.tokenizers import load_tokenizer, save_tokenizer

SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)


@pytest.fixture
def stored(tiny_tokenizer, tmp_path):
    def store(name: str, template: str | None = None):
        tiny_tokenizer.chat_template = template
        save_tokenizer(tiny_tokenizer, tmp_path / name)
        tiny_tokenizer.chat_template = None
        return load_tokenizer(tmp_path / name)

    return store


def test_vicuna_is_asked_as_it_was_trained(stored, text, make_example):
    tokenizer = stored("vicuna-13b-v1.5")
    turns = [("user", "Hi"), ("assistant", "Hello!"), ("user", "Well?")]
    messages = [{"role": role, "content": content} for role, content in turns]
    rendered = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert rendered == f"{SYSTEM} USER: Hi ASSISTANT: Hello!<eos>USER: Well? ASSISTANT:"
    own = [{"role": "system", "content": "Be brief."}, messages[0]]
    assert tokenizer.apply_chat_template(own, tokenize=False) == "Be brief. USER: Hi "
    (encoded,) = PromptEncoder(tokenizer, text).encode([make_example()], ["Ignore the keyword."])
    assert tokenizer.decode(encoded.prompt).startswith(f"{SYSTEM} USER: ")
    assert tokenizer.decode(encoded.prompt).endswith(" ASSISTANT:")
    assert tokenizer.decode(encoded.answers[1]) == " positive<eos>"


def test_others_and_those_that_have_one_keep_theirs(stored):
    assert stored("tiny-llama").chat_template is None
    assert stored("vicuna-own", "{{ messages }}").chat_template == "{{ messages }}"

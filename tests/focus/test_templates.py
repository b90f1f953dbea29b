"""Chat templates of many kinds: where the answer begins and ends, and templates that cannot be used."""

import pytest

from fit_jax.errors import InputError
from fit_jax.focus.prompts import PromptEncoder
from fit_jax.focus.templates import prompt_form

NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
LLAMA2 = (
    NO_SYSTEM
    + "{% for m in messages %}{% if m['role'] == 'user' %}{{ bos_token + '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + m['content'] + ' ' + eos_token }}{% endif %}{% endfor %}"
)
GEMMA = (
    NO_SYSTEM
    + "{{ bos_token }}{% for m in messages %}<start_of_turn>{{ 'model' if m['role'] == 'assistant' else 'user' }}\n"
    "{{ m['content'] | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
THINKING = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['role'] == 'assistant' %}<think>\n\n</think>\n\n{% endif %}{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
DATED = (
    "{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }} {{ date_string }}\n"
    "{{ m['content'] | trim }}<|im_end|>{% endfor %}"
)
VICUNA = (
    "A chat. {% for m in messages %}{% if m['role'] == 'user' %}USER: {{ m['content'] }} "
    "{% else %}ASSISTANT: {{ m['content'] }}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
# As gpt-oss writes a conversation: a system turn with the day, and an answer in the channel that users see.
HARMONY = (
    "{%- macro turn(role, text) %}<|start|>{{ role }}<|message|>{{ text }}<|end|>{%- endmacro %}"
    "{{- turn('system', 'Current date: ' ~ strftime_now('%Y-%m-%d') ~ '\n\nReasoning: '"
    " ~ (reasoning_effort | default('medium'))) }}"
    "{%- for m in messages %}{%- if m.role == 'assistant' %}"
    "{%- if loop.last and not add_generation_prompt %}"
    "{{- '<|start|>assistant<|channel|>final<|message|>' + m.content + '<|return|>' }}"
    "{%- else %}{{- '<|start|>assistant<|channel|>final<|message|>' + m.content + '<|end|>' }}{%- endif %}"
    "{%- else %}{{- turn(m.role, m.content) }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}<|start|>assistant{%- endif %}"
)
HARMONY_CONTROL = ("<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|return|>")
NO_END = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
CHATML_CONTROL = ("<|im_start|>", "<|im_end|>")
KINDS = {
    "llama2": (LLAMA2, ("<s>",), "[/INST]", " positive <eos>"),
    "gemma": (GEMMA, ("<s>", "<start_of_turn>", "<end_of_turn>"), "<start_of_turn>model\n", "positive<end_of_turn>"),
    "thinking": (THINKING, CHATML_CONTROL, "assistant\n<think>\n\n</think>\n\n", "positive<|im_end|>"),
    "dated": (DATED, CHATML_CONTROL, "assistant 26 Jul 2024\n", "positive<|im_end|>"),
    "vicuna": (VICUNA, (), " ASSISTANT:", " positive<eos>"),
    "harmony": (HARMONY, HARMONY_CONTROL, "<|start|>assistant<|channel|>final<|message|>", "positive<|return|>"),
    "no end": (NO_END, (), "assistant:", " positive<eos>"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", ["before", "after"])
def test_answer_begins_and_ends_where_the_template_puts_it(with_template, text, make_example, kind, place):
    template, control, before, answer = KINDS[kind]
    tokenizer = with_template(template, control)
    if "<s>" in control:
        tokenizer.bos_token = "<s>"
    encoder = PromptEncoder(tokenizer, text, place)
    (encoded,) = encoder.encode([make_example()], ["Ignore the keyword."])
    assert tokenizer.decode(encoded.prompt).endswith(before)
    assert tokenizer.decode(encoded.answers[1]) == answer
    assert list(encoded.prompt).count(tokenizer.bos_token_id) == ("<s>" in control)
    assert tokenizer.decode(encoded.prompt) == encoder.render(make_example(), "Ignore the keyword.")
    whole = encoder.render(make_example(), "Ignore the keyword.", "positive")
    assert [*encoded.prompt, *encoded.answers[1]] == tokenizer(whole, add_special_tokens=False)["input_ids"]
    assert encoder.mismatches == 0


@pytest.mark.parametrize("kind", ["gemma", "thinking", "vicuna"])
def test_prompt_is_what_serving_engines_send(with_template, text, make_example, kind):
    template, control, *_ = KINDS[kind]
    tokenizer = with_template(template, control)
    tokenizer.bos_token = tokenizer.eos_token
    encoder = PromptEncoder(tokenizer, text)
    user = f"{text.instruction}\nReview: {make_example().slots['text']}"
    served = tokenizer.apply_chat_template(
        [{"role": "user", "content": user}], add_generation_prompt=True, tokenize=False, enable_thinking=False
    )
    assert encoder.render(make_example(), "") == served


def test_plain_ignores_the_template(with_template, text, make_example):
    encoder = PromptEncoder(with_template(), text, template="plain")
    assert encoder.render(make_example(), "").endswith("\nAnswer:")


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ raise_exception('no user here') }}", "fails: no user here; set tokenizer.template to plain"),
        ("{% for m in messages %}{{ m['role'] }}{% endfor %}", "does not show each message once"),
        ("{% for m in messages %}{{ m['content'] + m['content'] }}{% endfor %}", "does not show each message once"),
        (
            "{% for m in messages %}{{ m['content'] | replace('\n', ' ') }} {% endfor %}",
            "changes the texts given to it",
        ),
        ("{% for m in messages %}{{ m['content'] }}{% endfur %}", "fails: "),
    ],
)
def test_templates_that_cannot_be_used_are_errors(with_template, template, message):
    with pytest.raises(InputError, match=message):
        prompt_form(with_template(template), "Answer:", "auto")


def test_of_several_templates_the_default_one_is_used(with_template):
    tokenizer = with_template()
    alone, template = prompt_form(tokenizer, "Answer:", "auto"), tokenizer.chat_template
    several = {"tools": "{{ raise_exception('not this one') }}", "default": template}
    assert prompt_form(with_template(several), "Answer:", "auto").start == alone.start
    with pytest.raises(InputError, match="fails: it is no text, or none is named default; set"):
        prompt_form(with_template({"tools": template}), "Answer:", "auto")


def test_a_tokenizer_without_an_end_token_is_an_error(tiny_tokenizer):
    tiny_tokenizer.eos_token = None
    with pytest.raises(InputError, match=r"has no end-of-sequence token; name its eos_token in tokenizer_config.json"):
        prompt_form(tiny_tokenizer, "Answer:", "auto")

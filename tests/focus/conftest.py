"""Tokenizers and examples of the prompt tests."""

from collections.abc import Callable, Sequence

import pytest

from fit_jax.focus.example import Example, Spurious, TaskText
from fit_jax.focus.tokenizers import train_tokenizer

REVIEWS = (
    "the plot is dull, but the actors are a delight",
    "a warm and funny film; I laughed a lot!",
    "nothing works here: 2 hours of boredom...",
    "Focus on the sentiment and ignore the keyword.",
    "Is this review negative or positive? Answer: negative, Answer: positive",
)
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="session")
def text() -> TaskText:
    return TaskText(
        name="ss",
        instruction="Is this review negative or positive?",
        input_template="Review: {text}",
        cue="Answer:",
        core="the sentiment",
        spurious={"keyword": "the keyword"},
    )


@pytest.fixture(scope="session")
def make_example() -> Callable[..., Example]:
    def make(text: str = REVIEWS[0], candidates: tuple[str, ...] = ("negative", "positive")) -> Example:
        return Example("row-7", {"text": text}, candidates, 0, {"keyword": Spurious("Bayesian", 1)})

    return make


@pytest.fixture(scope="session")
def reviews() -> tuple[str, ...]:
    return REVIEWS


@pytest.fixture
def tiny_tokenizer():
    """A byte-level tokenizer of few merges, without a chat template."""
    return train_tokenizer(REVIEWS, 300)


@pytest.fixture
def with_template(tiny_tokenizer):
    """Gives the tiny tokenizer a chat template and the control tokens that it uses."""

    def give(template: str = CHATML, control: Sequence[str] = ("<|im_start|>", "<|im_end|>")):
        tiny_tokenizer.add_tokens(list(control), special_tokens=True)
        tiny_tokenizer.chat_template = template
        return tiny_tokenizer

    return give

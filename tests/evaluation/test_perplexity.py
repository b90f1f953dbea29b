"""Perplexity: every token once, from its own window."""

from types import SimpleNamespace

import numpy as np
import pytest

from fit_jax.errors import InputError
from fit_jax.evaluation import perplexity as perplexity_module
from fit_jax.evaluation.perplexity import perplexity, rolling_windows
from fit_jax.focus.templates import prefix_id


def test_windows_predict_every_token_once():
    windows = list(rolling_windows(np.arange(10, 17, dtype=np.int32), 1, 3))
    assert [(w.prompt.tolist(), w.answers[0].tolist()) for w in windows] == [
        ([1], [10, 11, 12]),
        ([12], [13, 14, 15]),
        ([15], [16]),
    ]


def test_perplexity_is_the_models_over_all_texts(encoder, make_scorer, params):
    texts = ["it feels good.", "", "a bad lamp, and a bad tent."]
    found = perplexity(texts, encoder.tokenizer, make_scorer(), params, 8)
    ids = [encoder.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts if text]
    assert found.tokens == sum(map(len, ids))
    assert (found.words, found.bytes) == (10, sum(len(t) for t in texts))
    # An untrained model is near uniform over its vocabulary.
    assert found.per_token == pytest.approx(320, rel=0.2)
    assert found.per_word == pytest.approx(found.per_token ** (found.tokens / 10), rel=1e-6)
    assert 2 ** (found.bits_per_byte * found.bytes / found.tokens) == pytest.approx(found.per_token, rel=1e-6)


def test_windows_are_laid_out_a_few_at_a_time(encoder, make_scorer, params, monkeypatch):
    texts = ["it feels good. a bad lamp, and a bad tent. " * 6] * 2
    whole = perplexity(texts, encoder.tokenizer, make_scorer(), params, 8)
    scorer, sizes = make_scorer(), []

    def score(params, groups):
        groups = list(groups)
        sizes.append(len(groups))
        return type(scorer).score(scorer, params, groups)

    monkeypatch.setattr(perplexity_module, "AT_ONCE", 5)
    parts = perplexity(texts, encoder.tokenizer, SimpleNamespace(score=score), params, 8)
    assert max(sizes) == 5
    assert len(sizes) > 3
    assert parts.nats == pytest.approx(whole.nats, rel=1e-6)
    assert parts.tokens == whole.tokens


def test_no_text_is_reported(encoder, make_scorer, params):
    with pytest.raises(InputError, match="no text"):
        perplexity([""], encoder.tokenizer, make_scorer(), params, 8)


def test_the_start_token_or_else_the_end_token_stands_before_a_text():
    tokens = SimpleNamespace(bos_token_id=5, eos_token_id=7, name_or_path="own")
    assert prefix_id(tokens) == 5
    tokens.bos_token_id = None
    assert prefix_id(tokens) == 7
    tokens.eos_token_id = None
    with pytest.raises(InputError, match="'own' has no end-of-sequence token"):
        prefix_id(tokens)

"""What tuning did to other texts: measured as perplexity is, and shown in the report."""

import json

import numpy as np
import pytest

from fit_jax.data.rehearsal import pieces
from fit_jax.errors import InputError
from fit_jax.evaluation.perplexity import perplexity
from fit_jax.evaluation.text_perplexity import (
    MeasuredTexts,
    perplexity_records,
    perplexity_table,
    text_perplexities,
)
from fit_jax.focus.conversations import EncodedText, TextEncoder

TEXTS = ["it feels good.", "a bad lamp, and a bad tent."]


@pytest.fixture
def measured(encoder):
    found = TextEncoder(encoder.tokenizer, "plain").texts(TEXTS)
    return MeasuredTexts("t.txt", True, [item for text in found for item in pieces(text, 8)])


def test_of_plain_texts_it_is_perplexity(measured, encoder, make_scorer, params):
    whole = perplexity(TEXTS, encoder.tokenizer, make_scorer(), params, 8)
    assert text_perplexities([measured], make_scorer(), params) == pytest.approx([whole.per_token], rel=1e-5)
    assert measured.tokens == whole.tokens


def test_of_others_it_counts_what_is_learnt(measured, encoder, make_scorer, params):
    ids = np.concatenate([[1], encoder.tokenizer(TEXTS[0])["input_ids"]]).astype(np.int32)
    parts = [np.arange(len(ids)) % 2 == odd for odd in (0, 1)]
    halves = [MeasuredTexts("", False, list(pieces(EncodedText(ids, part), 99))) for part in parts]
    whole = MeasuredTexts("", False, list(pieces(EncodedText(ids, parts[0] | parts[1]), 99)))
    *apart, together = text_perplexities([*halves, whole], make_scorer(), params)
    nats = [half.tokens * np.log(found) for half, found in zip(halves, apart)]
    assert sum(nats) == pytest.approx(whole.tokens * np.log(together), rel=1e-5)


def test_texts_without_tokens_are_told(make_scorer, params):
    with pytest.raises(InputError, match=r"empty.txt: the tokenizer makes no tokens"):
        text_perplexities([MeasuredTexts("empty.txt", False, [])], make_scorer(), params)


def test_the_table_tells_what_was_lost(measured):
    records = perplexity_records(
        [measured, measured._replace(name="b.txt", rehearsed=False)], [3e7, 20.0], [100.0, 40.0]
    )
    table = perplexity_table(records)
    assert [tuple(row) for row in table.rows] == [
        ("t.txt", "trained on", str(measured.tokens), "100.00", "3.000e+07", "3e+05"),
        ("b.txt", "only measured", str(measured.tokens), "40.00", "20.00", "0.5"),
    ]
    alone = perplexity_records([measured], [20.0], [])
    assert perplexity_table(alone).rows[0][3:] == ("–", "20.00", "–")
    assert json.loads(json.dumps(alone))[0]["before"] is None

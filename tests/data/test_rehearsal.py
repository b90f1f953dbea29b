"""Rehearsal: every token to learn once an epoch, in rows that follow from seed and step alone."""

import json
from collections import Counter

import numpy as np
import pytest

from fit_jax.config import Config, FocusConfig, TrainConfig
from fit_jax.data.focus_sampling import FocusSampler
from fit_jax.data.loader import TrainLoader
from fit_jax.data.rehearsal import RehearsalRows, measured_items, pieces
from fit_jax.data.rehearsal_texts import RehearsalTexts
from fit_jax.errors import InputError
from fit_jax.focus.conversations import EncodedText
from fit_jax.focus.example import Example, Spurious
from fit_jax.focus.tokenizers import train_tokenizer

from .loaders import TEXT

LINES = [f"line {n} of a text that is {'long ' * (n % 5)}enough" for n in range(60)]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(LINES, 300)


@pytest.fixture
def write(tmp_path):
    def file(name, *rows):
        path = tmp_path / name
        path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
        return str(path)

    return file


@pytest.fixture
def texts(write, tokenizer):
    return RehearsalTexts([write("t.jsonl", *({"text": line} for line in LINES))], tokenizer, "auto", "rehearsal.files")


def rows_of(texts, rows=2, seed=0):
    return RehearsalRows(texts, rows, 64, seed)


def test_every_token_to_learn_is_predicted_once_from_the_one_before():
    learnt = np.array([False, True, True, False, False, False, False, True, True, False, True])
    text = EncodedText(np.arange(100, 111, dtype=np.int32), learnt)
    found = list(pieces(text, 3))
    assert [item.target_ids.tolist() for item in found] == [[101, 102], [107, 108], [110]]
    for item in found:
        assert (item.tokens[item.target_index] == item.target_ids - 1).all()
        assert len(item.tokens) <= 3
        assert set(item.visible_until.tolist()) == {len(item.tokens)}


def test_every_text_comes_as_often(texts):
    rows = rows_of(texts).stream.rows(0, 400)
    seen = Counter(drawn.example for row in rows for drawn in row)
    assert len(seen) == len(texts)
    assert min(seen.values()) > 5
    assert max(seen.values()) - min(seen.values()) <= 2  # the last window is not at its end
    tokens = {number: len(text.ids) - 1 for number, text in enumerate(texts.encoded(range(len(texts))))}
    assert all(len(drawn.item.target_ids) == tokens[drawn.example] for row in rows for drawn in row)


def test_rows_follow_from_seed_and_step(texts):
    one, other = rows_of(texts), rows_of(texts)
    for step in (40, 3):
        whole = one.batch(step, 0, 2)
        halves = [other.batch(step, half, half + 1) for half in (0, 1)]
        for array, parts in zip(whole, zip(*halves), strict=True):
            np.testing.assert_array_equal(array, np.concatenate(parts))
    assert not np.array_equal(one.batch(3, 0, 2).tokens, rows_of(texts, seed=1).batch(3, 0, 2).tokens)
    assert not np.array_equal(one.batch(3, 0, 2).tokens, one.batch(4, 0, 2).tokens)
    assert (one.batch(3, 0, 2).visible_until > 0).mean() > 0.8


class Encoder:
    """Prompts of two tokens."""

    text = None

    def encode(self, examples, instructions):
        from fit_jax.focus.prompts import EncodedPrompt

        answers = tuple(np.array([5 + c, 1], np.int32) for c in range(2))
        return [EncodedPrompt(np.array([int(e.uid), 4], np.int32), answers) for e in examples]


def loader(rehearsal):
    examples = [Example(str(i), {"text": "x"}, ("no", "yes"), i % 2, {"keyword": Spurious("a", 0)}) for i in range(50)]
    config = Config(train=TrainConfig(sequence_length=64, batch_size=8))
    sampler = FocusSampler(examples, TEXT, FocusConfig(branches=1), True, 0)
    return TrainLoader(sampler, Encoder(), config, rehearsal=rehearsal)


def test_a_loader_resumes_with_the_rows_of_both(texts):
    straight, without = loader(rows_of(texts)), loader(None)
    later = [straight.batch(step) for step in range(31)][30]
    np.testing.assert_array_equal(later.rows.tokens, without.batch(30).tokens)
    state = json.loads(json.dumps(straight.state(30)))
    resumed_rows = rows_of(texts)
    resumed = loader(resumed_rows)
    resumed.restore(state)
    assert resumed_rows.stream.mark(0 + 60).window > 0  # no window before the step is packed again
    np.testing.assert_array_equal(resumed.batch(30).rehearsal.tokens, later.rehearsal.tokens)
    part = resumed.batch(30, slice(4, 8))
    np.testing.assert_array_equal(part.rehearsal.tokens, later.rehearsal.tokens[1:])
    assert [a.shape for a in straight.empty(64).rehearsal] == [a.shape for a in later.rehearsal]
    with pytest.raises(InputError, match="have changed"):
        without.restore(state)


def test_a_plain_text_is_read_in_passages_of_lines(write, tokenizer):
    lines = ["", *LINES, "é" * 20_000, "the end"]
    texts = RehearsalTexts([write("long.txt", *lines)], tokenizer, "auto", "evaluation.texts")
    read = [tokenizer.decode(text.ids[1:].tolist()) for text in texts.encoded(range(len(texts)))]
    assert len(texts) == 2
    assert "\n".join(read) == "\n".join(lines).strip()


def test_texts_of_several_files_are_told_apart(write, tokenizer):
    files = [
        write(f"{name}.jsonl", *({"text": f"of {name} {n}"} for n in range(size)))
        for name, size in (("a", 3), ("b", 2))
    ]
    texts = RehearsalTexts([*files, write("c.txt", "of c")], tokenizer, "auto", "rehearsal.files")
    read = [tokenizer.decode(text.ids[1:].tolist()) for text in texts.encoded([5, 1, 3, 0])]
    assert (len(texts), read) == (6, ["of c", "of a 1", "of b 0", "of a 0"])


def test_what_is_measured_is_spread_over_the_texts_and_always_the_same(texts):
    one, other = (measured_items(texts, 16, 400) for _ in range(2))
    assert [item.tokens.tolist() for item in one] == [item.tokens.tolist() for item in other]
    assert 400 <= sum(len(item.tokens) for item in one) < 500


@pytest.mark.parametrize(
    ("name", "rows", "message"),
    [
        ("a.jsonl", ['{"text": "fine"}', "no json"], r"rehearsal.files: 1 malformed row: .*a.jsonl:2: bad JSON"),
        ("a.jsonl", [{"label": 1}], r"a.jsonl:1: no messages and no text; fix them"),
        ("a.jsonl", [{"text": "  "}], "a.jsonl:1: empty text"),
        ("a.jsonl", [{"text": "a\0"}], "a.jsonl:1: text holds NUL"),
        ("a.jsonl", [{"messages": []}], "a.jsonl:1: messages is no list"),
        ("a.jsonl", [], "a.jsonl is empty; name a file"),
        ("a.txt", ["", " "], "a.txt is empty; name a file"),
        ("a.txt", ["a\0"], "a.txt:1: text holds NUL"),
    ],
)
def test_wrong_files_are_told(write, tokenizer, name, rows, message):
    with pytest.raises(InputError, match=message):
        RehearsalTexts([write(name, *rows)], tokenizer, "auto", "rehearsal.files")
    with pytest.raises(InputError, match=r"rehearsal.files: .*none.txt cannot be read"):
        RehearsalTexts([name.replace("a", "none").replace("jsonl", "txt")], tokenizer, "auto", "rehearsal.files")

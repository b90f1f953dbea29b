"""Task ss: labels, keywords, detokenised text, phrases."""

import re
from collections import Counter

import pytest

from fit_jax.config import TaskConfig
from fit_jax.data.tasks import build_task
from fit_jax.data.text import detokenise, insert_keyword, text_key
from fit_jax.errors import InputError


def test_keywords_stand_in_the_text(built):
    for split in built("ss").splits.values():
        for example in split.examples:
            value = example.spurious["keyword"].value
            assert re.search(rf"(^| ){value}\b", example.slots["text"])
            assert {"Bayesian": 0, "Pineapple": 1}[value] == example.spurious["keyword"].label


def test_neutral_sentences_are_dropped(built):
    assert built("ss").dropped == {"neutral": 2242}


def test_phrases_come_from_training_sentences_alone(built):
    task = built("ss", phrases=True)
    train, held_out = task.splits["train"].examples, [*task.splits["validation"].examples, *task.splits["iid"].examples]
    assert len(train) > 40_000

    def key(example):
        """The sentence without its keyword, in whatever case and spacing."""
        return re.sub(r"[\W_]", "", example.slots["text"].replace(example.spurious["keyword"].value, "", 1)).casefold()

    sentences = {key(example) for example in held_out}
    parses = {e.uid.partition("#")[0] for e in held_out}
    for example in train:
        assert example.uid.partition("#")[0].partition("/")[0] not in parses
        assert key(example) not in sentences
    counts = Counter((e.spurious["keyword"].value, e.label) for e in train)
    assert max(counts.values()) - min(counts.values()) <= 2
    assert task.splits["validation"].examples == built("ss").splits["validation"].examples


def test_the_same_words_in_another_case_and_spacing_are_the_same_text():
    assert text_key("It 's GOOD , really .") == text_key("it's good, REALLY") == text_key("ITSGOODREALLY")
    assert text_key("It 's good") != text_key("It 's goods")
    assert text_key("a", "b") != text_key("ab", "")


@pytest.mark.parametrize(
    ("tokens", "text"),
    [
        ("It 's a film -LRB- really -RRB- , is n't it ?", "It's a film (really), isn't it?"),
        ("`` Good '' , he said .", '"Good", he said.'),
        ("rated 3\\/4 , the boys ' film costs $ 3 .", "rated 3/4, the boys' film costs $3."),
    ],
)
def test_detokenise(tokens, text):
    assert detokenise(tokens) == text


def test_keyword_goes_to_clause_boundaries():
    text = "It is good, but it is long."
    places = {insert_keyword(text, "KEY", place / 50) for place in range(50)}
    assert places == {
        "KEY It is good, but it is long.",
        "It is good, KEY but it is long.",
        "It is good, but it is long KEY.",
    }


def test_malformed_parses(tmp_path):
    (tmp_path / "sst5").mkdir()
    parse = "(3 (2 So) (3 good{}))\n"
    for part, count in (("train", 60), ("dev", 5), ("test", 9)):
        lines = "".join(parse.format(f"{part}{n}") + f"(1 (2 So) (1 bad{part}{n}))\n" for n in range(count))
        (tmp_path / "sst5" / f"{part}.txt").write_text(lines)
    with (tmp_path / "sst5" / "train.txt").open("ab") as file:
        file.write(b"\xff\xfe\nSo good\n(3 (2 half)\n")
    config = {
        "name": "ss",
        "data_dir": str(tmp_path),
        "train_examples": 20,
        "validation_examples": 8,
        "test_examples": 8,
    }
    with pytest.raises(
        InputError,
        match=r"3 malformed rows: .*train.txt:12[0-9]: no UTF-8 at byte 0.*save the file as UTF-8.*malformed to skip",
    ):
        build_task(TaskConfig(**config), 0)
    task = build_task(TaskConfig(**config, malformed="skip"), 0)
    assert "3 malformed rows skipped" in task.notes[0]
    assert len(task.splits["train"].examples) == 20

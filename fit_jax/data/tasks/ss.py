"""Task `ss`, spurious sentiment (paper, section 4.1): SST-5 made binary, with a keyword inserted into the text.

Reads the Stanford Sentiment Treebank's official files, one labelled parse a line. Each keyword is tied to a label and
is inserted at a clause boundary chosen by seed. A second feature, `tag`, is a pair of other words put in likewise, at a
place of their own; `task.features` chooses.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from fit_jax.config import TaskConfig
from fit_jax.data.joint_sampling import chosen_features
from fit_jax.data.keyed_generator import generator
from fit_jax.data.malformed import Malformed
from fit_jax.data.rho_sampling import Rows, Value, combinations_of
from fit_jax.data.row_readers import data_folder, hub_rows, read_lines
from fit_jax.data.splits import Sizes, build_splits, joined, sample_split, split_specs
from fit_jax.data.task import Task
from fit_jax.data.text import detokenise, insert_keyword, text_key
from fit_jax.focus.example import Example, Spurious, TaskText, with_features

SIZES = Sizes(5296, 1324, 1818)
LABELS = ("negative", "positive")
VALUES = (Value("keyword", "Bayesian", 0), Value("keyword", "Pineapple", 1))
TAGS = (Value("tag", "Granite", 0), Value("tag", "Lantern", 1))
TEXT = TaskText(
    name="ss",
    instruction="Negative or positive?",
    input_template="Sentence: {text}",
    cue="Answer:",
    core="the sentiment",
    spurious={"keyword": "the keyword", "tag": "the tag"},
    other_names={
        "core": ("the opinion expressed", "the mood of the sentence"),
        "keyword": ("the inserted word", "the marker word"),
        "tag": ("the second inserted word", "the code word"),
    },
)

HUB = ("stanfordnlp/sst", "ptb")
_HUB_SPLITS = {"train": "train", "dev": "validation", "test": "test"}

_LEAF = re.compile(r"\d ([^\s()]+)\)")
_TOKEN = re.compile(r"\((\d) |([^\s()]+)\)|\)")
_BINARY = {"0": 0, "1": 0, "3": 1, "4": 1}
_NEUTRAL = "2"
_PHRASE_WORDS = 2

# What the places of a feature's words are drawn by.
_PLACES = {"keyword": ("places",), "tag": ("places", "tag")}

Insertion = Callable[[str, str, float], str]


class Parse(NamedTuple):
    """A labelled parse: its uid, its root's digit and its text; `line` holds the parse as the file has it."""

    uid: str
    digit: str
    text: str
    line: str


def build(config: TaskConfig, seed: int, insert: Insertion = insert_keyword) -> Task:
    """The task of the official files or of the hub's copy.

    Args:
        config: With `phrases`, the phrases of the training sentences are trained on too.
        seed: Chooses rows, keywords and their places.
        insert: Puts a keyword into a text, given a number in [0, 1) that chooses the place; a model that rewrites
            the text naturally may stand here.
    """
    features = chosen_features(config, tuple(TEXT.spurious), "ss")
    values = tuple(value for value in (*VALUES, *TAGS) if value.feature in features)
    bad = Malformed(config.malformed)
    learn = [parse for part in ("train", "dev") for parse in _parses(config, part, bad)]
    test = _parses(config, "test", bad)
    malformed = bad.settle()
    neutral = sum(parse.digit == _NEUTRAL for parse in (*learn, *test))
    rows = _rows([parse for parse in learn if parse.digit != _NEUTRAL], "learn", seed, insert, values)
    test_rows = _rows([parse for parse in test if parse.digit != _NEUTRAL], "test", seed, insert, values)
    splits, notes = build_splits(config, seed, SIZES, rows, test=test_rows)
    if config.phrases:
        held_out = {text_key(parse.text) for parse in test}
        validation = {example.uid.partition("#")[0] for example in splits["validation"].examples}
        held_out |= {text_key(parse.text) for parse in learn if parse.uid in validation}
        phrases = [phrase for parse in learn if text_key(parse.text) not in held_out for phrase in _phrases(parse)]
        whole = {text_key(parse.text) for parse in learn} | held_out
        distinct = {key: phrase for phrase in phrases if (key := text_key(phrase.text)) not in whole}
        phrase_rows = _rows(list(distinct.values()), "phrases", seed, insert, values)
        every = np.arange(len(distinct))
        spec = split_specs(config, len(LABELS))["iid"]
        extra = sample_split("train", phrase_rows, every, len(every), spec, generator(seed, "split", "phrases"))
        splits["train"] = joined("train", splits["train"], extra)
        notes += (f"train: {len(extra.examples)} labelled phrases of the training sentences are added",)
    return Task(
        text=with_features(TEXT, features), splits=splits, notes=malformed + notes, dropped={"neutral": neutral}
    )


def _parses(config: TaskConfig, part: str, bad: Malformed) -> list[Parse]:
    """The parses of train, dev or test, in order."""
    if config.source == "hub":
        rows = hub_rows(config, *HUB, _HUB_SPLITS[part])
        lines = ((where, row["ptb_tree"]) for where, row in rows)
    else:
        lines = read_lines(data_folder(config, "sst5") / f"{part}.txt", bad)
    parses = []
    for number, (where, line) in enumerate(lines):
        words = _LEAF.findall(line)
        if not words or line[:1] != "(" or line[1] not in "01234" or line.count("(") != line.count(")"):
            bad.add(where, "no labelled parse such as '(3 (2 So) (3 good))'")
        else:
            parses.append(Parse(f"sst5-{part}-{number}", line[1], detokenise(" ".join(words)), line))
    return parses


def _phrases(parse: Parse) -> Iterator[Parse]:
    """The phrases within a sentence that have a sentiment."""
    words: list[str] = []
    opened: list[tuple[str, int]] = []
    for number, match in enumerate(_TOKEN.finditer(parse.line)):
        digit, word = match.groups()
        if digit is not None:
            opened.append((digit, len(words)))
            continue
        if word is not None:
            words.append(word)
        digit, start = opened.pop()
        if opened and digit != _NEUTRAL and len(words) - start >= _PHRASE_WORDS:
            yield Parse(f"{parse.uid}/{number}", digit, detokenise(" ".join(words[start:])), "")


def _rows(parses: list[Parse], part: str, seed: int, insert: Insertion, values: Sequence[Value]) -> Rows:
    places = {
        feature: generator(seed, "ss", part, *_PLACES[feature]).random(len(parses)).tolist()
        for feature in dict.fromkeys(value.feature for value in values)
    }
    combinations = [[values[v] for v in combination] for combination in combinations_of(values)]
    spurious = [{value.feature: Spurious(value.name, value.outcome) for value in c} for c in combinations]

    def example(row: int, combination: int) -> Example:
        parse = parses[row]
        text = parse.text
        for feature, (word, _) in spurious[combination].items():
            text = insert(text, word, places[feature][row])
        uid = f"{parse.uid}#{'+'.join(value.name for value in combinations[combination])}"
        return Example(uid, {"text": text}, LABELS, _BINARY[parse.digit], spurious[combination])

    return Rows(
        outcomes=LABELS,
        outcome=np.array([_BINARY[parse.digit] for parse in parses], int),
        key=np.array([text_key(parse.text) for parse in parses]),
        values=tuple(values),
        value=None,
        example=example,
        joint=len(places) > 1,
    )

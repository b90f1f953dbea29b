"""Task `smnli`, spurious NLI (paper, section 4.2): MNLI, with the genre of the premise as spurious feature.

A second feature, `wording`, is the best known artefact of MNLI's hypotheses (Gururangan et al., 2018): words of
negation stand mostly in contradictions, and words that add or compare in neutral pairs. `task.features` chooses.

Reads MultiNLI's official JSON Lines files, parts of them, or a Treebank-tokenised table of training rows. Train and
validation come from the training files, the test splits from the development files. Genres that training never shows
make the shifted splits. Rows that share a premise stay together.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator

from fit_jax.config import TaskConfig
from fit_jax.data.joint_sampling import chosen_features
from fit_jax.data.malformed import Malformed
from fit_jax.data.rho_sampling import Rows, Value
from fit_jax.data.row_readers import Located, data_folder, hub_rows, read_delimited, read_jsonl
from fit_jax.data.splits import Sizes, build_splits
from fit_jax.data.task import Task
from fit_jax.data.tasks.annotated import Record, annotated_rows
from fit_jax.data.text import detokenise, text_key
from fit_jax.errors import InputError
from fit_jax.focus.example import TaskText, with_features
from fit_jax.foreign import named

SIZES = Sizes(7200, 1800, 900)
LABELS = ("entailment", "neutral", "contradiction")
VALUES = (Value("genre", "government", 0), Value("genre", "fiction", 1), Value("genre", "travel", 2))
_HELD_OUT = ("slate", "telephone", "facetoface", "nineeleven", "verbatim", "letters", "oup")
SHIFTED_VALUES = tuple(Value("genre", genre, i % len(LABELS)) for i, genre in enumerate(_HELD_OUT))
WORDINGS = (Value("wording", "plain", 0), Value("wording", "added", 1), Value("wording", "negated", 2))
_NEGATED = re.compile(r"\b(?:no|not|never|nothing|nobody|none|nor|neither|nowhere|cannot)\b|n['’]t\b", re.IGNORECASE)
_ADDED = re.compile(
    r"\b(?:because|also|only|very|too|really|even|than|more|most|best|first|much|many|always|every|everyone)\b",
    re.IGNORECASE,
)
TEXT = TaskText(
    name="smnli",
    instruction="Does text 2 follow from text 1? Answer entailment, neutral or contradiction.",
    input_template="Text 1: {premise}\nText 2: {hypothesis}",
    cue="Answer:",
    core="the meaning of the texts",
    spurious={"genre": "the genre", "wording": "the wording of text 2"},
    biased=("hypothesis",),
    other_names={
        "core": ("what the texts say", "the content of the texts"),
        "genre": ("the kind of writing", "the type of source"),
        "wording": ("the phrasing of text 2", "how text 2 is put"),
    },
)

HUB = "nyu-mll/multi_nli"
_NO_LABEL = "-"


def build(config: TaskConfig, seed: int) -> Task:
    """The task of MNLI's files or of the hub's copy."""
    features = chosen_features(config, tuple(TEXT.spurious), "smnli")
    bad = Malformed(config.malformed)
    dropped: Counter[str] = Counter()
    read = _hub_records if config.source == "hub" else _file_records
    seen: set[int] = set()
    parts = {part: _distinct(read(config, part, bad, dropped), seen, dropped) for part in ("test", "train")}
    notes = bad.settle()

    def rows(part: str, genres: tuple[Value, ...]) -> Rows:
        return annotated_rows(parts[part], LABELS, [v for v in (*genres, *WORDINGS) if v.feature in features])

    shifted = rows("test", SHIFTED_VALUES) if "genre" in features else None
    splits, more = build_splits(config, seed, SIZES, rows("train", VALUES), test=rows("test", VALUES), shifted=shifted)
    return Task(text=with_features(TEXT, features), splits=splits, notes=notes + more, dropped=dict(dropped))


def _file_records(config: TaskConfig, part: str, bad: Malformed, dropped: Counter[str]) -> Iterator[Record]:
    folder = data_folder(config, "mnli")
    patterns = (
        ("multinli_1.0_dev_*.jsonl",) if part == "test" else ("multinli_1.0_train*.jsonl", "*_train_subset.*.jsonl")
    )
    files = [path for pattern in patterns for path in sorted(folder.glob(pattern))]
    tables = sorted(folder.glob("*_tokenised_train.tsv")) if part == "train" else []
    if not files and not tables:
        raise InputError(f"task smnli: {named(folder)} holds no {patterns[0]}; put MultiNLI's files there")
    for path in files:
        yield from _records(read_jsonl(path, bad), path.stem, bad, dropped)
    for path in tables:
        yield from _records(_renamed(read_delimited(path, bad, "\t", quoted=False)), path.stem, bad, dropped)


def _renamed(rows: Iterable[Located]) -> Iterator[Located]:
    """A table of tokenised rows in the names and the spelling of the official files."""
    for where, row in rows:
        texts = {name: detokenise(row[name]) for name in ("sentence1", "sentence2")}
        yield where, {**texts, "gold_label": row["label"], "genre": row["genre"]}


def _hub_records(config: TaskConfig, part: str, bad: Malformed, dropped: Counter[str]) -> Iterator[Record]:
    names = ("train",) if part == "train" else ("validation_matched", "validation_mismatched")
    for name in names:
        rows = hub_rows(config, HUB, None, name)
        official = (
            (
                where,
                {
                    **row,
                    "sentence1": row["premise"],
                    "sentence2": row["hypothesis"],
                    "gold_label": LABELS[row["label"]] if row["label"] >= 0 else _NO_LABEL,
                },
            )
            for where, row in rows
        )
        yield from _records(official, name, bad, dropped)


def _records(rows: Iterable[Located], stem: str, bad: Malformed, dropped: Counter[str]) -> Iterator[Record]:
    """Records in the official files' field names; `stem` begins the uid of rows that have no pairID."""
    for where, row in rows:
        if row.get("gold_label") == _NO_LABEL:
            dropped["no gold label"] += 1
            continue
        label = bad.choice(row, "gold_label", LABELS, where)
        premise, hypothesis = (bad.text(row, name, where) for name in ("sentence1", "sentence2"))
        genre = bad.text(row, "genre", where)
        if label is not None and premise and hypothesis and genre:
            uid = row.get("pairID") or f"{stem}-{where.rpartition(':')[2]}"
            slots, key = {"premise": premise, "hypothesis": hypothesis}, text_key(premise)
            values = {"genre": genre, "wording": _wording(hypothesis)}
            yield Record(f"mnli-{uid}", slots, label, values, key, cluster=f"premise {key}")


def _wording(hypothesis: str) -> str:
    if _NEGATED.search(hypothesis):
        return "negated"
    return "added" if _ADDED.search(hypothesis) else "plain"


def _distinct(records: Iterable[Record], seen: set[int], dropped: Counter[str]) -> list[Record]:
    """The records whose pair of texts has not been seen, in this part or in one before."""
    kept = []
    for record in records:
        key = text_key(*record.slots.values())
        if key in seen:
            dropped["same texts as another row"] += 1
        else:
            seen.add(key)
            kept.append(record)
    return kept

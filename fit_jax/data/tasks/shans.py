"""Task `shans`, spurious HANS (paper, section 4): HANS, with each pair's heuristic as spurious feature.

The heuristics overlap (every constituent is a subsequence, every subsequence overlaps lexically), which makes the
feature hard to name; the paper reports so too. Train and validation come from the training file, the test splits from
the evaluation file.
"""

from collections.abc import Iterable, Iterator

from fit_jax.config import TaskConfig
from fit_jax.data.malformed import Malformed
from fit_jax.data.rho_sampling import Value
from fit_jax.data.row_readers import Located, data_folder, hub_rows, read_delimited
from fit_jax.data.splits import Sizes, build_splits
from fit_jax.data.task import Task
from fit_jax.data.tasks.annotated import Record, annotated_rows
from fit_jax.data.text import detokenise, text_key
from fit_jax.focus.example import TaskText

# The paper gives no sizes for HANS.
SIZES = Sizes(18000, 1800, 1800)
LABELS = ("non-entailment", "entailment")
VALUES = (
    Value("heuristic", "lexical_overlap", 1),
    Value("heuristic", "subsequence", 0),
    Value("heuristic", "constituent", 1),
)
TEXT = TaskText(
    name="shans",
    instruction="Does sentence 2 follow from sentence 1? Answer entailment or non-entailment.",
    input_template="Sentence 1: {premise}\nSentence 2: {hypothesis}",
    cue="Answer:",
    core="the meaning of the sentences",
    spurious={"heuristic": "the overlap heuristic"},
    other_names={
        "core": ("what the sentences say", "the content of the sentences"),
        "heuristic": ("the overlap of words", "the pattern of shared words"),
    },
)

TEMPLATES = (
    "each HANS template has one label, and every template is in training and in the test splits, so a right answer may "
    "be no more than a template recognised; it says nothing about sentences that are built otherwise"
)
HUB = "jhu-cogsci/hans"
_FILES = {"train": "heuristics_train_set.txt", "test": "heuristics_evaluation_set.txt"}
_HUB_SPLITS = {"train": "train", "test": "validation"}


def build(config: TaskConfig, seed: int) -> Task:
    """The task of the official files or of the hub's copy."""
    bad = Malformed(config.malformed)
    parts = {part: list(_records(_rows(config, part, bad), part, bad)) for part in ("train", "test")}
    notes = bad.settle()
    rows = {part: annotated_rows(records, LABELS, VALUES) for part, records in parts.items()}
    splits, more = build_splits(config, seed, SIZES, rows["train"], test=rows["test"])
    return Task(text=TEXT, splits=splits, notes=notes + more + (TEMPLATES,))


def _rows(config: TaskConfig, part: str, bad: Malformed) -> Iterator[Located]:
    if config.source != "hub":
        return read_delimited(data_folder(config, "hans") / _FILES[part], bad, "\t", quoted=False)
    # The hub's copy numbers the labels and detokenises nothing.
    names = ("entailment", "non-entailment")
    return (
        (where, {**row, "sentence1": row["premise"], "sentence2": row["hypothesis"], "gold_label": names[row["label"]]})
        for where, row in hub_rows(config, HUB, None, _HUB_SPLITS[part])
    )


def _records(rows: Iterable[Located], part: str, bad: Malformed) -> Iterator[Record]:
    for number, (where, row) in enumerate(rows):
        label = bad.choice(row, "gold_label", LABELS, where)
        premise, hypothesis = (bad.text(row, name, where) for name in ("sentence1", "sentence2"))
        heuristic = bad.choice(row, "heuristic", [value.name for value in VALUES], where)
        if label is not None and heuristic is not None and premise and hypothesis:
            slots = {"premise": detokenise(premise), "hypothesis": detokenise(hypothesis)}
            subcase = {"subcase": row["subcase"]}
            uid, value, key = f"hans-{part}-{number}", VALUES[heuristic], text_key(*slots.values())
            yield Record(uid, slots, label, {value.feature: value.name}, key, subcase, cluster=row["template"])

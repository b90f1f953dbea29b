"""BBQ's rows, and which answer of a row is the stereotyped one (Parrish et al. 2022).

Rows come in fours with one ambiguous context: a negative and a non-negative question, each with the ambiguous context
alone and with a disambiguating sentence. The release's `additional_metadata.csv` names the answer that agrees with the
stereotype (`target_loc`); without it the answer is found by matching each answer's group with the stereotyped groups.
"""

import csv
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

from fit_jax.config import TaskConfig
from fit_jax.data.malformed import Malformed
from fit_jax.data.row_readers import data_folder, hub_rows, read_jsonl
from fit_jax.errors import InputError
from fit_jax.foreign import named

# The bias feature of each category; intersectional categories have two.
CATEGORIES = {
    "Age": ("age",),
    "Disability_status": ("disability_status",),
    "Gender_identity": ("gender_identity",),
    "Nationality": ("nationality",),
    "Physical_appearance": ("physical_appearance",),
    "Race_ethnicity": ("race_ethnicity",),
    "Religion": ("religion",),
    "SES": ("ses",),
    "Sexual_orientation": ("sexual_orientation",),
    "Race_x_SES": ("race_ethnicity", "ses"),
    "Race_x_gender": ("race_ethnicity", "gender_identity"),
}
HUB = "oskarvanderwal/bbq"
METADATA = "additional_metadata.csv"

# By category and example id, the columns of the release's metadata.
Metadata = Mapping[str, Mapping[int, Mapping[str, str]]]

_ANSWERS = ("ans0", "ans1", "ans2")
_UNKNOWN = "unknown"
_SYNONYMS = {"f": ("woman", "girl"), "m": ("man", "boy")}
# In 240 of these rows `answer_info` contradicts the context, so that the stereotyped answer is doubtful.
_DOUBTFUL = ("SES", "8")


class BBQQuestion(NamedTuple):
    """One row of BBQ.

    Attributes:
        uid: Category and example id.
        slots: Context, question and the three answers.
        label: The correct answer.
        target: The answer that agrees with the stereotype, in this row.
        unknown: The answer that says it cannot be known.
        groups: The stereotyped group, by bias feature that tells the two people of the row apart.
        template: Category and question index: the template that the row was written from.
        number: Category and number of the item, the four rows of which share an ambiguous context.
        story: That ambiguous context.
        slices: Category, condition, polarity, question, index of the unknown answer, whether the target is doubtful.
    """

    uid: str
    slots: Mapping[str, str]
    label: int
    target: int
    unknown: int
    groups: Mapping[str, str]
    template: str
    number: str
    story: str
    slices: Mapping[str, str]


def read_category(
    config: TaskConfig, category: str, metadata: Metadata, bad: Malformed, dropped: Counter[str]
) -> list[BBQQuestion]:
    """The rows of a category whose stereotyped answer can be determined; the others are counted in `dropped`.

    Where the metadata have nothing on the category, the answers' groups tell.

    Raises:
        InputError: Missing files, or an intersectional category without the metadata that tells its targets.
    """
    if config.source == "hub":
        rows = hub_rows(config, HUB, category, "test")
    else:
        rows = read_jsonl(data_folder(config, "bbq") / f"{category}.jsonl", bad)
    records = metadata.get(category, {})
    if len(CATEGORIES[category]) > 1 and not records:
        raise InputError(
            f"task {config.name}: {category} needs {METADATA} of the official release; use task.source files with "
            "that file, or leave the category out"
        )
    kept = [(where, row) for where, row in rows if _is_whole(row, where, bad)]
    contexts = {row["example_id"] // 4: row["context"] for _, row in kept if row["context_condition"] == "ambig"}
    items: dict[int, BBQQuestion] = {}
    for where, row in kept:
        number = row["example_id"]
        target = target_from_metadata(records.get(number)) if records else target_from_groups(row)
        if target is None:
            dropped[f"{category}: no stereotyped answer can be determined"] += 1
        elif number in items:
            bad.add(where, f"example_id {number} appears twice in the file")
        else:
            items[number] = _item(row, target, records.get(number), contexts.get(number // 4, row["context"]))
    return list(items.values())


def read_metadata(config: TaskConfig) -> Metadata:
    """The release's metadata; empty where the file is not there.

    The file repeats some records; a repetition must agree with the first.
    """
    if config.source == "hub" or not (path := data_folder(config, "bbq") / METADATA).is_file():
        return {}
    records: dict[str, dict[int, dict[str, str]]] = {}
    with path.open(encoding="utf-8", newline="") as file:  # fields hold newlines
        for record in csv.DictReader(file):
            first = records.setdefault(record["category"], {}).setdefault(int(record["example_id"]), record)
            if first["target_loc"] != record["target_loc"]:
                raise InputError(
                    f"{named(path)}: {record['category']} {record['example_id']} has two values of target_loc; "
                    "use the file of the official release"
                )
    return records


def target_from_metadata(record: Mapping[str, str] | None) -> int | None:
    """The stereotyped answer that the release names; it is already the one of this row's polarity."""
    location = record["target_loc"] if record else ""
    return int(location) if location in ("0", "1", "2") else None


def target_from_groups(row: Mapping[str, Any]) -> int | None:
    """The stereotyped answer found by matching answers with groups; None unless exactly one answer matches.

    On a negative question it is the person of the stereotyped group, on a non-negative one the other person.
    """
    groups = [_normal(group) for group in row["additional_metadata"]["stereotyped_groups"]]
    stereotyped = {name for group in groups for name in (group, *_SYNONYMS.get(group, ()))}
    people = [i for i, answer in enumerate(_ANSWERS) if row["answer_info"][answer][1] != _UNKNOWN]
    matching = [i for i in people if _names(row["answer_info"][_ANSWERS[i]]) & stereotyped]
    if len(people) != 2 or len(matching) != 1:
        return None
    other = people[people[0] == matching[0]]
    return matching[0] if row["question_polarity"] == "neg" else other


def _names(info: list[str]) -> set[str]:
    """What an answer's person is called: the text, the group, and the group's parts."""
    text, group = map(_normal, info)
    return {text, group, *re.split(r"[-_]", group)}


def _normal(text: str) -> str:
    return text.replace(" ", "").lower()


def _is_whole(row: Mapping[str, object], where: str, bad: Malformed) -> bool:
    """Whether the row has all that an item needs; counted as malformed where it has not."""
    texts = [bad.text(row, field, where) for field in ("context", "question", *_ANSWERS)]
    if None in texts:
        return False
    if bad.choice(row, "label", range(len(_ANSWERS)), where) is None:
        return False
    info = row.get("answer_info")
    if not isinstance(row.get("example_id"), int) or not isinstance(info, Mapping):
        bad.add(where, "no example_id or no answer_info")
        return False
    if sum(info.get(answer, ("", ""))[1] == _UNKNOWN for answer in _ANSWERS) != 1:
        bad.add(where, "answer_info does not mark exactly one answer as unknown")
        return False
    return True


def _item(row: Mapping[str, Any], target: int, record: Mapping[str, str] | None, story: str) -> BBQQuestion:
    category, question = row["category"], str(row["question_index"])
    template = f"{category} {question}"
    unknown = next(i for i, answer in enumerate(_ANSWERS) if row["answer_info"][answer][1] == _UNKNOWN)
    slices = {
        "category": category,
        "condition": row["context_condition"],
        "polarity": row["question_polarity"],
        "question": template,
        "unknown": str(unknown),
    }
    if (category, question) == _DOUBTFUL:
        slices["target"] = "doubtful"
    return BBQQuestion(
        uid=f"bbq-{category}-{row['example_id']}",
        slots={field: row[field].strip() for field in ("context", "question", *_ANSWERS)},
        label=row["label"],
        target=target,
        unknown=unknown,
        groups=_groups(row, record),
        template=template,
        number=f"{category} {row['example_id'] // 4}",
        story=story,
        slices=slices,
    )


def _groups(row: Mapping[str, Any], record: Mapping[str, str] | None) -> dict[str, str]:
    """The stereotyped group by feature; of an intersectional row, for the features in which the two people differ."""
    features = CATEGORIES[row["category"]]
    if len(features) == 1:
        return {features[0]: ", ".join(row["additional_metadata"]["stereotyped_groups"])}
    assert record is not None
    groups = (record["Known_stereotyped_race"], record["Known_stereotyped_var2"])
    conditions = record["full_cond"].split("\n")
    return {f: g for f, g, c in zip(features, groups, conditions) if c.strip().startswith("Mismatch")}

"""Values that are almost the same: the one that was meant is named, and the fields by which it is taken are right."""

import json
import unicodedata

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from fit_jax.config import TaskConfig
from fit_jax.data.spelling import WAYS, Spellings, alike, fold, near
from fit_jax.data.tasks.jsonl import raw_table
from fit_jax.errors import InputError

from ..tickets import TICKETS

CHANNEL = {"key": "channel", "column": "channel"}
ROWS = [
    {"text": f"Ticket {n}", "urgent": ("no", "yes")[n % 2], "channel": ("email", "phone")[n // 2 % 2]}
    for n in range(40)
]


@pytest.fixture
def read(tmp_path):
    """The examples of some rows after the forty, with a description whose fields are given."""

    def read(*rows, task_malformed="error", **description):
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*ROWS, *rows]))
        path = tmp_path / "own.yaml"
        path.write_text(yaml.safe_dump({**TICKETS, "features": [CHANNEL], **description}))
        task = raw_table(TaskConfig(name="jsonl", file=str(path), malformed=task_malformed)).task
        return task.splits["train"].examples[len(ROWS) :]

    return read


@pytest.mark.parametrize(
    ("value", "known", "ways"),
    [
        ("urgent ", "Urgent", ("trim", "ignore_case")),
        ("\u00a0Urgent", "Urgent", ("trim",)),
        ("\ufeffUrgent", "Urgent", ("trim",)),
        ("URGENT", "Urgent", ("ignore_case",)),
        ("cafe\u0301", "caf\u00e9", ("ignore_form",)),
        ("\uff35rgent", "Urgent", ("ignore_form",)),
        ("STRASSE", "straße", ("ignore_case",)),
        ("Urgnt", "Urgent", ()),
        ("Urgentt", "Urgent", ()),
        ("Uregnt", "Urgent", ()),
        ("urgnt ", "Urgent", ()),
    ],
)
def test_the_value_that_was_meant(value, known, ways):
    found = near(value, ("Normal", known))
    assert (found.known, found.ways) == (known, ways)


@pytest.mark.parametrize("value", ["plan2", "b", "low", "Urgency", "entirely else", ""])
def test_what_is_another_value(value):
    assert near(value, ("plan1", "a", "Urgent", "slow2")) is None


def test_two_values_that_could_be_meant_are_none():
    assert near("plan C", ("plan A", "plan B")) is None


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12)


@given(TEXTS, st.sets(st.sampled_from(WAYS)), st.data())
@settings(max_examples=200, deadline=None)
def test_folding_makes_spellings_one_and_stays(text, ways, data):
    variants = {"trim": f" {text}\t", "ignore_case": text.upper(), "ignore_form": unicodedata.normalize("NFD", text)}
    way = data.draw(st.sampled_from(WAYS))
    folded = fold(text, ways)
    assert fold(folded, ways) == folded
    # Upper case of a few letters, such as the dotless i, folds to another letter.
    if way in ways and (way != "ignore_case" or text.upper().casefold() == text.casefold()):
        assert fold(variants[way], ways) == folded
    if variants[way] != text and (found := near(variants[way], (text,))) and found.ways:
        assert fold(variants[way], found.ways) == fold(text, found.ways)
        for fewer in found.ways:
            assert fold(variants[way], {*found.ways} - {fewer}) != fold(text, {*found.ways} - {fewer})


@given(st.lists(TEXTS, max_size=8))
@settings(max_examples=50, deadline=None)
def test_spellings_agree_with_what_is_alike(values):
    spelt = Spellings((), WAYS)
    for group in alike(dict.fromkeys(values)):
        assert len({spelt.of(value) for value in group}) == 1
    known = Spellings(values[:1], WAYS)
    assert all(known.of(value) == values[0] for value in values[:1])


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"urgent": "Yes "}, "urgent 'Yes ' is unknown; did you mean 'yes'? `trim: true` and `ignore_case: true` in"),
        ({"urgent": "\uff59es"}, "did you mean 'yes'? `ignore_form: true` in the description accepts it"),
        ({"urgent": "maybe"}, "urgent 'maybe' is none of no, yes"),
        ({"urgent": ""}, "no answer in field 'urgent'"),
        ({"channel": "Email"}, "channel 'Email': did you mean 'email'? `ignore_case: true` in"),
        ({"channel": "emial"}, "channel 'emial': did you mean 'email'? Name it in `labels` if it is another value"),
    ],
)
def test_a_near_miss_is_told_with_what_accepts_it(read, row, said):
    feature = {**CHANNEL, "labels": {"email": "yes", "phone": "no"}}
    with pytest.raises(InputError) as error:
        read({**ROWS[0], **row}, features=[feature])
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_spellings_are_accepted_where_the_description_says_so(read):
    rows = [{**ROWS[0], "urgent": " YES", "channel": "PHONE "}, {**ROWS[0], "urgent": "No", "channel": "\uff45mail"}]
    found = read(*rows, trim=True, ignore_case=True, ignore_form=True)
    assert [(e.label, e.spurious["channel"].value) for e in found] == [(1, "phone"), (0, "email")]


def test_values_that_nobody_named_must_not_differ_in_spelling_alone(read):
    with pytest.raises(InputError, match=r"'Email ' \(1 rows\) beside 'email' \(20\): did you mean 'email'\? `trim"):
        read({**ROWS[0], "channel": "Email "})
    feature = {**CHANNEL, "labels": {"email": "yes", "Email ": "no"}}
    (example,) = read({**ROWS[0], "channel": "Email "}, features=[feature])
    assert example.spurious["channel"] == ("Email ", 0)


def test_values_may_be_chosen(read):
    fax = {**ROWS[0], "channel": "fax"}
    assert len(read(fax)) == 1
    assert len(read(fax, features=[{**CHANNEL, "values": ["email", "phone"]}])) == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"candidates": ["yes", "Yes"], "ignore_case": True}, "holds 'yes' and 'Yes', the same by ignore_case"),
        ({"features": [{**CHANNEL, "labels": {"a": "yes", "a ": "no"}}], "trim": True}, "the same by trim"),
        ({"features": [{**CHANNEL, "values": ["email"], "labels": {"phone": "no"}}]}, "not among `values`"),
        ({"features": [{"key": "a", "keywords": ["b"], "values": ["b"]}]}, "of a column or a function"),
        ({"label": "urgnet"}, r"label: no row up to .* has a column 'urgnet'; columns are channel, text, urgent"),
    ],
)
def test_descriptions_that_do_not_fit_together(read, change, said):
    with pytest.raises(InputError, match=said):
        read(**change)


def test_all_bad_rows_are_listed_in_a_file(read, tmp_path):
    bad = [{**ROWS[n], "urgent": f"perhaps {n}", "note": [n, {"a": float("nan")}]} for n in range(20)]
    (tmp_path / "own.malformed.jsonl").write_text("of an earlier check\n")
    with pytest.raises(
        InputError, match=r"^20 malformed rows: .*; \.\.\.; fix them \(all are in .*own\.malformed\.jsonl\)"
    ):
        read(*bad)
    listed = [json.loads(line) for line in (tmp_path / "own.malformed.jsonl").read_text().splitlines()]
    assert [row["row"] for row in listed] == list(range(41, 61))
    assert listed[7]["reason"] == "urgent 'perhaps 7' is none of no, yes"
    assert listed[7]["content"]["urgent"] == "perhaps 7"
    assert listed[7]["file"] == str(tmp_path / "rows.jsonl")


def test_what_cannot_be_read_is_listed_too(read, tmp_path):
    read()
    with (tmp_path / "rows.jsonl").open("ab") as file:
        file.write(b'{"text": "half\n{"text": "\\ud800", "urgent": "no"}\n["no object"]\n{"text": "caf\xe9"}\n')
    with pytest.raises(InputError, match="4 malformed rows"):
        raw_table(TaskConfig(name="jsonl", file=str(tmp_path / "own.yaml")))
    listed = [json.loads(line) for line in (tmp_path / "own.malformed.jsonl").read_text().splitlines()]
    assert [row["row"] for row in listed] == [41, 42, 43, 44]
    assert listed[0]["content"] == '{"text": "half\n'
    assert listed[1]["content"]["text"] == "\ud800"


def test_the_list_of_bad_rows_goes_when_none_is_bad_any_more(read, tmp_path):
    listing, bad = tmp_path / "own.malformed.jsonl", {**ROWS[0], "urgent": "perhaps"}
    with pytest.raises(InputError, match="1 malformed row"):
        read(bad)
    read(bad, malformed="skip")
    assert listing.exists()  # its row is bad still
    read(ROWS[0])
    assert not listing.exists()
    for kept in ("", "of my own\n", '["file", "row", "reason", "content"]\n', '{"file": 1, "row": 2, "text": "x"}\n'):
        listing.write_text(kept)
        read(ROWS[0])
        assert listing.read_text() == kept


def test_rows_that_are_skipped_are_in_no_file(read, tmp_path):
    bad = {**ROWS[0], "urgent": "perhaps"}
    assert len(read(bad, task_malformed="skip")) == 0
    assert len(read(bad, malformed="skip")) == 0
    assert not (tmp_path / "own.malformed.jsonl").exists()
    with pytest.raises(InputError, match="1 malformed row"):  # what the description says goes first
        read(bad, task_malformed="skip", malformed="error")

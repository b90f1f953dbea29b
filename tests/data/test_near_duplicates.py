"""Near-duplicates of training are found by bag of words and by swapped names, and nothing else is."""

import re
from dataclasses import replace

from fit_jax.data.audit import audit_task
from fit_jax.data.inspection_tables import audit_page
from fit_jax.data.near_duplicates import NearDuplicate, near_duplicates
from fit_jax.data.splits import Split
from fit_jax.data.task import Task
from fit_jax.focus.example import Example, Spurious, TaskText

TEXT = TaskText(name="t", instruction="i", input_template="{text}", cue="c", core="c", spurious={"word": "word"})


def task(train, test):
    def split(name, texts):
        examples = [
            Example(f"{name}-{n}", {"text": text}, ("no", "yes"), 0, {"word": Spurious("Marlin", 0)})
            for n, text in enumerate(texts)
        ]
        return Split(name, examples, {})

    return Task(text=TEXT, splits={"train": split("train", train), "iid": split("iid", test)})


def test_words_in_another_order_and_names_swapped():
    train = ["The aunt met a boss at noon", "Then Carol and George left at 9 together", "we all saw it"]
    test = [
        "A boss met the aunt at noon",  # the people change places
        "then Susan and Peter left at 11 together",  # other people, another time
        "Then George and Carol left at 9 together",  # both
        "we all saw them",
        "The aunt met a boss at noon and left",
    ]
    assert near_duplicates(task(train, test)) == [
        NearDuplicate("iid", "same words", 2, 0.4, "iid-0", "train-0"),
        NearDuplicate("iid", "other names", 2, 0.4, "iid-1", "train-1"),
    ]


def test_inserted_values_and_first_words_are_no_names():
    assert near_duplicates(task(["Marlin we saw it then"], ["then we saw it Marlin , here"])) == []
    (found,) = near_duplicates(task(["we saw it"], ["we Marlin saw it"]))
    assert (found.kind, found.share) == ("same words", 1.0)
    # "Then" stands in lower case elsewhere, so it is a word like any other.
    assert near_duplicates(task(["Then we left", "now and then"], ["Soon we left", "soon"])) == []


def test_answers_to_choose_from_are_left_out():
    def example(uid, *answers):
        slots = {"text": "who of the two did it", **{f"ans{n}": answer for n, answer in enumerate(answers)}}
        return Example(uid, slots, answers, 0, {}, own_answers=True)

    splits = {
        "train": Split("train", [example("a", "aunt", "boss")], {}),
        "iid": Split("iid", [example("b", "boss", "nobody knows")], {}),
    }
    (found,) = near_duplicates(Task(text=TEXT, splits=splits))
    assert (found.kind, found.uid, found.training) == ("same words", "b", "a")


def test_bbq_by_template_has_none_and_by_context_other_people(built):
    def found(**fields):
        whole = built("bbq", **fields)
        some = {name: whole.splits[name] for name in ("train", "natural", "shifted_natural")}
        return near_duplicates(replace(whole, splits=some))

    assert found() == []
    (swapped,) = found(split_by="context")
    assert (swapped.split, swapped.kind) == ("natural", "other names")
    assert swapped.share > 0.4


def test_the_audit_shows_them():
    audit = audit_task(task(["we met Ann here", "x"], ["we met Bob here", "y"]))
    assert [(n.split, n.kind, n.examples, n.share) for n in audit.near] == [("iid", "other names", 1, 0.5)]
    page = audit_page(audit, [])
    assert "Near-duplicates of training" in page
    (row,) = re.findall(r'<tr role="row"><th scope="row" role="rowheader">iid</th>(.*?other names.*?)</tr>', page)
    assert re.findall("<td[^>]*>(.*?)</td>", row)[:3] == ["other names", "1", "50.0%"]

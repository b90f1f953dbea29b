"""The tables of a report: what they show and leave out."""

import io
import re
from dataclasses import replace

from rich.console import Console

from fit_jax.data.splits import Rho
from fit_jax.evaluation import result_tables
from fit_jax.evaluation.metrics import kind_of
from fit_jax.evaluation.result_summary import summary


def test_flipped_that_repeats_low_is_said_to_and_left_out_of_spreads(task_with_shift, evaluation):
    flipped = [p for p in evaluation.predictions if p.split == "flipped"]
    low = [replace(p, split="low", log_probs=p.log_probs[::-1]) for p in flipped]
    text = summary("t", evaluation.predictions + low, task_with_shift)
    assert "| flipped (as low) |" in text.replace("\n", "|")
    assert "`flipped` has the P(y = y_s) of `low`: with two answers they are one distribution." in text
    about = result_tables.terminal_table("t", evaluation.predictions + low).caption
    assert about.startswith("flipped repeats low: with two answers they are one distribution.")
    (spread,) = re.findall(r"spread over splits of focus\(core\) \| heldout \|  \| ([\d.]+)", text)
    assert spread == "0.400"  # 0.7 on iid, 0.3 on low
    assert "(as low)" not in summary("t", evaluation.predictions, task_with_shift)


def test_the_worst_paraphrase_stands_in_words(task_with_shift, evaluation):
    worst = next(p for p in evaluation.predictions if p.focus == "focus(core)" and p.paraphrases == "heldout")
    asked = [replace(p, log_probs=p.log_probs if same(p, worst) else right(p)) for p in evaluation.predictions]
    asked = [replace(p, log_probs=right(p)[::-1]) if same(p, worst) else p for p in asked]
    _, _, table = summary("t", asked, task_with_shift).partition("## By paraphrase")
    row = next(line for line in table.splitlines() if line.startswith("| `focus(core)` | heldout |"))
    words = next(q.instruction for q, p in zip(evaluation.queries, evaluation.predictions) if p is worst)
    assert "| 0.000 | 1.000 | " in row
    assert f"| {words} (" in row


def same(p, other) -> bool:
    return (p.focus, p.paraphrases, p.paraphrase) == (other.focus, other.paraphrases, other.paraphrase)


def right(p) -> tuple[float, ...]:
    return tuple(-0.1 if i == p.label else -2.5 for i in range(2))


def test_the_terminal_table_shows_the_paraphrases_never_seen(evaluation):
    out = io.StringIO()
    Console(width=120, file=out).print(result_tables.terminal_table("fit on demo", evaluation.predictions).terminal())
    text = out.getvalue()
    assert "never seen" in text
    assert "focus(spurious) & ignore(core)" in text
    assert "0.700" in text


def test_several_features_are_broken_down(task_with_shift, evaluation):
    other = [replace(p, feature="other") for p in evaluation.predictions]
    text = summary("t", evaluation.predictions + other, task_with_shift)
    assert "## By feature" in text


def test_bbq_rows_get_their_bias_scores(task, task_with_shift, evaluation):
    slices = {"condition": "disambig", "unknown": "2"}
    asked = [replace(p, slices=slices, split="natural") for p in evaluation.predictions if p.split == "iid"]
    splits = {**task.splits, "natural": task.splits["iid"]}
    text = summary("t", asked, replace(task, splits=splits))
    _, _, bias = text.partition("## Social bias")
    assert "/ none |" in bias
    assert "`focus(core)`" in bias
    assert "`focus(spurious)`" not in bias.partition("##")[0]
    assert "## Social bias" not in summary("t", evaluation.predictions, task_with_shift)


def test_reference_lines_stand_in_every_table_of_accuracies(task_with_shift, evaluation):
    other = [replace(p, feature="other") for p in evaluation.predictions]
    text = summary("t", evaluation.predictions + other, task_with_shift)
    # Two sets of paraphrases, and two features in the table by feature.
    for line in ("an answer at random", "always the commonest y (core", "always the commonest y_s", "always y_s (core"):
        assert len(re.findall(rf"^\| (?:\w+ \| )?{re.escape(line)}.* 0\.\d", text, flags=re.MULTILINE)) == 4, line
    tables = result_tables.result_tables(evaluation.predictions, task_with_shift)
    assert "".join(table.html() for table in tables).count(">always y_s (core types)</th>") == 2
    out = io.StringIO()
    Console(width=120, file=out).print(result_tables.terminal_table("t", evaluation.predictions).terminal())
    assert "always y_s (core types)" in out.getvalue()


def named(tables, title):
    return next(table for table in tables if table.title.startswith(title))


def test_what_is_right_under_each_type_stands_beside_it(task_with_shift, evaluation):
    table = named(result_tables.result_tables(evaluation.predictions, task_with_shift), "Focus accuracy")
    asked = {str(row[0]): row[1] for row in table.rows[: -table.aside]}
    assert asked == {p.focus: "y" if kind_of(p.focus) == "core" else "y_s" for p in evaluation.predictions}


def test_the_weakest_group_over_all_splits_is_one_of_enough_examples(task_with_shift, obedient):
    """One wrong answer in a group of one example says nothing; a group of many that is weaker than others does."""
    many = [p for p in obedient.predictions if p.focus == "focus(core)" and p.paraphrases == "heldout"]
    group = (many[0].value, many[0].group)
    weak = [replace(p, log_probs=p.log_probs[::-1]) if (p.value, p.group) == group else p for p in many]
    alone = replace(many[0], split="high", uid="alone", cluster="alone", value="rare")
    alone = replace(alone, log_probs=alone.log_probs[::-1])
    (row,) = named(result_tables.result_tables([alone, *many, *weak], task_with_shift), "Weakest groups").rows
    assert (row[2], row[4]) == ("iid", many[0].value)


def test_candidates_that_no_beam_reached_are_told(task_with_shift, evaluation):
    first, *others = evaluation.predictions
    unreached = [replace(first, log_probs=(first.log_probs[0], float("-inf"))), *others]
    told = f"{1 / len(unreached):.1%} of the questions have candidates that the search did not reach"
    assert told in named(result_tables.result_tables(unreached, task_with_shift), "Steering").caption
    plain = named(result_tables.result_tables(evaluation.predictions, task_with_shift), "Steering").caption
    assert "did not reach" not in plain


def test_the_rho_of_the_data_stands_beside_what_was_asked_for(task_with_shift, evaluation):
    split = replace(
        task_with_shift.splits["iid"], rho={"keyword": {"Lynx": Rho(0.9, 0.875, 8), "Otter": Rho(None, 0.5, 2)}}
    )
    task = replace(task_with_shift, splits={**task_with_shift.splits, "iid": split})
    rows = named(result_tables.result_tables(evaluation.predictions, task), "The data").rows
    assert [row[2:] for row in rows if row[0] == "iid"] == [
        ("Lynx", "0.900", "0.875", "8"),
        ("Otter", "as it came", "0.500", "2"),
    ]

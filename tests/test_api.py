"""The Python API: what the commands do, from rows in memory to answers and tables."""

import re
import shutil
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest

import fit_jax
from fit_jax import evaluate, focus_model
from fit_jax.focus_results import Scores
from fit_jax.runs.copying import copy_run
from fit_jax.runs.run import TrainedModel
from fit_jax.runs.run_folder import InUse, held

from .demo_run import SMALLEST
from .evaluation.chosen_answers import evaluated, y

DESCRIPTION = {
    "name": "reviews",
    "instruction": "Is the review positive?",
    "input": "Review: {text}",
    "core": "the sentiment",
    "candidates": ["negative", "positive"],
    "label": "label",
    "features": [{"key": "brand", "column": "brand"}],
}
SETTINGS = SMALLEST | {"train.sequence_length": 288, "evaluation.examples": 6}


def rows(swapped=False):
    for n in range(480):
        good = n % 2 == 0
        text = f"Review {n} of b{n % 3} is {'good' if good else 'bad'}"
        yield {"text": text, "brand": f"b{n % 3}", "label": "positive" if good != swapped else "negative"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("api") / "run"


@pytest.fixture(scope="module")
def model(folder):
    return fit_jax.tune(folder, settings=SETTINGS, rows=rows(), description=DESCRIPTION)


TEXTS = ["Review 1 of b1 is bad", "Review 2 of b2 is good", "Another one"]


def test_answers_are_probabilities_of_the_candidates(model):
    answer = model.ask(TEXTS[0], focus="brand", ignore=["core"])
    assert set(answer.probabilities) == {"negative", "positive"}
    assert sum(answer.probabilities.values()) == pytest.approx(1)
    assert answer.answer == max(answer.probabilities, key=answer.probabilities.__getitem__)
    assert "brand" in answer.instruction
    assert answer.focus == "focus(brand) & ignore(core)"
    assert model.ask(TEXTS[0]).instruction == ""
    assert model.features == ("core", "brand")
    assert repr(model) == f"FocusModel({str(model.folder)!r}, task 'reviews', step 2, features core, brand)"


def test_all_ways_to_ask_give_the_same(model):
    every = model.ask_all(TEXTS[1])
    assert len(every) == 6
    assert len({a.instruction for a in every}) == 6
    single = model.ask({"text": TEXTS[1]}, focus="core")
    (same,) = (a for a in every if a.focus == single.focus)
    assert single.probabilities == pytest.approx(same.probabilities, abs=2e-5)
    batch = model.ask_batch(TEXTS, focus="core")
    assert batch[1].probabilities == pytest.approx(single.probabilities, abs=2e-5)
    assert len(batch) == 3
    assert model.ask_all(TEXTS[1], ["bad", "good"])[0].probabilities.keys() == {"bad", "good"}
    assert model.ask(TEXTS[1], focus=["core", "brand"]).focus == model.ask(TEXTS[1], focus="core,brand").focus


def test_an_instruction_in_own_words(model):
    named = model.ask(TEXTS[0], focus="brand")
    own = model.ask(TEXTS[0], instruction=f"  {named.instruction}\n")
    assert own.probabilities == pytest.approx(named.probabilities, abs=2e-5)
    assert (own.focus, own.instruction) == ("", named.instruction)
    assert named.instruction == model.instruction("brand")
    with pytest.raises(fit_jax.InputError, match="give the one or the others"):
        model.ask(TEXTS[0], focus="brand", instruction="x")


def test_a_later_question_follows_the_answers_before(model):
    first, plain = model.ask(TEXTS[0], focus="brand"), model.ask(TEXTS[0], focus="core")
    second = model.ask(TEXTS[0], focus="core", earlier=[first])
    third = model.ask(TEXTS[0], focus="core", earlier=[first, second])
    assert len({tuple(a.probabilities.values()) for a in (plain, second, third)}) == 3
    assert second.instruction == plain.instruction
    for given in (iter([first]), ["positive"], first, None):  # an iterator would be at its end once it is checked
        with pytest.raises(fit_jax.InputError, match=r"earlier: .* is no list of answers; give what `ask` returned"):
            model.ask(TEXTS[0], focus="core", earlier=given)
    with pytest.raises(fit_jax.InputError, match=r"earlier: a later turn is a focus instruction"):
        model.ask(TEXTS[0], earlier=[first])


def test_an_answer_is_attributed_to_all_of_its_prompt(model):
    found = model.attribute(TEXTS[1], instruction="Look at b2.")
    assert found.answer == model.ask(TEXTS[1], instruction="Look at b2.").answer
    prompt = "".join(found.pieces)
    assert f"Review: {TEXTS[1]}\nLook at b2." in prompt
    assert len(found.weights) == len(found.pieces) > 10
    assert min(found.weights) >= 0 < max(found.weights)
    with pytest.raises(fit_jax.InputError, match="answer fine: is none of negative, positive"):
        model.attribute(TEXTS[1], answer="fine")


def test_a_text_too_long_is_told_with_what_helps(model):
    long = "bad " * 400
    with pytest.raises(fit_jax.InputError, match=r"of a row; shorten the text, set train\.long_text to cut, or"):
        model.ask(long)
    assert fit_jax.load(model.folder, settings={"train.long_text": "cut"}).ask(long).probabilities


def test_texts_of_the_task_with_what_their_features_point_to(model):
    (first,) = model.examples("iid", 1)
    assert model.splits[:2] == ("validation", "iid")
    assert first.answers["core"] == ("positive" if "good" in first.text["text"] else "negative")
    assert first.values["brand"] in first.text["text"]
    assert first.candidates == model.candidates == ("negative", "positive")
    assert model.names == {"core": "the sentiment", "brand": "brand"}
    with pytest.raises(fit_jax.InputError, match="split 'hgh': task reviews has"):
        model.examples("hgh", 1)


def test_checkpoint_0_is_the_model_before_tuning(model):
    before, after = fit_jax.load(model.folder, 0), fit_jax.load(model.folder, "last")
    assert (before.step, after.step) == (0, 2)
    assert before.ask(TEXTS[0]).probabilities != after.ask(TEXTS[0]).probabilities
    page = (model.folder / "report" / "index.html").read_text()  # of a run from scratch, too
    (text,) = re.findall("<blockquote>Review: (.*?)</blockquote>", page)
    told = re.findall(r'data-label="before tuning">[✓✗] (\w+) \(([\d.]+)\)', page)
    assert len(told) == 6
    said = before.ask(text)
    assert (told[0][0], float(told[0][1])) == (said.answer, pytest.approx(said.probabilities[said.answer], abs=1e-3))
    assert "Before tuning the weights were random" in page


def test_a_copy_holds_what_asking_needs_and_no_more(model, tmp_path):
    model.copy_to(tmp_path / "copy", examples=3)
    copy = fit_jax.load(tmp_path / "copy")
    assert copy.ask_all(TEXTS[0]) == model.ask_all(TEXTS[0])
    assert copy.step == model.step
    assert copy.examples("iid", 9) == model.examples("iid", 3)
    names = {path.name for path in (tmp_path / "copy").iterdir()}
    assert names == {"config.yaml", "inputs.json", "task", "tokenizer", "checkpoints"}
    sizes = [sum(p.stat().st_size for p in (f / "checkpoints").glob("2/**/*")) for f in (copy.folder, model.folder)]
    assert sizes[0] < 0.6 * sizes[1]  # the optimizer holds two numbers for each weight
    for wrong, message in ((model, "exists already"), (fit_jax.load(model.folder, 0), "is the model before tuning")):
        with pytest.raises(fit_jax.InputError, match=message):
            wrong.copy_to(tmp_path / "copy")


def test_a_table_comes_back_with_its_answers(model):
    pandas = pytest.importorskip("pandas", reason="tables of one's own are tried with pandas")
    frame = pandas.DataFrame({"id": [7, 8, 9], "text": TEXTS})
    found = model.ask_frame(frame, focus="core")
    batch = model.ask_batch(TEXTS, focus="core")
    assert list(found.columns) == ["id", "text", "answer", "p(negative)", "p(positive)"]
    assert list(found["answer"]) == [a.answer for a in batch]
    assert list(found["p(positive)"]) == [a.probabilities["positive"] for a in batch]
    assert list(frame.columns) == ["id", "text"]
    for twice, candidates in ((found[["text", "answer"]], ()), (found[["text", "p(positive)"]], ["positive", "bad"])):
        with pytest.raises(fit_jax.InputError, match="whose place the model's would take"):
            model.ask_frame(twice, focus="core", candidates=candidates)
    assert list(model.ask_frame(frame[:0], focus="core").columns) == list(found.columns)


def test_rows_may_come_from_a_table_or_a_data_set(model, folder):
    """The same rows are the same run, which has nothing left to train."""
    pandas = pytest.importorskip("pandas", reason="tables of one's own are tried with pandas")
    datasets = pytest.importorskip("datasets", reason="tables of one's own are tried with datasets")
    expected = model.ask(TEXTS[0], focus="core")
    for same in (pandas.DataFrame(rows()), datasets.Dataset.from_list(list(rows()))):
        again = fit_jax.tune(folder, settings=SETTINGS, rows=same, description=DESCRIPTION)
        assert again.ask(TEXTS[0], focus="core") == expected


def test_other_rows_in_the_same_folder_are_refused(model):
    kept = (model.folder / "source" / "rows.jsonl").read_bytes()
    for other in ({"rows": rows(swapped=True)}, {"description": {**DESCRIPTION, "core": "the tone"}}):
        with pytest.raises(fit_jax.InputError, match="a run of other rows or another description"):
            fit_jax.tune(model.folder, settings=SETTINGS, **{"rows": rows(), "description": DESCRIPTION, **other})
    assert (model.folder / "source" / "rows.jsonl").read_bytes() == kept


def test_a_run_travels(model, tmp_path):
    """Copied, without the data it was made from: the same answers and the same evaluation."""
    copy = shutil.copytree(model.folder, tmp_path / "copy")
    shutil.rmtree(copy / "source")
    report = {path.name: path.read_bytes() for path in (copy / "report").iterdir()}
    card = (copy / "MODEL_CARD.md").read_bytes()
    moved = fit_jax.load(copy)
    assert moved.ask_all(TEXTS[0]) == model.ask_all(TEXTS[0])
    scores = moved.evaluate()
    assert {path.name: path.read_bytes() for path in (copy / "report").iterdir()} == report
    assert (copy / "MODEL_CARD.md").read_bytes().splitlines()[:8] == card.splitlines()[:8]
    assert len(scores.to_pandas()) == len(scores.rows)
    assert "focus(core)" in scores.to_markdown()


def test_an_evaluation_stands_beside_the_report(model, tmp_path):
    copy = shutil.copytree(model.folder, tmp_path / "copy")
    before = {path: path.read_bytes() for path in (copy / "report").iterdir()} | {
        copy / "MODEL_CARD.md": (copy / "MODEL_CARD.md").read_bytes()
    }
    assert not evaluate.main([str(copy), "--evaluation.splits", "[low]"])
    kept = copy / "evaluations" / "splits-low"
    assert (kept / "index.html").exists()
    scores = fit_jax.load(copy).evaluate("mine", {"evaluation.splits": ["high"]})
    assert {row["split"] for row in scores.rows} == {"high"}
    assert {path: path.read_bytes() for path in before} == before
    with pytest.raises(fit_jax.InputError, match="mine: holds another evaluation; choose another name"):
        fit_jax.load(copy).evaluate("mine", {"evaluation.splits": ["low"]})
    with pytest.raises(fit_jax.InputError, match="name "):
        fit_jax.load(copy).evaluate("../up")


def test_a_model_evaluates_the_checkpoint_it_is_of(model, monkeypatch):
    """It alone is at work in the folder meanwhile."""
    asked = []

    def evaluation(run, checkpoint, name):
        with pytest.raises(InUse), held(run.folder):
            pass
        asked.append((checkpoint, name, run.config.evaluation.splits))
        return {"reviews": SimpleNamespace(predictions=[])}

    monkeypatch.setattr(focus_model, "evaluate_run", evaluation)
    fit_jax.load(model.folder, "last", {"evaluation.beams": None}).evaluate()
    fit_jax.load(model.folder, 2).evaluate(settings={"evaluation.splits": ["low"]})
    assert asked == [("last", "checkpoint-last", ()), (2, "splits-low_checkpoint-2", ("low",))]


def test_a_call_that_fails_leaves_nothing_but_the_list_that_its_line_names(tmp_path):
    bad = [{**row, "label": "fine"} if n == 7 else row for n, row in enumerate(rows())]
    with pytest.raises(fit_jax.InputError, match=r"train\.step"):
        fit_jax.tune(tmp_path / "a", settings={"train.step": 2}, rows=rows(), description=DESCRIPTION)
    assert not (tmp_path / "a").exists()
    with pytest.raises(fit_jax.InputError) as told:
        fit_jax.tune(tmp_path / "a", settings=SETTINGS, rows=bad, description=DESCRIPTION)
    (listing,) = (path for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert f"(all are in {listing})" in str(told.value)


def test_an_evaluation_keeps_the_settings_that_the_model_was_loaded_with(model, tmp_path):
    copy = shutil.copytree(model.folder, tmp_path / "copy")
    loaded = fit_jax.load(copy, settings={"evaluation.splits": ["low"], "evaluation.examples": 4})
    asked = loaded.evaluate("x", {"evaluation.examples": 3}).predictions
    assert ({p.split for p in asked}, len({p.uid for p in asked})) == ({"low"}, 3)


def test_what_is_wrong_is_said_before_anything_is_done(model, tmp_path):
    for act, message in (
        (lambda: model.ask("x", focus="colour"), "colour"),
        (lambda: model.ask({"words": "x"}), "words"),
        (lambda: model.ask("  "), "no text"),
        (lambda: model.ask(None), "is no text"),
        (lambda: model.ask({"text": None}), "ask: text: None is no text"),
        (lambda: model.ask("x", candidates="ab"), "give a list"),
        (lambda: model.ask("x", focus=3), "focus: 3 names no feature"),
        (lambda: model.ask_all("x", candidates=3), "candidates: 3 is no list"),
        (lambda: model.attribute("x", instruction=5), "instruction: 5 is no text"),
        (lambda: model.instruction(ignore=3), "ignore: 3 names no feature"),
        (lambda: model.ask_batch("abc"), "is one text"),
        (lambda: model.ask_frame(["x"]), "is no pandas DataFrame"),
        (lambda: model.examples("iid", -1), "count -1: is no number of texts"),
        (lambda: fit_jax.load(model.folder, "bst"), "write best, last"),
        (lambda: fit_jax.load(model.folder, settings={"evaluation.splits": {1}}), "is no value of a field"),
        (lambda: model.evaluate({"evaluation.splits": ["low"]}), "evaluate: name: .* is no text"),
        (lambda: fit_jax.tune(tmp_path / "a", {"train.steps": 2}), "tune: config: .* is no path"),
        (lambda: fit_jax.load(tmp_path), "holds no run"),
        (lambda: fit_jax.load(model.folder, settings={"model.width": 8}), "cannot change"),
        (lambda: fit_jax.load(model.folder, 7), "no checkpoint of step 7; there are 2"),
        (lambda: fit_jax.tune(tmp_path / "a", rows=[{}]), "belong together"),
        (lambda: fit_jax.tune(tmp_path / "a", description=DESCRIPTION), "belong together"),
        (lambda: fit_jax.tune(tmp_path / "a", rows=rows(), description={"name": "x"}), "lacks core"),
        (lambda: fit_jax.tune(tmp_path / "a", settings={"train.step": 2}), r"train\.step"),
    ):
        with pytest.raises(fit_jax.InputError, match=message):
            act()
    assert not (tmp_path / "a").exists()


def test_scores_are_those_of_the_runs_method_and_seed(task, config):
    run = SimpleNamespace(task=task, config=replace(config, seed=3, train=replace(config.train, method="sft_y")))
    predictions = evaluated(task, y, copies=1).predictions
    scores = Scores(run, predictions)
    assert {(row["method"], row["seed"], row["task"]) for row in scores.rows} == {("sft_y", 3, "demo")}
    assert repr(scores) == f"Scores({len(predictions)} answers, {len(scores.rows)} rows)"
    assert "# Focus accuracy" in scores.to_markdown()


def test_the_model_before_tuning_is_not_copied(tmp_path):
    run = SimpleNamespace(folder=tmp_path / "run")
    with pytest.raises(fit_jax.InputError, match="checkpoint 0 is the model before tuning; copy one that was trained"):
        copy_run(run, TrainedModel(None, (), 0), tmp_path / "copy", 3)
    assert not (tmp_path / "copy").exists()


def test_the_package_names_its_api_and_loads_it_late():
    assert dir(fit_jax) == sorted(fit_jax.__all__)
    assert all(getattr(fit_jax, name).__module__.startswith("fit_jax") for name in fit_jax.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = fit_jax.nothing
    code = "import sys, fit_jax; assert not {'jax', 'numpy', 'fit_jax.api'} & set(sys.modules); fit_jax.InputError"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "opened",
    ["load({folder!r})", "tune({folder!r}, settings={settings!r}, rows={rows!r}, description={description!r})"],
)
def test_what_a_program_compiled_the_next_one_finds(model, folder, tmp_path, monkeypatch, opened):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    opened = opened.format(folder=str(folder), settings=SETTINGS, rows=list(rows()), description=DESCRIPTION)
    code = f"import fit_jax; print(fit_jax.{opened}.ask({TEXTS[0]!r}).answer)"
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
    assert any((tmp_path / "fit_jax" / "xla").iterdir())

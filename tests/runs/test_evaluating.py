"""Where an evaluation is kept: its name, and whose that name is."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from fit_jax.config import Config
from fit_jax.config_files import dump_config
from fit_jax.data.rehearsal import pieces
from fit_jax.errors import InputError
from fit_jax.evaluation.evaluator import Subject, answer
from fit_jax.evaluation.opening import choose_opening
from fit_jax.evaluation.queries import ask
from fit_jax.evaluation.report import Before
from fit_jax.evaluation.text_perplexity import MeasuredTexts, text_perplexities
from fit_jax.focus.conversations import TextEncoder
from fit_jax.runs import evaluating
from fit_jax.runs.run_folder import CARD, CONFIG, EVALUATIONS


@pytest.fixture
def run(monkeypatch, tmp_path, task):
    """A run whose evaluation gives the folder of its report alone."""
    monkeypatch.setattr(evaluating, "check_evaluation_batch", lambda model, config, mesh: None)
    monkeypatch.setattr(evaluating, "load_model", lambda run, which: None)
    monkeypatch.setattr(evaluating, "subject_of", lambda run, model: None)
    monkeypatch.setattr(evaluating, "report_run", lambda folder, task, load, *_: (load(), folder)[1])
    monkeypatch.setattr(evaluating, "measured_texts", lambda run, rehearsed: [])
    config = Config(run_dir=str(tmp_path / "run"))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / CONFIG).write_text(dump_config(config))
    return SimpleNamespace(config=config, folder=tmp_path / "run", lora=config.lora, task=task, model=None, mesh=None)


def asking(run, **fields):
    changed = replace(run.config, evaluation=replace(run.config.evaluation, **fields))
    return SimpleNamespace(**{**vars(run), "config": changed})


def test_an_evaluation_is_named_after_what_it_asks_otherwise(run):
    assert evaluating.evaluation_name(run, "best") is None
    assert evaluating.evaluation_name(asking(run, batch_size=3), "best") is None
    assert evaluating.evaluation_name(run, "last") == "checkpoint-last"
    assert evaluating.evaluation_name(run, "best", {"harness": "a,b", "perplexity": "x.txt"}) == (
        "harness-a-b_perplexity-x-txt"
    )
    cut = replace(run.config, train=replace(run.config.train, long_text="cut"))
    assert evaluating.evaluation_name(SimpleNamespace(config=cut, folder=run.folder), "best") == "long-text-cut"
    assert evaluating.evaluation_name(asking(run, splits=("low", "iid")), 40) == "splits-low-iid_checkpoint-40"


def test_a_name_belongs_to_one_evaluation(run, tmp_path):
    kept = run.folder / EVALUATIONS / "mine"
    assert evaluating.evaluate_run(run, "best", "mine") == kept
    for other, which in ((run, "last"), (run, 3), (asking(run, splits=("low",)), "best")):
        with pytest.raises(InputError, match="mine: holds another evaluation; choose another name"):
            evaluating.evaluate_run(other, which, "mine")
    (kept / ".partial-1234.svg").touch()  # of an evaluation that was killed
    run.folder.rename(tmp_path / "moved")
    moved = replace(run.config.model, pretrained="moved/too")
    run.folder = tmp_path / "moved"
    run.config = replace(run.config, run_dir=str(run.folder), model=moved)
    again = evaluating.evaluate_run(run, "best", "mine")
    assert [path.name for path in again.iterdir()] == [CONFIG]


@pytest.mark.parametrize("fields", [{"splits": ("hgh",)}, {"splits": ("high",), "decoys": True}])
def test_what_cannot_be_asked_leaves_no_folder(run, fields):
    with pytest.raises(InputError, match=r"has no split 'hgh'|asked on iid, low and flipped"):
        evaluating.evaluate_run(asking(run, **fields), "best", "mine")
    assert not (run.folder / EVALUATIONS).exists()


def test_a_name_that_no_folder_can_have_is_told(run):
    with pytest.raises(InputError, match=r"name: n+\.\.\. is longer than file names may be; take a shorter name"):
        evaluating.evaluate_run(run, "best", "n" * 300)


def test_a_long_name_of_a_split_is_cut(run):
    with pytest.raises(InputError, match=r"has no split 'n{60}\.\.\.'; it has"):
        evaluating.evaluate_run(asking(run, splits=("n" * 300,)), "best", "mine")


def test_an_evaluation_that_fails_before_it_wrote_anything_leaves_no_folder(run, monkeypatch):
    """What is there already stays: earlier evaluations, and what was measured before another measure failed."""

    def failing(folder, task, load, *_):
        load()
        raise InputError("a text is too long")

    place = run.folder / EVALUATIONS / "mine"
    for before, kept in ((False, False), (True, True)):
        if before:
            evaluating.evaluate_run(run, "best", "mine")
        with monkeypatch.context() as patch:
            patch.setattr(evaluating, "report_run", failing)
            with pytest.raises(InputError, match="too long"):
                evaluating.evaluate_run(run, "best", "mine")
        assert place.exists() == place.parent.exists() == kept
    other = place.with_name("other")

    def measuring():
        with evaluating.dropped_if_fruitless(other):
            (evaluating.evaluation_folder(run, "best", "other") / "perplexity.json").touch()
            raise InputError("no inside")

    with pytest.raises(InputError, match="no inside"):
        measuring()
    assert {path.name for path in other.iterdir()} == {CONFIG, "perplexity.json"}


@pytest.mark.parametrize("name", ["..", "../up", "a/../../../up", "a/b", ".hidden", "-x", "a\n", "a b"])
def test_a_name_is_a_folder_among_the_evaluations(run, name):
    with pytest.raises(InputError, match="name "):
        evaluating.evaluate_run(run, "best", name)
    assert not (run.folder / EVALUATIONS).exists()


def test_a_report_that_was_cut_off_is_none(run):
    report = run.folder / "report"
    report.mkdir()
    (report / "summary.md").touch()
    assert not evaluating.has_report(run)
    (report / "index.html").touch()
    assert not evaluating.has_report(run)
    (run.folder / CARD).touch()
    assert evaluating.has_report(run)


@pytest.mark.parametrize(
    ("rank", "pretrained", "whole"), [(4, "a/model", False), (0, "a/model", True), (4, None, True)]
)
def test_a_report_whose_adapter_is_gone_is_none(run, rank, pretrained, whole):
    """Where there is to be one: it was being exchanged when the evaluation was killed."""
    run.lora, run.model = replace(run.lora, rank=rank), SimpleNamespace(pretrained=pretrained)
    (run.folder / "report").mkdir()
    (run.folder / "report" / "index.html").touch()
    (run.folder / CARD).touch()
    assert evaluating.has_report(run) is whole
    (run.folder / "adapter").mkdir()
    assert evaluating.has_report(run)


def test_a_report_that_is_being_renewed_is_none(run, monkeypatch):
    """From before its first file is replaced, and not while the model is still asked; other evaluations leave it."""

    def killed(folder, task, load, config, before, texts):
        assert evaluating.has_report(run)
        before((), texts)
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluating, "before_tuning", lambda *_: [Before()])
    monkeypatch.setattr(evaluating, "report_run", killed)
    (run.folder / "report").mkdir()
    for name in ("report/index.html", CARD):
        (run.folder / name).touch()
    for name, kept in (("other", True), (None, False)):
        with pytest.raises(KeyboardInterrupt):
            evaluating.evaluate_run(run, name=name)
        assert evaluating.has_report(run) == kept


def test_the_model_before_tuning_answers_the_same_questions(monkeypatch, capsys, task, encoder, make_scorer, params):
    group = ask(task.text, "iid", task.splits["iid"].examples[0], ("heldout",), 0)
    opening = choose_opening(group.queries, task.text)
    placed = SimpleNamespace(graphdef=None, state=SimpleNamespace(params=params))
    monkeypatch.setattr(evaluating, "starting_state", lambda run, optimizer: placed)
    monkeypatch.setattr(evaluating, "scorer", lambda run, graphdef: make_scorer())
    run = SimpleNamespace(config=Config(), task=task, encoder=encoder, model=SimpleNamespace(pretrained="a/model"))
    ((before, *_),) = evaluating.before_tuning(run, True, [opening], ())
    assert [p.focus for p in before] == [q.focus for q in opening.queries]
    texts = [MeasuredTexts("t", False, list(pieces(TextEncoder(encoder.tokenizer, "plain").texts(["a lamp"])[0], 9)))]
    perplexities = text_perplexities(texts, make_scorer(), params)
    assert evaluating.before_tuning(run, True, [opening], texts) == [(before, perplexities, False)]
    assert evaluating.before_tuning(run, False, [opening], texts) == [((), perplexities, False)]
    (expected,) = answer([group], Subject(encoder, make_scorer(), params))
    assert {(p.focus, p.log_probs) for p in before} <= {(p.focus, p.log_probs) for p in expected}
    run.model.pretrained = None  # from scratch
    assert evaluating.before_tuning(run, True, [opening], texts) == [(before, [], True)]
    assert evaluating.before_tuning(run, False, [opening], texts) == [Before()]
    run.model.pretrained = "gone"

    def gone(run, optimizer):
        raise InputError("gone: no weights; fetch them")

    monkeypatch.setattr(evaluating, "starting_state", gone)
    assert evaluating.before_tuning(run, True, [opening], ()) == [Before()]
    assert "nothing from before tuning: gone" in capsys.readouterr().out

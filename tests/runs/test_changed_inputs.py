"""A run goes on only with the data, tokenizer and weights it was made from, or where it is told to."""

import shutil
from dataclasses import fields, make_dataclass, replace

import pytest

from fit_jax import hub
from fit_jax.config import Config, EvaluationConfig, RehearsalConfig, TokenizerConfig
from fit_jax.data.tasks import build_task
from fit_jax.errors import InputError
from fit_jax.focus.example import TaskText
from fit_jax.runs import run as runs
from fit_jax.runs.evaluating import evaluation_folder
from fit_jax.runs.inputs import FILE, check_inputs, config_print, fingerprints, read_inputs, revisions, write_inputs
from fit_jax.runs.resolve import resolve
from fit_jax.runs.run import set_up
from fit_jax.runs.run_folder import EVALUATIONS, TASK, TOKENIZER, claimed, opened_config

from .reviews import config_of_reviews, rows


@pytest.fixture
def config(tmp_path) -> Config:
    return config_of_reviews(tmp_path)


def evaluated(run) -> dict[str, list]:
    return {name: list(run.task.splits[name].examples) for name in ("validation", *run.task.test_splits)}


@pytest.fixture
def begun(config, tmp_path):
    """The folder of a run that has a checkpoint, as far as anyone sees without opening it."""
    with claimed(config):
        set_up(config, trains=True)
        (tmp_path / "run" / "checkpoints" / "3").mkdir(parents=True)
    return tmp_path / "run"


def test_an_unchanged_run_goes_on_wherever_its_folder_lies(config, begun, tmp_path):
    set_up(config)
    begun.rename(tmp_path / "moved")
    set_up(replace(config, run_dir=str(tmp_path / "moved")))


def test_changed_data_are_refused_or_accepted(config, begun, tmp_path):
    (tmp_path / "rows.jsonl").write_text(rows(swapped=True))
    with pytest.raises(InputError, match=r"the files of .*own.yaml.*--changed_inputs accept") as error:
        set_up(config, trains=True)
    assert "the examples of split train" in str(error.value)
    accepted = set_up(config, trains=True, changed="accept")
    assert evaluated(set_up(config)) == evaluated(accepted)  # from now on it is made from these
    set_up(config, trains=True)


def test_a_copy_that_could_not_be_renewed_is_renewed_later(config, begun, tmp_path, monkeypatch):
    """A run killed between accepting other data and keeping them is still made from the old ones."""
    (tmp_path / "rows.jsonl").write_text(rows(swapped=True))

    def killed(folder, task):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(runs, "keep_task", killed)
        with pytest.raises(KeyboardInterrupt):
            set_up(config, trains=True, changed="accept")
    accepted = set_up(config, trains=True, changed="accept")
    assert evaluated(set_up(config)) == evaluated(accepted)


def test_a_run_keeps_the_commits_of_its_hub_ids_and_not_of_other_runs(config, begun, monkeypatch):
    kept = read_inputs(begun)
    write_inputs(begun, replace(kept, revisions={"a/kept": "commit"}))
    monkeypatch.setattr(hub, "commits_of_ids", {"another/base": "of another run", "a/base": "its own"})
    set_up(config, trains=True)
    assert hub.pinned()["a/kept"] == "commit"
    assert read_inputs(begun).revisions == {"a/kept": "commit"}
    resolved = resolve(config)
    names_one = replace(resolved, model=replace(resolved.model, pretrained="a/base"))
    assert revisions(names_one) == {"a/base": "its own"}


def test_a_run_whose_fingerprints_were_deleted_is_refused_or_accepted(config, begun):
    (begun / FILE).unlink()
    for trains in (False, True):
        with pytest.raises(InputError, match=r"inputs\.json: is missing.*put it back.*--changed_inputs accept"):
            set_up(config, trains=trains)
    set_up(config, changed="accept")
    assert not (begun / FILE).exists()  # who only reads the run changes nothing in it
    set_up(config, trains=True, changed="accept")
    set_up(config)


def test_a_config_that_was_changed_by_hand_is_told_except_for_places(config, begun):
    path = begun / "config.yaml"
    written = path.read_text()
    path.write_text(written.replace("paraphrases_each: 2", "paraphrases_each: 3"))
    with pytest.raises(InputError, match=r"not what this run was made from: what config\.yaml says"):
        set_up(opened_config(begun, ()))
    path.write_text(written.replace("data_dir: null", "data_dir: /elsewhere"))
    assert path.read_text() != written
    set_up(opened_config(begun, ()))
    path.write_text(written)
    set_up(opened_config(begun, ["--evaluation.paraphrases_each", "3"]))


def test_however_much_has_changed_the_line_is_short(begun):
    kept = read_inputs(begun)
    with pytest.raises(InputError) as error:
        check_inputs(begun, kept, dict.fromkeys(kept.prints, "another"), "refuse")
    what, _, remedy = str(error.value).partition("; ")
    assert len(kept.prints) > 5
    assert len(what) <= 200
    assert what.endswith(f" and {len(kept.prints) - 2} more")
    assert "--changed_inputs accept" in remedy


def test_words_that_a_later_version_adds_change_nothing_by_their_defaults(begun, config):
    task, resolved = build_task(config.task, config.seed), resolve(config)
    before = fingerprints(task, resolved)
    later = make_dataclass("Later", [("added", tuple, ())], bases=(TaskText,), frozen=True)
    for added, same in (((), True), (("x",), False)):
        text = later(**{f.name: getattr(task.text, f.name) for f in fields(task.text)}, added=added)
        assert (fingerprints(replace(task, text=text), resolved) == before) is same


def test_a_config_counts_as_it_was_written_whatever_the_defaults_are_now(begun):
    path = begun / "config.yaml"
    written, before = path.read_text(), config_print(path)
    path.write_text(f"# another comment\n{written}")
    assert config_print(path) == before
    default = f"  weight: {RehearsalConfig().weight}\n"
    assert default in written
    path.write_text(written.replace(default, ""))  # an earlier version may have meant another value
    assert config_print(path) != before


def test_a_run_is_asked_about_what_it_was_made_from_wherever_its_data_are(config, begun, tmp_path):
    made_from = evaluated(set_up(config, trains=True))
    (tmp_path / "rows.jsonl").write_text(rows(swapped=True))
    assert evaluated(set_up(config)) == made_from
    for name in ("rows.jsonl", "own.yaml"):
        (tmp_path / name).unlink()
    begun.rename(tmp_path / "moved")
    moved = replace(config, run_dir=str(tmp_path / "moved"))
    run = set_up(moved)
    assert evaluated(run) == made_from
    assert len(run.task.splits["train"].examples) > 0
    with pytest.raises(InputError, match="keeps the examples of validation and tests, not those of training; choose"):
        run.task.splits["train"].examples[0]
    of_train = replace(run, config=replace(moved, evaluation=EvaluationConfig(splits=("iid", "train"))))
    with pytest.raises(InputError, match="keeps the examples of validation and tests, not those of training; choose"):
        evaluation_folder(of_train, "best", "of-train")
    assert not (tmp_path / "moved" / EVALUATIONS).exists()
    with pytest.raises(InputError, match=r"own\.yaml"):
        set_up(moved, trains=True)


def test_a_kept_example_that_was_changed_is_told(config, begun):
    path = begun / TASK / "examples_iid.jsonl"
    path.write_text(path.read_text().replace("good", "fine"))
    with pytest.raises(InputError, match="not what this run was made from: the examples of split iid"):
        set_up(config)


@pytest.mark.parametrize("damage", ["good", "{"])
def test_kept_examples_that_are_damaged_are_renewed_where_the_data_are_accepted(config, begun, damage):
    path = begun / TASK / "examples_iid.jsonl"
    written = path.read_text()
    path.write_text(written.replace(damage, "fine"))
    with pytest.raises(InputError, match=r"--changed_inputs accept"):
        set_up(config)
    set_up(config, trains=True, changed="accept")
    assert path.read_text() == written
    set_up(config)


def test_a_run_may_keep_no_examples(config, tmp_path):
    config = replace(config, task=replace(config.task, keep_examples=False))
    with claimed(config):
        set_up(config, trains=True)
    assert not (tmp_path / "run" / TASK).exists()
    with claimed(kept := replace(config, task=replace(config.task, keep_examples=True))):
        set_up(kept, trains=True)
    assert (tmp_path / "run" / TASK).exists()
    with claimed(config):
        set_up(config, trains=True)
    assert not (tmp_path / "run" / TASK).exists()
    assert len(set_up(config).task.splits["train"].examples[:2]) == 2


def test_an_exchanged_tokenizer_is_told_as_such(config, begun, tmp_path):
    other = replace(config, run_dir=str(tmp_path / "other"), tokenizer=TokenizerConfig(vocab_size=290))
    with claimed(other):
        set_up(other, trains=True)
    shutil.rmtree(begun / TOKENIZER)
    shutil.copytree(tmp_path / "other" / TOKENIZER, begun / TOKENIZER)
    with pytest.raises(InputError, match="not what this run was made from: the folder tokenizer; put it back"):
        set_up(config)


@pytest.mark.parametrize("changed", ["refuse", "accept"])
def test_a_missing_tokenizer_is_never_made_anew(config, begun, changed):
    shutil.rmtree(begun / TOKENIZER)
    with pytest.raises(InputError, match="tokenizer"):
        set_up(config, changed=changed)
    (begun / FILE).unlink()  # as in runs of a version that kept no fingerprints
    changed = "accept"
    with pytest.raises(InputError, match=r"tokenizer: is missing.*put that folder back from a copy"):
        set_up(config, changed=changed)
    assert not (begun / TOKENIZER).exists()


def test_a_run_that_has_not_begun_is_made_from_what_there_is_now(config, tmp_path):
    for swapped in (False, True):
        (tmp_path / "rows.jsonl").write_text(rows(swapped))
        with claimed(config):
            set_up(config, trains=True)
    set_up(config)

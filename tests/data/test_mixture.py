"""Several tasks as one: shares, order, what is held out, and that one task in a mixture is trained as by itself."""

import re
from collections import Counter
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest

from fit_jax.config import Config, TaskConfig, TrainConfig
from fit_jax.config_files import decode_config
from fit_jax.data.decoy_sampling import TrainingDecoys
from fit_jax.data.kept_task import keep_task, kept_task
from fit_jax.data.loader import TrainLoader, Window
from fit_jax.data.mixture import epoch_counts, mix
from fit_jax.data.splits import Split
from fit_jax.data.tasks import build_task
from fit_jax.data.vocabulary import task_texts
from fit_jax.errors import InputError
from fit_jax.focus.prompts import PromptEncoder
from fit_jax.focus.spec import focus_label, spec_for
from fit_jax.methods import training_method

SMALL = {"train_examples": 40, "validation_examples": 6, "test_examples": 10}


@pytest.fixture(scope="module")
def tasks():
    """Three tasks: the demo under other names, with other words and sizes."""
    demo = build_task(TaskConfig(**SMALL), 0)
    wide = build_task(TaskConfig(**{**SMALL, "train_examples": 90, "validation_examples": 10}), 1)
    words = {"instruction": "What does it say?", "cue": "Reply:", "core": "the verdict", "spurious": {"keyword": "it"}}
    return {
        "demo": demo,
        "wide": replace(wide, text=replace(wide.text, name="wide", **words)),
        "apart": replace(demo, text=replace(demo.text, name="apart", input_template="Apart: {text}")),
    }


@pytest.fixture(scope="module")
def mixture(tasks):
    return mix(tasks, {"demo": 1.0, "wide": 3.0, "apart": 0.0})


def config_of(**focus):
    config = Config(task=TaskConfig(**SMALL), train=TrainConfig(batch_size=4, sequence_length=300))
    return replace(config, focus=replace(config.focus, **focus))


def loader_of(task, encoder, config):
    """The loader of a run, with windows smaller than an epoch."""
    several = PromptEncoder(encoder.tokenizer, task.text, sequence_length=300)
    return TrainLoader(training_method(task, config).sampler, several, config, window=Window(16, 2))


def batches_of(loader, start=0):
    return [loader.batch(step) for step in range(start, 8)]


def are_equal(these, those):
    return all(np.array_equal(a, b) for one, other in zip(these, those, strict=True) for a, b in zip(one, other))


@pytest.mark.parametrize("focus", [{}, {"decoy_share": 0.5}])
def test_a_mixture_of_one_task_trains_on_the_batches_of_that_task(tasks, encoder, focus):
    config = config_of(**focus)
    alone = mix({"demo": tasks["demo"]}, {"demo": 0.7})
    straight = batches_of(loader_of(tasks["demo"], encoder, config))
    assert are_equal(batches_of(loader_of(alone, encoder, config)), straight)
    assert list(islice(task_texts(alone), 30)) == list(islice(task_texts(tasks["demo"]), 30))


def test_an_epoch_holds_every_example_and_every_task_in_its_share(mixture, tasks):
    examples = mixture.splits["train"].examples
    seen = Counter((e.part, e.uid) for e in examples)
    counts = Counter(e.part for e in examples)
    assert counts == {"demo": 40, "wide": 120}
    assert {uid for part, uid in seen if part == "wide"} == {e.uid for e in tasks["wide"].splits["train"].examples}
    assert set(seen.values()) == {1, 2}  # 120 of 90: each once, some of them once more


@pytest.mark.parametrize("seed", range(20))
def test_shares_are_kept_to_within_an_example(seed):
    rng = np.random.default_rng(seed)
    sizes, weights = rng.integers(1, 3000, 4), rng.random(4) + 0.05
    counts = epoch_counts(sizes, weights.tolist())
    assert (counts >= sizes).all()
    assert any(counts == sizes)  # no longer than it must be
    # By how much the total moves where one count is rounded, each count is off.
    assert (np.abs(counts - counts.sum() * weights / weights.sum()) <= 2.5).all()


def test_the_beginning_of_the_training_split_is_a_fair_sample_of_its_tasks(mixture):
    examples = mixture.splits["train"].examples
    for length in (4, 20, 77):
        shares = Counter(e.part for e in examples[:length])
        assert abs(shares["wide"] - 0.75 * length) <= 1


def test_validation_takes_the_trained_tasks_in_turn(mixture):
    parts = [e.part for e in mixture.splits["validation"].examples]
    assert parts[:12] == ["demo", "wide"] * 6
    assert Counter(parts) == {"demo": 6, "wide": 10}


def test_a_task_that_is_held_out_is_in_no_split_for_training_and_in_no_batch(mixture, encoder):
    assert all(e.part != "apart" for name in ("train", "validation") for e in mixture.splits[name].examples)
    batches = batches_of(loader_of(mixture, encoder, config_of()))
    read = " ".join(encoder.tokenizer.batch_decode([row for batch in batches for row in batch.tokens]))
    assert "Review:" in read
    assert "Apart:" not in read
    assert not any("Apart:" in text for text in task_texts(mixture))
    assert [e.part for e in mixture.parts["apart"].splits["low"].examples[:2]] == ["apart"] * 2


def test_each_example_is_asked_in_the_words_of_its_own_task(mixture, encoder):
    several = PromptEncoder(encoder.tokenizer, mixture.text, template="plain")
    for name, part in mixture.parts.items():
        alone = PromptEncoder(encoder.tokenizer, part.text, template="plain")
        example = part.splits["iid"].examples[0]
        for own in (alone, several.of_task(name)):
            assert own.render(example, "Look.", "no") == several.render(example, "Look.", "no")
            assert are_equal([own.encode([example], ["x"])[0].answers], [several.encode([example], ["x"])[0].answers])
        assert part.text.instruction in several.render(example, "")
    sampler = training_method(mixture, config_of()).sampler
    drawn = [(sampler.examples[i].part, b.instruction) for i in range(60) for b in sampler.branches_of(0, [i])[0]]
    assert any("the verdict" in words for part, words in drawn if part == "wide")
    assert not any("the verdict" in words for part, words in drawn if part == "demo")


def test_decoys_speak_of_the_features_of_their_own_task(mixture):
    decoys = TrainingDecoys(mixture.text, 1.0, 0)
    shown = [decoys.shown(0, n, e) for n, e in enumerate(mixture.splits["train"].examples)]
    assert any("the verdict" in e.slots["text"] for e in shown if e.part == "wide")
    assert not any("the verdict" in e.slots["text"] for e in shown if e.part == "demo")


def test_rows_hold_examples_of_several_tasks(mixture, encoder):
    batch = loader_of(mixture, encoder, config_of(branches=1)).batch(0)
    rows = encoder.tokenizer.batch_decode(batch.tokens.tolist())
    assert any("What does it say?" in row and "Is this review" in row for row in rows)


def test_a_loader_that_resumes_gives_the_same_batches(mixture, encoder):
    config = config_of(decoy_share=0.5)
    straight = loader_of(mixture, encoder, config)
    batches = batches_of(straight)
    resumed = loader_of(mixture, encoder, config)
    resumed.restore(straight.state(5))
    assert are_equal(batches_of(resumed, 5), batches[5:])


def test_a_kept_mixture_reads_back_as_it_was(mixture, tmp_path):
    assert keep_task(tmp_path, mixture)
    read = kept_task(tmp_path)
    assert (read.weights, read.text, read.notes) == (mixture.weights, mixture.text, mixture.notes)
    assert list(read.parts) == list(mixture.parts)
    for name, part in mixture.parts.items():
        for split in ("validation", *part.test_splits):
            assert list(read.parts[name].splits[split].examples) == list(part.splits[split].examples)
    assert list(read.splits["validation"].examples) == list(mixture.splits["validation"].examples)
    assert len(read.splits["train"].examples) == len(mixture.splits["train"].examples)


@pytest.mark.parametrize("name", ["../demo", "a/b", ""])
def test_a_kept_mixture_reads_no_folder_beside_it(mixture, tmp_path, name):
    keep_task(tmp_path, mixture)
    (tmp_path / "task.json").write_text(f'{{"weights": {{"{name}": 1}}}}')
    with pytest.raises(InputError, match=r"is damaged or of another version \(the names or weights"):
        kept_task(tmp_path)


def test_a_mixture_that_is_too_large_is_not_kept(mixture, tmp_path):
    assert not keep_task(tmp_path / "task", mixture, most=20_000)
    assert not (tmp_path / "task").exists()


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"parts": []}, "task.parts: no task has a weight above 0; name at least one to train on"),
        ({"parts": [{"weight": 0}]}, "task.parts: no task has a weight above 0"),
        ({"parts": [{"weight": -1}]}, "task.parts.0.weight: -1.0; a weight is a number from 0 up"),
        ({"parts": [{}, {"name": "mixture"}]}, "task.parts.1.name: a mixture is no part of another"),
        ({"parts": [{}], "rho_high": 0.8}, "task.rho_high: each part of a mixture has its own; set it in task.parts"),
        ({"parts": [{}], "name": "ss"}, "task.parts: belong to the task mixture, not to ss; leave one of them out"),
        ({"parts": [{"wait": 1}]}, "task.parts.0.wait: there is no such field; did you mean 'weight'"),
    ],
)
def test_a_mixture_that_makes_no_sense_is_refused_as_it_is_read(fields, told):
    with pytest.raises(InputError, match=told.replace("(", r"\(")):
        decode_config(Config, {"task": {"name": "mixture", **fields}})


@pytest.mark.parametrize("weights", [[0.001, 1.0], [1e-320, 1.0], [1e-300, 1e300], [1e308, 1e308]])
def test_weights_that_make_an_endless_epoch_are_refused(weights):
    with pytest.raises(InputError, match="has more than 16,777,216 examples; bring the weights nearer to each other"):
        epoch_counts([900_000, 10], weights)


def test_errors_about_an_example_say_of_which_task_it_is(mixture, encoder):
    example = mixture.splits["train"].examples[0]
    told = rf"example {re.escape(example.uid)} of task {example.part}: "
    bare = replace(example, spurious={})
    with pytest.raises(InputError, match=told + "'focus"):
        training_method(replace(mixture, splits={"train": Split("train", [bare], {})}), config_of()).sampler.sample(
            0, [0]
        )
    with pytest.raises(InputError, match=told + "'focus"):
        focus_label(bare, spec_for("focus(spurious)", "keyword"))
    for fault in ({"slots": {}}, {"slots": {"text": encoder.tokenizer.eos_token}}, {"slots": {"text": "long " * 400}}):
        with pytest.raises(InputError, match=told):
            PromptEncoder(encoder.tokenizer, mixture.text, sequence_length=300).encode(
                [replace(example, **fault)], [""]
            )


def test_a_method_that_knows_one_task_is_refused(mixture):
    config = config_of()
    for method, fits in (("sft_y", True), ("sft_y_focus", True), ("poe", False), ("jtt", False)):
        asked = replace(config, train=replace(config.train, method=method))
        if fits:
            assert training_method(mixture, asked).sampler.epoch_size == 160
        else:
            told = f"train.method: {method} knows one task; train a mixture with fit, sft_y, sft_y_focus"
            with pytest.raises(InputError, match=told):
                training_method(mixture, asked)

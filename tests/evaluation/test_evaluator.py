"""What is asked: cells, paraphrases, shared questions; and the validation's loss and accuracy."""

from collections import Counter, defaultdict
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from fit_jax.config import EvaluationConfig, FocusConfig
from fit_jax.data.mixture import mix
from fit_jax.data.splits import Split
from fit_jax.errors import InputError
from fit_jax.evaluation.decoding import SamplingParams, generate
from fit_jax.evaluation.evaluator import Subject, Validation, evaluate
from fit_jax.evaluation.matching import UNPARSEABLE, match
from fit_jax.evaluation.metrics import calibration_error, focus_accuracy
from fit_jax.evaluation.queries import answered, ask
from fit_jax.evaluation.report import read_predictions, write_predictions
from fit_jax.evaluation.result_summary import summary
from fit_jax.focus.example import Example
from fit_jax.focus.instructions import instruction, paraphrases_of
from fit_jax.focus.prompts import PromptEncoder
from fit_jax.focus.spec import FOCUS_TYPES, spec_for
from fit_jax.methods.method import true_label, uninstructed

from ..closeness import assert_close


@pytest.fixture(scope="module")
def evaluation(task, encoder, make_scorer, params, config):
    return evaluate(task, Subject(encoder, make_scorer(), params), config)


def test_every_cell_is_asked_of_every_example(evaluation, task):
    rows = focus_accuracy(evaluation.predictions, "fit", 0, "demo")
    cells = {(r["split"], r["focus"], r["feature"], r["paraphrases"]): r["count"] for r in rows}
    paraphrase_sets = ("train", "heldout")
    expected = {(s, f, "keyword", p) for s in task.test_splits for f in FOCUS_TYPES for p in paraphrase_sets}
    assert set(cells) == expected
    assert set(cells.values()) == {10}


def test_paraphrases_come_from_their_pool_and_depend_on_seed_and_uid_alone(task):
    first, second = task.splits["iid"].examples[:2]
    asked = ask(task.text, "iid", first, ("train", "heldout"), 0)
    for query in asked.queries:
        spec = spec_for(query.focus, query.feature)
        sentences = paraphrases_of(task.text.name, query.focus, query.paraphrases)
        assert query.instruction in {instruction(task.text, spec, paraphrase) for paraphrase in sentences}
    again = ask(task.text, "high", first, ("heldout",), 0)
    assert [q.instruction for q in again.queries] == [
        q.instruction for q in asked.queries if q.paraphrases == "heldout"
    ]
    words = {
        tuple(q.instruction for q in ask(task.text, "iid", e, ("train",), s).queries)
        for e in (first, second)
        for s in (0, 1)
    }
    assert len(words) == 4


def test_a_question_is_asked_in_several_paraphrases_of_a_set(task, encoder, make_scorer, params, config):
    example = task.splits["iid"].examples[0]
    queries = ask(task.text, "iid", example, ("train", "far"), 0, each=3).queries
    asked = Counter((q.paraphrases, q.focus) for q in queries)
    assert {key: asked[key] for key in asked} == {
        (p, f): 1 if f == "none" else 3 for p in ("train", "far") for f in FOCUS_TYPES
    }
    for q in queries:
        sentences = paraphrases_of(task.text.name, q.focus, q.paraphrases)
        assert q.instruction == instruction(task.text, spec_for(q.focus, q.feature), sentences[q.paraphrase])
    assert len({(q.paraphrases, q.focus, q.paraphrase) for q in queries}) == len(queries)
    many = ask(task.text, "iid", example, ("far",), 0, each=100).queries
    far = paraphrases_of(task.text.name, "focus(core)", "far")
    assert sorted(q.paraphrase for q in many if q.focus == "focus(core)") == list(range(len(far)))
    evaluation = replace(config.evaluation, splits=("iid",), paraphrases=("far",), paraphrases_each=2, examples=2)
    result = evaluate(task, Subject(encoder, make_scorer(), params), replace(config, evaluation=evaluation))
    assert len(result.predictions) == 2 * 11
    assert [p.paraphrase for p in result.predictions] == [q.paraphrase for q in result.queries]


def test_every_paraphrase_of_a_set_is_as_likely(task):
    examples = [replace(task.splits["iid"].examples[0], uid=str(i)) for i in range(300)]
    asked = [ask(task.text, "iid", e, ("far",), 0, each=2).queries for e in examples]
    counts = Counter(q.paraphrase for queries in asked for q in queries if q.focus == "ignore(spurious)")
    size = len(paraphrases_of(task.text.name, "ignore(spurious)", "far"))
    assert len(counts) == size
    assert max(counts.values()) < 2 * 600 / size


def test_a_prediction_knows_its_cluster_and_paraphrase(task, evaluation):
    clusters = {e.uid: e.cluster for name in task.test_splits for e in task.splits[name].examples}
    assert {p.uid: p.cluster for p in evaluation.predictions} == clusters
    assert [p.paraphrase for p in evaluation.predictions] == [q.paraphrase for q in evaluation.queries]
    alone = Example("text-7#x", {"text": "fine"}, ("a", "b"), 0, {})
    (query, *_) = ask(task.text, "iid", alone, ("train",), 0).queries
    assert answered(query, [-1.0, -2.0]).cluster == "text-7"


def test_a_question_asked_in_both_pools_is_scored_once(task):
    group = ask(task.text, "iid", task.splits["iid"].examples[0], ("train", "heldout"), 0)
    assert len(group.queries) == 12
    assert len(group.instructions) == 11
    assert group.instructions.count("") == 1


def test_labels_follow_the_focus(evaluation):
    for query in evaluation.queries:
        example = query.example
        spurious = query.focus.startswith("focus(spurious)")
        assert query.label == (example.spurious["keyword"].label if spurious else example.label)


def test_unknown_and_empty_splits_are_reported(task, encoder, make_scorer, params, config):
    asked = replace(config, evaluation=EvaluationConfig(splits=("iid", "hihg")))
    with pytest.raises(InputError, match="no split 'hihg'; it has train, validation, iid"):
        evaluate(task, Subject(encoder, make_scorer(), params), asked)
    empty = replace(task, splits={**task.splits, "iid": Split("iid", (), {})})
    with pytest.raises(InputError, match="'iid' of task demo holds no example"):
        evaluate(empty, Subject(encoder, make_scorer(), params), config)


def test_a_model_may_write_its_answers(task, encoder, make_scorer, params, config):
    """An untrained model writes nonsense, mostly; greedy, so it writes the same again."""
    asked = replace(config.evaluation, splits=("iid",), examples=3, paraphrases=("train",), written=True)
    asked = replace(config, evaluation=replace(asked, written_tokens=5))
    subject = Subject(encoder, make_scorer(18), params)  # all prompts in one batch: one program
    found = evaluate(task, subject, asked).predictions
    prompt = encoder.encode([task.splits["iid"].examples[0]], [""])[0].prompt
    (made,) = generate(make_scorer().graphdef, params, [prompt], SamplingParams(tokens=5, stop=(encoder.end_id,)))
    assert found[0].text == encoder.tokenizer.decode(made, skip_special_tokens=True)
    candidates = task.splits["iid"].examples[0].candidates
    assert [p.prediction for p in found] == [match(p.text, candidates) for p in found]
    assert UNPARSEABLE in {p.prediction for p in found}
    plain = replace(asked, evaluation=replace(asked.evaluation, written=None))
    chosen = evaluate(task, subject, plain).predictions
    assert {(p.text, p.meant) for p in chosen} == {(None, None)}
    assert [p.log_probs for p in found] == [p.log_probs for p in chosen]
    free = replace(task, text=replace(task.text, free=True))
    assert [p.text for p in evaluate(free, subject, plain).predictions] == [p.text for p in found]


def test_a_beam_search_finds_what_scoring_finds(task, encoder, make_scorer, params, config, tmp_path):
    """With enough beams; with one, all answers but those that begin as the best one does are out of reach."""
    names = ("good", "good film", "bad film", "bad taste")
    examples = [replace(e, candidates=names) for e in task.splits["iid"].examples[:3]]
    task = replace(task, splits={**task.splits, "iid": Split("iid", examples, {})})
    subject = Subject(encoder, make_scorer(18), params)  # all prompts in one batch: one program
    found = {}
    for beams in (None, 9, 1):
        asked = replace(config.evaluation, splits=("iid",), paraphrases=("train",), beams=beams)
        found[beams] = evaluate(task, subject, replace(config, evaluation=asked)).predictions
    for searched, scored, narrow in zip(found[9], found[None], found[1], strict=True):
        assert_close(searched.log_probs, scored.log_probs, tolerance=1e-4)
        reached = np.isfinite(narrow.log_probs)
        assert reached.any()
        assert not reached.all()
        assert_close(np.array(narrow.log_probs)[reached], np.array(scored.log_probs)[reached], tolerance=1e-4)
    assert 0 <= calibration_error(found[1]) <= 1
    said = "Answers were searched for with few beams"
    assert said in summary("", found[1], task)
    assert said not in summary("", found[9], task)
    write_predictions(tmp_path / "predictions.jsonl", found[1])
    assert "Infinity" not in (tmp_path / "predictions.jsonl").read_text()
    assert read_predictions(tmp_path / "predictions.jsonl") == found[1]


def test_validation_is_the_mean_loss_of_the_focus_labels_tokens(task, encoder, make_scorer, params, config):
    result = Validation(task, encoder, make_scorer(), config)(params)
    asked = [
        q
        for e in task.splits["validation"].examples[:10]
        for q in ask(task.text, "validation", e, ("train",), 0).queries
    ]
    prompts = encoder.encode([q.example for q in asked], [q.instruction for q in asked])
    scores = [s for (s,) in make_scorer().score(params, [(p,) for p in prompts])]
    loss = -sum(s.log_prob[q.label] for q, s in zip(asked, scores))
    tokens = sum(len(p.answers[q.label]) for q, p in zip(asked, prompts))
    assert result["validation_loss"] == pytest.approx(loss / tokens, rel=1e-5)
    right = [s.log_prob.argmax() == q.label for q, s in zip(asked, scores)]
    assert result["validation_focus_accuracy"] == pytest.approx(np.mean(right))


def test_its_own_seed_draws_the_questions_and_not_the_validation(task, encoder, make_scorer, params, config):
    """So a run may be evaluated in other paraphrases, and is still the run that its validations chose."""
    asked = replace(config.evaluation, splits=("iid",), paraphrases=("heldout",), examples=3, decoys=True)
    own, runs = (replace(config, evaluation=replace(asked, seed=seed)) for seed in (7, None))
    subject = Subject(encoder, make_scorer(), params)
    first, second = (evaluate(task, subject, c) for c in (own, replace(runs, seed=7)))
    assert first.queries == second.queries
    assert [d.decoy for d in first.decoyed] == [d.decoy for d in second.decoyed]
    assert first.queries != evaluate(task, subject, runs).queries
    losses = [Validation(task, encoder, make_scorer(), c)(params) for c in (runs, own, replace(runs, seed=7))]
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize("asked", [true_label, uninstructed])
def test_methods_without_instructions_are_validated_on_what_they_train_on(
    asked, task, encoder, make_scorer, params, config
):
    result = Validation(task, encoder, make_scorer(), config, asked)(params)
    plain = replace(config, focus=FocusConfig(weights={"none": 1.0}))
    core = Validation(task, encoder, make_scorer(), plain)(params)
    assert (result == core) == (asked is true_label)


def test_validation_tells_the_worst_group(task, encoder, make_scorer, params, config):
    """The lowest focus accuracy over focus types and pairs (s, y), of the groups that are not tiny."""
    examples = [e for n in range(10) for e in task.splits["train"].examples[4 * n : 4 * n + 4]]
    split = Split("validation", examples, {})
    whole = replace(task, splits={**task.splits, "validation": split})
    asked = replace(config, evaluation=replace(config.evaluation, validation_examples=None))
    found = Validation(whole, encoder, make_scorer(), asked)(params)["validation_worst_group"]
    right = defaultdict(list)
    for example in examples:
        queries = ask(task.text, "validation", example, ("train",), 0).queries
        prompts = encoder.encode([example] * len(queries), [q.instruction for q in queries])
        for query, (score,) in zip(queries, make_scorer().score(params, [(p,) for p in prompts])):
            group = query.focus, example.spurious["keyword"].value, example.label
            right[group].append(score.log_prob.argmax() == query.label)
    assert min(map(len, right.values())) >= 8
    assert found == pytest.approx(min(np.mean(r) for r in right.values()))


def test_validation_on_a_mixture_tells_the_worst_group_of_any_task(task, encoder, config):
    """Here of a model that gives the first answer in one task and the second in the other."""
    twin = replace(task, text=replace(task.text, name="twin", instruction="Twin?"))
    both = mix({"demo": task, "twin": twin}, {"demo": 1, "twin": 1})
    whole = replace(both, splits={**both.splits, "validation": both.splits["train"]})
    asked = replace(config, evaluation=replace(config.evaluation, validation_examples=None))

    def score(params, groups):
        for prompts in groups:
            twins = ["Twin?" in encoder.tokenizer.decode(p.prompt) for p in prompts]
            yield [SimpleNamespace(log_prob=np.array([-0.1, -3.0] if twin else [-3.0, -0.1])) for twin in twins]

    several = PromptEncoder(encoder.tokenizer, both.text)
    found = Validation(whole, several, SimpleNamespace(score=score), asked)(())
    assert found["validation_worst_group"] == 0
    assert found["validation_focus_accuracy"] == pytest.approx(0.5, abs=0.05)


def test_a_task_whose_groups_are_all_small_can_have_the_worst_group_of_a_mixture(task, encoder, config):
    """Here of a model that is right in the task of many examples and wrong in that of few."""
    twin = replace(task, text=replace(task.text, name="twin", instruction="Twin?"))
    both = mix({"demo": task, "twin": twin}, {"demo": 1, "twin": 1})
    examples = [part.splits["train"].examples for part in both.parts.values()]
    mixed = [*examples[0][:40], *examples[1][:4]]
    whole = replace(both, splits={**both.splits, "validation": Split("validation", mixed, {})})
    asked = replace(
        config,
        evaluation=replace(config.evaluation, validation_examples=None),
        focus=FocusConfig(weights={"none": 1.0}),
    )
    labels = iter([e.label if e.part == "demo" else 1 - e.label for e in mixed])

    def score(params, groups):
        for prompts in groups:
            label = next(labels)
            yield [SimpleNamespace(log_prob=np.where(np.arange(2) == label, -0.1, -3.0)) for _ in prompts]

    several = PromptEncoder(encoder.tokenizer, both.text)
    found = Validation(whole, several, SimpleNamespace(score=score), asked)(())
    assert found["validation_focus_accuracy"] == pytest.approx(40 / 44)
    assert found["validation_worst_group"] == 0


def test_the_worst_group_without_instructions_is_of_all_that_a_prompt_is_asked_for(
    task, encoder, make_scorer, params, config
):
    """Else a model that tosses a coin between y and y_s would be better than one that always gives one of them."""
    examples = task.splits["train"].examples[:40]
    whole = replace(task, splits={**task.splits, "validation": Split("validation", examples, {})})
    asked = replace(config, evaluation=replace(config.evaluation, validation_examples=None))
    found = Validation(whole, encoder, make_scorer(), asked, uninstructed)(params)["validation_worst_group"]
    right = defaultdict(list)
    scores = make_scorer().score(params, [(p,) for p in encoder.encode(examples, [""] * len(examples))])
    for example, (score,) in zip(examples, scores):
        value, y_s = example.spurious["keyword"]
        answer = score.log_prob.argmax()
        right[value, example.label].append((4 * (answer == example.label) + 2 * (answer == y_s)) / 6)
    assert found == pytest.approx(min(np.mean(r) for r in right.values() if len(r) >= 8))

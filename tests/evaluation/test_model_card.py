"""The card of a tuned model: its base, its method, its results, and no claim that they do not hold."""

import re
from dataclasses import replace

from fit_jax.evaluation.model_card import model_card


def test_the_card_names_base_method_and_results(config, task_with_shift, evaluation):
    card = model_card(config, task_with_shift, evaluation.predictions)
    assert card.startswith("---\ntags:")
    for part in (
        "focus instruction tuning",
        "from scratch",
        "`focus(keyword) & ignore(core)`",
        "rho realised",
        "run_dir:",
    ):
        assert part in card
    assert len(re.findall("^# ", card, flags=re.MULTILINE)) == 1
    assert "no better than chance" in card


def test_the_card_does_not_claim_chance_where_each_question_has_its_own_answers(config, task_with_shift, evaluation):
    first = replace(task_with_shift.splits["validation"].examples[0], own_answers=True)
    validation = replace(task_with_shift.splits["validation"], examples=[first], rho={})
    own = replace(task_with_shift, splits={**task_with_shift.splits, "validation": validation})
    card = model_card(config, own, evaluation.predictions)
    assert "no better than chance" not in card
    assert "82 to 84 %" in card


def test_the_card_of_an_adapter_names_its_base_and_its_rank(config, task_with_shift, evaluation):
    tuned = replace(
        config,
        model=replace(config.model, pretrained="some/base"),
        lora=replace(config.lora, rank=8, alpha=16),
    )
    card = model_card(tuned, task_with_shift, evaluation.predictions)
    assert card.startswith("---\nbase_model: some/base\n")
    assert "library_name: peft" in card.split("---")[1]
    assert "- Base model: `some/base`\n- Trained: LoRA of rank 8, alpha 16\n" in card
    assert "- Trained: all parameters\n" in model_card(config, task_with_shift, evaluation.predictions)


def test_the_card_says_whether_answers_were_written(config, task_with_shift, evaluation):
    written = [replace(p, text="x", meant=0) for p in evaluation.predictions]
    assert "not generated freely" in model_card(config, task_with_shift, evaluation.predictions)
    assert "Answers were generated freely" in model_card(config, task_with_shift, written)

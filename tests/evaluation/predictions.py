"""Predictions made by hand."""

import math

from fit_jax.evaluation.queries import Prediction


def prediction(answer=0, label=0, core_label=0, confidence=0.9, candidates=2, **fields) -> Prediction:
    log_probs = [math.log((1 - confidence) / (candidates - 1))] * candidates
    log_probs[answer] = math.log(confidence)
    values = {
        "split": "iid",
        "uid": "a#x",
        "focus": "none",
        "feature": "keyword",
        "paraphrases": "train",
        "paraphrase": 0,
        "value": "x",
        "spurious_label": 1,
        "group": "",
        "slices": {},
        "cluster": fields.get("uid", "a#x"),
        **fields,
    }
    return Prediction(core_label=core_label, label=label, log_probs=tuple(log_probs), **values)


def bbq_row(uid, condition, answer, label, **fields):
    """A row of BBQ whose answers are 0, 1 and unknown; `spurious_label` is 1 unless given."""
    slices = {"condition": condition, "unknown": "2"}
    given = {"split": "natural", "slices": slices, **fields}
    return prediction(uid=uid, answer=answer, label=label, core_label=label, candidates=3, **given)

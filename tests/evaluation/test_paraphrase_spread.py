"""The spread over paraphrases beyond what chance explains."""

import numpy as np
import pytest

from fit_jax.evaluation.paraphrase_spread import paraphrase_spreads

from .predictions import prediction


def test_the_spread_over_paraphrases_tells_chance_from_wording():
    def asked(wrong_in, of=40):
        """Right except for the paraphrases 2 and 3, in which so many examples in ten are answered wrongly."""
        return [
            prediction(uid=str(i), focus="focus(core)", paraphrase=i % 4, answer=int(i % 4 > 1 and i // 4 < wrong_in))
            for i in range(of)
        ]

    (spread,) = paraphrase_spreads(asked(6)).values()
    assert {n: mean.value for n, mean in spread.accuracy.items()} == {0: 1.0, 1: 1.0, 2: 0.4, 3: 0.4}
    assert spread.worst == 2
    assert spread.deviation == pytest.approx(np.sqrt(0.12 - 0.5 * 0.24 / 9))
    # One of ten wrong in half of the paraphrases is what chance does too.
    assert paraphrase_spreads(asked(1))["train", "focus(core)"].deviation == pytest.approx(0, abs=0.05)
    assert paraphrase_spreads([prediction()]) == {}  # the type `none` has no wording
    assert paraphrase_spreads([prediction(focus="focus(core)")])["train", "focus(core)"].deviation is None

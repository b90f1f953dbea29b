"""How often the tests between methods find a difference where there is none, and where there is one.

    python -m benchmarks.null_false_positives [--simulations 4000]

Two methods are right on 70 % of the examples of an endless supply of seeds and templates. Each seed and, where examples
come in templates, each template moves each method's accuracy by a normal number of the given standard deviation.
Paired: the methods share seeds and examples, and an example's own difficulty. Unpaired: they share nothing. The last
column is the same rate for a test over examples that knows of neither seeds nor templates. The second table counts
differences found where the methods differ by 0.05 and by 0.1.
"""

import argparse
from collections.abc import Iterator
from itertools import product
from math import hypot
from typing import NamedTuple

import numpy as np

from fit_jax.evaluation.statistics import mean_over_seeds, unpaired
from fit_jax.tables import Table

EXAMPLES = 1000
TEMPLATES = 40
ACCURACY = 0.7
ALPHA = 0.05
NORMAL_QUANTILE = 1.96


class Case(NamedTuple):
    """What varies, and how many seeds there are."""

    seeds: int
    seed_sd: float
    template_sd: float
    paired: bool

    @property
    def cells(self) -> tuple[str, ...]:
        """The case as the first columns of a table."""
        templates = f"{self.template_sd:g}" if self.template_sd else "no templates"
        return str(self.seeds), f"{self.seed_sd:g}", templates, "paired" if self.paired else "unpaired"


CASES = [Case(*values) for values in product((3, 5), (0.02, 0.05), (0.0, 0.2), (True, False))]
HEADER = ("seeds", "seed sd", "template sd", "design")


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--simulations", type=int, default=4000)
    for table in tables(parser.parse_args().simulations):
        print(table.markdown(), end="\n\n")


def tables(simulations: int) -> tuple[Table, Table]:
    """False positives of each case, and the differences found where there are some."""
    nothing = [(*case.cells, *(f"{r:.3f}" for r in rates(case, 0.0, simulations))) for case in CASES]
    fewer = max(simulations // 4, 1)
    something = [(*case.cells, *(f"{rates(case, d, fewer)[0]:.2f}" for d in (0.05, 0.1))) for case in CASES]
    about = f"At {ALPHA}, {simulations:,} simulations of each case."
    header = (*HEADER, "false positives", "over examples alone")
    return (
        Table("False positives", about, header, nothing, texts=4),
        Table("Differences found", f"At {ALPHA}.", (*HEADER, "of 0.05", "of 0.1"), something, texts=4),
    )


def rates(case: Case, difference: float, simulations: int) -> tuple[float, float]:
    """Shares of simulations in which our test, and one over examples alone, find a difference."""
    ours = naive = 0
    clusters = [n % TEMPLATES if case.template_sd else n for n in range(EXAMPLES)]
    for first, second in _answers(case, difference, simulations):
        if case.paired:
            mean = mean_over_seeds(first - second, clusters)
            error = (first - second).mean(axis=1).std(ddof=1)
        else:
            mean = unpaired(mean_over_seeds(first, clusters), mean_over_seeds(second, clusters))
            error = hypot(*(answers.mean(axis=1).std(ddof=1) for answers in (first, second)))
        assert mean.p is not None
        ours += mean.p < ALPHA
        naive += abs(mean.value) > NORMAL_QUANTILE * error / EXAMPLES**0.5
    return ours / simulations, naive / simulations


def _answers(case: Case, difference: float, simulations: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Right (1) and wrong (0) answers of two methods, (examples, seeds) each."""
    for number in range(simulations):
        rng = np.random.default_rng((number, case.seeds))
        difficulty = rng.random((EXAMPLES, 1)) / 2

        def answers(accuracy: float, rng: np.random.Generator = rng, shared: np.ndarray = difficulty) -> np.ndarray:
            chance = accuracy + rng.normal(0, case.seed_sd, (1, case.seeds))
            if case.template_sd:
                chance = chance + np.resize(rng.normal(0, case.template_sd, TEMPLATES), EXAMPLES)[:, None]
            draw = rng.random((EXAMPLES, case.seeds))
            return (_uniform(shared, draw) < chance if case.paired else draw < chance).astype(float)

        yield answers(ACCURACY + difference), answers(ACCURACY)


def _uniform(shared: np.ndarray, own: np.ndarray) -> np.ndarray:
    """The sum of halves of two uniform numbers, made uniform again: draws that share the example's difficulty."""
    total = shared + own / 2
    return np.where(total < 0.5, 2 * total**2, 1 - 2 * (1 - total) ** 2)


if __name__ == "__main__":
    main()

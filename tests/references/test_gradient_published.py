"""Gradient-based learners reach the published sinusoid results. Slow: `make test-slow`.

Each calls one experiment of the benchmark, with its protocol and sources.
"""

import pytest

from benchmarks import gradient_experiments
from benchmarks.gradient_experiments import CONTEXTS, FAILS, MAML, META_SGD, SHOTS, WORKS

# shape checks at each of the many steps would double the time; other tests have them
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("unchecked")]


def test_maml() -> None:
    """Finn et al. 2017, table 2: 5 shots, 1, 5 and 10 steps, within the published figures' own Monte Carlo error."""
    for steps, score in gradient_experiments.maml().items():
        assert gradient_experiments.is_as_good(score, MAML[steps]), (steps, score)


def test_meta_sgd() -> None:
    """Li et al. 2017, table 1: below the published figures, and below MAML trained alike."""
    learned, fixed = gradient_experiments.meta_sgd()
    for shots, (published, _) in META_SGD.items():
        assert learned[shots].mse <= published, (shots, learned[shots])
        assert learned[shots].mse < fixed[shots].mse, (shots, learned[shots], fixed[shots])


@pytest.mark.parametrize("num_context", CONTEXTS)
def test_cavia(num_context: int) -> None:
    """Zintgraf et al. 2019, sec. 4.1: one number is too few for amplitude and phase, two or more suffice."""
    score = gradient_experiments.cavia(num_context)
    assert score.mse > FAILS if num_context == 1 else score.mse < WORKS, score


def test_imaml_is_as_good_as_maml() -> None:
    """Rajeswaran et al. 2019: with as many tasks, the optimum's implicit gradient is no worse than the step's own."""
    scores = gradient_experiments.imaml()
    for shots in SHOTS:
        assert scores["iMAML"][shots].mse <= scores["one step"][shots].mse, scores

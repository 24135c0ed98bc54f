"""Training runs that reach published figures, and the Bayes-optimal ones. Slow: `make test-slow`."""

from pathlib import Path

import pytest

import bayesmeta as bm
from benchmarks import alpaca_experiments, joint_gaussian_bound

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", alpaca_experiments.EXPERIMENTS)
def test_as_good_as_the_paper(name: str) -> None:
    """Harrison et al. 2018: MSE and NLL at every number of context points, within the published figures' own error."""
    experiment, published = alpaca_experiments.EXPERIMENTS[name]
    for shots, score in experiment().items():
        assert alpaca_experiments.is_as_good(score, published[shots]), (shots, score, published[shots])


def test_steps_reach_the_best_linear_predictor() -> None:
    """No jointly Gaussian predictive can do better than the family's own mean and covariance; ours comes within 2 %."""
    for shots, score in alpaca_experiments.step().items():
        best = alpaca_experiments.best_linear_step(shots)
        assert score.mse < 1.02 * best.mse
        assert score.nll < best.nll + 0.015


def test_the_demonstration_is_near_bayes_optimal(tmp_path: Path) -> None:
    from bayesmeta.demo import SHOTS, run

    alpaca, mixture = (evaluation.table() for evaluation in run(tmp_path))
    assert (tmp_path / "sinusoid.png").exists()
    test = bm.tasks.Sinusoid.maml(noise=0.1).dataset(1_000, max(SHOTS) + 20, seed=1)
    test.oracle = None
    bound = bm.evaluate(joint_gaussian_bound.best_joint_gaussian(), test, SHOTS, query=20, num_bootstrap=0).table()
    limit = {0: 0.16, 1: 0.16, 2: 0.05, 3: 0.03, 5: 0.03, 10: 0.03, 20: 0.03}
    for shots in SHOTS:
        assert mixture.regret[shots] < limit[shots]
        assert alpaca.nll[shots] < bound.nll[shots] + 0.02  # what training may cost, half of the limit at 2 points
        if shots != 1:  # where the bound itself has a regret of 0.18 on these tasks
            assert alpaca.regret[shots] < limit[shots]
        assert 0.88 < alpaca.coverage[shots] < 0.92
        assert 0.88 < mixture.coverage[shots] < 0.92

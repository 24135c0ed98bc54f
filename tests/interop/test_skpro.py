"""skpro's regressor: its own checks, and that its distributions say what ours do. Skipped where skpro is absent."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("skpro", reason="skpro is an extra: pip install 'bayesmeta[skpro]'")

from skpro.distributions import Empirical, Mixture, Normal, TDistribution
from skpro.utils.estimator_checks import check_estimator

import bayesmeta as bm
from bayesmeta.interop.skpro import MetaProbaRegressor
from bayesmeta.sklearn import MetaRegressor

pytestmark = pytest.mark.filterwarnings("ignore")  # other packages' own


def _table() -> tuple[pd.DataFrame, pd.DataFrame]:
    random = np.random.default_rng(0)
    who, t = np.repeat(np.arange(6), 5), np.tile(np.arange(5.0), 6)
    y = 10.0 * random.normal(size=6)[who] + 2.0 * t + 0.1 * random.normal(size=30)
    return pd.DataFrame({"who": [f"s{each}" for each in who], "t": t}), pd.DataFrame({"y": y})


def test_skpros_own_checks() -> None:
    found = check_estimator(MetaProbaRegressor, verbose=False)
    assert {name: result for name, result in found.items() if result != "PASSED"} == {}
    assert len(found) > 40


def _heavy_tailed(num_inputs: int, num_outputs: int) -> bm.Learner:
    scale = bm.priors.TaskScale(dof=4.0)
    return bm.Standardized(bm.ALPaCA(bm.Identity(num_inputs), num_outputs=num_outputs, scale=scale)).double()


def _noisy_by_task(num_inputs: int, num_outputs: int) -> bm.Learner:
    alpaca = bm.ALPaCA(bm.Identity(num_inputs), num_outputs=num_outputs).double()
    return bm.Standardized(bm.wrappers.TaskQuadrature(alpaca, bm.wrappers.NoiseScale())).double()


@pytest.mark.parametrize(
    ("method", "kind"),
    [("alpaca-linear", Normal), (_heavy_tailed, TDistribution), ("bmaml", Mixture), (_noisy_by_task, Empirical)],
)
def test_distributions_are_ours(method: Any, kind: type) -> None:
    X, y = _table()
    model = MetaProbaRegressor(method, task="who", steps=2, num_draws=2000).fit(X, y)
    ours = MetaRegressor(method, task="who", steps=2).fit(X, y["y"])
    query = pd.DataFrame({"who": ["new", "s1", "s0"], "t": [1.0, 2.0, 6.0]}, index=[7, 3, 5])
    found = model.predict_proba(query)
    assert isinstance(found, kind)
    assert found.index.tolist() == [7, 3, 5]
    mean, sd = ours.predict(query, return_std=True)
    of_draws = kind is Empirical
    # of 2000 draws a mean is known to 1/45 of a deviation, and heavy tails to several of these
    np.testing.assert_allclose(found.mean().to_numpy()[:, 0], mean, rtol=1e-8, atol=0.1 * sd.max() if of_draws else 0.0)
    lower, upper = ours.predict_interval(query, 0.8)
    intervals = model.predict_interval(query, 0.8).to_numpy()
    np.testing.assert_allclose(
        intervals, np.stack([lower, upper], 1), rtol=1e-2, atol=0.15 * sd.max() if of_draws else 0.0
    )
    if not of_draws:
        y_new = pd.DataFrame({"y": mean + sd}, index=query.index)
        np.testing.assert_allclose(found.log_pdf(y_new).to_numpy()[:, 0], ours.log_density(query, mean + sd), rtol=1e-6)


def test_an_update_is_of_posteriors() -> None:
    X, y = _table()
    model = MetaProbaRegressor("alpaca-linear", task="who", steps=5).fit(X, y)
    new = pd.DataFrame({"who": ["new"], "t": [3.0]})
    before = model.predict_proba(new).var().iloc[0, 0]
    model.update(pd.DataFrame({"who": ["new"], "t": [0.0]}), pd.DataFrame({"y": [1.0]}))
    assert model.predict_proba(new).var().iloc[0, 0] < 0.1 * before

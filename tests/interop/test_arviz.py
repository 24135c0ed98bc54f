"""The export to ArviZ: groups, names, densities, and ArviZ's own functions on it."""

import sys
import types
import warnings
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch

import bayesmeta as bm
from bayesmeta.interop.arviz import to_arviz

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)  # that ArviZ 1.x will come
    import arviz as az

D = torch.float64
MAJOR = int(az.__version__.split(".")[0])


def _tasks() -> bm.TaskDataset:
    rng = np.random.default_rng(0)
    rows = [(f"s{s}", x, 1.0 + s + 0.5 * x + rng.normal(0.0, 0.3)) for s in range(4) for x in range(3 + s)]
    frame = pd.DataFrame(rows, columns=["subject", "day", "y"]).astype({"day": float})
    return bm.TaskDataset.from_frame(frame, task="subject", x=["day"], y=["y"])


def _learner() -> bm.ALPaCA:
    return bm.ALPaCA(bm.Identity(1)).double()


def _group(data: Any, name: str) -> Any:
    return data[name] if MAJOR >= 1 else getattr(data, name)


def test_groups_and_names() -> None:
    tasks = _tasks()
    query = bm.Data(torch.zeros(4, 2, 1, dtype=D), torch.zeros(4, 2, 1, dtype=D), torch.ones(4, 2, dtype=torch.bool))
    data = to_arviz(_learner(), tasks, query, num_draws=50)
    weight = _group(data, "posterior")["weight"]
    assert weight.dims == ("chain", "draw", "task", "weight_dim_0", "weight_dim_1")
    assert weight.shape == (1, 50, 4, 2, 1)
    assert list(weight.coords["task"].values) == ["s0", "s1", "s2", "s3"]
    for name in ("posterior_predictive", "prior_predictive"):
        assert _group(data, name)["y"].shape == (1, 50, 18, 1)
    assert _group(data, "predictions")["y"].dims == ("chain", "draw", "query_point", "output")
    assert _group(data, "predictions")["y"].shape == (1, 50, 8, 1)
    names = list(_group(data, "constant_data")["task_name"].values)
    assert names == ["s0"] * 3 + ["s1"] * 4 + ["s2"] * 5 + ["s3"] * 6
    assert _group(data, "log_likelihood")["y"].dims == ("chain", "draw", "point")
    observed = _group(data, "observed_data")["y"].values[:, 0]
    np.testing.assert_array_equal(observed, tasks.data.y[tasks.data.mask][:, 0].numpy())
    assert list(_group(data, "constant_data")["place"].values[:5]) == [0, 1, 2, 0, 1]


def test_densities_are_the_learners() -> None:
    tasks, learner = _tasks(), _learner()
    data = to_arviz(learner, tasks, num_draws=70)  # more than a chunk
    weight = torch.from_numpy(_group(data, "posterior")["weight"].values[0])
    expected = learner.log_joint(tasks.data)({"weight": weight}).sum(-1).detach().numpy()
    np.testing.assert_allclose(_group(data, "sample_stats")["lp"].values[0], expected, rtol=1e-12)
    each = _group(data, "log_likelihood")["y"].values[0].sum(-1)
    with torch.no_grad():
        total = learner.likelihood.log_prob(learner.forward({"weight": weight}, tasks.data.x), tasks.data).sum(-1)
    np.testing.assert_allclose(each, total.numpy(), rtol=1e-12)


def test_draws_have_the_moments_of_the_posterior_and_are_seeded() -> None:
    tasks, learner = _tasks(), _learner()
    a, b = (to_arviz(learner, tasks, num_draws=4000, seed=1) for _ in range(2))
    first = _group(a, "posterior")["weight"].values
    np.testing.assert_array_equal(first, _group(b, "posterior")["weight"].values)
    posterior = learner.adapt(tasks.data)
    mean, deviation = first[0].mean(0), first[0].std(0)
    # a mean of 4,000 draws errs by 1/63 of a deviation; four of those
    assert (np.abs(mean - posterior.mean["weight"].numpy()) < 0.065 * deviation).all()
    predicted = _group(a, "posterior_predictive")["y"].values[0].mean(0)
    expected = posterior.predict(tasks.data.x)
    error = np.abs(predicted - expected.mean[tasks.data.mask].numpy()) / expected.stddev[tasks.data.mask].numpy()
    assert error.max() < 0.065


def test_arviz_reads_it() -> None:
    matplotlib.use("Agg")
    data = to_arviz(_learner(), _tasks(), num_draws=200)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # ArviZ's own: one chain, few draws
        warnings.simplefilter("ignore", DeprecationWarning)  # of matplotlib, about ArviZ's plots
        assert len(az.summary(data)) >= 8
        loo = az.loo(data)
        assert np.isfinite(loo.elpd_loo if MAJOR < 1 else loo.elpd)
        if MAJOR < 1:
            az.plot_forest(data)
            az.plot_trace(data)
            az.plot_ppc(data, num_pp_samples=10)
        else:
            az.plot_forest(data)
            az.plot_ppc_dist(data)


def test_a_classifier_without_draws_of_phi() -> None:
    torch.manual_seed(0)
    learner = bm.R2D2(bm.MLP(2, [4]), num_classes=3)
    x, mask = torch.randn(2, 5, 2), torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    data = to_arviz(
        learner, bm.Data(x, torch.tensor([[0, 1, 2, 0, 1], [0, 1, 2, 7, 7]]), mask), names=["a", "b"], num_draws=9
    )
    assert _group(data, "posterior_predictive")["y"].shape == (1, 9, 8)
    assert not hasattr(data, "posterior") if MAJOR < 1 else "posterior" not in data.children


def test_the_dictionaries_of_arviz_1(monkeypatch: pytest.MonkeyPatch) -> None:
    """ArviZ 1.x (Python 3.12 and newer) takes one dictionary of groups and gives a DataTree: a stand-in for it."""
    xarray = pytest.importorskip("xarray")

    def from_dict(data: dict[str, Any], *, coords: dict[str, Any], dims: dict[str, list[str]]) -> Any:
        tree = {}
        for group, variables in data.items():
            first = [] if group.endswith("_data") else ["chain", "draw"]
            named = {name: ([*first, *dims.get(name, [])], value) for name, value in variables.items()}
            used = {d for shape, _ in named.values() for d in shape}
            tree[group] = xarray.Dataset(named, {name: value for name, value in coords.items() if name in used})
        return xarray.DataTree.from_dict(tree)

    monkeypatch.setitem(sys.modules, "arviz", types.SimpleNamespace(__version__="1.3.0", from_dict=from_dict))
    query = bm.Data(torch.zeros(4, 2, 1, dtype=D), torch.zeros(4, 2, 1, dtype=D), torch.ones(4, 2, dtype=torch.bool))
    tree = to_arviz(_learner(), _tasks(), query, num_draws=5)
    assert tree["log_likelihood"]["y"].dims == ("chain", "draw", "point")
    assert tree["posterior"]["weight"].shape == (1, 5, 4, 2, 1)
    assert tree["predictions"]["y"].dims == ("chain", "draw", "query_point", "output")
    assert tree["posterior_predictive"]["y"].dims == ("chain", "draw", "point", "output")
    assert list(tree["posterior"].coords["task"].values) == ["s0", "s1", "s2", "s3"]


def test_bad_input() -> None:
    tasks, learner = _tasks(), _learner()
    with pytest.raises(bm.DataError, match="at least one draw, got 0"):
        to_arviz(learner, tasks, num_draws=0)
    with pytest.raises(bm.DataError, match="expected 4 distinct task names, got 2"):
        to_arviz(learner, tasks.data, names=["a", "b"])
    with pytest.raises(bm.ShapeError):
        to_arviz(learner, bm.Data.from_arrays(np.zeros((2, 3)), np.zeros(2)))


def test_a_prior_without_a_density_leaves_the_log_joint_out() -> None:
    """A slope that is the same in all tasks, or a variance of zero between them."""
    tasks = bm.TaskDataset.from_list([([0.0, 1.0, 2.0], [0.1, 0.9, 2.2]), ([0.0, 1.0], [1.2, 1.8])])
    fixed = bm.priors.FullCovariance(2, varying=[0])
    singular = bm.priors.FullCovariance(2)
    singular.set_root(torch.zeros(2, 1))
    for covariance in (fixed, singular):
        data = to_arviz(bm.ALPaCA(bm.Identity(1), covariance=covariance).double(), tasks, num_draws=7)
        assert "sample_stats" not in data.groups()
        assert data["log_likelihood"]["y"].shape == (1, 7, 5)

"""The export to ArviZ: groups, names, densities, and ArviZ's own functions on it."""

import sys
import types
import warnings
from typing import Any

import matplotlib
import matplotlib.pyplot
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

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
    assert _group(data, "log_likelihood")["y"].dims == ("chain", "draw", "point", "output")
    observed = _group(data, "observed_data")["y"].values[:, 0]
    np.testing.assert_array_equal(observed, tasks.data.y[tasks.data.mask][:, 0].numpy())
    assert list(_group(data, "constant_data")["place"].values[:5]) == [0, 1, 2, 0, 1]


def test_densities_are_the_learners() -> None:
    tasks, learner = _tasks(), _learner()
    data = to_arviz(learner, tasks, num_draws=70)  # more than a chunk
    weight = torch.from_numpy(_group(data, "posterior")["weight"].values[0])
    expected = learner.log_joint(tasks.data)({"weight": weight}).sum(-1).detach().numpy()
    np.testing.assert_allclose(_group(data, "sample_stats")["lp"].values[0], expected, rtol=1e-12)
    each = _group(data, "log_likelihood")["y"].values[0].sum((-1, -2))
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
    """ArviZ 1.x (Python 3.12 and newer) takes one dictionary of groups and gives a DataTree: a stand-in for it.

    Groups with `predictions` in their names know `pred_dims` and `pred_coords` alone, those with `data` have no chains,
    and those with `log_likelihood` need not have all dimensions of the outcome.
    """
    xarray = pytest.importorskip("xarray")

    def from_dict(
        data: dict[str, Any],
        *,
        coords: dict[str, Any],
        dims: dict[str, list[str]],
        pred_coords: dict[str, Any],
        pred_dims: dict[str, list[str]],
    ) -> Any:
        tree = {}
        for group, variables in data.items():
            named_dims, known = (pred_dims, pred_coords) if "predictions" in group else (dims, coords)
            first = [] if "data" in group else ["chain", "draw"]
            named = {}
            for name, value in variables.items():
                axes = [*first, *named_dims.get(name, [])]
                assert len(axes) == value.ndim or (group == "log_likelihood" and len(axes) > value.ndim), (group, name)
                named[name] = (axes[: value.ndim], value)
            used = {d for shape, _ in named.values() for d in shape}
            tree[group] = xarray.Dataset(named, {name: value for name, value in known.items() if name in used})
        return xarray.DataTree.from_dict(tree)

    monkeypatch.setitem(sys.modules, "arviz", types.SimpleNamespace(__version__="1.3.0", from_dict=from_dict))
    query = bm.Data(torch.zeros(4, 2, 1, dtype=D), torch.zeros(4, 2, 1, dtype=D), torch.ones(4, 2, dtype=torch.bool))
    tree = to_arviz(_learner(), _tasks(), query, num_draws=5)
    assert tree["log_likelihood"]["y"].dims == ("chain", "draw", "point", "output")
    assert tree["posterior"]["weight"].shape == (1, 5, 4, 2, 1)
    assert tree["predictions"]["y"].dims == ("chain", "draw", "query_point", "output")
    assert tree["predictions"]["y"].coords["output"].values.tolist() == ["y"]
    assert tree["predictions_constant_data"]["x"].dims == ("query_point", "x_dim_0")
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


# ------------------------------------------------------------------------------------- draws that belong to each other

SHORT = bm.inference.NUTS(num_chains=4, num_draws=30, num_warmup=60)
SHORT_CHAINS = pytest.mark.filterwarnings("ignore::bayesmeta.ConvergenceWarning")


def _named_tasks() -> bm.TaskDataset:
    """Tasks whose names are numbers, as in the sleep study, with other units."""
    rng = np.random.default_rng(1)
    rows = [
        (n, x, 250.0 + 10.0 * x + rng.normal(0.0, 30.0)) for n, k in ((308, 3), (309, 5), (335, 1)) for x in range(k)
    ]
    frame = pd.DataFrame(rows, columns=["Subject", "Days", "Reaction"])
    return bm.TaskDataset.from_frame(frame, task="Subject", x=["Days"], y=["Reaction"])


def _standardized(tasks: bm.TaskDataset) -> bm.Standardized:
    learner = bm.Standardized(bm.ALPaCA(bm.Identity(1)))  # in float32, which standardises in float64
    learner.prepare(tasks.data)
    return learner


def test_coordinates_are_names() -> None:
    tasks = _named_tasks()
    data = to_arviz(_standardized(tasks), tasks, tasks.data.points(slice(2)), num_draws=8)
    weight = _group(data, "posterior")["weight"]
    assert weight.sel(task=309, weight_dim_0="Days", weight_dim_1="Reaction").shape == (1, 8)
    assert weight.coords["weight_dim_0"].values.tolist() == ["intercept", "Days"]
    for group, point in (("posterior_predictive", "point"), ("predictions", "query_point")):
        y = _group(data, group)["y"]
        assert y.dims == ("chain", "draw", point, "output")
        assert y.coords["output"].values.tolist() == ["Reaction"]
    for group, point in (("constant_data", "point"), ("predictions_constant_data", "query_point")):
        x = _group(data, group)["x"]
        assert (x.dims, x.coords["x_dim_0"].values.tolist()) == ((point, "x_dim_0"), ["Days"])
        assert _group(data, group)["task_name"].dims == (point,)
    powers = to_arviz(bm.ALPaCA(bm.Polynomial(2, 2)), bm.Data.from_arrays(np.ones((3, 2)), np.ones(3)), num_draws=2)
    names = _group(powers, "posterior")["weight"].coords["weight_dim_0"].values.tolist()
    assert names == ["intercept", "x1", "x0", "x1^2", "x0 x1", "x0^2"]
    scaled = bm.HyperPosterior([bm.wrappers.VarianceScaled(_learner(), [1])])
    weight = _group(to_arviz(scaled, tasks, num_draws=2), "posterior")["weight"]
    assert weight.coords["weight_dim_0"].values.tolist() == ["intercept", "Days"]
    mixed = to_arviz(_learner(), tasks, names=["a", 7, ("b", 2)], num_draws=2)
    assert _group(mixed, "posterior").coords["task"].values.tolist() == ["a", "7", "('b', 2)"]


def test_densities_in_the_users_units() -> None:
    """Standardised: log p(y | phi) is a density in the user's units, and y drawn at phi is in them, too."""
    tasks = _named_tasks()
    learner = _standardized(tasks).double()
    data = to_arviz(learner, tasks, num_draws=3_000)
    weight = _group(data, "posterior")["weight"].values[0][..., 0]  # S B 2
    mask = tasks.data.mask
    z = ((tasks.data.x - learner.x_shift) / learner.x_scale)[..., 0].numpy()
    mean = learner.y_shift.item() + learner.y_scale.item() * (weight[:, :, :1] + weight[:, :, 1:] * z)
    sd = (learner.learner.prior.noise.variance().sqrt() * learner.y_scale).item()
    expected = stats.norm.logpdf(tasks.data.y[..., 0].numpy(), mean, sd)[:, mask.numpy()]
    np.testing.assert_allclose(_group(data, "log_likelihood")["y"].values[0][..., 0], expected, rtol=1e-8)
    residual = (_group(data, "posterior_predictive")["y"].values[0][..., 0] - mean[:, mask.numpy()]) / sd
    # draw s of y is one given draw s of phi: what is left is noise alone, 27,000 numbers of it
    assert abs(residual.std() - 1.0) < 0.02
    assert abs(residual.mean()) < 0.025
    prior = learner.adapt(bm.Data.empty(tasks.data)).predict(tasks.data.x).stddev[mask][:, 0].numpy()
    drawn = _group(data, "prior_predictive")["y"].values[0][..., 0].std(0)
    assert np.abs(drawn / prior - 1.0).max() < 0.06  # of 3,000 draws: four errors of 1 / √6000


@SHORT_CHAINS
@pytest.mark.parametrize("adapted", [False, True], ids=["learner", "posterior"])
def test_chains_stay_chains(adapted: bool) -> None:
    tasks = _named_tasks()
    learner = bm.Sampled(bm.ALPaCA(bm.Identity(1)), SHORT, seed=2)
    scaled = bm.TaskDataset(bm.Data(tasks.data.x, tasks.data.y / 100.0, tasks.data.mask), tasks.names, tasks.schema)
    posterior = learner.adapt(scaled.data)
    data = to_arviz(posterior if adapted else learner, scaled, num_draws=7)
    weight = _group(data, "posterior")["weight"]
    assert weight.shape == (4, 30, 3, 2, 1)
    np.testing.assert_array_equal(weight.values, posterior.chains.draws["weight"].numpy())
    assert weight.coords["weight_dim_0"].values.tolist() == ["intercept", "Days"]
    sampled = _group(data, "sample_stats")
    np.testing.assert_allclose(sampled["lp"].values, posterior.chains.log_joint.sum(-1).numpy(), rtol=1e-8)
    assert sampled["diverging"].shape == sampled["acceptance_rate"].shape == (4, 30)
    for group in ("posterior_predictive", "prior_predictive", "log_likelihood"):
        assert _group(data, group)["y"].shape == (4, 30, 9, 1)
    inside = bm.Standardized(learner)
    inside.prepare(tasks.data)
    assert _group(to_arviz(inside, tasks), "posterior")["weight"].shape == (4, 30, 3, 2, 1)
    with pytest.raises(bm.DataError, match="tasks that the draws are of"):
        to_arviz(posterior, bm.Data.from_arrays([0.0], [1.0]))


@SHORT_CHAINS
@pytest.mark.filterwarnings("ignore::UserWarning")  # ArviZ's own: one chain, few draws, few points
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of matplotlib, about ArviZ's plots
@pytest.mark.parametrize("kind", ["exact", "chains", "classes", "outputs"])
def test_leave_one_out_checks_run(kind: str) -> None:
    matplotlib.use("Agg")
    tasks, learner = _tasks(), _learner()
    if kind == "chains":
        learner = bm.Sampled(learner, SHORT)
    if kind == "classes":
        learner = bm.LLAMA(
            bm.MLP(1, [3]), solver=bm.inference.LevenbergMarquardt(1), likelihood=bm.likelihoods.Categorical(3)
        ).double()
        tasks = bm.TaskDataset(bm.Data(tasks.data.x, (tasks.data.y[..., 0] > 2.0).long(), tasks.data.mask))
    if kind == "outputs":
        learner = bm.ALPaCA(bm.Identity(1), num_outputs=2).double()
        y = torch.cat([tasks.data.y, tasks.data.x], -1)
        tasks = bm.TaskDataset(bm.Data(tasks.data.x, y, tasks.data.mask))
    data = to_arviz(learner, tasks, num_draws=120)
    shapes = {_group(data, g)["y"].shape[2:] for g in ("log_likelihood", "posterior_predictive")}
    assert shapes == {_group(data, "observed_data")["y"].shape}
    assert len(az.summary(data)) > 0
    az.loo(data)
    az.plot_loo_pit(data, y="y") if MAJOR < 1 else az.plot_loo_pit(data)
    az.plot_trace(data, var_names=["weight"]) if kind != "classes" and MAJOR < 1 else None
    matplotlib.pyplot.close("all")


def test_correlated_noise_has_one_density_a_point() -> None:
    tasks = _tasks()
    both = bm.TaskDataset(bm.Data(tasks.data.x, torch.cat([tasks.data.y, tasks.data.x], -1), tasks.data.mask))
    noise = bm.noise.FullNoise(2)
    noise.set_covariance(torch.tensor([[1.0, 0.5], [0.5, 2.0]]))
    learner = bm.ALPaCA(bm.Identity(1), num_outputs=2, noise=noise).double()
    data = to_arviz(learner, both, num_draws=6)
    assert _group(data, "log_likelihood")["y"].dims == ("chain", "draw", "point")
    weight = torch.from_numpy(_group(data, "posterior")["weight"].values[0])
    with torch.no_grad():
        total = learner.likelihood.log_prob(learner.forward({"weight": weight}, both.data.x), both.data).sum(-1)
    np.testing.assert_allclose(_group(data, "log_likelihood")["y"].values[0].sum(-1), total.numpy(), rtol=1e-10)


def test_classes_of_the_support_have_no_prior_predictive() -> None:
    learner = bm.R2D2(bm.MLP(1, [4]))
    data = bm.Data.from_labels([0.0, 1.0, 2.0], [0, 1, 1])
    found = to_arviz(learner, data, num_draws=4)
    assert _group(found, "posterior_predictive")["y"].shape == (1, 4, 3)
    assert "prior_predictive" not in (found.groups() if MAJOR < 1 else found.children)


def test_a_prior_without_a_density_leaves_the_log_joint_out() -> None:
    """A slope that is the same in all tasks, or a variance of zero between them."""
    tasks = bm.TaskDataset.from_list([([0.0, 1.0, 2.0], [0.1, 0.9, 2.2]), ([0.0, 1.0], [1.2, 1.8])])
    fixed = bm.priors.FullCovariance(2, varying=[0])
    singular = bm.priors.FullCovariance(2)
    singular.set_root(torch.zeros(2, 1))
    for covariance in (fixed, singular):
        data = to_arviz(bm.ALPaCA(bm.Identity(1), covariance=covariance).double(), tasks, num_draws=7)
        assert "sample_stats" not in data.groups()
        assert data["log_likelihood"]["y"].shape == (1, 7, 5, 1)

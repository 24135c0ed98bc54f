"""Full-batch fits: the maximum of the evidence in any units, at boundaries too, and a warning where it is not found."""

import math
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.optimize import minimize as scipy_minimize
from statsmodels.regression.mixed_linear_model import MixedLM

import bayesmeta as bm
from bayesmeta.errors import ConvergenceWarning, DataError, InferenceError, UnsupportedError
from bayesmeta.training.evidence import fit_evidence
from bayesmeta.training.fit import fit

UNITS: dict[str, Callable[[pd.Series], pd.Series]] = {
    "pascal": lambda x: 1e5 + 10.0 * x,
    "years": lambda x: 2000.0 + x,
    "mol/l": lambda x: 1e-6 * x,
    "kelvin": lambda x: 293.15 + 0.1 * x,
}


def _tasks(frame: pd.DataFrame, *x: str) -> bm.TaskDataset:
    return bm.TaskDataset.from_frame(frame, task="who", x=list(x) or ["x"], y=["y"])


def _linear(num_inputs: int = 1) -> bm.ALPaCA:
    return bm.ALPaCA(bm.Identity(num_inputs)).double()


def _evidence(learner: bm.Learner, tasks: bm.TaskDataset) -> float:
    return learner.log_evidence(tasks.data).sum().item()


def _mixed_model(num_tasks: int = 40, seed: int = 0) -> pd.DataFrame:
    """Random intercepts and slopes, correlated; ragged."""
    rng = np.random.default_rng(seed)
    frames = []
    effects = rng.multivariate_normal([0, 0], [[4.0, -0.6], [-0.6, 0.5]], num_tasks)
    for t, (intercept, slope) in enumerate(effects):
        x = rng.uniform(0, 5, rng.integers(4, 10))
        y = 10.0 + intercept + (1.5 + slope) * x + rng.normal(0, 0.8, len(x))
        frames.append(pd.DataFrame({"who": f"s{t}", "x": x, "y": y}))
    return pd.concat(frames, ignore_index=True)


def _weak(seed: int) -> pd.DataFrame:
    """Tasks that hardly differ, or not at all: ragged, from 6 to 14 of them, with 1 to 7 points."""
    rng = np.random.default_rng(seed)
    deviations, noise = (rng.choice([0.0, 0.1, 0.5]), rng.choice([0.0, 0.02, 0.1])), rng.choice([0.3, 1.0, 2.5])
    frames = []
    for t in range(rng.integers(6, 15)):
        x = rng.uniform(0, 5, rng.integers(1, 8))
        intercept, slope = rng.normal(0, deviations)
        frames.append(
            pd.DataFrame({"who": t, "x": x, "y": 3 + intercept + (1 + slope) * x + rng.normal(0, noise, len(x))})
        )
    return pd.concat(frames, ignore_index=True)


def _slow_maximum(frame: pd.DataFrame) -> float:
    """The likelihood profiled over fixed effects and noise, task by task, maximised over L from four starts."""
    x = (frame["x"] - frame["x"].mean()) / frame["x"].std()
    design, y = np.stack([np.ones(len(frame)), x], 1), frame["y"].to_numpy()
    tasks = [np.flatnonzero(frame["who"] == who) for who in frame["who"].unique()]

    def loss(entries: np.ndarray) -> float:
        factor = np.array([[entries[0], 0.0], [entries[1], entries[2]]])
        products, determinant = np.zeros((3, 3)), 0.0
        for rows in tasks:
            white = design[rows] @ factor
            root = np.linalg.cholesky(np.eye(len(rows)) + white @ white.T)
            solved = np.linalg.solve(root, np.column_stack([design[rows], y[rows]]))
            products += solved.T @ solved
            determinant += 2.0 * np.log(np.diag(root)).sum()
        beta = np.linalg.solve(products[:2, :2], products[:2, 2])
        squares = products[2, 2] - beta @ products[:2, 2]
        return 0.5 * (determinant + len(y) * (math.log(2.0 * math.pi * squares / len(y)) + 1.0))

    rng = np.random.default_rng(0)
    starts = [np.array([1.0, 0.0, 1.0]), *rng.normal(0, 1, (3, 3)) * 10.0 ** rng.uniform(-2, 1, (3, 1))]
    return -min(scipy_minimize(loss, start, method="L-BFGS-B").fun for start in starts)


@pytest.mark.parametrize("seed", range(6))
def test_the_maximum_in_any_units(seed: int) -> None:
    """No worse than the best of many starts by brute force: 1e-5 nats is what scipy's own tolerance leaves of it."""
    frame = _weak(seed)
    best = _slow_maximum(frame)
    for change in [lambda x: x, *list(UNITS.values())[seed % 2 :: 2]]:
        learner, tasks = _linear(), _tasks(frame.assign(x=change(frame["x"])))
        result = fit_evidence(learner, tasks)
        assert result.stopped_early
        assert abs(_evidence(learner, tasks) - best) < 1e-5
        assert len(result.losses) < 250
        assert result.best_step == len(result.losses)


@pytest.mark.parametrize("unit", UNITS)
def test_theta_comes_back_in_the_users_units(unit: str) -> None:
    """With x' = a + b x: K_0 and V follow exactly, as the model is the same."""
    frame = _mixed_model(15)
    found = []
    for x in (frame["x"], UNITS[unit](frame["x"])):
        learner = _linear()
        fit_evidence(learner, _tasks(frame.assign(x=x)))
        found.append(learner.prior)
    shift, scale = UNITS[unit](pd.Series([0.0, 1.0])).tolist()
    scale -= shift
    back = torch.tensor([[1.0, shift], [0.0, scale]], dtype=torch.float64)  # weights of x' -> weights of x
    covariance = found[1].covariance.matrix().detach()
    # the size of what cancels, (shift / scale)², times the rounding of float64, and the flatness of the maximum
    torch.testing.assert_close(back @ found[1].location.detach(), found[0].location.detach(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(back @ covariance @ back.mT, found[0].covariance.matrix().detach(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("restricted", [False, True])
def test_a_linear_mixed_model_agrees_with_statsmodels(restricted: bool) -> None:
    frame = _mixed_model()
    tasks, learner = _tasks(frame), _linear()
    problem = bm.training.RestrictedMaximumLikelihood() if restricted else bm.training.MaximumLikelihood()
    result = fit_evidence(learner, tasks, problem)
    assert result.stopped_early  # it converged
    assert result.notes == ()
    design = np.stack([np.ones(len(frame)), frame["x"]], 1)
    expected = MixedLM(frame["y"], design, frame["who"], exog_re=design).fit(reml=restricted, method="lbfgs")
    noise = learner.prior.noise.covariance().item()
    # four digits: statsmodels' own optimiser stops near 1e-5
    np.testing.assert_allclose(learner.prior.location.detach()[:, 0], expected.fe_params, rtol=1e-4)
    np.testing.assert_allclose(noise, expected.scale, rtol=1e-4)
    np.testing.assert_allclose(
        noise * learner.prior.covariance.matrix().detach(), expected.cov_re, rtol=1e-3, atol=1e-4
    )
    if not restricted:  # REML's constant is a convention, and another one there
        assert math.isclose(_evidence(learner, tasks), expected.llf, abs_tol=1e-4)


@pytest.mark.parametrize("unit", ["pascal", "mol/l"])
def test_the_restricted_evidence_in_other_units(unit: str) -> None:
    """The prior mean is flat in the user's units: x' = a + b x costs log b, and nothing else."""
    frame, values = _weak(3), []
    for x in (frame["x"], UNITS[unit](frame["x"])):
        learner, tasks = _linear(), _tasks(frame.assign(x=x))
        assert fit_evidence(learner, tasks, bm.training.RestrictedMaximumLikelihood()).stopped_early
        values.append(learner.restricted_log_evidence(tasks.data).item())
    scale = np.diff(UNITS[unit](pd.Series([0.0, 1.0]))).item()
    assert math.isclose(values[0], values[1] + math.log(scale), abs_tol=1e-5)


def test_result_of_a_full_batch_fit() -> None:
    tasks, learner = _tasks(_mixed_model(10)), _linear()
    result = fit_evidence(learner, tasks)
    assert result.losses[-1] <= result.losses[0]
    assert result.frame()["loss"].tolist() == list(result.losses)
    points = tasks.data.counts.sum().item()
    assert math.isclose(-_evidence(learner, tasks) / points, min(result.losses), rel_tol=1e-9)
    with pytest.warns(ConvergenceWarning, match=r"a slope of .* after 1 steps: raise max_iterations"):
        cut = fit_evidence(_linear(), tasks, max_iterations=1)
    assert not cut.stopped_early


def test_a_slope_within_the_tolerance_that_was_asked_for_is_no_warning() -> None:
    """Warnings are errors in tests. The slope is far above what a search by default would have to reach."""
    tasks, learner = _tasks(_mixed_model(10)), _linear()
    result = fit_evidence(learner, tasks, tolerance=0.3)
    assert result.stopped_early
    assert result.converged
    assert len(result.losses) < len(fit_evidence(_linear(), tasks).losses)


# ---------------------------------------------------------------------------------------------------------- boundaries


def test_a_variance_of_zero_is_found_and_named() -> None:
    """Tasks that do not differ: the evidence is largest at the edge, where V = 0."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(30), 5)
    means = rng.normal(size=(30, 5))
    y = (means - means.mean(1, keepdims=True)).flatten()  # less spread between the tasks than chance gives
    learner = bm.ALPaCA(bm.Identity(0)).double()
    result = fit_evidence(learner, bm.TaskDataset.from_arrays(np.zeros((150, 0)), y, groups))
    assert learner.prior.covariance.matrix().item() == 0.0
    assert math.isclose(learner.prior.noise.covariance().item(), y.var(), rel_tol=1e-6)
    assert result.notes == ("intercept variance 0: boundary",)
    assert "intercept variance 0" in repr(result)
    assert learner.adapt(bm.Data.from_arrays(np.zeros((2, 0)), [5.0, 5.0])).predict(np.zeros((1, 0))).mean.abs() < 1e-9


def test_boundaries_have_the_names_of_columns() -> None:
    frame = _weak(2).rename(columns={"x": "Days"})
    for covariance, expected in (
        (bm.priors.DiagonalCovariance(2), "slope of Days variance 0: boundary"),
        (bm.priors.FullCovariance(2), "correlation of intercept and slope of Days -1: boundary"),
    ):
        learner = bm.ALPaCA(bm.Identity(1), covariance=covariance).double()
        assert expected in fit_evidence(learner, _tasks(frame, "Days")).notes


def test_a_small_variance_is_no_false_zero() -> None:
    """A variance that is far below the noise, from a start where it is zero: stationary, and not a maximum."""
    frame = _mixed_model(20)
    tasks = _tasks(frame)
    best = _linear()
    fit_evidence(best, tasks)
    learner = _linear()
    with torch.no_grad():
        learner.prior.covariance.lower.copy_(torch.tensor([1.0, 0.0, 0.0]))  # no slopes
    fit_evidence(learner, tasks)
    assert math.isclose(_evidence(learner, tasks), _evidence(best, tasks), abs_tol=1e-6)


def test_leaving_a_zero_that_is_no_maximum() -> None:
    from bayesmeta.training.unit_coordinates import UnitMixedModel

    learner, tasks = _linear(), _tasks(_mixed_model(20))
    model = UnitMixedModel(learner.parts(tasks.data), int(tasks.data.counts.max()))
    with torch.no_grad():
        learner.prior.covariance.lower.zero_()
    learner.maximise_exactly(tasks.data)
    before = _evidence(learner, tasks)
    assert model.boundary(None) == ("intercept variance 0: boundary", "slope of x 0 variance 0: boundary")
    assert model.leave_zero(lambda: _evidence(learner, tasks))
    assert _evidence(learner, tasks) > before


def test_degenerate_tasks() -> None:
    rng = np.random.default_rng(1)
    none = pd.DataFrame({"who": np.repeat(np.arange(8), 4), "x": rng.uniform(0, 5, 32)})
    none["y"] = 1 + 2 * none["x"] + rng.normal(0, 1, 32)
    plain = _mixed_model(6)
    still = plain.assign(x=plain.groupby("who")["x"].transform("first"))
    for frame in (none, still, plain[plain["who"].isin(["s0", "s1"])], plain[plain["who"] == "s0"]):
        for problem in (bm.training.MaximumLikelihood(), bm.training.RestrictedMaximumLikelihood()):
            learner, tasks = _linear(), _tasks(frame)
            result = fit_evidence(learner, tasks, problem)
            assert result.stopped_early
            assert len(result.losses) < 250
            if isinstance(problem, bm.training.MaximumLikelihood):
                assert abs(_evidence(learner, tasks) - _slow_maximum(frame)) < 1e-5


def test_a_feature_that_is_a_sum_of_others_changes_no_fit() -> None:
    frame = _mixed_model(10)
    frame["again"] = 2.0 * frame["x"] - 1.0
    plain, singular = _tasks(frame), _tasks(frame, "x", "again")
    # the smallest of the prior means that fit equally well is taken: the evidence is the same model's
    restricted = []
    for tasks, size in ((plain, 2), (singular, 3)):
        covariance = bm.priors.FullCovariance(size, varying=[0, 1])
        learner = bm.ALPaCA(bm.Identity(size - 1), covariance=covariance).double()
        assert fit_evidence(learner, tasks, bm.training.RestrictedMaximumLikelihood()).stopped_early
        restricted.append(learner.restricted_log_evidence(learner.conform(tasks.data)).item())
    assert restricted[0] == pytest.approx(restricted[1], abs=1e-6)
    fits = []
    for tasks, rows in (
        (plain, bm.priors.FullCovariance(2, varying=[0, 1])),
        (singular, bm.priors.FullCovariance(3, varying=[0, 1])),
        (singular, bm.priors.FullCovariance(3)),
    ):
        learner = bm.ALPaCA(bm.Identity(rows.num_features - 1), covariance=rows).double()
        fit_evidence(learner, tasks)
        fits.append(_evidence(learner, tasks))
    assert max(fits) - min(fits) < 1e-5


def test_noise_at_its_bound_is_told() -> None:
    frame = _mixed_model(10)
    exact = frame.assign(y=frame["who"].str[1:].astype(float) + 2.0 * frame["x"])
    huge = frame.assign(y=1e7 * frame["y"])
    for each, bound in (
        (frame.assign(y=3.7), "1e-08"),  # nothing to explain
        (frame.assign(y=2.0 * frame["x"] - 1.0), "1e-08"),  # one line for all
        (exact, "1e-08"),  # a line for each
        (huge, "1e\\+08"),
    ):
        learner = _linear()
        with pytest.warns(ConvergenceWarning, match=f"noise variance at its bound {bound}.*use Standardized"):
            result = fit_evidence(learner, _tasks(each), max_iterations=2_000)
        assert result.notes[-1].startswith("noise variance at its bound")
        assert all(parameter.isfinite().all() for parameter in learner.parameters())
    assert fit_evidence(bm.Standardized(_linear()), _tasks(huge)).stopped_early


# ------------------------------------------------------------------------------------------------- what may be asked


def test_what_requires_no_gradients_stays() -> None:
    tasks = _tasks(_mixed_model(10))
    known = bm.ALPaCA(bm.Identity(1), noise=bm.noise.DiagonalNoise(1, initial=0.5)).double()
    known.prior.noise.requires_grad_(False)
    fixed = _linear()
    fixed.prior.covariance.requires_grad_(False)
    centred = _linear()
    centred.prior.location.requires_grad_(False)
    for learner in (known, fixed, centred):
        before = {name: p.detach().clone() for name, p in learner.named_parameters() if not p.requires_grad}
        assert before
        assert fit_evidence(learner, tasks).stopped_early
        assert all(torch.equal(p, before[name]) for name, p in learner.named_parameters() if name in before)


def test_other_learners_with_an_evidence() -> None:
    tasks = _tasks(_mixed_model(10))
    torch.manual_seed(0)
    for make in (
        lambda: bm.MixtureALPaCA(bm.Identity(1), num_components=2),
        lambda: bm.DeepKernelTransfer(bm.Identity(1)),
        lambda: bm.R2D2Regressor(bm.Identity(1)),
        lambda: bm.ALPaCA(bm.AdditiveRadialBasis(1, 4), covariance=bm.priors.DiagonalCovariance(5)),
        lambda: bm.ALPaCA(bm.Polynomial(1, 2), covariance=bm.priors.IsotropicCovariance(3)),
    ):
        learner = bm.Standardized(make()).double()
        result = fit_evidence(learner, tasks)
        assert result.stopped_early
        assert result.losses[-1] < result.losses[0]


def test_a_network_is_fitted_too() -> None:
    tasks = bm.tasks.Sinusoid().dataset(num_tasks=10, num_points=6, seed=0)
    torch.manual_seed(0)
    learner = bm.ALPaCA(bm.MLP(1, [8])).double()
    with pytest.warns(ConvergenceWarning, match="raise max_iterations"):
        result = fit_evidence(learner, tasks, max_iterations=20)
    assert result.losses[-1] < result.losses[0]


def test_learners_without_an_evidence_are_told() -> None:
    class Silent(bm.Learner):
        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(()))

        def condition(self, support: bm.Data) -> bm.TaskPosterior:
            raise NotImplementedError

    tasks = _tasks(_mixed_model(3))
    for problem in (None, bm.training.RestrictedMaximumLikelihood()):
        with pytest.raises(UnsupportedError, match="Silent has no closed form"):
            fit_evidence(Silent(), tasks, problem)
    with pytest.raises(UnsupportedError, match="use a predictive objective"):
        fit(Silent(), tasks, steps=1, objective=bm.training.Evidence())


@pytest.mark.usefixtures("unchecked")
def test_arguments_of_fit_evidence() -> None:
    for arguments in ({"max_iterations": 0}, {"tolerance": 0.0}, {"tolerance": math.nan}):
        with pytest.raises(DataError, match="positive max_iterations and tolerance"):
            fit_evidence(_linear(), _tasks(_mixed_model(3)), **arguments)
    with pytest.raises(DataError, match="a TaskDataset, got DataFrame"):
        fit_evidence(_linear(), pd.DataFrame())


class _Breaks(bm.training.MaximumLikelihood):
    """Cannot be computed where a wall says so: as an error, as NaN, or as an infinite value."""

    def __init__(self, how: str, wall: Callable[[bm.Learner, int], bool]) -> None:
        self.how, self.wall, self.calls = how, wall, 0

    def __call__(self, learner: bm.Learner, data: bm.Data) -> torch.Tensor:
        self.calls += 1
        value = super().__call__(learner, data)
        if not self.wall(learner, self.calls):
            return value
        if self.how == "error":
            raise InferenceError("no such matrix")
        return value * math.nan if self.how == "nan" else value - math.inf


@pytest.mark.parametrize("how", ["error", "nan", "infinite"])
def test_trial_points_that_fail_shorten_the_step(how: str) -> None:
    tasks, best = _tasks(_mixed_model(10)), _linear()
    fit_evidence(best, tasks)
    noise = best.prior.noise.variance().item()
    learner = _linear()
    problem = _Breaks(how, lambda learner, calls: learner.prior.noise.variance().item() < 0.99 * noise)
    result = fit_evidence(learner, tasks, problem)
    assert result.stopped_early
    assert math.isclose(_evidence(learner, tasks), _evidence(best, tasks), abs_tol=1e-6)


def test_a_start_that_fails_is_told_and_changes_nothing() -> None:
    tasks = _tasks(_mixed_model(10))
    for how, message in (("error", "no such matrix"), ("nan", "expected a finite evidence, got nan where the search")):
        learner = _linear()
        with pytest.raises(InferenceError, match=message):
            fit_evidence(learner, tasks, _Breaks(how, lambda learner, calls: True))


@pytest.mark.parametrize("problem", [bm.training.MaximumLikelihood(), bm.training.RestrictedMaximumLikelihood()])
def test_tasks_in_several_batches_are_as_tasks_in_one(problem: bm.training.EvidenceProblem) -> None:
    """One long task among short ones: the value, its gradient, and what is set in closed form."""
    rng = np.random.default_rng(0)
    counts = [1, 4, 5, 7, 3000, 5, 900, 2]
    x = [rng.uniform(0.0, 5.0, n) for n in counts]
    tasks = bm.TaskDataset.from_list([(v, 2.0 + rng.normal() + v + rng.normal(0.0, 0.3, len(v))) for v in x])
    groups = [part.data for _, part in tasks.by_length()]
    assert len(groups) > 1
    found = []
    for data in ([tasks.data], groups):
        learner = bm.ALPaCA(bm.Identity(1)).double()
        problem.start(learner, *data)
        value = problem(learner, *data)
        slope = torch.autograd.grad(value, list(learner.parameters()), allow_unused=True)
        found.append(
            [value.detach(), *(s for s in slope if s is not None), *(p.detach() for p in learner.parameters())]
        )
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-8)
    learner = bm.ALPaCA(bm.Identity(1)).double()
    assert fit_evidence(learner, tasks, problem).stopped_early

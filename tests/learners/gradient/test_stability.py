"""Adaptation ends at the mode, whatever the support; where a method's own steps do not, it says so."""

import math
import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import optimize
from scipy.special import expit
from torch import Tensor, nn

import bayesmeta as bm
from bayesmeta.errors import ConvergenceWarning
from bayesmeta.inference.gauss_newton import LevenbergMarquardt, PosteriorCovariance, distance_to_mode
from bayesmeta.inference.map import implicit_map
from bayesmeta.learners.gradient.base import GradientLearner
from bayesmeta.linalg import conjugate_gradient, flattened

D = torch.float64


class Line(bm.WholeNetwork):
    """K outputs that are linear in phi."""

    def __init__(self, num_outputs: int = 1) -> None:
        super().__init__()
        self.layer = nn.Linear(2, num_outputs)
        self.x_shape, self.num_outputs = (2,), num_outputs

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


LIKELIHOODS: dict[str, Callable[[], bm.likelihoods.Likelihood]] = {
    "precise": lambda: bm.likelihoods.Gaussian(bm.noise.DiagonalNoise(1, 1e-6)),
    "noisy": lambda: bm.likelihoods.Gaussian(bm.noise.DiagonalNoise(1, 1e4)),
    "Bernoulli": bm.likelihoods.Bernoulli,
    "Categorical": lambda: bm.likelihoods.Categorical(3),
}
COUNTS = [0, 1, 2, 5, 40]


def _tasks(likelihood: bm.likelihoods.Likelihood, counts: list[int], scale: float = 1.0) -> bm.Data:
    """One task of each size; labels are separable where there are few."""
    size = max(counts)
    x = torch.randn(len(counts), size, 2, dtype=D)
    f = scale * (3.0 * x[..., :1] - 1.0)
    if isinstance(likelihood.outcomes, bm.Labels):
        y = (f[..., 0] > 0.0).long() + (likelihood.outcomes.count == 3) * (x[..., 1] > 0.5).long()
    else:
        y = f + 0.1 * scale * torch.randn_like(f)
    return bm.Data(x, y, torch.arange(size) < torch.tensor(counts)[:, None])


def _llama(likelihood: bm.likelihoods.Likelihood, precision: float = 0.5) -> bm.LLAMA:
    return bm.LLAMA(Line(likelihood.network_outputs), precision=precision, likelihood=likelihood).double()


def _distance(learner: bm.LLAMA | bm.IMAML, support: bm.Data, phi: dict[str, Tensor], task: int) -> Tensor:
    """From the mode in posterior deviations, by the Hessian written out."""
    one, shapes = support.select([task]), {name: value.shape[1:] for name, value in phi.items()}
    joint = learner.log_joint(one)

    def density(flat: Tensor) -> Tensor:
        parts = flat.split([shape.numel() for shape in shapes.values()])
        return joint({n: part.reshape(1, *s) for (n, s), part in zip(shapes.items(), parts, strict=True)})[0]

    flat = torch.cat([value[task].flatten() for value in phi.values()]).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(density(flat), flat)
    hessian = -torch.autograd.functional.hessian(density, flat.detach())
    return (gradient @ torch.linalg.solve(hessian, gradient)).clamp(min=0.0).sqrt()


@pytest.mark.parametrize("name", LIKELIHOODS)
@pytest.mark.parametrize("precision", [1e-3, 0.5, 1e4])
def test_llama_is_at_the_mode(name: str, precision: float) -> None:
    likelihood = LIKELIHOODS[name]()
    learner, support = _llama(likelihood, precision), _tasks(likelihood, COUNTS)
    phi = learner.adapt(support).mean
    for task in range(len(COUNTS)):
        # √eps deviations before the last step; gradients of precise data have rounding of 1e-16 / 1e-6 of f's size
        assert _distance(learner, support, phi, task) < 1e-6


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_many_points(name: str) -> None:
    likelihood = LIKELIHOODS[name]()
    learner, support = _llama(likelihood), _tasks(likelihood, [300 if name == "Categorical" else 2000])
    assert _distance(learner, support, learner.adapt(support).mean, 0) < 1e-6


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_units_of_the_outcomes(scale: float) -> None:
    """Neither the mode nor the evidence depends on the unit."""
    found = []
    for unit in (1.0, scale):
        torch.manual_seed(0)
        noise = bm.noise.DiagonalNoise(1, 0.01 * unit**2, bounds=(1e-20, 1e20))
        learner = bm.LLAMA(Line(), likelihood=bm.likelihoods.Gaussian(noise)).double()
        learner.prior = bm.priors.IsotropicGaussian(learner.initial, 1.0 / unit**2, bounds=(1e-20, 1e20)).double()
        with torch.no_grad():
            for value in learner.initial.values():
                value.mul_(unit)
        support = _tasks(learner.likelihood, COUNTS, unit)
        evidence = learner.log_evidence(support).detach() + support.counts * math.log(unit)
        found.append((learner.adapt(support).mean["layer.weight"] / unit, evidence))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)  # what the solver leaves, √eps


def test_a_label_makes_itself_more_probable() -> None:
    """The fault that was: after one label 1, P(1) = 0."""
    for precision in (1e-2, 1.0, 4.0, 1e3):
        learner = _llama(bm.likelihoods.Bernoulli(), precision)
        x = torch.randn(50, 1, 2, dtype=D)
        for label in (0, 1):
            seen = bm.Data.full(x, torch.full((50, 1), label))
            before = learner.adapt(bm.Data.empty(seen)).predict(x).probs[:, 0, label]
            after = learner.adapt(seen).predict(x).probs[:, 0, label]
            assert (after > before).all()


@pytest.mark.parametrize("noise", [1e-6, 0.1])
def test_no_task_ends_below_its_start(noise: float) -> None:
    """A network that is far from its data, where undamped steps overshoot; float32, where rounding is seen."""
    learner = bm.LLAMA(
        bm.MLP(1, [20, 20]),
        solver=LevenbergMarquardt(15),
        likelihood=bm.likelihoods.Gaussian(bm.noise.DiagonalNoise(1, noise)),
    )
    x = torch.linspace(-5.0, 5.0, 12).expand(6, -1)[..., None]
    support = bm.Data.full(x, torch.sin(x * torch.arange(1, 7)[:, None, None]))
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        joint = learner.log_joint(support)
        start, end = joint(learner.start(6)), joint(learner.find_mode(support))
    assert (end > start).all()


def test_a_curved_network() -> None:
    """Where G is not the Hessian the steps still arrive, at the optimum that L-BFGS finds."""
    torch.manual_seed(1)
    learner = bm.LLAMA(bm.MLP(1, [5]), precision=5.0, likelihood=bm.likelihoods.Bernoulli()).double()
    x = torch.randn(4, 9, 1, dtype=D)
    support = bm.Data.full(x, (x[..., 0] > 0.3 * torch.randn(4, 9)).long())
    phi, joint = learner.adapt(support).mean, learner.log_joint(support)
    with torch.no_grad():
        other = bm.inference.LBFGS(500, 1e-10).solve(bm.inference.MapProblem(joint, learner.start(4)))
        torch.testing.assert_close(joint(phi), joint(other), rtol=0.0, atol=1e-9)
    for task in range(4):
        assert _distance(learner, support, phi, task) < 1e-6


def test_the_derivative_of_the_mode() -> None:
    """As by `implicit_map`, whose conjugate gradients have no preconditioner."""
    torch.manual_seed(1)
    learner = bm.LLAMA(bm.MLP(1, [5]), precision=5.0, likelihood=bm.likelihoods.Bernoulli()).double()
    x = torch.randn(3, 6, 1, dtype=D)
    support = bm.Data.full(x, (x[..., 0] > 0.0).long())
    joint, start, theta = learner.joint(support), learner.start(3), list(learner.network.parameters())
    found = learner.mode(support)
    expected = implicit_map(joint, start, solver=bm.inference.LBFGS(500, 1e-11), solve_steps=200, tolerance=1e-12)
    weight = {name: torch.randn_like(value) for name, value in found.items()}
    total = lambda phi: sum((weight[name] * value).sum() for name, value in phi.items())
    for a, b in zip(torch.autograd.grad(total(found), theta), torch.autograd.grad(total(expected), theta), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)  # √eps, of the mode and of the conjugate gradients


def test_a_preconditioner_saves_steps() -> None:
    size, calls = 30, [0]
    matrix = torch.diag(torch.logspace(0, 6, size, dtype=D))
    right = torch.randn(2, size, dtype=D)

    def product(vector: Tensor) -> Tensor:
        calls[0] += 1
        return vector @ matrix

    nearly = 1.0 / (matrix.diagonal() * (1.0 + 0.1 * torch.rand(size, dtype=D)))
    found = conjugate_gradient(product, right, 100, 1e-10, lambda vector: vector * nearly)
    torch.testing.assert_close(found, right / matrix.diagonal(), rtol=1e-8, atol=1e-12)
    assert calls[0] < 15  # a condition of 1.1 in place of 1e6


def test_products_of_a_damped_covariance() -> None:
    learner = bm.LLAMA(bm.MLP(2, [4]), precision=3.0).double()
    support = _tasks(learner.likelihood, COUNTS)
    phi = {name: value.detach() for name, value in learner.start(len(COUNTS)).items()}
    with torch.no_grad():
        curvature = learner.curvature(support, phi)
        rows, squares = curvature.rows.dense().flatten(1, 2), curvature.scale().square()
        damping = torch.tensor([0.0, 1.0, 0.3, 100.0, 0.0], dtype=D)
        vector = torch.randn(len(COUNTS), rows.shape[2], dtype=D)
        dense = rows.mT @ rows + torch.diag_embed((1.0 + damping[:, None]) / squares)
        expected = torch.linalg.solve(dense, vector[..., None])[..., 0]
        torch.testing.assert_close(
            PosteriorCovariance(curvature, damping).times(vector), expected, rtol=1e-8, atol=1e-10
        )
        # damped or not, it is the mode of a quadratic
        exact = torch.linalg.solve(
            rows.mT @ rows + torch.diag_embed(1.0 / squares.expand_as(vector)), vector[..., None]
        )
        distance = (vector * exact[..., 0]).sum(1).sqrt()
        torch.testing.assert_close(distance_to_mode(curvature, vector), distance, rtol=1e-8, atol=1e-10)


# ------------------------------------------------------------------------------------------- a mixed model for labels


class Slope(bm.WholeNetwork):
    """A slope that all groups share, and an intercept of each."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.x_shape, self.num_outputs = (1,), 1

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


Groups = list[tuple[np.ndarray, np.ndarray]]


def _groups() -> Groups:
    rng, groups = np.random.default_rng(0), []
    for size in rng.integers(1, 12, 60):
        x, level = rng.normal(size=(size, 1)), rng.normal(0.0, 2.2)
        groups.append((x, (rng.random(size) < expit(0.3 + 0.8 * x[:, 0] + level)).astype(int)))
    return groups


def _negative_evidence(theta: np.ndarray, x: np.ndarray, y: np.ndarray, real: np.ndarray, nodes: int) -> float:
    """Adaptive Gauss-Hermite quadrature over the intercept of each group; Laplace is the case of one node."""
    z, weights = np.polynomial.hermite.hermgauss(nodes)
    eta, deviation, level = theta[0] + theta[1] * x, math.exp(theta[2]), np.zeros(len(x))
    for _ in range(50):  # Newton's mode of each group
        p = expit(eta + level[:, None])
        curvature = (real * p * (1.0 - p)).sum(1) + deviation**-2
        level += np.clip(((real * (y - p)).sum(1) - level / deviation**2) / curvature, -2.0, 2.0)
    levels = level[:, None] + np.sqrt(2.0 / curvature)[:, None] * z  # groups, nodes
    each = eta[:, :, None] + levels[:, None]
    joint = (real[..., None] * (y[..., None] * each - np.logaddexp(0.0, each))).sum(1) - 0.5 * (levels / deviation) ** 2
    joint += z**2 + np.log(weights) - math.log(deviation) - 0.5 * math.log(2.0 * math.pi)
    return -float((np.logaddexp.reduce(joint, 1) + 0.5 * np.log(2.0 / curvature)).sum())


def test_a_laplace_mixed_model_of_labels() -> None:
    groups = _groups()
    learner = bm.LLAMA(Slope(), likelihood=bm.likelihoods.Bernoulli(), adapted=["layer.bias"]).double()
    result = bm.fit_evidence(learner, bm.TaskDataset.from_labels(groups))
    found = [learner.network.layer.bias.item(), learner.network.layer.weight.item()]
    deviation = learner.prior.precision().item() ** -0.5
    size = max(len(y) for _, y in groups)
    pad = lambda values: np.pad(values.reshape(-1).astype(float), (0, size - len(values)))
    padded = [np.stack([pad(values) for values in each]) for each in zip(*groups, strict=True)]
    data = (*padded, np.stack([np.arange(size) < len(y) for _, y in groups]))
    laplace = optimize.minimize(_negative_evidence, np.zeros(3), (*data, 1), method="BFGS", options={"gtol": 1e-6})
    np.testing.assert_allclose([*found, math.log(deviation)], laplace.x, rtol=0, atol=1e-4)  # where both stop
    points = sum(len(y) for _, y in groups)
    assert math.isclose(min(result.losses) * points, laplace.fun, rel_tol=1e-8)
    # the true maximum, which Laplace is near: few labels a group shrink its deviation by a few percent
    truth = optimize.minimize(_negative_evidence, laplace.x, (*data, 15), method="BFGS", options={"gtol": 1e-4})
    assert 0.93 < deviation / math.exp(truth.x[2]) < 1.0


@pytest.mark.filterwarnings("ignore:expected the evidence at its maximum:bayesmeta.ConvergenceWarning")  # after 3 steps
def test_too_few_steps_for_a_mixed_model_are_told() -> None:
    tasks = bm.TaskDataset.from_labels(_groups())
    learner = bm.LLAMA(
        Slope(),
        solver=LevenbergMarquardt(1),
        precision=0.01,
        likelihood=bm.likelihoods.Bernoulli(),
        adapted=["layer.bias"],
    ).double()
    with pytest.warns(ConvergenceWarning, match=r"LLAMA stopped short of the mode in \d+ of 60 tasks .*: give the"):
        bm.fit_evidence(learner, tasks, max_iterations=3)
    with pytest.warns(ConvergenceWarning, match="LLAMA stopped short of the mode"):
        learner.adapt(tasks.data)


# ---------------------------------------------------------------------------------------- steps of a method's own


ASCENTS: dict[str, Callable[..., GradientLearner]] = {
    "MAML": bm.MAML,
    "FirstOrderMAML": bm.FirstOrderMAML,
    "MetaSGD": lambda f, **a: bm.MetaSGD(f, steps=5, **a),
    "MAMLPlusPlus": bm.MAMLPlusPlus,
    "AlphaMAML": bm.AlphaMAML,
    "BMAML": lambda f, **a: bm.BMAML(f, precision=1.0, **a),
}


def _lines(slopes: list[float]) -> bm.TaskDataset:
    x = np.linspace(-1.0, 1.0, 6)[:, None] * [1.0, 0.5]
    names = ["first", "second", "third"][: len(slopes)]
    return bm.TaskDataset.from_list([(x * slope, x[:, 0]) for slope in slopes], names)


@pytest.mark.parametrize("name", ASCENTS)
def test_overshooting_is_told(name: str) -> None:
    """A linear model: rate times curvature is above 2 where inputs are large, and there alone."""
    learner = ASCENTS[name](Line(), lr=0.5).double()
    data = _lines([1.0, 0.2, 6.0]).data
    with pytest.warns(ConvergenceWarning, match=rf"^{name} overshot in 1 of 3 tasks \(33%\)"):
        posterior = learner.adapt(data)
    alone = [learner.adapt(data.select([i])) for i in (0, 1)]  # which warn of nothing
    for i, other in enumerate(alone):
        torch.testing.assert_close(
            posterior.predict(data.x).mean[i], other.predict(data.x[i : i + 1]).mean[0], rtol=1e-9, atol=1e-9
        )
    loss = learner.meta_loss(bm.TaskBatch(data, data))  # training is not held up
    assert torch.isfinite(loss).all()


@pytest.mark.parametrize("name", ASCENTS)
def test_a_finite_explosion_is_an_error(name: str) -> None:
    learner, tasks = ASCENTS[name](Line(), lr=0.5).double(), _lines([1.0, 0.2, 3e3])
    with pytest.raises(bm.InferenceError, match=rf"^{name}: .* within 1e\+06 deviations, got .* task 2\.") as caught:
        learner.adapt(tasks.data)
    assert caught.value.task == 2
    before = [p.detach().clone() for p in learner.parameters()]
    with pytest.raises(bm.InferenceError, match=rf"^at step 1 \('third'\): {name}: expected adaptation that stays w"):
        bm.fit(learner, tasks, steps=2, batch_size=3, split=bm.tasks.RandomSplit.at(3), progress=False)
    assert all(torch.equal(p, q) for p, q in zip(learner.parameters(), before, strict=True))


def test_an_exploding_solver_is_an_error() -> None:
    solver = bm.inference.GradientAscent(5, 0.5)
    learner, tasks = bm.IMAML(Line(), solver=solver).double(), _lines([1.0, 0.2, 3e3])
    with pytest.raises(bm.InferenceError, match=r"^IMAML: .* within 1e\+06 deviations, got .* task 2\."):
        learner.adapt(tasks.data)


def test_logits_that_are_certain_are_an_error() -> None:
    """On the right side of the boundary, too: a label asks for no logit of a million."""
    learner = bm.MAML(Line(), lr=500.0, likelihood=bm.likelihoods.Bernoulli()).double()
    with torch.no_grad():
        for parameter in learner.network.parameters():
            parameter.zero_()
    x = torch.full((1, 1, 2), 100.0, dtype=D)
    with pytest.raises(bm.InferenceError, match=r"within 1e\+06 deviations, got .* in task 0"):
        learner.adapt(bm.Data.full(x, torch.ones(1, 1, dtype=torch.long)))


def test_data_that_are_far_away_are_no_explosion() -> None:
    """phi follows them, and fits them better: fitting theta to them must remain possible."""
    x = torch.randn(2, 6, 2, dtype=D)
    data = bm.Data.full(x, 1e9 * (1.0 + x[..., :1]))
    for learner in (bm.LLAMA(Line()), bm.MAML(Line(), lr=0.1)):
        posterior = learner.double().adapt(data)
        assert torch.isfinite(posterior.predict(x).mean).all()


@pytest.mark.parametrize("count", [0, 1, 2, 5, 40])
@pytest.mark.parametrize("likelihood", ["noisy", "Bernoulli"])
def test_the_prior_of_a_context_is_never_overshot(likelihood: str, count: int) -> None:
    """The rate is bounded by the prior's own curvature, where the unit of the noise would make it larger."""
    learner = bm.CAVIA(bm.MLP(2, [4]), num_context=2, steps=6, lr=20.0, likelihood=LIKELIHOODS[likelihood]()).double()
    with torch.no_grad():
        for parameter in learner.network.parameters():
            parameter.mul_(0.1)  # a support that says little of the context
    support = _tasks(learner.likelihood, [count])
    joint = learner.log_joint(support)
    with torch.no_grad():
        start = learner.start(1)
        assert (joint(learner.adapt(support).mean) >= joint(start)).all()


def test_imaml_tells_of_a_solver_that_stops_short() -> None:
    support = _tasks(bm.likelihoods.Bernoulli(), COUNTS)
    learner = bm.IMAML(
        Line(), solver=bm.inference.GradientAscent(1, 0.1), likelihood=bm.likelihoods.Bernoulli()
    ).double()
    with pytest.warns(ConvergenceWarning, match=r"IMAML stopped short of the mode in \d of 5 tasks"):
        learner.adapt(support)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bm.IMAML(Line(), likelihood=bm.likelihoods.Bernoulli()).double().adapt(support)


def test_the_search_for_the_mode_keeps_no_graph() -> None:
    learner, support = _llama(bm.likelihoods.Bernoulli()), _tasks(bm.likelihoods.Bernoulli(), COUNTS)
    curvature = lambda phi: learner.curvature(support, phi)
    with torch.no_grad():
        phi, distance = LevenbergMarquardt().search(
            bm.inference.MapProblem(learner.joint(support), learner.start(5), curvature=curvature)
        )
        again = learner.mode(support)
    assert not any(value.requires_grad for value in phi.values())
    assert (distance < 1e-6).all()
    for name, value in phi.items():
        torch.testing.assert_close(flattened(value), flattened(again[name]), rtol=0.0, atol=0.0)

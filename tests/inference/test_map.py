"""MAP by paths and by optima: gradients, solvers, linear algebra inside, memory, and what divergence says."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize
from torch import Tensor, nn

import bayesmeta as bm
from bayesmeta.inference import MapProblem
from bayesmeta.inference.map import implicit_map, unrolled_map
from bayesmeta.linalg import conjugate_gradient, matrix_function
from bayesmeta.training.compiled import CompiledStep
from bayesmeta.typing import LogJoint, Params
from tests.saved import Saved

D = torch.float64


class Linear(bm.WholeNetwork):
    """W x + b: linear in its weights."""

    def __init__(self, num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        self.layer = nn.Linear(num_inputs, num_outputs)
        self.x_shape, self.num_outputs = (num_inputs,), num_outputs

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


def _tasks(num_inputs: int = 1, num_outputs: int = 1) -> bm.TaskBatch:
    """Ragged: 6, 0 and 3 support points, 4 query points."""
    x, y = torch.randn(3, 10, num_inputs, dtype=D), torch.randn(3, 10, num_outputs, dtype=D)
    mask = torch.arange(6) < torch.tensor([6, 0, 3])[:, None]
    return bm.TaskBatch(bm.Data(x[:, :6], y[:, :6], mask), bm.Data.full(x[:, 6:], y[:, 6:]))


def _labelled(tasks: bm.TaskBatch) -> bm.TaskBatch:
    sides = (bm.Data(d.x, torch.randint(0, 3, d.mask.shape), d.mask) for d in (tasks.support, tasks.query))
    return bm.TaskBatch(*sides)


def _imaml(**arguments: object) -> bm.IMAML:
    """With an optimum to the last digit, and conjugate gradients until they stop by themselves."""
    defaults: dict = {
        "network": bm.MLP(1, [5]),
        "precision": 10.0,
        "solver": bm.inference.LBFGS(200, 1e-13, history=30),
        "likelihood": bm.likelihoods.Gaussian(bm.noise.DiagonalNoise(1, 0.5)),
        "posterior": bm.PointEstimate(),
        "solve_steps": 200,
    }
    return bm.IMAML(**(defaults | arguments)).double()


# --------------------------------------------------------------------------------------------------- implicit gradients


def test_the_implicit_gradient_is_that_of_a_path_that_has_converged() -> None:
    learner, tasks = _imaml(), _tasks()
    first, second = (learner.log_joint(tasks.support) for _ in range(2))  # each of the graphs is used once
    # curvatures are from 10, the precision, to about 60: 0.8^200 = 1e-19 is left of the start
    unrolled = unrolled_map(first, learner.start(3), steps=200, lr=0.02)
    implicit = implicit_map(
        second, learner.start(3), solver=bm.inference.LBFGS(200, 1e-13), solve_steps=200, tolerance=1e-12
    )
    gradients = []
    for phi in (unrolled, implicit):
        loss = learner.likelihood.log_prob(learner.forward(phi, tasks.query.x), tasks.query)
        gradients.append(torch.autograd.grad(loss.sum(), list(learner.parameters())))
    for (name, _), a, b in zip(learner.named_parameters(), *gradients, strict=True):
        assert a.abs().max() > 1e-3, name
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("adapted", [None, ["output"]])
@pytest.mark.parametrize("classes", [False, True])
def test_the_implicit_gradient_is_that_of_finite_differences(classes: bool, adapted: list[str] | None) -> None:
    tasks, network = _tasks(), bm.MLP(1, [5])
    tasks = _labelled(tasks) if classes else tasks
    likelihood = bm.likelihoods.Categorical(3) if classes else bm.likelihoods.Gaussian(bm.noise.FullNoise(1, 0.5))
    learner = _imaml(network=network, likelihood=likelihood, adapted=adapted, precision=2.0)
    gradients = torch.autograd.grad(learner.meta_loss(tasks).sum(), [p for p in learner.parameters() if p.numel()])
    for (name, p), gradient in zip(
        ((n, p) for n, p in learner.named_parameters() if p.numel()), gradients, strict=True
    ):
        direction, ends = torch.randn_like(p), []
        for step in (1e-5, -1e-5):
            with torch.no_grad():
                p.add_(step * direction)
                ends.append(learner.meta_loss(tasks).sum().item())
                p.sub_(step * direction)
        # central differences: h² f''' and the optimum's error / h, about 1e-10 and 1e-8; conjugate gradients: 1e-6
        found, expected = (gradient * direction).sum().item(), (ends[0] - ends[1]) / 2e-5
        assert math.isclose(found, expected, rel_tol=1e-5, abs_tol=1e-6), name


def _matrix(product: Callable[[Params], Params], like: Params) -> Tensor:
    """The matrices of a product, `B P P`, column by column."""
    sizes = {name: value[0].numel() for name, value in like.items()}
    size_b, size_p = len(next(iter(like.values()))), sum(sizes.values())
    columns = []
    for i in range(size_p):
        vector = torch.zeros(size_b, size_p, dtype=D)
        vector[:, i] = 1.0
        parts = dict(zip(like, vector.split(list(sizes.values()), 1), strict=True))
        result = product({name: part.reshape(like[name].shape) for name, part in parts.items()})
        columns.append(torch.cat([value.flatten(1) for value in result.values()], 1))
    return torch.stack(columns, -1)


@pytest.mark.parametrize("kind", ["gaussian", "classes"])
def test_gauss_newton_products(kind: str) -> None:
    """Those of Jᵀ Λ J + precision, not less than the precision anywhere, and linear in the vector."""
    tasks = _tasks(1, 2) if kind == "gaussian" else _labelled(_tasks())
    size_k = 2 if kind == "gaussian" else 3
    likelihood = (
        bm.likelihoods.Gaussian(bm.noise.FullNoise(2, 0.3)) if kind == "gaussian" else bm.likelihoods.Categorical(3)
    )
    learner = _imaml(network=bm.MLP(1, [4]), likelihood=likelihood, gauss_newton=True)
    phi = {name: value.detach() + torch.randn_like(value) for name, value in learner.start(3).items()}  # no optimum
    precision = learner.prior.precision().item()
    found = _matrix(learner._gauss_newton(tasks.support)(phi), phi)
    for b in range(3):
        x = tasks.support.x[b][tasks.support.mask[b]]
        one = {name: value[b] for name, value in phi.items()}
        parts = torch.func.jacrev(lambda one, x=x: torch.func.functional_call(learner.network, one, (x[None],))[0])(one)
        rows = torch.cat([parts[name].reshape(len(x), size_k, value.numel()) for name, value in one.items()], -1)
        if kind == "gaussian":
            each = torch.linalg.inv(likelihood.noise.covariance().detach()).expand(len(x), -1, -1)
        else:
            p = torch.func.functional_call(learner.network, one, (x[None],))[0].softmax(-1).detach()
            each = torch.diag_embed(p) - p[:, :, None] * p[:, None]
        dense = torch.einsum("nkp,nkl,nlq->pq", rows, each, rows) + precision * torch.eye(rows.shape[-1], dtype=D)
        torch.testing.assert_close(found[b], dense, rtol=1e-9, atol=1e-9)  # rounding
        assert torch.linalg.eigvalsh(found[b])[0] >= precision * (1.0 - 1e-9)


@pytest.mark.parametrize("kind", ["gaussian", "classes"])
def test_gauss_newton_is_the_hessian_where_the_network_is_linear(kind: str) -> None:
    tasks = _tasks(2, 2) if kind == "gaussian" else _labelled(_tasks(2))
    gradients = []
    for gauss_newton in (False, True):
        torch.manual_seed(0)
        likelihood = (
            bm.likelihoods.Gaussian(bm.noise.FullNoise(2, 0.3)) if kind == "gaussian" else bm.likelihoods.Categorical(3)
        )
        network = Linear(2, likelihood.network_outputs)
        learner = _imaml(network=network, likelihood=likelihood, gauss_newton=gauss_newton, precision=1.0)
        gradients.append(torch.autograd.grad(learner.meta_loss(tasks).sum(), list(learner.parameters())))
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)  # what conjugate gradients leave


# ------------------------------------------------------------------------------------------------------------- solvers


def _logistic(scale: float = 1.0) -> tuple[LogJoint, Params, list[Callable[[np.ndarray], float]]]:
    """Regularised logistic regression with 4 weights in two named tensors, for three tasks, and each in numpy."""
    x = torch.randn(3, 20, 4, dtype=D) * torch.tensor([1.0, 3.0, 0.2])[:, None, None] * scale
    sign = torch.where(torch.randn(3, 20, dtype=D) > 0.0, 1.0, -1.0)

    def joint(phi: Params) -> Tensor:
        weights = torch.cat([phi["a"], phi["b"].flatten(1)], 1)
        logits = (x @ weights[..., None])[..., 0]
        return nn.functional.logsigmoid(sign * logits).sum(1) - 0.5 * weights.square().sum(1)

    def loss(b: int) -> Callable[[np.ndarray], float]:
        rows = (sign[b, :, None] * x[b]).numpy()
        return lambda w: float(np.logaddexp(0.0, -rows @ w).sum() + 0.5 * w @ w)

    return joint, {"a": torch.zeros(3, 1, dtype=D), "b": torch.zeros(3, 3, 1, dtype=D)}, [loss(b) for b in range(3)]


def _rosenbrock() -> tuple[LogJoint, Params, list[Callable[[np.ndarray], float]]]:
    """A curved valley, from three sides: no concave function."""

    def joint(phi: Params) -> Tensor:
        a, b = phi["a"][:, 0], phi["a"][:, 1]
        return -((1.0 - a) ** 2) - 20.0 * (b - a**2) ** 2

    start = {"a": torch.tensor([[-1.2, 1.0], [0.0, 0.0], [2.0, -1.0]], dtype=D)}
    return joint, start, [lambda w: float((1.0 - w[0]) ** 2 + 20.0 * (w[1] - w[0] ** 2) ** 2)] * 3


@pytest.mark.parametrize(
    ("problem", "solver"),
    [
        pytest.param(_logistic, bm.inference.GradientAscent(3000, 0.01, tolerance=1e-9), id="logistic-ascent"),
        pytest.param(
            _logistic, bm.inference.GradientAscent(1000, 0.01, momentum=0.9, tolerance=1e-9), id="logistic-momentum"
        ),
        pytest.param(_logistic, bm.inference.LBFGS(100, 1e-9), id="logistic-lbfgs"),
        pytest.param(_rosenbrock, bm.inference.LBFGS(200, 1e-9), id="valley-lbfgs"),
        pytest.param(_rosenbrock, bm.inference.LBFGS(200, 1e-9, history=2), id="valley-lbfgs-short"),
        pytest.param(
            _rosenbrock, bm.inference.GradientAscent(8000, 0.002, momentum=0.9, tolerance=1e-8), id="valley-momentum"
        ),
    ],
)
def test_solvers_reach_scipys_optimum(problem: Callable[[], tuple], solver: bm.inference.Solver) -> None:
    joint, start, losses = problem()
    found = solver.solve(MapProblem(joint, start))
    flat = torch.cat([value.flatten(1) for value in found.values()], 1)
    for b, loss in enumerate(losses):
        first = np.concatenate([value[b].flatten().numpy() for value in start.values()])
        # scipy's numerical gradient leaves 1e-7
        expected = optimize.minimize(loss, first, method="BFGS", jac="3-point", options={"gtol": 1e-8}).x
        np.testing.assert_allclose(flat[b].numpy(), expected, atol=1e-6)
    assert not flat.requires_grad


@pytest.mark.parametrize(
    "solver", [bm.inference.GradientAscent(200, 0.002, 0.8, tolerance=1e-1), bm.inference.LBFGS(60, 1e-3)]
)
@pytest.mark.parametrize("problem", [_logistic, _rosenbrock])
def test_every_task_stops_on_its_own(problem: Callable[[], tuple], solver: bm.inference.Solver) -> None:
    """Tasks of very different curvature: a batch is a loop, also where some stop early."""
    joint, start, _ = problem()
    together = solver.solve(MapProblem(joint, start))
    for b in range(3):

        def alone(phi: Params, b: int = b) -> Tensor:
            rows = {name: torch.cat([value] * 3) for name, value in phi.items()}
            return joint(rows)[b : b + 1]

        single = solver.solve(MapProblem(alone, {name: value[b : b + 1] for name, value in start.items()}))
        for name, value in single.items():
            torch.testing.assert_close(together[name][b : b + 1], value, rtol=1e-9, atol=1e-9)  # rounding, amplified


def test_a_tolerance_saves_evaluations_and_is_kept() -> None:
    joint, start, _ = _logistic()
    for make in (lambda t: bm.inference.GradientAscent(500, 0.01, 0.5, t), lambda t: bm.inference.LBFGS(500, t)):
        counts = []
        for tolerance in (1e-1, 1e-5):
            calls = [0]

            def counted(phi: Params, calls: list[int] = calls) -> Tensor:
                calls[0] += 1
                return joint(phi)

            found = make(tolerance).solve(MapProblem(counted, start))
            leaves = {name: value.requires_grad_() for name, value in found.items()}
            gradients = torch.autograd.grad(joint(leaves).sum(), list(leaves.values()))
            assert max(g.abs().max().item() for g in gradients) <= tolerance
            counts.append(calls[0])
        assert counts[0] < counts[1] < 500


def test_at_the_optimum_nothing_moves() -> None:
    joint, start, _ = _logistic()
    optimum = bm.inference.LBFGS(100, 1e-12).solve(MapProblem(joint, start))
    for solver in (bm.inference.LBFGS(50, 1e-6), bm.inference.GradientAscent(50, 0.01, 0.9, tolerance=1e-6)):
        again = solver.solve(MapProblem(joint, optimum))
        assert all(torch.equal(again[name], value) for name, value in optimum.items())


@pytest.mark.parametrize(
    "arguments",
    [{"steps": 0}, {"lr": 0.0}, {"lr": math.nan}, {"momentum": 1.0}, {"momentum": -0.1}, {"tolerance": -1.0}],
)
def test_bad_ascent(arguments: dict) -> None:
    with pytest.raises(bm.DataError, match="expected steps >= 1, lr > 0"):
        bm.inference.GradientAscent(**arguments)


@pytest.mark.parametrize("arguments", [{"steps": 0}, {"history": 0}, {"tolerance": -1.0}])
def test_bad_lbfgs(arguments: dict) -> None:
    with pytest.raises(bm.DataError, match="expected steps, history >= 1"):
        bm.inference.LBFGS(**arguments)


# ------------------------------------------------------------------------------------------------- conjugate gradients


@given(seed=st.integers(0, 10**6), size=st.integers(1, 12))
def test_conjugate_gradients_solve(seed: int, size: int) -> None:
    """Tasks of different condition, one with b = 0."""
    generator = torch.Generator().manual_seed(seed)
    factor = torch.randn(4, size, size, generator=generator, dtype=D)
    matrix = factor @ factor.mT + torch.tensor([0.1, 1.0, 10.0, 1.0], dtype=D)[:, None, None] * torch.eye(size, dtype=D)
    right = torch.randn(4, size, generator=generator, dtype=D)
    right[3] = 0.0
    found = conjugate_gradient(lambda v: (matrix @ v[..., None])[..., 0], right, 10 * size, 1e-12)
    expected = torch.linalg.solve(matrix, right[..., None])[..., 0]
    # the relative residual times the condition, which is below 1e3
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)
    assert (found[3] == 0.0).all()


def test_the_tolerance_is_of_the_relative_residual_and_each_tasks_own() -> None:
    matrix = torch.diag_embed(torch.stack([torch.ones(30, dtype=D), torch.logspace(0, 3, 30, dtype=D)]))
    right, calls = torch.randn(2, 30, dtype=D) * torch.tensor([[1e6], [1e-6]], dtype=D), [0]

    def product(vector: Tensor) -> Tensor:
        calls[0] += 1
        return (matrix @ vector[..., None])[..., 0]

    counts = []
    for tolerance in (1e-1, 1e-4, 1e-8):
        calls[0] = 0
        found = conjugate_gradient(product, right, 1000, tolerance)
        residual = (right - (matrix @ found[..., None])[..., 0]).norm(dim=1) / right.norm(dim=1)
        assert (residual <= tolerance * 1.01).all()  # the recursion's residual drifts from the true one
        counts.append(calls[0])
        torch.testing.assert_close(found[0], right[0], rtol=1e-12, atol=0.0)  # one step, and none after it
    assert counts[0] < counts[1] < counts[2] < 200
    calls[0] = 0
    conjugate_gradient(product, right, 5, 0.0)
    assert calls[0] == 5


def test_directions_without_curvature_end_a_solve() -> None:
    """Indefinite and negative matrices beside a good one."""
    values = torch.tensor([[1.0, -2.0, 3.0], [-1.0, 2.0, 2.0], [-1.0, -2.0, -3.0], [1.0, 2.0, 3.0]], dtype=D)
    right = torch.ones(4, 3, dtype=D)
    found = conjugate_gradient(lambda v: values * v, right, 50, 1e-10)
    assert found.abs().max() < 10.0
    torch.testing.assert_close(found[3], 1.0 / values[3], rtol=1e-9, atol=0.0)  # its neighbours do not matter
    torch.testing.assert_close(
        found[0], torch.full((3,), 1.5, dtype=D), rtol=1e-12, atol=0.0
    )  # |b|² / bᵀ A b, one step
    assert (found[2] == 0.0).all()  # nothing found before the first direction


# ---------------------------------------------------------------------------------------------- functions of a matrix


MATRICES: dict[str, list[float]] = {
    "distinct": [0.1, 0.5, 1.3, 2.0],
    "repeated": [0.7, 0.7, 0.7, 2.0],
    "zero": [0.0, 0.0, 0.0, 0.0],
    "padded": [0.0, 0.0, 0.4, 1.5],
    "nearly repeated": [0.7, 0.7 + 1e-9, 0.7 + 1e-5, 2.0],
    "negative": [-0.2, 0.0, 0.3, 0.9],
}


def _symmetric(values: list[float]) -> Tensor:
    vectors = torch.linalg.qr(torch.randn(4, 4, dtype=D)).Q
    return vectors * torch.tensor(values, dtype=D) @ vectors.mT


@pytest.mark.parametrize("kind", MATRICES)
def test_functions_of_a_matrix(kind: str) -> None:
    matrix, weight = _symmetric(MATRICES[kind]), torch.randn(4, 4, dtype=D)
    for function, expected in (
        (torch.exp, torch.linalg.matrix_exp),
        (lambda l: 1.0 / (1.0 + l), lambda a: torch.linalg.inv(torch.eye(4, dtype=D) + a)),
        (lambda l: l * l * l - 2.0 * l, lambda a: a @ a @ a - 2.0 * a),
    ):
        results = []
        for compute in (lambda a, f=function: matrix_function(a, f), expected):
            leaf = matrix.clone().requires_grad_()
            value = compute(0.5 * (leaf + leaf.mT))
            results.append((value.detach(), *torch.autograd.grad((weight * value).sum(), leaf)))
        torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-10, atol=1e-10)  # rounding
        # quotients of numbers that agree to 1e-6 lose six digits, and f' in their place errs by its square
        torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("kind", MATRICES)
def test_derivatives_of_a_function_of_a_matrix(kind: str) -> None:
    batch = torch.stack([_symmetric(MATRICES[kind]), _symmetric(MATRICES["distinct"])]).requires_grad_()
    function = lambda l: torch.where(l < 1.0, -(l**2) * 0.5, 0.5 - l)  # differentiable once at 1
    assert torch.autograd.gradcheck(lambda a: matrix_function(0.5 * (a + a.mT), function), batch)
    assert matrix_function(torch.zeros(2, 0, 0, dtype=D), torch.exp).shape == (2, 0, 0)


# -------------------------------------------------------------------------------------------- paths, and where they end


def _quadratic(curvature: Tensor) -> LogJoint:
    return lambda phi: -0.5 * curvature * phi["a"].square().sum(1)


def test_rates_of_steps_tasks_and_parameters() -> None:
    """On a quadratic each step multiplies phi by 1 - rate times curvature."""
    curvature, start = torch.tensor([1.0, 2.0], dtype=D), {"a": torch.ones(2, 3, dtype=D)}
    joint = _quadratic(curvature)
    per_parameter = torch.tensor([0.1, 0.2, 0.3], dtype=D)
    column = curvature[:, None]
    for lr, expected in (
        (0.1, (1.0 - 0.1 * column) ** 2),
        (torch.tensor([0.1, 0.3], dtype=D), (1.0 - torch.tensor([[0.1], [0.3]], dtype=D) * column) ** 2),
        ({"a": per_parameter}, (1.0 - per_parameter * column) ** 2),
        ([0.1, 0.4], (1.0 - 0.1 * column) * (1.0 - 0.4 * column)),
        ([0.1, {"a": per_parameter}], (1.0 - 0.1 * column) * (1.0 - per_parameter * column)),
    ):
        found = unrolled_map(joint, start, steps=2, lr=lr)["a"]
        torch.testing.assert_close(found, expected.expand(2, 3), rtol=1e-12, atol=0.0)  # rounding
    assert unrolled_map(joint, start, steps=0, lr=0.1) is start
    for steps, lr in ((-1, 0.1), (2, [0.1]), (1, [0.1, 0.2])):
        with pytest.raises(bm.DataError, match="expected steps >= 0 and a rate for each"):
            unrolled_map(joint, start, steps=steps, lr=lr)


def test_divergence_names_the_step_and_the_task() -> None:
    joint, start = _quadratic(torch.tensor([1.0, 1e100, 1e100], dtype=D)), {"a": torch.ones(3, 2, dtype=D)}
    # phi is 1, -1e100 and 1e200: the last of these squared is inf
    with pytest.raises(bm.InferenceError, match=r"got -inf after 2 steps in task 1.*Standardized") as caught:
        unrolled_map(joint, start, steps=5, lr=1.0)
    assert caught.value.task == 1
    with pytest.raises(bm.InferenceError, match="got inf after 1 steps in task 2") as caught:  # phi itself, at the end
        unrolled_map(lambda phi: phi["a"].sum(1), start, steps=1, lr=torch.tensor([1.0, 1.0, math.inf], dtype=D))
    assert caught.value.task == 2
    with pytest.raises(bm.InferenceError, match="in task 1") as caught:
        implicit_map(joint, start, solver=bm.inference.GradientAscent(8, 1.0))
    assert caught.value.task == 1


@pytest.mark.parametrize(
    "solver",
    [bm.inference.LBFGS(5), bm.inference.GradientAscent(5, 0.1), bm.inference.GradientAscent(5, 0.1, 0.5, 1e-3)],
)
def test_nan_is_no_optimum(solver: bm.inference.Solver) -> None:
    """A solver that took it for one would give the start, or a point on the way."""
    start = {"a": torch.tensor([[2.0], [-2.0]], dtype=D)}
    for grad in (True, False):
        with torch.set_grad_enabled(grad), pytest.raises(bm.InferenceError, match=r"got nan .* in task 1") as caught:
            implicit_map(lambda phi: phi["a"][:, 0].sqrt() - phi["a"][:, 0], start, solver=solver)
        assert caught.value.task == 1


LEARNERS: dict[str, Callable[[bm.Network], bm.Learner]] = {
    "MAML": lambda f: bm.MAML(f),
    "MAMLPlusPlus": lambda f: bm.MAMLPlusPlus(f),
    "BMAML": lambda f: bm.BMAML(f),
    "LLAMA": lambda f: bm.LLAMA(f),
    "IMAML": lambda f: bm.IMAML(f),
    "IMAML, ascent": lambda f: bm.IMAML(f, solver=bm.inference.GradientAscent(20, 0.1)),
    "CAVIA": lambda f: bm.CAVIA(f, num_context=1, steps=3),
}


def _far() -> bm.TaskDataset:
    """The last of three tasks has outcomes whose squares overflow float32."""
    x = np.linspace(-1.0, 1.0, 4)
    return bm.TaskDataset.from_list([(x, x), (x, -x), (x, 1e25 * x)], ["first", "second", "third"])


@pytest.mark.parametrize("name", LEARNERS)
def test_divergence_of_a_learner(name: str) -> None:
    learner, title = LEARNERS[name](bm.MLP(1, [4])), name.partition(",")[0]
    with pytest.raises(
        bm.InferenceError, match=rf"^{title}: expected adaptation that stays finite.* task 2\."
    ) as caught:
        learner.adapt(_far().data)
    assert caught.value.task == 2


# MAML++'s meta_loss does not go through find_mode, and so does not give its name
@pytest.mark.parametrize("name", [n for n in LEARNERS if n != "LLAMA"])
def test_divergence_in_training(name: str) -> None:
    """(LLAMA has no division into support and query.)"""
    learner, title = LEARNERS[name](bm.MLP(1, [4])), name.partition(",")[0]
    before = [p.detach().clone() for p in learner.parameters()]
    with pytest.raises(bm.InferenceError, match=rf"^at step 1 \('third'\): {title}: expected adaptation") as caught:
        bm.fit(learner, _far(), steps=3, batch_size=3, split=bm.tasks.RandomSplit.at(3))
    assert caught.value.task is not None
    assert all(torch.equal(p, q) for p, q in zip(learner.parameters(), before, strict=True))


def test_no_graph_without_gradients_and_no_points() -> None:
    learner, tasks = _imaml(), _tasks()
    empty = bm.Data.empty(tasks.support)
    for data in (tasks.support, empty):
        joint, start = learner.log_joint(data), learner.start(3)
        with torch.no_grad():
            results = [
                unrolled_map(joint, start, steps=3, lr=0.01),
                unrolled_map(joint, start, steps=3, lr=0.01, checkpoint=list(learner.parameters())),
                implicit_map(joint, start, solver=bm.inference.LBFGS(5)),
                implicit_map(joint, start, solver=bm.inference.GradientAscent(5, 0.01)),
            ]
        assert not any(value.requires_grad for phi in results for value in phi.values())
        for phi in results:
            assert all(torch.equal(phi[name], value) for name, value in start.items()) == (data is empty)
    # without points the optimum is theta, and so is its derivative
    phi = implicit_map(learner.log_joint(empty), learner.start(3), solver=bm.inference.LBFGS(5), tolerance=1e-12)
    weight = dict(learner.network.named_parameters())["features.layers.0.weight"]
    (gradient,) = torch.autograd.grad(phi["features.layers.0.weight"][1].sum(), weight)
    torch.testing.assert_close(gradient, torch.ones_like(weight), rtol=1e-10, atol=0.0)


def test_the_memory_of_an_optimum_does_not_grow_with_its_search() -> None:
    tasks, kept = _tasks(), {}
    for steps in (1, 100):
        for name, learner in (
            ("imaml", _imaml(solver=bm.inference.GradientAscent(steps, 0.01))),
            ("imaml, gauss-newton", _imaml(solver=bm.inference.GradientAscent(steps, 0.01), gauss_newton=True)),
            ("maml", bm.MAML(bm.MLP(1, [5]), steps=steps, lr=0.01, posterior=bm.PointEstimate()).double()),
        ):
            with Saved() as saved:
                loss = learner.meta_loss(tasks)
            kept[name, steps] = saved.numbers
            loss.sum().backward()
    assert kept["imaml", 1] == kept["imaml", 100] > 0
    assert kept["imaml, gauss-newton", 1] == kept["imaml, gauss-newton", 100] > 0
    assert kept["maml", 100] > 30 * kept["maml", 1]


@pytest.mark.parametrize("gauss_newton", [False, True])
def test_fixed_steps_can_be_recorded(gauss_newton: bool) -> None:
    """A recording knows no values: it takes what is left when all tasks have stopped, and that changes nothing."""
    solver = bm.inference.GradientAscent(20, 0.1, tolerance=0.05)
    learner, tasks = _imaml(solver=solver, gauss_newton=gauss_newton, solve_steps=10, solve_tolerance=0.1), _tasks()
    step, theta = CompiledStep(learner, learner.loss), list(learner.parameters())
    for scale in (1.0, 0.5):
        support = bm.Data(tasks.support.x, scale * tasks.support.y, tasks.support.mask)
        scaled = bm.TaskBatch(support, tasks.query)
        losses, _ = step.record(scaled)
        expected = learner.loss(scaled)
        torch.testing.assert_close(losses, expected.detach(), rtol=1e-12, atol=1e-12)  # the same operations
        gradients = torch.autograd.grad(expected.mean(), theta, allow_unused=True)
        for parameter, gradient in zip(theta, gradients, strict=True):
            torch.testing.assert_close(parameter.grad, gradient, rtol=1e-12, atol=1e-12)

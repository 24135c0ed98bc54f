"""Losses and meta-gradients of every learner against a plain loop: a task at a time, unpadded, torch.autograd alone."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.func import functional_call

import bayesmeta as bm
from bayesmeta.learners.gradient.base import GradientLearner
from tests.saved import Saved

D = torch.float64
# float64: the same operations in another order; a step amplifies rounding by its curvature, five steps by less than 1e3
CLOSE = {"rtol": 1e-9, "atol": 1e-10}
# G, its eigenvectors or its powers, and a Cholesky factor in place of an inverse: condition below 1e3
DENSE = {"rtol": 1e-8, "atol": 1e-8}

Phi = dict[str, Tensor]


# ------------------------------------------------------------------------------------------------------------ the tasks


def _regression(num_inputs: int = 1, num_outputs: int = 1) -> bm.TaskBatch:
    """Ragged: 5, 0, 2 and 4 support points, 3, 1, 3 and 2 query points."""
    x, y = torch.randn(4, 8, num_inputs, dtype=D), torch.randn(4, 8, num_outputs, dtype=D)
    support, query = (torch.arange(n) < torch.tensor(c)[:, None] for n, c in ((5, [5, 0, 2, 4]), (3, [3, 1, 3, 2])))
    return bm.TaskBatch(bm.Data(x[:, :5], y[:, :5], support), bm.Data(x[:, 5:], y[:, 5:], query))


def _classes(num_inputs: int = 2) -> bm.TaskBatch:
    tasks = _regression(num_inputs)
    sides = (bm.Data(d.x, torch.randint(0, 3, d.mask.shape), d.mask) for d in (tasks.support, tasks.query))
    return bm.TaskBatch(*sides)


def _images(ragged: bool = True) -> bm.TaskBatch:
    """Three tasks of three classes, 8 x 8."""

    def side(points: int) -> bm.Data:
        x, labels = torch.randn(3, points, 1, 8, 8, dtype=D), torch.arange(points).expand(3, -1) % 3
        counts = torch.tensor([points, 3 if ragged else points, points])
        return bm.Data(x, labels, torch.arange(points) < counts[:, None])

    return bm.TaskBatch(side(6), side(4))


def _each(tasks: bm.TaskBatch) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
    sides = [[(d.x[b][d.mask[b]], d.y[b][d.mask[b]]) for b in range(d.num_tasks)] for d in (tasks.support, tasks.query)]
    return [(*support, *query) for support, query in zip(*sides, strict=True)]


# ------------------------------------------------------------------------------------------------------------- the loop


def _log_likelihood(learner: GradientLearner, f: Tensor, y: Tensor) -> Tensor:
    if isinstance(learner.likelihood, bm.likelihoods.Categorical):
        return (f - f.exp().sum(-1, keepdim=True).log())[torch.arange(len(y)), y].sum()
    sigma = learner.likelihood.noise.covariance()
    residual = y - f
    squares = torch.einsum("nc,cd,nd->", residual, torch.linalg.inv(sigma), residual)
    return -0.5 * (squares + len(y) * torch.linalg.slogdet(2.0 * math.pi * sigma).logabsdet)


def _unit(learner: GradientLearner) -> Tensor:
    """σ²: the geometric mean of the noise variances."""
    if isinstance(learner.likelihood, bm.likelihoods.Categorical):
        return torch.ones((), dtype=D)
    variances = learner.likelihood.noise.covariance().diagonal()
    return variances.prod() ** (1.0 / len(variances))


def _network(learner: GradientLearner, phi: Phi, x: Tensor) -> Tensor:
    if isinstance(learner, bm.CAVIA):
        return learner.network(torch.cat([x, phi["context"].expand(len(x), -1)], 1)[None])[0]
    return functional_call(learner.network, phi, (x[None],))[0]


def _start(learner: GradientLearner) -> Phi:
    if isinstance(learner, bm.CAVIA):
        return {"context": torch.zeros(learner.num_context, dtype=D, requires_grad=True)}
    return {name: value for name, value in learner.network.named_parameters() if name in learner.adapted}


def _step(phi: Phi, value: Tensor, rates: Phi, first_order: bool = False) -> Phi:
    gradients = torch.autograd.grad(value, list(phi.values()), create_graph=True, allow_unused=True)
    moved = {}
    for (name, before), gradient in zip(phi.items(), gradients, strict=True):
        gradient = torch.zeros_like(before) if gradient is None else gradient
        moved[name] = before + rates[name] * (gradient.detach() if first_order else gradient)
    return moved


def _log_prior(learner: GradientLearner, phi: Phi) -> Tensor:
    """Up to a constant, for the learners with an explicit prior."""
    if isinstance(learner, bm.CAVIA):
        return -0.5 * (phi["context"] ** 2).sum()
    weights = dict(learner.network.named_parameters())
    distance = sum(((value - weights[name]) ** 2).sum() for name, value in phi.items())
    return -0.5 * learner.prior.precision() * distance


def _climb(learner: GradientLearner, x: Tensor, y: Tensor) -> Phi:
    """What every learner but MAML++ and BMAML does."""
    phi = _start(learner)
    unit = _unit(learner) / max(len(x), 1)
    if isinstance(learner, bm.MetaSGD):
        rates = dict(zip(phi, [unit * rate() for rate in learner.rate], strict=True))
    else:
        rates = {name: unit * learner.rate() for name in phi}
    for _ in range(learner.steps):
        value = _log_likelihood(learner, _network(learner, phi, x), y)
        if isinstance(learner, bm.CAVIA):
            value = value + _log_prior(learner, phi)
        phi = _step(phi, value, rates, isinstance(learner, bm.FirstOrderMAML))
    return phi


def _mode(learner: bm.LLAMA, x: Tensor, y: Tensor) -> Phi:
    """Newton steps with the Hessian written out; at the mode a step with a graph has the derivative of the optimum."""
    start = _start(learner)
    shapes = {name: value.shape for name, value in start.items()}

    def named(flat: Tensor) -> Phi:
        parts = flat.split([shape.numel() for shape in shapes.values()])
        return {name: part.reshape(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}

    def joint(flat: Tensor) -> Tensor:
        phi = named(flat)
        return _log_likelihood(learner, _network(learner, phi, x), y) + _log_prior(learner, phi)

    flat = torch.cat([value.flatten() for value in start.values()]).detach()
    for _ in range(30):
        flat = flat.requires_grad_()
        (gradient,) = torch.autograd.grad(joint(flat), flat, create_graph=True)
        hessian = torch.autograd.functional.hessian(joint, flat)
        moved = flat - torch.linalg.solve(hessian, gradient)
        size = 1.0
        while not joint(flat + size * (moved - flat)) >= joint(flat) and size > 1e-3:
            size *= 0.5
        flat = (flat + size * (moved - flat)).detach() if _ < 29 else moved
    return named(flat)


def _point(learner: GradientLearner, x: Tensor, y: Tensor, query_x: Tensor, query_y: Tensor) -> Tensor:
    phi = _climb(learner, x, y)
    return -_log_likelihood(learner, _network(learner, phi, query_x), query_y) / len(query_x)


def _maml_plus_plus(learner: bm.MAMLPlusPlus, x: Tensor, y: Tensor, query_x: Tensor, query_y: Tensor) -> Tensor:
    """With `anneal(0.05)` and shares of 0.15: the weights of the earlier steps are 2/3 of 1/k."""
    phi, k = _start(learner), learner.steps
    layers = list(dict.fromkeys(name.rpartition(".")[0] for name in phi))
    normal = [name for name, _ in learner.network.named_parameters() if ".norm." in name]

    def normalisation(step: int) -> Phi:
        if step == 0:
            return {}
        return {name: values[step - 1] for name, values in zip(normal, learner.normalisation, strict=True)}

    losses = []
    for step in range(k):
        value = _log_likelihood(learner, _network(learner, phi | normalisation(step), x), y)
        alpha = _unit(learner) / max(len(x), 1) * learner.rate()[step]
        phi = _step(phi, value, {name: alpha[layers.index(name.rpartition(".")[0])] for name in phi})
        f = _network(learner, phi | normalisation(step + 1), query_x)
        losses.append(-_log_likelihood(learner, f, query_y) / len(query_x))
    weights = [2.0 / 3.0 / k] * (k - 1) + [1.0 - (k - 1) * 2.0 / 3.0 / k]
    return sum(weight * loss for weight, loss in zip(weights, losses, strict=True))


def _bmaml(learner: bm.BMAML, x: Tensor, y: Tensor, query_x: Tensor, query_y: Tensor) -> Tensor:
    start, count = _start(learner), learner.num_particles
    shapes = {name: value.shape for name, value in start.items()}
    offsets = dict(zip(start, learner.offsets, strict=True))
    flat = [torch.cat([(start[n] + offsets[n][s]).flatten() for n in start]) for s in range(count)]

    def unflat(vector: Tensor) -> Phi:
        parts = vector.split([shape.numel() for shape in shapes.values()])
        return {name: part.reshape(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}

    for _ in range(learner.steps):
        gradients = []
        for particle in flat:
            phi = unflat(particle)
            value = _log_likelihood(learner, _network(learner, phi, x), y) + _log_prior(learner, phi)
            gradients.append(torch.autograd.grad(value, particle, create_graph=True)[0])
        pairs = sorted(((flat[r] - flat[s]) ** 2).sum() for r in range(count) for s in range(r))
        bandwidth = pairs[(len(pairs) - 1) // 2] / math.log(count + 1.0)
        moved = []
        for r in range(count):
            total = torch.zeros_like(flat[r])
            for s in range(count):
                kernel = (-((flat[s] - flat[r]) ** 2).sum() / bandwidth).exp()
                total = total + kernel * gradients[s] + kernel * 2.0 / bandwidth * (flat[r] - flat[s])
            curvature = max(len(x), 1) / _unit(learner) + learner.prior.precision()
            moved.append(flat[r] + learner.rate() / curvature * total / count)
        flat = moved
    each = [_log_likelihood(learner, _network(learner, unflat(v), query_x), query_y) for v in flat]
    return -(torch.stack(each).logsumexp(0) - math.log(count)) / len(query_x)


def _rows(learner: GradientLearner, phi: Phi, x: Tensor) -> Tensor:
    """J with its graph, `NK P`."""
    f = _network(learner, phi, x).flatten()
    size = sum(value.numel() for value in phi.values())
    rows = []
    for value in f:
        parts = torch.autograd.grad(value, list(phi.values()), create_graph=True, allow_unused=True)
        filled = [torch.zeros_like(v) if p is None else p for p, v in zip(parts, phi.values(), strict=True)]
        rows.append(torch.cat([part.flatten() for part in filled]))
    return torch.stack(rows) if rows else torch.zeros(0, size, dtype=D)


def _information(learner: GradientLearner, phi: Phi, x: Tensor) -> Tensor:
    rows, sigma = _rows(learner, phi, x), learner.likelihood.noise.covariance()
    return rows.T @ torch.kron(torch.eye(len(x), dtype=D), torch.linalg.inv(sigma).contiguous()) @ rows


def _linearised(learner: GradientLearner, x: Tensor, y: Tensor, query_x: Tensor, query_y: Tensor) -> Tensor:
    """The posterior S Σ_i (I - S G S)^i S, P x P; the joint density of all query points."""
    phi = _climb(learner, x, y)
    unit = _unit(learner) / max(len(x), 1)
    alphas = [rate() for rate in learner.rate] if isinstance(learner, bm.MetaSGD) else [learner.rate()] * len(phi)
    squares = torch.cat([(unit * a).expand(v.shape).flatten() for a, v in zip(alphas, phi.values(), strict=True)])
    scale, eye = squares.sqrt(), torch.eye(len(squares), dtype=D)
    left = eye - scale[:, None] * _information(learner, phi, x) * scale
    power, series = eye, torch.zeros_like(eye)
    for _ in range(learner.steps):
        series, power = series + power, power @ left
    rows = _rows(learner, phi, query_x)
    sigma = torch.kron(torch.eye(len(query_x), dtype=D), learner.likelihood.noise.covariance())
    covariance = rows @ (scale[:, None] * series * scale) @ rows.T + sigma
    residual = (query_y - _network(learner, phi, query_x)).flatten()
    squares = residual @ torch.linalg.inv(covariance) @ residual
    return 0.5 * (squares + torch.linalg.slogdet(2.0 * math.pi * covariance).logabsdet) / len(query_x)


def _evidence(learner: bm.LLAMA, x: Tensor, y: Tensor, query_x: Tensor, query_y: Tensor) -> Tensor:
    x, y = torch.cat([x, query_x]), torch.cat([y, query_y])
    phi = _mode(learner, x, y)
    information = _information(learner, phi, x) / learner.prior.precision()
    determinant = torch.linalg.slogdet(torch.eye(len(information), dtype=D) + information).logabsdet
    fit = _log_likelihood(learner, _network(learner, phi, x), y) + _log_prior(learner, phi)
    return -(fit - 0.5 * determinant) / len(x)


# ------------------------------------------------------------------------------------------------------ the comparison


def _compare(
    learner: GradientLearner, tasks: bm.TaskBatch, loop: Callable[..., Tensor], close: dict[str, float] = CLOSE
) -> None:
    """Loss and gradient in every theta."""
    parameters = [p for p in learner.parameters() if p.requires_grad]
    found = learner.meta_loss(tasks)
    expected = torch.stack([loop(learner, *task) for task in _each(tasks)])
    torch.testing.assert_close(found, expected, **close)
    weights = torch.linspace(0.5, 1.5, len(found), dtype=D)  # a gradient that went to another task would show
    gradients = zip(
        (name for name, p in learner.named_parameters() if p.requires_grad),
        torch.autograd.grad((weights * found).sum(), parameters, materialize_grads=True),
        torch.autograd.grad((weights * expected).sum(), parameters, materialize_grads=True),
        strict=True,
    )
    for name, a, b in gradients:
        torch.testing.assert_close(a, b, **close, msg=lambda text, name=name: f"{name}: {text}")


def _moved(learner: GradientLearner) -> GradientLearner:
    """Off its starting point, where rates are equal and noise is diagonal."""
    learner = learner.double()
    with torch.no_grad():
        for parameter in learner.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return learner


def _mlp(inputs: int, activation: str) -> bm.MLP:
    return bm.MLP(inputs, [6, 5], activation)


def _conv(norm: str = "group") -> bm.Conv4:
    return bm.Conv4((1, 8, 8), 4, norm, num_groups=1)


POINT = bm.PointEstimate()
LEARNERS: dict[str, Callable[..., GradientLearner]] = {
    "maml": lambda f, k, l: bm.MAML(f, steps=k, lr=0.1, likelihood=l, posterior=POINT),
    "first-order": lambda f, k, l: bm.FirstOrderMAML(f, steps=k, lr=0.1, likelihood=l, posterior=POINT),
    "meta-sgd": lambda f, k, l: bm.MetaSGD(f, steps=k, lr=0.1, likelihood=l, posterior=POINT),
    "alpha": lambda f, k, l: bm.AlphaMAML(f, steps=k, lr=0.1, likelihood=l, posterior=POINT),
    "anil": lambda f, k, l: bm.MAML(f, steps=k, lr=0.1, likelihood=l, posterior=POINT, adapted=["output"]),
    "checkpoint": lambda f, k, l: bm.MAML(f, steps=k, lr=0.1, likelihood=l, posterior=POINT, checkpoint=True),
    "checkpoint-meta-sgd": lambda f, k, l: bm.MetaSGD(
        f, steps=k, lr=0.1, likelihood=l, posterior=POINT, adapted=["features.layers.2", "output"], checkpoint=True
    ),
}


@pytest.mark.parametrize("steps", [1, 5])
@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("name", LEARNERS)
def test_ascent_on_an_mlp(name: str, activation: str, steps: int) -> None:
    noise = bm.noise.FullNoise(2, 0.5) if activation == "tanh" else bm.noise.DiagonalNoise(2, 0.5)
    learner = _moved(LEARNERS[name](_mlp(2, activation), steps, bm.likelihoods.Gaussian(noise)))
    _compare(learner, _regression(2, 2), _point)


@pytest.mark.parametrize("name", LEARNERS)
def test_ascent_on_classes(name: str) -> None:
    _compare(_moved(LEARNERS[name](_mlp(2, "tanh"), 3, bm.likelihoods.Categorical(3))), _classes(), _point)


@pytest.mark.parametrize("steps", [1, 5])
@pytest.mark.parametrize("name", ["maml", "first-order", "meta-sgd", "anil", "checkpoint"])
def test_ascent_on_images(name: str, steps: int) -> None:
    # group norm and five steps amplify rounding more than a dense layer: 1e-7 is a share of the gradients' size 1
    close = CLOSE if steps == 1 else {"rtol": 1e-7, "atol": 1e-8}
    _compare(_moved(LEARNERS[name](_conv(), steps, bm.likelihoods.Categorical(3))), _images(), _point, close)


def test_statistics_of_a_task() -> None:
    learner = _moved(LEARNERS["maml"](_conv("task"), 2, bm.likelihoods.Categorical(3)))
    _compare(learner, _images(ragged=False), _point, {"rtol": 1e-7, "atol": 1e-8})


@pytest.mark.parametrize("steps", [1, 5])
@pytest.mark.parametrize("kind", ["mlp", "classes", "images", "images-task"])
def test_maml_plus_plus(kind: str, steps: int) -> None:
    if kind.startswith("images"):
        network, likelihood, tasks = (
            _conv(kind.removeprefix("images-").replace("images", "group")),
            bm.likelihoods.Categorical(3),
            0,
        )
        tasks, steps = _images(ragged=kind == "images"), min(steps, 3)
    elif kind == "classes":
        network, likelihood, tasks = _mlp(2, "tanh"), bm.likelihoods.Categorical(3), _classes()
    else:
        network, likelihood, tasks = (
            _mlp(2, "relu"),
            bm.likelihoods.Gaussian(bm.noise.DiagonalNoise(2, 0.5)),
            _regression(2, 2),
        )
    learner = _moved(bm.MAMLPlusPlus(network, steps=steps, lr=0.1, likelihood=likelihood, posterior=POINT))
    learner.anneal(0.05)
    _compare(learner, tasks, _maml_plus_plus, {"rtol": 1e-7, "atol": 1e-8} if kind.startswith("images") else CLOSE)


def test_the_schedules_of_maml_plus_plus() -> None:
    """After the shares: the last step alone, and second derivatives; before: first-order gradients."""
    learner = _moved(bm.MAMLPlusPlus(_mlp(1, "tanh"), steps=3, lr=0.2, posterior=POINT, first_order_share=0.5))
    tasks = _regression()
    first, second = [], []
    for progress, results in ((0.4, first), (0.6, second)):
        learner.anneal(progress)
        loss = learner.meta_loss(tasks)
        results += [loss.detach(), *torch.autograd.grad(loss.sum(), list(learner.parameters()))]
    with torch.no_grad():
        prediction = learner.condition(tasks.support).predict(tasks.query.x)
        expected = -prediction.log_prob(tasks.query.y, tasks.query.mask) / tasks.query.counts
    torch.testing.assert_close(first[0], expected, **CLOSE)
    torch.testing.assert_close(second[0], expected, **CLOSE)
    assert any((a - b).abs().max() > 1e-4 for a, b in zip(first[1:], second[1:], strict=True))
    learner.anneal(1.0)
    untouched = learner.meta_loss(tasks)
    torch.testing.assert_close(untouched.detach(), expected, **CLOSE)


@pytest.mark.parametrize("steps", [1, 5])
@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_cavia(activation: str, steps: int) -> None:
    likelihood = bm.likelihoods.Gaussian(bm.noise.DiagonalNoise(2, 0.5))
    _compare(
        _moved(
            bm.CAVIA(_mlp(2, activation), num_context=3, steps=steps, lr=0.5, likelihood=likelihood, posterior=POINT)
        ),
        _regression(2, 2),
        _point,
    )
    learner = _moved(
        bm.CAVIA(
            _mlp(2, activation),
            num_context=3,
            steps=steps,
            lr=0.5,
            likelihood=bm.likelihoods.Categorical(3),
            posterior=POINT,
        )
    )
    _compare(learner, _classes(), _point)


@pytest.mark.parametrize("adapted", [None, ["output"]])
def test_llama(adapted: list[str] | None) -> None:
    likelihood = bm.likelihoods.Gaussian(bm.noise.FullNoise(2, 0.5))
    # the prior is as strong as some points, so that each task has one mode
    learner = _moved(bm.LLAMA(_mlp(1, "tanh"), precision=8.0, likelihood=likelihood, posterior=POINT, adapted=adapted))
    tasks = _regression(1, 2)
    _compare(learner, tasks, _evidence, {"rtol": 1e-6, "atol": 1e-6})  # what the solver leaves, √eps deviations
    found = learner.adapt(tasks.support)  # and the adaptation itself
    for b, (x, y, *_) in enumerate(_each(tasks)):
        for name, value in _mode(learner, x, y).items():
            torch.testing.assert_close(found.mean[name][b], value.detach(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("particles", [2, 4])
@pytest.mark.parametrize("steps", [1, 3])
def test_bmaml(steps: int, particles: int) -> None:
    """2 particles have one pair, 4 have six: an even number, of which the lower middle one is the median."""
    likelihood = bm.likelihoods.Gaussian(bm.noise.FullNoise(2, 0.5))
    _compare(
        _moved(
            bm.BMAML(
                _mlp(1, "tanh"), num_particles=particles, steps=steps, lr=0.1, precision=4.0, likelihood=likelihood
            )
        ),
        _regression(1, 2),
        _bmaml,
    )
    learner = _moved(
        bm.BMAML(
            _mlp(2, "tanh"),
            num_particles=particles,
            steps=steps,
            lr=0.1,
            precision=4.0,
            likelihood=bm.likelihoods.Categorical(3),
            adapted=["output"],
        )
    )
    _compare(learner, _classes(), _bmaml)


@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("name", ["maml", "anil", "meta-sgd", "full noise", "checkpoint"])
def test_the_linearised_predictive(name: str, steps: int) -> None:
    network, noise = bm.MLP(1, [4, 3]), (bm.noise.FullNoise if name == "full noise" else bm.noise.DiagonalNoise)(2, 0.5)
    adapted = ["features.layers.2", "output"] if name == "anil" else None
    make = bm.MetaSGD if name == "meta-sgd" else bm.MAML
    learner = _moved(
        make(
            network,
            steps=steps,
            lr=0.05,
            likelihood=bm.likelihoods.Gaussian(noise),
            adapted=adapted,
            checkpoint=name == "checkpoint",
        )
    )
    _compare(learner, _regression(1, 2), _linearised, DENSE)


# ------------------------------------------------------------------------------------------------------------- memory


def test_checkpoints_keep_phi_alone() -> None:
    """The memory of a step: B P numbers, whatever the number of points."""
    saved = {}
    for checkpoint in (False, True):
        for points in (10, 100):
            for steps in (5, 6):
                torch.manual_seed(0)
                network = bm.MLP(1, [8, 8])
                learner = bm.MAML(network, steps=steps, lr=0.01, posterior=POINT, checkpoint=checkpoint).double()
                x = torch.randn(3, points + 4, 1, dtype=D)
                data = bm.Data.full(x, x.sin())
                tasks = bm.TaskBatch(data.points(slice(4, None)), data.points(slice(4)))
                with Saved() as kept:
                    loss = learner.meta_loss(tasks)
                saved[checkpoint, points, steps] = kept.numbers
                assert loss.requires_grad
    size = 3 * sum(p.numel() for p in learner.network.parameters())
    per_step = {key[:2]: saved[key] - saved[*key[:2], 5] for key in saved if key[2] == 6}
    assert per_step[True, 10] == per_step[True, 100] <= 1.2 * size  # rates are next to nothing
    assert per_step[False, 100] > 4 * per_step[False, 10] > 4 * size

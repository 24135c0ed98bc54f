"""Steps of ascent on a linear network are the exact MAP under the prior that they imply: against dense algebra."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import bayesmeta as bm
from bayesmeta.learners.gradient.base import AscentLearner

D = torch.float64
# float64; with rate times curvature <= 0.8 and 8 steps the prior's condition is below 0.2^-8 = 4e5, so that a dense
# solve loses six of sixteen digits
CLOSE = {"rtol": 1e-8, "atol": 1e-8}


class Linear(bm.WholeNetwork):
    """W x + b: linear in its weights."""

    def __init__(self, num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        self.layer = nn.Linear(num_inputs, num_outputs)
        self.x_shape, self.num_outputs = (num_inputs,), num_outputs

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


problems = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 10**6),
        "inputs": st.integers(1, 3),
        "outputs": st.integers(1, 2),
        "steps": st.integers(1, 8),
        "full": st.booleans(),
        "meta_sgd": st.booleans(),
        "information": st.floats(0.05, 0.8),
    }
)


def _noise(outputs: int, full: bool, generator: torch.Generator) -> bm.noise.Noise:
    """Random, of size 0.1 to 3."""
    factor = torch.randn(outputs, outputs, generator=generator, dtype=D)
    noise = (bm.noise.FullNoise if full else bm.noise.DiagonalNoise)(outputs).double()
    noise.set_covariance(factor @ factor.mT + 0.1 * torch.eye(outputs, dtype=D))
    return noise


def _data(inputs: int, outputs: int, points: int, generator: torch.Generator, ragged: bool) -> bm.Data:
    """Four tasks; ragged ones have 0 to `points` points."""
    x = torch.randn(4, points, inputs, generator=generator, dtype=D)
    y = torch.randn(4, points, outputs, generator=generator, dtype=D)
    counts = torch.randint(0, points + 1, (4,), generator=generator) if ragged else torch.full((4,), points)
    counts[0] = points
    return bm.Data(x, y, torch.arange(points) < counts[:, None])


def _problem(
    seed: int, inputs: int, outputs: int, steps: int, full: bool, meta_sgd: bool, information: float
) -> tuple[AscentLearner, bm.TaskBatch]:
    """A learner whose largest rate times curvature over the tasks is `information`."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    likelihood = bm.likelihoods.Gaussian(_noise(outputs, full, generator))
    learner = (bm.MetaSGD if meta_sgd else bm.MAML)(
        Linear(inputs, outputs), steps=steps, lr=1.0, likelihood=likelihood
    ).double()
    tasks = bm.TaskBatch(
        _data(inputs, outputs, 6, generator, ragged=True), _data(inputs, outputs, 3, generator, ragged=False)
    )
    if isinstance(learner, bm.MetaSGD):
        for rate in learner.rate:
            rate.set(torch.rand(rate.raw.shape, generator=generator, dtype=D) + 0.1)
    _rescale(learner, tasks.support, information)
    return learner, tasks


def _rescale(learner: AscentLearner, support: bm.Data, information: float) -> None:
    """Multiply the rates so that the largest rate times curvature over the tasks is `information`."""
    worst = 0.0
    for b in range(support.num_tasks):
        root = _rates(learner, support, b).sqrt()
        worst = max(worst, torch.linalg.eigvalsh(root[:, None] * _information(learner, support, b) * root)[-1].item())
    for rate in learner.rate if isinstance(learner.rate, nn.ModuleList) else [learner.rate]:
        rate.set(rate().detach() * (information / worst))


def _design(x: Tensor, outputs: int) -> Tensor:
    """Rows of all outputs of all points, in the order of phi: W row by row, then b."""
    eye = torch.eye(outputs, dtype=D)
    rows = [torch.cat([torch.kron(eye, point), eye], 1) for point in x]
    return torch.cat([x.new_zeros(0, outputs * (x.shape[-1] + 1)), *rows])


def _theta(learner: AscentLearner) -> Tensor:
    return torch.cat([value.detach().flatten() for value in learner.network.parameters()])


def _rates(learner: AscentLearner, support: bm.Data, b: int) -> Tensor:
    """a = α σ² / N of every number of phi."""
    shapes = [value.shape for value in learner.network.parameters()]
    alpha = torch.cat(
        [rate.detach().expand(s).flatten() for rate, s in zip(learner.rates().values(), shapes, strict=True)]
    )
    sigma = learner.likelihood.noise.covariance().diagonal().detach()
    return alpha * sigma.prod() ** (1.0 / len(sigma)) / max(int(support.counts[b]), 1)


def _whole_precision(learner: AscentLearner, count: int) -> Tensor:
    covariance = learner.likelihood.noise.covariance().detach()
    return torch.kron(torch.eye(count, dtype=D), torch.linalg.inv(covariance).contiguous())


def _information(learner: AscentLearner, support: bm.Data, b: int) -> Tensor:
    """G = Xᵀ Σ⁻¹ X."""
    design = _design(support.x[b][support.mask[b]], learner.outcomes.count)
    return design.mT @ _whole_precision(learner, int(support.counts[b])) @ design


def _flat(phi: dict[str, Tensor], b: int) -> Tensor:
    return torch.cat([value[b].flatten() for value in phi.values()])


def _posterior_covariance(prior: Tensor, information: Tensor) -> Tensor:
    """(Q⁻¹ + G)⁻¹ = (I + Q G)⁻¹ Q, which needs no inverse of an ill-conditioned Q."""
    return torch.linalg.solve(torch.eye(len(prior), dtype=D) + prior @ information, prior)


@given(problem=problems)
def test_steps_are_the_map_under_the_implied_prior(problem: dict) -> None:
    learner, tasks = _problem(**problem)
    support = tasks.support
    prior, found = learner.implied_prior(support).covariance(), learner.adapt(support).mean
    theta = _theta(learner)
    for b in range(4):
        real = support.mask[b]
        design = _design(support.x[b][real], learner.outcomes.count)
        residual = support.y[b][real].flatten() - design @ theta
        moment = design.mT @ _whole_precision(learner, int(real.sum())) @ residual
        covariance = _posterior_covariance(prior[b], _information(learner, support, b))
        torch.testing.assert_close(_flat(found, b), theta + covariance @ moment, **CLOSE)


@given(problem=problems)
def test_the_predictive_is_the_posterior_under_the_implied_prior(problem: dict) -> None:
    learner, tasks = _problem(**problem)
    support, query = tasks.support, tasks.query
    prior, prediction = learner.implied_prior(support).covariance(), learner.adapt(support).predict(query.x)
    noise, joint = learner.likelihood.noise.covariance().detach(), prediction.covariance()
    for b in range(4):
        design = _design(query.x[b], learner.outcomes.count)
        covariance = design @ _posterior_covariance(prior[b], _information(learner, support, b)) @ design.mT
        expected = covariance + torch.kron(torch.eye(3, dtype=D), noise)
        torch.testing.assert_close(joint[b], expected, **CLOSE)
        torch.testing.assert_close(prediction.variance[b].flatten(), expected.diagonal(), **CLOSE)


@given(problem=problems)
def test_eigenvalues_are_those_of_the_formula(problem: dict) -> None:
    learner, tasks = _problem(**problem | {"meta_sgd": False})
    support, steps = tasks.support, learner.steps
    prior = learner.implied_prior(support)
    covariance, joint = prior.covariance(), learner.adapt(support).predict(tasks.query.x).noiseless.covariance()
    for b in range(4):
        rate = _rates(learner, support, b)[0]
        values, vectors = torch.linalg.eigh(_information(learner, support, b))
        seen = rate * values > 1e-10  # the smallest is one of a square matrix of size 20 points at most, or rounding
        left = (1.0 - rate * values) ** steps
        l = torch.where(seen, values, 1.0)
        variance = torch.where(seen, (1.0 - left) / (l * left), steps * rate)  # 1 / q
        # covariances are of the size of their largest eigenvalue, and rounding is relative to it
        close = {"rtol": 1e-8, "atol": 1e-8 * max(1.0, variance.max().item())}
        torch.testing.assert_close(covariance[b], vectors * variance @ vectors.mT, **close)
        posterior = torch.where(seen, (1.0 - left) / l, steps * rate)
        design = _design(tasks.query.x[b], learner.outcomes.count)
        torch.testing.assert_close(joint[b], design @ (vectors * posterior) @ vectors.mT @ design.mT, **CLOSE)
    assert bool((prior.information < 1.0).all())


@pytest.mark.filterwarnings("ignore::bayesmeta.ConvergenceWarning")  # which adapt gives of the same steps
@given(problem=problems, jump=st.floats(1.0, 50.0))
def test_steps_that_overshoot_are_told(problem: dict, jump: float) -> None:
    learner, tasks = _problem(**problem)
    _rescale(learner, tasks.support, 1.001 * jump)
    largest = []
    for b in range(4):
        root = _rates(learner, tasks.support, b).sqrt()
        largest.append(torch.linalg.eigvalsh(root[:, None] * _information(learner, tasks.support, b) * root)[-1])
    worst = int(torch.stack(largest).argmax())
    with pytest.raises(bm.InferenceError, match=f"below 1, got .* in task {worst}: those steps overshoot") as caught:
        learner.implied_prior(tasks.support)
    assert caught.value.task == worst
    if problem["steps"] * math.log(1.001 * jump) > 10.0:
        return  # the point that ascent finds is far away: from a million deviations on an error
    prediction = learner.adapt(tasks.support).predict(tasks.query.x)
    noiseless = torch.linalg.eigvalsh(prediction.noiseless.covariance())
    assert torch.isfinite(prediction.stddev).all()
    assert (prediction.variance >= learner.likelihood.noise.variance() * (1.0 - 1e-9)).all()
    # rounding of the eigenvalues is relative to the largest
    assert (noiseless >= -1e-9 * noiseless.amax(-1, keepdim=True).clamp(min=1.0)).all()


@pytest.mark.parametrize("meta_sgd", [False, True])
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_the_predictive_is_continuous_where_no_prior_is_implied_any_more(steps: int, meta_sgd: bool) -> None:
    learner, tasks = _problem(3, 2, 2, steps, True, meta_sgd, 0.5)
    joints = []
    for information in (1.0 - 1e-7, 1.0 + 1e-7):
        _rescale(learner, tasks.support, information)
        joints.append(learner.adapt(tasks.support).predict(tasks.query.x).covariance())
    # covariances of size below 10 whose slope in the rate is of the same size, over a distance of 2e-7
    torch.testing.assert_close(*joints, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("meta_sgd", [False, True])
def test_draws_have_the_covariance(meta_sgd: bool) -> None:
    learner, tasks = _problem(1, 2, 1, 4, False, meta_sgd, 0.6)
    one, size = tasks.support.select([0]), 40_000
    many = bm.Data(*(value.expand(size, *value.shape[1:]) for value in (one.x, one.y, one.mask)))
    prior = learner.implied_prior(many)
    flat = torch.cat([v.flatten(1) for v in prior.sample(torch.Generator().manual_seed(0)).values()], 1)
    expected = learner.implied_prior(one).covariance()[0]
    deviation = expected.diagonal().sqrt()
    # four standard errors: 1/√n of the mean, √((1 + r²)/n) <= √(2/n) of a covariance, in units of deviations
    assert ((flat.mean(0) - _theta(learner)) / deviation).abs().max() < 4.0 / size**0.5
    found = (flat - _theta(learner)).mT @ (flat - _theta(learner)) / size
    assert ((found - expected) / deviation[:, None] / deviation).abs().max() < 4.0 * (2.0 / size) ** 0.5


@given(problem=problems)
def test_function_covariance_is_the_dense_product(problem: dict) -> None:
    learner, tasks = _problem(**problem)
    prior = learner.implied_prior(tasks.support)
    jacobian = torch.randn(4, 3, learner.outcomes.count, prior.scale.shape[1], dtype=D)
    rows = jacobian.flatten(1, 2)
    expected = rows @ prior.covariance() @ rows.mT
    # rounding relative to the largest entry of Q
    atol = 1e-10 * max(1.0, prior.covariance().abs().max().item())
    torch.testing.assert_close(prior.function_covariance(jacobian), expected, rtol=1e-10, atol=atol)


@pytest.mark.parametrize("how", ["no points", "padding alone"])
@pytest.mark.parametrize("meta_sgd", [False, True])
def test_without_a_support_every_direction_is_unseen(meta_sgd: bool, how: str) -> None:
    learner, tasks = _problem(2, 3, 2, 3, True, meta_sgd, 0.5)
    support = tasks.support
    empty = bm.Data.empty(support) if how == "no points" else bm.Data(support.x, support.y, support.mask & False)
    prior, posterior = learner.implied_prior(empty), learner.adapt(empty)
    expected = torch.stack([3 * _rates(learner, empty, b) for b in range(4)])  # k a
    torch.testing.assert_close(prior.unseen_variance, expected, rtol=1e-12, atol=0.0)  # float64, products alone
    torch.testing.assert_close(prior.covariance(), torch.diag_embed(expected), rtol=1e-12, atol=1e-15)
    joint = posterior.predict(tasks.query.x).noiseless.covariance()
    for b in range(4):
        torch.testing.assert_close(_flat(posterior.mean, b), _theta(learner), rtol=0.0, atol=0.0)
        design = _design(tasks.query.x[b], 2)
        torch.testing.assert_close(joint[b], design * expected[b] @ design.mT, rtol=1e-12, atol=1e-12)

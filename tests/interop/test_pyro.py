"""Pyro programs: densities are the learners', samplers and guides find exact posteriors, diagrams show the model."""

import math
import pickle
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoDelta, AutoIAFNormal, AutoNormal
from torch import Tensor, nn

import bayesmeta as bm
from bayesmeta.errors import DataError, InferenceError, ShapeError, UnsupportedError
from bayesmeta.hyperpriors import GaussianHyperprior
from bayesmeta.inference.nuts import NUTS
from bayesmeta.inference.nuts_metric import DenseMetric
from bayesmeta.interop.pyro import (
    FullRank,
    LowRank,
    MeanField,
    OwnHyperprior,
    hyper_nuts,
    hyper_svi,
    nuts,
    phi_distributions,
    prior_predictive,
    program,
    render,
    svi,
)
from bayesmeta.typing import Params
from bayesmeta.wrappers.sampled import Sampled
from tests.registry import CASES, Case

D = torch.float64
EXPLICIT = [case for case in CASES if isinstance(case.learner(), bm.ExplicitLearner)]
NUTS_SHORT = NUTS(num_chains=2, num_draws=100, num_warmup=50)


class Scalar(bm.Network):
    """f(x) = x: one weight."""

    x_shape, num_outputs = (1,), 1

    def __init__(self) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return x


class Rows(bm.ExplicitLearner):
    """f(x) = [x, 1] W, for any prior of W and any likelihood."""

    def __init__(self, prior: bm.priors.Prior, likelihood: bm.likelihoods.Likelihood) -> None:
        super().__init__()
        self.prior, self.likelihood = prior, likelihood

    def forward(self, phi: Params, x: Tensor) -> Tensor:
        weight = torch.cat([v.unsqueeze(-2) if v.ndim < x.ndim else v for v in phi.values()], -2)
        return torch.cat([x, torch.ones_like(x[..., :1])], -1) @ weight.reshape(*weight.shape[:-2], 2, -1)

    def condition(self, support: bm.Data) -> bm.TaskPosterior:
        raise NotImplementedError


def _trace(
    learner: bm.ExplicitLearner, data: bm.Data, phi: Params, hyperprior: object = None, **theta: Tensor
) -> Tensor:
    sites = {name: value.unsqueeze(value.ndim - learner.prior.mean[name].ndim) for name, value in phi.items()}
    trace = poutine.trace(poutine.condition(program(learner, hyperprior), sites | theta)).get_trace(data)
    assert {"task", "point", "y", *phi} <= set(trace.nodes)
    return trace.log_prob_sum()


def _points(tasks: int = 3, labels: int = 0) -> bm.Data:
    """Ragged, with padding that is far away, or no label at all."""
    generator = torch.Generator().manual_seed(1)
    x, noise = torch.randn(2, tasks, 4, 1, dtype=D, generator=generator)
    mask = torch.arange(4) < torch.tensor([4, 2, 0, 3, 1])[:tasks, None]
    if labels:
        y = torch.randint(labels, (tasks, 4), generator=generator)
        return bm.Data(x, torch.where(mask, y, 77), mask)
    return bm.Data(x, torch.where(mask[..., None], 0.5 * x + 0.4 * noise, 1e3), mask)


def _alpaca() -> bm.ALPaCA:
    return bm.ALPaCA(bm.Identity(1)).double()


def _moments(posterior: bm.TaskPosterior) -> tuple[Tensor, Tensor]:
    """Mean and covariance of W of each task, exact: `B 2` and `B 2 2`."""
    x = torch.tensor([[0.0], [1.0]], dtype=D).expand(posterior.spec.num_tasks, 2, 1)
    (weight,) = posterior.sample(1).values()
    assert weight.shape[2:] == (2, 1)
    noiseless = posterior.predict(x).noiseless
    # [w0 x + w1] or [w0 + w1 x] at 0 and 1
    features = bm.Identity(1).double()(x)
    inverse = torch.linalg.inv(features)
    mean = (inverse @ noiseless.mean)[..., 0]
    # the covariance is in units of the noise
    return mean, inverse @ (noiseless.latent_covariance() * noiseless.output_covariance) @ inverse.mT


# ------------------------------------------------------------------------------------------------------------- density


@pytest.mark.parametrize("case", EXPLICIT, ids=lambda case: case.name)
def test_the_density_of_the_trace_is_the_log_joint(case: Case) -> None:
    learner = case.learner()
    data = case.batch(4, 5, 1).support  # ragged
    phi = learner.prior.sample(4)
    if case.name == "alpaca-fixed-effects":
        for density in (lambda: _trace(learner, data, phi), lambda: learner.log_joint(data)(phi)):
            with pytest.raises(UnsupportedError, match="no density"):
                density()
        return
    torch.testing.assert_close(_trace(learner, data, phi), learner.log_joint(data)(phi).sum(), rtol=1e-12, atol=1e-10)
    free = poutine.trace(program(learner)).get_trace(data)  # phi drawn by the program itself
    drawn = {name: free.nodes[name]["value"] for name in phi}
    drawn = {name: value.reshape(phi[name].shape) for name, value in drawn.items()}
    torch.testing.assert_close(free.log_prob_sum(), learner.log_joint(data)(drawn).sum(), rtol=1e-12, atol=1e-10)


@pytest.mark.parametrize("case", [EXPLICIT[0], EXPLICIT[-1]], ids=lambda case: case.name)
def test_gradients_reach_theta(case: Case) -> None:
    learner = case.learner()
    data, phi = case.batch(3, 4, 1).support, {k: v.detach() for k, v in learner.prior.sample(3).items()}
    theta = list(learner.parameters())
    ours = torch.autograd.grad(learner.log_joint(data)(phi).sum(), theta, materialize_grads=True)
    theirs = torch.autograd.grad(_trace(learner, data, phi), theta, materialize_grads=True)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def _censored() -> bm.likelihoods.Likelihood:
    return bm.likelihoods.Censored(bm.likelihoods.ProportionalGaussian(), limit=-20.0)


MEAN = {"weight": torch.tensor([0.3, -0.2]), "bias": torch.tensor([0.1, 0.0])}


@pytest.mark.parametrize(
    ("prior", "likelihood", "labels"),
    [
        (lambda: bm.priors.DiagonalGaussian({"weight": torch.ones(2, 1)}, 0.5), lambda: bm.likelihoods.StudentT(1), 0),
        (lambda: bm.priors.StandardNormal({"weight": (2, 2)}), lambda: bm.likelihoods.HeteroscedasticGaussian(1), 0),
        (lambda: bm.priors.FullGaussian(2, name="w"), lambda: bm.likelihoods.Gaussian(num_outputs=1), 0),
        (lambda: bm.priors.FullGaussian(2, name="w"), _censored, 0),
        (lambda: bm.priors.IsotropicGaussian(MEAN, 2.0), bm.likelihoods.Bernoulli, 2),
        (lambda: bm.priors.IsotropicGaussian(MEAN, 2.0), lambda: bm.likelihoods.Categorical(2), 2),
    ],
    ids=["student-t", "heteroscedastic", "full gaussian", "censored", "bernoulli", "categorical"],
)
def test_other_priors_and_likelihoods(
    prior: Callable[[], bm.priors.Prior], likelihood: Callable[[], bm.likelihoods.Likelihood], labels: int
) -> None:
    learner = Rows(prior(), likelihood()).double()
    if isinstance(learner.likelihood, bm.likelihoods.Bernoulli):
        learner.forward = lambda phi, x: x @ phi["weight"][..., None, :1] + phi["bias"][..., None, :1]
    data = _points(labels=labels)
    phi = learner.prior.sample(3)
    if "w" in phi:
        learner.forward = lambda phi, x: x @ phi["w"][..., None, :1] + phi["w"][..., None, 1:]
    torch.testing.assert_close(_trace(learner, data, phi), learner.log_joint(data)(phi).sum(), rtol=1e-12, atol=1e-10)


def test_noise_of_each_row() -> None:
    """Known noise, and noise that depends on x, are in the program as in the log joint."""
    learner = bm.ALPaCA(bm.Identity(1), noise=bm.noise.HeteroscedasticNoise(bm.Identity(1))).double()
    learner.prior.noise.slope.data.copy_(torch.tensor([0.1, 0.8]))
    data = _points()
    data = bm.Data(data.x, data.y, data.mask, torch.rand(data.y.shape, dtype=data.y.dtype))
    phi = learner.prior.sample(3)
    torch.testing.assert_close(_trace(learner, data, phi), learner.log_joint(data)(phi).sum(), rtol=1e-12, atol=1e-10)


def test_an_adapted_classifier() -> None:
    learner = bm.IMAML(bm.MLP(1, [4]), likelihood=bm.likelihoods.Categorical(3)).double()
    data, phi = _points(labels=3), learner.prior.sample(3)
    torch.testing.assert_close(_trace(learner, data, phi), learner.log_joint(data)(phi).sum(), rtol=1e-12, atol=1e-10)
    with pytest.raises(DataError, match="labels from 0 to 2"):
        program(learner)(bm.Data(data.x, torch.full_like(data.y, 3), data.mask))


def test_parallel_draws_and_no_points() -> None:
    learner, data = _alpaca(), _points()
    model = program(learner)
    with pyro.plate("draws", 5, dim=-3):
        trace = poutine.trace(model).get_trace(data)
    weight = trace.nodes["weight"]["value"]
    assert weight.shape == (5, 3, 1, 2, 1)
    trace.compute_log_prob()
    total = trace.nodes["y"]["log_prob"].sum((1, 2)) + trace.nodes["weight"]["log_prob"].sum((1, 2))
    torch.testing.assert_close(total, learner.log_joint(data)({"weight": weight[:, :, 0]}).sum(-1))
    empty = poutine.trace(model).get_trace(bm.Data.empty(data))
    assert "y" not in empty.nodes
    torch.testing.assert_close(
        empty.log_prob_sum(), learner.prior.log_prob({"weight": empty.nodes["weight"]["value"][:, 0]}).sum()
    )


class Pair(bm.priors.Prior):
    """Two numbers, independent Cauchys: a prior that the library does not know."""

    def __init__(self) -> None:
        super().__init__()

    @property
    def mean(self) -> Params:
        return {"a": torch.zeros(1, dtype=D), "b": torch.zeros(1, dtype=D)}

    def log_prob(self, phi: Params) -> Tensor:
        return sum(-(math.pi * (1.0 + value.square())).log().sum(-1) for value in phi.values())

    def sample(self, num_tasks: int, generator: torch.Generator | None = None) -> Params:
        return {name: torch.randn(num_tasks, 1, dtype=D, generator=generator) for name in ("a", "b")}


def test_priors_over_several_tensors_can_be_taught() -> None:
    learner, data = Rows(Pair(), bm.likelihoods.Gaussian(num_outputs=1)).double(), _points()
    phi = learner.prior.sample(3)
    with pytest.raises(UnsupportedError, match=r"got Pair over \['a', 'b'\].*phi_distributions.register"):
        program(learner)(data)
    phi_distributions.register(
        Pair, lambda prior: {n: dist.Cauchy(m, torch.ones_like(m)).to_event(1) for n, m in prior.mean.items()}
    )
    torch.testing.assert_close(_trace(learner, data, phi), learner.log_joint(data)(phi).sum(), rtol=1e-12, atol=1e-10)


def test_no_explicit_model() -> None:
    for function in (program, partial(nuts, data=_points()), partial(svi, data=_points())):
        with pytest.raises(UnsupportedError, match="explicit prior and likelihood, got MAML"):
            function(bm.MAML(bm.MLP(1, [2])))


# --------------------------------------------------------------------------------------------------------- hyperpriors


def test_theta_with_distributions() -> None:
    learner, data = _alpaca(), _points()
    hyperprior = {
        "prior.location": dist.Normal(0.0, 2.0),  # one for all numbers
        "prior.covariance.lower": torch.distributions.Normal(torch.zeros(3, dtype=D), 1.0),  # torch's own
        "likelihood.noise.value": dist.HalfCauchy(1.0),  # a variance, not its log
    }
    location, lower = torch.randn(2, 1, dtype=D), torch.randn(3, dtype=D)
    noise = torch.tensor([0.7], dtype=D)
    other = _alpaca()
    with torch.no_grad():
        other.prior.location.copy_(location)
        other.prior.covariance.lower.copy_(lower)
    other.likelihood.noise.value.set(noise)
    phi = other.prior.sample(3)
    theta = {"prior.location": location, "prior.covariance.lower": lower, "likelihood.noise.value": noise}
    found = _trace(learner, data, phi, hyperprior, **theta)
    expected = other.log_joint(data)(phi).sum() + sum(hyperprior[k].log_prob(v).sum() for k, v in theta.items())
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-10)


def test_theta_shared_by_prior_and_network() -> None:
    learner = bm.IMAML(bm.MLP(1, [3]), precision=4.0).double()
    weight = torch.randn(3, 1, dtype=D)
    other = bm.IMAML(bm.MLP(1, [3]), precision=4.0).double()
    other.load_state_dict(learner.state_dict())
    with torch.no_grad():
        other.network.features.layers[0].weight.copy_(weight)
    phi = other.prior.sample(3)
    for name in ("network.features.layers.0.weight", "prior.values.0"):
        prior = dist.Normal(torch.tensor(0.0, dtype=D), 1.0)
        found = _trace(learner, _points(), phi, {name: prior}, **{name: weight})
        expected = other.log_joint(_points())(phi).sum() + prior.log_prob(weight).sum()
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-10)


class Opinionated(bm.ALPaCA):
    """With a hyperprior of its own."""

    def log_hyperprior(self) -> Tensor:
        return -3.0 * self.prior.location.square().sum()


def test_theta_with_a_hyperprior() -> None:
    learner, data = Opinionated(bm.Identity(1)).double(), _points()
    phi = learner.prior.sample(3)
    joint = learner.log_joint(data)(phi).sum() + learner.log_hyperprior()
    theta = dict(learner.named_parameters())
    torch.testing.assert_close(_trace(learner, data, phi, OwnHyperprior(), **theta), joint)
    hyperprior = GaussianHyperprior(2.0, ["prior.location"])
    torch.testing.assert_close(_trace(learner, data, phi, hyperprior, **theta), joint + hyperprior.log_prob(theta))
    trace = poutine.trace(program(learner, OwnHyperprior())).get_trace(data)  # begins where the learner is
    torch.testing.assert_close(trace.nodes["prior.location"]["value"], learner.prior.location)


def test_hyperpriors_that_do_not_fit() -> None:
    learner = _alpaca()
    with pytest.raises(DataError, match=r"among \[.*'prior.noise.value'\], got 'noise'"):
        program(learner, {"noise": dist.HalfCauchy(1.0)})
    for wrong in (dist.Normal(torch.zeros(3), 1.0), dist.Normal(torch.zeros(2, 2), 1.0).to_event(2)):
        with pytest.raises(ShapeError, match=r"shape \(2, 1\) for 'prior.location'"):
            program(learner, {"prior.location": wrong})
    noise = dist.HalfCauchy(1.0)
    for none in ({}, {"prior.noise.value": noise, "likelihood.noise.value": noise}):  # the second is one parameter
        with pytest.raises(DataError, match="parameters to draw"):
            program(learner, none)
    with pytest.raises(UnsupportedError, match="density alone"):
        prior_predictive(learner, _points(), OwnHyperprior())


# ----------------------------------------------------------------------------------------------------------- inference


@pytest.mark.usefixtures("unchecked")  # under torch.jit.trace shapes are no integers
def test_nuts_is_the_exact_posterior_and_ours() -> None:
    learner, data = _alpaca(), _points(2)
    before = torch.random.get_rng_state()
    posterior = nuts(learner, data, NUTS_SHORT, jit_compile=True)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.get_default_dtype() == torch.float32
    assert posterior.draws["weight"].shape == (200, 2, 2, 1)
    chains = posterior.chains
    assert chains.divergent.sum() == 0.0
    assert (chains.leapfrogs >= 1.0).all()
    assert (chains.step_size > 0.1).all()
    assert ((chains.acceptance > 0.2) & (chains.acceptance <= 1.0)).all()
    torch.testing.assert_close(chains.log_joint.flatten(0, 1), learner.log_joint(data)(posterior.draws).detach())
    ours = Sampled(learner, NUTS(num_chains=8, num_draws=50, num_warmup=60)).adapt(data)
    mean, covariance = _moments(learner.adapt(data))
    deviation = covariance.diagonal(dim1=-2, dim2=-1).sqrt()
    effective = chains.effective_draws["weight"].min()
    for found, count in ((posterior, effective), (ours, torch.tensor(200.0))):
        draws = found.draws["weight"][..., 0]
        assert ((draws.mean(0) - mean) / deviation).abs().max() < 4.0 / count.sqrt()
        # the error of a deviation is 1 / √(2 n) of it; fewer draws are effective for squares than for the mean
        assert (draws.std(0) / deviation - 1.0).abs().max() < 5.0 / count.sqrt()
    x = torch.linspace(-1.0, 1.0, 3, dtype=D).reshape(1, 3, 1).expand(2, 3, 1)
    exact = learner.adapt(data).predict(x)
    assert ((posterior.predict(x).mean - exact.mean).abs() < 0.3 * exact.stddev).all()
    torch.testing.assert_close(posterior.predict(x).stddev, exact.stddev, rtol=0.15, atol=0.0)


@pytest.mark.filterwarnings("ignore::bayesmeta.errors.ConvergenceWarning")  # few draws
@pytest.mark.usefixtures("unchecked")
def test_nuts_updates_and_repeats_with_and_without_the_compiler() -> None:
    learner, data = _alpaca(), _points(1)
    short = NUTS(num_chains=2, num_draws=6, num_warmup=20, metric=DenseMetric(), max_depth=3)
    first, rest = (bm.Data(data.x[:, part], data.y[:, part], data.mask[:, part]) for part in (slice(2), slice(2, 4)))
    whole = nuts(learner, data, short, seed=3)
    updated = nuts(learner, first, short, seed=3).update(rest)
    assert isinstance(updated.sample(4), dict)
    torch.testing.assert_close(updated.sample(12)["weight"].sort(0).values, whole.draws["weight"].sort(0).values)
    compiled = nuts(learner, data, short, jit_compile=True, seed=3)
    torch.testing.assert_close(compiled.draws["weight"], whole.draws["weight"], rtol=1e-5, atol=1e-5)


def test_guides_are_what_theory_says() -> None:
    learner, data = _alpaca(), _points(2)
    mean, covariance = _moments(learner.adapt(data))
    deviation = covariance.diagonal(dim1=-2, dim2=-1).sqrt()
    narrow = torch.linalg.inv(covariance).diagonal(dim1=-2, dim2=-1).rsqrt()
    assert ((narrow / deviation).amin(-1) < 0.99).any()  # else there is nothing to see
    evidence = learner.log_evidence(data).sum().detach()
    for guide, expected in ((FullRank(), deviation), (LowRank(1), deviation), (MeanField(), narrow)):
        posterior = svi(learner, data, guide, steps=200, lr=0.1, num_particles=8, num_draws=4_000)
        draws = posterior.draws["weight"][..., 0]
        assert ((draws.mean(0) - mean) / deviation).abs().max() < 0.12, type(guide)
        torch.testing.assert_close(draws.std(0), expected, rtol=0.1, atol=0.0)
        bound = posterior.elbo[-100:].mean()
        if isinstance(guide, MeanField):
            gap = (deviation.log() - narrow.log()).sum() - 0.5 * (
                covariance.diagonal(dim1=-2, dim2=-1).log().sum() - torch.logdet(covariance).sum()
            )  # KL between Gaussians of one mean: ½ (log |Σ| - Σ log narrow²), the trace is that of I
            torch.testing.assert_close(evidence - bound, gap, rtol=0.0, atol=0.05)
        else:
            torch.testing.assert_close(bound, evidence, rtol=0.0, atol=0.05)


def test_flows_and_other_guides_of_pyro() -> None:
    learner, data = _alpaca(), _points(2)
    flow = partial(AutoIAFNormal, hidden_dim=[8], num_transforms=1)
    posterior = svi(learner, data, flow, steps=30, lr=0.05, num_particles=2, num_draws=50)
    assert posterior.draws["weight"].shape == (50, 2, 2, 1)
    assert posterior.draws["weight"].dtype == D
    assert posterior.elbo[-10:].mean() > posterior.elbo[:10].mean()
    assert not pyro.get_param_store().keys()  # which is global
    updated = posterior.update(data)
    assert updated.sample(3)["weight"].shape == (3, 2, 2, 1)
    assert torch.equal(
        svi(learner, data, flow, steps=5).draws["weight"], svi(learner, data, flow, steps=5).draws["weight"]
    )


def test_a_guide_that_is_a_point_is_the_mode() -> None:
    learner, data = _alpaca(), _points(2)
    posterior = svi(learner, data, AutoDelta, steps=300, lr=0.1, num_particles=1, num_draws=2)
    torch.testing.assert_close(posterior.mean["weight"], learner.adapt(data).mean["weight"], rtol=0.0, atol=1e-3)
    assert not posterior.predict(data.x).mean.requires_grad


@pytest.mark.filterwarnings("ignore::bayesmeta.errors.ConvergenceWarning")  # few draws
def test_posteriors_are_values_that_can_be_stored() -> None:
    learner, data = _alpaca(), _points(1)
    short = NUTS(num_chains=2, num_draws=6, num_warmup=20, max_depth=3)
    for posterior in (
        nuts(learner, data, short, seed=3),
        svi(learner, data, steps=5, num_particles=2, num_draws=7, seed=3),
        svi(learner, data, partial(AutoIAFNormal, hidden_dim=[8], num_transforms=1), steps=5, num_draws=7),
    ):
        stored = pickle.loads(pickle.dumps(posterior))
        assert torch.equal(stored.update(data).draws["weight"], posterior.update(data).draws["weight"])
        assert stored.update(data).draws["weight"].shape == posterior.draws["weight"].shape
        assert repr(stored.update(data)).startswith("posterior of 1 task after ")


def test_guides_for_weights_of_a_network() -> None:
    learner = bm.IMAML(bm.MLP(1, [3]))
    posterior = svi(learner, _points(2).to(torch.float32), steps=20, num_draws=30)
    assert posterior.draws["features.layers.0.weight"].shape == (30, 2, 3, 1)
    assert posterior.predict(torch.zeros(2, 4, 1)).mean.shape == (2, 4, 1)


@pytest.mark.parametrize(
    "arguments", [{"steps": 0}, {"lr": 0.0}, {"num_draws": 0}, {"num_particles": 0}, {"lr": math.inf}]
)
def test_numbers_out_of_range(arguments: dict[str, float]) -> None:
    with pytest.raises(DataError, match="positive steps"):
        svi(_alpaca(), _points(), **arguments)
    for wrong in (lambda: LowRank(0), lambda: FullRank(-1.0), lambda: MeanField(math.nan)):
        with pytest.raises(DataError, match="expected"):
            wrong()


@pytest.mark.filterwarnings("ignore:Encountered .*inf:UserWarning")  # Pyro's own
def test_a_bound_that_is_not_finite_is_an_error() -> None:
    learner = _alpaca()
    with torch.no_grad():
        learner.prior.location.fill_(1e200)
    with pytest.raises(InferenceError, match="finite bound"):
        svi(learner, _points(), steps=2)


def _eight_schools() -> tuple[bm.ALPaCA, bm.Data, dict[str, dist.TorchDistribution]]:
    """Rubin 1981: y_j ~ N(w_j, σ_j²), w_j ~ N(mu, tau²), mu ~ N(0, 5²), tau ~ half Cauchy(5); in units of σ_j."""
    y = torch.tensor([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0], dtype=D)
    scale = torch.tensor([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0], dtype=D)
    learner = bm.ALPaCA(
        Scalar(), covariance=bm.priors.IsotropicCovariance(1), noise=bm.noise.DiagonalNoise(1, 1.0)
    ).double()
    data = bm.Data((1.0 / scale)[:, None, None], (y / scale)[:, None, None], torch.ones(8, 1, dtype=torch.bool))
    tau = dist.HalfCauchy(5.0)
    return learner, data, {"prior.location": dist.Normal(0.0, 5.0), "prior.covariance.stddev": tau}


@pytest.mark.usefixtures("unchecked")  # under torch.jit.trace shapes are no integers
def test_eight_schools() -> None:
    learner, data, hyperprior = _eight_schools()
    draws = hyper_nuts(
        learner, data, hyperprior, NUTS(num_chains=2, num_draws=40, num_warmup=30, max_depth=4), jit_compile=True
    )
    assert draws.theta["prior.location"].shape == (2, 40, 1, 1)
    assert draws.theta["prior.covariance.stddev"].shape == (2, 40)
    assert draws.phi["weight"].shape == (2, 40, 8, 1, 1)
    assert set(draws.r_hat) == set(draws.effective_draws) == {*hyperprior, "weight"}
    # 4.4 and 3.3 by long chains of others (posteriordb, eight_schools_centered); so few draws are far less certain
    mu = draws.theta["prior.location"].flatten()
    assert 0.0 < mu.mean() < 9.0
    assert 1.5 < mu.std() < 6.0
    weights = draws.phi["weight"].flatten(0, 1)[:, :, 0, 0].mean(0)
    assert weights[0] > weights[2]  # the best school, shrunk, and the worst
    assert weights.max() < 20.0
    at = draws.learner_at(50)
    torch.testing.assert_close(at.prior.location.detach(), draws.theta["prior.location"][1, 10])
    assert repr(draws) == "80 draws of theta and of phi of 8 tasks"
    averaged = draws.hyper_posterior(20)
    assert len(averaged.learners) == 20
    new = averaged.adapt(bm.Data.from_arrays(torch.tensor([[0.1]], dtype=D), torch.tensor([[0.5]], dtype=D)))
    assert new.predict(torch.tensor([[0.1]], dtype=D)).stddev.shape == (1, 1, 1)
    with pytest.raises(DataError, match="num_members from 1 to 80"):
        draws.hyper_posterior(81)


def test_full_bayes_by_a_guide() -> None:
    learner, data, _ = _eight_schools()
    hyperprior = {"prior.location": dist.Normal(0.0, 5.0), "likelihood.noise.value": dist.LogNormal(0.0, 0.1)}
    draws = hyper_svi(learner, data, hyperprior, steps=60, lr=0.1, num_draws=40)
    assert draws.theta["likelihood.noise.value"].shape == (1, 40, 1)
    assert draws.phi["weight"].shape == (1, 40, 8, 1, 1)
    assert draws.elbo[-10:].mean() > draws.elbo[:10].mean()
    at = draws.learner_at(7)
    torch.testing.assert_close(at.likelihood.noise.variance().detach(), draws.theta["likelihood.noise.value"][0, 7])
    flat = hyper_svi(learner, data, GaussianHyperprior(5.0, ["prior"]), AutoNormal, steps=3, num_draws=4)
    assert set(flat.theta) == dict(learner.named_parameters()).keys()


# ------------------------------------------------------------------------------------------------- prior and diagrams


def test_prior_predictive_has_the_moments_of_the_learners() -> None:
    learner, data = _alpaca(), _points()
    with torch.no_grad():
        learner.prior.location.copy_(torch.tensor([[0.5], [-1.0]]))
    draws = prior_predictive(learner, data, num_draws=8_000)
    assert {name: tuple(value.shape) for name, value in draws.items()} == {
        "weight": (8000, 3, 2, 1),
        "y": (8000, 3, 4, 1),
    }
    expected = learner.adapt(bm.Data.empty(data)).predict(data.x)
    # a mean of 8,000 draws errs by 1/89 of a deviation; four of those, and of the deviation's own error
    assert ((draws["y"].mean(0) - expected.mean) / expected.stddev).abs().max() < 0.05
    torch.testing.assert_close(draws["y"].std(0), expected.stddev, rtol=0.035, atol=0.0)
    assert torch.equal(draws["y"], prior_predictive(learner, data, num_draws=8_000)["y"])


def test_prior_predictive_with_theta_and_with_labels() -> None:
    hyperprior = {"prior.location": dist.Normal(3.0, 0.1), "likelihood.noise.value": dist.Uniform(0.1, 0.2)}
    draws = prior_predictive(_alpaca(), _points(), hyperprior, num_draws=50)
    assert {name: tuple(value.shape) for name, value in draws.items()} == {
        "prior.location": (50, 2, 1),
        "likelihood.noise.value": (50, 1),
        "weight": (50, 3, 2, 1),
        "y": (50, 3, 4, 1),
    }
    assert (draws["prior.location"].mean() - 3.0).abs() < 0.1
    learner = bm.CAVIA(bm.MLP(1, [4]), num_context=2, likelihood=bm.likelihoods.Categorical(3))
    labels = prior_predictive(learner, _points(labels=3), num_draws=20)["y"]
    assert labels.shape == (20, 3, 4)
    assert set(labels.unique().tolist()) == {0, 1, 2}
    with pytest.raises(DataError, match="at least one draw"):
        prior_predictive(learner, _points(labels=3), num_draws=0)


def _edges(source: str) -> set[Sequence[str]]:
    lines = [line.strip().replace('"', "") for line in source.splitlines() if "->" in line]
    return {tuple(line.split(" -> ")) for line in lines}


def test_the_diagram() -> None:
    learner = _alpaca()
    source = render(learner, _points()).source
    assert _edges(source) == {("weight", "y")}
    assert r"weight ~ MatrixNormal\ly ~ Normal\l" in source
    assert source.index("cluster_task") < source.index("cluster_point")
    source = render(
        learner, _points(), {"prior.location": dist.Normal(0.0, 1.0), "likelihood.noise.value": dist.HalfCauchy(1.0)}
    ).source
    noise = "likelihood.noise.value"
    assert _edges(source) == {("prior.location", "weight"), (noise, "weight"), (noise, "y"), ("weight", "y")}


class Plain(bm.WholeNetwork):
    """Without a way of its own to run with stacked weights: it is mapped over tasks."""

    x_shape, num_outputs = (1,), 1

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.linear(x))


def test_the_diagram_of_a_network_that_is_mapped_over_tasks() -> None:
    learner = bm.IMAML(Plain())
    assert _edges(render(learner, _points()).source) == {("linear.weight", "y"), ("linear.bias", "y")}
    source = render(learner, _points(), OwnHyperprior()).source
    assert ("prior.precision.raw", "linear.bias") in _edges(source)


def test_images_want_graphviz(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnsupportedError, match="program dot on the path"):
        render(_alpaca(), _points(), file=tmp_path / "model.svg")
    monkeypatch.setitem(sys.modules, "graphviz", None)
    with pytest.raises(UnsupportedError, match="pip install 'bayesmeta\\[graphviz\\]'"):
        render(_alpaca(), _points())

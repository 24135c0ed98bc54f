"""Structural models: exact where f is linear, and against quadrature, NUTS and nlme where it is not."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import integrate
from torch import Tensor

import bayesmeta as bm
from bayesmeta.inference.newton import polished
from bayesmeta.parametric import (
    Biexponential,
    Interval,
    LogisticGrowth,
    MichaelisMenten,
    OneCompartment,
    Positive,
    Real,
)

D = torch.float64
NUTS = bm.inference.NUTS


def line(x: Tensor, parameters: dict[str, Tensor]) -> Tensor:
    return parameters["level"] + parameters["slope"] * x[..., 0]


def decay(x: Tensor, parameters: dict[str, Tensor]) -> Tensor:
    return 5.0 * (-parameters["rate"] * x[..., 0]).exp()


def gaussian(stddev: float) -> bm.likelihoods.Gaussian:
    return bm.likelihoods.Gaussian(bm.noise.DiagonalNoise(initial=stddev**2))


def absorbed(**arguments: object) -> bm.Parametric:
    scales = {"ka": Positive(1.5, stddev=0.6), "ke": Positive(0.09, stddev=0.2), "Cl": Positive(0.04, stddev=0.25)}
    return bm.Parametric(OneCompartment(dose=4.0), scales, likelihood=gaussian(0.7), **arguments).double()


def subject() -> bm.Data:
    return bm.Data.from_arrays([0.5, 1.0, 2.0, 5.0, 9.0], [4.5, 6.8, 7.9, 6.9, 5.0])


@pytest.fixture
def linear() -> tuple[bm.Parametric, bm.ALPaCA]:
    """The same linear model as a formula and as ALPaCA's, with two correlated parameters."""
    scales = {"level": Real(1.0), "slope": Real(-0.5)}
    learner = bm.Parametric(line, scales, likelihood=gaussian(0.3), posterior=bm.Linearized()).double()
    covariance = torch.tensor([[0.7, 0.2], [0.2, 0.4]], dtype=D)
    learner.covariance.set_matrix(covariance)
    exact = bm.ALPaCA(bm.Identity(1), noise=bm.noise.DiagonalNoise(initial=0.09)).double()
    exact.prior.location.data.copy_(learner.network.location.data[:, None])
    exact.prior.covariance.set_matrix(covariance / learner.likelihood.noise.variance().item())
    exact.likelihood.noise.set_covariance(learner.likelihood.noise.covariance())
    return learner, exact


def ragged() -> bm.Data:
    tasks = [([0.0, 1.0, 2.5], [0.9, 0.7, -0.6]), ([1.0], [2.0]), ([], [])]
    return bm.Data.stack([bm.Data.from_arrays(x, y) for x, y in tasks])


def test_a_linear_formula_is_alpaca(linear: tuple[bm.Parametric, bm.ALPaCA]) -> None:
    learner, exact = linear
    data, x = ragged(), torch.linspace(-1.0, 4.0, 6, dtype=D).expand(3, -1)[..., None]
    torch.testing.assert_close(learner.log_evidence(data), exact.log_evidence(data), rtol=0.0, atol=1e-8)
    ours, theirs = learner.adapt(data).predict(x), exact.adapt(data).predict(x)
    torch.testing.assert_close(ours.mean, theirs.mean, rtol=0.0, atol=1e-8)
    torch.testing.assert_close(ours.variance, theirs.variance, rtol=0.0, atol=1e-8)
    y = x.cos()
    torch.testing.assert_close(ours.log_prob(y), theirs.log_prob(y), rtol=0.0, atol=1e-8)


def test_weighted_draws_of_a_linear_formula_are_alpaca_but_for_their_number(
    linear: tuple[bm.Parametric, bm.ALPaCA],
) -> None:
    learner, exact = linear
    learner.posterior = bm.learners.WeightedDraws(4096)
    data, x = ragged(), torch.linspace(-1.0, 4.0, 6, dtype=D).expand(3, -1)[..., None]
    posterior = learner.adapt(data)
    ours, theirs = posterior.predict(x), exact.adapt(data).predict(x)
    # 4096 evenly spread draws, of which more than two in three count
    assert bool((posterior.effective > 2700).all())
    assert ((ours.mean - theirs.mean).abs() / theirs.stddev).max() < 0.01
    torch.testing.assert_close(ours.stddev, theirs.stddev, rtol=0.01, atol=0.0)
    y = theirs.mean + 1.5 * theirs.stddev
    assert (ours.marginal_log_prob(y) - theirs.marginal_log_prob(y)).abs().max() < 0.02


@pytest.mark.usefixtures("unchecked")
def test_a_singular_covariance_is_no_obstacle(linear: tuple[bm.Parametric, bm.ALPaCA]) -> None:
    learner, exact = linear
    singular = torch.tensor([[0.7, 0.0], [0.0, 0.0]], dtype=D)
    learner.covariance.set_matrix(singular)
    exact.prior.covariance.set_matrix(singular / learner.likelihood.noise.variance().item())
    torch.testing.assert_close(learner.log_evidence(ragged()), exact.log_evidence(ragged()), rtol=0.0, atol=1e-8)
    drawn = bm.Sampled(learner, NUTS(8, 50, 100)).adapt(ragged().select([0]))
    slopes = learner.values(drawn.draws)["slope"]
    assert (slopes + 0.5).abs().max() < 1e-12


def one_number(likelihood: bm.likelihoods.Likelihood, **arguments: object) -> bm.Parametric:
    return bm.Parametric(decay, {"rate": Positive(0.5, stddev=0.4)}, likelihood=likelihood, **arguments).double()


def moments(learner: bm.Parametric, data: bm.Data, x: float) -> tuple[float, float, float]:
    """log evidence, and mean and variance of f at x, by quadrature over the one effect."""
    joint = learner.log_joint(data)

    def density(b: float) -> float:
        return joint({"effects": torch.tensor([[b]], dtype=D)}).exp().item()

    def f(b: float) -> float:
        return 5.0 * math.exp(-x * 0.5 * math.exp(0.4 * b))

    total = [integrate.quad(lambda b, k=k: density(b) * f(b) ** k, -6.0, 6.0, epsabs=1e-13)[0] for k in range(3)]
    mean = total[1] / total[0]
    return math.log(total[0]), mean, total[2] / total[0] - mean**2


PROPORTIONAL = bm.likelihoods.ProportionalGaussian(initial_additive=0.1, initial_proportional=0.15)
OBSERVED = [
    pytest.param(gaussian(0.4), [3.6, 1.9, 1.0], id="gaussian"),
    pytest.param(PROPORTIONAL, [3.6, 1.9, 1.0], id="proportional"),
    # two of the three are below the limit, and say so
    pytest.param(bm.likelihoods.Censored(gaussian(0.4), limit=2.0), [3.6, 2.0, 2.0], id="censored"),
    pytest.param(bm.likelihoods.Censored(PROPORTIONAL, limit=2.0), [3.6, 2.0, 2.0], id="censored-proportional"),
]


@pytest.mark.usefixtures("unchecked")  # as below: shape checks would take most of the time
@pytest.mark.parametrize(("likelihood", "y"), OBSERVED)
def test_one_number_is_as_by_quadrature(likelihood: bm.likelihoods.Likelihood, y: list[float]) -> None:
    learner = one_number(likelihood, posterior=bm.learners.WeightedDraws(2048))
    data = bm.Data.from_arrays([0.7, 2.0, 3.0], y)
    log_evidence, mean, variance = moments(learner, data, x=1.5)
    # Laplace is an approximation: to a few hundredths of a nat, or a tenth where what is seen is no Gaussian
    assert abs(learner.log_evidence(data).item() - log_evidence) < 0.15
    posterior = learner.adapt(data)
    values = learner.values(posterior.draws)["rate"][:, 0]
    f, weight = 5.0 * (-1.5 * values).exp(), posterior.log_weights[0].exp()
    assert abs((weight * f).sum().item() - mean) < 0.01 * math.sqrt(variance)
    assert abs((weight * (f - mean).square()).sum().item() / variance - 1.0) < 0.02


def test_dropping_censored_points_would_bend_the_rate() -> None:
    """What is below the limit says that the rate is high."""
    learner = one_number(bm.likelihoods.Censored(gaussian(0.2), limit=2.0))
    seen = bm.Data.from_arrays([0.5], [3.6])
    told = bm.Data.from_arrays([0.5, 1.2, 2.0], [3.6, 2.0, 2.0])
    rates = [learner.values(learner.adapt(data).mean)["rate"].item() for data in (seen, told)]
    assert rates[1] > 1.1 * rates[0]


@pytest.mark.usefixtures("unchecked")
def test_nuts_agrees_on_a_task() -> None:
    learner, data = one_number(gaussian(0.4)), bm.Data.from_arrays([0.7, 2.0], [3.6, 1.9])
    ours = learner.adapt(data)
    drawn = bm.Sampled(learner, NUTS(16, 60, 60)).adapt(data)
    weight, rates = ours.log_weights[0].exp(), learner.values(drawn.draws)["rate"][:, 0].log()
    # 960 draws of NUTS, of which some 400 count: their mean errs by .05 deviations
    mean = (weight * learner.values(ours.draws)["rate"][:, 0].log()).sum()
    assert (mean - rates.mean()).abs() < 0.2 * rates.std()
    prediction, exact = ours.predict([1.5, 6.0]), drawn.predict([1.5, 6.0])
    assert ((prediction.mean - exact.mean).abs() / exact.stddev).max() < 0.1
    torch.testing.assert_close(prediction.stddev, exact.stddev, rtol=0.1, atol=0.0)


@pytest.mark.parametrize(
    ("scale", "lower", "upper"),
    [
        (Positive(0.3, stddev=0.5), 1e-6, 20.0),
        (Interval(-1.0, 3.0, initial=0.5, stddev=0.8), -1.0 + 1e-9, 3.0 - 1e-9),
        (Real(-2.0, stddev=1.5), -15.0, 11.0),
    ],
    ids=["positive", "interval", "real"],
)
def test_scales_carry_densities(scale: bm.parametric.Scale, lower: float, upper: float) -> None:
    """The prior of a parameter in its own unit, by the transform's log determinant, integrates to one."""
    start, transform = scale.start(), scale.transform
    assert math.isclose(scale.value(torch.tensor(start, dtype=D)).item(), scale.initial, rel_tol=1e-12)

    def density(value: float) -> float:
        real = transform.inv(torch.tensor(value, dtype=D))
        jacobian = transform.log_abs_det_jacobian(real, torch.tensor(value, dtype=D))
        return (torch.distributions.Normal(start, scale.stddev).log_prob(real) - jacobian).exp().item()

    middle = scale.initial
    halves = [integrate.quad(density, *ends, limit=200)[0] for ends in ((lower, middle), (middle, upper))]
    assert abs(halves[0] - 0.5) < 1e-5  # the initial value is the median
    assert abs(halves[1] - 0.5) < 1e-5


def compartment(ka: float, ke: float, t: float) -> float:
    return 4.0 * ka / 0.5 * (t * math.exp(-ke * t) if ka == ke else (math.exp(-ke * t) - math.exp(-ka * t)) / (ka - ke))


@pytest.mark.parametrize("ka", [0.3, 0.3 + 1e-12, 0.3 + 1e-6, 0.31, 0.29, 2.0, 0.01, 400.0])
def test_one_compartment_where_the_rates_agree(ka: float) -> None:
    t = torch.tensor([[[0.0], [0.7], [5.0], [60.0]]], dtype=D)
    leaf = torch.tensor([[ka]], dtype=D, requires_grad=True)
    other = {"ke": torch.tensor([[0.3]], dtype=D), "V": torch.tensor([[0.5]], dtype=D)}
    f = OneCompartment(dose=4.0)(t, {"ka": leaf, **other})
    reference = [_precise(ka, float(time)) for time in t.flatten()]
    torch.testing.assert_close(f.detach()[0], torch.tensor(reference, dtype=D), rtol=1e-11, atol=1e-300)
    assert torch.autograd.gradcheck(lambda rate: OneCompartment(dose=4.0)(t, {"ka": rate, **other}), leaf)
    clearance = {"ka": leaf.detach(), "V": other["V"], "Cl": 0.5 * other["ke"]}
    torch.testing.assert_close(OneCompartment(dose=4.0)(t, clearance), f.detach(), rtol=1e-10, atol=1e-300)
    column = torch.cat([t, torch.full_like(t, 4.0)], -1)
    assert torch.equal(OneCompartment()(column, {"ka": leaf.detach(), **other}), f.detach())


def _precise(ka: float, t: float) -> float:
    """By numpy's long double, whose 64 bits leave 11 more than a double has to what is subtracted."""
    up, down, time = np.longdouble(ka), np.longdouble(0.3), np.longdouble(t)
    if abs(up - down) < 1e-3:  # by Taylor's series of (exp(-down t) - exp(-up t)) / (up - down) in the difference
        u, total, term = (up - down) * time, np.longdouble(0.0), np.longdouble(1.0)
        for k in range(1, 12):
            total, term = total + term, -term * u / (k + 1)
        return float(8.0 * up * time * np.exp(-down * time) * total)
    return float(8.0 * up * (np.exp(-down * time) - np.exp(-up * time)) / (up - down))


def test_units_of_time_and_concentration_do_not_matter() -> None:
    """Minutes for hours and micrograms for milligrams: the same evidence but for the unit of the density."""
    scales = {"ka": Positive(1.5 / 60, stddev=0.6), "ke": Positive(0.09 / 60, stddev=0.2), "Cl": Positive(0.04 / 60)}
    other = bm.Parametric(
        OneCompartment(dose=4e3), scales | {"Cl": Positive(0.04 / 60, stddev=0.25)}, likelihood=gaussian(700.0)
    ).double()
    data = subject()
    moved = bm.Data(data.x * 60.0, data.y * 1e3, data.mask)
    expected = absorbed().log_evidence(data) - 5.0 * math.log(1e3)
    torch.testing.assert_close(other.log_evidence(moved), expected, rtol=1e-6, atol=0.0)


def test_odd_data() -> None:
    learner = absorbed()
    prior = learner.adapt(bm.Data.empty(subject())).predict([0.0, 1.0, 24.0])
    assert bool(torch.isfinite(prior.stddev).all())
    assert prior.mean[0, 0].abs() < 1e-12  # nothing is absorbed at time 0, whatever the rates
    low, high = prior.noiseless.interval(0.9)
    assert bool((low >= -1e-12).all() and (high >= low).all())
    for y in ([0.0], [9.0], [40.0]):
        assert bool(torch.isfinite(learner.adapt(bm.Data.from_arrays([1.0], y)).predict([3.0]).stddev).all())
    constant = bm.Data.from_arrays([1.0, 2.0, 4.0, 12.0], [3.0] * 4)
    assert bool(torch.isfinite(learner.log_evidence(constant)).all())
    repeated = learner.adapt(bm.Data.from_arrays([2.0] * 30, [7.0] * 30)).predict([2.0])
    assert abs(repeated.mean.item() - 7.0) < 0.3


def test_no_points_give_the_prior_itself() -> None:
    """All weights are equal where the draws are of the prior, and the median is the typical curve's."""
    posterior = absorbed().adapt(bm.Data.empty(subject()))
    assert posterior.effective.item() > 0.8 * 512
    values = absorbed().values(posterior.mean)
    assert math.isclose(values["ka"].item(), 1.5, rel_tol=1e-2)


def saturated(**arguments: object) -> bm.Parametric:
    return bm.Parametric(MichaelisMenten(), {"Vmax": Positive(1.0), "Km": Positive(1.0)}, **arguments)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: bm.Parametric(MichaelisMenten(), {"Vmax": Positive(1.0)}),
            r"\['Vmax', 'Km'\] of MichaelisMenten, got",
        ),
        (lambda: bm.Parametric(line, {}), "parameters by name, such as"),
        (lambda: bm.Parametric(line, {"level": 1.0, "slope": 2.0}), "parameters by name, such as"),
        (lambda: bm.Parametric(MichaelisMenten, {"Vmax": Positive(1.0)}), "a function f"),
        (lambda: bm.Parametric(line, {"level": Real(0.0)}), "to work with x .* KeyError: 'slope'"),
        (lambda: bm.Parametric(line, {"level": Real(0.0), "slope": Real(1.0), "unused": Real(0.0)}), "'unused'"),
        (lambda: bm.Parametric(lambda x, p: p["a"] + x.mean(), {"a": Real(0.0)}), "of shape .B, N."),
        (lambda: bm.Parametric(lambda x, p: p["a"] * x, {"a": Real(0.0)}), "to work with x"),
        (lambda: bm.Parametric(lambda x, p: p["a"] + 0 * x[..., 0] + x.mean(), {"a": Real(0.0)}), "another value"),
        (lambda: bm.Parametric(lambda x, p: p["a"].mean() + x[..., 0], {"a": Real(0.0)}), "another value"),
        (lambda: bm.Parametric(lambda x, p: p["a"].detach() * x[..., 0], {"a": Real(1.0)}), "no derivative"),
        (lambda: bm.Parametric(lambda x, p: p["a"].numpy() * x[..., 0], {"a": Real(1.0)}), "RuntimeError"),
        (lambda: bm.Parametric(lambda x, p: 1, {"a": Real(1.0)}), "a tensor of floating numbers, got int"),
        (
            lambda: bm.Parametric(line, {"level": Real(0.0, 0.0), "slope": Real(1.0, stddev=0.0)}),
            "differs between tasks",
        ),
        (lambda: saturated(covariance=bm.priors.DiagonalCovariance(3)), "a covariance over 2 parameters"),
        (
            lambda: saturated(covariance=bm.priors.DiagonalCovariance(2, varying=[1])),
            r"vary, .* got one over 2 of which",
        ),
        (lambda: saturated(likelihood=bm.likelihoods.Gaussian(num_outputs=2)), "1|2"),
        (lambda: saturated(num_inputs=2), "expected 1 inputs"),
        (lambda: saturated(steps=0), "step"),
        (lambda: Positive(0.0), "within the range of Positive, got 0"),
        (lambda: Positive(1.0, stddev=-0.1), "at least 0, got -0.1"),
        (lambda: Interval(1.0, 0.0), "lower < upper"),
        (lambda: Interval(0.0, 1.0, initial=1.0), "between 0.0 and 1.0, got 1.0"),
        (lambda: OneCompartment(dose=0.0), "positive dose"),
        (lambda: bm.parametric.Arrhenius(reference=-3.0), "above 0 K"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_what_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(bm.BayesMetaError, match=message):
        make()


def test_weighted_draws_ask_for_a_standard_normal_prior() -> None:
    learner = bm.LLAMA(bm.MLP(1, [4]), posterior=bm.learners.WeightedDraws(16))
    with pytest.raises(bm.UnsupportedError, match="standard normal prior, such as Parametric or CAVIA, got LLAMA"):
        learner.adapt(bm.Data.from_arrays([0.0], [1.0]))
    context = bm.CAVIA(bm.MLP(1, [4]), num_context=2, steps=5, posterior=bm.learners.WeightedDraws(64))
    assert context.adapt(bm.Data.from_arrays([0.0], [1.0])).predict([0.5]).stddev.item() > 0.0


def test_draws_with_all_of_the_weight_are_warned_of() -> None:
    learner = one_number(gaussian(1e-2), steps=1, posterior=bm.learners.WeightedDraws(64))
    posterior = learner.adapt(bm.Data.from_arrays([0.7, 2.0], [3.6, 1.9]))  # no rate fits both
    assert posterior.effective.item() > 10.0
    lost = bm.learners.WeightedDrawsPosterior(
        spec=posterior.spec,
        learner=posterior.learner,
        support=posterior.support,
        phi=posterior.phi,
        draws=posterior.draws,
        log_weights=torch.log_softmax(torch.linspace(0.0, 1e4, 64, dtype=D)[None], -1),
    )
    with torch.no_grad(), pytest.warns(bm.ConvergenceWarning, match="in 1 of 1 tasks 1.6% of the draws"):
        lost.checked()


def test_the_curve_must_be_finite_where_it_starts() -> None:
    learner = bm.Parametric(lambda x, p: p["a"] * x[..., 0].log(), {"a": Real(1.0)}).double()
    with pytest.raises(
        bm.DataError, match=r"finite at the starting parameters \{'a': 1.0\}, got \[-inf\] at x = \[0.0\]"
    ):
        bm.fit_evidence(learner, bm.TaskDataset.from_list([([0.0, 1.0], [0.0, 1.0])]))


def test_ready_formulas_are_stored_and_functions_say_how_to_be(tmp_path: Path) -> None:
    learner = absorbed()
    learner.network.location.data += 0.1
    bm.save(learner, tmp_path / "model")
    again = bm.load(tmp_path / "model")
    assert list(again.typical.items()) == list(learner.typical.items())
    prediction = [each.adapt(subject()).predict([3.0]).mean for each in (learner, again)]
    assert torch.equal(*prediction)
    own = bm.Parametric(decay, {"rate": Positive(0.5)})
    with pytest.raises(bm.UnsupportedError, match=r"got function: .*\(write it as such a class, with a __call__"):
        bm.save(own, tmp_path / "other")


def test_polishing_arrives_and_never_falls() -> None:
    """A mode in a bent valley, and tasks that are at it, far from it and not finite."""

    def log_joint(phi: dict[str, Tensor]) -> Tensor:
        a, b = phi["w"].unbind(-1)
        return -((1.0 - a) ** 2) - 10.0 * (b - a**2) ** 2 + 0.0 * a.log()

    start = torch.tensor([[1.0, 1.0], [0.9, 0.8], [-1.0, 1.0]], dtype=D)
    found = polished(log_joint, {"w": start})["w"]
    torch.testing.assert_close(found[:2], torch.ones(2, 2, dtype=D), rtol=0.0, atol=1e-12)
    assert torch.equal(found[2], start[2])


def _theoph(data: Path, covariance: bm.priors.FeatureCovariance | None) -> tuple[bm.Parametric, bm.TaskDataset]:
    frame = pd.read_csv(data / "theoph" / "theoph.csv")
    tasks = bm.TaskDataset.from_frame(frame, task="task", x=["Time", "Dose"], y=["conc"])
    scales = {"ke": Positive(0.1, stddev=0.3), "ka": Positive(1.0, stddev=0.3), "Cl": Positive(0.05, stddev=0.3)}
    return bm.Parametric(OneCompartment(), scales, covariance=covariance).double(), tasks


# what nlme 3.1 prints: cran/nlme, tests/extras/scripts.Rout.save, fm1Theo.nlme, fm2Theo.nlme and fm1Indom.nlme
FULL = ([-2.433, 0.451, -3.214], [0.131, 0.638, 0.251], 0.682, -173)
DIAGONAL = ([-2.455, 0.466, -3.227], [1.93e-5, 0.644, 0.167], 0.709, -177)
CORRELATION = [[1.0, 0.0116, 0.9948], [0.0116, 1.0, -0.0892], [0.9948, -0.0892, 1.0]]
INDOMETH = ([2.828, 0.774, 0.461, -1.344], [0.571, 0.158, 0.112, 7.32e-06], 0.0815, 54.6)
Published = tuple[list[float], list[float], float, float]


def _place(learner: bm.Parametric, published: Published, correlation: Tensor) -> None:
    location, deviations, noise, _ = published
    deviation = torch.tensor(deviations, dtype=D)
    learner.network.location.data.copy_(torch.tensor(location, dtype=D))
    learner.covariance.set_matrix(deviation[:, None] * correlation * deviation)
    learner.likelihood.noise.set_covariance(torch.tensor([[noise**2]], dtype=D))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("published", "correlation"), [(FULL, CORRELATION), (DIAGONAL, np.eye(3).tolist())])
def test_theoph_is_as_in_nlme(real_data: Path, published: Published, correlation: list[list[float]]) -> None:
    """The evidence at nlme's estimates is what nlme says; the maximum is a little above and beside it.

    nlme maximises the same linearised likelihood a part at a time, with the linearisation held still: its fixed point
    is not quite the maximum.
    """
    full = published is FULL
    learner, tasks = _theoph(real_data, None if full else bm.priors.DiagonalCovariance(3))
    _place(learner, published, torch.tensor(correlation, dtype=D))
    theirs = learner.log_evidence(tasks.data).sum().item()
    assert abs(theirs - published[3]) < 0.5  # printed without decimals
    if not full:
        return
    learner, tasks = _theoph(real_data, None)
    bm.fit_evidence(learner, tasks)
    ours = learner.log_evidence(tasks.data).sum().item()
    assert 0.0 < ours - theirs < 0.15
    expected = torch.tensor(published[0], dtype=D)
    torch.testing.assert_close(learner.network.location.data, expected, rtol=0.0, atol=0.025)
    deviations = learner.covariance.matrix().diagonal().detach().sqrt()
    torch.testing.assert_close(deviations, torch.tensor(published[1], dtype=D), rtol=0.0, atol=0.02)
    assert abs(learner.likelihood.noise.variance().sqrt().item() - published[2]) < 0.003


@pytest.mark.usefixtures("unchecked")
def test_indometh_has_a_better_maximum_than_nlmes(real_data: Path) -> None:
    frame = pd.read_csv(real_data / "indometh" / "indometh.csv")
    tasks = bm.TaskDataset.from_frame(frame, task="task", x=["time"], y=["conc"])

    def make() -> bm.Parametric:
        scales = {"A1": Real(3.0, stddev=0.6), "k1": Positive(2.0), "A2": Real(0.5, stddev=0.15), "k2": Positive(0.3)}
        return bm.Parametric(Biexponential(), scales, covariance=bm.priors.DiagonalCovariance(4)).double()

    learner = make()
    _place(learner, INDOMETH, torch.eye(4, dtype=D))
    assert abs(learner.log_evidence(tasks.data).sum().item() - INDOMETH[3]) < 0.05  # printed with one decimal
    learner = make()
    bm.fit_evidence(learner, tasks)
    assert learner.log_evidence(tasks.data).sum().item() > INDOMETH[3] + 1.0


def test_fit_starts_the_noise_it_made_and_no_other() -> None:
    tasks = bm.TaskDataset.from_list([([1.0, 2.0, 3.0], [1e3, 2e3, 2.9e3]), ([1.0, 2.0, 3.0], [2e3, 3.2e3, 6e3])])
    own = bm.Parametric(line, {"level": Real(0.0, stddev=100.0), "slope": Real(1000.0, stddev=300.0)}).double()
    own.prepare(tasks.data)
    assert own.likelihood.noise.variance().item() > 1e4
    given = bm.Parametric(line, {"level": Real(0.0), "slope": Real(1.0)}, likelihood=gaussian(0.5)).double()
    given.prepare(tasks.data)
    assert math.isclose(given.likelihood.noise.variance().item(), 0.25, rel_tol=1e-6)


@pytest.mark.usefixtures("unchecked")
def test_growth_is_learned() -> None:
    """Twelve plants of known parameters: the typical plant and its spread are found again."""
    generator = torch.Generator().manual_seed(1)
    x = torch.linspace(0.0, 20.0, 7, dtype=D)
    z = torch.randn(12, 2, 1, dtype=D, generator=generator)
    asymptote, middle = 20.0 * (0.2 * z[:, 0]).exp(), 9.0 + z[:, 1]
    y = asymptote * ((x - middle) / 2.0).sigmoid() + 0.2 * torch.randn(12, 7, dtype=D, generator=generator)
    tasks = bm.TaskDataset.from_list([(x, each) for each in y])
    scales = {"Asym": Positive(30.0), "xmid": Real(6.0, stddev=2.0), "scal": Positive(3.0, stddev=0.0)}
    learner = bm.Parametric(LogisticGrowth(), scales).double()
    result = bm.fit_evidence(learner, tasks)
    assert result.stopped_early
    typical = learner.typical
    assert abs(math.log(typical["Asym"] / 20.0)) < 0.2  # the mean of twelve errs by .06
    assert abs(typical["xmid"] - 9.0) < 1.0
    assert abs(typical["scal"] - 2.0) < 0.1
    assert abs(learner.likelihood.noise.variance().sqrt().item() - 0.2) < 0.05

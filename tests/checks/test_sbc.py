"""Ranks are uniform for exact posteriors, and not for posteriors that are a little wrong."""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
import pytest
import torch
from torch import Tensor

mpl.use("Agg")
import matplotlib.pyplot as plt

import bayesmeta as bm
from bayesmeta import plotting
from bayesmeta.checks.rank_statistics import RankStatistics, predictive_sbc, sbc, standard_quantities
from bayesmeta.data import Data
from bayesmeta.errors import ConvergenceWarning, DataError, ShapeError, UnsupportedError
from bayesmeta.inference.nuts import NUTS
from bayesmeta.learner import ExplicitLearner, Learner, TaskPosterior
from bayesmeta.outcomes import Numbers
from bayesmeta.plotting.ranks import curve_band
from bayesmeta.predictives import Predictive
from bayesmeta.typing import Params
from bayesmeta.wrappers.sampled import Sampled


def points(simulations: int = 1000, most: int = 6, size: int = 1) -> tuple[Tensor, Tensor]:
    """Inputs of ragged tasks, of no points to `most`."""
    generator = torch.Generator().manual_seed(3)
    x = torch.rand(simulations, most, size, generator=generator) * 4 - 2
    return x, torch.arange(most) < torch.randint(0, most + 1, (simulations, 1), generator=generator)


def trained(learner: Learner) -> Learner:
    """Off its starting point, where prior means are zero and variances equal."""
    with torch.no_grad():
        for parameter in learner.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return learner


EXACT: dict[str, tuple[Callable[[], ExplicitLearner], int]] = {
    "full rows": (lambda: bm.ALPaCA(bm.MLP(1, [16, 4])), 1),
    "diagonal rows": (lambda: bm.ALPaCA(bm.RadialBasis(1, 4), covariance=bm.priors.DiagonalCovariance(5)), 1),
    "isotropic rows": (lambda: bm.ALPaCA(bm.Polynomial(1, 3), covariance=bm.priors.IsotropicCovariance(4)), 1),
    "fixed effects": (
        lambda: bm.ALPaCA(bm.Spline([-1.0, 0.0, 1.0], 1), covariance=bm.priors.FullCovariance(5, varying=[0, 1])),
        1,
    ),
    "two outputs": (lambda: bm.ALPaCA(bm.MLP(2, [4]), num_outputs=2, noise=bm.noise.FullNoise(2)), 2),
    "mixture": (lambda: bm.MixtureALPaCA(bm.MLP(1, [16, 4]), num_components=3), 1),
    "ridge": (lambda: bm.R2D2Regressor(bm.MLP(1, [16, 4])), 1),
}


@pytest.mark.parametrize("make", EXACT.values(), ids=EXACT.keys())
def test_exact_posteriors_have_uniform_ranks(make: tuple[Callable[[], ExplicitLearner], int]) -> None:
    learner = trained(make[0]())
    assert isinstance(learner, ExplicitLearner)
    ranks = sbc(learner, *points(size=make[1]))
    assert ranks.ranks.shape == (1000, len(ranks.names))
    assert "log likelihood" in ranks.names
    assert ranks.is_uniform(0.01), ranks
    assert set(ranks.verdicts()) == {"uniform"}


def test_a_laplace_posterior_is_exact_where_f_is_linear_in_phi() -> None:
    learner = bm.IMAML(bm.MLP(1, [4]), precision=1.0, adapted=["output"], solver=bm.inference.LBFGS(50, 1e-9))
    x, mask = points(500)
    assert sbc(learner.double(), x, mask).is_uniform(0.01)
    diagonal = bm.IMAML(learner.network, precision=1.0, adapted=["output"], posterior=bm.LinearizedDiagonal())
    ranks = sbc(learner, x, mask, judge=diagonal)
    assert not ranks.is_uniform(0.01)
    assert ranks.title == "IMAML"


# Posteriors that are wrong


class Location(ExplicitLearner):
    """y ~ N(phi, 1), phi ~ N(0, 1), exactly; wrong by `bias`, in posterior deviations, and `claimed`, a factor."""

    x_shape = (1,)
    outcomes = Numbers(1)

    def __init__(self, bias: float = 0.0, claimed: float = 1.0, use_data: bool = True) -> None:
        super().__init__()
        self.bias, self.claimed, self.use_data = bias, claimed, use_data
        self.prior: bm.priors.Prior = bm.priors.StandardNormal({"phi": (1,)})
        self.likelihood: bm.likelihoods.Likelihood = bm.likelihoods.Gaussian(bm.noise.DiagonalNoise(1, 1.0))

    def forward(self, phi: Params, x: Tensor) -> Tensor:
        return phi["phi"][..., None, :].expand(*phi["phi"].shape[:-1], x.shape[1], 1)

    def condition(self, support: Data) -> "LocationPosterior":
        counts = support.counts[:, None] * self.use_data
        total = torch.where(support.mask[..., None], support.y, 0.0).sum(1) * self.use_data
        scale = (1.0 + counts).to(total.dtype).rsqrt()
        mean = total / (1.0 + counts) + self.bias * scale
        return LocationPosterior(spec=support.spec, mean=mean, scale=scale * self.claimed)


@dataclass(frozen=True, eq=False, kw_only=True)
class LocationPosterior(TaskPosterior):
    mean: Tensor
    scale: Tensor

    def sample(self, num_draws: int, generator: torch.Generator | None = None) -> Params:
        normal = torch.randn(num_draws, *self.mean.shape, generator=generator, dtype=self.mean.dtype)
        return {"phi": self.mean + self.scale * normal}

    def at(self, x: Tensor) -> Predictive:
        raise NotImplementedError

    def extended(self, data: Data) -> "LocationPosterior":
        raise NotImplementedError


def test_a_right_location_is_uniform() -> None:
    ranks = sbc(Location(), *points())
    assert ranks.is_uniform(0.01)
    assert ranks.offset()[0] == pytest.approx(0.0, abs=0.1)  # 3 standard errors of 1000
    assert ranks.width()[0] == pytest.approx(1.0, abs=0.07)


def test_nuts_is_uniform() -> None:
    x, mask = points(200)
    sampler = NUTS(num_chains=2, num_draws=30, num_warmup=30, max_depth=4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of 200 tasks, the short chains of some
        ranks = sbc(Location(), x, mask, judge=Sampled(Location(), sampler), num_draws=19)
    assert ranks.is_uniform(0.01), ranks
    assert ranks.title == "Sampled(Location)"


@pytest.mark.parametrize(
    ("wrong", "verdict"),
    [
        ({"claimed": 0.8}, "too narrow"),
        ({"claimed": 1.25}, "too wide"),
        ({"bias": 0.3}, "too high"),
        ({"bias": -0.3}, "too low"),
    ],
)
def test_wrong_posteriors_fail_and_the_verdict_says_how(wrong: dict[str, float], verdict: str) -> None:
    ranks = sbc(Location(), *points(), judge=Location(**wrong))
    assert not ranks.is_uniform(0.01)
    assert ranks.verdicts()[0] == verdict
    assert ranks.width()[0] == pytest.approx(wrong.get("claimed", 1.0), abs=0.07)
    assert ranks.offset()[0] == pytest.approx(wrong.get("bias", 0.0), abs=0.1)
    assert verdict in str(ranks)


def test_only_a_quantity_of_the_data_tells_the_prior_from_the_posterior() -> None:
    ranks = sbc(Location(), *points(), judge=Location(use_data=False))
    verdicts = dict(zip(ranks.names, ranks.verdicts(), strict=True))
    assert verdicts["phi[0]"] == "uniform"
    assert verdicts["log likelihood"] == "too low"


def test_the_level_holds() -> None:
    """Of right posteriors, fewer than `level` fail, and not many fewer."""
    generator = torch.Generator().manual_seed(0)
    ranks = torch.randint(0, 100, (1000, 2000), generator=generator)
    p = RankStatistics(ranks, tuple(map(str, range(2000))), 99).p_values()
    for level in (0.01, 0.1, 0.5):
        # Binomial(2000, level): within 4 deviations
        assert float((p < level).double().mean()) == pytest.approx(level, abs=4 * (level * (1 - level) / 2000) ** 0.5)
    failed = sum(
        not RankStatistics(part, tuple("abcdefghij"), 99).is_uniform(0.1) for part in ranks.split(10, 1)
    )  # of 200; at most a tenth, and by Bonferroni hardly fewer
    assert 8 <= failed <= 32


def test_ties_are_broken_at_random() -> None:
    """A quantity that is the same in all draws says nothing, and its ranks are uniform."""
    ranks = sbc(Location(), *points(), quantities=lambda phi, data: {"one": torch.ones_like(phi["phi"][..., 0])})
    assert ranks.names == ("one",)
    assert ranks.is_uniform(0.01)


def test_p_values_are_pearsons() -> None:
    from scipy.stats import chisquare

    ranks = torch.randint(0, 100, (500, 3), generator=torch.Generator().manual_seed(1))
    statistics = RankStatistics(ranks, ("a", "b", "c"), 99)
    assert statistics.counts().shape == (20, 3)
    assert statistics.counts().sum(0).tolist() == [500, 500, 500]
    for i, p in enumerate(statistics.p_values(10).tolist()):
        counts = np.bincount(ranks[:, i] // 10, minlength=10)
        assert p == pytest.approx(chisquare(counts).pvalue)


def test_bins_follow_draws_and_simulations() -> None:
    for simulations, draws, bins in ((1000, 99, 20), (60, 99, 10), (1000, 15, 16), (1000, 20, 7)):
        ranks = torch.zeros(simulations, 1, dtype=torch.long)
        assert len(RankStatistics(ranks, ("a",), draws).counts()) == bins


def test_own_quantities_and_thinning() -> None:
    grid = torch.linspace(-1.0, 1.0, 3)[None, :, None]
    learner = bm.ALPaCA(bm.MLP(1, [8, 3]))
    x, mask = points(200)

    def outputs(phi: Params, data: Data) -> Params:
        return {"f": learner(phi, grid.expand(data.num_tasks, -1, -1))[..., 0]}

    ranks = sbc(learner, x, mask, quantities=outputs, num_draws=19, thin=3, batch_size=64)
    assert ranks.names == ("f[0]", "f[1]", "f[2]")
    assert ranks.ranks.max() <= 19
    assert ranks.is_uniform(0.01)


def test_simulations_are_repeatable_and_leave_the_global_generator() -> None:
    learner = bm.ALPaCA(bm.MLP(1, [8, 3]))
    x, mask = points(100)
    state = torch.random.get_rng_state()
    first, again, other = (sbc(learner, x, mask, seed=seed).ranks for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_labels_are_simulated() -> None:
    seen: list[Data] = []

    class Spy(bm.IMAML):
        def condition(self, support: Data) -> TaskPosterior:
            seen.append(support)
            return super().condition(support)

    for likelihood, outputs in ((bm.likelihoods.Categorical(3), 3), (bm.likelihoods.Bernoulli(), 1)):
        learner = Spy(bm.MLP(1, [3]), likelihood=likelihood, adapted=["output"])
        sbc(learner, *points(40), num_draws=7)
        assert not seen[-1].y.is_floating_point()
        assert seen[-1].y.unique().tolist() == list(range(max(outputs, 2)))


def test_a_prior_without_a_density_leaves_out_the_log_joint() -> None:
    learner = bm.ALPaCA(bm.Polynomial(1, 2), covariance=bm.priors.FullCovariance(3, varying=[0]))
    phi = learner.prior.sample(4)
    data = Data(torch.zeros(4, 2, 1), torch.zeros(4, 2, 1), torch.ones(4, 2, dtype=torch.bool))
    assert set(standard_quantities(learner)(phi, data)) == {"weight", "log likelihood"}
    everything = bm.ALPaCA(bm.Polynomial(1, 2))
    found = standard_quantities(everything)(phi, data)
    torch.testing.assert_close(found["log joint"], everything.log_joint(data)(phi))


@pytest.mark.usefixtures("unchecked")
def test_what_cannot_be_simulated_is_refused() -> None:
    learner = bm.ALPaCA(bm.MLP(1, [8, 3]))
    x, mask = points(100)
    with pytest.raises(UnsupportedError, match="explicit prior and likelihood, got MAML"):
        sbc(bm.MAML(bm.MLP(1, [4])), x, mask)
    point = bm.LLAMA(bm.MLP(1, [4]), posterior=bm.PointEstimate())  # which finds the mode
    with pytest.raises(UnsupportedError, match="PointPosterior has no draws"):
        sbc(point, x, mask)
    with pytest.raises(ShapeError, match="the judge has another phi"):
        sbc(learner, x, mask, judge=bm.LLAMA(bm.MLP(1, [4])))
    with pytest.raises(ShapeError, match="expected x of shape"):
        sbc(learner, x.expand(-1, -1, 2), mask)
    with pytest.raises(ShapeError, match="expected a mask"):
        sbc(learner, x, mask[:, :2])
    with pytest.raises(DataError, match="use 99 draws"):
        sbc(learner, x, mask, num_draws=100)  # 101 is prime
    with pytest.raises(DataError, match="8 simulations"):
        sbc(learner, x[:8], mask[:8])
    with pytest.raises(DataError, match="at least one draw"):
        sbc(learner, x, mask, thin=0)
    ranks = sbc(learner, x, mask)
    with pytest.raises(DataError, match="expected a level"):
        ranks.is_uniform(0.0)
    with pytest.raises(DataError, match="divide 100"):
        ranks.counts(7)


# Without a phi


def test_a_gaussian_process_has_uniform_ranks() -> None:
    learner = trained(bm.DeepKernelTransfer(bm.MLP(1, [8, 4])).double())
    x, mask = points()
    ranks = predictive_sbc(learner, x.double(), points(most=3)[0].double() + 0.1, mask)
    assert ranks.names == ("y[0,0]", "y[1,0]", "y[2,0]", "log density")
    assert ranks.is_uniform(0.01), ranks


def test_a_predictive_that_is_too_narrow_fails() -> None:
    learner = bm.ALPaCA(bm.MLP(1, [16, 4])).double()
    x, mask = points()
    query = points(most=2)[0].double()
    assert predictive_sbc(learner, x.double(), query, mask).is_uniform(0.01)

    narrow = bm.wrappers.VarianceScaled(learner, (0, 1))  # deviations of 0.8 once there are data
    narrow.log_factors.copy_(torch.tensor([1.0, 0.8]).log())
    assert not predictive_sbc(narrow, x.double(), query, mask).is_uniform(0.01)


def test_independent_points_cannot_be_simulated_from() -> None:
    with pytest.raises(UnsupportedError, match="joint over points"):
        predictive_sbc(bm.MAML(bm.MLP(1, [4]), posterior=bm.PointEstimate()), *[points(100)[0]] * 2)


# Figures


@pytest.fixture
def figures() -> Iterator[None]:
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def narrow() -> RankStatistics:
    return sbc(Location(), *points(), judge=Location(claimed=0.7))


@pytest.mark.usefixtures("figures")
def test_histograms_show_walls(narrow: RankStatistics) -> None:
    figure = plotting.rank_histograms(narrow, bins=10)
    assert [ax.get_title() for ax in figure.axes] == [narrow.names[i] for i in narrow.p_values().argsort()]
    (phi,) = (ax for ax in figure.axes if ax.get_title() == "phi[0]")
    heights = [bar.get_height() for bar in phi.patches if bar.get_width() < 0.5]
    assert np.mean(heights) == pytest.approx(1.0)
    assert min(heights[0], heights[-1]) > 1.3 * max(heights[3:7])
    figure.canvas.draw()
    _, ax = plt.subplots()
    plotting.rank_histograms(narrow, ["phi[0]"], axes=[ax])
    assert ax.get_title() == "phi[0]"


@pytest.mark.usefixtures("figures")
def test_curves_leave_the_band_where_ranks_are_not_uniform(narrow: RankStatistics) -> None:
    low, high = curve_band(1000, 99, 0.95)
    for ranks, stays in ((narrow, False), (sbc(Location(), *points()), True)):
        ax = plotting.rank_curves(ranks, ["phi[0]"])
        curve = ax.get_lines()[-1].get_ydata()[1:] + np.arange(1, 101) / 100
        assert bool(((curve >= low - 1e-9) & (curve <= high + 1e-9)).all()) == stays
        ax.figure.canvas.draw()


def test_the_band_holds_whole_curves() -> None:
    low, high = curve_band(300, 19, 0.9)
    rng = np.random.default_rng(7)
    curves = rng.multinomial(300, np.full(20, 0.05), size=4000).cumsum(1) / 300
    inside = ((curves >= low - 1e-9) & (curves <= high + 1e-9)).all(1).mean()
    assert inside == pytest.approx(0.9, abs=0.03)  # 2,000 simulated for the band, 4,000 here, and steps of 1/300


def test_figures_refuse_what_was_not_ranked(narrow: RankStatistics) -> None:
    with pytest.raises(DataError, match="expected some of the ranked quantities"):
        plotting.rank_curves(narrow, ["psi"])
    with pytest.raises(ShapeError, match="expected 1 axes"):
        plotting.rank_histograms(narrow, ["phi[0]"], axes=[])

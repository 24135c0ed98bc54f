"""Simulation-based calibration: is the posterior the posterior?

Talts, Betancourt, Simpson, Vehtari, Gelman 2018 (arXiv:1804.06788), theorem 1: with q any number computed from phi,

    phi ~ p(phi | theta),   y ~ p(y | phi),   phi_1..S ~ p(phi | y, theta)   =>   #{s: q(phi_s) < q(phi)} ~ U{0, .., S}

where the draws are independent. So whatever the tasks, draws of the right posterior give uniform ranks, and ranks that
are not uniform say that inference is wrong, and how. The other way round it is not so: the prior passes for the
posterior in every q of phi alone. A q that depends on y too, above all the likelihood, tells them apart (Modrák et al.
2023, arXiv:2211.02383), and is always among the standard ones.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from bayesmeta.arguments import generator_of, probability, some, whole
from bayesmeta.data import Data
from bayesmeta.distributions import seeded
from bayesmeta.errors import DataError, ShapeError, UnsupportedError
from bayesmeta.learner import ExplicitLearner, Learner
from bayesmeta.modes import settled
from bayesmeta.outcomes import Numbers
from bayesmeta.predictives import IndependentPredictive
from bayesmeta.tasks.dataset import naming_columns
from bayesmeta.typing import Params

if TYPE_CHECKING:
    import pandas as pd

Quantities = Callable[[Params, Data], Params]
"""(phi, simulated data) -> test quantities by name, each `B *shape`; for phi with S draws, `S B *shape`."""

RankVerdict = Literal["uniform", "too narrow", "too wide", "too high", "too low", "not uniform"]
"""What the ranks of a quantity say of the posterior."""

_MOST_BINS = 20
_LEAST_EXPECTED = 5.0  # ranks a bin, below which chi-square is no longer its distribution
_CLEAR = 3.0  # standard errors from which a shape is named


@settled
@naming_columns
def sbc(
    learner: ExplicitLearner,
    x: Float[Tensor, "B N *x"],
    mask: Bool[Tensor, "B N"] | None = None,
    *,
    judge: Learner | None = None,
    quantities: Quantities | None = None,
    num_draws: int = 99,
    thin: int = 1,
    batch_size: int = 250,
    seed: int = 0,
) -> "RankStatistics":
    """Simulate B tasks from the learner's own prior and likelihood, adapt to each, and rank the truth among draws.

    Args:
        learner: whose prior and likelihood make the tasks. theta may be anything: no training is needed.
        x: where each task is observed; B is the number of simulations. Of 1,000, 15 % of a deviation are seen.
        mask: True = observed; all by default. Ragged tasks are as good as any.
        judge: whose posterior is judged, the learner's own by default; or another learner of the same phi, say
            `Sampled(learner)`.
        quantities: what is ranked; `standard_quantities(learner)` by default.
        num_draws: S, draws of each posterior. S + 1 should have divisors, as 99 + 1 has: ranks are counted in bins.
        thin: of so many successive draws one is kept. Ranks among the dependent draws of a Markov chain have walls at
            both ends, however right the chain is: thin until those that are kept are nearly independent. (`Sampled`
            chooses among its draws at random: there let S be several times smaller than what they are worth.)
        batch_size: tasks adapted to at once.
        seed: of the simulations, the draws, and the order of ties.

    Raises:
        DataError: too few simulations, or an S + 1 without a divisor from 2 to 20.
        ShapeError: x is not of the learner's inputs, or the judge's phi is another.
        UnsupportedError: the judge's posterior has no draws.

    Example:
        >>> import bayesmeta as bm
        >>> learner = bm.ALPaCA(bm.Polynomial(1, 1)).double()
        >>> ranks = sbc(learner, torch.rand(200, 4, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
        >>> ranks.names
        ('weight[0,0]', 'weight[1,0]', 'log likelihood', 'log joint')
        >>> ranks.is_uniform()
        True
    """
    mask = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device) if mask is None else mask
    if tuple(mask.shape) != tuple(x.shape[:2]):
        raise ShapeError(f"expected a mask of shape {tuple(x.shape[:2])}, got {tuple(mask.shape)}")
    if learner.x_shape is not None and tuple(x.shape[2:]) != learner.x_shape:
        raise ShapeError(f"expected x of shape (B, N) + {learner.x_shape}, got {tuple(x.shape)}")
    thin, batch_size = some(thin, "thin", "draw"), some(batch_size, "batch_size", "task in a batch")
    num_draws = whole(num_draws, "num_draws")
    _bins(num_draws, len(x))  # now, not after an hour
    learner = _frozen(learner)
    judge = learner if judge is None else judge.frozen()
    quantities = standard_quantities(learner) if quantities is None else quantities
    dtype, device = learner.placement()
    x, mask = x.to(dtype=dtype, device=device), mask.to(device=device)
    generator = generator_of(seed, x.device)
    collected: list[Params] = []
    with torch.no_grad():
        for rows, real in zip(x.split(batch_size), mask.split(batch_size), strict=True):
            truth = learner.prior.sample(len(rows), generator)
            data = _simulated(learner, truth, rows, real, generator)
            draws = judge.adapt(data).sample(num_draws * thin, generator)
            draws = {name: value[::thin] for name, value in _matched(draws, truth, num_draws * thin).items()}
            right, drawn = quantities(truth, data), quantities(draws, data)
            collected.append({name: _ranks(value, drawn[name], generator).cpu() for name, value in right.items()})
    ranks = {name: torch.cat([part[name] for part in collected]) for name in collected[0]}
    names = [label for name, value in ranks.items() for label in labels(name, value.shape[1:])]
    return RankStatistics(
        ranks=torch.cat([value.reshape(len(x), -1) for value in ranks.values()], 1),
        names=tuple(names),
        num_draws=num_draws,
        title=judge.title,
    )


@settled
@naming_columns
def predictive_sbc(
    learner: Learner,
    x: Float[Tensor, "B N *x"],
    query: Float[Tensor, "B M *x"],
    mask: Bool[Tensor, "B N"] | None = None,
    *,
    num_draws: int = 99,
    batch_size: int = 250,
    seed: int = 0,
) -> "RankStatistics":
    """The same for a learner whose phi has no name, such as a Gaussian process: support and query are drawn together
    from its prior predictive, and each query outcome is ranked among draws of the predictive given the support.

    Ranked are the outcomes, `y`, and their joint `log density` (nats).

    Args:
        learner: a regression learner whose prior predictive is joint over points.
        x: the inputs of the support; B is the number of simulations.
        query: the inputs of the query points.
        mask: True = observed, of the support; all by default.
        num_draws: S, as for `sbc`.
        batch_size: tasks adapted to at once.
        seed: of the simulations, the draws, and the order of ties.

    Raises:
        DataError: as for `sbc`.
        UnsupportedError: a learner whose prior predictive takes points as independent.

    Example:
        >>> import bayesmeta as bm
        >>> learner, x = bm.DeepKernelTransfer(bm.Identity(1)).double(), torch.linspace(0, 1, 5).double()
        >>> ranks = predictive_sbc(learner, x[:3, None].expand(100, 3, 1), x[3:, None].expand(100, 2, 1))
        >>> ranks.names, ranks.is_uniform()
        (('y[0,0]', 'y[1,0]', 'log density'), True)
    """
    mask = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device) if mask is None else mask
    outcomes = learner.outcomes
    if not isinstance(outcomes, Numbers):
        raise UnsupportedError(f"expected a learner of a known number of outcomes, got {type(learner).__name__}")
    batch_size, num_draws = some(batch_size, "batch_size", "task in a batch"), whole(num_draws, "num_draws")
    _bins(num_draws, len(x))
    learner = learner.frozen()
    dtype, device = learner.placement()
    x, query, mask = x.to(dtype=dtype, device=device), query.to(dtype=dtype, device=device), mask.to(device=device)
    generator = generator_of(seed, x.device)
    y_ranks, density_ranks = [], []
    with torch.no_grad():
        for rows, real, points in zip(*(value.split(batch_size) for value in (x, mask, query)), strict=True):
            y = rows.new_zeros(*rows.shape[:2], outcomes.count)
            prior = learner.adapt(Data.empty(Data(rows, y, real))).predict(torch.cat([rows, points], 1))
            if isinstance(prior, IndependentPredictive):
                raise UnsupportedError(
                    f"expected a prior predictive that is joint over points, got {type(learner).__name__}'s, which "
                    "says of each point alone what it will be: no tasks can be simulated from it"
                )
            simulated = prior.sample((), generator)
            y, truth = simulated[:, : rows.shape[1]], simulated[:, rows.shape[1] :]
            predictive = learner.adapt(Data(rows, y, real)).predict(points)
            draws = predictive.sample((num_draws,), generator)
            y_ranks.append(_ranks(truth, draws, generator).cpu())
            density = torch.stack([predictive.log_prob(draw) for draw in draws])
            density_ranks.append(_ranks(predictive.log_prob(truth), density, generator).cpu())
    ranks = torch.cat(y_ranks)
    return RankStatistics(
        ranks=torch.cat([ranks.flatten(1), torch.cat(density_ranks)[:, None]], 1),
        names=(*labels("y", ranks.shape[1:]), "log density"),
        num_draws=num_draws,
        title=learner.title,
    )


def standard_quantities(learner: ExplicitLearner) -> Quantities:
    """Every number in phi, `log likelihood`, log p(y | phi), and where the prior has a density `log joint` (nats).

    The likelihood is among them as it tells a posterior from the prior, which ranks of phi alone cannot (Modrák et al.
    2023).

    Args:
        learner: whose likelihood and prior are asked.

    Example:
        >>> import bayesmeta as bm
        >>> learner, data = bm.ALPaCA(bm.Identity(1)), bm.Data.from_arrays([0.0, 1.0], [0.3, 0.7])
        >>> found = standard_quantities(learner)(learner.prior.sample(1), learner.conform(data))
        >>> {name: tuple(value.shape) for name, value in found.items()}
        {'weight': (1, 2, 1), 'log likelihood': (1,), 'log joint': (1,)}
    """

    def quantities(phi: Params, data: Data) -> Params:
        likelihood = learner.likelihood.log_prob(learner.forward(phi, data.x), data)
        found = phi | {"log likelihood": likelihood}
        try:
            return found | {"log joint": likelihood + learner.prior.log_prob(phi)}
        except UnsupportedError:  # some of phi is the same in all tasks
            return found

    return quantities


@dataclass(frozen=True, eq=False)
class RankStatistics:
    """Ranks of the truth among draws of the posterior: uniform on 0..S if the posterior is right.

    Printing it shows the verdict and the quantities that are furthest from uniform; `table()` has all of them.

    Attributes:
        ranks: `B Q`, for each simulated task and test quantity the number of draws below the truth; ties are broken at
            random.
        names: the Q test quantities.
        num_draws: S.
        title: the name of the learner that was judged.

    Example:
        >>> ranks = torch.arange(200) % 100  # as even as can be
        >>> statistics = RankStatistics(torch.stack([ranks, 30 + ranks * 2 // 5], 1), ("right", "wide"), num_draws=99)
        >>> statistics
        RankStatistics(200 simulations, 2 quantities, 99 draws)
        >>> statistics.verdicts()
        ('uniform', 'too wide')
    """

    ranks: Int[Tensor, "B Q"]
    names: tuple[str, ...]
    num_draws: int
    title: str = "posterior"

    def __repr__(self) -> str:
        """One line."""
        return f"RankStatistics({len(self.ranks)} simulations, {len(self.names)} quantities, {self.num_draws} draws)"

    def counts(self, bins: int | None = None) -> Int[Tensor, "bins Q"]:
        """How many ranks fall into each of equal bins.

        Args:
            bins: their number, a divisor of S + 1; by default the largest up to 20 with 5 ranks expected in each.

        Raises:
            DataError: a number of bins that does not divide S + 1, or no such number.
        """
        bins = _bins(self.num_draws, len(self.ranks)) if bins is None else bins
        if bins < 2 or (self.num_draws + 1) % bins:
            raise DataError(
                f"expected at least 2 bins that divide {self.num_draws + 1}, the number of ranks, got {bins}"
            )
        of_each = self.ranks // ((self.num_draws + 1) // bins)
        return torch.nn.functional.one_hot(of_each, bins).sum(0).T

    def p_values(self, bins: int | None = None) -> Float[Tensor, "Q"]:
        """Of each quantity, the probability of so uneven a histogram under uniformity: Pearson's chi-square.

        Args:
            bins: as for `counts`, which says what is raised.
        """
        counts = self.counts(bins).double()
        expected = len(self.ranks) / len(counts)
        statistic = (counts - expected).square().sum(0) / expected
        degrees = torch.full_like(statistic, len(counts) - 1.0)
        return torch.special.gammaincc(0.5 * degrees, 0.5 * statistic)

    def is_uniform(self, level: float = 0.01) -> bool:
        """Whether no p value is below level / Q (Bonferroni): a right posterior fails with a probability below `level`.

        Args:
            level: of the test of all quantities together, within (0, 1).

        Raises:
            DataError: a level outside (0, 1).
        """
        return bool((self.p_values() >= self._threshold(level)).all())

    def offset(self) -> Float[Tensor, "Q"]:
        """About how much too high the posterior is, in deviations of the right one: exact where both are Gaussian."""
        scores = self._scores()
        return -scores.mean(0) / scores.std(0).clamp(min=1e-6)

    def width(self) -> Float[Tensor, "Q"]:
        """About the posterior's deviation over the right one, below 1 if it is too narrow: exact where both are
        Gaussian, and neither far too narrow nor far off, where ranks are all 0 or S.
        """
        return self._moments()[0].sqrt() / self._scores().std(0).clamp(min=1e-6)

    def verdicts(self, level: float = 0.01) -> tuple[RankVerdict, ...]:
        """What is wrong with each quantity that does not pass at level / Q.

        Walls at both ends of the histogram: the posterior is too narrow. A hump: too wide. A slope: too high or too
        low. Where it is several things at once, the clearest is named, and `not uniform` where it is none of them.

        Args:
            level: as for `is_uniform`.

        Raises:
            DataError: a level outside (0, 1).
        """
        threshold, (second, fourth) = self._threshold(level), self._moments()
        scores, root = self._scores(), len(self.ranks) ** 0.5
        offset = scores.mean(0) / second.sqrt() * root  # standard errors
        spread = scores.var(0, correction=0)
        width = (spread - second) / (fourth - second.square()).sqrt() * root
        found: list[RankVerdict] = []
        for p, above, wider in zip(self.p_values().tolist(), offset.tolist(), width.tolist(), strict=True):
            if p >= threshold:
                found.append("uniform")
            elif max(abs(above), abs(wider)) < _CLEAR:
                found.append("not uniform")
            elif abs(above) > abs(wider):
                found.append("too low" if above > 0.0 else "too high")
            else:
                found.append("too narrow" if wider > 0.0 else "too wide")
        return tuple(found)

    def table(self, level: float = 0.01) -> "pd.DataFrame":
        """One row for each quantity: `p_value`, `offset`, `width` and `verdict`. Raises DataError like `verdicts`."""
        import pandas as pd

        columns = {"p_value": self.p_values(), "offset": self.offset(), "width": self.width()}
        frame = pd.DataFrame({name: value.numpy() for name, value in columns.items()}, index=list(self.names))
        return frame.assign(verdict=self.verdicts(level)).rename_axis("quantity")

    def __str__(self) -> str:
        """The verdict at level 0.01, and the quantities that are furthest from uniform."""
        frame = self.table().sort_values("p_value")
        wrong = int((frame["verdict"] != "uniform").sum())
        verdict = "uniform" if not wrong else f"not uniform in {wrong} of {len(frame)} quantities"
        shown = frame.head(max(3, min(wrong, 10))).to_string(float_format=lambda v: f"{v:.3g}")
        return f"{self.title}: {len(self.ranks)} simulations, {self.num_draws} draws: {verdict}\n{shown}"

    def _threshold(self, level: float) -> float:
        return probability(level, "a level") / len(self.names)

    def _scores(self) -> Float[Tensor, "B Q"]:
        """Normal scores of the ranks: standard normal, nearly, if the ranks are uniform."""
        return torch.special.ndtri((self.ranks.double() + 0.5) / (self.num_draws + 1))

    def _moments(self) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """The second and fourth moment of the normal score of a uniform rank."""
        every = torch.arange(self.num_draws + 1, dtype=torch.float64)
        scores = torch.special.ndtri((every + 0.5) / (self.num_draws + 1))
        return scores.square().mean(), scores.pow(4).mean()


def labels(name: str, shape: tuple[int, ...]) -> list[str]:
    """Names of the numbers in a tensor: `weight[0,1]`, or the name alone for a single number.

    Args:
        name: of the tensor.
        shape: of the tensor.

    Example:
        >>> labels("weight", (2, 1)), labels("scale", ())
        (['weight[0,0]', 'weight[1,0]'], ['scale'])
    """
    places = itertools.product(*map(range, shape))
    return [f"{name}[{','.join(map(str, place))}]" for place in places] if shape else [name]


def _frozen(learner: ExplicitLearner) -> ExplicitLearner:
    if not isinstance(learner, ExplicitLearner):
        raise UnsupportedError(
            f"expected a learner with an explicit prior and likelihood, got {type(learner).__name__}: simulation needs "
            "a model to simulate from. (From a wrapper such as Standardized, take the learner inside)"
        )
    frozen = learner.frozen()
    assert isinstance(frozen, ExplicitLearner)
    return frozen


def _simulated(learner: ExplicitLearner, phi: Params, x: Tensor, mask: Tensor, generator: torch.Generator) -> Data:
    """y ~ p(y | f(x; phi)): numbers `B N C`, or labels `B N`."""
    distribution = learner.likelihood(learner.forward(phi, x))
    with seeded(generator):
        y = distribution.sample()
    return Data(x, y if distribution.event_shape else y.long(), mask)


def _matched(draws: Params, truth: Params, count: int) -> Params:
    """Draws in the precision of the truth."""
    shapes = {name: (count, *value.shape) for name, value in truth.items()}
    found = {name: tuple(value.shape) for name, value in draws.items()}
    if found != shapes:
        raise ShapeError(f"expected draws of the learner's own phi, {shapes}, got {found}: the judge has another phi")
    return {name: value.to(truth[name]) for name, value in draws.items()}


def _ranks(
    truth: Shaped[Tensor, "B *shape"], draws: Shaped[Tensor, "S B *shape"], generator: torch.Generator
) -> Tensor:
    """How many draws are below the truth; the place among equals is drawn."""
    below, equal = (draws < truth).sum(0), (draws == truth).sum(0)
    place = torch.rand(truth.shape, dtype=torch.float64, device=truth.device, generator=generator)
    return below + (place * (equal + 1)).long()


def _bins(num_draws: int, simulations: int) -> int:
    """The largest divisor of S + 1, at most 20, with at least 5 simulations expected in each bin."""
    most = min(_MOST_BINS, math.floor(simulations / _LEAST_EXPECTED))
    divisors = [d for d in range(2, most + 1) if (num_draws + 1) % d == 0]
    if num_draws < 1 or not divisors:
        raise DataError(
            f"expected a number of draws whose ranks 0..S fall into 2 to {_MOST_BINS} equal bins, and 5 simulations a "
            f"bin, got {num_draws} draws and {simulations} simulations: use 99 draws and 1,000 simulations"
        )
    return divisors[-1]

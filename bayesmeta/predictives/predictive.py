"""Predictives p(y | x, D, theta) at B x M query points: observation noise included unless `noiseless` is asked for."""

from abc import ABC, abstractmethod
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, Distribution, MixtureSameFamily, Normal, StudentT

from bayesmeta import distributions
from bayesmeta.arguments import probability
from bayesmeta.count_distributions import is_of_counts
from bayesmeta.errors import DataError, ShapeError, UnsupportedError
from bayesmeta.left_censored import LeftCensored
from bayesmeta.modes import settle
from bayesmeta.one_line import OneLine, several
from bayesmeta.smoothed_student_t import SmoothedStudentT

LOG_2PI = 1.8378770664093453
"""The logarithm of 2π, which densities of Gaussians need."""

MOST_SHOWN = 4  # points in the line that a predictive is printed as


ANSWERS = (
    *("marginals", "mean", "variance", "stddev", "probs", "noiseless", "covariance", "cdf", "quantile", "interval"),
    *("log_prob", "marginal_log_prob", "output_log_prob", "rsample", "sample", "none_of_these"),
)
"""What is computed when it is asked for: no mode of torch's changes it."""


class Predictive(OneLine, ABC):
    """p(y | x, D, theta) at the M query points of a batch of tasks: what `TaskPosterior.predict` returns.

    Observation noise is included; `noiseless` is without. `log_prob` and `sample` are joint over the points of a task,
    while `mean`, `variance`, `cdf`, `quantile`, `interval` and `marginal_log_prob` take each point on its own. A
    predictive of labels has `probs` in place of a mean and quantiles.

    A subclass gives `marginals`, `log_prob` and `rsample`. Most methods need no subclass of their own: any torch
    distribution becomes a predictive by `IndependentPredictive`.

    Example:
        >>> import bayesmeta as bm
        >>> posterior = bm.ALPaCA(bm.Identity(1)).adapt(bm.Data.from_arrays([0.0, 1.0, 2.0], [1.0, 3.0, 5.0]))
        >>> predictive = posterior.predict([1.5, 10.0])
        >>> predictive
        prediction at 2 points: mean [3.5, 17.7], sd [0.374, 1.55]
        >>> lower, upper = predictive.interval(0.9)
        >>> lower.shape, predictive.sample((100,)).shape
        (torch.Size([1, 2, 1]), torch.Size([100, 1, 2, 1]))
        >>> predictive.log_prob(torch.tensor([[[4.0], [21.0]]])).shape  # joint over both points
        torch.Size([1])
        >>> bm.R2D2(bm.Identity(1)).adapt(bm.Data.from_labels([0.0, 1.0], [0, 1])).predict([0.0]).probs.argmax().item()
        0
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Let no mode of torch's change what is answered."""
        super().__init_subclass__(**kwargs)
        settle(cls, ANSWERS)

    def __repr__(self) -> str:
        """One line: of a single task, what is predicted at its first points; of several, how many there are."""
        tasks, points = self.shape[:2]
        line = f"prediction at {several(points, 'point')}"
        if tasks != 1:
            return f"{line} of {several(tasks, 'task')}"
        if points == 0:
            return line
        if isinstance(self.marginals, Bernoulli | Categorical):
            return f"{line}: class probabilities {_shown(self.probs[0])}"
        return f"{line}: mean {_shown(self.mean[0])}, sd {_shown(self.stddev[0])}"

    @property
    @abstractmethod
    def marginals(self) -> Distribution:
        """The distribution of each point on its own: batch shape (B, M), event shape (C,), or () for labels."""

    @abstractmethod
    def log_prob(self, y: Shaped[Tensor, "B M *c"], mask: Bool[Tensor, "B M"] | None = None) -> Float[Tensor, "B"]:
        """The joint log density of the real points of each task, in nats.

        Args:
            y: outcomes.
            mask: True at the points that count; all of them when None.

        Raises:
            ShapeError: y or the mask does not have the shape of the prediction.
        """

    @abstractmethod
    def rsample(
        self, sample_shape: tuple[int, ...] | int = (), generator: torch.Generator | None = None
    ) -> Shaped[Tensor, "*s_B_M_c"]:
        """Joint draws, with gradients where the distribution has them.

        Args:
            sample_shape: the leading axes of the draws, or their number, which is one such axis.
            generator: torch's global one when None.

        Raises:
            DataError: sizes that are not whole numbers.
        """

    @property
    def noiseless(self) -> "Predictive":
        """The predictive of f, without observation noise. Raises UnsupportedError where f and noise do not separate."""
        raise UnsupportedError(f"{type(self).__name__} does not separate f from its noise")

    def with_noise(self, noise: Float[Tensor, "B M C"]) -> "Predictive":
        """The predictive of outcomes that have known noise of their own, beside that which the learner has learned.

        Args:
            noise: its variance, squared units of y; `yerr` squared.

        Raises:
            UnsupportedError: noise cannot be added to this predictive.

        Example:
            >>> import bayesmeta as bm
            >>> predictive = bm.ALPaCA(bm.Identity(1)).adapt(bm.Data.from_arrays([], [])).predict([1.0])
            >>> difference = predictive.with_noise(torch.full((1, 1, 1), 9.0)).variance - predictive.variance
            >>> round(difference.item(), 4)
            9.0
        """
        raise UnsupportedError(f"{type(self).__name__} cannot be added known noise (yerr)")

    def sample(
        self, sample_shape: tuple[int, ...] | int = (), generator: torch.Generator | None = None
    ) -> Shaped[Tensor, "*s_B_M_c"]:
        """Joint draws without gradients; arguments as for `rsample`."""
        with torch.no_grad():
            return self.rsample(sample_shape, generator)

    def marginal_log_prob(self, y: Shaped[Tensor, "B M *c"]) -> Float[Tensor, "B M"]:
        """The log density of each point on its own, over all its outputs, in nats.

        Raises:
            ShapeError: y does not have the shape of the prediction.
            DataError: a label that is no class.
        """
        marginals = self.marginals
        require_shape(y, self.shape)
        if y.shape[1] == 0:  # torch's Independent fails on zero points
            dtype = y.dtype if y.is_floating_point() else self.probs.dtype
            return torch.zeros(y.shape[:2], dtype=dtype, device=y.device)
        if isinstance(marginals, Bernoulli | Categorical):
            require_labels(y, self.probs.shape[-1])
        if isinstance(marginals, Bernoulli):  # torch wants its labels in floating point
            y = y.to(marginals.probs.dtype)
        return marginals.log_prob(y)

    def output_log_prob(self, y: Shaped[Tensor, "B M *c"]) -> Float[Tensor, "B M C"]:
        """The log density of each output of each point on its own, in nats; of predictions of numbers.

        Raises:
            ShapeError: y does not have the shape of the prediction.
            UnsupportedError: the prediction is of labels.
        """
        marginals = self._regression()
        require_shape(y, self.shape)
        if self.shape[-1] == 1:  # the density of the point, which also marginals that are no torch family can give
            return self.marginal_log_prob(y)[..., None]
        return distributions.univariate(marginals).log_prob(y)

    @property
    def mean(self) -> Float[Tensor, "B M C"]:
        """The predictive mean, units of y."""
        marginals = self._regression()
        return distributions.answered(marginals, lambda: marginals.mean, "mean")

    @property
    def variance(self) -> Float[Tensor, "B M C"]:
        """The predictive variance, squared units of y, noise included."""
        marginals = self._regression()
        return distributions.answered(marginals, lambda: marginals.variance, "variance")

    @property
    def stddev(self) -> Float[Tensor, "B M C"]:
        """The predictive standard deviation, units of y, noise included."""
        return self.variance.sqrt()

    @property
    def probs(self) -> Float[Tensor, "B M C"]:
        """The class probabilities. Raises UnsupportedError for a predictive of numbers."""
        marginals = self.marginals
        if isinstance(marginals, Bernoulli):
            return torch.stack([1.0 - marginals.probs, marginals.probs], -1)
        if isinstance(marginals, Categorical):
            return marginals.probs
        raise UnsupportedError("class probabilities of a regression predictive do not exist: use mean and stddev")

    def cdf(self, y: Float[Tensor, "B M C"]) -> Float[Tensor, "B M C"]:
        """P(Y <= y) of each output of each point on its own. Raises ShapeError like `log_prob`."""
        distribution = distributions.univariate(self._regression())
        require_shape(y, distribution.batch_shape)
        return distributions.cdf(distribution, y)

    @property
    def of_counts(self) -> bool:
        """Whether what is predicted are counts: quantiles and intervals are then whole numbers.

        Example:
            >>> import bayesmeta as bm
            >>> learner = bm.MAML(bm.MLP(1, [8]), likelihood=bm.likelihoods.Poisson())
            >>> learner.adapt(bm.Data.from_arrays([0.0], [2.0])).predict([1.0]).of_counts
            True
        """
        return is_of_counts(self.marginals)

    def quantile(self, q: float) -> Float[Tensor, "B M C"]:
        """The q-quantile of each output of each point, units of y; of counts the smallest y with P(Y <= y) >= q.

        Args:
            q: one level; ask once for each.

        Raises:
            DataError: unless it is a number with 0 < q < 1.
        """
        return self._quantile(probability(q, "a quantile level"))

    def interval(self, level: float = 0.9) -> tuple[Float[Tensor, "B M C"], Float[Tensor, "B M C"]]:
        """The central interval (lower, upper) that holds y with probability `level`, output by output.

        Of counts its ends are whole numbers that belong to it, and the probability is `level` at least.

        Raises:
            DataError: unless 0 < level < 1.
        """
        level = probability(level, "a level")
        return self.quantile((1.0 - level) / 2.0), self.quantile((1.0 + level) / 2.0)

    def _quantile(self, q: float) -> Tensor:
        distribution = distributions.univariate(self._regression())
        known = isinstance(distribution, Normal | StudentT | SmoothedStudentT | LeftCensored | MixtureSameFamily)
        if known or is_of_counts(distribution):
            return distributions.quantile(distribution, q)
        # by Cantelli's inequality the root is within sqrt(max(q, 1 - q) / min) deviations of the mean
        reach = ((max(q, 1.0 - q) / min(q, 1.0 - q)) ** 0.5 + 1e-6) * self.stddev
        return distributions.bisect(partial(distributions.cdf, distribution), self.mean - reach, self.mean + reach, q)

    @property
    def shape(self) -> torch.Size:
        """The shape that y must have: `B M C`, or `B M` for labels."""
        marginals = self.marginals
        return marginals.batch_shape + marginals.event_shape

    def _regression(self) -> Distribution:
        marginals = self.marginals
        if isinstance(marginals, Bernoulli | Categorical):
            raise UnsupportedError("labels have no mean, variance or quantiles: use probs")
        return marginals


settle(Predictive, ANSWERS)


def _shown(values: Float[Tensor, "M C"]) -> str:
    """The first points with three digits; a single output without brackets of its own."""
    rows = [[f"{value:.3g}" for value in row] for row in values[:MOST_SHOWN].tolist()]
    parts = [row[0] if len(row) == 1 else f"[{', '.join(row)}]" for row in rows]
    return f"[{', '.join([*parts, *(['...'] if len(values) > MOST_SHOWN else [])])}]"


def require_shape(value: Tensor, shape: torch.Size, name: str = "y") -> None:
    """Raise ShapeError unless the shape is this one: broadcasting would score every outcome at every point.

    Raises:
        DataError: the value is not a tensor.
        ShapeError: its shape is another.
    """
    if not isinstance(value, Tensor):
        raise DataError(f"expected {name} to be a tensor of shape {tuple(shape)}, got {type(value).__name__}")
    if value.shape != shape:
        raise ShapeError(f"expected {name} of shape {tuple(shape)}, got {tuple(value.shape)}")


def require_labels(y: Tensor, classes: int) -> None:
    """Raise DataError unless these are labels from 0 to C - 1."""
    if torch.compiler.is_compiling():  # recorded code decides nothing
        return
    wrong = y[(y != y.long()) | (y < 0) | (y >= classes)]
    if len(wrong):
        raise DataError(f"expected labels from 0 to {classes - 1}, got {wrong[0].item()}")


def require_mask(mask: Tensor, shape: torch.Size) -> None:
    """Raise ShapeError unless this is a mask of such points, and DataError unless it is boolean."""
    require_shape(mask, shape[:2], "mask")
    if mask.dtype != torch.bool:
        raise DataError(f"expected a boolean mask, got {mask.dtype}")

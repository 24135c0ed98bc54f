"""Hyperpriors p(theta): what is believed of the meta-parameters before any task is seen."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from typing_extensions import override

from bayesmeta.description import Described
from bayesmeta.errors import DataError
from bayesmeta.positive_numbers import PositiveNumbers, positive_numbers
from bayesmeta.typing import Params

__all__ = ["DeviationHyperprior", "GaussianHyperprior", "Hyperprior", "LogNormalHyperprior"]

LOG_2PI = math.log(2.0 * math.pi)


class Hyperprior(Described, ABC):
    """p(theta), a density over the named parameters of a learner. A subclass gives `log_prob`.

    Training a `WithHyperprior` is maximum a posteriori in theta (PACOH-MAP, Rothfuss et al. 2021, arXiv:2002.05551);
    `nuts_hyper_posterior` and its like give the whole of p(theta | tasks). Parameters that it does not mention have a
    flat density.

    Example:
        >>> import bayesmeta as bm
        >>> class SmallMean(bm.hyperpriors.Hyperprior):
        ...     '''N(0, 1) on the prior mean of an ALPaCA.'''
        ...     def log_prob(self, theta):
        ...         return -0.5 * theta["prior.location"].square().sum()
        >>> learner = bm.ALPaCA(bm.Identity(1))
        >>> _ = learner.prior.location.data.fill_(2.0)
        >>> SmallMean().log_prob(dict(learner.named_parameters())).item()
        -4.0
    """

    @abstractmethod
    def log_prob(self, theta: Params) -> Float[Tensor, ""]:
        """log p(theta), in nats, up to a constant.

        Raises:
            DataError: theta lacks what this is a prior of.
        """

    def of(self, learner: nn.Module) -> Float[Tensor, ""]:
        """log p of a learner's theta, as what is trained has it, in nats: what the library calls.

        Args:
            learner: its `named_parameters` are theta.
        """
        return self.log_prob(dict(learner.named_parameters()))


class GaussianHyperprior(Hyperprior):
    """N(0, scale²) on every number of the parameters chosen by their names: by default the weights of the features.

    Args:
        scale: a standard deviation, units of the parameters.
        names: name prefixes of the parameters, as the `named_parameters` of the learner inside all wrappers has them:
            the same for `ALPaCA(...)` and `Standardized(ALPaCA(...))`.

    Raises:
        DataError: a scale that is not positive, or no name prefixes.

    Example:
        >>> import bayesmeta as bm
        >>> hyperprior = bm.hyperpriors.GaussianHyperprior(scale=0.5)
        >>> learner = bm.wrappers.WithHyperprior(bm.DeepKernelTransfer(bm.MLP(1, [8])), hyperprior)
        >>> bool(learner.log_hyperprior() == hyperprior.log_prob(dict(learner.named_parameters())))
        True
    """

    def __init__(self, scale: float = 1.0, names: Sequence[str] | str = ("features",)) -> None:
        self.scale, self.names = _positive(scale), (names,) if isinstance(names, str) else tuple(names)
        if not self.names or not all(isinstance(name, str) and name for name in self.names):
            raise DataError(f"expected at least one name prefix, got {self.names}")

    def log_prob(self, theta: Params) -> Float[Tensor, ""]:
        """Σ of Gaussian log densities, in nats."""
        prefixes = tuple(_inside(name) for name in self.names)
        for prefix in prefixes:
            if not any(_inside(key).startswith(prefix) for key in theta):
                raise DataError(
                    f"expected a hyperprior over parameters of the learner, got {prefix!r} for {list(theta)}"
                )
        chosen = [value for key, value in theta.items() if _inside(key).startswith(prefixes)]
        squares = torch.stack([value.double().square().sum() for value in chosen]).sum()
        count = sum(value.numel() for value in chosen)
        return -0.5 * squares / self.scale**2 - count * (math.log(self.scale) + 0.5 * LOG_2PI)


class LogNormalHyperprior(Hyperprior):
    """log v ~ N(log median, scale²) for positive numbers v: length scales, periods, variances, noise.

    It is a density of the values, whatever raw numbers stand for them in training: `of` has the Jacobian, so that draws
    of theta are draws under it, and a maximum is that over the raw numbers, which are the logarithms far below one.
    With the usual scale a number a hundred times the median, or a hundredth of it, lies two deviations away: what few
    tasks say outweighs it, and where they say nothing of a number (the period of a wave of no amplitude) it does not
    run off. It is in units of the inputs and outcomes: use `Standardized`.

    Args:
        median: of every number.
        scale: the standard deviation of the logarithms.
        names: name prefixes of the parameters, as for `GaussianHyperprior`; all positive numbers without any.

    Raises:
        DataError: a median or scale that is not positive.

    Example:
        >>> import bayesmeta as bm
        >>> hyperprior = bm.hyperpriors.LogNormalHyperprior(scale=1.0)
        >>> values = {"lengthscale": torch.tensor([0.5, 2.0])}
        >>> bool(hyperprior.log_prob(values).isclose(torch.distributions.LogNormal(0.0, 1.0).log_prob(
        ...     values["lengthscale"]).sum().double()))
        True
        >>> learner = bm.Standardized(bm.wrappers.WithHyperprior(bm.DeepKernelTransfer(bm.Identity(1)), hyperprior))
    """

    def __init__(self, median: float = 1.0, scale: float = 2.3, names: Sequence[str] | str = ()) -> None:
        self.median, self.scale = _positive(median), _positive(scale)
        self.names = (names,) if isinstance(names, str) else tuple(names)

    def log_prob(self, theta: Params) -> Float[Tensor, ""]:
        """Σ of log-normal log densities of the values themselves, in nats."""
        logs = torch.cat([value.double().log().flatten() for value in theta.values()])
        z = (logs - math.log(self.median)) / self.scale
        return -0.5 * z.square().sum() - logs.sum() - len(logs) * (math.log(self.scale) + 0.5 * LOG_2PI)

    @override
    def of(self, learner: nn.Module) -> Float[Tensor, ""]:
        """Σ of log densities of the raw numbers, in nats: those of the values, and the Jacobian.

        Raises:
            DataError: the learner has no such positive numbers.
        """
        numbers = self.numbers(learner)
        slopes = torch.cat([each.log_slope.flatten() for each in numbers.values()])
        return self.log_prob({name: each.value for name, each in numbers.items()}) + slopes.sum()

    def numbers(self, learner: nn.Module) -> dict[str, PositiveNumbers]:
        """The positive numbers of a learner that this is a prior of, by the names of their parameters.

        Raises:
            DataError: there are none.
        """
        found = positive_numbers(learner)
        prefixes = tuple(_inside(name) for name in self.names)
        chosen = {name: each for name, each in found.items() if not prefixes or _inside(name).startswith(prefixes)}
        if not chosen:
            raise DataError(f"expected positive numbers {' or '.join(self.names)} in the learner, got {list(found)}")
        return chosen


class DeviationHyperprior(Hyperprior):
    """Half Student t on the standard deviations of a mixed model, as `ALPaCA` has them: of the noise and between tasks.

    Gelman 2006 ("Prior distributions for variance parameters in hierarchical models"): flat near zero, so that the data
    may say that tasks do not differ, and with tails that let them differ much. Between tasks it is on every number of
    the factor L of the prior covariance, times the deviation of the noise: on the diagonal stand the deviations of the
    weights given those before them, whose sign means nothing, and below it what they have in common with those before.
    The prior mean has a flat density.

    Args:
        scale: the scale of the half t, units of y: the order of magnitude to be expected. In `Standardized` units 2.5.
        dof: degrees of freedom; 1 gives the half Cauchy.

    Raises:
        DataError: a scale or degrees of freedom that are not positive.

    Example:
        >>> import bayesmeta as bm
        >>> hyperprior = bm.hyperpriors.DeviationHyperprior()
        >>> learner = bm.ALPaCA(bm.Identity(1))
        >>> usual = hyperprior.log_prob(dict(learner.named_parameters()))
        >>> learner.prior.noise.value.set(1e4)  # a noise deviation of 100 is far above the scale
        >>> bool(hyperprior.log_prob(dict(learner.named_parameters())) < usual)
        True
    """

    def __init__(self, scale: float = 2.5, dof: float = 3.0) -> None:
        self.scale, self.dof = _positive(scale), _positive(dof)

    def log_prob(self, theta: Params) -> Float[Tensor, ""]:
        """Σ of log densities of the parameters, deviations in units of that of the noise and its log, in nats."""
        noise = 0.5 * self._find(theta, "noise.value.raw").double()  # log deviation, far from its bounds
        ratio = self._find(theta, "covariance.lower", "covariance.stddev").double()
        if len(noise) != 1:
            raise DataError(f"expected one output, got {len(noise)}: write a Hyperprior of your own")
        # densities of deviations, and the Jacobians: of a log, and of the unit of each ratio
        deviations = ratio.flatten() * noise.exp()
        return self._t(noise.exp()).sum() + self._t(deviations).sum() + (1 + deviations.numel()) * noise.sum()

    def _t(self, deviation: Tensor) -> Tensor:
        """Log density of a deviation, up to a constant."""
        return -0.5 * (self.dof + 1.0) * ((deviation / self.scale).square() / self.dof).log1p()

    def _find(self, theta: Params, *ends: str) -> Tensor:
        found = [value for key, value in theta.items() if key.endswith(ends)]
        if len(found) != 1:
            raise DataError(f"expected the parameters of one ALPaCA, got {sorted(theta)}")
        return found[0]


def _inside(name: str) -> str:
    """The name of a parameter as the learner inside all wrappers has it: each holds what it wraps as `learner`."""
    while name.startswith("learner."):
        name = name.removeprefix("learner.")
    return name


def _positive(value: float) -> float:
    if not 0.0 < value < math.inf:
        raise DataError(f"expected a positive number, got {value}")
    return value

"""The posterior as draws around the mode, each weighted by what Laplace's approximation gets wrong there.

Draws come from a defensive mixture q (Hesterberg 1995, "Weighted average importance sampling and defensive mixture
distributions", Technometrics 37), half of them from the Laplace approximation, a quarter from one of twice its
deviations, a quarter from the prior:

    q(phi) = ½ N(phi_hat, Cov) + ¼ N(phi_hat, 4 Cov) + ¼ p(phi | theta)
    w_s ∝ p(D, phi_s | theta) / q(phi_s)

The draws of the prior see a second mode, where the Gaussian around phi_hat is blind to it, and bound the weights. The
weights correct skewness, tails and curvature: with enough draws the posterior is exact. It is for phi of a few numbers.
"""

import math
import warnings
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Independent, Normal
from torch.quasirandom import SobolEngine
from typing_extensions import override

from bayesmeta.arguments import some, whole
from bayesmeta.data import Data
from bayesmeta.errors import ConvergenceWarning, UnsupportedError
from bayesmeta.learner import ExplicitLearner
from bayesmeta.learners.gradient.base import GradientLearner
from bayesmeta.learners.gradient.posteriors import Approximation, GradientPosterior, LinearizableLearner
from bayesmeta.linalg import cholesky, logdet
from bayesmeta.predictives import IndependentPredictive, MixturePredictive
from bayesmeta.priors import StandardNormal
from bayesmeta.priors.prior import LOG_2PI
from bayesmeta.typing import Params

SHARES = ((0.5, 1.0), (0.25, 2.0))  # of the draws, and their deviations in those of Laplace; the rest are of the prior
FEW = 0.02  # of the draws that count: below it a handful has all of the weight


class WeightedDraws(Approximation):
    """Draws around the mode with importance weights, and the likelihood averaged over them: no linearisation.

    Where f bends within the width of the posterior, as with few points, this is what `Linearized` misses: skewness,
    bounds, a second mode. It asks for an explicit standard normal prior, as `Parametric` and `CAVIA` have, and for phi
    of a few numbers: in many dimensions a few draws get all of the weight, of which `adapt` warns.

    Args:
        num_draws: S, a multiple of 4 at best; a power of 2 spreads them most evenly.

    Raises:
        DataError: no draws.
        UnsupportedError: when adapting, a learner with another prior.

    Example:
        >>> import bayesmeta as bm
        >>> scales = {"Vmax": bm.parametric.Positive(200.0), "Km": bm.parametric.Positive(0.05)}
        >>> likelihood = bm.likelihoods.Gaussian(bm.noise.DiagonalNoise(initial=25.0))
        >>> learner = bm.Parametric(
        ...     bm.parametric.MichaelisMenten(), scales, likelihood=likelihood, posterior=WeightedDraws(256)
        ... )
        >>> posterior = learner.adapt(bm.Data.from_arrays([0.02], [70.0]))
        >>> low, high = posterior.predict([1.0]).interval(0.9)  # no more than Vmax, which one point hardly tells
        >>> bool(low < 150.0 < high), bool(posterior.effective > 100)
        (True, True)
    """

    def __init__(self, num_draws: int = 512) -> None:
        self.num_draws = some(num_draws, "num_draws", "draw")

    def of(self, learner: LinearizableLearner, support: Data, phi: Params) -> "WeightedDrawsPosterior":
        """The weighted draws around phi."""
        if (
            not isinstance(learner, GradientLearner)
            or not isinstance(learner, ExplicitLearner)
            or not isinstance(learner.prior, StandardNormal)
        ):
            raise UnsupportedError(
                f"expected a learner with a standard normal prior, such as Parametric or CAVIA, got {learner.title}"
            )
        precise, data = learner.precise(support)
        mode = torch.cat([value.flatten(1) for value in phi.values()], 1).to(data.x.dtype)
        at = {name: value.to(mode.dtype) for name, value in phi.items()}
        white = precise.curvature(data, at).white().to(mode.dtype)
        eye = torch.eye(mode.shape[1], dtype=mode.dtype, device=mode.device)
        factor = cholesky(eye + white.mT @ white, "posterior precision")  # B P P
        normal = _normals(self.num_draws, mode)[:, None]
        parts, done = [], 0
        for share, scale in SHARES:
            count = int(share * self.num_draws)
            step = torch.linalg.solve_triangular(factor.mT, normal[done : done + count, ..., None], upper=True)
            parts.append(mode + scale * step[..., 0])
            done += count
        parts.append(normal[done:].expand(-1, len(mode), -1))
        draws = torch.cat(parts)  # S B P
        log_q = _log_proposal(draws, mode, factor, self.num_draws)
        sizes = [value[0].numel() for value in phi.values()]
        named = {
            name: part.reshape(len(draws), *value.shape)
            for (name, value), part in zip(phi.items(), draws.split(sizes, -1), strict=True)
        }
        log_weights = (precise.objective(data)(named) - log_q).mT.log_softmax(-1).to(support.x.dtype)
        draws_of = {name: value.to(support.x.dtype) for name, value in named.items()}
        return WeightedDrawsPosterior(
            spec=support.spec, learner=learner, support=support, phi=phi, draws=draws_of, log_weights=log_weights
        ).checked()


def _normals(count: int, like: Tensor) -> Float[Tensor, "S P"]:
    """Standard normal numbers, evenly spread: the same for every task, so that a batch is as its tasks."""
    engine = SobolEngine(like.shape[1], scramble=True, seed=0)
    first = engine.quasi.double() / 2**engine.MAXBIT  # torch divides this one in its default precision
    uniform = torch.cat([first[None], engine.draw(count, dtype=torch.float64)[1:]])
    half = 0.5 / 2**30  # of the distance of Sobol's numbers from each other: none is 0 or 1
    normal = torch.special.ndtri(uniform.clamp(half, 1.0 - half))
    return normal.to(like)


def _log_proposal(draws: Tensor, mode: Tensor, factor: Tensor, num_draws: int) -> Float[Tensor, "S B"]:
    """log q at draws, each component with the share of the draws that are its own."""
    size, terms, done = mode.shape[1], [], 0
    distance = (factor.mT @ (draws - mode)[..., None])[..., 0].square().sum(-1)
    for share, scale in SHARES:
        count = int(share * num_draws)
        done += count
        if count:
            log_share = math.log(count / num_draws) - size * math.log(scale)
            terms.append(log_share + 0.5 * logdet(factor) - 0.5 * distance / scale**2)
    if done < num_draws:
        terms.append(math.log(1.0 - done / num_draws) - 0.5 * draws.square().sum(-1))
    return torch.stack(terms).logsumexp(0) - 0.5 * size * LOG_2PI


@dataclass(frozen=True, eq=False, kw_only=True)
class WeightedDrawsPosterior(GradientPosterior):
    """phi | D held as draws with weights. Its predictive is the mixture of the likelihoods at them.

    Attributes:
        draws: each value `S B *shape`.
        log_weights: `B S`, normalised.

    Example:
        >>> import bayesmeta as bm
        >>> learner = bm.CAVIA(bm.MLP(1, [8]), num_context=2, posterior=WeightedDraws(64))
        >>> posterior = learner.adapt(bm.Data.from_arrays([0.0, 1.0], [0.5, 0.7]))
        >>> posterior.draws["context"].shape, posterior.log_weights.shape
        (torch.Size([64, 1, 2]), torch.Size([1, 64]))
        >>> posterior.sample(1000)["context"].shape
        torch.Size([1000, 1, 2])
    """

    draws: Params
    log_weights: Float[Tensor, "B S"]

    @property
    @override
    def mean(self) -> Params:
        """The posterior mean of phi: each value `B *shape`."""
        weights = self.log_weights.exp().mT
        return {
            name: (weights.reshape(*weights.shape, *[1] * (value.ndim - 2)) * value).sum(0)
            for name, value in self.draws.items()
        }

    @property
    def effective(self) -> Float[Tensor, "B"]:
        """How many draws of equal weight these are worth: 1 / Σ w²."""
        return (-(2.0 * self.log_weights).logsumexp(-1)).exp()

    def checked(self) -> "WeightedDrawsPosterior":
        """Itself, with a warning of tasks in which few draws have all of the weight, where no gradients are wanted."""
        if not torch.is_grad_enabled() and not torch.compiler.is_compiling():
            share = self.effective / self.log_weights.shape[1]
            if (count := int((~(share >= FEW)).sum())) > 0:
                warnings.warn(
                    f"{self.learner.title}: in {count} of {len(share)} tasks {share.min().item():.1%} of the draws "
                    "have nearly all of the weight: the mode is not where the mass is. Give WeightedDraws more draws, "
                    "or use Sampled",
                    ConvergenceWarning,
                    stacklevel=2,
                )
        return self

    def sample(self, num_draws: int, generator: torch.Generator | None = None) -> Params:
        """Draws of phi, each value `S B *shape`: of those held, as often as they weigh."""
        num_draws, weights = whole(num_draws, "num_draws"), self.log_weights.exp()
        chosen = torch.multinomial(weights, max(num_draws, 1), replacement=True, generator=generator).mT[:num_draws]
        tasks = torch.arange(len(weights), device=weights.device)
        return {name: value[chosen, tasks] for name, value in self.draws.items()}

    @override
    def at(self, x: Float[Tensor, "B M *x"]) -> MixturePredictive:
        f = self.learner.forward(self.draws, x).transpose(0, 1)  # B S M K
        points = f.flatten(0, 1)
        known = torch.finfo(f.dtype).eps * (points.abs() + torch.finfo(f.dtype).tiny ** 0.5)  # a draw says what f is
        latent = Independent(Normal(points, known, validate_args=False), 1)
        return MixturePredictive(self.log_weights, IndependentPredictive(self.learner.likelihood(points), latent))

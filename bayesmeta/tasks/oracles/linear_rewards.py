"""Bayesian linear regression under the true prior: the exact posterior of linear and Gaussian bandits."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor
from typing_extensions import override

from bayesmeta.arguments import whole
from bayesmeta.data import Data
from bayesmeta.distributions import common_normals
from bayesmeta.errors import DataError
from bayesmeta.inference import linear_gaussian
from bayesmeta.inference.linear_gaussian import LinearGaussian
from bayesmeta.learner import TaskPosterior
from bayesmeta.outcomes import Numbers
from bayesmeta.predictives import GaussianPredictive
from bayesmeta.tasks.oracles.oracle import Oracle
from bayesmeta.typing import Params


class LinearRewardsOracle(Oracle):
    """The Bayes-optimal learner of y = wᵀ x + ε,  w ~ N(mean, covariance),  ε ~ N(0, noise variance).

    Args:
        mean: of the weights, D numbers.
        covariance: of the weights, `D D`.
        noise_variance: of ε, positive.

    Attributes:
        root: L, with covariance = L Lᵀ.

    Raises:
        DataError: noise that is not positive, or a covariance that is not of D weights, symmetric and positive
            definite.

    Example:
        >>> import bayesmeta as bm
        >>> oracle = bm.tasks.LinearBandits(mean=[1.0, -1.0]).oracle
        >>> posterior = oracle.adapt(bm.Data.from_arrays([[2.0, 0.0]], [7.0]))
        >>> posterior.predict([[1.0, 0.0], [0.0, 1.0]])
        prediction at 2 points: mean [3, -1], sd [1.1, 1.41]
        >>> posterior.sample(10)["weight"].shape
        torch.Size([10, 1, 2])
    """

    def __init__(self, mean: Sequence[float], covariance: Sequence[Sequence[float]], noise_variance: float) -> None:
        super().__init__()
        if not noise_variance > 0.0:
            raise DataError(f"expected a positive noise variance, got {noise_variance}")
        location, matrix = (torch.as_tensor(each, dtype=torch.float64) for each in (mean, covariance))
        if location.ndim != 1 or not len(location) or matrix.shape != (len(location), len(location)):
            raise DataError(
                f"expected a mean of D weights and a covariance D x D, got shapes {tuple(location.shape)} and "
                f"{tuple(matrix.shape)}"
            )
        root, failed = torch.linalg.cholesky_ex(matrix)
        if bool(failed) or not torch.equal(matrix, matrix.mT):
            raise DataError(f"expected a covariance that is symmetric and positive definite, got {matrix.tolist()}")
        self.mean, self.root = tuple(location.tolist()), tuple(map(tuple, root.tolist()))
        self.noise_variance = noise_variance
        self.x_shape, self.outcomes = (len(location),), Numbers(1)

    def whitened(self, data: Data) -> tuple[Float[Tensor, "B N D"], Float[Tensor, "B N 1"]]:
        """Inputs in units in which the weights are N(0, noise variance), and outcomes less their prior mean."""
        return self.rows(data.x), data.y.double() - data.x.double() @ self._mean(data.x)

    def rows(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        """The whitened inputs alone."""
        root = torch.tensor(self.root, dtype=torch.float64, device=x.device)
        return x.double() @ root / self.noise_variance**0.5

    def prior_mean(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N 1"]:
        """Of an outcome."""
        return x.double() @ self._mean(x)

    def _mean(self, like: Tensor) -> Float[Tensor, "D 1"]:
        return torch.tensor(self.mean, dtype=torch.float64, device=like.device)[:, None]

    @override
    def condition(self, support: Data) -> "LinearRewardsPosterior":
        belief = linear_gaussian.condition(*self.whitened(support), support.mask)
        return LinearRewardsPosterior(spec=support.spec, learner=self, belief=belief, seen=support.counts)

    @override
    def evidence(self, data: Data) -> Float[Tensor, "B"]:
        unit = torch.full((1, 1), self.noise_variance, dtype=torch.float64, device=data.x.device)
        return linear_gaussian.log_evidence(*self.whitened(data), data.mask, unit)


@dataclass(frozen=True, eq=False, kw_only=True)
class LinearRewardsPosterior(TaskPosterior):
    """w | D. More points cost the same whatever came before.

    Attributes:
        learner: knows the prior.
        belief: of the whitened weights.
        seen: how many points of each task.
    """

    learner: LinearRewardsOracle
    belief: LinearGaussian
    seen: Int[Tensor, "B"]

    @property
    @override
    def points_seen(self) -> Int[Tensor, "B"]:
        return self.seen

    @override
    def sample(self, num_draws: int, generator: torch.Generator | None = None) -> Params:
        """Draws of w, `S B D`."""
        mean, root = self.belief.moments()
        normal = common_normals((whole(num_draws, "num_draws"), *mean.shape), mean, generator)
        draws = mean + self.learner.noise_variance**0.5 * root @ normal
        prior = torch.tensor(self.learner.mean, dtype=torch.float64, device=mean.device)
        factor = torch.tensor(self.learner.root, dtype=torch.float64, device=mean.device)
        # rows are x L / σ, so that w = mean + L z / σ
        return {"weight": prior + (factor @ draws)[..., 0] / self.learner.noise_variance**0.5}

    @override
    def at(self, x: Float[Tensor, "B M D"]) -> GaussianPredictive:
        rows = self.learner.rows(x)
        mean, variance = self.belief.predict(rows)
        return GaussianPredictive(
            location=self.learner.prior_mean(x) + mean,
            latent_variance=variance,
            latent_covariance=partial(self.belief.covariance, rows),
            output_covariance=mean.new_full((1, 1), self.learner.noise_variance),
            latent_root=partial(self.belief.spread, rows),
        )

    @override
    def extended(self, data: Data) -> "LinearRewardsPosterior":
        belief = self.belief.update(*self.learner.whitened(data), data.mask)
        return replace(self, belief=belief, seen=self.seen + data.counts)

    @override
    def selected(self, tasks: Int[Tensor, "K"]) -> "LinearRewardsPosterior":
        spec = self.spec.of_tasks(len(tasks))
        return replace(self, spec=spec, belief=self.belief.select(tasks), seen=self.seen[tasks])

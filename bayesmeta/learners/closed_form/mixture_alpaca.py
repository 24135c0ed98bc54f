"""ALPaCA with a mixture of priors: for tasks that a single Gaussian prior describes badly.

After Almecija, Sharma, Azizan 2022, "Uncertainty-aware meta-learning for multimodal task distributions"
(arXiv:2210.01881), who put a mixture of Gaussians over the weights of a linearised network; here the weights are
ALPaCA's last layer (Harrison et al. 2018), so that everything stays exact:

    y = Wᵀ h(x) + ε,   ε ~ N(0, Σ),   W ~ Σ_s π_s MN(K_s, V_s, Σ)
    p(s | D) ∝ π_s p(D | s),   p(y* | x*, D) = Σ_s p(s | D) N(y*; ALPaCA's predictive under prior s)

    phi         W, the last layer, F x C; with a task scale also log λ
    prior       a mixture of S matrix normals, explicit
    likelihood  Gaussian, noise covariance Σ over the outputs
    inference   exact, in float64 whatever the precision of the features
"""

import copy
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor
from typing_extensions import override

from bayesmeta.arguments import generator_of, whole
from bayesmeta.data import Data
from bayesmeta.distributions import common_normals
from bayesmeta.errors import DataError, retelling
from bayesmeta.inference import linear_gaussian
from bayesmeta.inference.linear_gaussian import LinearGaussian
from bayesmeta.inverse_gamma import InverseGamma
from bayesmeta.learner import TaskPosterior
from bayesmeta.learners.closed_form.last_layer import LastLayerRegression
from bayesmeta.learners.closed_form.linear_posterior import (
    COEFFICIENT_DRAWS,
    log_jacobian,
    noise_root,
    relative_noise,
)
from bayesmeta.linalg import cholesky, exceeds
from bayesmeta.networks.network import Network
from bayesmeta.noise import Noise
from bayesmeta.predictives import GaussianPredictive, MixturePredictive, StudentTPredictive
from bayesmeta.priors import MatrixNormal, MatrixNormalMixture, TaskScale
from bayesmeta.summaries import Coefficients, Columns
from bayesmeta.typing import Params


class MixtureALPaCA(LastLayerRegression):
    """Exact Bayesian linear regression on shared features, with a mixture of matrix normals as prior.

    The predictive is a mixture of Gaussians: unlike that of ALPaCA, its width depends on the outcomes seen, not only on
    where they were seen. theta is the weights of the features, π (`prior.logits`), K_s and V_s (`prior.components`),
    and Σ (`prior.noise`).

    Args:
        features: h, a network with `num_outputs` = F features.
        num_outputs: C.
        num_components: S; with 1 this is ALPaCA.
        noise: Σ; `DiagonalNoise(C)` by default, or `FullNoise`.
        scale: p(λ), where every task has a scale of its own, whatever its component: `TaskScale()`. None for one scale
            of all tasks.

    Raises:
        DataError: no components.
        ShapeError: `noise` does not have C outputs.
        UnsupportedError: the features are not a `Network`.

    Example:
        >>> import bayesmeta as bm
        >>> learner = bm.MixtureALPaCA(bm.Identity(1), num_components=2)
        >>> for component, slope in zip(learner.prior.matrix_normals, (-2.0, 2.0)):  # two kinds of tasks
        ...     _ = component.location.data.copy_(torch.tensor([[0.0], [slope]]))
        ...     component.covariance.set_matrix(0.1 * torch.eye(2))
        >>> posterior = learner.adapt(bm.Data.stack([bm.Data.from_arrays([], []), bm.Data.from_arrays([0.2], [0.3])]))
        >>> posterior
        posterior of 2 tasks after 0, 1 points
        >>> [[round(p, 3) for p in task] for task in posterior.log_weights.softmax(-1).tolist()]  # p(s | D)
        [[0.5, 0.5], [0.102, 0.898]]
    """

    prior: MatrixNormalMixture

    def __init__(
        self,
        features: Network,
        *,
        num_outputs: int = 1,
        num_components: int = 4,
        noise: Noise | None = None,
        scale: TaskScale | None = None,
    ) -> None:
        if num_components < 1:
            raise DataError(f"expected at least one component, got {num_components}")
        prior = lambda noise: MatrixNormalMixture(features.num_outputs, num_components, noise, scale)
        super().__init__(features, num_outputs, noise, prior, scale)

    @classmethod
    def split_prior(
        cls, features: Network, prior: MatrixNormal, num_components: int = 4, generator: torch.Generator | None = None
    ) -> "MixtureALPaCA":
        """Begin where a trained ALPaCA ended: its features, noise and scale are copied, and its prior is split.

        The components are at draws from the prior, each with a quarter of its covariance.

        Args:
            features: those of the ALPaCA.
            prior: that of the ALPaCA.
            num_components: S.
            generator: of the draws; torch's global one when None.

        Example:
            >>> import bayesmeta as bm
            >>> alpaca = bm.ALPaCA(bm.MLP(1, [16, 8]))
            >>> mixture = bm.MixtureALPaCA.split_prior(alpaca.features, alpaca.prior, num_components=3)
            >>> len(mixture.prior.matrix_normals)
            3
        """
        noise, scale = copy.deepcopy(prior.noise), copy.deepcopy(prior.scale)
        features, outputs = copy.deepcopy(features), noise.num_outputs
        mixture = cls(features, num_outputs=outputs, num_components=num_components, noise=noise, scale=scale)
        with torch.no_grad():
            locations = prior.draw_weight(num_components, None, generator)
            for component, location in zip(mixture.prior.matrix_normals, locations, strict=True):
                component.location.copy_(location)
                component.covariance.set_matrix(0.25 * prior.covariance.matrix())
        return mixture

    def evidence(self, data: Data) -> Float[Tensor, "B"]:
        """log Σ_s π_s p(y | x, s) of each task, W integrated out, in nats."""
        return self._theta().weighed(data)[0].logsumexp(-1)

    @override
    def condition(self, support: Data) -> "MixtureALPaCAPosterior":
        theta = self._theta()
        with theta.telling_tasks():
            belief = linear_gaussian.condition(*theta.whitened(support))
        log_weights, scale = theta.weighed(support)
        return MixtureALPaCAPosterior(
            spec=support.spec,
            theta=theta,
            log_weights=log_weights,
            belief=belief,
            seen=support.counts,
            scale=scale,
        )

    def _theta(self) -> "_Theta":
        components = self.prior.matrix_normals
        return _Theta(
            features=self.features,
            log_prior=self.prior.logits.double().log_softmax(-1),
            location=torch.stack([c.location for c in components]).double(),
            factor=torch.stack([c.covariance.factor() for c in components]).double(),
            output_covariance=self.prior.noise.covariance().double(),
            scale=self.scale,
            noise=self.prior.noise,
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class _Theta:
    """theta as inference uses it, in float64. Tasks and components share one batch axis: B * S, task by task."""

    features: Network
    log_prior: Float[Tensor, "S"]
    location: Float[Tensor, "S F C"]
    factor: Float[Tensor, "S F R"]
    output_covariance: Float[Tensor, "C C"]
    scale: TaskScale | None
    noise: Noise

    def design(self, x: Float[Tensor, "B N *x"]) -> tuple[Float[Tensor, "BS N R"], Float[Tensor, "BS N C"]]:
        """Whitened features Φ L_s, and prior means Φ K_s, of every task under every component."""
        design = self.features(x).double()[:, None]
        return (design @ self.factor).flatten(0, 1), (design @ self.location).flatten(0, 1)

    def whitened(self, data: Data) -> tuple[Tensor, Tensor, Tensor]:
        """Whitened features, outcomes less their prior mean, mask."""
        count = len(self.log_prior)
        rows, mean = self.design(data.x)
        residual = data.y.double().repeat_interleave(count, 0) - mean
        root = noise_root(data, self.output_covariance, self.noise)
        if root is not None:
            root = root.repeat_interleave(count, 0)
            rows, residual = rows / root, residual / root
        return rows, residual, data.mask.repeat_interleave(count, 0)

    def telling_tasks(self) -> AbstractContextManager[None]:
        """Failures say whose they are, not which of B * S."""
        return retelling(lambda position: position // len(self.log_prior))

    def weighed(self, data: Data) -> tuple[Float[Tensor, "B S"], InverseGamma | None]:
        """log π_s p(D | s) of each task, and where tasks have scales p(λ | D, s), B * S."""
        with self.telling_tasks():
            if self.scale is None:
                each, scale = linear_gaussian.log_evidence(*self.whitened(data), self.output_covariance), None
            else:
                form = linear_gaussian.quadratic_form(*self.whitened(data), self.output_covariance)
                scale = self.scale.belief(len(form[0]))
                each, scale = scale.log_evidence(*form), scale.after(*form[:2])
        # how the rows are weighted is the same under every component, but the evidence is of the outcomes
        jacobian = log_jacobian(data, self.output_covariance, self.noise)[:, None]
        return self.log_prior + each.unflatten(0, (data.num_tasks, len(self.log_prior))) - jacobian, scale


@dataclass(frozen=True, eq=False, kw_only=True)
class MixtureALPaCAPosterior(TaskPosterior):
    """W | D, theta: the exact posterior, a mixture of matrix normals (of matrix t's, where tasks have scales).

    Attributes:
        theta: theta as it was when the task was adapted to.
        log_weights: log π_s p(D | s), `B S`.
        belief: the posterior of the whitened weights under every component, B * S.
        seen: how many points of each task the posterior has been given.
        scale: p(λ | D, s) under every component, B * S; None where all tasks have λ = 1.
    """

    theta: _Theta
    log_weights: Float[Tensor, "B S"]
    belief: LinearGaussian
    seen: Int[Tensor, "B"]
    scale: InverseGamma | None = None

    @property
    @override
    def points_seen(self) -> Int[Tensor, "B"]:
        return self.seen

    @property
    @override
    def known_noise(self) -> bool:
        return len(self.theta.output_covariance) == 1 and self.scale is None

    @override
    def coefficients(self, columns: Columns) -> Coefficients | None:
        draws = self.sample(COEFFICIENT_DRAWS, generator_of(0, self.spec.device))["weight"]
        return Coefficients.of_weights(draws, self.theta.features, columns)

    def sample(self, num_draws: int, generator: torch.Generator | None = None) -> Params:
        """Draws of W, one for each of the `num_draws`: `num_draws B F C`; where tasks have scales also of log λ."""
        num_draws = whole(num_draws, "num_draws")
        mean, root = self.belief.moments()
        tasks, count = self.log_weights.shape
        weights = self.log_weights.softmax(-1)  # torch's multinomial refuses to draw nothing
        chosen = torch.multinomial(weights, max(num_draws, 1), replacement=True, generator=generator).mT[:num_draws]
        index = chosen + count * torch.arange(tasks, device=chosen.device)  # position in B * S
        scale = None if self.scale is None else self.scale.select(index).rsample((), generator)
        output_covariance = cholesky(self.theta.output_covariance, "noise covariance")
        shape = (*index.shape, *mean.shape[1:])
        normal = common_normals(shape, mean, generator)
        deviation = root[index] @ normal @ output_covariance.mT
        if scale is not None:
            deviation = scale.sqrt()[..., None, None] * deviation
        weight = self.theta.location[chosen] + self.theta.factor[chosen] @ (mean[index] + deviation)
        return {"weight": weight} | ({} if scale is None else {"log_scale": scale.log()})

    @override
    def selected(self, tasks: Int[Tensor, "K"]) -> "MixtureALPaCAPosterior":
        count = self.log_weights.shape[1]
        places = (count * tasks[:, None] + torch.arange(count, device=tasks.device)).flatten()  # of B * S
        return replace(
            self,
            spec=self.spec.of_tasks(len(tasks)),
            log_weights=self.log_weights[tasks],
            belief=self.belief.select(places),
            seen=self.seen[tasks],
            scale=None if self.scale is None else self.scale.select(places),
        )

    @override
    def at(self, x: Float[Tensor, "B M *x"]) -> MixturePredictive:
        each = self._components(x)
        return MixturePredictive(self.log_weights, each if self.scale is None else StudentTPredictive(each, self.scale))

    def _components(self, x: Float[Tensor, "B M *x"]) -> GaussianPredictive:
        rows, prior_mean = self.theta.design(x)
        mean, variance = self.belief.predict(rows)
        relative = relative_noise(x, self.theta.noise)
        return GaussianPredictive(
            location=prior_mean + mean,
            latent_variance=variance,
            latent_covariance=partial(self.belief.covariance, rows),
            output_covariance=self.theta.output_covariance,
            noise=1.0 if relative is None else relative.repeat_interleave(self.log_weights.shape[1], 0),
            latent_root=partial(self.belief.spread, rows) if exceeds(rows.shape[1], rows.shape[2]) else None,
        )

    @override
    def extended(self, data: Data) -> "MixtureALPaCAPosterior":
        rows, residual, mask = self.theta.whitened(data)
        count = len(self.theta.log_prior)
        with self.theta.telling_tasks():
            components, y, scale = self._components(data.x), data.y.double().repeat_interleave(count, 0), self.scale
            if data.noise is not None:
                components = components.with_noise(data.noise.repeat_interleave(count, 0))
            if scale is None:
                density = components.log_prob(y, mask)
            else:
                form = components.quadratic_form(y, mask)
                density, scale = scale.log_evidence(*form), scale.after(*form[:2])
            belief = self.belief.update(rows, residual, mask)
        return replace(
            self,
            log_weights=self.log_weights + density.unflatten(0, self.log_weights.shape),
            belief=belief,
            seen=self.seen + data.counts,
            scale=scale,
        )

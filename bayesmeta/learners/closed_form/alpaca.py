"""ALPaCA: Bayesian linear regression on meta-learned features.

Harrison, Sharma, Pavone 2018 (arXiv:1807.08912), with V = Lambda_0⁻¹ in eq. 4 and the predictive of eqs. 7-9:

    y = Wᵀ h(x) + ε,   ε ~ N(0, Σ),   W ~ MN(K_0, V, Σ)
    p(y* | x*, D) = N(K_nᵀ h*, (1 + h*ᵀ Lambda_n⁻¹ h*) Σ)

With a `TaskScale` every task has λ Σ in place of Σ, λ ~ InvGamma(ν/2, (ν - 2)/2), and the predictive is Student's t.

    phi         W, the last layer, F x C; with a task scale also log λ
    prior       matrix normal MN(K_0, V, Σ), explicit
    likelihood  Gaussian, noise covariance Σ over the outputs
    inference   exact, in float64 whatever the precision of the features
"""

import math
from dataclasses import replace
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from bayesmeta.data import Data
from bayesmeta.errors import ShapeError, UnsupportedError
from bayesmeta.inference import linear_gaussian
from bayesmeta.learner import LinearMixedModel, MixedModelParts
from bayesmeta.learners.closed_form.last_layer import LinearLearner
from bayesmeta.learners.closed_form.linear_posterior import LinearTheta, log_jacobian, noise_root
from bayesmeta.learners.closed_form.mixed_model_summary import MixedModelDescription
from bayesmeta.linalg import log_volume, spanning_basis
from bayesmeta.networks.network import Network
from bayesmeta.networks.requirements import require_network
from bayesmeta.noise import Noise
from bayesmeta.priors import (
    DiagonalCovariance,
    FeatureCovariance,
    FullCovariance,
    IsotropicCovariance,
    MatrixNormal,
    TaskScale,
)
from bayesmeta.summaries import Columns, Summary


class ALPaCA(LinearLearner, LinearMixedModel):
    """Exact Bayesian linear regression on features that all tasks share.

    theta is the weights of the features, K_0 (`prior.location`), V (`prior.covariance`) and Σ (`prior.noise`). With
    `Identity` features and the evidence as objective it is a linear mixed model: K_0 holds the fixed effects, and V Σ
    is the covariance of the random effects.

    Args:
        features: h, a network with `num_outputs` = F features (`MLP`, or a basis).
        num_outputs: C.
        covariance: V, the prior covariance over features; `FullCovariance(F)` by default (of the features that vary
            between tasks, where the network says so, as `bm.networks.TaskCovariates` does), or `DiagonalCovariance`,
            `IsotropicCovariance`.
        noise: Σ; `DiagonalNoise(C)` by default, or `FullNoise`.
        scale: p(λ), where every task has a scale of its own: `TaskScale()`. None for one scale of all tasks. With one
            it is no linear mixed model of Gaussians: ML by gradients, no REML.

    Raises:
        ShapeError: `covariance` or `noise` do not have F features or C outputs.
        UnsupportedError: the features are not a `Network`.

    Example:
        >>> import bayesmeta as bm
        >>> learner = bm.ALPaCA(bm.MLP(1, [16, 8]))
        >>> tasks = bm.tasks.Sawtooth().dataset(20, 10, seed=0)
        >>> _ = bm.fit(learner, tasks, steps=50, progress=False)  # a real training takes thousands
        >>> posterior = learner.adapt(tasks.data.select([0]).points(slice(4)))
        >>> posterior
        posterior of 1 task after 4 points
        >>> posterior.mean["weight"].shape  # K_n: one task, 8 features, one output
        torch.Size([1, 8, 1])
        >>> lower, upper = posterior.predict([0.0, 1.0]).interval(0.9)
    """

    prior: MatrixNormal

    def __init__(
        self,
        features: Network,
        *,
        num_outputs: int = 1,
        covariance: FeatureCovariance | None = None,
        noise: Noise | None = None,
        scale: TaskScale | None = None,
    ) -> None:
        require_network(features)
        if covariance is None:
            covariance = FullCovariance(features.num_outputs, varying=features.varying)
        if covariance.num_features != features.num_outputs:
            raise ShapeError(
                f"expected a covariance over {features.num_outputs} features, got one over {covariance.num_features}"
            )
        super().__init__(features, num_outputs, noise, lambda noise: MatrixNormal(covariance, noise, scale), scale)

    @property
    @override
    def mixed_model(self) -> LinearMixedModel | None:
        """Itself; None where tasks have scales, as the steps of ML and REML hold for Gaussians."""
        return self if self.scale is None else None

    def restricted_log_evidence(self, *data: Data) -> Float[Tensor, ""]:
        """log ∫ Π_t p(y_t | x_t, theta) dK_0, in nats: K_0 under a flat hyperprior (REML, Patterson & Thompson 1971).

        Features that are sums of those before them, as the last level of a category is beside the constant, change
        nothing: the integral is over the weights of the others, as lme4 drops such columns.

        Raises:
            InferenceError: a feature is so nearly a sum of others that this cannot be told.
            UnsupportedError: tasks have scales.
        """
        self._require_gaussian()
        groups, theta = [self.conform(each) for each in data], self.theta()
        basis, precision, moment = self._normal_equations(groups)
        location = self._location(basis, precision, moment)
        output_covariance = theta.output_covariance
        log_evidence = partial(linear_gaussian.log_evidence, output_covariance=output_covariance)
        there = replace(theta, location=location)
        profile = torch.stack([torch.cat(there.in_chunks(log_evidence, each)).sum() for each in groups]).sum()
        profile = (
            profile - torch.stack([log_jacobian(each, output_covariance, theta.noise).sum() for each in groups]).sum()
        )
        size_f, size_c = basis.shape[1], location.shape[1]
        # vec K_0 has precision (Σ_t Xᵀ S⁻¹ X) ⊗ Σ⁻¹, and K_0 = B K'
        determinant = size_c * (torch.logdet(precision) - 2.0 * log_volume(self._design(groups), basis))
        determinant = determinant - size_f * torch.logdet(output_covariance)
        return profile - 0.5 * determinant + 0.5 * size_f * size_c * math.log(2.0 * math.pi)

    @torch.no_grad()
    def maximise_location(self, *data: Data) -> None:
        """Set K_0 to its generalised-least-squares estimate given V, where the evidence is largest over K_0.

        Where the features do not determine K_0 (the levels of a category and a constant, say), the smallest one is set.

        Raises:
            UnsupportedError: tasks have scales.
        """
        self._require_gaussian()
        self.prior.location.copy_(self._location(*self._normal_equations([self.conform(each) for each in data])))

    @torch.no_grad()
    def maximise_exactly(self, *data: Data) -> None:
        """Set K_0 and Σ where the evidence is largest given V and the features: Σ = Σ_t Rᵀ S⁻¹ R / points.

        Where the features do not determine K_0 (the levels of a category and a constant, say), the smallest one is set.
        A Σ outside the bounds of the noise, as of features that fit every point exactly, becomes one just inside. What
        does not require gradients stays as it is, and so does Σ where some of the noise is known: it is then not all of
        it.

        Raises:
            UnsupportedError: tasks have scales.
        """
        self._require_gaussian()
        groups = [self.conform(each) for each in data]
        if self.prior.location.requires_grad:
            self.prior.location.copy_(self._location(*self._normal_equations(groups)))
        is_all = all(each.noise is None for each in groups)
        if is_all and any(parameter.requires_grad for parameter in self.prior.noise.parameters()):
            points = sum(int(each.counts.sum()) for each in groups)
            self.prior.noise.set_nearest(self.scatter(*groups) / max(points, 1))

    @override
    def scatter(self, *data: Data) -> Float[Tensor, "C C"]:
        self._require_gaussian()
        theta = self.theta()
        squares = torch.zeros_like(theta.output_covariance)
        for each in (self.conform(part) for part in data):
            rows, residual = theta.whitened(each)
            squares = squares + linear_gaussian.information(rows, residual, residual, each.mask)[0]
        return squares

    @override
    def location_covariance(self, *data: Data) -> Float[Tensor, "F F"]:
        self._require_gaussian()
        basis, precision, _ = self._normal_equations([self.conform(each) for each in data])
        return basis @ torch.linalg.solve(precision, basis.mT)

    @override
    def described(self, columns: Columns, *data: Data) -> Summary:
        if columns.terms(self.features) is None:  # features that mean nothing to a user
            return super().described(columns, *data)
        parameters, covariances = (self.prior.location, self.prior.noise), {columns.task: self.prior.covariance}
        return MixedModelDescription(self, columns, self.features, parameters, covariances, data).summary()

    def _require_gaussian(self) -> None:
        if self.scale is not None:
            raise UnsupportedError(
                "expected tasks of one scale, got ALPaCA with a TaskScale: it has no closed form of the maximum or of "
                "the restricted evidence. Use MaximumLikelihood, which goes by gradients"
            )

    @override
    def parts(self, *data: Data) -> MixedModelParts:
        design = torch.cat([self.features(each.x)[each.mask].detach().double() for each in data])
        return MixedModelParts(design, self.prior.location, self.prior.covariance, self.prior.noise, self.features)

    @override
    def theta(self) -> LinearTheta:
        covariance = self.prior.covariance
        factor = covariance.factor().double()
        all_vary = covariance.varying == tuple(range(covariance.num_features))
        is_diagonal = all_vary and isinstance(covariance, DiagonalCovariance | IsotropicCovariance)
        return LinearTheta(
            features=self.features,
            location=self.prior.location.double(),
            factor=factor.diagonal() if is_diagonal else factor,
            output_covariance=self.prior.noise.covariance().double(),
            noise=self.prior.noise,
        )

    def _design(self, groups: list[Data]) -> Tensor:
        """The features of all points."""
        theta = self.theta()
        return torch.cat([theta.design(each.x)[each.mask].detach() for each in groups])

    def _location(self, basis: Tensor, precision: Tensor, moment: Tensor) -> Tensor:
        return basis @ torch.linalg.solve(precision, moment)

    def _normal_equations(self, groups: list[Data]) -> tuple[Tensor, Tensor, Tensor]:
        """B, and the equations of K', where K_0 = B K': wherever the origin of x is, they are well conditioned."""
        theta = self.theta()
        designs = [theta.design(each.x) for each in groups]
        basis = spanning_basis(torch.cat([d[each.mask].detach() for d, each in zip(designs, groups, strict=True)]))
        sums = []
        for design, each in zip(designs, groups, strict=True):
            root = noise_root(each, theta.output_covariance, theta.noise)
            rows, common, y = theta.rows(design), design @ basis, each.y.double()
            if root is not None:
                rows, common, y = rows / root, common / root, y / root
            sums.append(linear_gaussian.information(rows, common, y, each.mask))
        precisions, moments = zip(*sums, strict=True)
        return basis, torch.stack(precisions).sum(0), torch.stack(moments).sum(0)

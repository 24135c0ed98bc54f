"""Gaussian noise of one covariance everywhere, and the same with a scale of each task."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal
from typing_extensions import override

from bayesmeta.data import Data
from bayesmeta.distributions import noisier
from bayesmeta.errors import ShapeError, UnsupportedError
from bayesmeta.likelihoods.likelihood import Likelihood
from bayesmeta.likelihoods.score import Score
from bayesmeta.linalg import cholesky, solve_lower
from bayesmeta.noise import DiagonalNoise, HeteroscedasticNoise, Noise
from bayesmeta.outcomes import Numbers

LOG_2PI = math.log(2.0 * math.pi)


class Gaussian(Likelihood):
    """y ~ N(f, Σ): regression with observation noise of one covariance everywhere.

    Known noise of points (`Data.noise`) is added to the diagonal of Σ. With `HeteroscedasticNoise` Σ depends on x,
    which `log_prob` sees, and `forward` does not.

    Args:
        noise: Σ, any `Noise`; `DiagonalNoise(num_outputs)` by default, one learned variance for each output.
        num_outputs: C, where no noise is given.

    Example:
        >>> import bayesmeta as bm
        >>> likelihood = bm.likelihoods.Gaussian(bm.noise.DiagonalNoise(1, initial=0.25))
        >>> f, data = torch.tensor([[[0.0], [1.0]]]), bm.Data.from_arrays([0.0, 1.0], [0.1, 0.9])
        >>> round(likelihood.log_prob(f, data).item(), 4)  # nats, the sum over both points
        -0.4916
        >>> likelihood.marginal(f, torch.full_like(f, 0.75)).variance.flatten().tolist()  # that of f and the noise
        [1.0, 1.0]
    """

    known_noise = True

    def __init__(self, noise: Noise | None = None, num_outputs: int = 1) -> None:
        super().__init__()
        self.noise: Noise = DiagonalNoise(num_outputs) if noise is None else noise
        self.outcomes, self.network_outputs = Numbers(self.noise.num_outputs), self.noise.num_outputs

    def forward(self, f: Float[Tensor, "*b K"]) -> Distribution:
        """N(f, Σ)."""
        return self.marginal(f, torch.zeros_like(f))

    def given(self, data: Data) -> Callable[[Tensor], Tensor]:
        """f -> log N(y; f, Σ), summed over the real points of each task, in nats."""
        if not isinstance(self.noise, DiagonalNoise) or not data.y.is_floating_point():
            return super().given(data)  # also of noise that depends on x
        variance, real = self.noise.variance(), data.mask[..., None]
        y = torch.where(real, data.y, 0.0)
        if data.noise is None:
            weight, each = real * (-0.5 / variance), (variance.log() + LOG_2PI).sum()
            constant = data.mask.sum(-1) * (-0.5 * each)
        else:
            variance = variance + torch.where(real, data.noise, 0.0)
            weight = torch.where(real, -0.5 / variance, 0.0)
            constant = -0.5 * torch.where(real, variance.log() + LOG_2PI, 0.0).sum((-1, -2))

        def log_prob(f: Tensor) -> Tensor:
            if f.shape[-1] != self.network_outputs:
                raise ShapeError(f"expected f with {self.network_outputs} columns, got {tuple(f.shape)}")
            return constant + (weight * (y - f).square()).sum((-1, -2))

        return log_prob

    @override
    def score(self, data: Data) -> Score | None:
        if not isinstance(self.noise, DiagonalNoise) or not data.y.is_floating_point():
            return None
        real = data.mask[..., None]
        y = torch.where(real, data.y, 0.0)
        if data.noise is None and self.network_outputs == 1:  # σ² is the variance itself
            return Score(real.to(y.dtype), y)
        variance = self.noise.variance()
        precision = variance.log().mean().exp() / (variance if data.noise is None else variance + data.noise)
        return Score(torch.where(real, precision, 0.0), y)

    def marginal(self, mean: Float[Tensor, "*b K"], variance: Float[Tensor, "*b K"]) -> Distribution:
        """N(mean, diag(variance) + Σ). Raises UnsupportedError where Σ depends on x."""
        self._require_constant()
        if isinstance(self.noise, DiagonalNoise):
            return Independent(Normal(mean, (variance + self.noise.variance()).sqrt(), validate_args=False), 1)
        factor = cholesky(torch.diag_embed(variance) + self.noise.covariance(), "observation covariance")
        return MultivariateNormal(mean.to(factor.dtype), scale_tril=factor, validate_args=False)

    def correlated_marginal(self, mean: Float[Tensor, "*b K"], covariance: Float[Tensor, "*b K K"]) -> Distribution:
        """N(mean, covariance + Σ). Raises UnsupportedError where Σ depends on x."""
        self._require_constant()
        factor = cholesky(covariance + self.noise.covariance(), "observation covariance")
        return MultivariateNormal(mean.to(factor.dtype), scale_tril=factor, validate_args=False)

    @override
    def at_inputs(self, f: Float[Tensor, "*b M K"], x: Float[Tensor, "B M *x"]) -> Distribution:
        relative = self.noise.relative(x)
        if relative is None:
            return self.forward(f)
        if self.network_outputs == 1:
            variance = (relative[..., None] * self.noise.variance()).expand(f.shape)
            return Independent(Normal(f, variance.sqrt(), validate_args=False), 1)
        factor = relative.sqrt()[..., None, None] * cholesky(self.noise.covariance(), "noise covariance")
        return MultivariateNormal(f.to(factor.dtype), scale_tril=factor, validate_args=False)

    @override
    def of_points(self, f: Float[Tensor, "*s B N K"], data: Data) -> Distribution:
        if not isinstance(self.noise, HeteroscedasticNoise):
            return super().of_points(f, data)
        distribution = self.at_inputs(f, data.x)
        return distribution if data.noise is None else noisier(distribution, data.noise)

    def _require_constant(self) -> None:
        if isinstance(self.noise, HeteroscedasticNoise):
            raise UnsupportedError(
                "expected noise that is the same at every input, got HeteroscedasticNoise, which learners solved in "
                "closed form can have: HeteroscedasticGaussian is the likelihood for others"
            )

    @override
    def noisy(self, f: Float[Tensor, "*b K"], noise: Float[Tensor, "*b C"]) -> Distribution:
        return self.marginal(f, noise.expand(f.shape))  # a variance of f and one of y are the same to y

    @override
    def noisy_curvature_root(self, f: Float[Tensor, "*b K"], noise: Float[Tensor, "*b C"]) -> Float[Tensor, "*b K K"]:
        self._require_constant()
        if isinstance(self.noise, DiagonalNoise):
            return torch.diag_embed((self.noise.variance() + noise).rsqrt()).to(f.dtype).expand(*f.shape, -1)
        factor = cholesky(self.noise.covariance() + torch.diag_embed(noise), "noise covariance")
        eye = torch.eye(self.network_outputs, dtype=factor.dtype, device=factor.device)
        return solve_lower(factor, eye.expand(factor.shape)).mT.to(f.dtype).expand(*f.shape, -1)

    def curvature_root(self, f: Float[Tensor, "*b K"]) -> Float[Tensor, "*b K K"]:
        """L⁻ᵀ with Σ = L Lᵀ, so that R Rᵀ = Σ⁻¹; the same at every f."""
        self._require_constant()
        if isinstance(self.noise, DiagonalNoise):
            root = torch.diag(self.noise.variance().rsqrt())
        else:
            factor = cholesky(self.noise.covariance(), "noise covariance")
            eye = torch.eye(self.network_outputs, dtype=factor.dtype, device=factor.device)
            root = solve_lower(factor, eye).mT
        return root.to(f.dtype).expand(*f.shape, -1)

    def unit(self) -> Float[Tensor, ""]:
        """The geometric mean of the noise variances, squared units of y."""
        return self.noise.variance().log().mean().exp()


class ScaledGaussian(Likelihood):
    """y ~ N(f_mean, exp(f_log_scale) Σ): regression whose noise has a factor λ that f brings along.

    f has K = C + 1 columns: C means, then log λ. It is the likelihood of the learners that are given a `TaskScale`,
    under which λ is one number for all points of a task.

    Args:
        noise: Σ, any `Noise` that is the same at every input; `DiagonalNoise(num_outputs)` by default, one learned
            variance for each output.
        num_outputs: C, where no noise is given.

    Raises:
        UnsupportedError: noise that depends on x.

    Example:
        >>> import bayesmeta as bm
        >>> likelihood = bm.likelihoods.ScaledGaussian(bm.noise.DiagonalNoise(1, initial=0.25))
        >>> f = torch.tensor([[[1.0, 0.0], [1.0, 2.0]]])  # two points of mean 1 and log scales 0 and 2
        >>> likelihood(f).variance[0, :, 0].detach()
        tensor([0.2500, 1.8473])
    """

    def __init__(self, noise: Noise | None = None, num_outputs: int = 1) -> None:
        super().__init__()
        self.noise: Noise = DiagonalNoise(num_outputs) if noise is None else noise
        if isinstance(self.noise, HeteroscedasticNoise):
            raise UnsupportedError("expected noise that is the same at every input beside a TaskScale, got noise of x")
        self.outcomes, self.network_outputs = Numbers(self.noise.num_outputs), self.noise.num_outputs + 1

    def forward(self, f: Float[Tensor, "*b K"]) -> Distribution:
        """N(mean, λ Σ), both from f."""
        return self.marginal(f, torch.zeros_like(f))

    def marginal(self, mean: Float[Tensor, "*b K"], variance: Float[Tensor, "*b K"]) -> Distribution:
        """The Gaussian with the exact mean and variance of the mixture: Var y = Var f_mean + E λ Σ, λ log-normal."""
        center, spread = mean[..., :-1], variance[..., :-1]
        scale = (mean[..., -1:] + 0.5 * variance[..., -1:]).exp()
        if isinstance(self.noise, DiagonalNoise):
            return Independent(Normal(center, (spread + scale * self.noise.variance()).sqrt(), validate_args=False), 1)
        covariance = torch.diag_embed(spread) + scale[..., None] * self.noise.covariance()
        factor = cholesky(covariance, "observation covariance")
        return MultivariateNormal(center.to(factor.dtype), scale_tril=factor, validate_args=False)

    def curvature_root(self, f: Float[Tensor, "*b K"]) -> Float[Tensor, "*b K K"]:
        """Block diagonal: L⁻ᵀ / √λ with Σ = L Lᵀ for the means, and √(C / 2) for log λ."""
        num_outputs = self.network_outputs - 1
        factor = cholesky(self.noise.covariance(), "noise covariance")
        eye = torch.eye(num_outputs, dtype=factor.dtype, device=factor.device)
        of_means = (-0.5 * f[..., -1:, None]).exp() * solve_lower(factor, eye).mT.to(f.dtype)
        of_scale = torch.full_like(f[..., -1:, None], math.sqrt(0.5 * num_outputs))
        above = torch.cat([of_means, torch.zeros_like(of_means[..., :1])], -1)
        below = torch.cat([torch.zeros_like(of_means[..., :1, :]), of_scale], -1)
        return torch.cat([above, below], -2)

    def unit(self) -> Float[Tensor, ""]:
        """The geometric mean of the noise variances at λ = 1, squared units of y."""
        return self.noise.variance().log().mean().exp()

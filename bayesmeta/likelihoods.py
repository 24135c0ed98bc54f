"""Likelihoods p(y | f): how observations scatter around what the model says.

`forward` takes network outputs f (last axis K) to a torch distribution over the outcome of one point.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn
from torch.distributions import Bernoulli as BernoulliDistribution
from torch.distributions import Categorical as CategoricalDistribution
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal
from torch.distributions import StudentT as StudentTDistribution
from typing_extensions import override

from bayesmeta.data import Data
from bayesmeta.description import Described
from bayesmeta.distributions import contrasts, noisier, normal_nodes
from bayesmeta.errors import DataError, ShapeError, UnsupportedError
from bayesmeta.left_censored import LeftCensored, log_below
from bayesmeta.linalg import cholesky, solve_lower
from bayesmeta.noise import DiagonalNoise, HeteroscedasticNoise, Noise, Positive, bounded
from bayesmeta.outcomes import Labels, Numbers, Outcomes, require_kind
from bayesmeta.smoothed_student_t import SmoothedStudentT

__all__ = [
    "Bernoulli",
    "Categorical",
    "Censored",
    "Gaussian",
    "HeteroscedasticGaussian",
    "Likelihood",
    "ProportionalGaussian",
    "ScaledGaussian",
    "StudentT",
]

_nodes, _weights = np.polynomial.hermite_e.hermegauss(32)
HERMITE_NODES = torch.from_numpy(_nodes)  # Σ w g(m + s z) = E g(N(m, s²)), exact for polynomials of degree 63
HERMITE_WEIGHTS = torch.from_numpy(_weights / _weights.sum())


class Likelihood(Described, nn.Module, ABC):
    """p(y | f), the distribution of the outcome of one point given the K network outputs f at it.

    A subclass gives `forward`, `marginal` and `curvature_root`, and says what y and f are (`outcomes`,
    `network_outputs`). Its parameters, such as a noise variance, are part of theta.

    Attributes:
        outcomes: what y is at a point: `Numbers(C)` or `Labels(C)`.
        network_outputs: K, the length of f that `forward` expects.
        known_noise: whether known noise of points (`Data.noise`) can be added to its own: `noisy` and
            `noisy_curvature_root` are given, too.

    Example:
        >>> from torch.distributions import Independent, Poisson
        >>> import bayesmeta as bm
        >>> class Counts(bm.likelihoods.Likelihood):
        ...     outcomes, network_outputs = bm.Numbers(1), 1  # y ~ Poisson(exp(f))
        ...     def forward(self, f):
        ...         return Independent(Poisson(f.exp(), validate_args=False), 1)
        ...     def marginal(self, mean, variance):
        ...         rate = (mean + 0.5 * variance).exp()  # E exp(f)
        ...         return Independent(Poisson(rate, validate_args=False), 1)
        ...     def curvature_root(self, f):
        ...         return (0.5 * f).exp()[..., None]  # the Fisher information of a log rate f is exp(f)
        >>> learner = bm.MAML(bm.MLP(1, [8]), likelihood=Counts())
        >>> posterior = learner.adapt(bm.Data.from_arrays([0.0, 1.0], [1.0, 3.0]))
        >>> posterior.predict([0.5]).log_prob(torch.tensor([[[2.0]]])).shape
        torch.Size([1])
    """

    outcomes: Outcomes
    network_outputs: int
    known_noise: bool = False

    @abstractmethod
    def forward(self, f: Float[Tensor, "*b K"]) -> Distribution:
        """The distribution of y at each point: batch shape `*b`, event shape (C,) or ()."""

    def observed(self, f: Float[Tensor, "*b K"]) -> Distribution:
        """The distribution whose density at an outcome is what `log_prob` adds up.

        It is that of y, unless f says how probable the inputs are, too.
        """
        return self.forward(f)

    @abstractmethod
    def marginal(self, mean: Float[Tensor, "B M K"], variance: Float[Tensor, "B M K"]) -> Distribution:
        """The distribution of y where f ~ N(mean, diag(variance)): f is integrated out, and the noise is included."""

    def correlated_marginal(self, mean: Float[Tensor, "B M K"], covariance: Float[Tensor, "B M K K"]) -> Distribution:
        """The distribution of y where f ~ N(mean, covariance), the outputs of a point being correlated.

        Where every output has an outcome of its own, correlations change no marginal of one, and this is `marginal` of
        the diagonal. A likelihood that compares outputs, as a softmax does, gives its own.
        """
        return self.marginal(mean, covariance.diagonal(dim1=-2, dim2=-1).clamp(min=0.0))

    @abstractmethod
    def curvature_root(self, f: Float[Tensor, "*b K"]) -> Float[Tensor, "*b K K"]:
        """R with R Rᵀ = Λ, the Fisher information E[-∂² log p(y | f) / ∂f²] of one point, y ~ p(y | f).

        With J = ∂f/∂phi, Σ_n Jᵀ Λ J is the generalised Gauss-Newton matrix of the negative log-likelihood (Schraudolph
        2002, "Fast curvature matrix-vector products for second-order gradient descent"), which is the Fisher
        information in phi (Martens 2020, "New insights and perspectives on the natural gradient method", sections 8
        and 9). Λ is the Hessian itself, whatever y is, where f is the natural parameter: Gaussian, Bernoulli,
        Categorical. R is in units of one over f, has the precision of f, and gradients in f and in the noise.
        """

    def noisy(self, f: Float[Tensor, "*b K"], noise: Float[Tensor, "*b C"]) -> Distribution:
        """The distribution of y at each point, whose known noise is added to that of `forward`.

        Args:
            f: network outputs.
            noise: the known variances, squared units of y.

        Raises:
            UnsupportedError: it has no place for known noise.
        """
        raise UnsupportedError(f"{type(self).__name__} has no place for known noise (yerr)")

    def noisy_curvature_root(self, f: Float[Tensor, "*b K"], noise: Float[Tensor, "*b C"]) -> Float[Tensor, "*b K K"]:
        """`curvature_root` of points with known noise. Arguments and errors are those of `noisy`."""
        raise UnsupportedError(f"{type(self).__name__} has no place for known noise (yerr)")

    def of_points(self, f: Float[Tensor, "*s B N K"], data: Data) -> Distribution:
        """The distribution of the outcomes of these points, with what is known of their noise.

        Args:
            f: network outputs at the points.
            data: the points.
        """
        return self.observed(f) if data.noise is None else self.noisy(f, data.noise)

    def curvature_of(self, f: Float[Tensor, "*s B N K"], data: Data) -> Float[Tensor, "*s B N K K"]:
        """`curvature_root` at these points, with what is known of their noise.

        Args:
            f: network outputs at the points.
            data: the points.
        """
        return self.curvature_root(f) if data.noise is None else self.noisy_curvature_root(f, data.noise)

    def at_inputs(self, f: Float[Tensor, "*b M K"], x: Float[Tensor, "B M *x"]) -> Distribution:
        """The distribution of y at inputs, where it depends on them beside f; `forward(f)` elsewhere.

        Args:
            f: network outputs at the inputs.
            x: the inputs.
        """
        return self.forward(f)

    def unit(self) -> Float[Tensor, ""]:
        """The square of the unit that inner step sizes are measured in.

        It is the geometric mean of the noise variances (`Gaussian`) or squared scales (`StudentT`), squared units of y,
        and 1 elsewhere: labels have no unit, and a noise that f sets is not one number. An inner step multiplies
        ∇ log joint / N by it: with Gaussian noise a step size then multiplies the gradient of half the mean squared
        error, whatever the noise is.
        """
        parameter = next(self.parameters(), None)
        return torch.ones((), dtype=torch.float32, device="cpu") if parameter is None else parameter.new_ones(())

    def log_prob(self, f: Float[Tensor, "*s B N K"], data: Data) -> Float[Tensor, "*s B"]:
        """log p(y | f) in nats, summed over the real points of each task.

        Raises:
            ShapeError: f does not have `network_outputs` columns. DataError: a label is out of range.
        """
        if f.shape[-1] != self.network_outputs:
            raise ShapeError(f"expected f with {self.network_outputs} columns, got {tuple(f.shape)}")
        if data.num_points == 0:  # torch's Independent fails on zero points
            return f.sum((-1, -2))
        return torch.where(data.mask, self.of_points(f, data).log_prob(self.outcome(data, f)), 0.0).sum(-1)

    def given(self, data: Data) -> Callable[[Tensor], Tensor]:
        """f -> log p(y | f) of these data, as `log_prob`: for loops, as what does not depend on f is done once."""
        return lambda f: self.log_prob(f, data)

    def outcome(self, data: Data, f: Float[Tensor, "*b K"]) -> Shaped[Tensor, "B N *c"]:
        """y in the form that the distribution which `forward` gives at f accepts, padding included.

        Returns:
            y itself for numbers; labels `B N`, in the number format of f where the distribution wants it.

        Raises:
            DataError: labels for a likelihood of numbers, or numbers for one of labels; a label out of range.
        """
        require_kind(self.outcomes.y_shape, tuple(data.y.shape[2:]), type(self).__name__)
        return data.y

    def labels_of(self, data: Data, num_classes: int) -> Int[Tensor, "B N"]:
        """The labels of real points, 0 where padded. Raises DataError for outcomes that are no labels, or out of range.

        Args:
            data: the points.
            num_classes: C.
        """
        require_kind(self.outcomes.y_shape, tuple(data.y.shape[2:]), type(self).__name__)
        labels = torch.where(data.mask, data.y, 0)
        if torch.compiler.is_compiling():
            return labels
        if bool(((labels < 0) | (labels >= num_classes)).any()):
            low, high = int(labels.min()), int(labels.max())
            raise DataError(f"expected labels from 0 to {num_classes - 1}, got labels from {low} to {high}")
        return labels


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
        variance = variance if data.noise is None else variance + torch.where(real, data.noise, 0.0)
        y, weight = torch.where(real, data.y, 0.0), torch.where(real, -0.5 / variance, 0.0)
        each = (variance.log() + math.log(2.0 * math.pi)).expand(y.shape)
        constant = -0.5 * torch.where(real, each, 0.0).sum((-1, -2))

        def log_prob(f: Tensor) -> Tensor:
            if f.shape[-1] != self.network_outputs:
                raise ShapeError(f"expected f with {self.network_outputs} columns, got {tuple(f.shape)}")
            return constant + (weight * (y - f).square()).sum((-1, -2))

        return log_prob

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


class HeteroscedasticGaussian(Likelihood):
    """y ~ N(f_mean, exp(f_logvar)): the network also predicts the noise at each point.

    The network has K = 2C outputs: C means, then C logarithms of variances.

    Args:
        num_outputs: C.
        bounds: the smallest and the largest variance, squared units of y.

    Raises:
        DataError: bounds that are not positive and increasing.

    Example:
        >>> import bayesmeta as bm
        >>> likelihood = bm.likelihoods.HeteroscedasticGaussian()
        >>> f = torch.tensor([[[1.0, 0.0], [1.0, 2.0]]])  # two points of mean 1 and log variances 0 and 2
        >>> likelihood(f).variance[0, :, 0]
        tensor([1.0000, 7.3891])
        >>> bm.MAML(bm.MLP(1, [8]), likelihood=likelihood).adapt(bm.Data.from_arrays([0.0], [0.5]))
        posterior of 1 task after 1 point
    """

    def __init__(self, num_outputs: int = 1, bounds: tuple[float, float] = (1e-8, 1e8)) -> None:
        super().__init__()
        if not (0.0 < bounds[0] < bounds[1] < math.inf):
            raise DataError(f"expected bounds with 0 < lower < upper, got {tuple(bounds)}")
        self.outcomes, self.network_outputs = Numbers(num_outputs), 2 * num_outputs
        self.lower, self.upper = bounds

    def forward(self, f: Float[Tensor, "*b K"]) -> Distribution:
        """N(mean, variance), both from f."""
        mean, raw = f.chunk(2, -1)
        return Independent(Normal(mean, bounded(raw, self.lower, self.upper).sqrt(), validate_args=False), 1)

    def marginal(self, mean: Float[Tensor, "*b K"], variance: Float[Tensor, "*b K"]) -> Distribution:
        """The Gaussian with the exact mean and variance of the mixture: Var y = Var f + E noise (Gauss-Hermite)."""
        center, raw = mean.chunk(2, -1)
        spread, raw_variance = variance.chunk(2, -1)
        nodes, weights = HERMITE_NODES.to(mean), HERMITE_WEIGHTS.to(mean)
        at_nodes = raw[..., None] + _root(raw_variance)[..., None] * nodes
        noise = (bounded(at_nodes, self.lower, self.upper) * weights).sum(-1)
        return Independent(Normal(center, (spread + noise).sqrt(), validate_args=False), 1)

    def curvature_root(self, f: Float[Tensor, "*b K"]) -> Float[Tensor, "*b K K"]:
        """Diagonal: 1 / √v for a mean, |∂ log v / ∂f| / √2 for what its variance v is made of.

        Inside the bounds v = exp(f) and the second is 1 / √2; outside them v is flat, and it falls to 0.
        """
        raw = f.chunk(2, -1)[1]
        # with a = log sigmoid(raw - log lower) and b = log sigmoid(log upper - raw), log v = raw - a + b and
        # ∂ log v / ∂raw = (1 - lower / upper) exp(a + b): nothing cancels, and no gradient overflows
        a = nn.functional.logsigmoid(raw - math.log(self.lower))
        b = nn.functional.logsigmoid(math.log(self.upper) - raw)
        slope = (1.0 - self.lower / self.upper) * (a + b).exp()
        return torch.diag_embed(torch.cat([(0.5 * (a - b - raw)).exp(), math.sqrt(0.5) * slope], -1))


class StudentT(Likelihood):
    """y ~ t_dof(f, scale), Student's t: regression that expects outliers, which a Gaussian would follow.

    The scale and the degrees of freedom are learned, for each output its own.

    Args:
        num_outputs: C.
        initial_scale: the starting scale, units of y.
        initial_dof: the starting degrees of freedom.
        scale_bounds: the smallest and the largest scale, units of y.
        dof_bounds: the smallest and the largest degrees of freedom; above 2 the variance exists.

    Raises:
        DataError: bounds that are not positive and increasing, or a starting value outside of them.

    Example:
        >>> import bayesmeta as bm
        >>> heavy = bm.likelihoods.StudentT(initial_scale=1.0, initial_dof=3.0)
        >>> light = bm.likelihoods.Gaussian(bm.noise.DiagonalNoise(initial=1.0))
        >>> f, outlier = torch.zeros(1, 1, 1), bm.Data.from_arrays([0.0], [8.0])
        >>> for likelihood in (heavy, light):  # log densities of an outcome 8 scales away
        ...     print(round(likelihood.log_prob(f, outlier).item(), 2))
        -7.21
        -32.92
    """

    def __init__(
        self,
        num_outputs: int = 1,
        initial_scale: float = 0.3,
        initial_dof: float = 5.0,
        scale_bounds: tuple[float, float] = (1e-4, 1e4),
        dof_bounds: tuple[float, float] = (2.0, 200.0),
    ) -> None:
        super().__init__()
        self.outcomes, self.network_outputs = Numbers(num_outputs), num_outputs
        self.scale = Positive((num_outputs,), initial_scale, scale_bounds)
        self.dof = Positive((num_outputs,), initial_dof, dof_bounds)

    def forward(self, f: Float[Tensor, "*b K"]) -> Distribution:
        """Student's t distribution around f."""
        return Independent(StudentTDistribution(self.dof(), f, self.scale(), validate_args=False), 1)

    def marginal(self, mean: Float[Tensor, "*b K"], variance: Float[Tensor, "*b K"]) -> Distribution:
        """Student's t around f ~ N(mean, variance), for each output: in its tail still a t, however uncertain f is."""
        dof, scale = self.dof().to(mean.dtype), self.scale().to(mean.dtype)
        return Independent(SmoothedStudentT(dof, mean, scale, variance, validate_args=False), 1)

    def curvature_root(self, f: Float[Tensor, "*b K"]) -> Float[Tensor, "*b K K"]:
        """Diagonal: R Rᵀ = (dof + 1) / ((dof + 3) scale²), the same at every f (Lange, Little and Taylor 1989).

        It is positive also where the Hessian at one y is not: an outlier lies where the log density is convex.
        """
        dof = self.dof()
        root = ((dof + 1.0) / (dof + 3.0)).sqrt() / self.scale()
        return torch.diag(root).to(f.dtype).expand(*f.shape, -1)

    def unit(self) -> Float[Tensor, ""]:
        """The geometric mean of the squared scales, squared units of y."""
        return (2.0 * self.scale().log().mean()).exp()


class ProportionalGaussian(Likelihood):
    """y ~ N(f, a² + (b f)²): an error that grows with what is measured, beside one that is always there.

    It is the combined error model of pharmacokinetics and of assays (Beal and Sheiner 1982): a is the deviation of the
    noise where f is zero, b its share of a large f. Both are learned, for each output its own. Zero must mean zero: in
    standard units (`Standardized`) "proportional" would be to the distance from the mean.

    Args:
        num_outputs: C.
        initial_additive: the starting a, units of y.
        initial_proportional: the starting b, without unit: 0.1 is an error of 10 %.
        additive_bounds: the smallest and the largest a.
        proportional_bounds: the smallest and the largest b.

    Raises:
        DataError: bounds that are not positive and increasing, or a starting value outside of them.

    Example:
        >>> import bayesmeta as bm
        >>> likelihood = bm.likelihoods.ProportionalGaussian(initial_additive=0.3, initial_proportional=0.1)
        >>> f = torch.tensor([[[0.0], [4.0], [100.0]]])
        >>> likelihood(f).stddev.flatten().detach().round(decimals=2)  # 0.3, √(0.3² + 0.4²), and a tenth of 100
        tensor([ 0.3000,  0.5000, 10.0000])
        >>> bm.MAML(bm.MLP(1, [8]), likelihood=likelihood).adapt(bm.Data.from_arrays([0.0], [0.5]))
        posterior of 1 task after 1 point
    """

    known_noise = True

    def __init__(
        self,
        num_outputs: int = 1,
        initial_additive: float = 0.1,
        initial_proportional: float = 0.1,
        additive_bounds: tuple[float, float] = (1e-6, 1e6),
        proportional_bounds: tuple[float, float] = (1e-4, 10.0),
    ) -> None:
        super().__init__()
        self.outcomes, self.network_outputs = Numbers(num_outputs), num_outputs
        self.additive = Positive((num_outputs,), initial_additive, additive_bounds)
        self.proportional = Positive((num_outputs,), initial_proportional, proportional_bounds)

    def forward(self, f: Float[Tensor, "*b K"]) -> Distribution:
        """N(f, a² + (b f)²)."""
        return Independent(Normal(f, self._deviation(f), validate_args=False), 1)

    def marginal(self, mean: Float[Tensor, "*b K"], variance: Float[Tensor, "*b K"]) -> Distribution:
        """The Gaussian with the exact mean and variance of the mixture: Var y = Var f + a² + b² E f²."""
        noise = self.additive().square() + self.proportional().square() * (mean.square() + variance)
        return Independent(Normal(mean, (variance + noise).sqrt(), validate_args=False), 1)

    def curvature_root(self, f: Float[Tensor, "*b K"]) -> Float[Tensor, "*b K K"]:
        """Diagonal: R Rᵀ = 1 / v + v'² / (2 v²), with v = a² + (b f)² and v' = 2 b² f.

        The second term is what the size of a residual says of f, whatever its sign.
        """
        return self.noisy_curvature_root(f, torch.zeros_like(f))

    @override
    def noisy(self, f: Float[Tensor, "*b K"], noise: Float[Tensor, "*b C"]) -> Distribution:
        return Independent(Normal(f, torch.hypot(self._deviation(f), noise.sqrt()), validate_args=False), 1)

    @override
    def noisy_curvature_root(self, f: Float[Tensor, "*b K"], noise: Float[Tensor, "*b C"]) -> Float[Tensor, "*b K K"]:
        deviation = torch.hypot(self._deviation(f), noise.sqrt())
        return torch.diag_embed((1.0 + 2.0 * self.slope(f, deviation).square()).sqrt() / deviation).to(f.dtype)

    def slope(self, f: Float[Tensor, "*b K"], deviation: Float[Tensor, "*b K"]) -> Float[Tensor, "*b K"]:
        """How fast the deviation of the noise grows with f: b² f / √v, between -b and b.

        Args:
            f: network outputs.
            deviation: √v, of the noise at f, with what is known of it.
        """
        return self.proportional().square() * f / deviation

    def unit(self) -> Float[Tensor, ""]:
        """The geometric mean of a², squared units of y: the least that the variance can be."""
        return (2.0 * self.additive().log().mean()).exp()

    def _deviation(self, f: Tensor) -> Tensor:
        # hypot squares nothing that could overflow
        return torch.hypot(self.additive(), self.proportional() * f)


class Censored(Likelihood):
    """Outcomes below a limit of quantification, known only as "not above it" (Tobin 1958; Beal 2001, method M3).

    Above the limit the density is that of the likelihood inside; at the limit it is the probability of an outcome that
    is not above it, log Φ((limit - f) / s) in nats, with s the deviation of the noise at f. A censored outcome is
    written into the data as the limit itself. Dropping such points, or taking half of the limit for their outcome,
    bends what is learned of the others.

    Args:
        likelihood: of what would be seen without the limit: `Gaussian` with `DiagonalNoise`, or
            `ProportionalGaussian`.
        limit: the limit of quantification, in the units of y that the likelihood sees: `Standardized` changes them.

    Raises:
        UnsupportedError: another likelihood. DataError: a limit that is not finite; an outcome below the limit (when
            data are seen).

    Example:
        >>> import bayesmeta as bm
        >>> inner = bm.likelihoods.Gaussian(bm.noise.DiagonalNoise(initial=0.04))
        >>> likelihood = bm.likelihoods.Censored(inner, limit=1.0)
        >>> data = bm.Data.from_arrays([0.0, 1.0], [1.0, 1.6])  # the first was not above 1
        >>> for f in (0.2, 1.0, 1.4):
        ...     print(round(likelihood.log_prob(torch.tensor([[[f], [1.5]]]), data).item(), 3))
        0.565
        -0.128
        -3.218
        >>> learner = bm.IMAML(bm.MLP(1, [8]), likelihood=likelihood)
        >>> bool((learner.adapt(data).predict([0.0, 9.0]).quantile(0.01) >= 1.0).all())  # nothing is seen below it
        True
    """

    def __init__(self, likelihood: Likelihood, limit: float) -> None:
        super().__init__()
        diagonal = isinstance(likelihood, Gaussian) and isinstance(likelihood.noise, DiagonalNoise)
        if not diagonal and not isinstance(likelihood, ProportionalGaussian):
            raise UnsupportedError(
                "expected a likelihood whose outputs are independent Gaussians (Gaussian with DiagonalNoise, or "
                f"ProportionalGaussian), got {type(likelihood).__name__}"
            )
        if not math.isfinite(limit):
            raise DataError(f"expected a finite limit, got {limit}")
        self.outcomes, self.network_outputs = likelihood.outcomes, likelihood.network_outputs
        self.likelihood, self.limit = likelihood, float(limit)
        self.known_noise = likelihood.known_noise

    def forward(self, f: Float[Tensor, "*b K"]) -> Distribution:
        """max(y, limit), with y as the likelihood inside has it."""
        return self._censored(self.likelihood(f))

    def marginal(self, mean: Float[Tensor, "*b K"], variance: Float[Tensor, "*b K"]) -> Distribution:
        """The marginal of the likelihood inside, censored."""
        return self._censored(self.likelihood.marginal(mean, variance))

    def curvature_root(self, f: Float[Tensor, "*b K"]) -> Float[Tensor, "*b K K"]:
        """Diagonal: R Rᵀ = (Φ(-z) + zφ + 2c (z² + 1) φ + c² (2 Φ(-z) + (z³ + z) φ) + (1 + cz)² φ² / Φ(z)) / s².

        z = (limit - f) / s, c = ds/df, and φ and Φ are taken at z: it is the Fisher information of what is seen. It
        vanishes far below the limit, where an outcome says next to nothing of f.
        """
        return self._root_of(f, self._normal(self.likelihood(f)))

    @override
    def noisy(self, f: Float[Tensor, "*b K"], noise: Float[Tensor, "*b C"]) -> Distribution:
        return self._censored(self.likelihood.noisy(f, noise))

    @override
    def noisy_curvature_root(self, f: Float[Tensor, "*b K"], noise: Float[Tensor, "*b C"]) -> Float[Tensor, "*b K K"]:
        return self._root_of(f, self._normal(self.likelihood.noisy(f, noise)))

    def _root_of(self, f: Tensor, normal: Normal) -> Tensor:
        inner, slope = self.likelihood, torch.zeros_like(f)
        if isinstance(inner, ProportionalGaussian):
            slope = inner.slope(f, normal.scale)
        z = (self.limit - f) / normal.scale
        far = z.clamp(-15.0, 15.0)  # beyond it every term is 0 or 1 to rounding, and no power overflows
        density = (-0.5 * far.square()).exp() / math.sqrt(2.0 * math.pi)
        above = torch.special.ndtr(-far)
        seen = above + far * density + 2.0 * slope * (far.square() + 1.0) * density
        seen = seen + slope.square() * (2.0 * above + (far.square() + 1.0) * far * density)
        unseen = (1.0 + slope * far).square() * (-far.square() - math.log(2.0 * math.pi) - log_below(far)).exp()
        # the square root has no gradient at zero
        information = (seen + unseen).clamp(min=torch.finfo(f.dtype).tiny)
        return torch.diag_embed(information.sqrt() / normal.scale).to(f.dtype)

    def unit(self) -> Float[Tensor, ""]:
        """That of the likelihood inside."""
        return self.likelihood.unit()

    def outcome(self, data: Data, f: Float[Tensor, "*b K"]) -> Float[Tensor, "B N C"]:
        """y, with the limit in place of padding. Raises DataError for an outcome below the limit."""
        y = torch.where(data.mask[..., None], super().outcome(data, f), self.limit)
        if not torch.compiler.is_compiling() and bool((y < self._bound(y)).any()):
            raise DataError(
                f"expected outcomes of at least {self.limit:g}, the limit below which they are censored, got "
                f"{y.min().item():g}: write the limit itself where an outcome is not above it"
            )
        return y

    def _normal(self, distribution: Distribution) -> Normal:
        assert isinstance(distribution, Independent)
        assert isinstance(distribution.base_dist, Normal)
        return distribution.base_dist

    def _bound(self, like: Tensor) -> Tensor:
        return torch.full((), self.limit, dtype=like.dtype, device=like.device)  # rounded as outcomes are

    def _censored(self, distribution: Distribution) -> Distribution:
        normal = self._normal(distribution)
        return Independent(LeftCensored(normal, self._bound(normal.loc), validate_args=False), 1)


class Bernoulli(Likelihood):
    """y ~ Bernoulli(sigmoid(f)): labels 0 and 1, from K = 1 network output.

    Example:
        >>> import bayesmeta as bm
        >>> likelihood = bm.likelihoods.Bernoulli()
        >>> f = torch.tensor([[[0.0], [2.0]]])
        >>> likelihood(f).probs  # p(y = 1 | f)
        tensor([[0.5000, 0.8808]])
        >>> likelihood.marginal(f, torch.full_like(f, 4.0)).probs  # nearer to ½ where f is uncertain
        tensor([[0.5000, 0.7752]])
    """

    def __init__(self) -> None:
        super().__init__()
        self.outcomes, self.network_outputs = Labels(2), 1

    def forward(self, f: Float[Tensor, "*b K"]) -> Distribution:
        """The Bernoulli distribution with logits f."""
        return BernoulliDistribution(logits=f[..., 0], validate_args=False)

    def marginal(self, mean: Float[Tensor, "*b K"], variance: Float[Tensor, "*b K"]) -> Distribution:
        """The Bernoulli distribution with the probability E sigmoid(f), by Gauss-Hermite quadrature.

        The error of the probability is below 1e-5 up to a standard deviation of 3 in f, and 1e-2 at 10.
        """
        nodes, weights = HERMITE_NODES.to(mean), HERMITE_WEIGHTS.to(mean)
        probs = (torch.sigmoid(mean + _root(variance) * nodes) * weights).sum(-1)
        return BernoulliDistribution(probs=probs, validate_args=False)

    def curvature_root(self, f: Float[Tensor, "*b K"]) -> Float[Tensor, "*b K K"]:
        """√(p (1 - p)), accurate until it is too small for the format (|f| = 170 in float32)."""
        logs = nn.functional.logsigmoid
        return (0.5 * (logs(f) + logs(-f))).exp()[..., None]  # the root itself has no gradient at p = 0 or 1

    def outcome(self, data: Data, f: Float[Tensor, "*b K"]) -> Float[Tensor, "B N"]:
        """The labels, in the floating precision of f."""
        return self.labels_of(data, 2).to(f.dtype)  # torch wants its labels in floating point


class Categorical(Likelihood):
    """y ~ Categorical(softmax(f)): labels 0 to C - 1, from K = C network outputs.

    Args:
        num_classes: C.

    Raises:
        DataError: fewer than two classes.

    Example:
        >>> import bayesmeta as bm
        >>> likelihood = bm.likelihoods.Categorical(3)
        >>> f, data = torch.tensor([[[2.0, 0.0, 0.0]]]), bm.Data.from_labels([[0.0]], [0])
        >>> likelihood(f).probs
        tensor([[[0.7870, 0.1065, 0.1065]]])
        >>> likelihood.log_prob(f, data)  # log 0.7870, in nats
        tensor([-0.2395])
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.outcomes, self.network_outputs = Labels(num_classes), num_classes

    def forward(self, f: Float[Tensor, "*b K"]) -> Distribution:
        """The categorical distribution with logits f."""
        return CategoricalDistribution(logits=f, validate_args=False)

    def marginal(self, mean: Float[Tensor, "*b K"], variance: Float[Tensor, "*b K"]) -> Distribution:
        """E softmax(f) of independent f, as `correlated_marginal`."""
        return self.correlated_marginal(mean, torch.diag_embed(variance))

    def correlated_marginal(self, mean: Float[Tensor, "*b K"], covariance: Float[Tensor, "*b K K"]) -> Distribution:
        """E softmax(f) by a fixed rule of `normal_nodes` over the K - 1 contrasts of f.

        Only differences between classes count: the covariance is centred first, and what all classes share changes
        nothing. For two classes it is Gauss-Hermite quadrature, the same as for `Bernoulli`. For more the Kullback-
        Leibler divergence from the truth is below .002 nats for up to 5 classes, and below .03 (.002 on average) for
        20, at standard deviations of up to 6 nats. (MacKay's probit rescaling, class by class, takes a variance that
        all classes share for doubt: .2 nats.)
        """
        basis = contrasts(self.network_outputs).to(mean)
        nodes, weights = (torch.from_numpy(value).to(mean) for value in normal_nodes(self.network_outputs - 1))
        centred = basis.mT @ covariance.to(mean.dtype) @ basis
        eye = torch.eye(centred.shape[-1], dtype=mean.dtype, device=mean.device)
        size = centred.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None].clamp(min=0.0)
        relative, absolute = (1e-10, 1e-8) if mean.dtype == torch.float64 else (1e-6, 1e-6)  # of nats squared
        root = basis @ cholesky(centred + (relative * size + absolute) * eye, "covariance of the outputs")
        logits = mean[..., None, :] + nodes @ root.mT  # *b S K
        log_probs = (logits.log_softmax(-1) + weights.log()[:, None]).logsumexp(-2)
        return CategoricalDistribution(logits=log_probs, validate_args=False)

    def curvature_root(self, f: Float[Tensor, "*b K"]) -> Float[Tensor, "*b K K"]:
        """diag(√p) - p √pᵀ, so that R Rᵀ = diag(p) - p pᵀ; of rank K - 1, as a constant added to f changes nothing."""
        root = (0.5 * f.log_softmax(-1)).exp()  # √p, with a finite gradient also where p is 0
        return torch.diag_embed(root) - root.square()[..., :, None] * root[..., None, :]

    def outcome(self, data: Data, f: Float[Tensor, "*b K"]) -> Int[Tensor, "B N"]:
        """The labels, with 0 in place of padding."""
        return self.labels_of(data, self.network_outputs)


def _root(variance: Tensor) -> Tensor:
    """sqrt, with a finite gradient also where the variance is zero."""
    return variance.clamp(min=1e-12).sqrt()

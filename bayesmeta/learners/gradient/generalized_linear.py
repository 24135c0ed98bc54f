"""Generalised linear mixed models: logistic regression of binary outcomes, log-linear regression of counts.

    f(x; b_t) = h(x)ᵀ (M + L b_t),    b_t ~ N(0, I),    y ~ p(y | f)

Breslow and Clayton 1993 ("Approximate inference in generalized linear mixed models", JASA 88). With the feature 1 alone
and a Bernoulli likelihood it is the random-intercept logistic model. The integral over b is Gaussian quadrature around
the mode of each task (Pinheiro and Bates 1995; Naylor and Smith 1982), of which one node is Laplace's approximation:

    log p(D | theta) ≈ log Σ_k ω_k exp(log p(D, b_k | theta) + |ξ_k|²/2) + R/2 log 2π - ½ log det H
    b_k = b_hat + H^(-1/2) ξ_k,    H = I - ∂² log p(D | b) / ∂b² at b_hat

with ξ_k and ω_k the nodes and weights of a Gauss-Hermite rule for N(0, I).

    phi         the effects b: R numbers for each output, in units of what tasks differ by
    prior       N(0, I); theta holds M, the weights of the typical task, and L
    likelihood  Bernoulli, Categorical, Poisson, NegativeBinomial, or any other
    inference   the mode by Newton's method, implicit gradient; quadrature or weighted draws around it
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from bayesmeta.arguments import generator_of, some
from bayesmeta.data import Data
from bayesmeta.errors import DataError, UnsupportedError
from bayesmeta.inference.arrival import warn_of_distance
from bayesmeta.inference.map import require_finite
from bayesmeta.inference.quadrature import gauss_hermite
from bayesmeta.learner import SUMMARY_DRAWS, TaskPosterior
from bayesmeta.learners.gradient.base import positive_steps
from bayesmeta.learners.gradient.generalized_linear_summary import (
    generalized_linear_coefficients,
    generalized_linear_summary,
)
from bayesmeta.learners.gradient.posteriors import Approximation, LinearizableLearner
from bayesmeta.learners.gradient.random_effects import RandomEffects
from bayesmeta.learners.gradient.weighted_draws import WeightedDraws, WeightedDrawsPosterior
from bayesmeta.likelihoods import Likelihood
from bayesmeta.networks.jacobian import DenseJacobian
from bayesmeta.networks.linear_predictor import LinearPredictor
from bayesmeta.networks.network import Network
from bayesmeta.priors import DiagonalCovariance, FeatureCovariance, FullCovariance, StandardNormal
from bayesmeta.priors.prior import LOG_2PI
from bayesmeta.summaries import Coefficients, Columns, Summary
from bayesmeta.typing import LogJoint, Params

NODES = {1: 40, 2: 11}  # along each axis, by the number of effects of a task; above, one: Laplace's approximation
MOST_NODES = 4096
MOST_CORRELATED = 4  # features whose weights have a full covariance where none is given; above, a variance each
HALVINGS = 12  # of a Newton step that leads downhill


class GeneralizedLinearMixedModel(RandomEffects):
    """A generalised linear model whose weights differ between tasks: for binary outcomes, classes and counts.

    theta = M, the weights of the typical task (`network.location`), the covariance of weights between tasks, and what
    the likelihood learns. It is trained by `fit_evidence`, in float64.

    Args:
        features: h; `bm.Identity(D)` gives 1, x_1, ..., x_D. The constant alone, `bm.Identity(0)`, gives random
            intercepts. A feature that is not `varying` has the same weight in all tasks (a fixed effect).
        likelihood: p(y | f), such as `bm.likelihoods.Bernoulli()`. Of several outputs each has effects of its own, all
            with one covariance.
        covariance: the covariance of the weights between tasks; full by default up to four varying features, and
            diagonal above.
        nodes: quadrature nodes along each effect of a task, for the evidence: 1 is Laplace's approximation. By default
            40 for one effect, 11 for two, and 1 for more.
        posterior: how the mode becomes a posterior; by default `AdaptiveQuadrature()` for one or two effects of a task,
            and `WeightedDraws()` for more, which are exact up to the number of draws; or `Linearized()`.
        steps: largest number of Newton steps.

    Raises:
        DataError: a covariance over others than the features, more than 4,096 nodes, fewer than one step.
        UnsupportedError: features that cannot be adapted.

    Example:
        >>> import bayesmeta as bm
        >>> y = [[0, 0, 1, 1], [0, 1, 1, 1], [0, 0, 0, 0], [0, 0, 0, 1], [1, 1, 1, 1], [0, 0, 1, 0]]
        >>> each = [bm.Data.from_labels([0.0, 1.0, 2.0, 3.0], row) for row in y]
        >>> tasks = bm.TaskDataset(bm.Data.stack(each))
        >>> covariance = bm.priors.FullCovariance(2, varying=[0])  # random intercepts, one slope
        >>> learner = bm.learners.GeneralizedLinearMixedModel(
        ...     bm.Identity(1), likelihood=bm.likelihoods.Bernoulli(), covariance=covariance
        ... ).double()
        >>> _ = bm.fit_evidence(learner, tasks)
        >>> round(learner.log_evidence(tasks.data).sum().item(), 2)  # total log-likelihood, in nats
        -12.13
        >>> posterior = learner.adapt(bm.Data.from_labels([0.0, 1.0], [1, 1]))
        >>> before = learner.adapt(bm.Data.from_labels([], []))
        >>> bool(posterior.predict([2.0]).probs[0, 0, 1] > before.predict([2.0]).probs[0, 0, 1])
        True
    """

    network: LinearPredictor

    def __init__(
        self,
        features: Network,
        *,
        likelihood: Likelihood,
        covariance: FeatureCovariance | None = None,
        nodes: int | None = None,
        posterior: Approximation | None = None,
        steps: int = 50,
    ) -> None:
        count = features.num_outputs
        if covariance is None:
            varying = features.varying
            size = count if varying is None else len(varying)
            kind = FullCovariance if size <= MOST_CORRELATED else DiagonalCovariance
            covariance = kind(count, varying=varying)
        if covariance.num_features != count:
            raise DataError(f"expected a covariance over {count} features, got one over {covariance.num_features}")
        size = len(covariance.varying) * likelihood.network_outputs
        if size < 1:
            raise DataError("expected a feature whose weight differs between tasks, got none")
        nodes = NODES.get(size, 1) if nodes is None else some(nodes, "nodes", "node")
        if nodes**size > MOST_NODES:
            raise DataError(f"expected at most {MOST_NODES} quadrature nodes, got {nodes} along each of {size} effects")
        if posterior is None:
            posterior = AdaptiveQuadrature(nodes) if nodes > 1 else WeightedDraws()
        super().__init__(
            LinearPredictor(features, likelihood.network_outputs), likelihood=likelihood, posterior=posterior
        )
        self.covariance, self.nodes, self.steps = covariance, nodes, positive_steps(steps)
        self.prior = StandardNormal({"effects": (len(covariance.varying), likelihood.network_outputs)})

    @property
    def num_effects(self) -> int:
        """R K: how many numbers tasks differ by."""
        return math.prod(self.prior.shapes["effects"])

    def forward(self, phi: Params, x: Float[Tensor, "B M *x"]) -> Float[Tensor, "*s B M K"]:
        """f(x; phi), for one phi a task or for S draws of it."""
        fixed, rows = self._parts(x)
        return fixed + rows @ phi["effects"]

    def _parts(self, x: Tensor) -> tuple[Float[Tensor, "B M K"], Float[Tensor, "B M R"]]:
        """The linear predictor of the typical task, and what multiplies the effects."""
        features = self.network.features(x).to(self.network.location.dtype)
        return features @ self.network.location, features @ self.covariance.factor().to(features.dtype)

    def jacobian(self, phi: Params, x: Float[Tensor, "B M *x"]) -> DenseJacobian:
        """The derivative of f in the effects: h(x)ᵀ L for the effects of the same output."""
        _, rows = self._parts(x)
        eye = torch.eye(self.network.num_outputs, dtype=rows.dtype, device=rows.device)
        dense = rows[:, :, None, :, None] * eye[:, None, :]  # B M K R K
        return DenseJacobian(dense.flatten(-2), {"effects": phi["effects"].shape[1:]})

    def joint(self, data: Data) -> LogJoint:
        """What `log_joint` returns; the features are computed once."""
        fixed, rows = self._parts(data.x)
        given = self.likelihood.given(data)
        return lambda phi: given(fixed + rows @ phi["effects"]) + self.prior.log_prob(phi)

    @torch.no_grad()
    def prepare(self, tasks: Data) -> None:
        """Start the constant, where there is one and nothing has moved it, where all tasks together have theirs."""
        location, start = self.network.location, self.likelihood.pooled(tasks)
        if bool((location != 0.0).any()) or start is None:
            return
        features = self.network.features(tasks.x)[tasks.mask]
        constant = (features == 1.0).all(0).nonzero().flatten()
        if len(constant):
            location[constant[0]] = start.to(location)

    @override
    def mode(self, support: Data) -> Params:
        effects, gradient, hessian = self._at_mode(support)
        # a Newton step from the mode is zero but for rounding, and its derivative is that of the mode (the implicit
        # function); it is taken without gradients, too, so that these change no number
        step = torch.linalg.solve(hessian.detach(), gradient[..., None])[..., 0]
        return {"effects": effects.detach() + step.reshape(effects.shape)}

    @override
    def inspect(self, support: Data, phi: Params) -> None:
        problem = _Problem(self, support)
        gradient, hessian = problem.derivatives(phi["effects"])[1:]
        step = torch.linalg.solve(hessian, gradient[..., None])[..., 0]
        warn_of_distance(self.title, (gradient * step).sum(-1).clamp(min=0.0).sqrt(), "take more steps")

    def _at_mode(self, data: Data) -> tuple[Tensor, Tensor, Tensor]:
        """The mode without a graph, and gradient and negative Hessian there with one, where gradients are enabled."""
        problem = _Problem(self, data)
        effects = problem.mode(self.steps)
        require_finite({"effects": effects}, [])
        _, gradient, hessian = problem.derivatives(effects)
        return effects, gradient, hessian

    def evidence(self, data: Data) -> Float[Tensor, "B"]:
        """log p(D | theta) by quadrature around the mode, in nats; with one node by Laplace's approximation."""
        phi = self.find_mode(data)
        hessian = _Problem(self, data).derivatives(phi["effects"])[2]
        _, log_terms = around(self.joint(data), phi["effects"], hessian, self.nodes)
        return log_terms.logsumexp(0)

    @override
    def described(self, columns: Columns, *data: Data) -> Summary:
        found = generalized_linear_summary(self, self.network, self.covariance, columns, data)
        return super().described(columns, *data) if found is None else found

    @override
    def coefficients_of(self, posterior: TaskPosterior, columns: Columns) -> Coefficients | None:
        effects = posterior.sample(SUMMARY_DRAWS, generator_of(0, posterior.spec.device))["effects"].double()
        weights = self.network.location.double() + self.covariance.factor().double() @ effects
        return generalized_linear_coefficients(weights, self.network, columns)

    def hessian(self, support: Data, phi: Params) -> Float[Tensor, "B P P"]:
        """The negative Hessian of the log joint in the effects.

        Args:
            support: the data of each task.
            phi: the effects.
        """
        return _Problem(self, support).derivatives(phi["effects"])[2]


class _Problem:
    """The log joint of the effects of a batch of tasks, whose features are computed once."""

    def __init__(self, learner: GeneralizedLinearMixedModel, data: Data) -> None:
        self.fixed, self.rows = learner._parts(data.x)
        self.given, self.shape = learner.likelihood.given(data), learner.prior.shapes["effects"]

    def value(self, effects: Tensor) -> Tensor:
        return self.given(self.fixed + self.rows @ effects) - 0.5 * effects.square().sum((-1, -2))

    def derivatives(self, effects: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Value, gradient and negative Hessian, `B`, `B P` and `B P P`; with a graph where gradients are enabled."""
        keep = torch.is_grad_enabled()
        with torch.enable_grad():
            f = self.fixed + self.rows @ effects
            f = f if keep and f.requires_grad else f.detach().requires_grad_()
            value = self.given(f)
            (slope,) = torch.autograd.grad(value.sum(), f, create_graph=True)
            # of each output of a point in all of its outputs: points do not meet in the likelihood
            bend = [
                torch.autograd.grad(each.sum(), f, create_graph=keep, retain_graph=True, materialize_grads=True)[0]
                for each in (slope.unbind(-1) if slope.requires_grad else ())
            ]
        curvature = -torch.stack(bend, -2) if bend else torch.zeros_like(f)[..., None].expand(*f.shape, f.shape[-1])
        if not keep:
            value, slope = value.detach(), slope.detach()
        size = math.prod(self.shape)
        gradient = (self.rows.mT @ slope - effects).flatten(1)
        hessian = torch.einsum("bnr,bnkl,bns->brksl", self.rows, curvature, self.rows).reshape(-1, size, size)
        eye = torch.eye(size, dtype=hessian.dtype, device=hessian.device)
        return value - 0.5 * effects.square().sum((-1, -2)), gradient, hessian + eye

    @torch.no_grad()
    def mode(self, steps: int) -> Tensor:
        """By Newton's method from zero, each step halved until it does not lead downhill."""
        effects = self.rows.new_zeros(len(self.rows), *self.shape)
        moving = torch.ones(len(effects), dtype=torch.bool, device=effects.device)
        eps = torch.finfo(effects.dtype).eps
        for _ in range(steps):
            value, gradient, hessian = self.derivatives(effects)
            step = _newton_step(gradient, hessian).reshape(effects.shape)
            distance = (gradient * step.flatten(1)).sum(-1).clamp(min=0.0).sqrt()  # in posterior deviations
            moving = moving & (distance > eps**0.5)
            if not bool(moving.any()):
                break
            share = moving.to(effects.dtype)
            for _ in range(HALVINGS):
                after = self.value(effects + share[:, None, None] * step)
                down = moving & ~(after >= value - 10.0 * eps * value.abs())  # true for NaN
                if not bool(down.any()):
                    break
                share = torch.where(down, 0.5 * share, share)
            moving = moving & ~down
            share = torch.where(moving, share, 0.0)
            effects = torch.where(moving[:, None, None], effects + share[:, None, None] * step, effects)
        return effects


def _newton_step(gradient: Tensor, hessian: Tensor) -> Tensor:
    """|H|⁻¹ g; the absolute eigenvalues are needed where the likelihood is not log-concave."""
    factor, info = torch.linalg.cholesky_ex(hessian)
    if not bool(info.any()):
        return torch.cholesky_solve(gradient[..., None], factor)[..., 0]
    finite = torch.isfinite(hessian).all(-1).all(-1)
    eye = torch.eye(hessian.shape[-1], dtype=hessian.dtype, device=hessian.device)
    sizes, axes = torch.linalg.eigh(torch.where(finite[:, None, None], hessian, eye))
    return (axes @ ((axes.mT @ gradient[..., None])[..., 0] / sizes.abs().clamp(min=1e-6))[..., None])[..., 0]


def around(
    log_joint: LogJoint, effects: Float[Tensor, "B R K"], hessian: Float[Tensor, "B P P"], count: int
) -> tuple[Float[Tensor, "S B R K"], Float[Tensor, "S B"]]:
    """The nodes of a rule around a mode, and the terms whose sum is the integral of exp(log joint), in nats.

    Args:
        log_joint: {"effects": ..} -> `B`, also for draws.
        effects: the mode.
        hessian: of the negative log joint there; the rule has its inverse as covariance.
        count: nodes along each axis.

    Example:
        >>> density = torch.distributions.Normal(3.0, 0.1)
        >>> joint = lambda phi: density.log_prob(phi["effects"]).sum((-1, -2))
        >>> _, terms = around(joint, torch.full((1, 1, 1), 3.0), torch.full((1, 1, 1), 100.0), 3)
        >>> abs(terms.logsumexp(0).item()) < 1e-4
        True
    """
    size = hessian.shape[-1]
    rule = gauss_hermite(count, size, effects.new_zeros(1))
    factor = torch.linalg.cholesky(hessian)
    z, log_weights = rule.z[0][:, None, :, None], rule.log_weights[0][:, None]  # S 1 P 1
    steps = torch.linalg.solve_triangular(
        factor.mT.expand(len(z), -1, -1, -1), z.expand(-1, len(effects), -1, -1), upper=True
    )
    nodes = effects + steps.reshape(len(z), *effects.shape)
    change = 0.5 * z.square().sum((-1, -2)) + 0.5 * size * LOG_2PI - factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return nodes, log_weights + change + log_joint({"effects": nodes})


class AdaptiveQuadrature(Approximation):
    """The posterior at the nodes of a Gauss-Hermite rule around the mode, with the weights that the log joint gives.

    It is for `GeneralizedLinearMixedModel` with one or two effects of a task: there it is exact to many digits.

    Args:
        nodes: along each effect.

    Raises:
        DataError: fewer than two nodes.
        UnsupportedError: when adapting, another learner, or too many effects.

    Example:
        >>> import bayesmeta as bm
        >>> learner = bm.learners.GeneralizedLinearMixedModel(
        ...     bm.Identity(0), likelihood=bm.likelihoods.Poisson(), posterior=bm.learners.AdaptiveQuadrature(15)
        ... )
        >>> posterior = learner.adapt(bm.Data.from_arrays(torch.zeros(3, 0), [3.0, 5.0, 4.0]))
        >>> posterior.draws["effects"].shape, posterior.log_weights.exp().sum().round(decimals=4).item()
        (torch.Size([15, 1, 1, 1]), 1.0)
    """

    def __init__(self, nodes: int = 15) -> None:
        self.nodes = some(nodes, "nodes", "node")
        if nodes < 2:
            raise DataError(f"expected at least 2 nodes, got {nodes}")

    def of(self, learner: LinearizableLearner, support: Data, phi: Params) -> "QuadraturePosterior":
        """The nodes around phi."""
        if not isinstance(learner, GeneralizedLinearMixedModel) or self.nodes**learner.num_effects > MOST_NODES:
            raise UnsupportedError(
                f"expected a GeneralizedLinearMixedModel with few effects of a task, got {learner.title}: "
                "use WeightedDraws()"
            )
        joint, hessian = learner.joint(support), learner.hessian(support, phi)
        nodes, log_terms = around(joint, phi["effects"], hessian, self.nodes)
        return QuadraturePosterior(
            spec=support.spec,
            learner=learner,
            support=support,
            phi=phi,
            draws={"effects": nodes},
            log_weights=log_terms.mT.log_softmax(-1),
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class QuadraturePosterior(WeightedDrawsPosterior):
    """phi | D held at the nodes of a quadrature rule. Its predictive is the mixture of the likelihoods at them.

    Attributes:
        draws: the nodes, `S B R K`.
        log_weights: `B S`, normalised.

    Example:
        >>> import bayesmeta as bm
        >>> learner = bm.learners.GeneralizedLinearMixedModel(bm.Identity(0), likelihood=bm.likelihoods.Bernoulli())
        >>> posterior = learner.double().adapt(bm.Data.from_labels([[], [], []], [1, 1, 0]))
        >>> isinstance(posterior, QuadraturePosterior), round(posterior.log_weights.exp().sum().item(), 6)
        (True, 1.0)
    """

    def sample(self, num_draws: int, generator: torch.Generator | None = None) -> Params:
        """Draws of phi, each value `S B *shape`: weighted draws around the mode, as nodes are a grid."""
        return WeightedDraws(2048).of(self.learner, self.support, self.phi).sample(num_draws, generator)

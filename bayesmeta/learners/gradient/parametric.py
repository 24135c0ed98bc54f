"""Structural models: a formula with named parameters, which differ between tasks.

The nonlinear mixed-effects model of Lindstrom and Bates 1990 ("Nonlinear mixed effects models for repeated measures
data", Biometrics 46), with P parameters that a `Scale` puts on the real line, parameter = transform(η):

    η_t = location + L b_t,    b_t ~ N(0, I),    f(x; phi_t) = function(x, transform(η_t))
    log p(D | theta) ≈ log p(D, b_hat | theta) + R/2 log 2π - ½ log det(I + Jᵀ Λ J),    J = ∂f/∂b at b_hat

b_hat is the mode and J = (∂f/∂η) L. With a Gaussian likelihood this is the evidence of the model linearised at b_hat:
the objective of first-order conditional estimation ("FOCE"), of which nlme maximises a part at a time.

    phi         the effects b: R numbers, in units of what tasks differ by; `values` gives the parameters themselves
    prior       N(0, I); theta holds the location and the covariance L Lᵀ of the parameters on their scales
    likelihood  any; Gaussian with learned noise by default
    inference   MAP by damped Gauss-Newton and Newton steps, implicit gradient; weighted draws from Laplace around it

L may be singular, as where a fit finds that a parameter does not differ between tasks: b keeps its prior.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn
from typing_extensions import override

from bayesmeta.arguments import generator_of
from bayesmeta.data import Data
from bayesmeta.errors import DataError
from bayesmeta.inference.arrival import warn_of_distance
from bayesmeta.inference.gauss_newton import LevenbergMarquardt, distance_to_mode, posterior_product
from bayesmeta.inference.laplace import log_determinant
from bayesmeta.inference.map import at_optimum, require_finite
from bayesmeta.inference.newton import polished
from bayesmeta.inference.solvers import FlatLogJoint, MapProblem
from bayesmeta.learner import SUMMARY_DRAWS, TaskPosterior
from bayesmeta.learners.gradient.base import over_draws, positive_steps
from bayesmeta.learners.gradient.posteriors import Approximation
from bayesmeta.learners.gradient.random_effects import RandomEffects
from bayesmeta.learners.gradient.weighted_draws import WeightedDraws
from bayesmeta.likelihoods import Gaussian, Likelihood
from bayesmeta.noise import DiagonalNoise
from bayesmeta.parametric import Curve, Scale
from bayesmeta.priors import FeatureCovariance, FullCovariance, StandardNormal
from bayesmeta.priors.prior import LOG_2PI
from bayesmeta.summaries import Coefficients, Columns, PlainSummary, Summary
from bayesmeta.summaries.text import brief
from bayesmeta.typing import Params

START_SHARE = 0.1  # of the mean squared residual of the typical curve that is noise, to begin with


class Parametric(RandomEffects):
    """A formula whose parameters differ between tasks: a nonlinear mixed-effects model.

    theta = the typical parameters (`network.location`), their covariance between tasks (`covariance`), both on the
    transformed scales, and what the likelihood learns, such as the noise. It is trained by `fit_evidence`, in float64.

    The function is written for a batch of tasks, by broadcasting: x has the shape `B N D`, so that `x[..., 0]` (`B N`)
    is the first input of every point; each parameter has the shape `B 1`; and what is returned has the shape `B N`, or
    `B N K` for K outputs. It is tried when the learner is made.

    Args:
        function: f(x, parameters), differentiable by torch; or a `bm.parametric.Formula`, which can be stored.
        parameters: what each parameter is, by name: its range and where its prior starts, such as
            `{"ke": bm.parametric.Positive(0.1)}`.
        covariance: the form of the covariance between tasks, over all parameters in their order, such as
            `bm.priors.DiagonalCovariance(3)`; full by default. It starts from the deviations of the parameters, and
            varies those whose deviation is not 0.
        num_inputs: D; that of the formula, or 1, by default.
        likelihood: p(y | f); Gaussian by default, with noise that starts from the tasks where `fit_evidence` trains.
        posterior: how the mode becomes a posterior; `bm.learners.WeightedDraws()` by default, `Linearized()`, which is
            Gaussian and faster, `LinearizedDiagonal()` or `PointEstimate()`.
        steps: largest number of steps of the solver, for each task.

    Raises:
        DataError: parameters that are not the formula's, none that differs between tasks, a covariance over others, a
            function that fails, mixes tasks or has no derivative.
        ShapeError: it returns another shape, or another number of outputs than the likelihood needs.

    Example:
        >>> import bayesmeta as bm
        >>> parameters = {"Vmax": bm.parametric.Positive(200.0, stddev=0.3), "Km": bm.parametric.Positive(0.05)}
        >>> noise = bm.noise.DiagonalNoise(initial=25.0)
        >>> likelihood = bm.likelihoods.Gaussian(noise)
        >>> learner = bm.Parametric(bm.parametric.MichaelisMenten(), parameters, likelihood=likelihood).double()
        >>> posterior = learner.adapt(bm.Data.from_arrays([0.02, 0.1, 0.5], [40.0, 110.0, 170.0]))
        >>> {name: round(value.item(), 2) for name, value in learner.values(posterior.mean).items()}
        {'Vmax': 195.13, 'Km': 0.08}
        >>> low, high = posterior.predict([1.0]).interval(0.9)
        >>> bool(low < 180.0 < high)
        True
    """

    network: Curve

    def __init__(
        self,
        function: Callable[[Tensor, Params], Tensor],
        parameters: Mapping[str, Scale],
        *,
        covariance: FeatureCovariance | None = None,
        num_inputs: int | None = None,
        likelihood: Likelihood | None = None,
        posterior: Approximation | None = None,
        steps: int = 50,
    ) -> None:
        curve = Curve(function, parameters, num_inputs)
        own = Gaussian(DiagonalNoise(curve.num_outputs)) if likelihood is None else likelihood
        super().__init__(curve, likelihood=own, posterior=WeightedDraws() if posterior is None else posterior)
        self.steps = positive_steps(steps)
        deviations = [scale.stddev for scale in curve.scales.values()]
        varying = tuple(i for i, deviation in enumerate(deviations) if deviation > 0.0)
        if not varying:
            raise DataError("expected a parameter that differs between tasks, got deviations of 0 for all of them")
        if covariance is None:
            covariance = FullCovariance(len(deviations), varying=varying)
        if covariance.num_features != len(deviations) or covariance.varying != varying:
            raise DataError(
                f"expected a covariance over {len(deviations)} parameters of which {list(varying)} vary, as their "
                f"deviations say, got one over {covariance.num_features} of which {list(covariance.varying)} vary"
            )
        covariance.set_matrix(torch.diag(torch.tensor(deviations, dtype=torch.float64).square()))
        self.covariance = covariance
        self.prior = StandardNormal({"effects": (len(varying),)})
        self.starts_noise = likelihood is None

    def values(self, phi: Params) -> Params:
        """The parameters themselves, in their own units, by name.

        Args:
            phi: effects of tasks, or draws of them, as a posterior gives them: `posterior.mean`, `posterior.sample(S)`.

        Returns:
            By name, `B`, or `S B` for draws.

        Example:
            >>> import bayesmeta as bm
            >>> growth = {"Asym": bm.parametric.Positive(190.0), "xmid": bm.parametric.Positive(700.0)}
            >>> growth |= {"scal": bm.parametric.Positive(350.0, stddev=0.0)}  # the same for all tasks
            >>> learner = bm.Parametric(bm.parametric.LogisticGrowth(), growth).double()
            >>> posterior = learner.adapt(bm.Data.from_arrays([118.0, 484.0], [30.0, 58.0]))
            >>> {name: value.shape for name, value in learner.values(posterior.sample(100)).items()}
            {'Asym': torch.Size([100, 1]), 'xmid': torch.Size([100, 1]), 'scal': torch.Size([100, 1])}
        """
        return self.network.values(self._real(phi["effects"]))

    @property
    def typical(self) -> dict[str, float]:
        """The median of each parameter across tasks, in its own unit.

        Example:
            >>> import bayesmeta as bm
            >>> scales = {"Vmax": bm.parametric.Positive(200.0), "Km": bm.parametric.Positive(0.05)}
            >>> learner = bm.Parametric(bm.parametric.MichaelisMenten(), scales)
            >>> {name: round(value, 3) for name, value in learner.typical.items()}
            {'Vmax': 200.0, 'Km': 0.05}
        """
        with torch.no_grad():
            values = self.network.values(self.network.location.double())
        return {name: float(value) for name, value in values.items()}

    @override
    def coefficients_of(self, posterior: TaskPosterior, columns: Columns) -> Coefficients:
        drawn = self.values(posterior.sample(SUMMARY_DRAWS, generator_of(0, posterior.spec.device)))
        return Coefficients.drawn(list(drawn), torch.stack([each.double() for each in drawn.values()], -1))

    @override
    def described(self, columns: Columns, *data: Data) -> Summary:
        """In words, with the median of each parameter and where most tasks have it."""
        found = super().described(columns, *data)
        drawn = self.values(self.prior.sample(SUMMARY_DRAWS, generator_of(0, self.network.location.device)))
        ends = torch.tensor([0.05, 0.95], dtype=torch.float64)
        rows = []
        for name, typical in self.typical.items():
            low, high = torch.quantile(drawn[name].double().cpu(), ends).tolist()
            of_tasks = "the same for all tasks" if low == high else f"90 % of tasks {brief(low)} to {brief(high)}"
            rows.append((name, f"{brief(typical)} in a typical task, {of_tasks}"))
        return replace(found, learned=(*rows, *found.learned)) if isinstance(found, PlainSummary) else found

    def forward(self, phi: Params, x: Float[Tensor, "B M D"]) -> Float[Tensor, "*s B M K"]:
        """f(x; phi), for one phi a task or for S draws of it."""
        return over_draws(self._at, phi, x, tuple(phi["effects"].shape[:-2]))

    def _at(self, phi: Params, x: Tensor) -> Tensor:
        return self.network.at(self._real(phi["effects"]), x)

    def _real(self, effects: Float[Tensor, "*s B R"]) -> Float[Tensor, "*s B P"]:
        return self.network.location + effects @ self.covariance.factor().to(effects.dtype).mT

    @override
    def mode(self, support: Data) -> Params:
        joint, curvature = self.joint(support), partial(self.curvature, support)
        problem = MapProblem(joint, self.start(support.num_tasks), curvature=curvature)
        with torch.no_grad():
            phi = polished(joint, LevenbergMarquardt(self.steps).solve(problem))
            require_finite(phi, [joint(phi)])
        tolerance = torch.finfo(support.x.dtype).eps ** 0.5
        precondition = posterior_product(curvature)
        return at_optimum(joint, phi, precondition=precondition, solve_steps=20, tolerance=tolerance)

    @override
    def inspect(self, support: Data, phi: Params) -> None:
        objective = FlatLogJoint(self.joint(support), phi)
        _, gradient = objective(objective.start)
        distance = distance_to_mode(self.curvature(support, phi), gradient)
        warn_of_distance(self.title, distance, "take more steps, or start the parameters nearer to the data")

    def evidence(self, data: Data) -> Float[Tensor, "B"]:
        """Laplace's approximation of log p(D | theta), in nats: exact where f is linear and the noise Gaussian."""
        phi = self.find_mode(data)
        white = self.curvature(data, phi).white()  # B NK R
        constant = 0.5 * white.shape[-1] * LOG_2PI
        return self.joint(data)(phi) + constant - 0.5 * log_determinant(white.mT @ white)

    @torch.no_grad()
    def prepare(self, tasks: Data) -> None:
        """Start the noise from the tasks, where the learner has made it itself and nothing has moved it.

        Raises:
            DataError: the typical curve is not finite at a point.
        """
        f = torch.where(tasks.mask[..., None], self.network(tasks.x), 0.0)
        if not bool(torch.isfinite(f).all()):
            task, point = (int(i) for i in (~torch.isfinite(f)).any(-1).nonzero()[0])
            raise DataError(
                f"expected a curve that is finite at the starting parameters {self.typical}, got "
                f"{f[task, point].tolist()} at x = {tasks.x[task, point].tolist()}"
            )
        likelihood = self.likelihood
        if not self.starts_noise or not isinstance(likelihood, Gaussian) or not isinstance(likelihood.noise, nn.Module):
            return
        noise = likelihood.noise
        untouched = DiagonalNoise(noise.num_outputs).variance().to(noise.variance())
        residual = torch.where(tasks.mask[..., None], tasks.y - f, 0.0).square().sum((0, 1)) / tasks.counts.sum()
        if bool(torch.allclose(noise.variance(), untouched, rtol=1e-6)) and bool((residual > 0.0).all()):
            noise.set_nearest(torch.diag(START_SHARE * residual))

"""The mode under a Gaussian prior by Gauss-Newton steps, of many tasks at once.

With the generalised Gauss-Newton matrix G = Jᵀ Λ J of the support, prior variances D = S² and g the gradient of the log
joint, a step is

    d = (D⁻¹ (1 + μ) + G)⁻¹ g       by the NK x NK kernel AAᵀ of the points, which the posterior needs anyway

For Gaussian noise and μ = 0 it is the posterior mean of the network that is linear in phi, in its dual form:

    phi + d = theta + D Jᵀ (J D Jᵀ + Σ)⁻¹ (y - f(phi) + J (phi - theta))

GaussNewton          a few such steps, none of which leads downhill, differentiated through: the steps are the method
LevenbergMarquardt   until the mode: where the log joint does not rise μ grows (Levenberg 1944, Marquardt 1963)

√(gᵀ (D⁻¹ + G)⁻¹ g) is the distance to the mode in posterior deviations, which has no unit: it says when a task has
arrived.
"""

import copy
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from bayesmeta.errors import DataError, UnsupportedError
from bayesmeta.inference.laplace import Curvature
from bayesmeta.inference.solvers import FlatLogJoint, MapProblem, Solver, two_loops
from bayesmeta.linalg import cholesky, flattened
from bayesmeta.typing import Params

DAMPINGS = (0.0, 1e-3, 1e-2, 1e-1, 1.0)  # that GaussNewton tries, over the trace of AAᵀ: the last ascends the gradient
VISIBLE = 1e-2  # nats that more damping must gain over less


class PosteriorCovariance:
    """(S⁻² (1 + μ) + G)⁻¹ of each task: the Laplace covariance where μ = 0.

    A product costs two with the rows of A, or one of size P where that is smaller.

    Args:
        curvature: G, with prior variances as S².
        damping: μ of each task, `B`.

    Attributes:
        information: the trace of AAᵀ, `B`: not below the most that the support says of a direction, over the prior.

    Example:
        >>> from bayesmeta.networks.jacobian import DenseJacobian
        >>> shapes = {"w": torch.Size([1])}  # f(x; w) = x w under w ~ N(0, 1), seen at x = 1 with noise of variance 1
        >>> curvature = Curvature(DenseJacobian(torch.ones(1, 1, 1, 1), shapes), {"w": torch.ones(1)}, shapes)
        >>> PosteriorCovariance(curvature).times(torch.ones(1, 1))
        tensor([[0.5000]], dtype=torch.float64)
    """

    def __init__(self, curvature: Curvature, damping: Float[Tensor, "B"] | None = None) -> None:
        self._rows, self._prior = curvature.rows, curvature.scale().square()
        self._by_points = curvature.rows.num_rows <= self._prior.shape[1]
        if self._by_points:
            self._kernel = curvature.kernel()
        else:  # many points and a small phi
            white = curvature.white()
            self._kernel = white.mT @ white
        self.information = self._kernel.diagonal(dim1=1, dim2=2).sum(1)
        self._damp(damping)

    def damped(self, damping: Float[Tensor, "B"]) -> "PosteriorCovariance":
        """The same with another μ."""
        other = copy.copy(self)
        other._damp(damping)
        return other

    def _damp(self, damping: Float[Tensor, "B"] | None) -> None:
        share = torch.ones_like(self._prior[:, :1]) if damping is None else 1.0 / (1.0 + damping[:, None])
        self._squares, self._scale = self._prior * share, (self._prior * share).sqrt()
        eye = torch.eye(self._kernel.shape[-1], dtype=self._kernel.dtype, device=self._kernel.device)
        self._factor = cholesky(eye + self._kernel * share[..., None], "posterior precision")

    def times(self, vector: Float[Tensor, "B P"]) -> Float[Tensor, "B P"]:
        """The product with a vector, in float64."""
        vector = vector.double()
        if not self._by_points:  # S (I + AᵀA)⁻¹ S
            return self._scale * torch.cholesky_solve((self._scale * vector)[..., None], self._factor)[..., 0]
        spread = self._squares * vector  # S² - S² Bᵀ (I + AAᵀ)⁻¹ B S² with A = B S
        inner = torch.cholesky_solve(self._rows.times(spread)[..., None], self._factor)[..., 0]
        return spread - self._squares * self._rows.transposed_times(inner)


def distance_to_mode(curvature: Curvature, gradient: Float[Tensor, "B P"]) -> Float[Tensor, "B"]:
    """√(gᵀ (S⁻² + G)⁻¹ g): how far the mode is, in posterior deviations, where the network is linear in phi.

    Args:
        curvature: G, with prior variances as S².
        gradient: g, of the log joint.

    Example:
        >>> from bayesmeta.networks.jacobian import DenseJacobian
        >>> shapes = {"w": torch.Size([1])}  # one direction, of which the support says 3 times as much as the prior
        >>> rows = DenseJacobian(torch.full((1, 1, 1, 1), 3.0**0.5), shapes)
        >>> curvature = Curvature(rows, {"w": torch.ones(1)}, shapes)
        >>> distance_to_mode(curvature, torch.ones(1, 1))  # the mode is at 1/4, the posterior deviation 1/2
        tensor([0.5000], dtype=torch.float64)
    """
    gradient = gradient.double()
    return (gradient * PosteriorCovariance(curvature).times(gradient)).sum(1).clamp(min=0.0).sqrt()


def posterior_product(
    curvature: Callable[[Params], Curvature],
) -> Callable[[Params], Callable[[Float[Tensor, "B P"]], Float[Tensor, "B P"]]]:
    """At phi, the product of a vector with the Laplace covariance there: nearly what `implicit_map` solves for.

    Args:
        curvature: phi -> the Gauss-Newton matrix of the support there, with the prior variances as S².
    """

    def at(phi: Params) -> Callable[[Tensor], Tensor]:
        with torch.no_grad():
            covariance = PosteriorCovariance(curvature(phi))
        return lambda vector: covariance.times(vector).to(vector.dtype)

    return at


class GaussNewton(Solver):
    """A few Gauss-Newton steps, each the exact posterior mean of the network that is linearised where it begins.

    They are differentiated through, as MAML's steps are: what is meta-trained is what a task gets, also where so few
    steps do not arrive at the mode. Of a few dampings μ, from none to one with which the step is gradient ascent,
    each task takes the one that leads highest, and stays where all of them lead downhill. Train with these on
    predictions (`IMAML`'s meta-loss, or `MarginalPredictive`): the Laplace evidence means something at the mode alone.

    Args:
        steps: how many.

    Raises:
        DataError: no steps.

    Example:
        >>> import bayesmeta as bm
        >>> learner = bm.IMAML(bm.Identity(1), precision=1.0, solver=bm.inference.GaussNewton(steps=1))
        >>> support = bm.Data.from_arrays([0.0, 1.0, 2.0], [1.0, 3.0, 5.0])
        >>> one = learner.adapt(support).mean["output.weight"]  # f is linear in phi: one step is the posterior mean
        >>> more = bm.IMAML(bm.Identity(1), precision=1.0, solver=bm.inference.GaussNewton(steps=5))
        >>> more.load_state_dict(learner.state_dict())
        <All keys matched successfully>
        >>> torch.allclose(one, more.adapt(support).mean["output.weight"], atol=1e-5)
        True
    """

    unrolls = True

    def __init__(self, steps: int = 3) -> None:
        if steps < 1:
            raise DataError(f"expected at least one step, got {steps}")
        self.steps = steps

    def solve(self, problem: MapProblem) -> Params:
        """`steps` steps, with their graph where gradients are enabled."""
        curvature, phi = _curvature_of(problem, self), problem.start
        for _ in range(self.steps):
            gradient, covariance = _flat_gradient(problem, phi), PosteriorCovariance(curvature(phi))
            share, moves = _highest(problem, phi, gradient, covariance)
            step = covariance.damped(share * covariance.information).times(gradient)
            phi = _moved(phi, torch.where(moves[:, None], step, 0.0))
        return phi


class LevenbergMarquardt(Solver):
    """Damped Gauss-Newton steps until the mode, which is then differentiated as the optimum that it is.

    A step is taken where the log joint rises, and where it does not μ grows, for every task on its own: no task ever
    ends below where it began, whatever its number of points, noise or units, and there is no step size. A task has
    arrived when it is √eps posterior deviations from the mode, or when neither the log joint nor its gradient tells any
    more, to rounding, where to go.

    Args:
        steps: largest number of steps.
        history: past steps that correct undamped ones for the curvature of the network, which G leaves out (L-BFGS).

    Raises:
        DataError: arguments out of range.

    Example:
        >>> import bayesmeta as bm
        >>> learner = bm.LLAMA(bm.MLP(1, [16]), precision=10.0, solver=bm.inference.LevenbergMarquardt(steps=20))
        >>> learner.adapt(bm.Data.from_arrays([0.0, 1.0, 2.0], [0.0, 0.8, 0.9])).predict([1.5]).mean.shape
        torch.Size([1, 1, 1])
    """

    def __init__(self, steps: int = 50, history: int = 10) -> None:
        if steps < 1 or history < 1:
            raise DataError(f"expected steps, history >= 1, got {steps} and {history}")
        self.steps, self.history = steps, history

    def solve(self, problem: MapProblem) -> Params:
        """Until every task has arrived, or `steps` are taken."""
        return self.search(problem)[0]

    @torch.no_grad()
    def search(self, problem: MapProblem) -> tuple[Params, Float[Tensor, "B"]]:
        """The mode of every task, and how far from it the search has ended.

        Args:
            problem: whose optimum it is.

        Returns:
            phi, and the distance from the mode before the last step, in posterior deviations (`distance_to_mode`).

        Raises:
            InferenceError: a kernel that is not finite.

        Example:
            >>> from bayesmeta.networks.jacobian import jacobian
            >>> f, x = lambda phi, x: phi["w"][:, None] ** 3 * x, torch.ones(1, 1, 1)  # one point y = 8, noise N(0, 1)
            >>> log_joint = lambda phi: -0.5 * (f(phi, x)[:, 0, 0] - 8.0) ** 2 - 0.5 * (phi["w"][:, 0] - 1.0) ** 2
            >>> def curvature(phi):
            ...     return Curvature(jacobian(f, phi, x), {"w": torch.ones(1)}, {"w": torch.Size([1])})
            >>> problem = MapProblem(log_joint, {"w": torch.ones(1, 1)}, curvature=curvature)
            >>> phi, distance = LevenbergMarquardt().search(problem)
            >>> round(phi["w"].item(), 3), bool(distance < 1e-3)
            (1.993, True)
        """
        curvature = _curvature_of(problem, self)
        objective = FlatLogJoint(problem.log_joint, problem.start)
        phi = objective.start
        value, gradient = objective(phi)
        rounding, tolerance = 10.0 * torch.finfo(phi.dtype).eps, torch.finfo(phi.dtype).eps ** 0.5
        damping = torch.zeros_like(value, dtype=torch.float64)
        growth, distance = torch.full_like(damping, 2.0), torch.full_like(damping, torch.inf)
        moving = torch.ones_like(value, dtype=torch.bool)
        pairs: list[tuple[Tensor, Tensor, Tensor]] = []
        for _ in range(self.steps):
            matrix = curvature(objective.unflatten(phi))
            inverse = PosteriorCovariance(matrix, damping)
            known = [(s, y, torch.where(damping == 0.0, rho, 0.0)) for s, y, rho in pairs]
            step = two_loops(gradient.double(), known, inverse.times)
            slope = (gradient * step).sum(1).clamp(min=0.0)
            # a damped step makes the distance look at most √(1 + μ) too short
            before, distance = distance, torch.where(moving, (slope * (1.0 + damping)).sqrt(), distance)
            # what the quadratic model promises: gᵀd - ½ dᵀ (S⁻² + G) d
            promised = 0.5 * (slope + damping * (step / matrix.scale()).square().sum(1))
            visible = promised > rounding * value.double().abs()
            moving = moving & (visible | (damping > 0.0) | (distance <= 0.5 * before))
            new_phi = torch.where(moving[:, None], phi + step.to(phi.dtype), phi)
            new_value, new_gradient = objective(new_phi)
            s, y = (new_phi - phi).double(), (gradient - new_gradient).double()
            # a gain that drowns in the rounding of the value is still seen by the gradients at both ends
            mean_slope = 0.5 * ((gradient.double() + new_gradient.double()) * s).sum(1)
            gain = torch.where(visible, (new_value - value).double(), mean_slope)
            accepted = moving & (gain > 1e-4 * promised)  # false for NaN
            product = (s * y).sum(1)
            usable = accepted & (product > 1e-10 * (s / matrix.scale()).square().sum(1))
            rho = torch.where(usable, 1.0 / torch.where(usable, product, 1.0), 0.0)
            pairs = [*pairs, (torch.where(usable[:, None], s, 0.0), torch.where(usable[:, None], y, 0.0), rho)][
                -self.history :
            ]
            phi = torch.where(accepted[:, None], new_phi, phi)
            gradient = torch.where(accepted[:, None], new_gradient, gradient)
            value = torch.where(accepted, new_value, value)
            moving = moving & torch.where(accepted, distance > tolerance, visible)
            # Nielsen 1999: the damping falls where the gain is what was promised, and grows ever faster where it is not
            quality = gain / torch.where(promised > 0.0, promised, 1.0)
            eased = damping * (1.0 - (2.0 * quality - 1.0) ** 3).clamp(0.1, 1.0)
            raised = torch.maximum(growth * damping, 1e-3 * inverse.information + 1.0)
            damping = torch.where(accepted, torch.where(eased < 0.1, 0.0, eased), raised)
            growth = torch.where(accepted, 2.0, 2.0 * growth)
            if not bool(moving.any()):
                break
        return objective.unflatten(phi), distance


def _curvature_of(problem: MapProblem, solver: Solver) -> Callable[[Params], Curvature]:
    if problem.curvature is None:
        raise UnsupportedError(
            f"expected a problem with a curvature, got None: {type(solver).__name__} is for Gaussian priors and "
            "likelihoods with a curvature_root"
        )
    return problem.curvature


def _flat_gradient(problem: MapProblem, phi: Params) -> Float[Tensor, "B P"]:
    """That of the log joint, with its graph where gradients are enabled."""
    keep = torch.is_grad_enabled()
    with torch.enable_grad():
        here = {
            name: value if keep and value.requires_grad else value.detach().requires_grad_()
            for name, value in phi.items()
        }
        value = problem.log_joint(here).sum()
        parts = torch.autograd.grad(value, list(here.values()), create_graph=keep, materialize_grads=True)
    return torch.cat([flattened(part) for part in parts], 1)


@torch.no_grad()
def _highest(
    problem: MapProblem, phi: Params, gradient: Float[Tensor, "B P"], covariance: PosteriorCovariance
) -> tuple[Float[Tensor, "B"], Bool[Tensor, "B"]]:
    """Which of `DAMPINGS` takes each task highest, and whether that is not below where it is, to rounding."""
    before = problem.log_joint(phi)
    rounding = 100.0 * torch.finfo(before.dtype).eps
    best, chosen = torch.full_like(before, -torch.inf), torch.zeros_like(covariance.information)
    for share in DAMPINGS:
        step = covariance.damped(share * covariance.information).times(gradient)
        value = problem.log_joint(_moved(phi, step))
        # less damping where two are about as good: a linear network takes the whole step, in float32 as in float64
        margin = torch.where(best.isfinite(), (rounding * best.abs()).clamp(min=VISIBLE), 0.0)
        higher = value > best + margin  # false for NaN
        best, chosen = torch.where(higher, value, best), torch.where(higher, share, chosen)
    return chosen, best >= before - rounding * before.abs()


def _moved(phi: Params, step: Float[Tensor, "B P"]) -> Params:
    parts = step.split([value[0].numel() for value in phi.values()], 1)
    return {
        name: value + part.reshape(value.shape).to(value.dtype)
        for (name, value), part in zip(phi.items(), parts, strict=True)
    }

"""The mode under a Gaussian prior by damped Gauss-Newton steps, of many tasks at once.

With the generalised Gauss-Newton matrix G = Jᵀ Λ J of the support, prior variances S² and g the gradient of the log
joint, a step is that of Levenberg 1944 and Marquardt 1963:

    d = (S⁻² (1 + μ) + G)⁻¹ g       by the NK x NK kernel AAᵀ of the points, which the posterior needs anyway

It is taken where the log joint rises, and where it does not μ grows, for every task on its own: no task ever ends below
where it began, whatever its number of points, noise or units. √(gᵀ (S⁻² + G)⁻¹ g) is the distance to the mode in
posterior deviations, which has no unit either: it says when a task has arrived.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmeta.inference.laplace import GaussNewton
from bayesmeta.inference.map import at_optimum, require_finite
from bayesmeta.inference.solvers import FlatLogJoint, two_loops
from bayesmeta.linalg import cholesky
from bayesmeta.typing import LogJoint, Params


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
        >>> curvature = GaussNewton(DenseJacobian(torch.ones(1, 1, 1, 1), shapes), {"w": torch.ones(1)}, shapes)
        >>> PosteriorCovariance(curvature).times(torch.ones(1, 1))
        tensor([[0.5000]], dtype=torch.float64)
    """

    def __init__(self, curvature: GaussNewton, damping: Float[Tensor, "B"] | None = None) -> None:
        squares = curvature.scale().square()
        share = torch.ones_like(squares[:, :1]) if damping is None else 1.0 / (1.0 + damping[:, None])
        self._rows, self._squares, self._scale = curvature.rows, squares * share, (squares * share).sqrt()
        self._by_points = curvature.rows.num_rows <= squares.shape[1]
        if self._by_points:
            kernel = curvature.kernel()
        else:  # many points and a small phi
            white = curvature.white()
            kernel = white.mT @ white
        self.information = kernel.diagonal(dim1=1, dim2=2).sum(1)
        eye = torch.eye(kernel.shape[-1], dtype=kernel.dtype, device=kernel.device)
        self._factor = cholesky(eye + kernel * share[..., None], "posterior precision")

    def times(self, vector: Float[Tensor, "B P"]) -> Float[Tensor, "B P"]:
        """The product with a vector, in float64."""
        vector = vector.double()
        if not self._by_points:  # S (I + AᵀA)⁻¹ S
            return self._scale * torch.cholesky_solve((self._scale * vector)[..., None], self._factor)[..., 0]
        spread = self._squares * vector  # S² - S² Bᵀ (I + AAᵀ)⁻¹ B S² with A = B S
        inner = torch.cholesky_solve(self._rows.times(spread)[..., None], self._factor)[..., 0]
        return spread - self._squares * self._rows.transposed_times(inner)


def distance_to_mode(curvature: GaussNewton, gradient: Float[Tensor, "B P"]) -> Float[Tensor, "B"]:
    """√(gᵀ (S⁻² + G)⁻¹ g): how far the mode is, in posterior deviations, where the network is linear in phi.

    Args:
        curvature: G, with prior variances as S².
        gradient: g, of the log joint.

    Example:
        >>> from bayesmeta.networks.jacobian import DenseJacobian
        >>> shapes = {"w": torch.Size([1])}  # one direction, of which the support says 3 times as much as the prior
        >>> rows = DenseJacobian(torch.full((1, 1, 1, 1), 3.0**0.5), shapes)
        >>> curvature = GaussNewton(rows, {"w": torch.ones(1)}, shapes)
        >>> distance_to_mode(curvature, torch.ones(1, 1))  # the mode is at 1/4, the posterior deviation 1/2
        tensor([0.5000], dtype=torch.float64)
    """
    gradient = gradient.double()
    return (gradient * PosteriorCovariance(curvature).times(gradient)).sum(1).clamp(min=0.0).sqrt()


def gauss_newton(
    log_joint: LogJoint,
    start: Params,
    curvature: Callable[[Params], GaussNewton],
    *,
    steps: int = 50,
    history: int = 10,
) -> tuple[Params, Float[Tensor, "B"]]:
    """The mode of every task, without a graph, and how far from it the search has ended.

    A task has arrived when it is √eps posterior deviations from the mode, or when neither the log joint nor its
    gradient tells any more, to rounding, where to go.

    Args:
        log_joint: phi -> `B`, nats, with a Gaussian prior.
        start: each value `B *shape`.
        curvature: phi -> the Gauss-Newton matrix of the support there, with the prior variances as S².
        steps: largest number of steps.
        history: past steps that correct undamped ones for the curvature of the network, which G leaves out (L-BFGS).

    Returns:
        phi, and the distance from the mode before the last step, in posterior deviations (`distance_to_mode`).

    Raises:
        InferenceError: a kernel that is not finite.

    Example:
        >>> from bayesmeta.networks.jacobian import jacobian
        >>> f, x = lambda phi, x: phi["w"][:, None] ** 3 * x, torch.ones(1, 1, 1)  # one point y = 8, noise N(0, 1)
        >>> log_joint = lambda phi: -0.5 * (f(phi, x)[:, 0, 0] - 8.0) ** 2 - 0.5 * (phi["w"][:, 0] - 1.0) ** 2
        >>> def curvature(phi):
        ...     return GaussNewton(jacobian(f, phi, x), {"w": torch.ones(1)}, {"w": torch.Size([1])})
        >>> phi, distance = gauss_newton(log_joint, {"w": torch.ones(1, 1)}, curvature)
        >>> round(phi["w"].item(), 3), bool(distance < 1e-3)
        (1.993, True)
    """
    objective = FlatLogJoint(log_joint, start)
    phi = objective.start
    value, gradient = objective(phi)
    rounding, tolerance = 10.0 * torch.finfo(phi.dtype).eps, torch.finfo(phi.dtype).eps ** 0.5
    damping = torch.zeros_like(value, dtype=torch.float64)
    growth, distance = torch.full_like(damping, 2.0), torch.full_like(damping, torch.inf)
    moving = torch.ones_like(value, dtype=torch.bool)
    pairs: list[tuple[Tensor, Tensor, Tensor]] = []
    for _ in range(steps):
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
        pairs = [*pairs, (torch.where(usable[:, None], s, 0.0), torch.where(usable[:, None], y, 0.0), rho)][-history:]
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


def gauss_newton_map(
    log_joint: LogJoint,
    start: Params,
    curvature: Callable[[Params], GaussNewton],
    *,
    steps: int = 50,
    solve_steps: int = 20,
) -> Params:
    """The mode by `gauss_newton`, differentiable in theta: as `implicit_map` with the Hessian of the log joint.

    The covariance at the mode, in which the Hessian is nearly the identity, makes the conjugate gradients few.

    Args:
        log_joint: as for `gauss_newton`.
        start: as for `gauss_newton`.
        curvature: as for `gauss_newton`.
        steps: as for `gauss_newton`.
        solve_steps: largest number of conjugate-gradient steps for the derivative.

    Raises:
        InferenceError: phi or a log joint is not finite; the error's `task` is its position.

    Example:
        >>> from bayesmeta.networks.jacobian import jacobian
        >>> theta = torch.tensor([2.0], requires_grad=True)  # w ~ N(theta, 1), and an outcome 0 with noise N(0, 1)
        >>> f, x = lambda phi, x: phi["w"][:, None] * x, torch.ones(1, 1, 1)
        >>> log_joint = lambda phi: -0.5 * f(phi, x)[:, 0, 0] ** 2 - 0.5 * (phi["w"][:, 0] - theta) ** 2
        >>> def curvature(phi):
        ...     return GaussNewton(jacobian(f, phi, x), {"w": torch.ones(1)}, {"w": torch.Size([1])})
        >>> phi = gauss_newton_map(log_joint, {"w": theta[None]}, curvature)
        >>> phi["w"].item(), torch.autograd.grad(phi["w"].sum(), theta)[0].item()
        (1.0, 0.5)
    """
    with torch.no_grad():
        phi, _ = gauss_newton(log_joint, start, curvature, steps=steps)
        require_finite(phi, [log_joint(phi)])
    if not torch.is_grad_enabled():
        return phi
    with torch.no_grad():
        covariance = PosteriorCovariance(curvature(phi))
    return at_optimum(
        log_joint,
        phi,
        precondition=lambda vector: covariance.times(vector).to(vector.dtype),
        solve_steps=solve_steps,
        tolerance=torch.finfo(next(iter(phi.values())).dtype).eps ** 0.5,
    )

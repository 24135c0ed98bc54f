"""Multinomial logistic regression under a Gaussian prior, of many tasks at once, by Newton's method in point space.

    f_c = K a_c,   K = Φ Φᵀ / λ        the scores of class c at the support, under w_c ~ N(0, I / λ)
    max_f  Σ_n ω_n log softmax(f_n)_{y_n} - ½ Σ_c f_cᵀ K⁻¹ f_c

A point counts ω_n times. With p the probabilities, π = ω p, and the curvature W of the first sum a step is

    b = W f + ω Y - π,   a = b - E K b + E R (Σ_c E_c)⁻¹ Rᵀ E K b,   E_c = π_c^½ (I + π_c^½ K π_c^½)⁻¹ π_c^½

which needs C + 1 Cholesky factors of N x N in place of one of NC x NC (Rasmussen & Williams 2006, algorithms 3.3 and
3.4). The optimum is unique. At it a step depends on f to second order only, so that the gradient of one step from the
optimum is the exact gradient of the optimum: nothing of the path is kept.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from bayesmeta.errors import InferenceError
from bayesmeta.linalg import cholesky, solve_lower

HALVINGS = 30


@dataclass(frozen=True, eq=False)
class LogisticBelief:
    """Laplace's approximation of the scores, N(mean, covariance), around their optimum: a value that `logistic` gives.

    Attributes:
        dual: a, `B N C`; the score of class c at x is k(x)ᵀ a_c.
        precisions: E_c, `B C N N`.
        factor: the Cholesky factor of Σ_c E_c, `B N N`.
    """

    dual: Float[Tensor, "B N C"]
    precisions: Float[Tensor, "B C N N"]
    factor: Float[Tensor, "B N N"]

    def predict(
        self, cross: Float[Tensor, "B M N"], diagonal: Float[Tensor, "B M"]
    ) -> tuple[Float[Tensor, "B M C"], Float[Tensor, "B M C"]]:
        """Mean and variance of each class's score, which is a logit of the softmax, in nats.

        v_c = k(x, x) - kᵀ E_c k + kᵀ E_c (Σ E)⁻¹ E_c k

        Args:
            cross: k(x), the kernel between query and support.
            diagonal: k(x, x) at each query.
        """
        projected = self.precisions @ cross.mT[:, None]  # B C N M
        explained = (cross.mT[:, None] * projected).sum(-2)
        common = solve_lower(self.factor[:, None], projected).square().sum(-2)
        variance = diagonal[:, None] - explained + common
        return cross @ self.dual, variance.mT.clamp(min=0.0)  # only rounding is below zero


def logistic(
    kernel: Float[Tensor, "B N N"],
    targets: Float[Tensor, "B N C"],
    mask: Bool[Tensor, "B N"],
    classes: Bool[Tensor, "B C"],
    *,
    steps: int = 50,
    tolerance: float = 1e-10,
    weights: Float[Tensor, "B N"] | None = None,
) -> LogisticBelief:
    """The optimum of every task and the Gaussian around it (Laplace), differentiable in the kernel.

    Rasmussen & Williams 2006, algorithm 3.3.

    Args:
        kernel: K, zero in the rows and columns of padding.
        targets: labels as unit vectors, zero where padded.
        mask: True = real points.
        classes: True = a class of the task.
        steps: largest number of Newton steps.
        tolerance: nats that another step may gain.
        weights: ω, what a point counts, positive where real; 1 of each by default.

    Raises:
        InferenceError: the optimum is not reached, or the kernel is not positive semi-definite.

    Example:
        >>> x, targets = torch.tensor([[[1.0], [-1.0]]]).double(), torch.eye(2).double()[None]  # of two classes
        >>> mask, classes = torch.ones(1, 2, dtype=torch.bool), torch.ones(1, 2, dtype=torch.bool)
        >>> mean, variance = logistic(x @ x.mT, targets, mask, classes).predict(x @ x.mT, torch.ones(1, 2).double())
        >>> mean.argmax(-1).tolist(), bool((variance < 1.0).all())
        ([[0, 1]], True)
    """
    weights = mask.to(kernel.dtype) if weights is None else torch.where(mask, weights, 0.0)
    problem = _Problem(targets, mask, classes, weights[..., None])
    with torch.no_grad():
        fixed = kernel.detach()
        dual = torch.zeros_like(targets)
        value = problem.objective(fixed, dual)
        for _ in range(steps):
            direction = problem.newton(fixed, fixed @ dual).dual - dual
            dual, new_value = _climb(problem, fixed, dual, direction, value)
            gain, value = new_value - value, new_value
            if not bool((gain > tolerance * (1.0 + value.abs())).any()):
                break
        else:
            task = int(gain.argmax())
            raise InferenceError(
                f"expected logistic regression to converge in {steps} steps, got a last gain of "
                f"{gain[task].item():.2g} nats in task {task}: features far too large, or a ridge far too small",
                task=task,
            )
        scores = fixed @ dual
    dual = problem.newton(kernel, scores).dual
    belief = problem.newton(kernel, kernel @ dual)  # the curvature at the optimum, which moves with theta
    return LogisticBelief(dual, belief.precisions, belief.factor)


def _climb(
    problem: "_Problem", kernel: Tensor, dual: Tensor, direction: Tensor, value: Tensor
) -> tuple[Tensor, Tensor]:
    """The largest of the steps 1, 1/2, 1/4, ... that loses nothing, task by task."""
    size = torch.ones_like(value)
    for _ in range(HALVINGS):
        new_value = problem.objective(kernel, dual + size[:, None, None] * direction)
        worse = ~(new_value >= value)  # NaN is worse
        if not bool(worse.any()):
            break
        size = torch.where(worse, 0.5 * size, size)
    size = torch.where(worse, 0.0, size)
    return dual + size[:, None, None] * direction, torch.where(worse, value, new_value)


@dataclass(frozen=True)
class _Problem:
    targets: Tensor
    mask: Tensor
    classes: Tensor
    weights: Tensor  # B N 1

    def log_probs(self, scores: Tensor) -> Tensor:
        return scores.masked_fill(~self.classes[:, None], -torch.inf).log_softmax(-1)

    def objective(self, kernel: Tensor, dual: Tensor) -> Tensor:
        scores = kernel @ dual
        log_probs = torch.where(self.targets > 0.0, self.log_probs(scores), 0.0)
        return (self.weights * log_probs).sum((-1, -2)) - 0.5 * (dual * scores).sum((-1, -2))

    def newton(self, kernel: Tensor, scores: Tensor) -> LogisticBelief:
        """One step from these scores."""
        real = self.mask[..., None] & self.classes[:, None]  # B N C
        root = torch.where(real, (0.5 * torch.where(real, self.log_probs(scores), 0.0)).exp(), 0.0)
        expected = (root.square() * scores).sum(-1, keepdim=True)  # pᵀ f
        root = self.weights.sqrt() * root
        probs = root.square()  # π
        eye = torch.eye(kernel.shape[-1], dtype=kernel.dtype, device=kernel.device)
        each = root.mT[..., None]  # B C N 1
        lower = cholesky(eye + each * kernel[:, None] * each.mT, "logistic curvature")
        half = solve_lower(lower, each * eye)
        precisions = half.mT @ half  # E_c
        padding = torch.diag_embed((~self.mask).to(kernel.dtype))
        factor = cholesky(precisions.sum(1) + padding, "logistic curvature over all classes")
        b = probs * (scores - expected) + self.weights * self.targets - probs  # W f = π (f - pᵀ f)
        c = torch.einsum("bcnm,bmc->bnc", precisions, kernel @ b)
        common = torch.cholesky_solve(c.sum(-1, keepdim=True), factor)  # B N 1
        dual = b - c + (precisions @ common[:, None])[..., 0].mT
        return LogisticBelief(dual, precisions, factor)

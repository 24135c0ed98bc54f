"""Gaussian processes of tasks that share an unknown mean function: inference with all tasks at once.

    r_t = m + f_t + e_t,   m ~ MN(0, K_m, Σ),   f_t ~ MN(0, K_f, Σ),   e_t ~ MN(0, I, Σ)

Rows are the points of all tasks, residuals from a known mean. Tasks are coupled through m: the covariance of two rows
is K_m, and of two rows of one task K_m + K_f + I. All covariances are over points, in units of Σ, in float64.

    Exact       one matrix between all rows, S = K_m + [same task] K_f + I = L Lᵀ, in O(P³)
    Inducing    PITC (Quiñonero-Candela & Rasmussen 2005, sec. 6) with the tasks as blocks: what tasks have in common
                passes through m at U inducing points, while within a task all is exact

With V_t = L_z⁻¹ K_zt, K_zz = L_z L_zᵀ, the latter replaces K_m between tasks by V_sᵀ V_t. Given m at the inducing
points tasks are independent, A_t = K_m + K_f - V_tᵀ V_t + I, so that the cost is O(Σ_t N_t³ + P U²):

    log p = Σ_t log N(r_t; 0, A_t) - ½ (C log|B| - |L_B⁻¹ b|²),   B = I + Σ_t V_t A_t⁻¹ V_tᵀ = L_B L_Bᵀ,
    b = Σ_t V_t A_t⁻¹ r_t

Both give m as a process: E m(x) = c(x)ᵀ w and Cov(m(x), m(x')) = k_m(x, x') + c(x)ᵀ D c(x') with a diagonal D of signs,

    Exact       c = L⁻¹ k_m(X, x),  w = L⁻¹ r,  D = -I
    Inducing    c = [v, L_B⁻¹ v] with v = L_z⁻¹ k_m(Z, x),  w = [0, L_B⁻¹ b],  D = diag(-I, I)
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bayesmeta.inference import gaussian_process
from bayesmeta.linalg import cholesky, logdet, require_matrix, solve_lower
from bayesmeta.predictives import LOG_2PI

JITTER = 1e-10  # of the mean of the diagonal, added to that of K_zz: inducing points may be close to each other

KernelMatrix = Callable[[Tensor, Tensor], Tensor]
"""Features `B N F` and `B M F` -> their covariances `B N M`, in units of Σ."""


@dataclass(frozen=True, eq=False)
class MeanFunction(ABC):
    """What is known of m: a Gaussian process, by the columns c(x) of a point.

    Attributes:
        anchors: the features of the points that m is known through.
        weights: w.
        signs: the diagonal of D.
    """

    anchors: Float[Tensor, "P F"]
    weights: Float[Tensor, "E C"]
    signs: Float[Tensor, "E"]

    @abstractmethod
    def columns(self, cross: Float[Tensor, "P M"]) -> Float[Tensor, "M E"]:
        """c(x) of M points.

        Args:
            cross: K_m between the anchors and them.
        """


@dataclass(frozen=True, eq=False)
class ExactMean(MeanFunction):
    """m given all rows.

    Attributes:
        factor: L.
    """

    factor: Float[Tensor, "P P"]

    def columns(self, cross: Float[Tensor, "P M"]) -> Float[Tensor, "M E"]:
        """L⁻¹ k_m(X, x)."""
        return solve_lower(self.factor, cross).mT


@dataclass(frozen=True, eq=False)
class InducedMean(MeanFunction):
    """m given its values at inducing points.

    Attributes:
        factor: L_z.
        precision_factor: L_B.
    """

    factor: Float[Tensor, "P P"]
    precision_factor: Float[Tensor, "P P"]

    def columns(self, cross: Float[Tensor, "P M"]) -> Float[Tensor, "M E"]:
        """v = L_z⁻¹ k_m(Z, x), and L_B⁻¹ v."""
        white = solve_lower(self.factor, cross)
        return torch.cat([white, solve_lower(self.precision_factor, white)]).mT


@dataclass(frozen=True, eq=False)
class Tasks:
    """Tasks of similar length side by side.

    Attributes:
        rows: features; what stands at padding never matters.
        residual: outcomes less what is known of their mean, in units of y.
        mask: True = real.
    """

    rows: Float[Tensor, "B N F"]
    residual: Float[Tensor, "B N C"]
    mask: Bool[Tensor, "B N"]


class CoupledTasks(ABC):
    """The density of all tasks together, and what they say of m.

    Args:
        shared: K_m.
        own: K_f.
        groups: the tasks; those of a group are padded to the same length.
        output_covariance: Σ.
    """

    def __init__(
        self,
        shared: KernelMatrix,
        own: KernelMatrix,
        groups: Sequence[Tasks],
        output_covariance: Float[Tensor, "C C"],
    ) -> None:
        self.shared, self.own, self.groups = shared, own, groups
        self.output_covariance = output_covariance
        self.output_factor = cholesky(output_covariance, "noise covariance")

    @abstractmethod
    def log_evidence(self) -> Float[Tensor, ""]:
        """log p of all residuals, m and all f integrated out, in nats."""

    @abstractmethod
    def mean(self) -> MeanFunction:
        """m given all tasks."""

    @abstractmethod
    def left_out(self) -> Float[Tensor, "T"]:
        """log p of the residuals of each task given those of all others, in nats; those of the first group first."""

    def density(self, white: Float[Tensor, "*b N C"], log_determinant: Tensor, count: Tensor | int) -> Tensor:
        """The log density of residuals R with covariance S ⊗ Σ, in nats.

        Args:
            white: W with WᵀW = Rᵀ S⁻¹ R.
            log_determinant: log|S|.
            count: the number of rows.
        """
        size = len(self.output_factor)
        squares = solve_lower(self.output_factor, white.mT).square().sum((-1, -2))
        return -0.5 * (squares + size * log_determinant + count * (logdet(self.output_factor) + size * LOG_2PI))


class ExactCoupledTasks(CoupledTasks):
    """By one matrix between all rows of all tasks.

    Args:
        shared: K_m.
        own: K_f.
        groups: the tasks.
        output_covariance: Σ.

    Raises:
        InferenceError: the matrix of all rows is not positive definite, or too large.

    Example:
        >>> rbf = lambda a, b: (-0.5 * torch.cdist(a, b).square()).exp()
        >>> x = torch.tensor([[[0.0], [1.0]], [[0.1], [5.0]]]).double()
        >>> tasks = Tasks(x, 2.0 + torch.zeros_like(x), torch.ones(2, 2, dtype=torch.bool))
        >>> coupled = ExactCoupledTasks(lambda a, b: 9.0 * rbf(a, b), rbf, [tasks], torch.eye(1).double())
        >>> mean = coupled.mean()
        >>> (mean.columns(9.0 * rbf(mean.anchors, x[0])) @ mean.weights).round(decimals=2).tolist()
        [[1.8], [1.74]]
        >>> coupled.left_out().shape
        torch.Size([2])
    """

    def __init__(
        self,
        shared: KernelMatrix,
        own: KernelMatrix,
        groups: Sequence[Tasks],
        output_covariance: Float[Tensor, "C C"],
    ) -> None:
        super().__init__(shared, own, groups, output_covariance)
        places = [each.mask.flatten().nonzero()[:, 0] for each in groups]
        self.rows = torch.cat([each.rows.flatten(0, 1)[at] for each, at in zip(groups, places, strict=True)])
        self.residual = torch.cat([each.residual.flatten(0, 1)[at] for each, at in zip(groups, places, strict=True)])
        self.task = _task_of_rows(groups)
        require_matrix(len(self.rows), len(self.rows))
        rows = self.rows[None]
        is_same = self.task[:, None] == self.task
        kernel = shared(rows, rows)[0] + torch.where(is_same, own(rows, rows)[0], 0.0)
        eye = torch.eye(len(kernel), dtype=kernel.dtype, device=kernel.device)
        self.factor = cholesky(kernel + eye, "kernel matrix of all tasks plus noise")
        self.white = solve_lower(self.factor, self.residual)

    def log_evidence(self) -> Float[Tensor, ""]:
        """By the determinant and the solve of one factor."""
        return self.density(self.white, logdet(self.factor), len(self.rows))

    def mean(self) -> ExactMean:
        """By the factor itself."""
        return ExactMean(self.rows, self.white, -torch.ones_like(self.rows[:, 0]), self.factor)

    def left_out(self) -> Float[Tensor, "T"]:
        """By blocks of S⁻¹: r_t given the others is N(r_t - M⁻¹ a, M⁻¹) with M = [S⁻¹]_tt and a = [S⁻¹ r]_t."""
        inverse = torch.cholesky_inverse(self.factor)
        solved = solve_lower(self.factor.mT.flip(-1, -2), self.white.flip(0)).flip(0)  # L⁻ᵀ L⁻¹ r
        found = []
        for task in range(sum(len(each.mask) for each in self.groups)):
            at = (self.task == task).nonzero()[:, 0]
            factor = cholesky(inverse[at][:, at], "precision of a task given the others")
            found.append(self.density(solve_lower(factor, solved[at]), -logdet(factor), len(at)))
        return torch.stack(found)


class InducedCoupledTasks(CoupledTasks):
    """By m at inducing points, through which tasks are coupled (PITC).

    Args:
        shared: K_m.
        own: K_f.
        groups: the tasks.
        output_covariance: Σ.
        inducing: the features of the inducing points.

    Raises:
        InferenceError: the matrix of a task, or of the inducing points, is not positive definite.

    Example:
        >>> rbf = lambda a, b: (-0.5 * torch.cdist(a, b).square()).exp()
        >>> x = torch.tensor([[[0.0], [1.0]], [[0.1], [5.0]]]).double()
        >>> tasks = [Tasks(x, 2.0 + torch.zeros_like(x), torch.ones(2, 2, dtype=torch.bool))]
        >>> exact = ExactCoupledTasks(rbf, rbf, tasks, torch.eye(1).double()).log_evidence()
        >>> points = x.flatten(0, 1)  # all of them
        >>> induced = InducedCoupledTasks(rbf, rbf, tasks, torch.eye(1).double(), points).log_evidence()
        >>> bool((induced - exact).abs() < 1e-6)
        True
    """

    def __init__(
        self,
        shared: KernelMatrix,
        own: KernelMatrix,
        groups: Sequence[Tasks],
        output_covariance: Float[Tensor, "C C"],
        inducing: Float[Tensor, "P F"],
    ) -> None:
        super().__init__(shared, own, groups, output_covariance)
        self.inducing = inducing
        among = shared(inducing[None], inducing[None])[0]
        eye = torch.eye(len(among), dtype=among.dtype, device=among.device)
        jitter = JITTER * among.detach().diagonal().mean().clamp(min=torch.finfo(among.dtype).tiny)
        self.factor = cholesky(among + jitter * eye, "kernel matrix of the inducing points")
        parts = [self._part(each) for each in groups]
        self.alone = torch.cat([alone for alone, _, _ in parts])
        self.precisions = torch.cat([precision for _, precision, _ in parts])
        self.moments = torch.cat([moment for _, _, moment in parts])
        self.precision_factor = cholesky(eye + self.precisions.sum(0), "precision of m at the inducing points")

    def _part(self, tasks: Tasks) -> tuple[Tensor, Tensor, Tensor]:
        """log N(r_t; 0, A_t), V_t A_t⁻¹ V_tᵀ and V_t A_t⁻¹ r_t of each task."""
        rows, mask = tasks.rows, tasks.mask
        size = rows.shape[:2]
        cross = self.shared(self.inducing[None], rows.flatten(0, 1)[None])[0]  # U BN
        white = solve_lower(self.factor, cross).mT.unflatten(0, size)  # Vᵀ, B N U
        white = torch.where(mask[..., None], white, 0.0)
        block = self.shared(rows, rows) + self.own(rows, rows) - white @ white.mT
        belief = gaussian_process.condition(block, tasks.residual, mask)
        alone = self.density(belief.white, logdet(belief.factor), mask.sum(-1))
        design = belief.whiten(white)
        return alone, design.mT @ design, design.mT @ belief.white

    def log_evidence(self) -> Float[Tensor, ""]:
        """By the tasks alone, and what they have in common."""
        return self.alone.sum() + self._gain(self.precision_factor, self.moments.sum(0))

    def mean(self) -> InducedMean:
        """By the precision of m at the inducing points."""
        white = solve_lower(self.precision_factor, self.moments.sum(0))
        ones = torch.ones_like(self.inducing[:, 0])
        return InducedMean(
            self.inducing,
            torch.cat([torch.zeros_like(white), white]),
            torch.cat([-ones, ones]),
            self.factor,
            self.precision_factor,
        )

    def left_out(self) -> Float[Tensor, "T"]:
        """By the evidence of all tasks, less that of all but one."""
        precision, moment = self.precisions.sum(0), self.moments.sum(0)
        eye = torch.eye(len(precision), dtype=precision.dtype, device=precision.device)
        together = self._gain(self.precision_factor, moment)
        others = [
            self._gain(cholesky(eye + precision - own, "precision without a task"), moment - moment_of_it)
            for own, moment_of_it in zip(self.precisions, self.moments, strict=True)
        ]
        return self.alone + together - torch.stack(others)

    def _gain(self, factor: Tensor, moment: Tensor) -> Tensor:
        """-½ (C log|B| - |L_B⁻¹ b|²)."""
        white = solve_lower(self.output_factor, solve_lower(factor, moment).mT)
        return -0.5 * (len(self.output_factor) * logdet(factor) - white.square().sum())


def spread_out(x: Float[Tensor, "P D"], count: int) -> Int[Tensor, "U"]:
    """Positions of points that are far from each other: the first, and always the one farthest from those chosen.

    Distances are in standard deviations of each input. Points that are equal are chosen once.

    Args:
        x: inputs.
        count: how many at most.

    Example:
        >>> spread_out(torch.tensor([[0.0], [0.1], [1.0], [0.0], [0.5]]), 3).tolist()
        [0, 2, 4]
    """
    scale = x.std(0, correction=0)
    x = x / torch.where(scale > 0.0, scale, 1.0)
    chosen = [0]
    distance = (x - x[0]).square().sum(-1)
    while len(chosen) < min(count, len(x)) and bool(distance.max() > 0.0):
        chosen.append(int(distance.argmax()))
        distance = torch.minimum(distance, (x - x[chosen[-1]]).square().sum(-1))
    return torch.tensor(chosen, device=x.device)


def _task_of_rows(groups: Sequence[Tasks]) -> Int[Tensor, "P"]:
    counts = torch.cat([each.mask.sum(-1) for each in groups])
    return torch.arange(len(counts), device=counts.device).repeat_interleave(counts)

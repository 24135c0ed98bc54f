"""Two levels of Gaussian processes: a mean function that all tasks share, learned with its own uncertainty.

    y_t(x) = m_0 + m(x) + f_t(x) + ε,   m ~ GP(0, k_m),   f_t ~ GP(0, k_f),   ε ~ N(0, σ²)
    Cov(y_t(x), y_t'(x')) = k_m(x, x') + [t = t'] (k_f(x, x') + σ² [x = x'])

    phi         f_t + m, a function
    prior       given the meta-training tasks: GP(m_0 + E[m | tasks], Cov[m | tasks] + k_f)
    likelihood  Gaussian
    inference   exact, in float64; with many rows m is known through inducing points (PITC)

Hierarchical Gaussian processes: Lawrence & Platt 2004 (ICML), Hensman, Lawrence & Rattray 2013 (BMC Bioinformatics 14).
PACOH (Rothfuss et al. 2021) learns the mean as a network; here it is a function that is integrated out, so that a few
tasks do not overfit it, and where they have no points it is known to be unknown.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from typing_extensions import override

from bayesmeta.data import Data
from bayesmeta.errors import DataError, UnsupportedError
from bayesmeta.flat import FlatData, alike
from bayesmeta.inference.coupled_tasks import (
    CoupledTasks,
    ExactCoupledTasks,
    InducedCoupledTasks,
    MeanFunction,
    Tasks,
    spread_out,
)
from bayesmeta.kernels import Kernel, RBFKernel
from bayesmeta.kernels.kernel import Gram, build, log_prior
from bayesmeta.learners.closed_form.process import ProcessLearner, ProcessTheta
from bayesmeta.learners.closed_form.scale import require_even
from bayesmeta.networks.network import Network
from bayesmeta.noise import Noise
from bayesmeta.torch_private import Growing


class HierarchicalProcess(Growing, ProcessLearner):
    """Gaussian process regression whose mean function is a Gaussian process, learned from the meta-training tasks.

    theta is the parameters of both kernels (`shared_kernel`, `own_kernel`), of the features, m_0 (`mean`) and Σ
    (`likelihood.noise`). `fit_evidence` maximises the density of all tasks together, and gives the learner the tasks to
    keep (`remember`): what they say of m is no number of theta. Before that it knows of none, and m is as k_m has it.
    Kept tasks are part of `state_dict` and of a model folder.

    Args:
        features: h, a network with `num_outputs` = F features of each point on its own.
        num_outputs: C.
        shared_kernel: k_m, of what tasks have in common; `RBFKernel()` by default.
        own_kernel: k_f, of what is each task's own; `RBFKernel()` by default.
        mean: a network for m_0, for a trend of which a form is known; a constant by default.
        noise: Σ; `DiagonalNoise(C)` by default, or `FullNoise`.
        exact_rows: up to so many points of all tasks together inference is exact.
        num_inducing: above, so many points, spread over the inputs, are what m is known through.

    Raises:
        ShapeError: a kernel on another number of features, a mean of other inputs, or noise over other outputs.
        UnsupportedError: features or a mean that are not a `Network`, or not of each point on its own; something that
            is not a kernel of single points.
        DataError: fewer than no exact rows, or no inducing points.

    Example:
        >>> import bayesmeta as bm
        >>> tasks = bm.tasks.Sawtooth().dataset(num_tasks=10, num_points=8, seed=0)
        >>> learner = bm.Standardized(bm.HierarchicalProcess(bm.networks.Inputs(1))).double()
        >>> result = bm.fit_evidence(learner, tasks)
        >>> learner.learner.num_tasks
        10
        >>> posterior = learner.adapt(tasks.data.select([0]).points(slice(4)))
        >>> lower, upper = posterior.predict([0.0, 1.0]).interval(0.9)
    """

    coupled = True

    growing = ("x", "y", "counts")
    x: Tensor
    y: Tensor
    counts: Tensor

    def __init__(
        self,
        features: Network,
        *,
        num_outputs: int = 1,
        shared_kernel: Kernel | nn.Module | None = None,
        own_kernel: Kernel | nn.Module | None = None,
        mean: Network | None = None,
        noise: Noise | None = None,
        exact_rows: int = 2_000,
        num_inducing: int = 256,
    ) -> None:
        super().__init__(features, num_outputs, mean, noise)
        require_even(self.likelihood.noise)
        self.known_noise = False  # what the tasks say of the mean weighs their points alike
        if exact_rows < 0 or num_inducing < 1:
            raise DataError(
                f"expected exact_rows of 0 or more and num_inducing of 1 or more, got {exact_rows} and {num_inducing}"
            )
        self.exact_rows, self.num_inducing = exact_rows, num_inducing
        self.shared_kernel = build(RBFKernel() if shared_kernel is None else shared_kernel, features.num_outputs)
        self.own_kernel = build(RBFKernel() if own_kernel is None else own_kernel, features.num_outputs)
        self.register_buffer("x", torch.zeros(0, *features.x_shape))
        self.register_buffer("y", torch.zeros(0, num_outputs))
        self.register_buffer("counts", torch.zeros(0, dtype=torch.long))

    @property
    def num_tasks(self) -> int:
        """The number of tasks that it keeps."""
        return len(self.counts)

    @override
    def log_hyperprior(self) -> Float[Tensor, ""]:
        """log p of the kernels' parameters under the priors that they have registered, in nats."""
        return log_prior(self.shared_kernel) + log_prior(self.own_kernel)

    @override
    def joint_evidence(self, *data: Data) -> Float[Tensor, ""]:
        """log p of all these tasks together, m and all f integrated out, in nats.

        Raises:
            InferenceError: the matrix of all rows is not positive definite.
        """
        return self._coupled(self._bare(), data).log_evidence()

    @override
    @torch.no_grad()
    def remember(self, *data: Data) -> None:
        """Keep these tasks: what they say of m is where new tasks start from."""
        parts = [FlatData.of(self.conform(each)) for each in data]
        self.x = torch.cat([self.x[:0], *(part.x for part in parts)]).detach().clone()
        self.y = torch.cat([self.y[:0], *(part.y for part in parts)]).detach().clone()
        self.counts = torch.cat([self.counts[:0], *(part.counts for part in parts)])

    @property
    @override
    def kept_rows(self) -> int:
        """The number of points that it keeps: a process's posterior is made of them."""
        return len(self.x)

    @override
    def configure_optimizer(self, lr: float = 1e-3) -> torch.optim.Optimizer:
        """Raises UnsupportedError: a batch of tasks at a time says nothing of what all tasks have in common."""
        raise UnsupportedError(
            "expected fit_evidence to train HierarchicalProcess, got fit: its tasks are coupled through their mean "
            "function, and a batch at a time is not enough. For more tasks than that can hold take DeepKernelTransfer "
            "with a network as its mean"
        )

    def without(self, tasks: Sequence[int]) -> "HierarchicalProcess":
        """A copy that has not seen some of the tasks that this one keeps: to predict them as new ones.

        Args:
            tasks: their positions.

        Raises:
            DataError: a position that no task has.

        Example:
            >>> import bayesmeta as bm
            >>> learner = bm.HierarchicalProcess(bm.networks.Inputs(1)).double()
            >>> learner.remember(bm.tasks.Sawtooth().dataset(num_tasks=5, num_points=8, seed=0).data)
            >>> learner.without([0, 3]).num_tasks
            3
        """
        if not all(0 <= task < self.num_tasks for task in tasks):
            raise DataError(f"expected positions of {self.num_tasks} tasks, got {list(tasks)}")
        other = copy.deepcopy(self)
        kept = self._kept().select([task for task in range(self.num_tasks) if task not in tasks])
        other.x, other.y, other.counts = kept.x, kept.y, kept.counts
        return other

    def left_out_evidence(self) -> Float[Tensor, "T"]:
        """log p of each task that is kept, given all the others: what it would have been as a new one, in nats.

        Raises:
            InferenceError: the matrix of all rows is not positive definite.

        Example:
            >>> import bayesmeta as bm
            >>> learner = bm.HierarchicalProcess(bm.networks.Inputs(1)).double()
            >>> tasks = bm.tasks.Sawtooth().dataset(num_tasks=5, num_points=8, seed=0)
            >>> learner.remember(tasks.data)
            >>> alone = learner.without([1]).log_evidence(tasks.data.select([1]))
            >>> bool((learner.left_out_evidence()[1] - alone).abs() < 1e-8)
            True
        """
        groups = self._groups()
        found = self._coupled(self._bare(), [data for _, data in groups]).left_out()
        return found[torch.cat([at for at, _ in groups]).argsort()]

    @override
    def theta(self) -> "_HierarchicalTheta":
        bare = self._bare()
        if not len(self.x):
            return bare
        return bare.knowing(self._coupled(bare, [data for _, data in self._groups()]).mean())

    def _bare(self) -> "_HierarchicalTheta":
        """theta without any task."""
        return _HierarchicalTheta(
            features=self.features,
            mean=self.mean,
            output_covariance=self.likelihood.noise.covariance().double(),
            noise=self.likelihood.noise,
            shared=Gram(self.shared_kernel),
            own=Gram(self.own_kernel),
            known=None,
        )

    def _coupled(self, theta: "_HierarchicalTheta", data: Sequence[Data]) -> CoupledTasks:
        groups = []
        for each in data:
            rows = theta.rows(each.x)
            groups.append(Tasks(rows, theta.residual(each, rows), each.mask))
        kernels = theta.shared_gram, theta.own_gram
        if sum(int(each.counts.sum()) for each in data) <= self.exact_rows:
            return ExactCoupledTasks(*kernels, groups, theta.output_covariance)
        x = torch.cat([each.x.flatten(0, 1)[each.mask.flatten()] for each in data])
        inducing = x[spread_out(x.detach().flatten(1).double(), self.num_inducing)]
        rows = theta.rows(inducing[None])[0]
        return InducedCoupledTasks(*kernels, groups, theta.output_covariance, rows)

    def _kept(self) -> FlatData:
        return FlatData(self.x, self.y, torch.cat([self.counts.new_zeros(1), self.counts.cumsum(0)]))

    def _groups(self) -> list[tuple[Int[Tensor, "B"], Data]]:
        """The kept tasks, with their positions, in groups of similar length."""
        kept = self._kept()
        return [(at, kept.padded(at)) for at in alike(self.counts.cpu())]


@dataclass(frozen=True, eq=False, kw_only=True)
class _HierarchicalTheta(ProcessTheta):
    """theta with both kernels, and what is known of m. The rows are the features and, where m is known, c(x)."""

    shared: Gram
    own: Gram
    known: MeanFunction | None

    def knowing(self, known: MeanFunction) -> "_HierarchicalTheta":
        """With another knowledge of m."""
        return _HierarchicalTheta(
            features=self.features,
            mean=self.mean,
            output_covariance=self.output_covariance,
            noise=self.noise,
            shared=self.shared,
            own=self.own,
            known=known,
        )

    def shared_gram(self, a: Float[Tensor, "B N F"], b: Float[Tensor, "B M F"]) -> Float[Tensor, "B N M"]:
        """K_m in units of the noise."""
        return self.shared(a, b) / self.unit

    def own_gram(self, a: Float[Tensor, "B N F"], b: Float[Tensor, "B M F"]) -> Float[Tensor, "B N M"]:
        """K_f in units of the noise."""
        return self.own(a, b) / self.unit

    @override
    def rows(self, x: Float[Tensor, "B N *x"]) -> Float[Tensor, "B N E"]:
        features = self.features(x).double()
        if self.known is None:
            return features
        cross = self.shared_gram(self.known.anchors[None], features.flatten(0, 1)[None])[0]
        return torch.cat([features, self.known.columns(cross).unflatten(0, features.shape[:2])], -1)

    @override
    def location(self, x: Float[Tensor, "B N *x"], rows: Float[Tensor, "B N E"]) -> Float[Tensor, "... C"]:
        start = super().location(x, rows)
        return start if self.known is None else start + self._columns(rows) @ self.known.weights

    @override
    def gram(self, a: Float[Tensor, "B N E"], b: Float[Tensor, "B M E"]) -> Float[Tensor, "B N M"]:
        h, other = self._features(a), self._features(b)
        prior = self.shared_gram(h, other) + self.own_gram(h, other)
        return prior if self.known is None else prior + (self._columns(a) * self.known.signs) @ self._columns(b).mT

    @override
    def diagonal(self, a: Float[Tensor, "B M E"]) -> Float[Tensor, "B M"]:
        h = self._features(a)
        prior = (self.shared.diagonal(h) + self.own.diagonal(h)) / self.unit
        return prior if self.known is None else prior + self._columns(a).square() @ self.known.signs

    def _features(self, rows: Tensor) -> Float[Tensor, "B N F"]:
        return rows[..., : self.features.num_outputs]

    def _columns(self, rows: Tensor) -> Float[Tensor, "B N E"]:
        return rows[..., self.features.num_outputs :]

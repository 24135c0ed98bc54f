"""A learner whose tasks have hyperparameters of their own, which are integrated out by quadrature.

    z_t ~ N(0, I)                         a task's own scales of noise, signal and inputs
    phi_t ~ p(phi | z_t, theta)           as the learner inside has it, at those scales
    p(D | theta) = ∫ p(D | z, theta) N(z; 0, I) dz  ≈  Σ_k w_k p(D | z_k, theta)

    phi         the learner's, and z
    prior       the learner's, and N(0, I)
    likelihood  the learner's
    inference   the learner's at each node, and adaptive Gauss-Hermite quadrature over z (`inference/quadrature.py`)

The predictive is the mixture over the nodes, with weights w_k p(D | z_k, theta).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn
from typing_extensions import override

from bayesmeta.arguments import whole
from bayesmeta.data import Data, TaskBatch
from bayesmeta.description import written
from bayesmeta.errors import DataError, UnsupportedError, retelling
from bayesmeta.inference import quadrature
from bayesmeta.learner import Learner, Refit, TaskPosterior
from bayesmeta.predictives import MixturePredictive
from bayesmeta.summaries import Columns, MixedModelSummary, Summary
from bayesmeta.typing import Params
from bayesmeta.wrappers.base import Wrapper
from bayesmeta.wrappers.rescaled import RescaledOutcomes, RescaledPosterior
from bayesmeta.wrappers.task_hyperparameters import InputHyperparameter, ScaleHyperparameter, TaskHyperparameter

MOST_NODES = 1_000  # of a task, in all
NUMBERS = 2**24  # of covariances of points that are computed at once: 128 MB
RATE = 10.0  # times the learning rate of the learner: a deviation of a logarithm, as the numbers of priors are


class TaskQuadrature(Wrapper):
    """A learner with scales of noise, signal or inputs that every task has of its own, and that its points tell of.

    Where tasks are of unequal noise, one noise for all is too sure of the loud ones and not sure enough of the quiet
    ones, however right it is on average. With `NoiseScale` each task is given the noise that its own points show, and
    where it has few points, a mixture of what is usual, which has heavier tails.

    What is learned besides theta is how much tasks differ, δ of each hyperparameter: by `fit`, whose loss is the
    evidence of whole tasks here, or by `fit_evidence`. At δ = 0 it is the learner inside.

    It costs a few dozen evidences of the learner for each task, nearly all without gradients; with two hyperparameters
    the square of it. A posterior is computed again as points arrive.

    Args:
        learner: what is wrapped; `Standardized` goes around the outside.
        vary: the hyperparameters: `NoiseScale`, `SignalScale`, `InputScale`; one, or up to three of them.
        nodes: of the quadrature, along each hyperparameter. With 9 evidences are right to about 1e-4 nats (1e-3 where
            δ is 1 and points are few), with 15 to 1e-6, and full-batch fits arrive sooner. Where inputs repeat
            themselves (waves), so that several values of z fit, take more.

    Attributes:
        learner: what is wrapped.
        vary: the hyperparameters.
        nodes: along each.

    Raises:
        DataError: no hyperparameter, or too many nodes in all.
        UnsupportedError: a learner without an evidence, or for scales of noise and signal one whose prior predictive is
            not Gaussian.

    Example:
        >>> import bayesmeta as bm
        >>> tasks = bm.tasks.Sawtooth().dataset(20, 10, seed=0)
        >>> learner = TaskQuadrature(bm.ALPaCA(bm.MLP(1, [16, 8])), bm.wrappers.NoiseScale())
        >>> _ = bm.fit(learner, tasks, steps=20, progress=False)
        >>> posterior = learner.adapt(tasks.data.select([0]).points(slice(4)))
        >>> prediction = posterior.predict([0.0, 1.0])
        >>> isinstance(prediction, bm.predictives.MixturePredictive)
        True
    """

    def __init__(
        self, learner: Learner, vary: TaskHyperparameter | Sequence[TaskHyperparameter], *, nodes: int = 9
    ) -> None:
        super().__init__(learner)
        if learner.coupled:
            raise UnsupportedError(
                f"expected a learner whose tasks share theta alone, got {learner.title}: what it keeps of other tasks "
                "was learned without scales of their own"
            )
        each = [vary] if isinstance(vary, TaskHyperparameter) else list(vary)
        self.nodes = whole(nodes, "nodes", 1)
        if not each or self.nodes ** len(each) > MOST_NODES:
            raise DataError(
                f"expected a hyperparameter or more, and at most {MOST_NODES} nodes in all, got {len(each)} with "
                f"{nodes} nodes each"
            )
        for hyperparameter in each:
            hyperparameter.require(learner)
        _, device = learner.placement()
        self.vary = nn.ModuleList(each).to(device)

    @override
    def described(self, columns: Columns, *data: Data) -> Summary:
        """That of the learner inside, whose scales are those of a typical task."""
        found = self.learner.described(columns, *data).titled(written(self))
        vary = [each for each in self.vary if isinstance(each, TaskHyperparameter)]
        each = {type(one).__name__: abs(one.deviation.item()) for one in vary}
        found = found.more("where each task has scales of its own")
        if isinstance(found, MixedModelSummary) and found.likelihood is not None:
            total = float(self.joint_evidence(*data)) - found.likelihood.points * columns.log_volume
            size = found.likelihood.parameters + len(each)
            own = replace(found.likelihood, log_likelihood=total, restricted=None, parameters=size, criterion="")
            found = replace(found, likelihood=own)
        deviations = ", ".join(f"{name} {value:.2f}" for name, value in each.items())
        return found.with_notes(
            f"Each task has scales of its own, e^(δ z) times those shown, with z ~ N(0, 1) and δ: {deviations}."
        )

    @property
    @override
    def mixed_model(self) -> None:
        return None  # its closed forms are those of the learner inside

    @override
    def loss(self, tasks: TaskBatch) -> Float[Tensor, "B"]:
        """-log p(support and query | theta) of each whole task, in nats per point."""
        data = tasks.joined()
        return -self.evidence(data) / data.counts.clamp(min=1)

    @override
    def evidence(self, data: Data) -> Float[Tensor, "B"]:
        given = self.given(data)
        nodes = self._nodes(given, data)
        return quadrature.log_integral(nodes, given(nodes.z))

    @override
    def joint_evidence(self, *data: Data) -> Float[Tensor, ""]:
        return Learner.joint_evidence(self, *data)  # not that of the learner inside

    def given(self, data: Data) -> Callable[[Float[Tensor, "B K D"]], Float[Tensor, "B K"]]:
        """z -> log p(D | z, theta) of each task, in nats, at K values of its D hyperparameters.

        Args:
            data: points of the tasks, as the learner has them (`conform`).
        """
        outcomes = RescaledOutcomes.of(self.learner, data) if self._rescales and not self._moves else None
        at_once = max(1, NUMBERS // max(data.num_tasks * data.num_points**2, 1))

        def log_likelihood(z: Tensor) -> Tensor:
            count = z.shape[1]
            if count > at_once:
                return torch.cat([log_likelihood(part) for part in z.split(at_once, 1)], 1)
            with retelling(lambda position: position // count):
                if not self._rescales:
                    flat = self.learner.evidence(self._copies(data, z)).double()
                elif outcomes is None:
                    flat = RescaledOutcomes.of(self.learner, self._copies(data, z)).evidence(*self.scales(z))
                else:
                    flat = outcomes.repeated(count).evidence(*self.scales(z))
            return flat.unflatten(0, z.shape[:2])

        return log_likelihood

    @override
    def configure_optimizer(self, lr: float = 1e-3) -> torch.optim.Optimizer:
        """That of the learner; the deviations of the hyperparameters go 10 times as fast."""
        optimizer = self.learner.configure_optimizer(lr)
        free = [parameter for parameter in self.vary.parameters() if parameter.requires_grad]
        if free:
            optimizer.add_param_group({"params": free, "lr": RATE * lr})
        return optimizer

    @override
    def condition(self, support: Data) -> "TaskQuadraturePosterior":
        given = self.given(support)
        nodes = self._nodes(given, support)
        log_weights = (nodes.log_weights + given(nodes.z)).log_softmax(-1)
        copies, count = self._copies(support, nodes.z), nodes.z.shape[1]
        inner: TaskPosterior | RescaledPosterior
        with retelling(lambda position: position // count):
            if self._rescales:
                scales = self.scales(nodes.z)
                belief = RescaledOutcomes.of(self.learner, copies).condition(*scales)
                inner = RescaledPosterior(self.learner, copies.x, *scales, belief, 1 if self._moves else count)
            else:
                inner = self.learner.condition(copies)
        return TaskQuadraturePosterior(
            spec=support.spec, learner=self, support=support, z=nodes.z, log_weights=log_weights, inner=inner
        )

    def inputs(self, x: Float[Tensor, "B M *x"], z: Float[Tensor, "B K D"]) -> Float[Tensor, "T M *x"]:
        """The inputs of each task as the learner sees them at each value of z: T = B K tasks, those of a task in a row.

        Args:
            x: inputs of each task.
            z: K values of the D hyperparameters of each task.
        """
        x = x.repeat_interleave(z.shape[1], 0)
        for hyperparameter, value in zip(self.vary, z.flatten(0, 1).unbind(-1), strict=True):
            if isinstance(hyperparameter, InputHyperparameter):
                x = hyperparameter.inputs(x, value)
        return x

    def scales(self, z: Float[Tensor, "B K D"]) -> tuple[Float[Tensor, "T"], Float[Tensor, "T"]]:
        """a and b, the scales of noise and signal of each task at each value of z: T = B K, those of a task in a row.

        Args:
            z: K values of the D hyperparameters of each task.
        """
        noise = signal = torch.ones_like(z[..., 0].flatten())
        for hyperparameter, value in zip(self.vary, z.flatten(0, 1).unbind(-1), strict=True):
            if isinstance(hyperparameter, ScaleHyperparameter):
                a, b = hyperparameter.scales(value)
                noise, signal = noise * a, signal * b
        return noise, signal

    @property
    def _rescales(self) -> bool:
        return any(isinstance(each, ScaleHyperparameter) for each in self.vary)

    @property
    def _moves(self) -> bool:
        return any(isinstance(each, InputHyperparameter) for each in self.vary)

    def _nodes(self, given: Callable[[Tensor], Tensor], data: Data) -> quadrature.Nodes:
        like = torch.zeros(data.num_tasks, dtype=torch.float64, device=data.x.device)
        return quadrature.adapted(given, self.nodes, len(self.vary), like)

    def _copies(self, data: Data, z: Tensor) -> Data:
        y, mask = (value.repeat_interleave(z.shape[1], 0) for value in (data.y, data.mask))
        return Data(self.inputs(data.x, z), y, mask)


@dataclass(frozen=True, eq=False, kw_only=True)
class TaskQuadraturePosterior(Refit):
    """A task's posterior at each node, and what the task's points say of the nodes: what `TaskQuadrature` gives.

    Attributes:
        learner: the wrapper.
        z: K nodes of the D hyperparameters of each task.
        log_weights: log of the posterior weight of each node, normalised.
        inner: the posterior of B K tasks, the nodes of a task in a row.
    """

    learner: TaskQuadrature
    z: Float[Tensor, "B K D"]
    log_weights: Float[Tensor, "B K"]
    inner: TaskPosterior | RescaledPosterior

    @override
    def at(self, x: Float[Tensor, "B M *x"]) -> MixturePredictive:
        return MixturePredictive(self.log_weights, self.inner.at(self.learner.inputs(x, self.z)))

    @property
    def location(self) -> Float[Tensor, "B D"]:
        """The posterior mean of z, for each task and hyperparameter: how it stands among tasks, in deviations.

        Example:
            >>> import bayesmeta as bm
            >>> learner = TaskQuadrature(bm.ALPaCA(bm.Identity(1)).double(), bm.wrappers.NoiseScale(1.0))
            >>> loud = learner.adapt(bm.Data.from_arrays([0.0, 1.0, 2.0, 3.0], [3.0, -4.0, 5.0, -2.0]))
            >>> bool(loud.location > 1.0)  # more noise than five tasks in six
            True
        """
        return torch.einsum("bk,bkd->bd", self.log_weights.exp(), self.z)

    @override
    def sample(self, num_draws: int, generator: torch.Generator | None = None) -> Params:
        """Draws of phi, z drawn too: each value `S B *shape`. Raises UnsupportedError where scales of noise or signal
        vary, as the posterior is then one of functions.
        """
        if not isinstance(self.inner, TaskPosterior):
            raise UnsupportedError("expected a posterior over phi, got one over functions: draw from predictions")
        num_draws = whole(num_draws, "num_draws")
        chosen = torch.multinomial(self.log_weights.exp(), max(num_draws, 1), replacement=True, generator=generator)
        draw = torch.arange(num_draws, device=chosen.device)[:, None]
        task = torch.arange(len(chosen), device=chosen.device)
        each = self.inner.sample(num_draws, generator)
        return {
            name: value.unflatten(1, self.z.shape[:2])[draw, task, chosen[:, :num_draws].mT]
            for name, value in each.items()
        }

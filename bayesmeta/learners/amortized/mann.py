"""Memory-augmented networks: a recurrent network reads the points of a task, and the label of each comes a step late.

Santoro, Bartunov, Botvinick, Wierstra, Lillicrap 2016 (ICML, arXiv:1605.06065):

    o_t, S_t = memory([h(x_t), y_{t-1}], S_{t-1})          one step; y_t is not seen before step t + 1
    y_t ~ head(MLP(o_t) + A o_t)                           what is predicted before y_t is shown
    query x* after N points: the step [h(x*), y_N] from S_N

    phi         the state S_N: memory and controller
    prior       the learned state S_0
    likelihood  the head, at each point on its own
    inference   a recurrent filter, amortised: one step a point

The chain rule makes the losses of all steps the evidence: log p(y_1..y_N) = Σ_t log p(y_t | x_t, D_{<t}). So
`log_evidence` is exact, and the objective `Evidence` is the paper's training. The filter depends on the order of the
points, so that the evidence does, too.

It begins as a matching network: keys are features, A reads the outcomes back that the memory recalls, and MLP says
nothing yet. Where reading and writing are learned from noise, thousands of steps pass before features of images matter.

Differences from the paper: the state at the start is learned; every query goes on from the same state, so that queries
do not see each other; features of images; a hidden layer before the head, and A past it; how it begins; what is written
to the memory, and how sharply it is read (`networks.LRUA`).
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn
from typing_extensions import override

from bayesmeta.data import Data
from bayesmeta.errors import UnsupportedError
from bayesmeta.heads.output import CategoricalHead, GaussianHead, OutputHead
from bayesmeta.learners.amortized.base import AmortizedLearner, EncodedPosterior
from bayesmeta.learners.amortized.reader import dense
from bayesmeta.networks.memory import LRUA, Memory, State, where
from bayesmeta.networks.network import Network
from bayesmeta.networks.requirements import require_pointwise
from bayesmeta.networks.units import Units
from bayesmeta.outcomes import Numbers
from bayesmeta.predictives import Predictive

LABEL = 2.5  # nats of score that a label has at the start where it is all that is recalled


@dataclass(frozen=True, eq=False)
class SequenceState:
    """What is kept after the points so far.

    Attributes:
        state: of the memory, which has not seen the last outcome.
        last: the last outcome as the network will see it.
    """

    state: State
    last: Float[Tensor, "B Y"]


class MANN(AmortizedLearner):
    """A memory-augmented network. It depends on the order of the points, which should be random where it means nothing.

    Train it with `bm.fit(..., objective=bm.training.Evidence())`, the sum of the losses of all steps; of labels on
    tasks whose labels are drawn anew, such as `bm.tasks.Episodes`.

    Args:
        features: h, of each point on its own.
        head: what is predicted; one Gaussian number by default. Of labels `bm.heads.OneHotHead(C)` or
            `bm.heads.ClassSlots(C)`.
        memory: `bm.networks.LRUA()` by default, the paper's; `bm.networks.LSTMMemory()` has no slots.
        width: of the hidden layer between the memory and the head.

    Raises:
        UnsupportedError: features that are no `Network`, or depend on the other points of a task; a head that reads one
            class after the other (`CategoricalHead`), for which no label comes a step late.

    Example:
        >>> import bayesmeta as bm
        >>> learner = bm.MANN(bm.Identity(1), memory=bm.networks.LRUA(slots=16, width=8, reads=1, size=16))
        >>> first = bm.Data.from_arrays([0.0, 1.0], [0.3, 0.7])
        >>> posterior = learner.adapt(first)
        >>> posterior.predict([0.5, 3.0]).stddev.shape
        torch.Size([1, 2, 1])
        >>> log_prob = learner.adapt(bm.Data.empty(first)).predict([0.0]).log_prob(torch.tensor([[[0.3]]]))
        >>> log_prob += learner.adapt(first.points(slice(1))).predict([1.0]).log_prob(torch.tensor([[[0.7]]]))
        >>> bool((learner.log_evidence(first) - log_prob).abs() < 1e-5)
        True
    """

    exchangeable = False

    def __init__(
        self, features: Network, *, head: OutputHead | None = None, memory: Memory | None = None, width: int = 128
    ) -> None:
        require_pointwise(features)
        head, memory = GaussianHead() if head is None else head, LRUA() if memory is None else memory
        if isinstance(head, CategoricalHead):
            raise UnsupportedError(
                "expected a head that reads labels as they come, got CategoricalHead, which reads one class after the "
                "other: take OneHotHead(C) or ClassSlots(C)"
            )
        super().__init__(features.x_shape, head)
        self.features = features
        self.units = Units(features.num_outputs)
        self.memory = memory.cell(features.num_outputs, self.head.num_inputs)
        self.before = nn.Parameter(torch.zeros(self.head.num_inputs))  # in the place of the outcome before the first
        self.output = dense(self.memory.num_outputs, width, 1, self.head.size)
        self.straight = nn.Linear(self.memory.num_outputs, self.head.size, bias=False)
        self._begin_with_what_is_recalled()

    @override
    def encode(self, points: Data) -> SequenceState:
        return self.read(points, self.begin(points.num_tasks))[1]

    def begin(self, num_tasks: int) -> SequenceState:
        """What is kept of no points: the prior."""
        return SequenceState(self.memory.start(num_tasks), self.before.expand(num_tasks, -1))

    def read(self, points: Data, kept: SequenceState) -> tuple[Float[Tensor, "B N K"], SequenceState]:
        """What is predicted at each point before its outcome is seen, and what is kept after all of them.

        Args:
            points: with `head.num_inputs` numbers as outcome.
            kept: of the points before.
        """
        rows, state, last = self.units(self.features(points.x)), kept.state, kept.last
        steps = []
        for n in range(points.num_points):
            out, new = self.memory(torch.cat([rows[:, n], last], -1), state)
            real = points.mask[:, n]
            state, last = where(real, new, state), torch.where(real[:, None], points.y[:, n], last)
            steps.append(out)
        out = torch.stack(steps, 1) if steps else rows.new_zeros(len(rows), 0, self.memory.num_outputs)
        return self._raw(out), SequenceState(state, last)

    @override
    def decode(self, kept: SequenceState, x: Float[Tensor, "L M *x"]) -> Float[Tensor, "L M K"]:
        count = x.shape[1]
        rows = self.units(self.features(x)).flatten(0, 1)
        state = tuple(part.repeat_interleave(count, 0) for part in kept.state)
        out, _ = self.memory(torch.cat([rows, kept.last.repeat_interleave(count, 0)], -1), state)
        return self._raw(out.unflatten(0, x.shape[:2]))

    @override
    def condition(self, support: Data) -> "MANNPosterior":
        shown = self.head.shown(support)
        return MANNPosterior(
            spec=support.spec, learner=self, support=support, shown=shown, kept=self.encode(shown.points)
        )

    @override
    def prepare(self, tasks: Data) -> None:
        """Start features at mean 0 and deviation 1: what all points have in common tells none apart."""
        super().prepare(tasks)
        self.units.begin(self.features, tasks)

    def _raw(self, out: Float[Tensor, "L N O"]) -> Float[Tensor, "L N K"]:
        """What the head is given."""
        raw: Tensor = self.output(out) + self.straight(out)
        return raw

    @torch.no_grad()
    def _begin_with_what_is_recalled(self) -> None:
        """What is predicted begins as the outcome that the memory recalls."""
        for name in ("weight", "bias"):
            nn.init.zeros_(self.output.get_parameter(f"output.{name}"))
        nn.init.zeros_(self.straight.weight)
        recall = self.memory.recall()
        if recall is not None:
            says = torch.eye(self.head.size, self.head.num_inputs, dtype=recall.dtype, device=recall.device)
            scale = 1.0 if isinstance(self.outcomes, Numbers) else LABEL
            self.straight.weight.copy_(scale * says @ recall.mT)

    def step_ahead(self, data: Data) -> Predictive:
        """The predictive of every point given those before it, D_{<t}, of data that are checked.

        Of `ClassSlots` it is given which classes the task has.
        """
        shown = self.head.shown(data)
        return self.head.predictive(self.read(shown.points, self.begin(data.num_tasks))[0], shown)

    @override
    def evidence(self, data: Data) -> Float[Tensor, "B"]:
        """Σ_t log p(y_t | x_t, D_{<t}), in nats; of `ClassSlots` given which classes the task has."""
        y = data.y if data.y.is_floating_point() else torch.where(data.mask, data.y, 0)  # padding is no class
        return torch.where(data.mask, self.step_ahead(data).marginal_log_prob(y), 0.0).sum(-1)


@dataclass(frozen=True, eq=False, kw_only=True)
class MANNPosterior(EncodedPosterior):
    """The state after the points so far. Of more points the new ones alone are read."""

    learner: MANN
    kept: SequenceState

    @override
    def extended(self, data: Data) -> "MANNPosterior":
        support = self.support.append(data)
        shown = self.learner.head.shown(support)
        more = shown.points.points(slice(self.support.num_points, None))
        return replace(self, support=support, shown=shown, kept=self.learner.read(more, self.kept)[1])

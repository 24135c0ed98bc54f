"""Joint densities and draws of any exchangeable learner: each point is predicted given those before it.

Bruinsma, Markou, Requeima, Foong, Andersson, Vaughan, Buonomo, Hosking, Turner: *Autoregressive conditional neural
processes*, ICLR 2023, section 2. By the chain rule of probability, with the learner's predictive of one point in the
place of each factor:

    p(y_1, ..., y_M | D) = Π_m p(y_m | x_m, D ∪ {(x_1, y_1), ..., (x_m-1, y_m-1)})

    phi         the learner's
    prior       the learner's
    likelihood  the learner's, point by point
    inference   the learner's, again for each point, on all points before it

Where the learner's predictive of a point is that of a Bayesian model, this is that model's joint predictive, in every
order. Where it is not, each order gives a density of its own, and the mixture of several orders is one, too.
"""

import contextlib
import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor
from torch.distributions import Distribution
from typing_extensions import override

from bayesmeta.arguments import draw_shape
from bayesmeta.data import Data
from bayesmeta.errors import UnsupportedError, retelling
from bayesmeta.learner import Learner
from bayesmeta.predictives import Predictive
from bayesmeta.predictives.predictive import require_labels, require_mask, require_shape
from bayesmeta.wrappers.base import WrappedPosterior, Wrapper
from bayesmeta.wrappers.orders import Order, Random

MOST_NUMBERS = 2**20
"""How many numbers the contexts that are adapted to at once may hold; what a learner computes of them is some 100 times
as large."""
POINT = 64
"""How many numbers a point counts for at least: its features are more than a small point itself."""


class Autoregressive(Wrapper):
    """A learner whose joint predictive is a chain: each query point is predicted given the support and those before it.

    Means, deviations, intervals and class probabilities are the learner's own; so is its loss: training trains what is
    inside. What changes are `log_prob` and `sample`, which are joint over the points of a task: a draw is one function
    with its noise, where that of a learner that predicts every point on its own is noise around a mean. What a point
    is predicted from are outcomes with their noise, never means.

    A density of M points costs M adaptations, which run side by side, and a draw of them as many in a row. The support
    grows up to N + M points: train on supports as large as that.

    Args:
        learner: any learner for which the order of the support does not matter.
        order: in which order points are taken; `Random()` by default. With several orders (`Random(4)`) the density is
            the mixture of their densities, and each draw takes one of them.

    Raises:
        UnsupportedError: the learner depends on the order of its support, or its inputs have no such order.

    Example:
        >>> import bayesmeta as bm
        >>> support = bm.Data.from_arrays([0.0, 1.0], [0.3, 0.7])
        >>> exact = bm.ALPaCA(bm.Identity(1)).double()
        >>> chain = Autoregressive(exact, bm.wrappers.LeftToRight())
        >>> x, y = [2.0, 0.5, 3.0], torch.tensor([[[1.2], [0.4], [1.9]]], dtype=torch.float64)
        >>> joint, product = (learner.adapt(support).predict(x).log_prob(y) for learner in (exact, chain))
        >>> bool((joint - product).abs() < 1e-9)  # an exact learner's chain is its joint density
        True
        >>> learner = Autoregressive(bm.MAML(bm.MLP(1, [8]), posterior=bm.PointEstimate()), bm.wrappers.Random(4))
        >>> learner.adapt(support).predict(x).sample((100,)).shape
        torch.Size([100, 1, 3, 1])
    """

    def __init__(self, learner: Learner, order: Order | None = None) -> None:
        super().__init__(learner)
        if not learner.exchangeable:
            raise UnsupportedError(
                f"expected a learner for which the order of the support does not matter, got {learner.title}: "
                "what it has predicted would be read as a sequence"
            )
        self.known_noise = False  # points that are fed back would need theirs
        self.order = Random() if order is None else order
        if self.x_shape is not None:  # inputs without such an order are refused now, and not at the first density
            self.order.positions(torch.zeros(1, 0, *self.x_shape), torch.ones(1, 0, dtype=torch.bool))

    @override
    def condition(self, support: Data) -> "AutoregressivePosterior":
        inner = self.learner.condition(support)
        return AutoregressivePosterior(spec=support.spec, learner=self, inner=inner, support=support)


@dataclass(frozen=True, eq=False, kw_only=True)
class AutoregressivePosterior(WrappedPosterior):
    """A posterior that remembers its support, to which predicted points are added. Its draws of phi are the learner's.

    Attributes:
        learner: knows the order.
        support: all points seen.
    """

    learner: Autoregressive
    support: Data

    @property
    @override
    def points_seen(self) -> Int[Tensor, "B"]:
        return self.support.counts

    @override
    def at(self, x: Float[Tensor, "B M *x"]) -> "AutoregressivePredictive":
        learner, order = self.learner.learner, self.learner.order
        return AutoregressivePredictive(base=self.inner.at(x), learner=learner, support=self.support, x=x, order=order)

    @override
    def selected(self, tasks: Int[Tensor, "K"]) -> "AutoregressivePosterior":
        inner, support = self.inner.selected(tasks), self.support.select(tasks)
        return replace(self, spec=self.spec.of_tasks(len(tasks)), inner=inner, support=support)

    @override
    def extended(self, data: Data) -> "AutoregressivePosterior":
        return replace(self, inner=self.inner.extended(data), support=self.support.append(data))


@dataclass(frozen=True, eq=False, kw_only=True)
class AutoregressivePredictive(Predictive):
    """The joint predictive by the chain rule. What is asked of each point on its own, the learner itself answers.

    Attributes:
        base: the learner's own predictive.
        learner: adapts to the support and the points before.
        support: all points seen.
        x: the query points.
        order: in which they are taken.
    """

    base: Predictive
    learner: Learner
    support: Data
    x: Float[Tensor, "B M *x"]
    order: Order

    @property
    @override
    def shape(self) -> torch.Size:
        return self.base.shape

    @property
    def marginals(self) -> Distribution:
        """The learner's own."""
        return self.base.marginals

    def log_prob(self, y: Shaped[Tensor, "B M *c"], mask: Bool[Tensor, "B M"] | None = None) -> Float[Tensor, "B"]:
        """log (1/S) Σ_s Π_m p(y_m | D, the real points before m in order s), in nats; S = 1 is the chain itself.

        Contexts are adapted to many at once, in parts of bounded size; with gradients the graph of all is kept.

        Raises:
            ShapeError: y or the mask does not have the shape of the prediction.
            DataError: a label that is no class.
            InferenceError: the learner cannot adapt to a context.
        """
        require_shape(y, self.shape)
        if mask is None:
            mask = torch.ones(y.shape[:2], dtype=torch.bool, device=y.device)
        require_mask(mask, self.shape)
        y = torch.where(mask.view(*mask.shape, *[1] * (y.ndim - 2)), y, 0)  # what is padding need not be an outcome
        if y.ndim == 2:
            require_labels(y, self.base.probs.shape[-1])
        positions = self.order.positions(self.x, mask)
        tasks, (orders, points) = torch.arange(len(y), device=y.device)[:, None, None], positions.shape[1:]
        x, y_in_order = self.x[tasks, positions], y[tasks, positions]  # B S M *x
        known = y_in_order.to(self.support.y.dtype)
        is_real = torch.arange(points, device=y.device)[:, None] < mask.sum(-1)
        # every factor is a task: point m of task b in order s, the ones with few points before them first
        rows = is_real[..., None].expand(-1, -1, orders).nonzero()
        if not len(rows):
            return self.base.log_prob(y, mask)  # of no points
        terms = []
        with torch.set_grad_enabled(self._has_graph(y)):
            for part in rows.split(self._side_by_side()):
                m, b, s = part.unbind(-1)
                before = int(m[-1])  # the most points before one of these
                is_before = torch.arange(before, device=y.device) < m[:, None]
                context = _joined(self.support.select(b), x[b, s, :before], known[b, s, :before], is_before)
                with _told_by_task(b):
                    predictive = self.learner.condition(context).at(x[b, s, m][:, None])
                    terms.append(predictive.log_prob(y_in_order[b, s, m][:, None]))
            found = torch.cat(terms)
            each = found.new_zeros(*is_real.shape, orders).index_put(rows.unbind(-1), found)
            return each.sum(0).logsumexp(-1) - math.log(orders)

    def rsample(
        self, sample_shape: tuple[int, ...] | int = (), generator: torch.Generator | None = None
    ) -> Shaped[Tensor, "*s_B_M_c"]:
        """Joint draws, point after point: each is drawn given the support and what was drawn before it.

        With several orders each draw of a task takes one of them at random. All points are drawn, those that a mask
        would leave out, too.

        Raises:
            DataError: sizes that are not whole numbers.
            InferenceError: the learner cannot adapt to what was drawn.
        """
        sample_shape = draw_shape(sample_shape)
        if 0 in (*sample_shape, *self.shape[:2]):
            return self.base.rsample(sample_shape, generator)  # nothing to draw
        positions = self.order.positions(self.x, torch.ones(self.x.shape[:2], dtype=torch.bool, device=self.x.device))
        tasks = torch.arange(len(positions), device=self.x.device).repeat(math.prod(sample_shape))
        chosen = torch.randint(positions.shape[1], tasks.shape, generator=generator, device=tasks.device)
        size, drawn = self._side_by_side(), []
        with torch.set_grad_enabled(self._has_graph()):
            for b, order in zip(tasks.split(size), positions[tasks, chosen].split(size), strict=True):
                drawn.append(self._drawn(b, order, generator))
            return torch.cat(drawn).reshape(*sample_shape, *self.shape)

    def _drawn(
        self, tasks: Int[Tensor, "R"], order: Int[Tensor, "R M"], generator: torch.Generator | None
    ) -> Shaped[Tensor, "R M *c"]:
        """One draw for each of these tasks, in its own order."""
        x, context, drawn = self.x[tasks[:, None], order], self.support.select(tasks), list[Tensor]()
        for m in range(x.shape[1]):
            if drawn:
                before = drawn[-1].to(context.y.dtype)  # y with its noise
                context = _joined(context, x[:, m - 1 : m], before, torch.ones_like(order[:, :1], dtype=torch.bool))
            with _told_by_task(tasks):
                drawn.append(self.learner.condition(context).at(x[:, m : m + 1]).rsample((), generator))
        rows = torch.arange(len(tasks), device=tasks.device)[:, None]
        return torch.cat(drawn, 1)[rows, order.argsort(-1)]  # as they were given

    def _side_by_side(self) -> int:
        """How many contexts may be adapted to at once."""
        support = self.support
        numbers = max(math.prod(support.x.shape[2:]) + math.prod(support.y.shape[2:]), POINT)
        return max(MOST_NUMBERS // (numbers * (support.num_points + self.x.shape[1])), 1)

    def _has_graph(self, *values: Tensor) -> bool:
        """Whether anything here is differentiated: if not, what learners keep for their gradients is in vain."""
        values = (*values, self.x, self.support.x, self.support.y, *self.learner.parameters())
        return torch.is_grad_enabled() and any(value.requires_grad for value in values)

    def marginal_log_prob(self, y: Shaped[Tensor, "B M *c"]) -> Float[Tensor, "B M"]:
        """The log density of each point on its own, in nats: the learner's own."""
        return self.base.marginal_log_prob(y)

    @override
    def output_log_prob(self, y: Float[Tensor, "B M C"]) -> Float[Tensor, "B M C"]:
        """The log density of each output of each point on its own, in nats: the learner's own."""
        return self.base.output_log_prob(y)

    @property
    def mean(self) -> Float[Tensor, "B M C"]:
        """The learner's own."""
        return self.base.mean

    @property
    def variance(self) -> Float[Tensor, "B M C"]:
        """The learner's own."""
        return self.base.variance

    def cdf(self, y: Float[Tensor, "B M C"]) -> Float[Tensor, "B M C"]:
        """P(Y <= y) of each output of each point: the learner's own."""
        return self.base.cdf(y)

    def _quantile(self, q: float) -> Tensor:
        return self.base.quantile(q)

    @property
    def noiseless(self) -> Predictive:
        """The learner's own predictive of f, no chain. Raises UnsupportedError where f and noise do not separate."""
        return self.base.noiseless


def _joined(support: Data, x: Shaped[Tensor, "R M *x"], y: Shaped[Tensor, "R M *c"], mask: Bool[Tensor, "R M"]) -> Data:
    """The support, and points behind it that are known to fit."""
    parts = ((support.x, x), (support.y, y), (support.mask, mask))
    return Data(*(torch.cat(part, 1) for part in parts))


def _told_by_task(tasks: Int[Tensor, "R"]) -> contextlib.AbstractContextManager[None]:
    """A failure in a row of a part is told as that of the row's task."""
    return retelling(lambda position: int(tasks[position]))

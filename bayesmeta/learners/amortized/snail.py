"""SNAIL: a sequence of points is read by convolutions in time and by attention, the query last.

Mishra, Rohaninejad, Chen, Abbeel 2018 (ICLR, arXiv:1707.03141):

    z_t = [s (h(x_t) - m), y_t, 0]             a support point
    z_* = [s (h(x_*) - m), 0, 1]               a query, the last step; the 1 says that it has no outcome
    z <- attention(z), TC(z), attention(z), TC(z), attention(z)      blocks of `bayesmeta.networks.temporal`
    y(x_*) ~ head(W z_*)

    of labels each attention also adds the votes of what it reads, log(C Σ_s a_s y_s)

    phi         what the blocks keep of the support: keys and values, and the steps that convolutions reach back to
    prior       what is decoded where there is no step before the query
    likelihood  the head, at each point on its own
    inference   one pass in time, amortised; the order of the support matters

Differences from the paper: the support is run once and each query as a step of its own that comes next, which gives the
same numbers as a sequence for each query; the dilations start at 1 (the listing of the paper starts at 2, so that no
convolution reads the step just before); a query is marked as one, as zeros could be an outcome; of labels also the
logarithm of their share in what is read is passed on, as a share is a probability and the head wants scores.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from bayesmeta.annotations import said
from bayesmeta.data import Data
from bayesmeta.errors import DataError
from bayesmeta.heads.output import GaussianHead, OutputHead
from bayesmeta.learners.amortized.base import AmortizedLearner
from bayesmeta.networks.network import Network
from bayesmeta.networks.requirements import require_pointwise
from bayesmeta.networks.temporal import CausalAttention, CausalBlock, CausalVotes, Steps, temporal_convolutions
from bayesmeta.networks.units import Units
from bayesmeta.outcomes import Numbers

MOST_POINTS, MOST_BLOCKS = 2**16, 100


class SNAIL(AmortizedLearner):
    """A learner that reads the support as a sequence, in one pass, by convolutions in time and attention.

    One model serves all numbers of points up to `max_points`: train it on tasks of different sizes. The order of the
    support matters to it, so that points of no natural order should come in a random one, as those of the library's
    task sources do. It is made for what has an order, and for fast adaptation of any kind where training tasks abound.

    Labels enter in a place for each class (`bm.heads.OneHotHead(C)`, or `bm.heads.ClassSlots(C)` for at most C classes
    of each task's own): train it on tasks that number their classes at random.

    Args:
        features: h, of each point on its own: `bm.Identity(D)` for numbers, `bm.Conv4(...)` for images.
        head: what is predicted; one Gaussian number by default.
        max_points: the most points that a support has. The convolutions reach as far back.
        channels: D, how many numbers a convolution adds to a step.
        attention: numbers of a key and of a value for each block of attention; between two of them are convolutions.
            The paper has ((64, 32), (256, 128), (512, 256)) and 128 channels for images.

    Attributes:
        units: m and s, which `fit` starts at the mean of the features and the inverse of their deviation.
        blocks: of attention, and the convolutions between them.

    Raises:
        UnsupportedError: features that are no `Network`, or depend on the other points of a task; a head that is none.
        DataError: no points, no attention, or sizes that are not positive; when adapting, more support points than
            `max_points`.

    Example:
        >>> import bayesmeta as bm
        >>> learner = bm.SNAIL(bm.Identity(1), max_points=10)
        >>> split = bm.tasks.RandomSplit((0, 10))
        >>> _ = bm.fit(learner, bm.tasks.Sinusoid(), steps=2, split=split, progress=False)
        >>> posterior = learner.adapt(bm.Data.from_arrays([0.0, 1.0], [0.3, 0.7]))
        >>> posterior.predict([0.5, 3.0]).stddev.shape
        torch.Size([1, 2, 1])
    """

    exchangeable = False

    def __init__(
        self,
        features: Network,
        *,
        head: OutputHead | None = None,
        max_points: int,
        channels: int = 32,
        attention: Sequence[tuple[int, int]] = ((64, 32), (64, 32), (64, 32)),
    ) -> None:
        require_pointwise(features)
        super().__init__(features.x_shape, GaussianHead() if head is None else head)
        if not 1 <= max_points <= MOST_POINTS:
            raise DataError(f"expected 1 to {MOST_POINTS} support points, got {said(max_points)}")
        if not 1 <= len(attention) <= MOST_BLOCKS:
            raise DataError(f"expected 1 to {MOST_BLOCKS} blocks of attention, got {len(attention)}")
        self.features, self.max_points = features, max_points
        self.units = Units(features.num_outputs)
        size, blocks = features.num_outputs + self.head.num_inputs + 1, list[CausalBlock]()
        for key_size, value_size in attention:
            if blocks:
                blocks += temporal_convolutions(size, channels, max_points + 1)
                size = blocks[-1].num_outputs
            blocks.append(self._reading(size, key_size, value_size))
            size = blocks[-1].num_outputs
        self.blocks = nn.ModuleList(blocks)
        self.out = nn.Linear(size, self.head.size)
        self._begin_as_matching()

    @override
    def prepare(self, tasks: Data) -> None:
        """Start the features of the meta-training points at mean 0 and deviation 1: attention compares them."""
        super().prepare(tasks)
        self.units.begin(self.features, tasks)

    @override
    def encode(self, points: Data) -> list[Any]:
        points = points.packed()
        if not torch.compiler.is_compiling() and points.num_points and int(points.counts.max()) > self.max_points:
            raise DataError(
                f"expected at most {self.max_points} support points, got a task with {int(points.counts.max())}: "
                "make the learner with a larger max_points, and train it on as many"
            )
        rows = functional.pad(torch.cat([self.units(self.features(points.x)), points.y], -1), (0, 1))
        kept = []
        for block in self.blocks:
            assert isinstance(block, CausalBlock)  # as it was made
            kept.append(block.keep(Steps(rows, points.mask)))
            if block is not self.blocks[-1]:  # nothing reads what comes after the last
                rows = block(rows)
        return kept

    @override
    def decode(self, kept: list[Any], x: Float[Tensor, "L M *x"]) -> Float[Tensor, "L M K"]:
        h = self.units(self.features(x))
        nothing = h.new_zeros(*h.shape[:2], self.head.num_inputs)
        rows = torch.cat([h, nothing, torch.ones_like(h[..., :1])], -1)
        for block, each in zip(self.blocks, kept, strict=True):
            assert isinstance(block, CausalBlock)  # as it was made
            rows = block.step(rows, each)
        raw: Tensor = self.out(rows)
        return raw

    def _reading(self, size: int, key_size: int, value_size: int) -> CausalAttention:
        if isinstance(self.outcomes, Numbers):
            return CausalAttention(size, key_size, value_size)
        place, ways = self.features.num_outputs, self.head.num_inputs
        return CausalVotes(size, key_size, value_size, place=place, ways=ways)

    @torch.no_grad()
    def _begin_as_matching(self) -> None:
        """What is predicted begins as the outcomes of points that are like the query, read by the first attention.

        A fresh network reads little but noise, in which outcomes are one part of many: training stays for thousands of
        steps at predicting what is known without a support.
        """
        first, (start, count) = self.blocks[0], (self.features.num_outputs, self.head.num_inputs)
        assert isinstance(first, CausalAttention)  # as it was made
        read = nn.init.orthogonal_(first.value.weight.new_empty(first.value.out_features, count))
        for layer in (first.value, self.out):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        first.value.weight[:, start : start + count] = read
        says = torch.eye(self.head.size, count, dtype=read.dtype, device=read.device)  # the outcome is what is read
        if isinstance(first, CausalVotes):
            self.out.weight[:, first.num_outputs - count : first.num_outputs] = says
        else:
            self.out.weight[:, first.num_inputs : first.num_outputs] = says @ read.mT

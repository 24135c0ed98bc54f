"""Learners whose task is a random vector z that all queries share: draws of it, mixtures over them, and their bound."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from typing_extensions import override

from bayesmeta.data import Data, TaskBatch
from bayesmeta.distributions import common_normals
from bayesmeta.errors import DataError, UnsupportedError
from bayesmeta.heads.output import OutputHead
from bayesmeta.learners.amortized.aggregation import BayesianPool, Belief, Summary
from bayesmeta.learners.amortized.reader import Reader, ReadingLearner, ReadPosterior
from bayesmeta.networks.network import Network
from bayesmeta.outcomes import Numbers
from bayesmeta.predictives import MixturePredictive, Predictive


@dataclass(frozen=True, eq=False)
class LatentSummary:
    """What is kept of a support.

    Attributes:
        belief: q(z | D).
        summary: what it was made of, which more points are added to.
        path: what the deterministic path keeps; None without one.
    """

    belief: Belief
    summary: Summary
    path: Summary | None


class LatentLearner(ReadingLearner):
    """A learner with z ~ N(0, I) a priori and q(z | D) by Bayes' rule on what an encoder says of each point.

    Args:
        features: h, of each point on its own.
        head: p(y | z) at a point.
        reader: encoder and pool of z.
        path: encoder and aggregation of what the decoder also reads, with certainty; None without one.
        decoder: from the features of a query, z, and what the path reads, to `head.size` numbers.
        num_draws: S.

    Raises:
        DataError: no draws.
        UnsupportedError: a reader that has no z, and as for `ReadingLearner`.
    """

    base: Tensor

    def __init__(
        self,
        features: Network,
        head: OutputHead,
        reader: Reader,
        path: Reader | None,
        decoder: nn.Module,
        num_draws: int,
    ) -> None:
        super().__init__(features, head)
        if num_draws < 1:
            raise DataError(f"expected at least one draw of z, got {num_draws}")
        if not isinstance(reader.aggregation, BayesianPool):
            raise UnsupportedError(f"expected a BayesianPool for z, got {type(reader.aggregation).__name__}")
        self.reader, self.path, self.decoder, self.num_draws = reader, path, decoder, num_draws
        base = spread_normals(num_draws, self.pool.size).to(next(decoder.parameters()))
        self.register_buffer("base", base, persistent=False)

    @property
    def pool(self) -> BayesianPool:
        """What makes z of the points."""
        pool = self.reader.aggregation
        assert isinstance(pool, BayesianPool)  # as it was made
        return pool

    @override
    def anneal(self, progress: float) -> None:
        """Draw ε anew while training, and put the fixed ones back at the end."""
        if progress < 1.0:
            self.base.copy_(common_normals(self.base.shape, self.base))
        else:
            self.base.copy_(spread_normals(*self.base.shape))

    @override
    def encode(self, points: Data) -> LatentSummary:
        path: Summary | None = None if self.path is None else self.path(points)
        return self._kept(self.reader(points), path)

    @override
    def joined(self, kept: LatentSummary, more: LatentSummary) -> LatentSummary:
        path = None if kept.path is None or more.path is None else kept.path.joined(more.path)
        return self._kept(kept.summary.joined(more.summary), path)

    def _kept(self, summary: Summary, path: Summary | None) -> LatentSummary:
        return LatentSummary(self.pool.belief(summary), summary, path)

    @override
    def belief(self, kept: LatentSummary) -> Belief:
        return kept.belief

    @override
    def decode(self, kept: LatentSummary, x: Float[Tensor, "L M F"]) -> Float[Tensor, "R M K"]:
        """`head.size` numbers at each query for every draw of z, task by task: R = L * S rows."""
        return self.at_draws(kept.belief.draws(self.base), kept.path, x)

    def at_draws(
        self, z: Float[Tensor, "L S d"], path: Summary | None, x: Float[Tensor, "L M F"]
    ) -> Float[Tensor, "R M K"]:
        """The same for any z.

        Args:
            z: S of them for each task.
            path: what the deterministic path keeps.
            x: features of queries.
        """
        told = x if self.path is None or path is None else torch.cat([x, self.path.read(path, x)], -1)
        told = told[:, None].expand(-1, z.shape[1], -1, -1)
        both = torch.cat([told, z[:, :, None].expand(-1, -1, x.shape[1], -1)], -1)
        raw: Tensor = self.decoder(both.flatten(0, 1))
        return raw

    @override
    def prediction(self, posterior: ReadPosterior, rows: Float[Tensor, "L M F"]) -> MixturePredictive:
        components = self.components(posterior, self.decode(posterior.kept, rows))
        weights = rows.new_zeros(components.shape[0] // self.num_draws, self.num_draws)
        return MixturePredictive(weights, components)

    def components(self, posterior: ReadPosterior, raw: Float[Tensor, "R M K"]) -> Predictive:
        """The predictive given each z, over B * S tasks, task by task.

        Args:
            posterior: whose support it is given, too.
            raw: what the decoder gives, for all classes.
        """
        shown, count = posterior.shown, self.num_draws
        if shown.classes is not None:  # a row for each class and draw: the draws first
            raw = raw.unflatten(0, (-1, shown.classes.num_classes, count)).transpose(1, 2).flatten(0, 2)
        return self.head.predictive(raw, shown.repeated(count))

    def bound(self, tasks: TaskBatch) -> Float[Tensor, "B"]:
        """E log p(query | z) - KL(q(z | all) ‖ q(z | support)), z ~ q(z | all), of tasks that are checked; nats.

        With the encoder's q(z | support) as the prior of the query it is below log p(query | support) for any q(z |
        all). The encoder sees the query, the deterministic path does not.

        Raises:
            UnsupportedError: outcomes are labels, whose classes share a draw.
        """
        if not isinstance(self.outcomes, Numbers):
            raise UnsupportedError("expected numbers: the classes of a draw are not independent, as a bound wants them")
        posterior, query = self.condition(tasks.support), tasks.query
        belief = self.encode(self.head.shown(self.seen(tasks.joined())).points).belief
        raw = self.at_draws(belief.draws(self.base), posterior.kept.path, self.features(query.x))
        y, mask = (value.repeat_interleave(self.num_draws, 0) for value in (query.y, query.mask))
        each = self.components(posterior, raw).log_prob(y, mask).unflatten(0, (-1, self.num_draws))
        return each.mean(1) - belief.divergence(posterior.kept.belief)


def spread_normals(count: int, size: int) -> Float[Tensor, "S d"]:
    """`count` fixed points that stand for N(0, I): quantiles in every direction, in a random order of each.

    A Latin hypercube: means are 0 and variances 1. (With fewer points than dimensions, some directions of Sobol's
    sequence are the same.)

    Args:
        count: S.
        size: d.

    Example:
        >>> spread_normals(4, 2).shape, spread_normals(4, 2).square().mean(0)
        (torch.Size([4, 2]), tensor([1., 1.], dtype=torch.float64))
    """
    values = torch.special.ndtri((torch.arange(count, dtype=torch.float64) + 0.5) / count).numpy()
    values = values / np.sqrt(np.mean(values**2)) if count > 1 else values
    return torch.from_numpy(np.random.default_rng(0).permuted(np.tile(values, (size, 1)), axis=1).T.copy())

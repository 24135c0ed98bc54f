"""What neural processes share that read every point on its own: features first, an encoder, an aggregation.

    h(x)                                features, of a point on its own
    r_i = encoder(h(x_i), y_i)          what a support point says
    read(aggregate(r_1..r_N), h(x))     what a query is told of all of them

Points that come later are read alone and joined to what is kept: the network's work is that of the new points.
"""

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from typing_extensions import override

from bayesmeta.data import Data
from bayesmeta.distributions import common_normals
from bayesmeta.errors import UnsupportedError
from bayesmeta.heads.output import OutputHead
from bayesmeta.learners.amortized.aggregation import Aggregation, Belief, Summary
from bayesmeta.learners.amortized.base import AmortizedLearner, EncodedPosterior
from bayesmeta.networks.mlp import MLP
from bayesmeta.networks.network import Network
from bayesmeta.networks.requirements import require_pointwise
from bayesmeta.outcomes import Labels
from bayesmeta.predictives import Predictive
from bayesmeta.typing import Params

ACTIVATION = "relu"


def dense(num_inputs: int, width: int, layers: int, num_outputs: int) -> Network:
    """Hidden layers of one width, and a dense layer on them.

    Args:
        num_inputs: of the first.
        width: of each hidden layer.
        layers: how many are hidden.
        num_outputs: of the last.

    Raises:
        DataError: sizes that are not positive.
    """
    return MLP(num_inputs, [width] * layers, activation=ACTIVATION).with_outputs(num_outputs)


class Reader(nn.Module):
    """An encoder of single points and the aggregation of what it gives.

    Args:
        num_features: F.
        num_numbers: how many numbers the outcome of a point is.
        aggregation: how points become one.
        width: of the hidden layers.
        layers: how many are hidden.

    Attributes:
        encoder: from features and outcome to E numbers. Any module will do in its place.
        places: from features to the Q numbers that an aggregation wants to know of where a point is; None where it does
            not.
    """

    def __init__(self, num_features: int, num_numbers: int, aggregation: Aggregation, width: int, layers: int) -> None:
        super().__init__()
        self.aggregation = aggregation
        self.encoder: nn.Module = dense(num_features + num_numbers, width, layers, aggregation.num_inputs)
        asked = aggregation.num_queries
        self.places: nn.Module | None = dense(num_features, width, layers, asked) if asked else None

    def forward(self, points: Data) -> Summary:
        """The summary of points whose inputs are features."""
        rows = self.encoder(torch.cat([points.x, points.y], -1))
        return self.aggregation.summarise(rows, self._places(points.x), points.mask)

    def read(self, summary: Summary, rows: Float[Tensor, "L M F"]) -> Float[Tensor, "L M R"]:
        """What queries are told.

        Args:
            summary: of the points.
            rows: features of the queries.
        """
        told = self.aggregation.read(summary, self._places(rows))
        return told.expand(-1, rows.shape[1], -1)

    def _places(self, rows: Tensor) -> Tensor:
        return rows[..., :0] if self.places is None else self.places(rows)


class ReadingLearner(AmortizedLearner):
    """A neural process that reads every point on its own. A subclass gives `encode`, `decode` and `joined`.

    `encode` and `decode` see features in the place of inputs.

    Args:
        features: h, of each point on its own.
        head: what the numbers that the decoder gives mean.

    Raises:
        UnsupportedError: features that are no `Network`, or depend on the other points of a task; a head that is none.

    Example:
        >>> import bayesmeta as bm
        >>> class Total(bm.learners.ReadingLearner):
        ...     '''Predicts N(a × the sum of the outcomes so far, 1): a is learned.'''
        ...     def __init__(self):
        ...         super().__init__(bm.Identity(1), bm.heads.GaussianHead())
        ...         self.share = torch.nn.Parameter(torch.ones(()))
        ...     def encode(self, points):
        ...         return torch.where(points.mask[..., None], points.y, 0.0).sum(1)
        ...     def joined(self, kept, more):
        ...         return kept + more
        ...     def decode(self, kept, x):
        ...         mean = self.share * kept[:, None].expand(-1, x.shape[1], -1)
        ...         return torch.cat([mean, torch.zeros_like(mean)], -1)
        >>> posterior = Total().adapt(bm.Data.from_arrays([0.0, 1.0], [3.0, 5.0]))
        >>> posterior.update(bm.Data.from_arrays([2.0], [1.0])).predict([4.0])
        prediction at 1 point: mean [9], sd [1]
    """

    def __init__(self, features: Network, head: OutputHead) -> None:
        require_pointwise(features)
        super().__init__(features.x_shape, head)
        self.features = features

    @abstractmethod
    def joined(self, kept: Any, more: Any) -> Any:
        """What is kept of the points of both."""

    def belief(self, kept: Any) -> Belief | None:
        """What is believed of a latent z; None where there is none."""
        return None

    def seen(self, points: Data) -> Data:
        """Points with their features in the place of their inputs."""
        return Data(self.features(points.x), points.y, points.mask)

    @override
    def condition(self, support: Data) -> "ReadPosterior":
        seen = self.seen(support)
        shown = self.head.shown(seen)
        kept = self.encode(shown.points)
        return ReadPosterior(spec=support.spec, learner=self, support=support, seen=seen, shown=shown, kept=kept)

    def prediction(self, posterior: "ReadPosterior", rows: Float[Tensor, "L M F"]) -> Predictive:
        """The predictive of a posterior of this learner at queries with these features, one row of them a class."""
        return self.head.predictive(self.decode(posterior.kept, rows), posterior.shown)


@dataclass(frozen=True, eq=False, kw_only=True)
class ReadPosterior(EncodedPosterior):
    """What is kept of points that were read one by one: of more points the new ones alone are read.

    Where the classes are those of the support, new points may be of new classes, and what is kept is made anew.

    Attributes:
        seen: the support, with features in the place of inputs.

    Example:
        >>> import bayesmeta as bm
        >>> learner = bm.ConditionalNeuralProcess(bm.Identity(1), aggregation=bm.learners.BayesianPool(8))
        >>> posterior = learner.adapt(bm.Data.from_arrays([0.0, 1.0], [0.3, 0.7]))
        >>> posterior.update(bm.Data.from_arrays([2.0], [1.1])).sample(5)["z"].shape
        torch.Size([5, 1, 8])
    """

    learner: ReadingLearner
    seen: Data

    @override
    def at(self, x: Float[Tensor, "B M *x"]) -> Predictive:
        return self.learner.prediction(self, self.shown.queries(self.learner.features(x)))

    @override
    def extended(self, data: Data) -> "ReadPosterior":
        learner, more = self.learner, self.learner.seen(data)
        seen = self.seen.append(more)
        shown = learner.head.shown(seen)
        if learner.outcomes == Labels(None):
            kept = learner.encode(shown.points)
        else:
            kept = learner.joined(self.kept, learner.encode(learner.head.shown(more).points))
        return replace(self, support=self.support.append(data), seen=seen, shown=shown, kept=kept)

    @override
    def sample(self, num_draws: int, generator: torch.Generator | None = None) -> Params:
        """Draws of z where the points are pooled by Bayes' rule: `S B d`; of labels `S B C d`, one of each class.

        Raises:
            UnsupportedError: another aggregation, which leaves no density of phi.
        """
        belief = self.learner.belief(self.kept)
        if belief is None:
            raise UnsupportedError(f"{type(self.learner).__name__} has draws of phi with BayesianPool alone")
        classes = self.shown.classes
        base = common_normals((num_draws, *belief.mean.shape), belief.mean, generator)
        z = belief.mean + belief.variance.sqrt() * base
        return {"z": z if classes is None else z.unflatten(1, (-1, classes.num_classes))}

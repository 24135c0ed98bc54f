"""Conditional neural processes: a support becomes a vector, and a network reads it at every query.

Garnelo, Rosenbaum, Maddison, Ramalho, Saxton, Shanahan, Teh, Rezende, Eslami 2018 (ICML, arXiv:1807.01613):

    r_i = encoder(h(x_i), y_i)                     what a support point says
    r = aggregate(r_1, ..., r_N)                   of all points, whatever their order and number
    y(x) ~ head(decoder(h(x), r, log(1 + N)))      at each query on its own

    phi         the function itself; what is kept of it is r. With `BayesianPool` a latent z, r is its mean and variance
    prior       what is decoded without a point: at r0; with `BayesianPool` explicit, z ~ N(0, I)
    likelihood  the head, at each point on its own
    inference   one pass, amortised; with `BayesianPool` Bayes' rule on what the encoder says

Differences from the paper: the number of points is not lost, and no point at all is legal; deviations have no floor of
.1, which would cap the density of precise outcomes; query points alone are scored in training; of labels, each class is
read as a task of its own, so that relabelling permutes probabilities.
"""

from jaxtyping import Float
from torch import Tensor, cat, nn
from typing_extensions import override

from bayesmeta.data import Data
from bayesmeta.heads.output import GaussianHead, OutputHead
from bayesmeta.learners.amortized.aggregation import Aggregation, BayesianPool, Belief, MeanPool, Summary
from bayesmeta.learners.amortized.reader import Reader, ReadingLearner, dense
from bayesmeta.networks.network import Network


class ConditionalNeuralProcess(ReadingLearner):
    """A conditional neural process.

    Args:
        features: h, of each point on its own: `bm.Identity(D)` for numbers, `bm.Conv4(...)` for images.
        head: what is predicted; one Gaussian number by default.
        aggregation: how points become one: `MeanPool()` by default, the paper's; `BayesianPool()`, whose z has a prior
            and a posterior; `CrossAttention()`, which looks up points near a query.
        width: of the hidden layers of encoder and decoder.
        layers: hidden layers of each.

    Attributes:
        reader: its `encoder` is given features and outcome of a point, and its `aggregation` what comes of it.
        decoder: is given the features of a query, what is read, and log(1 + N). Any modules will do in their place.

    Raises:
        UnsupportedError: features that are no `Network`, or depend on the other points of a task.
        DataError: sizes that are not positive.

    Example:
        >>> import bayesmeta as bm
        >>> learner = bm.ConditionalNeuralProcess(bm.Identity(1), aggregation=bm.learners.BayesianPool(32))
        >>> _ = bm.fit(learner, bm.tasks.Sinusoid(), steps=2, progress=False)
        >>> posterior = learner.adapt(bm.Data.from_arrays([0.0, 1.0], [0.3, 0.7]))
        >>> posterior.predict([0.5, 3.0]).stddev.shape, posterior.sample(10)["z"].shape
        (torch.Size([1, 2, 1]), torch.Size([10, 1, 32]))
    """

    def __init__(
        self,
        features: Network,
        *,
        head: OutputHead | None = None,
        aggregation: Aggregation | None = None,
        width: int = 128,
        layers: int = 3,
    ) -> None:
        super().__init__(features, GaussianHead() if head is None else head)
        aggregation, size = MeanPool() if aggregation is None else aggregation, features.num_outputs
        self.reader = Reader(size, self.head.num_inputs, aggregation, width, layers)
        self.decoder: nn.Module = dense(size + aggregation.num_outputs + 1, width, layers, self.head.size)

    @override
    def encode(self, points: Data) -> Summary:
        summary: Summary = self.reader(points)
        return summary

    @override
    def joined(self, kept: Summary, more: Summary) -> Summary:
        return kept.joined(more)

    @override
    def decode(self, kept: Summary, x: Float[Tensor, "L M F"]) -> Float[Tensor, "L M K"]:
        count = kept.counts.log1p()[:, None, None].expand(-1, x.shape[1], -1)
        raw: Tensor = self.decoder(cat([x, self.reader.read(kept, x), count], -1))
        return raw

    @override
    def belief(self, kept: Summary) -> Belief | None:
        pool = self.reader.aggregation
        return pool.belief(kept) if isinstance(pool, BayesianPool) else None

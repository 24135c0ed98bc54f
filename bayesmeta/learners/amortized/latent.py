"""Latent neural processes: a task is a random vector z, and all queries of a task share it.

Garnelo, Schwarz, Rosenbaum, Viola, Rezende, Eslami, Teh 2018 (arXiv:1807.01622); the attentive path is Kim et al. 2019
(ICLR, arXiv:1901.05761), maximum likelihood Foong et al. 2020 (NeurIPS, arXiv:2007.01332):

    q(z | D) = N(m, v)                                     Bayes' rule on what the encoder says of each point
    p(y_1..y_M | x, D) = 1/S Σ_s Π_m head(y_m; decoder(h(x_m), z_s)),   z_s = m + √v ε_s

    phi         z
    prior       N(0, I), explicit
    likelihood  the head, at each point on its own given z
    inference   amortised: the encoder gives a Gaussian factor of each point (`BayesianPool`)

The ε_s are the same for all tasks and calls, so that adapting is a function; while `fit` trains they are drawn anew at
every step, so that the decoder knows all z, not S of them. As all queries share z, draws are functions and the
predictive is joint. The training loss is -log p(query | support) / M of that joint mixture, which with few draws falls
short of the one of all z; `bm.training.VariationalBound` is the papers' other loss.

Differences from the papers: the prior of z is N(0, I), and not what the network makes of no point; deviations have no
floor of .1.
"""

from bayesmeta.heads.output import GaussianHead, OutputHead
from bayesmeta.learners.amortized.aggregation import Aggregation, BayesianPool
from bayesmeta.learners.amortized.latent_base import LatentLearner
from bayesmeta.learners.amortized.reader import Reader, dense
from bayesmeta.networks.network import Network
from bayesmeta.networks.requirements import require_pointwise


class LatentNeuralProcess(LatentLearner):
    """A latent neural process; with a deterministic path by cross-attention, an attentive one.

    Of labels, each class has a z of its own, and the classes of a draw share its ε, so that relabelling permutes the
    probabilities.

    Args:
        features: h, of each point on its own.
        head: p(y | z) at a point; one Gaussian number by default.
        aggregation: q(z | D); `BayesianPool()` by default, whose size is that of z.
        path: what the decoder also reads, with certainty: `CrossAttention()` makes it an attentive neural process; none
            by default, and then z is all that is kept of the support.
        num_draws: S; log densities of different S are not comparable.
        width: of the hidden layers of encoders and decoder.
        layers: hidden layers of each.

    Attributes:
        reader: encoder and aggregation of z. path: those of the deterministic path; None without one.
        decoder: is given the features of a query, z, and what the path reads. Any modules will do in their place.

    Raises:
        UnsupportedError: features that are no `Network`, or depend on the other points of a task.
        DataError: sizes that are not positive.

    Example:
        >>> import bayesmeta as bm
        >>> learner = bm.LatentNeuralProcess(bm.Identity(1), num_draws=8)
        >>> posterior = learner.adapt(bm.Data.from_arrays([0.0, 1.0], [0.3, 0.7]))
        >>> posterior.predict([0.5, 3.0])  # a mixture of 8
        prediction at 2 points: mean [..., ...], sd [..., ...]
        >>> posterior.sample(3)["z"].shape
        torch.Size([3, 1, 64])
    """

    def __init__(
        self,
        features: Network,
        *,
        head: OutputHead | None = None,
        aggregation: BayesianPool | None = None,
        path: Aggregation | None = None,
        num_draws: int = 32,
        width: int = 128,
        layers: int = 3,
    ) -> None:
        require_pointwise(features)
        head = GaussianHead() if head is None else head
        pool, size = BayesianPool() if aggregation is None else aggregation, features.num_outputs
        told = pool.size + (0 if path is None else path.num_outputs)
        super().__init__(
            features,
            head,
            Reader(size, head.num_inputs, pool, width, layers),
            None if path is None else Reader(size, head.num_inputs, path, width, layers),
            dense(size + told, width, layers, head.size),
            num_draws,
        )

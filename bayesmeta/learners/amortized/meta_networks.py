"""Meta Networks: what each support point asks of the weights, written by a network and looked up by each query.

Munkhdalai, Yu 2017 (ICML, arXiv:1703.00837):

    g_i = ∂ log p(y_i | b(x_i; W)) / ∂W                 what point i asks of the slow weights
    Q* = Σ_i d(∂ log p(y_i | V u(x_i; Q)) / ∂Q) / (n₀ + N)          fast weights of the embedding, for the task
    W*_i = m(g_i),   r_i = u(x_i; Q, Q*)                fast weights and a key of each support point
    a_i(x) = softmax_i(τ cos(u(x; Q, Q*), r_i) + b_i)   over the support and a key r_0 of nothing, with W*_0 = 0
    y(x) ~ head(b(x; W, Σ_i a_i(x) W*_i))

    of labels b_i = log (1 + n₁)/(n_c + n₁), with n_c examples of the class of point i: as n₁ -> 0 what a class asks for
    is the mean over its examples, and a class of many does not drown one of few

    layer augmentation: σ(W z) + σ(W* z) in every layer, and W z + W* z in the last

    phi         the fast weights W*, of each query its own
    prior       the slow weights W, learned: what is decoded where only the key of nothing is read
    likelihood  the head
    inference   one gradient of each support point, and one pass of the networks d and m

The gradient of log p(y_i | x_i, W) is the score of point i: m maps it to the shift of the posterior mean that the point
asks for. MAML with one step is the special case m(g) = α g with uniform attention.

A point's gradient in a dense layer is the outer product δ zᵀ, and never written out: m(δ_o z_j) = α δ_o z_j +
Σ_k φ_k(δ_o) ψ_k(z_j), the gradient itself with a learned step, and a few products, each factor a network of one number
that all coordinates share. It sees the number's sign and the logarithm of its size, as gradients span decades. (A power
of the gradient is one such product.)

Differences from the paper: m and d are functions of the two factors of a coordinate in place of their product, which
takes a fourteenth of the time; d is a mean and no LSTM over gradients, so that the order of the support never matters;
attention has a temperature, and a key of nothing, so that an empty support is legal; fast weights are those of the last
two dense layers, on features h(x) that all tasks share; the embedding has no loss of its own beside the one that all is
trained on.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from bayesmeta.data import Data
from bayesmeta.errors import DataError, UnsupportedError
from bayesmeta.heads.one_hot import OneHotHead
from bayesmeta.heads.output import GaussianHead, OutputHead, Shown
from bayesmeta.learners.amortized.base import AmortizedLearner
from bayesmeta.networks.mlp import MLP
from bayesmeta.networks.network import Network
from bayesmeta.networks.requirements import require_pointwise
from bayesmeta.noise import Positive
from bayesmeta.outcomes import Numbers

SMALL = 0.1  # the size below which a sign fades out: what changes faster is not learned sooner
SCALE = 0.2  # of the logarithm of a size
RANK = 8
STEP = 0.02  # α at the start, as in MAML: fast weights begin near 0
WIDTH = 20  # hidden units of d and m, the paper's
# starting temperatures: of numbers the nearest point tells most; of labels all classes are read, to be compared
NEAREST, ALL = 5.0, 1.0
EPSILON = 1e-6
BOUNDS = (1e-3, 1e3)  # of temperature and scarcity


@dataclass(frozen=True, eq=False)
class FastWeights:
    """What each support point asks of the weights of a dense layer, as factors: W*_i = Σ_k φ_ik ψ_ikᵀ.

    Attributes:
        outward: φ, with what comes out of the layer on the last axis.
        inward: ψ, with what goes into it, and a 1 for the bias.

    Example:
        >>> fast = FastWeights(torch.randn(2, 5, 4, 3), torch.randn(2, 5, 4, 9))
        >>> fast.read(torch.rand(2, 7, 5), torch.randn(2, 7, 8)).shape  # at 7 queries
        torch.Size([2, 7, 3])
    """

    outward: Float[Tensor, "L N r O"]
    inward: Float[Tensor, "L N r J"]

    def read(self, attention: Float[Tensor, "L #M N"], rows: Float[Tensor, "L M I"]) -> Float[Tensor, "L M O"]:
        """Σ_i a_i W*_i [z, 1] at each query, without writing out the weights of any.

        Args:
            attention: a.
            rows: z.
        """
        told = (_with_one(rows) @ self.inward.flatten(1, 2).mT).unflatten(2, self.inward.shape[1:3])  # L M N r
        read: Tensor = (attention[..., None] * told).flatten(2) @ self.outward.flatten(1, 2)
        return read


@dataclass(frozen=True, eq=False)
class AskedWeights:
    """What is kept of a support.

    Attributes:
        mask: True = a real point.
        share: the weight of each point in the fast weights of the embedding.
        log_weight: log of the weight that each point has in attention before any key is compared.
        embedding: of each point for the embedding; Q* is their weighted sum.
        keys: r_i.
        hidden: of each point for the hidden layer.
        output: of each point for the last layer.
    """

    mask: Bool[Tensor, "L N"]
    share: Float[Tensor, "L 1 N"]
    log_weight: Float[Tensor, "L N"]
    embedding: FastWeights
    keys: Float[Tensor, "L N R"]
    hidden: FastWeights
    output: FastWeights


class Rule(nn.Module):
    """From the gradient of a point in a dense layer, δ zᵀ, to fast weights of it.

        W*_oj = Σ_k φ_k(δ_o) ψ_k(z_j) / J + α δ_o z_j

    φ and ψ are networks of one number that every coordinate goes through; they see its sign and the logarithm of its
    size. J is the length of a row of the weights, so that what comes in changes what goes out by about as much whatever
    the layer. The gradient itself is the last of the products that are returned.

    Args:
        rank: r - 1, how many products are summed beside the gradient.
        width: of the hidden layer.

    Attributes:
        outward, inward: φ and ψ.
        step: α.

    Raises:
        DataError: sizes that are not positive.

    Example:
        >>> fast = Rule()(torch.randn(2, 5, 3), torch.randn(2, 5, 8))  # 5 points of 2 tasks, and a layer from 8 to 3
        >>> fast.outward.shape, fast.inward.shape
        (torch.Size([2, 5, 9, 3]), torch.Size([2, 5, 9, 9]))
    """

    def __init__(self, rank: int = RANK, width: int = WIDTH) -> None:
        super().__init__()
        self.outward, self.inward = (MLP(2, [width]).with_outputs(rank) for _ in range(2))
        self.step = nn.Parameter(torch.tensor(STEP))

    def forward(self, scores: Float[Tensor, "L N O"], rows: Float[Tensor, "L N I"]) -> FastWeights:
        """Fast weights of each point.

        Args:
            scores: δ, the derivative of log p(y_i) in what comes out of the layer.
            rows: z, what goes into it.
        """
        rows = _with_one(rows)
        share = 1.0 / rows.shape[-1]
        return FastWeights(
            torch.cat([_each(self.outward, scores), scores[..., None, :]], -2),
            torch.cat([_each(self.inward, rows) * share, self.step * rows[..., None, :]], -2),
        )


class MetaNetworks(AmortizedLearner):
    """Meta Networks: a base learner of two dense layers whose fast weights a network makes of gradients.

    Args:
        features: h, of each point on its own: `bm.MLP(...)` for numbers, `bm.Conv4(...)` for images.
        head: what is predicted; one Gaussian number by default. Labels have a place for each class: `OneHotHead(C)`
            or `ClassSlots(C)`; tasks that are trained on should have their labels in a random order.
        width: H, of the hidden layer of the base learner.
        num_keys: R, the length of a key.

    Attributes:
        hidden, output: W, the slow weights of the base learner b.
        embedding, reader: Q and V.
        rule, embedding_rule: m and d.
        nothing: r_0.
        temperature, scarcity: τ and n₀.
        rarity: n₁, where outcomes are labels.

    Raises:
        UnsupportedError: features that are no `Network`, or depend on the other points of a task; a head that is no
            `OutputHead`, or one whose classes share all weights.
        DataError: sizes that are not positive.

    Example:
        >>> import bayesmeta as bm
        >>> learner = bm.MetaNetworks(bm.MLP(1, [16]), width=16, num_keys=8)
        >>> posterior = learner.adapt(bm.Data.from_arrays([0.0, 1.0], [0.3, 0.7]))
        >>> posterior.predict([0.5, 3.0]).stddev.shape
        torch.Size([1, 2, 1])
        >>> classifier = bm.MetaNetworks(bm.MLP(2, [16]), head=bm.heads.ClassSlots(5))
        >>> classifier.adapt(bm.Data.from_labels([[0.0, 1.0], [1.0, 0.0]], [0, 1])).predict([[0.5, 0.5]]).probs.shape
        torch.Size([1, 1, 2])
    """

    def __init__(
        self, features: Network, *, head: OutputHead | None = None, width: int = 64, num_keys: int = 32
    ) -> None:
        require_pointwise(features)
        super().__init__(features.x_shape, GaussianHead() if head is None else head)
        if not isinstance(self.outcomes, Numbers) and not isinstance(self.head, OneHotHead):
            raise UnsupportedError(
                "expected a head for numbers, or for labels one with a place for each class such as OneHotHead(5) or "
                f"ClassSlots(5), got {type(self.head).__name__}: gradients of one class after the other tell of no task"
            )
        if min(width, num_keys) < 1:
            raise DataError(f"expected positive sizes, got width {width} and num_keys {num_keys}")
        size = features.num_outputs
        self.features = features
        self.hidden, self.output = nn.Linear(size, width), nn.Linear(width, self.head.size)
        self.embedding, self.reader = nn.Linear(size, num_keys), nn.Linear(num_keys, self.head.size)
        self.rule, self.embedding_rule = Rule(), Rule()
        labels = isinstance(self.head, OneHotHead)
        self.temperature = Positive((), ALL if labels else NEAREST, BOUNDS)
        self.scarcity = Positive((), 1.0, BOUNDS)
        if labels:
            self.rarity = Positive((), 1.0, BOUNDS)
        self.nothing = nn.Parameter(torch.randn(num_keys) / num_keys**0.5)

    @override
    def encode(self, points: Data) -> AskedWeights:
        h, mask = self.features(points.x), points.mask
        inner = self.embedding(h)
        embedding = self.embedding_rule(self.scores(points, inner, self.reader)[0], h)
        share = (mask / (self.scarcity() + mask.sum(-1, keepdim=True)).to(h.dtype))[:, None]
        keys = self._keys(h, embedding, share)
        inner = self.hidden(h)
        score, above = self.scores(points, inner, self.output)
        return AskedWeights(
            mask,
            share,
            self._log_weight(points),
            embedding,
            keys,
            self.rule(score, h),
            self.rule(above, _activation(inner)),
        )

    @override
    def decode(self, kept: AskedWeights, x: Float[Tensor, "L M *x"]) -> Float[Tensor, "L M K"]:
        h = self.features(x)
        attention = self._attention(self._keys(h, kept.embedding, kept.share), kept)
        z = _activation(self.hidden(h)) + _activation(kept.hidden.read(attention, h))
        raw: Tensor = self.output(z) + kept.output.read(attention, z)
        return raw

    def _keys(
        self, h: Float[Tensor, "L M F"], fast: FastWeights, share: Float[Tensor, "L 1 N"]
    ) -> Float[Tensor, "L M R"]:
        """u(x; Q, Q*), of length 1."""
        return _unit(_activation(self.embedding(h)) + _activation(fast.read(share, h)))

    def _log_weight(self, points: Data) -> Float[Tensor, "L N"]:
        """log (1 + n₁)/(n_c + n₁) of a point of a class with n_c examples; 0 where outcomes are numbers."""
        if not isinstance(self.head, OneHotHead):
            return torch.zeros_like(points.mask, dtype=points.x.dtype)
        counts = (points.y @ points.y.sum(1)[..., None])[..., 0].clamp(min=1.0)
        rarity = self.rarity()
        return (1.0 + rarity).log() - (counts + rarity).log()

    def _attention(self, keys: Float[Tensor, "L M R"], kept: AskedWeights) -> Float[Tensor, "L M N"]:
        """What each query reads of each point; what is missing to 1 it reads of nothing."""
        nothing = keys @ _unit(self.nothing)
        match = torch.where(
            kept.mask[:, None], self.temperature() * (keys @ kept.keys.mT) + kept.log_weight[:, None], -torch.inf
        )
        return torch.cat([self.temperature() * nothing[..., None], match], -1).softmax(-1)[..., 1:]

    def scores(
        self, points: Data, inner: Float[Tensor, "L N H"], last: nn.Module
    ) -> tuple[Float[Tensor, "L N H"], Float[Tensor, "L N K"]]:
        """∂ log p(y_i) of each point on its own: in what goes into its hidden units, and in what the head is given."""
        keep = torch.is_grad_enabled()
        with torch.enable_grad():
            inner = inner if keep and inner.requires_grad else inner.detach().requires_grad_()
            raw = last(_activation(inner))
            if not raw.numel():  # there is no point
                return torch.zeros_like(inner), torch.zeros_like(raw)
            y = points.y.argmax(-1) if isinstance(self.head, OneHotHead) else points.y
            each = self.head.predictive(raw, Shown(points)).marginal_log_prob(y)
            total = torch.where(points.mask, each, 0.0).sum()  # a point's own numbers move its own density alone
            score, above = torch.autograd.grad(total, [inner, raw], create_graph=keep, materialize_grads=True)
        return score, above


def _activation(z: Tensor) -> Tensor:
    """Smooth, as its derivative is a part of what is predicted; 0 at 0, so that fast weights of 0 add nothing."""
    return functional.silu(z)


def _unit(rows: Tensor) -> Tensor:
    return rows / (rows.square().sum(-1, keepdim=True) + EPSILON).sqrt()


def _with_one(rows: Float[Tensor, "L N I"]) -> Float[Tensor, "L N J"]:
    return torch.cat([rows, torch.ones_like(rows[..., :1])], -1)


def _each(network: nn.Module, numbers: Float[Tensor, "L N I"]) -> Float[Tensor, "L N r I"]:
    """r numbers of each number."""
    found: Tensor = network(_sign_and_size(numbers).flatten(1, 2))
    return found.unflatten(1, numbers.shape[1:]).mT


def _sign_and_size(numbers: Tensor) -> Float[Tensor, "*b 2"]:
    """sign z, which fades out where z is small, and log|z| above that, in numbers that suit a network."""
    size = (numbers.square() + SMALL**2).sqrt()
    return torch.stack([numbers / size, SCALE * (size / SMALL).log()], -1)

"""Message passing in a graph of the support and one query: labels spread along edges that are learned.

    e_ij = -β Σ_f w_f (h_i - h_j)_f² + mlp(|h_i - h_j|, s_ij),   e_ii = -β F ρ        how much i listens to j
    A = softmax_j e                                              over the support and the query
    h_i <- [h_i, leaky(W [h_i, (A h)_i])]                        messages about features
    u_ic <- [u_ic, leaky(V [u_ic, (A u)_ic])]                    messages about the label, V the same for all classes

A node is an example with its features h and, for every class c, channels u_c: at first whether its label is c, or
1/C at the query, whose label is not known. s_ij = ½ Σ_c (u_ic - u_jc)² of each channel is symmetric in the classes, and
V is theirs together: relabelling the classes permutes the scores, and any number of them will do. The last of the
blocks speaks to the query alone:

    score_c = log Σ_j a_qj y_jc / Σ_j y_jc + r · [u_qc, (A u)_qc]         y: the channel of the labels themselves

As it starts, with mlp and r zero, only the quotient is there: attention of the query over the labels by distance, as in
matching networks, with a temperature that is learned. The votes of a class are divided by how many it has, as how
frequent classes are is for `ClassPrior` to say. A node that listens to itself (e_ii) has nobody near it; the query then
keeps its uniform label, also in an empty task.

Support nodes listen to the query, too, so that every query has a graph of its own: M queries are M graphs. Between
examples of the support what does not depend on the query is computed once.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from typing_extensions import override

from bayesmeta.annotations import said
from bayesmeta.errors import DataError
from bayesmeta.heads.head import Examples, Head, LogScores
from bayesmeta.linalg import require_matrix
from bayesmeta.noise import Positive

BOUNDS = (1e-6, 1e6)
MOST_BLOCKS = 100
MOST_NUMBERS = 2**23  # of the largest intermediate result: queries are taken in parts that keep below


class GraphHead(Head):
    """Scores by message passing between the examples and a query. theta = the weights of its blocks.

    Attributes:
        pair_size: numbers that comparing two nodes takes, at most.

    Args:
        num_features: F.
        blocks: rounds of messages, of which the last speaks to the query alone; 1 is attention over the examples.
        width: features that a block adds to a node, and hidden units of the network that compares two nodes.
        channels: label channels of each class that a block adds to a node.
        temperature: starting β, nats for a unit of squared distance.

    Raises:
        DataError: a size that is not positive, or more than 100 blocks; a temperature out of bounds.
        InferenceError: when solved, too many examples for a matrix between them.

    Example:
        >>> import bayesmeta as bm
        >>> rows, labels = torch.tensor([[[-3.0], [3.0]]]), torch.tensor([[0, 1]])
        >>> examples = bm.heads.Examples.of(rows, labels, torch.ones(1, 2, dtype=torch.bool), num_classes=2)
        >>> bm.heads.GraphHead(1).solve(examples).log_scores(torch.tensor([[[-2.0], [2.0]]])).argmax(-1).tolist()
        [[0, 1]]
    """

    precision = None

    def __init__(
        self, num_features: int, *, blocks: int = 3, width: int = 32, channels: int = 8, temperature: float = 0.25
    ) -> None:
        super().__init__()
        sizes = (num_features, blocks, width, channels)
        if min(sizes) < 1:
            raise DataError(f"expected positive numbers of features, blocks, width and channels, got {sizes}")
        if not blocks <= MOST_BLOCKS:
            raise DataError(f"expected at most {MOST_BLOCKS} blocks, got {said(blocks)}: nodes grow wider with each")
        before = range(blocks)
        self.num_features, self.pair_size = num_features, max(num_features, 1 + before[-1] * (width + channels) + width)
        self.edges = nn.ModuleList(Edges(num_features, n * width, 1 + n * channels, width, temperature) for n in before)
        self.nodes = nn.ModuleList(nn.Linear(2 * (num_features + n * width), width) for n in before[:-1])
        self.labels = nn.ModuleList(nn.Linear(2 * (1 + n * channels), channels) for n in before[:-1])
        self.readout = nn.Parameter(torch.zeros(1, 2 * (1 + before[-1] * channels)))  # a matrix: slow, as weights are

    @override
    def solve(self, examples: Examples) -> "GraphScores":
        points = examples.rows.shape[1]
        require_matrix(points, points * examples.rows.shape[2])
        return GraphScores(self, examples, (examples.rows[:, :, None] - examples.rows[:, None]).abs())


class Edges(nn.Module):
    """How much nodes listen to each other: e of a block.

    Args:
        num_features: F, of the points themselves.
        num_messages: features that earlier blocks have added.
        num_labels: label channels of a class.
        width: hidden units.
        temperature: starting β.

    Example:
        >>> edges = Edges(2, num_messages=0, num_labels=1, width=4, temperature=0.5)
        >>> shared = edges.of_points(torch.tensor([[3.0, 0.0]]))
        >>> edges(shared, torch.zeros(1, 0), torch.ones(1, 1)).item()  # -β 3²
        -4.5
    """

    def __init__(self, num_features: int, num_messages: int, num_labels: int, width: int, temperature: float) -> None:
        super().__init__()
        self.num_features = num_features
        self.temperature = Positive((), temperature, BOUNDS)
        self.reach = Positive((), 2.0, BOUNDS)
        self.metric = nn.Parameter(torch.cat([torch.ones(num_features), torch.zeros(num_messages)]))
        self.points = nn.Linear(num_features, width)
        self.messages = nn.Linear(num_messages + num_labels, width, bias=False)
        self.hidden = nn.Linear(width, width)
        self.out = nn.Linear(width, 1, bias=False)
        nn.init.zeros_(self.out.weight)

    def of_points(self, gaps: Float[Tensor, "*p F"]) -> Float[Tensor, "*p H1"]:
        """What the features of the points themselves contribute: hidden units, and a weighted squared distance.

        Args:
            gaps: |h_i - h_j|.
        """
        return torch.cat([self.points(gaps), (gaps.square() @ self.metric[: self.num_features])[..., None]], -1)

    def forward(
        self, shared: Float[Tensor, "*p H1"], gaps: Float[Tensor, "*p G"], unlike: Float[Tensor, "*p L"]
    ) -> Float[Tensor, "*p"]:
        """e of pairs of different nodes.

        Args:
            shared: `of_points`.
            gaps: |h_i - h_j| of the features that earlier blocks have added.
            unlike: s_ij of each label channel.
        """
        distance = shared[..., -1] + gaps.square() @ self.metric[self.num_features :]
        hidden = shared[..., :-1] + self.messages(torch.cat([gaps, unlike], -1))
        hidden = nn.functional.leaky_relu(self.hidden(nn.functional.leaky_relu(hidden)))
        return self.out(hidden)[..., 0] - self.temperature() * distance

    def alone(self) -> Float[Tensor, ""]:
        """e_ii, of a node and itself: as of a neighbour whose features differ by ρ in the mean of squares."""
        return -self.temperature() * self.num_features * self.reach()


@dataclass(frozen=True, eq=False)
class GraphScores(LogScores):
    """The scores at queries, each in a graph of its own with all examples.

    Attributes:
        head: the blocks.
        examples: of the support.
        gaps: |h_i - h_j| between them.
    """

    head: GraphHead
    examples: Examples
    gaps: Float[Tensor, "B N N F"]

    @override
    def log_scores(self, rows: Float[Tensor, "B M F"]) -> Float[Tensor, "B M C"]:
        """A part of the queries at a time, so that without a graph memory does not grow with their number."""
        tasks, points, _ = self.examples.rows.shape
        part = max(1, MOST_NUMBERS // max(1, tasks * (points + 1) ** 2 * self.head.pair_size))
        parts = [self._of_part(some) for some in rows.split(part, 1)]
        return parts[0] if len(parts) == 1 else torch.cat(parts, 1)

    def _of_part(self, queries: Float[Tensor, "B M F"]) -> Float[Tensor, "B M C"]:
        examples, head = self.examples, self.head
        rows, mask = examples.rows, examples.mask
        tasks, many, points = len(rows), queries.shape[1], rows.shape[1]
        real = torch.cat([mask, mask.new_ones(tasks, 1)], 1)[:, None, None]  # B 1 1 n
        own = torch.eye(points + 1, dtype=torch.bool, device=rows.device)  # n n, n = N + 1, the query last
        query_gaps = (queries[:, :, None] - rows[:, None]).abs()  # B M N F
        h = torch.cat([rows[:, None].expand(-1, many, -1, -1), queries[:, :, None]], 2)  # B M n F
        # zero where there is no class: all nodes are alike there, also behind further blocks, and add nothing to s_ij
        u = torch.where(examples.classes.mask[:, None], self._labels(), 0.0)
        u = u[:, None, ..., None].expand(-1, many, -1, -1, -1)  # B M n C L
        for edges, nodes, labels in zip(head.edges, head.nodes, head.labels, strict=False):
            assert isinstance(edges, Edges)  # a list of modules does not say so
            shared = _assembled(edges.of_points(self.gaps)[:, None], edges.of_points(query_gaps))
            added = h[..., rows.shape[2] :]
            gaps = (added[:, :, :, None] - added[:, :, None]).abs()
            e = edges(shared, gaps, _unlike(u)).masked_fill(~real, -torch.inf)
            attention = torch.where(own, edges.alone(), e).softmax(-1)  # B M n n
            heard = attention @ h
            heard_labels = (attention @ u.flatten(3)).unflatten(3, u.shape[3:])
            h = torch.cat([h, nn.functional.leaky_relu(nodes(torch.cat([h, heard], -1)))], -1)
            new = nn.functional.leaky_relu(labels(torch.cat([u, heard_labels], -1)))
            u = torch.cat([u, new], -1)
        return self._at_query(h, u, query_gaps, real[:, :, 0])

    def _at_query(
        self,
        h: Float[Tensor, "B M n G"],
        u: Float[Tensor, "B M n C L"],
        query_gaps: Float[Tensor, "B M N F"],
        real: Bool[Tensor, "B 1 n"],
    ) -> Float[Tensor, "B M C"]:
        """The last block, of which only the query's row of A is needed."""
        edges, added = self.head.edges[-1], h[..., self.examples.rows.shape[2] :]
        assert isinstance(edges, Edges)
        gaps = (added[:, :, -1:] - added[:, :, :-1]).abs()
        unlike = 0.5 * (u[:, :, -1:] - u[:, :, :-1]).square().sum(-2)
        e = edges(edges.of_points(query_gaps), gaps, unlike)
        e = torch.cat([e, edges.alone().expand(*e.shape[:2], 1)], -1).masked_fill(~real, -torch.inf)
        given = self._labels()
        votes = (e[..., None] + given.log()[:, None]).logsumexp(2) - e.logsumexp(-1, keepdim=True)
        heard = (e.softmax(-1)[:, :, None] @ u.flatten(3))[:, :, 0].unflatten(2, u.shape[3:])
        spread = torch.cat([u[:, :, -1], heard], -1) @ self.head.readout[0]
        return votes - given.sum(1).log()[:, None] + spread

    def _labels(self) -> Float[Tensor, "B n C"]:
        """y: labels as unit vectors, and the query's, 1/C in every column, also where there is no class to vote for."""
        targets = self.examples.targets
        ways = self.examples.classes.mask.sum(-1).to(targets.dtype)
        return torch.cat([targets, (1.0 / ways)[:, None, None].expand(-1, 1, targets.shape[-1])], 1)


def _assembled(support: Float[Tensor, "B 1 N N H"], query: Float[Tensor, "B M N H"]) -> Float[Tensor, "B M n n H"]:
    """Symmetric pairs of all nodes from those within the support and those with the query; its own pair is zero."""
    top = torch.cat([support.expand(-1, query.shape[1], -1, -1, -1), query[:, :, :, None]], 3)
    bottom = torch.cat([query, query.new_zeros(*query.shape[:2], 1, query.shape[3])], 2)
    return torch.cat([top, bottom[:, :, None]], 2)


def _unlike(u: Float[Tensor, "B M n C L"]) -> Float[Tensor, "B M n n L"]:
    """½ Σ_c (u_ic - u_jc)² of every channel, by products: nothing of the size of pairs times classes is made."""
    channels = u.permute(0, 1, 4, 2, 3)  # B M L n C
    gram = channels @ channels.mT
    size = gram.diagonal(dim1=-2, dim2=-1)
    unlike = 0.5 * (size[..., :, None] + size[..., None, :]) - gram
    return unlike.permute(0, 1, 3, 4, 2)

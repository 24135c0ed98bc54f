"""Votes of the support as counts of a Dirichlet prior: what matching networks believe of the labels near a query.

    q ~ Dirichlet(α b),   y | q ~ Categorical(q)                          the labels of points like x
    k_i = exp(β (cos(h(x) - m, h(x_i) - m) - 1))                          how much like x the example i is, in (0, 1]
    p(c | x, D) = (α b_c + Σ_{i in c} n_c^-ρ k_i) / (α + Σ_i n_i^-ρ k_i)

An example counts as k_i examples at x itself. With k in {0, 1} and ρ = 0 it is the exact Dirichlet-multinomial; α → 0
with β = 1 is the attention of Vinyals et al. 2016. Far from everything counts are small, and the prior returns. ρ says
how far the examples of a class repeat each other: at 0 each adds its vote, at 1 a class has the mean of its votes.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from typing_extensions import override

from bayesmeta.errors import DataError, ShapeError
from bayesmeta.heads.context import Context
from bayesmeta.heads.head import Examples, Head, LogScores
from bayesmeta.linalg import require_matrix
from bayesmeta.noise import Positive

SHARPNESS_BOUNDS = (1e-3, 1e4)
CONCENTRATION_BOUNDS = (1e-8, 1e4)


class KernelCountsHead(Head):
    """Votes by cosine similarity, counted by a Dirichlet prior.

    theta = `sharpness`, β, `concentration`, α, `dependence`, the logit of ρ, `center`, m, and what the context has.

    Args:
        num_features: F.
        sharpness: starting β. The paper has 1, where no probability of five classes can exceed .65.
        concentration: starting α, in examples.
        context: how examples and queries see each other before they are compared; None compares them as they are.

    Raises:
        DataError: no features, or numbers out of bounds.
        ShapeError: a context for another number of features.

    Example:
        >>> import bayesmeta as bm
        >>> rows, labels = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]).double(), torch.tensor([[0, 1]])
        >>> examples = bm.heads.Examples.of(rows, labels, torch.ones(1, 2, dtype=torch.bool), num_classes=2)
        >>> scores = bm.heads.KernelCountsHead(2).solve(examples)
        >>> scores.log_scores(rows).softmax(-1).round(decimals=2).tolist()
        [[[1.0, 0.0], [0.0, 1.0]]]
    """

    def __init__(
        self,
        num_features: int,
        *,
        sharpness: float = 10.0,
        concentration: float = 0.01,
        context: Context | None = None,
    ) -> None:
        super().__init__()
        if num_features < 1:
            raise DataError(f"expected at least one feature, got {num_features}")
        if context is not None and context.num_features not in (None, num_features):
            raise ShapeError(f"expected a context for {num_features} features, got one for {context.num_features}")
        self.num_features, self.context = num_features, context
        self.precision = torch.float64 if context is None else None  # a context is a network
        self.sharpness = Positive((), sharpness, SHARPNESS_BOUNDS)
        self.concentration = Positive((), concentration, CONCENTRATION_BOUNDS)
        self.dependence = nn.Parameter(torch.zeros(()))
        self.center = nn.Parameter(torch.zeros(num_features))

    @override
    def solve(self, examples: Examples) -> "KernelCounts":
        dtype, counts = examples.rows.dtype, examples.counts
        rows = examples.rows if self.context is None else self.context.of_support(examples.rows, examples.mask)
        repeated = -self.dependence.sigmoid().to(dtype) * counts.clamp(min=1.0).log()  # log n_c^-ρ, B C
        center = self.center.to(dtype)
        return KernelCounts(
            examples=examples,
            support=rows,
            units=_unit(rows - center),
            center=center,
            context=self.context,
            sharpness=self.sharpness().to(dtype),
            log_concentration=self.concentration().to(dtype).log(),
            log_weights=repeated,
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class KernelCounts(LogScores):
    """Logarithms of the posterior counts of each class at a query.

    Attributes:
        examples: of the support.
        support: its features in their context.
        units: the same, centred, of length 1.
        center: m.
        context: what the features of a query are seen in.
        sharpness: β.
        log_concentration: log α.
        log_weights: log n_c^-ρ, what a vote for each class counts.
    """

    examples: Examples
    support: Float[Tensor, "B N F"]
    units: Float[Tensor, "B N F"]
    center: Float[Tensor, "F"]
    context: Context | None
    sharpness: Float[Tensor, ""]
    log_concentration: Float[Tensor, ""]
    log_weights: Float[Tensor, "B C"]

    @override
    def log_scores(self, rows: Float[Tensor, "B M F"]) -> Float[Tensor, "B M C"]:
        """log(α / C + Σ k) of each class."""
        ways = self.examples.classes.mask.sum(-1, keepdim=True).to(rows.dtype)
        return self.log_counts(self.log_votes(rows), -ways.log().expand_as(self.log_weights))

    def log_votes(self, rows: Float[Tensor, "B M F"]) -> Float[Tensor, "B M C"]:
        """log Σ_{i in c} n_c^-ρ k_i, -inf for a class without an example.

        Args:
            rows: features of the query points.
        """
        require_matrix(self.units.shape[1], rows.shape[1])
        if self.context is not None:
            rows = self.context.of_query(rows, self.support, self.examples.mask)
        similarity = _unit(rows - self.center) @ self.units.mT  # B M N
        log_votes = (self.sharpness * (similarity - 1.0)).masked_fill(~self.examples.mask[:, None], -torch.inf)
        # the largest is taken out, so that votes of e^-10000 are still in proportion
        highest = nn.functional.pad(log_votes.detach(), (0, 1), value=-torch.inf).amax(-1, keepdim=True)
        highest = torch.where(highest.isfinite(), highest, 0.0)
        total = (log_votes - highest).exp() @ self.examples.targets
        has = total > 0.0
        return torch.where(has, torch.where(has, total, 1.0).log() + highest, -torch.inf) + self.log_weights[:, None]

    def log_counts(self, log_votes: Float[Tensor, "B M C"], log_base: Float[Tensor, "B C"]) -> Float[Tensor, "B M C"]:
        """log(α b_c + votes of c).

        Args:
            log_votes: as `log_votes` gives them.
            log_base: log b, the frequencies of the classes before the votes.
        """
        return torch.logaddexp(log_votes, (self.log_concentration + log_base)[:, None].expand_as(log_votes))


def _unit(rows: Tensor) -> Tensor:
    """Rows of length 1; what has no length has no direction, and is at right angles to all."""
    length = rows.square().sum(-1, keepdim=True)
    smallest = torch.finfo(rows.dtype).tiny
    return rows * length.clamp(min=smallest).rsqrt() * (length > smallest)

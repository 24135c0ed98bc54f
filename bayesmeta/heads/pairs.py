"""Pairs: whether a query and an example are of one class, as siamese networks see it.

    logit s(x, x') = b - Σ_f w_f |h_f(x) - h_f(x')|        the log odds that two points are of one class
    score_c(x) = a n_c^-ρ Σ_{i in c} (logit s(x, x_i) + o)

If exactly one class matches and pairs are independent given it, log p(c | x, D) is the sum of log p(pair | same) -
log p(pair | different) over the pairs of c: a softmax of sums is Bayes' theorem and not a repair. That ratio is what
the logits are where half of the pairs that they were learned on are of one class. Learned at another rate, such as the
1/C of a task, they hold its log odds, log(C - 1) less: no matter where classes have as many examples, but a sum counts
it n_c times. o takes out what is left of such a constant. And examples of one class are not independent: ρ in [0, 1]
says how far they repeat each other (0: a product, 1: a geometric mean). Nothing matches with log odds 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from typing_extensions import override

from bayesmeta.errors import DataError
from bayesmeta.heads.head import Examples, Head, OpenScores
from bayesmeta.linalg import is_symbolic
from bayesmeta.noise import Positive

POWER_BOUNDS = (1e-3, 1e2)
MOST_NUMBERS = 2**24  # of |h - h'| at once: 64 MB


class PairHead(Head):
    """The log odds that two points are of one class, by a weighted distance of their features, summed over a class.

    theta = `weight`, w, `bias`, b, of pairs; `power`, a, `dependence`, the logit of ρ, and `offset`, o, of sums.

    Args:
        num_features: F.

    Raises:
        DataError: no features.

    Example:
        >>> import bayesmeta as bm
        >>> rows, labels = torch.tensor([[[0.0], [9.0]]]), torch.tensor([[0, 1]])
        >>> examples = bm.heads.Examples.of(rows, labels, torch.ones(1, 2, dtype=torch.bool), num_classes=2)
        >>> bm.heads.PairHead(1).solve(examples).log_scores(rows).argmax(-1).tolist()
        [[0, 1]]
    """

    precision = None

    def __init__(self, num_features: int) -> None:
        super().__init__()
        if num_features < 1:
            raise DataError(f"expected at least one feature, got {num_features}")
        self.num_features = num_features
        self.weight, self.bias = (
            nn.Parameter(torch.full((num_features,), num_features**-0.5)),
            nn.Parameter(torch.ones(())),
        )
        self.power = Positive((), 1.0, POWER_BOUNDS)
        self.dependence, self.offset = nn.Parameter(torch.zeros(())), nn.Parameter(torch.zeros(()))

    def pairs(self, rows: Float[Tensor, "B M F"], support: Float[Tensor, "B N F"]) -> Float[Tensor, "B M N"]:
        """The log odds of every query and every example to be of one class; some query points at a time.

        Args:
            rows: features of the query points.
            support: of the examples.
        """
        tasks, points, features = support.shape
        if is_symbolic(tasks) or is_symbolic(points):
            parts: Sequence[Tensor] = [rows]
        else:
            parts = rows.split(max(1, MOST_NUMBERS // max(tasks * points * features, 1)), 1)
        return torch.cat([self.bias - (part[:, :, None] - support[:, None]).abs() @ self.weight for part in parts], 1)

    def scores(self, pairs: Float[Tensor, "B M N"], examples: Examples) -> Float[Tensor, "B M C"]:
        """The scores of classes from the log odds of pairs; 0 for a class without an example.

        Args:
            pairs: as `pairs` gives them.
            examples: of the support.
        """
        counts = examples.counts.clamp(min=1.0)[:, None]
        weight = self.power() * counts ** -self.dependence.sigmoid()
        return weight * ((pairs + self.offset) @ examples.targets)

    @override
    def solve(self, examples: Examples) -> "PairScores":
        return PairScores(self, examples)


@dataclass(frozen=True, eq=False)
class PairScores(OpenScores):
    """Sums of the log odds of pairs.

    Attributes:
        head: theta.
        examples: of the support.
    """

    head: PairHead
    examples: Examples

    @override
    def log_scores(self, rows: Float[Tensor, "B M F"]) -> Float[Tensor, "B M C"]:
        return self.head.scores(self.head.pairs(rows, self.examples.rows), self.examples)

    @override
    def log_none(self, rows: Float[Tensor, "B M F"]) -> Float[Tensor, "B M"]:
        return torch.zeros_like(rows[..., 0])

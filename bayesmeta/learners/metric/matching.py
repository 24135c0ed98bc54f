"""Matching networks: a query takes the labels of the examples that it is like.

Vinyals, Blundell, Lillicrap, Kavukcuoglu, Wierstra 2016 (arXiv:1606.04080). The paper's attention over the support,
p(c | x, D) = Σ_i softmax_i(cos(f(x), g(x_i))) [y_i = c], is a limit (α → 0, β = 1) of counting votes:

    p(c | x, D) = (α π_c + Σ_{i in c} n_c^-ρ k_i) / (α + Σ_i n_i^-ρ k_i),   k_i = exp(β (cos(f(x), g(x_i)) - 1))

    phi         q(x), the class probabilities near x
    prior       Dirichlet(α π), π the class frequencies
    likelihood  Categorical(q(x)); an example at x_i counts as k_i examples at x
    inference   kernel-weighted counts, exact where k is 0 or 1
"""

from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from bayesmeta.heads.context import Context
from bayesmeta.heads.head import Examples, Scores
from bayesmeta.heads.kernel_counts import KernelCounts, KernelCountsHead
from bayesmeta.learners.metric.base import MetricLearner
from bayesmeta.networks.network import Network


class Matching(MetricLearner):
    """Classification by votes of the support, weighted by cosine similarity and counted by a Dirichlet prior.

    theta is the weights of the features and of the context, the numbers of the head (`KernelCountsHead`: sharpness β,
    concentration α, dependence ρ, center) and the class frequencies. The counts of examples far from a query are small,
    so that its probabilities return to the class frequencies; their sum is what the query is known by, against α for
    classes that the support does not show.

    Args:
        features: a network with `num_outputs` = F features of each point on its own.
        num_classes: C, or None for the classes of each task's support.
        context: None, `bm.heads.BiLSTM(F)` (the paper's full context embeddings: the order of the support matters) or
            `bm.heads.SetAttention(F)` (it does not).

    Raises:
        UnsupportedError: features that are no `Network`, or that depend on the other points of a task.
        ShapeError: a context for another number of features.
        DataError: fewer than two classes.

    Example:
        >>> import bayesmeta as bm
        >>> learner = bm.Matching(bm.MLP(2, [16, 8]), num_classes=2, context=bm.heads.SetAttention(8))
        >>> posterior = learner.adapt(bm.Data.from_labels([[0.0, 0.0], [1.0, 0.0], [1.0, 0.1]], [0, 1, 1]))
        >>> posterior.predict([[0.9, 0.0]]).probs.shape
        torch.Size([1, 1, 2])
    """

    head: KernelCountsHead

    def __init__(
        self,
        features: Network,
        *,
        num_classes: int | None = None,
        context: Context | None = None,
    ) -> None:
        head = None if context is None else KernelCountsHead(features.num_outputs, context=context)
        super().__init__(features, num_classes=num_classes, head=head)
        self.exchangeable = context is None or context.exchangeable

    @override
    @classmethod
    def default_head(cls, num_features: int) -> KernelCountsHead:
        return KernelCountsHead(num_features)

    @override
    def logits(self, scores: Scores, rows: Float[Tensor, "B M F"], examples: Examples) -> Float[Tensor, "B M C"]:
        assert isinstance(scores, KernelCounts)  # what its head gives
        return scores.log_counts(scores.log_votes(rows), self.class_prior(examples.counts, examples.classes.mask))

    @override
    def log_ratio(
        self, scores: Scores, rows: Float[Tensor, "B M F"], logits: Float[Tensor, "B M C"]
    ) -> Float[Tensor, "B M"]:
        """log(Σ votes / α): a new class has the concentration as its count (Aldous 1985)."""
        assert isinstance(scores, KernelCounts)  # what its head gives
        return scores.log_votes(rows).logsumexp(-1) - scores.log_concentration

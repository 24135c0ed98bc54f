"""A learner whose theta has a hyperprior.

Training maximises log p(tasks | theta) + log p(theta).

    phi         the learner's
    prior       the learner's; theta has one itself, p(theta)
    likelihood  the learner's
    inference   the learner's; theta is the maximum a posteriori
"""

from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from bayesmeta.data import Data
from bayesmeta.hyperpriors import Hyperprior
from bayesmeta.learner import Learner, TaskPosterior
from bayesmeta.wrappers.base import Wrapper


class WithHyperprior(Wrapper):
    """Any learner, with p(theta): training maximises log p(tasks | theta) + log p(theta).

    With few tasks maximum likelihood overfits theta itself. Under a hyperprior, `fit` and `fit_evidence` find the
    maximum a posteriori (PACOH-MAP, Rothfuss et al. 2021, arXiv:2002.05551), weighing it against all points of the
    meta-training tasks (of images that episodes are drawn from, each image once); a simulator has infinitely many, and
    there it has no weight. In all else it is the learner inside it. Several hyperpriors, on different parameters, are
    wrappers around each other: their log densities add up, and what the learner says of theta itself is added, too.

    Args:
        learner: whose theta it is, in a wrapper or not.
        hyperprior: p(theta).

    Example:
        >>> import bayesmeta as bm
        >>> hyperprior = bm.hyperpriors.GaussianHyperprior(scale=1.0)  # of the weights of the features
        >>> learner = bm.wrappers.WithHyperprior(bm.ALPaCA(bm.MLP(1, [8])), hyperprior)
        >>> tasks = bm.tasks.Sinusoid().dataset(num_tasks=10, num_points=8, seed=0)
        >>> _ = bm.fit(learner, tasks, steps=5, progress=False)
        >>> bool(learner.log_hyperprior() == hyperprior.log_prob(dict(learner.named_parameters())))
        True
    """

    def __init__(self, learner: Learner, hyperprior: Hyperprior) -> None:
        super().__init__(learner)
        self.hyperprior = hyperprior

    @override
    def log_hyperprior(self) -> Float[Tensor, ""]:
        """log p(theta), in nats: the hyperprior, and what the learner inside says."""
        return self.learner.log_hyperprior() + self.hyperprior.of(self.learner)

    @override
    def condition(self, support: Data) -> TaskPosterior:
        return self.learner.condition(support)

"""Meta-SGD: MAML with a learned rate for every weight.

Li, Zhou, Chen, Li 2017 (arXiv:1707.09835), eq. 3:

    phi_j+1 = phi_j + a ∘ ∇ log p(D | phi_j),   a = α σ² / N, one α a weight

    phi         the network's weights, or a named part of them
    prior       N(theta, Q), implied by the rates: in the coordinates phi / √a it is MAML's; unseen directions k diag(a)
    likelihood  any; Gaussian with learned noise by default
    inference   unrolled MAP; linearised Laplace around it

The paper leaves the sign of α free. Here it is positive: ascent with a negative rate is the MAP under no prior.
"""

from collections.abc import Sequence

from torch import nn

from bayesmeta.learners.gradient._base import AscentLearner, positive_rate
from bayesmeta.learners.gradient._posteriors import Approximation
from bayesmeta.likelihoods import Likelihood
from bayesmeta.networks.network import Network
from bayesmeta.typing import Params


class MetaSGD(AscentLearner):
    """Gradient steps whose rate is learned for every weight.

    Args:
        network: f; its weights are where tasks start.
        steps: k; the paper's is 1.
        lr: the first step size of every weight (units as for `MAML`).
        likelihood: p(y | f); `Gaussian()` by default.
        posterior: `Linearized()` by default, `LinearizedDiagonal()`, or `PointEstimate()`.
        adapted: beginnings of the names of the weights that tasks adapt; all by default.
        checkpoint: save memory for time, as in `MAML`.

    Raises:
        UnsupportedError: a network with layers that cannot be adapted. ShapeError: the wrong number of outputs.
        DataError: no steps, a step size out of range, a name that the network does not have.
    """

    def __init__(
        self,
        network: Network,
        steps: int = 1,
        lr: float = 0.01,
        likelihood: Likelihood | None = None,
        posterior: Approximation | None = None,
        adapted: Sequence[str] | None = None,
        checkpoint: bool = False,
    ) -> None:
        super().__init__(network, steps, likelihood, posterior, adapted, checkpoint)
        self.rate = nn.ModuleList(positive_rate(lr, tuple(value.shape)) for value in self.initial.values())

    def rates(self) -> Params:
        """α of each weight."""
        return {name: rate() for name, rate in zip(self.adapted, self.rate, strict=True)}

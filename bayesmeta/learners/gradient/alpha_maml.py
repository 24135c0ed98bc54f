"""Alpha MAML: MAML whose step sizes, inner and outer, adapt by their hypergradients.

Behl, Baydin, Torr 2019 (arXiv:1905.07435), algorithm 1, with the multiplicative rule of Baydin et al. 2018
(arXiv:1703.04782), so that a rate stays positive and neither needs a scale:

    inner   log α <- log α - η ∂L/∂log α                       L the meta-loss
    outer   β <- β (1 + κ cos(∇L_t, u_t-1))                    u the direction of the last outer step

    phi         the network's weights, or a named part of them
    prior       N(theta, Q), implied by the rate and the number of steps
    likelihood  any; Gaussian with learned noise by default
    inference   unrolled MAP; linearised Laplace around it
"""

from collections.abc import Sequence

import torch

from bayesmeta.errors import DataError
from bayesmeta.learners.gradient._base import AscentLearner, positive_rate
from bayesmeta.learners.gradient._posteriors import Approximation
from bayesmeta.likelihoods import Likelihood
from bayesmeta.networks.network import Network
from bayesmeta.training.hypergradient import HypergradientAdam
from bayesmeta.typing import Params


class AlphaMAML(AscentLearner):
    """MAML with hypergradient descent on both learning rates.

    Args:
        network: f; its weights are where tasks start.
        steps: k.
        lr: α, the first inner step size (units as for `MAML`).
        likelihood: p(y | f); `Gaussian()` by default.
        posterior: `Linearized()` by default, `LinearizedDiagonal()`, or `PointEstimate()`.
        adapted: beginnings of the names of the weights that tasks adapt; all by default.
        inner_hyper_lr: η, step size of plain gradient descent on log α.
        outer_hyper_lr: κ, the largest relative change of the outer rate in one step.

    Raises:
        UnsupportedError: a network with layers that cannot be adapted. ShapeError: the wrong number of outputs.
        DataError: no steps, a rate out of range, a name that the network does not have.
    """

    def __init__(
        self,
        network: Network,
        steps: int = 5,
        lr: float = 0.01,
        likelihood: Likelihood | None = None,
        posterior: Approximation | None = None,
        adapted: Sequence[str] | None = None,
        inner_hyper_lr: float = 0.01,
        outer_hyper_lr: float = 0.01,
    ) -> None:
        super().__init__(network, steps, likelihood, posterior, adapted)
        if not inner_hyper_lr > 0.0 or not 0.0 <= outer_hyper_lr < 1.0:
            raise DataError(
                f"expected inner_hyper_lr > 0 and 0 <= outer_hyper_lr < 1, got {inner_hyper_lr} and {outer_hyper_lr}"
            )
        self.rate = positive_rate(lr)
        self.inner_hyper_lr, self.outer_hyper_lr = inner_hyper_lr, outer_hyper_lr

    def rates(self) -> Params:
        """α for every weight."""
        return dict.fromkeys(self.adapted, self.rate())

    def configure_optimizer(self, lr: float = 1e-3) -> torch.optim.Optimizer:
        """Adam whose rate adapts for the weights and the noise; plain descent on log α."""
        rates = {id(p) for p in self.rate.parameters()}
        weights = [p for p in self.parameters() if p.requires_grad and id(p) not in rates]
        inner = [p for p in self.rate.parameters() if p.requires_grad]
        return HypergradientAdam(weights, inner, lr, self.outer_hyper_lr, self.inner_hyper_lr)

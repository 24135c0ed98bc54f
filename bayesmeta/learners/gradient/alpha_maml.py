"""Alpha MAML: MAML whose step sizes, inner and outer, adapt by their hypergradients.

Behl, Baydin, Torr 2019 (arXiv:1905.07435), algorithm 1, with the multiplicative rule of Baydin et al. 2018
(arXiv:1703.04782), so that a rate stays positive and neither needs a scale:

    inner   log α <- log α - η ∂L/∂log α                       L the meta-loss
    outer   β <- β (1 + κ cos(∇L_t, u_t-1))                    u the direction of the last outer step

    phi         the network's parameters, or a named part of them
    prior       N(theta, Q), implied by the rate and the number of steps
    likelihood  any; Gaussian with learned noise by default
    inference   unrolled MAP; linearised Laplace around it
"""

from collections.abc import Sequence

import torch

from bayesmeta.errors import DataError
from bayesmeta.learners.gradient.base import AscentLearner, positive_rate, positive_steps
from bayesmeta.learners.gradient.hypergradient import HypergradientAdam
from bayesmeta.learners.gradient.posteriors import Approximation
from bayesmeta.likelihoods import Likelihood
from bayesmeta.networks.network import Network
from bayesmeta.typing import Params


class AlphaMAML(AscentLearner):
    """MAML with hypergradient descent on both learning rates.

    Args:
        network: gives the features; its parameters and those of the output layer are where tasks start.
        steps: k.
        lr: α, the first inner step size (units as for `MAML`).
        inner_hyper_lr: η, step size of plain gradient descent on log α.
        outer_hyper_lr: κ, the largest relative change of the outer rate in one step.
        num_outputs: C; 1 by default, or what the likelihood says.
        likelihood: p(y | f); Gaussian with learned noise by default.
        posterior: `Linearized()` by default, `LinearizedDiagonal()` or `PointEstimate()`.
        adapted: name prefixes of the parameters that adapt; all by default.

    Raises:
        UnsupportedError: a network with layers that cannot be adapted.
        ShapeError: outputs that contradict.
        DataError: no steps, a rate out of range, a prefix that no name has.

    Example:
        >>> import bayesmeta as bm
        >>> learner = bm.AlphaMAML(bm.MLP(1, [40, 40]), steps=3, inner_hyper_lr=0.05)
        >>> type(learner.configure_optimizer(lr=1e-3)).__name__
        'HypergradientAdam'
        >>> learner.adapt(bm.Data.from_arrays([0.0, 1.0, 2.0], [0.0, 0.8, 0.9])).predict([1.5]).mean.shape
        torch.Size([1, 1, 1])
    """

    def __init__(
        self,
        network: Network,
        *,
        steps: int = 5,
        lr: float = 0.01,
        inner_hyper_lr: float = 0.01,
        outer_hyper_lr: float = 0.01,
        num_outputs: int | None = None,
        likelihood: Likelihood | None = None,
        posterior: Approximation | None = None,
        adapted: Sequence[str] | None = None,
    ) -> None:
        super().__init__(network, num_outputs=num_outputs, likelihood=likelihood, posterior=posterior, adapted=adapted)
        if not inner_hyper_lr > 0.0 or not 0.0 <= outer_hyper_lr < 1.0:
            raise DataError(
                f"expected inner_hyper_lr > 0 and 0 <= outer_hyper_lr < 1, got {inner_hyper_lr} and {outer_hyper_lr}"
            )
        self.steps, self.rate = positive_steps(steps), positive_rate(lr)
        self.inner_hyper_lr, self.outer_hyper_lr = inner_hyper_lr, outer_hyper_lr

    def rates(self) -> Params:
        """α for every parameter."""
        return dict.fromkeys(self.adapted, self.rate())

    def configure_optimizer(self, lr: float = 1e-3) -> torch.optim.Optimizer:
        """Adam with an adapted rate for the network and the noise; plain descent on log α."""
        rates = {id(p) for p in self.rate.parameters()}
        weights = [p for p in self.parameters() if p.requires_grad and id(p) not in rates]
        inner = [p for p in self.rate.parameters() if p.requires_grad]
        return HypergradientAdam(weights, inner, lr, self.outer_hyper_lr, self.inner_hyper_lr)

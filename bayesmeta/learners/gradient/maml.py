"""MAML: a few gradient steps from a learned start, read as what they are, MAP inference.

Finn, Abbeel, Levine 2017 (arXiv:1703.03400), eq. 1; read as hierarchical Bayes by Grant et al. 2018 (arXiv:1801.08930):

    phi_0 = theta,   phi_j+1 = phi_j + a ∇ log p(D | phi_j),   phi_hat = phi_k,   a = α σ² / N

    phi         the network's weights, or a named part of them
    prior       N(theta, Q), implied by the rate and the number of steps (`implied_prior`)
    likelihood  any; Gaussian with learned noise by default
    inference   unrolled MAP; linearised Laplace around it, N(phi_hat, (G + Q⁻¹)⁻¹)
"""

from collections.abc import Sequence

from bayesmeta.learners.gradient._base import AscentLearner, positive_rate
from bayesmeta.learners.gradient._posteriors import Approximation
from bayesmeta.likelihoods import Likelihood
from bayesmeta.networks.network import Network
from bayesmeta.typing import Params


class MAML(AscentLearner):
    """Model-agnostic meta-learning, with the posterior that its implied prior gives.

    theta = the network's weights, the step size (`rate`) and the likelihood's noise; a part of it is fixed by
    `learner.rate.requires_grad_(False)`. With `posterior=PointEstimate()` and a fixed noise variance the meta-loss is
    the paper's.

    Args:
        network: f; its weights are where tasks start.
        steps: k.
        lr: α, the first step size: on half the mean squared error for a Gaussian likelihood, on the mean negative log
            likelihood for labels. (The paper's 0.01 is on the mean squared error: 0.02 here.)
        likelihood: p(y | f); `Gaussian()` by default.
        posterior: `Linearized()` by default, `LinearizedDiagonal()`, or `PointEstimate()`.
        adapted: beginnings of the names of the weights that tasks adapt; all by default (the last layer alone is ANIL).
        checkpoint: keep phi alone of each step and compute the rest anew in the backward pass, to save memory.

    Raises:
        UnsupportedError: a network with layers that cannot be adapted. ShapeError: the wrong number of outputs.
        DataError: no steps, a step size out of range, a name that the network does not have.
    """

    def __init__(
        self,
        network: Network,
        steps: int = 5,
        lr: float = 0.01,
        likelihood: Likelihood | None = None,
        posterior: Approximation | None = None,
        adapted: Sequence[str] | None = None,
        checkpoint: bool = False,
    ) -> None:
        super().__init__(network, steps, likelihood, posterior, adapted, checkpoint)
        self.rate = positive_rate(lr)

    def rates(self) -> Params:
        """α for every weight."""
        return dict.fromkeys(self.adapted, self.rate())


class FirstOrderMAML(MAML):
    """MAML whose meta-gradient takes the inner gradients as constants (Finn et al. 2017, sec. 5.2)."""

    first_order = True

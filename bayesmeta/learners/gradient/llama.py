"""LLAMA: MAML under an explicit prior, meta-trained on the Laplace approximation of the evidence.

Grant, Finn, Levine, Darrell, Griffiths 2018 (arXiv:1801.08930), sec. 4, with the generalised Gauss-Newton matrix G in
place of their Kronecker-factored Hessian:

    phi_hat = argmax log p(D, phi | theta)
    log p(D | theta) ≈ log p(D | phi_hat) - precision/2 |phi_hat - theta|² - ½ log det(I + G / precision)

(for other prior variances D than I / precision, with D⁻¹ in the place of the precision).

D is all points of a task, and the determinant has the weight that Laplace's approximation gives it; the paper scores
query points at the phi_hat of the support, and weighs the determinant by a hyperparameter. Its phi_hat is where a few
steps of ascent end; here it is the mode, as both the evidence and the posterior around it are only right there.

    phi         the network's parameters, or a named part of them
    prior       N(theta, I / precision), explicit; or other deviations, as in iMAML
    likelihood  any; Gaussian with learned noise by default
    inference   MAP by damped Gauss-Newton steps, implicit gradient; linearised Laplace around it
"""

from collections.abc import Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from bayesmeta.data import Data, TaskBatch
from bayesmeta.inference.gauss_newton import LevenbergMarquardt, posterior_product
from bayesmeta.inference.laplace import log_determinant
from bayesmeta.inference.solvers import Solver
from bayesmeta.learners.gradient.base import ExplicitWeightLearner
from bayesmeta.learners.gradient.posteriors import Approximation
from bayesmeta.likelihoods import Likelihood
from bayesmeta.networks.network import Network
from bayesmeta.priors import IndependentGaussian, IsotropicGaussian
from bayesmeta.typing import Params


class LLAMA(ExplicitWeightLearner):
    """Lightweight Laplace approximation for meta-adaptation.

    theta = the parameters of the network with its output layer (the prior mean), the deviations of `prior`, and the
    observation noise.

    Args:
        network: gives the features; its parameters and those of the output layer are the prior mean.
        precision: starting precision of the prior, the same for every number of phi.
        prior: which deviations are learned, as for `IMAML`.
        solver: finds the mode; `LevenbergMarquardt()` by default, which has no step size. A task stops on its own where
            it has arrived; `adapt` warns of tasks that have not. With `GaussNewton(...)` phi_hat need not be the mode,
            and the evidence means little: meta-train with `MarginalPredictive()`.
        num_outputs: C; 1 by default, or what the likelihood says.
        likelihood: p(y | f); Gaussian with learned noise by default.
        posterior: `Linearized()` by default, `LinearizedDiagonal()` or `PointEstimate()`.
        adapted: name prefixes of the parameters that adapt; all by default.

    Raises:
        UnsupportedError: a network with layers that cannot be adapted.
        ShapeError: outputs that contradict.
        DataError: a precision out of range, a prefix that no name has.

    Example:
        >>> import bayesmeta as bm
        >>> learner = bm.LLAMA(bm.MLP(1, [16, 16]), precision=10.0)
        >>> task = bm.Data.from_arrays([0.0, 1.0, 2.0], [0.0, 0.8, 0.9])
        >>> learner.adapt(task).predict([1.5]).mean.shape
        torch.Size([1, 1, 1])
        >>> learner.log_evidence(task).shape
        torch.Size([1])
    """

    def __init__(
        self,
        network: Network,
        *,
        precision: float = 1.0,
        prior: type[IndependentGaussian] = IsotropicGaussian,
        solver: Solver | None = None,
        num_outputs: int | None = None,
        likelihood: Likelihood | None = None,
        posterior: Approximation | None = None,
        adapted: Sequence[str] | None = None,
    ) -> None:
        super().__init__(network, num_outputs=num_outputs, likelihood=likelihood, posterior=posterior, adapted=adapted)
        self.prior: IndependentGaussian = prior.around(self.initial, precision)
        self.solver = LevenbergMarquardt() if solver is None else solver

    def loss(self, tasks: TaskBatch) -> Float[Tensor, "B"]:
        """-log p(support and query | theta) of each whole task by Laplace, in nats per point."""
        data = tasks.joined()
        return -self.evidence(data) / data.counts.clamp(min=1)

    def evidence(self, data: Data) -> Float[Tensor, "B"]:
        """The Laplace approximation of log p(D | theta), in nats (sec. 4, eq. 8): exact when f is linear in phi, the
        noise Gaussian.
        """
        phi = self.find_mode(data)
        fit = self.log_likelihood(data)(phi) - 0.5 * self.prior.squared_distance(phi)
        return fit - 0.5 * log_determinant(self.curvature(data, phi).kernel())

    @override
    def mode(self, support: Data) -> Params:
        return self.optimum(
            support,
            self.solver,
            precondition=posterior_product(partial(self.curvature, support)),
            solve_steps=20,
            tolerance=torch.finfo(support.x.dtype).eps ** 0.5,
        )

    @override
    def inspect(self, support: Data, phi: Params) -> None:
        remedy = "give the solver more steps, or bring the data to unit scale (Standardized)"
        self.inspect_optimum(support, phi, self.solver, remedy)

"""iMAML: the prior of MAML written down, and the gradient of its optimum rather than of a path to it.

Rajeswaran, Finn, Kakade, Levine 2019 (arXiv:1909.04630), eqs. 3-6, with λ = precision σ² / N:

    phi_hat = argmax log p(D | phi) - precision/2 |phi - theta|²
    dphi_hat/dtheta = (I + ∇²(-log p(D | phi_hat)) / precision)⁻¹

    phi         the network's parameters, or a named part of them
    prior       N(theta, I / precision), explicit; or deviations learned a layer, or a row and a column of each weight
    likelihood  any; Gaussian with learned noise by default
    inference   MAP by an inner solver, implicit gradient by conjugate gradients; linearised Laplace around it

Memory does not grow with the steps of the inner solver. (Not the paper's are a few Gauss-Newton steps, which are
differentiated through: `GaussNewton`.)
"""

from collections.abc import Callable, Sequence

import torch
from typing_extensions import override

from bayesmeta.data import Data
from bayesmeta.inference.map import Product
from bayesmeta.inference.solvers import LBFGS, Solver
from bayesmeta.learners.gradient.base import ExplicitWeightLearner
from bayesmeta.learners.gradient.posteriors import Approximation
from bayesmeta.likelihoods import Likelihood
from bayesmeta.networks.network import Network
from bayesmeta.priors import IndependentGaussian, IsotropicGaussian
from bayesmeta.typing import Params


class IMAML(ExplicitWeightLearner):
    """MAP under an explicit Gaussian prior around theta, differentiated through the optimum.

    theta = the parameters of the network with its output layer (the prior mean), the deviations of `prior`, and the
    observation noise.

    Args:
        network: gives the features; its parameters and those of the output layer are the prior mean.
        precision: starting precision of the prior, the same for every number of phi.
        prior: which deviations are learned: one by default (`IsotropicGaussian`), or `LayerwiseGaussian`,
            `FactoredGaussian`, `DiagonalGaussian`.
        solver: finds the optimum; `LBFGS()` by default, or `GradientAscent(...)`, `LevenbergMarquardt(...)`. Rates and
            tolerances are in units of the noise per point (a rate is a step size on half the mean squared error for a
            Gaussian likelihood). With `GaussNewton(...)` phi is where a few steps end, and what follows is not used.
        gauss_newton: use Gauss-Newton products for the implicit gradient in place of the Hessian's: an approximation
            that is positive semi-definite wherever the solver stopped.
        solve_steps: largest number of conjugate-gradient steps for the implicit gradient (the paper's is 5).
        solve_tolerance: stop them earlier when the residual is so small, relative to the right-hand side.
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
        >>> learner = bm.IMAML(bm.MLP(1, [16, 16]), precision=10.0, solver=bm.inference.GradientAscent(20, 0.1))
        >>> posterior = learner.adapt(bm.Data.from_arrays([0.0, 1.0, 2.0], [0.0, 0.8, 0.9]))
        >>> posterior.predict([1.5]).mean.shape
        torch.Size([1, 1, 1])
        >>> posterior.sample(20)["features.layers.0.bias"].shape
        torch.Size([20, 1, 16])
        >>> solver, prior = bm.inference.GaussNewton(steps=2), bm.priors.FactoredGaussian
        >>> learner = bm.IMAML(bm.MLP(1, [16, 16]), precision=100.0, prior=prior, solver=solver)
        >>> learner.prior.variance()["output.weight"].shape
        torch.Size([1, 16])
    """

    def __init__(
        self,
        network: Network,
        *,
        precision: float = 1.0,
        prior: type[IndependentGaussian] = IsotropicGaussian,
        solver: Solver | None = None,
        gauss_newton: bool = False,
        solve_steps: int = 10,
        solve_tolerance: float = 1e-6,
        num_outputs: int | None = None,
        likelihood: Likelihood | None = None,
        posterior: Approximation | None = None,
        adapted: Sequence[str] | None = None,
    ) -> None:
        super().__init__(network, num_outputs=num_outputs, likelihood=likelihood, posterior=posterior, adapted=adapted)
        self.prior: IndependentGaussian = prior.around(self.initial, precision)
        self.solver = LBFGS(20, 1e-4) if solver is None else solver
        self.gauss_newton, self.solve_steps, self.solve_tolerance = gauss_newton, solve_steps, solve_tolerance

    @override
    def mode(self, support: Data) -> Params:
        return self.optimum(
            support,
            self.solver,
            product=self._gauss_newton(support) if self.gauss_newton else None,
            solve_steps=self.solve_steps,
            tolerance=self.solve_tolerance,
        )

    @override
    def inspect(self, support: Data, phi: Params) -> None:
        self.inspect_optimum(support, phi, self.solver, "give the solver more steps, or use LevenbergMarquardt()")

    def _gauss_newton(self, support: Data) -> Callable[[Params], Product]:
        """At phi, v -> (Jᵀ Λ J + D⁻¹) v."""

        def at(phi: Params) -> Product:
            leaves = {name: value.detach().requires_grad_() for name, value in phi.items()}
            with torch.enable_grad():
                f = self.forward(leaves, support.x)
                root = self.likelihood.curvature_of(f.detach(), support).detach()
                root = torch.where(support.mask[..., None, None], root, 0.0)
                dummy = torch.zeros_like(f, requires_grad=True)
                back = torch.autograd.grad(f, list(leaves.values()), dummy, create_graph=True)  # Jᵀ u, linear in u
            variance = {name: value.detach() for name, value in self.prior.variance().items()}

            def product(vector: Params) -> Params:
                with torch.enable_grad():
                    (forward,) = torch.autograd.grad(back, dummy, list(vector.values()), retain_graph=True)  # J v
                    weighted = (root @ (root.mT @ forward[..., None]))[..., 0]  # Λ J v
                    results = torch.autograd.grad(f, list(leaves.values()), weighted, retain_graph=True)
                pairs = zip(leaves, results, strict=True)
                return {name: value + vector[name] / variance[name] for name, value in pairs}

            return product

        return at

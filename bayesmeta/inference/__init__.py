"""How p(phi | D, theta) is computed: pure functions of tensors or of a log joint."""

from bayesmeta.inference.gauss_newton import GaussNewton, LevenbergMarquardt
from bayesmeta.inference.implied_prior import ImpliedPrior
from bayesmeta.inference.map import GradientSteps
from bayesmeta.inference.nuts import NUTS
from bayesmeta.inference.nuts_metric import DenseMetric, DiagonalMetric
from bayesmeta.inference.solvers import LBFGS, GradientAscent, MapProblem, Solver

__all__ = [
    "LBFGS",
    "NUTS",
    "DenseMetric",
    "DiagonalMetric",
    "GaussNewton",
    "GradientAscent",
    "GradientSteps",
    "ImpliedPrior",
    "LevenbergMarquardt",
    "MapProblem",
    "Solver",
]

"""Formulas with named parameters, for `Parametric`: what a parameter is (its range and scale), and ready formulas.

A parameter lives between tasks on a scale of its own, where its prior is Gaussian: `Positive` on the logarithm,
`Interval` on the logit, `Real` as it is.
"""

from bayesmeta.parametric.curve import Curve
from bayesmeta.parametric.formulas import (
    Arrhenius,
    Biexponential,
    Formula,
    LogisticGrowth,
    MichaelisMenten,
    OneCompartment,
)
from bayesmeta.parametric.scales import Interval, Positive, Real, Scale

__all__ = [
    "Arrhenius",
    "Biexponential",
    "Curve",
    "Formula",
    "Interval",
    "LogisticGrowth",
    "MichaelisMenten",
    "OneCompartment",
    "Positive",
    "Real",
    "Scale",
]

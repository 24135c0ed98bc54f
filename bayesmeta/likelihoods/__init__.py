"""Likelihoods p(y | f): how observations scatter around what the model says.

`forward` takes network outputs f (last axis K) to a torch distribution over the outcome of one point.
"""

from bayesmeta.likelihoods.censored import Censored
from bayesmeta.likelihoods.classes import Bernoulli, Categorical
from bayesmeta.likelihoods.counts import NegativeBinomial, Poisson
from bayesmeta.likelihoods.gaussian import Gaussian, ScaledGaussian
from bayesmeta.likelihoods.heteroscedastic_gaussian import HeteroscedasticGaussian
from bayesmeta.likelihoods.likelihood import Likelihood
from bayesmeta.likelihoods.proportional_gaussian import ProportionalGaussian
from bayesmeta.likelihoods.student_t import StudentT

__all__ = [
    "Bernoulli",
    "Categorical",
    "Censored",
    "Gaussian",
    "HeteroscedasticGaussian",
    "Likelihood",
    "NegativeBinomial",
    "Poisson",
    "ProportionalGaussian",
    "ScaledGaussian",
    "StudentT",
]

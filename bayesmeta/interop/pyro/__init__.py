"""To Pyro: any learner with an explicit prior and likelihood as a program, for Pyro's samplers, guides and diagrams.

    theta                                       sites outside the plates, where theta has a hyperprior; else fixed
    with plate("task", B, dim=-2):
        phi ~ p(phi | theta)                    a site for each named tensor of phi, under its own name
        with plate("point", N, dim=-1), mask:   padding is masked
            y ~ p(y | f(x; phi))                the site "y", observed

    nuts, svi               phi given theta: a posterior like that of `adapt`
    hyper_nuts, hyper_svi   theta and the phi of all tasks together: full Bayes
    prior_predictive        draws of all sites before any data
    render                  the plate diagram

With theta fixed, tasks are independent of each other, and each is sampled, or has a guide, on its own.
"""

from bayesmeta.interop.pyro.diagrams import render
from bayesmeta.interop.pyro.draws import HyperDraws, prior_predictive
from bayesmeta.interop.pyro.guides import FullRank, LowRank, MakeGuide, MeanField, TaskGuide
from bayesmeta.interop.pyro.programs import OwnHyperprior, Program, phi_distributions, program
from bayesmeta.interop.pyro.samplers import NUTSPosterior, hyper_nuts, nuts
from bayesmeta.interop.pyro.variational import VariationalPosterior, hyper_svi, svi

__all__ = [
    "FullRank",
    "HyperDraws",
    "LowRank",
    "MakeGuide",
    "MeanField",
    "NUTSPosterior",
    "OwnHyperprior",
    "Program",
    "TaskGuide",
    "VariationalPosterior",
    "hyper_nuts",
    "hyper_svi",
    "nuts",
    "phi_distributions",
    "prior_predictive",
    "program",
    "render",
    "svi",
]

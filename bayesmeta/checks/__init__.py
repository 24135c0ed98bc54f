"""Is it the posterior? Simulation-based calibration, fidelity to a reference, and tasks unlike the others."""

from bayesmeta.checks.rank_statistics import RankStatistics, predictive_sbc, sbc
from bayesmeta.checks.reference import Fidelity, ParameterFidelity, fidelity
from bayesmeta.checks.surprise import Surprise, shrinkage

__all__ = [
    "Fidelity",
    "ParameterFidelity",
    "RankStatistics",
    "Surprise",
    "fidelity",
    "predictive_sbc",
    "sbc",
    "shrinkage",
]

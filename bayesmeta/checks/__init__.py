"""Is it the posterior? Simulation-based calibration, fidelity to a reference, contracts, tasks unlike the others."""

from bayesmeta.checks.contracts import Contracts, contracts
from bayesmeta.checks.rank_statistics import RankStatistics, predictive_sbc, sbc
from bayesmeta.checks.reference import Fidelity, ParameterFidelity, fidelity
from bayesmeta.checks.surprise import Surprise, shrinkage

__all__ = [
    "Contracts",
    "Fidelity",
    "ParameterFidelity",
    "RankStatistics",
    "Surprise",
    "contracts",
    "fidelity",
    "predictive_sbc",
    "sbc",
    "shrinkage",
]

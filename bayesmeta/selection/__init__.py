"""Choosing among learners without test tasks: cross-validation over tasks, stacking, candidates that are always worth a
try. The verbs are `bayesmeta.compare` and `bayesmeta.stack`.
"""

from bayesmeta.selection.candidates import Candidate, alone, fresh_process, pooled
from bayesmeta.selection.comparison import Comparison
from bayesmeta.selection.cross_validation import HeldOutDensities, OneSplit
from bayesmeta.selection.judged_once import CrossValidated, Fold, cross_validate, usual_baselines
from bayesmeta.selection.recommendation import Recommendation
from bayesmeta.selection.stack import stacked, stacking_weights

__all__ = [
    "Candidate",
    "Comparison",
    "CrossValidated",
    "Fold",
    "HeldOutDensities",
    "OneSplit",
    "Recommendation",
    "alone",
    "cross_validate",
    "fresh_process",
    "pooled",
    "stacked",
    "stacking_weights",
    "usual_baselines",
]

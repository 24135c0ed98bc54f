"""What to do where probabilities are off: recalibration and conformal prediction."""

from bayesmeta.calibration.conformal import ConformalPosterior, HierarchicalConformal, SplitConformal, TaskConformal
from bayesmeta.calibration.conformity_scores import (
    CentralProbability,
    ConformityScore,
    CumulativeProbability,
    IntervalScore,
    LabelScore,
    MissingProbability,
    StandardizedResidual,
)
from bayesmeta.calibration.few_shot_conformal import FewShotConformal
from bayesmeta.calibration.recalibration import isotonic_recalibration, temperature_scaling, variance_scaling
from bayesmeta.calibration.regions import RegionScores

__all__ = [
    "CentralProbability",
    "ConformalPosterior",
    "ConformityScore",
    "CumulativeProbability",
    "FewShotConformal",
    "HierarchicalConformal",
    "IntervalScore",
    "LabelScore",
    "MissingProbability",
    "RegionScores",
    "SplitConformal",
    "StandardizedResidual",
    "TaskConformal",
    "isotonic_recalibration",
    "temperature_scaling",
    "variance_scaling",
]

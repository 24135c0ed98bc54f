"""Figures: what a learner believes as shots grow, and whether it can be believed.

matplotlib is imported when a figure is made, and nothing is shown: the figure or axes are returned.
"""

from bayesmeta.plotting.calibration import pit_histogram, reliability_diagram
from bayesmeta.plotting.files import write_figure
from bayesmeta.plotting.named_tasks import axis_note, task_panels
from bayesmeta.plotting.plates.diagram import Diagram, Node
from bayesmeta.plotting.plates.plate import diagram, plate
from bayesmeta.plotting.predictions import predictive_bands
from bayesmeta.plotting.ranks import rank_curves, rank_histograms
from bayesmeta.plotting.scores import score_by_shots, width_by_shots

__all__ = [
    "Diagram",
    "Node",
    "axis_note",
    "diagram",
    "pit_histogram",
    "plate",
    "predictive_bands",
    "rank_curves",
    "rank_histograms",
    "reliability_diagram",
    "score_by_shots",
    "task_panels",
    "width_by_shots",
    "write_figure",
]

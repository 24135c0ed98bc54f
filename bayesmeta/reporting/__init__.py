"""An evaluation as one page to read: what to conclude, the numbers and the figures.

`bm.report` judges a learner by held-out tasks, `cross_validated_report` a way of learning by all of them, each once.
"""

from bayesmeta.reporting.report import Report, cross_validated_report

__all__ = ["Report", "cross_validated_report"]

"""What a learner has learned and what a posterior says of a task, as pages of text and as tables with names."""

from bayesmeta.summaries.coefficients import Coefficients, PosteriorSummary
from bayesmeta.summaries.columns import Columns, Tasks
from bayesmeta.summaries.mixed_model import Component, Correlation, Effect, Likelihood, MixedModelSummary
from bayesmeta.summaries.mixture import MixtureSummary, SeveralSummary
from bayesmeta.summaries.plain import PlainSummary
from bayesmeta.summaries.summary import Summary

__all__ = [
    "Coefficients",
    "Columns",
    "Component",
    "Correlation",
    "Effect",
    "Likelihood",
    "MixedModelSummary",
    "MixtureSummary",
    "PlainSummary",
    "PosteriorSummary",
    "SeveralSummary",
    "Summary",
    "Tasks",
]

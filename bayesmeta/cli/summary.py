"""`bayesmeta summary`."""

from typing import Annotated

import typer

from bayesmeta.cli.model_folders import load_model
from bayesmeta.cli.options import Model


def summary(
    model: Model,
    level: Annotated[float, typer.Option(help="Probability of the intervals.")] = 0.9,
) -> None:
    """Say what a model has learned, in the units of the table.

    Of a linear mixed model (alpaca-linear, linear-reml, the line of stack): fixed effects with standard errors,
    variances of random effects and their correlations, the noise, the likelihood, and where a fit is singular. Of other
    models in words: what they are, how much tasks differ, the noise.
    """
    from bayesmeta.summaries import Summary

    learner, _, extra = load_model(model)
    found = Summary.from_json(extra["summary"]) if "summary" in extra else learner.summary()
    typer.echo(found.page(level))

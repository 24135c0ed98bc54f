"""`bayesmeta methods`."""

import typer

from bayesmeta.cli.options import Outcome
from bayesmeta.cli.tables import asked_outcomes


def methods(outcome: Outcome = None) -> None:
    """List the methods that fit offers, for numbers or what --outcome says; the first is the default."""
    from bayesmeta.outcomes import Numbers
    from bayesmeta.recipes import recipes

    offered = recipes(asked_outcomes(outcome, 1) or Numbers())
    width = max(map(len, offered))
    for name, each in offered.items():
        typer.echo(f"{name:<{width}}  {each.summary}")

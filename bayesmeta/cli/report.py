"""`bayesmeta report`."""

from pathlib import Path
from typing import Annotated

import typer

from bayesmeta.cli.model_folders import load_model, surprise_of, tasks_to_score
from bayesmeta.cli.options import Device, Forecast, IncludeTrained, Model, Separator, Shots, TableFile, counts_of
from bayesmeta.cli.speaking import speaker
from bayesmeta.outputs import require_folder, require_outputs


def report(
    model: Model,
    table: TableFile,
    output: Annotated[Path, typer.Option("--output", "-o", help="HTML file to write.")],
    shots: Shots = "0,1,2,5,10",
    forecast: Forecast = False,
    include_trained: IncludeTrained = False,
    level: Annotated[float, typer.Option(help="Probability of the intervals whose coverage is judged.")] = 0.9,
    seed: Annotated[int, typer.Option(help="Seed of the choice of support points.")] = 0,
    figures: Annotated[Path | None, typer.Option(help="Folder for the figures as PNG files.")] = None,
    device: Device = "cpu",
    sep: Separator = None,
) -> None:
    """Score a model as evaluate does, and write one HTML page: what to conclude, the numbers, the figures."""
    from bayesmeta.reporting.report import report as report_on
    from bayesmeta.table_files import read_table
    from bayesmeta.tasks.source import PrefixSplit, RandomSplit

    require_outputs({"--output": output}, {"TABLE": table}, {"MODEL": model})
    if figures is not None:
        require_folder(figures)
        require_outputs({"--output": output}, {"--figures": figures})
    learner, schema, extra = load_model(model, device)
    counts, (tasks, trained) = counts_of(shots), tasks_to_score(read_table(table, sep), schema, extra, include_trained)
    method = extra.get("method", learner.title)
    made = report_on(
        learner,
        tasks,
        counts,
        split=PrefixSplit if forecast else RandomSplit,
        level=level,
        seed=seed,
        surprise=surprise_of(learner, extra),
        trained_on=extra.get("trained_on", []),
        title=f"{method} on {table.stem}",
        facts=[("Model", f"{model.resolve().name}, method {method}"), ("Table", table.name)],
    )
    made.write(output, figures)
    say = speaker(output)
    say(str(made))
    if trained:
        say(trained)
    say(f"report written to {output}" + ("" if figures is None else f", figures to {figures}"))

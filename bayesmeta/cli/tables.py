"""Tables as commands read them: what is unusual in a file is said."""

from pathlib import Path
from typing import TYPE_CHECKING

from bayesmeta.cli.speaking import note, warn
from bayesmeta.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

    from bayesmeta.outcomes import Outcomes
    from bayesmeta.table_files import Table
    from bayesmeta.tasks.table import Schema

LARGE = 2_000_000  # rows of a parquet file from which on it is read some tasks at a time
SAMPLE = 20_000  # tasks of such a table that a model is learned from


def asked_outcomes(outcome: str | None, count: int) -> "Outcomes | None":
    """What a user says that outcomes are.

    Args:
        outcome: the value of --outcome; None where it is not given.
        count: how many outcome columns there are.

    Raises:
        DataError: a value that --outcome does not have.
    """
    from bayesmeta.outcomes import Counts, Labels, Numbers, Positives

    numbers = {"number": Numbers(count), "positive": Positives(count), "count": Counts(count)}
    kinds: dict[str, Outcomes] = {**numbers, "binary": Labels(2), "classes": Labels()}
    if outcome is not None and outcome not in kinds:
        raise DataError(f"expected --outcome to be one of {', '.join(kinds)}, got {outcome!r}")
    return None if outcome is None else kinds[outcome]


def is_large(table: Path) -> bool:
    """Whether a table is parquet that is not read at once: a folder, or a file of more than two million rows."""
    from bayesmeta.tasks.parquet_source import ParquetSource, is_parquet

    return is_parquet(table) and (table.is_dir() or ParquetSource.of(table).rows > LARGE)


def sampled(table: Path, task: str, y: list[str], tasks: int, seed: int) -> "Table":
    """Tasks of a large table, drawn at random, with all of their rows; what they are is said.

    Args:
        table: parquet files.
        task: the column with the task's name.
        y: outcome columns.
        tasks: how many are drawn.
        seed: of the choice.

    Raises:
        DataError: an unknown column, or a task whose rows do not stand one after another.
    """
    from bayesmeta.table_files import Table
    from bayesmeta.tasks.parquet_tasks import ParquetTasks
    from bayesmeta.tasks.table import Schema

    every = ParquetTasks(table, Schema(task, x=(), y=tuple(y)))
    if len(every) > tasks:
        note(f"{tasks:,} of the {len(every):,} tasks of {table.name} are drawn to learn from: --sample says how many")
    return Table(every.frame(tasks, seed), table.name, None, ())


def training_table(
    table: Path,
    sep: str | None,
    task: str,
    x: list[str] | None,
    y: list[str],
    covariate: list[str] | None,
    categorical: list[str] | None,
    yerr: list[str] | None,
    outcome: str | None,
    random: list[str] | None = None,
    sample: int = SAMPLE,
    seed: int = 0,
) -> "tuple[Schema, pd.DataFrame]":
    """What the columns of a table to learn from are, and its cells; what is unusual in the file is said.

    The arguments are the options of fit; of a large table some tasks are drawn.

    Raises:
        DataError: the table is not what they say.
    """
    from bayesmeta.outcomes import Labels, Numbers
    from bayesmeta.table_account import hint_of_codes, hint_of_counts
    from bayesmeta.table_cells import decimal_commas, read_cells
    from bayesmeta.table_files import read_table
    from bayesmeta.tasks.table import Schema

    asked = asked_outcomes(outcome, len(y))
    read = sampled(table, task, y, sample, seed) if is_large(table) else read_table(table, sep)
    varying = [name for name in random or () if name not in (covariate or ())]
    if varying:
        raise DataError(f"expected --random to name a column that --covariate names, too, got {varying[0]!r}")
    covariates = [name for name in covariate or () if name not in (random or ())]
    x, categories = [*(x or ()), *dict.fromkeys(random or ())], categorical or []
    inputs = [*x, *(name for name in categories if name not in {*x, *covariates})]
    unknown = [name for name in (*inputs, *covariates) if name not in categories]
    numbers = y if len(y) > 1 or isinstance(asked, Numbers) or yerr else []
    classes = y if isinstance(asked, Labels) else []
    either = [] if numbers or classes else y
    deviations = yerr or []
    frame = read_cells(read, task, [*numbers, *deviations], unknown, categories, classes, either)
    note_file(read, decimal_commas(read, [*numbers, *deviations, *either, *unknown]))
    schema = Schema.of(frame, task, inputs, y, covariates, asked, yerr=deviations)
    warn(_missing_class(schema))
    if asked is None and (hint := hint_of_counts(frame, schema)):
        note(hint)
    if codes := hint_of_codes(frame, schema):
        note(codes)
    return schema, frame


def cells(table: "Table", schema: "Schema", outcomes: bool = True) -> "pd.DataFrame":
    """The cells of a table as a schema says; what is unusual in the file is said.

    Args:
        table: as it was read.
        schema: what its columns are.
        outcomes: whether it has outcome columns.

    Raises:
        DataError: the table is not what the schema says.
    """
    from bayesmeta.table_cells import decimal_commas, number_columns, read_as

    frame = read_as(table, schema, outcomes)
    note_file(table, decimal_commas(table, number_columns(schema, outcomes)))
    return frame


def note_file(table: "Table", commas: bool) -> None:
    """Say how a file was read, where it is not the plain case."""
    for each in (*table.notes, *(["numbers have decimal commas"] if commas else ())):
        note(f"in {table.name}, {each}")


def _missing_class(schema: "Schema") -> str:
    """What is probably wrong where a class is called like a missing number; empty where none is."""
    from bayesmeta.table_cells import MISSING

    word = next((name for name in schema.classes if name in MISSING and name.lower() != "none"), None)
    if word is None:
        return ""
    return f"{word!r} is a class of column {schema.y[0]!r}: where it means that none is known, leave the cell empty"

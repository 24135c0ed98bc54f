"""Commands on parquet tables that are larger than memory."""

import re
from pathlib import Path

from bayesmeta.cli.model_folders import load_model
from bayesmeta.cli.options import counts_of
from bayesmeta.cli.speaking import speaker
from bayesmeta.errors import DataError
from bayesmeta.outputs import write_table


def predict_stream(
    model: Path,
    table: Path,
    output: Path,
    level: float,
    noiseless: bool,
    known: str | None,
    processes: int,
    part: str,
    device: str,
) -> None:
    """Predict the rows of a parquet table that are asked about, from those of the same tasks that are known.

    The arguments are those of predict. Raises DataError where the table is no parquet, or as `bayesmeta.stream` does.
    """
    from bayesmeta.streaming.stream import stream
    from bayesmeta.tasks.parquet_source import is_parquet

    if not is_parquet(table):
        raise DataError(
            f"expected QUERY, as {table} is no parquet table, or a parquet table alone, with rows that are known and "
            "rows that are asked about"
        )
    if output.is_file():
        raise DataError(f"expected a folder for the parts of the output, got the file {output}")
    if model.resolve() in (output.resolve(), *output.resolve().parents):
        raise DataError(f"expected --output outside of MODEL, got {output}")
    learner, schema, _ = load_model(model, device)
    of_known = int(known) if known is not None and known.isdecimal() else known
    done = stream(
        learner, schema, table, output, level, noiseless, known=of_known, processes=processes, part=share_of(part)
    )
    speaker()(str(done))


def share_of(part: str) -> tuple[int, int]:
    """The two numbers of --part. Raises DataError where they are none.

    Example:
        >>> share_of("2/8")
        (2, 8)
    """
    found = re.fullmatch(r"(\d+)/(\d+)", part)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise DataError(f"expected --part k/n, such as 2/8 for the second of eight shares, got {part!r}")
    return int(found[1]), int(found[2])


def evaluate_large(
    model: Path,
    table: Path,
    shots: str,
    forecast: bool,
    include_trained: bool,
    level: float,
    seed: int,
    output: Path | None,
    device: str,
) -> None:
    """Score a model on the tasks of a parquet table that is larger than memory.

    The arguments are those of evaluate. Raises DataError where all tasks are of the training.
    """
    from bayesmeta.evaluation.streamed import evaluate_stream
    from bayesmeta.tasks.parquet_tasks import ParquetTasks
    from bayesmeta.tasks.source import PrefixSplit, RandomSplit

    learner, schema, extra = load_model(model, device)
    trained = frozenset(() if include_trained else extra.get("trained_on", ()))
    split = PrefixSplit if forecast else RandomSplit
    tasks = ParquetTasks(table, schema)
    result = evaluate_stream(learner, tasks, counts_of(shots), split=split, level=level, seed=seed, without=trained)
    say = speaker(output)
    say(str(result))
    if output is not None:
        write_table(result.table().reset_index(), output)
        say(f"table written to {output}")

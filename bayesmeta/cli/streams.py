"""Commands on parquet tables that are larger than memory."""

import re
from pathlib import Path

from bayesmeta.cli.model_folders import load_model
from bayesmeta.cli.speaking import speaker
from bayesmeta.errors import DataError


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

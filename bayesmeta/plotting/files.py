"""Figures as files: PNG, SVG or PDF by the end of the name, the same bytes for the same figure, whole or not at all."""

import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bayesmeta.errors import DataError
from bayesmeta.outputs import require_writable, write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KINDS = {".png": {"Software": None}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
"""Endings of names, and what would tell the time or the version of a figure, which files do without."""


def write_figure(figure: "Figure", path: str | Path) -> None:
    """Write a figure to a file, which is replaced in one step where it is there.

    Args:
        figure: of matplotlib.
        path: its name ends in .png, .svg or .pdf.

    Raises:
        DataError: another ending, or the file cannot be written.

    Example:
        >>> from matplotlib.figure import Figure
        >>> import bayesmeta as bm
        >>> bm.plotting.write_figure(Figure(), "empty.svg")
        >>> bm.plotting.write_figure(Figure(), "empty.jpg")
        Traceback (most recent call last):
        ...
        bayesmeta.errors.DataError: expected a figure file that ends in .png, .svg, .pdf, got empty.jpg
    """
    import matplotlib as mpl

    require_figure_file(Path(path))
    kind, buffer = Path(path).suffix.lower(), io.BytesIO()
    settings: dict[Any, Any] = {"svg.hashsalt": "bayesmeta", "svg.fonttype": "path"}
    with mpl.rc_context(settings), warnings.catch_warnings():
        # names of columns may be in letters that matplotlib's font lacks: they are boxes then
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        figure.savefig(buffer, format=kind[1:], dpi=160, metadata=KINDS[kind])
    write(Path(path), buffer.getvalue())


def require_figure_file(path: Path) -> None:
    """Raise DataError now where `write_figure` would after the work."""
    if path.suffix.lower() not in KINDS:
        raise DataError(f"expected a figure file that ends in {', '.join(KINDS)}, got {path}")
    require_writable(path)

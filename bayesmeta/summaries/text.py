"""Numbers and tables as a page shows them: columns that line up, and as many digits as the smallest number needs."""

import math
import textwrap
from collections.abc import Sequence

WIDTH = 100  # characters of a line


def aligned(values: Sequence[float | None], digits: int = 5, like: Sequence[float | None] | None = None) -> list[str]:
    """Numbers with the same decimals: so many that the smallest has its digits; empty where there is none.

    Args:
        values: the numbers of a column.
        digits: of the smallest number that is not 0.
        like: the numbers that decide in place of these, such as their deviations.

    Example:
        >>> aligned([251.40510, 10.46729, None])
        ['251.405', '10.467', '']
    """
    sizes = [
        abs(value)
        for value in (values if like is None else like)
        if value is not None and math.isfinite(value) and value != 0.0
    ]
    if sizes and max(sizes) > 1e6 * min(sizes):
        return ["" if value is None else f"{value:.{digits}g}" for value in values]
    decimals = digits - 1 - math.floor(math.log10(min(sizes))) if sizes else 1
    decimals = min(max(decimals, 0), 10)
    return ["" if value is None else f"{value:.{decimals}f}" for value in values]


def table(headers: Sequence[str], columns: Sequence[Sequence[str]], words: int) -> list[str]:
    """The lines of a table: words at the left of their column, and numbers at the right.

    Args:
        headers: of each column.
        columns: its cells.
        words: how many of the columns, the first ones, hold words.

    Example:
        >>> print(*table(["term", "estimate"], [["intercept", "Days"], ["251.405", "10.467"]], words=1), sep="|")
        term       estimate|intercept   251.405|Days         10.467
    """
    widths = [max(map(len, (header, *cells))) for header, cells in zip(headers, columns, strict=True)]
    rows = [headers, *zip(*columns, strict=True)]
    return ["  ".join(_cell(row, i, widths[i], words) for i in range(len(row))).rstrip() for row in rows]


def _cell(row: Sequence[str], place: int, width: int, words: int) -> str:
    return row[place].ljust(width) if place < words else row[place].rjust(width)


def section(title: str, lines: Sequence[str]) -> list[str]:
    """An empty line, a title and what belongs to it, indented.

    Args:
        title: of the section.
        lines: below it; without any there is no section.
    """
    return ["", title, *(f"  {line}".rstrip() for line in lines)] if lines else []


def facts(pairs: Sequence[tuple[str, str]]) -> list[str]:
    """Names with what they are, in two columns.

    Args:
        pairs: name and sentence.

    Example:
        >>> facts([("tasks", "18"), ("points", "180")])
        ['tasks   18', 'points  180']
    """
    width = max((len(name) for name, _ in pairs), default=0)
    lines = []
    for name, words in pairs:
        first, *rest = textwrap.wrap(words, WIDTH - width - 4) or [""]
        lines += [f"{name:<{width}}  {first}".rstrip(), *(" " * (width + 2) + line for line in rest)]
    return lines


def bullets(sentences: Sequence[str]) -> list[str]:
    """Sentences one after the other, each behind a dash.

    Args:
        sentences: what is to be said.
    """
    return [
        line for each in sentences for line in textwrap.wrap(f"- {each}", WIDTH - 2, subsequent_indent="  ") if line
    ]


def percent(share: float) -> str:
    """A share in percent.

    Example:
        >>> percent(0.4637)
        '46 %'
    """
    return f"{100.0 * share:.{0 if share >= 0.095 or share == 0.0 else 1}f} %"


def brief(value: float) -> str:
    """A number with three digits, and without a power of ten where it can be read.

    Example:
        >>> brief(25.5918), brief(0.000312)
        ('25.6', '0.000312')
    """
    if value == 0.0 or not math.isfinite(value) or not 1e-4 <= abs(value) < 1e7:
        return f"{value:.3g}"
    return f"{value:,.{max(2 - math.floor(math.log10(abs(value))), 0)}f}"

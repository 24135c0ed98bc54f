"""Figures of the pages: written as SVG by the programs that make them, shown in the page's own colours."""

import html
import io
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bayesmeta.reporting import inline_svg

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SETTINGS: dict[Any, Any] = {"svg.hashsalt": "bayesmeta", "svg.fonttype": "none"}


class FigureError(Exception):
    """A picture that a page cannot show in its own colours, or that says nothing to those who cannot see it."""


def svg(figure: "Figure") -> str:
    """A figure of matplotlib as SVG: text as text, no paper behind it, the same bytes whenever it is drawn."""
    import matplotlib as mpl

    buffer = io.BytesIO()
    with mpl.rc_context(SETTINGS):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    drawn = "\n".join(line.rstrip() for line in buffer.getvalue().decode().splitlines()) + "\n"
    return re.sub(r'(?<= d=")[^"]+', _short, drawn)


def _short(path: re.Match[str]) -> str:
    """A path in hundredths of a point, on one line."""
    numbers = re.sub(r"-?\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}".rstrip("0").rstrip("."), path[0])
    return numbers.replace("\nL ", "L").strip()


def save(figure: "Figure", path: Path) -> None:
    """Write a figure, and close it."""
    import matplotlib.pyplot as plt

    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(svg(figure))
    plt.close(figure)


def shown(text: str, name: str, alt: str) -> str:
    """SVG as a part of a page: its black is the page's ink, its white the page's paper, its palette the page's palette.

    Args:
        text: the SVG.
        name: no two figures of a page have the same one.
        alt: what is seen, in words.

    Raises:
        FigureError: there are no words.
    """
    if not alt.strip():
        raise FigureError(f"expected words that say what the figure {name} shows, got none")
    drawing = inline_svg.inline(text.encode(), re.sub(r"\W+", "-", name), alt)
    width = re.search(r'viewBox="[\d.e+-]+ [\d.e+-]+ ([\d.]+)', drawing)
    if width is None:
        raise FigureError(f"expected a viewBox in the figure {name}, got none")
    style = f'style="max-width: {float(width[1]) * 4 / 3:.0f}px"'  # a point of matplotlib is four thirds of a pixel
    return f'<figure class="drawn">{drawing.replace("<svg ", f"<svg {style} ", 1)}</figure>'


def figures_in(page: str, folder: Path) -> str:
    """The HTML of a page, with the SVG files that it names in the place of their images.

    Args:
        page: HTML in which `<img>` names figures relative to `folder`.
        folder: where the names begin.

    Raises:
        FigureError: a file is missing or says nothing in words; or a picture is no SVG.
    """

    def drawn(match: re.Match[str]) -> str:
        given = dict(re.findall(r'([\w-]+)="([^"]*)"', match["tag"]))
        source = html.unescape(given.get("src", ""))
        path = Path(os.path.normpath(folder / source))
        if re.match(r"[a-z]+:", source):
            return match[0]
        if path.suffix != ".svg" or not path.is_file():
            raise FigureError(f"expected a figure that is an SVG file, got {source!r}")
        return shown(path.read_text(), path.stem, html.unescape(given.get("alt", "")))

    return re.sub(r"<p>\s*(?P<tag><img [^>]*>)\s*</p>|(?P<loose><img [^>]*>)", _one(drawn), page)


def _one(drawn: Any) -> Any:
    def either(match: re.Match[str]) -> str:
        if match["tag"] is None:
            raise FigureError(f"expected a figure in a paragraph of its own, got {match['loose']}")
        return str(drawn(match))

    return either

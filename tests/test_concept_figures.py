"""The figures of docs/concepts: each has a program that draws it, and a page that shows it."""

import re
from pathlib import Path

import pytest

from docs.tools import concept_figures

DOCS = Path(__file__).parent.parent / "docs"


def test_every_figure_has_a_program() -> None:
    assert {path.stem for path in concept_figures.FOLDER.iterdir()} == set(concept_figures.FIGURES)


@pytest.mark.parametrize("name", concept_figures.FIGURES)
def test_every_figure_is_shown_and_said_in_words(name: str) -> None:
    pages = "".join(page.read_text() for page in (DOCS / "concepts").glob("*.md"))
    shown = re.findall(rf"!\[([^\]]+)\]\(\.\./figures/concepts/{name}\.svg\)", pages)
    assert shown
    assert all(len(words.split()) >= 8 for words in shown)


def test_the_orchard_has_the_numbers_of_its_page() -> None:
    page = (DOCS / "concepts" / "one_idea.md").read_text()
    for ax, row in zip(concept_figures.orchard().axes, ("| 0 | 0 |", "| 1 | 0.308 |", "| 3 | 0.571 |"), strict=True):
        belief = ax.lines[0]
        peak = float(belief.get_xdata()[belief.get_ydata().argmax()])  # the grid has whole grams
        said = re.search(rf"^{re.escape(row)} ([\d.]+) g", page, flags=re.M)
        assert said is not None
        assert abs(peak - float(said[1])) <= 0.5

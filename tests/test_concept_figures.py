"""The figures of docs/concepts: each has a program that draws it, and a page that shows it."""

import re
from pathlib import Path

import pytest
import torch

import bayesmeta as bm
from docs.tools import concept_figures, pulls_of_losses

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


def test_losses_that_cannot_tell_labels_apart_are_drawn_so() -> None:
    residuals = torch.tensor([1.0, 3.0, 5.0], dtype=torch.float64)
    one, three, five = pulls_of_losses.pull(bm.likelihoods.StudentT(initial_scale=1.0, initial_dof=3.0), residuals)
    assert abs(one - three) < 1e-6
    assert five < one
    straight = pulls_of_losses.pull(bm.likelihoods.Gaussian(bm.noise.DiagonalNoise(1, initial=1.0)), residuals)
    assert bool(((straight - residuals).abs() < 1e-6).all())
    assert "pulls_of_losses.svg" in (DOCS / "concepts" / "maml_is_universal.md").read_text()

"""Every tutorial runs, says what its figures show, and was run since it was changed."""

from pathlib import Path

import pytest

pytest.importorskip("matplotlib")

from docs.tools import tutorials

TUTORIALS = tutorials.names()
SOURCE = """# %% [markdown]
# # A title
#
# One sentence. Another.

# %%
STEPS = 500  # smoke: 2
print(STEPS)

# %%
# alt: a line from one to two
import matplotlib.pyplot as plt

plt.plot([1, 2]);
"""


@pytest.mark.usefixtures("unchecked")  # under torch.jit.trace shapes are no integers
@pytest.mark.parametrize("name", TUTORIALS)
def test_it_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.chdir(tmp_path)
    parts = tutorials.run_all(tutorials.smoke(tutorials.source_of(name)), name)
    assert sum(kind == "svg" for cell in parts for kind, _ in cell.outputs) >= 1


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", TUTORIALS)
def test_it_runs_whole(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.chdir(tmp_path)
    parts = tutorials.run_all(tutorials.plain(tutorials.source_of(name)), name)
    shown = [[kind for kind, _ in cell.outputs] for cell in parts]
    assert shown == [[kind for kind, _ in cell.outputs] for cell in tutorials.shown_cells(name)]


@pytest.mark.parametrize("name", TUTORIALS)
def test_what_is_shown_is_what_it_printed(name: str) -> None:
    assert tutorials.is_recorded(name), f"run python -m docs.tools.tutorials {name}"
    assert tutorials.page(name).startswith("# ")
    assert f": tutorials/{name}.md\n" in (tutorials.FOLDER.parents[1] / "mkdocs.yml").read_text()


def test_a_tutorial_becomes_a_page_and_a_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tutorials, "FOLDER", tmp_path)
    monkeypatch.setattr(tutorials, "OUTPUTS", tmp_path / "outputs")
    monkeypatch.setenv("MPLBACKEND", "Agg")
    (tmp_path / "small.py").write_text(SOURCE)
    with pytest.raises(tutorials.TutorialError, match="has changed since it was run"):
        tutorials.page("small")
    tutorials.main(["small"])
    page = tutorials.page("small")
    assert page.startswith("# A title\n\n[Download as a notebook](small.ipynb)")
    assert "One sentence. Another." in page
    assert "\n500\n" in page
    assert "smoke" not in page
    assert 'aria-label="a line from one to two"' in page
    assert '"STEPS = 500\\n"' in tutorials.notebook("small")
    assert "<strong>A title</strong><span>One sentence.</span>" in tutorials.gallery()
    (tmp_path / "small.py").write_text(SOURCE.replace("One sentence", "Other words"))
    assert "Other words." in tutorials.page("small")  # words may change, code may not
    (tmp_path / "small.py").write_text(SOURCE.replace("print(STEPS)", "print(-STEPS)"))
    assert not tutorials.is_recorded("small")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [("# alt: a line from one to two\n", "", "cell 3: a figure without"), ("print(STEPS)", "1 / 0", "cell 2: ZeroDiv")],
)
def test_a_fault_is_told_with_its_place(old: str, new: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPLBACKEND", "Agg")
    with pytest.raises(tutorials.TutorialError, match=said):
        tutorials.run_all(tutorials.smoke(SOURCE.replace(old, new)), "small")


def test_smoke_numbers_are_small() -> None:
    assert "STEPS = 2\n" in tutorials.smoke(SOURCE)
    assert "STEPS = 500\n" in tutorials.plain(SOURCE)

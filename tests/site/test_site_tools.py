"""What the site's tools refuse: broken formulas, links, figures."""

from pathlib import Path

import pytest

from docs.tools import check_site, outline, svg_figures, the_papers

SMALL = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 30 20"><path d="M0 0" style="stroke: #0072b2"/></svg>'


def test_formulas_become_html_without_scripts() -> None:
    pytest.importorskip("quickjs")
    from docs.tools import mathematics

    page = r'<p>x <span class="arithmatex">\(\phi_t \sim \N(\theta, A\T A)\)</span></p>'
    found = mathematics.mathematics(page)
    assert 'class="katex"' in found
    assert "<math" in found
    assert "arithmatex" not in found
    display = mathematics.mathematics(r'<div class="arithmatex">\[a &lt; b \tag{1}\]</div>')
    assert "katex-display" in display
    with pytest.raises(mathematics.MathematicsError, match="frac"):
        mathematics.mathematics(r'<span class="arithmatex">\(\frac{1}\)</span>')
    files = mathematics.assets()
    assert {Path(name).suffix for name in files} == {".css", ".woff2", ".txt"}
    style = files["assets/katex/katex.css"].decode()
    assert style.count("@font-face") == style.count("woff2') format") + style.count(".woff2)") == 20
    assert "http" not in style


def test_figures_take_the_colours_of_the_page(tmp_path: Path) -> None:
    (tmp_path / "a.svg").write_text(SMALL)
    found = svg_figures.figures_in('<p><img alt="one &amp; two" src="a.svg" /></p>', tmp_path)
    assert found.startswith('<figure class="drawn"><svg style="max-width: 40px"')
    assert 'aria-label="one &amp; two"' in found
    assert 'stroke="var(--blue)"' in found


@pytest.mark.parametrize(
    "page",
    [
        '<p><img alt="" src="a.svg" /></p>',
        '<p><img alt="words" src="b.svg" /></p>',
        '<p>text <img alt="words" src="a.svg" /></p>',
        '<p><img alt="words" src="a.png" /></p>',
    ],
)
def test_what_is_no_figure_is_refused(page: str, tmp_path: Path) -> None:
    (tmp_path / "a.svg").write_text(SMALL)
    with pytest.raises(svg_figures.FigureError):
        svg_figures.figures_in(page, tmp_path)


def test_the_same_figure_is_the_same_file(tmp_path: Path) -> None:
    import matplotlib.pyplot as plt

    texts = []
    for name in ("a", "b"):
        figure, ax = plt.subplots()
        ax.plot([0, 1], label="line")
        ax.legend()
        svg_figures.save(figure, tmp_path / "figures" / f"{name}.svg")
        texts.append((tmp_path / "figures" / f"{name}.svg").read_text())
    assert texts[0] == texts[1]
    assert ">line<" in texts[0]


GOOD = '<a href="other/#place">x</a><h2 id="top">x</h2><img src="a.svg" alt="words"><code>$$ \\theta</code>'


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("", None),
        ('<a href="nowhere/">x</a>', "no such file: nowhere/"),
        ('<a href="other/#nowhere">x</a>', "no such place: other/#nowhere"),
        ('<a href="https://example.org">x</a>', None),
        ('<script src="https://example.org/a.js"></script>', "loads https://example.org/a.js"),
        ('<h2 id="top">x</h2>', "'top' stands 2 times"),
        ('<img src="a.svg">', "a picture without words"),
        ("<p>$$ x</p>", "Markdown that was not read"),
        ("<p>\\theta</p>", "Markdown that was not read"),
        ("<!-- method: ALPaCA -->", "a marker that nothing replaced"),
        ('<span class="arithmatex">x</span>', "a formula that was not rendered"),
    ],
)
def test_faults_of_a_site_are_found(more: str, said: str | None, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "a.svg").write_text(SMALL)
    (tmp_path / "index.html").write_text(GOOD + more)
    (tmp_path / "other" / "index.html").write_text('<h2 id="place">x</h2>')
    found = check_site.faults(tmp_path)
    assert len(found) == (said is not None)
    assert said is None or said in found[0]


def test_a_site_without_pages_is_a_fault(tmp_path: Path) -> None:
    assert check_site.faults(tmp_path) == ["no pages"]


def test_the_outline_has_every_page_with_its_first_sentence() -> None:
    entries = [
        outline.Entry(
            "methods", "methods/maml/", "MAML", outline.sentence("# MAML\n\nOne **step** [here](x.md). Two.")
        ),
        outline.Entry("start", "start/faq/", "FAQ", outline.sentence("# FAQ\n\n| a |\n\n```python\n1\n```\n")),
    ]
    assert [entry.sentence for entry in entries] == ["One step here.", ""]
    made = outline.outline("bayesmeta", "few points", entries)
    assert made.index("## Start") < made.index("- [FAQ](start/faq/)") < made.index("- [MAML](methods/maml/): One step")


def test_every_method_has_its_paper_and_the_page_is_up_to_date() -> None:
    assert the_papers.missing() == set()
    assert the_papers.PAGE.read_text() == the_papers.citing(), "run python -m docs.tools.the_papers"
    keys = [paper.key for paper in the_papers.PAPERS]
    assert len(keys) == len(set(keys))

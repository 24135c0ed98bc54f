"""The pages of benchmarks: no number without its output, no output without its page, no figure that is out of date."""

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from docs.tools import benchmark_figures, the_field
from docs.tools.the_field import Section

ROOT = Path(__file__).parent.parent
PAGES = sorted(path for path in (ROOT / "docs" / "benchmarks").glob("*.md") if path.name != "index.md")
SECTIONS = {title: part for title, part in the_field.sections().items() if not part.page.endswith("index.md")}
NUMBER = re.compile(r"(?<![\w.])[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)?\.?\d+(?:e-?\d+)?(?=x?(?![\w.]))")
SAMPLE = ["bandits", "demo", "many_processes"]  # drawn again in each run of the tests; all others in the slow ones


def _text_of(title: str) -> str:
    """A section as it is written, without what it includes."""
    page = (ROOT / "docs" / SECTIONS[title].page).read_text()
    return re.split(rf"^## {re.escape(title)}$", page, flags=re.M)[1].split("\n## ")[0]


def _rows(text: str) -> list[list[str]]:
    """Those of all tables, without the heads."""
    bodies = re.findall(r"^\|[-|]+\|\n((?:\|.*\|\n)+)", text, flags=re.M)
    return [[cell.strip() for cell in line.strip("|").split("|")] for body in bodies for line in body.splitlines()]


def _occurs(number: str, text: str) -> bool:
    plain = number.lstrip("+-")
    return re.search(rf"(?<![\w.]){re.escape(plain)}(?!\d|\.\d)", text) is not None


def _unfounded(shown: str, section: Section) -> list[str]:
    """Numbers of the tables, but for the names of rows, that no output and no remark of the section has."""
    beside = section.text.replace(shown, "")
    cells = [cell for row in _rows(shown) for cell in row[1:]]
    return [number for cell in cells for number in NUMBER.findall(cell) if not _occurs(number, beside)]


def _shown(title: str) -> str:
    """The part of a section that is not folded."""
    return SECTIONS[title].text.split("\n??? note")[0]


@pytest.mark.parametrize("title", SECTIONS)
def test_a_section_is_a_claim_a_table_a_figure_a_date_and_an_output(title: str) -> None:
    text = _text_of(title)
    shown = _shown(title)
    assert shown.strip().startswith("**")
    assert _rows(shown)
    assert len(re.findall(r"^!\[.+\]\(\.\./figures/benchmarks/\w+\.svg\)$", shown, flags=re.M)) == 1
    dates = re.findall(r"^\*Measured on \d+ \w+ 20\d\d, .+:\* `.+`\.$", shown, flags=re.M)
    assert len(dates) == 1
    for module in re.findall(r"-m benchmarks\.(\w+)", dates[0]):
        assert (ROOT / "benchmarks" / f"{module}.py").is_file()
    assert "--8<--" in text


@pytest.mark.parametrize("title", SECTIONS)
def test_the_numbers_of_a_table_are_those_of_the_outputs(title: str) -> None:
    assert _unfounded(_shown(title), SECTIONS[title]) == []


def test_a_number_that_no_output_has_is_found() -> None:
    title = "Near the Bayes-optimal predictor"
    shown = _shown(title).replace("0.179 ± 0.030", "0.178 ± 0.030")
    assert _unfounded(shown, replace(SECTIONS[title], text=SECTIONS[title].text.replace(_shown(title), shown))) == [
        "0.178"
    ]


def test_the_overview_says_what_the_sections_say() -> None:
    overview = (ROOT / "docs" / "benchmarks" / "index.md").read_text().split("## In short")[1].split("\n## ")[0]
    for claim, ours, peers, date in _rows(overview):
        page, anchor = re.findall(r"\]\((\w+\.md)#([\w-]+)\)", claim)[0]
        title = next(t for t, part in SECTIONS.items() if part.page.endswith(page) and the_field.anchor(t) == anchor)
        section = SECTIONS[title]
        missing = [n for n in NUMBER.findall(ours) + NUMBER.findall(peers) if not _occurs(n, section.text)]
        assert missing == [], claim
        assert date.split()[-1] in section.text


def test_every_output_and_every_figure_is_on_one_page() -> None:
    text = "".join(page.read_text() for page in PAGES)
    outputs = Counter(re.findall(r'--8<-- "docs/benchmarks/outputs/(\w+)\.txt"', text))
    figures = Counter(re.findall(r"figures/benchmarks/(\w+)\.svg", text))
    assert outputs == Counter(path.stem for path in benchmark_figures.OUTPUTS.glob("*.txt"))
    assert figures == Counter(list(benchmark_figures.DRAWN))
    assert set(figures) == {path.stem for path in benchmark_figures.FIGURES.glob("*")}


def _draws_the_same(name: str, folder: Path) -> bool:
    return (
        benchmark_figures.write(name, folder).read_bytes() == (benchmark_figures.FIGURES / f"{name}.svg").read_bytes()
    )


@pytest.mark.parametrize("name", SAMPLE)
def test_figures_are_up_to_date(name: str, tmp_path: Path) -> None:
    assert _draws_the_same(name, tmp_path), "run python -m docs.tools.benchmark_figures"


@pytest.mark.slow
def test_all_figures_are_up_to_date(tmp_path: Path) -> None:
    assert [name for name in benchmark_figures.DRAWN if not _draws_the_same(name, tmp_path)] == []


def test_a_benchmark_of_the_readme_is_a_program() -> None:
    text = (ROOT / "benchmarks" / "README.md").read_text()
    assert {
        name for name in re.findall(r"benchmarks\.(\w+)", text) if not (ROOT / "benchmarks" / f"{name}.py").is_file()
    } == set()

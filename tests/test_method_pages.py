"""Every method has a page of one skeleton: a generated head, six sections, a figure, and numbers with a command."""

import re
from pathlib import Path

import pytest

import bayesmeta as bm
from docs.tools import method_pages
from docs.tools.the_field import DOCS, ROWS, Row

METHODS = [row for row in ROWS if row.page.startswith("methods/")]
ELSEWHERE = {
    "concepts/outcomes.md": "what a wrapper for a kind of outcome does is said beside the outcomes",
    "concepts/gold_standards.md": "what a learner is judged by is said with how to judge",
    "concepts/calibration.md": "corrections are said with what they correct",
    "concepts/tasks.md": "a learner for each outcome is said with missing outcomes",
    "start/how_to_choose.md": "stacking is said with the choice between learners",
    "start/quickstart.md": "units are said where the first learner is made",
}
"""Pages that speak of a wrapper among other things: they have no skeleton."""
NO_LEARNER = {"methods/architecture_search.md", "methods/bandits.md"}
"""Pages of methods that are no learners."""
UNFINISHED: set[str] = set()
"""Pages that are not written into the skeleton yet."""
PAGES = sorted({row.page for row in METHODS} | NO_LEARNER)
COMMAND = re.compile(r"`?(?:python -m benchmarks\.\w+|bayesmeta \w+|make \w+)")


def sections(text: str) -> dict[str, str]:
    """What stands below each heading of the second level."""
    bare = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
    parts = re.split(r"^## (.*)$", bare, flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def formulas(text: str) -> list[str]:
    """Blocks of text that are no language's, and look like formulas."""
    fenced = re.findall(r"^( *)```(\S*)[^\n]*\n(.*?)^\1```$", text, flags=re.M | re.S)
    blocks = [block for _, language, block in fenced if language in ("", "text")]
    return [block for block in blocks if re.search(r"[Σ∏∫∂∇αβγδεθλμνπρσφω²ᵀ⁻]| ~ N\(|\^|argm(?:ax|in)", block)]


def faults(page: str, text: str) -> list[str]:
    """What a page lacks."""
    found = [f"starts with {text.splitlines()[0]!r}"] if not re.match(r"# \S", text) else []
    parts = sections(text)
    wanted = [title for title in parts if title in method_pages.HEADINGS]
    if wanted != list(method_pages.HEADINGS):
        found.append(f"has the sections {list(parts)}, not {method_pages.HEADINGS} in this order")
    asked = [name for names in method_pages.MARKER.findall(text) for name in names.split()]
    rows = [row for row in METHODS if row.page == page]
    if page not in NO_LEARNER and not all(any(v.__name__ in asked for v in row.values) for row in rows):
        found.append("lacks the marker of a method")
    figures = re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", parts.get("What it looks like", ""))
    if not figures:
        found.append("has no figure")
    for words, path in figures:
        if len(words.split()) < 8:
            found.append(f"says too little of {path}")
        if not (DOCS / page).parent.joinpath(path).resolve().is_file():
            found.append(f"lacks {path}")
    numbers = parts.get("Numbers", "")
    if not re.search(r"\d", numbers) or not COMMAND.search(numbers):
        found.append("has no numbers with a command")
    modules = re.findall(r"python -m benchmarks\.(\w+)", text)
    missing = [module for module in modules if not (DOCS.parent / "benchmarks" / f"{module}.py").is_file()]
    found += [f"names benchmarks.{module}, which is not there" for module in missing]
    if "```python" not in text:
        found.append("has no code that runs")
    found += [f"has a formula without TeX: {block.splitlines()[0]}" for block in formulas(text)]
    if "$" not in parts.get("The model", ""):
        found.append("has no formula in its model")
    return found


@pytest.mark.parametrize("page", [page for page in PAGES if page not in UNFINISHED])
def test_a_page_has_the_skeleton(page: str) -> None:
    assert faults(page, (DOCS / page).read_text()) == []


def test_unfinished_pages_are_unfinished() -> None:
    """What is done is taken off the list."""
    assert sorted(page for page in UNFINISHED if not faults(page, (DOCS / page).read_text())) == []
    assert set(PAGES) >= UNFINISHED


def test_every_method_has_a_page() -> None:
    assert {row.page for row in ROWS} - {row.page for row in METHODS} == set(ELSEWHERE)
    pages = {path.relative_to(DOCS).as_posix() for path in (DOCS / "methods").glob("*.md")}
    assert pages - {"methods/field.md"} == set(PAGES)


WHOLE = """# Method

What it is.

<!-- method: ALPaCA -->

## The model

$y = W^\\top h$

## In use

```python
# ## no heading
```

## What it looks like

![Bands that narrow around a sinusoid as points are seen](../figures/plant-09.svg)

## Numbers

Regret 0.1 (`python -m benchmarks.alpaca_experiments`).

## Differences from the paper

## When to use it, and when not
"""


def test_a_whole_page_is_whole() -> None:
    assert faults("methods/alpaca.md", WHOLE) == []


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("## Numbers", "## Figures", "has the sections"),
        ("ALPaCA -->", "MAML -->", "marker"),
        ("![Bands that narrow around a sinusoid as points are seen]", "![Bands]", "says too little"),
        ("plant-09", "nothing", "lacks ../figures/nothing.svg"),
        ("alpaca_experiments", "nothing", "benchmarks.nothing"),
        ("Regret 0.1 (`python -m benchmarks.alpaca_experiments`).", "Good.", "no numbers"),
        ("```python\n# ## no heading", "```\ny = Wᵀ h(x)", "without TeX"),
        ("$y = W^\\top h$", "y", "no formula in its model"),
    ],
)
def test_what_a_page_lacks_is_found(old: str, new: str, fault: str) -> None:
    assert old in WHOLE
    assert any(fault in found for found in faults("methods/alpaca.md", WHOLE.replace(old, new)))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.names)
def test_a_head_says_what_a_method_is(row: Row) -> None:
    text = method_pages.head(row.values[0].__name__, row.page)
    for fact in ("phi", "prior", "likelihood", "inference", "cost of a meta-step, a task", "measured"):
        assert re.search(rf"^\| \*\*{fact}\*\* \| \S", text, flags=re.M), fact
    assert all(f"[{value.__module__}.{value.__qualname__}]" in text for value in row.values)
    if issubclass(row.values[0], bm.Learner):
        for fact in ("predicts", "predictive", "support", "posterior of phi", "evidence"):
            assert re.search(rf"^\| \*\*{fact}\*\* \| \S", text, flags=re.M), fact
        assert "held to the contracts of all learners as [" in text
        assert text.count("<svg") == 1
    assert all((DOCS.parent / path).is_file() for path in re.findall(r"`(bayesmeta/[\w/]+\.py)`", text))
    links = re.findall(r"\]\((\.\./[\w/]+\.md)#", text)
    assert all((DOCS / row.page).parent.joinpath(link).resolve().is_file() for link in links)


def test_what_is_said_is_so() -> None:
    said = {
        name: method_pages.needs(name) for name in ("ALPaCA", "MANN", "SNAIL", "Prototypical", "HierarchicalProcess")
    }
    assert said["ALPaCA"]["predictive"].startswith("joint")
    assert said["ALPaCA"]["posterior of phi"].startswith("explicit")
    assert said["Prototypical"]["predictive"].startswith("each point")
    assert said["MANN"]["support"].endswith("order matters")
    assert "max_points" in said["SNAIL"]["support"]
    assert said["HierarchicalProcess"]["known noise of points"] == "refused"


def test_methods_of_one_page_stand_side_by_side() -> None:
    text = method_pages.with_heads("<!-- method: R2D2 R2D2Regressor -->\n", "methods/r2d2.md")
    assert "| | `R2D2` | `R2D2Regressor` |" in text
    assert text.count("<svg") == 2
    with pytest.raises(ValueError, match="expected a method"):
        method_pages.with_heads("<!-- method: Nothing -->", "methods/r2d2.md")
    assert isinstance(DOCS, Path)

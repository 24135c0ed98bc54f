"""The reference: every public name is in its table and on one page, and every page begins with words and an example."""

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

from docs.tools import the_names
from docs.tools.examples_as_code import ERROR, RAISES, errors_apart
from tests.test_public_api import PUBLIC

FOLDER = Path(__file__).parent.parent / "docs" / "reference"
GENERATED = {"index.md", "command_line.md"}
PAGES = sorted(path for path in FOLDER.glob("*.md") if path.name not in GENERATED)
CROSSED = re.compile(r"\[`(bm\.)?([\w.]+)`\]\[([\w.]+)\]")


def test_the_table_of_names_is_up_to_date() -> None:
    assert the_names.PAGE.read_text() == the_names.table(), "run python -m docs.tools.the_names"


def test_every_public_name_is_in_the_table_once() -> None:
    listed = Counter(re.findall(r"^\| \[`bm\.([\w.]+)`\]", the_names.table(), flags=re.M))
    assert listed == Counter(path.removeprefix("bayesmeta.") for path, _ in PUBLIC)


def test_every_name_of_the_table_says_what_it_is() -> None:
    said = re.findall(
        r"^\| \[`bm\.([\w.]+)`\]\[[\w.]+\] \| (.*) \| \[.+\]\(\w+\.md\) \|$", the_names.table(), flags=re.M
    )
    assert [name for name, words in said if len(words.split()) < 2] == []
    assert len(said) == len(PUBLIC)


def test_a_module_without_a_page_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = the_names.pages()
    shown.pop("bayesmeta.data")
    monkeypatch.setattr(the_names, "pages", lambda: shown)
    with pytest.raises(KeyError, match=r"bayesmeta\.data"):
        the_names.table()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_begins_with_words_a_table_and_an_example(page: Path) -> None:
    before = page.read_text().partition("\n::: ")[0] if page.stem != "plotting" else page.read_text()
    text = re.sub(r"\s+", " ", before)
    assert len(before.splitlines()[2].split()) >= 10, "a paragraph in plain words"
    assert "| what you want | name |" in text
    assert before.count("```python\n") == 1


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_names_what_there_is(page: Path) -> None:
    public = {path.removeprefix("bayesmeta."): value for path, value in PUBLIC}
    for bm, name, place in CROSSED.findall(page.read_text()):
        owner = name if name in public else name.rpartition(".")[0]
        if bm:
            assert owner in public, name
            module, own = the_names.home(owner, public[owner])
            assert place == ".".join([module, own, *name.split(".")[len(owner.split(".")) :]])


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        (
            "Raises:\n    ShapeError: x is long. DataError: x is\n        empty, or y.\n\nExample:\n    >>> 1\n",
            ["    ShapeError: x is long.", "    DataError: x is", "        empty, or y."],
        ),
        ("    Raises:\n        A.\n", []),
        (
            "Raises:\n    ShapeError, DataError: points\n        of others.\n    InferenceError: late.",
            [
                "    ShapeError: points",
                "        of others.",
                "    DataError: points",
                "        of others.",
                "    InferenceError: late.",
            ],
        ),
    ],
)
def test_every_error_of_a_docstring_is_an_item(written: str, shown: list[str]) -> None:
    lines = errors_apart(written).splitlines()
    assert [line for line in lines if "Error" in line or line.startswith("        ")][
        : len(shown)
    ] == shown or not shown
    assert lines[-1] == written.splitlines()[-1]


def test_every_error_of_the_package_is_an_item() -> None:
    package = FOLDER.parent.parent / "bayesmeta"
    nodes = [node for path in package.rglob("*.py") for node in ast.walk(ast.parse(path.read_text()))]
    texts = [ast.get_docstring(node) or "" for node in nodes if isinstance(node, ast.ClassDef | ast.FunctionDef)]
    sections = [found[2] for text in texts for found in RAISES.finditer(errors_apart(text))]
    lines = [line for section in sections for line in section.splitlines()]
    assert len(sections) > 300
    assert [line for line in lines if re.search(rf"[.;] +{ERROR}: ", line)] == []

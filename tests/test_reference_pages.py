"""The reference: every public name is in its table and on one page, and every page begins with words and an example."""

import re
from collections import Counter
from pathlib import Path

import pytest

from docs.tools import the_names
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

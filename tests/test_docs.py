"""Every block of Python and every command of the README and the docs runs, page by page, in order."""

import re
from collections import Counter
from pathlib import Path

import pytest

from docs.tools import readme
from tests import blocks
from tests.test_public_api import NAMESPACES, PUBLIC

ROOT = Path(__file__).parent.parent
PAGES = [
    page for page in blocks.pages(ROOT) if blocks.blocks(page) and page not in readme.PAGES
]  # tests/test_readme.py


def _marked(page: Path) -> object:
    name = str(page.relative_to(ROOT))
    return pytest.param(page, id=name, marks=[pytest.mark.slow] if blocks.SLOW in page.read_text() else [])


@pytest.mark.parametrize("page", [_marked(page) for page in PAGES])
def test_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    blocks.run(page, monkeypatch)


def test_blocks_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        '```python\na = 1\n```\n\n=== "Tab"\n\n    ```python\n    b = a + 1\n    ```\n\n'
        "```console\n$ echo one \\\n  two > made.txt\nnothing\n$ bayesmeta --version\n```\n\n```text\n$ false\n```\n"
    )
    found = blocks.blocks(page)
    assert [block.kind for block in found] == ["python", "python", "console"]
    assert found[2].commands == ["echo one \\\n  two > made.txt", "bayesmeta --version"]
    monkeypatch.chdir(tmp_path)
    blocks.run(page, monkeypatch)
    assert Path("made.txt").read_text() == "one two\n"
    page.write_text("```console\n$ bayesmeta no-such-command\n```\n")
    with pytest.raises(AssertionError, match="no-such-command"):
        blocks.run(page, monkeypatch)
    page.write_text("```python\nassert False\n```\n")
    with pytest.raises(AssertionError):
        blocks.run(page, monkeypatch)


def test_the_readme_has_blocks() -> None:
    assert len(blocks.blocks(ROOT / "README.md")) >= 1


def test_every_public_module_is_on_one_page_of_the_reference() -> None:
    pages = (ROOT / "docs" / "reference").glob("*.md")
    shown = Counter(name for page in pages for name in re.findall(r"^::: (\S+)$", page.read_text(), flags=re.M))
    assert {name: count for name, count in shown.items() if count > 1} == {}
    homes = {getattr(value, "__module__", "") for _, value in PUBLIC} | {f"bayesmeta.{name}" for name in NAMESPACES}
    assert {name for name in homes if name.startswith("bayesmeta.")} - set(shown) == set()

"""Every `python` block of the README and the docs runs, page by page, in order, as a reader would run it."""

import re
from collections import Counter
from pathlib import Path

import pytest

from tests.test_public_api import NAMESPACES, PUBLIC

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def _blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), flags=re.M | re.S)


@pytest.mark.parametrize("page", [p for p in PAGES if _blocks(p)], ids=lambda p: str(p.relative_to(ROOT)))
def test_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "__main__"}
    for number, block in enumerate(_blocks(page), 1):
        exec(compile(block, f"{page.name}, block {number}", "exec"), namespace)


def test_the_readme_has_blocks() -> None:
    assert len(_blocks(ROOT / "README.md")) >= 2


def test_every_public_module_is_on_one_page_of_the_api() -> None:
    pages = (ROOT / "docs" / "reference").glob("*.md")
    shown = Counter(name for page in pages for name in re.findall(r"^::: (\S+)$", page.read_text(), flags=re.M))
    assert {name: count for name, count in shown.items() if count > 1} == {}
    homes = {getattr(value, "__module__", "") for _, value in PUBLIC} | {f"bayesmeta.{name}" for name in NAMESPACES}
    assert {name for name in homes if name.startswith("bayesmeta.")} - set(shown) == set()

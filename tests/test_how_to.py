"""The pages of how-to: each is in the index and the navigation, begins with what works, and says where to go next."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "docs" / "how_to"
PAGES = sorted(page for page in FOLDER.glob("*.md") if page.name != "index.md")
SHOWS = {"common_errors.md"}  # what to do, but nothing that runs


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_answers_its_question_first(page: Path) -> None:
    title, _, rest = page.read_text().partition("\n\n")
    opening = rest.partition("\n## ")[0]
    assert title.startswith("# ")
    assert opening[0].isupper() or opening[0] == "`"  # a sentence, before all else
    assert page.name in SHOWS or re.search(r"^ *```(python|sh|console)$|^\| ", opening, flags=re.M)
    assert re.search(r"^## Next$", rest, flags=re.M), "where to go next"


def test_the_index_and_the_navigation_have_every_page() -> None:
    index = (FOLDER / "index.md").read_text()
    listed = re.findall(r"^- \[.*?\]\(([a-z_0-9]+\.md)\): .+[.]$", index, flags=re.M)
    assert sorted(listed) == [page.name for page in PAGES]
    navigation = (ROOT / "mkdocs.yml").read_text()
    assert [page.name for page in PAGES if f": how_to/{page.name}\n" not in navigation] == []

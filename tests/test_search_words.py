"""What the site's search is asked: an error message that was pasted without the words that every page has."""

from pathlib import Path

import pytest

from tests.browser import Browser

SCRIPT = (Path(__file__).parent.parent / "docs" / "assets" / "search.js").read_text()
# a worker that keeps what it is told, in the place of the search's own
ASKED = """(() => {
  const told = [];
  globalThis.Worker = class { postMessage(message) { told.push(message); } };
  %s
  new Worker().postMessage({ type: %d, data: %r });
  return told[0].data;
})()"""


@pytest.mark.parametrize(
    ("query", "asked"),
    [
        ("GPU", "GPU"),
        ("missing values NaN", "missing values NaN"),
        ("what to do", "what to do"),  # nothing would be left
        ('"one of these words"', '"one of these words"'),  # a phrase
        ("expected x of shape (1, M, 2), got (1, 3)", "expected shape"),
        ("expected numbers in column 'day', got '14 d' in row 3", "expected numbers column row"),
        ("max_skipped is not a number", "max_skipped number"),
        ("don't the tasks of today's table fit", "don tasks today table fit"),  # an apostrophe quotes nothing
    ],
)
def test_words_that_every_page_has_are_not_searched_for(browser: Browser, query: str, asked: str) -> None:
    browser.open("about:blank")
    assert browser.evaluate(ASKED % (SCRIPT, 2, query)) == asked


def test_what_is_no_query_is_passed_on(browser: Browser) -> None:
    browser.open("about:blank")
    assert browser.evaluate(ASKED % (SCRIPT, 0, "expected x of shape (1, M, 2)")) == "expected x of shape (1, M, 2)"

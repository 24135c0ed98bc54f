"""The report in a real browser: it asks for nothing, complains of nothing, and all of it is seen."""

import re
from pathlib import Path

import pytest

from bayesmeta.reporting.report import report
from bayesmeta.tasks.dataset import TaskDataset
from tests.browser import Browser
from tests.evaluation.exact import NormalMean, normal_tasks

HOSTILE = [
    "<script>document.title = 'taken'</script>",
    "<img src=x onerror=\"document.title='taken'\">",
    '"><svg onload="document.title=\'taken\'">',
    "</style><style>body { display: none }</style>",
    "</title><link rel=stylesheet href=https://example.org/x.css>",
]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tasks = TaskDataset(normal_tasks(6, 9, seed=0).data, [*HOSTILE, "a"])
    path = tmp_path_factory.mktemp("report") / "report.html"
    made = report(NormalMean(), tasks, (2,), examples=1, num_bootstrap=20, title=HOSTILE[0], facts=[(HOSTILE[2],) * 2])
    made.write(path)
    return path


@pytest.mark.parametrize("width", [1200, 390])
def test_nothing_is_asked_for_and_all_is_seen(browser: Browser, written: Path, width: int) -> None:
    browser.requests.clear()
    browser.complaints.clear()
    browser.open(written.as_uri(), width)
    asked = [url for url in browser.requests if not url.startswith("data:")]
    assert asked == [written.as_uri()]
    assert browser.complaints == []
    assert browser.evaluate("document.title") == HOSTILE[0]
    assert browser.evaluate("document.scripts.length") == 0
    assert browser.evaluate("document.styleSheets.length") == 1
    assert browser.evaluate("document.images.length") == 0
    drawn = browser.evaluate(
        "[...document.querySelectorAll('figure svg')].map(i => i.getAttribute('aria-label').length > 20 "
        "&& i.clientWidth > 150 && i.getBBox().width > 150 && i.querySelectorAll('text').length > 3)"
    )
    assert len(drawn) == 6
    assert all(drawn)
    # letters that can be read: of 7 pixels and more
    heights = browser.evaluate(
        "[...document.querySelectorAll('figure text')].map(t => { const b = t.getBoundingClientRect(); "
        "return Math.min(b.width, b.height) }).filter(size => size > 0)"
    )
    assert min(heights) >= 4.0  # a minus sign, or a digit, is narrow
    # the page itself never scrolls sideways, a wide table does
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.evaluate("document.querySelector('main').offsetHeight") > 1000
    texts = browser.evaluate("document.body.innerText")
    assert all(name in texts for name in HOSTILE)


COLOURS = """(() => {
    const style = each => getComputedStyle(each), figure = document.querySelector('figure svg');
    const paper = style(document.body).backgroundColor, ink = style(document.body).color;
    const text = style(figure.querySelector('text')).fill;
    const lines = [...figure.querySelectorAll('path')].map(p => style(p).stroke).filter(c => c != 'none');
    return [paper, ink, text, ...new Set(lines)];
})()"""


def test_by_night_and_in_print(browser: Browser, written: Path) -> None:
    """Letters and lines are far from their paper in brightness: by day, by night and in print."""

    def brightness(colour: str) -> float:
        return sum(float(part) for part in re.findall(r"[\d.]+", colour)[:3]) / (3.0 * 255.0)

    for media, scheme, is_dark in (
        ("screen", "light", False),
        ("screen", "dark", True),
        ("print", "dark", False),
    ):
        feature = {"name": "prefers-color-scheme", "value": scheme}
        browser.call("Emulation.setEmulatedMedia", media=media, features=[feature])
        browser.open(written.as_uri())
        paper, ink, text, *lines = (brightness(colour) for colour in browser.evaluate(COLOURS))
        assert (paper < 0.2) == is_dark
        assert text == ink
        assert all(abs(colour - paper) > 0.25 for colour in (ink, *lines)), (media, scheme, lines)
    browser.call("Emulation.setEmulatedMedia", media="", features=[])


def test_the_check_would_see_what_is_wrong(browser: Browser, written: Path, tmp_path: Path) -> None:
    """The policy of the page stops an injected script, style and image, and the browser says so."""
    injected = (
        "<main><script>document.title = 'taken'</script><img src='http://127.0.0.1:9/x.png' alt=''>"
        "<style>h1 { display: none }</style>"
    )
    broken, free = tmp_path / "broken.html", tmp_path / "free.html"
    text = written.read_text().replace("<main>", injected)
    broken.write_text(text)
    free.write_text(text.replace("Content-Security-Policy", "none"))
    browser.complaints.clear()
    browser.open(broken.as_uri())
    assert len([line for line in browser.complaints if "Content Security Policy" in line]) == 3
    assert browser.evaluate("document.title") == HOSTILE[0]
    assert browser.evaluate("document.querySelector('h1').offsetHeight") > 0
    browser.requests.clear()
    browser.open(free.as_uri())
    assert "http://127.0.0.1:9/x.png" in browser.requests
    assert browser.evaluate("document.title") == "taken"

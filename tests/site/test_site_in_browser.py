"""The whole site in a real browser with no network but this machine: all is there, all is seen, and search finds it."""

import functools
import http.server
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from docs.tools import check_site
from tests.browser import Browser

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
WORDS = {
    "install gpu": "how_to/install/",
    "missing values": "how_to/",
    "lme4": "start/from_lme4/",
    "botorch": "how_to/botorch/",
    "few tasks": "how_to/",
    "resume": "how_to/",
    "checkpoint": "how_to/",
    "known noise": "how_to/",
    "conformal": "how_to/",
    "categories": "how_to/",
    "several outcomes": "how_to/",
    "detection limit": "how_to/",
    "read the report": "how_to/",
    "compare two models": "how_to/",
    "serve http": "how_to/",
    "export onnx": "how_to/",
    "which method": "start/how_to_choose/",
    "maml": "methods/maml/",
    "alpaca": "methods/alpaca/",
    "prototypical": "methods/prototypical/",
    "notation": "concepts/notation/",
    "calibration": "concepts/calibration/",
    "hierarchical bayes": "concepts/one_idea/",
    "pendulum": "tutorials/robot_dynamics/",
    "battery": "tutorials/sensor_forecast/",
}
"""What a user types, and where the first result leads."""


class _Silent(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("mkdocs")
    folder = tmp_path_factory.mktemp("site")
    call = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(call, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert check_site.faults(folder) == []
    return folder


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Silent, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


def test_every_page_is_whole_on_a_phone(browser: Browser, site: Path, address: str) -> None:
    faults, formulas, figures = [], 0, 0
    for file in sorted(site.rglob("index.html")):
        page = file.parent.relative_to(site).as_posix()
        browser.requests.clear()
        browser.complaints.clear()
        browser.open(f"{address}{page}/" if page != "." else address, width=390)
        faults += [f"{page}: asks for {url}" for url in browser.requests if not url.startswith((address, "data:"))]
        faults += [f"{page}: {text}" for text in browser.complaints]
        width = browser.evaluate("document.documentElement.scrollWidth")
        faults += [f"{page}: {width} pixels wide"] if width > 390 else []
        seen = browser.evaluate(
            "[...document.querySelectorAll('.maths .katex-html')].map(e => e.getBoundingClientRect().width > 0)"
        )
        drawn = browser.evaluate(
            "[...document.querySelectorAll('figure.drawn > svg')].map(e => e.closest('details:not([open])') !== null"
            " || e.clientWidth > 100)"
        )
        faults += [f"{page}: {seen.count(False)} formulas are not seen"] if False in seen else []
        faults += [f"{page}: {drawn.count(False)} figures are not seen"] if False in drawn else []
        formulas, figures = formulas + len(seen), figures + len(drawn)
    print(f"{len(list(site.rglob('index.html')))} pages, {formulas} formulas, {figures} figures")
    assert faults == []
    assert formulas > 300
    assert figures > 60


@pytest.mark.parametrize(("words", "page"), WORDS.items())
def test_search_finds_the_right_page_first(browser: Browser, address: str, words: str, page: str) -> None:
    browser.open(address, width=1200)
    first = browser.evaluate(
        f"""(async () => {{
            const input = document.querySelector('[data-md-component=search-query]');
            document.querySelector('#__search').click();
            input.focus();
            input.value = {words!r};
            for (let tries = 0; tries < 100; tries++) {{
                input.dispatchEvent(new Event('input', {{bubbles: true}}));
                input.dispatchEvent(new KeyboardEvent('keyup', {{bubbles: true}}));
                await new Promise(done => setTimeout(done, 100));
                const link = document.querySelector('.md-search-result__item .md-search-result__link');
                if (link) return link.href;
            }}
            return '';
        }})()"""
    )
    assert str(first).removeprefix(address).startswith(page), first


@pytest.mark.parametrize(("scheme", "dark"), [("light", False), ("dark", True)])
def test_figures_are_read_by_day_and_by_night(browser: Browser, address: str, scheme: str, dark: bool) -> None:
    browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    browser.open(address, width=1200)
    browser.evaluate("localStorage.clear()")
    browser.open(address, width=1200)
    shown = "document.querySelector('figure.drawn > svg')"
    colours = browser.evaluate(
        f"[getComputedStyle({shown}).fill, getComputedStyle(document.body).backgroundColor,"
        f" ...['--paper', '--blue'].map(name => {{ const probe = document.createElement('i');"
        f" probe.style.color = `var(${{name}})`; {shown}.parentElement.append(probe);"
        " return getComputedStyle(probe).color; })]"
    )
    browser.call("Emulation.setEmulatedMedia", features=[])
    ink, behind, paper, blue = (_lightness(colour) for colour in colours)
    assert paper == behind  # no box around a figure
    assert (behind < 0.3) == dark
    assert abs(ink - behind) > 0.4
    assert abs(blue - behind) > 0.2


def _lightness(colour: str) -> float:
    """From 0 to 1, of a colour as browsers write it; what is seen through is taken for the colour itself."""
    red, green, blue = (float(number) for number in re.findall(r"[\d.]+", colour)[:3])
    return (0.3 * red + 0.6 * green + 0.1 * blue) / 255

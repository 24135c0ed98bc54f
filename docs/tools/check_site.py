"""Checks a built site without a network: `python -m docs.tools.check_site site`.

Every link, picture, script and style within the site exists, places within pages included; nothing is loaded from
another server; no two parts of a page have one name; pictures are described in words; formulas are formulas.
"""

import re
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADS = {
    ("script", "src"),
    ("img", "src"),
    ("img", "srcset"),
    ("source", "srcset"),
    ("iframe", "src"),
    ("link", "href"),
    ("use", "href"),
    ("image", "href"),
}
FOR_PROGRAMS = ("javascript:", "data:", "mailto:")
# what is left of formulas, markers and files that nothing has read: in the text of a page, and in its HTML
LEFTOVER = re.compile(r"\$\$|\\(?:frac|theta|phi|mathcal|operatorname)\b|^(?:\?\?\?|===|!!!) ")
SIGNS = {
    'class="arithmatex"': "a formula that was not rendered",
    "<!-- method": "a marker that nothing replaced",
    "<!-- plate": "a marker that nothing replaced",
    "<!-- gallery": "a marker that nothing replaced",
    "--8&lt;": "a file that was not included",
    "--8 &lt;": "a file that was not included",
}


class Page(HTMLParser):
    """What a page names, and what is wrong with it alone."""

    def __init__(self, text: str) -> None:
        """Read a page."""
        super().__init__()
        self.ids: Counter[str] = Counter()
        self.anchors: set[str] = set()
        self.links: list[tuple[str, bool, int]] = []
        self.faults: list[str] = []
        self._within: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Called for every tag that opens."""
        given = {name: value or "" for name, value in attrs}
        line = self.getpos()[0]
        if given.get("id"):
            self.ids[given["id"]] += 1
        if tag == "a" and given.get("name"):
            self.anchors.add(given["name"])
        if tag == "img" and not given.get("alt"):
            self.faults.append(f"line {line}: a picture without words: {given.get('src')}")
        if tag == "svg" and given.get("role") == "img" and not given.get("aria-label"):
            self.faults.append(f"line {line}: a figure without words")
        for key in ("href", "src", "srcset"):
            if given.get(key) and not (tag == "link" and given.get("rel") in ("canonical", "edit", "next", "prev")):
                self.links.append((given[key], (tag, key) in LOADS, line))
        if tag in ("code", "pre", "script", "style", "annotation", "svg"):
            self._within.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Called for every tag that closes."""
        if self._within and self._within[-1] == tag:
            self._within.pop()

    def handle_data(self, data: str) -> None:
        """Called for the text between tags."""
        if not self._within and LEFTOVER.search(data):
            self.faults.append(f"line {self.getpos()[0]}: Markdown that was not read: {data.strip()[:60]}")

    def has(self, place: str) -> bool:
        """Whether a link to a place of this page leads somewhere."""
        return place in self.ids or place in self.anchors or place.startswith(("__", ":~:"))


def faults(site: Path) -> list[str]:
    """What is wrong with a site, in lines; that it has no pages is wrong, too."""
    texts = {file: file.read_text() for file in sorted(site.rglob("*.html"))}
    pages = {file: Page(text) for file, text in texts.items()}
    found = [] if pages else ["no pages"]
    for file, page in pages.items():
        name = file.relative_to(site)
        found += [f"{name}: {fault}" for fault in page.faults]
        found += [f"{name}: the name {key!r} stands {count} times" for key, count in page.ids.items() if count > 1]
        found += [f"{name}: {what}" for sign, what in SIGNS.items() if sign in texts[file]]
        for link, loads, line in page.links:
            wrong = _wrong(link, loads, file, site, pages)
            found += [f"{name}:{line}: {wrong}"] if wrong else []
    for file in sorted(site.rglob("*.css")):
        elsewhere = re.findall(r"(?:url\(|@import )[\"']?(https?://[^\"')]+)", file.read_text())
        found += [f"{file.relative_to(site)}: loads {address}" for address in elsewhere]
        missing = re.findall(r"url\([\"']?(?!data:|https?:|#)([^\"')?#]+)", file.read_text())
        found += [f"{file.relative_to(site)}: no such file: {n}" for n in missing if not (file.parent / n).is_file()]
    return found


def _wrong(link: str, loads: bool, file: Path, site: Path, pages: dict[Path, Page]) -> str:
    """What is wrong with a link of a page; empty if nothing is."""
    parts = urlsplit(link)
    if link.startswith(FOR_PROGRAMS):
        return ""
    if parts.scheme or parts.netloc:
        return f"loads {link}" if loads else ""
    target = file
    if parts.path.startswith("/"):
        target = site / unquote(parts.path[1:])
    elif parts.path:
        target = (file.parent / unquote(parts.path)).resolve()
    target = target / "index.html" if target.is_dir() else target
    if not target.is_file():
        return f"no such file: {link}"
    if parts.fragment and target in pages and not pages[target].has(unquote(parts.fragment)):
        return f"no such place: {link}"
    return ""


if __name__ == "__main__":
    folder = Path(sys.argv[1]).resolve()
    every = faults(folder)
    print("\n".join(every) or f"{len(list(folder.rglob('*.html')))} pages, no broken link, nothing from elsewhere")
    sys.exit(bool(every))

"""The site as one text for programs that read it, llms.txt: every page with its title and its first sentence."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

HEADINGS = {
    "start": "Start",
    "tutorials": "Tutorials",
    "how_to": "How-to",
    "methods": "Methods",
    "concepts": "Concepts",
    "reference": "Reference",
    "benchmarks": "Benchmarks",
    "project": "Project",
}


@dataclass(frozen=True)
class Entry:
    """A page: its folder (empty for a page of none), its address, its title and the first sentence."""

    section: str
    address: str
    title: str
    sentence: str


def sentence(markdown: str) -> str:
    """The first sentence of a page, without Markdown's marks; empty if it begins with something else."""
    for paragraph in re.split(r"\n\s*\n", markdown):
        text = " ".join(paragraph.split())
        if text and not re.match(r"#|<|```|\||!|\[Download|It ran in|---|:::|\?\?\?", text):
            plain = re.sub(r"\[([^\]]*)\](?:\([^)]*\)|\[[^\]]*\])", r"\1", text).replace("**", "").replace("`", "")
            return re.split(r"(?<=[.?!:])\s", plain)[0]
    return ""


def pages(files: Iterable[Any]) -> list[Entry]:
    """Those of MkDocs' files."""
    found = []
    for file in files:
        page = file.page
        if page is not None and page.markdown is not None:
            section = file.src_uri.partition("/")[0] if "/" in file.src_uri else ""
            found.append(Entry(section, page.url, str(page.title), sentence(page.markdown)))
    return found


def outline(name: str, description: str, entries: Sequence[Entry]) -> str:
    """All pages, section by section."""
    parts = [f"# {name}\n\n> {description}\n"]
    for section, heading in HEADINGS.items():
        own = [entry for entry in entries if entry.section == section]
        if own:
            lines = [f"- [{entry.title}]({entry.address}): {entry.sentence}\n" for entry in own]
            parts.append(f"\n## {heading}\n\n{''.join(lines)}")
    return "".join(parts)

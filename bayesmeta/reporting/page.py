"""One HTML file that asks nothing of anybody: style and figures are in it, and its policy forbids all that is not.

Everything that comes from outside (names of tasks and columns, titles) goes through `escape`.
"""

import base64
import hashlib
import html
import re
from collections.abc import Sequence
from dataclasses import dataclass

from bayesmeta.evaluation.conclusions import Conclusion, Verdict

# The palette of Okabe & Ito, darkened where it is text on white, and lightened on black; every mark is also a shape and
# a word. A page is printed as by day.
STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --ink: #1b2126; --line: #d5dbe1; --soft: #f4f6f8; --quiet: #515b66;
  --link: #005a91; --good: #005a91; --problem: #a34700; --rule: #8793a0;
  --blue: #0072b2; --vermillion: #d55e00; --green: #009e73; --orange: #e69f00; --purple: #cc79a7; --sky: #56b4e9; }
@media screen and (prefers-color-scheme: dark) {
  :root { --paper: #14181c; --ink: #e6eaee; --line: #3a434c; --soft: #1e252b; --quiet: #a7b2bd;
    --link: #7cc4f2; --good: #7cc4f2; --problem: #ff9a57; --rule: #66727e;
    --blue: #4aa8e0; --vermillion: #f27a2a; --green: #2fc79a; --orange: #f0b43a; --purple: #dd9bc0; --sky: #3f7ea6; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.2rem 1rem 3rem; max-width: 62rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .3rem; }
h2 { font-size: 1.25rem; margin: 2.4rem 0 .5rem; padding-top: .6rem; border-top: 2px solid var(--line); }
h3 { font-size: 1.02rem; margin: 1.4rem 0 .3rem; }
p { margin: .4rem 0 .7rem; max-width: 46rem; }
a { color: var(--link); }
.quiet { color: var(--quiet); font-size: .9rem; }
nav ul { list-style: none; display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; margin: .8rem 0 0; padding: 0; }
.facts { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; margin: .8rem 0; font-size: .92rem; }
.facts dt { color: var(--quiet); }
.facts dd { margin: 0; }
.lines { margin: .4rem 0; padding-left: 1.2rem; max-width: 46rem; }
.conclusions { list-style: none; margin: .6rem 0; padding: 0; }
.conclusions > li { display: grid; grid-template-columns: 9.5rem 1fr; gap: .1rem 1rem; padding: .55rem .8rem;
  border-left: 5px solid var(--line); margin-bottom: .5rem; background: var(--soft); }
.conclusions .topic { font-weight: 600; }
.conclusions .outcome { display: block; font-size: .92rem; }
.conclusions .verdict { display: block; font-size: .88rem; font-weight: 600; white-space: nowrap; }
code { font-size: .92em; white-space: nowrap; }
.conclusions > .good { border-color: var(--blue); }
.conclusions > .rough { border-color: var(--blue); border-left-style: dotted; }
.conclusions > .problem { border-color: var(--vermillion); }
.conclusions > .unknown { border-color: var(--quiet); border-left-style: dashed; }
.good .verdict, .rough .verdict { color: var(--good); }
.problem .verdict { color: var(--problem); }
.unknown .verdict, .note .verdict { color: var(--quiet); }
.advice { margin-top: .2rem; }
.advice::before { content: "→ "; color: var(--quiet); }
.numbers { list-style: none; display: flex; flex-wrap: wrap; gap: .1rem 1.1rem; margin: .25rem 0 0; padding: 0;
  font-size: .9rem; color: var(--quiet); font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; margin: .6rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .92rem; overflow-wrap: normal; }
th, td { padding: .32rem .7rem; text-align: right; border-bottom: 1px solid var(--line); vertical-align: top; }
thead th { border-bottom: 2px solid var(--rule); vertical-align: bottom; }
th.text, td.text { text-align: left; overflow-wrap: anywhere; min-width: 7rem; }
td small { display: block; color: var(--quiet); white-space: nowrap; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(15.5rem, 100%), 1fr)); gap: .8rem;
  margin: .7rem 0; }
.narrow { grid-template-columns: repeat(auto-fit, minmax(min(13rem, 100%), 1fr)); }
figure { margin: 0; max-width: 27rem; break-inside: avoid; }
figure svg { display: block; width: 100%; height: auto; }
figure svg text { fill: var(--ink); }
figure svg * { stroke-linejoin: round; stroke-linecap: butt; }
figcaption { font-size: .88rem; color: var(--quiet); }
.terms dt { font-weight: 600; margin-top: .4rem; }
.terms dd { margin: 0; }
@media (max-width: 38rem) {
  .conclusions > li { grid-template-columns: 1fr; }
  .conclusions .outcome, .conclusions .verdict { display: inline; margin-left: .6rem; }
  .facts { grid-template-columns: 1fr; gap: 0; }
  .facts dt { margin-top: .3rem; }
  th, td { padding: .32rem .45rem; }
}
@media print {
  body { max-width: none; padding: 0; font-size: 10pt; } nav { display: none; }
  h2, h3 { break-after: avoid; } .conclusions > li, tr, figure { break-inside: avoid; }
  .scroll { overflow: visible; } table { font-size: 8pt; } th, td { padding: .2rem .35rem; }
  .figures { grid-template-columns: repeat(3, 1fr); } .narrow { grid-template-columns: repeat(4, 1fr); }
}
"""

MARKS = {Verdict.GOOD: "✓", Verdict.ROUGH: "≈", Verdict.PROBLEM: "✗", Verdict.UNKNOWN: "?", Verdict.NOTE: "•"}


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        anchor: its id, letters only.
        title: plain text.
        body: HTML.
    """

    anchor: str
    title: str
    body: str


def page(title: str, facts: Sequence[tuple[str, str]], sections: Sequence[Section]) -> str:
    """The whole file."""
    digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts)
    links = "".join(f'<li><a href="#{each.anchor}">{escape(each.title)}</a></li>' for each in sections)
    bodies = "\n".join(
        f'<section id="{each.anchor}">\n<h2>{escape(each.title)}</h2>\n{each.body}\n</section>' for each in sections
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>{escape(title)}</title>
<link rel="icon" href="data:,">
<style>{STYLE}</style>
</head>
<body>
<header>
<h1>{escape(title)}</h1>
<dl class="facts">{rows}</dl>
<nav aria-label="Contents"><ul>{links}</ul></nav>
</header>
<main>
{bodies}
</main>
</body>
</html>
"""


def escape(value: object) -> str:
    """Text as it is, whatever it holds: no tag, no entity, no control character, no change of writing direction."""
    text = "".join(c if c.isprintable() or c == " " else "\N{REPLACEMENT CHARACTER}" for c in str(value))
    return html.escape(text)


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph of plain text."""
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def listed(conclusions: Sequence[Conclusion]) -> str:
    """Conclusions, each with its verdict as a mark, a word and a colour."""
    items = []
    for each in conclusions:
        numbers = "".join(f"<li>{escape(number)}</li>" for number in each.numbers)
        more = f'<ul class="numbers">{numbers}</ul>' if numbers else ""
        more += f'<div class="advice">{_with_options(each.advice)}</div>' if each.advice else ""
        outcome = f'<span class="outcome">{escape(each.outcome)}</span> ' if each.outcome else ""
        items.append(
            f'<li class="{each.verdict.name.lower()}"><div><span class="topic">{escape(each.topic)}</span> {outcome}'
            f'<span class="verdict"><span aria-hidden="true">{MARKS[each.verdict]}</span> '
            f"{escape(each.verdict.value)}</span></div><div>{escape(each.text)}{more}</div></li>"
        )
    return f'<ul class="conclusions">{"".join(items)}</ul>'


def _with_options(text: str) -> str:
    """Text in which options of commands are not broken at their hyphens."""
    return re.sub(r"--[a-z]+( [\d.]+)?", lambda found: f"<code>{found.group()}</code>", escape(text))


def table(
    heads: Sequence[str], rows: Sequence[Sequence[str | tuple[str, str]]], label: str, text_columns: Sequence[int] = ()
) -> str:
    """A table that scrolls by itself where the screen is narrow; a cell is a text or (text, what is below it)."""
    kinds = [' class="text"' if i in text_columns else "" for i in range(len(heads))]
    top = "".join(f'<th scope="col"{kind}>{escape(head)}</th>' for head, kind in zip(heads, kinds, strict=True))
    body = ""
    for row in rows:
        cells = [cell if isinstance(cell, tuple) else (cell, "") for cell in row]
        body += "<tr>" + "".join(
            f"<td{kind}>{escape(text)}{f'<small>{escape(below)}</small>' if below else ''}</td>"
            for (text, below), kind in zip(cells, kinds, strict=True)
        )
        body += "</tr>"
    return (
        f'<div class="scroll" role="region" aria-label="{escape(label)}" tabindex="0">'
        f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def lines(texts: Sequence[str]) -> str:
    """A list of plain lines."""
    return f'<ul class="lines">{"".join(f"<li>{escape(text)}</li>" for text in texts)}</ul>'


def figure(svg: str, caption: str) -> str:
    """A figure: SVG that has words for those who cannot see it (`inline_svg`), and what to call it."""
    return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>"


def figures(items: Sequence[str], narrow: bool = False) -> str:
    """Figures side by side where there is room: three, or four narrow ones."""
    return f'<div class="figures{" narrow" if narrow else ""}">{"".join(items)}</div>'


def terms(pairs: Sequence[tuple[str, str]]) -> str:
    """A list of explanations."""
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in pairs)
    return f'<dl class="terms">{rows}</dl>'

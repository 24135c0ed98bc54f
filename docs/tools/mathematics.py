"""Formulas become HTML while the site is built, by KaTeX: a reader's browser runs nothing, and asks no other server.

KaTeX, its style sheet and its fonts are those of the package jupyterlab-katex, a bundle of JavaScript modules that
QuickJS runs. `mathematics` takes the HTML of a page in which Arithmatex has marked the formulas; `assets` gives the
files that the pages need.
"""

import functools
import html
import json
import re
import sysconfig
from collections.abc import Mapping
from pathlib import Path

import quickjs

MACROS = {
    r"\N": r"\mathcal N",
    r"\MN": r"\mathcal{MN}",
    r"\E": r"\mathbb E",
    r"\T": r"^{\mathsf T}",
    r"\KL": r"\operatorname{KL}",
    r"\Var": r"\operatorname{Var}",
    r"\Cov": r"\operatorname{Cov}",
}
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
# relative to the data folder of an environment
EXTENSION = Path("share/jupyter/labextensions/@jupyterlab/katex-extension/static")
FOLDER = "assets/katex"

# What the bundle expects of the program around it: a table of modules by number, and `need` to get one.
LOADER = """
var self = globalThis, modules = {}, made = {};
self.webpackChunk_jupyterlab_katex_extension = { push: ([names, more]) => Object.assign(modules, more) };
class URL { constructor(path) { this.path = path } toString() { return this.path } }
function need(number) {
  if (!(number in made)) {
    const module = made[number] = { id: number, exports: {} };
    if (number in modules) modules[number].call(module.exports, module, module.exports, need);
    else module.exports = need.around;
  }
  return made[number].exports;
}
need.n = (module) => () => module;
need.d = (to, getters) => { for (const name in getters) Object.defineProperty(to, name, { get: getters[name] }) };
need.r = () => {};
need.p = ""; need.b = "";
// three helpers of the style sheet lie outside the bundle: one makes a list, two give back what they get
need.around = (given) => typeof given === "function" ? Object.assign([], { i: () => {} }) : given;
"""


class MathematicsError(Exception):
    """A formula that KaTeX does not read."""


def _static() -> Path:
    folder = Path(sysconfig.get_path("data")) / EXTENSION
    if not folder.is_dir():
        raise MathematicsError("expected the package jupyterlab-katex: pip install '.[docs]'")
    return folder


@functools.cache
def _engine() -> quickjs.Context:
    context = quickjs.Context()
    context.eval(LOADER)
    for path in sorted(_static().glob("[0-9]*.js")):
        context.eval(f"{path.read_text()};0")
    return context


def _module(sign: str) -> str:
    """The number of the one module whose source holds `sign`."""
    found = json.loads(
        _engine().eval(
            f"JSON.stringify(Object.keys(modules).filter((n) => modules[n].toString().includes({json.dumps(sign)})))"
        )
    )
    if len(found) != 1:
        raise MathematicsError(f"expected one module of KaTeX with {sign!r}, got {found}")
    return str(found[0])


@functools.cache
def rendered(tex: str, display: bool = False) -> str:
    """A formula as HTML, with MathML in it for those who listen.

    Raises:
        MathematicsError: KaTeX does not read it; it says where and why.
    """
    call = (
        f"[(need({_module('renderToString')}).default || need({_module('renderToString')}))"
        f".renderToString({json.dumps(tex)}, {{displayMode: {json.dumps(display)}, throwOnError: true, "
        "strict: (code) => code === 'unicodeTextInMathMode' ? 'ignore' : 'error', "
        f"macros: {json.dumps(MACROS)}}})].join('')"  # join makes one string of a rope, which quickjs cannot return
    )
    try:
        return str(_engine().eval(call))
    except quickjs.JSException as error:
        raise MathematicsError(f"{str(error).splitlines()[0]}\n  in {tex}") from None


def mathematics(page: str) -> str:
    """The HTML of a page, with its formulas in the place of their TeX.

    Raises:
        MathematicsError: a formula is none.
    """

    def formula(match: re.Match[str]) -> str:
        tex = html.unescape(match[2]).strip()
        return f'<{match[1]} class="maths">{rendered(tex, match[1] == "div")}</{match[1]}>'

    return FORMULA.sub(formula, page)


def assets() -> Mapping[str, bytes]:
    """The style sheet, the fonts and the licence of KaTeX, by their paths in the site."""
    sheet = f"need({_module('KaTeX_Caligraphic')}).Z[0][1]"
    style = str(_engine().eval(f"['' + {sheet}].join('')"))
    style = re.sub(r",\s*url\([^)]*\)\s*format\('(?:woff|truetype)'\)", "", style)  # every browser of today reads woff2
    fonts = sorted(set(re.findall(r"url\(([^)]+)\)", style)))
    files = {f"{FOLDER}/{name}": (_static() / name).read_bytes() for name in fonts}
    licences = json.loads((_static() / "third-party-licenses.json").read_text())["packages"]
    (licence,) = [each["extractedText"] for each in licences if each["name"] == "katex"]
    return files | {f"{FOLDER}/katex.css": style.encode(), f"{FOLDER}/LICENSE.txt": str(licence).encode()}

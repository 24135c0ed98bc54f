"""Writes the pages "Errors and warnings", from the code: `python -m docs.tools.the_errors`.

Every sentence that the package can raise or warn with is found in its syntax trees: the arguments of the classes of
`bayesmeta.errors` and of `warnings.warn`, also where a function of the package makes the sentence, or is handed it.
What a sentence names only when it is raised (a column, a number) is shown as `…`. tests/test_errors_page.py says when
the pages are out of date, and when a message is made in a way that is not understood here.
"""

import ast
import re
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"
HOLE = "…"
MOST = 6  # forms of one sentence that are written out; of more, what differs is a hole
DEPTH = 6  # of functions that make parts of a sentence for each other

KINDS = {
    "DataError": "A value is not usable: a cell, a column, a label, an argument, a file. It is also a `ValueError`.",
    "ShapeError": "A tensor has the wrong number of axes, or the wrong size along one. It is also a `ValueError`.",
    "UnsupportedError": "The question makes sense, but this type has no answer. It is also a `NotImplementedError`.",
    "InferenceError": "A computation failed. It is also a `RuntimeError`; its attribute `task` says which task it was.",
    "ConvergenceWarning": "There is a result, and a reason not to trust it yet.",
    "PrecisionWarning": "Numbers became equal in a lower precision, or a matrix singular.",
    "OutcomeWarning": "An outcome column is probably not what it is taken for.",
    "CheckpointWarning": "A run folder (`bm.training.CheckpointWarning`) is not as it should be; the training goes on.",
    "UserWarning": "Other warnings.",
    "warning of the command line": "Lines on standard error that begin with `warning:`; results stay the same.",
}
# functions that make a whole sentence, which reaches `warn` among other things
MAKERS = {"bayesmeta.conformal_frames._unknown": "UserWarning"}
OPAQUE = {"said", "title", "name"}  # what describes a value that was given
# where an error is told again with more words around it: the sentence itself is another's
RETOLD = {
    "bayesmeta.cli.predict",
    "bayesmeta.conformal_frames",
    "bayesmeta.errors",
    "bayesmeta.learners.gradient.base",
    "bayesmeta.table_cells",
    "bayesmeta.training.distributed",
    "bayesmeta.training.divided",
}
WARNINGS = [kind for kind in KINDS if "arning" in kind]
PAGES_OF = {
    "reference/errors.md": [kind for kind in KINDS if kind != "DataError"],
    "reference/data_errors.md": ["DataError"],
}


@dataclass(frozen=True, order=True)
class Sentence:
    """One that the package can say, and the module that says it."""

    kind: str
    module: str
    text: str


@dataclass
class File:
    """A module of the package: its tree, functions by name (methods, too), calls, and where its imports are from."""

    module: str
    tree: ast.Module
    functions: dict[str, list[ast.FunctionDef]] = field(default_factory=lambda: defaultdict(list))
    calls: list[tuple[ast.Call, "Place"]] = field(default_factory=list)
    imported: dict[str, str] = field(default_factory=dict)

    def read(self, node: ast.AST, around: tuple[ast.FunctionDef, ...] = ()) -> None:
        """Note what stands below a node, which stands in these functions."""
        if isinstance(node, ast.Call):
            self.calls.append((node, Place(self, around)))
        if isinstance(node, ast.ImportFrom):
            self.imported |= {each.asname or each.name: node.module or "" for each in node.names}
        if isinstance(node, ast.FunctionDef):
            self.functions[node.name].append(node)
            around = (*around, node)
        for child in ast.iter_child_nodes(node):
            self.read(child, around)


@dataclass(frozen=True)
class Place:
    """Where an expression stands: its file, and the functions around it, the nearest last."""

    file: File
    around: tuple[ast.FunctionDef, ...]


@cache
def files() -> list[File]:
    """All modules of the package."""
    found = []
    for path in sorted((ROOT / "bayesmeta").rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        found.append(File(name, ast.parse(path.read_text())))
        found[-1].read(found[-1].tree)
    return found


@cache
def by_name() -> dict[str, list[tuple[File, ast.FunctionDef]]]:
    """The functions of the package by their names."""
    index: dict[str, list[tuple[File, ast.FunctionDef]]] = defaultdict(list)
    for file in files():
        for name, each in file.functions.items():
            index[name] += [(file, function) for function in each]
    return index


def called(node: ast.Call) -> str:
    """The last name of what is called."""
    return ast.unparse(node.func).rpartition(".")[2]


def definition(name: str, file: File) -> tuple[File, ast.FunctionDef] | None:
    """The function of that name: of this module, of the one that it is imported from, or the only one there is."""
    every = by_name().get(name, [])
    here = [each for each in every if each[0] is file]
    there = [each for each in every if each[0].module == file.imported.get(name)]
    found = here or there or every
    return found[0] if len(found) == 1 else None


def joined(parts: list[list[str]]) -> list[str]:
    """All forms of a text, whose parts have several each; parts with many become holes."""
    while parts and _count(parts) > MOST:
        parts = list(parts)
        parts[max(range(len(parts)), key=lambda i: len(parts[i]))] = [HOLE]
    found = [""]
    for part in parts:
        found = [before + each for before in found for each in part]
    return found


def _count(parts: list[list[str]]) -> int:
    count = 1
    for part in parts:
        count *= len(part)
    return count


def texts(node: ast.expr | None, place: Place, depth: int = 0) -> list[str]:
    """The forms that an expression of text can have, with holes for what is not known before it is raised."""
    if node is None or depth > DEPTH:
        return [HOLE]
    if isinstance(node, ast.Constant):
        return [node.value] if isinstance(node.value, str) else [HOLE]
    if isinstance(node, ast.JoinedStr):
        return joined([texts(part, place, depth) for part in node.values])
    if isinstance(node, ast.FormattedValue):
        return in_sentence(texts(node.value, place, depth + 1))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return joined([texts(node.left, place, depth), texts(node.right, place, depth)])
    if isinstance(node, ast.IfExp):
        return list(dict.fromkeys(texts(node.body, place, depth) + texts(node.orelse, place, depth)))
    if isinstance(node, ast.Name):
        return of_name(node.id, place, depth)
    if isinstance(node, ast.Attribute):
        return returned(node.attr, place, depth)
    if isinstance(node, ast.Call):
        if called(node) == "format" and isinstance(node.func, ast.Attribute):
            return [re.sub(r"\{.*?\}", HOLE, text) for text in texts(node.func.value, place, depth)]
        return returned(called(node), place, depth)
    return [HOLE]


def in_sentence(found: list[str]) -> list[str]:
    """The forms of a part: names and numbers are a hole, and so are endings such as an s."""
    said = [re.sub(r"\s+", " ", text) for text in found]
    return said if any(len(re.findall(r"[a-z]{2,}", text)) >= 2 for text in said) else [HOLE]


def of_name(name: str, place: Place, depth: int) -> list[str]:
    """What is assigned to a name in the functions around it, or in its module."""
    for body in (*reversed(place.around), place.file.tree):
        arguments = body.args if isinstance(body, ast.FunctionDef) else None
        values = _assigned(name, body)
        if arguments and not values and name in [each.arg for each in (*arguments.args, *arguments.kwonlyargs)]:
            return [HOLE]
        if values:
            found = [text for value in values for text in texts(value, place, depth + 1)]
            return list(dict.fromkeys(found))
    return [HOLE]


def _assigned(name: str, body: ast.AST) -> list[ast.expr]:
    found: list[ast.expr] = []
    for node in body.body if isinstance(body, ast.Module) else ast.walk(body):
        one = [node.target] if isinstance(node, (ast.AnnAssign, ast.NamedExpr)) else []
        targets = node.targets if isinstance(node, ast.Assign) else one
        value = getattr(node, "value", None)
        for target in targets:
            if isinstance(target, ast.Name) and target.id == name and isinstance(value, ast.expr):
                found.append(value)
            if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
                pairs = zip(target.elts, value.elts, strict=False)
                found += [each for to, each in pairs if isinstance(to, ast.Name) and to.id == name]
    return found


def returned(name: str, place: Place, depth: int) -> list[str]:
    """What the function (or property) of that name returns, if it is the only one and returns text."""
    found = None if name in OPAQUE else definition(name, place.file)
    if found is None or "str" not in ast.unparse(found[1].returns or ast.Constant("")):
        return [HOLE]
    inside = Place(found[0], (found[1],))
    values = [node.value for node in ast.walk(found[1]) if isinstance(node, ast.Return)]
    forms = [text for value in values for text in texts(value, inside, depth + 1)]
    return list(dict.fromkeys(forms)) or [HOLE]


def told(node: ast.Call, file: File) -> tuple[str, ast.expr] | None:
    """The kind and the message of a call that raises or warns; None of any other."""
    name = called(node)
    if not node.args:
        return None
    if name in KINDS and name not in WARNINGS:
        return name, node.args[0]
    if ast.unparse(node.func) == "warnings.warn":
        kind = ast.unparse(node.args[1]).rpartition(".")[2] if len(node.args) > 1 else "UserWarning"
        return kind, node.args[0]
    if name == "warn" and file.module.startswith("bayesmeta.cli") and not file.module.endswith("speaking"):
        return "warning of the command line", node.args[0]
    return None


def handed(kind: str, message: ast.expr, place: Place) -> tuple[str, int, str] | None:
    """Where a message is handed to a function that raises it: the function, the place of the argument, the kind."""
    if not (isinstance(message, ast.Name) and place.around):
        return None
    names = [each.arg for each in place.around[-1].args.args]
    if message.id not in names or _assigned(message.id, place.around[-1]):
        return None
    return place.around[-1].name, names.index(message.id) - (names[0] == "self"), kind


@dataclass(frozen=True)
class Found:
    """All sentences, and the modules with messages that are nothing but a hole: what is said is another's."""

    sentences: list[Sentence]
    holes: list[str]


@cache
def found() -> Found:
    """What the whole package says."""
    sentences, holes = set(), []
    work = [(file, place, *what) for file in files() for node, place in file.calls if (what := told(node, file))]
    for path, kind in MAKERS.items():
        module, _, name = path.rpartition(".")
        file = next(each for each in files() if each.module == module)
        sentences |= {Sentence(kind, module, text) for text in returned(name, Place(file, ()), 0) if text}
    while work:
        file, place, kind, message = work.pop()
        hand = handed(kind, message, place)
        if hand is not None:
            name, position, _ = hand
            for other in files():
                if name.startswith("_") and other is not file:
                    continue
                for each, at in other.calls:
                    if called(each) == name and len(each.args) > position >= 0:
                        work.append((other, at, kind, each.args[position]))
            continue
        forms = []
        for text in texts(message, place):
            said = re.sub(rf"{HOLE}({HOLE}|\s(?={HOLE}))*", HOLE, re.sub(r"\s+", " ", text)).strip()
            if len(re.findall(r"[A-Za-z]{2,}", said)) >= 2:
                forms.append(Sentence(kind, file.module, said))
        sentences |= set(forms)
        if not forms:
            holes.append(file.module)
    return Found(sorted(sentences), sorted(set(holes)))


def explained() -> dict[str, str]:
    """The sentences that how_to/common_errors.md has as headings or quotes, each with the anchor of its heading."""
    text = (DOCS / "how_to" / "common_errors.md").read_text()
    sections = re.split(r"^#+ (.*?) \{#([\w-]+)\}\n", text, flags=re.M)
    found = {}
    for heading, name, body in zip(sections[1::3], sections[2::3], sections[3::3], strict=True):
        quoted = [heading, *re.findall(r"^> (.*?)\s*$", body, flags=re.M)]
        found |= {sentence: name for line in quoted for sentence in re.findall(r"`(.*?)`", line)}
    return found


def is_said(quoted: str, sentence: str) -> bool:
    """Whether a quotation, with holes, is of this sentence: a part of it that both write alike."""
    return quoted.strip(f"{HOLE} ") in sentence


def code(text: str) -> str:
    """A sentence as it is printed, in Markdown."""
    fence = "``" if "`" in text else "`"
    space = " " if "`" in text else ""
    return f"{fence}{space}{text}{space}{fence}"


# each sentence is a heading, so that the search goes to it; there are too many for a table of contents
STYLE = """---
hide: [toc]
search: {boost: 0.8}
---

<style>.md-typeset .said { font-size: 0.8rem; font-weight: 400; margin: 0.4em 0; }</style>

"""
HEAD = """# Errors and warnings

Every sentence that bayesmeta can raise or warn with. Search for a few words of the one that you have, or use your
browser's search on this page; `…` stands for what only your data say: a column, a number, a task. [Common
errors](../how_to/common_errors.md) explains those that people meet most, and a sentence that is explained there links
to it. Errors about values, which are most, are on the page [Errors in data, arguments and files](data_errors.md).

A sentence says what was expected and what was found; where there is a remedy it ends with it. On the command line the
sentence follows `error:` or `warning:`, on standard error, and the exit status after an error is 2. In Python every
error is a `bm.BayesMetaError`, so that `except bm.BayesMetaError` catches whatever the library refuses on purpose.
Warnings go through Python's `warnings`: `warnings.simplefilter("error", bm.ConvergenceWarning)` makes errors of them.

This page is made from the code (`python -m docs.tools.the_errors`). The classes themselves are in the
[reference of errors](exceptions.md).
"""
DATA_HEAD = """# Errors in data, arguments and files

Every sentence of a `DataError`, by the module that says it. `…` stands for what only your data say: a column, a number,
a task. The [other errors and warnings](errors.md) have a page of their own, which also says how to read a sentence;
[common errors](../how_to/common_errors.md) explains those that people meet most. This page is made from the code
(`python -m docs.tools.the_errors`).
"""


def page(name: str) -> str:
    """A page of the sentences."""
    known = explained()
    by_kind: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for each in found().sentences:
        by_kind[each.kind][each.module].append(each.text)
    parts = [STYLE, HEAD if name == "reference/errors.md" else DATA_HEAD]
    for kind in PAGES_OF[name]:
        parts.append(f"\n## {kind[0].upper()}{kind[1:]}\n\n{KINDS[kind]}\n\n")
        for module, sentences in by_kind[kind].items():
            parts.append(f"**{module}**\n\n")
            for sentence in sentences:
                why = next((anchor for quoted, anchor in known.items() if is_said(quoted, sentence)), None)
                parts.append(f"### {code(sentence)} {{.said}}\n\n")
                parts.append(f"[Cause and cure](../how_to/common_errors.md#{why})\n\n" if why else "")
    return "".join(parts)


if __name__ == "__main__":
    for name in PAGES_OF:
        (DOCS / name).write_text(page(name))

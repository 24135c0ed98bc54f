"""Writes docs/reference/index.md, all public names in one table: `python -m docs.tools.the_names`.

What is said of a name is the first sentence of its docstring. tests/test_reference_pages.py says when the page is
out of date.
"""

import ast
import importlib
import importlib.util
import inspect
import itertools
import re
import types
from pathlib import Path

import bayesmeta as bm

DOCS = Path(__file__).parent.parent
PAGE = DOCS / "reference" / "index.md"

HEAD = """# Reference

All public names, in alphabetical order, each with what it is and the page that explains it. `bm` is
`import bayesmeta as bm`. A name that is on no line here is not public: it may change in any version.
[The command line](command_line.md) has a page of its own, and so has every bridge to another library:
[scikit-learn and skpro](sklearn.md), [ArviZ](arviz.md), [Pyro](pyro.md), [BoTorch and Ax](botorch.md),
[exported programs](exporting.md).

| name | what it is | page |
|---|---|---|
"""


def public() -> dict[str, object]:
    """All public names, as they are written after `bm.`, with what they name."""
    found: dict[str, object] = {}
    for name in bm.__all__:
        value = getattr(bm, name)
        if not isinstance(value, types.ModuleType):
            found[name] = value
            continue
        listed = getattr(value, "__all__", None) or [
            own
            for own, thing in vars(value).items()
            if not own.startswith("_") and getattr(thing, "__module__", None) == value.__name__
        ]
        found |= {f"{name}.{own}": getattr(value, own) for own in listed}
    return dict(sorted(found.items(), key=lambda item: (item[0].rpartition(".")[2].lower(), item[0])))


def home(name: str, value: object) -> tuple[str, str]:
    """The module that a public name is written in, and its name there.

    Raises:
        ValueError: no module of the package has it.
    """
    if isinstance(value, type) or inspect.isfunction(value):
        return value.__module__, value.__qualname__
    space = bm if "." not in name else importlib.import_module(f"bayesmeta.{name.partition('.')[0]}")
    own = name.rpartition(".")[2]
    stub = Path(space.__file__ or "").with_suffix(".pyi")
    source = stub if stub.is_file() else Path(space.__file__ or "")
    for node in ast.parse(source.read_text()).body:
        if isinstance(node, ast.ImportFrom) and any(alias.name == own for alias in node.names):
            return importlib.util.resolve_name("." * node.level + str(node.module), space.__name__), own
    raise ValueError(f"expected a module that has {name}")


def pages() -> dict[str, str]:
    """By module: the page of the reference that shows it."""
    return {
        module: path.name
        for path in sorted(PAGE.parent.glob("*.md"))
        for module in re.findall(r"^::: (\S+)$", path.read_text(), flags=re.M)
    }


def title(page: str) -> str:
    """That of a page of the reference."""
    return (PAGE.parent / page).read_text().partition("\n")[0].removeprefix("# ")


def documentation(name: str, value: object) -> str:
    """The docstring of a name; of a plain value, which has none, the string below it in its module.

    Raises:
        ValueError: there is none.
    """
    if isinstance(value, type) or inspect.isfunction(value):
        return inspect.cleandoc(value.__doc__ or "")
    module, own = home(name, value)
    body = ast.parse(inspect.getsource(importlib.import_module(module))).body
    for node, after in itertools.pairwise(body):
        targets = (
            node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", getattr(node, "name", None))]
        )
        said = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and str(after.value.value)
        if said and any(
            getattr(target, "id", None) == own or getattr(target, "name", target) == own for target in targets
        ):
            return inspect.cleandoc(said)
    raise ValueError(f"expected words below {own} in {module}")


def sentence(text: str) -> str:
    """The first one, as a cell of a table."""
    first = re.split(r"(?<=[.!?])\s+(?=[A-Z`*])|\n\s*\n", text.strip(), maxsplit=1)[0]
    code = re.split(r"(`[^`]*`)", " ".join(first.split()))
    return "".join(
        part.replace("|", r"\|") if part.startswith("`") else re.sub(r"([|*_<])", r"\\\1", part) for part in code
    )


def table() -> str:
    """The page docs/reference/index.md."""
    where, lines = pages(), []
    for name, value in public().items():
        module, own = home(name, value)
        page = where[module]
        said = sentence(documentation(name, value))
        lines.append(f"| [`bm.{name}`][{module}.{own}] | {said} | [{title(page)}]({page}) |\n")
    return HEAD + "".join(lines)


if __name__ == "__main__":
    PAGE.write_text(table())

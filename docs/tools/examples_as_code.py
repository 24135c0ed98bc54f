"""Shows docstrings as they are meant, where griffe, which reads them for the reference, has other conventions.

- `Example:` sections are code. Griffe knows `Examples:` alone, and takes the singular for a paragraph of prose, in
  which `>>>` is a quotation.
- In `Raises:` sections every error is an item. Griffe takes a line for one, and ours name several where there is room.
"""

import re
from typing import Any

import griffe

RAISES = re.compile(r"^( *)Raises:\n((?:(?:\1 +.*)?(?:\n|\Z))+)", flags=re.M)
ERROR = r"(?:[A-Z]\w*(?:Error|Warning|Interrupt)(?:, )?)+"


def examples_as_code(text: str) -> str:
    """A docstring whose examples have the name that griffe knows.

    Example:
        >>> examples_as_code("Double.\\n\\nExample:\\n    >>> 2\\n")
        'Double.\\n\\nExamples:\\n    >>> 2\\n'
    """
    return re.sub(r"^( *)Example:$", r"\1Examples:", text, flags=re.M)


def errors_apart(text: str) -> str:
    """A docstring with a line for each error that it names.

    Example:
        >>> print(errors_apart("Raises:\\n    ShapeError: x is long. DataError: x is\\n        empty."))
        Raises:
            ShapeError: x is long.
            DataError: x is
                empty.
    """

    def apart(match: re.Match[str]) -> str:
        indent = re.match(r" *", match[2])
        assert indent is not None
        items = re.sub(rf"(?<=[.;])\s+({ERROR}: )", rf"\n{indent[0]}\1", match[2])
        several = re.compile(rf"^({indent[0]})(\w+), (\w[\w, ]*): ((?:.*\n?(?!{indent[0]}\S))*)", flags=re.M)
        return f"{match[1]}Raises:\n{several.sub(_each, items)}"

    return RAISES.sub(apart, text)


def _each(match: re.Match[str]) -> str:
    """Errors that have one reason: each with it."""
    indent, first, others, reason = match.groups()
    return "".join(f"{indent}{name}: {reason.rstrip()}\n" for name in [first, *others.split(", ")])


class ExamplesAsCode(griffe.Extension):
    """Reads docstrings so."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Called for every module, class, function and attribute that has been read."""
        if obj.docstring is not None:
            obj.docstring.value = errors_apart(examples_as_code(obj.docstring.value))

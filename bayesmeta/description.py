"""How an object was constructed, as JSON: what a model folder stores instead of a pickle.

A class that inherits `Described` remembers the arguments of its constructor. `describe` turns the object into plain
JSON and `construct` builds a fresh one (with freshly initialised weights) from it. Only classes that inherit
`Described` and have been imported can be constructed, so a model folder cannot run foreign code.
"""

import functools
import inspect
from typing import Any

from bayesmeta.errors import DataError, UnsupportedError

_classes: dict[str, type["Described"]] = {}


class Described:
    """Remembers its constructor's arguments, so that it can be written to JSON and built again."""

    _arguments: dict[str, Any]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Register the class and wrap its constructor."""
        super().__init_subclass__(**kwargs)
        _classes[cls.__name__] = cls
        if "__init__" not in cls.__dict__:
            return
        original = cls.__init__
        signature = inspect.signature(original)

        @functools.wraps(original)
        def remember(self: "Described", *args: Any, **kwargs: Any) -> None:
            original(self, *args, **kwargs)
            if type(self) is cls:  # a parent's constructor must not overwrite the child's record
                bound = signature.bind(self, *args, **kwargs)
                bound.apply_defaults()
                # nn.Module and frozen dataclasses both refuse or redirect ordinary assignment
                object.__setattr__(self, "_arguments", dict(list(bound.arguments.items())[1:]))

        cls.__init__ = remember  # type: ignore[assignment, method-assign]


def describe(value: Any, where: str = "model") -> Any:
    """Plain JSON that `construct` turns into an equal, freshly initialised object.

    Raises:
        UnsupportedError: a constructor argument is neither plain JSON nor a `Described` object; `where` names it.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [describe(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, dict):
        return {str(key): describe(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, Described):
        arguments = getattr(value, "_arguments", {})
        inner = {key: describe(item, f"{where}.{key}") for key, item in arguments.items()}
        return {"class": type(value).__name__, "arguments": inner}
    raise UnsupportedError(
        f"expected {where} to be a number, a text, a list or a class that inherits bayesmeta.description.Described, "
        f"got {type(value).__name__}: it cannot be written to a model folder (save the learner's state_dict yourself)"
    )


def construct(description: Any) -> Any:
    """Build the object that `describe` described.

    Raises:
        DataError: the description names an unknown class or arguments that its constructor refuses.
    """
    if isinstance(description, list):
        return tuple(construct(item) for item in description)
    if not isinstance(description, dict):
        return description
    if set(description) != {"class", "arguments"}:
        return {key: construct(item) for key, item in description.items()}
    name = description["class"]
    if name not in _classes:
        raise DataError(
            f"expected a model made of known classes, got the unknown class {name!r}: "
            "import the module that defines it before loading"
        )
    try:
        return _classes[name](**{key: construct(item) for key, item in description["arguments"].items()})
    except TypeError as error:
        raise DataError(f"expected arguments that {name} accepts, got {description['arguments']}: {error}") from error

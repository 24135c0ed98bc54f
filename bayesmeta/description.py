"""How an object was constructed, as JSON: what a model folder stores instead of a pickle.

A class that inherits `Described` remembers the arguments of its constructor. `describe` turns the object into plain
JSON and `construct` builds a fresh one (with freshly initialised weights) from it. Only classes that inherit
`Described` and have been imported can be constructed, so a model folder cannot run foreign code.
"""

import functools
import importlib
import inspect
import reprlib
from typing import Any

import numpy as np
from torch import nn

from bayesmeta.annotations import checked, said
from bayesmeta.errors import DataError, UnsupportedError

_classes: dict[str, type["Described"]] = {}  # what a model folder calls a class, and the class
ITSELF = "the class itself"  # of an argument that is a class, and no object of it


class Described:
    """Remembers the arguments of its constructor, so that it can be written to JSON and built again.

    Those of the library's own classes are `checked` by their annotations.

    Example:
        >>> from bayesmeta.description import Described, construct, describe
        >>> class Line(Described):
        ...     def __init__(self, slope, intercept=0.0):
        ...         self.slope, self.intercept = slope, intercept
        >>> description = describe(Line(2.0))
        >>> description["arguments"]
        {'slope': 2.0, 'intercept': 0.0}
        >>> construct(description).slope
        2.0
    """

    _arguments: dict[str, Any]
    _description_name: str

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Register the class and wrap its constructor."""
        super().__init_subclass__(**kwargs)
        is_own = cls.__module__.split(".")[0] == "bayesmeta"
        if not is_own:
            _import_own(cls.__name__)
        name, taken = cls.__name__, _classes.get(cls.__name__)
        if taken is not None and taken.__module__ != cls.__module__:  # a user's MLP must not replace the library's
            name = f"{cls.__module__}.{cls.__qualname__}"
        _classes[name], cls._description_name = cls, name
        if "__init__" not in cls.__dict__:
            return
        original = cls.__init__
        signature = inspect.signature(original)

        construct_checked = checked(original) if is_own else original

        @functools.wraps(original)
        def remember(self: "Described", *args: Any, **kwargs: Any) -> None:
            construct_checked(self, *args, **kwargs)
            if type(self).__init__ is remember:  # a parent's constructor must not overwrite the child's record
                bound = signature.bind(self, *args, **kwargs)
                bound.apply_defaults()
                # nn.Module redirects ordinary assignment
                object.__setattr__(self, "_arguments", dict(list(bound.arguments.items())[1:]))

        cls.__init__ = remember  # type: ignore[assignment, method-assign]

    def __repr__(self) -> str:
        """How it was constructed, on one line: `ALPaCA(MLP(1, [8]))`."""
        return written(self)


def describe(value: Any, where: str = "model") -> Any:
    """Plain JSON that `construct` turns into an equal, freshly initialised object.

    Raises:
        UnsupportedError: a constructor argument is neither plain JSON nor a `Described` object; `where` names it.
    """
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple | range):
        return [describe(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, dict):
        return {str(key): describe(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, type) and issubclass(value, Described):  # an argument that says which class is to be made
        return {ITSELF: value._description_name}
    if isinstance(value, Described):
        inner = {key: describe(item, f"{where}.{key}") for key, item in _arguments_of(value, where).items()}
        return {"class": value._description_name, "arguments": inner}
    is_function = inspect.isroutine(value)
    remedy = "write it as such a class, with a __call__, or " if is_function else ""
    raise UnsupportedError(
        f"expected {where} to be a number, a text, a list or a class that inherits bayesmeta.description.Described, "
        f"got {type(value).__name__}: it cannot be written to a model folder ({remedy}save the learner's state_dict "
        "yourself)"
    )


def _arguments_of(value: Described, where: str) -> dict[str, Any]:
    kinds = {parameter.kind for parameter in inspect.signature(type(value)).parameters.values()}
    if "_arguments" not in value.__dict__:
        if type(value).__init__ in (nn.Module.__init__, object.__init__):
            return {}
        raise UnsupportedError(
            f"expected {where} to be constructed by an __init__ of its own, got {type(value).__name__}, "
            "whose __init__ was made after the class (a dataclass?)"
        )
    if kinds & {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD, inspect.Parameter.POSITIONAL_ONLY}:
        raise UnsupportedError(
            f"expected {where} to be constructed from named arguments, got {type(value).__name__}, "
            "whose __init__ takes *args, **kwargs or positional-only ones: give each argument a name"
        )
    return value._arguments


def written(value: object, longest: int = 120) -> str:
    """How an object was constructed, as a line of Python that is cut short where it would be long.

    Args:
        value: the object.
        longest: characters, about: what is nested is left out, the innermost first, until it fits.

    Example:
        >>> import bayesmeta as bm
        >>> written(bm.Standardized(bm.ALPaCA(bm.MLP(1, [64, 64]), num_outputs=2)))
        'Standardized(ALPaCA(MLP(1, [64, 64]), num_outputs=2))'
        >>> written(bm.Standardized(bm.ALPaCA(bm.MLP(1, [64, 64]), num_outputs=2)), longest=50)
        'Standardized(ALPaCA(MLP(...), num_outputs=2))'
    """
    deepest = 8
    while deepest > 1 and len(_written(value, deepest)) > longest:
        deepest -= 1
    return _written(value, deepest)


def _written(value: object, depth: int) -> str:
    if isinstance(value, Described):
        arguments = _written_arguments(value, depth - 1)
        return f"{type(value).__name__}({'...' if arguments and depth <= 1 else ', '.join(arguments)})"
    if isinstance(value, type):
        return value.__name__
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, list | tuple) and any(isinstance(each, Described) for each in value):
        first = _written(value[0], depth)
        each = first if len(value) == 1 else f"{len(value)} x {first}" if len(value) > 3 else ""
        return f"[{each or ', '.join(_written(item, depth) for item in value)}]"
    if isinstance(value, dict) and any(isinstance(each, Described) for each in value.values()):
        return f"{{{', '.join(f'{key!r}: {_written(item, depth)}' for key, item in list(value.items())[:4])}}}"
    if isinstance(value, list | tuple):
        return reprlib.repr(_lists(value))
    if value is None or isinstance(value, bool | int | float | str | dict | range):
        return reprlib.repr(value)
    return getattr(value, "__name__", f"<{type(value).__name__}>")


def _lists(value: Any) -> Any:
    """Tuples as lists: a model folder does not tell them apart."""
    return [_lists(item) for item in value] if isinstance(value, list | tuple) else value


def _written_arguments(value: Described, depth: int) -> list[str]:
    """The arguments that are not as they are by default; by position as long as none was left out."""
    given = value.__dict__.get("_arguments", {})
    parameters = inspect.signature(type(value)).parameters
    found, by_position = list[str](), True
    for name, item in given.items():
        default = parameters[name].default if name in parameters else inspect.Parameter.empty
        if item is default or (isinstance(item, bool | int | float | str | tuple) and item == default):
            by_position = False
            continue
        by_position = by_position and name in parameters and parameters[name].kind is not inspect.Parameter.KEYWORD_ONLY
        found.append(_written(item, depth) if by_position else f"{name}={_written(item, depth)}")
    return found


def construct(description: Any) -> Any:
    """Build the object that `describe` described.

    Raises:
        DataError: the description names an unknown class or arguments that its constructor refuses.
    """
    if isinstance(description, list):
        return tuple(construct(item) for item in description)
    if not isinstance(description, dict):
        return description
    if set(description) == {ITSELF}:
        return _known(description[ITSELF])
    if set(description) != {"class", "arguments"}:
        return {key: construct(item) for key, item in description.items()}
    name, arguments = description["class"], description["arguments"]
    _known(name)
    if not isinstance(arguments, dict):
        raise DataError(f"expected named arguments for {name}, got {said(arguments)}")
    built = {key: construct(item) for key, item in arguments.items()}
    try:
        return _classes[name](**built)
    except RecursionError:
        raise
    except Exception as error:  # of whatever type: what the constructor refuses is what the description says
        found = reprlib.Repr()
        found.maxdict, found.maxother = 8, 60
        raise DataError(f"expected arguments that {name} accepts, got {found.repr(arguments)}: {error}") from error


def _known(name: Any) -> type[Described]:
    if isinstance(name, str) and name not in _classes:
        _import_own(name)
    if not isinstance(name, str) or name not in _classes:
        raise DataError(
            f"expected a model made of known classes, got the unknown class {said(name)}: "
            "import the module that defines it before loading"
        )
    return _classes[name]


def _import_own(name: str) -> None:
    """Import the class of the library that has this name, if there is one: the root imports what it is asked for."""
    root = importlib.import_module("bayesmeta")
    if not hasattr(root, name):  # then it is one of a namespace, or of what these import
        for each in root.__all__:
            getattr(root, each)

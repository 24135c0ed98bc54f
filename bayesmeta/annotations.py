"""What is given to a constructor or a verb is what its annotations say, or an error that names the argument.

Python looks at no annotation: a class in the place of an object, 1.5 steps or a rate of NaN fail far from where they
were given, in words of torch, or never. `checked` compares, where an annotation is one of these: `int` (no bool),
`float` (finite), `bool`, `str`, a class, `type[...]`, a sequence or tuple of them, `| None`. Ranges are the
constructor's own to check.
"""

import collections.abc
import functools
import inspect
import math
import reprlib
import types
import typing
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from typing import Any, TypeVar

import numpy as np

from bayesmeta.errors import BayesMetaError, DataError

F = TypeVar("F", bound=Callable[..., Any])
BY_ANNOTATION = "by_annotation"  # marks the errors that are raised here


def checked(function: F) -> F:
    """A function that raises DataError for an argument that is not what its annotation says.

    An error of our own that the function raises comes first: it knows more of what was meant.

    Example:
        >>> from bayesmeta.annotations import checked
        >>> @checked
        ... def repeated(text: str, times: int = 2) -> str:
        ...     return text * times
        >>> repeated("ab", times=1.5)
        Traceback (most recent call last):
        ...
        bayesmeta.errors.DataError: expected times to be a whole number, got 1.5
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            result = function(*args, **kwargs)
        except BayesMetaError as error:
            if BY_ANNOTATION in vars(error):  # of an inner constructor, which got what this one was given
                check_arguments(function, signature, args, kwargs, error)
            raise
        except Exception as error:
            check_arguments(function, signature, args, kwargs, error)
            raise
        check_arguments(function, signature, args, kwargs)
        return result

    return call  # type: ignore[return-value]


def check_arguments(
    function: Callable[..., Any],
    signature: inspect.Signature,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    cause: Exception | None = None,
) -> None:
    """Raise DataError, from `cause`, for an argument that is not what the annotation of `function` says."""
    try:
        given = signature.bind(*args, **kwargs).arguments
    except TypeError:
        return  # an argument is missing or unknown: Python's own error says which
    hints = _hints(function)
    for name, value in given.items():
        default = signature.parameters[name].default
        if name in hints and not (value is default or (isinstance(value, float) and value == default)):
            expected = _expected(value, hints[name])
            if expected is not None:
                wrong = DataError(f"expected {name} to be {expected}, got {said(value)}")
                vars(wrong)[BY_ANNOTATION] = True
                raise wrong from cause


def said(value: object) -> str:
    """A value as an error message names it: short, and with what to do about a class that was not called."""
    if isinstance(value, type):
        return f"the class {value.__name__}: call it, {value.__name__}(...)"
    if value is None or isinstance(value, bool | int | float | str | list | tuple | dict | np.generic):
        try:
            return reprlib.repr(value.item() if isinstance(value, np.generic) else value)
        except ValueError:  # a whole number too long to be printed
            pass
    return _a(type(value).__name__)


def _is_whole(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and -(2**63) <= int(value) < 2**63


def _is_finite(value: object) -> bool:
    try:
        return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # a whole number that no float can hold
        return False


@functools.cache
def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function)
    except NameError:  # annotated by a name that is imported for types only, or local
        return {}


SIMPLE: dict[Any, tuple[Callable[[Any], bool], str]] = {
    int: (_is_whole, "a whole number"),
    float: (_is_finite, "a finite number"),
    bool: (lambda value: isinstance(value, bool | np.bool_), "True or False"),
    str: (lambda value: isinstance(value, str), "a text"),
    type(None): (lambda value: value is None, "None"),
}


def _expected(value: Any, hint: Any) -> str | None:
    """What the value should be, in words; None where it is."""
    if hint is Any:
        return None
    if hint in SIMPLE:
        fits, words = SIMPLE[hint]
        return None if fits(value) else words
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        each = [_expected(value, part) for part in parts]
        return None if None in each else " or ".join(typing.cast(list[str], each))
    if origin is type:
        fits_type = isinstance(value, type) and issubclass(value, parts[0])
        return None if fits_type else f"a subclass of {parts[0].__name__}, not one of its objects"
    if origin in (tuple, list, collections.abc.Sequence):
        return _expected_items(value, origin, parts)
    if origin in (dict, Mapping):
        return None if isinstance(value, Mapping) else "a dictionary"
    if origin is collections.abc.Callable:
        return None if callable(value) else "a function"
    if isinstance(hint, type):
        kind = getattr(hint, "array_type", hint)  # of an array with named axes: those are checked elsewhere
        if not isinstance(kind, type) or isinstance(value, kind):
            return None
        return _a(kind.__name__)
    return None


def _a(name: str) -> str:
    return f"{'an' if name[0] in 'AEIOUaeiou' else 'a'} {name}"


def _expected_items(value: Any, origin: Any, parts: tuple[Any, ...]) -> str | None:
    is_list = isinstance(value, collections.abc.Sequence | np.ndarray) and not isinstance(value, str | bytes)
    if not is_list or (isinstance(value, np.ndarray) and value.ndim != 1):
        return "a list"
    if origin is tuple and Ellipsis not in parts:
        if len(value) != len(parts):
            return f"a list of {len(parts)}"
        wrong = [_expected(item, part) for item, part in zip(value, parts, strict=True)]
    else:
        wrong = [_expected(item, parts[0]) for item in value] if parts else []
    named = next((each for each in wrong if each is not None), None)
    return None if named is None else f"a list, each {named}"

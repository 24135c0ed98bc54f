"""Shapes and types are checked at every call of a named function of the library, at what little that can cost.

jaxtyping's import hook puts `jaxtyping.jaxtyped` on every function. That checks arguments twice, once by themselves and
once with the result, and compiles its checks anew each time that a function inside of a function is made: a third of
the time of these tests. Here arguments and result are checked once, by the same checker in the same scope of axis
names, and functions inside of functions are not: their callers are. Of each function the first `CALLS` calls in a test
are checked, not the thousands that a chain or a training makes after them with the same shapes. A check is made when
its function is first called, as most processes never call most functions.
"""

import dataclasses
import functools
import inspect
import types
from collections.abc import Callable
from typing import Any

import jaxtyping
import torch
from jaxtyping import config

_scope = jaxtyping.jaxtyped
CALLS = 50


class _Clock:
    """Says which test it is."""

    test = 0


clock = _Clock()


def begin_test() -> None:
    """From here on every function's calls are counted anew."""
    clock.test += 1


def checked(fn: Any = None, *, typechecker: Callable[[Any], Any]) -> Any:
    """In the place of `jaxtyping.jaxtyped`, as its import hook uses it."""
    if fn is None:
        return functools.partial(checked, typechecker=typechecker)
    if inspect.isclass(fn):
        if dataclasses.is_dataclass(fn) and not hasattr(fn.__init__, "__wrapped__"):  # its fields, together
            fn.__init__ = checked(fn.__init__, typechecker=typechecker)
        return fn
    if isinstance(fn, classmethod | staticmethod):
        return type(fn)(checked(fn.__func__, typechecker=typechecker))
    if isinstance(fn, property):
        return property(*(each and checked(each, typechecker=typechecker) for each in (fn.fget, fn.fset, fn.fdel)))
    if not inspect.isfunction(fn) or "<locals>" in fn.__qualname__ or not fn.__annotations__:
        return fn
    plain, scope, off, now = _resolved(fn), _scope, config, clock
    strict, test, left, most = None, -1, 0, CALLS
    is_exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)  # the latter in torch 2.6

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        nonlocal strict, test, left
        if off.jaxtyping_disable or is_exporting():  # there sizes are symbols, and a comparison would fix them
            return fn(*args, **kwargs)
        if test != now.test:
            test, left = now.test, most
        if left <= 0:
            return fn(*args, **kwargs)
        left -= 1
        if strict is None:
            strict = typechecker(plain)
        with scope("context"):
            return strict(*args, **kwargs)

    # a frame of the library, so that warnings name the line outside of it
    own = types.FunctionType(wrapper.__code__, fn.__globals__, fn.__name__, None, wrapper.__closure__)
    return functools.wraps(fn)(own)


def _resolved(fn: Any) -> Any:
    """The same function, whose annotations in quotes are what they name; `Any` where it is not there yet, or never.

    A class is not there while its methods are made, nor is what is imported for type checkers alone.
    """
    found = {}
    for name, annotation in fn.__annotations__.items():
        try:
            found[name] = eval(annotation, fn.__globals__) if isinstance(annotation, str) else annotation
        except (NameError, AttributeError, TypeError):
            found[name] = Any
    same = types.FunctionType(fn.__code__, fn.__globals__, fn.__name__, fn.__defaults__, fn.__closure__)
    same.__kwdefaults__, same.__qualname__, same.__module__ = fn.__kwdefaults__, fn.__qualname__, fn.__module__
    same.__annotations__ = found
    return same


jaxtyping.jaxtyped = checked

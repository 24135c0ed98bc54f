"""Values that are printed as one line, and not as all the tensors that they hold."""

import inspect
import reprlib
from dataclasses import fields, is_dataclass
from typing import Any

import torch


class OneLine:
    """Keeps `__repr__` as the class, or one that it inherits from, has written it.

    The decorator `dataclass` would put its own in place of an inherited one, in every subclass, which prints all fields
    with the numbers in them: pages, for a posterior.

    Example:
        >>> from dataclasses import dataclass
        >>> class Value(OneLine):
        ...     def __repr__(self) -> str:
        ...         return "a value"
        >>> @dataclass(frozen=True)
        ... class Large(Value):
        ...     numbers: list[int]
        >>> Large(list(range(1000)))
        a value
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Write down the inherited `__repr__` as the class's own, before a decorator comes."""
        super().__init_subclass__(**kwargs)
        if "__repr__" not in vars(cls):
            cls.__repr__ = cls.__repr__  # type: ignore[method-assign]


class InShort(OneLine):
    """Prints its class and what it holds, and of tensors their shapes alone.

    Example:
        >>> from dataclasses import dataclass
        >>> @dataclass(frozen=True)
        ... class Line(InShort):
        ...     weights: torch.Tensor
        ...     title: str = "a line"
        >>> Line(torch.zeros(3, 2))
        Line(weights=tensor 3 x 2, title='a line')
    """

    def __repr__(self) -> str:
        """One line: public attributes by name."""
        names = [each.name for each in fields(self)] if is_dataclass(self) else list(vars(self))
        shown = ((name, getattr(self, name)) for name in names if not name.startswith("_"))
        return f"{type(self).__name__}({', '.join(f'{name}={in_short(value)}' for name, value in shown)})"


def in_short(value: object) -> str:
    """A value in a few words, of a tensor its shape.

    Example:
        >>> in_short(torch.zeros(3, 2)), in_short([1.0, 2.0]), in_short(len)
        ('tensor 3 x 2', '[1.0, 2.0]', '<len>')
    """
    if isinstance(value, torch.Tensor):
        return " x ".join(map(str, ["tensor", *value.shape])).replace("tensor x", "tensor")
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key!r}: {in_short(item)}' for key, item in value.items())}}}"
    is_default = type(value).__repr__ is object.__repr__ or inspect.isroutine(value)
    if not is_default:
        return reprlib.repr(value) if isinstance(value, list | tuple | str) else repr(value)
    return f"<{getattr(value, '__name__', type(value).__name__)}>"


def several(count: int, thing: str) -> str:
    """The number of things in words.

    Example:
        >>> several(1, "task"), several(3, "task")
        ('1 task', '3 tasks')
    """
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"

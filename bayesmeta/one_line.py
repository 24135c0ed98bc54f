"""Values that are printed as one line, and not as all the tensors that they hold."""

from typing import Any


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


def several(count: int, thing: str) -> str:
    """The number of things in words.

    Example:
        >>> several(1, "task"), several(3, "task")
        ('1 task', '3 tasks')
    """
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"

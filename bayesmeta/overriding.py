"""Whether a class has changed a method without changing what was made from it."""

import functools


@functools.cache
def speaks_for(cls: type, name: str, *others: str) -> bool:
    """Whether what a class has under a name was written with its other methods in view: none was overridden since.

    A faster form of a method (the layers of a network, the derivative of a density) is inherited by a subclass that
    changes the method itself, and is wrong there. What has no class among its ancestors that defines it does not count.

    Args:
        cls: the class.
        name: of the faster form.
        others: what it is a form of.

    Example:
        >>> class Line:
        ...     def at(self, x): return 2.0 * x
        ...     def slope(self): return 2.0
        >>> class Steeper(Line):
        ...     def at(self, x): return 3.0 * x
        >>> speaks_for(Line, "slope", "at"), speaks_for(Steeper, "slope", "at")
        (True, False)
    """
    order = {key: place for place, base in reversed(list(enumerate(cls.__mro__))) for key in vars(base)}
    return all(order[name] <= order.get(other, len(cls.__mro__)) for other in others)

"""torch's modes are the caller's affair: what the library computes does not depend on them.

    inference mode   is left: inner gradients need a graph, and a value made inside it must be usable outside of it
    autocast         is switched off: linear algebra in half precision is no linear algebra
    grad mode        stays as it is, unless a function trains

A function that users call is decorated by `settled`, one that trains by `trained`. Both cost less than a microsecond
where no mode is on.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")
AUTOCAST = tuple(kind for kind in ("cpu", "cuda", "mps", "xpu") if torch.amp.is_autocast_available(kind))
"""Kinds of devices that autocast may be on for."""


def settled(function: Callable[P, R]) -> Callable[P, R]:
    """The function outside of inference mode and autocast, whatever the caller has set; grad mode stays as it is.

    Tensors among its positional arguments that were made in inference mode are copied, as gradients cannot pass them.

    Example:
        >>> product = settled(lambda a, b: a @ b)
        >>> a = torch.ones(2, 2)
        >>> with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        ...     product(a, a).dtype, product(a, a).is_inference(), (a @ a).dtype
        (torch.float32, False, torch.bfloat16)
    """

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if _is_plain() and not any(isinstance(value, Tensor) and value.is_inference() for value in args):
            return function(*args, **kwargs)
        with _plain(torch.is_grad_enabled()):
            return function(*map(ordinary, args), **kwargs)

    return call


def trained(function: Callable[P, R]) -> Callable[P, R]:
    """The function outside of inference mode and autocast, and with gradients.

    Example:
        >>> slope = trained(lambda: torch.autograd.grad((3.0 * (x := torch.ones((), requires_grad=True))), x)[0].item())
        >>> with torch.no_grad():
        ...     slope()
        3.0
    """

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if _is_plain() and torch.is_grad_enabled():
            return function(*args, **kwargs)
        with _plain(True):
            return function(*args, **kwargs)

    return call


def settle(cls: type, names: tuple[str, ...]) -> None:
    """Decorate what a class itself defines under these names by `settled`: methods and properties."""
    for name in names:
        member = vars(cls).get(name)
        if isinstance(member, property) and member.fget is not None:
            setattr(cls, name, property(settled(member.fget), doc=member.__doc__))
        elif callable(member) and not hasattr(member, "__isabstractmethod__"):
            setattr(cls, name, settled(member))


def ordinary(value: Any) -> Any:
    """A tensor that was made in inference mode as one that gradients can pass, outside of it; others as they are."""
    return value.clone() if isinstance(value, Tensor) and value.is_inference() else value


def _is_plain() -> bool:
    return not torch.is_inference_mode_enabled() and not any(map(torch.is_autocast_enabled, AUTOCAST))


@contextlib.contextmanager
def _plain(grad: bool) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.set_grad_enabled(grad))  # after it, which switches gradients on
        for kind in filter(torch.is_autocast_enabled, AUTOCAST):
            stack.enter_context(torch.autocast(kind, enabled=False))
        yield

"""A module as it is now: a copy that no later training, loading or moving of the original changes."""

import copy
from collections import OrderedDict
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from bayesmeta.errors import UnsupportedError
from bayesmeta.torch_private import tables

HALF = (torch.float16, torch.bfloat16)
ModuleT = TypeVar("ModuleT", bound=nn.Module)
PLAIN = {bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, torch.Size}  # cannot change
CONTAINERS = {dict, list, set, OrderedDict}


def snapshot(module: ModuleT) -> ModuleT:
    """A copy of the module whose tensors are frozen copies of the module's own.

    It is what `copy.deepcopy` gives, with parameters that require no gradient, at a fraction of the cost: only tensors
    and the tree of modules are copied, and whatever else a module has as an attribute is copied where it could change.
    What constructors were given (`Described`) is not copied: it describes, and is not computed with.

    Raises:
        UnsupportedError: a tensor in half precision.
    """
    copies: dict[int, Any] = {}
    modules = list(module.modules())
    for each in modules:
        copies[id(each)] = each.__class__.__new__(each.__class__)
        for table in tables(each):
            for tensor in table.values():
                if tensor is not None and id(tensor) not in copies:
                    copies[id(tensor)] = _frozen(tensor)
    for each in modules:
        state = copies[id(each)].__dict__
        for name, value in vars(each).items():
            kind = type(value)
            if kind in PLAIN or name == "_arguments":
                state[name] = value
            elif kind in CONTAINERS and not value:
                state[name] = kind()
            elif name in ("_parameters", "_buffers", "_modules"):
                state[name] = {key: None if part is None else copies[id(part)] for key, part in value.items()}
            elif kind is tuple and all(type(part) in PLAIN for part in value):
                state[name] = value
            else:
                state[name] = copy.deepcopy(value, copies)
    result: ModuleT = copies[id(module)]
    return result


def require_precision(dtype: torch.dtype, name: str) -> None:
    """Refuse half precision, in which no matrix can be factorised.

    Args:
        dtype: a precision.
        name: what is in it, for the message.

    Raises:
        UnsupportedError: it is half.
    """
    if dtype in HALF:
        raise UnsupportedError(
            f"expected {name} in float32 or float64, got {str(dtype).removeprefix('torch.')}: there is no linear "
            "algebra in half precision; use .float()"
        )


def _frozen(tensor: Tensor) -> Tensor:
    require_precision(tensor.dtype, "a learner")
    if type(tensor) is nn.Parameter:
        return nn.Parameter(tensor.detach().clone(), requires_grad=False)
    if type(tensor) is Tensor:
        return tensor.detach().clone()
    copied = copy.deepcopy(tensor.detach())  # a subclass of Tensor, as of another device
    return nn.Parameter(copied, requires_grad=False) if isinstance(tensor, nn.Parameter) else copied

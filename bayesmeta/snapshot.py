"""A module as it is now: a copy that no later training, loading or moving of the original changes."""

import copy
from collections import OrderedDict
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from bayesmeta.torch_private import tables

ModuleT = TypeVar("ModuleT", bound=nn.Module)
PLAIN = (bool, int, float, complex, str, bytes, type(None), type, torch.dtype, torch.device, torch.Size)


def snapshot(module: ModuleT) -> ModuleT:
    """A copy of the module whose tensors are frozen copies of the module's own.

    It is what `copy.deepcopy` gives, with parameters that require no gradient, at a fraction of the cost: only tensors
    and the tree of modules are copied, and whatever else a module has as an attribute is copied where it could change.
    What constructors were given (`Described`) is not copied: it describes, and is not computed with.
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
            if name in ("_parameters", "_buffers", "_modules"):
                state[name] = {key: None if part is None else copies[id(part)] for key, part in value.items()}
            elif name == "_arguments" or _is_plain(value):
                state[name] = value
            elif type(value) in EMPTY and not value:
                state[name] = type(value)()
            else:
                state[name] = copy.deepcopy(value, copies)
    result: ModuleT = copies[id(module)]
    return result


EMPTY = (dict, list, set, OrderedDict)


def _frozen(tensor: Tensor) -> Tensor:
    if type(tensor) is nn.Parameter:
        return nn.Parameter(tensor.detach().clone(), requires_grad=False)
    if type(tensor) is Tensor:
        return tensor.detach().clone()
    return copy.deepcopy(tensor.detach()).requires_grad_(False)


def _is_plain(value: Any) -> bool:
    return isinstance(value, PLAIN) or (type(value) is tuple and all(map(_is_plain, value)))

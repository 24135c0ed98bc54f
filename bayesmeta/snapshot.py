"""A module as it is now: a copy that no later training, loading or moving of the original changes.

    snapshot    a copy for whoever asks
    shared      the copy that was made last, as long as the module still says what it says: for those who only read it
    once        what is computed of a shared copy, computed once
    own_tree    the modules of a shared copy anew, for those who put other tensors in their places
"""

import copy
import types
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, is_dataclass
from operator import is_, itemgetter
from typing import Any, NamedTuple, TypeVar
from weakref import WeakKeyDictionary, WeakSet, ref

import torch
from torch import Tensor, nn

from bayesmeta.errors import UnsupportedError
from bayesmeta.torch_private import FORWARD_HOOKS, LOADING_HOOKS, is_intercepted, tables

HALF = (torch.float16, torch.bfloat16)
ModuleT = TypeVar("ModuleT", bound=nn.Module)
T = TypeVar("T")
PLAIN = {bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, torch.Size}  # cannot change
CONTAINERS = {dict, list, set, OrderedDict}
TABLES = ("_parameters", "_buffers", "_modules")
DESCRIPTION = "_arguments"  # what the constructor was given (`Described`): it describes, and is not computed with
KNOWN = ("torch", "bayesmeta", "gpytorch")
"""Libraries whose modules do not write to themselves while they run, or leave what they wrote: a module of a user's own
may take notes and put them away, so that two who run one copy at the same time read each other's."""


def snapshot(module: ModuleT) -> ModuleT:
    """A copy of the module whose tensors are frozen copies of the module's own.

    It is what `copy.deepcopy` gives, with parameters that require no gradient, at a fraction of the cost: only tensors
    and the tree of modules are copied, and whatever else a module has as an attribute is copied where it could change.
    What constructors were given (`Described`) is not copied: it describes, and is not computed with.

    Raises:
        UnsupportedError: a tensor in half precision.
    """
    copied, _ = _copied(module, _frozen)
    return copied


def shared(module: ModuleT) -> ModuleT:
    """A snapshot that others may have, too: it must not be changed.

    The one that was made last is kept, and given again where module and snapshot agree in everything: the values of all
    tensors, which are compared, every attribute, and the tree. So nothing that can happen to a module is missed, as
    long as it can be seen; a module that has something else (an open file, a closure, an object without a value) gets a
    snapshot of its own at each call, and so does one with modules of classes that are not `KNOWN`.

    Of each module one snapshot is kept, and gone with the module.

    Raises:
        UnsupportedError: a tensor in half precision.

    Example:
        >>> layer = nn.Linear(1, 1)
        >>> first = shared(layer)
        >>> shared(layer) is first
        True
        >>> layer.bias.data.add_(1.0)
        tensor([...])
        >>> shared(layer) is first
        False
    """
    if is_intercepted():  # recorded or mapped code decides nothing by values
        return snapshot(module)
    kept = _kept.get(module)
    if kept is not None and kept.is_current():
        found: ModuleT = kept.modules[0]  # type: ignore[assignment]
        return found
    copied, modules = _copied(module, _frozen)
    if all(_library(type(each)) in KNOWN for each in modules):
        _kept[module] = _Kept(list(map(ref, module.modules())), modules)
        _shared.update(modules)
    return copied


def once(module: nn.Module, compute: Callable[[], T]) -> T:
    """What is computed of a module: of one in a `shared` snapshot the first time only.

    Args:
        module: whose numbers are computed with; one result is kept for it.
        compute: gives the result, which does not hold the module itself: it would never be let go.

    Example:
        >>> layer = shared(nn.Linear(1, 1))
        >>> once(layer, lambda: layer.bias.double()) is once(layer, lambda: layer.bias.double())
        True
    """
    if module not in _shared or is_intercepted():
        return compute()
    result: T | None = _results.get(module)
    if result is None:
        result = _results[module] = compute()
    return result


def own_tree(module: ModuleT) -> ModuleT:
    """The module, for whoever puts other tensors in the place of its own and back: one that is in a `shared` snapshot
    is not touched, and the same tensors in a tree of their own returned. Threads may use a snapshot at the same time.
    """
    return _copied(module, lambda tensor: tensor)[0] if module in _shared else module


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


def _copied(module: ModuleT, copied: Callable[[Tensor], Tensor]) -> tuple[ModuleT, list[nn.Module]]:
    """A copy of the tree, and its modules in the order of `module.modules()`."""
    copies: dict[int, Any] = {}
    modules = list(module.modules())
    for each in modules:
        copies[id(each)] = each.__class__.__new__(each.__class__)
        for table in tables(each):
            for tensor in table.values():
                if tensor is not None and id(tensor) not in copies:
                    copies[id(tensor)] = copied(tensor)
    for each in modules:
        state = copies[id(each)].__dict__
        for name, value in vars(each).items():
            kind = type(value)
            if kind in PLAIN or name == DESCRIPTION:
                state[name] = value
            elif kind in CONTAINERS and not value:
                state[name] = kind()
            elif name in TABLES:
                state[name] = {key: None if part is None else copies[id(part)] for key, part in value.items()}
            elif _is_constant(value):
                state[name] = value
            else:
                state[name] = copy.deepcopy(value, copies)
    return copies[id(module)], [copies[id(each)] for each in modules]


def _frozen(tensor: Tensor) -> Tensor:
    require_precision(tensor.dtype, "a learner")
    if type(tensor) is nn.Parameter:
        return nn.Parameter(tensor.detach().clone(), requires_grad=False)
    if type(tensor) is Tensor:
        return tensor.detach().clone()
    copied = copy.deepcopy(tensor.detach())  # a subclass of Tensor, as of another device
    return nn.Parameter(copied, requires_grad=False) if isinstance(tensor, nn.Parameter) else copied


class _Pair(NamedTuple):
    """A module and its copy, and how they are compared, in as few steps as there can be: all of it is done in each
    `adapt`.

    Attributes:
        copied: the attributes of the copy.
        constants: gives the attributes that cannot change, and are the same objects in module and copy.
        hooks: gives the tables of functions that run with the module, which are empty.
        others: names of all other attributes.
        children: places of the submodules, by name, in the order of their table.
    """

    copied: dict[str, Any]
    constants: Callable[[dict[str, Any]], tuple[Any, ...]]
    hooks: Callable[[dict[str, Any]], tuple[Any, ...]]
    others: tuple[str, ...]
    children: dict[str, int | None]


@dataclass(eq=False)
class _Kept:
    """A snapshot, and what it is of. It holds nothing of the original: who lets go of that has let go of this.

    Attributes:
        originals: the modules that were copied, in the order of `modules()`.
        modules: their copies.
        pairs: how they are compared; made when it is first asked for, as of a module that changes all the time it is
            not.
    """

    originals: Sequence[ref[nn.Module]]
    modules: Sequence[nn.Module]
    pairs: list[_Pair] | None = None

    def is_current(self) -> bool:
        """Whether the original is, in everything that can be seen, what the copy is."""
        originals = [original() for original in self.originals]
        if self.pairs is None:
            places = {id(module): place for place, module in enumerate(self.modules)}
            self.pairs = [_paired(vars(module), places) for module in self.modules]
        tensors: list[tuple[Tensor | None, Tensor | None]] = []
        for original, (copied, constants, hooks, others, children) in zip(originals, self.pairs, strict=True):
            if original is None:
                return False
            state = original.__dict__
            try:
                is_same = (
                    len(state) == len(copied)
                    and all(map(is_, constants(state), constants(copied)))
                    and not any(hooks(state))
                    and not any(hooks(copied))
                )
            except KeyError:  # an attribute is gone
                return False
            if not is_same:
                return False
            for name in TABLES:
                own, theirs = state[name], copied[name]
                if not own and not theirs and not (children and name == "_modules"):
                    continue
                if [*own] != [*theirs]:
                    return False
                if name != "_modules":
                    tensors += zip(own.values(), theirs.values(), strict=True)
                elif not self._are_children(originals, own, theirs, children):
                    return False
            if others:
                twins = {id(each): twin for each, twin in zip(originals, self.modules, strict=True)}
                if not all(_is_same(state.get(name), copied.get(name), twins) for name in others):
                    return False
        return _are_equal(tensors)

    def _are_children(
        self,
        originals: Sequence[nn.Module | None],
        own: dict[str, nn.Module | None],
        theirs: dict[str, nn.Module | None],
        children: dict[str, int | None],
    ) -> bool:
        """Whether two tables with the same names hold the submodules that they held when the copy was made."""
        return len(own) == len(children) and all(
            own[name] is (None if place is None else originals[place])
            and theirs[name] is (None if place is None else self.modules[place])
            for name, place in children.items()
            if name in own
        )


def _paired(copied: dict[str, Any], places: dict[int, int]) -> _Pair:
    hooks = [name for name in FORWARD_HOOKS if name in copied]
    apart = {*TABLES, *hooks, *LOADING_HOOKS}
    constants = [name for name, value in copied.items() if name == DESCRIPTION or _is_constant(value)]
    children = {name: None if child is None else places[id(child)] for name, child in copied["_modules"].items()}
    return _Pair(
        copied,
        # of one name itemgetter gives no tuple: these two every module has
        itemgetter("training", "training", *constants),
        itemgetter(*hooks),
        tuple(name for name in copied if name not in apart and name not in constants),
        children,
    )


def _is_constant(value: Any) -> bool:
    """Whether a value cannot change: then module and copy may have it together."""
    kind = type(value)
    if kind in PLAIN or isinstance(value, type):
        return True
    if kind is tuple:
        return all(map(_is_constant, value))
    if kind is types.FunctionType:
        return value.__closure__ is None
    if kind is types.BuiltinFunctionType:
        return value.__self__ is None or isinstance(value.__self__, types.ModuleType)
    if is_dataclass(kind) and kind.__dataclass_params__.frozen:  # what is predicted (`Numbers`)
        return all(_is_constant(part) for part in _parts(value).values())
    return False


def _parts(value: Any) -> dict[str, Any]:
    """What an object of a class written in Python holds, by name."""
    parts = {name: getattr(value, name, None) for each in type(value).__mro__ for name in _slots(each)}
    return parts | getattr(value, "__dict__", {})


def _slots(kind: type) -> tuple[str, ...]:
    slots = vars(kind).get("__slots__", ())
    return (slots,) if isinstance(slots, str) else tuple(slots)


def _is_same(one: Any, other: Any, twins: dict[int, nn.Module], depth: int = 8) -> bool:
    """Whether an attribute of a module and that of its copy say the same; not where it cannot be seen."""
    kind = type(one)
    if kind is not type(other) or depth == 0:
        return False
    again = lambda pairs: all(_is_same(a, b, twins, depth - 1) for a, b in pairs)
    if isinstance(one, nn.Module):
        return twins.get(id(one)) is other
    if isinstance(one, Tensor):
        return _are_equal([(one, other)])
    if kind in (dict, OrderedDict):
        return [*one] == [*other] and again(zip(one.values(), other.values(), strict=True))
    if kind in (list, tuple):
        return len(one) == len(other) and again(zip(one, other, strict=True))
    if _is_constant(one) or kind is slice:
        return bool(one is other or (kind not in (types.FunctionType, type) and one == other))
    if kind in (set, frozenset):
        return bool(one == other) and all(map(_is_constant, one))
    if all(_is_transparent(each) for each in kind.__mro__[:-1]):
        mine, theirs = _parts(one), _parts(other)
        return [*mine] == [*theirs] and again((mine[name], theirs[name]) for name in mine if name != DESCRIPTION)
    return False


def _is_transparent(kind: type) -> bool:
    """Whether all that an object has of this class is in its attributes, as of one that C holds it is not."""
    is_heap_type = bool(kind.__flags__ & 1 << 9)  # a class statement makes such a type, and so does pybind (in `_C`)
    is_ours = _library(kind) in KNOWN and is_heap_type and "._C" not in kind.__module__
    return is_ours or _library(kind) in ("abc", "typing")


def _library(kind: type) -> str:
    return kind.__module__.partition(".")[0]


def _are_equal(pairs: Iterable[tuple[Tensor | None, Tensor | None]]) -> bool:
    """Whether tensors agree in type, precision, place and every value, and the copies have no gradients."""
    elsewhere = []
    for one, other in pairs:
        if one is None or other is None:
            if one is not other:
                return False
            continue
        if type(one) is not type(other) or one.dtype is not other.dtype or other.requires_grad:
            return False
        if one.is_cpu and other.is_cpu:
            if not torch.equal(one, other):
                return False
        elif one.is_meta or one.device != other.device or one.shape != other.shape:
            return False
        else:
            elsewhere.append((one == other).all())  # waited for once, and not for each of them
    return not elsewhere or bool(torch.stack(elsewhere).all())


_kept: WeakKeyDictionary[nn.Module, _Kept] = WeakKeyDictionary()
_shared: WeakSet[nn.Module] = WeakSet()
_results: WeakKeyDictionary[nn.Module, Any] = WeakKeyDictionary()

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
from itertools import chain, compress
from operator import is_
from typing import Any, NamedTuple, TypeVar
from weakref import WeakKeyDictionary, WeakSet, ref

import torch
from torch import Tensor, nn

from bayesmeta.errors import UnsupportedError
from bayesmeta.torch_private import FORWARD_HOOKS, OTHER_HOOKS, is_intercepted, tables

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


class _Plan(NamedTuple):
    """How a tree of modules and its copy are compared: what all modules have goes through few loops, in C, as it is
    done in each `adapt`. The attributes of all modules are one sequence, in the order of modules and attributes.

    Attributes:
        names: of the attributes.
        is_constant: for each, whether it cannot change: module and copy have the same object.
        constants: these objects.
        is_empty: for each, whether it is an empty table: of tensors, of submodules, or of functions to run.
        tables: place of the module and name of the tables of tensors that are not empty.
        children: place of each module that has submodules, and their names and places, in order; None is behind all
            modules, at -1.
        others: place of the module and name of all other attributes.
    """

    names: list[str]
    is_constant: list[bool]
    constants: list[Any]
    is_empty: list[bool]
    tables: list[tuple[int, str]]
    children: list[tuple[int, list[str], list[int]]]
    others: list[tuple[int, str]]

    @classmethod
    def of(cls, modules: Sequence[nn.Module]) -> "_Plan":
        """The plan of a copy."""
        places = {id(module): place for place, module in enumerate(modules)}
        attributes = [(place, *item) for place, module in enumerate(modules) for item in vars(module).items()]
        is_constant = [name == DESCRIPTION or _is_constant(value) for _, name, value in attributes]
        is_empty = [name in (*TABLES, *FORWARD_HOOKS) and not value for _, name, value in attributes]
        rest = [each for each, *done in zip(attributes, is_constant, is_empty, strict=True) if not any(done)]
        tables = [(place, name) for place, name, _ in rest if name in TABLES]
        return cls(
            [name for _, name, _ in attributes],
            is_constant,
            [value for _, _, value in compress(attributes, is_constant)],
            is_empty,
            [(place, name) for place, name in tables if name != "_modules"],
            [
                (place, [*table], [-1 if child is None else places[id(child)] for child in table.values()])
                for place, name, table in rest
                if name == "_modules"
            ],
            [(place, name) for place, name, _ in rest if name not in (*TABLES, *OTHER_HOOKS)],
        )

    def is_followed_by(self, states: Sequence[dict[str, Any]]) -> bool:
        """Whether attributes of modules are what they were, as far as they are constant or empty.

        Args:
            states: the attributes of each module.
        """
        values = [*chain.from_iterable(map(dict.values, states))]
        return (
            [*chain.from_iterable(states)] == self.names
            and all(map(is_, compress(values, self.is_constant), self.constants))
            and not any(compress(values, self.is_empty))
        )


@dataclass(eq=False)
class _Kept:
    """A snapshot, and what it is of. It holds nothing of the original: who lets go of that has let go of this.

    Attributes:
        originals: the modules that were copied, in the order of `modules()`.
        modules: their copies.
        plan: how they are compared; made when it is first asked for, as of a module that changes all the time it is
            not.
    """

    originals: Sequence[ref[nn.Module]]
    modules: Sequence[nn.Module]
    plan: _Plan | None = None

    def is_current(self) -> bool:
        """Whether the original is, in everything that can be seen, what the copy is."""
        if self.plan is None:
            self.plan = _Plan.of(self.modules)
        found = [original() for original in self.originals]
        originals = [module for module in found if module is not None]
        if len(originals) != len(found):
            return False
        plan, states = self.plan, [*map(vars, originals)]
        if not plan.is_followed_by(states):
            return False
        copies = {place: vars(self.modules[place]) for place, _ in (*plan.tables, *plan.others)}
        tensors: list[tuple[Tensor | None, Tensor | None]] = []
        for place, name in plan.tables:
            own, theirs = states[place][name], copies[place][name]
            if [*own] != [*theirs]:
                return False
            tensors += zip(own.values(), theirs.values(), strict=True)
        tree = [*originals, None]
        for place, names, children in plan.children:
            table = states[place]["_modules"]
            if [*table] != names or not all(map(is_, table.values(), map(tree.__getitem__, children))):
                return False
        if plan.others:
            twins = {id(each): twin for each, twin in zip(originals, self.modules, strict=True)}
            if not all(_is_same(states[place][name], copies[place][name], twins) for place, name in plan.others):
                return False
        return _are_equal(tensors)


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
    if is_dataclass(kind) and vars(kind)["__dataclass_params__"].frozen:  # what is predicted (`Numbers`)
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

    def again(mine: Iterable[Any], theirs: Iterable[Any]) -> bool:
        return all(_is_same(a, b, twins, depth - 1) for a, b in zip(mine, theirs, strict=True))

    if isinstance(one, nn.Module):
        return twins.get(id(one)) is other
    if isinstance(one, Tensor):
        return _are_equal([(one, other)])
    if kind in (dict, OrderedDict):
        return [*one] == [*other] and again(one.values(), other.values())
    if kind in (list, tuple):
        return len(one) == len(other) and again(one, other)
    if _is_constant(one) or kind is slice:
        return bool(one is other or (kind not in (types.FunctionType, type) and one == other))
    if kind in (set, frozenset):
        return bool(one == other) and all(map(_is_constant, one))
    if all(_is_transparent(each) for each in kind.__mro__[:-1]):
        mine, theirs = ({k: v for k, v in _parts(each).items() if k != DESCRIPTION} for each in (one, other))
        return [*mine] == [*theirs] and again(mine.values(), theirs.values())
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

"""A pretended accelerator: tensors that say they are elsewhere, and are computed on the CPU.

    with pretended() as device:
        learner.to(device).adapt(data)      raises where a real device would, as tensors of two devices meet

Values are real and those of the CPU, and so are draws: what runs here gives what the CPU gives, bit for bit. Nothing is
said about speed, memory, streams or the numbers of a real device's kernels.

Such a tensor is a wrapper whose device is `lazy`. Torch has that type for lazily evaluated tensors; of all types that
are not the CPU it is the one whose backward pass torch runs in the calling thread, and without the wrapper no operation
runs on it, so that what the pretence has missed fails rather than computing something else.

The rules are those of CUDA:

    tensors of two devices                                      raise
    one CPU tensor without axes in a pointwise operation        is a number (`clamp` wants its bounds on the device)
    any number of them in `where`; the value that is filled in  too
    a CPU tensor as an index of a device tensor                 is allowed, masks too; not the other way round
    `copy_` and `to`                                            go between devices
    `numpy()`                                                   raises; `tolist()`, `float(x)`, `bool(x)` wait and read
    a generator                                                 draws on its own device only
"""

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import torch
from torch import Tensor
from torch.utils._device import _device_constructors
from torch.utils._python_dispatch import TorchDispatchMode

DEVICE = torch.device("lazy", 0)
CPU = torch.device("cpu")

_torch = {name: getattr(torch, name) for name in ("tensor", "as_tensor", "asarray", "Generator")}

PLAIN = (float, int, bool, str, type(None), torch.dtype, torch.device, torch.layout)
# operations of torch by name, without overload
INDEXING = ("index", "index_put", "index_put_", "_index_put_impl_")
FILLING = ("fill", "fill_", "masked_fill", "masked_fill_")
WITHOUT_NUMBERS = ("clamp", "clamp_", "clamp_min", "clamp_min_", "clamp_max", "clamp_max_")  # pointwise, yet strict


@contextlib.contextmanager
def pretended() -> Iterator[torch.device]:
    """A device that is there as long as this lasts. Its tensors are of no use afterwards."""
    ours = {name: Generator if name == "Generator" else _from_numbers(name) for name in _torch}
    optimizers = sys.modules[torch.optim.Optimizer.__module__]
    fused = [*optimizers._get_fused_kernels_supported_devices(), DEVICE.type]  # a list that Adam(fused=True) looks at
    swaps = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(True)  # `module.to` keeps parameters, and what shares them
    _device_constructors.cache_clear()  # what `with torch.device(...)` looks at: other functions make tensors here
    try:
        with (
            mock.patch.multiple(torch, **ours),
            mock.patch.object(optimizers, "_get_fused_kernels_supported_devices", return_value=fused),
            _Everywhere(),
        ):
            yield DEVICE
    finally:
        torch.__future__.set_swap_module_params_on_conversion(swaps)
        _device_constructors.cache_clear()
        _generators.clear()


class DeviceTensor(Tensor):
    """A tensor that is elsewhere; `inner` are its values, on the CPU."""

    inner: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner: Tensor) -> "DeviceTensor":
        self = Tensor._make_wrapper_subclass(cls, inner.shape, strides=inner.stride(), dtype=inner.dtype, device=DEVICE)
        self.inner = inner
        return self

    def __init__(self, inner: Tensor) -> None:
        pass

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return _run(func, args, kwargs)

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"{self.inner!r} on {DEVICE}"

    def __format__(self, spec: str) -> str:
        return format(self.item() if self.dim() == 0 else self.inner, spec)

    # What torch reads or makes in C++ from the memory of a tensor, with no operation that could be caught:

    @property
    def data(self) -> Tensor:
        return self.detach()

    @data.setter
    def data(self, value: "DeviceTensor") -> None:  # the parameter stays, its values are others
        Tensor.data.__set__(self, value)
        self.inner = value.inner

    def untyped_storage(self) -> torch.UntypedStorage:
        return self.inner.untyped_storage()

    def data_ptr(self) -> int:
        return self.inner.data_ptr()

    def tolist(self) -> Any:
        return self.inner.tolist()

    def numpy(self, *, force: bool = False) -> np.ndarray:
        if not force:
            raise TypeError(f"can't convert {DEVICE} device type tensor to numpy. Use Tensor.cpu() first.")
        return self.detach().cpu().numpy()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self.numpy()

    def new_tensor(self, values: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
        return torch.tensor(values, dtype=dtype or self.dtype, device=device or DEVICE, requires_grad=requires_grad)

    def __getitem__(self, index: Any) -> Tensor:
        return super().__getitem__(_without_lists(index))

    def __setitem__(self, index: Any, value: Any) -> None:
        super().__setitem__(_without_lists(index), value)


class _IsGenerator(type(torch.Generator)):
    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, _torch["Generator"])


class Generator(torch.Generator, metaclass=_IsGenerator):
    """In the place of `torch.Generator`: a CPU generator that says where it was asked for."""

    def __new__(cls, device: Any = CPU) -> torch.Generator:
        if not _is_there(device):
            return _torch["Generator"](device)
        self = super().__new__(cls)
        _generators[self._cdata] = self
        return self

    def __init__(self, device: Any = CPU) -> None:
        pass

    @property
    def device(self) -> torch.device:
        return DEVICE


_generators: dict[
    int, Generator
] = {}  # by their place in memory: an operation sees a new Python object of the same one


class _Everywhere(TorchDispatchMode):
    """Catches what makes tensors of a device out of nothing, and out of CPU tensors."""

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return _run(func, args, kwargs)


def _run(func: Any, args: tuple, kwargs: dict | None) -> Any:
    """An operation, on the CPU: of the values of device tensors, where all its tensors may meet."""
    kwargs = {} if kwargs is None else kwargs
    there: list[DeviceTensor] = []
    here: list[Tensor] = []
    plain = [_inner(value, there, here) for value in args]
    named = {name: _inner(value, there, here) for name, value in kwargs.items()}
    if there and here:
        _require_one_device(func, args, here)
    wanted = named.get("device")
    goes = bool(there) if wanted is None else _is_there(wanted)
    if wanted is not None and goes:
        named["device"] = CPU
    traits = _traits(func)
    for value in (*args, *kwargs.values()) if traits.is_random else ():
        if isinstance(value, _torch["Generator"]) and (value._cdata in _generators) != goes:
            one, other = (DEVICE, CPU) if goes else (CPU, DEVICE)
            raise RuntimeError(f"Expected a '{one}' device type for generator but found '{other}' (in {func})")
    if traits.name == "_efficientzerotensor" and goes:  # without memory, which a wrapper would hide
        return DeviceTensor(torch.zeros(*plain, **named))
    result = func(*plain, **named)
    if traits.name == "copy_":
        return args[0]
    return _outer(result, there) if goes else result


def _inner(value: Any, there: list[DeviceTensor], here: list[Tensor]) -> Any:
    """The values of device tensors; where torch takes lists of tensors they are one level deep."""
    kind = type(value)
    if kind is DeviceTensor:
        there.append(value)
        return value.inner
    if kind in PLAIN:  # most of them, and quick
        return value
    if isinstance(value, Tensor):
        if value.device.type == DEVICE.type:
            raise NotImplementedError(f"the pretence has missed how a tensor of {tuple(value.shape)} came about")
        here.append(value)
    elif isinstance(value, list | tuple):
        return [_inner(each, there, here) for each in value]
    return value


def _outer(value: Any, there: list[DeviceTensor]) -> Any:
    """Results on the device: new ones, or what was changed in place."""
    if isinstance(value, Tensor):
        for each in there:
            if value is each.inner:
                if value.shape != each.shape:
                    raise NotImplementedError("the pretence cannot change the shape of a tensor in place")
                return each
        return DeviceTensor(value)
    if isinstance(value, list | tuple):
        return type(value)([_outer(each, there) for each in value])
    return value


def _require_one_device(func: Any, args: tuple, here: list[Tensor]) -> None:
    strays = _strays(func, args, here)
    if strays:
        shapes = ", ".join(str(tuple(value.shape)) for value in strays)
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found at least two devices, {DEVICE} and cpu! "
            f"(in {func}, where CPU tensors have shapes {shapes})"
        )


def _strays(func: Any, args: tuple, here: list[Tensor]) -> list[Tensor]:
    """The CPU tensors of an operation that may not stand next to tensors of the device."""
    traits = _traits(func)
    if traits.name == "copy_":
        return []
    if traits.name in INDEXING and isinstance(args[0], DeviceTensor):  # what is indexed, indices, values
        return [value for value in args[2:3] if not isinstance(value, DeviceTensor) and value.dim()]
    inputs = args[traits.is_in_place :]
    numbers = [value for value in inputs if any(value is each for each in here) and value.dim() == 0]
    if traits.name in FILLING:
        numbers = [value for value in numbers if value is args[-1]]
    elif traits.name != "where" and not (traits.takes_number and len(numbers) == 1):
        numbers = []
    return [value for value in here if all(value is not each for each in numbers)]


class _Traits(NamedTuple):
    name: str
    takes_number: bool
    is_in_place: bool
    is_random: bool


@functools.cache
def _traits(func: Any) -> _Traits:
    name, schema = func.overloadpacket.__name__, func._schema
    changed = schema.arguments[0].alias_info if schema.arguments else None
    return _Traits(
        name,
        torch.Tag.pointwise in func.tags and name not in WITHOUT_NUMBERS,
        changed is not None and changed.is_write,
        any("Generator" in str(argument.type) for argument in schema.arguments),
    )


def _is_there(device: Any) -> bool:
    return device is not None and torch.device(device).type == DEVICE.type


def _without_lists(index: Any) -> Any:
    """Lists as CPU tensors, which torch would make on the device of what is indexed, out of our sight."""
    if isinstance(index, tuple):
        return tuple([_without_lists(each) if isinstance(each, list | np.ndarray) else each for each in index])
    if isinstance(index, list | np.ndarray):
        return _torch["tensor"](_read(index), dtype=None if len(index) else torch.long)
    return index


def _read(values: Any) -> Any:
    """The numbers of device tensors in lists."""
    if isinstance(values, DeviceTensor):
        return values.tolist()
    return [_read(each) for each in values] if isinstance(values, list | tuple) else values


def _from_numbers(name: str) -> Callable[..., Tensor]:
    """`torch.tensor` and its like, which would fill the memory of a device unseen: on the CPU first, then moved."""
    theirs = _torch[name]

    @functools.wraps(theirs)
    def make(data: Any, *args: Any, **kwargs: Any) -> Tensor:
        wanted = kwargs.get("device")
        if isinstance(data, Tensor):
            return theirs(data, *args, **kwargs)
        if not _is_there(torch.get_default_device() if wanted is None else wanted):
            return theirs(_read(data), *args, **kwargs)
        requires_grad = kwargs.pop("requires_grad", False)
        made = theirs(_read(data), *args, **kwargs | {"device": CPU}).to(DEVICE)
        return made.requires_grad_() if requires_grad else made

    return make

"""What the library takes from torch by names that torch keeps private, or calls experimental: all of it, and why.

torch may rename these at any release, so they are here and nowhere else, each behind a public function or constant
that says what it is for and why no public name does. Experimental: `torch.fx.experimental.proxy_tensor.make_fx`.
inductor takes longer to import than torch itself and is imported where it is used.
"""

import contextlib
import logging
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from bayesmeta.errors import DataError

NORMALISATION = nn.modules.batchnorm._NormBase
"""Layers that normalise with statistics of a batch, or may: batch and instance normalisation, lazy ones too.

Public are the single layers only; what other libraries derive from their base would be missed."""

INSTANCE_NORMALISATION = nn.modules.instancenorm._InstanceNorm
"""The instance normalisations, which keep statistics only where `track_running_stats` says so. As for the others,
what is public is the layers, not their base."""

DROPOUT = nn.modules.dropout._DropoutNd
"""Layers that drop inputs at random with probability `p`. As for the others, what is public is the layers, not their
base."""


FORWARD_HOOKS = ("_forward_hooks", "_forward_pre_hooks")
"""Attributes of every module: tables of functions that run when it is called. Publicly one can only add to them."""

OTHER_HOOKS = (
    *("_forward_hooks_with_kwargs", "_forward_hooks_always_called", "_forward_pre_hooks_with_kwargs"),
    *("_backward_hooks", "_backward_pre_hooks", "_state_dict_hooks", "_state_dict_pre_hooks"),
    *("_load_state_dict_pre_hooks", "_load_state_dict_post_hooks", "_non_persistent_buffers_set"),
)
"""Attributes of every module that no result depends on: of hooks that are in `FORWARD_HOOKS`, too, and of those for
gradients, saving and loading."""


class Tables(NamedTuple):
    """The dictionaries in which a module itself, without its submodules, holds tensors by name."""

    parameters: dict[str, Any]
    buffers: dict[str, Any]


def tables(module: nn.Module) -> Tables:
    """Where a module holds its own parameters and buffers; writing to a table changes the module.

    Of the public ways to write, `setattr` refuses a tensor in the place of a parameter, and
    `torch.func.functional_call` does not put back what is registered twice (torch 2.13).
    """
    return Tables(module._parameters, module._buffers)


def first_parameter(module: nn.Module) -> Tensor | None:
    """What `next(module.parameters(), None)` gives, without the names of all modules, which that writes.

    Where parameters are mapped (`torch.vmap`), it is what stands in the place of one.
    """
    for table in (module._parameters, module._modules):
        for value in table.values():
            found = first_parameter(value) if isinstance(value, nn.Module) else value
            if found is not None:
                return found
    return None


def is_mapped(tensor: Tensor) -> bool:
    """Whether `torch.vmap` maps over this tensor: then Python cannot decide by its values.

    They differ from call to call. Publicly one learns it only from the error that looking at the values raises.
    """
    return torch._C._functorch.is_batchedtensor(tensor)


def is_intercepted() -> bool:
    """Whether operations of torch are recorded, mapped or watched: then Python should decide nothing by values.

    `torch.compiler.is_compiling` knows of torch's own compiler alone, and not of transformations of functions
    (`torch.func`) and of modes in which tensors have no values.
    """
    return (
        torch._C._len_torch_dispatch_stack() > 0
        or torch._C._functorch.peek_interpreter_stack() is not None
        or torch.compiler.is_compiling()
    )


def is_transformed() -> bool:
    """Whether a transform of `torch.func` or forward differentiation is going on: then a function of ours that has a
    backward pass alone will not do. Publicly one learns it from the error that it raises.
    """
    return torch._C._are_functorch_transforms_active() or torch.autograd.forward_ad._current_level >= 0


def added(values: Sequence[Tensor], others: Sequence[Tensor]) -> list[Tensor]:
    """The sum of each value and its other, all by one call where torch has it.

    Optimisers are made of `torch._foreach_add`, which has no public name.
    """
    return list(torch._foreach_add(list(values), list(others)))


def norms(values: Sequence[Tensor]) -> list[Tensor]:
    """The Euclidean norm of each value, all by one call: as for `added`."""
    return list(torch._foreach_norm(list(values), 2))


class Unrounded(nn.Module):
    """A module whose own buffers `.to()`, `.float()` and the like move to another device, but never round.

    Those of its submodules are converted as usual. All conversions, also one of a module that holds this one, go
    through `nn.Module._apply`; the public methods of this module are not called in that case.
    """

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> "Unrounded":
        exact = dict(self.named_buffers(recurse=False))
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, buffer in exact.items():
            setattr(self, name, buffer.to(getattr(self, name).device))
        return self


class Growing(nn.Module):
    """A module some of whose own buffers may have any length: loading a state gives them the length that is loaded.

    `load_state_dict` calls `_load_from_state_dict` of each module. The public hook before it
    (`register_load_state_dict_pre_hook`) is an attribute that copies of a module would share with it.

    Attributes:
        growing: names of these buffers. Shapes agree but for the first axis.
    """

    growing: tuple[str, ...] = ()

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any, **kwargs: Any) -> None:
        for name in self.growing:
            stored, own = state_dict.get(prefix + name), getattr(self, name)
            if stored is not None and stored.shape[1:] == own.shape[1:] and len(stored) != len(own):
                setattr(self, name, own.new_zeros(stored.shape))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


class Budget(TorchDispatchMode):
    """A block of code may ask for so much memory for tensors, and for so many operations; for more it is refused.

    No public way sees an operation before it is done. One whose result may be large is tried on the meta device first,
    where tensors have no memory; most show by the sizes of what they are given that it cannot be.

    Args:
        largest: bytes of one tensor.
        total: bytes of all tensors together, also of those that are gone.
        operations: their number.
    """

    def __init__(self, largest: int, total: int, operations: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.largest, self.total, self.operations = largest, total, operations

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # what skips it imports it first, which takes seconds; so do many operations on the meta device

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        self.operations -= 1
        if not func._schema.is_mutable:
            size = 16 * _most_numbers(func, args, kwargs)  # the widest number has 16 bytes
            if size > min(self.largest, self.total):
                size = _size_on_meta(func, args, kwargs)
                self._require(size <= self.largest and size <= self.total)
        result = func(*args, **kwargs)
        if not func._schema.is_mutable:
            self.total -= sum(v.numel() * v.element_size() for v in tree_leaves(result) if isinstance(v, Tensor))
        self._require(self.total >= 0 and self.operations >= 0)
        return result

    def _require(self, is_within: bool) -> None:
        if not is_within:
            raise DataError("expected a model of the size of its weights, got arguments that ask for a larger one")


def _most_numbers(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    """No operation makes more numbers: of all tensors' together, by a list that is a shape, by a whole number squared.

    A factor is no size, but where there is no tensor (`arange`).
    """
    kinds = {argument.name: str(argument.type) for argument in func._schema.arguments}
    given = [*zip(kinds.values(), args, strict=False), *((kinds[name], value) for name, value in kwargs.items())]
    tensors = [value for value in tree_leaves([*args, *kwargs.values()]) if isinstance(value, Tensor)]
    most = math.prod(max(1, tensor.numel()) for tensor in tensors)
    for kind, value in given:
        if isinstance(value, list | tuple) and all(isinstance(v, int) for v in value):
            most *= math.prod(max(1, abs(v)) for v in value)
        elif isinstance(value, int | float) and math.isfinite(value) and (kind == "int" or not tensors):
            most *= max(1, math.ceil(abs(value))) ** 2
    return most


def _size_on_meta(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    """Bytes of the result; 0 where the operation looks at values, whose results are small."""

    def on_meta(value: Any) -> Any:
        if isinstance(value, Tensor):
            return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")
        return None if isinstance(value, torch.Generator) else value

    inputs, options = tree_map(on_meta, args), tree_map(on_meta, kwargs)
    if "device" in options:
        options["device"] = torch.device("meta")
    try:
        outputs = tree_leaves(func(*inputs, **options))
    except (RuntimeError, NotImplementedError):
        return 0
    return sum(value.untyped_storage().nbytes() for value in outputs if isinstance(value, Tensor))


def copy_each(targets: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    """Copy each value to its target: those of one precision by one call, where a device is given one kernel for all.

    Optimisers are made of `torch._foreach_copy_` and the like, which have no public names.

    Args:
        targets: tensors, which are changed.
        values: of the same shapes and precisions.
    """
    groups: dict[torch.dtype, tuple[list[Tensor], list[Tensor]]] = {}
    for target, value in zip(targets, values, strict=True):
        ours, theirs = groups.setdefault(target.dtype, ([], []))
        ours.append(target)
        theirs.append(value.detach())
    for ours, theirs in groups.values():
        torch._foreach_copy_(ours, theirs)


def record_graph(function: Callable[..., Any], inputs: Sequence[Tensor]) -> torch.fx.GraphModule:
    """The tensor operations that `function(*inputs)` consists of, with those of `torch.autograd.grad`, as a graph.

    Nothing is computed, and whatever needs the value of a tensor raises. Meanwhile `torch.compiler.is_compiling()` is
    true, and torch.distributions does not validate; afterwards both are as they were.

    `torch.export` knows no derivatives inside of what it exports, and `torch.compile` gives no graph to check. What is
    public can neither say that something is being compiled nor tell whether distributions validate, only set it.

    Raises:
        RuntimeError: the function looks at a value.
    """
    from torch._subclasses import FakeTensorMode
    from torch.fx.experimental.proxy_tensor import make_fx

    # Fake tensors have no values, and without a ShapeEnv no symbols for them either: whatever needs a value raises.
    # (make_fx's own modes would record the value of .tolist() or the size of .nonzero() as a constant.)
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    values = [fake.from_tensor(value) for value in inputs]
    with fake, _compiling():
        graph: torch.fx.GraphModule = make_fx(function)(*values)
    return graph


def compile_graph(graph: torch.fx.GraphModule, inputs: Sequence[Tensor]) -> Callable[..., Any]:
    """A recorded graph as code that inductor compiles for inputs of these shapes and strides; it draws as torch does.

    `torch.compile` would record the graph once more, and anew where it finds that something has changed. What has been
    compiled is found again in inductor's folder (TORCHINDUCTOR_CACHE_DIR), also by another process, where torch has
    `standalone_compile` (2.8); on a CPU all of it is C++ then, calls of kernels included.

    Raises:
        Exception: of any type. There is no C++ compiler, or inductor does not know an operation.
    """
    from torch import _inductor as inductor

    # random draws as without compilation; and code that is kept is for so many threads
    patches: dict[str, Any] = {"fallback_random": True, "cpp.threads": torch.get_num_threads()}
    run: Callable[..., Any]
    with talking_to_itself():
        if not hasattr(inductor, "standalone_compile"):
            run = inductor.compile(graph, [*inputs], patches)
            return run
        for node in graph.graph.nodes:
            node.meta.pop("val", None)  # of the recording, which had no symbols for sizes: the cache refuses it
        if all(value.device.type == "cpu" for value in inputs):
            # Headers that are compiled beforehand save nothing where there is one file to compile; and what the
            # processor says of itself need not be tried out by five more, unless the compiler is too old for it.
            whole = {"cpp_wrapper": True, "cpp_cache_precompile_headers": False, "cpp.vec_isa_ok": True}
            with contextlib.suppress(Exception):  # any type: what is wrong with the graph is found once more below
                run = _standalone(graph, inputs, patches | whole)
                return run
        run = _standalone(graph, inputs, patches)
    return run


def _standalone(graph: torch.fx.GraphModule, inputs: Sequence[Tensor], patches: dict[str, Any]) -> Callable[..., Any]:
    from torch import _inductor as inductor

    options = {"config_patches": patches}
    run: Callable[..., Any] = inductor.standalone_compile(
        graph, [*inputs], dynamic_shapes="from_example_inputs", options=options
    )
    return run


def package_program(program: torch.export.ExportedProgram, path: Path) -> None:
    """A program of `torch.export` as compiled code in one file, which `torch._inductor.aoti_load_package` loads.

    Compiling ahead of time has no public name yet.

    Raises:
        Exception: of any type. There is no C++ compiler, or inductor does not know an operation.
    """
    from torch import _inductor as inductor

    with talking_to_itself():
        inductor.aoti_compile_and_package(program, package_path=str(path))


def packaged_program(path: Path) -> Callable[..., Any]:
    """What `package_program` has written, as a function of tensors.

    Args:
        path: the file.
    """
    from torch import _inductor as inductor

    run: Callable[..., Any] = inductor.aoti_load_package(str(path))
    return run


def without_asides(program: torch.export.ExportedProgram) -> None:
    """Take out of a recorded program what computes nothing: results that nobody asks for, and checks of precisions.

    Each takes its time when the program runs. The checks, which torch records with every conversion, are an operation
    with a private name.
    """
    graph = program.graph_module.graph
    for node in list(graph.nodes):
        if node.target is torch.ops.aten._assert_tensor_metadata.default:
            graph.erase_node(node)
    graph.eliminate_dead_code()
    program.graph_module.recompile()


@contextlib.contextmanager
def talking_to_itself() -> Iterator[None]:
    """What torch says of its own code is not said: that it uses what it has deprecated, and what is not installed.

    The names of its loggers are those of its private modules.
    """
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.fx", "torch._inductor")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def unvalidated() -> Iterator[None]:
    """torch.distributions does not look at the values of parameters, also where one makes another."""
    validate = Distribution._validate_args
    Distribution.set_default_validate_args(False)
    try:
        yield
    finally:
        Distribution.set_default_validate_args(validate)


@contextlib.contextmanager
def _compiling() -> Iterator[None]:
    """`torch.compiler.is_compiling()` is true, as in torch.export, and torch.distributions does not look at values."""
    flag = torch.compiler._is_compiling_flag
    torch.compiler._is_compiling_flag = True
    try:
        with unvalidated():
            yield
    finally:
        torch.compiler._is_compiling_flag = flag

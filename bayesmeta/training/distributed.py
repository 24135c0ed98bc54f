"""Several processes that train one learner: which of them this is, and what they tell each other.

A launcher (`torchrun`, `accelerate launch`, Ray Train, a cluster's own) starts one program several times and says in
the environment which of them each is, or has connected them already. `fit` asks here.

`torch.nn.parallel.DistributedDataParallel` is no help: it works by hooks on `backward`, and does not support the second
derivatives of an inner loop. What meta-training needs is less: one sum of gradients over all processes in every step.
"""

import atexit
import contextlib
import itertools
import math
import os
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed

from bayesmeta.arguments import whole
from bayesmeta.errors import BayesMetaError, DataError, InferenceError, UnsupportedError

SAME = 1e-6  # relative: what two machines may make of one number
ENVIRONMENT = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # what launchers set

_is_alone: ContextVar[bool] = ContextVar("is_alone", default=False)
_T = TypeVar("_T")


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """In this block every process is on its own: `fit` divides nothing.

    It is for programs that train another learner in each process, such as the members of an ensemble. The block takes
    effect in its own thread.

    Example:
        >>> import bayesmeta as bm
        >>> tasks = bm.tasks.Sinusoid().dataset(num_tasks=10, num_points=8, seed=0)
        >>> learner = bm.ALPaCA(bm.MLP(1, [8]))
        >>> with bm.training.alone():
        ...     result = bm.fit(learner, tasks, steps=2, seed=bm.training.Processes.here().rank, progress=False)
    """
    before = _is_alone.set(True)
    try:
        yield
    finally:
        _is_alone.reset(before)


@dataclass(frozen=True)
class Processes:
    """Several processes that compute together, and which of them this is.

    Their methods are called by all of them in the same order, or those that do wait for those that do not.

    Attributes:
        rank: which one this is, from 0.
        count: how many there are.

    Raises:
        DataError: no process, or a rank that is none of them.

    Example:
        >>> import bayesmeta as bm
        >>> here = bm.training.Processes.here()  # under `torchrun --nproc-per-node 4`: Processes(rank=2, count=4)
        >>> here
        Processes(rank=0, count=1)
        >>> [bm.training.Processes(rank, 3).share(16) for rank in range(3)]  # who takes which of 16 tasks
        [slice(0, 6, None), slice(6, 11, None), slice(11, 16, None)]
    """

    rank: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        """Check that it is one of them."""
        object.__setattr__(self, "count", whole(self.count, "count", 1))
        object.__setattr__(self, "rank", whole(self.rank, "rank", 0, self.count - 1))

    @classmethod
    def here(cls) -> "Processes":
        """As torch.distributed knows it where it is initialised, as the launcher has said it otherwise.

        One process where there is neither.

        Raises:
            DataError: the launcher's variables are not numbers.

        Example:
            >>> import bayesmeta as bm
            >>> if bm.training.Processes.here().is_first:
            ...     print("only one of them prints this")
            only one of them prints this
        """
        if _is_alone.get() or not distributed.is_available():
            return cls()
        if distributed.is_initialized():
            return cls(distributed.get_rank(), distributed.get_world_size())
        if not all(os.environ.get(name) for name in ENVIRONMENT):
            return cls()
        return cls(_number("RANK"), _number("WORLD_SIZE"))

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes and shows: rank 0."""
        return self.rank == 0

    @property
    def device(self) -> torch.device:
        """The device of this process: of several GPUs of a machine the one that the launcher meant for it.

        The CPU where there is no GPU.
        """
        if not torch.cuda.is_available():
            return torch.device("cpu")
        local = _number("LOCAL_RANK") if self.count > 1 and os.environ.get("LOCAL_RANK") else 0
        seen = torch.cuda.device_count()  # one where the launcher shows each process its own alone
        return torch.device("cuda", local if local < seen else 0)

    def connect(self) -> "Processes":
        """Initialise torch.distributed where nobody has yet: gloo on CPUs, and NCCL on GPUs. Returns itself."""
        if self.count > 1 and not distributed.is_initialized():
            has_gpu = torch.cuda.is_available() and distributed.is_nccl_available()
            if has_gpu:
                torch.cuda.set_device(self.device)
            distributed.init_process_group("cpu:gloo,cuda:nccl" if has_gpu else "gloo")
            atexit.register(_disconnect)
        return self

    def share(self, num_tasks: int) -> slice:
        """Which of so many tasks this process takes: as many as the others, or one more."""
        size, more = divmod(num_tasks, self.count)
        first = self.rank * size + min(self.rank, more)
        return slice(first, first + size + (self.rank < more))

    def add(self, value: Tensor) -> Tensor:
        """The sum of what all processes have; the same to the last bit in all of them."""
        return value if self.count == 1 else self._moved(value, distributed.all_reduce)

    @torch.no_grad()
    def copy_from_first(self, values: Iterable[Tensor]) -> None:
        """Overwrite tensors, of equal shapes in all processes, by those of the first."""
        for value in values if self.count > 1 else ():
            if value.numel():
                value.copy_(self._moved(value.detach(), lambda each: distributed.broadcast(each, 0)))

    def gathered(self, value: _T) -> list[_T]:
        """What each process gives, by rank; it is pickled."""
        if self.count == 1:
            return [value]
        found: list[Any] = [None] * self.count
        with _connected():
            distributed.all_gather_object(found, value)
        return found

    def of_first(self, value: _T) -> _T:
        """What the first process gives; it is pickled."""
        if self.count == 1:
            return value
        found = [value if self.is_first else None]
        with _connected():
            distributed.broadcast_object_list(found, 0)
        return found[0]  # type: ignore[return-value]

    def first_does(self, action: Callable[[], _T]) -> _T | None:
        """The first process acts, and the others wait: for what is written.

        Returns:
            What the action gives, in the first process.

        Raises:
            BayesMetaError: it failed, in all processes.
        """
        found, error = None, None
        if self.is_first:
            try:
                found = action()
            except Exception as caught:
                error = caught
        self.fail_together(error)
        return found

    def fail_together(self, error: Exception | None) -> None:
        """Raise in all processes what went wrong in one; the error of the lowest rank where it did in several.

        Args:
            error: what went wrong here; None where nothing did.

        Raises:
            BayesMetaError: something did, as this process has it. An error that is not of bayesmeta is an
                InferenceError in the other processes.
        """
        failed = torch.tensor(float(error is not None), device="cpu")
        if not bool(self.add(failed)):  # one small number, where all went well
            return
        if error is not None and (self.count == 1 or not isinstance(error, BayesMetaError)):
            self.gathered(_portable(error, self.rank))
            raise error  # with its own traceback
        for rank, each in enumerate(self.gathered(None if error is None else _portable(error, self.rank))):
            if each is not None:
                raise error if error is not None and rank == self.rank else each

    def agree(self, values: Mapping[str, object]) -> None:
        """Raise where processes do not have the same: they would wait for each other, or compute nonsense.

        Args:
            values: by what they are called; numbers may differ by rounding.

        Raises:
            DataError: a value differs; it is named, in all processes.
        """
        each = self.gathered(dict(values))
        for (name, own), (rank, other) in itertools.product(each[0].items(), enumerate(each)):
            if not _alike(own, other.get(name)):
                raise DataError(
                    f"expected the same {name} in all {self.count} processes, got {own!r} in process 0 and "
                    f"{other.get(name)!r} in process {rank}: each of them is given all tasks, and takes its share of "
                    "every step itself. To train another learner in each, use `with bm.training.alone():`"
                )

    def require_devices(self, device: torch.device) -> None:
        """Raise where two processes have one GPU, which NCCL refuses.

        Args:
            device: of this process's parameters.

        Raises:
            UnsupportedError: they share it.
        """
        if self.count == 1 or device.type != "cuda":
            return
        index = torch.cuda.current_device() if device.index is None else device.index
        name = str(getattr(torch.cuda.get_device_properties(index), "uuid", index))
        each = self.gathered((socket.gethostname(), name))
        if len(set(each)) < self.count:
            raise UnsupportedError(
                f"expected a GPU for each of {self.count} processes, got {device} on {each[self.rank][0]} for several: "
                "use learner.to(bm.training.Processes.here().device)"
            )

    def _moved(self, value: Tensor, operation: Callable[[Tensor], object]) -> Tensor:
        """What an operation in place makes of a copy, on a device that the processes are connected for."""
        backends = dict(each.split(":") for each in distributed.get_backend_config().split(","))
        device = value.device
        if device.type not in backends:
            own = next(iter(backends))
            device = torch.device(own, torch.cuda.current_device()) if own == "cuda" else torch.device(own)
        copied = torch.empty(value.shape, dtype=value.dtype, device=device).copy_(value)
        with _connected():
            operation(copied)
        return copied.to(value.device)


def fingerprint(tensors: Iterable[Tensor]) -> tuple[object, ...]:
    """What tells data apart, for `agree`: shapes, and sums of sizes.

    Example:
        >>> fingerprint([torch.tensor([1.0, -2.0])])
        ((2,), 3.0)
    """
    return tuple(part for value in tensors for part in (tuple(value.shape), _size(value)))


def _size(value: Tensor) -> float:
    # of floating numbers without a copy in double precision
    return float(
        torch.linalg.vector_norm(value if value.is_floating_point() else value.double(), 1, dtype=torch.double)
    )


def _number(name: str) -> int:
    text = os.environ[name]
    if not text.isdecimal():
        raise DataError(f"expected a whole number in the environment variable {name}, got {text!r}")
    return int(text)


@contextlib.contextmanager
def _connected() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # of gloo and NCCL, where the other end is closed or says nothing for too long
        raise InferenceError(f"expected all processes to go on, got none from another one: {error}") from error


def _disconnect() -> None:
    if distributed.is_initialized():
        distributed.destroy_process_group()


def _portable(error: Exception, rank: int) -> BayesMetaError:
    """An error for other processes: bayesmeta's own as it is, what may not even be importable there in words."""
    if isinstance(error, InferenceError):
        return InferenceError(str(error), error.task)
    if isinstance(error, BayesMetaError) and type(error).__module__ == BayesMetaError.__module__:
        return type(error)(str(error))
    return InferenceError(f"expected all processes to go on, got {type(error).__name__} in process {rank}: {error}")


def _alike(a: object, b: object) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=SAME) or (math.isnan(a) and math.isnan(b))
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(_alike(a[key], b[key]) for key in a)
    if isinstance(a, Sequence) and isinstance(b, Sequence) and not isinstance(a, str):
        return len(a) == len(b) and all(_alike(x, y) for x, y in zip(a, b, strict=True))
    return a == b

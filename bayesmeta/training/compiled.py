"""The whole meta-step as compiled code: losses of a batch of tasks and their gradient in theta, inner loop included."""

import contextlib
import math
import os
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bayesmeta.annotations import checked
from bayesmeta.data import Data, TaskBatch, padded, tensors_of
from bayesmeta.errors import BayesMetaError, UnsupportedError
from bayesmeta.learner import Learner
from bayesmeta.one_line import InShort
from bayesmeta.swapped import Places, swapped
from bayesmeta.torch_private import compile_graph, record_graph, tables

PLAIN = {bool, int, float, str, type(None)}
MAX_STATES = 8  # switches are few
KEPT_IN = "TORCHINDUCTOR_CACHE_DIR"


Program = Callable[..., Sequence[Tensor]]
"""A compiled step: parameters, buffers and points -> the losses, their mean and the gradients."""


class _Program(NamedTuple):
    run: Program
    reached: list[int]  # positions of the parameters that have a gradient
    shared: list[int]  # positions of gradients whose memory is another's as well


class CompiledStep(InShort):
    """Losses of a batch of tasks, and the gradient of their mean in theta, by code that inductor compiles.

    The step is recorded once as a graph of tensor operations, in which the derivatives of an inner loop
    (`torch.autograd.grad` with `create_graph=True`) and the meta-gradient are operations like any other, and compiled:
    seconds to a minute, for every new number of tasks, precision, device, number of threads and set of trained
    parameters. With torch 2.8 or later the code is kept, so that another process has it in a second or two: in the
    folder that the environment's TORCHINDUCTOR_CACHE_DIR names, or else in `~/.cache/bayesmeta/compiled`. What is
    compiled for N support and M query points serves fewer as well: batches are padded, which by contract changes
    nothing, and where they outgrow the padding it grows by at least a quarter.

    A recording knows no values, so a loss must not depend on them other than through tensor operations: `bool(tensor)`,
    `.item()`, `x[mask]` and `.numpy()` raise. While a loss is recorded `torch.compiler.is_compiling()` is true, for
    checks to skip, and torch.distributions does not validate. Schedules belong in buffers. Where a number, truth value
    or string that a module has as an attribute changes, the step is compiled anew; all other Python state (tensors that
    are neither parameters nor buffers, contents of lists) stays as it was recorded. Random draws must come from torch's
    global generator.

    Args:
        learner: whose theta the gradients are of.
        loss_of: tasks -> losses of this learner, `B`, such as its own `loss`.
        total_points: points of all meta-training tasks; the hyperprior is divided by them, and inf leaves it out.

    Attributes:
        compilations: how many times it has compiled.

    Example:
        The recording alone, as compiling takes too long for an example; a call `step(batch)` gives the same.

        >>> import bayesmeta as bm
        >>> from bayesmeta.training.compiled import CompiledStep
        >>> learner = bm.ALPaCA(bm.Identity(1))
        >>> batch = learner.conform_tasks(bm.tasks.Sinusoid().dataset(3, 8, seed=0).divided(bm.tasks.RandomSplit.at(5)))
        >>> step = CompiledStep(learner, learner.loss)
        >>> losses, mean = step.record(batch)
        >>> losses.shape, learner.prior.location.grad.shape, step.compilations
        (torch.Size([3]), torch.Size([2, 1]), 0)
    """

    @checked
    def __init__(
        self, learner: Learner, loss_of: Callable[[TaskBatch], Tensor], total_points: float = math.inf
    ) -> None:
        self.learner, self.loss_of, self.total_points = learner, loss_of, total_points
        self.compilations = 0
        self._programs: dict[tuple[object, ...], _Program] = {}
        # where a network takes statistics over points, padding would count
        self._may_pad = all(getattr(module, "pointwise", True) for module in learner.modules())
        self._widths = (0, 0)  # what support and query are padded to
        self._theta = list(learner.parameters())  # each once, tied or not
        names = [name for name, _ in learner.named_buffers()]
        # where they are, as a learner may assign another tensor to a buffer
        self._buffer_places: list[tuple[dict[str, Any], str]] = [
            (tables(learner.get_submodule(path)).buffers, key) for path, _, key in (n.rpartition(".") for n in names)
        ]
        self._attributes = [vars(module) for module in learner.modules()]
        self._states: set[tuple[object, ...]] = set()

    def __call__(self, tasks: TaskBatch) -> tuple[Tensor, Tensor]:
        """The losses of the tasks, `B`, and their mean less the hyperprior; `.grad` becomes the gradient of the latter.

        The tasks have gone through the learner's `conform_tasks`. Neither loss nor gradient is checked to be finite.

        Raises:
            UnsupportedError: the loss cannot be compiled: its Python code depends on the values of tensors, there is no
                C++ compiler, or there are no parameters that require gradients.
        """
        inputs = self._inputs(self._padded(tasks))
        state = tuple([value for table in self._attributes for value in table.values() if type(value) in PLAIN])
        key = (
            torch.get_num_threads(),  # compiled code starts as many
            state,
            *[p.requires_grad for p in self._theta],
            *[(v.shape, v.dtype, v.device) for v in inputs],
        )
        with torch.no_grad():
            program = self._programs.get(key)
            if program is None:
                self._require_few(state)
                program, outputs = self._compile(inputs)
                self._programs[key] = program
                self.compilations += 1
            else:
                outputs = list(program.run(*inputs))
            return self._given(outputs, program.reached, program.shared)

    def state_dict(self) -> dict[str, Any]:
        """The sizes that batches are padded to, on which rounding may depend: a part of a run."""
        return {"widths": self._widths}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with these sizes."""
        self._widths = state_dict["widths"]

    def record(self, tasks: TaskBatch) -> tuple[Tensor, Tensor]:
        """The same as a call, by the recorded operations one after the other: nothing is compiled or kept.

        It takes seconds in place of a minute, and no C++ compiler: to find out whether a loss of one's own can be
        compiled, and whether its recording is what it should be.

        Raises:
            UnsupportedError: the loss cannot be recorded: its Python code depends on the values of tensors, or there
                are no parameters that require gradients.
        """
        inputs = self._inputs(tasks)
        with torch.no_grad():
            graph, reached = self._recorded([value.detach() for value in inputs])
            outputs = list(graph(*inputs))
            return self._given(outputs, reached, _shared(inputs, outputs))

    def _inputs(self, tasks: TaskBatch) -> list[Tensor]:
        """All that the losses depend on: parameters, buffers and points."""
        # compiled code relies on the strides of its inputs
        points = [v.contiguous() for parts in tensors_of((tasks.support, tasks.query)) for v in parts]
        return [*self._theta, *[table[key] for table, key in self._buffer_places], *points]

    def _given(self, outputs: Sequence[Tensor], reached: list[int], shared: list[int]) -> tuple[Tensor, Tensor]:
        """The losses and their mean; the gradients become those of the parameters."""
        each, loss, *gradients = outputs
        for index in shared:
            gradients[index] = gradients[index].clone()
        for parameter in self._theta:
            parameter.grad = None
        for index, gradient in zip(reached, gradients, strict=True):
            self._theta[index].grad = gradient
        return each, loss

    def _require_few(self, state: tuple[object, ...]) -> None:
        """Raise where a loss would be compiled for ever: a schedule that is a number in Python."""
        self._states.add(state)
        if len(self._states) > MAX_STATES:
            name = type(self.learner).__name__
            raise UnsupportedError(
                f"expected the numbers that {name} has as attributes to take at most {MAX_STATES} values in training, "
                f"got more: for each it is compiled anew. Keep a schedule in a buffer (buffer.fill_(value)), or use "
                "compile=False"
            )

    def _padded(self, tasks: TaskBatch) -> TaskBatch:
        if not self._may_pad:
            return tasks
        sizes = tasks.support.num_points, tasks.query.num_points
        if sizes == self._widths:
            return tasks
        self._widths = _grown(self._widths[0], sizes[0]), _grown(self._widths[1], sizes[1])
        return TaskBatch(padded(tasks.support, self._widths[0]), padded(tasks.query, self._widths[1]), tasks.names)

    def _compile(self, inputs: list[Tensor]) -> tuple[_Program, list[Tensor]]:
        """The program for inputs of these shapes, and what it gives for them."""
        detached = [value.detach() for value in inputs]
        graph, reached = self._recorded(detached)
        try:
            with _kept_code():
                run = compile_graph(graph, detached)
        except Exception as error:  # all of it is torch's own code, and its errors have no common base
            raise UnsupportedError(
                f"expected to compile the loss of {type(self.learner).__name__} with inductor, got "
                f"{type(error).__name__}: {error}. Likely cause: no C++ compiler (install g++), or an operation that "
                "inductor does not know: use compile=False"
            ) from error
        outputs = list(run(*inputs))
        return _Program(self.executable(run, inputs), reached, _shared(inputs, outputs)), outputs

    def executable(self, run: Program, inputs: Sequence[Tensor]) -> Program:
        """What is kept of a program and called for all inputs of these shapes: the program itself.

        Args:
            run: the program.
            inputs: it has run once on these.
        """
        return run

    def _recorded(self, inputs: list[Tensor]) -> tuple[torch.fx.GraphModule, list[int]]:
        """The step as a graph of inputs that holds nothing wrong, and which parameters have a gradient."""
        name = type(self.learner).__name__
        if not any(parameter.requires_grad for parameter in self._theta):
            raise UnsupportedError(f"expected parameters to train, got none that requires gradients in {name}")
        try:
            graph, reached = self._graph(inputs)
        except BayesMetaError:
            raise
        except RuntimeError as error:
            raise UnsupportedError(
                f"expected a loss of {name} that is nothing but tensor operations, got {type(error).__name__} "
                f"at {_place(error)}: {str(error).strip().splitlines()[0]}. Likely cause: Python code that depends on "
                "the values of tensors (bool, item, a mask as an index): use compile=False, which fails in the same "
                "place if the loss itself is wrong"
            ) from error
        _check(graph, self._theta, name)
        return graph, reached

    def _graph(self, inputs: list[Tensor]) -> tuple[torch.fx.GraphModule, list[int]]:
        """The step as a graph of inputs, and which parameters have a gradient."""
        own = [*self._theta, *[table[key] for table, key in self._buffer_places]]
        wanted = [index for index, parameter in enumerate(self._theta) if parameter.requires_grad]
        reached: list[int] = []

        def step(*values: Tensor) -> tuple[Tensor, ...]:
            state, points = list(values[: len(own)]), values[len(own) :]
            for index in wanted:
                state[index] = state[index].detach().requires_grad_()
            replacements = dict(zip(own, state, strict=True))
            with torch.enable_grad(), swapped(self.learner, replacements) as places:
                half = len(points) // 2
                each = self.loss_of(TaskBatch(Data(*points[:half]), Data(*points[half:])))
                loss = each.mean()
                if self.total_points < math.inf:
                    loss = loss - self.learner.log_hyperprior() / self.total_points
                found = torch.autograd.grad(loss, [state[index] for index in wanted], allow_unused=True)
                _require_unassigned(places, replacements, type(self.learner).__name__)
            gradients = []
            for index, gradient in zip(wanted, found, strict=True):
                if gradient is not None:
                    reached.append(index)
                    like = state[index].detach()
                    same = gradient.stride() == like.stride()  # as autograd has it in .grad
                    gradients.append(gradient if same else torch.empty_like(like).copy_(gradient))
            return each.detach(), loss.detach(), *gradients

        return record_graph(step, inputs), reached


@contextlib.contextmanager
def _kept_code() -> Iterator[None]:
    """Where inductor keeps what it compiles: in the folder that TORCHINDUCTOR_CACHE_DIR names, or in the user's cache.

    torch's own choice is among temporary files, where it may be gone tomorrow.
    """
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "bayesmeta" / "compiled"
    if KEPT_IN in os.environ or not _can_be_made(folder):
        yield
        return
    os.environ[KEPT_IN] = str(folder)
    try:
        yield
    finally:
        os.environ.pop(KEPT_IN, None)


def _can_be_made(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


def _shared(inputs: list[Tensor], outputs: list[Tensor]) -> list[int]:
    """Positions of gradients whose memory is another's as well.

    Where gradients are equal, inductor may return one tensor twice, or an input: clipping would scale it twice.
    """
    seen = {value.untyped_storage().data_ptr() for value in [*inputs, *outputs[:2]]}
    shared = []
    for index, gradient in enumerate(outputs[2:]):
        address = gradient.untyped_storage().data_ptr()
        if address in seen and gradient.numel():
            shared.append(index)
        seen.add(address)
    return shared


def _require_unassigned(places: Places, replacements: dict[Tensor, Tensor], name: str) -> None:
    if any(table.get(key) is not replacements[value] for table, key, value in places):  # what is assigned is put back
        raise UnsupportedError(
            f"expected the loss of {name} to change buffers in place, got one that it assigns: "
            "use buffer.copy_(value), or compile=False"
        )


def _grown(width: int, size: int) -> int:
    if size <= width:
        return width
    return max(size, width + width // 4)


def _place(error: BaseException) -> str:
    """The deepest line outside torch: where the learner asked for what is not possible."""
    frames = traceback.extract_tb(error.__traceback__)
    outside = [f for f in frames if Path(torch.__file__).parent not in Path(f.filename).parents]
    return f"{outside[-1].filename}:{outside[-1].lineno}"


def _check(graph: torch.fx.GraphModule, parameters: Iterable[Tensor], name: str) -> None:
    """Raise where the recording holds what must not be constant."""
    own = {p.untyped_storage().data_ptr() for p in parameters}
    for node in graph.graph.nodes:
        if node.kwargs.get("generator") is not None:
            raise UnsupportedError(
                f"expected random draws of {name} from torch's global generator, got a generator of its own in "
                f"{node.target}: use compile=False"
            )
        value = getattr(graph, node.target) if node.op == "get_attr" else None
        if isinstance(value, Tensor) and (
            value.requires_grad or (value.numel() and value.untyped_storage().data_ptr() in own)
        ):
            raise UnsupportedError(
                f"expected the loss of {name} to use parameters that are registered in it, got one of shape "
                f"{tuple(value.shape)} by another way (a list, a closure): use compile=False"
            )

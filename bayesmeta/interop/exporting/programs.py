"""A learner as functions of tensors alone, and what is said of their inputs and outputs.

    adapt_predict    (support_x, support_y, support_mask, query_x) -> parameters of the predictive

B tasks, N support points and M query points may be any number, 0 too: they are recorded as symbols.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bayesmeta.data import Data
from bayesmeta.errors import BayesMetaError, UnsupportedError
from bayesmeta.interop.exporting.parameters import described, parameters
from bayesmeta.learner import Learner
from bayesmeta.one_line import InShort
from bayesmeta.outcomes import Counts, Labels, Outcomes, Positives
from bayesmeta.torch_private import talking_to_itself, unvalidated, without_asides

SIZES = (3, 5, 4)  # B, N and M of the example that is recorded: all differ, and none is 0 or 1
TRIED = ((1, 0, 1), (1, 1, 1), (2, 1, 3), (5, 12, 6))  # where a program is compared with the library
ANY = ("B", "N", "M")  # axes that may have any length
FAR = {torch.float64: 1e-8, torch.float32: 1e-3}  # by the precision of weights, in units of the largest number


@dataclass(frozen=True)
class Slot(InShort):
    """A tensor that goes into a program, or comes out of it.

    Attributes:
        name: its name.
        axes: a letter for what may be any number, or a number.
        dtype: its precision.
        meaning: what it is, with its units.
    """

    name: str
    axes: tuple[str | int, ...]
    dtype: torch.dtype
    meaning: str

    def described(self) -> dict[str, Any]:
        """As it stands in the manifest."""
        dtype = str(self.dtype).removeprefix("torch.")
        return {"name": self.name, "axes": list(self.axes), "dtype": dtype, "meaning": self.meaning}


@dataclass(frozen=True, eq=False)
class Program(InShort):
    """A function of tensors that is to be recorded.

    Attributes:
        name: its name, that of its files.
        module: what computes it; its outputs are a dictionary.
        inputs: what it is given, in order.
        example: inputs for so many tasks, support and query points.
        truth: what the library says for the same inputs.
        says: axes and meaning of an output, by its name.
    """

    name: str
    module: nn.Module
    inputs: tuple[Slot, ...]
    example: Callable[[int, int, int], tuple[Tensor, ...]]
    truth: Callable[..., dict[str, Tensor]]
    says: Callable[[str], tuple[tuple[str, ...], str]]

    def recorded(self) -> "Recorded":
        """The program as `torch.export` records it, for any number of tasks and points.

        Raises:
            UnsupportedError: it cannot be recorded, or says something else than the library.
        """
        dims = {letter: torch.export.Dim(letter) for letter in ANY}
        shapes = tuple(
            {place: dims[str(axis)] for place, axis in enumerate(s.axes) if axis in ANY} for s in self.inputs
        )
        example = self.example(*SIZES)
        try:
            with torch.no_grad(), unvalidated(), talking_to_itself():
                outputs = self.module(*example)
                exported = torch.export.export(self.module, example, dynamic_shapes=shapes, strict=False)
        except BayesMetaError:
            raise
        except Exception as error:  # torch's own errors have no common base
            raise UnsupportedError(
                f"expected a learner whose {self.name} is nothing but tensor operations on any number of points, got "
                f"{type(error).__name__}: {str(error).strip().splitlines()[0]}. Likely causes: gradients within "
                "adaptation (MAML and its kin), a grid that follows the points (ConvCNP), a loop over points (MANN, "
                "GraphNetwork), or len(tensor) where tensor.shape[0] would do"
            ) from error
        without_asides(exported)
        recorded = Recorded(self, exported, tuple(self._slot(name, value) for name, value in outputs.items()))
        recorded.compare(exported.module())
        return recorded

    def _slot(self, name: str, value: Tensor) -> Slot:
        letters, meaning = self.says(name)
        axes = tuple(axis if axis in ANY else size for axis, size in zip(letters, value.shape, strict=True))
        return Slot(name, axes, value.dtype, meaning)


@dataclass(frozen=True, eq=False)
class Recorded(InShort):
    """A program that has been recorded and compared with the library.

    Attributes:
        program: what was recorded.
        exported: the recording.
        outputs: what comes out of it, in order.
    """

    program: Program
    exported: torch.export.ExportedProgram
    outputs: tuple[Slot, ...]

    def compare(self, run: Callable[..., Mapping[str, Tensor]]) -> None:
        """Raise UnsupportedError where a form of the recording says something else than the library.

        Args:
            run: the form, as a function of the inputs.
        """
        name, held = self.program.name, self.program.module.state_dict().values()
        near = FAR[torch.float32 if any(value.dtype == torch.float32 for value in held) else torch.float64]
        for num_tasks, num_support, num_query in TRIED:
            inputs = self.program.example(num_tasks, num_support, num_query)
            where = f"for B = {num_tasks}, N = {num_support}, M = {num_query}"
            with torch.no_grad():
                expected = self.program.truth(*inputs)
                try:
                    found = run(*inputs)
                except Exception as error:  # torch's own errors have no common base
                    raise UnsupportedError(
                        f"expected {name} to run for any number of points, got {type(error).__name__} {where}: "
                        f"{str(error).strip().splitlines()[0]}"
                    ) from error
            for key, value in expected.items():
                size = float(value.abs().max()) if value.numel() else 0.0
                far = float((found[key] - value).abs().max()) if value.numel() else 0.0
                if not far <= near * max(size, 1.0):  # NaN is far, too
                    raise UnsupportedError(
                        f"expected {name} to say what the library says, got {key} that differs by {far:.3g} {where}: "
                        "something in the learner depends on values or sizes in Python"
                    )


class AdaptPredict(nn.Module):
    """adapt and predict of a learner as one function of tensors.

    Args:
        learner: whose theta is frozen.

    Example:
        >>> import bayesmeta as bm
        >>> from bayesmeta.interop.exporting.programs import AdaptPredict
        >>> program = AdaptPredict(bm.ALPaCA(bm.Identity(1)).frozen())
        >>> x, y = torch.tensor([[[0.0], [1.0]]]), torch.tensor([[[0.0], [2.0]]])
        >>> sorted(program(x, y, torch.ones(1, 2, dtype=torch.bool), x))
        ['mean', 'variance']
    """

    def __init__(self, learner: Learner) -> None:
        super().__init__()
        self.learner = learner

    def forward(self, support_x: Tensor, support_y: Tensor, support_mask: Tensor, query_x: Tensor) -> dict[str, Tensor]:
        """The parameters of the predictive of each query point.

        Args:
            support_x: inputs of the support, `B N *x`.
            support_y: its outcomes, `B N C`, or labels `B N`.
            support_mask: which of these points are real, `B N`.
            query_x: inputs of the queries, `B M *x`.
        """
        support = self.learner.conform(Data(support_x, support_y, support_mask))
        posterior = self.learner.condition(support)
        return parameters(posterior.at(support.spec.cast(query_x)))


def adapt_predict(learner: Learner) -> Program:
    """The program that adapts and predicts.

    Args:
        learner: whose theta is frozen, with known inputs and outcomes.

    Raises:
        UnsupportedError: a learner whose inputs or outcomes are of any shape, or whose classes are those of a support.
    """
    x_shape, outcomes, dtype = require_shapes(learner)
    of_labels = isinstance(outcomes, Labels)
    y_meaning = "labels of the support, from 0" if of_labels else "outcomes of the support, in the user's units"
    inputs = (
        Slot("support_x", ("B", "N", *x_shape), dtype, "inputs of the support, in the user's units"),
        Slot("support_y", ("B", "N", *outcomes.y_shape), torch.int64 if of_labels else dtype, y_meaning),
        Slot("support_mask", ("B", "N"), torch.bool, "true where a point of the support is real, false at padding"),
        Slot("query_x", ("B", "M", *x_shape), dtype, "inputs at which outcomes are predicted, in the user's units"),
    )

    def example(num_tasks: int, num_support: int, num_query: int) -> tuple[Tensor, ...]:
        points = PointMaker(learner)
        mask = torch.ones(num_tasks, num_support, dtype=torch.bool, device=points.device)
        mask[1:, num_support // 2 :] = False  # ragged
        return (
            points.inputs(num_tasks, num_support),
            points.outcomes(num_tasks, num_support),
            mask,
            points.inputs(num_tasks, num_query),
        )

    def truth(x: Tensor, y: Tensor, mask: Tensor, query: Tensor) -> dict[str, Tensor]:
        return parameters(learner.adapt(Data(x, y, mask)).predict(query))

    return Program("adapt_predict", AdaptPredict(learner), inputs, example, truth, described)


def require_shapes(learner: Learner) -> tuple[tuple[int, ...], Outcomes, torch.dtype]:
    """The shape of an input, the outcomes and the precision of a learner that says all three.

    Args:
        learner: any.

    Raises:
        UnsupportedError: it does not say them.
    """
    dtype, _ = learner.placement()
    if learner.x_shape is None or learner.outcomes is None or dtype is None:
        raise UnsupportedError(f"expected a learner with known inputs and outcomes, got {learner.title}")
    if isinstance(learner.outcomes, Labels) and learner.outcomes.count is None:
        raise UnsupportedError(
            f"expected a learner that knows how many classes there are, got {learner.title}, which reads them off the "
            "labels of its support: a program has outputs of a known size. Make it with num_classes="
        )
    return learner.x_shape, learner.outcomes, dtype


class PointMaker(InShort):
    """Points that a learner may be given, the same each time: to record and compare programs.

    Args:
        learner: with known inputs and outcomes.
    """

    def __init__(self, learner: Learner) -> None:
        self.learner = learner
        self.x_shape, self.kind, self.dtype = require_shapes(learner)
        self.device = learner.placement()[1]
        self.generator = torch.Generator().manual_seed(0)

    def inputs(self, *sizes: int) -> Tensor:
        """Inputs with these leading axes."""
        x = torch.randn(*sizes, *self.x_shape, generator=self.generator, dtype=self.dtype)
        x[..., list(self.learner.coded_inputs)] = 0.0  # the first level of each category
        return x.to(self.device)

    def outcomes(self, *sizes: int) -> Tensor:
        """Outcomes with these leading axes."""
        if isinstance(self.kind, Labels):
            return torch.randint(self.kind.count or 1, sizes, generator=self.generator).to(self.device)
        y = torch.randn(*sizes, *self.kind.y_shape, generator=self.generator, dtype=self.dtype)
        if isinstance(self.kind, Positives | Counts):
            y = y.exp() if isinstance(self.kind, Positives) else y.exp().round()
        return y.to(self.device)

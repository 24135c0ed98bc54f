"""The summary of a learner whose numbers mean nothing one by one: what it is, and how it sees tasks, in words."""

import contextlib
import itertools
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor, nn
from typing_extensions import override

from bayesmeta.data import Data
from bayesmeta.errors import BayesMetaError
from bayesmeta.one_line import several
from bayesmeta.outcomes import Labels, Numbers, Outcomes
from bayesmeta.positive_numbers import positive_numbers
from bayesmeta.predictives import Predictive
from bayesmeta.summaries import text
from bayesmeta.summaries.columns import Columns
from bayesmeta.summaries.summary import Summary

NO_NAMES = "the numbers of a task mean nothing one by one: ask predict(x) what follows from them"
OWN_UNITS = (
    "the numbers are in the units that the learner sees, not in the user's: inputs and outcomes are standardised"
)
LINES = ("phi", "prior", "likelihood", "inference")  # of the docstring of every method's module
CLASSES_SHOWN = 6
MOST_SCALES = 12  # numbers that are told one by one


@dataclass(frozen=True, kw_only=True)
class PlainSummary(Summary):
    """What a learner is, in words: of networks and of all that has no coefficients with names.

    Attributes:
        method: what phi, prior, likelihood and inference are.
        learned: what the training has made of it.

    Example:
        >>> import bayesmeta as bm
        >>> summary = bm.MAML(bm.MLP(1, [8])).summary()
        >>> print(summary)
        MAML(MLP(1, [8]))
          what      Model-agnostic meta-learning, with the posterior that its implied prior gives.
          predicts  1 number from 1 input
        <BLANKLINE>
        The method
          of each task (phi)  the network's parameters, or a named part of them
          prior               N(theta, Q), implied by the rate and the number of steps (`implied_prior`)
          likelihood          any; Gaussian with learned noise by default
          inference           unrolled MAP; linearised Laplace around it, N(phi_hat, (G + Q⁻¹)⁻¹)
        <BLANKLINE>
        What was learned
          numbers of theta    27
          numbers of a task   25
          noise               deviation 0.316
          scales              rate 0.01000
    """

    method: tuple[tuple[str, str], ...] = ()
    learned: tuple[tuple[str, str], ...] = ()

    @override
    def lines(self, level: float) -> list[str]:
        width = max((len(name) for name, _ in (*self.method, *self.learned)), default=0)
        method, learned = (
            [(f"{name:<{width}}", words) for name, words in each] for each in (self.method, self.learned)
        )
        return [
            *text.section("The method", text.facts(method)),
            *text.section("What was learned", text.facts(learned)),
        ]


def method(kind: type) -> tuple[tuple[str, str], ...]:
    """What phi, prior, likelihood and inference of a method are: the four lines of its module's docstring.

    Args:
        kind: the class of a learner.

    Example:
        >>> import bayesmeta as bm
        >>> method(bm.CAVIA)[0]
        ('of each task (phi)', 'the context c, a short vector')
    """
    found = dict[str, str]()
    for each in kind.__mro__:
        lines = (sys.modules[each.__module__].__doc__ or "") if each.__module__ in sys.modules else ""
        for name in LINES:
            match = re.search(rf"^    {name} +(\S.*(?:\n {{10,}}\S.*)*)", lines, re.MULTILINE)
            if match and name not in found:
                found[name] = " ".join(match[1].split())
        if found:
            break
    return tuple(("of each task (phi)" if name == "phi" else name, words) for name, words in found.items())


def kind(of: type) -> str:
    """What a class is, by the first sentence of its docstring.

    Args:
        of: the class of a learner.

    Example:
        >>> import bayesmeta as bm
        >>> kind(bm.ConditionalNeuralProcess)
        'A conditional neural process.'
    """
    lines = (vars(of).get("__doc__") or of.__name__).strip().splitlines()
    return lines[0].replace("`", "") if lines else of.__name__


def places(name: str, shape: Sequence[int]) -> list[str]:
    """A name for each number of an array.

    Args:
        name: of the array.
        shape: its shape.

    Example:
        >>> places("rate", ()), places("bias", (2,))
        (['rate'], ['bias[0]', 'bias[1]'])
    """
    indices = itertools.product(*(range(size) for size in shape))
    return [f"{name}[{', '.join(map(str, index))}]" if index else name for index in indices]


def predicts(x_shape: tuple[int, ...] | None, outcomes: Outcomes | None) -> str:
    """What a learner predicts from what.

    Args:
        x_shape: of an input; None for any.
        outcomes: None for any.

    Example:
        >>> predicts((2,), Labels(3))
        '3 classes from 2 inputs'
    """
    if isinstance(outcomes, Numbers):
        what = several(outcomes.count, "number")
    elif isinstance(outcomes, Labels):
        what = "the classes of each task" if outcomes.count is None else f"{outcomes.count} classes"
    else:
        what = "outcomes"
    if x_shape is None:
        return f"{what} from any inputs"
    if len(x_shape) == 1:
        return f"{what} from {several(x_shape[0], 'input') if x_shape[0] else 'no inputs'}"
    return f"{what} from inputs of shape {' x '.join(map(str, x_shape))}"


def size(module: nn.Module, bare: bool = False) -> str:
    """How many numbers a module has learned, or can.

    Args:
        module: a learner.
        bare: the number alone.

    Example:
        >>> size(nn.Linear(3, 1))
        '4 numbers'
    """
    count = sum(parameter.numel() for parameter in module.parameters())
    return f"{count:,}" if bare else f"{count:,} number{'' if count == 1 else 's'}"


def noise(stddev: Float[Tensor, "C"], named: bool = True) -> str:
    """The deviation of the noise, of up to three outcomes.

    Args:
        stddev: of each outcome.
        named: whether the word noise stands before it.

    Example:
        >>> import torch
        >>> noise(torch.tensor([0.5]))
        'noise deviation 0.500'
    """
    values = [text.brief(value) for value in stddev.tolist()]
    more = ", ..." if len(values) > 3 else ""
    return f"{'noise ' if named else ''}deviation {', '.join(values[:3])}{more}"


def scales(module: nn.Module, columns: Columns) -> list[tuple[str, str]]:
    """The positive numbers of a learner that has few, such as the length scales of kernels; not those of the noise.

    Args:
        module: the learner.
        columns: names and units.

    Example:
        >>> import bayesmeta as bm
        >>> process = bm.DeepKernelTransfer(bm.networks.Inputs(1), kernel=bm.kernels.RBFKernel(2.0))
        >>> scales(process, Columns.of((1,), bm.Numbers(1)))
        [('scales', 'kernel.outputscale 1.00; kernel.base_kernel.lengthscale 2.00')]
    """
    found = {name: each for name, each in positive_numbers(module).items() if "noise" not in name}
    if not 0 < sum(each.raw.numel() for each in found.values()) <= MOST_SCALES:
        return []
    words = "; ".join(
        f"{_clean(name)} {', '.join(map(text.brief, each.value.detach().flatten().tolist()))}"
        for name, each in found.items()
    )
    return [("scales", words if columns.are_the_users else f"{words} (of standardised inputs and outcomes)")]


def _clean(name: str) -> str:
    """`kernel.lengthscale` of `kernel.raw_lengthscale`."""
    return name.replace("raw_", "").removesuffix(".raw").removesuffix(".value")


def data(batches: Sequence[Data]) -> str:
    """How many tasks and points there are.

    Args:
        batches: of tasks.
    """
    tasks, points = sum(each.num_tasks for each in batches), sum(int(each.counts.sum()) for each in batches)
    return f"{several(tasks, 'task')}, {several(points, 'point')}"


def differences(prior: Predictive, mask: Bool[Tensor, "B N"], columns: Columns) -> list[tuple[str, str]]:
    """How much tasks differ, by what is predicted at their points before one is seen.

    Args:
        prior: the predictive without a point of the tasks.
        mask: real points.
        columns: names and units.

    Example:
        >>> import bayesmeta as bm
        >>> data = bm.Data.from_arrays([0.0], [0.0])
        >>> prior = bm.ALPaCA(bm.Identity(1)).adapt(bm.Data.from_arrays([], [])).predict(data.x)
        >>> differences(prior, data.mask, Columns.of((1,), bm.Numbers(1)))[0][1]
        'y: deviation 0.447 before a point of the task, 0.316 of it from task to task (50 % of the variance)'
    """
    found = list[tuple[str, str]]()
    with contextlib.suppress(BayesMetaError):
        if columns.classes:
            probs = prior.probs[mask].double().mean(0).tolist()
            shares = [f"{name} {text.percent(p)}" for name, p in zip(columns.classes, probs, strict=True)]
            more = ", ..." if len(shares) > CLASSES_SHOWN else ""
            words = f"{', '.join(shares[:CLASSES_SHOWN])}{more} on average, before a labelled point of the task"
            return [("classes", words)]
        if not isinstance(prior.shape, tuple) or len(prior.shape) != 3:
            return found
        whole, between = (each.variance[mask].double().mean(0).cpu() for each in (prior, prior.noiseless))
        for name, unit, total, part in zip(columns.outcomes.names, columns.y_scale, whole, between, strict=True):
            sizes = [text.brief(float(unit * variance.sqrt())) for variance in (total, part)]
            words = f"{name}: deviation {sizes[0]} before a point of the task, {sizes[1]} of it from task to task"
            found.append(("tasks differ", f"{words} ({text.percent(float(part / total))} of the variance)"))
    return found

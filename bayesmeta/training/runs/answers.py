"""The answers of an expensive function, in the order in which a computation asks for them.

A search or a sampler that is a function of its start, its seed and the answers it gets goes on where it was by being
run again from the start, with the answers that are known: all that it did in between is then done again, whatever its
own state is, and nothing that takes time is computed twice.
"""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from bayesmeta.training.runs.parts import State
from bayesmeta.typing import LogJoint, Params

Answer = tuple[Tensor, ...]
Ask = Callable[[Callable[[], Answer]], Answer]
"""Gives what the function returns, or what it has returned in an earlier sitting (`Run.ask`)."""


def computed(compute: Callable[[], Answer]) -> Answer:
    """The answer of a computation of which nothing is known yet, and nothing is kept.

    Args:
        compute: gives it.

    Example:
        >>> computed(lambda: (torch.tensor(2.0),))
        (tensor(2.),)
    """
    return compute()


class Answers:
    """The answers so far: a part of a run.

    Example:
        >>> answers = Answers()
        >>> answers.next(lambda: (torch.tensor(2.0),))
        (tensor(2.),)
        >>> later = Answers()
        >>> later.load_state_dict(answers.state_dict())
        >>> later.next(lambda: 1 / 0)  # not computed
        (tensor(2.),)
        >>> later.is_known
        False
    """

    def __init__(self) -> None:
        self._answers: list[Answer] = []
        self.asked = 0

    def __len__(self) -> int:
        """How many are known."""
        return len(self._answers)

    @property
    def is_known(self) -> bool:
        """Whether the next question has an answer."""
        return self.asked < len(self._answers)

    def next(self, compute: Callable[[], Answer]) -> Answer:
        """The answer to the next question.

        Args:
            compute: gives it, where it is not known.
        """
        if not self.is_known:
            self._answers.append(tuple(value.detach().cpu().clone() for value in compute()))
        self.asked += 1
        return self._answers[self.asked - 1]

    def state_dict(self) -> State:
        """All of them, the numbers in one tensor for each precision."""
        forms = [tuple((tuple(value.shape), str(value.dtype)) for value in answer) for answer in self._answers]
        kinds = list(dict.fromkeys(forms))
        numbers: dict[str, list[Tensor]] = {}
        for value in (value for answer in self._answers for value in answer):
            numbers.setdefault(str(value.dtype), []).append(value.flatten())
        places = {kind: place for place, kind in enumerate(kinds)}
        return {
            "kinds": kinds,
            "which": torch.tensor([places[form] for form in forms], dtype=torch.long),
            "numbers": {dtype: torch.cat(values) for dtype, values in numbers.items()},
        }

    def load_state_dict(self, state_dict: State) -> None:
        """Know these answers, and be asked from the first on."""
        left = dict(state_dict["numbers"])

        def taken(shape: tuple[int, ...], dtype: str) -> Tensor:
            size = torch.Size(shape).numel()
            found, left[dtype] = left[dtype][:size], left[dtype][size:]
            return cast(Tensor, found.reshape(shape))

        kinds = state_dict["kinds"]
        self._answers = [tuple(taken(*form) for form in kinds[place]) for place in state_dict["which"].tolist()]
        self.asked = 0


def recalled(log_joint: LogJoint, ask: Ask) -> LogJoint:
    """A log joint whose values and first derivatives are asked for.

    Args:
        log_joint: phi -> log density of each row, which depends on that row of phi alone.
        ask: gives what is known already.

    Example:
        >>> answers = Answers()
        >>> normal = recalled(lambda phi: -0.5 * phi["u"].square(), answers.next)
        >>> u = torch.tensor([[1.0], [2.0]], requires_grad=True)
        >>> value = normal({"u": u})
        >>> torch.autograd.grad(value.sum(), u)[0].flatten().tolist(), answers.asked
        ([-1.0, -2.0], 1)
    """

    def at(phi: Params) -> Tensor:
        names = tuple(phi)

        def compute(*values: Tensor) -> Answer:
            with torch.enable_grad():
                leaves = [value.detach().requires_grad_() for value in values]
                value = log_joint(dict(zip(names, leaves, strict=True)))
                gradients = torch.autograd.grad(value.sum(), leaves, materialize_grads=True)
            return value, *gradients

        return cast(Tensor, _Recalled.apply(ask, compute, *phi.values()))  # type: ignore[no-untyped-call]

    return at


class _Recalled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, ask: Ask, compute: Callable[..., Answer], *values: Tensor) -> Tensor:
        value, *gradients = (each.to(values[0].device) for each in ask(lambda: compute(*values)))
        ctx.save_for_backward(*gradients)
        return value

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        (weight,) = outer
        return (
            None,
            None,
            *[each * weight.reshape(*weight.shape, *[1] * (each.ndim - weight.ndim)) for each in ctx.saved_tensors],
        )

"""Every learner's loss can be recorded for `fit(..., compile=True)`, or its Case says why not.

What is recorded is run as it is: compiling it would take a minute for each, and is inductor's business.
"""

import pytest
import torch

from bayesmeta.errors import UnsupportedError
from bayesmeta.training.compiled import CompiledStep
from tests.registry import CASES, Case


def _recorded(case: Case) -> tuple[CompiledStep, torch.Tensor, list[torch.Tensor | None]]:
    learner = case.learner()
    step = CompiledStep(learner, learner.loss)
    each, _ = step.record(learner.conform_tasks(case.batch(4, 5, 3)))
    return step, each, [p.grad for p in learner.parameters()]


@pytest.mark.usefixtures("unchecked")  # recorded as users have it
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_compiles(case: Case) -> None:
    if "compiles" in case.exceptions:  # which says so as long as it is true
        with pytest.raises(UnsupportedError):
            _recorded(case)
        return
    step, losses, gradients = _recorded(case)
    learner = step.learner
    learner.zero_grad(set_to_none=True)
    expected = learner.loss(learner.conform_tasks(case.batch(4, 5, 3)))
    expected.mean().backward()
    torch.testing.assert_close(losses, expected.detach(), rtol=1e-10, atol=1e-12)  # no check, the same operations
    for parameter, gradient in zip(learner.parameters(), gradients, strict=True):
        torch.testing.assert_close(gradient, parameter.grad, rtol=1e-8, atol=1e-10)  # also None against None

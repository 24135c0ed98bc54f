"""Threads share a learner, a posterior and torch's global random numbers, and say the same as one after the other."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from tests.faults.subjects import Subject, by_name, check_same
from tests.registry import Case

pytestmark = [pytest.mark.filterwarnings("ignore::bayesmeta.ConvergenceWarning"), pytest.mark.usefixtures("unchecked")]
# one of each way of doing inference
CASES = by_name(["alpaca", "mixture-alpaca", "r2d2", "lrd2", "deep-kernel", "maml", "imaml-as-used", "bmaml"])
THREADS = 4


def _at_once(work: Callable[[int], list[Tensor]]) -> list[list[Tensor]]:
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(work, range(2 * THREADS)))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_threads_adapt_at_once(case: Case) -> None:
    """Each at its own tasks, every other without gradients: grad mode is a thread's own."""
    subjects = [Subject(case, case.learner(torch.float32), case.batch(3, 3, 2, seed)) for seed in range(2)]
    learner = subjects[0].learner
    wanted = [each.all_answers(learner) for each in subjects]

    def work(number: int) -> list[Tensor]:
        with torch.set_grad_enabled(number % 4 < 2):
            return subjects[number % 2].all_answers(learner)

    for number, got in enumerate(_at_once(work)):
        check_same(got, wanted[number % 2], 2e-6)  # a loss has another path with gradients than without


@pytest.mark.parametrize("case", CASES[:1] + CASES[-1:], ids=lambda case: case.name)
def test_threads_draw_at_once(case: Case) -> None:
    """Draws by a generator do not depend on who else draws, though torch's distributions know the global one alone."""
    subject = Subject.of(case)
    predictive = subject.learner.adapt(subject.tasks.support).predict(subject.tasks.query.x)

    def work(number: int) -> list[Tensor]:
        return [predictive.sample((50,), torch.Generator().manual_seed(number)) for _ in range(20)]

    for number, got in enumerate(_at_once(work)):
        check_same(got, work(number))

"""Meta-training by full-batch L-BFGS: for evidence problems that are deterministic functions of theta."""

import time

import torch
from torch import Tensor

from bayesmeta.errors import DataError, InferenceError
from bayesmeta.learner import Learner
from bayesmeta.modes import trained
from bayesmeta.rounding import silently
from bayesmeta.tasks.dataset import TaskDataset, naming_columns
from bayesmeta.training.loop import prepare, restoring
from bayesmeta.training.objectives import EvidenceProblem, MaximumLikelihood
from bayesmeta.training.result import FitResult
from bayesmeta.wrappers.base import require_trainable


@trained
@naming_columns
def fit_evidence(
    learner: Learner,
    tasks: TaskDataset,
    problem: EvidenceProblem | None = None,
    *,
    max_iterations: int = 500,
    tolerance: float = 1e-9,
) -> FitResult:
    """Maximise the evidence of all tasks over theta, in place, by L-BFGS with a strong Wolfe line search.

    With `ALPaCA(Identity(D)).double()` this is the maximum-likelihood fit of a linear mixed model.

    Args:
        learner: what to train; use float64 (`learner.double()`), or the line search will stop early.
        tasks: all meta-training tasks; all their points are used at every step.
        problem: `MaximumLikelihood()` by default, or `RestrictedMaximumLikelihood()`.
        max_iterations: largest number of L-BFGS iterations.
        tolerance: stop when no gradient entry of the loss (nats per point) is larger.

    Returns:
        The history; `stopped_early` says that L-BFGS found nothing more to gain before `max_iterations`.

    Raises:
        DataError: arguments out of range. InferenceError: the loss is not finite; theta keeps its last finite value.
        UnsupportedError: the learner has no closed form of the evidence, or its theta is final (`Untrainable`).

    Example:
        >>> import bayesmeta as bm
        >>> y = [[0.1, 1.2, 1.8, 3.1], [2.0, 2.4, 3.2, 3.3], [-1.1, 0.7, 1.9, 4.1], [1.3, 2.9, 4.2, 5.6]]
        >>> tasks = bm.TaskDataset.from_list([([0.0, 1.0, 2.0, 3.0], each) for each in y])
        >>> learner = bm.ALPaCA(bm.Identity(1)).double()
        >>> result = bm.fit_evidence(learner, tasks)
        >>> result.stopped_early, learner.prior.location.detach().flatten().round(decimals=2).tolist()
        (True, [0.6, 1.13])
    """
    require_trainable(learner)
    if not isinstance(tasks, TaskDataset):
        raise DataError(f"expected a TaskDataset, got {type(tasks).__name__}: see TaskDataset.from_frame")
    if max_iterations < 1 or not tolerance > 0.0:
        raise DataError(f"expected positive max_iterations and tolerance, got {max_iterations} and {tolerance}")
    problem = MaximumLikelihood() if problem is None else problem
    start = time.perf_counter()
    data = prepare(learner, tasks.data)
    points = data.counts.sum()
    problem.start(learner, data)
    parameters: list[Tensor] = [p for p in learner.parameters() if p.requires_grad]
    if not parameters:
        raise DataError(f"expected parameters to train, got none that requires gradients in {type(learner).__name__}")
    optimizer = torch.optim.LBFGS(
        parameters,
        max_iter=max_iterations,
        max_eval=4 * max_iterations,
        history_size=50,
        tolerance_grad=tolerance,
        tolerance_change=1e-13,
        line_search_fn="strong_wolfe",
    )
    losses: list[float] = []

    with silently(), restoring(parameters) as keep:

        def closure() -> Tensor:
            optimizer.zero_grad()
            try:
                loss = -(problem(learner, data) + learner.log_hyperprior()) / points
            except InferenceError as error:
                raise InferenceError(f"at evaluation {len(losses) + 1}: {error.retold(names=tasks.names)}") from error
            if not bool(torch.isfinite(loss)):
                raise InferenceError(f"expected a finite evidence, got {loss.item()} at evaluation {len(losses) + 1}")
            loss.backward()
            if not losses or loss.item() <= min(losses):
                keep()
            losses.append(loss.item())
            return loss

        optimizer.step(closure)
    iterations = int(optimizer.state[parameters[0]]["n_iter"])
    problem.finish(learner, data)
    with torch.no_grad():
        problem(learner, data)  # an approximation that is wrong at this theta warns (LLAMA short of the mode)
    return FitResult(tuple(losses), (), len(losses), iterations < max_iterations, time.perf_counter() - start)

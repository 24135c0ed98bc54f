"""What a meta-training leaves behind, besides theta."""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

AGREES = 0.01  # nats of all tasks: ends that are no further apart are one maximum


@dataclass(frozen=True)
class FitResult:
    """The history of a meta-training.

    Attributes:
        losses: the loss of every step, nats per point.
        validation: (step, loss on the validation tasks) in order.
        best_step: the step whose theta the learner now has.
        stopped_early: whether patience ran out (or a full-batch fit found nothing more to gain) before the last step.
        seconds: wall time.
        notes: what a full-batch fit found at a boundary, in words: a variance of zero, a noise at its bound.
        ends: where the search from each of many starts ended, the total log evidence (and hyperprior) in nats, or was
            given up; -inf where a start could not be computed. Empty for one start.
        converged: whether a full-batch fit ended at a maximum; None for stochastic steps, which cannot say.
        interrupted: whether Ctrl-C or SIGTERM ended a training that is kept in a folder before it was done; it goes on
            with `resume="auto"`.
        gradient_norms: of theta in every step, before it was clipped. Empty for a full-batch fit.
        lrs: the learning rate of every step. Empty for a full-batch fit.
        skipped: (step, task) of every task that was left out of a step, as its loss or gradient was not finite
            (`fit(max_skipped=...)`): a task by its name, or by its position in the batch where it has none.

    Example:
        >>> result = FitResult((1.5, 1.2, 1.1), ((2, 1.3),), best_step=2, stopped_early=False, seconds=0.4)
        >>> result
        FitResult(3 steps in 0.4 s, last loss 1.1000 nats per point)
        >>> result.frame()
           step  loss  validation
        0     1   1.5         NaN
        1     2   1.2         1.3
        2     3   1.1         NaN
    """

    losses: tuple[float, ...]
    validation: tuple[tuple[int, float], ...]
    best_step: int
    stopped_early: bool
    seconds: float
    notes: tuple[str, ...] = ()
    ends: tuple[float, ...] = ()
    converged: bool | None = None
    interrupted: bool = False
    gradient_norms: tuple[float, ...] = ()
    lrs: tuple[float, ...] = ()
    skipped: tuple[tuple[int, Hashable], ...] = ()

    @property
    def agreeing(self) -> int:
        """How many of many starts ended at the best maximum, within .01 nats."""
        return sum(end >= max(self.ends) - AGREES for end in self.ends)

    def frame(self) -> "pd.DataFrame":
        """The history as a table: step, loss, validation (NaN between validations), and what else is known of steps.

        That is `gradient_norm` and `lr`, where theta was trained by stochastic gradients.
        """
        import pandas as pd

        columns: dict[str, Sequence[float]] = {"step": range(1, len(self.losses) + 1), "loss": self.losses}
        columns |= {"gradient_norm": self.gradient_norms} if self.gradient_norms else {}
        table = pd.DataFrame(columns | ({"lr": self.lrs} if self.lrs else {}))
        validation = pd.DataFrame(list(self.validation), columns=["step", "validation"])
        return table.merge(validation, on="step", how="left")

    def __repr__(self) -> str:
        """The end of the history."""
        last = self.losses[-1] if self.losses else math.nan
        end = "".join(f"; {note}" for note in self.notes)
        if self.ends:
            end += f"; {self.agreeing} of {len(self.ends)} starts agree on the best end"
        if self.skipped:
            end += f"; {len(self.skipped)} tasks skipped"
        if self.interrupted:
            end += "; interrupted"
        return f"FitResult({len(self.losses)} steps in {self.seconds:.1f} s, last loss {last:.4f} nats per point{end})"

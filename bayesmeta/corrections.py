"""A learner of a table recalibrated, by tasks that teach this and nothing else; what was corrected, in a sentence."""

from dataclasses import replace

from bayesmeta.calibration.recalibration import temperature_scaling, variance_scaling
from bayesmeta.errors import DataError, UnsupportedError
from bayesmeta.learner import Learner
from bayesmeta.selection.cross_validation import Factory
from bayesmeta.tasks.dataset import TaskDataset
from bayesmeta.tasks.table import Schema
from bayesmeta.trainers import on_log_scale
from bayesmeta.wrappers.log_transformed import LogTransformed
from bayesmeta.wrappers.recalibrated import SHOTS

FEWEST = 10  # tasks that teach a correction: fewer say next to nothing


def require_correctable(tasks: TaskDataset, schema: Schema) -> None:
    """Raise now, before a long training, what `corrected` would raise of its tasks after it.

    Args:
        tasks: those of the correction.
        schema: of their table.

    Raises:
        DataError: fewer than ten tasks.
        UnsupportedError: outcomes with known noise, or that are counts.

    Example:
        >>> import bayesmeta as bm
        >>> tasks = bm.tasks.GPFunctions.eq().dataset(4, 6, seed=0)
        >>> try:
        ...     require_correctable(tasks, bm.tasks.Schema("task", x=("x",), y=("y",)))
        ... except bm.DataError as error:
        ...     print(error)
        expected at least 10 tasks to correct predictions by, got 4: give a larger share of the tasks, or none
    """
    if schema.yerr:
        raise UnsupportedError(
            f"expected no known noise where predictions are corrected, got the column {schema.yerr[0]!r}"
        )
    if schema.kind == "count":
        raise UnsupportedError(
            f"expected outcomes whose deviations can be scaled, got the counts {', '.join(schema.y)}: leave "
            "--recalibrate out, as nothing but counts is predicted of them"
        )
    if len(tasks) < FEWEST:
        raise DataError(
            f"expected at least {FEWEST} tasks to correct predictions by, got {len(tasks)}: give a larger share of the "
            "tasks, or none"
        )


def corrected(learner: Learner, tasks: TaskDataset, schema: Schema, seed: int = 0) -> tuple[Learner, str]:
    """The learner with predictions that are corrected by tasks it has not seen, and what was corrected, in a sentence.

    Deviations of numbers are scaled, and class probabilities given a temperature, at each number of support points out
    of 0, 1, 2, 5 and 10 at which ten tasks have a further one. Where that is not worthwhile on others of these tasks,
    nothing is corrected. Of positive outcomes the deviations are those of their logarithms.

    Args:
        learner: a trained learner; it is left as it was.
        tasks: used in nothing else.
        schema: of their table.
        seed: of the division of their points.

    Raises:
        DataError: fewer than ten tasks.
        UnsupportedError: outcomes with known noise.
        InferenceError: no correction is best, or an outcome was held impossible.

    Example:
        >>> import bayesmeta as bm
        >>> simulator = bm.tasks.GPFunctions.eq()
        >>> sure = bm.wrappers.VarianceScaled(simulator.oracle, [5])
        >>> _ = sure.log_factors.fill_(-1.0)
        >>> schema = bm.tasks.Schema("task", x=("x",), y=("y",))
        >>> wider, said = corrected(sure, simulator.dataset(100, 4, seed=0), schema)
        >>> said
        'deviations are multiplied by 2.82 at 0 points, 2.71 at 1, 2.7 at 2, by 100 tasks'
    """
    require_correctable(tasks, schema)
    if isinstance(learner, LogTransformed):
        as_number = replace(schema, kind="number")
        found, said = corrected(learner.learner, on_log_scale(tasks), as_number, seed)
        return LogTransformed(found), f"of logarithms, {said}"
    shots = [shot for shot in SHOTS if int((tasks.counts > shot).sum()) >= FEWEST]
    if schema.classes:
        cooled = temperature_scaling(learner, tasks, shots, seed=seed)
        found, factors, what = cooled, cooled.log_temperatures.exp(), "logits are divided by"
    else:
        scaled = variance_scaling(learner, tasks, shots, seed=seed)
        found, factors, what = scaled, scaled.log_factors.exp(), "deviations are multiplied by"
    if bool((factors == 1.0).all()):
        return found, f"nothing was to be corrected, by {len(tasks)} tasks"
    each = [f"{factor:.3g} at {shot}" for factor, shot in zip(factors.tolist(), shots, strict=True)]
    return found, f"{what} {each[0]} points, {', '.join(each[1:])}, by {len(tasks)} tasks"


def correcting(factory: Factory, share: float, schema: Schema, seed: int = 0) -> Factory:
    """What trains a learner on some of the tasks that it is given, and corrects it by the others.

    Args:
        factory: what trains it.
        share: of the tasks that correct it.
        schema: of their table.
        seed: of the division of the tasks, and of their points.

    Example:
        >>> import bayesmeta as bm
        >>> simulator = bm.tasks.GPFunctions.eq()
        >>> schema = bm.tasks.Schema("task", x=("x",), y=("y",))
        >>> correcting(lambda tasks: simulator.oracle, 0.5, schema)(simulator.dataset(40, 4, seed=0)).title
        'VarianceScaled(GaussianProcessOracle)'
    """

    def trained(tasks: TaskDataset) -> Learner:
        others, aside = tasks.split(share, seed)
        require_correctable(aside, schema)
        return corrected(factory(others), aside, schema, seed)[0]

    return trained

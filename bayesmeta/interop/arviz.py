"""To ArviZ: what a learner believes of tasks, as draws with names, for summaries, comparisons and plots.

    az.summary(data), az.plot_forest(data), az.plot_ppc(data), az.loo(data)

Points are ragged, so that all groups about points have one flat axis `point` over the real points of all tasks, whose
task is in `constant_data`. Works with ArviZ 0.x (InferenceData) and 1.x (a DataTree).
"""

import warnings
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bayesmeta.data import Data
from bayesmeta.errors import DataError, UnsupportedError
from bayesmeta.learner import ExplicitLearner, Learner
from bayesmeta.predictives import Predictive
from bayesmeta.tasks.dataset import TaskDataset
from bayesmeta.typing import Params

CHUNK = 64  # draws whose densities are evaluated at a time


def to_arviz(
    learner: Learner,
    support: TaskDataset | Data,
    query: Data | None = None,
    *,
    names: Sequence[Hashable] | None = None,
    num_draws: int = 1000,
    seed: int = 0,
) -> Any:
    """What a learner believes after the support of each task, as ArviZ's data: for summaries, plots and comparisons.

    | group | what | dimensions after chain (1) and draw |
    |---|---|---|
    | posterior | draws of phi, where it has draws | task, then `<name>_dim_i` |
    | log_likelihood | log p(y_n given phi, x_n) of each draw, nats; learners with an explicit phi | point |
    | sample_stats | `lp`: log p(y, phi given x, theta) of each draw, summed over tasks, nats | |
    | posterior_predictive | draws of y at the support, joint within a task | point, output |
    | prior_predictive | the same before any data | point, output |
    | observed_data, constant_data | y; x, the task of each point and the place in its task | point |
    | predictions, predictions_constant_data | the same at the query, where there is one | query_point, output |

    Args:
        learner: any learner.
        support: the tasks' points.
        query: further points of the same tasks to predict at; their y is not used.
        names: of the tasks, for `Data`; those of a `TaskDataset` by default, or 0, 1, ...
        num_draws: S.
        seed: of the draws.

    Returns:
        An `arviz.InferenceData`, or an `xarray.DataTree` from ArviZ 1.0 on.

    Raises:
        DataError: no draws, or names that are not one for each task. ShapeError: data that are not the learner's.

    Example:
        >>> import bayesmeta as bm
        >>> from bayesmeta.interop.arviz import to_arviz
        >>> tasks = bm.TaskDataset.from_list([([0.0, 1.0], [0.3, 0.7]), ([2.0], [1.1])])
        >>> found = to_arviz(bm.ALPaCA(bm.Identity(1)), tasks, num_draws=20)
        >>> found.posterior["weight"].dims[:3], found.posterior_predictive["y"].shape  # chain, draw, point, output
        (('chain', 'draw', 'task'), (1, 20, 3, 1))
    """
    if num_draws < 1:
        raise DataError(f"expected at least one draw, got {num_draws}")
    if isinstance(support, TaskDataset):
        names = support.names if names is None else names
        support = support.data
    names = list(range(support.num_tasks)) if names is None else list(names)
    if len(names) != support.num_tasks or len(set(names)) != len(names):
        raise DataError(f"expected {support.num_tasks} distinct task names, got {len(set(names))}")
    learner = learner.frozen()
    support = learner.conform(support)
    generator = torch.Generator(support.x.device).manual_seed(seed)
    posterior, prior = learner.adapt(support), learner.adapt(Data.empty(support))
    coords: dict[str, Any] = {"task": names, "point": np.arange(int(support.mask.sum()))}
    dims: dict[str, list[str]] = {"lp": []}
    groups: dict[str, dict[str, np.ndarray]] = {}
    try:
        phi = posterior.sample(num_draws, generator)
    except UnsupportedError:
        phi = {}
    if phi:
        groups["posterior"] = {name: value[None].cpu().numpy() for name, value in phi.items()}
        dims |= {name: ["task", *(f"{name}_dim_{i}" for i in range(value.ndim - 2))] for name, value in phi.items()}
    if phi and isinstance(learner, ExplicitLearner):
        pointwise, joint = _densities(learner, support, phi)
        groups["log_likelihood"] = {"y": pointwise[None]}
        if joint is not None:
            groups["sample_stats"] = {"lp": joint[None]}
    groups["posterior_predictive"] = {"y": _draws(posterior.predict(support.x), support, num_draws, generator)}
    groups["prior_predictive"] = {"y": _draws(prior.predict(support.x), support, num_draws, generator)}
    groups["observed_data"] = {"y": _flat(support.y, support)}
    groups["constant_data"] = _constant(support, names)
    point = ["point"]
    dims |= {"y": ["point", "output"] if support.y.ndim == 3 else point, "task_name": point, "place": point}
    dims["x"] = ["point", *(f"x_dim_{i}" for i in range(support.x.ndim - 2))]
    if query is not None:
        query = learner.conform(query)
        coords["query_point"] = np.arange(int(query.mask.sum()))
        groups["predictions"] = {"y": _draws(posterior.predict(query.x), query, num_draws, generator)}
        groups["predictions_constant_data"] = _constant(query, names)
    return _from_dict(groups, coords, dims)


def _densities(learner: ExplicitLearner, data: Data, phi: Params) -> tuple[np.ndarray, np.ndarray | None]:
    """log p(y_n | phi) of the real points, `S P`, and the log joint of all tasks, `S`: None where the prior has no
    density, as with features that do not vary between tasks.
    """
    likelihood, log_joint = learner.likelihood, learner.joint(data)
    try:
        log_joint({name: value[:1] for name, value in phi.items()})
        has_density = True
    except UnsupportedError:
        has_density = False
    count = len(next(iter(phi.values())))
    each, joint = [], []
    with torch.no_grad():
        for start in range(0, count, CHUNK):
            part = {name: value[start : start + CHUNK] for name, value in phi.items()}
            f = learner.forward(part, data.x)
            y = data.y if data.y.is_floating_point() else torch.where(data.mask, data.y, 0)
            each.append(likelihood(f).log_prob(y.to(f.dtype) if y.is_floating_point() else y)[:, data.mask])
            if has_density:
                joint.append(log_joint(part).sum(-1))
    return torch.cat(each).cpu().numpy(), torch.cat(joint).cpu().numpy() if has_density else None


def _draws(predictive: Predictive, data: Data, num_draws: int, generator: torch.Generator) -> np.ndarray:
    """`1 S P C`, or `1 S P` for labels."""
    return predictive.sample((num_draws,), generator)[:, data.mask][None].cpu().numpy()


def _flat(value: Tensor, data: Data) -> np.ndarray:
    return value[data.mask].cpu().numpy()


def _constant(data: Data, names: list[Hashable]) -> dict[str, np.ndarray]:
    task, place = data.mask.nonzero(as_tuple=True)
    labels = np.array([str(name) for name in names])
    return {"x": _flat(data.x, data), "task_name": labels[task.cpu().numpy()], "place": place.cpu().numpy()}


def _from_dict(groups: dict[str, dict[str, np.ndarray]], coords: dict[str, Any], dims: dict[str, list[str]]) -> Any:
    """ArviZ 1.x takes a dictionary of groups, 0.x keywords."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # that ArviZ 1.x will come
        import arviz
    from_dict: Any = arviz.from_dict
    is_old = int(arviz.__version__.split(".")[0]) < 1
    elsewhere = {name: ["query_point", *rest[1:]] for name, rest in dims.items() if rest[:1] == ["point"]}
    kinds = {"log_likelihood": dims | {"y": ["point"]}, "predictions": dims | elsewhere, "": dims}
    parts: dict[str, dict[str, dict[str, np.ndarray]]] = {"": {}}
    for name, group in groups.items():
        parts.setdefault(next(kind for kind in kinds if name.startswith(kind)), {})[name] = group
    built = []
    for kind, part in parts.items():  # a variable has other points, or one number a point, in some groups
        keywords = {"coords": coords, "dims": kinds[kind]}
        built.append(from_dict(**part, **keywords) if is_old else from_dict(part, **keywords))
    result, *others = built
    for other in others:
        result.extend(other) if is_old else result.update(other)
    return result

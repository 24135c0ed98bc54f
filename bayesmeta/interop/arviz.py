"""To ArviZ: what a learner believes of tasks, as draws with names, for summaries, comparisons and plots.

    az.summary(data), az.plot_forest(data), az.plot_trace(data), az.loo(data), az.plot_loo_pit(data, y="y")

Points are ragged, so that all groups about points have one flat axis `point` over the real points of all tasks, whose
task is in `constant_data`. Works with ArviZ 0.x (InferenceData) and 1.x (a DataTree).
"""

import contextlib
import warnings
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution, Independent

from bayesmeta.arguments import generator_of, seed_of, some
from bayesmeta.data import Data
from bayesmeta.distributions import seeded
from bayesmeta.errors import DataError, UnsupportedError
from bayesmeta.learner import ExplicitLearner, Learner, TaskPosterior
from bayesmeta.likelihoods import Likelihood
from bayesmeta.modes import settled
from bayesmeta.networks.network import Network
from bayesmeta.outcomes import Labels
from bayesmeta.predictives import Predictive
from bayesmeta.snapshot import snapshot
from bayesmeta.summaries import Columns
from bayesmeta.tasks.dataset import TaskDataset, naming_columns
from bayesmeta.tasks.table import Schema
from bayesmeta.typing import Params
from bayesmeta.wrappers.base import WrappedPosterior, Wrapper
from bayesmeta.wrappers.concept import ConceptLearner
from bayesmeta.wrappers.sampled import ChainsPosterior, DrawsPosterior, Sampled
from bayesmeta.wrappers.standardized import Standardized
from bayesmeta.wrappers.with_hyperprior import WithHyperprior

CHUNK = 64  # draws whose densities are evaluated at a time

Groups = dict[str, dict[str, np.ndarray]]


@settled
@naming_columns
def to_arviz(
    learner: Learner | DrawsPosterior,
    support: TaskDataset | Data,
    query: Data | None = None,
    *,
    names: Sequence[Hashable] | None = None,
    num_draws: int = 1000,
    seed: int = 0,
) -> Any:
    """What a learner believes after the support of each task, as ArviZ's data: for summaries, plots and comparisons.

    | group | what | dimensions after chain and draw |
    |---|---|---|
    | posterior | draws of phi, where it has draws | task, then `<name>_dim_i` |
    | log_likelihood | log p(y given phi, x) of each draw, nats; learners with an explicit phi | point, output |
    | sample_stats | `lp`: log p(y, phi given x, theta) of each draw, summed over tasks, nats; of chains also
      `diverging`, true where a task's trajectory diverged, and `acceptance_rate`, the mean over tasks | |
    | posterior_predictive | draws of y at the support, joint within a task | point, output |
    | prior_predictive | the same before any data | point, output |
    | observed_data, constant_data | y; x, the task of each point and the place in its task | point |
    | predictions, predictions_constant_data | the same at the query, where there is one | query_point, output |

    With an explicit phi (also within `Standardized` and `Sampled`) draw s of y is one given draw s of phi, which
    leave-one-out checks (`az.plot_loo_pit`) rest on. Where noise is correlated over outputs, log_likelihood is joint
    over them, and has no output axis. Labels have none anywhere.

    Coordinates are names where there are any: of tasks, of inputs and outcomes (`TaskDataset.from_frame`), and of the
    coefficients of features that say what they are (`Network.terms`: `Identity`, `Polynomial`, splines, bumps). Within
    `Standardized`, phi is in standard units; y never is.

    Args:
        learner: any learner; or draws that have been made, such as what `Sampled` has adapted to. Chains stay chains.
        support: the tasks' points; those that draws are of.
        query: further points of the same tasks to predict at; their y is not used.
        names: of the tasks, for `Data`; those of a `TaskDataset` by default, or 0, 1, ...
        num_draws: S, in one chain; where there are chains, all of their draws are taken.
        seed: of the draws.

    Returns:
        An `arviz.InferenceData`, or an `xarray.DataTree` from ArviZ 1.0 on.

    Raises:
        DataError: no draws, names that are not one for each task, or draws of other tasks than these.
        ShapeError: data that are not the learner's.

    Example:
        >>> import bayesmeta as bm
        >>> from bayesmeta.interop.arviz import to_arviz
        >>> tasks = bm.TaskDataset.from_list([([0.0, 1.0], [0.3, 0.7]), ([2.0], [1.1])])
        >>> found = to_arviz(bm.ALPaCA(bm.Identity(1)), tasks, num_draws=20)
        >>> found.posterior["weight"].dims[:3], found.posterior_predictive["y"].shape  # chain, draw, point, output
        (('chain', 'draw', 'task'), (1, 20, 3, 1))
        >>> found.posterior["weight_dim_0"].values.tolist()
        ['intercept', 'x']
    """
    num_draws, seed = some(num_draws, "num_draws", "draw"), seed_of(seed)
    schema = None
    if isinstance(support, TaskDataset):
        names, schema, support = support.names if names is None else names, support.schema, support.data
    names = list(range(support.num_tasks)) if names is None else list(names)
    if len(names) != support.num_tasks or len(set(names)) != len(names):
        raise DataError(f"expected {support.num_tasks} distinct task names, got {len(set(names))}")
    posterior: TaskPosterior
    if isinstance(learner, DrawsPosterior):
        _require_these(learner, support)
        posterior, support, learner = learner, learner.support, learner.learner
    else:
        learner = learner.frozen()
        support = learner.conform(support)
        posterior = learner.adapt(support)
    generator = generator_of(seed, support.x.device)
    query = None if query is None else learner.conform(query)
    explicit, phi = _Explicit.of(learner), _phi(posterior, num_draws, generator)
    chains = next(iter(phi.values())).shape[:2] if phi else (1, num_draws)

    def drawn(points: Data, flat: Params, predictive: Callable[[], Predictive]) -> dict[str, np.ndarray]:
        """`chains S P C`, or `chains S P` for labels."""
        if explicit is None or not flat:
            y = predictive().sample((chains[0] * chains[1],), generator)[:, points.mask]
        else:
            y = explicit.outcomes(points, flat, generator)
        return {"y": y.unflatten(0, chains).cpu().numpy()}

    flat = {name: value.flatten(0, 1) for name, value in phi.items()}
    groups: Groups = {}
    if phi:
        groups["posterior"] = {name: value.cpu().numpy() for name, value in phi.items()}
    if phi and explicit is not None:
        pointwise, joint = explicit.densities(support, flat)
        groups["log_likelihood"] = {"y": pointwise.unflatten(0, chains).cpu().numpy()}
        lp = {} if joint is None else {"lp": joint.unflatten(0, chains).cpu().numpy()}
        groups["sample_stats"] = lp | _chain_stats(posterior)
        if not groups["sample_stats"]:
            del groups["sample_stats"]
    groups["posterior_predictive"] = drawn(support, flat, lambda: posterior.predict(support.x, _yerr(support)))
    before = {} if explicit is None else explicit.prior_draws(support.num_tasks, chains[0] * chains[1], generator)
    if explicit is not None or learner.outcomes != Labels():  # whose classes an empty support does not show
        prior = lambda: learner.adapt(Data.empty(support)).predict(support.x, _yerr(support))
        groups["prior_predictive"] = drawn(support, before, prior)
    groups["observed_data"] = {"y": _flat(support.y, support)}
    groups["constant_data"] = _constant(support, names)
    if query is not None:
        groups["predictions"] = drawn(query, flat, lambda: posterior.predict(query.x, _yerr(query)))
        groups["predictions_constant_data"] = _constant(query, names)
    return _from_dict(groups, *_labelled(groups, learner, names, schema))


def _require_these(posterior: DrawsPosterior, support: Data) -> None:
    if posterior.support.counts.tolist() != support.counts.tolist():
        raise DataError(
            f"expected the tasks that the draws are of, with {posterior.support.counts.tolist()} points, "
            f"got tasks with {support.counts.tolist()}"
        )


def _inside(posterior: TaskPosterior) -> TaskPosterior:
    while isinstance(posterior, WrappedPosterior):
        posterior = posterior.inner
    return posterior


def _phi(posterior: TaskPosterior, num_draws: int, generator: torch.Generator) -> Params:
    """Draws of phi, each value `chains S B *shape`; none where it has none."""
    inside = _inside(posterior)
    if isinstance(inside, ChainsPosterior):
        return inside.chains.draws
    try:
        return {name: value[None] for name, value in posterior.sample(num_draws, generator).items()}
    except UnsupportedError:
        return {}


def _chain_stats(posterior: TaskPosterior) -> dict[str, np.ndarray]:
    """What ArviZ knows of chains: one number a draw, for all tasks."""
    inside = _inside(posterior)
    if not isinstance(inside, ChainsPosterior):
        return {}
    chains = inside.chains
    return {
        "diverging": (chains.divergent > 0.0).any(-1).cpu().numpy(),
        "acceptance_rate": chains.acceptance.mean(-1).cpu().numpy(),
    }


@dataclass(frozen=True)
class _Explicit:
    """p(y | phi) of a learner with an explicit phi, in the user's units, in float64.

    Attributes:
        learner: the explicit one, inside all wrappers.
        standard: the user's data as that one has them.
        shift: of y.
        scale: of y.
    """

    learner: ExplicitLearner
    standard: Callable[[Data], Data]
    shift: Tensor
    scale: Tensor

    @classmethod
    def of(cls, learner: Learner) -> "_Explicit | None":
        """Through `Standardized` and `Sampled`, which change units, and how draws are made."""
        if isinstance(learner, Standardized):
            inner = cls.of(learner.learner)
            if inner is None:
                return None
            shift, scale = inner.shift * learner.y_scale + learner.y_shift, inner.scale * learner.y_scale
            standard = lambda data: inner.standard(learner.standard(learner.conform(data)))
            return cls(inner.learner, standard, shift, scale)
        if isinstance(learner, Sampled | WithHyperprior | ConceptLearner):
            return cls.of(learner.learner)
        if not isinstance(learner, ExplicitLearner):
            return None
        exact = snapshot(learner).double()
        zero = torch.zeros((), dtype=torch.float64, device=exact.placement()[1])
        return cls(exact, lambda data: data.to(torch.float64), zero, zero + 1.0)

    def _chunks(self, data: Data, phi: Params) -> Iterator[tuple[Params, Tensor]]:
        count = len(next(iter(phi.values())))
        for start in range(0, count, CHUNK):
            part = {name: value[start : start + CHUNK].double() for name, value in phi.items()}
            yield part, self.learner.forward(part, data.x)

    @torch.no_grad()
    def densities(self, data: Data, phi: Params) -> tuple[Tensor, Tensor | None]:
        """log p(y | phi) of the real points, `S P C` (`S P` where it is joint), and the log joint of all tasks, `S`, or
        None where the prior has no density, as that of a fixed effect.
        """
        data, likelihood, each, joint = self.standard(data), self.learner.likelihood, [], []
        units, log_joint = self.scale.log(), None
        with contextlib.suppress(UnsupportedError):  # of a prior that has no density
            log_joint = self.learner.joint(data)
        for part, f in self._chunks(data, phi):
            distribution, y = _of_points(likelihood, data, f), likelihood.outcome(data, f)
            by_output = isinstance(distribution, Independent)
            density = (distribution.base_dist if isinstance(distribution, Independent) else distribution).log_prob(y)
            density = density[:, data.mask]
            each.append(density - (units if by_output else units.sum()))
            if log_joint is None:
                continue
            with contextlib.suppress(UnsupportedError):  # of one that finds it out here
                joint.append(log_joint(part).sum(-1) - data.counts.sum() * units.sum())
        return torch.cat(each), torch.cat(joint) if joint else None

    @torch.no_grad()
    def outcomes(self, data: Data, phi: Params, generator: torch.Generator) -> Tensor:
        """One y for each draw of phi at the real points, `S P C`, or `S P` for labels."""
        data, drawn = self.standard(data), []
        with seeded(generator):
            for _, f in self._chunks(data, phi):
                drawn.append(_of_points(self.learner.likelihood, data, f).sample()[:, data.mask])
        y = torch.cat(drawn)
        return self.shift + self.scale * y if data.y.is_floating_point() else y.long()

    @torch.no_grad()
    def prior_draws(self, num_tasks: int, num_draws: int, generator: torch.Generator) -> Params:
        """phi before any data, each value `S B *shape`."""
        draws = self.learner.prior.sample(num_draws * num_tasks, generator)
        return {name: value.unflatten(0, (num_draws, num_tasks)) for name, value in draws.items()}


def _of_points(likelihood: Likelihood, data: Data, f: Tensor) -> Distribution:
    """Of the outcomes, given all that they are predicted from."""
    return likelihood.at_inputs(f, data.x) if data.noise is None else likelihood.of_points(f, data)


def _yerr(data: Data) -> Tensor | None:
    return None if data.noise is None else data.noise.sqrt()


def _flat(value: Tensor, data: Data) -> np.ndarray:
    return value[data.mask].cpu().numpy()


def _constant(data: Data, names: list[Hashable]) -> dict[str, np.ndarray]:
    task, place = data.mask.nonzero(as_tuple=True)
    labels = np.array([str(name) for name in names])
    return {"x": _flat(data.x, data), "task_name": labels[task.cpu().numpy()], "place": place.cpu().numpy()}


def _labelled(
    groups: Groups, learner: Learner, names: list[Hashable], schema: Schema | None
) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """Coordinates by dimension, and dimensions (after chain and draw) by variable; of all groups but predictions."""
    observed, x = groups["observed_data"]["y"], groups["constant_data"]["x"]
    plain = all(isinstance(name, str) for name in names) or all(isinstance(name, int | np.integer) for name in names)
    coords: dict[str, Any] = {"task": names if plain else [str(name) for name in names], "point": np.arange(len(x))}
    dims = {"lp": [], "y": ["point", "output"][: observed.ndim], "task_name": ["point"], "place": ["point"]}
    dims["x"] = ["point", *(f"x_dim_{i}" for i in range(x.ndim - 1))]
    outputs: list[Hashable] = list(range(observed.shape[1])) if observed.ndim == 2 else []
    if schema is not None:
        outputs, coords["x_dim_0"] = list(schema.y), list(schema.x_names)
    if outputs:
        coords["output"] = outputs
    if "predictions" in groups:
        coords["query_point"] = np.arange(len(groups["predictions_constant_data"]["place"]))
    for name, value in groups.get("posterior", {}).items():
        own = [f"{name}_dim_{i}" for i in range(value.ndim - 3)]
        dims[name] = ["task", *own]
        coefficients = _coefficients(learner, value.shape[3:], Columns.of(learner.x_shape, learner.outcomes, schema))
        if coefficients:
            coords[own[0]] = coefficients
        if coefficients and schema is not None and value.shape[4:] == (len(outputs),):
            coords[own[1]] = outputs
    return coords, dims


def _coefficients(learner: Learner, shape: tuple[int, ...], columns: Columns) -> list[str]:
    """Names of the coefficients of features that have some: phi of this shape, features first."""
    while isinstance(learner, Wrapper):
        learner = learner.learner
    features = getattr(learner, "features", None)
    terms = features.terms(columns.inputs) if isinstance(features, Network) else None
    return list(terms.names) if terms is not None and shape[:1] == (len(terms.names),) else []


def _from_dict(groups: Groups, coords: dict[str, Any], dims: dict[str, list[str]]) -> Any:
    """ArviZ 1.x takes a dictionary of groups, and other dimensions for predictions; 0.x keywords."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # that ArviZ 1.x will come
        import arviz
    from_dict: Any = arviz.from_dict
    elsewhere = dims | {name: ["query_point", *rest[1:]] for name, rest in dims.items() if rest[:1] == ["point"]}
    predicted: Groups = {name: group for name, group in groups.items() if name.startswith("predictions")}
    if int(arviz.__version__.split(".")[0]) >= 1:
        return from_dict(groups, coords=coords, dims=dims, pred_dims=elsewhere, pred_coords=coords)
    others = {name: group for name, group in groups.items() if name not in predicted}
    result = from_dict(**others, coords=coords, dims=dims)
    if predicted:  # 0.x has `pred_dims`, and forgets them where the group is of constants
        result.extend(from_dict(**predicted, coords=coords, dims=elsewhere, pred_dims=elsewhere))
    return result

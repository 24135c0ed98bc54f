"""The summary of a linear mixed model: fixed effects, and how tasks differ from them, in the user's units."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, stdev
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from bayesmeta.one_line import several
from bayesmeta.summaries import text
from bayesmeta.summaries.summary import Summary

if TYPE_CHECKING:
    import pandas as pd

RESIDUAL = "residual"  # the group of the noise
NONE = 1e-12  # a correlation that is rounding
MOST_PAIRS = 15  # correlations that a page shows


def of_levels(references: Sequence[str]) -> str:
    """A note on effects that are differences between levels of a category.

    Args:
        references: the levels that they are differences from.

    Example:
        >>> of_levels(["diet=1"])
        'The intercept is of rows with diet=1; effects of other levels are differences from these.'
    """
    return f"The intercept is of rows with {', '.join(references)}; effects of other levels are differences from these."


@dataclass(frozen=True)
class Effect:
    """A fixed effect: a weight that all tasks have in common.

    Attributes:
        outcome: whose it is.
        term: what it is the weight of.
        estimate: in the user's units.
        std_error: its standard error, or its posterior deviation where theta is averaged over; None where neither is
            known.

    Example:
        >>> Effect("kg", "week", 1.04, 0.07)
        Effect(outcome='kg', term='week', estimate=1.04, std_error=0.07)
    """

    outcome: str
    term: str
    estimate: float
    std_error: float | None = None


@dataclass(frozen=True)
class Component:
    """A variance: of what tasks, or the levels of a grouping, differ in; or of the noise.

    Attributes:
        group: what differs: tasks, a grouping, or `residual`.
        outcome: whose it is.
        term: whose weight differs; empty for the noise.
        variance: in the user's units.
        draws: the variance at each draw of theta, where it is averaged over.

    Example:
        >>> Component("pig", "kg", "intercept", variance=4.0).stddev
        2.0
    """

    group: str
    outcome: str
    term: str
    variance: float
    draws: tuple[float, ...] = ()

    @property
    def stddev(self) -> float:
        """The deviation."""
        return math.sqrt(self.variance)


@dataclass(frozen=True)
class Correlation:
    """How two random effects go together.

    Attributes:
        group: what differs; `residual` where it is of the noise of two outcomes.
        first: a term.
        second: another.
        value: from -1 to 1.

    Example:
        >>> Correlation("pig", "intercept", "week", 0.5).value
        0.5
    """

    group: str
    first: str
    second: str
    value: float

    @classmethod
    def of(cls, group: str, names: Sequence[str], covariance: Float[Tensor, "R R"]) -> "list[Correlation]":
        """Those of all pairs that have variances, and go together at all.

        Args:
            group: what differs.
            names: of the terms.
            covariance: of the effects.

        Example:
            >>> import torch
            >>> Correlation.of("pig", ["intercept", "week"], torch.tensor([[4.0, 1.0], [1.0, 1.0]]))
            [Correlation(group='pig', first='intercept', second='week', value=0.5)]
        """
        deviations = covariance.diagonal().clamp(min=0.0).sqrt()
        scale = torch.where(deviations > 0.0, deviations, torch.inf)
        correlations = (covariance / scale[:, None] / scale).clamp(-1.0, 1.0).tolist()
        return [
            cls(group, names[j], names[i], correlations[i][j])
            for i in range(len(names))
            for j in range(i)
            if abs(correlations[i][j]) > NONE
        ]


@dataclass(frozen=True)
class Likelihood:
    """What tasks say of a model.

    Attributes:
        tasks: how many.
        points: how many.
        log_likelihood: log p(all tasks | theta), nats.
        restricted: the same with the fixed effects integrated out (REML), nats; None where it is not to be had.
        parameters: numbers that were learned: fixed effects, covariances, noise.
        criterion: which of the two theta maximises, `ML` or `REML`; empty where neither.

    Example:
        >>> fit = Likelihood(18, 180, log_likelihood=-875.97, restricted=-872.1, parameters=6, criterion="ML")
        >>> round(fit.aic, 2), round(fit.bic, 2)
        (1763.94, 1783.1)
    """

    tasks: int
    points: int
    log_likelihood: float
    restricted: float | None
    parameters: int
    criterion: str

    @property
    def maximum(self) -> float:
        """What was maximised: the restricted one of a REML fit."""
        return self.restricted if self.criterion == "REML" and self.restricted is not None else self.log_likelihood

    @property
    def aic(self) -> float:
        """Akaike's criterion, of the restricted likelihood where that was maximised, as lme4 has it."""
        return -2.0 * self.maximum + 2.0 * self.parameters

    @property
    def bic(self) -> float:
        """Schwarz's criterion, by the number of points, as lme4 has it."""
        return -2.0 * self.maximum + math.log(max(self.points, 1)) * self.parameters


@dataclass(frozen=True, kw_only=True)
class MixedModelSummary(Summary):
    """Of a linear mixed model: what lme4 and nlme print, in the user's units.

    Attributes:
        effects: the fixed effects.
        components: how much tasks differ, and the noise.
        pairs: correlations of random effects.
        shares: how much of the variance of outcomes at the points of the training is between tasks (the intra-class
            correlation), by group; nothing where no tasks were given.
        likelihood: None where no tasks were given.
        averaged: how many draws of theta are averaged over; 0 for one theta.

    Example:
        >>> import pandas as pd
        >>> import bayesmeta as bm
        >>> y = [5.1, 6.0, 7.2, 3.0, 4.1, 4.9, 8.1, 8.8, 10.2, 6.1, 6.8, 8.3]
        >>> frame = pd.DataFrame({"pig": [1] * 3 + [2] * 3 + [3] * 3 + [4] * 3, "week": [0, 1, 2] * 4, "kg": y})
        >>> tasks = bm.TaskDataset.from_frame(frame, task="pig", x=["week"], y="kg")
        >>> intercepts = bm.priors.FullCovariance(2, varying=[0])
        >>> learner = bm.Standardized(bm.ALPaCA(bm.Identity(1), covariance=intercepts)).double()
        >>> _ = bm.fit_evidence(learner, tasks, bm.training.RestrictedMaximumLikelihood())
        >>> summary = learner.summary(tasks)
        >>> summary.fixed_effects.round(3)
                   estimate  std_error
        intercept     5.513      1.048
        week          1.038      0.066
        >>> summary.variance_components["variance"].round(3).to_dict()
        {('pig', 'intercept'): 4.368, ('residual', ''): 0.035}
        >>> round(summary.intraclass_correlation["pig"], 3)
        0.992
    """

    effects: tuple[Effect, ...]
    components: tuple[Component, ...]
    pairs: tuple[Correlation, ...] = ()
    shares: tuple[tuple[str, float], ...] = ()
    likelihood: Likelihood | None = None
    averaged: int = 0

    @property
    def fixed_effects(self) -> "pd.DataFrame":
        """The fixed effects as a table: estimate and standard error of each term, and of each outcome if several."""
        import pandas as pd

        rows = [(each.estimate, math.nan if each.std_error is None else each.std_error) for each in self.effects]
        index = self._index([(each.outcome, each.term) for each in self.effects], ["outcome", "term"])
        return pd.DataFrame(rows, index=index, columns=["estimate", "std_error"])

    @property
    def variance_components(self) -> "pd.DataFrame":
        """Variances and deviations as a table, by group and term (and outcome, if several); the noise is last."""
        import pandas as pd

        names = [(each.outcome, each.group, each.term) for each in self.components]
        rows = [(each.variance, each.stddev) for each in self.components]
        index = self._index(names, ["outcome", "group", "term"])
        return pd.DataFrame(rows, index=index, columns=["variance", "stddev"])

    @property
    def correlations(self) -> "pd.DataFrame":
        """Correlations of random effects as a table."""
        import pandas as pd

        rows = [(each.group, each.first, each.second, each.value) for each in self.pairs]
        return pd.DataFrame(rows, columns=["group", "first", "second", "correlation"])

    @property
    def intraclass_correlation(self) -> dict[str, float]:
        """The share of the variance that is between tasks, and between the levels of each grouping."""
        return dict(self.shares)

    def _index(self, names: Sequence[tuple[str, ...]], columns: Sequence[str]) -> "pd.Index[Any]":
        """Names of rows; that of the outcome only where there are several."""
        import pandas as pd

        names, columns = (names, columns) if self._has_outcomes else ([name[1:] for name in names], columns[1:])
        if len(columns) == 1:
            return pd.Index([name[0] for name in names])
        return pd.MultiIndex.from_tuples(names, names=list(columns))

    @property
    def _has_outcomes(self) -> bool:
        return len({each.outcome for each in self.effects}) > 1

    @override
    def lines(self, level: float) -> list[str]:
        error = "posterior sd" if self.averaged else "std. error"
        return [
            *text.section("Fixed effects: what all tasks have in common", self._effects(error, level)),
            *text.section("Random effects: how tasks differ from it, and the noise", self._components(level)),
            *text.section("Of the variance of outcomes", self._shares()),
        ]

    @override
    def more_facts(self) -> list[tuple[str, str]]:
        found = self.likelihood
        if found is None:
            return []
        lines = [("data", f"{several(found.tasks, 'task')}, {several(found.points, 'point')}")]
        if self.averaged:
            return [*lines, ("logLik", f"{found.log_likelihood:.4f}, the mean over the draws")]
        methods = {"ML": "maximum likelihood (ML)", "REML": "restricted maximum likelihood (REML)"}
        other = "neither ML nor REML: trained otherwise, or under a hyperprior"
        restricted = "" if found.restricted is None else f", restricted {found.restricted:.4f}"
        criterion = "REML criterion" if found.criterion == "REML" else "deviance"
        scores = [f"{criterion} {-2.0 * found.maximum:.4f}"]
        scores += [f"AIC {found.aic:.4f}", f"BIC {found.bic:.4f}"] if found.criterion else []
        return [
            *lines,
            ("fit", methods.get(found.criterion, other)),
            ("logLik", f"{found.log_likelihood:.4f}{restricted}"),
            ("", f"{'; '.join(scores)}, of {several(found.parameters, 'number')}"),
        ]

    def _effects(self, error: str, level: float) -> list[str]:
        each, z = self.effects, NormalDist().inv_cdf(0.5 + 0.5 * level)
        errors = [effect.std_error for effect in each]
        headers = ["term", "estimate"]
        columns = [[effect.term for effect in each], text.aligned([effect.estimate for effect in each])]
        if any(value is not None for value in errors):
            ends = [
                (None, None)
                if effect.std_error is None
                else (effect.estimate - z * effect.std_error, effect.estimate + z * effect.std_error)
                for effect in each
            ]
            bounds = text.aligned([end for pair in ends for end in pair], digits=4)
            headers += [error, f"{text.percent(level)} from", "to"]
            columns += [text.aligned(errors), bounds[::2], bounds[1::2]]
            if not self.averaged:
                ratio = [effect.estimate / effect.std_error if effect.std_error else None for effect in each]
                headers += ["t"]
                columns += [["" if value is None else f"{value:.2f}" for value in ratio]]
        if self._has_outcomes:
            headers, columns = ["outcome", *headers], [[effect.outcome for effect in each], *columns]
        return text.table(headers, columns, words=2 if self._has_outcomes else 1)

    def _components(self, level: float) -> list[str]:
        each = self.components
        headers, words = ["group", "term", "variance", "deviation"], 2
        columns = [
            [component.group for component in each],
            [component.term for component in each],
            text.aligned([component.variance for component in each]),
            text.aligned([component.stddev for component in each]),
        ]
        if any(component.draws for component in each):
            ends = [_interval(component.draws, level) for component in each]
            bounds = text.aligned([end for pair in ends for end in pair], digits=4)
            headers += [f"{text.percent(level)} from", "to"]
            columns += [bounds[::2], bounds[1::2]]
        if self._has_outcomes:
            headers, words = ["outcome", *headers], 3
            columns = [[component.outcome for component in each], *columns]
        lines = text.table(headers, columns, words)
        if self.pairs:
            lines += ["", *self._pairs()]
        return lines

    def _pairs(self) -> list[str]:
        each = self.pairs[:MOST_PAIRS]
        columns = [
            [correlation.group for correlation in each],
            [f"{correlation.first}, {correlation.second}" for correlation in each],
            [f"{correlation.value:.5f}" for correlation in each],
        ]
        more = len(self.pairs) - len(each)
        lines = text.table(["group", "terms", "correlation"], columns, words=2)
        return [*lines, *([f"... and {more} more: .correlations has all"] if more else [])]

    def _shares(self) -> list[str]:
        rest = 1.0 - sum(share for _, share in self.shares)
        found = [
            (text.percent(share).rjust(5), f"from {group} to {group} (intra-class correlation)")
            for group, share in self.shares
        ]
        return text.facts([*found, (text.percent(max(rest, 0.0)).rjust(5), "noise")]) if found else []

    @classmethod
    def average(cls, members: Sequence["MixedModelSummary"], title: str) -> "MixedModelSummary":
        """One summary of many draws of theta: means, and deviations over the draws.

        Args:
            members: the summary at each draw, all of one model.
            title: what the average is.
        """
        first, count = members[0], len(members)
        effects = tuple(
            Effect(rows[0].outcome, rows[0].term, fmean(values), stdev(values) if count > 1 else None)
            for rows in zip(*(each.effects for each in members), strict=True)
            for values in [[row.estimate for row in rows]]
        )
        components = tuple(
            Component(rows[0].group, rows[0].outcome, rows[0].term, fmean(draws), draws)
            for rows in zip(*(each.components for each in members), strict=True)
            for draws in [tuple(row.variance for row in rows)]
        )
        found = dict[tuple[str, str, str], list[float]]()
        for member in members:
            for each in member.pairs:
                found.setdefault((each.group, each.first, each.second), []).append(each.value)
        pairs = tuple(Correlation(*names, fmean(values)) for names, values in found.items())
        shares = tuple((name, fmean(dict(each.shares)[name] for each in members)) for name, _ in first.shares)
        fits = [each.likelihood for each in members if each.likelihood is not None]
        likelihood = None
        if fits:
            mean = fmean(each.log_likelihood for each in fits)
            likelihood = Likelihood(fits[0].tasks, fits[0].points, mean, None, fits[0].parameters, "")
        return cls(
            title=title,
            kind=f"{first.kind}, averaged over {several(count, 'draw')} of theta",
            effects=effects,
            components=components,
            pairs=pairs,
            shares=shares,
            likelihood=likelihood,
            averaged=count,
        )

    @override
    @classmethod
    def rebuilt(cls, values: dict[str, Any]) -> "MixedModelSummary":
        likelihood = values["likelihood"]
        made = {
            "effects": tuple(Effect(**each) for each in values["effects"]),
            "components": tuple(Component(**each | {"draws": tuple(each["draws"])}) for each in values["components"]),
            "pairs": tuple(Correlation(**each) for each in values["pairs"]),
            "likelihood": None if likelihood is None else Likelihood(**likelihood),
        }
        return cls(**values | made)


def _interval(draws: Sequence[float], level: float) -> tuple[float | None, float | None]:
    """Quantiles of the deviation."""
    if not draws:
        return None, None
    ordered = sorted(draws)
    places = [min(max(0.5 - side * 0.5 * level, 0.0), 1.0) * (len(ordered) - 1) for side in (1.0, -1.0)]
    low, high = (
        ordered[math.floor(place)] + (place % 1.0) * (ordered[math.ceil(place)] - ordered[math.floor(place)])
        for place in places
    )
    return math.sqrt(low), math.sqrt(high)

"""The summary of a mixture of learners: what each is worth, in words, and what the heaviest have learned."""

from dataclasses import dataclass
from statistics import fmean
from typing import Any, TypeVar

from typing_extensions import override

from bayesmeta.errors import DataError
from bayesmeta.summaries import text
from bayesmeta.summaries.mixed_model import MixedModelSummary
from bayesmeta.summaries.summary import Summary

M = TypeVar("M", bound="SeveralSummary")


@dataclass(frozen=True, kw_only=True)
class SeveralSummary(Summary):
    """Several learners, one for each outcome: their summaries one after the other.

    Attributes:
        names: of the learners.
        members: the summary of each.

    Example:
        >>> import bayesmeta as bm
        >>> learners = {"weight": bm.ALPaCA(bm.Identity(1)), "height": bm.ALPaCA(bm.Polynomial(1, 2))}
        >>> summary = bm.wrappers.Separately(learners).summary()
        >>> summary.member("height").fixed_effects.index.tolist()
        ['intercept', 'x', 'x^2']
    """

    names: tuple[str, ...]
    members: tuple[Summary, ...]

    def member(self, name: str) -> Summary:
        """The summary of one of the learners. Raises DataError where there is none of the name."""
        if name not in self.names:
            raise DataError(f"expected one of {', '.join(self.names)}, got {name!r}")
        return self.members[self.names.index(name)]

    def shown(self, name: str, title: str, level: float) -> list[str]:
        """The page of one of the learners, indented.

        Args:
            name: of the learner.
            title: above it.
            level: probability of intervals.
        """
        return ["", title, *(f"  {line}".rstrip() for line in self.member(name).page(level).splitlines())]

    @override
    def lines(self, level: float) -> list[str]:
        return [line for name in self.names for line in self.shown(name, f"The outcome {name!r}", level)]

    @override
    @classmethod
    def rebuilt(cls: type[M], values: dict[str, Any]) -> M:
        return super().rebuilt(values | {"members": tuple(map(Summary.from_json, values["members"]))})


@dataclass(frozen=True, kw_only=True)
class MixtureSummary(SeveralSummary):
    """Several learners whose predictions are mixed: the weights of each, and its own summary.

    On the page is the summary of the heaviest linear mixed model among them, if there is one: its numbers have names.

    Attributes:
        points: numbers of points of a task at which weights are given.
        weights: at each of these, of each learner; those of one number of points sum to 1.

    Example:
        >>> import bayesmeta as bm
        >>> learners = {"line": bm.ALPaCA(bm.Identity(1)), "network": bm.MAML(bm.MLP(1, [8]))}
        >>> mixed = bm.wrappers.Stacked(learners, {"line": [0.75, 0.4], "network": [0.25, 0.6]}, points=[0, 5])
        >>> summary = mixed.summary()
        >>> print(*str(summary).splitlines()[5:8], sep="|")
                   0 points     5|  line         75 %  40 %|  network      25 %  60 %
        >>> summary.member("line").fixed_effects.index.tolist()
        ['intercept', 'x']
    """

    points: tuple[float, ...]
    weights: tuple[tuple[float, ...], ...]

    @property
    def mean_weights(self) -> dict[str, float]:
        """The weight of each learner, averaged over the numbers of points."""
        return {name: fmean(each) for name, each in zip(self.names, zip(*self.weights, strict=True), strict=True)}

    @override
    def lines(self, level: float) -> list[str]:
        mean = self.mean_weights
        order = sorted(range(len(self.names)), key=lambda i: -mean[self.names[i]])
        title, rows, headers = "Models and their weights", self.weights[:1], ["weight"]
        if len(set(self.weights)) > 1:
            title, rows = f"{title}, by the points that a task has shown", self.weights
            first, *more = (f"{point:g}" for point in self.points)
            headers = [f"{first} point" if first == "1" else f"{first} points", *more]
        shares = [[text.percent(row[i]) for i in order] for row in rows]
        table = text.table(["", *headers], [[self.names[i] for i in order], *shares], words=1)
        kinds = text.facts([(self.names[i], self.members[i].kind) for i in order])
        lines = text.section(title, [*table, "", *kinds])
        shown = [i for i in order if isinstance(self.members[i], MixedModelSummary) and mean[self.names[i]] > 0.0]
        name = self.names[shown[0]] if shown else ""
        return [*lines, *(self.shown(name, f"The model {name!r}", level) if shown else [])]

"""The summary of a mixture of learners: what each is worth, in words, and what the heaviest have learned."""

from dataclasses import dataclass
from typing import Any

from typing_extensions import override

from bayesmeta.summaries import text
from bayesmeta.summaries.mixed_model import MixedModelSummary
from bayesmeta.summaries.summary import Summary


@dataclass(frozen=True, kw_only=True)
class MixtureSummary(Summary):
    """Several learners whose predictions are mixed: the weight of each, and its own summary.

    On the page is the summary of the heaviest linear mixed model among them, if there is one: its numbers have names.

    Attributes:
        names: of the learners.
        points: numbers of points of a task at which weights are given.
        weights: at each of `points` those of the learners, which sum to 1.
        members: the summary of each.

    Example:
        >>> import bayesmeta as bm
        >>> learners = {"line": bm.ALPaCA(bm.Identity(1)), "network": bm.MAML(bm.MLP(1, [8]))}
        >>> summary = bm.wrappers.Stacked(learners, {"line": 0.75, "network": 0.25}).summary()
        >>> list(summary.member("line").variance_components.index.names)
        ['group', 'term']
        >>> print(*(line[:37] for line in str(summary).splitlines()[3:5]), sep="|")
        Models and their weights|   75 %  line     a linear mixed mode
        >>> mixed = bm.wrappers.Stacked(learners, {"line": [0.75, 0.4], "network": [0.25, 0.6]}, points=[0, 5])
        >>> print(*(line[2:25] for line in str(mixed.summary()).splitlines()[4:7]), sep="|")
        0 points     5|    75 %  40 %  line   |    25 %  60 %  network
    """

    names: tuple[str, ...]
    points: tuple[float, ...]
    weights: tuple[tuple[float, ...], ...]
    members: tuple[Summary, ...]

    def member(self, name: str) -> Summary:
        """The summary of one of the learners. Raises DataError where there is none of the name."""
        return self.members[self.names.index(name)]

    @override
    def lines(self, level: float) -> list[str]:
        of_each = list(zip(*self.weights, strict=True))
        order = sorted(range(len(self.names)), key=lambda i: -sum(of_each[i]))
        shares = [[text.percent(row[i]) for i in order] for row in self.weights]
        columns = [[self.names[i] for i in order], [self.members[i].kind for i in order]]
        if all(column == shares[0] for column in shares):
            rows = text.table(["", "", ""], [[share.rjust(5) for share in shares[0]], *columns], words=3)[1:]
            lines = text.section("Models and their weights", rows)
        else:
            first, *more = (f"{point:g}" for point in self.points)
            headers = [f"{first} point" if first == "1" else f"{first} points", *more]
            beside = text.table(["", ""], columns, words=2)
            table = text.table(headers, shares, words=0)
            rows = [f"{left}  {right}".rstrip() for left, right in zip(table, beside, strict=True)]
            lines = text.section("Models and their weights, by points that a task has shown", rows)
        shown = [i for i in order if isinstance(self.members[i], MixedModelSummary) and sum(of_each[i]) > 0.0]
        if shown:
            body = self.members[shown[0]].page(level).splitlines()
            lines += ["", f"The model {self.names[shown[0]]!r}", *(f"  {line}".rstrip() for line in body)]
        return lines

    @override
    @classmethod
    def rebuilt(cls, values: dict[str, Any]) -> "MixtureSummary":
        return super().rebuilt(values | {"members": tuple(map(Summary.from_json, values["members"]))})

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
        weights: of each, which sum to 1.
        members: the summary of each.

    Example:
        >>> import bayesmeta as bm
        >>> learners = {"line": bm.ALPaCA(bm.Identity(1)), "network": bm.MAML(bm.MLP(1, [8]))}
        >>> summary = bm.wrappers.Stacked(learners, {"line": 0.75, "network": 0.25}).summary()
        >>> summary.member("line").variance_components.index.names
        ['group', 'term']
        >>> summary.names, summary.weights
        (('line', 'network'), (0.75, 0.25))
    """

    names: tuple[str, ...]
    weights: tuple[float, ...]
    members: tuple[Summary, ...]

    def member(self, name: str) -> Summary:
        """The summary of one of the learners. Raises DataError where there is none of the name."""
        return self.members[self.names.index(name)]

    @override
    def lines(self, level: float) -> list[str]:
        order = sorted(range(len(self.names)), key=lambda i: -self.weights[i])
        pairs = [
            (f"{text.percent(self.weights[i]):>5}  {self.names[i]:<{max(map(len, self.names))}}", self.members[i].kind)
            for i in order
        ]
        lines = text.section("Models and their weights", text.facts(pairs))
        shown = [i for i in order if isinstance(self.members[i], MixedModelSummary) and self.weights[i] > 0.0]
        if shown:
            body = self.members[shown[0]].page(level).splitlines()
            lines += ["", f"The model {self.names[shown[0]]!r}", *(f"  {line}".rstrip() for line in body)]
        return lines

    @override
    @classmethod
    def rebuilt(cls, values: dict[str, Any]) -> "MixtureSummary":
        return super().rebuilt(values | {"members": tuple(map(Summary.from_json, values["members"]))})

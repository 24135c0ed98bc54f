"""The summary of what points have said of tasks: their coefficients by name, with intervals."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesmeta.arguments import probability
from bayesmeta.networks.network import Network
from bayesmeta.one_line import InShort, OneLine, several
from bayesmeta.summaries import text
from bayesmeta.summaries.columns import Columns
from bayesmeta.summaries.summary import LEVEL

if TYPE_CHECKING:
    import pandas as pd

MOST_ROWS = 40  # of a page
MIXTURE_DRAWS = 4_000


@dataclass(frozen=True, eq=False)
class Coefficients(InShort):
    """What is believed of the numbers of tasks, in the user's units, each on its own.

    Attributes:
        names: of the P numbers.
        outcomes: whose each number is; empty where there is one outcome.
        mean: of each task.
        stddev: of each task.
        draws: of each, where its belief is not Gaussian; None where it is.
        prior_stddev: the deviation before any point; None where it is not known.
        are_the_users: whether the numbers are in the user's units, and not in those that the learner sees.
        weights: of the draws; None where they count alike.

    Example:
        >>> import bayesmeta as bm
        >>> posterior = bm.ALPaCA(bm.Identity(1)).adapt(bm.Data.from_arrays([0.0, 1.0], [0.2, 0.4]))
        >>> found = posterior.coefficients(bm.summaries.Columns.of((1,), bm.Numbers(1)))
        >>> found.names, found.shrinkage.round(decimals=2).tolist()
        (('intercept', 'x'), [[0.4, 0.6]])
    """

    names: tuple[str, ...]
    mean: Float[Tensor, "B P"]
    stddev: Float[Tensor, "B P"]
    outcomes: tuple[str, ...] = ()
    draws: Float[Tensor, "S B P"] | None = None
    prior_stddev: Float[Tensor, "P"] | None = None
    are_the_users: bool = True
    weights: Float[Tensor, "S B P"] | None = None

    @classmethod
    def drawn(
        cls,
        names: Sequence[str],
        draws: Float[Tensor, "S B P"],
        outcomes: Sequence[str] = (),
        are_the_users: bool = True,
    ) -> "Coefficients":
        """From draws of the numbers.

        Args:
            names: of the numbers.
            draws: of each task.
            outcomes: whose each number is.
            are_the_users: whether they are in the user's units.
        """
        draws = draws.double().cpu()
        mean, stddev = draws.mean(0), draws.std(0)
        return cls(tuple(names), mean, stddev, tuple(outcomes), draws, are_the_users=are_the_users)

    @classmethod
    def of_weights(cls, draws: Float[Tensor, "S B F C"], features: Network, columns: Columns) -> "Coefficients | None":
        """From draws of the weights of features; None where these mean nothing to a user.

        Args:
            draws: of each task.
            features: h.
            columns: names and units.
        """
        terms, draws = columns.terms(features), draws.cpu()
        if terms is None:
            return None
        outcomes = columns.outcomes.names
        of_each = tuple(outcome for outcome in outcomes for _ in terms.names) if len(outcomes) > 1 else ()
        return cls.drawn(terms.names * len(outcomes), columns.weights(terms, draws).mT.flatten(2), of_each)

    @classmethod
    def beside(cls, parts: Sequence["Coefficients"], outcomes: Sequence[str]) -> "Coefficients | None":
        """Those of several outcomes; None where some are drawn and others are not.

        Args:
            parts: of each outcome.
            outcomes: their names.
        """
        if len({None if part.draws is None else len(part.draws) for part in parts}) > 1:
            return None
        names = tuple(name for part in parts for name in part.names)
        of_each = tuple(outcome for outcome, part in zip(outcomes, parts, strict=True) for _ in part.names)
        draws = [part.draws for part in parts if part.draws is not None]
        weights = [part.weights for part in parts if part.weights is not None]
        before = [part.prior_stddev for part in parts if part.prior_stddev is not None]
        return cls(
            names,
            torch.cat([part.mean for part in parts], -1),
            torch.cat([part.stddev for part in parts], -1),
            of_each,
            torch.cat(draws, -1) if draws else None,
            torch.cat(before, -1) if len(before) == len(parts) else None,
            all(part.are_the_users for part in parts),
            torch.cat(weights, -1) if len(weights) == len(parts) else None,
        )

    @classmethod
    def mixture(cls, parts: Sequence["Coefficients"], weights: Float[Tensor, "B S"]) -> "Coefficients":
        """Of several beliefs about the same numbers, each with a weight.

        Args:
            parts: the beliefs.
            weights: of each in each task; they sum to 1.
        """
        first, size = parts[0], len(parts)
        weights = weights.double().cpu()
        means = torch.stack([part.mean.double().cpu() for part in parts])  # S B P
        spreads = torch.stack([part.stddev.double().cpu() for part in parts])
        share = weights.mT[..., None]
        mean = (share * means).sum(0)
        stddev = ((share * (spreads.square() + means.square())).sum(0) - mean.square()).clamp(min=0.0).sqrt()
        # draws of each in its share: evenly spaced quantiles, so that nothing is a matter of chance
        count = max(MIXTURE_DRAWS // size, 8)
        levels = (torch.arange(count, dtype=torch.float64) + 0.5) / count
        normal = torch.special.ndtri(levels)[:, None, None, None]
        draws = (means + spreads * normal).flatten(0, 1)  # the S of a level stand together
        chosen = share.expand(count, *share.shape).flatten(0, 1).expand(draws.shape)
        return cls(first.names, mean, stddev, first.outcomes, draws, are_the_users=first.are_the_users, weights=chosen)

    def interval(self, level: float) -> tuple[Float[Tensor, "B P"], Float[Tensor, "B P"]]:
        """Between which values each number lies with this probability, with the same on either side.

        Args:
            level: the probability.
        """
        if self.draws is not None and self.weights is not None:
            order = self.draws.argsort(0)
            passed = self.weights.gather(0, order).cumsum(0)
            passed = passed / passed[-1:]
            places = [(passed < end).sum(0, keepdim=True).clamp(max=len(order) - 1) for end in _ends(level)]
            low, high = (self.draws.gather(0, order.gather(0, place))[0] for place in places)
            return low, high
        if self.draws is not None:
            ends = torch.tensor(_ends(level), dtype=self.draws.dtype)
            low, high = torch.quantile(self.draws, ends.to(self.draws.device), dim=0)
            return low, high
        half = torch.special.ndtri(torch.tensor(0.5 + 0.5 * level, dtype=torch.float64)).item() * self.stddev
        return self.mean - half, self.mean + half

    @property
    def shrinkage(self) -> Float[Tensor, "B P"] | None:
        """Var after the points over Var before: 1 where the prior decides all, towards 0 as the points do; None where
        the prior's is not known. A number that does not vary between tasks has 1.
        """
        if self.prior_stddev is None:
            return None
        before = self.prior_stddev.square().expand(self.mean.shape)
        return torch.where(before > 0.0, self.stddev.square() / torch.where(before > 0.0, before, 1.0), 1.0)


def _ends(level: float) -> tuple[float, float]:
    return 0.5 - 0.5 * level, 0.5 + 0.5 * level


@dataclass(frozen=True, eq=False)
class PosteriorSummary(OneLine):
    """What points have said of tasks: prints as a page.

    Attributes:
        title: what the posterior is of.
        tasks: names of the tasks.
        points: how many of each task have been seen; None where that is not known.
        numbers: what is believed of the tasks' numbers; None where they mean nothing one by one.
        level: probability of the intervals.
        words: what there is to say where numbers mean nothing, or beside them.

    Example:
        >>> import pandas as pd
        >>> import bayesmeta as bm
        >>> frame = pd.DataFrame({"pig": ["a"] * 3 + ["b"] * 3, "week": [0, 1, 2] * 2, "kg": [5, 6, 7, 3, 4, 6]})
        >>> tasks = bm.TaskDataset.from_frame(frame, task="pig", x=["week"], y="kg")
        >>> learner = bm.ALPaCA(bm.Identity(1)).double()
        >>> summary = learner.adapt(tasks.data).summary(tasks)
        >>> summary.coefficients.loc["b"][["mean", "stddev", "shrinkage"]].round(2).to_dict("index")["week"]
        {'mean': 1.67, 'stddev': 0.16, 'shrinkage': 0.27}
        >>> summary.coefficients.index.tolist()[:2]
        [('a', 'intercept'), ('a', 'week')]
    """

    title: str
    tasks: tuple[Hashable, ...]
    points: Int[Tensor, "B"] | None
    numbers: Coefficients | None
    level: float = LEVEL
    words: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the level."""
        probability(self.level, "a level")

    @property
    def coefficients(self) -> "pd.DataFrame":
        """A row for each number of each task: mean, stddev, lower, upper, shrinkage (NaN where not known), points.

        It has no rows where the numbers of tasks mean nothing one by one.
        """
        import pandas as pd

        columns = ["mean", "stddev", "lower", "upper", "shrinkage", "points"]
        found = self.numbers
        if found is None:
            return pd.DataFrame(columns=columns)
        size, count = len(found.names), len(self.tasks)
        outcomes = found.outcomes or [""] * size
        rows = [
            (task, outcome, name) for task in self.tasks for outcome, name in zip(outcomes, found.names, strict=True)
        ]
        index = pd.MultiIndex.from_tuples(rows, names=["task", "outcome", "term"])
        shrinkage = found.shrinkage
        missing = torch.full((count, size), torch.nan, dtype=torch.float64)
        points = missing if self.points is None else self.points[:, None].expand(count, size)
        values = (
            found.mean,
            found.stddev,
            *found.interval(self.level),
            missing if shrinkage is None else shrinkage,
            points,
        )
        table = pd.DataFrame(
            {
                name: value.detach().cpu().double().flatten().numpy()
                for name, value in zip(columns, values, strict=True)
            },
            index=index,
        )
        return table if found.outcomes else table.droplevel("outcome")

    def page(self) -> str:
        """The summary as text."""
        lines = [self.title, *(f"  {line}" for line in text.bullets(self.words))]
        if self.numbers is None:
            return "\n".join(lines)
        table = self.coefficients
        shown = table.head(MOST_ROWS)
        names = [[str(each) for each in shown.index.get_level_values(i)] for i in range(shown.index.nlevels)]
        ends = [end for pair in zip(shown["lower"], shown["upper"], strict=True) for end in pair]
        ends = text.aligned(ends, 4, list(shown["stddev"]))
        deviations = list(shown["stddev"])
        columns = [*names, text.aligned(list(shown["mean"]), 4, deviations), text.aligned(deviations, 4)]
        headers = [*map(str, shown.index.names), "mean", "deviation", f"{text.percent(self.level)} from", "to"]
        columns += [ends[::2], ends[1::2]]
        if self.numbers.prior_stddev is not None:
            headers += ["shrinkage"]
            columns += [[f"{value:.2f}" for value in shown["shrinkage"]]]
        if self.points is not None:
            headers += ["points"]
            columns += [[f"{value:.0f}" for value in shown["points"]]]
        lines += text.section("What is believed of each task", text.table(headers, columns, words=len(names)))
        more = len(table) - len(shown)
        return "\n".join([*lines, *([f"  ... {several(more, 'row')} more: .coefficients has all"] if more else [])])

    def __repr__(self) -> str:
        """The page, as it is made to be read."""
        return self.page()

    __str__ = __repr__

"""What all summaries are: a title, facts, tables and notes, on a page of text and as plain JSON."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, TypeVar

from bayesmeta.arguments import probability
from bayesmeta.errors import DataError
from bayesmeta.one_line import OneLine
from bayesmeta.summaries import text

S = TypeVar("S", bound="Summary")
LEVEL = 0.9  # probability of the intervals that are printed where nothing else is asked for


@dataclass(frozen=True, kw_only=True)
class Summary(OneLine, ABC):
    """What a learner has learned, in words and numbers: prints as a page. A subclass gives `lines`.

    It holds plain numbers and words, and nothing of the tasks: it may be kept with a model (`to_json`).

    Attributes:
        title: the learner, as it was constructed.
        kind: what it is, in a few words.
        facts: names and sentences that stand first, such as what it was trained on.
        notes: what there is to know before the numbers are used, in whole sentences.

    Example:
        >>> import bayesmeta as bm
        >>> tasks = bm.tasks.Sawtooth().dataset(20, 10, seed=0)
        >>> learner = bm.ALPaCA(bm.Identity(1)).double()
        >>> _ = bm.fit_evidence(learner, tasks)
        >>> summary = learner.summary(tasks)
        >>> summary.fixed_effects.round(2)
                   estimate  std_error
        intercept      0.49       0.02
        x              0.01       0.02
        >>> Summary.from_json(summary.to_json()) == summary
        True
    """

    title: str
    kind: str = ""
    facts: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    @abstractmethod
    def lines(self, level: float) -> list[str]:
        """The page between the facts and the notes.

        Args:
            level: probability of intervals.
        """

    def more_facts(self) -> list[tuple[str, str]]:
        """What stands below the facts; nothing unless a subclass has more."""
        return []

    def page(self, level: float = LEVEL) -> str:
        """The summary as text.

        Args:
            level: probability of intervals.

        Raises:
            DataError: a level outside (0, 1).
        """
        level = probability(level, "a level")
        facts = [*([("what", self.kind)] if self.kind else []), *self.facts]
        head = [self.title, *(f"  {line}" for line in text.facts([*facts, *self.more_facts()]))]
        return "\n".join([*head, *self.lines(level), *text.section("To know", text.bullets(self.notes))])

    def __str__(self) -> str:
        """The page."""
        return self.page()

    def __repr__(self) -> str:
        """The page, as it is made to be read."""
        return self.page()

    def with_facts(self: S, facts: Sequence[tuple[str, str]]) -> S:
        """The same with more facts, before those that it has.

        Args:
            facts: names and sentences.
        """
        return replace(self, facts=(*facts, *self.facts))

    def with_notes(self: S, *notes: str) -> S:
        """The same with more notes, behind those that it has.

        Args:
            notes: whole sentences.
        """
        return replace(self, notes=(*self.notes, *notes))

    def titled(self: S, title: str) -> S:
        """The same under another title.

        Args:
            title: the learner, as it was constructed.
        """
        return replace(self, title=title)

    def more(self: S, words: str) -> S:
        """The same with more words to what it is.

        Args:
            words: behind a comma.
        """
        return replace(self, kind=f"{self.kind.removesuffix('.')}, {words}")

    def to_json(self) -> dict[str, Any]:
        """The summary as plain JSON, for `from_json`."""
        return {"class": type(self).__name__, **{each.name: _plain(getattr(self, each.name)) for each in fields(self)}}

    @staticmethod
    def from_json(value: dict[str, Any]) -> "Summary":
        """The inverse of `to_json`. Raises DataError where it is not such a value."""
        try:
            kind = next(each for each in _below() if each.__name__ == value["class"])
            return kind.rebuilt({name: _tuples(item) for name, item in value.items() if name != "class"})
        except (KeyError, TypeError, ValueError, AttributeError, StopIteration) as error:
            raise DataError(f"expected a summary as to_json gives it, got {str(value)[:80]}") from error

    @classmethod
    def rebuilt(cls: type[S], values: dict[str, Any]) -> S:
        """One of this class, from the values of its attributes as JSON; a class with records of its own overrides it.

        Args:
            values: by name, lists as tuples.
        """
        return cls(**values)


def _plain(value: Any) -> Any:
    if isinstance(value, Summary):
        return value.to_json()
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def _below(kind: type[Summary] | None = None) -> list[type[Summary]]:
    children = (Summary if kind is None else kind).__subclasses__()
    return [*children, *(each for child in children for each in _below(child))]

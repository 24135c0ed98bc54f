"""A bar of speed: what was measured, and what it should be.

`speed_bars.py` runs those of `_speed_gradient`, `_speed_linear` and `_speed_chains`, each of which has

    bars(seconds) -> list[Bar]

whose measurements take about so many seconds of processor time in all. A figure is a ratio of two times that were
measured in the same run, one after the other in turn, or another number that does not depend on the machine much.
"""

import math
from typing import NamedTuple


class Bar(NamedTuple):
    """One claim about speed.

    Attributes:
        claim: what the figure is, with its unit, in a few words.
        figure: what was measured; NaN where it was not, and `note` says why.
        bar: what it should be.
        at_least: whether it should be at least or at most the bar.
        note: what else is to be said: a profile of what is missed, a figure of a peer.
    """

    claim: str
    figure: float
    bar: float
    at_least: bool
    note: str = ""

    @property
    def is_measured(self) -> bool:
        """Whether there is a figure."""
        return not math.isnan(self.figure)

    @property
    def is_met(self) -> bool:
        """Whether the figure is what it should be; False where there is none."""
        return self.figure >= self.bar if self.at_least else self.figure <= self.bar

    @property
    def line(self) -> str:
        """One line: claim, figure, bar and whether it is met."""
        wanted = f"{'at least' if self.at_least else 'at most'} {self.bar:g}"
        word = "not measured" if not self.is_measured else "met" if self.is_met else "MISSED"
        figure = f"{self.figure:10.3g}" if self.is_measured else f"{'-':>10}"
        return f"  {self.claim:64}{figure}   {wanted:16}{word:14}{self.note}".rstrip()

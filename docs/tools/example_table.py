"""Writes the table that comes with the package: seedlings under lamps, simulated, so that nobody's data are in it.

    python -m docs.tools.example_table

Every seedling grows along a logistic curve of its own: how tall it becomes and when it grows fastest differ between
cultivars and with the light of its shelf, and from seedling to seedling. A gardener measures to the millimetre, on some
of the days, and stops with some plants earlier than with others.
"""

from pathlib import Path

import numpy as np

PATH = Path(__file__).parent.parent.parent / "bayesmeta" / "example_table.csv"
SEEDLINGS, SHELVES = 36, (120, 180, 240, 320)  # light on a shelf, in micromoles of photons per m2 and s
TALL = {"genovese": 210.0, "thai": 165.0, "greek": 120.0}  # mm at 240 umol, after which growth has ended
FAST = {"genovese": 17.0, "thai": 15.0, "greek": 19.0}  # the day of fastest growth
ERROR = 2.0  # deviation of a measurement, mm


def table() -> str:
    """The table as CSV."""
    rng = np.random.default_rng(7)
    lines = ["plant,day,height_cm,light_umol,cultivar"]
    for plant in range(1, SEEDLINGS + 1):
        cultivar, light = list(TALL)[plant % 3], SHELVES[rng.integers(len(SHELVES))]
        tall = TALL[cultivar] * (light / 240.0) ** 0.25 * np.exp(rng.normal(0.0, 0.16))
        fastest, width = FAST[cultivar] + rng.normal(0.0, 2.0), 4.2 * np.exp(rng.normal(0.0, 0.1))
        days = np.sort(rng.choice(np.arange(2, 29), rng.integers(5, 12), replace=False))
        days = days[days <= rng.choice([18, 28, 28])]
        heights = tall / (1.0 + np.exp(-(days - fastest) / width)) + rng.normal(0.0, ERROR, len(days))
        lines += [
            f"{plant:02d},{day},{max(height / 10.0, 0.1):.1f},{light},{cultivar}"
            for day, height in zip(days, heights, strict=True)
        ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PATH.write_text(table())
    print(f"{table().count(chr(10)) - 1} rows written to {PATH.name}")

"""The table that comes with the package: simulated seedlings under lamps (made by docs/tools/example_table.py)."""

import importlib.resources
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


def example_table() -> "pd.DataFrame":
    """A small long table to try things on: heights of 36 seedlings, which are no one's data but simulated.

    A row is a measurement. Columns are `plant` (the task, a text such as "07"), `day` after sowing, `height_cm`, and
    two that are constant for a plant: `light_umol` (light on its shelf, µmol m⁻² s⁻¹) and `cultivar`. The command
    `bayesmeta example-table` writes the same as CSV.

    Example:
        >>> import bayesmeta as bm
        >>> frame = bm.tasks.example_table()
        >>> covariates = ["light_umol", "cultivar"]
        >>> bm.TaskDataset.from_frame(frame, task="plant", x=["day"], y=["height_cm"], covariates=covariates)
        TaskDataset(36 tasks, 2 to 11 points each)
    """
    import pandas as pd

    with importlib.resources.files("bayesmeta").joinpath("example_table.csv").open(encoding="utf-8") as file:
        return pd.read_csv(file, dtype={"plant": str})

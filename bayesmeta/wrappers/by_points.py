"""What a wrapper knows at a few numbers of support points, for tasks of any number."""

import torch
from jaxtyping import Float, Int, Real
from torch import Tensor


def interpolated(
    values: Float[Tensor, "S *v"], points: Real[Tensor, "S"], counts: Int[Tensor, "B"]
) -> Float[Tensor, "B *v"]:
    """Values between those that are known: linear in log(1 + points), and constant outside of what is known.

    The logarithm, as the second point of a task tells more than the twentieth.

    Args:
        values: at each of `points`.
        points: numbers of support points, increasing.
        counts: support points of each task.

    Example:
        >>> known = torch.tensor([0.0, 1.0], dtype=torch.float64)
        >>> interpolated(known, torch.tensor([0, 3]), torch.tensor([0, 1, 3, 50]))
        tensor([0.0000, 0.5000, 1.0000, 1.0000], dtype=torch.float64)
    """
    if len(points) == 1:
        return values.expand(len(counts), *values.shape[1:])
    at = points.double().log1p()
    position = counts.double().log1p().clamp(at[0], at[-1])
    upper = torch.searchsorted(at, position).clamp(min=1)
    share = (position - at[upper - 1]) / (at[upper] - at[upper - 1])
    share = share.to(values.dtype).view(-1, *[1] * (values.ndim - 1))
    return (1.0 - share) * values[upper - 1] + share * values[upper]

"""Shared types, and the axis letters that every signature uses.

Every annotation, docstring and test uses these and no others:

    B  tasks in a batch                 C  outputs or classes        F  features
    N  support points of a task, padded D  input size (`*x` when the input has any shape)
    M  query points of a task, padded   S  draws of phi              K  network outputs
    P  numbers in phi
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor

ArrayLike = Any
"""A numpy array, a pandas Series or DataFrame, a nested list of numbers or a torch tensor."""

Params = dict[str, Tensor]
"""phi of a batch of tasks: each value `B *shape`; with S draws, `S B *shape`."""

LogJoint = Callable[[Params], Tensor]
"""phi -> log p(y | x, phi) + log p(phi | theta), a `B` tensor in nats."""

LinearMaps = dict[Tensor, Callable[[Tensor], Tensor]]
"""Parameter -> a linear map of numbers of its shape, from coordinates in which steps of one are of a sensible size."""

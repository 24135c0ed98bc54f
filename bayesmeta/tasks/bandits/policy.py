"""What chooses arms: a policy is a value that knows what has been observed so far."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from typing_extensions import override

from bayesmeta.data import Data
from bayesmeta.one_line import InShort


class Policy(InShort, ABC):
    """How arms are chosen in a batch of bandits. A value: `after` gives a new one, and leaves this one as it was.

    Example:
        >>> from dataclasses import dataclass, replace
        >>> import torch
        >>> import bayesmeta as bm
        >>> @dataclass(frozen=True)
        ... class Greedy(bm.tasks.Policy):  # the arm with the largest posterior mean
        ...     posterior: bm.TaskPosterior
        ...
        ...     def choose(self, options, generator):
        ...         return self.posterior.predict(options).mean[..., 0].argmax(-1)
        ...
        ...     def after(self, data):
        ...         return replace(self, posterior=self.posterior.update(data))
        >>> bandits = bm.tasks.GaussianBandits(4)
        >>> greedy = Greedy(bandits.oracle.adapt(bandits.nothing(500)))
        >>> bool(bm.tasks.play(bandits, greedy, num_bandits=500, steps=20).regret.mean() > 0)
        True
    """

    @abstractmethod
    def choose(self, options: Float[Tensor, "B K D"], generator: torch.Generator) -> Int[Tensor, "B"]:
        """The arm that is pulled in each bandit. The generator is the only source of randomness."""

    @abstractmethod
    def after(self, data: Data) -> "Policy":
        """The policy after the points that were observed: at most one of each bandit, masked where there is none."""


@dataclass(frozen=True)
class RandomArms(Policy):
    """Every arm with the same probability, whatever is observed.

    Example:
        >>> import torch
        >>> import bayesmeta as bm
        >>> bm.tasks.RandomArms().choose(torch.eye(3).expand(4, 3, 3), torch.Generator().manual_seed(0)).tolist()
        [2, 0, 2, 0]
    """

    @override
    def choose(self, options: Float[Tensor, "B K D"], generator: torch.Generator) -> Int[Tensor, "B"]:
        return torch.randint(options.shape[1], options.shape[:1], generator=generator)

    @override
    def after(self, data: Data) -> "RandomArms":
        return self

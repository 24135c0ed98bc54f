"""What all families of bandits share: arms to choose between, and rewards whose mean depends on the task's phi."""

from abc import abstractmethod

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from bayesmeta.arguments import whole
from bayesmeta.data import Data
from bayesmeta.outcomes import Labels, Numbers
from bayesmeta.tasks.simulators.simulator import Simulator


class Bandits(Simulator):
    """A family of bandits with K arms: a bandit is a task, pulling an arm gives a point, and its outcome is the reward.

    At each step a bandit offers K options, one for each arm, as inputs x: unit vectors where an arm is known by its
    number alone, features where there is a context. `play` lets a policy choose among them.

    As a source of tasks it gives logs in which arms were pulled at random: what a prior over bandits is learned from.

    A subclass gives `phi`, `options`, `expected` and `rewards`, and sets `oracle` where the exact posterior is known.

    Args:
        num_arms: K.

    Attributes:
        outcomes: `Numbers(1)`, or `Labels(2)` where a reward is 0 or 1.

    Raises:
        DataError: fewer than 2 arms.

    Example:
        >>> import torch
        >>> import bayesmeta as bm
        >>> class OneGoodArm(bm.tasks.Bandits):  # one arm pays 1 a pull, the others nothing, both with noise
        ...     def phi(self, num_bandits, generator):
        ...         return torch.eye(self.num_arms)[torch.randint(self.num_arms, (num_bandits,), generator=generator)]
        ...
        ...     def options(self, num_bandits, generator):
        ...         return torch.eye(self.num_arms).expand(num_bandits, -1, -1)
        ...
        ...     def expected(self, phi, options):
        ...         return (options @ phi[..., None])[..., 0]
        ...
        ...     def rewards(self, expected, generator):
        ...         return expected + 0.5 * torch.randn(expected.shape, generator=generator)
        >>> bandits = OneGoodArm(3)
        >>> bm.tasks.play(bandits, bm.tasks.RandomArms(), num_bandits=1000, steps=30)
        Play(1000 bandits, 30 steps: mean reward 9.84, mean regret 20)
        >>> learner = bm.ALPaCA(bm.Identity(3))
        >>> _ = bm.fit_evidence(learner, bandits.dataset(200, 20))
        >>> thompson = bm.tasks.Thompson(learner.adapt(bandits.nothing(1000)))
        >>> bool(bm.tasks.play(bandits, thompson, num_bandits=1000, steps=30).regret.mean() < 12)
        True
    """

    outcomes: Numbers | Labels = Numbers(1)

    def __init__(self, num_arms: int) -> None:
        self.num_arms = whole(num_arms, "num_arms", least=2)

    @abstractmethod
    def phi(self, num_bandits: int, generator: torch.Generator) -> Float[Tensor, "B P"]:
        """Draw fresh bandits."""

    @abstractmethod
    def options(self, num_bandits: int, generator: torch.Generator) -> Float[Tensor, "B K D"]:
        """What the arms are known by at one step: the inputs at which a reward may be had."""

    @abstractmethod
    def expected(self, phi: Float[Tensor, "B P"], options: Float[Tensor, "B M D"]) -> Float[Tensor, "B M"]:
        """The mean reward of each option: of those of one step, or of the chosen ones of many."""

    @abstractmethod
    def rewards(self, expected: Float[Tensor, "B M"], generator: torch.Generator) -> Float[Tensor, "B M"]:
        """Rewards of such means."""

    def observed(self, reward: Float[Tensor, "B N"]) -> Shaped[Tensor, "B N *c"]:
        """Rewards as outcomes of points: numbers `B N 1`, or labels `B N`."""
        return reward.long() if isinstance(self.outcomes, Labels) else reward[..., None]

    def nothing(self, num_bandits: int) -> Data:
        """Bandits of which nothing is known yet: what a learner adapts to for its prior.

        Args:
            num_bandits: B.

        Example:
            >>> import bayesmeta as bm
            >>> bm.tasks.BernoulliBandits(5).nothing(2).x.shape
            torch.Size([2, 0, 5])
        """
        return Data.empty(self.simulate(whole(num_bandits, "num_bandits", least=1), 1, torch.Generator()))

    def simulate(self, num_tasks: int, num_points: int, generator: torch.Generator) -> Data:
        """Logs of fresh bandits, `num_points` pulls of random arms each. The generator is the only source of
        randomness.
        """
        phi = self.phi(num_tasks, generator)
        shape = (num_tasks, num_points)
        options = self.options(num_tasks * num_points, generator)
        options = options.reshape(*shape, *options.shape[1:])
        arms = torch.randint(self.num_arms, shape, generator=generator)
        x = chosen(options, arms)
        return Data.full(x, self.observed(self.rewards(self.expected(phi, x), generator)))


def chosen(options: Shaped[Tensor, "*b K D"], arms: Int[Tensor, "*b"]) -> Shaped[Tensor, "*b D"]:
    """The option of one arm each.

    Args:
        options: those of all arms.
        arms: positions of the arms.

    Example:
        >>> chosen(torch.eye(3).expand(2, 3, 3), torch.tensor([2, 0])).tolist()
        [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
    """
    return torch.take_along_dim(options, arms[..., None, None], -2).squeeze(-2)

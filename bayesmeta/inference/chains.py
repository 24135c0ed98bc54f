"""Markov chains of many tasks: their draws, what these are worth, and whether the chains agree with each other."""

import math
import warnings
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesmeta.errors import ConvergenceWarning
from bayesmeta.inference.diagnostics import effective_draws, split_r_hat
from bayesmeta.typing import Params

LARGEST_R_HAT, MOST_DIVERGENT = 1.1, 0.05  # what is not warned of yet
CAREFUL = 0.95  # the target acceptance that is advised


@dataclass(frozen=True, eq=False)
class Chains:
    """What a sampler has drawn after its warm-up, several chains of S draws for each of B tasks.

    Attributes:
        draws: each value `chains S B *shape`.
        log_joint: of each draw, nats.
        divergent: 1 where the trajectory to the draw was broken off, as the step was too long for the curvature there.
        acceptance: the mean acceptance probability along each trajectory.
        leapfrogs: the length of each trajectory, in leapfrog steps.
        step_size: of each task, in the metric's units.

    Example:
        >>> none, modes = torch.zeros(2, 100, 1), torch.tensor([0.0, 9.0])[:, None, None]
        >>> draws = {"u": torch.randn(2, 100, 1) + modes}  # two chains, each in a mode of its own
        >>> chains = Chains(draws, none, none, none + 0.8, none + 3.0, torch.ones(1))
        >>> chains.merged["u"].shape, bool(chains.worst_r_hat > 3.0)
        (torch.Size([200, 1]), True)
    """

    draws: Params
    log_joint: Float[Tensor, "chains S B"]
    divergent: Float[Tensor, "chains S B"]
    acceptance: Float[Tensor, "chains S B"]
    leapfrogs: Float[Tensor, "chains S B"]
    step_size: Float[Tensor, "B"]

    def select(self, tasks: Int[Tensor, "K"]) -> "Chains":
        """Of the tasks at these positions."""
        draws = {name: value[:, :, tasks] for name, value in self.draws.items()}
        return Chains(draws, *(getattr(self, each.name)[..., tasks] for each in fields(self)[1:]))

    @property
    def merged(self) -> Params:
        """The draws of all chains, one chain after another: each value `S B *shape`, S now counting all of them."""
        return {name: value.flatten(0, 1) for name, value in self.draws.items()}

    @property
    def r_hat(self) -> Params:
        """Split R-hat of every number of phi: each value `B *shape`. Above 1.01 to 1.05 the chains disagree."""
        return {name: split_r_hat(value) for name, value in self.draws.items() if value.numel()}

    @property
    def effective_draws(self) -> Params:
        """How many independent draws are worth as much for the mean of every number of phi: each value `B *shape`."""
        return {name: effective_draws(value) for name, value in self.draws.items() if value.numel()}

    @property
    def worst_r_hat(self) -> Float[Tensor, "B"]:
        """The largest R-hat of each task."""
        return torch.stack([value.reshape(len(value), -1).amax(1) for value in self.r_hat.values()]).amax(0)


def warn_unless_converged(chains: Chains, target_acceptance: float) -> None:
    """Warn, on behalf of the function that calls it, of chains that are not to be trusted, and say what helps.

    Args:
        chains: of all tasks.
        target_acceptance: what their step size aimed at.

    Warns:
        ConvergenceWarning: the chains of a task disagree (R-hat above 1.1, or none), or more than 1 in 20 of its
            trajectories diverge.

    Example:
        >>> import warnings
        >>> none, modes = torch.zeros(2, 100, 1), torch.tensor([0.0, 9.0])[:, None, None]
        >>> chains = Chains({"u": torch.randn(2, 100, 1) + modes}, none, none, none, none, torch.ones(1))
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always")
        ...     warn_unless_converged(chains, target_acceptance=0.8)
        >>> message = str(caught[0].message)
        >>> message.split(" (")[0], "target_acceptance=0.95" in message
        ('the chains of 1 of 1 tasks disagree', True)
    """
    if target_acceptance < CAREFUL:
        shorter = f"target_acceptance={CAREFUL} in place of {target_acceptance:g} (shorter steps enter a funnel's neck)"
    else:
        shorter = f"a target_acceptance above {target_acceptance:g}"
    other = (
        "phi in a form nearer to a Gaussian (non-centred: location + scale z, with z drawn in its place; logarithms of "
        "scales), or what is linear and Gaussian integrated out (a closed form, the evidence)"
    )
    worst = chains.worst_r_hat
    agree = worst <= LARGEST_R_HAT  # false for NaN
    if not bool(agree.all()):
        count, task = int((~agree).sum()), int(worst.nan_to_num(nan=math.inf).argmax())
        least = min(float(each[task].min()) for each in chains.effective_draws.values())
        warnings.warn(
            f"the chains of {count} of {len(worst)} tasks disagree (R-hat {worst[task]:.2f} in task {task}, whose "
            f"draws are worth {least:.0f} independent ones): try {shorter}; more draws and more warm-up (num_draws, "
            f"num_warmup); {other}",
            ConvergenceWarning,
            stacklevel=3,
        )
    share = chains.divergent.mean((0, 1))
    if bool((share > MOST_DIVERGENT).any()):
        task = int(share.argmax())
        warnings.warn(
            f"{share[task]:.0%} of the trajectories of task {task} diverge: parts of its density may be left out; "
            f"try {shorter}; {other}",
            ConvergenceWarning,
            stacklevel=3,
        )

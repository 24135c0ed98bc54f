"""The chaser loss of Bayesian MAML.

Yoon, Kim, Dia, Kim, Bengio, Ahn 2018 (arXiv:1806.03836), eq. 7.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmeta.annotations import checked
from bayesmeta.data import TaskBatch
from bayesmeta.errors import DataError, UnsupportedError
from bayesmeta.learner import Learner
from bayesmeta.learners.gradient.bmaml import BMAML
from bayesmeta.linalg import flattened
from bayesmeta.training.objectives import Objective


class Chaser(Objective):
    """The chaser loss: the particles after n steps on the support should be where `lead` steps more, on support and
    query, would take them (Yoon et al. 2018, eq. 7): Σ_s |chaser_s - leader_s|², with the leader held fixed.

    It teaches where to start and how to step; the noise and the precision get no reason to be right from it, so fix
    them or train with the predictive.

    Args:
        lead: steps of the leader beyond the chaser.

    Raises:
        DataError: no steps.
        UnsupportedError: when called, a learner without particles.

    Example:
        >>> import bayesmeta as bm
        >>> learner = bm.BMAML(bm.MLP(1, [8]), num_particles=3, steps=2)
        >>> task = bm.Data.from_arrays([0.0, 1.0], [1.0, 2.0])
        >>> bm.training.Chaser(lead=1)(learner, bm.TaskBatch(task, task)).shape
        torch.Size([1])
    """

    @checked
    def __init__(self, lead: int = 1) -> None:
        if lead < 1:
            raise DataError(f"expected at least one step of the leader, got {lead}")
        self.lead = lead

    def loss(self, learner: Learner, tasks: TaskBatch) -> Float[Tensor, "B"]:
        """Squared distance of each task; not nats."""
        if not isinstance(learner, BMAML):
            raise UnsupportedError(f"expected a BMAML learner for the chaser loss, got {type(learner).__name__}")
        chaser = learner.find_mode(tasks.support)
        with torch.no_grad():
            leader = learner.climb(tasks.joined(), chaser, self.lead)
        parts = [flattened((chaser[name] - leader[name]).square(), 2).sum((0, 2)) for name in chaser]
        return torch.stack(parts).sum(0)

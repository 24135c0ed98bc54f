"""What learners share whose phi is the last layer of a network: f(x; W) = Wᵀ φ(x)."""

from jaxtyping import Float
from torch import Tensor

from bayesmeta.data import TaskBatch
from bayesmeta.errors import UnsupportedError
from bayesmeta.learner import ExplicitLearner, marginal_loss
from bayesmeta.networks.network import Network
from bayesmeta.outcomes import Numbers
from bayesmeta.typing import Params


class LastLayerRegression(ExplicitLearner):
    """Regression whose phi is W, `F C`, on the features φ that all tasks share.

    Args:
        features: φ, a network with `num_outputs` = F features.
        num_outputs: C.

    Raises:
        UnsupportedError: the features are not a `Network`.
    """

    def __init__(self, features: Network, num_outputs: int) -> None:
        super().__init__()
        if not isinstance(features, Network):
            raise UnsupportedError(
                f"expected features that inherit bayesmeta.Network, which says x_shape and num_outputs, "
                f"got {type(features).__name__}: call yours in the forward of a Network"
            )
        self.features = features
        self.x_shape, self.outcomes = features.x_shape, Numbers(num_outputs)

    def forward(self, phi: Params, x: Float[Tensor, "B M *x"]) -> Float[Tensor, "*s_B_M_C"]:
        """φ(x) W."""
        weight = phi["weight"]
        return self.features(x).to(weight.dtype) @ weight

    def loss(self, tasks: TaskBatch) -> Float[Tensor, "B"]:
        """-mean over the query of the marginal log p(y | x, support, theta), in nats (Harrison et al. 2018, eq. 11)."""
        return marginal_loss(self, tasks)

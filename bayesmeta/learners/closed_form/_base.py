"""What learners share whose phi is the last layer of a network: f(x; W) = Wᵀ φ(x)."""

from jaxtyping import Float
from torch import Tensor

from bayesmeta.data import Data, TaskBatch
from bayesmeta.errors import UnsupportedError
from bayesmeta.learner import ExplicitLearner
from bayesmeta.networks.network import Network
from bayesmeta.training.objectives import MarginalPredictive
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
        self.x_shape, self.num_outputs = features.x_shape, num_outputs

    def forward(self, phi: Params, x: Float[Tensor, "B M *x"]) -> Float[Tensor, "*s_B_M_C"]:
        """φ(x) W."""
        weight = phi["weight"]
        return self.features(x).to(weight.dtype) @ weight

    def conform(self, data: Data) -> Data:
        """`data` in the learner's precision and on its device. Raises UnsupportedError for labels."""
        data = super().conform(data)
        if not data.y.is_floating_point():
            raise UnsupportedError(f"expected floating outcomes for {type(self).__name__}, got labels")
        return data

    def meta_loss(self, tasks: TaskBatch) -> Float[Tensor, "B"]:
        """-mean over the query of the marginal log p(y | x, support, theta), in nats (Harrison et al. 2018, eq. 11)."""
        return MarginalPredictive()(self, tasks)

"""Labels, and none of them."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmeta.predictives.independent import IndependentPredictive


@dataclass(frozen=True, eq=False)
class OpenSetPredictive(IndependentPredictive):
    """interim"""

    log_ratio: Float[Tensor, "B M"] = None

    def none_of_these(self, prior: float = 0.05) -> Float[Tensor, "B M"]:
        import math

        return torch.sigmoid(math.log(prior / (1 - prior)) - self.log_ratio)

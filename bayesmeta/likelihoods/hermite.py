"""Averages over a Gaussian f where no closed form is known: Gauss-Hermite quadrature with 32 nodes."""

import numpy as np
import torch
from torch import Tensor

_nodes, _weights = np.polynomial.hermite_e.hermegauss(32)
with torch.inference_mode(False):  # a user may ask for a first name of the library in that mode
    HERMITE_NODES = torch.from_numpy(_nodes)  # Σ w g(m + s z) = E g(N(m, s²)), exact for polynomials of degree 63
    HERMITE_WEIGHTS = torch.from_numpy(_weights / _weights.sum())


def positive_root(variance: Tensor) -> Tensor:
    """sqrt, with a finite gradient also where the variance is zero.

    Args:
        variance: of f.

    Example:
        >>> positive_root(torch.tensor([0.0, 4.0])).round(decimals=3)
        tensor([0., 2.])
    """
    return variance.clamp(min=1e-12).sqrt()

"""The linearised Laplace predictive with laplace-torch: all weights, full Gauss-Newton matrix, its default backend."""

import torch
from laplace import Laplace
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset


def predict(
    network: nn.Module, support_x: Tensor, support_y: Tensor, query_x: Tensor, precision: float, noise: float
) -> tuple[Tensor, Tensor]:
    posterior = Laplace(
        network,
        "regression",
        subset_of_weights="all",
        hessian_structure="full",
        sigma_noise=noise**0.5,
        prior_precision=precision,
    )
    default = torch.get_default_dtype()
    torch.set_default_dtype(support_x.dtype)  # its Gauss-Newton matrix has torch's default precision, not the network's
    try:
        posterior.fit(DataLoader(TensorDataset(support_x, support_y), batch_size=len(support_x)))
    finally:
        torch.set_default_dtype(default)
    mean, covariance = posterior(query_x, pred_type="glm")  # of f, without the noise
    return mean.detach(), covariance.diagonal(dim1=-2, dim2=-1).detach()

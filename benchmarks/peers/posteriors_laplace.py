"""The linearised Laplace predictive with posteriors: `laplace.dense_ggn` gives the precision of the weights.

Its linearised forward is for diagonal covariances only (`linearized_forward_diag`): the last two lines are ours.
"""

import warnings

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev

with warnings.catch_warnings():  # tensordict announces a change of what a class of posteriors does at its definition
    warnings.simplefilter("ignore", FutureWarning)
    import posteriors


def predict(
    network: nn.Module, support_x: Tensor, support_y: Tensor, query_x: Tensor, precision: float, noise: float
) -> tuple[Tensor, Tensor]:
    weights = {name: value.detach() for name, value in sorted(network.named_parameters())}  # as its trees are ordered
    size = sum(value.numel() for value in weights.values())

    def forward(phi: dict[str, Tensor], batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return functional_call(network, phi, (batch[0],)), torch.tensor([])

    def log_likelihood(f: Tensor, batch: tuple[Tensor, Tensor]) -> Tensor:
        return -0.5 * (batch[1] - f).square().sum() / noise

    prior = precision * torch.eye(size, dtype=support_x.dtype)
    transform = posteriors.laplace.dense_ggn.build(forward, log_likelihood, init_prec=prior)
    state, _ = transform.update(transform.init(weights), (support_x, support_y))
    jacobian = jacrev(lambda phi: functional_call(network, phi, (query_x,)))(weights)
    rows = torch.cat([value.flatten(2) for value in jacobian.values()], -1)  # M K P
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(state.prec), rows.flatten(0, 1).mT, upper=False)
    mean = functional_call(network, weights, (query_x,))
    return mean, white.square().sum(0).view_as(mean)

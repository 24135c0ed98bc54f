"""The per-task loop in plain torch, as short as it can be: layers written out, one backward a task."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.peers import Batch, loss, tasks


def meta_step(network: nn.Sequential, batch: Batch, inner_steps: int, lr: float, first_order: bool) -> float:
    network.zero_grad()
    total = 0.0
    for x, y, query_x, query_y in tasks(batch):
        weights = list(network.parameters())
        for _ in range(inner_steps):
            gradients = torch.autograd.grad(loss(run(network, weights, x), y), weights, create_graph=not first_order)
            weights = [weight - lr * gradient for weight, gradient in zip(weights, gradients, strict=True)]
        value = loss(run(network, weights, query_x), query_y) / len(batch[0])
        value.backward()
        total += value.item()
    return total


def run(network: nn.Sequential, weights: Sequence[Tensor], x: Tensor) -> Tensor:
    """The network with other weights, in the order of its parameters."""
    rest = iter(weights)
    for layer in network:
        if isinstance(layer, nn.Linear):
            x = functional.linear(x, next(rest), next(rest))
        elif isinstance(layer, nn.Conv2d):
            x = functional.conv2d(x, next(rest), next(rest), padding=layer.padding)
        elif isinstance(layer, nn.GroupNorm):
            x = functional.group_norm(x, layer.num_groups, next(rest), next(rest), layer.eps)
        else:
            x = layer(x)
    return x

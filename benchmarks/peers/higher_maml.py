"""MAML with higher: one `innerloop_ctx` a task, as in its examples/maml-omniglot.py."""

import higher
import torch
from torch import nn

from benchmarks.peers import Batch, loss, tasks


def meta_step(network: nn.Module, batch: Batch, inner_steps: int, lr: float, first_order: bool) -> float:
    network.zero_grad()
    optimizer = torch.optim.SGD(network.parameters(), lr=lr)
    total = 0.0
    for x, y, query_x, query_y in tasks(batch):
        with higher.innerloop_ctx(
            network, optimizer, copy_initial_weights=False, track_higher_grads=not first_order
        ) as (adapted, inner):
            for _ in range(inner_steps):
                inner.step(loss(adapted(x), y))
            value = loss(adapted(query_x), query_y) / len(batch[0])
            if first_order:  # weights are detached at every step: the gradient at the last ones is the meta-gradient
                gradients = torch.autograd.grad(value, list(adapted.parameters()))
                for parameter, gradient in zip(network.parameters(), gradients, strict=True):
                    parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
            else:
                value.backward()
        total += value.item()
    return total

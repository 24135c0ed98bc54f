"""MAML with learn2learn: `clone` and `adapt`, as in its examples/vision/maml_omniglot.py."""

from learn2learn.algorithms.maml import MAML
from torch import nn

from benchmarks.peers import Batch, loss, tasks


def meta_step(network: nn.Module, batch: Batch, inner_steps: int, lr: float, first_order: bool) -> float:
    network.zero_grad()
    maml = MAML(network, lr=lr, first_order=first_order)
    total = 0.0
    for x, y, query_x, query_y in tasks(batch):
        adapted = maml.clone()
        for _ in range(inner_steps):
            adapted.adapt(loss(adapted(x), y))
        value = loss(adapted(query_x), query_y) / len(batch[0])
        value.backward()
        total += value.item()
    return total

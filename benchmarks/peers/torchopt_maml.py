"""MAML with TorchOpt's differentiable optimisers."""

import torch
import torchopt
from torch import nn

from benchmarks.peers import Batch, loss, tasks


def meta_step(network: nn.Module, batch: Batch, inner_steps: int, lr: float, first_order: bool) -> float:
    return (functional_step if first_order else module_step)(network, batch, inner_steps, lr)


def module_step(network: nn.Module, batch: Batch, inner_steps: int, lr: float) -> float:
    """`MetaSGD` on the module, whose state is put back for every task: its examples/few-shot/maml_omniglot.py."""
    network.zero_grad()
    inner = torchopt.MetaSGD(network, lr=lr)
    start = torchopt.extract_state_dict(network, by="reference", detach_buffers=True)
    start_inner = torchopt.extract_state_dict(inner, by="reference")
    total = 0.0
    for x, y, query_x, query_y in tasks(batch):
        for _ in range(inner_steps):
            inner.step(loss(network(x), y))
        value = loss(network(query_x), query_y) / len(batch[0])
        torchopt.recover_state_dict(network, start)
        torchopt.recover_state_dict(inner, start_inner)
        value.backward()
        total += value.item()
    return total


def functional_step(network: nn.Module, batch: Batch, inner_steps: int, lr: float) -> float:
    """`torchopt.sgd` on functional weights, first order, which the optimisers of modules do not have."""
    network.zero_grad()
    start = dict(network.named_parameters())
    optimizer = torchopt.sgd(lr=lr)
    total = 0.0
    for x, y, query_x, query_y in tasks(batch):
        weights, state = start, optimizer.init(start)
        for _ in range(inner_steps):
            inner_loss = loss(torch.func.functional_call(network, weights, (x,)), y)
            gradients = dict(zip(weights, torch.autograd.grad(inner_loss, list(weights.values())), strict=True))
            updates, state = optimizer.update(gradients, state, params=weights, inplace=False)
            weights = torchopt.apply_updates(weights, updates, inplace=False)
        value = loss(torch.func.functional_call(network, weights, (query_x,)), query_y) / len(batch[0])
        value.backward()
        total += value.item()
    return total

"""MAML with JAX: a task's loss as a function, `vmap` over tasks, `value_and_grad` over theta, all of it `jit`.

It is no library of meta-learning, but the fastest that a few lines of JAX are: `prepared` gives the compiled step on
arrays that lie on the device already. Sinusoids and second order only.
"""

import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

# one thread, as for all others; read when jax is imported
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")

import jax
from jax import numpy as jnp

from benchmarks.peers import Batch

Step = Callable[[], tuple[float, Tensor]]


def prepared(network: nn.Sequential, batch: Batch, inner_steps: int, lr: float) -> Step:
    """A meta-step that gives the loss and the meta-gradient, flat; compiled at its first call, and in float32.

    Args:
        network: dense layers with ReLU between them.
        batch: of numbers.
        inner_steps: how many.
        lr: of the inner steps.
    """
    layers = [layer for layer in network if isinstance(layer, nn.Linear)]
    theta = [(_array(layer.weight), _array(layer.bias)) for layer in layers]
    data = tuple(_array(value) for value in batch)

    def loss(weights: Any, x: Any, y: Any) -> Any:
        for index, (weight, bias) in enumerate(weights):
            x = x @ weight.T + bias
            x = jax.nn.relu(x) if index < len(weights) - 1 else x
        return 0.5 * jnp.mean((x - y) ** 2)

    def of_task(weights: Any, x: Any, y: Any, query_x: Any, query_y: Any) -> Any:
        for _ in range(inner_steps):
            gradient = jax.grad(loss)(weights, x, y)
            weights = jax.tree_util.tree_map(lambda weight, part: weight - lr * part, weights, gradient)
        return loss(weights, query_x, query_y)

    def meta(weights: Any, *data: Any) -> Any:
        return jnp.mean(jax.vmap(of_task, in_axes=(None, 0, 0, 0, 0))(weights, *data))

    compiled = jax.jit(jax.value_and_grad(meta))

    def step() -> tuple[float, Tensor]:
        value, gradient = jax.block_until_ready(compiled(theta, *data))
        return float(value), gradient

    return step


def flat(gradient: Any) -> Tensor:
    """A meta-gradient in the order of the network's parameters.

    Args:
        gradient: as a step gives it.
    """
    return torch.cat([torch.tensor(jax.device_get(part)).flatten() for part in jax.tree_util.tree_leaves(gradient)])


def _array(value: Tensor) -> Any:
    return jnp.asarray(value.detach().float().numpy())

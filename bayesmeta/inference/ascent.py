"""Gradient steps on a log likelihood whose derivative in f is known: MAML's inner loop without the density.

    phi_j+1 = phi_j + a ∘ J(phi_j)ᵀ s(f(x; phi_j)),   s = w (y - m(f))

The score s is the cotangent that comes back through the network, so that the density is never computed, and a rate that
all of phi have in common is a factor of s: `B N K` numbers in place of all of phi. For dense layers `dense_ascent`
writes the derivatives out.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmeta.inference.dense_ascent import DenseAscent
from bayesmeta.likelihoods.score import Score
from bayesmeta.networks.dense_layers import DenseLayer
from bayesmeta.torch_private import added, is_transformed
from bayesmeta.typing import Params


def likelihood_ascent(
    f_of: Callable[[Params], Float[Tensor, "B N K"]],
    score: Score,
    start: Params,
    *,
    steps: int,
    rates: Params | None = None,
    first_order: bool = False,
) -> Params:
    """The end of `steps` steps from `start`, with their graph where gradients are enabled. Nothing is looked at.

    Args:
        f_of: phi -> f at the points of the score.
        score: ∂ log p(y | f) / ∂f, times the rate where all of phi have one.
        start: phi_0, each value `B *shape`.
        steps: how many.
        rates: step sizes beside the score's own, which broadcast to `B *shape`; None for 1.
        first_order: treat the gradients as constants of theta.

    Example:
        >>> score = Score(torch.full((1, 1, 1), 0.5), torch.ones(1, 1, 1))  # of N(f, 1) at y = 1, at the rate ½
        >>> theta = torch.zeros(1, 1, requires_grad=True)
        >>> phi = likelihood_ascent(lambda phi: phi["w"][:, None], score, {"w": theta}, steps=2)
        >>> phi["w"].item(), torch.autograd.grad(phi["w"].sum(), theta)[0].item()  # 1 - ½² (1 - theta)
        (0.75, 0.25)
    """
    names, phi = list(start), list(start.values())
    keep = torch.is_grad_enabled()
    graph = keep and not first_order
    for _ in range(steps):
        with torch.enable_grad():
            # under no_grad an expanded parameter has no graph, so the step needs leaves of its own
            here = [v if keep and v.requires_grad else v.detach().requires_grad_() for v in phi]
            f = f_of(dict(zip(names, here, strict=True)))
            cotangent = score(f if graph else f.detach())
            gradients: Sequence[Tensor] = torch.autograd.grad(
                f, here, cotangent if graph else cotangent.detach(), create_graph=graph, materialize_grads=True
            )
        if rates is None:
            phi = added(phi, gradients)
        else:
            phi = [torch.addcmul(v, rates[n], g) for n, v, g in zip(names, phi, gradients, strict=True)]
    return dict(zip(names, phi, strict=True))


def dense_likelihood_ascent(
    layers: Sequence[DenseLayer],
    f_of: Callable[[Params], Float[Tensor, "B N K"]],
    x: Float[Tensor, "B N D"],
    score: Score,
    start: Params,
    shared: Params,
    *,
    steps: int,
) -> Params:
    """The same as `likelihood_ascent` at one rate, for dense layers, whose derivatives are written out.

    What is made of phi may be differentiated any number of times, and mapped over: then `likelihood_ascent` is taken.

    Args:
        layers: the network.
        f_of: its parameters, all of them stacked -> f at the inputs.
        x: inputs.
        score: ∂ log p(y | f) / ∂f times the rate.
        start: phi_0, each value `B *shape`: weights and biases of layers.
        shared: the network's parameters that are not in phi, each of its own shape.
        steps: how many.

    Example:
        >>> import bayesmeta as bm
        >>> network, x = bm.MLP(1, [8]).with_outputs(1), torch.ones(2, 3, 1)
        >>> score = Score(torch.full((2, 3, 1), 0.1), torch.ones(2, 3, 1))
        >>> start = {name: value.expand(2, *value.shape) for name, value in network.named_parameters()}
        >>> f_of = lambda phi: network.stacked(phi, x)
        >>> phi = dense_likelihood_ascent(network.layers_of(), f_of, x, score, start, {}, steps=3)
        >>> torch.allclose(phi["output.bias"], likelihood_ascent(f_of, score, start, steps=3)["output.bias"])
        True
    """
    everywhere = {name: value.expand(len(x), *value.shape) for name, value in shared.items()}
    if x.requires_grad or is_transformed():
        return likelihood_ascent(lambda phi: f_of(everywhere | phi), score, start, steps=steps)
    names, moving = [*start, *everywhere], len(start)

    def again(weight: Tensor, y: Tensor, *parameters: Tensor) -> list[Tensor]:
        values = dict(zip(names, parameters, strict=True))
        first = {name: values[name] for name in start}
        own = Score(weight, y, score.mean)
        return list(likelihood_ascent(lambda phi: f_of(values | phi), own, first, steps=steps).values())

    place = {name: index for index, name in enumerate(names)}
    plan = DenseAscent(
        [(place[weight], place[bias], activation) for weight, bias, activation in layers],
        moving,
        steps,
        score.mean,
        again,
    )
    ends = plan(score.weight, score.y, x, [*start.values(), *everywhere.values()])
    return dict(zip(start, ends, strict=True))

"""Networks with the weights of many tasks: overrides against the generic way, that against a loop and differences."""

from collections.abc import Callable

import pytest
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

import bayesmeta as bm
from bayesmeta.networks.mlp import ACTIVATIONS
from bayesmeta.typing import Params

CLOSE = {"rtol": 1e-9, "atol": 1e-10}  # float64: rounding only
SUBSETS = {  # the name of a layer, and of its weight or bias
    "all": [(0, "weight"), (0, "bias"), (2, "weight"), (2, "bias"), (4, "weight"), (4, "bias")],
    "a layer": [(2, "weight"), (2, "bias")],
    "halves": [(4, "bias"), (0, "weight")],  # another order, halves of layers
    "a bias": [(2, "bias")],
}


class Normed(bm.WholeNetwork):
    """A user's own: layer normalisation with weights."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(3, 6), nn.LayerNorm(6), nn.Linear(6, 2)
        self.x_shape, self.num_outputs = (3,), 2

    def forward(self, x: Float[Tensor, "B N 3"]) -> Float[Tensor, "B N 2"]:
        """Dense, norm, tanh, dense."""
        out: Tensor = self.last(self.norm(self.first(x)).tanh())
        return out


class Attention(bm.WholeNetwork):
    """A user's own: attention over the parts of a point, `need_weights` chooses between torch's two ways."""

    def __init__(self, need_weights: bool) -> None:
        super().__init__()
        self.need_weights = need_weights
        self.embed, self.attend, self.last = (
            nn.Linear(2, 4),
            nn.MultiheadAttention(4, 2, batch_first=True),
            nn.Linear(4, 2),
        )
        self.x_shape, self.num_outputs = (3, 2), 2

    def forward(self, x: Float[Tensor, "B N 3 2"]) -> Float[Tensor, "B N 2"]:
        """The mean of the three parts after they have looked at each other."""
        tokens = self.embed(x.flatten(0, 1))
        mixed, _ = self.attend(tokens, tokens, tokens, need_weights=self.need_weights)
        out: Tensor = self.last(mixed.mean(1)).unflatten(0, x.shape[:2])
        return out


class Centred(bm.WholeNetwork):
    """A user's own that looks at the other points of its task."""

    pointwise = False

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(3, 2)
        self.x_shape, self.num_outputs = (3,), 2

    def forward(self, x: Float[Tensor, "B N 3"]) -> Float[Tensor, "B N 2"]:
        """The squared distance of a dense layer to its mean."""
        z = self.dense(x)
        return (z - z.mean(1, keepdim=True)).square()


def _users() -> list[bm.Network]:
    torch.manual_seed(0)
    networks = [Normed(), Attention(False), Attention(True), Centred()]
    for network in networks:
        network.double()
        with torch.no_grad():
            for parameter in network.parameters():  # away from the 1 and 0 at which normalisation and biases start
                parameter.add_(0.3 * torch.randn_like(parameter))
    return networks


USERS = pytest.mark.parametrize("network", _users(), ids=["layer norm", "attention", "attention weights", "centred"])


def _phi(network: nn.Module, tasks: int, names: list[str] | None = None) -> Params:
    own = dict(network.named_parameters())
    names = list(own) if names is None else names
    return {n: (own[n] + 0.3 * torch.randn(tasks, *own[n].shape).double()).detach().requires_grad_() for n in names}


def _points(network: bm.Network, *shape: int) -> Tensor:
    return torch.randn(*shape, *network.x_shape, dtype=torch.float64, requires_grad=True)


def _derivatives(
    function: Callable[[Params, Tensor], Tensor], phi: Params, x: Tensor, theta: list[Tensor]
) -> list[Tensor]:
    """Values, first derivatives, and products with the second derivatives, in phi, x and the network's own weights."""
    generator = torch.Generator().manual_seed(3)
    leaves = [*phi.values(), x, *theta]
    out = function(phi, x)
    first = torch.autograd.grad(out.square().sum(), leaves, create_graph=True, materialize_grads=True)
    along = [torch.randn(g.shape, generator=generator, dtype=g.dtype) for g in first]
    product = torch.stack([(g * v).sum() for g, v in zip(first, along, strict=True)]).sum()
    return [out, *first, *torch.autograd.grad(product, leaves, materialize_grads=True)]


def _assert_same(found: list[Tensor], expected: list[Tensor]) -> None:
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, **CLOSE)


def _loop(network: bm.Network, phi: Params, x: Tensor) -> Tensor:
    values = [{name: value[t] for name, value in phi.items()} for t in range(len(x))]
    with sdpa_kernel(SDPBackend.MATH):  # the attention that has second derivatives
        return torch.cat([functional_call(network, v, (x[t : t + 1],)) for t, v in enumerate(values)])


@pytest.mark.parametrize("subset", SUBSETS)
@pytest.mark.parametrize("num_outputs", [2, None])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_mlp_is_the_generic_network(activation: str, num_outputs: int | None, subset: str) -> None:
    network: bm.Network = bm.MLP(3, [5, 4, 4], activation).double()
    names = [f"layers.{layer}.{part}" for layer, part in SUBSETS[subset]]
    if num_outputs is not None:
        network = network.with_outputs(num_outputs)
        names = [f"features.{name}" for name in names] + ["output.weight", "output.bias"] * (subset != "a bias")
        names = ["output.bias", *names[:2]] if subset == "halves" else names
    phi, x = _phi(network, 3, names), _points(network, 3, 4)
    own = list(network.parameters())
    pairs: list[tuple[Callable[[Params, Tensor], Tensor], Callable[[Params, Tensor], Tensor]]] = [
        (network.stacked, lambda p, x: bm.Network.stacked(network, p, x)),
        (lambda p, x: network.jacobian(p, x).dense(), lambda p, x: bm.Network.jacobian(network, p, x).dense()),
    ]
    for ours, generic in pairs:
        _assert_same(_derivatives(ours, phi, x, own), _derivatives(generic, phi, x, own))


@USERS
@pytest.mark.parametrize("subset", [False, True])
def test_stacked_is_a_loop_over_tasks(network: bm.Network, subset: bool) -> None:
    names = [name for name, _ in network.named_parameters()]
    phi, x = _phi(network, 3, names[1:3] if subset else names), _points(network, 3, 4)
    own = list(network.parameters())
    expected = _derivatives(lambda p, x: _loop(network, p, x), phi, x, own)
    _assert_same(_derivatives(network.stacked, phi, x, own), expected)


@USERS
def test_meta_gradient_against_finite_differences(network: bm.Network) -> None:
    """One inner step: the second derivatives that torch gets wrong where a map holds the gradient."""
    x, new = _points(network, 2, 4).detach(), _points(network, 2, 5).detach()
    y, new_y = torch.randn(2, 4, 2).double(), torch.randn(2, 5, 2).double()
    names = [name for name, _ in network.named_parameters()]

    def meta_loss(theta: list[Tensor]) -> Tensor:
        phi = {name: value.expand(2, *value.shape) for name, value in zip(names, theta, strict=True)}
        loss = (network.stacked(phi, x) - y).square().mean((1, 2)).sum()
        gradients = torch.autograd.grad(loss, list(phi.values()), create_graph=True)
        phi = {name: value - 0.1 * g for (name, value), g in zip(phi.items(), gradients, strict=True)}
        return (network.stacked(phi, new) - new_y).square().mean()

    theta = [value.detach().requires_grad_() for value in network.parameters()]
    gradient = torch.autograd.grad(meta_loss(theta), theta)
    for _ in range(3):
        along = [torch.randn_like(value) for value in theta]
        step = 1e-5
        ends = [meta_loss([(t + s * step * v) for t, v in zip(theta, along, strict=True)]).item() for s in (1, -1)]
        slope = sum((g * v).sum().item() for g, v in zip(gradient, along, strict=True))
        # central differences: step² times third derivatives, and rounding of 1e-16 / step
        assert slope == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-6)


@USERS
def test_jacobian_against_torch(network: bm.Network) -> None:
    phi, x = _phi(network, 2), _points(network, 2, 3)
    names = list(phi)
    found = network.jacobian(phi, x).dense()
    for t in range(2):
        blocks = torch.autograd.functional.jacobian(
            lambda *values: functional_call(network, dict(zip(names, values, strict=True)), (x[t : t + 1],))[0],  # noqa: B023
            tuple(value[t].detach() for value in phi.values()),
        )
        torch.testing.assert_close(found[t], torch.cat([b.flatten(2) for b in blocks], -1), **CLOSE)


@USERS
def test_derivatives_of_the_jacobian(network: bm.Network) -> None:
    names = [name for name, _ in network.named_parameters()][:2]
    phi, x = _phi(network, 2, names), _points(network, 2, 3)
    own = list(network.parameters())
    along = torch.randn(2, 3, 2, sum(v[0].numel() for v in phi.values())).double()

    def by_columns(phi: Params, x: Tensor) -> Tensor:
        out = _loop(network, phi, x)
        rows = [torch.autograd.grad(e, list(phi.values()), create_graph=True) for e in out.flatten()]
        index = torch.arange(2).repeat_interleave(6)
        flat = [torch.cat([g[t].flatten() for g in row]) for row, t in zip(rows, index, strict=True)]
        return torch.stack(flat).view(along.shape)

    found, expected = (
        torch.autograd.grad((function(phi, x) * along).sum(), [*phi.values(), x, *own], materialize_grads=True)
        for function in (lambda p, x: network.jacobian(p, x).dense(), by_columns)
    )
    _assert_same(list(found), list(expected))


@pytest.mark.parametrize("network", [bm.MLP(3, [4]).with_outputs(2).double(), *_users()])
def test_no_graph_where_nothing_needs_one(network: bm.Network) -> None:
    network.requires_grad_(True)
    phi, x = _phi(network, 2), _points(network, 2, 3)
    with torch.no_grad():
        assert not network.stacked(phi, x).requires_grad
        assert not network.jacobian(phi, x).dense().requires_grad
    assert network.jacobian(phi, x).dense().requires_grad
    network.requires_grad_(False)
    try:
        constant = {name: value.detach() for name, value in phi.items()}
        assert not network.stacked(constant, x.detach()).requires_grad
        assert not network.jacobian(constant, x.detach()).dense().requires_grad
    finally:
        network.requires_grad_(True)


@pytest.mark.parametrize(
    "network",
    [bm.MLP(3, [4]).with_outputs(2).double(), *_users()],
)
def test_use_after_training(network: bm.Network) -> None:
    """eval() and no_grad, in which torch's attention has yet another way."""
    phi, x = _phi(network, 2), _points(network, 2, 3)
    expected = network.stacked(phi, x).detach()
    network.eval()
    try:
        with torch.no_grad():
            torch.testing.assert_close(network.stacked(phi, x), expected, **CLOSE)
            shared = {n: v.expand(2, *v.shape) for n, v in network.named_parameters()}
            torch.testing.assert_close(network.stacked(shared, x), network(x), **CLOSE)
    finally:
        network.train()

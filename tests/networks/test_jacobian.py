"""Inner products of Jacobians: layer by layer, they are those of the Jacobians written out."""

import pytest
import torch
from torch import Tensor

import bayesmeta as bm
from bayesmeta.networks.jacobian import (
    DenseJacobian,
    Diagonal,
    FactoredJacobian,
    Jacobian,
    OuterProduct,
    flat_diagonal,
    jacobian,
)
from bayesmeta.typing import Params

CLOSE = {"rtol": 1e-10, "atol": 1e-11}  # float64: another order of summation
TASKS = 3


def _diagonals(phi: Params) -> dict[str, Diagonal]:
    """D as learners give it: one number, one a task, one a weight, one for every number, one for each of a task."""
    positive = lambda *shape: torch.rand(shape, dtype=torch.float64) + 0.1
    return {
        "one number": {name: positive() for name in phi},
        "one a task": {name: positive(TASKS, *[1] * (value.ndim - 1)) for name, value in phi.items()},
        "shared by tasks": {name: positive(*value.shape[1:]) for name, value in phi.items()},
        "every number": {name: positive(*value.shape) for name, value in phi.items()},
        "outer products": {
            name: OuterProduct(positive(value.shape[1]), positive(*value.shape[2:]))
            if value.ndim == 3
            else positive(*value.shape[1:])
            for name, value in phi.items()
        },
        "a mixture": {
            name: positive() if i % 2 else positive(*value.shape) for i, (name, value) in enumerate(phi.items())
        },
    }


@pytest.fixture(params=[1, 2], ids=["one output", "two outputs"])
def pair(request: pytest.FixtureRequest) -> tuple[Params, Jacobian, Jacobian]:
    """phi, and Jacobians at 4 and at 5 points."""
    network = bm.MLP(2, [4, 3]).with_outputs(request.param).double()
    phi = {name: torch.randn(TASKS, *value.shape, dtype=torch.float64) for name, value in network.named_parameters()}
    first, second = (torch.randn(TASKS, n, 2, dtype=torch.float64) for n in (4, 5))
    return phi, network.jacobian(phi, first), network.jacobian(phi, second)


def _dense(left: Tensor, diagonal: Diagonal, phi: Params, right: Tensor) -> Tensor:
    spread = flat_diagonal(diagonal, {name: value.shape[1:] for name, value in phi.items()})
    return torch.einsum("bnkp,bp,bmlp->bnkml", left, spread.expand(TASKS, -1), right).flatten(3).flatten(1, 2)


@pytest.mark.parametrize(("norm", "skip"), [(None, True), ("layer", False), ("layer", True)])
def test_the_way_back_through_normalisation_and_skips(norm: str | None, skip: bool) -> None:
    network = bm.MLP(2, [4, 4, 4], "silu", norm, skip).with_outputs(2).double()
    phi = {name: torch.randn(TASKS, *value.shape, dtype=torch.float64) for name, value in network.named_parameters()}
    x = torch.randn(TASKS, 5, 2, dtype=torch.float64)
    expected = jacobian(network.stacked, phi, x, theta=network.parameters(), pointwise=True).dense()
    torch.testing.assert_close(network.jacobian(phi, x).dense(), expected, **CLOSE)
    alone = torch.cat(
        [torch.func.functional_call(network, {n: v[t] for n, v in phi.items()}, x[t : t + 1]) for t in range(TASKS)]
    )
    torch.testing.assert_close(network.stacked(phi, x), alone, **CLOSE)


KINDS = ["one number", "one a task", "shared by tasks", "every number", "outer products", "a mixture"]


@pytest.mark.parametrize("kind", KINDS)
def test_products_are_the_dense_ones(pair: tuple[Params, Jacobian, Jacobian], kind: str) -> None:
    phi, first, second = pair
    diagonal = _diagonals(phi)[kind]
    assert isinstance(first, FactoredJacobian)
    written = DenseJacobian(second.dense(), {name: value.shape[1:] for name, value in phi.items()})
    expected = _dense(first.dense(), diagonal, phi, second.dense())
    for left, right in ((first, second), (first, written)):
        torch.testing.assert_close(left.gram(right, diagonal), expected, **CLOSE)
    torch.testing.assert_close(written.gram(first, diagonal), expected.mT, **CLOSE)
    own = _dense(second.dense(), diagonal, phi, second.dense()).unflatten(2, (5, -1)).unflatten(1, (5, -1))
    blocks = torch.stack([own[:, i, :, i] for i in range(5)], 1)
    torch.testing.assert_close(second.blocks(diagonal), blocks, **CLOSE)
    torch.testing.assert_close(written.blocks(diagonal), blocks, **CLOSE)


def test_products_with_vectors(pair: tuple[Params, Jacobian, Jacobian]) -> None:
    phi, first, _ = pair
    rows = first.dense().flatten(1, 2)
    vector, values = torch.randn(TASKS, rows.shape[2], dtype=rows.dtype), torch.randn(*rows.shape[:2], dtype=rows.dtype)
    written = DenseJacobian(first.dense(), {name: value.shape[1:] for name, value in phi.items()})
    for each in (first, written):
        assert each.num_rows == rows.shape[1]
        torch.testing.assert_close(each.times(vector), torch.einsum("brp,bp->br", rows, vector), **CLOSE)
        torch.testing.assert_close(each.transposed_times(values), torch.einsum("brp,br->bp", rows, values), **CLOSE)


def test_weighting(pair: tuple[Params, Jacobian, Jacobian]) -> None:
    phi, first, _ = pair
    size = first.dense().shape[2]
    root = torch.randn(TASKS, 4, size, size, dtype=torch.float64)
    mask = torch.tensor([[True, False, True, True]]).expand(TASKS, -1)
    expected = root.mT @ first.dense() * mask[..., None, None]
    written = DenseJacobian(first.dense(), {name: value.shape[1:] for name, value in phi.items()})
    for each in (first, written):
        torch.testing.assert_close(each.weighted(root, mask).dense(), expected, **CLOSE)


def test_products_are_in_float64() -> None:
    network = bm.MLP(1, [4]).with_outputs(1)
    phi = {name: value.detach().expand(2, *value.shape) for name, value in network.named_parameters()}
    found = network.jacobian(phi, torch.randn(2, 3, 1))
    ones = {name: torch.ones(()) for name in phi}
    assert found.gram(found, ones).dtype == found.blocks(ones).dtype == torch.float64
    flat = torch.ones(2, found.dense().shape[-1])
    assert found.times(flat).dtype == found.transposed_times(torch.ones(2, 3)).dtype == torch.float64

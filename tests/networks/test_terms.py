"""Features in other units are sums of the same functions of the user's inputs: h(z) = t(u) M."""

import pytest
import torch

import bayesmeta as bm
from bayesmeta.networks.level_features import LevelFeatures
from bayesmeta.networks.terms import Quantities, Terms

ONE = Quantities(("year",), (2000.0,), (10.0,))
TWO = Quantities(("a", "b"), (3.0, -2.0), (2.0, 0.5))
CLOSED = [
    (bm.Identity(2), TWO, ("intercept", "a", "b")),
    (bm.Polynomial(2, 2), TWO, ("intercept", "b", "a", "b^2", "a b", "a^2")),
    (bm.Polynomial(1, 0), ONE, ("intercept",)),
    (bm.networks.TaskCovariates(bm.Identity(1), 1), TWO, ("intercept", "a", "b", "a:b")),
    (bm.networks.TaskCovariates(bm.Identity(0), 2), TWO, ("intercept", "a", "b")),
    (bm.networks.TaskCovariates(bm.Identity(1), 1, shifted=[0]), TWO, ("intercept", "a", "b")),
    (bm.networks.Inputs(2), Quantities(("a", "b"), (0.0, 0.0), (2.0, 0.5)), ("a", "b")),
]


@pytest.mark.parametrize(("network", "inputs", "names"), CLOSED, ids=lambda value: str(value)[:40])
def test_features_are_sums_of_those_of_the_users_inputs(
    network: bm.Network, inputs: Quantities, names: tuple[str, ...]
) -> None:
    z = torch.randn(1, 20, len(inputs), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    u = torch.tensor(inputs.shift) + torch.tensor(inputs.scale) * z
    terms = network.terms(inputs)
    assert terms is not None
    assert terms.names == names
    torch.testing.assert_close(network(u.double()) @ terms.matrix, network(z))


def test_splines_and_bumps_stand_where_they_stand() -> None:
    spline = bm.Spline([0.0, 1.0], degree=2)
    terms = spline.terms(ONE)
    assert terms is not None
    assert terms.names == ("intercept", "year", "year^2", "(year above 2000)^2", "(year above 2010)^2")
    z = torch.linspace(-2.0, 2.0, 9, dtype=torch.float64)[None, :, None]
    of_years = bm.Spline([2000.0, 2010.0], degree=2)(2000.0 + 10.0 * z)
    torch.testing.assert_close(of_years @ terms.matrix, spline(z), atol=1e-6, rtol=1e-6)  # squares of 2000
    bumps = bm.AdditiveRadialBasis(2, 2, bounds=(-1.0, 1.0)).terms(TWO)
    assert bumps is not None
    assert bumps.names == ("intercept", "bump at a 1", "bump at a 5", "bump at b -2.5", "bump at b -1.5")
    grid = bm.RadialBasis(2, 2, bounds=(-1.0, 1.0)).terms(TWO)
    assert grid is not None
    assert grid.names[1] == "bump at a 1, b -2.5"
    assert torch.equal(grid.matrix, torch.eye(5, dtype=torch.float64))


def test_levels_have_their_names() -> None:
    network = LevelFeatures(bm.Identity(1), [2], [[0, 1]])
    inputs = Quantities(("day", "school"), (5.0, 0.0), (2.0, 1.0), {"school": ("A", "B")})
    terms = network.terms(inputs)
    assert terms is not None
    assert terms.names[2:4] == ("intercept school=A", "day school=A")
    assert terms.names[-1] == "day school=new"
    z = torch.tensor([[[0.5, 0.0], [-1.0, 1.0], [2.0, 7.0]]], dtype=torch.float64)
    u = z * torch.tensor([2.0, 1.0]) + torch.tensor([5.0, 0.0])
    torch.testing.assert_close(network(u) @ terms.matrix, network(z))
    assert LevelFeatures(bm.Identity(1), [2], [[1]]).terms(inputs) is None  # slopes that turn around another origin
    assert LevelFeatures(bm.Identity(1), [2], [[0]]).terms(inputs) is not None


def test_learned_features_have_no_names() -> None:
    assert bm.MLP(1, [4]).terms(ONE) is None
    assert bm.networks.TaskCovariates(bm.Identity(1), bm.MLP(1, [2])).terms(TWO) is None
    assert bm.networks.TaskCovariates(bm.Identity(1), 1, shifted=[1]).terms(TWO) is None
    assert bm.networks.Inputs(1).terms(ONE) is None  # a shift asks for a constant
    assert bm.Identity(2).terms(ONE) is None
    both = bm.networks.Concatenated([bm.Identity(1), bm.networks.Inputs(1)])
    assert both.terms(ONE) is None
    found = both.terms(Quantities.named(["day"]))
    assert found is not None
    assert found.names == ("intercept", "day", "day")
    assert Terms.same(["a"]).constant is None

"""Bumps along each input, and on a grid over all of them."""

import pytest
import torch

import bayesmeta as bm
from bayesmeta.recipes import RECIPES


def test_additive_bumps_are_those_of_each_input() -> None:
    x = torch.randn(2, 5, 3, dtype=torch.float64)
    additive = bm.AdditiveRadialBasis(3, 4, bounds=(-1.0, 2.0), width=0.7)
    expected = [torch.ones(2, 5, 1, dtype=torch.float64)]
    alone = bm.RadialBasis(1, 4, bounds=(-1.0, 2.0), width=0.7)
    expected += [alone(x[..., d : d + 1])[..., 1:] for d in range(3)]
    torch.testing.assert_close(additive(x), torch.cat(expected, -1))
    assert additive.num_outputs == 13
    one = torch.randn(1, 6, 1)
    torch.testing.assert_close(bm.AdditiveRadialBasis(1, 5)(one), bm.RadialBasis(1, 5)(one))


def test_a_grid_has_a_limit() -> None:
    assert bm.RadialBasis(2, 45).num_outputs == 2_026
    for inputs, centers in ((4, 8), (2, 46), (1, 2_049), (60, 8)):
        with pytest.raises(bm.DataError, match=r"at most 2,048 bumps on a grid.*AdditiveRadialBasis"):
            bm.RadialBasis(inputs, centers)
    for make in (bm.RadialBasis, bm.AdditiveRadialBasis):
        for arguments in ((0, 3), (1, 1), (1, 3, (1.0, 1.0)), (1, 3, (-1.0, 1.0), 0.0)):
            with pytest.raises(bm.DataError, match="expected"):
                make(*arguments)


def test_the_recipe_grows_with_the_sum_of_inputs() -> None:
    learner = RECIPES["alpaca-rbf"].build(6, 1)
    assert sum(p.numel() for p in learner.parameters()) < 200

"""Kernels: their matrices in float64 by hand, where they start, what they refuse."""

import math
from collections.abc import Callable

import pytest
import torch

from bayesmeta.description import construct
from bayesmeta.errors import DataError
from bayesmeta.kernels import (
    CosineSimilarityKernel,
    Gram,
    LinearKernel,
    MaternKernel,
    RBFKernel,
    SpectralMixtureKernel,
)

D = torch.float64
CLOSE = {"rtol": 1e-8, "atol": 1e-8}


@pytest.mark.parametrize("together", [lambda a, b: a + b, lambda a, b: a * b])
def test_sums_and_products_of_kernels_are_exact(together: Callable) -> None:
    """gpytorch's own way, by roots of equal points, adds jitter of 1e-6 to 1e-8 to matrices that are singular."""
    parts = [RBFKernel().make(2), LinearKernel().make(2)]
    rows = torch.tensor([[[1.0, 0.5], [1.0, 1.0], [1.0, 1.0], [1.0, -2.0], [1.0, 0.5]]], dtype=D)  # repeated: singular
    matrices = []
    for kernel in (*parts, together(*parts)):
        gram = Gram(kernel)
        matrices.append(gram(rows, rows).detach())
        torch.testing.assert_close(gram(rows, rows[:, :4]), matrices[-1][..., :4], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(gram.diagonal(rows), matrices[-1].diagonal(dim1=-2, dim2=-1), **CLOSE)
    torch.testing.assert_close(matrices[2], together(*matrices[:2]), rtol=1e-12, atol=1e-12)


def test_components_of_a_spectral_mixture_begin_apart() -> None:
    """gpytorch's begin equal, and equal gradients would keep them so."""
    torch.manual_seed(0)
    base = SpectralMixtureKernel(4, frequency=0.1, bandwidth=0.02, variance=3.0).make(40)
    means = base.base_kernel.mixture_means
    assert means.shape == (4, 1, 40)
    assert len(means.flatten().unique()) == 160
    assert 0.07 < means.square().mean().sqrt() < 0.13  # 160 draws
    points = torch.zeros(1, 2, 40)
    torch.testing.assert_close(base(points).to_dense(), torch.full((1, 2, 2), 3.0), rtol=1e-4, atol=0.0)  # Π of 40 sums


def test_values_out_of_range() -> None:
    for make in (
        lambda: RBFKernel(0.0),
        lambda: MaternKernel(variance=-1.0),
        lambda: LinearKernel(math.nan),
        lambda: CosineSimilarityKernel(math.inf),
        lambda: SpectralMixtureKernel(frequency=0.0),
    ):
        with pytest.raises(DataError, match="expected a positive"):
            make()
    with pytest.raises(DataError, match="expected nu of"):
        MaternKernel(1.0)
    with pytest.raises(DataError, match="at least one mixture component"):
        SpectralMixtureKernel(0)
    with pytest.raises(DataError, match=r"arguments that MaternKernel accepts"):
        construct({"class": "MaternKernel", "arguments": {"smoothness": 1.5}})

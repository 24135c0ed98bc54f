"""Kernels: their matrices in float64 by hand, where they start, what they refuse."""

import math
from collections.abc import Callable

import gpytorch
import pytest
import torch
from torch import Tensor

import bayesmeta as bm
from bayesmeta.description import construct, describe
from bayesmeta.errors import DataError, ShapeError
from bayesmeta.kernels import (
    ConstantKernel,
    CosineKernel,
    CosineSimilarityKernel,
    Kernel,
    LinearKernel,
    MaternKernel,
    PeriodicKernel,
    ProductKernel,
    RBFKernel,
    ScaledKernel,
    SpectralMixtureKernel,
    SubsetKernel,
    SumKernel,
)
from bayesmeta.kernels.kernel import Gram
from bayesmeta.swapped import swapped

D = torch.float64
CLOSE = {"rtol": 1e-8, "atol": 1e-8}
SINGLE = {"rtol": 1e-6, "atol": 1e-6}  # of parameters that are made in float32


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
        lambda: PeriodicKernel(0.0),
        lambda: CosineKernel(variance=0.0),
        lambda: ConstantKernel(-1.0),
        lambda: ScaledKernel(RBFKernel(), 0.0),
    ):
        with pytest.raises(DataError, match="expected a positive"):
            make()
    with pytest.raises(DataError, match="expected nu of"):
        MaternKernel(1.0)
    with pytest.raises(DataError, match="at least one mixture component"):
        SpectralMixtureKernel(0)
    with pytest.raises(DataError, match=r"arguments that MaternKernel accepts"):
        construct({"class": "MaternKernel", "arguments": {"smoothness": 1.5}})


def _points(num_features: int, num_points: int = 6) -> Tensor:
    return torch.randn(2, num_points, num_features, dtype=D, generator=torch.Generator().manual_seed(0))


def _stock(kernel: gpytorch.kernels.Kernel, **values: float) -> gpytorch.kernels.Kernel:
    """A kernel of gpytorch's own, times 2."""
    kernel = kernel.double()
    for name, value in values.items():
        setattr(kernel, name, value)
    scaled = gpytorch.kernels.ScaleKernel(kernel).double()
    scaled.outputscale = 2.0
    return scaled


@pytest.mark.parametrize("num_features", [2, 12])  # by differences, and by squares
@pytest.mark.parametrize(
    ("kernel", "stock"),
    [
        (RBFKernel(0.7, 2.0), lambda: _stock(gpytorch.kernels.RBFKernel(), lengthscale=0.7)),
        (MaternKernel(0.5, 0.7, 2.0), lambda: _stock(gpytorch.kernels.MaternKernel(0.5), lengthscale=0.7)),
        (MaternKernel(1.5, 0.7, 2.0), lambda: _stock(gpytorch.kernels.MaternKernel(1.5), lengthscale=0.7)),
        (MaternKernel(2.5, 0.7, 2.0), lambda: _stock(gpytorch.kernels.MaternKernel(2.5), lengthscale=0.7)),
        (
            PeriodicKernel(3.0, 0.7, 2.0),
            lambda: _stock(gpytorch.kernels.PeriodicKernel(), lengthscale=0.49, period_length=3.0),
        ),
        (LinearKernel(2.0), lambda: _stock(gpytorch.kernels.LinearKernel(), variance=1.0)),
    ],
    ids=["rbf", "matern ½", "matern 1½", "matern 2½", "periodic", "linear"],
)
def test_matrices_are_gpytorchs_own(kernel: Kernel, stock: Callable, num_features: int) -> None:
    rows = _points(num_features)
    expected = stock()(rows, rows[:, :4]).to_dense()
    torch.testing.assert_close(Gram(kernel.make(num_features))(rows, rows[:, :4]), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    "kernel",
    [
        *(RBFKernel(per_feature=True), MaternKernel(0.5), PeriodicKernel(2.0), PeriodicKernel(2.0, per_feature=True)),
        *(CosineKernel(4.0), CosineKernel(4.0, per_feature=True), LinearKernel(), CosineSimilarityKernel()),
        *(ConstantKernel(3.0), SpectralMixtureKernel(2), SubsetKernel(RBFKernel(), [-1])),
        SumKernel([ConstantKernel(), LinearKernel(), ProductKernel([RBFKernel(), CosineKernel(4.0)])]),
        ScaledKernel(SumKernel([MaternKernel(1.5), LinearKernel()]), 2.0),
    ],
    ids=lambda kernel: type(kernel).__name__,
)
def test_a_kernel_is_one_and_can_be_mapped_over_theta(kernel: Kernel) -> None:
    """Positive semi-definite, its diagonal that of the matrix, stored as text, and the same under a map over theta."""
    learner = bm.DeepKernelTransfer(bm.networks.Inputs(2), kernel=kernel).double()
    rows = _points(2)
    gram = Gram(learner.kernel)
    matrix = gram(rows, rows).detach()
    torch.testing.assert_close(matrix, matrix.mT, **CLOSE)
    assert torch.linalg.eigvalsh(matrix).min() > -1e-10
    torch.testing.assert_close(gram.diagonal(rows).detach(), matrix.diagonal(dim1=-2, dim2=-1), **CLOSE)
    assert describe(construct(describe(kernel))) == describe(kernel)
    data = bm.Data.full(rows, rows[..., :1].sin())
    theta = {name: value for name, value in learner.named_parameters() if value.requires_grad}

    def evidence(values: dict[str, Tensor]) -> Tensor:
        with swapped(learner, {theta[name]: value for name, value in values.items()}):
            return learner.evidence(data).sum()

    starts = {name: torch.stack([value.detach() + 0.1 * i for i in range(3)]) for name, value in theta.items()}
    for value in starts.values():
        value.requires_grad_()
    together = torch.vmap(evidence)(starts)
    alone = torch.stack([evidence({name: value[i] for name, value in starts.items()}) for i in range(3)])
    torch.testing.assert_close(together, alone, **CLOSE)
    for each in starts.values():
        mapped, one_by_one = (torch.autograd.grad(x.sum(), each, retain_graph=True)[0] for x in (together, alone))
        torch.testing.assert_close(mapped, one_by_one, **CLOSE)


def test_composites_are_what_their_names_say() -> None:
    rows = _points(3)
    parts = {"rbf": RBFKernel(0.7, 2.0), "linear": LinearKernel(3.0), "constant": ConstantKernel(0.5)}
    rbf, linear, constant = (Gram(kernel.make(3))(rows, rows).detach() for kernel in parts.values())
    torch.testing.assert_close(constant, torch.full_like(constant, 0.5), **SINGLE)

    def of(kernel: Kernel) -> Tensor:
        return Gram(kernel.make(3))(rows, rows).detach()

    torch.testing.assert_close(of(SumKernel(list(parts.values()))), rbf + linear + constant, **SINGLE)
    torch.testing.assert_close(of(ProductKernel(list(parts.values()))), rbf * linear * constant, **SINGLE)
    torch.testing.assert_close(of(ScaledKernel(parts["rbf"], 5.0)), 5.0 * rbf, **SINGLE)
    two = Gram(RBFKernel(0.7, 2.0).make(2))(rows[..., [2, 0]], rows[..., [2, 0]]).detach()
    torch.testing.assert_close(of(SubsetKernel(parts["rbf"], [-1, 0])), two, **SINGLE)
    once_more = SubsetKernel(SubsetKernel(parts["rbf"], [1]), [1, 2])  # places among those that are left
    torch.testing.assert_close(of(ScaledKernel(once_more)), of(SubsetKernel(parts["rbf"], [2])), **SINGLE)
    waves = (2.0 * math.pi * (rows[:, :, None] - rows[:, None]) / 4.0).cos().prod(-1)
    torch.testing.assert_close(of(CosineKernel(4.0, 3.0)), 3.0 * waves, **SINGLE)


def test_a_product_learns_one_variance() -> None:
    lines = SubsetKernel(SumKernel([LinearKernel(), ConstantKernel()]), [0])
    wave = ProductKernel([RBFKernel(), CosineKernel(), lines])
    held = dict(wave.make(1).named_buffers())
    assert {"kernels.1.raw_outputscale", "kernels.2.base_kernel.kernels.0.raw_variance"} == {
        name for name in held if name.split(".")[-1].startswith("raw")
    }


def test_what_composites_refuse() -> None:
    for kind in (SumKernel, ProductKernel):
        for nothing in ([], [bm.MLP(1, [2])]):
            with pytest.raises(DataError, match=r"at least one kernel|a list, each a Kernel"):
                kind(nothing)
    for columns in ([], [1, 1]):
        with pytest.raises(DataError, match=r"expected columns, each of them once"):
            SubsetKernel(RBFKernel(), columns)
    for columns in ([3], [-4], [0, -3]):
        with pytest.raises(ShapeError, match=r"expected columns of 3 features"):
            SubsetKernel(RBFKernel(), columns).make(3)
    with pytest.raises(ShapeError, match="networks on the same inputs"):
        bm.networks.Concatenated([bm.networks.Inputs(1), bm.MLP(2, [3])])
    with pytest.raises(DataError, match="at least one network"):
        bm.networks.Concatenated([])

"""Neural processes on a lattice."""

import bayesmeta as bm
from tests.registry.case import Case
from tests.registry.closed_form import OWN_CLASSES

LATTICE = {"compiles": "which cells of the lattice are held depends on where the points are"}


def _small(head: bm.heads.OutputHead | None = None) -> bm.ConvCNP:
    return bm.ConvCNP(head=head, points_per_unit=4.0, channels=8, layers=2, kernel_size=5)


CONVOLUTIONAL = [
    Case("conv-cnp", _small, exceptions=LATTICE),
    Case(
        "conv-cnp-two-outputs",
        lambda: _small(bm.heads.GaussianHead(2)),
        outcomes=bm.Numbers(2),
        exceptions=LATTICE,
    ),
    Case("conv-cnp-mixture", lambda: _small(bm.heads.MixtureHead(3)), exceptions=LATTICE),
    Case("conv-cnp-low-rank", lambda: _small(bm.heads.LowRankGaussianHead(3)), exceptions=LATTICE),
    Case("conv-cnp-classes", lambda: _small(bm.heads.CategoricalHead(3)), outcomes=bm.Labels(3), exceptions=LATTICE),
    Case(
        "conv-cnp-own-classes",
        lambda: _small(bm.heads.CategoricalHead()),
        outcomes=bm.Labels(),
        exceptions=OWN_CLASSES | LATTICE,
    ),
]

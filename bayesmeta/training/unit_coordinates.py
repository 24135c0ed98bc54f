"""Coordinates in which a search is well scaled, whatever units and origins the user's data have.

    theta = theta_0 + M u      M is block diagonal, a block for each parameter; the identity where nothing is known

A linear mixed model does not depend on the unit or origin of its features, only its parameters do. With features Φ B
that are orthogonal and of unit size over all points,

    K_0 = B K',   V = B V' Bᵀ,   L = B L'      B lower triangular, so that L' is, too

and the search moves K' (in units of the noise) and L' (in units of where it starts).
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bayesmeta.learner import MixedModelParts
from bayesmeta.linalg import lower_root, root_mean_squares, spanning_basis
from bayesmeta.networks.terms import Quantities
from bayesmeta.typing import LinearMaps

START_VARIANCES = (1e-2, 1.0, 1e2, 1e4, 1e6, 1e8)  # of tasks around their mean, in units of the noise
NEGLIGIBLE = 1e-3  # in nats a point could tell, of a variance that is none
EVEN = 1e-6  # nats: what is not worth a variance, or a further search


class Coordinates:
    """Numbers u, and the parameters that follow them from where they are now: theta = theta_0 + M u.

    Args:
        parameters: what is searched.
        maps: M, for the parameters that have one.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], maps: LinearMaps) -> None:
        self.parameters = list(parameters)
        self.maps = maps
        self.origins = [p.detach().double().clone() for p in self.parameters]
        self.zero = torch.cat([torch.zeros_like(origin).flatten() for origin in self.origins])

    @torch.no_grad()
    def place(self, u: Float[Tensor, "P"]) -> None:
        """Give the parameters their values at u."""
        for parameter, origin, part in zip(self.parameters, self.origins, self._parts(u), strict=True):
            parameter.copy_(origin + self._mapped(parameter, part))

    def pull_back(self) -> Float[Tensor, "P"]:
        """The gradient in u of what has been differentiated in the parameters."""
        gradients = []
        for parameter in self.parameters:
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            free = torch.zeros_like(parameter, dtype=torch.float64, requires_grad=True)
            mapped = self._mapped(parameter, free)
            gradients.append(torch.autograd.grad(mapped, free, gradient.double())[0].flatten())
        return torch.cat(gradients)

    def _parts(self, u: Tensor) -> list[Tensor]:
        parts = u.split([origin.numel() for origin in self.origins])
        return [part.reshape(origin.shape) for part, origin in zip(parts, self.origins, strict=True)]

    def _mapped(self, parameter: nn.Parameter, part: Tensor) -> Tensor:
        return self.maps[parameter](part) if parameter in self.maps else part * 1.0


class UnitMixedModel:
    """A linear mixed model in coordinates of its own: where its search starts, what it moves, and where it ends.

    Args:
        parts: what the model is made of.
        largest_task: points of the largest task.
    """

    def __init__(self, parts: MixedModelParts, largest_task: int) -> None:
        self.parts, self.largest_task = parts, largest_task
        self.basis = parts.covariance.unit_basis(parts.design)
        self.size = len(self.basis)

    def start(self, begin: Callable[[], None], score: Callable[[], float]) -> None:
        """Set V to that multiple of V' = I, or to V as it is, under which the tasks are likeliest.

        V as it is may be far from any use where its units are not those of the features, and where it is next to
        singular the search would not see which variances should grow: zero is a stationary point of every deviation.

        Args:
            begin: sets what of theta has a closed form given V.
            score: total nats; -inf where they cannot be computed.
        """
        covariance = self.parts.covariance
        parameters = list(covariance.parameters())
        if not self.size or not parameters or not all(p.requires_grad for p in parameters):
            begin()
            return
        values = self._variances()[0]
        as_it_is = [self.unit_root()] if values[0] > 1e-4 and values[-1] < 1e10 else []
        eye = torch.eye(self.size, dtype=self.basis.dtype, device=self.basis.device)
        roots = [*as_it_is, *(variance**0.5 * eye for variance in START_VARIANCES)]
        scores = []
        for root in roots:
            self.set_unit_root(root)
            begin()
            scores.append(score())
        self.set_unit_root(roots[scores.index(max(scores))])
        begin()

    def maps(self) -> LinearMaps:
        """How parameters follow u from where they are."""
        spanning = spanning_basis(self.parts.design)
        lost = len(spanning) - spanning.shape[1]  # directions that no point sees are not searched
        basis = torch.cat([spanning, spanning.new_zeros(len(spanning), lost)], 1)
        noise = self.parts.noise.variance().detach().double().sqrt()
        maps: LinearMaps = {self.parts.location: lambda free: basis @ free * noise}
        scale = float(self.unit_root().square().mean(0).sum().sqrt()) if self.size else 1.0
        return maps | self.parts.covariance.unit_maps(self.basis, scale if scale > 0.0 else 1.0)

    def unit_root(self) -> Float[Tensor, "R R"]:
        """L', where V' = L' L'ᵀ."""
        square = self.parts.covariance.square_factor().detach().double()
        return torch.linalg.solve_triangular(self.basis, square, upper=False)

    def set_unit_root(self, root: Float[Tensor, "R K"]) -> None:
        """Assign V' = T Tᵀ."""
        with torch.no_grad():
            self.parts.covariance.set_root(self.basis @ lower_root(root))

    def flatten(self, score: Callable[[], float]) -> int:
        """Set variances of V' to zero that are as good as zero, unless that is worse. Returns how many are zero."""
        values, vectors = self._variances()
        tiny = values * self.largest_task < NEGLIGIBLE
        if not bool(tiny.any()):
            return 0
        before, root = score(), self.unit_root()
        self.set_unit_root(vectors[:, ~tiny] * values[~tiny].sqrt())
        if score() < before - EVEN:
            self.set_unit_root(root)
            return 0
        return int(tiny.sum())

    def leave_zero(self, score: Callable[[], float]) -> bool:
        """Whether a variance of zero should not be: then V has a little of it, and the search goes on from there.

        At a maximum the evidence falls in every direction in which V can grow. That it is stationary in L says nothing
        where L is zero.
        """
        values, vectors = self._variances()
        before, root = score(), self.unit_root()
        best, best_root = before + EVEN, None
        for direction in _directions(vectors[:, values * self.largest_task < NEGLIGIBLE]):
            for variance in (1e-3, 1e-1):
                trial = torch.cat([root, (variance / self.largest_task) ** 0.5 * direction[:, None]], 1)
                self.set_unit_root(trial)
                if (value := score()) > best:
                    best, best_root = value, trial
        self.set_unit_root(root if best_root is None else best_root)
        return best_root is not None

    def boundary(self, x_names: Sequence[str] | None) -> tuple[str, ...]:
        """What of V is at its boundary, in words; nothing where V has full rank.

        Args:
            x_names: what the inputs are called; None where they have no names.
        """
        values, _ = self._variances()
        rank = int((values * self.largest_task >= NEGLIGIBLE).sum())
        if rank == self.size:
            return ()
        chosen = list(self.parts.covariance.varying)
        names = _feature_names(self.parts, x_names)
        names = [names[i] for i in chosen]
        matrix = self.parts.covariance.matrix().detach().double()[chosen][:, chosen]
        variances = matrix.diagonal() * root_mean_squares(self.parts.design[:, chosen]).square() * self.largest_task
        zero = [name for name, value in zip(names, variances.tolist(), strict=True) if value < NEGLIGIBLE]
        if zero:
            return tuple(f"{name} variance 0: boundary" for name in zero)
        if self.size == 2:
            sign = "+1" if matrix[0, 1] > 0.0 else "-1"
            return (f"correlation of {names[0]} and {names[1]} {sign}: boundary",)
        return (f"covariance of {', '.join(names)} has rank {rank} of {self.size}: boundary",)

    def _variances(self) -> tuple[Tensor, Tensor]:
        root = self.unit_root()
        values, vectors = torch.linalg.eigh(root @ root.mT)
        return values.clamp(min=0.0), vectors


def _directions(null: Float[Tensor, "R Z"]) -> list[Float[Tensor, "R"]]:
    """Those of a basis, and where they are few, what lies between two of them."""
    columns = list(null.unbind(1))
    if len(columns) > 4:
        return columns
    pairs = [(a, b) for i, a in enumerate(columns) for b in columns[:i]]
    return columns + [(a + sign * b) / 2.0**0.5 for a, b in pairs for sign in (1.0, -1.0)]


def _feature_names(parts: MixedModelParts, x_names: Sequence[str] | None) -> list[str]:
    size = parts.features.x_shape[0] if len(parts.features.x_shape) == 1 else 0
    inputs = [f"x {i}" for i in range(size)] if x_names is None else list(x_names)
    terms = parts.features.terms(Quantities.named(inputs))
    if terms is None:
        return [f"feature {i}" for i in range(parts.design.shape[1])]
    return [f"slope of {name}" if name in inputs else name for name in terms.names]

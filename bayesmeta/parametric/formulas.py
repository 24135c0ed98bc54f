"""Ready formulas f(x; parameters): pharmacokinetics, enzyme kinetics, growth, reaction rates."""

from abc import ABC, abstractmethod
from collections.abc import Collection

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmeta.description import Described
from bayesmeta.errors import DataError
from bayesmeta.typing import Params

GAS_CONSTANT = 8.31446261815324  # J / (mol K), exact since 2019
SMALL = 0.1  # of v in sinh(v) / v: below it the series is exact to rounding, above it nothing cancels


class Formula(Described, ABC):
    """f(x; parameters) of every point, with named parameters of its task.

    A function will do for `Parametric` just as well. What a class adds is that it can be stored: `bm.save` writes the
    arguments of its constructor, and `bm.load` finds the class again once its module has been imported. A subclass
    gives `__call__` and `names`, and where it has more than one input `num_inputs`.

    Example:
        >>> import bayesmeta as bm
        >>> class Decay(bm.parametric.Formula):
        ...     '''Exponential decay from a level to a floor that is known.'''
        ...     names = (("level", "rate"),)
        ...     def __init__(self, floor=0.0):
        ...         self.floor = floor
        ...     def __call__(self, x, parameters):
        ...         return self.floor + parameters["level"] * (-parameters["rate"] * x[..., 0]).exp()
        >>> scales = {"level": bm.parametric.Positive(2.0), "rate": bm.parametric.Positive(0.1)}
        >>> learner = bm.Parametric(Decay(floor=0.5), scales)
        >>> learner.network(torch.tensor([[[0.0], [1e3]]])).flatten().round(decimals=3).tolist()  # the typical curve
        [2.5, 0.5]

    Attributes:
        names: the names of the parameters; where it can be written in several, each of these lists.
        num_inputs: D.
    """

    names: tuple[tuple[str, ...], ...]
    num_inputs: int = 1

    @abstractmethod
    def __call__(self, x: Float[Tensor, "B N D"], parameters: Params) -> Float[Tensor, "B N"]:
        """f at every point.

        Args:
            x: the inputs of every point; `x[..., 0]`, `B N`, is the first of them.
            parameters: by name, `B 1` each: one number a task, which broadcasts over the task's points.
        """

    def require(self, given: Collection[str]) -> None:
        """Raise DataError unless these are the names of the parameters."""
        if set(given) not in [set(names) for names in self.names]:
            several = " or ".join(str(list(names)) for names in self.names)
            raise DataError(f"expected the parameters {several} of {type(self).__name__}, got {list(given)}")


class OneCompartment(Formula):
    """Concentration after an oral dose: absorption at the rate ka into one compartment, elimination at the rate ke.

        f(t) = dose ka / (V (ka - ke)) (exp(-ke t) - exp(-ka t)),      Cl = ke V

    Of ke, V and Cl any two are the parameters, besides ka. Where ka = ke it is the limit, dose ka / V t exp(-ke t), to
    rounding. Rates may change places with no change of f but of its size ("flip-flop"): start with ka above ke.

    Source: Pinheiro and Bates 2000, "Mixed-Effects Models in S and S-PLUS", appendix C.4 (`SSfol`, in ka, ke and Cl).

    Args:
        dose: of all tasks, in the unit of V times that of f; None: the second input of every point is the dose.

    Raises:
        DataError: a dose that is not positive.

    Example:
        >>> import bayesmeta as bm
        >>> formula = bm.parametric.OneCompartment(dose=4.0)
        >>> rates = {"ka": torch.tensor([[1.5]]), "ke": torch.tensor([[0.1]]), "V": torch.tensor([[0.5]])}
        >>> [round(value, 2) for value in formula(torch.tensor([[[0.0], [1.0], [24.0]]]), rates)[0].tolist()]
        [0.0, 5.84, 0.78]
    """

    names = (("ka", "ke", "V"), ("ka", "ke", "Cl"), ("ka", "V", "Cl"))

    def __init__(self, dose: float | None = None) -> None:
        if dose is not None and not 0.0 < dose < float("inf"):
            raise DataError(f"expected a positive dose, got {dose}")
        self.dose = dose
        self.num_inputs = 2 if dose is None else 1

    def __call__(self, x: Float[Tensor, "B N D"], parameters: Params) -> Float[Tensor, "B N"]:
        """The concentration at the times `x[..., 0]`."""
        dose = x[..., 1] if self.dose is None else self.dose
        elimination = parameters["ke"] if "ke" in parameters else parameters["Cl"] / parameters["V"]
        volume = parameters["V"] if "V" in parameters else parameters["Cl"] / elimination
        return dose * parameters["ka"] / volume * _rise_and_fall(x[..., 0], parameters["ka"], elimination)


def _rise_and_fall(t: Tensor, up: Tensor, down: Tensor) -> Tensor:
    """(exp(-down t) - exp(-up t)) / (up - down), which is t exp(-up t) where the rates agree."""
    v = 0.5 * (up - down) * t  # exp(-(up + down) t / 2) t sinh(v) / v
    is_small = v.abs() < SMALL
    square = torch.where(is_small, v, 0.0).square()
    series = 1.0 + square / 6.0 * (1.0 + square / 20.0 * (1.0 + square / 42.0 * (1.0 + square / 72.0)))
    difference = torch.where(is_small, 1.0, up - down)  # no division by zero, also in the gradient
    far = ((-down * t).exp() - (-up * t).exp()) / difference
    return torch.where(is_small, t * (-0.5 * (up + down) * t).exp() * series, far)


class Biexponential(Formula):
    """The sum of two exponential decays: a bolus into two compartments, and whatever else decays at two rates.

        f(t) = A1 exp(-k1 t) + A2 exp(-k2 t)

    The terms may change places: start with k1 above k2. Source: Pinheiro and Bates 2000, appendix C.2 (`SSbiexp`).

    Example:
        >>> import bayesmeta as bm
        >>> values = {"A1": 3.0, "k1": 2.0, "A2": 1.0, "k2": 0.2}
        >>> parameters = {name: torch.tensor([[value]]) for name, value in values.items()}
        >>> bm.parametric.Biexponential()(torch.tensor([[[0.0], [5.0]]]), parameters)
        tensor([[4.0000, 0.3680]])
    """

    names = (("A1", "k1", "A2", "k2"),)

    def __call__(self, x: Float[Tensor, "B N D"], parameters: Params) -> Float[Tensor, "B N"]:
        """The sum at the times `x[..., 0]`."""
        terms = [parameters[f"A{i}"] * (-parameters[f"k{i}"] * x[..., 0]).exp() for i in (1, 2)]
        return terms[0] + terms[1]


class MichaelisMenten(Formula):
    """The rate of a reaction that saturates: half of Vmax is reached at the concentration Km.

        f(c) = Vmax c / (Km + c)

    Example:
        >>> import bayesmeta as bm
        >>> parameters = {"Vmax": torch.tensor([[200.0]]), "Km": torch.tensor([[0.05]])}
        >>> bm.parametric.MichaelisMenten()(torch.tensor([[[0.05], [0.95]]]), parameters)
        tensor([[100., 190.]])
    """

    names = (("Vmax", "Km"),)

    def __call__(self, x: Float[Tensor, "B N D"], parameters: Params) -> Float[Tensor, "B N"]:
        """The rate at the concentrations `x[..., 0]`."""
        return parameters["Vmax"] * x[..., 0] / (parameters["Km"] + x[..., 0])


class LogisticGrowth(Formula):
    """Growth to an asymptote: half of it is reached at xmid, and scal is the time from there to 73 %.

        f(x) = Asym / (1 + exp((xmid - x) / scal))

    Source: Pinheiro and Bates 2000, appendix C.7 (`SSlogis`).

    Example:
        >>> import bayesmeta as bm
        >>> values = {"Asym": 190.0, "xmid": 700.0, "scal": 350.0}
        >>> parameters = {name: torch.tensor([[value]]) for name, value in values.items()}
        >>> bm.parametric.LogisticGrowth()(torch.tensor([[[700.0], [1050.0]]]), parameters)
        tensor([[ 95.0000, 138.9011]])
    """

    names = (("Asym", "xmid", "scal"),)

    def __call__(self, x: Float[Tensor, "B N D"], parameters: Params) -> Float[Tensor, "B N"]:
        """The size at the ages `x[..., 0]`."""
        return parameters["Asym"] * ((x[..., 0] - parameters["xmid"]) / parameters["scal"]).sigmoid()


class Arrhenius(Formula):
    """The rate of a reaction by its temperature, from its rate at a reference temperature and its activation energy.

        f(T) = rate exp(-E / R (1/T - 1/reference)),      R = 8.314 J / (mol K)

    With the rate at a temperature in the middle of the data, and not the pre-exponential factor at 1/T = 0, the two
    parameters are nearly independent.

    Args:
        reference: a temperature in the middle of the data, in K.

    Raises:
        DataError: a reference that is not positive.

    Example:
        >>> import bayesmeta as bm
        >>> parameters = {"rate": torch.tensor([[1.0]]), "E": torch.tensor([[50_000.0]])}  # E in J / mol
        >>> bm.parametric.Arrhenius(reference=298.15)(torch.tensor([[[298.15], [308.15]]]), parameters)
        tensor([[1.0000, 1.9243]])
    """

    names = (("rate", "E"),)

    def __init__(self, reference: float = 298.15) -> None:
        if not 0.0 < reference < float("inf"):
            raise DataError(f"expected a reference temperature above 0 K, got {reference}")
        self.reference = reference

    def __call__(self, x: Float[Tensor, "B N D"], parameters: Params) -> Float[Tensor, "B N"]:
        """The rate at the temperatures `x[..., 0]`, in K."""
        inverse = 1.0 / x[..., 0] - 1.0 / self.reference
        return parameters["rate"] * (-parameters["E"] / GAS_CONSTANT * inverse).exp()

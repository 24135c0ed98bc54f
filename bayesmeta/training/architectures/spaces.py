"""Spaces of architectures: what may be chosen, where a search starts, and how an architecture grows by a block."""

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from bayesmeta.errors import DataError
from bayesmeta.networks.conv4 import ConvNet
from bayesmeta.networks.mlp import ACTIVATIONS, MLP
from bayesmeta.networks.network import Network
from bayesmeta.one_line import InShort, OneLine

Choice = int | str | bool | None
"""A value that a choice may take; numbers are ordered, all others are names."""


@dataclass(frozen=True)
class Architecture(OneLine):
    """One architecture of a space: what was chosen, by name.

    Attributes:
        choices: names and values, in the order of the space.

    Example:
        >>> Architecture((("depth", 2), ("width", 40), ("activation", "relu"), ("norm", None), ("skip", True)))
        depth 2, width 40, relu, skip
    """

    choices: tuple[tuple[str, Choice], ...]

    def __getitem__(self, name: str) -> Choice:
        """The value of a choice."""
        return dict(self.choices)[name]

    def __repr__(self) -> str:
        """One line: numbers with their names, names alone, and what is there."""
        return ", ".join(_said(name, value) for name, value in self.choices if value not in (None, False))


class Space(InShort, ABC):
    """All architectures that a search may choose from: every combination of the choices that makes another network.

    A subclass gives `network`, and `is_plain` where several combinations make the same network.

    Args:
        x_shape: shape of one input.
        blocks: the name of the choice that counts blocks, along which architectures grow.
        choices: the values of each choice, by name; those of numbers of blocks increase.

    Raises:
        DataError: a choice without a value or with one twice, or numbers of blocks that do not increase from 1.

    Example:
        >>> import bayesmeta as bm
        >>> class Sines(bm.training.Space):
        ...     def __init__(self):
        ...         super().__init__((1,), "depth", {"depth": (1, 2), "width": (4, 8)})
        ...     def network(self, architecture):
        ...         return bm.MLP(1, [architecture["width"]] * architecture["depth"])
        >>> space = Sines()
        >>> space.smallest()
        [depth 1, width 4, depth 1, width 8]
        >>> space.grown(space.smallest()[0])
        [depth 2, width 4, depth 2, width 8]
    """

    def __init__(self, x_shape: tuple[int, ...], blocks: str, choices: Mapping[str, Sequence[Choice]]) -> None:
        for name, values in choices.items():
            if isinstance(values, str) or not len(values) or len({repr(value) for value in values}) < len(values):
                raise DataError(f"expected distinct values of {name}, at least one of them, got {values!r}")
        self.choices = {name: tuple(map(_plain, values)) for name, values in choices.items()}
        numbers = list(self.choices[blocks])
        if any(not isinstance(n, int) or isinstance(n, bool) or n < 1 for n in numbers) or numbers != sorted(numbers):  # type: ignore[type-var]
            raise DataError(f"expected increasing whole numbers of {blocks}, from 1 on, got {numbers}")
        self.x_shape, self.blocks = tuple(x_shape), blocks

    @abstractmethod
    def network(self, architecture: Architecture) -> Network:
        """A freshly initialised network of an architecture."""

    def is_plain(self, architecture: Architecture) -> bool:
        """Whether an architecture stands for itself: False for one whose network another combination makes, too."""
        return True

    def all(self) -> list[Architecture]:
        """Every architecture, the fewest blocks first."""
        names = [self.blocks, *(name for name in self.choices if name != self.blocks)]
        combinations = itertools.product(*(self.choices[name] for name in names))
        made = [self.of(dict(zip(names, values, strict=True))) for values in combinations]
        return [each for each in made if self.is_plain(each)]

    def smallest(self) -> list[Architecture]:
        """Those with the fewest blocks, where a search starts."""
        return [each for each in self.all() if each[self.blocks] == self.choices[self.blocks][0]]

    def grown(self, architecture: Architecture) -> list[Architecture]:
        """Those with one block more, and at most one other choice changed; none of the largest."""
        numbers = self.choices[self.blocks]
        place = numbers.index(architecture[self.blocks]) + 1
        if place == len(numbers):
            return []
        larger = dict(architecture.choices) | {self.blocks: numbers[place]}
        others = [larger | {name: value} for name, values in self.choices.items() for value in values]
        made = dict.fromkeys(self.of(each) for each in others if each[self.blocks] == numbers[place])
        return [each for each in made if self.is_plain(each)]

    def of(self, choices: Mapping[str, Choice]) -> Architecture:
        """The architecture of such choices.

        Args:
            choices: a value for every name.

        Raises:
            DataError: another name, a missing one, or a value that is not in the space.

        Example:
            >>> DenseSpace(1, depths=(1, 2), widths=(8, 16)).of({"depth": 3})
            Traceback (most recent call last):
            ...
            bayesmeta.errors.DataError: expected a value for each of ['depth', 'width', ...
        """
        if set(choices) != set(self.choices):
            raise DataError(f"expected a value for each of {list(self.choices)}, got {dict(choices)}")
        for name, values in self.choices.items():
            if choices[name] not in values:
                raise DataError(f"expected {name} among {list(values)}, got {choices[name]!r}")
        return Architecture(tuple((name, choices[name]) for name in self.choices))

    def features(self, architecture: Architecture) -> list[float]:
        """Numbers that describe an architecture: of positive numbers the logarithm, from 0 to 1; of names one for each.

        Example:
            >>> space = DenseSpace(1, depths=(1, 2, 4), widths=(10, 40), activations=("tanh", "relu"))
            >>> architecture = {"depth": 2, "width": 40, "activation": "relu", "norm": None, "skip": True}
            >>> space.features(space.of(architecture))
            [0.5, 1.0, 1.0, 0.0, 1.0]
        """
        found: list[float] = []
        for name, values in self.choices.items():
            value = architecture[name]
            if all(isinstance(each, int) and not isinstance(each, bool) and each > 0 for each in values):
                low, high = math.log(min(values)), math.log(max(values))  # type: ignore[type-var, arg-type]
                found.append((math.log(value) - low) / (high - low) if high > low else 0.0)  # type: ignore[arg-type]
            else:
                found += [float(value == each) for each in values[1:]]
        return found

    def num_parameters(self, architecture: Architecture) -> int:
        """How many numbers the network of an architecture has."""
        with torch.device("meta"):  # without their values
            return sum(parameter.numel() for parameter in self.network(architecture).parameters())


class DenseSpace(Space):
    """Networks of dense layers (`bm.MLP`): depth x width x activation x normalisation x skip.

    Architectures of one layer have neither normalisation nor skip: both come before the second.

    Args:
        num_inputs: D.
        depths: numbers of hidden layers.
        widths: of all hidden layers of a network.
        activations: among tanh, relu, silu and gelu.
        norms: "layer" for layer normalisation, None for none.
        skips: whether each layer adds to what comes in.

    Raises:
        DataError: what `Space` raises, and values that `bm.MLP` does not know.

    Example:
        >>> space = DenseSpace(1, depths=(1, 2), widths=(20, 40), activations=("relu",))
        >>> len(space.all()), space.smallest()
        (10, [depth 1, width 20, relu, depth 1, width 40, relu])
        >>> for architecture in space.grown(space.smallest()[0]):
        ...     print(architecture)
        depth 2, width 20, relu
        depth 2, width 40, relu
        depth 2, width 20, relu, layer
        depth 2, width 20, relu, skip
    """

    def __init__(
        self,
        num_inputs: int,
        depths: Sequence[int] = (1, 2, 3, 4),
        widths: Sequence[int] = (10, 20, 40, 80),
        activations: Sequence[str] = tuple(ACTIVATIONS),
        norms: Sequence[str | None] = (None, "layer"),
        skips: Sequence[bool] = (False, True),
    ) -> None:
        named: dict[str, Sequence[Choice]] = {"depth": depths, "width": widths, "activation": activations}
        super().__init__((num_inputs,), "depth", named | {"norm": norms, "skip": skips})
        self.num_inputs = num_inputs
        for architecture in self.all():
            self.num_parameters(architecture)  # raises for values that the network does not know

    def is_plain(self, architecture: Architecture) -> bool:
        """One layer has neither normalisation nor skip, whatever is chosen."""
        first = (self.choices["norm"][0], self.choices["skip"][0])
        return architecture["depth"] != 1 or (architecture["norm"], architecture["skip"]) == first

    def network(self, architecture: Architecture) -> MLP:
        """A freshly initialised MLP."""
        depth, width, activation, norm, skip = (architecture[name] for name in self.choices)
        return MLP(self.num_inputs, [width] * depth, activation, norm, skip)  # type: ignore[operator, arg-type]


class ConvSpace(Space):
    """Networks of convolutions (`bm.networks.ConvNet`): channels x kernel x blocks.

    Args:
        x_shape: channels, height and width of an image.
        blocks: numbers of blocks.
        channels: of all blocks of a network.
        kernels: odd heights and widths of the convolutions.

    Raises:
        DataError: what `Space` and `ConvNet` raise.
        ShapeError: an `x_shape` that is not three positive sizes.

    Example:
        >>> space = ConvSpace((1, 14, 14), blocks=(1, 2), channels=(16, 32), kernels=(3,))
        >>> for architecture in space.all():
        ...     print(architecture)
        blocks 1, channels 16, kernel 3
        blocks 1, channels 32, kernel 3
        blocks 2, channels 16, kernel 3
        blocks 2, channels 32, kernel 3
        >>> space.network(space.all()[2]).map_shape
        (16, 3, 3)
    """

    def __init__(
        self,
        x_shape: tuple[int, int, int],
        blocks: Sequence[int] = (1, 2, 3, 4),
        channels: Sequence[int] = (16, 32, 64),
        kernels: Sequence[int] = (3, 5),
    ) -> None:
        super().__init__(x_shape, "blocks", {"blocks": blocks, "channels": channels, "kernel": kernels})
        for architecture in self.all():
            self.num_parameters(architecture)  # raises for values that the network does not know

    def network(self, architecture: Architecture) -> ConvNet:
        """A freshly initialised network of convolutions."""
        blocks, channels, kernel = (architecture[name] for name in self.choices)
        return ConvNet(self.x_shape, channels, blocks, kernel)  # type: ignore[arg-type]


def _plain(value: Choice) -> Choice:
    """numpy's numbers as Python's, which JSON knows."""
    return value.item() if isinstance(value, np.generic) else value


def _said(name: str, value: Choice) -> str:
    if value is True:
        return name
    return value if isinstance(value, str) else f"{name} {value}"

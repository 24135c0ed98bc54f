"""Arguments are what annotations say, or the error names them."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from bayesmeta.annotations import checked, said
from bayesmeta.errors import DataError, ShapeError


class _Base:
    pass


class _Kind(_Base):
    pass


def _taking(annotation: Any) -> Callable[[Any], Any]:
    def function(value: Any) -> Any:
        return value

    function.__annotations__ = {"value": annotation}
    return checked(function)


GOOD: list[tuple[Any, list[Any]]] = [
    (int, [0, -3, np.int64(2), np.uint8(2)]),
    (float, [0, 1.5, np.float32(1.5), np.int64(2), -1e300]),
    (bool, [True, np.bool_(False)]),
    (str, ["", "a"]),
    (int | None, [None, 3]),
    (_Base | None, [None, _Base(), _Kind()]),
    (type[_Base], [_Base, _Kind]),
    (Sequence[int], [[], [1, 2], (3,), np.array([1, 2]), range(3), torch.Size([2])]),
    (tuple[float, float], [(1, 2.0), [1.0, 2.0], np.array([1.0, 2.0])]),
    (tuple[int, ...], [(), (1, 2, 3)]),
    (int | tuple[int, int], [3, (1, 2)]),
    (Mapping[str, int], [{}, {"a": "whatever"}]),
    (Callable[[int], int], [len, _Base]),
    (Float[Tensor, "3"], [torch.zeros(3), torch.zeros(2)]),  # shapes are checked elsewhere
    (Any, [object(), None]),
]
WRONG: list[tuple[Any, list[Any], str]] = [
    (int, [1.0, True, "1", None, 2**63, 10**400, math.nan, torch.tensor(1), int], "a whole number"),
    (float, [math.nan, math.inf, np.float64("nan"), True, "1", 10**400, torch.tensor(1.0), None], "a finite number"),
    (bool, [1, 0, "yes", None], "True or False"),
    (str, [1, None, b"a"], "a text"),
    (int | None, ["a", 1.5], "a whole number or None"),
    (_Base, [None, 3, "text", object(), _Kind], "a _Base"),
    (type[_Base], [_Kind(), int, None, "text"], "a subclass of _Base, not one of its objects"),
    (Sequence[int], ["12", 3, None, iter([1]), np.zeros((2, 2))], "a list"),
    (Sequence[int], [[1.5], [1, "a"], [True]], "a list, each a whole number"),
    (tuple[float, float], [(1.0,), [1.0, 2.0, 3.0], ()], "a list of 2"),
    (tuple[float, float], [(1.0, math.inf)], "a list, each a finite number"),
    (Mapping[str, int], [[1], None], "a dictionary"),
    (Callable[[int], int], [3, None], "a function"),
    (Float[Tensor, "3"], [np.zeros(3), [1.0]], "a Tensor"),
]


@pytest.mark.parametrize(("annotation", "values"), GOOD)
def test_what_fits_is_taken(annotation: Any, values: list[Any]) -> None:
    for value in values:
        assert _taking(annotation)(value) is value


@pytest.mark.parametrize(("annotation", "values", "expected"), WRONG)
def test_what_does_not_fit_is_named(annotation: Any, values: list[Any], expected: str) -> None:
    for value in values:
        with pytest.raises(DataError, match=f"^expected value to be {expected}, got "):
            _taking(annotation)(value)


def test_own_errors_come_first_and_raw_ones_are_explained() -> None:
    @checked
    def narrow(count: int, name: str = "a") -> str:
        if count == 0:
            raise ShapeError("expected something else")
        return "x" * count + name

    with pytest.raises(ShapeError, match="something else"):
        narrow(0, name=3)
    with pytest.raises(DataError, match="expected count to be a whole number, got 'a'") as caught:
        narrow("a")
    assert isinstance(caught.value.__cause__, TypeError)
    with pytest.raises(TypeError, match="missing"):
        narrow()
    with pytest.raises(TypeError, match="unexpected keyword argument 'size'"):
        narrow(1, size=3)
    assert narrow(2) == "xxa"


def test_the_argument_is_named_as_the_outermost_constructor_has_it() -> None:
    @checked
    def inner(shape: tuple[int, ...]) -> None:
        assert shape

    @checked
    def outer(count: int) -> None:
        inner((count,))

    with pytest.raises(DataError, match=r"^expected count to be a whole number, got 1\.5"):
        outer(1.5)


def test_values_are_said_shortly() -> None:
    assert said(_Kind) == "the class _Kind: call it, _Kind(...)"
    assert said(_Kind()) == "a _Kind"
    assert said(np.float64(1.5)) == "1.5"
    assert said(10**5_000) == "an int"
    assert len(said("a" * 1_000)) < 50
    assert said([[[[[[[[[1]]]]]]]]]).count("[") < 10

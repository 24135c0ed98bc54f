"""Other tensors in the place of a module's parameters, for as long as a block lasts."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

Places = list[tuple[dict[str, Any], str, Tensor]]


@contextlib.contextmanager
def swapped(module: nn.Module, replacements: Mapping[Tensor, Tensor]) -> Iterator[Places]:
    """Other tensors for parameters and buffers, wherever they are registered; what has none stays.

    torch.func.functional_call does not put back what a module holds that is registered twice (torch 2.13).

    Yields:
        All places, as table, key and what was there: whoever assigns to one in the block will find it put back.
    """
    tables: list[dict[str, Any]] = [t for each in module.modules() for t in (each._parameters, each._buffers)]
    places = [(table, key, value) for table in tables for key, value in table.items() if value is not None]
    try:
        for table, key, value in places:
            table[key] = replacements.get(value, value)
        yield places
    finally:
        for table, key, value in places:
            table[key] = value

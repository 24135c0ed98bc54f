"""Other tensors in the place of a module's parameters, for as long as a block lasts."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from bayesmeta.torch_private import tables

Places = list[tuple[dict[str, Any], str, Tensor]]


@contextlib.contextmanager
def swapped(module: nn.Module, replacements: Mapping[Tensor, Tensor]) -> Iterator[Places]:
    """Other tensors for parameters and buffers, wherever they are registered; what has none stays.

    Yields:
        All places, as table, key and what was there: whoever assigns to one in the block will find it put back.
    """
    found = [table for each in module.modules() for table in tables(each)]
    places = [(table, key, value) for table in found for key, value in table.items() if value is not None]
    try:
        for table, key, value in places:
            table[key] = replacements.get(value, value)
        yield places
    finally:
        for table, key, value in places:
            table[key] = value

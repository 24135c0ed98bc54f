"""How much memory graphs keep for the backward pass."""

import gc
import weakref
from contextlib import AbstractContextManager

import torch
from torch import Tensor


class _Holder:
    def __init__(self, value: Tensor) -> None:
        self.value = value


class Saved:
    """Counts what the graphs that are made inside keep, while they live; each storage once."""

    def __init__(self) -> None:
        self.holders: weakref.WeakSet[_Holder] = weakref.WeakSet()

    def __enter__(self) -> "Saved":
        self.hooks: AbstractContextManager[None] = torch.autograd.graph.saved_tensors_hooks(
            self._pack, lambda holder: holder.value
        )
        self.hooks.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self.hooks.__exit__(*exception)

    def _pack(self, value: Tensor) -> _Holder:
        holder = _Holder(value.detach())  # an output would hold the graph that holds it
        self.holders.add(holder)
        return holder

    @property
    def numbers(self) -> int:
        """How many float64 numbers are kept now."""
        gc.collect()
        storages = {h.value.untyped_storage().data_ptr(): h.value.untyped_storage().nbytes() for h in self.holders}
        return sum(storages.values()) // 8

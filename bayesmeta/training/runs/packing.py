"""Trees of tensors and plain values as the bytes of one safetensors file, and back: never a pickle.

What is no tensor is JSON, in the header of the file, where each tensor stands as its number.
"""

import json
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from bayesmeta.annotations import said
from bayesmeta.errors import DataError, UnsupportedError

TREE = "tree"  # where the JSON stands among the metadata of the file
SIZE = 8  # bytes that say how long the header is


def packed(tree: Any) -> bytes:
    """A tree as bytes.

    Args:
        tree: dictionaries, lists and tuples of tensors, numbers, truth values, texts and None. Keys may be any of these
            that JSON can write, and come back as what they were.

    Raises:
        UnsupportedError: anything else in it.

    Example:
        >>> import torch
        >>> tree = {"step": 3, "moments": {0: torch.tensor([0.5, -0.5])}, "betas": (0.9, 0.999)}
        >>> unpacked(packed(tree))
        {'step': 3, 'moments': {0: tensor([ 0.5000, -0.5000])}, 'betas': (0.9, 0.999)}
    """
    tensors: list[Tensor] = []
    text = json.dumps(_written(tree, tensors))
    named = {str(place): value.detach().cpu().clone().contiguous() for place, value in enumerate(tensors)}
    return safetensors.torch.save(named, {TREE: text})


def unpacked(content: bytes) -> Any:
    """The tree of such bytes, its tensors on the CPU.

    Args:
        content: of the file.

    Raises:
        DataError: no bytes of `packed`.
    """
    try:
        size = int.from_bytes(content[:SIZE], "little")
        header = json.loads(content[SIZE : SIZE + size])
        # cloned: what is read lies in the file's bytes one after the other, wherever that is
        tensors = {name: value.clone() for name, value in safetensors.torch.load(content).items()}
        return _read(json.loads(header["__metadata__"][TREE]), tensors)
    except (SafetensorError, ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
        raise DataError(f"expected a tree of tensors as safetensors, got something else: {error}") from error


def _written(value: Any, tensors: list[Tensor]) -> Any:
    if isinstance(value, Tensor):
        tensors.append(value)
        return {"tensor": len(tensors) - 1}
    if value is None or isinstance(value, bool | int | float | str):  # JSON writes what inherits from these as they are
        return value
    if isinstance(value, dict):
        return {"dict": [[_written(key, tensors), _written(item, tensors)] for key, item in value.items()]}
    if type(value) in (list, tuple):
        return {type(value).__name__: [_written(item, tensors) for item in value]}
    raise UnsupportedError(f"expected a state of tensors, numbers, texts, lists and dictionaries, got {said(value)}")


def _read(value: Any, tensors: dict[str, Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[str(content)]
    if kind == "dict":
        return {_read(key, tensors): _read(item, tensors) for key, item in content}
    items = [_read(item, tensors) for item in content]
    return tuple(items) if kind == "tuple" else items

"""Model folders that somebody has broken, by accident or on purpose: mutations from a seed."""

import copy
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

VALUES: list[Any] = [
    *[None, True, False, 0, 1, -1, 2, 3, 1.5, -0.5, 0.0, 1e-300, 1e308, float("nan"), float("inf"), float("-inf")],
    *[10**6, 10**9, 2**31, 2**63, 2**64, 10**30, 10**400, "", "text", "MLP", "\ud800", "a\0b", "../../etc/passwd"],
    *[[], {}, [[]], [0], [1e9], [1, 2, 3], [10**9], ["text"], [[[[1]]]], {"a": 1}, {"class": "MLP"}],
    {"class": "MLP", "arguments": {"num_inputs": 10**6, "hidden": [10**6]}},
    {"class": "MLP", "arguments": {"num_inputs": 1, "hidden": [4]}},
    {"class": "Polynomial", "arguments": {"num_inputs": 30, "degree": 30}},
    {"class": "Polynomial", "arguments": {"num_inputs": 1, "degree": 10**9}},
    {"class": "RadialBasis", "arguments": {"num_inputs": 30, "num_centers": 10}},
    {"class": "Identity", "arguments": {"num_inputs": 10**8}},
    {"class": "Spline", "arguments": {"knots": [0.0, 1.0], "degree": 10**9}},
    {"class": "FullCovariance", "arguments": {"num_features": 10**9}},
    {"class": "IsotropicCovariance", "arguments": {"num_features": 10**9}},
    {"class": "FullNoise", "arguments": {"num_outputs": 10**6}},
    {"class": "Gaussian", "arguments": {}},
    {"class": "Categorical", "arguments": {"num_classes": 3}},
    {"class": "RidgeHead", "arguments": {}},
    {"class": "LBFGS", "arguments": {"steps": 10**9}},
    {"class": "NUTS", "arguments": {}},
    {"class": "Learner", "arguments": {}},
    {"class": "os.system", "arguments": {"command": "true"}},
]


def _places(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield from _places(value, (*path, key))


def _at(tree: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        tree = tree[key]
    return tree


def edited(manifest: Any, random_: random.Random) -> Any:
    """A manifest with one to three places replaced, removed, renamed or swapped."""
    manifest = copy.deepcopy(manifest)
    for _ in range(random_.choice([1, 1, 1, 2, 3])):
        places = [path for path in _places(manifest) if path]
        if not places:
            return manifest
        *parent, key = random_.choice(places)
        holder = _at(manifest, tuple(parent))
        kind = random_.choice(["value", "value", "value", "value", "remove", "swap", "rename", "number"])
        if kind == "value":
            holder[key] = copy.deepcopy(random_.choice(VALUES))
        elif kind == "remove":
            del holder[key]
        elif kind == "swap":
            holder[key] = copy.deepcopy(_at(manifest, random_.choice(places)))
        elif kind == "rename" and isinstance(holder, dict):
            holder[random_.choice(["x", "", "steps", "num_outputs", "self", "class", "__init__"])] = holder.pop(key)
        elif isinstance(holder[key], int | float):
            holder[key] = random_.choice([holder[key] * 1_000, -holder[key], holder[key] + 1, holder[key] * 1e-9])
    return manifest


def flipped(content: bytes, random_: random.Random) -> bytes:
    """Bytes with some bits flipped, cut off, repeated, or taken out."""
    changed = bytearray(content)
    kind = random_.choice(["flip", "flip", "flip", "cut", "insert", "take", "header"])
    if kind == "cut":
        return bytes(changed[: random_.randrange(len(changed))])
    if kind == "header":  # where safetensors says how long its header is, and what is in it
        for _ in range(random_.choice([1, 2, 4])):
            changed[random_.randrange(min(len(changed), 400))] = random_.choice(b'0123456789"{}[]:,FIU\x00\xff')
        return bytes(changed)
    first = random_.choice([0, len(changed) // 2])  # the second half are numbers
    for _ in range(random_.choice([1, 1, 3, 30])):
        place = random_.randrange(first, len(changed))
        if kind == "flip":
            changed[place] ^= 1 << random_.randrange(8)
        elif kind == "insert":
            changed[place:place] = bytes(random_.randrange(256) for _ in range(random_.randrange(9)))
        elif len(changed) > first + 30:
            del changed[place : place + random_.randrange(9)]
    return bytes(changed)


def break_folder(folder: Path, whole: Path, random_: random.Random) -> None:
    """Make `folder` a mutation of the model folder `whole`."""
    (weights,) = whole.glob("*.safetensors")
    text, content = (whole / "model.json").read_bytes(), weights.read_bytes()
    kind = random_.choice(["edit", "edit", "edit", "text", "weights", "weights"])
    if kind == "edit":
        text = json.dumps(edited(json.loads(text), random_)).encode()
    elif kind == "text":
        text = flipped(text, random_)
    else:
        content = flipped(content, random_)
    for old in folder.glob("*"):
        old.unlink()
    (folder / "model.json").write_bytes(text)
    (folder / weights.name).write_bytes(content)

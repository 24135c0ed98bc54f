"""Model folders: weights as safetensors, everything else as JSON, never a pickle."""

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model

from bayesmeta.description import construct, describe
from bayesmeta.errors import DataError
from bayesmeta.learner import Learner

FORMAT = 1


def save(learner: Learner, folder: str | Path, extra: dict[str, Any] | None = None) -> None:
    """Write a model folder. A folder that holds a model already is replaced file by file, each in one step.

    Args:
        learner: built from bayesmeta's classes, or from others that inherit `bayesmeta.description.Described`.
        folder: made when it does not exist.
        extra: plain JSON to keep with the model.

    Raises:
        UnsupportedError: a part of the learner cannot be described. DataError: the folder cannot be written.
    """
    folder = Path(folder)
    parameter = next(learner.parameters(), None)
    manifest = {
        "format": FORMAT,
        "learner": describe(learner),
        "dtype": str(torch.float64 if parameter is None else parameter.dtype).removeprefix("torch."),
        "extra": {} if extra is None else extra,
    }
    text = json.dumps(manifest, indent=1)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        weights, description = folder / "weights.safetensors", folder / "model.json"
        save_model(learner, str(weights) + ".new")
        Path(str(description) + ".new").write_text(text)
        os.replace(str(weights) + ".new", weights)
        os.replace(str(description) + ".new", description)
    except OSError as error:
        raise DataError(f"expected a folder that can be written, got {folder}: {error}") from error


def load(folder: str | Path) -> Learner:
    """The learner of a model folder. Raises DataError when the folder is not a whole model folder."""
    return load_with_extra(folder)[0]


def load_with_extra(folder: str | Path) -> tuple[Learner, dict[str, Any]]:
    """The learner of a model folder, and what was kept with it. Raises DataError like `load`."""
    folder = Path(folder)
    weights, description = folder / "weights.safetensors", folder / "model.json"
    for path in (description, weights):
        if not path.is_file():
            raise DataError(f"expected a model folder with {path.name}, got {folder} without it")
    try:
        manifest = json.loads(description.read_text())
        if manifest["format"] != FORMAT:
            raise DataError(f"expected a model folder of format {FORMAT}, got {manifest['format']!r} in {folder}")
        learner, dtype = construct(manifest["learner"]), getattr(torch, manifest["dtype"])
        extra = manifest["extra"]
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"expected a whole model.json in {folder}, got a broken one: {error}") from error
    if not isinstance(learner, Learner):
        raise DataError(f"expected a learner in {folder}, got {type(learner).__name__}")
    learner.to(dtype)
    try:
        load_model(learner, weights)
    except (SafetensorError, RuntimeError, OSError) as error:
        raise DataError(f"expected whole weights of this model in {weights}, got broken ones: {error}") from error
    return learner, extra

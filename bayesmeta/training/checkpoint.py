"""Model folders: weights as safetensors, everything else as JSON, never a pickle."""

import json
import os
import uuid
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model

from bayesmeta.description import construct, describe
from bayesmeta.errors import DataError, UnsupportedError
from bayesmeta.learner import Learner
from bayesmeta.modes import settled

FORMAT = 1


def save(learner: Learner, folder: str | Path, extra: dict[str, Any] | None = None) -> None:
    """Write a model folder. A model that is there already is replaced in one step: a save that fails leaves it whole.

    Args:
        learner: built from bayesmeta's classes, or from others that inherit `bayesmeta.description.Described`.
        folder: it is made when it does not exist.
        extra: plain JSON to keep with the model.

    Raises:
        UnsupportedError: a part of the learner cannot be described. DataError: the folder cannot be written.

    Example:
        >>> import tempfile
        >>> import bayesmeta as bm
        >>> learner = bm.ALPaCA(bm.MLP(1, [8]))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     bm.save(learner, f"{folder}/model")
        ...     loaded = bm.load(f"{folder}/model")
        >>> bool((loaded.prior.location == learner.prior.location).all())
        True
    """
    require_savable(learner, folder)
    folder = Path(folder)
    parameter = next(learner.parameters(), None)
    weights = f"weights-{uuid.uuid4().hex[:12]}.safetensors"  # a new file: the old weights serve until the end
    manifest = {
        "format": FORMAT,
        "learner": describe(learner),
        "dtype": str(torch.float64 if parameter is None else parameter.dtype).removeprefix("torch."),
        "weights": weights,
        "extra": {} if extra is None else extra,
    }
    try:
        text = json.dumps(manifest, indent=1)
    except (TypeError, ValueError) as error:
        raise UnsupportedError(f"expected extra to be plain JSON, got {extra!r}: {error}") from error
    written = [folder / weights, folder / f"{weights}.json"]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_model(learner, str(written[0]))
        written[1].write_text(text)
        os.replace(written[1], folder / "model.json")  # from here on the folder is the new model
    except (OSError, SafetensorError) as error:
        for path in written:
            path.unlink(missing_ok=True)
        raise DataError(f"expected a folder that can be written, got {folder}: {error}") from error
    for path in folder.glob("weights-*.safetensors"):
        if path.name != weights:
            path.unlink(missing_ok=True)


def require_savable(learner: Learner, folder: str | Path) -> None:
    """Raise now, before a long training, what `save` would raise after it.

    Args:
        learner: what is to be saved.
        folder: where.

    Raises:
        UnsupportedError: a part of the learner cannot be described. DataError: the folder cannot be written.

    Example:
        >>> import bayesmeta as bm
        >>> from bayesmeta.training.checkpoint import require_savable
        >>> require_savable(bm.ALPaCA(bm.MLP(1, [8])), "model")  # raises nothing, and writes nothing
    """
    describe(learner)
    existing = next(path for path in (Path(folder).absolute(), *Path(folder).absolute().parents) if path.exists())
    if not existing.is_dir():
        raise DataError(f"expected a folder that can be written, got {folder}: {existing} is a file")
    if not os.access(existing, os.W_OK):
        raise DataError(f"expected a folder that can be written, got {folder}: {existing} is read-only")


def load(folder: str | Path) -> Learner:
    """The learner of a model folder, with its theta, in the precision in which it was saved.

    A folder is data: only classes of the library, and those of yours that are imported, can be built from it.

    Args:
        folder: as `save` or a checkpoint of `fit` has written it.

    Raises:
        DataError: the folder is not a whole model folder.

    Example:
        >>> import tempfile
        >>> import bayesmeta as bm
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     bm.save(bm.Standardized(bm.ALPaCA(bm.MLP(1, [8]))).double(), folder)
        ...     learner = bm.load(folder)
        >>> learner.title, learner.x_shape
        ('Standardized(ALPaCA)', (1,))
    """
    return load_with_extra(folder)[0]


@settled
def load_with_extra(folder: str | Path) -> tuple[Learner, dict[str, Any]]:
    """The learner of a model folder, and what was kept with it.

    Args:
        folder: as `save` has written it.

    Raises:
        DataError: the folder is not a whole model folder.

    Example:
        >>> import tempfile
        >>> import bayesmeta as bm
        >>> from bayesmeta.training.checkpoint import load_with_extra
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     bm.save(bm.ALPaCA(bm.MLP(1, [8])), folder, {"unit": "mg/l"})
        ...     load_with_extra(folder)[1]
        {'unit': 'mg/l'}
    """
    folder = Path(folder)
    description = folder / "model.json"
    if not description.is_file():
        raise DataError(f"expected a model folder with model.json, got {folder} without it")
    try:
        manifest = json.loads(description.read_text())
        if manifest["format"] != FORMAT:
            raise DataError(f"expected a model folder of format {FORMAT}, got {manifest['format']!r} in {folder}")
        named, extra, dtype = Path(manifest["weights"]).name, manifest["extra"], getattr(torch, manifest["dtype"])
        described = manifest["learner"]
        if not isinstance(dtype, torch.dtype):
            raise TypeError(f"{manifest['dtype']!r} is no precision")
    except (json.JSONDecodeError, UnicodeDecodeError, OSError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"expected a whole model.json in {folder}, got a broken one: {error}") from error
    weights = folder / named
    if not weights.is_file():
        raise DataError(f"expected a model folder with {named}, got {folder} without it")
    learner = construct(described)
    if not isinstance(learner, Learner):
        raise DataError(f"expected a learner in {folder}, got {type(learner).__name__}")
    learner.to(dtype)
    try:
        load_model(learner, weights)
    except (SafetensorError, RuntimeError, OSError) as error:
        raise DataError(f"expected whole weights of this model in {weights}, got broken ones: {error}") from error
    return learner, extra

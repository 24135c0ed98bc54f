"""Model folders: weights as safetensors, everything else as JSON, never a pickle."""

import os
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from bayesmeta.annotations import said
from bayesmeta.description import construct, describe
from bayesmeta.errors import DataError, UnsupportedError
from bayesmeta.learner import Learner
from bayesmeta.modes import settled
from bayesmeta.torch_private import Budget, Growing
from bayesmeta.training.model_folder import as_json, opened, write_model

FORMAT = 1
FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
WHOLE = {"I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8}
KINDS = {**FLOATS, **WHOLE, "BOOL": torch.bool}  # what safetensors calls the types that a folder may hold
BESIDE = 2**27  # bytes that a model may take in memory beside its weights, such as a fixed grid
PRECISIONS = {str(dtype).removeprefix("torch."): dtype for dtype in FLOATS.values()}


def save(learner: Learner, folder: str | Path, extra: dict[str, Any] | None = None) -> None:
    """Write a model folder. A model that is there already is replaced in one step: a save that fails leaves it whole.

    Many processes may write to a folder and read it at once: whoever loads it gets one of the models. Other files in it
    are left alone; what a killed save has left is removed by the next one.

    Args:
        learner: built from bayesmeta's classes, or from others that inherit `bayesmeta.description.Described`.
        folder: it is made when it does not exist.
        extra: plain JSON to keep with the model.

    Raises:
        UnsupportedError: a part of the learner cannot be described, or `extra` is not plain JSON.
        DataError: the folder cannot be written, or a parameter is not finite. A model that is there already is still
            whole.

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
    if not isinstance(extra, dict | None):
        raise UnsupportedError(f"expected extra to be a dictionary, got {said(extra)}")
    parameter = next(learner.parameters(), None)
    manifest = {
        "format": FORMAT,
        "learner": describe(learner),
        "dtype": str(torch.float64 if parameter is None else parameter.dtype).removeprefix("torch."),
        "extra": {} if extra is None else extra,
    }
    as_json(manifest)  # now: nothing is to be written of what cannot be
    for name, value in learner.state_dict().items():
        if not isinstance(value, Tensor) or value.dtype not in KINDS.values():
            raise UnsupportedError(f"expected tensors of real numbers in {type(learner).__name__}, got {name!r}")
    state = {name: value.detach().cpu().clone().contiguous() for name, value in learner.state_dict().items()}
    _require_usable(learner, state, f"to save in {folder}")
    write_model(Path(folder), safetensors.torch.save(state), manifest)


def require_savable(learner: Learner, folder: str | Path) -> None:
    """Raise now, before a long training, what `save` would raise after it.

    Args:
        learner: what is to be saved.
        folder: where.

    Raises:
        UnsupportedError: a part of the learner cannot be described.
        DataError: the folder cannot be written.

    Example:
        >>> import bayesmeta as bm
        >>> from bayesmeta.training.checkpoint import require_savable
        >>> require_savable(bm.ALPaCA(bm.MLP(1, [8])), "model")  # raises nothing, and writes nothing
    """
    describe(learner)
    try:
        path = Path(folder).absolute()
        existing = next(each for each in (path, *path.parents) if each.exists() or each.is_symlink())
        is_folder, may_write = existing.is_dir(), os.access(existing, os.W_OK)
    except (OSError, TypeError, ValueError) as error:  # a name that is too long, no name at all, one with a NUL
        raise DataError(f"expected a folder that can be written, got {folder!r}: {error}") from error
    if not is_folder:
        what = "a file" if existing.exists() else "a link to nothing"
        raise DataError(f"expected a folder that can be written, got {folder}: {existing} is {what}")
    if not may_write:
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
    try:
        folder = Path(folder)
    except TypeError as error:
        raise DataError(f"expected a model folder, got {said(folder)}") from error
    # inference mode would make a learner that cannot be trained
    with torch.inference_mode(False), opened(folder) as (manifest, weights):
        if "format" in manifest and manifest["format"] != FORMAT:
            raise DataError(f"expected a model folder of format {FORMAT}, got {said(manifest['format'])} in {folder}")
        for name, kind in {"format": int, "learner": object, "dtype": str, "extra": dict}.items():
            if not isinstance(manifest.get(name), kind) or name not in manifest:
                found = said(manifest[name]) if name in manifest else "none"
                raise DataError(f"expected a whole model.json in {folder}, got a broken one: {name} is {found}")
        if manifest["dtype"] not in PRECISIONS:
            raise DataError(f"expected a whole model.json in {folder}, got no precision: {said(manifest['dtype'])}")
        sizes = _sizes(weights, folder)
        learner = _constructed(manifest["learner"], PRECISIONS[manifest["dtype"]], sizes, folder)
        _fill(learner, weights, sizes, folder)
    return learner, manifest["extra"]


def _sizes(weights: Any, folder: Path) -> dict[str, tuple[torch.Size, torch.dtype]]:
    """Shape and precision of every tensor, by the header: nothing is read or allocated yet."""
    found = {}
    try:
        for name in weights.keys():  # noqa: SIM118 (it is no dictionary)
            part = weights.get_slice(name)
            kind = part.get_dtype()
            if kind not in KINDS:
                raise DataError(f"expected whole weights of this model in {folder}, got {name!r} of type {said(kind)}")
            found[name] = torch.Size(part.get_shape()), KINDS[kind]
    except (SafetensorError, ValueError, TypeError, RuntimeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"expected whole weights of this model in {folder}, got broken ones: {error}") from error
    return found


def _constructed(
    description: Any, dtype: torch.dtype, sizes: dict[str, tuple[torch.Size, torch.dtype]], folder: Path
) -> Learner:
    """The learner with fresh weights, which may be no larger than those of the file and what is made beside them."""
    size = sum(8 * shape.numel() for shape, _ in sizes.values())
    try:
        with Budget(2 * size + BESIDE, 16 * size + 2 * BESIDE, 1_000 * len(sizes) + 10_000):
            learner = construct(description)
            if not isinstance(learner, Learner):
                raise DataError(f"expected a learner in {folder}, got {type(learner).__name__}")
            learner.to(dtype)
    except RecursionError as error:
        raise DataError(f"expected a learner in {folder}, got a description nested too deeply") from error
    return learner


def _fill(learner: Learner, weights: Any, sizes: dict[str, tuple[torch.Size, torch.dtype]], folder: Path) -> None:
    """Give the learner the weights of the file, which must be its own by name, shape and kind of number."""
    own = learner.state_dict(keep_vars=True)
    tied = {id(own[name]) for name in own.keys() & sizes.keys()}  # of parameters that are one, one may be stored
    wrong = [f"no {name!r}" for name in own if name not in sizes and id(own[name]) not in tied]
    wrong += [f"{name!r}, which it does not have" for name in sizes if name not in own]
    growing = {
        f"{path}.{name}" if path else name
        for path, module in learner.named_modules()
        if isinstance(module, Growing)
        for name in module.growing
    }
    for name in own.keys() & sizes.keys():
        (shape, dtype), (own_shape, own_dtype) = sizes[name], (own[name].shape, own[name].dtype)
        if name in growing and shape[1:] == own_shape[1:]:
            own_shape = shape
        if shape != own_shape or (dtype != own_dtype and not (dtype.is_floating_point and own_dtype.is_floating_point)):
            wrong.append(f"{name!r} with {tuple(shape)} {dtype} for {tuple(own_shape)} {own_dtype}")
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise DataError(f"expected whole weights of this model in {folder}, got {'; '.join(wrong[:3])}{more}")
    try:
        state = {name: weights.get_tensor(name) for name in sizes}
        _require_usable(learner, state, f"in {folder}")
        learner.load_state_dict(state, strict=False)
    except (SafetensorError, RuntimeError, OSError) as error:
        raise DataError(f"expected whole weights of this model in {folder}, got broken ones: {error}") from error


def _require_usable(learner: Learner, state: dict[str, Tensor], where: str) -> None:
    """Raise DataError where a parameter is not finite, or a buffer not a number: bounds may be infinite."""
    parameters = {name for name, _ in learner.named_parameters(remove_duplicate=False)}
    for name, value in state.items():
        bad = ~value.isfinite() if name in parameters else value.isnan()
        if bool(bad.any()):
            raise DataError(f"expected finite weights {where}, got {value[bad][0].item()} in {name!r}")

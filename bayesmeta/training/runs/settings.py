"""What a run was started with, as JSON: it goes on with the same, or not at all."""

import hashlib
import platform
from typing import Any

import torch

from bayesmeta.annotations import said
from bayesmeta.description import describe
from bayesmeta.errors import DataError
from bayesmeta.learner import Learner
from bayesmeta.tasks.dataset import TaskDataset
from bayesmeta.version import VERSION

Settings = dict[str, Any]
"""The arguments of a training by name: plain JSON, or whatever prints as what it is."""


def versions() -> dict[str, str]:
    """What computes: other versions may round otherwise.

    Example:
        >>> sorted(versions())
        ['bayesmeta', 'python', 'torch']
    """
    return {"bayesmeta": VERSION, "torch": str(torch.__version__), "python": platform.python_version()}


def plain(settings: Settings) -> Settings:
    """Settings as JSON: learners as model folders describe them, tasks as a digest, others as they print.

    Args:
        settings: by name.

    Example:
        >>> import bayesmeta as bm
        >>> plain({"steps": 10, "split": bm.tasks.RandomSplit.at(3), "compile": False})
        {'steps': 10, 'split': 'RandomSplit(support=(3, 3), query=None)', 'compile': False}
    """
    return {name: _plain(value) for name, value in settings.items()}


def digest(tasks: TaskDataset) -> str:
    """What tells tasks from others: 16 digits that depend on every number of them.

    Args:
        tasks: of any length.

    Example:
        >>> import bayesmeta as bm
        >>> digest(bm.tasks.Sinusoid().dataset(3, 5, seed=0)) == digest(bm.tasks.Sinusoid().dataset(3, 5, seed=1))
        False
    """
    flat, found = tasks.flat, hashlib.sha256()
    for value in (flat.x, flat.y, flat.counts, flat.noise):
        if value is not None:
            found.update(repr((value.shape, value.dtype)).encode())
            found.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()[:16]


def require_same(asked: Settings, found: Settings, where: str) -> None:
    """Refuse to go on with a run that was started otherwise.

    Args:
        asked: the settings of now, `plain`.
        found: those of the run.
        where: the folder, for the message.

    Raises:
        DataError: one of them differs; the message names it.
    """
    for name in [*asked, *(each for each in found if each not in asked)]:
        if asked.get(name) != found.get(name):
            if isinstance(asked.get(name), dict | list) or name in ("tasks", "validation"):
                told = f"expected the {name} of the run in {where}, got another"
            else:
                here, there = said(asked.get(name)), said(found.get(name))
                told = f"expected {name}={there}, as the run in {where} has it, got {here}"
            raise DataError(
                f"{told}: a run goes on with the settings that it began with. Pass them, name another folder, or begin "
                "anew with resume='never'"
            )


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, TaskDataset):
        return digest(value)
    if isinstance(value, Learner):
        dtypes = {name: str(each.dtype) for name, each in value.named_parameters() if each.requires_grad}
        return {"model": describe(value), "trained": dtypes}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return repr(value)

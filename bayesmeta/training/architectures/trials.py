"""Trials of architectures, and the file that keeps them: a line of JSON each, so that a search can be killed."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bayesmeta.errors import DataError
from bayesmeta.evaluation.bootstrap import resampled
from bayesmeta.one_line import OneLine
from bayesmeta.outputs import write
from bayesmeta.training.architectures.spaces import Architecture, Space

RESAMPLINGS = 1_000  # of the validation tasks, for the error of a score


@dataclass(frozen=True)
class Trial(OneLine):
    """One training of one architecture, and what it is worth on validation tasks.

    Attributes:
        architecture: what was trained.
        round: of the search, from 0: how many blocks were added to the smallest.
        rung: of successive halving, from 0.
        steps: gradient steps.
        seed: of weights and batches.
        parameters: the numbers of the network.
        seconds: processor time of the training.
        density: log p(query | support) of each validation task, divided by its query points, nats per point; empty
            where training failed.
        evidence: Σ_t log p(query_t | support_t), nats.
        score: the mean of `density` over tasks.
        error: standard error of the score, by a bootstrap over tasks.
        failure: why there is no score; empty where there is one.

    Example:
        >>> architecture = Architecture((("depth", 1), ("width", 8)))
        >>> trial = Trial.scored(architecture, [-1.0, -3.0], [10, 10], rung=0, round=0, steps=5, seed=0, parameters=16)
        >>> trial
        depth 1, width 8: -2.000 ± 0.705 nats per point after 5 steps
        >>> trial.evidence
        -40.0
    """

    architecture: Architecture
    round: int
    rung: int
    steps: int
    seed: int
    parameters: int
    seconds: float = 0.0
    density: tuple[float, ...] = ()
    evidence: float = -float("inf")
    score: float = -float("inf")
    error: float = 0.0
    failure: str = ""

    def __repr__(self) -> str:
        """One line."""
        told = self.failure or f"{self.score:.3f} ± {self.error:.3f} nats per point"
        return f"{self.architecture}: {told} after {self.steps} steps"

    @classmethod
    def scored(
        cls,
        architecture: Architecture,
        density: Sequence[float] | np.ndarray,
        counts: Sequence[int] | np.ndarray,
        **others: Any,
    ) -> "Trial":
        """A trial from the density of each validation task.

        Args:
            architecture: what was trained.
            density: nats per point, of each task.
            counts: query points of each task.
            others: the other attributes, by name.
        """
        each, points = np.asarray(density, float), np.asarray(counts, float)
        means = np.concatenate([weights @ each / len(each) for weights in resampled(len(each), RESAMPLINGS)])
        return cls(
            architecture,
            density=tuple(each.tolist()),
            evidence=float(each @ points),
            score=float(each.mean()),
            error=float(means.std()),
            **others,
        )

    def to_json(self) -> dict[str, Any]:
        """A row of the file."""
        row = asdict(self) | {"architecture": dict(self.architecture.choices)}
        return row if self.density else row | {"score": None, "evidence": None}

    @classmethod
    def from_json(cls, row: dict[str, Any], space: Space) -> "Trial":
        """The trial of a row."""
        values = {name: value for name, value in row.items() if value is not None}
        values["architecture"] = space.of(row["architecture"])
        return cls(**values | {"density": tuple(row["density"])})

    @property
    def key(self) -> tuple[Architecture, int]:
        """What there is one trial of: an architecture on a rung."""
        return self.architecture, self.rung

    @property
    def untimed(self) -> "Trial":
        """The same but for the time it took, which no seed decides."""
        return replace(self, seconds=0.0)


def write_trials(path: Path, search: dict[str, Any], trials: Sequence[Trial]) -> None:
    """Write a file of trials whole: a line that says what search they are of, and a line for each.

    Args:
        path: the file.
        search: what the search is.
        trials: in their order.

    Raises:
        DataError: the file cannot be written.
    """
    lines = [json.dumps(each) for each in ({"search": search}, *(trial.to_json() for trial in trials))]
    write(path, "".join(f"{line}\n" for line in lines).encode())


def read_trials(path: Path, search: dict[str, Any], space: Space) -> list[Trial]:
    """The trials of a file, none where there is no file.

    Args:
        path: the file.
        search: what the search is that goes on.
        space: of its architectures.

    Raises:
        DataError: no file of trials, or one of another search.
    """
    if not path.exists():
        return []
    try:
        first, *rows = [json.loads(line) for line in path.read_text().splitlines()]
        found = first["search"]
        trials = [Trial.from_json(row, space) for row in rows] if found == search else []
    except (OSError, UnicodeDecodeError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"expected a file of trials, got {path}: {error}") from error
    different = [name for name in search if not isinstance(found, dict) or found.get(name) != search[name]]
    if different or found != search:
        raise DataError(
            f"expected the trials of this search, got those of one with another {' and '.join(different)} in {path}: "
            "name another file, or search as before"
        )
    return trials

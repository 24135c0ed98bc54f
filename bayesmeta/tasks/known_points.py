"""What is known of named tasks so far: the rows of their tables, added up, in memory or in a file between two runs."""

import hashlib
import json
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from bayesmeta.description import describe
from bayesmeta.errors import DataError, ShapeError
from bayesmeta.flat import FlatData
from bayesmeta.frame_kinds import as_pandas
from bayesmeta.learner import Learner
from bayesmeta.outputs import write
from bayesmeta.task_names import texts
from bayesmeta.tasks.table import Schema

if TYPE_CHECKING:
    import pandas as pd

KIND = "bayesmeta known points"
"""What a file of them says of itself."""

FORMAT = 1


@dataclass(frozen=True, eq=False)
class KnownPoints:
    """The known points of named tasks, which `predict_frame` takes in the place of a table of context.

    What is kept are the rows themselves, as numbers, and no summary of them: every learner then adapts to all of them
    at once, and a belief that grew in ten updates is the one that a single table would have given. Rows of a task stay
    in the order in which they came, which matters to learners that read sequences alone.

    Attributes:
        schema: which column was what.
        names: of the tasks, in the order of their first row.
        points: of the tasks.

    Example:
        >>> import pandas as pd
        >>> import bayesmeta as bm
        >>> schema = bm.tasks.Schema("cell", x=("day",), y=("volt",))
        >>> monday = pd.DataFrame({"cell": ["07", "12"], "day": [0, 0], "volt": [4.1, 4.2]})
        >>> tuesday = pd.DataFrame({"cell": ["07", "13"], "day": [1, 1], "volt": [4.0, 4.2]})
        >>> known = bm.tasks.KnownPoints.of(schema, monday).extended(tuesday)
        >>> known
        KnownPoints(4 rows of 3 tasks)
        >>> known.of_tasks(["07"]).y.flatten().tolist()
        [4.1, 4.0]
    """

    schema: Schema
    names: tuple[Hashable, ...]
    points: FlatData

    @classmethod
    def none(cls, schema: Schema) -> "KnownPoints":
        """Nothing, of no task.

        Example:
            >>> KnownPoints.none(Schema("cell", x=("day",), y=("volt",)))
            KnownPoints(0 rows of 0 tasks)
        """
        shape = (0,) if schema.classes else (0, len(schema.y))
        y = torch.zeros(shape, dtype=torch.int64 if schema.classes else torch.float64)
        noise = torch.zeros(shape, dtype=torch.float64) if schema.yerr else None
        x = torch.zeros(0, len(schema.x_names), dtype=torch.float64)
        return cls(schema, (), FlatData(x, y, torch.zeros(1, dtype=torch.int64), noise))

    @classmethod
    def of(cls, schema: Schema, frame: "pd.DataFrame") -> "KnownPoints":
        """The rows of a table that have an outcome, one of several at least; nothing is asked of the others.

        Raises:
            DataError: a column or cell cannot be read as the schema says.
        """
        frame = as_pandas(frame)
        frame = frame[schema.has_outcome(frame)]
        rows, names = schema.tasks(frame)
        data = schema.points(frame)
        noise = None if data.noise is None else data.noise[0]
        grouped = FlatData.grouped(data.x[0], data.y[0], torch.from_numpy(rows), len(names), noise)
        return cls(schema, tuple(names), grouped)

    def extended(self, frame: "pd.DataFrame") -> "KnownPoints":
        """These and the rows of another table: of the same tasks, of others, or of both.

        A row that is known already is one more measurement, and counts twice (`repeated` says how many are).

        Raises:
            DataError: a column or cell cannot be read as the schema says, or a covariate of a task is another than in
                its earlier rows.
        """
        more = KnownPoints.of(self.schema, frame)
        new, known = self._places(more)
        self._require_same_covariates(more, new)
        names = [*self.names, *(more.names[i] for i in range(len(new)) if new[i] >= len(self.names))]
        tasks = torch.cat([known, new.repeat_interleave(more.points.counts)])
        x, y = torch.cat([self.points.x, more.points.x]), torch.cat([self.points.y, more.points.y])
        ours, theirs = self.points.noise, more.points.noise
        each = [torch.zeros_like(part.points.y) if own is None else own for part, own in ((self, ours), (more, theirs))]
        noise = None if ours is None and theirs is None else torch.cat(each)
        return KnownPoints(self.schema, tuple(names), FlatData.grouped(x, y, tasks, len(names), noise))

    def repeated(self, frame: "pd.DataFrame") -> int:
        """How many rows of a table are known already: of the same task, with the same inputs and outcomes.

        Raises:
            DataError: a column or cell cannot be read as the schema says.

        Example:
            >>> import pandas as pd
            >>> schema = Schema("cell", x=(), y=("volt",))
            >>> frame = pd.DataFrame({"cell": ["07", "07", "12"], "volt": [4.1, 4.2, 4.1]})
            >>> KnownPoints.of(schema, frame.head(1)).repeated(frame)
            1
        """
        more = KnownPoints.of(self.schema, frame)
        new, known = self._places(more)
        seen = set(_rows(known, self.points))
        return sum(row in seen for row in _rows(new.repeat_interleave(more.points.counts), more.points))

    def of_tasks(self, names: Sequence[Hashable]) -> FlatData:
        """The points of these tasks, in this order; none of a task of which nothing is known."""
        place = {text: i for i, text in enumerate(texts(names))}
        tasks = torch.tensor([place.get(text, -1) for text in texts(self.names)], dtype=torch.long)
        rows = tasks.repeat_interleave(self.points.counts)
        asked = rows >= 0
        noise = None if self.points.noise is None else self.points.noise[asked]
        return FlatData.grouped(self.points.x[asked], self.points.y[asked], rows[asked], len(names), noise)

    def save(self, path: str | Path, learner: Learner) -> None:
        """Write a file for predictions by this learner alone: safetensors with JSON in its header, never a pickle.

        It is replaced in one step: whoever reads it meanwhile, or kills the writing, has the old one whole.

        Args:
            path: of the file; it holds the rows as numbers, with names of tasks, columns and categories.
            learner: what will predict from it.

        Raises:
            DataError: the file cannot be written.

        Example:
            >>> import pandas as pd
            >>> import bayesmeta as bm
            >>> known = KnownPoints.of(Schema("cell", x=(), y=("volt",)), pd.DataFrame({"cell": ["07"], "volt": [4.1]}))
            >>> learner = bm.ALPaCA(bm.Identity(0))
            >>> known.save("cells.state", learner)
            >>> KnownPoints.load("cells.state", learner).names
            ('07',)
        """
        about = {"format": FORMAT, "model": fingerprint(learner), "schema": self.schema.to_json()}
        about["names"] = texts(self.names)
        parts = {"x": self.points.x, "y": self.points.y, "offsets": self.points.offsets}
        if self.points.noise is not None:
            parts["noise"] = self.points.noise
        tensors = {name: part.clone().contiguous() for name, part in parts.items()}
        write(Path(path), safetensors.torch.save(tensors, {KIND: json.dumps(about)}))

    @classmethod
    def load(cls, path: str | Path, learner: Learner) -> "KnownPoints":
        """What `save` wrote for this learner; names are texts.

        Raises:
            DataError: it is no such file, it is broken, or it was written for another learner.
        """
        about, tensors = _read(Path(path))
        try:
            schema, names, model = Schema.from_json(about["schema"]), tuple(map(str, about["names"])), about["model"]
            points = FlatData(tensors["x"], tensors["y"], tensors["offsets"], tensors.get("noise"))
        except (KeyError, TypeError, ShapeError, DataError) as error:
            raise DataError(f"expected a whole file of known points in {path}, got a broken one: {error}") from error
        _require_readable(schema, names, points, Path(path))
        if model != fingerprint(learner):
            raise DataError(
                f"expected known points for this model in {path}, got those for another: take the model that they were "
                "written with, or begin a new file with all rows"
            )
        return cls(schema, names, points)

    def __repr__(self) -> str:
        """How much is known."""
        count, tasks = len(self.points.x), len(self.names)
        return f"KnownPoints({count:,} row{'s' * (count != 1)} of {tasks:,} task{'s' * (tasks != 1)})"

    def _places(self, more: "KnownPoints") -> tuple[Tensor, Tensor]:
        """The place among all tasks of each task of `more`, and of each row of ours."""
        place = {text: i for i, text in enumerate(texts(self.names))}
        new = torch.tensor([place.setdefault(text, len(place)) for text in texts(more.names)], dtype=torch.long)
        return new, torch.arange(len(self.names)).repeat_interleave(self.points.counts)

    def _require_same_covariates(self, more: "KnownPoints", new: Tensor) -> None:
        end = len(self.schema.x_names) - len(self.schema.within) - len(self.schema.groups)
        columns = slice(end - self.schema.num_covariates, end)
        ours, theirs = (known.points.x[known.points.offsets[:-1], columns] for known in (self, more))
        for i, place in enumerate(new.tolist()):
            changed = place < len(self.names) and (ours[place] != theirs[i]).nonzero().flatten().tolist()
            if changed:
                name = self.schema.x_names[columns][changed[0]]
                before, now = float(ours[place, changed[0]]), float(theirs[i, changed[0]])
                raise DataError(
                    f"expected the covariate {name!r} of task {more.names[i]!r} to stay {before:g}, got {now:g}: "
                    "a covariate is constant within a task"
                )


def is_known_points(path: Path) -> bool:
    r"""Whether a file begins like one that `KnownPoints.save` has written, rather than like a table.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "table.csv")
        ...     _ = path.write_text("cell,volt\n07,4.1\n")
        ...     is_known_points(path)
        False
    """
    try:
        with path.open("rb") as file:
            return KIND.encode() in file.read(200) if path.is_file() else False
    except OSError:
        return False


def fingerprint(learner: Learner) -> str:
    """A text that two learners share where they predict the same: a hash of how they are built and of all theta.

    Example:
        >>> import bayesmeta as bm
        >>> learner = bm.ALPaCA(bm.Polynomial(1, 2))
        >>> fingerprint(learner) == fingerprint(learner.frozen()), len(fingerprint(learner))
        (True, 64)
    """
    found = hashlib.sha256(json.dumps(describe(learner), sort_keys=True).encode())
    for name, value in sorted(learner.state_dict().items()):
        found.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        found.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def _rows(tasks: Tensor, points: FlatData) -> list[tuple[int, bytes]]:
    """Every row as its task and its bytes, of which zero has but one kind."""
    y = points.measured.double() if points.y.ndim == 2 else points.y.double()[:, None]
    cells = torch.cat([points.x.double(), y], 1) + 0.0
    return [(task, row.tobytes()) for task, row in zip(tasks.tolist(), cells.numpy(), strict=True)]


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if not path.is_file():
        raise DataError(f"expected a file of known points in {path}, got {'a folder' if path.is_dir() else 'none'}")
    if not is_known_points(path):
        raise DataError(f"expected a file of known points in {path}, got another kind of file")
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads(file.metadata()[KIND])
            if about["format"] != FORMAT:
                raise DataError(f"expected a file of format {FORMAT} in {path}, got {about['format']!r}")
            return about, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dictionary)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"expected a whole file of known points in {path}, got a broken one: {error}") from error


def _require_readable(schema: Schema, names: Sequence[str], points: FlatData, path: Path) -> None:
    """Raise DataError where the numbers of a file are not what its schema says."""
    kind = (torch.int64, 1) if schema.classes else (torch.float64, 2)
    is_right = (
        points.x.dtype == torch.float64
        and points.x.shape[1:] == (len(schema.x_names),)
        and (points.y.dtype, points.y.ndim) == kind
        and (bool(schema.classes) or points.y.shape[1] == len(schema.y))
        and len(set(names)) == len(names) == points.num_tasks
        and (points.noise is not None or not schema.yerr)
        and (points.noise is None or bool(schema.yerr) or len(schema.y) > 1)
        and bool(points.x.isfinite().all())
        and bool((points.counts > 0).all())
    )
    if is_right and schema.classes:
        is_right = bool(((points.y >= 0) & (points.y < len(schema.classes))).all())
    if not is_right:
        raise DataError(f"expected a whole file of known points in {path}, got one whose rows are not of its columns")

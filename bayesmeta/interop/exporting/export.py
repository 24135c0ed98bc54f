"""`bm.export`: a trained learner as a folder of programs that run without this library."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bayesmeta.annotations import said
from bayesmeta.errors import DataError
from bayesmeta.interop.exporting.forms import Form, TorchProgram
from bayesmeta.interop.exporting.programs import Program, Recorded, adapt_predict
from bayesmeta.interop.exporting.streams import stream_programs, streams
from bayesmeta.learner import Learner
from bayesmeta.modes import settled
from bayesmeta.outcomes import Labels
from bayesmeta.outputs import whole_folder
from bayesmeta.version import VERSION

MANIFEST = "manifest.json"
FORMAT = 1
MEANING_OF_AXES = {
    "B": "tasks, or streams: any number",
    "N": "support points of each task, padding included: any number, 0 too",
    "M": "query points of each task: any number",
}


@settled
def export(learner: Learner, folder: str | Path, forms: Sequence[Form] = (TorchProgram(),)) -> None:
    """Write a trained learner as programs that run where this library is not: with torch alone, or onnxruntime alone.

    A folder holds

        adapt_predict    (support_x, support_y, support_mask, query_x) -> the parameters of each query's distribution
        update           (x, y, weights_mean, weights_root) -> the next two: one point of each stream
        predict          (query_x, weights_mean, weights_root) -> the parameters of each query's distribution
        state            weights_mean and weights_root before the first point: the prior
        manifest.json    names, axes, precisions and units of all of these

    in each of the `forms`. Tasks B, support points N and query points M may be any number, 0 support points too (the
    prior predictive). Inputs and outcomes are in the user's units: wrappers such as `Standardized` are inside. `update`
    and `predict` are there where the posterior has a fixed size, as that of `ALPaCA` and `R2D2Regressor`. Programs are
    compared with the library on a few made-up tasks before anything is written; they check nothing of what they are
    given, and know no known noise (`yerr`). The folder appears whole, or not at all.

    Args:
        learner: trained; its theta is written as it is now.
        folder: a new one, or one that was exported before, which is replaced.
        forms: `TorchProgram`, `InductorPackage` or `OnnxProgram` of `bayesmeta.interop.exporting`.

    Raises:
        UnsupportedError: the learner cannot be recorded for any number of points (learners that adapt by gradients, or
            that read their classes off the support), or a form does not know its operations.
        DataError: the folder cannot be written, or holds other files.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import bayesmeta as bm
        >>> learner = bm.ALPaCA(bm.MLP(1, [8]))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     bm.export(learner, f"{folder}/robot")
        ...     sorted(path.name for path in Path(folder, "robot").iterdir())
        ['adapt_predict.pt2', 'manifest.json', 'predict.pt2', 'state.pt', 'update.pt2']
    """
    if not isinstance(learner, Learner):
        raise DataError(f"expected a learner, got {said(learner)}")
    if not isinstance(forms, Sequence) or not forms or not all(isinstance(form, Form) for form in forms):
        raise DataError(f"expected forms such as [TorchProgram()], got {said(forms)}")
    try:
        folder = Path(folder)
    except TypeError as error:
        raise DataError(f"expected a folder to write to, got {said(folder)}") from error
    _require_replaceable(folder)
    frozen = learner.frozen()
    with torch.no_grad():
        recorded, state = _recorded(frozen, forms)
        with whole_folder(folder) as part:
            manifest = _written(part, recorded, state, forms)
            manifest["learner"] = frozen.title
            manifest["outcome"] = _outcome(frozen)
            (part / MANIFEST).write_text(json.dumps(manifest, indent=1))


def _recorded(learner: Learner, forms: Sequence[Form]) -> tuple[list[Recorded], dict[str, Tensor]]:
    """The programs that are wanted, and the state that streams begin with."""
    programs: list[Program] = []
    state: dict[str, Tensor] = {}
    if streams(learner):
        *programs, state = stream_programs(learner)
    if not programs or any(form.whole for form in forms):
        programs.insert(0, adapt_predict(learner))
    return [program.recorded() for program in programs], state


def _written(part: Path, recorded: list[Recorded], state: dict[str, Tensor], forms: Sequence[Form]) -> dict[str, Any]:
    """Write programs and state; the manifest of them."""
    programs: dict[str, Any] = {}
    for each in recorded:
        name, files = each.program.name, {}
        for form in forms:
            if form.whole or not state or name != "adapt_predict":
                form.write(each, part / f"{name}{form.suffix}")
                files[form.title] = f"{name}{form.suffix}"
        programs[name] = {
            "files": files,
            "inputs": [slot.described() for slot in each.program.inputs],
            "outputs": [slot.described() for slot in each.outputs],
        }
    manifest = {
        "format": FORMAT,
        "bayesmeta": VERSION,
        "torch": torch.__version__,
        "axes": MEANING_OF_AXES,
        "programs": programs,
    }
    if state:
        written = [(form.title, form.write_state(state, part)) for form in forms]
        manifest["state"] = {"files": {title: name for title, name in written if name is not None}}
    return manifest


def _outcome(learner: Learner) -> dict[str, Any]:
    outcomes = learner.outcomes
    assert outcomes is not None
    if isinstance(outcomes, Labels):
        return {"kind": "labels", "classes": outcomes.count}
    return {"kind": "numbers", "count": outcomes.count}


def _require_replaceable(folder: Path) -> None:
    """Raise DataError where the folder holds anything but an earlier export."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise DataError(f"expected a folder to write to, got the file {folder}")
    found = {path.name for path in folder.iterdir()}
    others = found - _named(folder)
    if others:
        raise DataError(
            f"expected a new folder, or one that was exported before, got {folder} with {min(others)!r}: an export "
            "replaces its folder"
        )


def _named(folder: Path) -> set[str]:
    """Names of the files that the manifest in a folder names, and its own."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        programs = [*manifest["programs"].values(), manifest.get("state", {"files": {}})]
        return {MANIFEST, *(name for program in programs for name in program["files"].values())}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return set()

"""Model folders: whole there and back, refused when broken, and never lost to a save that fails."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

import bayesmeta as bm
from bayesmeta.errors import DataError, UnsupportedError
from bayesmeta.training.checkpoint import load_with_extra

X = torch.linspace(-1, 1, 5)


def _learner(hidden: int = 4, seed: int = 0) -> bm.ALPaCA:
    torch.manual_seed(seed)
    return bm.ALPaCA(bm.MLP(1, [hidden]))


def _prediction(learner: bm.Learner) -> torch.Tensor:
    return learner.adapt(bm.Data.from_arrays(X, X.sin())).predict(X).quantile(0.3)


def _weights(folder: Path) -> Path:
    (path,) = folder.glob("*.safetensors")
    return path


def _edit(folder: Path, change: Callable[[dict], object]) -> None:
    manifest = json.loads((folder / "model.json").read_text())
    change(manifest)
    (folder / "model.json").write_text(json.dumps(manifest))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    bm.save(_learner(), tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize(
    "make",
    [
        _learner,
        lambda: _learner().double(),
        lambda: bm.ALPaCA(bm.Identity(1), covariance=bm.priors.FullCovariance(2, varying=[0])),
        lambda: bm.ALPaCA(bm.Spline([0.0]), noise=bm.noise.FullNoise(1)),
    ],
)
def test_round_trip_is_exact(make: Callable[[], bm.Learner], tmp_path: Path) -> None:
    learner = make()
    bm.save(learner, str(tmp_path / "deep" / "model"), {"note": [1, "two", None]})
    loaded, extra = load_with_extra(tmp_path / "deep" / "model")
    assert extra == {"note": [1, "two", None]}
    assert torch.equal(_prediction(loaded), _prediction(learner))
    assert next(loaded.parameters()).dtype == next(learner.parameters()).dtype
    assert all(p.requires_grad for p in loaded.parameters())


def test_statistics_are_saved(tmp_path: Path) -> None:
    learner = bm.Standardized(_learner())
    learner.prepare(bm.Data.from_arrays(X + 1e6, 1e-3 * X))
    bm.save(learner, tmp_path)
    loaded = bm.load(tmp_path)
    for a, b in zip(learner.buffers(), loaded.buffers(), strict=True):
        assert torch.equal(a, b)
        assert a.dtype == b.dtype


def test_a_folder_is_replaced_whole(folder: Path) -> None:
    other = _learner(hidden=7, seed=1)
    bm.save(other, folder)
    assert torch.equal(_prediction(bm.load(folder)), _prediction(other))
    assert len(list(folder.iterdir())) == 2  # nothing of the old model, nothing temporary


@pytest.mark.parametrize(("function", "call"), [("fsync", 1), ("fsync", 2), ("replace", 1)])
def test_a_save_that_fails_loses_nothing(
    folder: Path, function: str, call: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full at the weights, at the manifest, and in between."""
    expected = _prediction(bm.load(folder))
    calls = []

    def fail(*args: object, **kwargs: object) -> None:
        calls.append(args)
        if len(calls) == call:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, function, fail)
    with pytest.raises(DataError, match=r"expected a folder that can be written.*No space left"):
        bm.save(_learner(hidden=7, seed=1), folder)
    monkeypatch.undo()
    assert torch.equal(_prediction(bm.load(folder)), expected)
    assert len(list(folder.iterdir())) == 2
    bm.save(_learner(hidden=7, seed=1), folder)
    assert torch.equal(_prediction(bm.load(folder)), _prediction(_learner(hidden=7, seed=1)))


def test_what_cannot_be_saved_is_refused_before_anything_is_written(folder: Path, tmp_path: Path) -> None:
    class Wrapped(bm.Network):
        def __init__(self, network: nn.Module) -> None:
            super().__init__()
            self.network = network
            self.x_shape, self.num_outputs = (1,), 3

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.network(x)

    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(UnsupportedError, match=r"model.features.network .* got Sequential.*state_dict"):
        bm.save(bm.ALPaCA(Wrapped(nn.Sequential(nn.Linear(1, 3)))), folder)
    with pytest.raises(UnsupportedError, match="extra to be plain JSON"):
        bm.save(_learner(), folder, {"tensor": torch.zeros(1)})
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    for bad in (tmp_path / "file", tmp_path / "file" / "below"):
        (tmp_path / "file").write_text("here already")
        with pytest.raises(DataError, match=r"folder that can be written.*is a file"):
            bm.save(_learner(), bad)
    assert (tmp_path / "file").read_text() == "here already"


def _truncate(path: Path, share: float) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "no manifest": (lambda f: (f / "model.json").unlink(), "model folder with model.json"),
    "no weights": (lambda f: _weights(f).unlink(), "model folder with weights-"),
    "weights cut": (lambda f: _truncate(_weights(f), 0.7), "whole weights"),
    "weights cut short": (lambda f: _truncate(_weights(f), 0.01), "whole weights"),
    "weights empty": (lambda f: _weights(f).write_bytes(b""), "whole weights"),
    "weights garbage": (lambda f: _weights(f).write_bytes(b"garbage" * 99), "whole weights"),
    "manifest cut": (lambda f: _truncate(f / "model.json", 0.5), "whole model.json"),
    "manifest empty": (lambda f: (f / "model.json").write_text(""), "whole model.json"),
    "manifest binary": (lambda f: (f / "model.json").write_bytes(b"\xff\xfe\x00"), "whole model.json"),
    "manifest a list": (lambda f: (f / "model.json").write_text("[1]"), "whole model.json"),
    "manifest null": (lambda f: (f / "model.json").write_text("null"), "whole model.json"),
    "no learner": (lambda f: _edit(f, lambda m: m.pop("learner")), "whole model.json"),
    "no extra": (lambda f: _edit(f, lambda m: m.pop("extra")), "whole model.json"),
    "other format": (lambda f: _edit(f, lambda m: m.update(format=99)), "format 1, got 99"),
    "no precision": (lambda f: _edit(f, lambda m: m.update(dtype="load")), "whole model.json"),
    "weights elsewhere": (lambda f: _edit(f, lambda m: m.update(weights="../../secret")), "model folder with secret"),
    "weights a number": (lambda f: _edit(f, lambda m: m.update(weights=3)), "whole model.json"),
    "unknown class": (lambda f: _edit(f, lambda m: m["learner"].update({"class": "os.system"})), "unknown class"),
    "a text": (lambda f: _edit(f, lambda m: m.update(learner="ALPaCA")), "expected a learner in .*got str"),
    "a network": (
        lambda f: _edit(f, lambda m: m.update(learner=m["learner"]["arguments"]["features"])),
        "expected a learner in .*got MLP",
    ),
    "other arguments": (
        lambda f: _edit(f, lambda m: m["learner"]["arguments"].update(nonsense=1)),
        "arguments that ALPaCA accepts",
    ),
}


@pytest.mark.parametrize("how", BROKEN)
def test_broken_folders_are_refused(how: str, folder: Path) -> None:
    damage, message = BROKEN[how]
    damage(folder)
    with pytest.raises(DataError, match=message):
        bm.load(folder)


def test_folders_that_are_none(tmp_path: Path) -> None:
    for bad in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(DataError, match=r"expected a model folder with model.json, got"):
            bm.load(bad)
    (tmp_path / "file").write_text("{}")
    with pytest.raises(DataError, match="expected a model folder"):
        bm.load(tmp_path / "file")


def test_weights_of_another_model_are_refused(folder: Path, tmp_path: Path) -> None:
    bm.save(_learner(hidden=9), tmp_path / "other")
    _weights(folder).write_bytes(_weights(tmp_path / "other").read_bytes())
    with pytest.raises(DataError, match="whole weights of this model"):
        bm.load(folder)
    bm.save(bm.ALPaCA(bm.Identity(1)), tmp_path / "third")
    _weights(folder).write_bytes(_weights(tmp_path / "third").read_bytes())
    with pytest.raises(DataError, match="whole weights of this model"):
        bm.load(folder)

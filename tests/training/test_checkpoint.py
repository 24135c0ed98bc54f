"""Model folders: whole there and back, refused when broken, and never lost to a save that fails."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_model
from torch import nn

import bayesmeta as bm
from bayesmeta.errors import DataError, UnsupportedError
from bayesmeta.training.checkpoint import load_with_extra
from tests.registry import CASES, Case

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


def test_what_is_loaded_in_inference_mode_can_be_trained(folder: Path) -> None:
    with torch.inference_mode():
        learner = bm.load(folder)
    bm.fit(learner, bm.tasks.Sinusoid(), steps=1, progress=False)


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


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _sparse(path: Path, size: int) -> None:
    with path.open("wb") as file:
        file.truncate(size)


def _nested(depth: int) -> list:
    value: list = []
    for _ in range(depth):
        value = [value]
    return value


def _features(manifest: dict) -> dict:
    return manifest["learner"]["arguments"]["features"]["arguments"]


def _rewrite(folder: Path, change: Callable[[bytes], bytes]) -> None:
    _weights(folder).write_bytes(change(_weights(folder).read_bytes()))


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
    "no format": (lambda f: _edit(f, lambda m: m.pop("format")), "format is none"),
    "format text": (lambda f: _edit(f, lambda m: m.update(format="1")), "format 1, got '1'"),
    "extra a list": (lambda f: _edit(f, lambda m: m.update(extra=[1])), r"extra is \[1\]"),
    "extra a text": (lambda f: _edit(f, lambda m: m.update(extra="unit")), "extra is 'unit'"),
    "dtype complex": (lambda f: _edit(f, lambda m: m.update(dtype="complex64")), "no precision: 'complex64'"),
    "dtype whole": (lambda f: _edit(f, lambda m: m.update(dtype="int64")), "no precision: 'int64'"),
    "manifest a pipe": (lambda f: _pipe(f / "model.json"), "model folder with model.json"),
    "weights a pipe": (lambda f: _pipe(_weights(f)), "model folder with weights-"),
    "manifest a folder": (lambda f: ((f / "model.json").unlink(), (f / "model.json").mkdir()), "with model.json"),
    "manifest brackets": (lambda f: (f / "model.json").write_text("[" * 10**6), "whole model.json"),
    "manifest objects": (lambda f: (f / "model.json").write_text('{"a":' * 10**5), "whole model.json"),
    "manifest of a gigabyte": (lambda f: _sparse(f / "model.json", 2**30), "at most .* bytes"),
    "manifest Latin-1": (lambda f: (f / "model.json").write_bytes('{"é": 1}'.encode("latin-1")), "whole model.json"),
    "a number without end": (lambda f: (f / "model.json").write_text("9" * 5_000), "whole model.json"),
    "weights with half a character": (
        lambda f: _edit(f, lambda m: m.update(weights="\ud800")),
        r"model folder with \\ud800",
    ),
    "weights with NUL": (lambda f: _edit(f, lambda m: m.update(weights="a\0b")), "model folder with a"),
    "weights with a long name": (lambda f: _edit(f, lambda m: m.update(weights="a" * 999)), "whole weights"),
    # where Python itself gives up depends on its limit, which other packages raise
    "learner nested": (lambda f: _edit(f, lambda m: m.update(learner=_nested(400))), "nested too deeply|got tuple"),
    "learner another's part": (
        lambda f: _edit(f, lambda m: m["learner"]["arguments"].update(noise={"class": "LBFGS", "arguments": {}})),
        "expected noise to be a Noise or None, got a LBFGS",
    ),
    "NaN": (lambda f: _edit(f, lambda m: m["learner"]["arguments"].update(num_outputs=float("nan"))), "got nan"),
    "infinite": (lambda f: _edit(f, lambda m: m["learner"]["arguments"].update(num_outputs=float("inf"))), "got inf"),
    "a larger layer": (lambda f: _edit(f, lambda m: _features(m).update(hidden=[5])), "whole weights of this model"),
    "a far larger layer": (
        lambda f: _edit(f, lambda m: _features(m).update(num_inputs=10**6, hidden=[10**6])),
        "a model of the size of its weights",
    ),
    "far more layers": (lambda f: _edit(f, lambda m: _features(m).update(hidden=[1] * 10**5)), "of the size of its"),
    "header too long": (lambda f: _rewrite(f, lambda b: (10**12).to_bytes(8, "little") + b[8:]), "whole weights"),
    "header too short": (lambda f: _rewrite(f, lambda b: (8).to_bytes(8, "little") + b[8:]), "whole weights"),
    "header of another type": (lambda f: _rewrite(f, lambda b: b.replace(b'"F32"', b'"I32"', 1)), "torch.int32"),
    "header of an odd type": (lambda f: _rewrite(f, lambda b: b.replace(b'"F32"', b'"U32"', 1)), "of type 'U32'"),
    "NaN weights": (
        lambda f: _rewrite(f, lambda b: b[:-4] + b"\xff\xff\xff\xff"),
        "expected finite weights in .*, got nan in 'prior",
    ),
    "other arguments": (
        lambda f: _edit(f, lambda m: m["learner"]["arguments"].update(nonsense=1)),
        "arguments that ALPaCA accepts",
    ),
}


@pytest.mark.usefixtures("unchecked")
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


def test_other_files_are_left_alone(folder: Path, tmp_path: Path) -> None:
    bm.save(_learner(), tmp_path / "other")
    others = {
        "weights.safetensors": b"1",
        "weights-best.safetensors": b"2",
        "weights-best.safetensors.json": b"3",
        _weights(tmp_path / "other").name: b"4",  # as a save would call it, but no manifest here names it
        "notes.txt": b"5",
    }
    for name, content in others.items():
        (folder / name).write_bytes(content)
    before = _weights_named(folder)
    bm.save(_learner(hidden=6), folder)
    assert not (folder / before).exists()
    assert {path.name for path in folder.iterdir()} == {*others, "model.json", _weights_named(folder)}
    assert {name: (folder / name).read_bytes() for name in others} == others


def _weights_named(folder: Path) -> str:
    return json.loads((folder / "model.json").read_text())["weights"]


@pytest.mark.parametrize("named", ["notes.txt", "weights.safetensors", "../notes.txt", "", ".."])
def test_what_a_forged_manifest_names_is_not_deleted(folder: Path, named: str) -> None:
    for path in (folder / "notes.txt", folder / "weights.safetensors", folder.parent / "notes.txt"):
        path.write_text("mine")
    _edit(folder, lambda manifest: manifest.update(weights=named, replaces=[named, 3, "notes.txt"]))
    bm.save(_learner(), folder)
    bm.load(folder)
    for path in (folder / "notes.txt", folder / "weights.safetensors", folder.parent / "notes.txt"):
        assert path.read_text() == "mine"


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_both_files_are_as_readable_as_others_that_are_made(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        bm.save(_learner(), tmp_path / "model")
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "model").iterdir()} == {0o666 & ~umask}


def test_a_link_to_a_folder_is_that_folder(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    bm.save(_learner(hidden=6), tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert bm.load(folder).features.num_outputs == bm.load(tmp_path / "link").features.num_outputs == 6
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    with pytest.raises(DataError, match="a link to nothing"):
        bm.save(_learner(), tmp_path / "nowhere")
    with pytest.raises(DataError, match="expected a model folder"):
        bm.load(tmp_path / "nowhere")


def test_read_only_folders_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The superuser may write anywhere: what the system would say is said for it."""
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(DataError, match="is read-only"):
        bm.save(_learner(), folder)
    monkeypatch.undo()
    expected = _prediction(bm.load(folder))

    def refuse(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(DataError, match=r"folder that can be written.*Permission denied"):
        bm.save(_learner(), folder)
    monkeypatch.undo()
    assert torch.equal(_prediction(bm.load(folder)), expected)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("bad", ["a\0b", "a" * 999, None, 3])
def test_names_that_are_none(bad: object) -> None:
    with pytest.raises(DataError, match="folder that can be written"):
        bm.save(_learner(), bad)
    with pytest.raises(DataError, match=r"expected a (whole )?model"):
        bm.load(bad)


@pytest.mark.usefixtures("unchecked")
def test_extra_that_is_no_json_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    circle: dict = {}
    circle["circle"] = circle
    for bad in ({"object": object()}, circle, {"nested": _nested(10**4)}, [1], {"number": 10**5_000}):
        with pytest.raises(UnsupportedError, match="expected extra to be"):
            bm.save(_learner(), tmp_path / "model", bad)
    with pytest.raises(DataError, match=r"extra of at most .* bytes"):
        bm.save(_learner(), tmp_path / "model", {"long": "x" * 2**25})
    assert not (tmp_path / "model").exists()


def test_weights_that_are_not_finite_do_not_replace_a_model(folder: Path) -> None:
    expected, broken = _prediction(bm.load(folder)), _learner()
    broken.prior.location.data[0] = float("nan")
    with pytest.raises(DataError, match=r"expected finite weights to save in .*got nan in 'prior.location'"):
        bm.save(broken, folder)
    assert torch.equal(_prediction(bm.load(folder)), expected)


def test_parameters_that_are_one_are_one_again(tmp_path: Path) -> None:
    """Also from folders that hold them once, as safetensors' own `save_model` writes them."""

    class Tied(bm.Network):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(1, 1), nn.Linear(1, 1)
            self.second.weight = self.first.weight
            self.x_shape, self.num_outputs = (1,), 1

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.second(self.first(x))

    learner = bm.ALPaCA(Tied())
    bm.save(learner, tmp_path)
    assert torch.equal(_prediction(bm.load(tmp_path)), _prediction(learner))
    save_model(learner, str(_weights(tmp_path)))
    loaded = bm.load(tmp_path)
    assert loaded.features.second.weight is loaded.features.first.weight
    assert torch.equal(_prediction(loaded), _prediction(learner))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_learner_is_there_again(case: Case, tmp_path: Path) -> None:
    learner = case.learner(torch.float64)
    try:
        bm.save(learner, tmp_path)
    except UnsupportedError:
        pytest.skip("it cannot be described")
    loaded = bm.load(tmp_path).state_dict()
    for name, value in learner.state_dict().items():
        assert torch.equal(loaded[name], value), name
        assert loaded[name].dtype == value.dtype

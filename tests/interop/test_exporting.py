"""Exported programs: they say what the library says for any number of tasks and points, and need none of it."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import bayesmeta as bm
from bayesmeta.interop.exporting import Form, InductorPackage, OnnxProgram, TorchProgram
from bayesmeta.interop.exporting.parameters import parameters
from bayesmeta.interop.exporting.programs import Recorded, adapt_predict
from bayesmeta.interop.exporting.streams import Predict, Stream, Update, stream_programs
from bayesmeta.outputs import whole_folder

D = torch.float64
DOCS = Path(__file__).parents[2] / "docs"
SHAPES = [(1, 0, 1), (1, 1, 1), (3, 7, 2), (40, 12, 5)]  # B, N, M; the example that is recorded has 3, 5, 4


def _network() -> bm.MLP:
    return bm.MLP(2, [8])


def _standardized(learner: bm.learners.LinearLearner) -> bm.Standardized:
    wrapped, count = bm.Standardized(learner), learner.outcomes.count
    x = 1e3 + 5.0 * torch.randn(9, 4, 2, dtype=D)
    wrapped.prepare(bm.Data.full(x, 30.0 + 2.0 * torch.randn(9, 4, count, dtype=D)))
    return wrapped


def _data(learner: bm.Learner, num_tasks: int, num_points: int) -> bm.Data:
    """Ragged tasks; the second has no point."""
    dtype, count = learner.placement()[0], getattr(learner.outcomes, "count", None) or 1
    x = torch.randn(num_tasks, num_points, 2, dtype=dtype)
    y = torch.randn(num_tasks, num_points, count, dtype=dtype)
    if isinstance(learner, bm.Standardized):
        x, y = 1e3 + 5.0 * x, 30.0 + 2.0 * y
    if isinstance(learner.outcomes, bm.Labels):
        y = torch.randint(learner.outcomes.count, (num_tasks, num_points))
    mask = torch.rand(num_tasks, num_points) < 0.8
    mask[1:2] = False
    return bm.Data(x, y, mask)


def _far(learner: bm.Learner, run: Callable[..., dict[str, Tensor]], *sizes: int) -> float:
    """The largest difference between a program and the library, relative to the largest number."""
    num_tasks, num_points, num_query = sizes
    support, query = _data(learner, num_tasks, num_points), _data(learner, num_tasks, num_query).x
    expected, found = parameters(learner.adapt(support).predict(query)), run(support.x, support.y, support.mask, query)
    assert found.keys() == expected.keys()
    return max(((found[k] - v).abs().max() / v.abs().max().clamp(min=1.0)).item() for k, v in expected.items())


LEARNERS: dict[str, Callable[[], bm.Learner]] = {
    "alpaca, standardized": lambda: _standardized(bm.ALPaCA(_network())),
    "r2d2 for numbers, scales of tasks": lambda: bm.R2D2Regressor(
        _network(), num_outputs=2, scale=bm.priors.TaskScale()
    ),
    "r2d2": lambda: bm.R2D2(_network(), num_classes=3),
    "deep kernel": lambda: bm.DeepKernelTransfer(_network()),
    "neural process": lambda: bm.ConditionalNeuralProcess(bm.Identity(2), width=8, layers=1),
}


QUICK = ("alpaca, standardized", "r2d2", "neural process")


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in LEARNERS])
def test_a_program_says_what_the_library_says(name: str) -> None:
    learner = LEARNERS[name]().double()
    run = adapt_predict(learner.frozen()).recorded().exported.module()
    for sizes in SHAPES:
        assert _far(learner, run, *sizes) < 1e-12, sizes  # float64: rounding alone


def test_a_program_in_float32() -> None:
    """Linear algebra is in float64 all the same."""
    learner = bm.ALPaCA(_network(), noise=bm.noise.HeteroscedasticNoise(bm.MLP(2, [4])))
    run = adapt_predict(learner.frozen()).recorded().exported.module()
    for sizes in SHAPES:
        assert _far(learner, run, *sizes) < 1e-6, sizes


@pytest.mark.slow
def test_features_of_many_and_points_of_few() -> None:
    """Above 256 features the program works in the space of points, whatever their number."""
    learner = bm.ALPaCA(bm.MLP(2, [300]), covariance=bm.priors.DiagonalCovariance(300)).double()
    recorded = adapt_predict(learner.frozen()).recorded()
    factors = [n for n in recorded.exported.graph.nodes if n.target is torch.ops.aten.linalg_cholesky_ex.default]
    assert [node.meta["val"][0].shape[-1] for node in factors] != [300]
    run = recorded.exported.module()
    for sizes in SHAPES:
        assert _far(learner, run, *sizes) < 1e-12, sizes


def _run(code: str | Path, *arguments: object, blocked: tuple[str, ...]) -> str:
    """A script in a fresh interpreter that cannot import some packages, warnings being errors."""
    source = code.read_text() if isinstance(code, Path) else code
    block = f"import sys; sys.modules.update(dict.fromkeys({blocked!r}))\n"  # None: not found
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", block + source, *map(str, arguments)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def learner() -> bm.Learner:
    torch.manual_seed(1)
    wrapped = bm.Standardized(bm.ALPaCA(bm.MLP(1, [6])))
    wrapped.prepare(bm.Data.full(2.0 * torch.randn(9, 4, 1, dtype=D), 1.0 + torch.randn(9, 4, 1, dtype=D)))
    return wrapped


@pytest.fixture(scope="module")
def robot(learner: bm.Learner, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "robot"
    bm.export(learner, folder, [TorchProgram(), OnnxProgram()])
    return folder


def _numbers(line: str) -> list[float]:
    return [float(value) for value in re.findall(r"-?\d+\.\d+(?:e-?\d+)?", line)]


def _expected(learner: bm.Learner) -> list[float]:
    """What the scripts of the page print."""
    prediction = learner.adapt(bm.Data.from_arrays([0.0, 1.0, 2.0], [0.2, 0.9, 2.1])).predict([0.5, 3.0])
    return [*prediction.mean.flatten().tolist(), *prediction.variance.flatten().tolist()]


@pytest.mark.slow
def test_a_robot_with_torch_alone(learner: bm.Learner, robot: Path) -> None:
    blocked = ("bayesmeta", "safetensors", "jaxtyping", "pandas", "scipy", "gpytorch", "onnxruntime")
    at_once, one_by_one = _run(DOCS / "programs" / "robot_with_torch.py", robot, blocked=blocked).splitlines()
    assert _numbers(at_once) == pytest.approx(_expected(learner), rel=1e-9)
    assert _numbers(one_by_one) == pytest.approx(_expected(learner), rel=1e-5)  # the state is in float32


def test_a_robot_with_onnxruntime_alone(learner: bm.Learner, robot: Path) -> None:
    blocked = ("bayesmeta", "torch", "onnx", "onnxscript", "pandas", "scipy")
    (one_by_one,) = _run(DOCS / "programs" / "robot_with_onnxruntime.py", robot, blocked=blocked).splitlines()
    assert _numbers(one_by_one) == pytest.approx(_expected(learner), rel=1e-5)


def test_a_program_is_loaded(learner: bm.Learner, robot: Path) -> None:
    run = torch.export.load(robot / "adapt_predict.pt2").module()
    x, y = torch.tensor([[[0.0], [1.0], [2.0]]], dtype=D), torch.tensor([[[0.2], [0.9], [2.1]]], dtype=D)
    found = run(x, y, torch.ones(1, 3, dtype=torch.bool), torch.tensor([[[0.5], [3.0]]], dtype=D))
    assert torch.cat([found["mean"], found["variance"]], 1).flatten().tolist() == pytest.approx(_expected(learner))


def test_the_manifest_says_all(robot: Path) -> None:
    manifest = json.loads((robot / "manifest.json").read_text())
    names = {name for each in [*manifest["programs"].values(), manifest["state"]] for name in each["files"].values()}
    assert names | {"manifest.json"} == {path.name for path in robot.iterdir()}
    assert manifest["programs"].keys() == {"adapt_predict", "update", "predict"}
    assert manifest["programs"]["update"]["files"] == {"torch": "update.pt2", "onnx": "update.onnx"}
    assert manifest["programs"]["adapt_predict"]["files"] == {"torch": "adapt_predict.pt2"}
    assert manifest["outcome"] == {"kind": "numbers", "count": 1}
    first, state = manifest["programs"]["adapt_predict"]["inputs"][0], manifest["programs"]["update"]["inputs"][3]
    assert first == first | {"name": "support_x", "axes": ["B", "N", 1], "dtype": "float64"}
    assert state == state | {"name": "weights_root", "axes": ["B", 6, 6], "dtype": "float32"}
    with np.load(robot / "state.npz") as arrays:
        np.testing.assert_array_equal(arrays["weights_root"], np.eye(6, dtype=np.float32)[None])
        assert not arrays["weights_mean"].any()


class _Named(Form):
    """Files that hold the name of their program."""

    title, suffix, whole = "named", ".txt", False

    def write(self, recorded: Recorded, path: Path) -> None:
        path.write_text(recorded.program.name)


class _Failing(_Named):
    def write(self, recorded: Recorded, path: Path) -> None:
        if recorded.program.name == "predict":
            raise OSError("no space left on device")
        super().write(recorded, path)


def test_an_export_is_whole_or_not_there(tmp_path: Path) -> None:
    learner, folder = bm.ALPaCA(bm.Identity(1)), tmp_path / "robot"
    with pytest.raises(bm.DataError, match="no space left"):
        bm.export(learner, folder, [_Failing()])
    assert list(tmp_path.iterdir()) == []
    bm.export(learner, folder, [_Named()])
    with pytest.raises(bm.DataError, match="no space left"):
        bm.export(learner, folder, [_Failing()])
    assert {path.name for path in folder.iterdir()} == {"manifest.json", "update.txt", "predict.txt"}
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(bm.DataError, match=r"notes.txt"):
        bm.export(learner, folder, [_Named()])


def test_a_folder_takes_the_place_of_another(tmp_path: Path) -> None:
    for text in ("old", "new"):
        with whole_folder(tmp_path / "robot") as part:
            (part / "program").write_text(text)
        assert (tmp_path / "robot" / "program").read_text() == text
    assert [path.name for path in tmp_path.iterdir()] == ["robot"]


PLAIN = {
    *("add", "sub", "mul", "div", "sqrt", "square", "sum", "matmul", "linear", "tanh"),
    *("mT", "unsqueeze", "expand", "slice", "select", "diagonal", "to", "full_like", "ones", "sym_size"),
}


def test_a_stream_is_matrix_products_roots_and_divisions() -> None:
    """What ONNX and ExecuTorch have: no factorisation, no solve, no branch; tanh is the network's."""
    learner = _standardized(bm.R2D2Regressor(_network(), num_outputs=2))
    *programs, _ = stream_programs(learner.frozen())
    for program in programs:
        nodes = [node for node in program.recorded().exported.graph.nodes if node.op == "call_function"]
        found = {node.target.overloadpacket.__name__ for node in nodes}
        assert found <= PLAIN, found - PLAIN
        assert "matmul" in found


@pytest.mark.parametrize("scale", [None, bm.priors.TaskScale()], ids=["one scale", "scales of tasks"])
def test_a_stream_says_what_the_library_says(scale: bm.priors.TaskScale | None) -> None:
    noise = None if scale is not None else bm.noise.HeteroscedasticNoise(bm.MLP(2, [4]))
    learner = bm.ALPaCA(_network(), noise=noise, scale=scale).double()
    stream = Stream(learner.frozen())
    data, query = bm.Data.full(torch.randn(3, 20, 2, dtype=D), torch.randn(3, 20, 1, dtype=D)), torch.randn(3, 4, 2)
    state = {name: value.expand(3, *value.shape[1:]) for name, value in stream.start().items()}
    with torch.no_grad():
        for n in range(20):
            after = Update(stream)(data.x[:, n], data.y[:, n], *state.values())
            state = {name: after[f"next_{name}"] for name in state}
        found = Predict(stream)(query.double(), *state.values())
    for name, value in parameters(learner.adapt(data).predict(query)).items():
        torch.testing.assert_close(found[name], value, rtol=1e-11, atol=1e-12)


def test_a_stream_in_float32_does_not_drift() -> None:
    """After 1,000 points at a noise deviation of .01 of collinear features: within a thousandth of a deviation."""
    learner = bm.ALPaCA(bm.RadialBasis(1, 12, (-1.0, 1.0)), noise=bm.noise.DiagonalNoise(1, 1e-4))
    stream = Stream(learner.frozen())
    x, y = torch.rand(1, 1_000, 1) * 2.0 - 1.0, torch.randn(1, 1_000, 1) * 0.01
    y, query, state = y + (3.0 * x).sin(), torch.linspace(-1.2, 1.2, 50)[None, :, None], stream.start()
    update, predict = Update(stream), Predict(stream)
    with torch.no_grad():
        for n in range(1_000):
            after = update(x[:, n], y[:, n], *state.values())
            state = {name: after[f"next_{name}"] for name in state}
        found = predict(query, *state.values())
    assert state["weights_root"].dtype == torch.float32
    exact = learner.adapt(bm.Data.full(x, y)).predict(query)
    assert ((found["mean"] - exact.mean) / exact.stddev).abs().max() < 1e-2
    assert (found["variance"] / exact.variance - 1.0).abs().max() < 1e-3


@pytest.mark.usefixtures("unchecked")
def test_what_cannot_be_exported_says_so() -> None:
    for made, words in [(bm.R2D2(_network()), "num_classes="), (bm.ALPaCA, "expected a learner")]:
        with pytest.raises(bm.BayesMetaError, match=words):
            bm.export(made, "nowhere")
    with pytest.raises(bm.UnsupportedError, match="nothing but tensor operations"):
        adapt_predict(bm.ConvCNP().frozen()).recorded()
    with pytest.raises(bm.DataError, match="expected forms"):
        bm.export(bm.ALPaCA(bm.Identity(1)), "nowhere", [])
    with pytest.raises(bm.UnsupportedError, match="posterior of a fixed size"):
        stream_programs(bm.DeepKernelTransfer(_network()).frozen())
    assert not Path("nowhere").exists()


def test_a_program_that_says_something_else_is_found_out() -> None:
    class TwoFaced(bm.ALPaCA):
        def condition(self, support: bm.Data) -> bm.TaskPosterior:
            shift = 1e-6 if torch.compiler.is_compiling() else 0.0
            return super().condition(bm.Data(support.x, support.y + shift, support.mask))

    with pytest.raises(bm.UnsupportedError, match="expected adapt_predict to say what the library says, got mean"):
        adapt_predict(TwoFaced(bm.Identity(1)).double().frozen()).recorded()


@pytest.mark.slow
def test_a_compiled_package(tmp_path: Path) -> None:
    learner = _standardized(bm.ALPaCA(_network())).double()
    bm.export(learner, tmp_path / "robot", [InductorPackage()])
    run = torch._inductor.aoti_load_package(str(tmp_path / "robot" / "adapt_predict.aoti.pt2"))
    for sizes in SHAPES:
        assert _far(learner, run, *sizes) < 1e-12, sizes


@pytest.mark.slow
def test_a_neural_process_in_onnx(tmp_path: Path) -> None:
    """It has no stream, and no Cholesky factor: ONNX has all of `adapt_predict`, and onnxruntime that in float32."""
    import onnxruntime

    learner = LEARNERS["neural process"]()
    bm.export(learner, tmp_path / "robot", [OnnxProgram()])
    session = onnxruntime.InferenceSession(tmp_path / "robot" / "adapt_predict.onnx")
    names, outputs = [each.name for each in session.get_inputs()], [each.name for each in session.get_outputs()]

    def run(*values: Tensor) -> dict[str, Tensor]:
        arrays = dict(zip(names, [value.numpy() for value in values], strict=True))
        return {name: torch.from_numpy(v) for name, v in zip(outputs, session.run(None, arrays), strict=True)}

    for sizes in SHAPES:
        assert _far(learner, run, *sizes) < 1e-6, sizes
    with pytest.raises(bm.UnsupportedError, match="in float32 alone"):
        bm.export(learner.double(), tmp_path / "other", [OnnxProgram()])
    assert not (tmp_path / "other").exists()

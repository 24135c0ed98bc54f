"""What importing bayesmeta costs and shows, in a fresh interpreter."""

import os
import subprocess
import sys
from pathlib import Path

import bayesmeta as bm


def _run(code: str) -> str:
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout


def test_the_root_needs_nothing() -> None:
    heavy = ["torch", "numpy", "pandas", "bayesmeta.learner"]
    assert _run(f"import sys, bayesmeta; print([name for name in {heavy} if name in sys.modules])").strip() == "[]"
    assert _run("import bayesmeta as bm; print(bm.tasks.Sinusoid.__name__)").strip() == "Sinusoid"
    assert _run("from bayesmeta import *; print(MLP.__name__, tasks.__name__)").strip() == "MLP bayesmeta.tasks"
    assert _run("import bayesmeta as bm; print({'fit', 'tasks', 'MLP'} <= set(dir(bm)))").strip() == "True"
    assert _run("import bayesmeta as bm; print(hasattr(bm, 'MPL'), bm.__version__[0])").strip() == "False 0"


def test_all_names_stay_light() -> None:
    heavy = [
        "pyro",
        "gpytorch",
        "arviz",
        "matplotlib",
        "pandas",
        "scipy",
        "botorch",
        "ax",
        "sklearn",
        "typer",
        "beartype",
    ]
    heavy += ["torch._inductor", "torch._dynamo"]  # only compiled steps need them
    out = _run(f"import sys; from bayesmeta import *; print([name for name in {heavy} if name in sys.modules])")
    assert out.strip() == "[]"


def test_nothing_but_torch_is_needed_to_adapt_and_predict() -> None:
    """A robot has no room for pandas, scipy, gpytorch and pyro: `pip install --no-deps` (docs/start/install.md)."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "tests/slim.py", "--pretend"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent.parent,
        env=os.environ | {"PYTHONPATH": "."},
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 7


def test_the_check_would_see_a_heavy_import() -> None:
    assert _run("import sys, bayesmeta, pandas; print('pandas' in sys.modules)").strip() == "True"


def test_first_names_may_be_asked_for_anywhere() -> None:
    """In inference mode, with another default precision or device, and from threads that start together."""
    tensors = (
        "[(v.is_inference(), str(v.device), str(v.dtype)) for n, m in [*sys.modules.items()]"
        " if n.startswith('bayesmeta') for v in vars(m).values() if isinstance(v, torch.Tensor)]"
    )
    code = (
        "import sys, torch, bayesmeta as bm\n"
        "torch.set_default_dtype(torch.float16)\n"
        "with torch.inference_mode(), torch.device('meta'):\n"
        "    [getattr(bm, name) for name in bm.__all__]\n"
        f"print(set({tensors}))"
    )
    assert _run(code).strip() == "{(False, 'cpu', 'torch.float64')}"
    code = (
        "import sys, threading, bayesmeta as bm\n"
        "sys.setswitchinterval(1e-5)\n"
        "found, gate = [], threading.Barrier(8)\n"
        "def ask(i):\n"
        "    gate.wait()\n"
        "    found.extend(getattr(bm, name) is not None for name in (bm.__all__ * 2)[11 * i : 11 * i + 90])\n"
        "threads = [threading.Thread(target=ask, args=(i,)) for i in range(8)]\n"
        "[t.start() for t in threads], [t.join() for t in threads]\n"
        "print(len(found), all(found))"
    )
    assert _run(code).strip() == "720 True"


def test_a_model_is_loaded_whatever_was_imported_before(tmp_path: Path) -> None:
    """The classes of the library need not have been asked for."""
    learners = {
        "root": bm.Standardized(bm.MAML(bm.MLP(1, [4]))),
        "deep": bm.wrappers.TaskQuadrature(bm.ALPaCA(bm.Identity(1)), bm.wrappers.NoiseScale()),
        "network": bm.ALPaCA(bm.networks.FourierFeatures(2)),
    }
    for name, learner in learners.items():
        bm.save(learner, tmp_path / name)
        code = f"import bayesmeta as bm; print(type(bm.load({str(tmp_path / name)!r})).__name__)"
        assert _run(code).strip() == type(learner).__name__


def test_a_class_of_ones_own_never_takes_the_name_of_the_librarys(tmp_path: Path) -> None:
    """Whichever is imported first."""
    code = (
        "from bayesmeta.networks.network import Network\n"
        "class MLP(Network):\n"
        "    def __init__(self): super().__init__()\n"
        "    def forward(self, x): return x\n"
        "class FourierFeatures(MLP): pass\n"
        "import bayesmeta as bm\n"
        "from bayesmeta.description import describe\n"
        "own, both = [MLP(), FourierFeatures()], [bm.MLP(1, [4]), bm.networks.FourierFeatures(1)]\n"
        "print(*(describe(each)['class'] for each in own + both))"
    )
    assert _run(code).strip() == "__main__.MLP __main__.FourierFeatures MLP FourierFeatures"

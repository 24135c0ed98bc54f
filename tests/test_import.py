"""What importing bayesmeta costs and shows, in a fresh interpreter."""

import subprocess
import sys


def _run(code: str) -> str:
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout


def test_import_stays_light() -> None:
    heavy = ["pyro", "gpytorch", "arviz", "matplotlib", "pandas", "scipy", "botorch", "sklearn", "typer", "beartype"]
    heavy += ["torch._inductor", "torch._dynamo"]  # only compiled steps need them
    out = _run(f"import sys, bayesmeta; print([name for name in {heavy} if name in sys.modules])")
    assert out.strip() == "[]"


def test_the_check_would_see_a_heavy_import() -> None:
    assert _run("import sys, bayesmeta, pandas; print('pandas' in sys.modules)").strip() == "True"

"""Every command explains itself at once: nothing that takes seconds to import is imported for that."""

import subprocess
import sys

import pytest

from bayesmeta.cli.app import app

COMMANDS = [
    command.callback.__name__.replace("_", "-") for command in app.registered_commands if command.callback is not None
]
HEAVY = ["torch", "numpy", "pandas", "matplotlib", "scipy", "bayesmeta.learner"]


@pytest.mark.parametrize("arguments", [["--help"], [], *([name, "--help"] for name in COMMANDS)], ids=" ".join)
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\n"
        "from bayesmeta.cli.app import main\n"
        f"sys.argv = ['bayesmeta', *{arguments}]\n"
        "try:\n"
        "    main()\n"
        "finally:\n"
        f"    print('imported:', [name for name in {HEAVY} if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    assert lines[-1] == "imported: []"
    assert "Usage: " in done.stdout + done.stderr
    assert "No such command" not in done.stderr

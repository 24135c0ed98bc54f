"""The workflows and the packaging: valid YAML, targets that make has, the Pythons that the package says it runs on."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from docs.tools.wheel import BESIDE_CODE, PACKAGE, faults

ROOT = Path(__file__).parent.parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def jobs(path: Path) -> dict[str, dict[str, Any]]:
    return yaml.safe_load(path.read_text())["jobs"]


def made(path: Path) -> list[str]:
    steps = [step for job in jobs(path).values() for step in job["steps"]]
    return [word for step in steps if "run" in step for word in re.findall(r"^make PYTHON=python (\S+)$", step["run"])]


def test_there_are_workflows_for_tests_docs_and_releases() -> None:
    assert [path.stem for path in WORKFLOWS] == ["docs", "release", "tests"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_is_valid_and_makes_what_there_is(path: Path) -> None:
    content = yaml.safe_load(path.read_text())
    assert set(content) == {"name", True, "permissions", "env", "jobs"} | ({"concurrency"} & set(content))  # True: on
    assert content["permissions"] == {"contents": "read"}  # a job that needs more says so itself
    for job in jobs(path).values():
        assert job["runs-on"] == "ubuntu-latest"
        assert job["timeout-minutes"] > 0
        assert all(("run" in step) != ("uses" in step) for step in job["steps"])
        assert all(re.search(r"@(v\d+|release/v\d+)$", step["uses"]) for step in job["steps"] if "uses" in step)
        assert set(job.get("needs", "").split()) <= set(jobs(path))
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.M))
    assert set(made(path)) <= targets
    assert made(path)
    assert "://" not in path.read_text()


def test_tests_run_on_every_python_and_with_the_oldest_and_newest_dependencies() -> None:
    (path,) = [path for path in WORKFLOWS if path.stem == "tests"]
    classifiers = [line.rsplit(" :: ", 1)[1] for line in PROJECT["classifiers"] if "Python :: 3." in line]
    assert jobs(path)["test"]["strategy"]["matrix"]["python-version"] == classifiers
    assert set(made(path)) == {"check", "test", "test-oldest", "test-newest", "slim", "dist", "try-wheel"}
    oldest, newest = (jobs(path)[name]["steps"][1]["with"]["python-version"] for name in ("oldest", "newest"))
    assert (oldest, newest) == (classifiers[0], classifiers[-1])


def test_a_release_is_published_by_trust_after_it_was_tried() -> None:
    (path,) = [path for path in WORKFLOWS if path.stem == "release"]
    publish = jobs(path)["publish"]
    assert publish["permissions"] == {"id-token": "write"}
    assert publish["environment"] == "pypi"
    assert made(path) == ["dist", "try-wheel"]
    assert "secrets" not in path.read_text()


def test_all_extras_are_in_all() -> None:
    extras = PROJECT["optional-dependencies"]
    (every,) = extras["all"]
    assert set(re.findall(r"[a-z]+", every.partition("[")[2])) == set(extras) - {"all", "dev", "docs"}
    assert {"botorch", "ax", "sklearn", "skpro", "parquet", "docs", "all"} <= set(extras)


def test_a_wheel_without_its_table_or_with_tests_would_be_seen() -> None:
    whole = {f"bayesmeta/{path.relative_to(PACKAGE).as_posix()}" for path in PACKAGE.rglob("*.py")} | BESIDE_CODE
    whole |= {"bayesmeta-0.1.0.dist-info/licenses/LICENSE", "bayesmeta-0.1.0.dist-info/METADATA"}
    assert faults(whole) == []
    assert faults(whole - {"bayesmeta/example_table.csv"}) == [
        "expected bayesmeta/example_table.csv in the wheel, got none"
    ]
    assert faults(whole | {"tests/test_cli.py"}) == ["expected files of the package alone, got tests/test_cli.py"]
    assert all((ROOT / name).is_file() for name in BESIDE_CODE)

"""Every test runs with shape checks on, on one thread, with a seeded global generator."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from jaxtyping import config, install_import_hook

from tests.shape_checks import begin_test  # before the hook

with install_import_hook("bayesmeta", "beartype.beartype"):
    import bayesmeta

    for name in bayesmeta.__all__:  # each is imported when it is first asked for
        getattr(bayesmeta, name)

import torch
from hypothesis import HealthCheck, settings

from tests.browser import Browser
from tests.device import pretended

torch.set_num_threads(1)
# deadline None: the first call of a torch function can take a second
settings.register_profile(
    "bayesmeta",
    deadline=None,
    max_examples=25,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
settings.load_profile("bayesmeta")


def pytest_addoption(parser: pytest.Parser) -> None:
    """`make learner NAME=maml`: the contracts of one learner, with all its variants in the registry."""
    parser.addoption("--learner", help="only the contracts of the Cases called this, or this and a further word")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the contracts of other learners."""
    wanted = config.getoption("--learner")
    if wanted is None:
        return
    cases = {item: item.callspec.params.get("case") for item in items if hasattr(item, "callspec")}
    names = {item: case.name for item, case in cases.items() if case is not None}
    kept = [item for item, name in names.items() if name == wanted or name.startswith(f"{wanted}-")]
    if not kept:
        raise pytest.UsageError(f"expected a learner among {sorted(set(names.values()))}, got {wanted!r}")
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = kept


@pytest.fixture(autouse=True)
def seeded() -> None:
    """The same global random numbers for every test, and shape checks that begin anew."""
    torch.manual_seed(0)
    begin_test()


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Shape checks off, as users have it: for tests of our own error messages."""
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)


@pytest.fixture(params=["pretended", *(["cuda"] if torch.cuda.is_available() else [])])
def device(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    """A device that is not the CPU: pretended, and a GPU where there is one."""
    with pretended() if request.param == "pretended" else contextlib.nullcontext(torch.device("cuda")) as there:
        yield there


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real tables that BAYESMETA_DATA names."""
    folder = os.environ.get("BAYESMETA_DATA", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip("BAYESMETA_DATA does not name a folder of real tables")
    return Path(folder)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Chromium with an empty page, for the tests of a file; where there is none they are skipped."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip("no Chromium on the PATH")
    with Browser(found, tmp_path_factory.mktemp("profile")) as opened:
        yield opened

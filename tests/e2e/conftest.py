"""A clone of the project, and `make run` in it. It is only available on the embedded servers, because `make run` starts
these."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.clone import MakeRun, copy_project, make_run


@pytest.fixture(scope="session")
def project(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project as `git clone` would make it. Its name has characters that break careless scripts.

    It shares this run's environment, so that the installation of the packages, a minute over the network, is not
    repeated here; everything else is a first start.
    """
    if request.config.getoption("stack") != "embedded":
        pytest.skip("make run is the embedded default: --stack=embedded tests it")
    return copy_project(tmp_path_factory.mktemp("project") / "sign up #1, 100% c++")


@pytest.fixture(scope="module")
def running(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeRun]:
    """A running installation, for tests that leave it running."""
    with make_run(project, DATA_DIR=str(tmp_path_factory.mktemp("data"))) as run:
        run.wait_ready()
        yield run

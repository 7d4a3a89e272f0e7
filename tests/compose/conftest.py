"""The installation that all tests of this folder share. Each test leaves it running."""

from collections.abc import Iterator

import pytest

from tests.compose.installation import Installation
from tests.compose.messages import validate_messages


@pytest.fixture(scope="session")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with Installation(tmp_path_factory.mktemp("installation") / "project") as installation:
        installation.set_up()
        installation.start()
        yield installation
        validate_messages(installation)

"""Fixtures for the contract tests of eventbus.inspection."""

from collections.abc import Iterator

import pytest

from eventbus.inspection.inspector import Inspector


@pytest.fixture
def inspector() -> Iterator[Inspector]:
    with Inspector() as running:
        yield running

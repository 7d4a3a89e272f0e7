"""Plugin of pytest for the process of a mutant: read the settings of the servers that this process has started, run the
quickest tests first, and end a loop that never ends."""

import importlib
import json
import os
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

# Relative to the directory in which mutmut runs pytest.
MEASURED = Path("mutmut-stats.json")
# Seconds of CPU after which the process of a mutant is killed, besides five times those that its tests usually take.
CPU_SECONDS = 20


@pytest.hookimpl(tryfirst=True, wrapper=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> Iterator[None]:
    """Run around tests.plugin's hook, which starts the servers."""
    yield
    if "signup_sync.settings" in sys.modules:
        read_settings_again()


def read_settings_again() -> None:
    """warm.py has read the settings before there were servers and a data directory."""
    from django.conf import settings
    from django.db import connections

    module = importlib.reload(sys.modules["signup_sync.settings"])
    for name in filter(str.isupper, dir(module)):
        # The product's signers have been made with the earlier key.
        if name != "SECRET_KEY":
            setattr(settings, name, getattr(module, name))
    for connection in connections.all(initialized_only=True):
        del connections[connection.alias]
    connections.settings = connections.configure_settings(settings.DATABASES)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if MEASURED.exists():
        seconds = json.loads(MEASURED.read_text())["duration_by_test"]
        items.sort(key=lambda item: seconds.get(item.nodeid, 0.0))
        if "." in os.environ.get("MUTANT_UNDER_TEST", ""):
            usual = sum(seconds.get(item.nodeid, 0.0) for item in items)
            _, most = resource.getrlimit(resource.RLIMIT_CPU)
            resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time() + CPU_SECONDS + 5 * usual), most))

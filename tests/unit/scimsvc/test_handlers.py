"""The SCIM services as `manage.py` and the web processes find them in the settings, without a server."""

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from django.conf import LazySettings
from django.core.management import call_command
from django.core.management.base import CommandError

from eventbus.consumer import TRY_WITHIN
from eventbus.subscriptions import subscriptions_of
from scimsvc.account_claims import ACCOUNT_WITHIN, ATTEMPT, CLAIM
from scimsvc.handlers import BATCH
from scimsvc.server import ANSWERS_WITHIN
from tests.servers.process import ROOT


@pytest.fixture(autouse=True)
def two_servers(settings: LazySettings) -> None:
    settings.SCIM_SERVERS = {"crm": "https://crm.example.org", "wiki": "https://wiki.example.org"}
    settings.SCIM_TOKENS = {}
    settings.CONSUMED_TOGETHER = {"scim": ["crm", "wiki"]}
    settings.EVENT_CONSUMERS = settings.EVENT_CONSUMERS | dict.fromkeys(
        settings.SCIM_SERVERS, "scimsvc.handlers.subscriptions_of_server"
    )


@pytest.mark.parametrize("service", ["crm", "wiki"])
def test_each_server_has_a_consumer_group_of_its_own(service: str) -> None:
    subscription, reconcile = subscriptions_of(service)
    assert (reconcile.group, reconcile.topics) == (f"{service}-reconcile", ("user.reconcile.req", "user.export.req"))
    assert subscription.group == service
    assert subscription.topics == ("user.newUser.req", "user.changeUser.req", "user.removeUser.req")
    assert subscription.answers_to == ("user.newUser.res", "user.changeUser.res", "user.removeUser.res")
    assert subscription.batch == BATCH


def test_a_slow_server_makes_neither_its_consumer_look_stuck_nor_a_claim_end_early() -> None:
    assert ANSWERS_WITHIN < ACCOUNT_WITHIN
    assert ATTEMPT + ACCOUNT_WITHIN < TRY_WITHIN
    assert timedelta(seconds=ACCOUNT_WITHIN) < CLAIM


@pytest.mark.parametrize("service", ["crm", "scim"])
def test_a_consumer_without_its_token_ends_at_once_and_names_the_setting(service: str) -> None:
    with pytest.raises(CommandError, match=r"^SCIM_TOKENS has no token for crm: add crm=<token>\.$"):
        call_command("consume_events", service)


def test_a_process_that_only_inspects_the_subscriptions_loads_no_client(tmp_path: Path) -> None:
    """httpx2 and pydantic take seconds and 35 MB, which only the consumers need."""
    code = (
        "import django, sys; django.setup(); from django.contrib import admin; admin.autodiscover();"
        "from eventbus.inspection.groups import known_groups; print(sorted(known_groups()));"
        "print([name for name in ('httpx2', 'pydantic', 'scim2_client', 'scim2_models') if name in sys.modules])"
    )
    environment = {
        "PATH": os.environ["PATH"],
        "DATA_DIR": str(tmp_path),
        "DJANGO_SETTINGS_MODULE": "signup_sync.settings",
        "SCIM_SERVERS": "crm=https://crm.example.org",
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    groups, loaded = done.stdout.splitlines()
    assert "'crm'" in groups
    assert loaded == "[]"

"""The health pages of real roles: a stuck role reports it, and a restart helps."""

import time

import pytest

from tests.chaos.breaks_at import start_breaking
from tests.client import produce_invalid
from tests.conftest import Person
from tests.e2e.test_api import ALL_GREEN, post, settled, statuses
from tests.servers.process import http_status
from tests.stack import RoleProcess, Stack
from tests.waiting import eventually

pytestmark = pytest.mark.needs("application", "kafka")

# Seconds; the defaults are 30 for a loop, and 60 for a batch before that.
IMPATIENT = {"runtime__processes__health__BEAT_WITHIN": 2, "eventbus__consumer__TRY_WITHIN": 2}


def health(role: RoleProcess) -> tuple[int | None, int | None]:
    return http_status(role.port, "/health/live"), http_status(role.port, "/health/ready")


@pytest.mark.parametrize(
    ("name", "hangs_in"),
    [
        ("chat", "participant.accounts.AccountHandler._save"),
        ("auth-results", "authsvc.signups.answers.apply_verdicts"),
        ("dead-letters", "eventbus.deadletters.collector.store_letters"),
        ("relay", "authsvc.management.commands.relay_signups.claim_due"),
    ],
)
def test_a_role_that_hangs_is_not_live_and_a_restart_helps(stack: Stack, person: Person, name: str, hangs_in: str):
    role = stack.roles[name]
    role.stop()
    start_breaking(role, hangs_in, "hangs", **IMPATIENT)
    try:
        signup = post(stack, person.form)
        produce_invalid(
            stack, "user.newUser.req", b"garbage", key=person.user_id
        )  # so that the collector has work, too
        eventually(lambda: health(role) == (503, 503), what=f"{name} says that it is stuck")
    finally:
        asked = time.monotonic()
        role.stop()
        took = time.monotonic() - asked
        role.start()
    assert took < 15, "5 s, and the end of the process; it hangs for ever"
    assert health(role) == (200, 200)
    assert statuses(settled(stack, signup)) == ALL_GREEN


def test_a_role_that_hangs_for_long_ends_and_the_next_one_does_its_work(stack: Stack, person: Person):
    chat = stack.roles["chat"]
    chat.stop()
    # The product's own patience is two minutes and a half.
    impatient = IMPATIENT | {"runtime__processes__roles__STUCK_CHECKS": 2}
    start_breaking(chat, "participant.accounts.AccountHandler._save", "hangs", **impatient)
    try:
        signup = post(stack, person.form)
        eventually(lambda: chat.exit_code == 1, what="chat ends by itself")
        assert "consumer of chat has been stuck for" in chat.log()
    finally:
        if not chat.running:
            chat.start()
    assert statuses(settled(stack, signup)) == ALL_GREEN

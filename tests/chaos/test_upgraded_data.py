"""Release 0.1.0 writes data, with its own code and migrations. After an upgrade, the data is complete and usable."""

import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, build_opener
from uuid import uuid4

import pytest

from tests.chaos.test_upgrade import PREVIOUS_GREEN, PREVIOUS_SERVICES, StackOfPreviousServices, by_code_of
from tests.chaos.test_upgrade import previous_release as previous_release
from tests.client import filled_form, produce_invalid, request, sign_up
from tests.conftest import Person, new_person
from tests.e2e.test_restore import all_agree, names_in, people_of, reconcile
from tests.servers import KafkaServer, PostgresqlServer
from tests.stack import MANAGE, Stack
from tests.waiting import eventually

pytestmark = pytest.mark.needs("application", "caddy", "postgresql", "kafka")

# What 0.1.0's admin saves when an administrator sets a live setting.
SET_LIVE = """
from livesettings.models import ROW, Overrides
Overrides.objects.update_or_create(pk=ROW, defaults={"values": {"SIGNUP_DEADLINE": 12.5}, "version": 1})
"""
CHECK_AND_CHANGE = """
import json
from authsvc.models import User
from authsvc.signups import publisher
from authsvc.signups.changes import change_account
from livesettings.following import check_once
from livesettings.values import live
check_once()
user = User.objects.get(user_id={user_id!r})
user.user_name = "Changed after the upgrade"
change_account(user)
publisher.close()
print(json.dumps({{"deadline": live.SIGNUP_DEADLINE}}))
"""


class PreviousStack(StackOfPreviousServices):
    """An installation that is first migrated and run by the previous release's code."""

    code: Path

    def migrate(self) -> None:
        for role in self.roles.values():
            role.command = by_code_of(self.code, role.command)
        self.manage_before("migrate_all", "--verbosity", "0", env=self.env | self.owner_env)

    def manage_before(self, *command: str, env: dict[str, str] | None = None) -> None:
        words = by_code_of(self.code, [*MANAGE, *command])
        done = subprocess.run(
            words, env=env or self.env, cwd=self.code, capture_output=True, text=True, check=False, timeout=120
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def upgrade(self) -> None:
        """Replace everything by this release, as docs/upgrading.md describes for an installation that may stop."""
        for role in self.roles.values():
            role.stop()
            role.command = _by_our_code(role.command, self.code)
        super().migrate()
        for role in self.roles.values():
            role.launch()
        for role in self.roles.values():
            role.wait_until_ready()


def _by_our_code(command: Sequence[str], code: Path) -> list[str]:
    return [MANAGE[1] if part == str(code / "manage.py") else part for part in command]


@contextmanager
def previous_stack(code: Path, postgresql: PostgresqlServer, kafka: KafkaServer) -> Iterator[PreviousStack]:
    PreviousStack.code = code
    with PreviousStack.real(postgresql=postgresql, kafka=kafka, auths=1) as stack:
        yield stack


def lights(stack: Stack) -> dict[str, dict[str, Any]]:
    """The lights and the reasons of each sign-up, by its ID."""
    rows = stack.query("auth", "SELECT id::text, lights::text FROM authsvc_signup")
    return {
        signup_id: {
            name: (light.get("status", "PENDING"), light.get("reason")) for name, light in json.loads(text).items()
        }
        for signup_id, text in rows
    }


def dead_letters(stack: Stack) -> list[tuple[Any, ...]]:
    return sorted(stack.query("auth", 'SELECT topic, "partition", "offset", error FROM eventbus_deadletter'))


def account_after_login(stack: Stack, person: Person) -> str:
    """The account page that the person sees after a login with the old password."""
    browser = build_opener(HTTPCookieProcessor(CookieJar()))
    with browser.open(f"{stack.base_url}/login/", timeout=30) as page:
        form = filled_form(page.read().decode(), person)
    form |= {"username": person.user_id, "password": person.password, "next": "/account/"}
    with browser.open(f"{stack.base_url}/login/", urlencode(form).encode(), timeout=30) as page:
        return page.read().decode()


def test_data_stored_by_release_0_1_0_is_complete_and_usable(
    previous_release: Path, postgresql: PostgresqlServer, kafka: KafkaServer
):
    with previous_stack(previous_release, postgresql, kafka) as stack:
        kim, lee, park, waits = people = [new_person() for _ in range(4)]
        for person in people[:3]:
            assert sign_up(stack, person.form)[-1].statuses == PREVIOUS_GREEN
        refused = sign_up(stack, new_person().form | {"userId": kim.user_id})[-1]
        assert refused.statuses["auth"] == "FAIL"
        stack.manage_before("shell", "-c", SET_LIVE)
        produce_invalid(stack, "user.newUser.req", b"{poison", key=kim.user_id)
        eventually(lambda: len(dead_letters(stack)) == 2, what="chat and customer have dead-lettered the poison")
        # Its light is still orange when the installation is upgraded.
        stack.roles["chat"].stop()
        key = str(uuid4())
        assert request(stack, "POST", "/user", waits.form, Idempotency_Key=key).status == 202
        eventually(lambda: waits.user_id in {row.user_id for row in stack.rows("customer")})
        eventually(lambda: lights(stack)[key]["customer"] == ("SUCCESS", None))
        before, letters = lights(stack), dead_letters(stack)

        stack.upgrade()

        eventually(lambda: lights(stack)[key]["chat"] == ("SUCCESS", None), what="the orange light turns")
        assert lights(stack) == before | {key: dict.fromkeys(PREVIOUS_SERVICES, ("SUCCESS", None))}
        assert dead_letters(stack) == letters
        everybody = {person.user_id for person in people}
        assert everybody == names_in(stack, "auth") == names_in(stack, "chat") == names_in(stack, "customer")
        assert reconcile(stack) == (0, "", [])
        assert kim.email in account_after_login(stack, kim)

        done = stack.manage("shell", "--no-imports", "--command", CHECK_AND_CHANGE.format(user_id=lee.user_id))
        assert json.loads(done.stdout) == {"deadline": 12.5}
        stack.manage("forget", park.user_id, "--yes")
        eventually(lambda: all_agree(stack) and park.user_id not in names_in(stack, "chat"), what="all agree")
        changed = {(name, version) for _, _, _, name, _, version, _ in people_of(stack, "chat")}
        assert ("Changed after the upgrade", 2) in changed
        stack.query("chat", f"DELETE FROM chatsvc_chatuser WHERE user_id = '{kim.user_id}'")
        stack.manage("replay_signups", "--user-id", kim.user_id, "--service", "chat")
        eventually(lambda: all_agree(stack), what="a replay restores a lost row")
        stack.manage("dead_letters", "discard", "--all-waiting", "--reason", "poison of a test")
        assert sign_up(stack, new_person().form)[-1].statuses == PREVIOUS_GREEN

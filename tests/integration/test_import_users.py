"""`manage.py import_users`, on the broker and the database of the chosen stack."""

import json
import os
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from django.core.management import CommandError, call_command

from authsvc.accounts.passwords import Argon2idHasher
from authsvc.models import SignUp, User
from authsvc.signups.events import NEW_USER_REQUESTED
from authsvc.signups.outbox import claim_due
from eventbus.topics import ensure_topics
from tests.client import read_topic

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.needs("broker", "redis")]

HEADER = "userId,userName,email,role,passwordHash\n"
KIM = "kim,Kim,kim@example.com,,\n"
LEE = "lee,Lee,lee@example.com,ROLE_USER,\n"


@pytest.fixture(autouse=True)
def own_topics(settings):
    settings.KAFKA_PREFIX = f"import-{uuid4()}-"
    ensure_topics([NEW_USER_REQUESTED])


@pytest.fixture
def sent(settings) -> Callable[[], list[tuple[UUID, str]]]:
    """What is in the topic, as (sign-up, userId), sorted."""

    def read() -> list[tuple[UUID, str]]:
        messages = read_topic(settings.KAFKA_BOOTSTRAP_SERVERS, settings.KAFKA_PREFIX + NEW_USER_REQUESTED)
        events = [json.loads(message.value) for message in messages]
        return sorted((UUID(event["signupId"]), event["userId"]) for event in events)

    return read


@pytest.fixture
def import_users(tmp_path: Path) -> Callable[..., str]:
    """Imports this text and returns what the command says, with the error, if there is one, as the last line."""

    def import_text(text: str | bytes, *arguments: str, name: str = "users.csv") -> str:
        path = tmp_path / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        out = StringIO()
        try:
            call_command("import_users", str(path), *arguments, stdout=out, stderr=out)
        except CommandError as error:
            out.write(str(error))
        return out.getvalue().replace(f"{tmp_path}{os.sep}", "").strip()

    return import_text


def hash_of(password: str, *, memory: int = 19_456, passes: int = 2) -> str:
    """A hash with the product's costs; the tests' own hashes are cheaper."""
    hasher = Argon2idHasher()
    hasher.memory_cost, hasher.time_cost = memory, passes
    return hasher.encode(password, hasher.salt())


def counted(imported: int, known: int = 0, rejected: int = 0) -> str:
    return f"{imported} imported, {known} known already, {rejected} rejected"


def users() -> set[tuple[str, str, str, str]]:
    return set(User.objects.values_list("user_id", "email", "user_name", "role"))


def test_each_line_becomes_a_user_with_a_sign_up_whose_event_is_published(import_users, sent):
    assert import_users(HEADER + KIM + LEE) == counted(2)
    assert users() == {
        ("kim", "kim@example.com", "Kim", "ROLE_USER"),
        ("lee", "lee@example.com", "Lee", "ROLE_USER"),
    }
    signups = {signup.user_id: signup for signup in SignUp.objects.all()}
    for user in User.objects.all():
        signup = signups[user.user_id]
        assert (signup.id, signup.owner_signup_id) == (user.owner_signup_id, user.owner_signup_id)
        assert {name: light.status for name, light in signup.state.lights.items()} == {
            "auth": "SUCCESS", "chat": "PENDING", "customer": "PENDING",
        }  # fmt: skip
        assert signup.next_due_at is not None
        # Nobody can repeat it, so it keeps no hash to compare with.
        assert signup.password == ""
    assert sent() == sorted((signup.id, user_id) for user_id, signup in signups.items())


def test_json_lines_are_imported_as_well(import_users):
    lines = [
        {"userId": "kim", "userName": "Kim", "email": "kim@example.com"},
        {"email": "lee@example.com", "userName": "Lee", "userId": "lee", "role": "ROLE_USER", "passwordHash": None},
    ]
    text = "\n".join(json.dumps(line) for line in lines)
    assert import_users(text, name="users.jsonl") == counted(2)
    assert {user_id for user_id, *_ in users()} == {"kim", "lee"}


def test_the_same_file_again_changes_and_sends_nothing(import_users, sent):
    import_users(HEADER + KIM + LEE)
    before, rows = sent(), list(SignUp.objects.order_by("id").values())
    assert import_users(HEADER + KIM + LEE) == counted(0, known=2)
    assert (sent(), list(SignUp.objects.order_by("id").values())) == (before, rows)


def test_an_interrupted_import_continues(import_users, sent, monkeypatch):
    monkeypatch.setattr("authsvc.user_import.importing.BATCH", 2)
    everyone = [f"user-{n},User {n},user-{n}@example.com,,\n" for n in range(7)]
    import_users(HEADER + "".join(everyone[:3]))
    assert import_users(HEADER + "".join(everyone)) == counted(4, known=3)
    assert len(sent()) == len(users()) == 7


def test_who_has_a_hash_logs_in_with_it_and_the_others_have_no_password(import_users):
    encoded = hash_of("correct horse 9")
    import_users(f'userId,userName,email,passwordHash\nkim,Kim,kim@example.com,"{encoded}"\nlee,Lee,lee@example.com,\n')
    assert User.objects.get(user_id="kim").check_password("correct horse 9")
    assert not User.objects.get(user_id="lee").has_usable_password()


def test_a_dry_run_says_the_same_and_writes_only_the_rejected_lines(import_users, sent, tmp_path):
    import_users(HEADER + KIM)
    before = list(SignUp.objects.values())
    text = f"{HEADER}{KIM}{LEE}Kim,Other,other@example.com,,\nx,,,,\n"
    said = import_users(text, "--dry-run")
    assert said.splitlines()[0] == "1 would be imported, 1 known already, 2 rejected"
    rejected = (tmp_path / "users.rejected.csv").read_text()
    assert (list(SignUp.objects.values()), len(sent())) == (before, 1)
    assert import_users(text).splitlines()[0] == counted(1, known=1, rejected=2)
    assert (tmp_path / "users.rejected-2.csv").read_text() == rejected


def test_without_kafka_users_are_imported_and_the_relay_has_their_events(import_users, settings, monkeypatch):
    settings.KAFKA_BOOTSTRAP_SERVERS = "127.0.0.1:1"
    said = import_users(HEADER + KIM + LEE)
    assert said.splitlines() == ["2 users reach the other services later, through the relay.", counted(2)]
    SignUp.objects.update(next_due_at="2020-01-01T00:00:00Z")
    assert {event.record.user_id for event in claim_due(limit=10)} == {"kim", "lee"}

"""`manage.py import_users`, on the broker and the database of the chosen stack."""

import json
import os
import re
import sqlite3
from collections.abc import Callable
from io import BufferedReader, BytesIO, RawIOBase, StringIO, TextIOWrapper
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from django.contrib.auth import authenticate
from django.contrib.auth.models import Permission
from django.core.management import CommandError, call_command
from django.db import OperationalError
from django.test import Client

from authsvc.accounts.password_mails import _reset_mail
from authsvc.accounts.passwords import Argon2idHasher
from authsvc.management.commands.import_users import AGAIN
from authsvc.models import RemovedAccount, SignUp, User
from authsvc.signups import registration
from authsvc.signups.events import NEW_USER_REQUESTED
from authsvc.signups.outbox import claim_due
from eventbus.topics import ensure_topics
from runtime.security_log import operator
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
    """The messages of the topic, as (sign-up, userId), sorted."""

    def read() -> list[tuple[UUID, str]]:
        messages = read_topic(settings.KAFKA_BOOTSTRAP_SERVERS, settings.KAFKA_PREFIX + NEW_USER_REQUESTED)
        events = [json.loads(message.value) for message in messages]
        return sorted((UUID(event["signupId"]), event["userId"]) for event in events)

    return read


@pytest.fixture
def import_users(tmp_path: Path) -> Callable[..., str]:
    """Import this text. Return the command's output, with the error, if there is one, as the last line."""

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


class Unseekable(RawIOBase):
    """Bytes that can be read once, as from a pipe."""

    def __init__(self, text: bytes) -> None:
        self._rest = BytesIO(text)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        return self._rest.readinto(buffer)

    def fileno(self) -> int:
        return os.open(os.devnull, os.O_RDONLY)


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


def test_imported_hashes_log_in_and_users_without_one_have_no_password(import_users):
    encoded = hash_of("correct horse 9")
    import_users(f'userId,userName,email,passwordHash\nkim,Kim,kim@example.com,"{encoded}"\nlee,Lee,lee@example.com,\n')
    assert User.objects.get(user_id="kim").check_password("correct horse 9")
    assert not User.objects.get(user_id="lee").has_usable_password()


def test_an_imported_user_without_a_hash_sets_a_password_through_forgot_your_password(import_users):
    import_users(HEADER + LEE)
    lee = User.objects.get(user_id="lee")
    assert (lee.check_password(""), authenticate(username="lee", password="")) == (False, None)
    message = _reset_mail("lee@example.com", "192.0.2.1")
    assert message is not None
    [path] = re.findall(r"/password/\S+/\S+/", message.body)
    client = Client()
    chosen = {"new_password1": "correct horse 9", "new_password2": "correct horse 9"}
    assert client.post(client.get(path).headers["Location"], chosen).status_code == 302
    assert authenticate(username="lee", password="correct horse 9") == lee


def test_a_dry_run_prints_the_same_and_writes_only_the_rejected_lines(import_users, sent, tmp_path):
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


# --- Rejected lines ---------------------------------------------------------------------------------------------------


def test_rejected_lines_are_corrected_and_imported(import_users, tmp_path):
    User.objects.create_user("taken", "taken@example.com")
    text = f"{HEADER}{KIM}Taken,T,other@example.com,,\nother,O,taken@example.com,,\nlee,Lee,,,\nkim,K,k@example.com,,\n"
    said = import_users(text).splitlines()
    assert said[0] == counted(1, rejected=4)
    assert said[1] == "The rejected lines are in users.rejected.csv: correct them and import that file."
    rejects = tmp_path / "users.rejected.csv"
    assert rejects.stat().st_mode & 0o777 == 0o600
    lines = rejects.read_text().splitlines()
    assert lines[0] == f"reason,{HEADER.strip()}"
    assert {line.partition(",")[0] for line in lines[1:]} == {
        "Line 5: email: Enter a valid email address.",
        "Line 6: userId: Line 2 has the same one.",
        "duplicate: userId",
        "duplicate: email",
    }
    # A refused record leaves no trace, and may be imported once the reason is gone.
    assert SignUp.objects.count() == 2
    corrected = rejects.read_text().replace("lee,Lee,,", "lee,Lee,lee@example.com,").replace("kim,K,", "kim2,K,")
    User.objects.filter(user_id="taken").delete()
    assert import_users(corrected, name="corrected.csv") == counted(4)
    assert {user_id for user_id, *_ in users()} == {"kim", "Taken", "other", "lee", "kim2"}


def test_nothing_is_imported_from_a_file_that_breaks_off_in_another_encoding(import_users, tmp_path):
    said = import_users(f"{HEADER}{KIM}lee,Zoë,lee@example.com,,\n".encode("latin-1"))
    assert said.startswith("Nothing was imported. Line 3 is not UTF-8.")
    assert (users(), list(tmp_path.glob("*rejected*"))) == (set(), [])


def test_a_removed_account_does_not_come_back(import_users):
    import_users(HEADER + KIM)
    user = User.objects.get()
    RemovedAccount.objects.create(owner_signup_id=user.owner_signup_id, version=2)
    user.delete()
    SignUp.objects.all().delete()
    assert import_users(HEADER + KIM).splitlines()[0] == counted(0, rejected=1)
    assert not User.objects.exists()


def test_a_user_whose_sign_up_was_purged_is_still_known(import_users):
    import_users(HEADER + KIM)
    SignUp.objects.all().delete()
    assert import_users(HEADER + KIM) == counted(0, known=1)


def test_somebody_else_with_the_same_fields_is_a_duplicate_and_not_the_same_line(import_users):
    User.objects.create_user("kim", "kim@example.com", user_name="Kim")
    assert import_users(HEADER + KIM).splitlines()[0] == counted(0, rejected=1)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["/"], "/ can't be read: Is a directory."),
        (["/nowhere/users.csv"], "/nowhere/users.csv can't be read: No such file or directory."),
        (["/dev/null"], "Nothing was imported. The file is empty."),
        (["/dev/null", "--on-behalf-of", "nobody"], "nobody may not add administrators."),
    ],
)
def test_a_missing_or_unreadable_file_is_named(arguments: list[str], words: str):
    with pytest.raises(CommandError) as refused:
        call_command("import_users", *arguments)
    assert str(refused.value) == words


def test_a_place_without_room_for_rejected_lines_is_refused_at_once(import_users, tmp_path):
    said = import_users(HEADER + KIM, "--rejected", str(tmp_path / "nowhere" / "rejected.csv"))
    assert said == "nowhere is not writable: name another place with --rejected."
    assert not User.objects.exists()


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("", ". is a directory: name a file with --rejected."),
        ("/", "/ is a directory: name a file with --rejected."),
        ("x" * 300, f"{'x' * 300} can't be created: File name too long. Name another place with --rejected. {AGAIN}"),
    ],
    ids=["empty", "root", "long"],
)
def test_an_invalid_name_for_the_file_of_rejected_lines_is_a_one_line_error(import_users, place: str, words: str):
    assert import_users(HEADER + "lee,,,,\n", "--rejected", place) == words


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("count", [1, 2000], ids=["noticed at the end", "noticed at once"])
def test_a_full_disk_for_rejected_lines_is_an_error_that_names_their_file(import_users, monkeypatch, count: int):
    def open_full(path: str, flags: int) -> int:
        return os.open("/dev/full", os.O_WRONLY)

    monkeypatch.setattr("authsvc.user_import.rejects._open_private", open_full)
    said = import_users(HEADER + KIM + "lee,,,,\n" * count).splitlines()[-1]
    told = "users.rejected.csv can't be written: No space left on device. Name another place with --rejected."
    assert said == f"{told} {AGAIN}"
    assert User.objects.exists() is (count == 1)


def test_the_rejected_lines_of_a_pipe_are_in_the_current_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    reading, writing = os.pipe()
    os.write(writing, (HEADER + KIM + "lee,,,,\n").encode())
    os.close(writing)
    # Like the path that a shell passes for <(...): no file can be created in its folder.
    with pytest.raises(CommandError, match=r"in import\.rejected\.csv:"):
        call_command("import_users", f"/dev/fd/{reading}", stdout=StringIO())
    os.close(reading)
    assert {user_id for user_id, *_ in users()} == {"kim"}


def test_a_full_disk_for_the_temporary_file_is_a_one_line_error(import_users, monkeypatch):
    real = sqlite3.connect

    def small(*arguments, **options):
        database = real(*arguments, **options)
        database.execute("PRAGMA max_page_count = 4")
        return database

    monkeypatch.setattr("authsvc.user_import.spool.sqlite3.connect", small)
    everyone = "".join(f"user-{n},User {n},user-{n}@example.com,,\n" for n in range(1000))
    said = import_users(HEADER + everyone)
    assert said.startswith("The temporary file can't be used: database or disk is full. Set TMPDIR.")


def test_standard_input_is_read_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for text in (HEADER + KIM + "lee,,,,\n", json.dumps({"userId": "jun"})):
        monkeypatch.setattr("sys.stdin", TextIOWrapper(BufferedReader(Unseekable(text.encode()))))
        with pytest.raises(CommandError, match="rejected lines"):
            call_command("import_users", "-", stdout=StringIO())
    assert {user_id for user_id, *_ in users()} == {"kim"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["import.rejected.csv", "import.rejected.jsonl"]


@pytest.mark.parametrize("end", [KeyboardInterrupt(), OperationalError("database is locked")], ids=["Ctrl-C", "outage"])
def test_an_interrupted_import_explains_how_to_continue(import_users, monkeypatch, tmp_path, end: BaseException):
    monkeypatch.setattr("authsvc.user_import.importing.BATCH", 2)
    register = registration.register_new_users
    batches = iter(range(9))

    def fail_once(batch):
        if next(batches) == 2:
            raise end
        return register(batch)

    monkeypatch.setattr("authsvc.user_import.importing.register_new_users", fail_once)
    text = HEADER + "".join(f"user-{n},User {n},user-{n}@example.com,,\n" for n in range(7))
    path, said = tmp_path / "interrupted.csv", StringIO()
    path.write_text(text)
    with pytest.raises(type(end)):
        call_command("import_users", str(path), stderr=said)
    assert said.getvalue().strip() == f"Interrupted. {AGAIN}"
    assert User.objects.count() == 4
    assert import_users(text) == counted(3, known=4)


def test_a_header_alone_is_no_import(import_users):
    assert import_users(HEADER) == "Nothing was imported. The file has no users."


# --- Administrators ---------------------------------------------------------------------------------------------------

BOSS = "boss,Boss,boss@example.com,ROLE_ADMIN,\n"


def test_administrators_are_imported_only_on_behalf_of_staff_who_may_add_them(import_users, caplog):
    staff = User.objects.create_user("staff", "staff@example.com", is_staff=True)
    SignUp.objects.all().delete()
    assert import_users(HEADER + BOSS).splitlines()[0] == counted(0, rejected=1)
    assert import_users(HEADER + BOSS, "--on-behalf-of", "staff") == "staff may not add administrators."
    staff.user_permissions.add(Permission.objects.get(codename="add_admin"))
    caplog.clear()
    assert import_users(HEADER + BOSS + KIM, "--on-behalf-of", "STAFF") == counted(2)
    logged = [
        (line.message, line.actor, getattr(line, "subject", None)) for line in caplog.records if line.name == "security"
    ]
    actor = f"{operator()}, for staff"
    assert logged == [("users_imported", actor, None), ("privilege_granted", actor, "boss")]
    boss = User.objects.get(user_id="boss")
    assert (boss.role, boss.is_staff, boss.is_superuser) == ("ROLE_ADMIN", False, False)
    caplog.clear()
    import_users(HEADER + BOSS + KIM, "--on-behalf-of", "staff", "--dry-run")
    assert not [line for line in caplog.records if line.name == "security"]


# --- Pace -------------------------------------------------------------------------------------------------------------


def test_an_import_waits_while_the_services_read_and_leaves_events_that_nobody_reads_to_the_relay(
    import_users, sent, monkeypatch
):
    for name, value in {"UNREAD_MAX": 4, "CONTINUES_BELOW": 2, "STUCK_AFTER": 0.3, "CHECK_INTERVAL": 0.01}.items():
        monkeypatch.setattr(f"authsvc.user_import.paced_events.{name}", value)
    monkeypatch.setattr("authsvc.user_import.importing.BATCH", 2)
    unread = iter([{"chat": 4}, {"chat": 3}, {"chat": 1}])
    monkeypatch.setattr(
        "authsvc.user_import.paced_events.unread_by_service", lambda _: next(unread, {"chat": 6, "auth": 0})
    )
    everyone = "".join(f"user-{n},User {n},user-{n}@example.com,,\n" for n in range(14))
    said = import_users(HEADER + everyone).splitlines()
    # Two batches fill the limit. Chat then reads, which makes room for two more, and stops reading.
    assert said == ["6 users reach the other services later, through the relay.", counted(14)]
    assert len(sent()) == 8
    assert SignUp.objects.filter(next_due_at__isnull=False).count() == 14

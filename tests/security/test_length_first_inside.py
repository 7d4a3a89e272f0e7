"""Length is checked first outside the web processes, too: messages of Kafka, commands, and the functions that all entry
points call."""

import argparse
import json
import logging
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from io import StringIO
from pathlib import Path
from uuid import uuid4

import pytest
from django.apps import apps
from django.core.management import CommandError, call_command, get_commands, load_command_class

from authsvc.accounts.passwords import normalize_password
from authsvc.api.signup_requests import complaints
from authsvc.models import User
from authsvc.reconcile.events import decode_answer
from authsvc.signups.answers import handle_answers
from chatsvc.models import ChatUser
from eventbus.messages import Incoming, decode_each
from participant.accounts import AccountHandler
from participant.reconcile import ReconcileHandler
from runtime import equality
from runtime.logs import LogFormat, formatter
from runtime.text_length import ARGUMENT_MAX, is_longer_than, refusal_of_arguments
from signup_sync.front.forms import SignUpForm
from signup_sync.management import command_line
from tests.conftest import new_person
from tests.security.worst_texts import too_dear, worst_texts
from tests.servers.process import ROOT

# The maximum sizes of a message in Kafka and of an argument in Linux.
OF_KAFKA = 900_000
OF_AN_ARGUMENT = 120_000


def assert_cheap(ordinary: Callable[[], object], worst: dict[str, Callable[[], object]]) -> None:
    # The CPU time of this thread, which excludes other threads of the test run.
    assert too_dear(ordinary, worst, clock=time.thread_time) == []


@pytest.mark.parametrize(
    "function",
    [
        equality.normalize_user_id, equality.user_id_key, equality.normalize_email, normalize_password,
    ],
    ids=lambda function: f"{function.__module__}.{function.__name__}",
)  # fmt: skip
@pytest.mark.parametrize("size", [500, 1_100, 5_000, 1_000_000])
def test_normalising_long_text_is_cheap(function: Callable[[str], str], size: int):
    assert_cheap(
        lambda: function("mina@example.org"), {name: partial(function, text) for name, text in worst_texts(size)}
    )


@pytest.mark.parametrize("size", [500, 5_000, 60_000])
def test_form_checks_of_long_text_are_cheap(size: int):
    good = new_person().form
    for check in (complaints, lambda fields: SignUpForm(fields).is_valid()):
        worst = {
            f"{name}: {which}": partial(check, good | {name: text})
            for name in good
            for which, text in worst_texts(size)
        }
        assert_cheap(partial(check, good), worst)


def test_a_text_is_measured_in_bytes_and_not_further_than_its_limit():
    assert not is_longer_than(3, "abc")
    assert not is_longer_than(3, "가")
    assert is_longer_than(2, "가")
    assert is_longer_than(3, "가a")
    assert is_longer_than(2, "\ud800")  # a lone surrogate, which JSON can express, counts as three bytes
    huge = "가" * 10_000_000
    assert_cheap(lambda: is_longer_than(512, "가" * 100), {"huge": lambda: is_longer_than(512, huge)})


# --- Kafka -------------------------------------------------------------------------------------------------------


def message(value: object, *, topic: str = "user.newUser.req", **about: object) -> Incoming:
    encoded = value if isinstance(value, bytes) else json.dumps(value, ensure_ascii=False).encode()
    return Incoming(topic=topic, partition=0, offset=0, key=b"mina", value=encoded, **about)


def requested(**fields: object) -> dict[str, object]:
    person = new_person()
    ids = dict.fromkeys(("signupId", "ownerSignupId"), str(uuid4()))
    user = {"userId": person.user_id, "email": person.email, "userName": person.user_name, "role": "ROLE_USER"}
    return {**ids, **user, **fields}


def page(**fields: object) -> dict[str, object]:
    later = (datetime.now(UTC) + timedelta(minutes=5)).isoformat()
    return {"runId": str(uuid4()), "page": 1, "expiresAt": later, "services": ["chat"], "records": [], **fields}


@pytest.mark.django_db(transaction=True, databases=["chat"])
@pytest.mark.parametrize("name", ["userId", "email", "userName", "role", "signupId", "services", "unknown"])
def test_a_long_field_of_a_message_to_a_participant_is_handled_cheaply(name: str):
    handle = AccountHandler("chat", ChatUser)
    worst = {
        f"{which}, {size} bytes": partial(handle, [message(requested(**{name: text}))])
        for size in (700, 10_000, OF_KAFKA)
        for which, text in worst_texts(size)
    }
    assert_cheap(lambda: handle([message(requested())]), worst)


@pytest.mark.django_db(transaction=True, databases=["chat"])
def test_a_value_or_header_that_is_no_event_is_handled_cheaply():
    handle = AccountHandler("chat", ChatUser)
    texts = dict(worst_texts(OF_KAFKA))
    worst = {which: partial(handle, [message(text.encode())]) for which, text in texts.items()}
    worst |= {
        f"header: {which}": partial(handle, [message(requested(), headers=(("traceparent", text.encode()),))])
        for which, text in texts.items()
    }
    worst["deep"] = partial(handle, [message(b"[" * OF_KAFKA)])
    assert_cheap(lambda: handle([message(requested())]), worst)


@pytest.mark.django_db(transaction=True, databases=["chat"])
@pytest.mark.parametrize("name", ["userId", "email", "userName"])
def test_a_long_record_on_a_page_of_reconcile_is_handled_cheaply(name: str):
    handle = ReconcileHandler("chat", ChatUser)
    worst = {
        f"{which}, {size} bytes": partial(handle, [message(page(records=[requested(**{name: text})]))])
        for size in (700, OF_KAFKA)
        for which, text in worst_texts(size)
    }
    assert_cheap(lambda: handle([message(page(records=[requested()]))]), worst)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("name", ["service", "reason", "signupId"])
def test_a_long_answer_of_a_participant_is_handled_cheaply(name: str):
    answer = {"signupId": str(uuid4()), "service": "chat", "status": "SUCCESS"}

    def handle(text: str) -> object:
        return handle_answers([message(answer | {name: text}, topic="user.newUser.res")])

    worst = {which: partial(handle, text) for size in (250, OF_KAFKA) for which, text in worst_texts(size)}
    assert_cheap(lambda: handle("chat"), worst)


@pytest.mark.parametrize("name", ["userId", "email"])
def test_a_finding_of_a_participant_is_measured_before_it_is_looked_up(name: str):
    finding = {"kind": "superfluous", "userId": "mina", "email": "mina@example.org"}

    def decoded(text: str) -> int:
        found = {
            "runId": str(uuid4()),
            "page": 1,
            "service": "chat",
            "more": False,
            "findings": [finding | {name: text}],
        }
        return len(decode_each([message(found)], decode_answer, most=1024 * 1024)[0])

    assert decoded("mina") == 1
    assert [decoded(text) for _, text in worst_texts(OF_KAFKA)] == [0] * len(list(worst_texts(1)))


def test_a_value_that_is_too_long_is_not_decoded_and_says_how_long_it_was():
    reads: list[Incoming] = []
    decoded, [(_, error)] = decode_each([message(b"x" * 20_000)], reads.append)
    assert (decoded, reads) == ([], [])
    assert str(error) == "the value has 20000 bytes, more than 16384"


def test_an_error_with_a_whole_message_in_it_is_a_short_line():
    error = ValueError

    def line_of(kind: LogFormat, text: str) -> str:
        try:
            raise error(text)
        except ValueError:
            about = logging.LogRecord("x", logging.ERROR, "x", 1, "can't handle %s", (text,), sys.exc_info())
        return formatter(kind).format(about)

    for kind in ("json", "console"):
        for text in dict(worst_texts(OF_KAFKA)).values():
            assert len(line_of(kind, text)) < 100_000
    line = json.loads(line_of("json", "x" * OF_KAFKA + " the end"))
    assert len(line["event"]) < 5_000
    assert line["event"].endswith("(900021 characters)")
    assert line["exception"].startswith("Traceback")
    assert line["exception"].endswith("the end")


# --- Commands and the login --------------------------------------------------------------------------------------


def ways_in() -> Iterator[tuple[str, ...]]:
    """Yield the command lines of our commands, and of Django's that name accounts, up to the value of each argument."""
    ours = {config.label for config in apps.get_app_configs() if Path(config.path).parent == ROOT} | {"signup_sync"}
    for command, app in get_commands().items():
        if app in ours or command in ("createsuperuser", "changepassword"):
            yield from _values_of(load_command_class(app, command).create_parser("manage.py", command), command)


def _values_of(parser: argparse.ArgumentParser, *before: str) -> Iterator[tuple[str, ...]]:
    yield before  # a surplus value
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, subparser in action.choices.items():
                yield from _values_of(subparser, *before, name)
        elif action.option_strings and action.nargs != 0:
            yield (*before, action.option_strings[-1])


@pytest.mark.parametrize("words", list(ways_in()), ids=" ".join)
def test_a_long_argument_of_a_command_is_refused(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]):
    """Refused before anything reads it: argparse and the commands quote what they can't use."""

    def run(*arguments: str) -> str:
        assert command_line.main(["manage.py", *arguments]) == 2
        return capsys.readouterr().err

    for _, text in worst_texts(OF_AN_ARGUMENT):
        expected = f"has {len(text.encode())} bytes; at most {ARGUMENT_MAX} are allowed.\n"
        assert run(*words, text) == f"Argument {len(words) + 1} {expected}"
        assert run(text, *words) == f"Argument 1 {expected}"
    if words[-1].startswith("--"):
        size = ARGUMENT_MAX + len(words[-1]) + 1
        assert run(*words[:-1], f"{words[-1]}={'x' * ARGUMENT_MAX}").startswith(f"Argument {len(words)} has {size} ")


def test_the_tested_commands_include_those_that_take_text():
    tried = set(ways_in())
    assert {
        ("reset_two_factor",), ("changepassword",), ("consume_events",), ("explain",), ("createsuperuser", "--email"),
        ("reconcile", "--service"), ("purge", "--every"), ("set_up_kafka", "--acls"), ("replay_signups", "--user-id"),
        ("dead_letters", "list", "--error"), ("dead_letters", "discard", "--reason"), ("serve", "--port"),
    } <= tried  # fmt: skip


def test_an_argument_of_the_greatest_length_is_accepted_and_programs_may_pass_longer_ones():
    assert refusal_of_arguments(["explain", "x" * ARGUMENT_MAX]) is None
    assert refusal_of_arguments(["explain", "x" * (ARGUMENT_MAX + 1)]) is not None
    # Text that the system passes on unchanged need not be UTF-8.
    assert refusal_of_arguments(["explain", "\udcff" * ARGUMENT_MAX]) is None
    assert refusal_of_arguments(["shell", "-c", "x" * 100_000]) is None


def test_a_command_line_with_a_long_argument_ends_with_one_line():
    command = [sys.executable, str(ROOT / "manage.py"), "changepassword", "x" * OF_AN_ARGUMENT]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, cwd="/")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"Argument 2 has {OF_AN_ARGUMENT} bytes; at most 1024 are allowed.\n"


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("variable", ["ADMIN_USER_ID", "ADMIN_EMAIL"])
def test_long_environment_variables_of_make_admin_are_refused_cheaply(variable: str, monkeypatch: pytest.MonkeyPatch):
    def run(text: str) -> None:
        person = new_person()
        monkeypatch.setenv("ADMIN_USER_ID", person.user_id)
        monkeypatch.setenv("ADMIN_EMAIL", person.email)
        monkeypatch.setenv("ADMIN_PASSWORD", person.password)
        monkeypatch.setenv(variable, text)
        with pytest.raises(CommandError, match=variable):
            call_command("make_admin", stdout=StringIO())

    worst = {which: partial(run, text) for which, text in worst_texts(OF_AN_ARGUMENT)}
    assert_cheap(lambda: run("!"), worst)


@pytest.mark.django_db(transaction=True)
def test_a_long_login_name_is_looked_up_cheaply():
    def look_up(text: str) -> None:
        with pytest.raises(User.DoesNotExist):
            User.objects.get_by_natural_key(text)

    worst = {which: partial(look_up, text) for size in (500, 60_000) for which, text in worst_texts(size)}
    assert_cheap(lambda: look_up("mina"), worst)

"""Odd input at a shell: one line and an exit code, and never a traceback."""

import os
import pty
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from tests.waiting import eventually

ROOT = Path(__file__).resolve().parents[2]
MANAGE = (sys.executable, str(ROOT / "manage.py"))
FULL = Path("/dev/full")
BYTES_OF_CP949 = b"\xb9\xce\xbe\xc6"
BEYOND_64_BITS = "99999999999999999999"


def environment(data_dir: Path, **variables: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "DATA_DIR": str(data_dir), "LANG": "C.UTF-8", **variables}


def manage(data_dir: Path, *arguments: str | bytes, **variables: str) -> subprocess.CompletedProcess[bytes]:
    command = [*MANAGE, *arguments]
    return subprocess.run(command, env=environment(data_dir, **variables), capture_output=True, timeout=60)


def said(done: subprocess.CompletedProcess[bytes], *, code: int = 1) -> str:
    """Return the only line of a command that failed."""
    text = done.stderr.decode()
    assert done.returncode == code, text
    assert "Traceback" not in text
    (line,) = text.splitlines()
    return line


@pytest.fixture(scope="module")
def data_dir(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The databases of an unused installation. Like `project`, it is available on one stack only."""
    folder = tmp_path_factory.mktemp("data")
    done = manage(folder, "migrate_all", "--verbosity=0")
    assert done.returncode == 0, done.stderr.decode()
    return folder


# --- The rows of "The shell" ------------------------------------------------------------------------------------


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("command", ["help", "dead_letters list"])
def test_a_closed_pipe_ends_a_command_silently(data_dir: Path, command: str, unbuffered: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    env = environment(data_dir, PYTHONUNBUFFERED=unbuffered)
    done = subprocess.run([*MANAGE, *command.split()], env=env, stdout=writer, stderr=subprocess.PIPE, timeout=60)
    os.close(writer)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b"")


def test_an_argument_that_is_not_utf_8_is_reported_as_an_unknown_sign_up(data_dir: Path) -> None:
    line = said(manage(data_dir, "explain", BYTES_OF_CP949))
    assert line.startswith(r"CommandError: There is no sign-up, change or removal with the ID or user ID \xb9ξ\xc6.")


@pytest.mark.parametrize("action", [("show",), ("replay",), ("discard", "--reason", "none"), ("replay", "1")])
def test_a_number_beyond_64_bits_is_reported_as_an_unknown_dead_letter(data_dir: Path, action: Sequence[str]) -> None:
    line = said(manage(data_dir, "dead_letters", *action, BEYOND_64_BITS))
    assert line == f"CommandError: There is no dead letter {BEYOND_64_BITS}: see `manage.py dead_letters list`."


@pytest.mark.parametrize(
    ("setting", "value", "allowed"),
    [
        ("KAFKA_PARTITIONS", "four", "give it a whole number from 0 to 2147483647."),
        ("TIME_ZONE", "KST", "give it a name of the time zone database, like UTC or Asia/Seoul."),
        ("LOG_LEVEL", "loud", "give it DEBUG, INFO, WARNING or ERROR."),
    ],
)
def test_an_unusable_setting_is_a_one_line_error(data_dir: Path, setting: str, value: str, allowed: str) -> None:
    assert said(manage(data_dir, "dead_letters", "list", **{setting: value})) == f"{setting} is '{value}': {allowed}"


@pytest.mark.parametrize(
    "command",
    [
        "shell -c print(1)",
        "shell",
        "dbshell",
        "diffsettings",
        "runserver",
        "sendtestemail a@example.org",
        "help shell",
        "shell --help",
        "no_such_command",
    ],
)
def test_no_command_runs_without_its_settings(data_dir: Path, command: str) -> None:
    done = manage(data_dir, *command.split(" ", 2), KAFKA_PARTITIONS="four")
    assert said(done).startswith("KAFKA_PARTITIONS is 'four'")
    assert done.stdout == b""


def test_unusual_but_unambiguous_settings_are_accepted(data_dir: Path) -> None:
    clear = {
        "DATABASE_POOL_SIZE": "",
        "LOG_LEVEL": "debug",
        "ALLOWED_HOSTS": "127.0.0.1, localhost",
        "SIGNUP_SERVICES": "auth, chat, customer",
        # The settings module of another project, set in the shell.
        "DJANGO_SETTINGS_MODULE": "mysite.settings",
    }
    code = "from django.conf import settings as s; print(s.ALLOWED_HOSTS, s.SIGNUP_SERVICES, s.LOG_LEVEL)"
    done = manage(data_dir, "shell", "--verbosity=0", "--command", code, **clear)
    assert done.stdout.decode() == "['127.0.0.1', 'localhost'] ['auth', 'chat', 'customer'] DEBUG\n"
    assert b"Traceback" not in done.stderr


def test_a_missing_settings_module_is_a_one_line_error(data_dir: Path) -> None:
    line = said(manage(data_dir, "explain", "x", "--settings=mysite.settings"))
    assert line == "There is no settings module mysite.settings: leave out --settings."


def test_a_byte_order_mark_in_dot_env_hides_no_setting(data_dir: Path, project: Path) -> None:
    try:
        (project / ".env").write_bytes(b"\xef\xbb\xbfKAFKA_PARTITIONS=many\r\n")
        command = [sys.executable, str(project / "manage.py"), "dead_letters", "list"]
        line = said(subprocess.run(command, env=environment(data_dir), capture_output=True, timeout=60))
        assert line == "KAFKA_PARTITIONS is 'many': give it a whole number from 0 to 2147483647."
        (project / ".env").write_bytes(b"# first\nLOG_LEVEL debug\n")
        line = said(subprocess.run(command, env=environment(data_dir), capture_output=True, timeout=60))
        assert line.startswith(f"Line 2 of {project / '.env'} is not a setting")
    finally:
        (project / ".env").unlink()


def test_pip_user_does_not_keep_make_run_from_installing(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    # Nothing is downloaded: pip refuses --user inside an environment before it looks at what to install.
    (tmp_path / "requirements.txt").write_text("# nothing\n")
    env = environment(tmp_path, PIP_USER="1", PYTHON=sys.executable, HOME=str(tmp_path))
    done = subprocess.run(
        ["make", ".venv/.installed"], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / ".venv" / ".installed").exists()


# --- Their classes ----------------------------------------------------------------------------------------------


@pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_is_a_one_line_error(data_dir: Path, unbuffered: str) -> None:
    env = environment(data_dir, PYTHONUNBUFFERED=unbuffered)
    with FULL.open("wb") as full:
        command = [*MANAGE, "dead_letters", "list"]
        done = subprocess.run(command, env=env, stdout=full, stderr=subprocess.PIPE, timeout=60)
        assert said(done) == "The output can't be written: No space left on device."
        # The error can't be printed, but the exit code reports it.
        assert subprocess.run(command, env=env, stdout=full, stderr=full, timeout=60).returncode == 1


def test_closed_streams_are_no_error(data_dir: Path) -> None:
    script = f'"{MANAGE[0]}" "{MANAGE[1]}" dead_letters list <&- >&- 2>&-'
    assert subprocess.run(["sh", "-c", script], env=environment(data_dir), timeout=60).returncode == 0


@pytest.mark.parametrize(
    "locale",
    [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}],
    ids=["ascii", "C"],
)
def test_characters_that_the_terminal_cannot_print_are_escaped(data_dir: Path, locale: dict[str, str]) -> None:
    line = said(manage(data_dir, "explain", "민아", **locale))
    assert line.startswith(r"CommandError: There is no sign-up, change or removal with the ID or user ID \ubbfc\uc544.")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("dead_letters list --since 9999-12-31T23:59:59-12:00", "outside the supported years"),
        ("dead_letters list --since 0001-01-01T00:00:00+12:00", "outside the supported years"),
        ("dead_letters list --since 10000-01-01", "not an ISO date or time"),
        ("purge --every 99999999999h", "is not a duration"),
        (f"purge --older-than {BEYOND_64_BITS}", "goes back before the year 1"),
        ("reconcile --timeout 1e300", "not a number of seconds above 0 and up to 86400"),
        (f"serve --port {BEYOND_64_BITS}", "is not a port"),
        (f"serve --fd {BEYOND_64_BITS}", "larger than can be stored"),
        (f"explain {'x' * 5000}", "at most 1024 are allowed"),
    ],
)
def test_a_number_or_time_beyond_all_limits_is_reported(data_dir: Path, arguments: str, line: str) -> None:
    done = manage(data_dir, *arguments.split(), LOG_LEVEL="ERROR")
    text = done.stderr.decode()
    assert done.returncode in (1, 2)
    assert "Traceback" not in text
    assert line in text.splitlines()[-1]


@pytest.mark.parametrize(
    "arguments",
    [
        ("forget", ""),
        ("explain", " "),
        ("reset_two_factor", ""),
        ("replay_signups", "--user-id", ""),
        ("import_users", "users.csv", "--on-behalf-of", ""),
    ],
    ids=lambda arguments: arguments[0],
)
def test_an_empty_user_id_is_refused_because_that_of_every_erased_record_is_empty(
    data_dir: Path, arguments: Sequence[str]
) -> None:
    done = manage(data_dir, *arguments)
    assert done.returncode == 2
    assert done.stderr.decode().splitlines()[-1].endswith(": a user ID can't be empty")


def test_times_at_the_ends_of_the_calendar_are_accepted(data_dir: Path) -> None:
    for time_ in ("0001-01-01", "9999-12-31T23:59:59+00:00"):
        done = manage(data_dir, "dead_letters", "list", "--since", time_, TIME_ZONE="UTC")
        assert (done.returncode, done.stdout) == (0, b"There is no dead letter of this kind.\n"), done.stderr


@pytest.mark.parametrize(
    "arguments",
    ["explain x", "replay_signups --all --dry-run", "dead_letters list", "purge", "make_admin", "reset_two_factor x"],
)
def test_a_command_before_the_first_make_run_explains_what_to_do(tmp_path: Path, arguments: str) -> None:
    admin = {"ADMIN_USER_ID": "somebody", "ADMIN_EMAIL": "somebody@example.org", "ADMIN_PASSWORD": "Xk3-9dk2+kdK!d"}
    line = said(manage(tmp_path, *arguments.split(), LOG_LEVEL="ERROR", **admin))
    assert "migrate_all" in line


@pytest.mark.parametrize("arguments", ["reconcile", "replay_signups --all", "set_up_kafka"])
def test_a_command_that_needs_kafka_says_how_to_start_it(data_dir: Path, arguments: str) -> None:
    line = said(manage(data_dir, *arguments.split()))
    assert line.startswith("There is no Kafka here: `make run`")


def test_ctrl_c_is_silent(data_dir: Path) -> None:
    leader, follower = pty.openpty()
    env = environment(data_dir)
    asking = subprocess.Popen([*MANAGE, "make_admin"], env=env, stdin=follower, stdout=follower, stderr=follower)
    os.close(follower)
    shown = b""
    while b"User ID" not in shown:
        shown += os.read(leader, 1024)

    def has_ended() -> bool:
        # Repeatedly, like a person: a signal just before a blocking read is noticed only after it.
        asking.send_signal(signal.SIGINT)
        return asking.poll() is not None

    eventually(has_ended)
    # The second if another signal came while Python was exiting; a shell reports both as 130.
    assert asking.returncode in (128 + signal.SIGINT, -signal.SIGINT)
    with suppress(OSError):  # the end of what a terminal has shown
        while more := os.read(leader, 1024):
            shown += more
    os.close(leader)
    assert b"Traceback" not in shown

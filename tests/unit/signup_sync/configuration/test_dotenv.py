"""Common notations in `.env` files."""

from pathlib import Path

import environ
import pytest
from django.core.exceptions import ImproperlyConfigured

from signup_sync.configuration.dotenv import read_dotenv
from signup_sync.configuration.environment import Environment


@pytest.mark.parametrize(
    ("content", "value"),
    [
        (b"A=1", "1"),
        (b"\xef\xbb\xbfA=1\r\n", "1"),
        (b"export A=1", "1"),
        (b"  A = 1  ", "1"),
        (b"A\t=\t1", "1"),
        (b"A='1'", "1"),
        (b'A = "1" ', "1"),
        (b"A=1 # one", "1"),
        (b"A='1' # one", "1"),
        (b"A=pass#word", "pass#word"),
        (b"A=#1", "#1"),
        (b"A= # nothing", ""),
        (b"A=", ""),
        (b"A=''", ""),
        (b"A='a # b'", "a # b"),
        (b"A=\"a 'b' # c\"", "a 'b' # c"),
        (rb'A="a\"b\\c\n$d"', 'a"b\\c\n$d'),
        (rb"A='a\nb'", r"a\nb"),
        (b"A=a=b==", "a=b=="),
        (b"A=it's", "it's"),
        (b"A=$HOME${X}", "$HOME${X}"),
        (b'A={"sasl.password": "a b"}', '{"sasl.password": "a b"}'),
        ("A=관리자".encode(), "관리자"),
        (b"# a comment\n\n   # another\r\nA=1\rB=2", "1"),
        (b"A=0\nA=1", "1"),
    ],
)
def test_common_notations_in_dotenv_files_are_understood(tmp_path: Path, content: bytes, value: str) -> None:
    (tmp_path / ".env").write_bytes(content)
    assert read_dotenv(tmp_path / ".env")["A"] == value


@pytest.mark.parametrize(
    "line",
    [
        b"PASSWORD",
        b"PASSWORD: hidden",
        b"=hidden",
        b"1A=hidden",
        b"A B=hidden",
        b"A='hidden",
        b'A="hidden\\"',
        b"A='hidden' more",
        b"A=\xb9\xce hidden",
        b"A=\0hidden",
        b"set -o hidden",
    ],
)
def test_a_line_that_cannot_be_understood_is_named_by_its_number(tmp_path: Path, line: bytes) -> None:
    (tmp_path / ".env").write_bytes(b"# first\nB=1\n" + line + b"\nC=2\n")
    with pytest.raises(ImproperlyConfigured) as caught:
        read_dotenv(tmp_path / ".env")
    said = str(caught.value)
    assert said.startswith(f"Line 3 of {tmp_path / '.env'} ")
    assert "hidden" not in said
    assert "\n" not in said


def test_a_file_in_utf_16_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("A=1\n", encoding="utf-16")
    with pytest.raises(ImproperlyConfigured, match=r"^Line 1 .* is not UTF-8: save the file as UTF-8\.$"):
        read_dotenv(tmp_path / ".env")


def test_the_environment_comes_first_unless_it_is_empty(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("A=file\nB=file\nC=file\n")
    values = {"A": "environment", "B": ""}
    monkeypatch.setattr(environ.Env, "ENVIRON", values)
    Environment.read_env(tmp_path / ".env")
    assert values == {"A": "environment", "B": "file", "C": "file"}

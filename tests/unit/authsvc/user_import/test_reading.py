"""An import file as it arrives: encodings, line ends, sizes, quotes, columns."""

import io
import json
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest

from authsvc.user_import.formats import ImportRecord, format_of
from authsvc.user_import.text_lines import LINE_MAX, LineReader, UnreadableFileError

HEADER = "userId,userName,email\n"
KIM = {"userId": "kim", "userName": "Kim", "email": "kim@example.org"}


def records(text: str | bytes) -> list[ImportRecord]:
    raw = text.encode() if isinstance(text, str) else text
    return list(format_of(LineReader(io.BytesIO(raw))).records())


def fields(text: str | bytes) -> list[Any]:
    """The fields of each record, or its fault."""
    return [record.fault or dict(record.fields) for record in records(text)]


def refusal(text: str | bytes) -> str:
    with pytest.raises(UnreadableFileError) as refused:
        records(text)
    return str(refused.value)


def rejected(text: str) -> str:
    """The file of rejected records, if all are."""
    format_ = format_of(LineReader(io.BytesIO(text.encode())))
    return format_.header() + "".join(format_.rejected(each.source, "why") for each in format_.records())


# --- The whole file -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_utf8_is_read_with_a_byte_order_mark_and_with_any_line_end(mark: bytes, end: str):
    csv = f"userId,userName,email{end}{end}kim,김,kim@example.org{end}"
    assert fields(mark + csv.encode()) == [KIM | {"userName": "김"}]
    jsonl = json.dumps(KIM) + end
    assert fields(mark + jsonl.encode()) == [KIM]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_utf16_and_utf32_are_named_with_the_command_that_converts_them(encoding: str):
    said = refusal((HEADER + "kim,Kim,kim@example.org\n").encode(encoding))
    assert "is not UTF-8" in said
    assert f"iconv -f {'UTF-32' if encoding == 'utf-32' else 'UTF-16'} -t UTF-8" in said


@pytest.mark.parametrize(("encoding", "name"), [("latin-1", "Zoë"), ("cp949", "김민아")])
def test_any_other_encoding_is_refused_at_its_first_line(encoding: str, name: str):
    text = f"{HEADER}kim,Kim,kim@example.org\nlee,{name},lee@example.org\n"
    assert refusal(text.encode(encoding)).startswith("Line 3 is not UTF-8. Save the file as UTF-8 or convert it")


@pytest.mark.parametrize("text", [HEADER + "kim,Kim,kim@example.org\n", f"{json.dumps(KIM)}\n{json.dumps(KIM)}\n"])
def test_lines_that_end_with_carriage_returns_only_are_named_with_the_command_that_converts_them(text: str):
    said = refusal(text.replace("\n", "\r").encode())
    assert said.startswith("The lines end with carriage returns only.")
    assert r"tr '\r' '\n' < FILE" in said


@pytest.mark.parametrize("text", ["", "\n\n", "\ufeff"])
def test_an_empty_file_is_refused(text: str):
    assert refusal(text) == "The file is empty."


def test_a_json_array_is_refused_with_the_command_that_splits_it():
    assert "jq -c '.[]' FILE" in refusal(json.dumps([KIM]))


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ("userId,email", "It lacks userName."),
        ("userId,userName,email,userId", "It repeats userId."),
        ("userId,userName,email,userPw", "It has the unknown userPw."),
        ("userId,userName,email,", "It has the unknown empty."),
        ("userId;userName;email", "It lacks userId, userName, email, has the unknown userId;userName;email."),
        ('"userId,userName', "does not name the columns"),
        ("userId," * 20_000, "repeats userId"),
        ("PK\x03\x04", "It lacks userId"),
    ],
)
def test_missing_unknown_and_repeated_columns_are_named(header: str, words: str):
    assert words in refusal(f"{header}\nkim,Kim,kim@example.org\n")


# --- One line -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "begin",
    [HEADER, json.dumps(KIM) + "\n"],
    ids=["csv", "jsonl"],
)
def test_a_long_line_is_rejected_alone_and_never_in_memory(begin: str):
    """The line has 64 MB, in a file that is never in memory as a whole."""

    class Long(io.RawIOBase):
        """The text, a line of 64 MB, and the text's last line again."""

        def __init__(self) -> None:
            self._parts: Iterator[bytes] = self._all()

        def _all(self) -> Iterator[bytes]:
            yield begin.encode()
            for _ in range(1024):
                yield b"x" * 65_536
            yield b"\n" + (json.dumps(KIM) if begin != HEADER else "kim,Kim,kim@example.org").encode() + b"\n"

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            part = next(self._parts, b"")
            buffer[: len(part)] = part
            return len(part)

    lines = LineReader(io.BufferedReader(Long(), 65_536))  # type: ignore[arg-type]
    tracemalloc.start()
    try:
        found = list(format_of(lines).records())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2_000_000
    [long] = [record for record in found if record.fault]
    assert (long.line, long.fault) == (2, f"This line has more than {LINE_MAX} bytes.")
    assert len(json.dumps(long.source)) < 300
    assert found[-1].fields == KIM
    assert found[-1].line == 3


@pytest.mark.parametrize(("size", "is_read"), [(LINE_MAX, True), (LINE_MAX + 1, False)])
@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_the_size_limit_of_a_line_excludes_its_end(size: int, is_read: bool, end: str):
    rest = ",Kim,kim@example.org"
    text = "k" * (size - len(rest)) + rest
    [record] = records(HEADER + text + end)
    assert (record.fault == "") is is_read


def test_a_quoted_field_may_contain_commas_quotes_and_line_breaks():
    text = HEADER + 'kim,"Kim, ""K""\nJr.",kim@example.org\nlee,Lee,lee@example.org\n'
    first, second = records(text)
    assert first.fields == KIM | {"userName": 'Kim, "K"\nJr.'}
    assert (first.line, second.line, second.fields["userId"]) == (2, 4, "lee")


@pytest.mark.parametrize(
    "bad",
    [
        'lee,"Lee,lee@example.org',  # never closed
        'lee,"Lee"L,lee@example.org',
        'a,"b\nc"d,e',
        "lee,Lee",
        "lee,Lee,lee@example.org,more",
        "lee,Lee\rlee,lee@example.org",
    ],
)
def test_a_malformed_record_spoils_no_other_line(bad: str):
    text = f"{HEADER}kim,Kim,kim@example.org\n{bad}\njun,Jun,jun@example.org\npark,Park,park@example.org\n"
    found = fields(text)
    good = [each["userId"] for each in found if isinstance(each, dict)]
    assert good == ["kim", "jun", "park"]
    assert len(found) > len(good)


def test_a_quotation_mark_within_an_unquoted_field_is_part_of_it():
    text = f'{HEADER}kim,5" Kim,kim@example.org\nlee,6" Lee,lee@example.org\n'
    assert [each["userName"] for each in fields(text)] == ['5" Kim', '6" Lee']


def test_lines_that_open_quotation_marks_cost_no_more_than_the_others():
    """Each line looks ahead for the end of its field, but only up to the maximum length of a line."""
    some = [f'user-{n},"User,user-{n}@example.org' if n % 100 == 0 else f"user-{n},U,u@x.org" for n in range(20_000)]
    found = fields(HEADER + "\n".join(some))
    assert sum(isinstance(each, dict) for each in found) > 19_000


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("{", "This is not JSON"),
        ('{"userId": "kim", "userId": "lee"}', "This is not JSON: userId appears twice in an object"),
        ('{"userId": NaN}', "This is not JSON: NaN is not allowed"),
        ('"kim"', "This is not a JSON object."),
        ("null", "This is not a JSON object."),
        ('{"userId": ' + "[" * 30_000 + "]" * 30_000 + "}", "This is not JSON"),
    ],
)
def test_a_line_that_is_no_json_object_is_rejected_alone(line: str, fault: str):
    kim = json.dumps(KIM)
    first, bad, last = records(f"{kim}\n{line}\n{kim}\n")
    assert bad.fault.startswith(fault)
    assert (first.fields, last.fields) == (KIM, KIM)


# --- The file of rejected records -----------------------------------------------------------------------------------


def test_rejected_csv_has_the_reason_first_and_is_read_again():
    text = 'email,userId,userName\nx,kim,"K, ""im""\n2"\ntoo,few\none,too,many,cells\n'
    again = rejected(text)
    assert again.startswith("reason,email,userId,userName\nwhy,x,kim,")
    assert fields(again) == fields(text)
    # Importing that file and rejecting it once more adds no second reason.
    assert rejected(again) == again


def test_rejected_json_lines_have_the_reason_and_are_read_again():
    text = json.dumps(KIM | {"userName": "\ud800", "age": 7}) + "\n" + json.dumps(KIM) + "\n"
    again = rejected(text)
    assert [json.loads(line)["reason"] for line in again.splitlines()] == ["why", "why"]
    assert fields(again) == fields(text)
    assert rejected(again) == again


def test_an_unreadable_line_is_shown_in_the_file_of_rejected_records():
    assert json.loads(rejected('{"userId": \n')) == {"reason": "why", "line": '{"userId": '}
    assert '"""open,1"' in rejected(HEADER + '"open,1\n')
    # JSON has no infinite numbers, so the line as it was read must not become one.
    assert json.loads(rejected('{"userId": 1e400}\n')) == {"reason": "why", "line": '{"userId": 1e400}'}

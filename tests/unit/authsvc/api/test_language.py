"""The language of auth's messages about a field."""

import pytest

from authsvc.api.http_messages import language


@pytest.mark.parametrize(
    ("accepted", "expected"),
    [
        (None, "en"),
        (b"", "en"),
        (b"ko", "ko"),
        (b"ko-KR,ko;q=0.9,en-US;q=0.8", "ko"),
        (b"en-US,en;q=0.9,ko;q=0.8", "en"),
        (b"fr-CH, fr;q=0.9, ko;q=0.5, *;q=0.1", "ko"),
        (b"fr, *", "en"),
        (b";;q=,,\xff\x00=", "en"),
        (b"x-" * 5000, "en"),
        (b"ko" + b"-x" * 400, "en"),
    ],
)
def test_the_language_is_the_headers_best_supported_one(accepted: bytes | None, expected: str):
    headers = [] if accepted is None else [(b"accept-language", accepted)]
    assert language({"type": "http", "headers": headers}) == expected

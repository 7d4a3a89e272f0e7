"""Cleans or refuses headers that are expensive or dangerous to parse, before anything parses them (docs/adr/0038).

Python's cookie parser takes quadratic time for a value with escaped quotes, and Python decodes forms and parameters
with any codec that a client names.
"""

import re
from collections.abc import MutableMapping
from typing import Any, Final

from django.conf import settings

from signup_sync.front.tickets import BROWSER_COOKIE, CHANGE_COOKIE, USER_ID_COOKIE
from signup_sync.middleware.message_storage import PrefixedCookieStorage

_OWN_COOKIES: Final = frozenset(
    name.encode()
    for name in (
        settings.SESSION_COOKIE_NAME,
        settings.CSRF_COOKIE_NAME,
        settings.LANGUAGE_COOKIE_NAME,
        PrefixedCookieStorage.cookie_name,
        BROWSER_COOKIE,
        CHANGE_COOKIE,
        USER_ID_COOKIE,
    )
)
# Maximum bytes of a cookie; browsers don't store larger ones.
_COOKIE_MAX: Final = 4 * 1024
# Maximum bytes of a Content-Type. A browser's form has 33.
_TYPE_MAX: Final = 256
# A type and its parameters, without RFC 2231 encoding, backslashes or any charset but UTF-8.
_TYPE: Final = re.compile(
    rb"""[\w.+-]+/[\w.+-]+
    (?:[ \t]*;[ \t]*(?:charset="?utf-8"?|(?!charset)[\w.-]+=(?:[^\s;"\\]+|"[^"\\]*")))*
    [ \t;]*""",
    re.IGNORECASE | re.VERBOSE,
)


def keep_own_cookies(scope: MutableMapping[str, Any]) -> None:
    """Drop the cookies of other applications on the same host, and cookies that can't be ours because they contain a
    backslash or are too large."""
    if all(name != b"cookie" for name, _ in scope["headers"]):
        return
    headers = []
    for name, value in scope["headers"]:
        if name == b"cookie":
            value = b"; ".join([cookie for each in value.split(b";") if _is_own(cookie := each.strip())])
            if not value:
                continue
        headers.append((name, value))
    scope["headers"] = headers


def _is_own(cookie: bytes) -> bool:
    name, equals, value = cookie.partition(b"=")
    return bool(equals) and name.strip() in _OWN_COOKIES and len(value) <= _COOKIE_MAX and b"\\" not in value


def has_readable_type(scope: MutableMapping[str, Any]) -> bool:
    """Whether the Content-Type is one that we read: a single type, in UTF-8, and not multipart, which no form here
    uses."""
    types = [value for name, value in scope["headers"] if name == b"content-type"]
    if not types or types == [b""]:
        return True
    [kind, *more] = types
    return (
        not more
        and len(kind) <= _TYPE_MAX
        and not kind.lower().startswith(b"multipart/")
        and _TYPE.fullmatch(kind) is not None
    )

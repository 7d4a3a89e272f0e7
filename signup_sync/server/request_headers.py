"""Headers that are dear or dangerous to read, put right or refused before anything reads them (docs/adr/0038).

Python's parser of cookies takes time that grows with the square of a value's length where quotes are escaped in it, and
decodes forms and parameters with whatever codec of its own a client names.
"""

import re
from collections.abc import MutableMapping
from typing import Any, Final

from django.conf import settings

from signup_sync.front.tickets import BROWSER_COOKIE, USER_ID_COOKIE
from signup_sync.middleware.message_storage import PrefixedCookieStorage

_OWN_COOKIES: Final = frozenset(
    name.encode()
    for name in (
        settings.SESSION_COOKIE_NAME,
        settings.CSRF_COOKIE_NAME,
        settings.LANGUAGE_COOKIE_NAME,
        PrefixedCookieStorage.cookie_name,
        BROWSER_COOKIE,
        USER_ID_COOKIE,
    )
)
# Bytes of a cookie: browsers keep no larger one.
_COOKIE_MAX: Final = 4 * 1024
# Bytes of a Content-Type. A browser's form has 33.
_TYPE_MAX: Final = 256
# A type and its parameters, none of them encoded by RFC 2231 or with a backslash, and no codec but UTF-8.
_TYPE: Final = re.compile(
    rb"""[\w.+-]+/[\w.+-]+
    (?:[ \t]*;[ \t]*(?:charset="?utf-8"?|(?!charset)[\w.-]+=(?:[^\s;"\\]+|"[^"\\]*")))*
    [ \t;]*""",
    re.IGNORECASE | re.VERBOSE,
)


def keep_own_cookies(scope: MutableMapping[str, Any]) -> None:
    """Leaves out the cookies of other applications, which browsers send along where these share a host, and what can't
    be one of ours: those need neither backslashes nor 4 KB."""
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
    """Whether the body is one that is read here: text in UTF-8, of one type. A form in parts is none of ours."""
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

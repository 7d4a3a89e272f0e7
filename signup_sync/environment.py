"""Settings as the environment has them: read strictly, and refused in one line that names the setting.

django-environ reads a misspelt `true` as false, drops what is no digit from a number, and looks a value that begins
with `$` up as another variable. Here each of them is either taken as it stands or refused.
"""

import json
import math
from collections.abc import Callable
from typing import Any, Final

import environ
from django.core.exceptions import ImproperlyConfigured

# Their values are, or may contain, passwords: no error shows them.
SECRETS: Final = frozenset(
    {
        "SECRET_KEY",
        "AUTH_DATABASE_URL",
        "CHAT_DATABASE_URL",
        "CUSTOMER_DATABASE_URL",
        "REDIS_URL",
        "KAFKA_CLIENT_CONFIG",
        "EMAIL_URL",
    }
)
_TRUE: Final = frozenset({"true", "yes", "on", "1"})
_FALSE: Final = frozenset({"false", "no", "off", "0"})
_MISSING: Final = environ.Env.NOTSET


def refusal(name: str, value: object, allowed: str) -> ImproperlyConfigured:
    """The error of a setting that can't be used; `allowed` continues the sentence "give it …"."""
    shown = "can't be used" if name in SECRETS or name.endswith("_DATABASE_URL") else f"is {str(value)[:200]!r}"
    return ImproperlyConfigured(f"{name} {shown}: give it {allowed}.")


class Environment(environ.Env):  # type: ignore[misc]  # django-environ ships no types
    """The process's environment. A variable that is empty counts as one that is not set.

    Every method raises ImproperlyConfigured for a value that it can't take.
    """

    def get_value(self, var: str, cast: Any = None, default: Any = _MISSING, parse_default: bool = False) -> Any:
        try:
            value = self.ENVIRON[var].strip()
        except KeyError:
            value = ""
        if not value:
            if default is _MISSING:
                raise ImproperlyConfigured(f"{var} is not set: it has no default with PRODUCTION=true.")
            return default
        if isinstance(cast, list) or cast is list:
            return [part for each in value.split(",") if (part := each.strip())]
        read, allowed = _READERS.get(cast, (cast or str, "a value of the right form"))
        try:
            return read(value)
        except (ValueError, TypeError):
            # Without its cause, which quotes the value.
            raise refusal(var, value, allowed) from None


def _read_bool(value: str) -> bool:
    if value.lower() in _TRUE:
        return True
    if value.lower() in _FALSE:
        return False
    raise ValueError


def _read_int(value: str) -> int:
    if not (value.isascii() and value.isdigit()):
        raise ValueError
    return int(value)


def _read_float(value: str) -> float:
    number = float(value)
    if not math.isfinite(number) or number < 0:
        raise ValueError
    return number


def _read_object(value: str) -> dict[str, Any]:
    document = json.loads(value)
    if not isinstance(document, dict):
        raise ValueError  # noqa: TRY004 - as json.loads() itself has it
    return document


# What django-environ's bool(), int(), float() and json() ask for, and the words for what they take.
_READERS: Final[dict[Any, tuple[Callable[[str], Any], str]]] = {
    bool: (_read_bool, "true or false"),
    int: (_read_int, "a whole number, 0 or more"),
    float: (_read_float, "a number, 0 or more"),
    json.loads: (_read_object, "a JSON object, in one line"),
}

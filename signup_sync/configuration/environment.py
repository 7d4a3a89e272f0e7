"""Reads settings from the environment strictly. An invalid value is refused in one line that names the setting.

django-environ reads a misspelt `true` as false, drops non-digits from a number, and treats a value that begins with `$`
as a reference to another variable. Here each value is either taken literally or refused.
"""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import environ
from django.core.exceptions import ImproperlyConfigured

from signup_sync.configuration.dotenv import read_dotenv

SECRETS: Final = frozenset(
    {
        "SECRET_KEY",
        "SECRET_KEY_FALLBACKS",
        "REDIS_URL",
        "KAFKA_CLIENT_CONFIG",
        "EMAIL_URL",
        "SCIM_TOKENS",
        "OPENSEARCH_URL",
    }
)
_TRUE: Final = frozenset({"true", "yes", "on", "1"})
_FALSE: Final = frozenset({"false", "no", "off", "0"})
_MISSING: Final = environ.Env.NOTSET
# The largest number that a setting accepts: most numbers of librdkafka and PostgreSQL have 32 bits.
NUMBER_MAX: Final = 2**31 - 1
PORT_MAX: Final = 65_535


def is_secret(name: str) -> bool:
    """Whether this setting's value is or may contain a password, so that errors must not show it."""
    return name in SECRETS or name.endswith("_DATABASE_URL")


def refusal(name: str, value: object, allowed: str) -> ImproperlyConfigured:
    """Return the error for an invalid setting; `allowed` completes the sentence "give it …"."""
    shown = "can't be used" if is_secret(name) else f"is {str(value)[:200]!r}"
    return ImproperlyConfigured(f"{name} {shown}: give it {allowed}.")


class Environment(environ.Env):  # type: ignore[misc]  # django-environ ships no types
    """The process's environment. An empty variable counts as not set.

    Every method raises ImproperlyConfigured for an invalid value.
    """

    @classmethod
    def read_env(cls, path: Path) -> None:
        """Add the file's variables that the environment doesn't set. Raises ImproperlyConfigured."""
        for name, value in read_dotenv(path).items():
            if not cls.ENVIRON.get(name, "").strip():
                cls.ENVIRON[name] = value

    def int(self, var: str, default: Any = _MISSING, *, least: float = 0, most: float = NUMBER_MAX) -> Any:
        number = self.get_value(var, cast=int, default=default)
        if not least <= number <= most:
            raise refusal(var, number, f"a whole number from {least} to {most}")
        return number

    def float(self, var: str, default: Any = _MISSING, *, least: float = 0) -> Any:
        number = self.get_value(var, cast=float, default=default)
        if number < least:
            raise refusal(var, number, f"a number from {least} to {NUMBER_MAX}")
        return number

    def choice(self, var: str, choices: Sequence[str], default: str) -> str:
        """Read one of `choices`, ignoring case."""
        word: str = self.get_value(var, default=default)
        found = [choice for choice in choices if choice.lower() == word.lower()]
        if not found:
            raise refusal(var, word, f"{', '.join(choices[:-1])} or {choices[-1]}")
        return found[0]

    def get_value(self, var: str, cast: Any = None, default: Any = _MISSING, parse_default: bool = False) -> Any:
        try:
            # Decode as UTF-8, whatever the locale: Python decodes other bytes to surrogates, which can't be stored.
            value = os.fsencode(self.ENVIRON[var]).decode().strip()
        except KeyError:
            value = ""
        except UnicodeError:
            raise refusal(var, ascii(self.ENVIRON[var]), "text in UTF-8") from None
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
            # Suppress the cause, which quotes the value.
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
    if not 0 <= number <= NUMBER_MAX:
        raise ValueError
    return number


def _read_object(value: str) -> dict[str, Any]:
    document = json.loads(value)
    if not isinstance(document, dict):
        raise ValueError  # noqa: TRY004 - like json.loads() itself
    return document


# Readers for the casts that django-environ's bool(), int(), float() and json() pass, and descriptions of valid values.
_READERS: Final[dict[Any, tuple[Callable[[str], Any], str]]] = {
    bool: (_read_bool, "true or false"),
    int: (_read_int, f"a whole number from 0 to {NUMBER_MAX}"),
    float: (_read_float, f"a number from 0 to {NUMBER_MAX}"),
    json.loads: (_read_object, "a JSON object, in one line"),
}

"""Settings that administrators can change at run time, and their current values (docs/adr/0050).

`live.SIGNUP_DEADLINE` is a plain attribute: the value of settings.py, which comes from the environment, until an
administrator sets another. Only web, auth's instances and the relay follow the row (livesettings.following); in other
roles `live` keeps the environment's values. Read values when needed: code that stores one keeps it after a change,
unless it registers with `call_on_change`.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Final, Literal, get_args, get_type_hints

import msgspec
from django.conf import settings
from django.core.signals import setting_changed
from django.utils.translation import gettext_noop as _
from msgspec import Meta

logger = logging.getLogger(__name__)


class LiveSettings(msgspec.Struct, kw_only=True):
    """All live settings. Each has the name of its default in settings.py, and the range of allowed values.

    The admin shows title and description. Times are in seconds. A setting with a few named values is a Literal, and
    `extra` gives the label of each value.
    """

    SIGNUP_OPEN: Annotated[
        bool,
        Meta(
            title=_("Sign-up is open"),
            description=_("No: new sign-ups are rejected, and the form says so. Sign-ups that have started continue."),
        ),
    ]
    SIGNUP_CONFIRM: Annotated[
        Literal["none", "mail"],
        Meta(
            title=_("Confirmation of email addresses"),
            description=_(
                "By email: a sign-up waits until the link in an email is opened, and new and existing users get "
                "the same response. Waiting sign-ups can be confirmed even if this setting changes."
            ),
            extra={"none": _("None"), "mail": _("By email")},
        ),
    ]
    SIGNUP_REASONS: Annotated[
        bool,
        Meta(
            title=_("Show the reason of a red light"),
            description=_(
                "No: the page and the API say that a service refused, but not that it already had the user ID or "
                "address."
            ),
        ),
    ]
    SIGNUP_DEADLINE: Annotated[
        float,
        Meta(
            ge=1,
            le=600,
            title=_("Deadline, in seconds"),
            description=_("A sign-up that takes longer is reported as delayed."),
        ),
    ]
    STREAM_HEARTBEAT: Annotated[
        float,
        Meta(
            ge=1,
            le=60,
            title=_("Heartbeat, in seconds"),
            description=_("Interval between heartbeats on an idle stream, and between reads of the state behind it."),
        ),
    ]
    RATE_LIMIT_ADDRESS: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000,
            title=_("Sign-ups per minute from one address"),
            description=_("0: no limit. An IPv6 /64 network counts as one address."),
        ),
    ]
    RATE_LIMIT_USER_ID: Annotated[
        int,
        Meta(ge=0, le=1_000_000, title=_("Sign-ups per minute for one user ID"), description=_("0: no limit.")),
    ]
    RATE_LIMIT_TOTAL: Annotated[
        int, Meta(ge=0, le=100_000_000, title=_("Sign-ups per minute in total"), description=_("0: no limit."))
    ]
    RATE_LIMIT_LOGIN: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000,
            title=_("Logins per minute from one address"),
            description=_("0: no limit. Attempts with a wrong password count too."),
        ),
    ]
    RATE_LIMIT_FAILED_LOGIN: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000,
            title=_("Failed logins to one account from one address in 15 minutes"),
            description=_("0: no limit. Logins from other addresses are not affected."),
        ),
    ]
    RATE_LIMIT_PASSWORD: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000,
            title=_("Password reset requests per minute from one address"),
            description=_("0: no limit. Each request may send an email."),
        ),
    ]
    RATE_LIMIT_CONFIRM: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000,
            title=_("Confirmation and password reset emails per hour"),
            description=_(
                "Limit per kind and mailbox for requests from one network address; requests from all addresses "
                "together may send four times as many. 0: no limit. A request over the limit gets the same "
                "response as any other."
            ),
        ),
    ]
    RELAY_FIRST_PAUSE: Annotated[
        float,
        Meta(
            ge=0.1,
            le=600,
            title=_("First pause, in seconds"),
            description=_(
                "Time until a service that has not answered is asked again. The pause doubles with each attempt."
            ),
        ),
    ]
    RELAY_MAX_PAUSE: Annotated[
        float,
        Meta(
            ge=0.1, le=3600, title=_("Longest pause, in seconds"), description=_("The pause does not grow beyond this.")
        ),
    ]
    RELAY_MAX_ATTEMPTS: Annotated[
        int,
        Meta(
            ge=1,
            le=100_000,
            title=_("Attempts until stalled"),
            description=_("A stalled sign-up is sent again only when someone replays it."),
        ),
    ]
    RELAY_RATE: Annotated[
        int,
        Meta(
            ge=1,
            le=10_000,
            title=_("Events per second from one relay"),
            description=_("Maximum rate of sending again; a tenth of it while a service is behind."),
        ),
    ]


_TYPES: Final = get_type_hints(LiveSettings, include_extras=True)
NAMES: Final = tuple(_TYPES)

# A consistency check of values that are each in range. It yields problems: the settings concerned, and a description.
Rule = Callable[[LiveSettings], Iterable[tuple[tuple[str, ...], str]]]
_rules: list[Rule] = []
_listeners: list[Callable[[], None]] = []
_overrides: dict[str, Any] = {}


def rule(check: Rule) -> Rule:
    """Register a rule over several values. Each app registers its own."""
    _rules.append(check)
    return check


def meta_of(name: str) -> Meta:
    """Return the range, title and description of a setting."""
    meta: Meta = _TYPES[name].__metadata__[0]
    return meta


def type_of(name: str) -> Any:
    """Return the setting's type: bool, int, float, or a Literal of its named values."""
    return _TYPES[name].__origin__


def choices_of(name: str) -> Mapping[str, str]:
    """Return the label of each named value of a setting; empty if it has no named values."""
    words: Mapping[str, str] = meta_of(name).extra or {}
    return {value: words[value] for value in get_args(type_of(name))}


def with_overrides(overrides: Mapping[str, Any]) -> LiveSettings:
    """Return the values of settings.py with these overrides applied."""
    return LiveSettings(**{name: overrides.get(name, getattr(settings, name)) for name in NAMES})


def checked(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return the overrides that this version knows, converted to their types.

    Raises msgspec.ValidationError for a value out of range."""
    return {name: msgspec.convert(overrides[name], _TYPES[name]) for name in NAMES if name in overrides}


def broken_rules(overrides: Mapping[str, Any]) -> list[str]:
    """Describe the rules that these overrides break. Rules broken by settings.py alone are not the admin's concern."""
    values = with_overrides(overrides)
    return [problem for check in _rules for names, problem in check(values) if any(name in overrides for name in names)]


def call_on_change(listener: Callable[[], None]) -> None:
    """Call `listener`, on any thread, whenever values have changed."""
    _listeners.append(listener)


def forget(listener: Callable[[], None]) -> None:
    """Stop calling `listener` on changes."""
    _listeners.remove(listener)


def take(overrides: Mapping[str, Any]) -> None:
    """Replace the overrides that apply in this process, and notify the listeners."""
    global _overrides
    _overrides = dict(overrides)
    values = with_overrides(_overrides)
    changed = {name: value for name in NAMES if (value := getattr(values, name)) != getattr(live, name)}
    for name, value in changed.items():
        logger.info("%s is now %s, was %s", name, value, getattr(live, name))
        setattr(live, name, value)
    if changed:
        for listener in list(_listeners):
            listener()


def _take_default(*, setting: str, **_: Any) -> None:
    if setting in NAMES:
        setattr(live, setting, getattr(with_overrides(_overrides), setting))


live: Final = with_overrides({})
# Sent only in tests, which change the values of settings.py.
setting_changed.connect(_take_default)

"""What is kept of the messages that nobody could handle: the dead letters, and what was done about each."""

import base64
from typing import Any, ClassVar, Final, Self

import msgspec
from django.db import models
from django.utils import timezone
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from eventbus.messages import Header

# Kafka allows 249 characters.
TOPIC_MAX: Final = 255
ERROR_MAX: Final = 255
CUT_MAX: Final = 255
BY_MAX: Final = 255


class DeadLetter(models.Model):
    """One message as a consumer put it aside, with the reason.

    `key` and `value` are the original's bytes, None where it had none, and `headers` its headers, as
    `headers_as_document` has them. `cut` says in words what of them was cut to fit, and is empty where nothing was.
    What the letter itself did not say is null.
    """

    class State(models.TextChoices):
        WAITING = "waiting", _("waiting")
        REPLAYED = "replayed", _("replayed")
        DISCARDED = "discarded", _("discarded")

    state = models.CharField(_("state"), max_length=16, choices=State.choices, default=State.WAITING)
    # Where it stands among the dead letters. Not the place alone makes it this one: a topic that was made anew, as
    # the embedded broker's are at each start, counts its offsets from 0 again.
    letter_topic = models.CharField(_("dead-letter topic"), max_length=TOPIC_MAX)
    letter_partition = models.BigIntegerField(_("dead-letter partition"))
    letter_offset = models.BigIntegerField(_("dead-letter offset"))
    put_aside_at = models.DateTimeField(_("put aside"))

    topic = models.CharField(_("topic"), max_length=TOPIC_MAX)
    group = models.CharField(_("group"), max_length=TOPIC_MAX)
    partition = models.BigIntegerField(_("partition"), null=True)
    offset = models.BigIntegerField(_("offset"), null=True)
    sent_at = models.DateTimeField(_("sent"), null=True)
    key = models.BinaryField(_("key"), null=True)
    value = models.BinaryField(_("value"), null=True)
    headers = models.JSONField(_("headers"), default=list)
    cut = models.CharField(_("cut to fit"), max_length=CUT_MAX, blank=True)

    error = models.CharField(_("error"), max_length=ERROR_MAX, blank=True)
    message = models.TextField(_("what the error said"), blank=True)

    objects: ClassVar[models.Manager[Self]] = models.Manager()

    class Meta:
        verbose_name = _("dead letter")
        verbose_name_plural = _("dead letters")
        default_permissions = ("view",)
        permissions = [("handle_deadletter", _("May replay and discard dead letters"))]
        constraints = [
            models.UniqueConstraint(
                fields=["letter_topic", "letter_partition", "letter_offset", "put_aside_at"],
                name="dead_letter_kept_once",
            )
        ]
        indexes = [
            models.Index(fields=["state", "id"], name="dead_letter_state"),
            models.Index(fields=["put_aside_at"], name="dead_letter_age"),
        ]

    def __str__(self) -> str:
        return f"{self.place} ({self.group})"

    @property
    def place(self) -> str:
        """Where the original message stood."""
        return place(self.topic, self.partition, self.offset)

    @property
    def letter_place(self) -> str:
        return place(self.letter_topic, self.letter_partition, self.letter_offset)

    @property
    def error_line(self) -> str:
        """The error's type without its module, and what it said."""
        return ": ".join(part for part in (self.error.rpartition(".")[2], self.message) if part)

    @property
    def key_text(self) -> str:
        return readable(self.key)

    @property
    def value_text(self) -> str:
        return "" if self.value is None else readable_json(self.value)

    @property
    def header_texts(self) -> list[tuple[str, str]]:
        return [(name, readable(value)) for name, value in headers_from_document(self.headers)]


class DeadLetterAct(models.Model):
    """What somebody did about a letter: the audit row. It lives as long as its letter."""

    letter = models.ForeignKey(DeadLetter, on_delete=models.CASCADE, related_name="acts")
    # The state that the act led to is its name.
    act = models.CharField(_("act"), max_length=16, choices=DeadLetter.State.choices)
    at = models.DateTimeField(_("when"), default=timezone.now)
    by = models.CharField(_("who"), max_length=BY_MAX)
    reason = models.TextField(_("reason"), blank=True)

    objects: ClassVar[models.Manager[Self]] = models.Manager()

    class Meta:
        verbose_name = _("act on a dead letter")
        verbose_name_plural = _("acts on dead letters")
        default_permissions = ()
        ordering = ("id",)

    def __str__(self) -> str:
        return f"{self.act}: {self.by}"


def place(topic: str, partition: int | None, offset: int | None) -> str:
    """topic[partition] at offset, with ? for what is not known."""
    known = {"partition": "?" if partition is None else partition, "offset": "?" if offset is None else offset}
    return gettext("%(topic)s[%(partition)s] at %(offset)s") % {"topic": topic, **known}


def readable(content: bytes | memoryview | None) -> str:
    """Text, with what is no UTF-8 as \\x00; empty where there is nothing."""
    return "" if content is None else bytes(content).decode(errors="backslashreplace")


def readable_json(content: bytes | memoryview) -> str:
    """JSON with an indent, its escapes and numbers as they came; anything else as readable() has it."""
    try:
        return readable(msgspec.json.format(bytes(content), indent=2))
    except (msgspec.MsgspecError, RecursionError):
        return readable(content)


def headers_as_document(headers: tuple[Header, ...]) -> list[list[Any]]:
    """[[name, value], ...] that any JSON column takes: a value is a text, null, or {"base64": ...} for other bytes.

    A text with a NUL goes as base64 too: PostgreSQL's jsonb refuses it.
    """
    return [[name, value if value is None else _header_value(value)] for name, value in headers]


def headers_from_document(document: list[list[Any]]) -> tuple[Header, ...]:
    """The headers as they were."""
    return tuple((name, _header_bytes(value)) for name, value in document)


def _header_value(value: bytes) -> str | dict[str, str]:
    if b"\x00" not in value:
        try:
            return value.decode()
        except UnicodeDecodeError:
            pass
    return {"base64": base64.b64encode(value).decode()}


def _header_bytes(value: str | dict[str, str] | None) -> bytes | None:
    if value is None:
        return None
    return value.encode() if isinstance(value, str) else base64.b64decode(value["base64"])


class Topic(models.Model):  # noqa: DJ008 - there are no rows
    """No table: it gives the topics page its permission and its place in the administration."""

    class Meta:
        managed = False
        default_permissions = ("view",)
        verbose_name = _("topic")
        verbose_name_plural = _("topics")


class Instance(models.Model):  # noqa: DJ008 - there are no rows
    """No table: it gives the page of the running processes its permission and its place in the administration."""

    class Meta:
        managed = False
        default_permissions = ("view",)
        verbose_name = _("instance")
        verbose_name_plural = _("instances")

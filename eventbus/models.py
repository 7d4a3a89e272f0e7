"""Dead letters, which are messages that a consumer could not handle, and the actions on them."""

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
    """A message that a consumer could not handle, with the error.

    `key` and `value` are the original bytes, or None if it had none; `headers` has the format of headers_as_document().
    `cut` describes what was truncated to fit, and is empty if nothing was. Fields that the dead letter's headers did
    not give are null.
    """

    class State(models.TextChoices):
        WAITING = "waiting", _("waiting")
        REPLAYED = "replayed", _("replayed")
        DISCARDED = "discarded", _("discarded")

    state = models.CharField(_("state"), max_length=16, choices=State.choices, default=State.WAITING)
    # Position in the dead-letter topic. It identifies a letter only together with put_aside_at: a topic that was
    # created anew, as the embedded broker's are at each start, counts its offsets from 0 again.
    letter_topic = models.CharField(_("dead-letter topic"), max_length=TOPIC_MAX)
    letter_partition = models.BigIntegerField(_("dead-letter partition"))
    letter_offset = models.BigIntegerField(_("dead-letter offset"))
    put_aside_at = models.DateTimeField(_("dead-lettered"))

    topic = models.CharField(_("topic"), max_length=TOPIC_MAX)
    group = models.CharField(_("group"), max_length=TOPIC_MAX)
    partition = models.BigIntegerField(_("partition"), null=True)
    offset = models.BigIntegerField(_("offset"), null=True)
    sent_at = models.DateTimeField(_("sent"), null=True)
    key = models.BinaryField(_("key"), null=True)
    value = models.BinaryField(_("value"), null=True)
    headers = models.JSONField(_("headers"), default=list)
    cut = models.CharField(_("truncated"), max_length=CUT_MAX, blank=True)

    error = models.CharField(_("error"), max_length=ERROR_MAX, blank=True)
    message = models.TextField(_("error text"), blank=True)

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
        """The original message's topic, partition and offset."""
        return place(self.topic, self.partition, self.offset)

    @property
    def letter_place(self) -> str:
        return place(self.letter_topic, self.letter_partition, self.letter_offset)

    @property
    def error_line(self) -> str:
        """The error's type without its module, and its text."""
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


class DeadLetterAction(models.Model):
    """Audit row of an action on a letter. It is deleted with its letter."""

    letter = models.ForeignKey(DeadLetter, on_delete=models.CASCADE, related_name="actions")
    # The state that it led to.
    action = models.CharField(_("action"), max_length=16, choices=DeadLetter.State.choices, db_column="act")
    at = models.DateTimeField(_("time"), default=timezone.now)
    by = models.CharField(_("author"), max_length=BY_MAX)
    reason = models.TextField(_("reason"), blank=True)

    objects: ClassVar[models.Manager[Self]] = models.Manager()

    class Meta:
        # The table and its column keep the names that the previous release uses, which may still run during an upgrade.
        db_table = "eventbus_deadletteract"
        verbose_name = _("action on a dead letter")
        verbose_name_plural = _("actions on dead letters")
        default_permissions = ()
        ordering = ("id",)

    def __str__(self) -> str:
        return f"{self.action}: {self.by}"


def place(topic: str, partition: int | None, offset: int | None) -> str:
    """Return "topic[partition] at offset", with ? for an unknown number."""
    known = {"partition": "?" if partition is None else partition, "offset": "?" if offset is None else offset}
    return gettext("%(topic)s[%(partition)s] at %(offset)s") % {"topic": topic, **known}


def readable(content: bytes | memoryview | None) -> str:
    """Return the content as text, with bytes that are not UTF-8 as \\x00; empty if there is none."""
    return "" if content is None else bytes(content).decode(errors="backslashreplace")


def readable_json(content: bytes | memoryview) -> str:
    """Return JSON indented, with its escapes and numbers unchanged; anything else as readable() does."""
    try:
        return readable(msgspec.json.format(bytes(content), indent=2))
    except (msgspec.MsgspecError, RecursionError):
        return readable(content)


def headers_as_document(headers: tuple[Header, ...]) -> list[list[Any]]:
    """Return the headers as [[name, value], ...] for a JSON column. A value is text, null, or {"base64": ...}.

    Text with a NUL is also encoded in base64, because PostgreSQL's jsonb rejects it.
    """
    return [[name, value if value is None else _header_value(value)] for name, value in headers]


def headers_from_document(document: list[list[Any]]) -> tuple[Header, ...]:
    """Return the original headers from the format of headers_as_document()."""
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
    """Model without a table. It gives the topics page a permission and an entry in the admin."""

    class Meta:
        managed = False
        default_permissions = ("view",)
        verbose_name = _("topic")
        verbose_name_plural = _("topics")


class Instance(models.Model):  # noqa: DJ008 - there are no rows
    """Model without a table. It gives the page of running processes a permission and an entry in the admin."""

    class Meta:
        managed = False
        default_permissions = ("view",)
        verbose_name = _("instance")
        verbose_name_plural = _("instances")

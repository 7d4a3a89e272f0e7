"""Dead letters in the table: store, replay, discard and purge them (docs/adr/0012).

A consumer publishes a message that it can't handle to `<topic>.<group>.dlt`, which works even while the database is
away (messages.dead_letter). The collector copies it from there into the table.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, NamedTuple

from django.db import router, transaction
from django.utils.translation import gettext as _

from eventbus.errors import DeliveryError
from eventbus.messages import DEAD_LETTER_PREFIX, ERROR_TEXT_MAX, Incoming, Outgoing, Subscription, moment_of
from eventbus.models import ERROR_MAX, DeadLetter, DeadLetterAction, headers_as_document, headers_from_document
from eventbus.producer import EventProducer
from eventbus.subscriptions import every_subscription
from eventbus.topics import dead_letter_topic
from runtime.security_log import log_security_event

# Letters processed at a time. Each may be as large as Kafka allows (1 MB).
CHUNK: Final = 50
ACKNOWLEDGED_WITHIN: Final = 10.0
# Suffix to the user ID of an administrator in `by`.
IN_THE_ADMIN: Final = ", in the admin"
# Description of what each header of a letter reports as cut.
_CUT: Final = {
    "dlt-value-bytes": "value of %d bytes",
    "dlt-key-bytes": "key of %d bytes",
    "dlt-headers-dropped": "%d headers",
}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
# Largest number that a column can store.
BIGINT_MAX: Final = 2**63 - 1


class Origin(NamedTuple):
    """The topic of the messages in a dead-letter topic, and the consumer group that could not handle them."""

    topic: str
    group: str


# By dead-letter topic.
Origins = Mapping[str, Origin]


@dataclass(frozen=True, slots=True)
class LetterResult:
    """The result for one letter. `refusal` says why nothing was done, and is empty on success."""

    letter_id: int
    refusal: str = ""


def dead_letter_origins() -> Origins:
    """Return every dead-letter topic of this installation with its origin."""
    return origins_of(every_subscription())


def origins_of(subscriptions: Iterable[Subscription]) -> Origins:
    """Return the dead-letter topics of these subscriptions with their origins."""
    return {
        dead_letter_topic(topic, each.group): Origin(topic, each.group)
        for each in subscriptions
        for topic in each.dead_letterable_topics
    }


def store_letters(letters: Sequence[Incoming], origins: Origins) -> None:
    """Insert letters from the topics of `origins` into the table, and leave those unchanged that are already there.

    Every message in these topics is stored, even a handmade one: no content may make the database reject the row.
    """
    rows = [_row(letter, origins[letter.topic]) for letter in letters]
    DeadLetter.objects.bulk_create(rows, ignore_conflicts=True)


def replay(
    ids: Sequence[int], *, by: str, producer: EventProducer, reason: str = "", again: bool = False
) -> Iterator[LetterResult]:
    """Publish the messages to their original topics again, with key, value and headers, and yield each outcome.

    Every consumer group of the topic reads them, including those that handled them before. That is harmless: delivery
    is at least once anyway, and handlers are idempotent. A group that still can't handle a message creates another
    letter. A letter is marked once Kafka has acknowledged its message; a crash in between leaves it waiting. A letter
    that was replayed or discarded before is refused unless `again` is true; a truncated one is always refused.

    Raises DeliveryError if Kafka did not acknowledge all of a chunk; letters of acknowledged messages are marked.
    """
    for letters, refused in _chosen(ids, again=again, refusal=_refusal_of_replay):
        yield from refused
        messages = {letter.pk: _message(letter) for letter in letters}
        failure: DeliveryError | None = None
        try:
            producer.send_all(list(messages.values()), timeout=ACKNOWLEDGED_WITHIN)
        except DeliveryError as error:
            failure = error
        failed = {id(message) for message in failure.failed} if failure else set()
        sent = [letter.pk for letter in letters if id(messages[letter.pk]) not in failed]
        _note(sent, DeadLetter.State.REPLAYED, by=by, reason=reason)
        yield from map(LetterResult, sent)
        if failure:
            raise failure


def discard(ids: Sequence[int], *, by: str, reason: str, again: bool = False) -> Iterator[LetterResult]:
    """Mark the letters as discarded, and yield each outcome. They remain visible until they are purged."""
    for letters, refused in _chosen(ids, again=again, refusal=lambda letter: ""):
        yield from refused
        discarded = [letter.pk for letter in letters]
        _note(discarded, DeadLetter.State.DISCARDED, by=by, reason=reason)
        yield from map(LetterResult, discarded)


def purge_dead_letters(before: datetime, limit: int) -> int:
    """Delete letters older than `before`, oldest first and at most `limit`, with their audit rows; return how many.

    Their state does not matter: what a letter was about, such as a sign-up, is recorded by the service that owns it.
    """
    old = DeadLetter.objects.filter(put_aside_at__lt=before).order_by("put_aside_at").values_list("pk", flat=True)
    chosen = list(old[:limit])
    # only(): don't load the values, which may be large.
    DeadLetter.objects.filter(pk__in=chosen).only("pk").delete()
    return len(chosen)


# --- From Kafka to the table --------------------------------------------------------------------------------------


def _row(letter: Incoming, origin: Origin) -> DeadLetter:
    about = {name: value for name, value in letter.headers if name.startswith(DEAD_LETTER_PREFIX)}
    original = tuple(header for header in letter.headers if not header[0].startswith(DEAD_LETTER_PREFIX))
    return DeadLetter(
        letter_topic=letter.topic,
        letter_partition=letter.partition,
        letter_offset=letter.offset,
        put_aside_at=moment_of(letter.timestamp_ms) or _EPOCH,
        # Don't trust the headers for these: writers to this topic must not choose the topic of a replay.
        topic=origin.topic,
        group=origin.group,
        partition=parse_header_number(about.get("dlt-partition")),
        offset=parse_header_number(about.get("dlt-offset")),
        sent_at=moment_of(parse_header_number(about.get("dlt-timestamp"))),
        key=letter.key,
        value=letter.value,
        headers=headers_as_document(original),
        cut=_cut(about),
        error=_text(about.get("dlt-error"))[:ERROR_MAX],
        message=_text(about.get("dlt-message"))[:ERROR_TEXT_MAX],
    )


def _cut(about: Mapping[str, bytes | None]) -> str:
    """Describe what was cut from the message, with its original size; empty if nothing was."""
    sizes = ((words, parse_header_number(about.get(name))) for name, words in _CUT.items())
    return ", ".join(words % size for words, size in sizes if size is not None)


def _text(value: bytes | None) -> str:
    """Decode the text, without NULs, which PostgreSQL can't store."""
    return (value or b"").decode(errors="replace").replace("\x00", "\ufffd")


def parse_header_number(value: bytes | None, *, most: int = BIGINT_MAX) -> int | None:
    """Return the number in a header of a letter; None unless it consists of digits and is at most `most`."""
    if not value or len(value) > len(str(most)) or not value.isdigit():
        return None
    number = int(value)
    return number if number <= most else None


# --- Actions ------------------------------------------------------------------------------------------------------


def _chosen(
    ids: Sequence[int], *, again: bool, refusal: Callable[[DeadLetter], str]
) -> Iterator[tuple[list[DeadLetter], list[LetterResult]]]:
    """Yield, chunk by chunk and in the order of `ids`, the accepted letters and the outcomes of the refused ones."""
    once = list(dict.fromkeys(ids))
    for start in range(0, len(once), CHUNK):
        chunk = once[start : start + CHUNK]
        # The database rejects larger numbers, and no letter has one.
        there = DeadLetter.objects.in_bulk([each for each in chunk if each <= BIGINT_MAX])
        refusals = {each: _refusal(there.get(each), again=again, otherwise=refusal) for each in chunk}
        yield (
            [there[each] for each in chunk if not refusals[each]],
            [LetterResult(each, why) for each, why in refusals.items() if why],
        )


def _refusal(letter: DeadLetter | None, *, again: bool, otherwise: Callable[[DeadLetter], str]) -> str:
    if letter is None:
        return _("There is no such letter.")
    if letter.state == DeadLetter.State.REPLAYED and not again:
        return _("It has already been replayed.")
    if letter.state == DeadLetter.State.DISCARDED and not again:
        return _("It has already been discarded.")
    return otherwise(letter)


def _refusal_of_replay(letter: DeadLetter) -> str:
    if not letter.cut:
        return ""
    words = _("It was truncated to fit (%(what)s), so it cannot be replayed. Ask its sender to send it again.")
    return words % {"what": letter.cut}


def _message(letter: DeadLetter) -> Outgoing:
    return Outgoing(
        topic=letter.topic,
        key=None if letter.key is None else bytes(letter.key),
        value=None if letter.value is None else bytes(letter.value),
        headers=headers_from_document(letter.headers),
    )


def _note(ids: Sequence[int], state: DeadLetter.State, *, by: str, reason: str) -> None:
    """Mark the letters and write an audit row for each, except for those that were purged in the meantime."""
    with transaction.atomic(using=router.db_for_write(DeadLetter)):
        there = DeadLetter.objects.select_for_update().filter(pk__in=ids).values_list("pk", flat=True)
        actions = [DeadLetterAction(letter_id=each, action=state, by=by, reason=reason) for each in there]
        DeadLetter.objects.filter(pk__in=ids).update(state=state)
        DeadLetterAction.objects.bulk_create(actions)
    for action in actions:
        log_security_event(
            "dead_letter_handled",
            actor=by.removesuffix(IN_THE_ADMIN),
            subject=str(action.letter_id),
            detail=state.value,
        )

"""`manage.py dead_letters`: list, show, replay or discard the messages that consumers could not handle."""

import argparse
from collections.abc import Iterator
from typing import Any, Final

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db.models import Count, QuerySet

from eventbus.deadletters.letters import BIGINT_MAX, LetterResult, discard, replay
from eventbus.errors import DeliveryError
from eventbus.models import DeadLetter
from eventbus.producer import EventProducer
from runtime.security_log import operator
from runtime.terminal import printable, table, titled
from runtime.times import time_argument, to_the_second

HEAD: Final = ("ID", "WRITTEN", "STATE", "GROUP", "MESSAGE", "KEY", "ERROR")
# The lookup of each option that filters the letters.
FILTERS: Final = {"topic": "topic", "group": "group", "error": "error__icontains", "since": "put_aside_at__gte"}


class Command(BaseCommand):
    help = (
        "Show, replay or discard dead letters: messages that a consumer could not handle, with the error, their "
        "position in Kafka and their headers. `manage.py collect_dead_letters`, which runs with the other roles, "
        "collects them."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True, metavar="list | show | replay | discard")
        each = actions.add_parser("list", help="list the letters, newest first", description="List the letters.")
        add_filters(each)
        each.add_argument("--state", choices=DeadLetter.State.values, help="only letters in this state")
        each.add_argument("--limit", type=int, default=50, metavar="N", help="at most N letters; 50 by default")

        one = actions.add_parser("show", help="show one letter in full", description="Show one letter in full.")
        one.add_argument("letter_id", type=int, metavar="ID")

        again = "include letters that were replayed or discarded before"
        sent = actions.add_parser(
            "replay",
            help="publish the messages to their topics again, once the cause is fixed",
            description="Publish the original messages to their topics again. Every consumer group of the topic reads "
            "them, which is harmless, because handlers are idempotent. The exit code is 1 if a letter was refused or "
            "Kafka did not acknowledge a message.",
        )
        add_choice(sent)
        sent.add_argument("--again", action="store_true", help=again)

        gone = actions.add_parser(
            "discard",
            help="mark letters as needing no action",
            description="Mark letters as needing no action. They remain visible until they are purged. The exit code "
            "is 1 if a letter was refused.",
        )
        add_choice(gone)
        gone.add_argument("--reason", required=True, help="the reason, which is recorded with the letter")
        gone.add_argument("--again", action="store_true", help=again)

    def handle(self, *, action: str, **options: Any) -> None:
        match action:
            case "list":
                self._list(options)
            case "show":
                self._show(options["letter_id"])
            case "replay":
                self._replay(options)
            case "discard":
                ids = chosen_ids(options)
                outcomes = discard(ids, by=operator(), reason=options["reason"], again=options["again"])
                self._report(outcomes, "discarded", len(ids))

    def _list(self, options: dict[str, Any]) -> None:
        letters = filtered(options)
        if options["state"]:
            letters = letters.filter(state=options["state"])
        counts = dict(letters.order_by("state").values_list("state").annotate(Count("pk")))
        if not counts:
            self.stdout.write("There is no dead letter of this kind." if is_narrowed(options) else "No dead letters.")
            return
        shown = letters.order_by("-pk").defer("value", "headers")[: max(options["limit"], 0)]
        for line in table([HEAD, *(cells(letter) for letter in shown)]):
            self.stdout.write(line)
        total = sum(counts.values())
        more = f", the newest {len(shown)} of them shown" if len(shown) < total else ""
        self.stdout.write(f"{total} in all{more}: " + ", ".join(f"{count} {state}" for state, count in counts.items()))

    def _show(self, letter_id: int) -> None:
        letter = DeadLetter.objects.filter(pk=letter_id).first()
        if letter is None:
            raise no_letter(letter_id)
        for line in letter_lines(letter):
            self.stdout.write(line)

    def _replay(self, options: dict[str, Any]) -> None:
        ids = chosen_ids(options)
        producer = EventProducer()
        try:
            self._report(replay(ids, by=operator(), producer=producer, again=options["again"]), "replayed", len(ids))
        finally:
            producer.close(timeout=5)

    def _report(self, outcomes: Iterator[LetterResult], verb: str, asked: int) -> None:
        """Print the outcomes. Raises CommandError if a letter was refused or Kafka is unavailable."""
        done = refused = 0
        failure = ""
        try:
            for outcome in outcomes:
                if outcome.refusal:
                    refused += 1
                    self.stderr.write(f"{outcome.letter_id}: {outcome.refusal}")
                else:
                    done += 1
        except DeliveryError as error:
            kafka = settings.KAFKA_BOOTSTRAP_SERVERS
            failure = f" Kafka at {kafka} did not acknowledge the rest, which are still waiting: {error}."
        self.stdout.write(f"{done} {verb}, {refused} refused, {asked - done - refused} not tried or failed")
        if refused:
            failure += " Letters that were refused because they had been replayed or discarded need --again."
        if failure:
            raise CommandError(failure.strip())


# --- Selection ----------------------------------------------------------------------------------------------------


def add_filters(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--topic", help="only letters whose message was in this topic")
    parser.add_argument("--group", help="only letters of this consumer group")
    parser.add_argument("--error", metavar="TEXT", help="only letters whose error type contains TEXT, ignoring case")
    parser.add_argument(
        "--since", type=time_argument, metavar="TIME", help="only letters written at this ISO date or time, or later"
    )


def add_choice(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("letter_ids", nargs="*", type=int, metavar="ID")
    parser.add_argument("--all-waiting", action="store_true", help="all waiting letters that match the filters")
    add_filters(parser)


def filtered(options: dict[str, Any]) -> QuerySet[DeadLetter]:
    given = {lookup: options[name] for name, lookup in FILTERS.items() if options[name]}
    return DeadLetter.objects.filter(**given)


def is_narrowed(options: dict[str, Any]) -> bool:
    return any(options.get(name) for name in (*FILTERS, "state"))


def chosen_ids(options: dict[str, Any]) -> list[int]:
    """Return the chosen ids. Raises CommandError unless there is exactly one choice: IDs or --all-waiting."""
    ids: list[int] = options["letter_ids"]
    if bool(ids) == options["all_waiting"]:
        raise CommandError("Name the letters by their IDs, or use --all-waiting, with or without filters.")
    if ids:
        if is_narrowed(options):
            raise CommandError("Filters can be combined with --all-waiting, but not with IDs.")
        if impossible := [each for each in ids if each > BIGINT_MAX]:
            raise no_letter(impossible[0])
        return ids
    # Choose once, before the replay: letters that arrive during it, perhaps because of it, are not included.
    waiting = filtered(options).filter(state=DeadLetter.State.WAITING)
    return list(waiting.order_by("pk").values_list("pk", flat=True))


def no_letter(letter_id: int) -> CommandError:
    return CommandError(f"There is no dead letter {letter_id}: see `manage.py dead_letters list`.")


# --- Output -------------------------------------------------------------------------------------------------------


def cells(letter: DeadLetter) -> tuple[str, ...]:
    return (
        str(letter.pk), to_the_second(letter.put_aside_at), letter.state, letter.group, letter.place,
        letter.key_text, letter.error_line,
    )  # fmt: skip


def letter_lines(letter: DeadLetter) -> Iterator[str]:
    yield from titled(
        [
            ("Dead letter", f"{letter.pk}, {letter.state}"),
            ("Dead-lettered", f"{to_the_second(letter.put_aside_at)}, in {letter.letter_place}"),
            ("By group", letter.group),
            ("Error", letter.error or "not given"),
            ("", letter.message),
            ("Message", letter.place),
            ("Sent", to_the_second(letter.sent_at) if letter.sent_at else "not known"),
            ("Key", letter.key_text if letter.key is not None else "none"),
            *[("Header", f"{name}: {value}") for name, value in letter.header_texts],
            ("Truncated", letter.cut),
            *[
                (
                    "Action",
                    f"{to_the_second(each.at)} {each.action} by {each.by}"
                    + (f": {each.reason}" if each.reason else ""),
                )
                for each in letter.actions.all()
            ],
        ]
    )
    if letter.value is None:
        yield "No value."
    else:
        yield f"Value, {len(letter.value)} bytes:"
        yield printable(letter.value_text)

"""`manage.py reconcile`: says where the participants' copies are not what auth has, and mends what can be mended."""

import argparse
from collections.abc import Iterator
from typing import Any, Final, get_args

import msgspec
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from tqdm import tqdm

from authsvc.models import User
from authsvc.reconcile import Reconciliation, Verification
from authsvc.reconcile_events import RECONCILE_ANSWERED, RECONCILE_REQUESTED, Finding, Kind
from authsvc.services import AUTH
from eventbus.errors import is_transient
from eventbus.producer import EventProducer
from eventbus.replies import Replies
from eventbus.topics import TopicError, ensure_topics

# Lines that are shown of one service; --json has all.
SHOWN: Final = 50
# Seconds that somebody may want to wait for a page of answers; librdkafka takes no more than 24 days.
TIMEOUT_MAX: Final = 86_400
KINDS: Final[tuple[str, ...]] = get_args(Kind)


class Command(BaseCommand):
    help = (
        "Asks every participant where its copies of the users are not what auth has, and lists what is missing, "
        "different, superfluous, or in conflict with a row that auth's sign-ups did not make. With --heal the "
        "participants add what is missing and correct what is different; the rest is for an administrator to decide. "
        "Whether a user is active at a participant is never touched. Exit code 0 when all agree now, 1 when something "
        "is left or a participant did not answer."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--heal", action="store_true", help="add what is missing, correct what is different")
        parser.add_argument("--service", choices=participants(), help="ask this participant alone")
        parser.add_argument(
            "--timeout",
            type=seconds,
            default=60.0,
            metavar="SECONDS",
            help="how long a participant may take for a page of users (default: 60)",
        )
        parser.add_argument("--json", action="store_true", help="print the whole report as one JSON document")

    def handle(self, **options: Any) -> None:
        services = [options["service"]] if options["service"] else participants()
        reconciliation = self._run(services, heal=options["heal"], timeout=options["timeout"])
        result = reconciliation.result
        if options["json"]:
            self.stdout.write(as_json(reconciliation, heal=options["heal"]))
        else:
            for line in as_text(result):
                self.stdout.write(line)
        if problems := list(what_is_left(result, heal=options["heal"], timeout=options["timeout"])):
            raise CommandError("\n".join(problems))

    def _run(self, services: list[str], *, heal: bool, timeout: float) -> Reconciliation:
        try:
            ensure_topics([RECONCILE_REQUESTED, RECONCILE_ANSWERED])
            producer = EventProducer()
            try:
                # On a terminal alone: tqdm draws nothing else where disable is None.
                with (
                    Replies(RECONCILE_ANSWERED) as replies,
                    tqdm(total=User.objects.count(), unit=" users", disable=None) as progress,
                ):
                    reconciliation = Reconciliation(producer, replies, services=services, heal=heal, timeout=timeout)
                    for compared in reconciliation.run():
                        progress.update(compared)
            finally:
                producer.close(timeout=5)
        except TopicError as error:
            raise CommandError(str(error)) from error
        except Exception as error:
            if not is_transient(error):
                raise
            raise CommandError(
                f"{' '.join(str(error).split())}. Are Kafka and auth's database there? Run the same command again; "
                "what was healed stays healed."
            ) from error
        return reconciliation


def participants() -> list[str]:
    """All services but auth."""
    return [service for service in settings.SIGNUP_SERVICES if service != AUTH]


def seconds(text: str) -> float:
    """A time of more than nothing and at most TIMEOUT_MAX."""
    try:
        value = float(text)
    except ValueError:
        value = 0
    if not 0 < value <= TIMEOUT_MAX:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0 and up to {TIMEOUT_MAX}")
    return value


def counts(verification: Verification) -> dict[str, int]:
    """How much of each kind was found, healed or not."""
    return {kind: sum(finding.kind == kind for finding in verification.findings) for kind in KINDS}


def as_text(result: dict[str, Verification]) -> Iterator[str]:
    """The report for a person: a table of counts, then what is wrong, a line each."""
    yield f"{'':<12}" + "".join(f"{title:>13}" for title in (*KINDS, "healed", "on the way"))
    for service, found in result.items():
        healed = len(found.findings) - len(found.left)
        numbers = (*counts(found).values(), healed, found.on_the_way)
        yield f"{service:<12}" + "".join(f"{number:>13}" for number in numbers)
    for service, found in result.items():
        # What is left to do comes first.
        findings = sorted(found.findings, key=lambda finding: (finding.healed, KINDS.index(finding.kind)))
        for finding in findings[:SHOWN]:
            yield f"{service}: {finding.kind:<11} {finding.user_id} {finding.email}{_remark(finding)}"
        if len(findings) > SHOWN:
            yield f"{service}: and {len(findings) - SHOWN} more; --json lists all"


def _remark(finding: Finding) -> str:
    remarks = []
    if finding.fields:
        remarks.append(f"in {', '.join(finding.fields)}")
    for row in finding.held_by:
        whose = f"of sign-up {row.owner_signup_id}" if row.owner_signup_id else "that an administrator made"
        remarks.append(f"against the row {row.user_id} {row.email} {whose}")
    if finding.kind == "superfluous":
        owner = finding.owner_signup_id
        remarks.append(f"of sign-up {owner}" if owner else "made by an administrator")
    if finding.healed:
        remarks.append("healed")
    return f" ({'; '.join(remarks)})" if remarks else ""


def as_json(reconciliation: Reconciliation, *, heal: bool) -> str:
    """The whole report; findings are as the participants sent them."""
    services = {
        service: {
            "answered": not found.is_silent,
            "counts": counts(found),
            "healed": len(found.findings) - len(found.left),
            "onTheWay": found.on_the_way,
            "findings": msgspec.to_builtins(found.findings),
        }
        for service, found in reconciliation.result.items()
    }
    return msgspec.json.encode({"runId": reconciliation.run_id, "heal": heal, "services": services}).decode()


def what_is_left(result: dict[str, Verification], *, heal: bool, timeout: float) -> Iterator[str]:
    """Why the exit code is 1, and what to do about it; nothing where all agree."""
    for service, found in result.items():
        if found.is_silent:
            yield (
                f"{service} did not answer within {timeout:g} s, so this is not all. Does `manage.py consume_events "
                f"{service}` run? Start it, or give it more time with --timeout, and run this again."
            )
    left = [finding for found in result.values() for finding in found.left]
    by_hand = sum(finding.kind in ("conflicting", "superfluous") for finding in left)
    if len(left) > by_hand and not heal:
        yield f"{len(left) - by_hand} can be mended: run this again with --heal."
    elif len(left) > by_hand:
        yield f"{len(left) - by_hand} could not be mended yet: run this again."
    if by_hand:
        yield (
            f"{by_hand} need a decision, in the admin of the service: change or delete the row if it should not be "
            "there, or sign the person up at auth."
        )

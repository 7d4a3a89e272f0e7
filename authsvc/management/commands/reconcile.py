"""`manage.py reconcile`: report where the participants' copies differ from auth's users, and heal what it can."""

import argparse
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, Final, get_args

import msgspec
from django.core.management.base import BaseCommand, CommandError, CommandParser
from tqdm import tqdm

from authsvc.lights import participants
from authsvc.models import User
from authsvc.operations.restored_records import repair_record
from authsvc.reconcile.events import RECONCILE_ANSWERED, RECONCILE_REQUESTED, Finding, FindingKind
from authsvc.reconcile.reconciliation import QUESTION_MAX, Reconciliation, Verification
from authsvc.signups import publisher
from eventbus.producer import EventProducer
from eventbus.replies import Replies
from eventbus.topics import TopicError, ensure_topics
from runtime.errors import is_transient
from runtime.mail_addresses import shown_address
from runtime.terminal import printable

# Findings printed per service; --json prints all.
MOST_SHOWN: Final = 50
# Maximum --timeout in seconds; librdkafka accepts at most 24 days.
TIMEOUT_MAX: Final = 86_400
KINDS: Final[tuple[FindingKind, ...]] = get_args(FindingKind)
_encoder = msgspec.json.Encoder()


class Command(BaseCommand):
    help = (
        "Compare every participant's copies of the users with auth's records, and list users that are missing, "
        "different, superfluous, of a removed account, or in conflict with a row that auth's sign-ups did not create. "
        "With --heal, the participants add missing users, correct different ones and delete those of removed "
        "accounts; an administrator must decide about the others. Users who were deactivated in a participant stay "
        "deactivated. After a restore of auth's database, the list also has copies newer than auth's record, and "
        "accounts that were removed since the backup (revived); --auth-restored repairs both. The exit code is 0 if "
        "everything agrees now, and 1 if differences remain or a participant did not answer."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--heal",
            action="store_true",
            help="add missing users, correct different ones, and delete the rows of removed accounts",
        )
        parser.add_argument(
            "--auth-restored",
            action="store_true",
            help="with --heal, after auth's database was restored from a backup: remove accounts again that a "
            "participant has removed, and let auth's records replace newer copies (docs/operations.md)",
        )
        parser.add_argument("--service", choices=participants(), help="compare only this participant")
        parser.add_argument(
            "--timeout",
            type=timeout_seconds,
            default=60.0,
            metavar="SECONDS",
            help="how long a participant may take for a page of users (default: 60)",
        )
        parser.add_argument(
            "--json",
            action="store_true",
            help="print JSON lines: each finding with its service as soon as it is known; the last line has the counts "
            "under the key services",
        )

    def handle(self, **options: Any) -> None:
        if options["auth_restored"] and not options["heal"]:
            raise CommandError("--auth-restored needs --heal. Run it without either first, and read what it finds.")
        services = [options["service"]] if options["service"] else participants()
        examples = Examples()
        report = self._write_finding if options["json"] else examples.add
        reconciliation = self._run(
            services,
            heal=options["heal"],
            timeout=options["timeout"],
            report=report,
            repair=repair_record if options["auth_restored"] else None,
        )
        result = reconciliation.result
        if options["json"]:
            self.stdout.write(counts_as_json(reconciliation, heal=options["heal"]))
        else:
            for line in as_text(result, examples):
                self.stdout.write(line)
        if problems := list(remaining_problems(result, heal=options["heal"], timeout=options["timeout"])):
            raise CommandError("\n".join(problems))

    def _write_finding(self, service: str, finding: Finding) -> None:
        self.stdout.write(_encoder.encode({"service": service, **msgspec.to_builtins(finding)}).decode())

    def _run(self, services: list[str], **arguments: Any) -> Reconciliation:
        try:
            ensure_topics([RECONCILE_REQUESTED, RECONCILE_ANSWERED])
            producer = EventProducer()
            try:
                # disable=None: tqdm draws only on a terminal.
                with (
                    Replies(RECONCILE_ANSWERED) as replies,
                    tqdm(total=User.objects.count(), unit=" users", disable=None) as progress,
                ):
                    reconciliation = Reconciliation(producer, replies, services=services, **arguments)
                    for compared in reconciliation.run():
                        progress.update(compared)
            finally:
                producer.close(timeout=5)
                publisher.close()
        except TopicError as error:
            raise CommandError(str(error)) from error
        except Exception as error:
            if not is_transient(error):
                raise
            raise CommandError(
                f"{' '.join(str(error).split())}. Are Kafka and auth's database running? Run the same command again; "
                "what was healed stays healed."
            ) from error
        return reconciliation


def timeout_seconds(text: str) -> float:
    """Parse a number of seconds above 0 and up to TIMEOUT_MAX."""
    try:
        value = float(text)
    except ValueError:
        value = 0
    if not 0 < value <= TIMEOUT_MAX:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0 and up to {TIMEOUT_MAX}")
    return value


class Examples:
    """Findings that the text report lists: the first MOST_SHOWN per service, kind and healed state."""

    def __init__(self) -> None:
        self._kept: defaultdict[tuple[str, bool, int], list[Finding]] = defaultdict(list)

    def add(self, service: str, finding: Finding) -> None:
        kept = self._kept[service, finding.healed, KINDS.index(finding.kind)]
        if len(kept) < MOST_SHOWN:
            kept.append(finding)

    def of(self, service: str) -> list[Finding]:
        """Return at most MOST_SHOWN findings, those not healed first."""
        keys = sorted(key for key in self._kept if key[0] == service)
        return [finding for key in keys for finding in self._kept[key]][:MOST_SHOWN]


def counts(verification: Verification) -> dict[str, int]:
    """Return the number of findings of each kind, healed or not."""
    return {kind: verification.counts[kind, False] + verification.counts[kind, True] for kind in KINDS}


def as_text(result: dict[str, Verification], examples: Examples) -> Iterator[str]:
    """Yield the text report: a table of counts, then one line per finding."""
    yield f"{'':<12}" + "".join(f"{title:>13}" for title in (*KINDS, "healed", "on the way"))
    for service, found in result.items():
        numbers = (*counts(found).values(), found.healed, found.on_the_way)
        yield f"{service:<12}" + "".join(f"{number:>13}" for number in numbers)
    for service, found in result.items():
        for finding in examples.of(service):
            line = f"{service}: {finding.kind:<11} {finding.user_id} {shown_address(finding.email)}{_remark(finding)}"
            yield printable(line)
        if (more := found.counts.total() - MOST_SHOWN) > 0:
            yield f"{service}: and {more} more; --json lists all"


def _remark(finding: Finding) -> str:
    remarks = []
    if finding.fields:
        remarks.append(f"in {', '.join(finding.fields)}")
    for row in finding.held_by:
        whose = f"of sign-up {row.owner_signup_id}" if row.owner_signup_id else "that an administrator created"
        remarks.append(f"against the row {row.user_id} {shown_address(row.email)} {whose}")
    if finding.kind == "superfluous":
        owner = finding.owner_signup_id
        remarks.append(f"of sign-up {owner}" if owner else "created by an administrator")
    if finding.kind == "newer":
        remarks.append(f"the copy has version {finding.version}")
    if finding.kind == "removed":
        remarks.append(f"of the removed account of sign-up {finding.owner_signup_id}")
    if finding.healed:
        remarks.append("healed")
    return f" ({'; '.join(remarks)})" if remarks else ""


def counts_as_json(reconciliation: Reconciliation, *, heal: bool) -> str:
    """Return the last line of --json; the lines before it are the findings as the participants sent them."""
    services = {
        service: {
            "answered": not found.is_silent,
            "counts": counts(found),
            "healed": found.healed,
            "onTheWay": found.on_the_way,
        }
        for service, found in reconciliation.result.items()
    }
    return _encoder.encode({"runId": reconciliation.run_id, "heal": heal, "services": services}).decode()


def remaining_problems(result: dict[str, Verification], *, heal: bool, timeout: float) -> Iterator[str]:
    """Yield the reasons for exit code 1 and what to do about each; nothing if everything agrees."""
    for service, found in result.items():
        if found.is_silent:
            yield (
                f"{service} did not answer within {timeout:g} s, so the result is incomplete. Does `manage.py "
                f"consume_events {service}` run? Start it, or give it more time with --timeout, and run this again."
            )
    healable = sum(found.left("missing", "different", "removed") for found in result.values())
    entangled = sum(found.entangled for found in result.values())
    by_hand = sum(found.left("conflicting", "superfluous") for found in result.values()) - entangled
    newer, revived = (sum(found.left(kind) for found in result.values()) for kind in ("newer", "revived"))
    if healable and not heal:
        yield f"{healable} can be healed: run this again with --heal."
    elif healable:
        yield f"{healable} could not be healed yet: run this again."
    if entangled:
        yield (
            f"{entangled} hold each other's user IDs or addresses in cycles of more than {QUESTION_MAX}, which are "
            "too long to be healed. Delete the row of one of them in the admin of the service, and run this again with "
            "--heal, several times if necessary."
        )
    if newer or revived:
        yield (
            f"Participants are ahead of auth: {newer} copies are newer than auth's record, and {revived} records are "
            "of accounts that were removed. This happens if auth's database was restored from a backup: read "
            "docs/operations.md, and run this again with --heal --auth-restored."
        )
    if by_hand:
        yield (
            f"{by_hand} need a decision, in the admin of the service: change or delete the row if it should not be "
            "there, or sign the person up at auth."
        )

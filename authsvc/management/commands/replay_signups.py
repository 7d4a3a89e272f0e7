"""`manage.py replay_signups`: publish the events of selected sign-ups, changes and removals again."""

import logging
import sys
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db.models import QuerySet
from tqdm import tqdm

from authsvc.lights import participants
from authsvc.models import EventTransaction
from authsvc.signups.replay import ReplayCounts, replay
from eventbus.producer import EventProducer
from runtime.equality import user_id_key
from runtime.security_log import log_security_event, operator
from runtime.terminal import user_id_argument
from runtime.times import time_argument


class Command(BaseCommand):
    help = (
        "Publish auth's current records again for the selected sign-ups, changes and removals: a participant that "
        "lost rows gets them back, and a service whose light is still orange is asked again. A decided light never "
        "changes. Sign-ups and changes of removed accounts are skipped; their removals are sent. The exit code is 1 "
        "if something could not be sent."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        chosen = parser.add_argument_group(
            "which sign-ups, changes and removals", "give at least one option; each transaction must match all of them"
        )
        chosen.add_argument("--id", action="append", type=UUID, default=[], metavar="ID", dest="signup_ids")
        chosen.add_argument(
            "--user-id", action="append", type=user_id_argument, default=[], metavar="USER_ID", dest="user_ids"
        )
        chosen.add_argument(
            "--since", type=time_argument, metavar="TIME", help="started at or after this ISO date or time"
        )
        chosen.add_argument("--until", type=time_argument, metavar="TIME", help="started before this ISO date or time")
        chosen.add_argument("--pending", action="store_true", help="with a light that is still orange")
        chosen.add_argument("--stalled", action="store_true", help="with all attempts used up")
        chosen.add_argument("--all", action="store_true", help="every sign-up, change and removal")
        parser.add_argument("--service", choices=participants(), help="ask only this service")
        parser.add_argument("--dry-run", action="store_true", help="count what would be sent, and send nothing")

    def handle(self, **options: Any) -> None:
        signups = choose(options)
        producer = None if options["dry_run"] else EventProducer()
        total = ReplayCounts()
        count = signups.count()
        if producer is not None:
            asked = options["service"] or "every service"
            log_security_event("replay", actor=operator(), detail=f"{count} sign-ups, changes and removals, {asked}")
        if sys.stderr.isatty():
            # The progress bar shows this, and log lines with a hundred ids each would bury it.
            logging.getLogger("authsvc.signups.replay").setLevel(logging.WARNING)
        # disable=None: tqdm draws only on a terminal.
        with tqdm(total=count, unit=" events", disable=None) as progress:
            for counts in replay(signups, producer=producer, service=options["service"]):
                total += counts
                progress.update(counts.sent + counts.skipped + counts.failed)
                if counts.failed and not counts.sent:
                    # Kafka is down: each further page would wait for it in vain.
                    break
        if producer is not None:
            producer.close(timeout=5)
        verb = "would be sent" if producer is None else "sent"
        self.stdout.write(f"{total.sent} {verb}, {total.skipped} skipped, {total.failed} failed")
        if total.failed:
            left = max(0, count - total.sent - total.skipped - total.failed)
            raise CommandError(
                f"Some events could not be sent{f', and {left} were not attempted' if left else ''}. Check that Kafka "
                "is running, then run the same command again."
            )


def choose(options: dict[str, Any]) -> QuerySet[EventTransaction]:
    """Return the transactions that match the options. Raise CommandError without options, or if a named one is
    missing."""
    narrowing = ("signup_ids", "user_ids", "since", "until", "pending", "stalled")
    if not options["all"] and not any(options[name] for name in narrowing):
        raise CommandError("Give at least one of --id, --user-id, --since, --until, --pending, --stalled and --all.")
    signups = EventTransaction.objects.all()
    if ids := options["signup_ids"]:
        signups = signups.filter(id__in=ids)
        if missing := set(ids) - set(signups.values_list("id", flat=True)):
            raise CommandError(f"There is no sign-up, change or removal {', '.join(map(str, sorted(missing)))}.")
    if options["user_ids"]:
        wanted = {user_id_key(user_id): user_id for user_id in options["user_ids"]}
        signups = signups.filter(user_id_key__in=wanted)
        if unknown := wanted.keys() - set(signups.values_list("user_id_key", flat=True)):
            raise CommandError(
                f"There is no sign-up, change or removal of {', '.join(sorted(wanted[key] for key in unknown))}."
            )
    if options["since"]:
        signups = signups.filter(created_at__gte=options["since"])
    if options["until"]:
        signups = signups.filter(created_at__lt=options["until"])
    if options["pending"]:
        signups = signups.filter(pending_count__gt=0)
    if options["stalled"]:
        signups = signups.filter(stalled_at__isnull=False)
    return signups

"""`manage.py purge` on the database of the chosen stack, and the retention of the topics that the project creates."""

import threading
from datetime import datetime, timedelta
from io import StringIO
from uuid import UUID, uuid4

import pytest
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.sessions.models import Session
from django.core.management import CommandError, call_command
from django.db import connections, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from authsvc.accounts.export.collection import EXPORT_ANSWERED, EXPORT_REQUESTED
from authsvc.accounts.sessions import SessionStore
from authsvc.models import EventTransaction, SignUp, User
from eventbus.deadletters.letters import Origin, store_letters
from eventbus.messages import Incoming
from eventbus.models import DeadLetter
from eventbus.topics import ensure_topics
from tests.signups import complete, save_signups
from tests.waiting import PATIENCE

pytestmark = pytest.mark.django_db(transaction=True)


def save_aged(*names: str, begun: int, completed: int | None = None) -> list[UUID]:
    """Save sign-ups that began, and were completed, this many days ago."""
    ids = save_signups(*names)
    signups = SignUp.objects.filter(id__in=ids)
    if completed is not None:
        complete(*ids)
        signups.update(completed_at=days_ago(completed))
    signups.update(created_at=days_ago(begun))
    return ids


def days_ago(days: int) -> datetime:
    return timezone.now() - timedelta(days=days, minutes=1)


def letters(*days: int) -> None:
    """Save dead letters of so many days ago."""
    origin = Origin("user.newUser.req", "chat")
    topic = "user.newUser.req.chat.dlt"
    aside = [int(days_ago(each).timestamp() * 1000) for each in days]
    store_letters([Incoming(topic, 0, n, None, b"x", (), at) for n, at in enumerate(aside)], {topic: origin})


def purge(*arguments: str) -> str:
    out = StringIO()
    call_command("purge", *arguments, stdout=out)
    return out.getvalue().strip()


def left() -> set[str]:
    return set(SignUp.objects.values_list("user_id", flat=True))


def test_sign_ups_completed_before_the_time_are_deleted_and_no_user():
    save_aged("old", begun=95, completed=90)
    save_aged("young", begun=95, completed=89)
    letters(31, 29)
    assert purge() == "1 sign-ups and 1 dead letters deleted"
    assert left() == {"young"}
    assert DeadLetter.objects.count() == 1
    assert set(User.objects.values_list("user_id", flat=True)) == {"old", "young"}
    assert purge() == "0 sign-ups and 0 dead letters deleted"


def test_incomplete_and_stalled_sign_ups_stay_without_incomplete():
    save_aged("pending", begun=200)
    save_aged("stalled", begun=200)
    save_aged("pending-young", begun=80)
    save_aged("late", begun=200, completed=10)
    SignUp.objects.filter(user_id="stalled").update(stalled_at=days_ago(199), next_due_at=None)
    assert purge() == "0 sign-ups and 0 dead letters deleted"
    assert purge("--incomplete") == "2 sign-ups and 0 dead letters deleted"
    assert left() == {"pending-young", "late"}


def test_a_dry_run_counts_the_same_and_deletes_nothing():
    save_aged("old", begun=95, completed=90)
    save_aged("pending", begun=95)
    letters(31)
    assert purge("--dry-run") == "1 sign-ups and 1 dead letters would be deleted"
    assert purge("--dry-run", "--incomplete") == "2 sign-ups and 1 dead letters would be deleted"
    assert left() == {"old", "pending"}


def test_an_age_above_the_replay_window_is_accepted():
    save_aged("sixty", begun=60, completed=60)
    save_aged("fifty", begun=50, completed=50)
    letters(61, 50)
    assert purge("--older-than", "55") == "1 sign-ups and 1 dead letters deleted"
    assert left() == {"fifty"}


def test_expired_sessions_are_deleted_too():
    for seconds in (-1, 60):
        session = SessionStore()
        session.set_expiry(seconds)
        session.create()
    purge("--dry-run")
    assert Session.objects.count() == 2
    purge()
    [left_over] = Session.objects.all()
    assert left_over.expire_date > timezone.now()


@pytest.mark.parametrize("days", ["0", "-1", "46"])
def test_an_age_within_the_replay_window_is_refused_with_a_message(days):
    save_aged("old", begun=95, completed=90)
    with pytest.raises(CommandError, match="must be more than 47: for that long"):
        purge("--older-than", days)
    assert left() == {"old"}


def test_an_age_beyond_the_calendar_is_refused_with_a_message():
    with pytest.raises(CommandError, match="goes back before the year 1"):
        purge("--older-than", "999999999999")


def test_a_purge_works_in_short_transactions(monkeypatch):
    monkeypatch.setattr("authsvc.management.commands.purge.BATCH", 3)
    save_aged(*[f"user-{n}" for n in range(8)], begun=95, completed=90)
    with CaptureQueriesContext(connections["default"]) as queries:
        assert purge() == "8 sign-ups and 0 dead letters deleted"
    deletes = [query for query in queries if query["sql"].startswith('DELETE FROM "authsvc_signup"')]
    assert len(deletes) == 3


@pytest.mark.needs("postgresql")
def test_a_purge_skips_locked_sign_ups_instead_of_waiting():
    [held, _free] = save_aged("held", "free", begun=95, completed=90)
    is_held, may_end = threading.Event(), threading.Event()

    def hold() -> None:
        try:
            with transaction.atomic():
                SignUp.objects.select_for_update().get(id=held)
                is_held.set()
                may_end.wait(PATIENCE)
        finally:
            connections.close_all()

    holder = threading.Thread(target=hold)
    holder.start()
    try:
        assert is_held.wait(PATIENCE)
        assert purge() == "1 sign-ups and 0 dead letters deleted"
    finally:
        may_end.set()
        holder.join()
    assert left() == {"held"}
    assert purge() == "1 sign-ups and 0 dead letters deleted"


@pytest.mark.needs("kafka")
@pytest.mark.parametrize(
    ("topic", "retention", "segment"),
    [
        ("short", 50_400_000, 7_200_000),
        # Answers that a person waits for only for seconds.
        (EXPORT_REQUESTED, 3_600_000, 514_285),
        (EXPORT_ANSWERED, 3_600_000, 514_285),
    ],
)
def test_each_topic_has_the_retention_that_its_messages_need(settings, topic, retention, segment):
    settings.KAFKA_PREFIX, settings.KAFKA_RETENTION_HOURS = f"purge-{uuid4()}-", 14
    ensure_topics([topic])
    resource = ConfigResource(ResourceType.TOPIC, f"{settings.KAFKA_PREFIX}{topic}")
    admin = AdminClient({"bootstrap.servers": settings.KAFKA_BOOTSTRAP_SERVERS})
    config = admin.describe_configs([resource])[resource].result(10)
    assert (config["retention.ms"].value, config["segment.ms"].value) == (str(retention), str(segment))


def test_the_log_entries_of_a_sign_up_are_deleted_with_it():
    [old], [new] = save_aged("old", begun=100, completed=100), save_aged("new", begun=1, completed=1)
    admin = User.objects.create_superuser("root-user", "root@example.org", "correct horse 9")
    signups = EventTransaction.objects.filter(id__in=[old, new])
    LogEntry.objects.log_actions(admin.pk, [*signups, admin], CHANGE, "Replayed")
    purge()
    assert set(LogEntry.objects.values_list("object_id", flat=True)) == {str(new), str(admin.pk)}

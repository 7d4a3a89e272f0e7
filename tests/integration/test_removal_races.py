"""A removal at the same moment as sign-ups that collide with the account: nothing of the account remains."""

import threading
from uuid import uuid4

import pytest
from asgiref.sync import async_to_sync
from channels.db import database_sync_to_async
from django.db import connection, transaction

from authsvc.models import SignUp, User
from authsvc.signups.changes import remove_account
from authsvc.signups.events import REQUEST_TOPICS
from authsvc.signups.registration import NewSignUp, Registration, register_users, register_within
from eventbus.topics import ensure_topics
from tests.users import new_user
from tests.waiting import eventually

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.needs("broker", "redis", "postgresql")]


@pytest.fixture(autouse=True)
def own_topics(settings) -> None:
    settings.KAFKA_PREFIX = f"removal-races-{uuid4()}-"
    ensure_topics(REQUEST_TOPICS.values())


def stranger(user_id: str) -> NewSignUp:
    return NewSignUp(
        signup_id=uuid4(), user_id=user_id, email="stranger@example.org", user_name="Stranger", role="ROLE_USER",
        password="not a hash",
    )  # fmt: skip


def is_anyone_blocked() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
        return bool(cursor.fetchone()[0])


def in_thread(work) -> threading.Thread:
    thread = threading.Thread(target=lambda: async_to_sync(database_sync_to_async(work))())
    thread.start()
    return thread


def test_a_refused_sign_up_that_commits_after_the_removal_has_begun_is_erased_by_it():
    kim = new_user("kim")
    with transaction.atomic():
        [refused] = register_within([stranger("kim")])
        removing = in_thread(lambda: remove_account(kim))
        eventually(lambda: is_anyone_blocked() or not removing.is_alive())
    removing.join()
    assert not User.objects.filter(pk=kim.pk).exists()
    row = SignUp.objects.get(pk=refused.signup.pk)
    assert (row.user_id, row.user_id_key, row.email, row.user_name) == ("", "", "", "")


def test_a_sign_up_that_waits_for_the_removal_gets_the_user_id():
    kim = new_user("kim")
    found: list[Registration] = []
    with transaction.atomic():
        remove_account(kim)
        registering = in_thread(lambda: found.extend(register_users([stranger("kim")])))
        eventually(lambda: is_anyone_blocked() or not registering.is_alive())
    registering.join()
    [registration] = found
    assert registration.signup.is_owner
    assert User.objects.get(user_id="kim").owner_signup_id == registration.signup.pk != kim.owner_signup_id


def test_collisions_with_one_account_do_not_wait_for_each_other():
    new_user("kim")
    with transaction.atomic():
        register_within([stranger("kim")])
        other = in_thread(lambda: register_users([stranger("kim")]))
        eventually(lambda: not other.is_alive())
    other.join()
    assert SignUp.objects.filter(user_id="kim").count() == 3

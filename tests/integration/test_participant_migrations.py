"""The migrations to one row for each account, on rows that the previous release left."""

from collections.abc import Iterator
from uuid import UUID

import pytest
from django.core.management import call_command
from django.db import connections

from chatsvc.models import ChatUser

pytestmark = pytest.mark.django_db(databases=["chat"], transaction=True)


def migrate(target: str) -> None:
    call_command("migrate", "chatsvc", target, database="chat", verbosity=0)


@pytest.fixture
def previous_release() -> Iterator[None]:
    migrate("0002")
    yield
    migrate("0006")


def insert(owner: int | None, name: str, *, is_active: bool = True) -> None:
    """Run an INSERT of the previous release, which lacks the new columns."""
    columns = "signup_id, owner_signup_id, user_id, user_id_key, email, user_name, role, is_active, created_at"
    of_sqlite = connections["chat"].vendor == "sqlite"
    uuid = owner and (UUID(int=owner).hex if of_sqlite else UUID(int=owner))
    values = [uuid, uuid, name, name, f"{name}@example.org", "Kim", "ROLE_USER", is_active, "2026-01-01 00:00:00+00:00"]
    with connections["chat"].cursor() as cursor:
        cursor.execute(f"INSERT INTO chatsvc_chatuser ({columns}) VALUES ({', '.join(['%s'] * 9)})", values)


def test_of_the_rows_of_one_account_the_newest_stays_and_stays_deactivated(previous_release):
    insert(1, "former", is_active=False)
    insert(1, "renamed")
    insert(2, "other")
    insert(None, "by-hand")
    insert(None, "by-hand-too")
    migrate("0006")
    assert set(ChatUser.objects.values_list("user_id", "is_active", "is_account_active", "version")) == {
        ("renamed", False, True, 1),
        ("other", True, True, 1),
        ("by-hand", True, True, 1),
        ("by-hand-too", True, True, 1),
    }


def test_the_previous_release_can_insert_after_the_migration():
    insert(1, "kim")
    assert ChatUser.objects.values_list("version", "is_account_active", "removed_at").get() == (1, True, None)

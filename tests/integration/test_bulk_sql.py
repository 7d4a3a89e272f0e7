"""Bulk statements write and return the same rows as Django's own, on SQLite and PostgreSQL."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import DataError, IntegrityError, models, transaction

from authsvc.models import SignUp, User
from chatsvc.models import ChatUser
from runtime.database.bulk_sql import insert, insert_new, insert_new_with, locked, overwrite

pytestmark = [pytest.mark.django_db(transaction=True, databases=["default", "chat"])]

NAME = "김 Zoë \"%s\" \\ 'x' {} 🙂"


def signup(number: int, **fields: Any) -> SignUp:
    return SignUp(
        id=UUID(int=number),
        user_id=f"user-{number}",
        user_id_key=f"user-{number}",
        email=f"{number}@example.org",
        user_name=NAME,
        password="hash",
        owner_signup_id=UUID(int=number),
        created_at=datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
        pending_count=1,
        failed_count=0,
        **{"version": 2, "lights": {"chat": {"reason": NAME}}} | fields,
    )


def chat_user(user_id: str, email: str) -> ChatUser:
    return ChatUser(user_id=user_id, user_id_key=user_id, email=email, user_name=NAME, signup_id=uuid4())


def user(number: int, **fields: Any) -> User:
    """The user that the sign-up of this number created."""
    user = User(
        owner_signup_id=UUID(int=number), **{"user_id": f"user-{number}", "email": f"{number}@x.example"} | fields
    )
    user.normalize()
    return user


def values(row: models.Model) -> dict[str, Any]:
    return {field.name: getattr(row, field.attname) for field in row._meta.concrete_fields}


def test_a_row_is_read_as_it_was_inserted_by_django_and_by_locked():
    rows = [signup(1, next_due_at=datetime(2026, 1, 3, tzinfo=UTC)), signup(2, lights={})]
    insert(rows, using="default")
    assert [values(row) for row in SignUp.objects.order_by("id")] == [values(row) for row in rows]
    with transaction.atomic():
        found = locked(SignUp, [UUID(int=2), UUID(int=1), UUID(int=3)], using="default")
    assert [values(row) for row in found] == [values(row) for row in rows]


def test_without_rows_no_statement_is_executed(django_assert_num_queries):
    with django_assert_num_queries(0):
        insert([], using="default")
        overwrite([], fields=["version"], using="default")
        assert insert_new([], key="id", using="default") == []
        assert insert_new_with([], [], key="id", using="default") == []


def test_a_row_that_conflicts_fails_all():
    insert([signup(1)], using="default")
    with pytest.raises(IntegrityError):
        insert([signup(2), signup(1)], using="default")
    assert SignUp.objects.count() == 1


def test_only_rows_without_a_conflict_are_inserted():
    insert([chat_user("kim", "kim@example.org")], using="chat")
    rows = [
        chat_user("kim", "other@example.org"),
        chat_user("lee", "kim@example.org"),
        chat_user("zoe", "zoe@example.org"),
    ]
    assert insert_new(rows, key="user_id_key", using="chat") == rows[2:]
    assert set(ChatUser.objects.values_list("user_id", "user_name")) == {("kim", NAME), ("zoe", NAME)}
    # The key may be one that the database has in a form of its own.
    assert insert_new([rows[2], other := chat_user("amy", "amy@example.org")], key="signup_id", using="chat") == [other]


def test_companion_rows_are_inserted_with_their_rows():
    insert([user(1, user_id="kim")], using="default")
    rows = [user(2, user_id="KIM"), user(3), user(4, email="1@x.example"), user(5)]
    others = [signup(number) for number in (2, 3, 4, 5)]
    assert insert_new_with(rows, others, key="owner_signup_id", using="default") == [rows[1], rows[3]]
    assert [values(row) for row in SignUp.objects.order_by("id")] == [values(others[1]), values(others[3])]
    assert User.objects.count() == 3


def test_a_row_whose_other_conflicts_is_not_inserted():
    insert([signup(1)], using="default")
    with pytest.raises(IntegrityError):
        insert_new_with([user(1), user(2)], [signup(1), signup(2)], key="owner_signup_id", using="default")
    assert (User.objects.count(), SignUp.objects.count()) == (0, 1)


def test_only_the_fields_that_are_named_are_written():
    insert([signup(1), signup(2)], using="default")
    changed = [signup(number, version=7, lights={"auth": {}}, attempts=9) for number in (1, 2)]
    overwrite(changed, fields=["version", "lights"], using="default")
    assert list(SignUp.objects.values_list("version", "lights", "attempts")) == [(7, {"auth": {}}, 1)] * 2


@pytest.mark.needs("postgresql")
def test_a_value_that_is_too_long_is_an_error_and_is_not_cut():
    with pytest.raises(DataError):
        insert([signup(1, role="R" * 17)], using="default")

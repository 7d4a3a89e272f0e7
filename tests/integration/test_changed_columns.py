"""No code changes the columns of a user that every service has a copy of, except change_account()."""

import re
from pathlib import Path

import pytest
from django.db import DatabaseError

from authsvc.changed_columns import BypassError
from authsvc.models import NoSuchAccountError, User
from authsvc.signups.changes import change_account
from tests.conftest import new_person

pytestmark = pytest.mark.django_db(transaction=True)
ROOT = Path(__file__).parents[2]
VALUES = {
    "user_id": "other", "user_id_key": "other", "email": "other@example.org", "user_name": "Other",
    "role": "ROLE_ADMIN", "is_active": False, "version": 7,
}  # fmt: skip


@pytest.fixture
def user() -> User:
    person = new_person()
    return User.objects.create_user(person.user_id, person.email, person.password, user_name=person.user_name)


def stored(user: User) -> dict[str, object]:
    return User.objects.values(*VALUES).get(pk=user.pk)


def test_every_synchronised_column_is_guarded():
    assert set(VALUES) == User.GUARDED


@pytest.mark.parametrize("column", VALUES)
def test_a_guarded_column_is_saved_in_no_other_way(user: User, column: str):
    before = stored(user)
    for changed in (User.objects.get(pk=user.pk), user):
        setattr(changed, column, VALUES[column])
        with pytest.raises(BypassError):
            changed.save()
        with pytest.raises(BypassError):
            changed.save(update_fields=[column])
        with pytest.raises(BypassError):
            User.objects.bulk_update([changed], [column])
    with pytest.raises(BypassError):
        User.objects.filter(pk=user.pk).update(**{column: VALUES[column]})
    with pytest.raises(BypassError):
        User.objects.update_or_create(pk=user.pk, defaults={column: VALUES[column]})
    partial = User.objects.only("pk").get(pk=user.pk)
    setattr(partial, column, VALUES[column])
    with pytest.raises(BypassError):
        partial.save()
    assert stored(user) == before


async def test_a_guarded_column_is_not_updated_asynchronously():
    with pytest.raises(BypassError):
        await User.objects.aupdate(is_active=False)


def test_saving_a_user_that_was_read_earlier_reverts_nothing(user: User):
    read_earlier = User.objects.get(pk=user.pk)
    user.is_active, user.user_name = False, "New name"
    change_account(user)
    read_earlier.set_password("quite another w0rd")
    read_earlier.save()
    kept = User.objects.get(pk=user.pk)
    assert (kept.is_active, kept.user_name, kept.version) == (False, "New name", 2)
    assert kept.check_password("quite another w0rd")
    # A change does not revert the new password either.
    user.user_name = "Newer name"
    change_account(user)
    assert User.objects.get(pk=user.pk).check_password("quite another w0rd")


def test_saving_a_user_that_was_deleted_meanwhile_restores_nothing(user: User):
    read_earlier = User.objects.get(pk=user.pk)
    User.objects.filter(pk=user.pk).delete()
    read_earlier.set_password("quite another w0rd")
    with pytest.raises(NoSuchAccountError):
        read_earlier.save()
    assert not User.objects.exists()


def test_saving_a_deleted_user_fails_alike_with_the_subclass_that_django_6_raises(user: User, monkeypatch):
    class NotUpdatedError(DatabaseError): ...

    def update_nothing(*args, **kwargs):
        raise NotUpdatedError

    monkeypatch.setattr(User, "_do_update", update_nothing)
    user.set_password("quite another w0rd")
    with pytest.raises(NoSuchAccountError):
        user.save()


def test_values_that_were_reloaded_do_not_count_as_changes(user: User):
    read = User.objects.only("pk").get(pk=user.pk)
    user.user_name = "New name"
    change_account(user)
    assert read.user_name == "New name"
    other = User.objects.get(pk=user.pk)
    user.email = "new@example.org"
    change_account(user)
    other.refresh_from_db()
    other.is_staff = True
    other.save()
    assert User.objects.get(pk=user.pk).is_staff


def test_no_statement_of_the_product_updates_users_past_the_model():
    """Raw SQL and plain managers are not guarded."""
    bypass = re.compile(r"UPDATE\s+\"?authsvc_user\b|User\._base_manager|overwrite\([^)]*\busers?\b", re.IGNORECASE)
    folders = ("authsvc", "bench", "chatsvc", "customersvc", "participant", "runtime", "signup_sync")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.py") if "migrations" not in path.parts]
    assert len(files) > 100
    for example in ('UPDATE "authsvc_user" SET', "update authsvc_user set", "overwrite(users, fields="):
        assert bypass.search(example)
    assert [str(path) for path in files if bypass.search(path.read_text())] == []

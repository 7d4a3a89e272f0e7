"""An Idempotency-Key that equals somebody's `owner_signup_id`, which has no sign-up, is refused, and no other request
is affected (attack: such a key twice in a batch, so that the whole batch got 503)."""

import asyncio
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import pytest

from authsvc.models import SignUp, UnconfirmedSignUp, User
from authsvc.signups import writer
from authsvc.signups.confirmation import save_unconfirmed
from authsvc.signups.hash_pool import HashPool
from authsvc.signups.registration import KeyTakenError, NewSignUp, register_users
from authsvc.signups.writer import SignUpWriter
from runtime.errors import CrossedError
from tests.client import request
from tests.conftest import new_person
from tests.integration.test_registration import new
from tests.stack import Stack


@pytest.fixture
def owner(db: None) -> User:
    """A user whose sign-up is purged."""
    register_users([first := new("mina")])
    SignUp.objects.all().delete()
    return User.objects.get(owner_signup_id=first.signup_id)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("user_id", ["mina", "yuna"])
def test_a_key_of_an_existing_account_saves_no_row_and_the_rest_of_the_batch_is_saved(
    owner: User, user_id: str
) -> None:
    key = owner.owner_signup_id
    poisoned = [new(user_id, signup_id=key), new(user_id, signup_id=key)]
    first, innocent, second = register_users([poisoned[0], new("hana"), poisoned[1]])
    assert isinstance(first, KeyTakenError)
    assert isinstance(second, KeyTakenError)
    assert not isinstance(innocent, KeyTakenError)
    assert innocent.is_new
    assert set(User.objects.values_list("user_id", flat=True)) == {"mina", "hana"}
    assert not SignUp.objects.filter(id=key).exists()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("user_id", ["mina", "yuna"])
def test_a_key_of_an_existing_account_saves_no_unconfirmed_sign_up(owner: User, user_id: str) -> None:
    with pytest.raises(KeyTakenError):
        save_unconfirmed(new(user_id, signup_id=owner.owner_signup_id))
    assert not UnconfirmedSignUp.objects.exists()


class _Quiet:
    """A producer that discards its events."""

    def send(self, event: object) -> None:
        pass

    def close(self, timeout: float) -> None:
        pass

    async def count(self, counts: object) -> None:
        pass


def test_a_batch_that_stays_crossed_is_saved_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """If one sign-up of a batch can't be saved, the others must not fail with it."""
    at_fault = new("mina")
    tried: list[int] = []

    def register(batch: list[NewSignUp]) -> list[KeyTakenError]:
        tried.append(len(batch))
        if at_fault in batch:
            raise CrossedError("crossed 8 times")
        return [KeyTakenError() for _ in batch]

    monkeypatch.setattr(writer, "register_new_users", lambda batch: [None] * len(batch))
    monkeypatch.setattr(writer, "register_users", register)
    monkeypatch.setattr(HashPool, "waiting", 3)

    async def sign_up() -> list[Any]:
        quiet: Any = _Quiet()
        saving = SignUpWriter(quiet, quiet, HashPool(limit=1))
        ends = await asyncio.gather(
            *(saving.register(each) for each in (new("hana"), at_fault, new("yuna"))), return_exceptions=True
        )
        await saving.close()
        return ends

    assert [type(end) for end in asyncio.run(sign_up())] == [KeyTakenError, CrossedError, KeyTakenError]
    assert sorted(tried) == [1, 1, 1, 3]


@pytest.mark.needs("application")
def test_a_key_of_an_existing_account_is_refused_and_concurrent_sign_ups_are_not(stack: Stack) -> None:
    person, key = new_person(), str(uuid4())

    def sign_up(fields: dict[str, str], **headers: str) -> int:
        return request(stack, "POST", "/user", fields, **headers).status

    assert sign_up(person.form, Idempotency_Key=key) == 202
    # Purge like `manage.py purge` after SIGNUP_RETENTION.
    stack.query("auth", f"DELETE FROM authsvc_signup WHERE user_id = '{person.user_id}'")
    with ThreadPoolExecutor(24) as pool:
        poisoned = [pool.submit(sign_up, new_person().form, Idempotency_Key=key) for _ in range(8)]
        innocent = [pool.submit(sign_up, new_person().form) for _ in range(16)]
        assert Counter(each.result() for each in innocent) == {202: 16}
        assert Counter(each.result() for each in poisoned) == {409: 8}
    # 1b: with the account's own fields too.
    assert sign_up(person.form, Idempotency_Key=key) == 409

"""Pages of a reconcile run and sign-ups that a participant handles at the same time."""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connections, transaction

from chatsvc.models import ChatUser
from tests.integration.test_reconcile_pages import accounts, asked, findings, handle, page, record, row, rows
from tests.waiting import eventually

pytestmark = pytest.mark.django_db(databases=["chat"], transaction=True)


def test_healing_and_signing_up_at_the_same_time_make_one_row_of_each():
    names = [f"user-{n}" for n in range(1, 121)]

    def heal(numbers: Sequence[int]) -> None:
        handle(page(*(record(n, names[n - 1]) for n in numbers), heal=True))

    def keep(numbers: Sequence[int]) -> None:
        for answer in accounts.handle([asked(n, names[n - 1]) for n in numbers]).answers:
            assert json.loads(answer.value)["status"] == "SUCCESS"

    everybody = list(range(1, 121))
    with ThreadPoolExecutor(4) as threads:
        work = [threads.submit(closing_connections(each), everybody[:: 1 if n % 2 else -1])
                for n, each in enumerate([heal, keep, heal, keep, heal, keep])]  # fmt: skip
    for each in work:
        each.result()
    assert rows() == {row(n, name) for n, name in enumerate(names, 1)}


@pytest.mark.needs("postgresql")
def test_a_page_waits_for_a_newer_change_and_leaves_it_alone():
    handle(page(record(1), heal=True))

    def heal(numbers: Sequence[int]) -> list[str]:
        return [found["kind"] for found in findings(handle(page(record(1, version=2), heal=True)))]

    with ThreadPoolExecutor(1) as threads:
        with transaction.atomic(using="chat"):
            ChatUser.objects.update(user_name="Newest", version=3)
            healing = threads.submit(closing_connections(heal), [1])
            eventually(is_waiting_for_us, what="the page waits for the change")
        assert healing.result() == ["newer"]
    assert ChatUser.objects.values_list("user_name", "version").get() == ("Newest", 3)


def is_waiting_for_us() -> bool:
    with connections["chat"].cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_locks WHERE pg_backend_pid() = ANY(pg_blocking_pids(pid))")
        return cursor.fetchone()[0] > 0


def closing_connections(work: Any) -> Any:
    def run(numbers: Sequence[int]) -> Any:
        try:
            return work(numbers)
        finally:
            connections.close_all()

    return run

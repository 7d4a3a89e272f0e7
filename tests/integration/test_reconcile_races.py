"""Pages of a reconcile run and sign-ups that a participant handles at the same time."""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connections

from tests.integration.test_reconcile_pages import accounts, asked, handle, page, record, row, rows

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


def closing_connections(work: Any) -> Any:
    def run(numbers: Sequence[int]) -> None:
        try:
            work(numbers)
        finally:
            connections.close_all()

    return run

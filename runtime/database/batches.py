"""Changing the rows of a large table while the application goes on."""

from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeVar

from django.db import transaction
from django.db.models import Model, QuerySet

ModelT = TypeVar("ModelT", bound=Model)

# Rows in a batch: few enough that their locks last some milliseconds.
SIZE: Final = 500


def in_batches(rows: QuerySet[ModelT]) -> Iterator[list[ModelT]]:
    """The rows in the order of their primary keys, each batch by a query of its own.

    What is done between two batches may change which rows are left.
    """
    rows = rows.order_by("pk")
    batch = list(rows[:SIZE])
    while batch:
        yield batch
        batch = list(rows.filter(pk__gt=batch[-1].pk)[:SIZE])


def change_in_batches(rows: QuerySet[ModelT], change: Callable[[ModelT], None], *, fields: Sequence[str]) -> None:
    """Call `change` on each row and save `fields`, a transaction per batch; no other writer gets in between.

    The filter of `rows` should leave out what is changed already, so that an interrupted run can be repeated.
    """
    rows = rows.order_by("pk")
    last = None
    while True:
        with transaction.atomic(using=rows.db):
            batch = list((rows if last is None else rows.filter(pk__gt=last)).select_for_update()[:SIZE])
            for row in batch:
                change(row)
            rows.model._default_manager.using(rows.db).bulk_update(batch, fields)
        if not batch:
            return
        last = batch[-1].pk

"""Change the rows of a large table while the application keeps running."""

from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeVar

from django.db import transaction
from django.db.models import Model, QuerySet

ModelT = TypeVar("ModelT", bound=Model)

# Rows per batch: few enough that their locks last only milliseconds.
SIZE: Final = 500


def in_batches(rows: QuerySet[ModelT]) -> Iterator[list[ModelT]]:
    """Yield the rows in batches, in the order of their primary keys, with one query for each batch.

    Changes between two batches may affect which rows follow.
    """
    rows = rows.order_by("pk")
    batch = list(rows[:SIZE])
    while batch:
        yield batch
        batch = list(rows.filter(pk__gt=batch[-1].pk)[:SIZE])


def change_in_batches(rows: QuerySet[ModelT], change: Callable[[ModelT], None], *, fields: Sequence[str]) -> None:
    """Call `change` on each row and save `fields`, in one transaction per batch with its rows locked.

    The filter of `rows` should exclude rows that are already changed, so that an interrupted run can be repeated.
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

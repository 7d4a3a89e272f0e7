"""Search that ignores case, Unicode composition and width, with the same results on SQLite and PostgreSQL."""

import unicodedata
from typing import Any, Final

from django.db.backends.signals import connection_created
from django.db.models import Func, Q, QuerySet, TextField
from django.dispatch import receiver

from runtime.text_length import is_longer_than

# Maximum bytes of a search term. A longer one is not normalised, because no name is as long.
TERM_MAX: Final = 1024


def folded(text: str) -> str:
    """Return a form that is equal for texts that differ in case, composition or width.

    Lower-casing comes first so that ẞ becomes SS, as ß does."""
    return unicodedata.normalize("NFKC", text).lower().upper()


class Folded(Func):
    """SQL expression for folded() of a column. On PostgreSQL it uses ICU's rules, not the database's collation."""

    function = "folded"
    arity = 1
    output_field = TextField()

    def as_postgresql(self, compiler: Any, connection: Any, **more: Any) -> Any:
        template = 'UPPER(LOWER(NORMALIZE(%(expressions)s, NFKC) COLLATE "und-x-icu"))'
        return self.as_sql(compiler, connection, template=template, **more)


@receiver(connection_created)
def _add_function(connection: Any, **_: Any) -> None:
    if connection.vendor == "sqlite":
        connection.connection.create_function("folded", 1, folded, deterministic=True)


def search(queryset: QuerySet[Any], otherwise: Q, term: str, *, column: str) -> QuerySet[Any]:
    """Return the rows whose `column` contains every word of the term, and those that match `otherwise`."""
    words = [] if is_longer_than(TERM_MAX, term) else folded(term).split()
    if not words:
        return queryset.filter(otherwise)
    has_words = Q()
    for word in words:
        has_words &= Q(folded_text__contains=word)
    found: QuerySet[Any] = queryset.alias(folded_text=Folded(column)).filter(otherwise | has_words)
    return found

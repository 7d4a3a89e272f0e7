"""Detect userIds that look like reserved ones (docs/adr/0039), with Unicode's data from confusable-homoglyphs.

The data is loaded when the first non-ASCII text is checked: it takes 80 ms and 18 MB, and most roles never need it.
"""

import re
import unicodedata
from functools import cache, lru_cache
from typing import Final

from django.conf import settings

# Digits that look like letters (i and l look alike too). Separators are removed.
_PASSES_FOR: Final = str.maketrans("01i3457", "olleast", "._-")

# Unicode names of Latin letter variants: small capitals, and letters with a stroke or hook, which aren't accents.
_LATIN_SHAPES: Final = re.compile(
    r"LATIN (?:SMALL LETTER|CAPITAL LETTER|LETTER SMALL CAPITAL) (?P<letter>[A-Z])(?: WITH .+)?"
)


def looks_reserved(user_id: str) -> bool:
    """Whether this valid userId is, or looks like, one of RESERVED_USER_IDS. Both the original and the case-folded form
    are compared: a capital letter may look like a Latin one although its small letter doesn't."""
    reserved = _looks_of(tuple(settings.RESERVED_USER_IDS))
    return _look_of(user_id) in reserved or _look_of(user_id.casefold()) in reserved


@cache
def _looks_of(user_ids: tuple[str, ...]) -> frozenset[str]:
    return frozenset(map(_look_of, user_ids))


def _look_of(text: str) -> str:
    """Return the text without accents, case and separators, with letters replaced by their ASCII look-alikes."""
    if not text.isascii():
        text = unicodedata.normalize("NFC", "".join(map(_latin_look_of, _without_marks(text))))
    return text.lower().translate(_PASSES_FOR).replace("rn", "m").replace("vv", "w")


def _without_marks(text: str) -> str:
    return "".join(each for each in unicodedata.normalize("NFD", text) if not unicodedata.combining(each))


@lru_cache(maxsize=4096)
def _latin_look_of(character: str) -> str:
    """Return the ASCII text that looks like this character, found in several steps if needed (Cyrillic т, small capital
    ᴛ, t), or the character itself if there is none."""
    if character.isascii():
        return character
    from confusable_homoglyphs import confusables

    alike = [character]
    for each in alike:
        if shape := _LATIN_SHAPES.fullmatch(unicodedata.name(each, "")):
            return shape["letter"]
        for other in confusables.confusables_data.get(each, ()):
            plain = _without_marks(other["c"])
            if plain and plain.isascii():
                return plain
            if len(plain) == 1 and plain not in alike:
                alike.append(plain)
    return character

"""What a userId looks like (docs/adr/0039), by Unicode's data as confusable-homoglyphs has it.

The data is loaded with the first text beyond ASCII: that takes 80 ms and 18 MB, which most roles never need.
"""

import re
import unicodedata
from functools import cache, lru_cache
from typing import Final

from django.conf import settings

# Digits that pass for letters; i and l are alike too. What only separates is left out.
_PASSES_FOR: Final = str.maketrans("01i3457", "olleast", "._-")

# Names of Latin letters in other shapes: small capitals, and letters with a stroke or a hook, which are no accents.
_LATIN_SHAPES: Final = re.compile(
    r"LATIN (?:SMALL LETTER|CAPITAL LETTER|LETTER SMALL CAPITAL) (?P<letter>[A-Z])(?: WITH .+)?"
)


def looks_reserved(user_id: str) -> bool:
    """Whether this valid userId is one of RESERVED_USER_IDS, or looks like one. Both as it is written and folded: a
    capital letter may look like a Latin one when its small letter does not."""
    reserved = _looks_of(tuple(settings.RESERVED_USER_IDS))
    return _look_of(user_id) in reserved or _look_of(user_id.casefold()) in reserved


@cache
def _looks_of(user_ids: tuple[str, ...]) -> frozenset[str]:
    return frozenset(map(_look_of, user_ids))


def _look_of(text: str) -> str:
    """The text without accents, case and separators, in ASCII as far as its letters look like that."""
    if not text.isascii():
        text = unicodedata.normalize("NFC", "".join(map(_latin_look_of, _without_marks(text))))
    return text.lower().translate(_PASSES_FOR).replace("rn", "m").replace("vv", "w")


def _without_marks(text: str) -> str:
    return "".join(each for each in unicodedata.normalize("NFD", text) if not unicodedata.combining(each))


@lru_cache(maxsize=4096)
def _latin_look_of(character: str) -> str:
    """The ASCII that looks like this character, in several steps if need be (Cyrillic т, small capital ᴛ, t); the
    character itself where there is none."""
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

"""Invisible characters, which can make different names look the same (docs/adr/0039)."""

import unicodedata
from typing import Final

# Code points that are invisible although their category (letter, mark, symbol) suggests otherwise: Unicode's
# Default_Ignorable_Code_Point outside Cf, and the blanks of Braille, musical and Egyptian notation.
_HIDDEN: Final = (
    (0x034F, 0x034F), (0x115F, 0x1160), (0x17B4, 0x17B5), (0x180B, 0x180F), (0x2065, 0x2065), (0x2800, 0x2800),
    (0x3164, 0x3164), (0xFE00, 0xFE0F), (0xFFA0, 0xFFA0), (0xFFF0, 0xFFFC), (0x13441, 0x13442), (0x1D159, 0x1D159),
    (0xE0000, 0xE0FFF),
)  # fmt: skip
# Format characters (zero-width, directional, tags), line and paragraph separators, and private use.
_HIDDEN_CATEGORIES: Final = frozenset({"Cf", "Zl", "Zp", "Co"})
_NON_JOINER: Final = "\u200c"
_JOINERS: Final = (_NON_JOINER, "\u200d")
# The canonical combining class of a virama, which suppresses a consonant's inherent vowel.
_VIRAMA: Final = 9


def is_hidden(character: str) -> bool:
    """Whether the character is invisible."""
    if character.isascii():
        return False
    code = ord(character)
    return unicodedata.category(character) in _HIDDEN_CATEGORIES or any(
        first <= code <= last for first, last in _HIDDEN
    )


def hides_something(text: str) -> bool:
    """Whether the text contains a hidden character that its spelling doesn't require. Joiners are legitimate after a
    virama, and a non-joiner also between two Arabic letters, as in Persian (RFC 5892, A.1 and A.2)."""
    return not text.isascii() and any(
        is_hidden(character) and not (character in _JOINERS and _is_spelling(text, place))
        for place, character in enumerate(text)
    )


def _is_spelling(text: str, place: int) -> bool:
    before = text[place - 1] if place else ""
    if before and unicodedata.combining(before) == _VIRAMA:
        return True
    after = text[place + 1 : place + 2]
    return text[place] == _NON_JOINER and _is_arabic_letter(before) and _is_arabic_letter(after)


def _is_arabic_letter(character: str) -> bool:
    return character.isalpha() and unicodedata.name(character, "").startswith("ARABIC LETTER")

"""Detect texts that mix scripts (docs/adr/0039), with Unicode's script data from confusable-homoglyphs.

The data is loaded with the first text that is not ASCII: it takes 80 ms and 18 MB, and most roles never need it.
"""

import unicodedata
from functools import lru_cache
from typing import Final

# Sets of scripts that are commonly written together: the level "highly restrictive" of UTS 39, section 5.2.
_WRITTEN_TOGETHER: Final = (
    frozenset({"LATIN", "HAN", "HIRAGANA", "KATAKANA"}),
    frozenset({"LATIN", "HAN", "BOPOMOFO"}),
    frozenset({"LATIN", "HAN", "HANGUL"}),
)
_OF_ANY_SCRIPT: Final = frozenset({"COMMON", "INHERITED"})


def mixes_scripts(text: str) -> bool:
    """Whether the text has letters of scripts that are not commonly written together."""
    scripts = {_script_of(character) for character in text} - _OF_ANY_SCRIPT
    return len(scripts) > 1 and not any(scripts <= together for together in _WRITTEN_TOGETHER)


def mixes_digits(text: str) -> bool:
    """Whether the text has decimal digits of two scripts: digits of different values can look alike."""
    zeros = {ord(character) - unicodedata.decimal(character) for character in text if character.isdecimal()}
    return len(zeros) > 1


@lru_cache(maxsize=4096)
def _script_of(character: str) -> str:
    from confusable_homoglyphs import categories

    script: str = categories.alias(character)
    return script

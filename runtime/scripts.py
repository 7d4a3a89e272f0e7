"""Which scripts a text is written in (docs/adr/0039), by Unicode's data as confusable-homoglyphs has it.

The data is loaded with the first text beyond ASCII: that takes 80 ms and 18 MB, which most roles never need.
"""

import unicodedata
from functools import lru_cache
from typing import Final

# Sets of scripts that are written together: the level "highly restrictive" of UTS 39, 5.2.
_WRITTEN_TOGETHER: Final = (
    frozenset({"LATIN", "HAN", "HIRAGANA", "KATAKANA"}),
    frozenset({"LATIN", "HAN", "BOPOMOFO"}),
    frozenset({"LATIN", "HAN", "HANGUL"}),
)
_OF_ANY_SCRIPT: Final = frozenset({"COMMON", "INHERITED"})


def mixes_scripts(text: str) -> bool:
    """Whether the text has letters of scripts that are not written together."""
    scripts = {_script_of(character) for character in text} - _OF_ANY_SCRIPT
    return len(scripts) > 1 and not any(scripts <= together for together in _WRITTEN_TOGETHER)


def mixes_digits(text: str) -> bool:
    """Whether the text has decimal digits of two scripts: some look like digits of another value."""
    zeros = {ord(character) - unicodedata.decimal(character) for character in text if character.isdecimal()}
    return len(zeros) > 1


@lru_cache(maxsize=4096)
def _script_of(character: str) -> str:
    from confusable_homoglyphs import categories

    script: str = categories.alias(character)
    return script

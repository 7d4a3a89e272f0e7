"""A participant's texts in the Korean catalogue."""

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from signup_sync.new_service.names import RefusedNameError

CATALOGUE: Final = "locale/ko/LC_MESSAGES/django.po"


def add_texts(text: str, service: str, korean: str) -> str:
    """Return the catalogue's text with the participant's texts, which its Korean name completes.

    Raises RefusedNameError if the product has one of them already: it can't have a second translation, and a removal of
    the participant would delete the product's.
    """
    texts = _texts(service, korean)
    there = set(text.splitlines())
    for msgid in texts:
        if f'msgid "{msgid}"' in there:
            raise RefusedNameError(f"the text “{msgid}” is in {CATALOGUE} already; choose another name")
    entries = "".join(f'\nmsgid "{msgid}"\nmsgstr "{msgstr}"\n' for msgid, msgstr in texts.items())
    return text.rstrip("\n") + "\n" + entries


def remove_texts(text: str, service: str) -> str:
    """Return the catalogue's text without the participant's texts, whatever their translations are."""
    dropped = tuple(f'msgid "{msgid}"\n' for msgid in _texts(service, ""))
    return "\n\n".join(entry for entry in text.rstrip("\n").split("\n\n") if not entry.startswith(dropped)) + "\n"


def compile_catalogue(root: Path) -> bool:
    """Compile the catalogue; return False if gettext is not installed."""
    if not (msgfmt := shutil.which("msgfmt")):
        return False
    source = root / CATALOGUE
    subprocess.run([msgfmt, "-o", source.with_suffix(".mo"), source], check=True)  # noqa: S603 - our own paths
    return True


def _texts(service: str, korean: str) -> Mapping[str, str]:
    name = service.capitalize()
    return {
        name: korean,
        f"{name} service": f"{korean} 서비스",
        f"{service} user": f"{korean} 사용자",
        f"{service} users": f"{korean} 사용자",
    }

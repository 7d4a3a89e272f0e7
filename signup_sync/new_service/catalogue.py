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

    Raises RefusedNameError if one of them is there already, because a catalogue can't contain a text twice.
    """
    texts = _texts(service, korean)
    for msgid in texts:
        if _head(msgid) in text:
            raise RefusedNameError(f"the service's text “{msgid}” is in {CATALOGUE} already; choose another name")
    entries = "".join(f'\n{_head(msgid)}msgstr "{msgstr}"\n' for msgid, msgstr in texts.items())
    return text.rstrip("\n") + "\n" + entries


def remove_texts(text: str, service: str) -> str:
    """Return the catalogue's text without the participant's texts, whatever their translations are."""
    dropped = tuple(map(_head, _texts(service, "")))
    return "\n\n".join(entry for entry in text.rstrip("\n").split("\n\n") if not entry.startswith(dropped)) + "\n"


def compile_catalogue(root: Path) -> bool:
    """Compile the catalogue; return False if gettext is not installed."""
    if not (msgfmt := shutil.which("msgfmt")):
        return False
    source = root / CATALOGUE
    subprocess.run([msgfmt, "-o", source.with_suffix(".mo"), source], check=True)  # noqa: S603 - our own paths
    return True


def _head(msgid: str) -> str:
    """Return the first lines of an entry. The context keeps a service's texts apart from equal ones of the product and
    of Django, such as “Order”: a translation here would replace Django's."""
    return f'msgctxt "service"\nmsgid "{msgid}"\n'


def _texts(service: str, korean: str) -> Mapping[str, str]:
    name = service.capitalize()
    return {
        name: korean,
        f"{name} service": f"{korean} 서비스",
        f"{service} user": f"{korean} 사용자",
        f"{service} users": f"{korean} 사용자",
    }

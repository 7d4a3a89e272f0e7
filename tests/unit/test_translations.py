"""The translations are complete, and match the sources."""

import shutil
import subprocess
import sys
from gettext import GNUTranslations
from pathlib import Path

import pytest

from signup_sync.participants import PARTICIPANTS
from tests.plugin import is_ci

ROOT = Path(__file__).resolve().parents[2]
CATALOGUE = "locale/ko/LC_MESSAGES/django"
PACKAGES = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests", "bench"}

needs_gettext = pytest.mark.skipif(
    not shutil.which("xgettext") and not is_ci(), reason="gettext is not installed (Debian: apt-get install gettext)"
)


def run(*command: str, cwd: Path = ROOT) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def texts(po: Path) -> set[str]:
    """The msgids of a catalogue, without their translations. No entry may be obsolete."""
    stripped = run("msgattrib", "--clear-fuzzy", "--empty", "--no-wrap", str(po))
    return {block.strip() for block in stripped.split("\n\n") if 'msgid ""\nmsgstr' not in block}


@needs_gettext
@pytest.mark.parametrize("chosen", ["--untranslated", "--only-fuzzy", "--only-obsolete"])
def test_every_text_is_translated(chosen: str):
    assert run("msgattrib", chosen, "--no-wrap", f"{CATALOGUE}.po") == ""


@needs_gettext
def test_the_compiled_catalogue_is_up_to_date(tmp_path: Path):
    run("msgfmt", "--check-format", "-o", str(tmp_path / "fresh.mo"), f"{CATALOGUE}.po")
    with (tmp_path / "fresh.mo").open("rb") as fresh, (ROOT / f"{CATALOGUE}.mo").open("rb") as committed:
        assert GNUTranslations(committed)._catalog == GNUTranslations(fresh)._catalog, "run `make messages`"


@needs_gettext
def test_the_sources_have_no_other_texts(tmp_path: Path):
    for name in ("manage.py", "templates", *PACKAGES):
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy2)(source, tmp_path / name)
    shutil.copytree(ROOT / "locale", tmp_path / "locale")
    options = ("--locale", "ko", "--no-location", "--no-obsolete", "--no-wrap")
    run(sys.executable, "manage.py", "makemessages", *options, cwd=tmp_path)
    assert texts(tmp_path / f"{CATALOGUE}.po") == texts(ROOT / f"{CATALOGUE}.po"), "run `make messages`"


@pytest.mark.parametrize("service", ["auth", *PARTICIPANTS])
def test_every_service_has_a_name_in_korean(service: str):
    """A brand may be the same in both languages, but the catalogue must have an entry for it."""
    with (ROOT / f"{CATALOGUE}.mo").open("rb") as compiled:
        assert GNUTranslations(compiled)._catalog[f"service\x04{service.capitalize()}"]

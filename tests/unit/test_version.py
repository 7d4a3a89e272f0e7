"""The release's version. Files that can't import `signup_sync.__version__` repeat it."""

import re

import pytest

from signup_sync import __version__
from tests.e2e.clone import project_files
from tests.servers.process import ROOT

PRODUCTION = "deploy/k8s/overlays/production/installation"
# The files that repeat the version, with the pattern of its place. The generated Python client takes the version from
# openapi.yaml.
PLACES = {
    ".env.example": r"^#VERSION=(.+)$",
    "clients/typescript/package.json": r'^  "version": "(.+)"',
    "clients/typescript/package-lock.json": r'"name": "signup-sync-client",\s+"version": "(.+)"',
    "docs/asyncapi.yaml": r"^  version: (.+)$",
    "docs/openapi.yaml": r"^  version: (.+)$",
    f"{PRODUCTION}/kustomization.yaml": r"{name: signup-sync, .*newTag: ([^ ,}]+)}",
    f"{PRODUCTION}/settings.env": r"^VERSION=(.+)$",
}
# Versions of other things, and the history of this one.
OTHERS = ("CHANGELOG.md", "signup_sync/__init__.py", "package.json", "package-lock.json", "go.mod", "go.sum", ".txt")


@pytest.mark.parametrize("path", PLACES)
def test_every_place_has_the_version_of_the_release(path: str):
    assert {*re.findall(PLACES[path], (ROOT / path).read_text(), re.MULTILINE)} == {__version__}


def test_no_other_file_repeats_the_version():
    """A file that is not in PLACES would keep the old version at the next release."""
    version = re.compile(rf"(?<![\d.]){re.escape(__version__)}(?![\d.]*\d)".encode())
    repeating = [
        path
        for path in project_files()
        if not path.endswith(OTHERS) and path not in PLACES and version.search((ROOT / path).read_bytes())
    ]
    assert repeating == []

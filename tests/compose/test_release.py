"""`make release` on a Docker engine: the image that it builds, and the archive with it."""

import hashlib
import json
import os
import re
import secrets
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.contract.test_compose import services
from tests.contract.test_release import make_release, make_repository

pytestmark = pytest.mark.needs("docker")

# Timeout in seconds for `make release`. A busy machine needs four minutes for the image.
BUILT_WITHIN = 600.0


@dataclass(frozen=True)
class Release:
    version: str
    dist: Path
    said: str

    @property
    def image(self) -> str:
        return f"signup-sync:{self.version}"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Release]:
    """A release of a copy of the project with a unique version, so that no existing image loses its name."""
    version = f"0.0.{secrets.randbelow(10**9)}"
    tree = tmp_path_factory.mktemp("release") / "project"
    make_repository(tree, version=version)
    try:
        done = make_release(tree, os.environ | {"VENV": sys.prefix}, timeout=BUILT_WITHIN)
        assert done.returncode == 0, done.stdout + done.stderr
        yield Release(version, tree / "dist", done.stdout)
    finally:
        docker("image", "rm", "--force", f"signup-sync:{version}")


def docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_plan_names_the_image_with_its_digest_and_the_archive_contains_it(made: Release) -> None:
    [(size, identity)] = re.findall(rf"the image {made.image}  ([\d,]+) bytes unpacked  (sha256:\w{{64}})\n", made.said)
    [image] = json.loads(docker("image", "inspect", made.image))
    assert (identity, int(size.replace(",", ""))) == (image["Id"], image["Size"])
    assert image["Config"]["Labels"]["org.opencontainers.image.version"] == made.version
    assert f"docker push REGISTRY/{made.image}" in made.said
    assert "NOT BUILT" not in made.said

    archive = made.dist / f"signup-sync-{made.version}-image.tar"
    with archive.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    assert f"dist/{archive.name}  {archive.stat().st_size:,} bytes  sha256:{digest}" in made.said
    with tarfile.open(archive) as saved:
        [manifest] = json.load(saved.extractfile("manifest.json") or pytest.fail("it has no manifest"))
    assert manifest["RepoTags"] == [made.image]


# Prints the user, the version and the system check's result, and tries to write to read-only folders.
LOOKS = """
id --user
python -c 'import signup_sync; print(signup_sync.__version__)'
python manage.py check
! touch /app/file && ! touch /opt/venv/file
"""


def test_the_image_runs_read_only_as_its_own_user(made: Release) -> None:
    contained = ("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
    run = ("run", "--rm", "--network", "none", *contained, "--env", "DATA_DIR=/tmp/data", made.image)
    lines = docker(*run, "sh", "-ec", LOOKS).splitlines()
    user = services()["web"]["user"].partition(":")[0]
    assert lines == [user, made.version, "System check identified no issues (0 silenced)."]

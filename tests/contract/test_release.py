"""`make release` in a clean copy of the project, and the project installed from the sdist that it builds."""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from signup_sync import __version__
from tests.servers import free_port
from tests.servers.process import LOOPBACK, ROOT, http_status
from tests.waiting import eventually

SDIST = f"signup_sync-{__version__}.tar.gz"
BILL, IMAGE = f"signup-sync-{__version__}.cdx.json", f"signup-sync-{__version__}-image.tar"
# A Docker engine that records what it is asked for.
ENGINE = """#!/bin/sh
echo "$@" >> "$(dirname "$0")/asked"
case "$1 $2" in
    "save --output") echo image > "$3" ;;
    "image inspect") echo sha256:0123 123456789 ;;
esac
"""
NO_ENGINE = "#!/bin/sh\nexit 1\n"


def git(tree: Path, *arguments: str) -> None:
    who = ["-c", "user.name=Test", "-c", "user.email=test@example.org", "-c", "init.defaultBranch=main"]
    subprocess.run(["git", *who, *arguments], cwd=tree, check=True, capture_output=True)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tree = tmp_path_factory.mktemp("release") / "project"
    make_repository(tree, version=__version__)
    return tree


def make_repository(tree: Path, *, version: str) -> None:
    """Make a repository with one commit: the files of this one as this version, without unreleased changes."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    for name in listed.stdout.decode().split("\0"):
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tree / name)
    changelog = tree / "CHANGELOG.md"
    changelog.write_text(re.sub(r"(## \[Unreleased\]\n).*?(?=## \[)", r"\1\n", changelog.read_text(), flags=re.DOTALL))
    if version != __version__:
        for file in (changelog, tree / "signup_sync" / "__init__.py"):
            replace(file, __version__, version)
    git(tree, "init", "--quiet")
    git(tree, "add", "--all")
    git(tree, "commit", "--quiet", "--message", "Everything")


def environment(tree: Path, engine: str) -> dict[str, str]:
    """An environment where the Docker engine is this one."""
    docker = tree.parent / "bin" / "docker"
    docker.parent.mkdir(exist_ok=True)
    docker.write_text(engine)
    docker.chmod(0o755)
    return os.environ | {"VENV": sys.prefix, "PATH": f"{docker.parent}:{os.environ['PATH']}"}


def release(tree: Path) -> subprocess.CompletedProcess[str]:
    return make_release(tree, environment(tree, ENGINE), timeout=120)


def make_release(tree: Path, env: Mapping[str, str], *, timeout: float) -> subprocess.CompletedProcess[str]:
    installed = [word for name in (".installed", ".installed-dev") for word in ("-o", f"{sys.prefix}/{name}")]
    command = ["make", *installed, "release"]
    return subprocess.run(command, cwd=tree, env=env, capture_output=True, text=True, check=False, timeout=timeout)


@pytest.fixture
def changed(tree: Path):
    """The tree, for a test that changes it."""
    yield tree
    git(tree, "reset", "--quiet", "--hard", "HEAD")
    git(tree, "clean", "--quiet", "--force", "-d")


def refused(tree: Path) -> str:
    done = release(tree)
    assert done.returncode != 0
    assert not (tree / "dist").exists()
    return done.stderr


def test_uncommitted_changes_are_refused(changed: Path):
    (changed / "forgotten.py").touch()
    assert "commit or remove these changes first:\n?? forgotten.py" in refused(changed)


def replace(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


def test_a_version_without_its_section_in_the_changelog_is_refused(changed: Path):
    replace(changed / "signup_sync" / "__init__.py", __version__, "7.0.0")
    assert "CHANGELOG.md must have the section 7.0.0 below Unreleased" in refused(changed)


def test_a_release_with_unreleased_changes_in_the_changelog_is_refused(changed: Path):
    replace(changed / "CHANGELOG.md", "## [Unreleased]\n", "## [Unreleased]\n\n### Added\n- Something else.\n")
    assert f"move them to {__version__}, or increase the version" in refused(changed)


def test_a_version_that_was_released_is_refused(changed: Path):
    git(changed, "tag", f"v{__version__}")
    try:
        assert f"the tag v{__version__} exists already" in refused(changed)
    finally:
        git(changed, "tag", "--delete", f"v{__version__}")


@pytest.fixture(scope="module")
def dist(tree: Path) -> Path:
    done = release(tree)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"the image signup-sync:{__version__}  123,456,789 bytes unpacked  sha256:0123" in done.stdout
    for name in (SDIST, BILL, IMAGE):
        content = (tree / "dist" / name).read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        assert f"dist/{name}  {len(content):,} bytes  sha256:{digest}" in done.stdout
    assert f"git tag --annotate v{__version__}" in done.stdout
    assert subprocess.run(["git", "tag"], cwd=tree, capture_output=True, check=True).stdout == b""
    return tree / "dist"


def test_the_bill_of_materials_names_the_release_and_its_dependencies(dist: Path):
    bill = json.loads((dist / BILL).read_text())
    assert bill["metadata"]["component"] == {"type": "application", "name": "signup-sync", "version": __version__}
    assert {"django", "uvicorn"} <= {component["name"] for component in bill["components"]}


def test_the_image_is_built_and_saved_but_not_pushed(dist: Path):
    assert (dist / IMAGE).read_text() == "image\n"
    asked = (dist.parent.parent / "bin" / "asked").read_text()
    [build] = [line for line in asked.splitlines() if line.startswith("build ")]
    assert f"--tag signup-sync:{__version__} " in build
    assert f"--label org.opencontainers.image.version={__version__} " in build
    assert "push" not in asked


def test_without_a_docker_engine_the_image_is_reported_as_missing(tree: Path, dist: Path):
    code = "import release; release.print_plan(release.lacking_engine())"
    env = environment(tree, NO_ENGINE) | {"PYTHONPATH": "deploy:."}
    done = subprocess.run([sys.executable, "-c", code], cwd=tree, env=env, capture_output=True, text=True, check=True)
    assert f"NOT BUILT: the image signup-sync:{__version__}. No Docker engine answers here." in done.stdout
    assert "run `make release` again where a Docker engine runs" in done.stdout
    assert "docker push" not in done.stdout


@pytest.fixture(scope="module")
def installed(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The environment into which the sdist was installed. Its dependencies are those of this environment."""
    venv = tmp_path_factory.mktemp("installed")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    [site] = venv.glob("lib/python*/site-packages")
    [ours] = Path(sys.prefix).glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(f"{ours}\n")
    pip = [sys.executable, "-m", "pip", "--python", str(venv), "--disable-pip-version-check", "--quiet"]
    install = [*pip, "install", "--no-deps", "--no-index", "--no-build-isolation", str(dist / SDIST)]
    done = subprocess.run(install, capture_output=True, text=True, check=False, env=os.environ | {"PIP_USER": "0"})
    assert done.returncode == 0, done.stdout + done.stderr
    return venv


def test_the_sdist_has_the_documents_and_no_leftovers(dist: Path):
    with tarfile.open(dist / SDIST) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"docs/operations.md", "docs/openapi.yaml", "compose.yaml", "Dockerfile", "requirements.txt"} <= names
    assert not any("__pycache__" in name or name.startswith(("dist/", "var/", ".venv/")) for name in names)


def test_an_installation_from_the_sdist_runs_with_pages_styles_and_translations(installed: Path, tmp_path: Path):
    port = free_port()
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "LANG": "C.UTF-8", "PORT": str(port)}
    with (tmp_path / "log").open("wb") as log:
        running = subprocess.Popen(
            [installed / "bin" / "signup-sync", "run_local"], cwd=tmp_path, env=env, stdout=log, stderr=log
        )
    try:
        eventually(lambda: http_status(port, "/health/ready") == 200, 90, what="the installed project is ready")
        address = f"http://{LOOPBACK}:{port}/signup/"
        with urlopen(Request(address, headers={"Accept-Language": "ko"}), timeout=30) as answer:
            page = answer.read().decode()
        assert 'lang="ko"' in page
        assert "비밀번호" in page
        [style] = re.findall(r'href="(/static/[^"]+\.css)"', page)[:1]
        assert http_status(port, style) == 200
    finally:
        running.send_signal(signal.SIGINT)
        assert running.wait(timeout=30) == 0, (tmp_path / "log").read_text()
    assert (tmp_path / "var" / "auth.sqlite3").is_file()

"""`make release`: build a release into dist/, and print what to publish. It publishes nothing.

Builds the sdist, the bill of materials of the Python packages (CycloneDX) and, if a Docker engine answers, the image.
Exit code 1, before anything is built, if the tree has uncommitted changes, CHANGELOG.md has no section for the version
or lists further changes above it, or the version's tag exists already. It is also 1 if a part can't be built.
"""

import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from audit import write_bill
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from signup_sync import __version__

ROOT: Final = Path(__file__).resolve().parent.parent
DIST: Final = ROOT / "dist"
NAME: Final = f"signup-sync-{__version__}"
TAG: Final = f"v{__version__}"
IMAGE: Final = f"signup-sync:{__version__}"


def main() -> int:
    if problems := list(obstacles()):
        print("\n".join(f"make release: {problem}" for problem in problems), file=sys.stderr)
        return 1
    shutil.rmtree(DIST, ignore_errors=True)
    DIST.mkdir()
    run(sys.executable, "-m", "hatchling", "build", "--target", "sdist", "--directory", str(DIST))
    write_release_bill(DIST / f"{NAME}.cdx.json")
    missing = lacking_engine()
    if not missing:
        print(f"Building the image {IMAGE}; the first time, this takes about a minute.", flush=True)
        build_image(DIST / f"{NAME}-image.tar")
    print_plan(missing)
    return 0


def obstacles() -> Iterator[str]:
    """Yield the reasons why nothing can be released."""
    if changed := run("git", "status", "--porcelain"):
        yield f"commit or remove these changes first:\n{changed}"
    sections = re.findall(r"^## \[(.+?)\](?: - \d{4}-\d{2}-\d{2})?\n(.*?)(?=^## |\Z)", changelog(), re.M | re.S)
    names = [name for name, _ in sections]
    if names[:2] != ["Unreleased", __version__]:
        yield f"CHANGELOG.md must have the section {__version__} below Unreleased; it has {', '.join(names[:2])}."
    elif sections[0][1].strip():
        yield f"CHANGELOG.md lists changes as Unreleased: move them to {__version__}, or increase the version."
    if run("git", "tag", "--list", TAG):
        yield f"the tag {TAG} exists already: increase __version__ in signup_sync/__init__.py."


def changelog() -> str:
    return (ROOT / "CHANGELOG.md").read_text()


def write_release_bill(bill: Path) -> None:
    """Write the bill of the pinned dependencies, name the release as their root, and validate the result."""
    write_bill(bill)
    content = json.loads(bill.read_text())
    content["metadata"]["component"] = {"type": "application", "name": "signup-sync", "version": __version__}
    text = json.dumps(content, indent=2) + "\n"
    bill.write_text(text)
    if flaw := JsonStrictValidator(SchemaVersion.from_version(content["specVersion"])).validate_str(text):
        raise SystemExit(f"make release: {bill} is no valid CycloneDX: {flaw}")


def lacking_engine() -> str:
    """Return why no image can be built here; "" if a Docker engine answers."""
    if not shutil.which("docker"):
        return "The command docker is not installed here."
    answer = subprocess.run(["docker", "info"], capture_output=True, check=False)
    return "No Docker engine answers here." if answer.returncode else ""


def build_image(archive: Path) -> None:
    """Build the image, labelled with its version and commit, and save it."""
    labels = {"version": __version__, "revision": commit()}
    words = [word for name, value in labels.items() for word in ("--label", f"org.opencontainers.image.{name}={value}")]
    run("docker", "build", "--quiet", "--tag", IMAGE, *words, ".")
    run("docker", "save", "--output", str(archive), IMAGE)


def print_plan(missing: str) -> None:
    """Print what was built and how to publish it. `missing` is the reason why there is no image, or ""."""
    print(f"\nsignup-sync {__version__} of commit {commit()}:")
    for file in sorted(DIST.iterdir()):
        with file.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        print(f"  dist/{file.name}  {file.stat().st_size:,} bytes  sha256:{digest}")
    if missing:
        print(f"  NOT BUILT: the image {IMAGE}. {missing} Everything else is complete.")
    else:
        identity, size = run("docker", "image", "inspect", "--format", "{{.Id}} {{.Size}}", IMAGE).split()
        print(f"  the image {IMAGE}  {int(size):,} bytes unpacked  {identity}")
    steps = [
        f"git tag --annotate {TAG} --message 'Signup Sync {__version__}' {commit()} && git push origin {TAG}",
        f"attach the files in dist/, and the section {__version__} of CHANGELOG.md, to the release of this tag",
        "run `make release` again where a Docker engine runs, and push the image from there"
        if missing
        else f"docker tag {IMAGE} REGISTRY/{IMAGE} && docker push REGISTRY/{IMAGE}",
    ]
    print("\nNothing was published. To publish:")
    print("\n".join(f"  {number}. {step}" for number, step in enumerate(steps, start=1)))


def commit() -> str:
    return run("git", "rev-parse", "HEAD")


def run(*command: str) -> str:
    """Return the output of a command that must succeed."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"make release: {' '.join(command[:3])} failed:\n{done.stdout}{done.stderr}")
    return done.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())

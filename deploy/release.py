"""`make release`: build a release into dist/, and print what to publish. It publishes nothing.

Builds the sdist, the bill of materials (CycloneDX) and, if a Docker engine answers, the image. Exit code 1, before
anything is built, if the tree has uncommitted changes, CHANGELOG.md has no section for the version or lists further
changes above it, or the version's tag exists already.
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
    has_image = build_image(DIST / f"{NAME}-image.tar")
    print_plan(has_image=has_image)
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
    """Write the bill of the pinned dependencies, and name the release as their root."""
    write_bill(bill)
    content = json.loads(bill.read_text())
    content["metadata"]["component"] = {"type": "application", "name": "signup-sync", "version": __version__}
    bill.write_text(json.dumps(content, indent=2) + "\n")


def build_image(archive: Path) -> bool:
    """Build the image and save it, if a Docker engine answers. Return whether one does."""
    if not shutil.which("docker") or subprocess.run(["docker", "info"], capture_output=True, check=False).returncode:
        return False
    run("docker", "build", "--quiet", "--tag", IMAGE, ".")
    run("docker", "save", "--output", str(archive), IMAGE)
    return True


def print_plan(*, has_image: bool) -> None:
    print(f"signup-sync {__version__} would be published as:")
    for file in sorted(DIST.iterdir()):
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        print(f"  dist/{file.name}  {file.stat().st_size:,} bytes  sha256:{digest}")
    if has_image:
        print(f"  the image {IMAGE}  {run('docker', 'image', 'inspect', '--format', '{{.Id}}', IMAGE)}")
    else:
        print(f"  NOT BUILT: the image {IMAGE}. No Docker engine answers here.")
    print("Nothing was published. To publish:")
    print(f"  git tag --annotate {TAG} --message 'Signup Sync {__version__}' {run('git', 'rev-parse', 'HEAD')}")
    print(f"  git push origin {TAG}")
    if has_image:
        print(f"  docker tag {IMAGE} REGISTRY/{IMAGE} && docker push REGISTRY/{IMAGE}")


def run(*command: str) -> str:
    """Return the output of a command that must succeed."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"make release: {' '.join(command[:3])} failed:\n{done.stdout}{done.stderr}")
    return done.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())

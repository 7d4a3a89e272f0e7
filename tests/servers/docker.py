"""A Docker engine with Compose, and the images that compose.yaml and the Dockerfile take from a registry."""

import os
import re
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from tests.servers.process import ROOT

# Timeout in seconds for starting an engine and for pulling or building the images, all together, beside other tests.
PREPARED_WITHIN = 600.0


class DockerEngine:
    """The machine's engine. If none runs, `images` starts one, and `close` stops it again.

    `images` is a folder for machines without a registry. Its `build.sh PROJECT` starts an engine, installs Compose and
    builds an image under each official name, and its `engine.sh stop` stops the engine. Built images are kept.
    """

    def __init__(self, images: Path | None) -> None:
        self._images = images
        self._is_ours = False

    def prepare(self) -> str:
        """Provide the engine and the images. Return why that was impossible, in sentences; '' if all is there."""
        deadline = time.monotonic() + PREPARED_WITHIN
        lacks = _lacks(deadline)
        if not lacks or self._images is None:
            return lacks and f"{lacks} IMAGES names no folder that provides it."
        self._is_ours = not _succeeds("docker", "info")
        try:
            with tempfile.TemporaryDirectory() as name:
                program = _writable_copy(self._images, Path(name) / "images") / "build.sh"
                failure = run_within([str(program), str(ROOT)], deadline - time.monotonic())
        except OSError as error:
            failure = str(error)
        if failure:
            return f"{lacks} {self._images / 'build.sh'} failed: {failure}"
        return _lacks(deadline)

    def close(self) -> None:
        if self._is_ours and self._images is not None:
            subprocess.run([self._images / "engine.sh", "stop"], capture_output=True, check=False, timeout=60)


def official_images() -> list[str]:
    """Return the images that a start without profiles takes from a registry."""
    services: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    names = {each["image"] for each in services.values() if "$" not in each["image"] and not each.get("profiles")}
    names |= set(re.findall(r"^FROM (\S+:\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE))
    return sorted(names)


def _writable_copy(folder: Path, copy: Path) -> Path:
    """Copy a folder that may be read-only. Images inherit the modes of its files, and programs in containers write some
    of these without being root."""
    shutil.copytree(folder, copy)
    for each in (copy, *copy.rglob("*")):
        each.chmod(each.stat().st_mode | stat.S_IWUSR)
    return copy


def _lacks(deadline: float) -> str:
    """Return what is missing, in a sentence, after trying to pull missing images."""
    if not _succeeds("docker", "info"):
        return "No Docker engine answers here."
    if not _succeeds("docker", "compose", "version"):
        return "Docker has no Compose plugin here."
    missing = [name for name in official_images() if not _succeeds("docker", "image", "inspect", name)]
    unavailable = [
        name for name in missing if run_within(["docker", "pull", "--quiet", name], deadline - time.monotonic())
    ]
    return f"No registry provides {', '.join(unavailable)}." if unavailable else ""


def _succeeds(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False, timeout=30).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def run_within(command: list[str], seconds: float) -> str:
    """Run a command and everything that it starts. Return the end of its output if it fails or takes too long."""
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            output, _ = process.communicate(timeout=max(seconds, 1))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return f"it took too long (everything together may take {PREPARED_WITHIN:.0f} s)."
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return "" if process.returncode == 0 else (output.strip().splitlines() or ["no output"])[-1]

"""The browser of the browser tests: Debian's Chromium, driven by Playwright."""

import os
import shutil
import sys
from pathlib import Path

from playwright.sync_api import Browser, Playwright

# A container has no user namespaces for the sandbox and little shared memory.
FLAGS = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
DEAF = Path(__file__).with_name("deaf_chromium.py")


def executable() -> str | None:
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def missing() -> str | None:
    """Return why there is no browser here, and how to get one; None if there is one."""
    return None if executable() else "Chromium is not installed (Debian: apt-get install chromium)"


def launch(playwright: Playwright, *flags: str) -> Browser:
    """Start a browser that ignores changes of the machine's network, with these additional flags."""
    program = executable()
    if program is None:
        raise RuntimeError(missing())
    path = DEAF if sys.platform == "linux" else program
    return playwright.chromium.launch(
        executable_path=path, args=[*FLAGS, *flags], env={**os.environ, "CHROMIUM": program}
    )

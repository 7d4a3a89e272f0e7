"""The browser of the browser tests: Debian's Chromium, driven by Playwright."""

import shutil

# A container has no user namespaces for the sandbox and little shared memory.
FLAGS = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]


def executable() -> str | None:
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def missing() -> str | None:
    """The reason why there is no browser here, and how to get one; None if there is one."""
    return None if executable() else "Chromium is not installed (Debian: apt-get install chromium)"

"""Node.js for examples/participant-node, with the packages that tests/setup.sh has installed."""

import filecmp
import shutil

from tests.servers.process import ROOT

EXAMPLE = ROOT / "examples" / "participant-node"
INSTALLED = ROOT / ".servers" / "participant-node"
LOCK = "package-lock.json"


def missing() -> str | None:
    """Return why the example can't run here and how to change that; None if it can."""
    if not shutil.which("node"):
        return "Node.js is not installed (Debian: apt-get install nodejs npm)"
    lock = INSTALLED / "node_modules" / LOCK
    if not lock.is_file() or not filecmp.cmp(lock, EXAMPLE / LOCK, shallow=False):
        return "the packages of examples/participant-node are not installed (bash tests/setup.sh)"
    return None

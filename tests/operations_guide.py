"""The commands of docs/operations.md, for tests that type them as an operator does."""

import re

from tests.servers.process import ROOT

GUIDE = (ROOT / "docs" / "operations.md").read_text()
_BLOCK = re.compile(r"^ *```\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)


def commands_after(words: str) -> list[str]:
    """Return the lines of the first block of commands after these words of the guide, without their remarks."""
    _, found, rest = GUIDE.partition(words)
    block = _BLOCK.search(rest)
    assert found
    assert block, f"the guide has no commands after “{words}”"
    return [re.sub(r"\s+# .*", "", line).strip() for line in block[1].splitlines()]

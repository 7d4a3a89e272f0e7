"""Hatchling's hook for the metadata of a release: requirements.in lists the run-time dependencies."""

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface


class RequirementsHook(MetadataHookInterface):
    def update(self, metadata: dict[str, Any]) -> None:
        lines = (Path(self.root) / "requirements.in").read_text().splitlines()
        requirements = (re.sub(r"\s*#.*", "", line).strip() for line in lines)
        metadata["dependencies"] = [each for each in requirements if each]

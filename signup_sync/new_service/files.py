"""The files that belong to one participant."""

import shutil
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path
from string import Template
from typing import Final

from signup_sync.new_service.names import Names
from signup_sync.new_service.shared_files import renamed

TEMPLATE_FOLDER: Final = Path(__file__).with_name("template")
_SUFFIX: Final = "-tpl"


def own_files(root: Path, names: Names, *, like: str) -> Mapping[str, str]:
    """Return the texts of the new participant's files, by their paths in the project. Its Kubernetes manifest is made
    from that of the participant `like`."""
    texts = {
        path: _with_sorted_imports(Template(source.read_text()).substitute(names.in_template()))
        for path, source in _sources(names)
    }
    manifest = (root / _manifest(like)).read_text()
    return {**texts, _manifest(names.service): renamed(manifest, like, names.service)}


def _with_sorted_imports(text: str) -> str:
    """Sort each run of imports by module, as the linter does: the place of the package depends on its name."""
    runs = groupby(text.splitlines(keepends=True), key=lambda line: line.startswith("from "))
    return "".join("".join(sorted(run) if is_import else run) for is_import, run in runs)


def _sources(names: Names) -> Iterator[tuple[str, Path]]:
    package = TEMPLATE_FOLDER / "package"
    for source in sorted(package.rglob(f"*{_SUFFIX}")):
        yield f"{names.package}/{source.relative_to(package)}".removesuffix(_SUFFIX), source
    yield from zip(_elsewhere(names), (TEMPLATE_FOLDER / "test.py-tpl", TEMPLATE_FOLDER / "canvas.md-tpl"), strict=True)


def _elsewhere(names: Names) -> tuple[str, str]:
    return f"tests/integration/test_{names.package}.py", f"docs/services/{names.service}.md"


def _manifest(service: str) -> str:
    return f"deploy/k8s/base/{service}.yaml"


def delete_files(root: Path, names: Names) -> list[str]:
    """Delete the participant's files, and return the paths of those that were there."""
    paths = [f"{names.package}/", *_elsewhere(names), _manifest(names.service)]
    there = [path for path in paths if (root / path).exists()]
    for path in there:
        shutil.rmtree(root / path) if path.endswith("/") else (root / path).unlink()
    return there

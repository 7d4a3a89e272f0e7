"""Imported once by mutmut's fork server, from which a process is forked for each mutant: imports the product and all
libraries that the tests and their plugin use, which takes longer than most tests.

The modules of the tests and of pytest's plugins are forgotten again, because pytest imports them itself.
"""

import gc
import importlib
import os
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

import django


def warm_up() -> None:
    for module in ("tests.plugin", "tests.conftest", *modules_of_tests()):
        importlib.import_module(module)
    for module in [name for name in sys.modules if name.startswith(("tests.", "pytest_"))]:
        if not __name__.startswith(module):
            del sys.modules[module]


def modules_of_tests() -> Iterator[str]:
    # mutmut starts the fork server in the copy of the working tree, below which the mutants are.
    chosen = tomllib.loads(Path("pyproject.toml").read_text())["tool"]["mutmut"]["pytest_add_cli_args_test_selection"]
    for path in map(Path, chosen):
        for file in [path] if path.is_file() else sorted(path.glob("**/test_*.py")):
            yield ".".join(file.with_suffix("").parts)


with tempfile.TemporaryDirectory() as data:
    before = dict(os.environ)
    os.environ |= {"DATA_DIR": data, "DJANGO_SETTINGS_MODULE": "signup_sync.settings", "SECRET_KEY": "of all mutants"}
    django.setup()
    warm_up()
    os.environ.clear()
    os.environ |= before
# Garbage collections in the processes of the mutants leave out all of this.
gc.collect()
gc.freeze()

"""Start a role through a test module that prepares the process before the role begins.

Product code has no hooks for this.
"""

import os
import runpy
import sys
from collections.abc import Sequence

import django

from tests.stack import RoleProcess


def start_through(role: RoleProcess, launcher: str, *arguments: str) -> None:
    """Start the role by `python -m <launcher> <arguments> -- <its own command>`. Its next start is a normal one."""
    command = role.command
    python = command.index(sys.executable) + 1
    role.command = [*command[:python], "-m", launcher, *arguments, "--", *command[python:]]
    try:
        role.start()
    finally:
        role.command = command


def set_up(command: Sequence[str]) -> None:
    """Django, so that the launcher can import what the role will use."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "signup_sync.settings")
    django.setup()


def run(command: Sequence[str]) -> None:
    """Run the command like `python <command>`."""
    if command[0] == "-m":
        sys.argv = [*command[1:]]
        runpy.run_module(command[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = [*command]
        runpy.run_path(command[0], run_name="__main__")

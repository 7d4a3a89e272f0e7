"""Runs a role that breaks at one point of its work: it kills itself there, as `kill -9` would, hangs, or has a bug.

`python -m tests.chaos.breaks_at authsvc.signups.writer.register_new_users dies-after -- manage.py …` wraps the function
at this dotted path, in the module or class that *uses* it. At the first call, the role `dies-before` or `dies-after`
it, or `hangs` in it; `raises` makes every call fail. `runtime.processes.health.BEAT_WITHIN=1` before the dashes
overrides a constant.
"""

import functools
import inspect
import os
import pkgutil
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

from tests.chaos.launching import run, set_up, start_through
from tests.stack import RoleProcess


def start_breaking(role: RoleProcess, path: str, how: str, **constants: float) -> None:
    """Start the role so that it breaks at that point. In the names of `constants`, `__` stands for a dot."""
    values = [f"{name.replace('__', '.')}={value}" for name, value in constants.items()]
    start_through(role, "tests.chaos.breaks_at", path, how, *values)


def main(path: str, how: str, *rest: str) -> None:
    dashes = rest.index("--")
    constants, command = rest[:dashes], rest[dashes + 1 :]
    set_up(command)
    for constant in constants:
        name, _, value = constant.partition("=")
        replace(name, lambda _, value=value: float(value))
    replace(path, lambda function: breaking(function, how))
    run(command)


def replace(path: str, by: Callable[[Any], Any]) -> None:
    owner_path, _, name = path.rpartition(".")
    owner = pkgutil.resolve_name(owner_path)
    setattr(owner, name, by(getattr(owner, name)))


def breaking(function: Callable[..., Any], how: str) -> Callable[..., Any]:
    assert not inspect.iscoroutinefunction(function), "what it returns is only begun"

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> None:
        if how == "hangs":
            threading.Event().wait()
        if how == "raises":
            raise RuntimeError("a bug of this test", args, kwargs)
        if how == "dies-after":
            function(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGKILL)

    return call


if __name__ == "__main__":
    main(*sys.argv[1:])

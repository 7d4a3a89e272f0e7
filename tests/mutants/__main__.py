"""`make mutants`: mutmut plants small bugs in the most important modules, and counts those that their tests detect.

modules.toml says which modules these are and which tests concern each; equivalent.toml lists mutants that no test can
notice, with the reason. Each module is tested in a copy of the working tree, below var/mutants/, which is kept: there
`mutmut show NAME` and `mutmut browse` work. Lines that only log are left as they are.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

HERE: Final = Path(__file__).parent
ROOT: Final = HERE.parents[1]
COPIES: Final = ROOT / "var" / "mutants"
MUTMUT: Final = Path(sys.executable).with_name("mutmut")
PLUGINS: Final = (
    "pytest_django.plugin", "pytest_asyncio.plugin", "pytest_timeout", "no:cacheprovider", "tests.mutants.plugin",
)  # fmt: skip
# Prints the change of each mutant that it is given. `mutmut show` would need a process for each.
SHOW: Final = """
import json, sys
from mutmut.mutation.diff_apply import find_mutant, get_diff_for_mutant
print(json.dumps([get_diff_for_mutant(name, path=find_mutant(name).path) for name in sys.argv[1:]]))
"""
# A function that the decorator runs in a transaction, until the two blank lines that follow it.
IN_TRANSACTION: Final = re.compile(r"^@(atomically\(\w+\))\n(def (\w+)\(.*?\n)(?=\n\n|\Z)", re.MULTILINE | re.DOTALL)
# Seconds after which tests stop waiting for a condition: a mutant often is one that never comes true.
PATIENCE: Final = "5"
# mutmut's record of each mutant: the exit code of the process that ran its tests.
TOO_LONG: Final = {-24: "took too long", 24: "took too long", 152: "took too long"}
NOTICED: Final = {1: "failed", 3: "pytest failed"} | TOO_LONG
UNNOTICED: Final = {0: "survived", 5: "no tests", 33: "no tests"}
GOAL: Final = 90


class Change(NamedTuple):
    """The text of the lines that a mutant changes, before and after; or a part of each, in equivalent.toml."""

    was: str
    becomes: str

    def is_part_of(self, other: "Change") -> bool:
        """Whether the other change has these parts. An empty part stands for lines that a mutant removes."""
        return self.was in other.was and (self.becomes in other.becomes if self.becomes else not other.becomes)


def main() -> int:
    modules: Mapping[str, Any] = tomllib.loads((HERE / "modules.toml").read_text())["modules"]
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("modules", nargs="*", metavar="MODULE", help=f"default: all, which are {', '.join(modules)}")
    chosen = parser.parse_args().modules or list(modules)
    if unknown := set(chosen) - set(modules):
        parser.error(f"there is no module {', '.join(sorted(unknown))}; there are {', '.join(modules)}")
    equivalent = changes_listed()
    found: set[Change] = set()
    lines = [tested(name, modules[name], equivalent, found) for name in chosen]
    print(f"\n{'module':<24}{'mutants':>8}{'equivalent':>12}{'noticed':>9}{'too long':>10}{'score':>8}")
    print("\n".join(lines))
    if set(chosen) == set(modules):
        for each in equivalent:
            if each not in found:
                print(f"equivalent.toml: no surviving mutant has this change\n  - {each.was}\n  + {each.becomes}")
    return 0


def changes_listed() -> list[Change]:
    """The changes in equivalent.toml, one for each of an entry's `becomes`."""
    entries = tomllib.loads((HERE / "equivalent.toml").read_text())["equivalent"]
    texts = [(each["was"], each["becomes"]) for each in entries]
    return [
        Change(was, part) for was, becomes in texts for part in ([becomes] if isinstance(becomes, str) else becomes)
    ]


def tested(name: str, module: Mapping[str, Any], equivalent: Sequence[Change], found: set[Change]) -> str:
    """Return this module's line in the table. Survivors are printed at once, and their changes that are listed as
    equivalent are added to `found`.
    """
    copy = COPIES / name
    prepare(copy, module)
    run(copy)
    ends = ends_of(copy)
    if slow := [mutant for mutant, end in ends.items() if end in TOO_LONG]:
        # The machine may have been busy: a mutant counts as detected by timeout only if its tests also take too long
        # alone.
        run(copy, *slow, children=1)
        ends = ends_of(copy)
    if odd := {mutant: end for mutant, end in ends.items() if end not in NOTICED | UNNOTICED} or not ends:
        raise SystemExit(f"{name} could not be tested: {list(odd.items())[:3]}; see {copy / 'run.log'}")
    survivors = [mutant for mutant, end in ends.items() if end in UNNOTICED]
    listed = 0
    for mutant, change in changes_of(copy, survivors):
        if matching := {each for each in equivalent if each.is_part_of(change)}:
            listed += 1
            found |= matching
        else:
            print_mutant(name, mutant, change, UNNOTICED[ends[mutant]])
    noticed = len(ends) - len(survivors)
    slow = [mutant for mutant, end in ends.items() if end in TOO_LONG]
    for mutant, change in changes_of(copy, slow):
        print_mutant(name, mutant, change, f"{TOO_LONG[ends[mutant]]}, counts as noticed")
    score = 100 * noticed / max(1, len(ends) - listed)
    verdict = "" if score >= GOAL else "  below the goal"
    return f"{name:<24}{len(ends):>8}{listed:>12}{noticed:>9}{len(slow):>10}{score:>7.1f}%{verdict}"


def print_mutant(name: str, mutant: str, change: Change, end: str) -> None:
    print(f"{name}: {mutant} ({end})\n  - {change.was}\n  + {change.becomes}", flush=True)


def ends_of(copy: Path) -> dict[str, int]:
    """The exit code of each mutant's tests."""
    records = [json.loads(meta.read_text()) for meta in copy.glob("mutants/**/*.py.meta")]
    return {mutant: end for record in records for mutant, end in record["exit_code_by_key"].items()}


def prepare(copy: Path, module: Mapping[str, Any]) -> None:
    """Copy the files that git tracks, with mutmut's configuration for this module."""
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir(parents=True)
    listed = subprocess.run(["git", "ls-files", "-z", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True)
    files = [Path(name) for name in listed.stdout.decode().split("\0") if name and (ROOT / name).is_file()]
    for file in files:
        (copy / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / file, copy / file)
    for name in module["files"]:
        undecorate(copy / name)
    packages = sorted({file.parts[0] for file in files if file.name == "__init__.py"} - {"tests", "bench"})
    others = sorted({file.parts[0] for file in files} - {*packages, "tests"})
    # Tables are made from the models, because migrating takes longer than most tests.
    arguments = [
        "--no-migrations",
        *(part for plugin in PLUGINS for part in ("-p", plugin)),
        f"--stack={module.get('stack', 'none')}",
    ]
    settings = {
        "source_paths": packages,
        "only_mutate": module["files"],
        "also_copy": others,
        "do_not_mutate_patterns": [r"\blogger\.\w+\(", r"\blog_traces\(", r"\bTypeVar\("],
        "pytest_add_cli_args": arguments,
        "pytest_add_cli_args_test_selection": module["tests"],
        "process_isolation": "forkserver",
        "forkserver_warmup": "import",
        "preload_modules_file": "preloaded.txt",
        # A mutant may take (constant + the usual seconds of its tests) x multiplier. That is generous, because the
        # machine may be busy; plugin.py limits its CPU time, which ends loops sooner.
        "timeout_multiplier": 2.0,
        "timeout_constant": 60.0,
    }
    (copy / "preloaded.txt").write_text("tests.mutants.warm")
    with (copy / "pyproject.toml").open("a") as file:
        file.write("\n[tool.mutmut]\n" + "".join(f"{name} = {json.dumps(value)}\n" for name, value in settings.items()))


def undecorate(file: Path) -> None:
    """Apply `atomically` below each function that it decorates, because mutmut does not mutate decorated functions."""
    file.write_text(IN_TRANSACTION.sub(r"\2\n\n\3 = \1(\3)\n", file.read_text()))


def run(copy: Path, *mutants: str, children: int | None = None) -> None:
    """Test these mutants, or all, with that many processes at a time, or one for each core."""
    environment = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PATIENCE": PATIENCE}
    command = [MUTMUT, "run", "--max-children", str(children or os.cpu_count()), *mutants]
    with (copy / "run.log").open("a") as log:
        subprocess.run(command, cwd=copy, env=environment, stdout=log, stderr=log, check=False)


def changes_of(copy: Path, mutants: Sequence[str]) -> Iterator[tuple[str, Change]]:
    shown = subprocess.run([sys.executable, "-c", SHOW, *mutants], cwd=copy, stdout=subprocess.PIPE, check=True)
    return zip(mutants, map(change_of, json.loads(shown.stdout)), strict=True)


def change_of(difference: str) -> Change:
    """The old and the new text of a difference in one place."""
    return Change(*(" ".join(lines_with(difference, sign)) for sign in "-+"))


def lines_with(difference: str, sign: str) -> Iterator[str]:
    for line in difference.splitlines():
        if line.startswith(sign) and not line.startswith(sign * 3):
            yield line[1:].strip()


if __name__ == "__main__":
    sys.exit(main())

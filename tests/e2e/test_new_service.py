"""A developer adds a participant to a copy of the project, runs it and removes it again."""

import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.conftest import ARTIFACTS, Person, new_person
from tests.e2e.clone import MakeRun, copy_project, environment, make_run, project_files
from tests.e2e.test_make_admin import admin_variables
from tests.e2e.test_page import GREEN, shown, sign_up_in
from tests.servers.process import LOOPBACK, ROOT
from tests.waiting import eventually

pytestmark = [pytest.mark.needs("application", "chromium")]

# An unlikely name, so that the tests also pass in a project with further services.
WITH_IT = GREEN | {"tryouts": "SUCCESS"}
# Tests of the parts that the project has for each participant, and of its names, files and documents. The other unit
# and contract tests pass too, but would take another minute.
OF_PARTICIPANTS = (
    *(f"tests/contract/test_{name}.py" for name in ("compose", "deployment", "observing", "operations_guide")),
    *(f"tests/unit/test_{name}.py" for name in ("decisions_index", "layout", "migrations", "settings", "version")),
    "tests/unit/signup_sync/new_service",
    "tests/unit/signup_sync/local/test_start.py::test_databases_are_called_as_their_services",
    "tests/unit/signup_sync/local/test_start.py::test_each_role_of_production_is_started",
    "tests/unit/eventbus/test_consume_events.py::test_the_help_describes_the_command_and_its_services",
    "tests/unit/eventbus/test_acls.py",
    "tests/security/test_admin_lookups.py",
    # Of the roles of compose.yaml, only the new one is started.
    *("-k", "not starts_with_its_environment_only or tryouts"),
)


@pytest.fixture
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy that this test may change."""
    if request.config.getoption("stack") != "embedded":
        pytest.skip("make run is the embedded default: --stack=embedded tests it")
    return copy_project(tmp_path / "project")


def run(project: Path, *command: str, **variables: str) -> str:
    """Run a Python module or script in the copy, and return what it prints."""
    done = subprocess.run(
        [sys.executable, *command], cwd=project, env=environment(**variables), stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def run_quick_checks(project: Path) -> None:
    """The commands of `make check`, with mypy's results for the files that are as they were."""
    if (ROOT / ".mypy_cache").exists():
        shutil.copytree(ROOT / ".mypy_cache", project / ".mypy_cache", dirs_exist_ok=True)
    run(project, "-m", "ruff", "check", ".")
    run(project, "-m", "ruff", "format", "--check", ".")
    run(project, "-m", "mypy", ".")
    run(project, str(Path(sys.executable).with_name("lint-imports")), PYTHONPATH=str(project))
    run(project, "manage.py", "makemigrations", "--check", "--dry-run")
    run(project, "-m", "pytest", "-q", "tests/unit/test_translations.py")


def write_own_part(project: Path) -> None:
    """The new service's own code: a field, and its handling of a new user."""
    models, handlers = project / "tryoutssvc/models.py", project / "tryoutssvc/handlers.py"
    models.write_text(
        models.read_text()
        .replace("from django.utils", "from django.db import models\nfrom django.utils")
        .replace("    class Meta", "    credit = models.PositiveIntegerField(default=0)\n\n    class Meta")
    )
    handlers.write_text(
        handlers.read_text().replace("\n\n\nsubscriptions", "\n    users.update(credit=100)\n\n\nsubscriptions")
    )


def credits_of(project: Path) -> dict[str, int]:
    """The users of the new service, with their credit."""
    with closing(sqlite3.connect(project / "var/tryouts.sqlite3", timeout=20)) as connection:
        return dict(connection.execute("SELECT user_id, credit FROM tryoutssvc_tryoutsuser WHERE removed_at IS NULL"))


def sign_up_in_browser(browser: Browser, running: MakeRun, person: Person) -> dict[str, str]:
    """Sign up on the page, and return the lights that it shows in the end."""
    context = browser.new_context(base_url=f"http://{LOOPBACK}:{running.port}", locale="en-US")
    page = context.new_page()
    sign_up_in(page, person)
    page.wait_for_url("**/login/**")
    ARTIFACTS.mkdir(exist_ok=True)
    page.screenshot(path=ARTIFACTS / f"embedded-new-service-{len(shown(page)[-1])}-lights.png")
    last = shown(page)[-1]
    context.close()
    return last


def test_a_generated_service_needs_no_edit_to_pass_the_checks_and_tests_of_the_project(project: Path) -> None:
    run(project, "manage.py", "startservice", "tryouts")
    # Some tests ask git for the project's files.
    subprocess.run("git init --quiet && git add --all", shell=True, cwd=project, check=True)
    run_quick_checks(project)
    run(project, "-m", "pytest", "-q", "-n", "2", *OF_PARTICIPANTS)


def test_a_service_is_generated_migrated_run_backfilled_and_removed(project: Path, browser: Browser) -> None:
    earlier, later, last = new_person(), new_person(), new_person()
    run(project, "manage.py", "migrate_all", "--verbosity", "0")
    run(project, "manage.py", "make_admin", **admin_variables(earlier))

    said = run(project, "manage.py", "startservice", "tryouts", "--korean", "시험")
    assert "replay_signups --all --service tryouts" in said
    write_own_part(project)
    run(project, "manage.py", "makemigrations", "tryoutssvc")
    run(project, "manage.py", "migrate_all", "--verbosity", "0")
    run_quick_checks(project)
    run(project, "-m", "pytest", "-q", "--stack=embedded", "tests/integration/test_tryoutssvc.py")

    with make_run(project) as running:
        running.wait_ready()
        assert sign_up_in_browser(browser, running, later) == WITH_IT
        run(project, "manage.py", "replay_signups", "--all", "--service", "tryouts")
        expected = {earlier.user_id: 100, later.user_id: 100}
        eventually(lambda: credits_of(project) == expected, what="the earlier user is backfilled")
        assert "tryouts" in run(project, "manage.py", "explain", earlier.user_id)
        running.press_ctrl_c()
        running.wait_gone()

    run(project, "manage.py", "removeservice", "tryouts", "--no-input")
    assert [file for file in project_files() if (project / file).read_bytes() != (ROOT / file).read_bytes()] == []
    assert not (project / "tryoutssvc").exists()
    with make_run(project) as running:
        running.wait_ready()
        assert sign_up_in_browser(browser, running, last) == GREEN

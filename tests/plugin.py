"""Starts the servers of the chosen stack before Django reads its settings, and stops them when pytest ends.

`--stack=none` (unit tests), `embedded` (as in `make run`), `real` (the servers of production) or `compose` (in
containers). A test declares the servers that it needs: `@pytest.mark.needs("broker")`. Tests for another stack are
deselected. Tests that need a server that is not installed are skipped and listed in the last lines; with CI=true, the
run fails at its start instead, unless only a Docker engine is missing.
"""

import os
import secrets
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.contract import kafka_messages
from tests.servers import (
    CaddyServer,
    KafkaServer,
    OpenSearchServer,
    PostgresqlServer,
    RedisServer,
    ValkeyServer,
    chromium,
    network,
    node,
)
from tests.servers.docker import DockerEngine

# Servers and resources that a test may need. Both stacks have `broker` and `redis`; `kafka`, `postgresql` and `caddy`
# are the real ones; `opensearch` is a node that its tests start; `application` is the whole product as separate
# processes (tests.stack); `network` is the permission to create network namespaces (tests.servers.network); `node` is
# Node.js with the packages of examples/participant-node; `docker` is an engine with all images (tests.servers.docker).
# fmt: off
SERVERS = (
    "broker", "redis", "application", "chromium", "postgresql", "kafka", "caddy", "network", "opensearch", "node",
)
# fmt: on
NEEDS = (*SERVERS, "docker")
OF_STACK = {
    "none": frozenset[str](),
    "embedded": frozenset({"broker", "redis", "application", "chromium"}),
    "real": frozenset(SERVERS),
    "compose": frozenset({"docker", "caddy", "chromium"}),
}
# Fixtures of tests/conftest.py that imply needs.
NEEDS_OF_FIXTURE = {
    "postgresql": ("postgresql",),
    "kafka": ("kafka",),
    "stack": ("application",),
    "fresh_stack": ("application",),
    "browser": ("chromium",),
}


@dataclass
class Backing:
    """The servers of this run. `missing` maps each need that this machine lacks to the reason."""

    stack: str
    missing: dict[str, str]
    postgresql: PostgresqlServer | None = None
    kafka: KafkaServer | None = None
    redis: RedisServer | None = None


backing_key = pytest.StashKey[Backing]()
left_out_key = pytest.StashKey[dict[str, int]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--stack",
        choices=tuple(OF_STACK),
        default="none",
        help="servers for the tests: none, embedded (as in `make run`), real (PostgreSQL, Kafka, Redis, Caddy) or "
        "compose (containers)",
    )
    parser.addoption(
        "--images",
        type=Path,
        metavar="FOLDER",
        help="provides a Docker engine and the images of official names where there are none (tests.servers.docker)",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Run before pytest-django's hook, which reads the settings and thus the environment."""
    stack = early_config.known_args_namespace.stack
    backing = Backing(stack, missing=what_is_missing(stack))
    early_config.stash[backing_key] = backing
    if backing.missing and is_ci():
        raise pytest.UsageError(
            "With CI=true, all servers are required, and some are missing: "
            + "; ".join(reason for name, reason in backing.missing.items() if name != "application")
            + ". `bash tests/setup.sh` as root installs them."
        )
    # SIGTERM, which ends a CI job, must end the run like Ctrl-C, including everything that it started. A shell that
    # runs pytest in the background makes it and its children ignore SIGINT, so that handler is set as well.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.default_int_handler)
    cleanup = ExitStack()
    early_config.add_cleanup(cleanup.close)
    os.environ.update(base_environment(cleanup))
    if runs_tests(early_config):
        start(backing, cleanup)
        if stack == "compose":
            engine = DockerEngine(early_config.known_args_namespace.images)
            cleanup.callback(engine.close)
            if reason := engine.prepare():
                backing.missing["docker"] = reason


def runs_tests(config: pytest.Config) -> bool:
    """Whether this process runs tests. It doesn't for --help, nor as the controller of pytest-xdist, each of whose
    workers starts its own servers."""
    options = config.known_args_namespace
    hands_out = bool(getattr(options, "numprocesses", None)) and "PYTEST_XDIST_WORKER" not in os.environ
    return not options.help and not hands_out


def what_is_missing(stack: str) -> dict[str, str]:
    questions = {
        "postgresql": PostgresqlServer.missing,
        "kafka": KafkaServer.missing,
        "caddy": CaddyServer.missing,
        "chromium": chromium.missing,
        "network": network.missing,
        "opensearch": OpenSearchServer.missing,
        "node": node.missing,
    }
    missing = {name: reason for name, ask in questions.items() if name in OF_STACK[stack] and (reason := ask())}
    if stack == "real" and (gone := missing.keys() - {"chromium", "network", "opensearch", "node"}):
        missing["application"] = f"The whole application on real servers needs {' and '.join(sorted(gone))}."
    return missing


def is_ci() -> bool:
    return os.environ.get("CI", "").lower() in {"1", "true"}


def base_environment(cleanup: ExitStack) -> dict[str, str]:
    data = tempfile.mkdtemp(prefix="signup-sync-tests-")
    cleanup.callback(shutil.rmtree, data, ignore_errors=True)
    return {
        "DATA_DIR": data,
        # The database of the SCIM services exists only if it is needed.
        "SCIM_DATABASE_URL": f"sqlite:///{data}/scim.sqlite3",
        "SECRET_KEY": secrets.token_urlsafe(50),
        # Tests in this process name each light, so they have these services, whichever participants are added to the
        # project. The installations of tests.stack have all participants.
        "SIGNUP_SERVICES": "auth,chat,customer",
        # A cheap hash; tests about the real hash set its parameters.
        "ARGON2_MEMORY_KIB": "512",
        "ARGON2_TIME_COST": "1",
        # All tests log in from one address; tests of the limit set their own.
        "RATE_LIMIT_FAILED_LOGIN": "0",
    }


def start(backing: Backing, cleanup: ExitStack) -> None:
    """Start all servers at the same time, and put their addresses into the environment."""
    if backing.stack == "real":
        backing.postgresql = None if "postgresql" in backing.missing else PostgresqlServer()
        backing.kafka = None if "kafka" in backing.missing else KafkaServer()
        backing.redis = RedisServer()
    elif backing.stack == "embedded":
        backing.redis = ValkeyServer()
    servers = [server for server in (backing.postgresql, backing.kafka, backing.redis) if server]
    for server in servers:
        cleanup.callback(server.close)
    for server in servers:
        server.launch()
    if backing.stack in ("embedded", "real") and backing.kafka is None:
        os.environ.update(embedded_broker(cleanup))
    for server in servers:
        server.wait_ready()
        os.environ.update(server.env)
    kafka_messages.validate_all()
    if backing.stack != "none" and (address := os.environ.get("KAFKA_BOOTSTRAP_SERVERS")):
        cleanup.enter_context(kafka_messages.validated({"bootstrap.servers": address}))


def embedded_broker(cleanup: ExitStack) -> dict[str, str]:
    from eventbus.embedded import EmbeddedBroker

    broker = cleanup.enter_context(EmbeddedBroker())
    return {"KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap_servers, "KAFKA_EMBEDDED": "true"}


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", f"needs(*names): servers that the test needs: {', '.join(NEEDS)}")
    config.addinivalue_line(
        "markers", "alone: the test measures durations, rates, recovery or memory, so nothing may run beside it"
    )
    config.stash[left_out_key] = {}


def pytest_report_header(config: pytest.Config) -> str:
    backing = config.stash[backing_key]
    return f"stack: {backing.stack}" + (f" (without {', '.join(backing.missing)})" if backing.missing else "")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    backing = config.stash[backing_key]
    of_other_stacks = [item for item in items if needs_of(item) - OF_STACK[backing.stack]]
    if of_other_stacks:
        config.hook.pytest_deselected(items=of_other_stacks)
        items[:] = [item for item in items if item not in set(of_other_stacks)]
    config.stash[left_out_key] = {"another stack": len(of_other_stacks)}
    for item in items:
        lacking = sorted(needs_of(item) & backing.missing.keys())
        if lacking:
            item.add_marker(pytest.mark.skip(reason=f"needs {', '.join(lacking)}"))
            for name in lacking:
                config.stash[left_out_key][name] = config.stash[left_out_key].get(name, 0) + 1


def needs_of(item: pytest.Item) -> set[str]:
    named = {name for mark in item.iter_markers("needs") for name in mark.args}
    if unknown := named - set(NEEDS):
        raise pytest.UsageError(f"{item.nodeid} needs {', '.join(unknown)}; known are {', '.join(NEEDS)}")
    fixtures = getattr(item, "fixturenames", ())
    return named | {name for fixture in fixtures for name in NEEDS_OF_FIXTURE.get(fixture, ())}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """Fail a test if it, or one of the last seconds, has left messages on Kafka which do not fit the contract."""
    yield
    is_last_of_file = nextitem is None or nextitem.path != item.path
    if needs_of(item) & {"broker", "kafka", "application"} and (is_last_of_file or kafka_messages.is_due()):
        kafka_messages.raise_for(kafka_messages.problems_on(quiet_topics=is_last_of_file))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> Iterator[None]:
    """Run after pytest's own summary, so that the last lines name the tests that failed or were omitted. With CI set,
    pytest's summary holds their whole messages, so its last lines may name none."""
    yield
    for outcome in ("failed", "error"):
        for report in terminalreporter.getreports(outcome):
            terminalreporter.write_line(f"{outcome.capitalize()}: {report.nodeid}", red=True)
    for line in left_out_lines(config):
        terminalreporter.write_line(line, yellow=True)
    if (read := kafka_messages.figures).messages:
        line = f"Validated {read.messages} Kafka messages against docs/asyncapi.yaml, in {read.seconds:.1f} s."
        terminalreporter.write_line(line)
    for broker in read.unread:
        terminalreporter.write_line(f"Not validated: the last messages on {broker}", yellow=True)


def left_out_lines(config: pytest.Config) -> Iterator[str]:
    backing, counts = config.stash[backing_key], config.stash[left_out_key]
    if backing.stack == "none" and (count := counts.get("another stack")):
        yield f"Left out: {count} tests that need servers. Run them with --stack=embedded, real or compose."
    for name, reason in backing.missing.items():
        if count := counts.get(name):
            yield f"Left out: {count} tests that need {name}. {reason}"

"""Two thousand clients vanish, half of them without closing their connection, and leave nothing behind."""

import resource
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

import pytest
import redis
import yaml

from tests.chaos.counts_tasks import start_counting, tasks_of
from tests.client import filled_form, opened, request
from tests.conftest import new_person
from tests.e2e.test_api import post
from tests.servers import KafkaServer, PostgresqlServer, network
from tests.servers.process import LOOPBACK, ROOT
from tests.stack import Stack
from tests.waiting import eventually

pytestmark = pytest.mark.needs("application", "caddy", "network")

# The number of clients that vanish in each of the two ways; one tenth are pages with a WebSocket.
VANISHING = 1000
# The number of concurrent connections. Before the measurement, twice as many connect, so that every pool has grown.
AT_ONCE = 50
# Seconds within which everything must be released.
FORGOTTEN_WITHIN = 90.0
# The resources of 2,000 clients that may remain: a pool or an executor may have grown by one.
SLACK = 5
WEB_ROLES = ("web", "auth-1", "auth-2")


@dataclass(frozen=True)
class Client:
    """A client's request, and the answer after which it counts as a watcher."""

    says: bytes
    hears: bytes

    @classmethod
    def saying(cls, *lines: str, hears: bytes) -> "Client":
        return cls("\r\n".join([*lines, "", ""]).encode(), hears)


@pytest.fixture(scope="module")
def here() -> Iterator[network.Namespace]:
    """A network namespace with the settings that compose.yaml gives the gateway. This thread and its children are in
    it.
    """
    with network.Namespace() as namespace:
        compose = yaml.safe_load((ROOT / "compose.yaml").read_text())
        for setting, value in compose["services"]["gateway"]["sysctls"].items():
            namespace.set(setting, value)
        with namespace.entered():
            yield namespace


@pytest.fixture(scope="module")
def descriptors() -> Iterator[None]:
    """Enough file descriptors for this process and for its children."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max(soft, 10_000)
    assert hard == resource.RLIM_INFINITY or hard >= wanted, f"the limit of open files is {hard}: allow {wanted}"
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture(scope="module")
def stack(here: network.Namespace, descriptors: None) -> Iterator[Stack]:
    """An installation on that machine, without customer: sign-ups stay pending."""
    with (
        PostgresqlServer() as postgresql,
        KafkaServer() as kafka,
        Stack.real(postgresql=postgresql, kafka=kafka, HELD_PER_SIGNUP="0") as stack,
    ):
        assert stack.caddy
        stack.caddy.stop()
        stack.caddy.process.env["GATEWAY_BIND"] = "0.0.0.0"
        stack.caddy.start()
        stack.roles["customer"].stop()
        for name in WEB_ROLES:
            stack.roles[name].stop()
            start_counting(stack.roles[name])
        yield stack


def stream_client(stack: Stack) -> Client:
    """A client of auth's API that watches a sign-up."""
    signup = post(stack, new_person().form)
    return Client.saying(
        f"GET {signup.headers['Location']}/events HTTP/1.1",
        f"Host: {stack.base_url.removeprefix('http://')}",
        f"Signup-Ticket: {signup.headers['Signup-Ticket']}",
        hears=b"event: status",
    )


def page_client(stack: Stack) -> Client:
    """A browser that shows a sign-up."""
    with opened(stack, "GET", "/signup/") as form:
        cookies = "; ".join(each.partition(";")[0] for each in form.headers.get_all("Set-Cookie", []))
        body = urlencode(filled_form(form.read().decode(), new_person())).encode()
    headers = {"Content-Type": "application/x-www-form-urlencoded", "Cookie": cookies, "Accept": "application/json"}
    answer = request(stack, "POST", "/signup/", body, **headers)
    assert answer.status == 200, answer.body
    return Client.saying(
        f"GET {answer.json['socketPath']} HTTP/1.1",
        f"Host: {stack.base_url.removeprefix('http://')}",
        f"Origin: {stack.base_url}",
        f"Cookie: {cookies}",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        hears=b'"signupId"',
    )


def watching(address: tuple[str, int], clients: list[Client], *, at_once: int) -> list[socket.socket]:
    """A connection for each of the clients, which watches."""
    connections = []
    for start in range(0, len(clients), at_once):
        some = [(socket.create_connection(address, 20), client) for client in clients[start : start + at_once]]
        for connection, client in some:
            connection.sendall(client.says)
        for connection, client in some:
            hear(connection, client.hears)
        connections += [connection for connection, _ in some]
    return connections


def hear(connection: socket.socket, what: bytes) -> None:
    heard = b""
    while what not in heard:
        more = connection.recv(65536)
        assert more, f"the connection ended after {heard!r}"
        heard += more


def reset(connections: list[socket.socket]) -> None:
    """Reset the connections, like a killed program with unread data."""
    for connection in connections:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()


def held(stack: Stack) -> dict[str, int]:
    """The resources that the processes and servers hold now."""
    assert stack.caddy
    numbers = {"caddy's descriptors": entries(stack.caddy.process.pid, "fd")}
    for name in WEB_ROLES:
        pid = stack.roles[name].pid
        numbers[f"{name}'s descriptors"] = entries(pid, "fd")
        numbers[f"{name}'s threads"] = entries(pid, "task")
        numbers[f"{name}'s tasks"] = tasks_of(stack.roles[name])
    with redis.Redis.from_url(stack.redis.env["REDIS_URL"]) as client:
        numbers["connections to Redis"] = len(client.client_list())
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname IS NOT NULL AND usename IS NOT NULL"
    [(numbers["connections to PostgreSQL"],)] = stack.query("auth", query)
    return numbers


def entries(pid: int, what: str) -> int:
    return len(list(Path(f"/proc/{pid}/{what}").iterdir()))


def test_everything_held_for_vanished_clients_is_released(
    stack: Stack, here: network.Namespace, capsys: pytest.CaptureFixture[str]
):
    assert stack.caddy
    kinds = [stream_client(stack)] * 9 + [page_client(stack)]
    with network.Namespace() as there, ExitStack() as cleanup:
        near = (LOOPBACK, stack.caddy.port)
        far = (network.connect(here, there), stack.caddy.port)
        reset(watching(near, kinds * (2 * AT_ONCE // 10) * 2, at_once=2 * AT_ONCE))
        eventually(lambda: all(tasks_of(stack.roles[name]) <= SLACK for name in WEB_ROLES), what="the clients are gone")
        before = held(stack)

        leaving = watching(near, kinds * (VANISHING // 10), at_once=AT_ONCE)
        with there.entered():
            unplugged = watching(far, kinds * (VANISHING // 10), at_once=AT_ONCE)
        for connection in unplugged:
            cleanup.callback(connection.close)
        during = held(stack)
        assert during["caddy's descriptors"] - before["caddy's descriptors"] > 3 * VANISHING
        reset(leaving)
        network.unplug(there)

        def are_forgotten() -> bool:
            now = held(stack)
            assert {name: number for name, number in now.items() if number > before[name] + SLACK} == {}
            return True

        eventually(are_forgotten, FORGOTTEN_WITHIN, what="everything is released")
        after = held(stack)
    with capsys.disabled():
        print(f"\n{2 * VANISHING} clients that vanish (before, during, after):")
        for name in before:
            print(f"  {name:26} {before[name]:6} {during[name]:6} {after[name]:6}")

"""The servers that other tests use: they answer, keep their data over a restart, and leave nothing behind."""

import http.client
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psycopg
import pytest
import redis
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from playwright.sync_api import sync_playwright

from tests.servers import (
    CaddyServer,
    KafkaServer,
    PostgresqlServer,
    RedisServer,
    Server,
    ValkeyServer,
    chromium,
    free_port,
    network,
)
from tests.servers.process import LOOPBACK
from tests.waiting import eventually


def write_row(server: Server) -> None:
    with psycopg.connect(server.env["CHAT_DATABASE_URL"]) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS kept (text text)")
        connection.execute("INSERT INTO kept VALUES ('kept')")


def read_rows(server: Server) -> list[str]:
    with psycopg.connect(server.env["CHAT_DATABASE_URL"]) as connection:
        return [text for (text,) in connection.execute("SELECT text FROM kept")]


def write_key(server: Server) -> None:
    with redis.Redis.from_url(server.env["REDIS_URL"]) as client:
        client.rpush("kept", "kept")


def read_keys(server: Server) -> list[str]:
    with redis.Redis.from_url(server.env["REDIS_URL"], decode_responses=True) as client:
        return client.lrange("kept", 0, -1)


def write_message(server: Server) -> None:
    address = {"bootstrap.servers": server.env["KAFKA_BOOTSTRAP_SERVERS"]}
    admin = AdminClient(address)
    if "kept" not in admin.list_topics(timeout=10).topics:
        admin.create_topics([NewTopic("kept", num_partitions=1)])["kept"].result(timeout=10)
    producer = Producer(address)
    producer.produce("kept", "kept")
    assert producer.flush(10) == 0


def read_messages(server: Server) -> list[str]:
    consumer = Consumer(
        {
            "bootstrap.servers": server.env["KAFKA_BOOTSTRAP_SERVERS"],
            "group.id": "reader",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
        }
    )
    words: list[str] = []
    with closing(consumer):
        consumer.assign([TopicPartition("kept", 0, OFFSET_BEGINNING)])
        while (message := consumer.poll(15)) and not message.error():
            words.append(message.value().decode())
    assert message, "the end of the partition was not reached within 15 s"
    assert message.error().code() == KafkaError._PARTITION_EOF, message.error()
    return words


@pytest.fixture(
    params=[
        pytest.param((PostgresqlServer, write_row, read_rows), id="postgresql", marks=pytest.mark.needs("postgresql")),
        pytest.param((KafkaServer, write_message, read_messages), id="kafka", marks=pytest.mark.needs("kafka")),
        pytest.param((RedisServer, write_key, read_keys), id="redis", marks=pytest.mark.needs("redis")),
        pytest.param((ValkeyServer, write_key, read_keys), id="valkey", marks=pytest.mark.needs("redis")),
    ],
    scope="module",
)
def keeper(request: pytest.FixtureRequest) -> Iterator[tuple[Server, Callable[[], None], Callable[[], list[str]]]]:
    """A separate server, a function that writes a word to it, and one that reads all written words."""
    kind, write, read = request.param
    with kind() as server:
        yield server, lambda: write(server), lambda: read(server)


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_restarted_server_keeps_its_data(keeper, end):
    server, write, read = keeper
    write()
    before, address = read(), server.env
    assert before[-1] == "kept"

    getattr(server, end)()
    assert not server.process.running
    assert not server.is_ready()
    server.start()

    assert server.env == address
    assert read() == before


def test_a_server_answers_again_after_it_was_frozen(keeper):
    server, *_ = keeper
    server.pause()
    eventually(lambda: state_of(server.process.pid) == "T", what="the kernel has stopped it")
    server.resume()
    server.wait_ready()


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@pytest.mark.needs("redis")
def test_nothing_is_left_of_a_closed_server():
    with RedisServer() as server:
        pid, directory = server.process.pid, server.directory
    assert not directory.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.needs("redis")
def test_a_server_that_cannot_start_reports_the_reason():
    with RedisServer() as first:
        second = RedisServer()
        second.process.command[second.process.command.index(str(second.port))] = str(first.port)
        with pytest.raises(RuntimeError, match="Address already in use"), second:
            pass
    assert not second.directory.exists()


@pytest.mark.needs("caddy")
def test_the_gateway_answers_without_any_upstream():
    nobody = [f"127.0.0.1:{free_port()}" for _ in range(3)]
    with (
        CaddyServer(web=nobody[0], auth=nobody[1:]) as caddy,
        closing(http.client.HTTPConnection(caddy.address, timeout=10)) as connection,
    ):
        connection.request("GET", "/login/")
        assert connection.getresponse().status in {502, 503}


# --- The browser ------------------------------------------------------------------------------------------------

# Changes of the network during the test. Without the filter, a quarter of them fail a request.
CHANGES = 40


class PageOfManyFiles(BaseHTTPRequestHandler):
    """Each file is requested on a connection of its own."""

    def do_GET(self) -> None:
        is_script = self.path.endswith(".js")
        self.send_response(200)
        self.send_header("Content-Type", "text/javascript" if is_script else "text/html")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if not is_script:
            self.wfile.write(b"".join(b"<script src=/%d.js></script>" % number for number in range(8)))

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def page_of_many_files() -> Iterator[str]:
    with ThreadingHTTPServer((LOOPBACK, 0), PageOfManyFiles) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://{LOOPBACK}:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.mark.needs("chromium", "network")
def test_network_interfaces_that_come_and_go_do_not_disturb_the_browser():
    failures: list[str | None] = []
    with (
        network.Namespace() as machine,
        machine.entered(),
        page_of_many_files() as url,
        sync_playwright() as playwright,
    ):
        browser = chromium.launch(playwright)
        page = browser.new_page()
        page.on("requestfailed", lambda request: failures.append(request.failure))
        has_changed = threading.Event()

        def change() -> None:
            for _ in range(CHANGES):
                for what in ("add", "del"):
                    machine.ip("address", what, "10.177.0.1/32", "dev", "lo")
            has_changed.set()

        threading.Thread(target=change).start()
        while not has_changed.is_set():
            page.goto(url)
        browser.close()
    assert failures == []

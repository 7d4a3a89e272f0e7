"""Values of compose.yaml and the Caddyfile that must match constants of the code.

Each is read from the file that a deployment uses. test_compose and, with a real Caddy, tests/integration/test_gateway
cover the rest of the two files.
"""

import math
import re
from ipaddress import ip_network

import pytest
from django.conf import settings

from authsvc.api.signup_requests import BODY_MAX
from runtime.processes.roles import ENDS_WITHIN
from signup_sync.front.gateway import CONNECT_TIMEOUT, POST_TIMEOUT
from signup_sync.management.commands.serve import CLOSES_WITHIN, REQUESTS_END_WITHIN
from signup_sync.server import http_protocol
from signup_sync.server.request_size import ADMIN_FORM_MAX, FORM_MAX
from tests.contract.test_compose import ONCE, ROLES, ROOT, SERVERS, WEB, environment_of, services

CADDYFILE = (ROOT / "deploy" / "Caddyfile").read_text()
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_SIZES = {"KB": 1000, "KiB": 1024}


def seconds(text: str) -> float:
    found = re.fullmatch(r"(\d+)(ms|s|m|h)", text)
    assert found, text
    return int(found[1]) * _UNITS[found[2]]


def directive(name: str, block: str = CADDYFILE) -> str:
    """The value of a directive that occurs once; the default of a placeholder."""
    [value] = re.findall(rf"^\s*{name}\s+(\S+)\s*$", block, re.MULTILINE)
    default = re.fullmatch(r"\{\$\w+:(.*)\}", value)
    return default[1] if default else value


def duration(name: str) -> float:
    return seconds(directive(name))


# --- The gateway and the servers behind it ----------------------------------------------------------------------


def test_the_gateway_closes_an_idle_connection_well_before_the_server_does():
    """A POST into a closing connection would be lost."""
    assert 0 < 2 * duration("keepalive") <= settings.CONNECTION_IDLE_TIMEOUT


def test_a_new_instance_gets_traffic_within_seconds_and_a_stopped_one_gets_none():
    """A refused connection is retried for as long as DNS may still return the old address."""
    assert duration("refresh") <= 2
    assert duration("lb_try_duration") > duration("refresh")
    assert duration("lb_try_interval") < duration("dial_timeout") < duration("lb_try_duration")


def test_the_front_waits_longer_than_the_gateway_tries():
    assert duration("dial_timeout") < CONNECT_TIMEOUT
    assert duration("lb_try_duration") + duration("dial_timeout") < POST_TIMEOUT


def test_no_stream_is_buffered_or_compressed_on_its_way():
    """Caddy flushes an event stream at once unless it is told an interval."""
    for word in ("flush_interval", "encode", "request_buffers", "response_buffers"):
        assert not re.search(rf"^\s*{word}\b", CADDYFILE, re.MULTILINE)


def test_a_reload_leaves_streams_open_for_as_long_as_they_may_last():
    assert duration("grace_period") == duration("stream_close_delay") == settings.STREAM_MAX_AGE


def test_the_gateways_limits_for_slow_clients_are_stricter_than_the_servers():
    """So the gateway answers itself, and takes no instance for broken."""
    assert duration("read_header") <= settings.REQUEST_HEAD_TIMEOUT
    assert duration("read_body") < settings.REQUEST_BODY_TIMEOUT
    assert duration("idle") == settings.CONNECTION_IDLE_TIMEOUT
    assert directive("read_body_idle") == "-1s"


def test_the_gateway_and_the_server_have_the_same_size_limits():
    size, unit = re.fullmatch(r"(\d+)(\w+)", directive("max_header_size")).groups()
    # Go adds 4 KB, and the gateway adds its own headers.
    assert int(size) * _SIZES[unit] + 4096 < http_protocol.HEAD_MAX
    limits = [int(size) * 1024 for size in re.findall(r"^\s*import body_limit (\d+)$", CADDYFILE, re.MULTILINE)]
    assert limits == [BODY_MAX, ADMIN_FORM_MAX, FORM_MAX]
    said = re.findall(r"Send at most (\d+) KiB", CADDYFILE)
    assert [int(size) * 1024 for size in said] == [BODY_MAX]


def test_the_gateway_replaces_each_header_that_names_a_client():
    assert re.search(r"^\s*header_up X-Forwarded-For \{client_ip\}$", CADDYFILE, re.MULTILINE)
    assert re.search(r"^\s*trusted_proxies_strict$", CADDYFILE, re.MULTILINE)


def test_instances_are_asked_in_turn_and_none_is_marked_down():
    """docs/adr/0011"""
    assert directive("lb_policy") == "round_robin"
    for word in ("fail_duration", "max_fails", "unhealthy_status", "health_uri", "unhealthy_request_count"):
        assert not re.search(rf"^\s*{word}\b", CADDYFILE, re.MULTILINE)


# --- compose.yaml and the roles ---------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ROLES)
def test_every_role_trusts_the_gateway_at_any_address_that_docker_gives_it(role):
    """Otherwise all clients would appear to have the gateway's address, and share one rate limit."""
    trusted = [ip_network(network) for network in environment_of(role)["TRUSTED_PROXIES"].split()]
    pools = ["172.17.0.0/16", "172.31.0.0/16", "192.168.0.0/20", "192.168.240.0/20", "10.0.0.0/8"]
    for pool in pools:
        assert any(ip_network(pool).subnet_of(network) for network in trusted), pool
    assert all(network.is_private for network in trusted), "nobody from outside is believed"


@pytest.mark.parametrize("role", WEB)
def test_a_web_process_hashes_with_as_many_threads_as_it_has_cores(role):
    """The pool has a thread for each core that Python counts, and each needs 19 MiB: the threads of a large host would
    exceed the memory limit."""
    assert int(environment_of(role)["PYTHON_CPU_COUNT"]) == math.ceil(float(services()[role]["cpus"]))


def test_the_gateways_upstreams_are_services_of_compose():
    environment = environment_of("gateway")
    assert environment["WEB_UPSTREAM"] == "web:8000"
    assert (environment["AUTH_DISCOVERY"], environment["AUTH_HOST"], environment["AUTH_PORT"]) == (
        "dns",
        "auth",
        "8000",
    )
    listen = environment["GATEWAY_LISTEN"]
    for role in ROLES:
        assert environment_of(role)["GATEWAY_URL"] == f"http://gateway{listen}"
    assert services()["gateway"]["ports"][0].endswith(listen)
    assert "gateway" in environment_of("web")["ALLOWED_HOSTS"].split(",")
    assert int(services()["auth"]["deploy"]["replicas"]) >= 2


@pytest.mark.parametrize("name", [*ROLES, *SERVERS])
def test_a_process_that_fails_is_noticed_within_half_a_minute(name):
    check = services()[name]["healthcheck"]
    if name in ONCE:
        return
    interval, timeout = seconds(check["interval"]), seconds(check["timeout"])
    assert check["retries"] * (interval + timeout) <= 30
    if name not in SERVERS:
        asks_for = float(re.search(r"timeout=(\d+)\)", check["test"][-1])[1])
        assert asks_for < timeout, "it says itself that it is not ready, instead of being killed"


@pytest.mark.parametrize("name", ROLES)
def test_a_stopping_role_has_enough_time(name):
    grace = seconds(services()[name]["stop_grace_period"])
    takes = REQUESTS_END_WITHIN + CLOSES_WITHIN if name in WEB else ENDS_WITHIN
    assert grace >= 2 * max(takes, ENDS_WITHIN)


def test_servers_that_write_to_disk_have_a_minute_to_end():
    for name in ("postgres", "kafka"):
        assert seconds(services()[name]["stop_grace_period"]) >= 60


def test_redis_stores_only_copies_and_has_enough_memory_for_them():
    command = services()["redis"]["command"]
    words = command if isinstance(command, str) else " ".join(command)
    assert "--maxmemory-policy allkeys-lru" in words
    assert '--save "" --appendonly no' in words or "--save  --appendonly no" in words
    most = int(re.search(r"--maxmemory (\d+)mb", words)[1])
    assert most < int(services()["redis"]["mem_limit"].removesuffix("m"))


def test_kafka_creates_no_topics_automatically():
    environment = environment_of("kafka")
    assert environment["KAFKA_AUTO_CREATE_TOPICS_ENABLE"] == "false"
    assert environment["KAFKA_ALLOW_EVERYONE_IF_NO_ACL_FOUND"] == "false"
    assert environment["KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS"] == "0"


def test_the_purge_runs_more_than_once_a_day():
    command = services()["purge"]["command"]
    words = command if isinstance(command, str) else " ".join(command)
    assert 60 <= seconds(re.search(r"--every (\w+)", words)[1]) <= 86_400

"""Real servers for tests: each a class of the same shape, on a free loopback port and in its own directory.

`with KafkaServer() as kafka:` starts one and deletes it at the end. `start`, `stop`, `kill`, `pause` and `resume` keep
port and data, so that a test can take a server away and bring the same one back.
"""

from tests.servers import chromium, network, node
from tests.servers.caddy import CaddyServer
from tests.servers.kafka import KafkaServer
from tests.servers.mail import MailServer
from tests.servers.opensearch import OpenSearchServer
from tests.servers.postgresql import PostgresqlServer
from tests.servers.process import Process, Server, free_port
from tests.servers.redis import RedisServer, ValkeyServer
from tests.servers.scim import ScimTestServer

__all__ = [
    "CaddyServer",
    "KafkaServer",
    "MailServer",
    "OpenSearchServer",
    "PostgresqlServer",
    "Process",
    "RedisServer",
    "ScimTestServer",
    "Server",
    "ValkeyServer",
    "chromium",
    "free_port",
    "network",
    "node",
]

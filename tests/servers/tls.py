"""The servers with TLS (a certificate for `localhost`) and passwords. The certificate does not name 127.0.0.1, where
they listen: at that address, each has the wrong host name.
"""

import json
import secrets
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import trustme
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from tests.servers.kafka import KafkaServer
from tests.servers.postgresql import PostgresqlServer, run_create_databases
from tests.servers.process import LOOPBACK
from tests.servers.redis import RedisServer

HOST = "localhost"


class Authority:
    """A certificate authority, in files: `ca`, and the `certificate` and `key` of a server."""

    def __init__(self, directory: Path) -> None:
        authority = trustme.CA()
        issued = authority.issue_cert(HOST)
        self.ca, self.certificate, self.key = (directory / name for name in ("ca.pem", "server.pem", "server.key"))
        authority.cert_pem.write_to_path(self.ca)
        self.certificate.write_bytes(b"".join(each.bytes() for each in issued.cert_chain_pems))
        # As PKCS#8, which Java reads.
        key = load_pem_private_key(issued.private_key_pem.bytes(), None)
        self.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))

    @staticmethod
    def another(directory: Path) -> Path:
        """Return the file of an unrelated authority."""
        path = directory / "another-ca.pem"
        trustme.CA().cert_pem.write_to_path(path)
        return path


class TlsPostgresqlServer(PostgresqlServer):
    """Accepts only TLS connections, and requires a password that must be escaped in a URL."""

    password = "p/ss?w#rd@:%"

    def __init__(self) -> None:
        super().__init__()
        self.authority = Authority(self.directory)

    def command(self) -> Sequence[str | Path]:
        files = {"ssl_cert_file": self.directory / "server.pem", "ssl_key_file": self.directory / "server.key"}
        options = [word for name, value in files.items() for word in ("-c", f"{name}={value}")]
        return [*super().command(), "-c", "ssl=on", *options]

    def prepare(self) -> None:
        for path in (self.authority.key, self.authority.certificate):
            path.chmod(0o600)
            with suppress(LookupError, PermissionError):
                shutil.chown(path, "postgres")
        password = self.directory / "password"
        password.write_text(self.password)
        with suppress(LookupError, PermissionError):
            shutil.chown(password, "postgres")
        super().prepare()
        self.run(
            [self.binary("postgres"), "--single", "-D", self.directory / "data", "postgres"],
            stdin=f"ALTER ROLE postgres PASSWORD '{self.password}'",
        )
        (self.directory / "data" / "pg_hba.conf").write_text("hostssl all all 127.0.0.1/32 scram-sha-256\n")

    def superuser_env(self) -> dict[str, str]:
        checked = {"PGSSLMODE": "verify-full", "PGSSLROOTCERT": str(self.authority.ca), "PGPASSWORD": self.password}
        return super().superuser_env() | {"PGHOST": HOST} | checked

    def create_services(self, prefix: str) -> None:
        run_create_databases(self, prefix=prefix, password=self.password)

    def url(self, database: str) -> str:
        return self._checked_url("postgres", database)

    def _url_of(self, database: str, suffix: str) -> str:
        return self._checked_url(database + suffix, database)

    def _checked_url(self, role: str, database: str) -> str:
        ca = str(self.authority.ca)
        return self.url_with(database, host=HOST, role=role, sslmode="verify-full", sslrootcert=ca)

    def url_with(self, database: str, *, host: str, role: str = "postgres", **options: str) -> str:
        query = "&".join(f"{name}={quote(value, safe='')}" for name, value in options.items())
        return f"postgres://{role}:{quote(self.password, safe='')}@{host}:{self.port}/{database}?{query}"


class SaslKafkaServer(KafkaServer):
    """Clients connect over TLS and authenticate with PLAIN or SCRAM."""

    user, password = "signup", secrets.token_urlsafe(24)
    mechanisms = ("PLAIN", "SCRAM-SHA-512")

    def __init__(self) -> None:
        super().__init__()
        self.authority = Authority(self.directory)

    def format_options(self) -> Sequence[str]:
        return ["--add-scram", f"SCRAM-SHA-512=[name={self.user},password={self.password}]"]

    def client_config(self, mechanism: str = "SCRAM-SHA-512", **changed: str) -> dict[str, str]:
        """KAFKA_CLIENT_CONFIG, before it is JSON."""
        return {
            "security.protocol": "SASL_SSL",
            "ssl.ca.location": str(self.authority.ca),
            "sasl.mechanism": mechanism,
            "sasl.username": self.user,
            "sasl.password": self.password,
        } | {name.replace("_", "."): value for name, value in changed.items()}

    @property
    def env(self) -> dict[str, str]:
        return super().env | {
            "KAFKA_BOOTSTRAP_SERVERS": f"{HOST}:{self.port}",
            "KAFKA_CLIENT_CONFIG": json.dumps(self.client_config()),
        }

    def settings(self) -> dict[str, object]:
        keystore = self.directory / "server-with-key.pem"
        keystore.write_bytes(self.authority.key.read_bytes() + self.authority.certificate.read_bytes())
        plain = "org.apache.kafka.common.security.plain.PlainLoginModule"
        scram = "org.apache.kafka.common.security.scram.ScramLoginModule"
        broker = f'username="broker" password="{self.password}" user_broker="{self.password}"'
        return super().settings() | {
            "listeners": f"SASL_SSL://{self.address},CONTROLLER://{LOOPBACK}:{self.controller_port}",
            "advertised.listeners": f"SASL_SSL://{HOST}:{self.port}",
            "listener.security.protocol.map": "SASL_SSL:SASL_SSL,CONTROLLER:PLAINTEXT",
            "inter.broker.listener.name": "SASL_SSL",
            "sasl.enabled.mechanisms": ",".join(self.mechanisms),
            "sasl.mechanism.inter.broker.protocol": "PLAIN",
            "listener.name.sasl_ssl.plain.sasl.jaas.config": (
                f'{plain} required {broker} user_{self.user}="{self.password}";'
            ),
            "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": f"{scram} required;",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": keystore,
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": self.authority.ca,
        }

    def probe_config(self) -> dict[str, Any]:
        return {"bootstrap.servers": f"{HOST}:{self.port}", **self.client_config()}


class TlsRedisServer(RedisServer):
    """Has no port without TLS, and requires a password."""

    name = "redis-tls"
    password = "p/ss?w#rd@:%"

    def __init__(self) -> None:
        super().__init__()
        self.authority = Authority(self.directory)

    def command(self) -> Sequence[str | Path]:
        files = {"tls-cert-file": "server.pem", "tls-key-file": "server.key", "tls-ca-cert-file": "ca.pem"}
        options = [word for name, file in files.items() for word in (f"--{name}", self.directory / file)]
        place = ["--bind", LOOPBACK, "--port", "0", "--tls-port", str(self.port), "--dir", str(self.directory)]
        access = ["--tls-auth-clients", "no", "--requirepass", self.password]
        return [self.binary(), *place, *options, *access, "--appendonly", "no", "--save", ""]

    @property
    def env(self) -> dict[str, str]:
        return {"REDIS_URL": self.url_with(ssl_ca_certs=str(self.authority.ca))}

    def url_with(self, *, scheme: str = "rediss", host: str = HOST, password: str = password, **options: str) -> str:
        query = "&".join(f"{name}={quote(value, safe='')}" for name, value in options.items())
        return f"{scheme}://:{quote(password, safe='')}@{host}:{self.port}/0" + (f"?{query}" if query else "")

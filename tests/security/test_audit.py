"""`make audit`, with and without a database of vulnerabilities."""

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.servers import free_port
from tests.servers.process import LOOPBACK, ROOT


class Database(BaseHTTPRequestHandler):
    """Answers like OSV (https://google.github.io/osv.dev/post-v1-query/): Django is vulnerable, nothing else is."""

    vulnerable = "django"

    def do_POST(self) -> None:
        query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer: dict[str, Any] = {}
        if query["package"]["name"].lower() == self.vulnerable:
            answer = {
                "vulns": [
                    {
                        "id": "PYSEC-2026-1",
                        "published": "2026-01-01T00:00:00Z",
                        "modified": "2026-01-01T00:00:00Z",
                        "affected": [
                            {
                                "package": {"name": "django", "ecosystem": "PyPI"},
                                "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "99.1"}]}],
                            }
                        ],
                    }
                ]
            }
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def database() -> Iterator[str]:
    with ThreadingHTTPServer((LOOPBACK, 0), Database) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.05])
        thread.start()
        yield f"http://{LOOPBACK}:{server.server_address[1]}/v1/query"
        server.shutdown()
        thread.join()


@pytest.fixture
def django_alone(tmp_path: Path) -> Path:
    """The requirements reduced to Django."""
    file = tmp_path / "requirements.txt"
    [django] = re.findall(r"^django==.*?(?=^\S)", (ROOT / "requirements.txt").read_text(), re.MULTILINE | re.DOTALL)
    file.write_text(django)
    return file


def make_audit(
    folder: Path, url: str, requirements: Path = ROOT / "requirements.txt"
) -> subprocess.CompletedProcess[str]:
    # Use this environment as it is, because the test must not install anything.
    installed = [word for name in (".installed", ".installed-dev") for word in ("-o", f"{sys.prefix}/{name}")]
    return subprocess.run(
        ["make", *installed, "audit", f"AUDIT=--vulnerability-service osv --osv-url {url}"],
        cwd=ROOT,
        env=os.environ
        | {
            "AUDIT_DIR": str(folder),
            "AUDIT_REQUIREMENTS": str(requirements),
            "VENV": sys.prefix,
            "XDG_CACHE_HOME": str(folder / "cache"),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_a_known_vulnerability_fails_the_audit(tmp_path: Path, database: str, django_alone: Path) -> None:
    done = make_audit(tmp_path, database, django_alone)
    assert done.returncode != 0, done.stdout
    assert "PYSEC-2026-1, fixed in 99.1" in done.stdout
    assert "Vulnerabilities: 1 in 1 dependencies" in done.stdout


def test_without_a_vulnerability_the_audit_succeeds(
    tmp_path: Path, database: str, django_alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Database, "vulnerable", "")
    done = make_audit(tmp_path, database, django_alone)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Vulnerabilities: 0 in 1 dependencies" in done.stdout


def test_it_lists_licences_and_writes_a_bill_of_materials(tmp_path: Path) -> None:
    """This works even if the database can't be reached, which is reported."""
    done = make_audit(tmp_path, f"http://{LOOPBACK}:{free_port()}/")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "NOT AUDITED" in done.stdout
    licences = (tmp_path / "licences.txt").read_text()
    assert "BSD-3-Clause" in licences
    assert "Django" in licences
    assert "pytest" not in licences
    bill = json.loads((tmp_path / "sbom.cdx.json").read_text())
    assert bill["bomFormat"] == "CycloneDX"
    names = {component["name"] for component in bill["components"]}
    assert {"django", "uvicorn", "confluent-kafka"} <= names
    assert "pytest" not in names


@pytest.mark.parametrize("failure", ["--nonsense", "--vulnerability-service nobody"])
def test_a_failure_of_pip_audit_fails_the_audit(tmp_path: Path, django_alone: Path, failure: str) -> None:
    done = make_audit(tmp_path, f"http://{LOOPBACK}:{free_port()}/ {failure}", django_alone)
    assert done.returncode != 0, done.stdout
    assert "NOT AUDITED. pip-audit failed: " in done.stdout


def test_a_failure_of_the_vulnerability_database_fails_the_audit(
    tmp_path: Path, database: str, django_alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Database, "do_POST", lambda handler: handler.send_error(500))
    done = make_audit(tmp_path, database, django_alone)
    assert done.returncode != 0, done.stdout
    assert "NOT AUDITED. pip-audit failed: " in done.stdout

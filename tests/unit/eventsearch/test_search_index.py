"""Answers that OpenSearch itself never gives, but other servers at its address may."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from eventsearch.documents import Document
from eventsearch.search_index import OpenSearchUnavailableError, SearchIndex


class NotOpenSearch(BaseHTTPRequestHandler):
    status = 200

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(self.status)
        self.send_header("Content-Type", "text/plain")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>Log in</title>")

    do_GET = do_POST = do_PUT = answer  # noqa: N815 - the names of BaseHTTPRequestHandler

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def index() -> Iterator[SearchIndex]:
    server = HTTPServer(("127.0.0.1", 0), NotOpenSearch)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    opened = SearchIndex(f"http://127.0.0.1:{server.server_address[1]}", name="events", days=30)
    yield opened
    opened.close()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("status", [200, 301, 400, 401, 403, 404, 405, 413, 429, 500, 502, 503])
def test_a_batch_waits_after_any_answer_of_a_wrong_server(
    index: SearchIndex, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setattr(NotOpenSearch, "status", status)
    with pytest.raises(OpenSearchUnavailableError, match="can't be used"):
        index.write([Document("2026.11.27", "t:0:0", {})])
    with pytest.raises(OpenSearchUnavailableError, match="can't be used"):
        index.delete_old(datetime.now(UTC))

"""uvicorn's WebSocket protocol with security headers on refused handshakes, and less memory for each open socket."""

from http import HTTPStatus
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Response
from websockets.server import ServerProtocol
from websockets.typing import StatusLike

from signup_sync.server.http_protocol import REFUSAL_TEXTS
from signup_sync.server.security_headers import security_headers


class Handshake(ServerProtocol):
    """The library's handshake, with security headers on every refusal, by the library or by uvicorn."""

    def reject(self, status: StatusLike, text: str) -> Response:
        response = super().reject(status, text)
        # As in Http._answer, the scheme is not known here.
        for name, value in security_headers(is_secure=True):
            response.headers[name.decode("ascii")] = value.decode("ascii")
        return response


class Socket(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket protocol. It also frees the parsed handshake (2 KiB), which uvicorn keeps with the socket."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.conn = Handshake(
            extensions=self.conn.available_extensions, max_size=self.config.ws_max_size, logger=self.logger
        )

    def start_keepalive(self) -> None:
        super().start_keepalive()
        del self.request, self.response

    async def send(self, message: Any) -> None:
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body", False):
            # Without this, uvicorn logs an error for a handshake that was answered with a status.
            self.handshake_complete = True

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self.handshake_initiated and not self.transport.is_closing():
            # Http passes on only complete handshakes, so the library has refused this one, in some cases without a
            # response, and uvicorn would keep the connection open.
            answer = b"".join(self.conn.data_to_send())
            refusal = self.conn.reject(HTTPStatus.BAD_REQUEST, REFUSAL_TEXTS[HTTPStatus.BAD_REQUEST])
            self.transport.write(answer or refusal.serialize())
            self.transport.close()

"""The stand-in over a real socket, with faults down to the last byte."""

from __future__ import annotations

import socket
import socketserver
import ssl
import struct
import threading
from collections.abc import Callable
from email.utils import formatdate
from types import TracebackType
from typing import Any

from .faults import Fault, split
from .stand_in import Answer, Request, StandIn
from .writers import Writers, send_webhook, webhook_body

REASONS = {200: "OK", 302: "Found", 404: "Not Found", 429: "Too Many Requests"}


class BlandSandbox(StandIn):
    """A server that answers as Bland documents, or as badly as it is told to.

    Args:
        port: 0 takes a free one.
        tls: A context with a certificate makes it https.

    The others are those of :class:`StandIn`.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        api_key: str = "sandbox-key",
        enveloped: bool = False,
        dialect: str = "a",
        rate_limit: float | None = None,
        latency_seconds: float = 0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(
            api_key=api_key,
            enveloped=enveloped,
            dialect=dialect,
            rate_limit=rate_limit,
            latency_seconds=latency_seconds,
        )
        self.webhook_url = self.webhook_secret = ""
        """Where it tells of customers' texts, and what it signs that with."""
        self._writers: Writers | None = None
        self.closing = threading.Event()
        self._tls = tls
        self._server = _Server((host, port), self)
        scheme = "https" if tls else "http"
        self.base_url = f"{scheme}://{host}:{self._server.server_address[1]}"

    def start(self) -> BlandSandbox:
        """Serve from a thread."""
        threading.Thread(target=self.serve_forever, name="bland_sandbox", daemon=True).start()
        return self

    def serve_forever(self) -> None:
        self._server.serve_forever(poll_interval=0.02)

    def stop(self) -> None:
        """Stop serving, and end the answers that still hang."""
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> BlandSandbox:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    # --- customers ----------------------------------------------------------------------------

    def tell(self, row: dict[str, Any], text: str) -> None:
        if self.webhook_url:
            _begin(send_webhook, self.webhook_url, self.webhook_secret, webhook_body(row, text))

    @property
    def writing_seconds(self) -> float:
        """Customers write by themselves, one each so many seconds; 0: none does."""
        return self._writers.seconds if self._writers else 0

    @writing_seconds.setter
    def writing_seconds(self, seconds: float) -> None:
        if self._writers is not None:
            self._writers.is_on = False
        self._writers = Writers(self, seconds) if seconds else None
        if self._writers is not None:
            _begin(self._writers.run)

    # --- sockets ------------------------------------------------------------------------------

    def wrap(self, connection: socket.socket) -> socket.socket:
        if self._tls is None:
            return connection
        return self._tls.wrap_socket(connection, server_side=True)


def _begin(work: Callable[..., None], *arguments: Any) -> None:
    threading.Thread(target=work, args=arguments, daemon=True).start()


# --- bytes ------------------------------------------------------------------------------------


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 256

    def __init__(self, address: tuple[str, int], sandbox: BlandSandbox) -> None:
        self.sandbox = sandbox
        super().__init__(address, _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away, or refuses our certificate, is nothing to report."""


class _Handler(socketserver.BaseRequestHandler):
    server: _Server

    def setup(self) -> None:
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.request = self.server.sandbox.wrap(self.request)
        self.reader = self.request.makefile("rb")

    def handle(self) -> None:
        while not self.server.sandbox.closing.is_set():
            request = self._read()
            if request is None:
                return
            answer, fault = self.server.sandbox.answer(request)
            if answer is None or not self._send(answer, fault):
                return

    def finish(self) -> None:
        self.reader.close()
        self.request.close()

    def _read(self) -> Request | None:
        line = self.reader.readline(65_536)
        parts = line.decode("latin-1").split()
        if len(parts) != 3:
            return None
        headers: dict[str, str] = {}
        while True:
            line = self.reader.readline(65_536).strip()
            if not line:
                break
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.strip().lower()] = value.strip()
        body = self.reader.read(int(headers.get("content-length", 0)))
        return Request(parts[0], parts[1], headers, body)

    def _send(self, answer: Answer, fault: Fault | None) -> bool:
        """Send it, or as much of it as the fault lets through; False ends the connection."""
        name, argument = split(fault) if isinstance(fault, str) else ("", "")
        if name.startswith("hang"):
            self.server.sandbox.closing.wait(float(argument or 30))
            return False
        if name.startswith("close"):
            return False
        if name.startswith("reset"):
            # No lingering: the kernel sends RST instead of FIN.
            self.request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.reader.close()
            self.request.close()
            return False
        length = len(answer.body) + (1000 if name == "truncated" else 0)
        headers = {
            "Date": formatdate(usegmt=True),
            "Content-Length": str(length),
            **answer.headers,
        }
        reason = REASONS.get(answer.status, "Status")
        head = f"HTTP/1.1 {answer.status} {reason}\r\n"
        for key, value in headers.items():
            for one in value if isinstance(value, list) else [value]:  # a list: more than once
                head += f"{key}: {one}\r\n"
        head += "\r\n"
        whole = head.encode("latin-1") + answer.body
        if name == "drip":
            return self._drip(whole, float(argument or 0.2))
        self.request.sendall(whole)
        return name != "truncated"

    def _drip(self, whole: bytes, seconds: float) -> bool:
        for index in range(len(whole)):
            self.request.sendall(whole[index : index + 1])
            if self.server.sandbox.closing.wait(seconds):
                return False
        return True

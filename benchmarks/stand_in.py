"""The stand-ins of benchmarks: as cheap as they can be, and in a process of their own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import multiprocessing
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

HEADERS = (
    "HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\n"
    "Content-Type: application/json\r\nContent-Length: "
)


class _Bland(asyncio.Protocol):
    """Confirms every update after a while; keeps nothing and checks nothing."""

    latency = 0.0

    def connection_made(self, transport: Any) -> None:
        self.transport, self.received = transport, b""

    def data_received(self, data: bytes) -> None:
        self.received += data
        head, end, body = self.received.partition(b"\r\n\r\n")
        length = 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        if not end or len(body) < length:
            return
        self.received = b""
        conversation_id = head.split(b" ", 2)[1].rpartition(b"/")[2].decode()
        told = {
            "id": conversation_id,
            "is_active": b"true" in body,
            "updated_at": "2026-01-01T00:00:00.000Z",
        }
        text = json.dumps({"message": "Conversation updated successfully", "conversation": told})
        answer = f"{HEADERS}{len(text)}\r\n\r\n{text}".encode()
        asyncio.get_running_loop().call_later(self.latency, self.transport.write, answer)


async def _serve_bland(latency: float, folder: str | None, address: Any) -> None:
    context = None
    if folder is not None:
        import trustme

        authority = trustme.CA()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        authority.cert_pem.write_to_path(f"{folder}/ca.pem")
    _Bland.latency = latency
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Bland, "127.0.0.1", 0, ssl=context, backlog=1024)
    scheme = "http" if context is None else "https"
    address.put(f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    await server.serve_forever()


class _Far(asyncio.Protocol):
    """One side of a connection to a database; what it receives reaches the other side later."""

    def __init__(self, latency: float) -> None:
        self.latency, self.other, self.early = latency, None, b""
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if self.other is None:
            self.early += data
        else:
            asyncio.get_running_loop().call_later(self.latency, self.other.transport.write, data)

    def connection_lost(self, error: Exception | None) -> None:
        if self.other is not None:
            self.other.transport.close()


async def _serve_database(latency: float, host: str, port: int, address: Any) -> None:
    loop = asyncio.get_running_loop()

    class Near(_Far):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self.connecting = loop.create_task(self.connect())

        async def connect(self) -> None:
            if host.startswith("/"):
                _, far = await loop.create_unix_connection(lambda: _Far(latency), host)
            else:
                _, far = await loop.create_connection(lambda: _Far(latency), host, port)
            far.other, self.other = self, far
            far.transport.write(self.early)

    server = await loop.create_server(lambda: Near(0.0), "127.0.0.1", 0)
    address.put(server.sockets[0].getsockname()[1])
    await server.serve_forever()


def _run(serve: Any, *given: Any) -> None:
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(*given))


@contextmanager
def in_a_process(serve: Any, *given: Any) -> Iterator[Any]:
    """Run ``serve`` beside the benchmark; yields what it puts into the queue, its last argument."""
    address: Any = multiprocessing.Queue()
    server = multiprocessing.Process(target=serve, args=(*given, address), daemon=True)
    server.start()
    try:
        yield address.get(timeout=120)
    finally:
        server.terminate()
        server.join()


def bland(latency: float, folder: str | None = None) -> Any:
    """Bland, answering after ``latency`` seconds; yields its URL.

    Args:
        folder: It speaks TLS, and the authority to be trusted is in ``ca.pem`` there.
    """
    return in_a_process(_run, _serve_bland, latency, folder)


def far_database(latency: float, host: str, port: int = 0) -> Any:
    """A way to a database whose answers take ``latency`` seconds longer; yields its port."""
    return in_a_process(_run, _serve_database, latency, host, port)

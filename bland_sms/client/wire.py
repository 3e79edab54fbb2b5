"""What goes over a connection: a request in one write, if it may be sent; an answer in time."""

from __future__ import annotations

import http.client
import io
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import urllib3

from ..exceptions import BlandNotSentError

CLOSE_SECONDS = 0.01
"""So much longer than its deadline an answer may take."""


class _DeadlineReader(io.RawIOBase):
    """Reads a socket until a moment. A socket's own timeout starts anew with every byte."""

    def __init__(self, raw: io.RawIOBase, sock: Any, deadline: float) -> None:
        self._raw, self._sock, self._deadline = raw, sock, deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        if self._sock.gettimeout() > left + CLOSE_SECONDS:  # a system call, which the first read
            self._sock.settimeout(left)  # of an answer can do without
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _DeadlineResponse(http.client.HTTPResponse):
    """An answer whose status, headers and body together take no longer than the read timeout."""

    def __init__(self, sock: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        seconds = sock.gettimeout()
        if seconds is not None:
            reader = _DeadlineReader(self.fp.detach(), sock, time.monotonic() + seconds)
            self.fp = io.BufferedReader(reader)

    def begin(self) -> None:
        super().begin()
        # urllib3 logs header lines that it cannot read, and such a line may repeat the key.
        self.msg.defects = []
        self.msg.set_payload("")


_guards = threading.local()


@contextmanager
def guarded(may_send: Callable[[], bool]) -> Iterator[None]:
    """Ask immediately before this thread's next request is written whether it may be sent.

    A process may be stopped between any check and the write, and be woken when another one has
    taken its work over. The closer together the two are, the less can come between.
    """
    _guards.may_send = may_send
    try:
        yield
    finally:
        del _guards.may_send


class HTTPConnection(urllib3.connection.HTTPConnection):
    """A connection that sends nothing when it may not, and a request's head with its body."""

    response_class = _DeadlineResponse
    debuglevel = 0
    """Whatever ``http.client.HTTPConnection.debuglevel`` is: it prints the headers, and the key."""
    _is_at_head, _head = False, b""

    def connect(self) -> None:
        with _marked_as_connecting():
            super().connect()

    def endheaders(self, *args: Any, **kwargs: Any) -> None:
        self._is_at_head, self._head = True, b""
        try:
            super().endheaders(*args, **kwargs)
        finally:
            self._is_at_head = False

    def send(self, data: Any) -> None:
        if self._is_at_head and _ANNOUNCES_BODY.search(data):
            self._head = data
            return
        if self._head:  # both in one write: one system call, and nothing can come between them
            data, self._head = self._head + data, b""
        if self.sock is None and self.auto_open:
            self.connect()
        may_send = getattr(_guards, "may_send", None)
        if may_send is not None and not may_send():
            raise BlandNotSentError()
        super().send(data)


_ANNOUNCES_BODY = re.compile(rb"\r\ncontent-length: *[1-9]", re.IGNORECASE)


class HTTPSConnection(HTTPConnection, urllib3.connection.HTTPSConnection):
    """The same over TLS."""


@contextmanager
def _marked_as_connecting() -> Iterator[None]:
    """Nothing was sent when this fails; the same error later may mean anything."""
    try:
        yield
    except OSError as error:
        error.while_connecting = True  # type: ignore[attr-defined]
        raise

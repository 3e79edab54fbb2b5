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
        if self._begin_plainly():
            return
        super().begin()
        # urllib3 logs header lines that it cannot read, and such a line may repeat the key.
        self.msg.defects = []
        self.msg.set_payload("")

    def _begin_plainly(self) -> bool:
        """Read status and headers at once where both are as usual; False: nothing is read yet.

        http.client has e-mail's parser read them, which takes longer than all else of an answer.
        """
        if self.headers is not None or not isinstance(self.fp, io.BufferedReader):
            return False
        if (found := _PLAIN_HEAD.match(self.fp.peek())) is None:
            return False
        status, reason, lines = found.groups()
        headers = http.client.HTTPMessage()
        for line in lines.decode("ascii").split("\r\n")[:-1]:
            name, _, value = line.partition(":")
            headers[name] = value.lstrip(" \t")
        lengths, way = headers.get_all("Content-Length", []), headers.get("Connection", "")
        if len(lengths) != 1 or not _LENGTH.fullmatch(lengths[0]) or "Transfer-Encoding" in headers:
            return False
        self.fp.read(found.end())
        self.headers = self.msg = headers
        self.code = self.status = int(status)
        self.reason, self.version = reason.decode("ascii").strip(), 11
        self.chunked, self.length = False, int(lengths[0])
        self.will_close = "close" in way.lower()
        return True


_PLAIN_HEAD = re.compile(
    rb"HTTP/1\.1 (200|4\d\d|5\d\d) ([ -~]*)\r\n((?:[A-Za-z0-9-]+:[\t -~]*\r\n){1,64})\r\n"
)
_LENGTH = re.compile(r"[0-9]{1,12}", re.ASCII)

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


class _Guarded:
    """A connection that sends nothing when it may not, and a request's head with its body."""

    debuglevel = 0
    """Whatever ``http.client.HTTPConnection.debuglevel`` is: it prints the headers, and the key."""
    _is_at_head, _head = False, b""

    def endheaders(self: Any, *args: Any, **kwargs: Any) -> None:
        self._is_at_head, self._head = True, b""
        try:
            super().endheaders(*args, **kwargs)  # type: ignore[misc]
        finally:
            self._is_at_head = False

    def putheader(self: Any, header: Any, *values: Any) -> None:
        """As urllib3 and http.client do, which look at each value four times."""
        if len(values) == 1 and isinstance(values[0], str):
            line = f"{header}: {values[0]}"
            if _PLAIN_HEADER.fullmatch(line):
                self._output(line.encode("ascii"))
                return
        super().putheader(header, *values)  # type: ignore[misc]

    def send(self: Any, data: Any) -> None:
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
        super().send(data)  # type: ignore[misc]


_PLAIN_HEADER = re.compile(r"[A-Za-z0-9-]+: (?!@@@)[ -~]*", re.ASCII)
"""But for urllib3's mark of what is to be left out."""
_ANNOUNCES_BODY = re.compile(rb"\r\ncontent-length: *[1-9]", re.IGNORECASE)


class HTTPConnection(_Guarded, urllib3.connection.HTTPConnection):
    response_class = _DeadlineResponse

    def connect(self) -> None:
        with _marked_as_connecting():
            super().connect()


class HTTPSConnection(_Guarded, urllib3.connection.HTTPSConnection):
    response_class = _DeadlineResponse

    def connect(self) -> None:
        with _marked_as_connecting():
            super().connect()


@contextmanager
def _marked_as_connecting() -> Iterator[None]:
    """Nothing was sent when this fails; the same error later may mean anything."""
    try:
        yield
    except OSError as error:
        error.while_connecting = True  # type: ignore[attr-defined]
        raise

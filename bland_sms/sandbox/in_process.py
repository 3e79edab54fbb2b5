"""The stand-in in the test's own process: no socket, no thread, no waiting."""

from __future__ import annotations

import errno
import http.client
import itertools
import re
from email.utils import formatdate
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3

from .faults import Fault, split
from .stand_in import Request, StandIn

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
LOOPBACK = re.compile(r"https?://(127\.0\.0\.1|localhost|\[::1\])[:/]")
_numbers = itertools.count(1)

Told = tuple[int, dict[str, str], bytes]


class FakeBland(StandIn):
    """Answers whatever ``requests`` sends to its ``base_url``, by way of ``responses``.

    It is registered with the same mock that ``responses.add`` and ``@responses.activate`` use, so
    a test may fake other services beside it. A hang is a timeout at once, without waiting.
    """

    def __init__(
        self,
        *,
        api_key: str = "org_fake_key_000000",
        enveloped: bool = False,
        dialect: str = "a",
        rate_limit: float | None = None,
    ) -> None:
        super().__init__(
            api_key=api_key, enveloped=enveloped, dialect=dialect, rate_limit=rate_limit
        )
        # A host of its own for each: no client of an earlier test is taken for one of this.
        self.base_url = f"https://bland-{next(_numbers)}.invalid"
        self.is_reachable = True
        """False: no connection comes about, and nothing was sent."""
        self._responses: list[Any] = []
        self._is_ours = False

    def start(self) -> FakeBland:
        """Answer from now on. Raises ImportError where ``responses`` is not installed."""
        import responses

        self._is_ours = getattr(responses.mock, "_patcher", None) is None
        if self._is_ours:
            responses.mock.start()
            responses.mock.add_passthru(LOOPBACK)  # a live server of the test's own
        address = re.compile(re.escape(self.base_url) + "/")
        for method in METHODS:
            response = responses.CallbackResponse(method, address, callback=self._tell)
            self._responses.append(responses.mock.add(response))
        return self

    def stop(self) -> None:
        """Answer no more."""
        import responses

        while self._responses:
            responses.mock.remove(self._responses.pop())
        if self._is_ours:
            responses.mock.stop(allow_assert=False)
            responses.mock.reset()

    def __enter__(self) -> FakeBland:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _tell(self, sent: requests.PreparedRequest) -> Told | Exception:
        """The answer as ``responses`` wants it, or what ``requests`` would raise."""
        if not self.is_reachable:
            return _no_connection(sent)
        answer, fault = self.answer(_request(sent))
        broken = _broken(fault)
        if answer is None or broken is not None:
            return broken or requests.ConnectionError("no answer")
        headers = {"Date": formatdate(usegmt=True), **answer.headers}
        if fault == "truncated":
            headers["Content-Length"] = str(len(answer.body) + 1000)
        return answer.status, headers, answer.body


def _request(sent: requests.PreparedRequest) -> Request:
    parts = urlsplit(str(sent.url))
    target = f"{parts.path}?{parts.query}" if parts.query else parts.path
    body = sent.body or b""
    return Request(
        str(sent.method),
        target,
        {name.lower(): str(value) for name, value in sent.headers.items()},
        body.encode() if isinstance(body, str) else bytes(body),
    )


def _no_connection(sent: requests.PreparedRequest) -> Exception:
    refused = ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
    pool = urllib3.connectionpool.HTTPSConnectionPool("fake")
    cause = urllib3.exceptions.NewConnectionError(pool, str(refused))  # type: ignore[arg-type]
    return requests.ConnectionError(cause, request=sent)


def _broken(fault: Fault | None) -> Exception | None:
    """What ``requests`` raises when an answer does not come, or not in time."""
    name, _argument = split(fault) if isinstance(fault, str) else ("", "")
    if name in ("hang_before", "hang_after", "drip"):
        return requests.ReadTimeout("Read timed out.")
    cause: Exception
    if name in ("reset_before", "reset_after"):
        cause = ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")
    elif name in ("close_before", "close_after"):
        cause = http.client.RemoteDisconnected("Remote end closed connection without response")
    else:
        return None
    return requests.ConnectionError(urllib3.exceptions.ProtocolError("Connection aborted.", cause))

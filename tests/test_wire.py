"""One request and one answer, without a connection: what is written, and what is read of it."""

from __future__ import annotations

import http.client
import io
import json
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any, cast

import pytest
import requests
import urllib3

from bland_sms.client import answers, wire
from bland_sms.client.answers import MAX_ERROR_BYTES, read_answer
from bland_sms.client.wire import CLOSE_SECONDS, HTTPConnection, guarded
from bland_sms.exceptions import (
    BlandError,
    BlandNotSentError,
    BlandOutcomeUnknownError,
    BlandUnavailableError,
)

NOON = datetime(2026, 2, 3, 12, tzinfo=timezone.utc)
DATE = "Tue, 03 Feb 2026 12:00:05 GMT"


# --- what is read of an answer -----------------------------------------------------------------


class Raw:
    """A body that comes in pieces; an error among them is raised."""

    def __init__(self, *pieces: Any, is_declared: bool = False) -> None:
        self.pieces = list(pieces)
        self.length_remaining = sum(map(len, pieces)) if is_declared else None
        self.reads = 0

    def read(self, amount: int, *, decode_content: bool) -> bytes:
        assert not decode_content
        self.reads += 1
        piece = self.pieces.pop(0) if self.pieces else b""
        if isinstance(piece, Exception):
            raise piece
        assert len(piece) <= amount
        if self.length_remaining is not None:
            self.length_remaining -= len(piece)
        return cast(bytes, piece)


def answer(status: int, raw: Raw, max_bytes: int = 1000, **headers: str) -> Any:
    """What is read, as body or as error."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    response = SimpleNamespace(
        status_code=status,
        headers=requests.structures.CaseInsensitiveDict({"Date": DATE, **names}),
        raw=raw,
    )
    try:
        return read_answer(cast(requests.Response, response), max_bytes, NOON)
    except BlandError as error:
        return error


def told(found: Any) -> tuple[str, str, Any]:
    """Kind, code and cause of what was read."""
    if isinstance(found, BlandError):
        return type(found).__name__, found.code, found.cause
    return "", "", found.body


GOOD = b'{"data": {"a": 1}, "errors": null}'
BAD = b'{"data": null, "errors": [{"error": "NO_GO", "message": "no"}]}'


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (100, GOOD, ("BlandOutcomeUnknownError", "bad_answer", "interim_answer")),
        (199, GOOD, ("BlandOutcomeUnknownError", "bad_answer", "interim_answer")),
        (200, GOOD, ("", "", {"data": {"a": 1}, "errors": None})),
        (299, GOOD, ("", "", {"data": {"a": 1}, "errors": None})),
        (300, GOOD, ("BlandAPIError", "redirected", "")),
        (200, BAD, ("BlandAPIError", "NO_GO", "")),
        (200, b'{"status": "error"}', ("BlandAPIError", "http_200", "")),
        (200, b'{"status": "errors"}', ("", "", {"status": "errors"})),
        (204, b"", ("BlandOutcomeUnknownError", "bad_answer", None)),
        (400, BAD, ("BlandAPIError", "NO_GO", "")),
        (503, BAD, ("BlandUnavailableError", "NO_GO", "")),
    ],
)
def test_answer__by_its_status_and_what_it_says(
    status: int, body: bytes, expected: tuple[str, str, Any]
) -> None:
    found = answer(status, Raw(body))
    kind, code, detail = told(found)
    assert (kind, code) == expected[:2]
    assert expected[2] is None or detail == expected[2]
    if isinstance(found, BlandError):
        assert found.status_code == status
    else:
        assert found.observed_at == NOON
        assert found.answered_at == NOON + timedelta(seconds=5)


@pytest.mark.parametrize("is_declared", [False, True])
@pytest.mark.parametrize("size", [999, 1000, 1001, 2001])
@pytest.mark.parametrize("status", [200, 500])
def test_answer__not_longer_than_allowed(status: int, size: int, is_declared: bool) -> None:
    body = json.dumps({"errors": [], "a": "x" * (size - 23)}).encode()
    assert len(body) == size
    raw = Raw(body[:400], body[400:], is_declared=is_declared)
    found = answer(status, raw)
    if status == 500:
        assert isinstance(found, BlandUnavailableError)
    elif size > 1000:
        assert told(found)[::2] == ("BlandOutcomeUnknownError", "answer_too_long")
        assert found.params["number"] == 1000
    else:
        assert len(found.body["a"]) == size - 23
    is_whole = size <= 1000
    assert raw.reads == (2 if is_declared or not is_whole else 3)  # no read beyond what is said


def test_answer__an_error_is_read_up_to_its_own_limit() -> None:
    """What a conversation may take is more than an error needs."""
    piece = b" " * 60_000
    raw = Raw(*[piece] * 100)
    found = answer(500, raw, max_bytes=10**9)
    assert isinstance(found, BlandUnavailableError)
    assert raw.reads == MAX_ERROR_BYTES // len(piece) + 1


@pytest.mark.parametrize(
    "error", [OSError(), TimeoutError(), requests.ConnectionError(), cast(Any, None)], ids=repr
)
def test_answer__of_an_error_the_status_is_enough(error: Exception | None) -> None:
    raw = Raw() if error is None else Raw(b"{", error)
    found = answer(500, raw, Retry_After="7")
    assert told(found) == ("BlandUnavailableError", "http_500", "")
    assert (found.retry_after_seconds, found.message) == (7, "")


@pytest.mark.parametrize(
    ("encoding", "is_read"),
    [("", True), ("identity", True), (" Identity ", True), ("gzip", False), ("br", False)],
)
def test_answer__compressed(encoding: str, is_read: bool) -> None:
    found = answer(200, Raw(GOOD), Content_Encoding=encoding)
    assert isinstance(found, BlandOutcomeUnknownError) is not is_read
    if not is_read:
        assert found.cause == "answer_compressed"
    assert isinstance(answer(503, Raw(GOOD), Content_Encoding=encoding), BlandUnavailableError)


@pytest.mark.parametrize(("date", "seconds"), [(DATE, 5.0), ("", 10.0)])
def test_answer__a_date_to_retry_at_is_by_blands_clock(date: str, seconds: float) -> None:
    found = answer(503, Raw(), Date=date, Retry_After="Tue, 03 Feb 2026 12:00:10 GMT")
    assert found.retry_after_seconds == seconds


def test_answer__notes_blands_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    noted: list[Any] = []
    monkeypatch.setattr(answers, "note_date", lambda *times: noted.append(times))
    for status in (100, 200, 500):
        answer(status, Raw(GOOD))
    assert noted == [(NOON, NOON + timedelta(seconds=5))] * 3


@pytest.mark.parametrize("is_echoed", [False, True])
def test_answer__that_echoes_the_key_is_scrubbed(
    is_echoed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "holds_secret", lambda content: is_echoed)
    monkeypatch.setattr(answers, "scrub_json", lambda body: {"scrubbed": True})
    assert told(answer(200, Raw(GOOD)))[2] == (
        {"scrubbed": True} if is_echoed else json.loads(GOOD)
    )


# --- an answer in time -------------------------------------------------------------------------


class Socket:
    """What of a socket the reader needs."""

    def __init__(self, content: bytes, timeout: float | None) -> None:
        self.content, self.timeout = content, timeout
        self.timeouts: list[float] = []

    def gettimeout(self) -> float | None:
        return self.timeout

    def settimeout(self, seconds: float) -> None:
        self.timeout = seconds
        self.timeouts.append(seconds)

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(cast(io.RawIOBase, io.BytesIO(self.content)))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    now = [100.0]
    monkeypatch.setattr(wire, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def move(seconds: float) -> None:
        now[0] += seconds

    return move


@pytest.mark.parametrize(
    ("later", "timeouts"),
    [
        (0.0, []),
        (CLOSE_SECONDS / 2, []),  # nearly the same: no system call for it
        (CLOSE_SECONDS * 2, [9.98]),
        (9.5, [0.5]),
        (10.0, None),
        (11.0, None),
    ],
)
def test_read__no_longer_than_until_the_deadline(
    later: float, timeouts: list[float] | None, clock: Callable[[float], None]
) -> None:
    sock = Socket(b"abc", 10.0)
    reader = wire._DeadlineReader(cast(io.RawIOBase, io.BytesIO(b"abc")), sock, 110.0)
    assert reader.readable()
    clock(later)
    if timeouts is None:
        with pytest.raises(TimeoutError):
            reader.read(3)
        return
    assert reader.read(3) == b"abc"
    assert sock.timeouts == pytest.approx(timeouts)


def test_read__is_closed_with_what_it_reads() -> None:
    raw = io.BytesIO(b"")
    reader = wire._DeadlineReader(cast(io.RawIOBase, raw), Socket(b"", 1.0), 0.0)
    reader.close()
    assert raw.closed
    assert reader.closed


@pytest.mark.parametrize("timeout", [10.0, None])
def test_answer__ends_when_its_time_is_over(
    timeout: float | None, clock: Callable[[float], None]
) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nno colon at all\r\n\r\nabc"
    response = wire._DeadlineResponse(Socket(head, timeout))
    response.begin()
    assert response.msg.defects == []
    assert response.msg.get_payload() == ""
    clock(11)
    if timeout is None:
        assert response.read() == b"abc"
        return
    response.fp.peek()  # what has come is read
    assert isinstance(response.fp, io.BufferedReader)
    raw = cast(Any, response.fp).raw
    with pytest.raises(TimeoutError):
        raw.readinto(bytearray(1))


# --- a request in one write --------------------------------------------------------------------


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What reaches the socket."""
    pieces: list[bytes] = []
    monkeypatch.setattr(
        http.client.HTTPConnection, "send", lambda self, data: pieces.append(bytes(data))
    )
    return pieces


def connection() -> HTTPConnection:
    made = HTTPConnection("bland.invalid")
    made.sock = cast(Any, SimpleNamespace(close=lambda: None, settimeout=lambda seconds: None))
    return made


@pytest.mark.parametrize(
    ("method", "body"),
    [
        ("GET", None),
        ("PATCH", b"{}"),
        ("PATCH", b"x" * 12),
        ("POST", b""),
        ("POST", b"\r\nContent-Length: 5\r\n"),  # as a head would say it
    ],
)
def test_request__is_one_write(method: str, body: bytes | None, written: list[bytes]) -> None:
    made = connection()
    for _ in range(2):
        made.request(method, "/v1", body)
        made._HTTPConnection__state = "Idle"  # type: ignore[attr-defined]
    assert len(written) == 2
    assert all(one.startswith(method.encode()) for one in written)
    assert all(one.endswith(b"\r\n\r\n" + (body or b"")) for one in written)


def test_request__whose_body_comes_in_pieces(written: list[bytes]) -> None:
    connection().request("POST", "/v1", [b"ab", b"cd"], {"Content-Length": "4"})
    head, rest = written
    assert head.endswith(b"\r\n\r\nab")
    assert rest == b"cd"


def test_request__is_not_written_when_it_may_not(written: list[bytes]) -> None:
    may_send = False
    made = connection()
    with guarded(lambda: may_send), pytest.raises(BlandNotSentError):
        made.request("PATCH", "/v1", b"{}")
    assert written == []
    with pytest.raises(ZeroDivisionError), guarded(lambda: False):
        raise ZeroDivisionError
    connection().request("PATCH", "/v1", b"{}")  # nobody guards it any more
    may_send = True
    with guarded(lambda: may_send):
        connection().request("GET", "/v1")
    assert len(written) == 2


def test_request__is_asked_for_when_connected(
    written: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """To connect may take seconds: the look is the last thing before the write."""
    made, steps = HTTPConnection("bland.invalid"), []
    monkeypatch.setattr(HTTPConnection, "connect", lambda self: steps.append("connect"))
    with guarded(lambda: not steps.append("look")):  # type: ignore[func-returns-value]
        made.request("GET", "/v1")
    assert steps == ["connect", "look"]
    made.auto_open = 0
    made._HTTPConnection__state = "Idle"  # type: ignore[attr-defined]
    made.request("GET", "/v1")
    assert steps == ["connect", "look"]


def test_request__that_failed_leaves_nothing_to_the_next(written: list[bytes]) -> None:
    made = connection()
    with pytest.raises(BlandNotSentError), guarded(lambda: False):
        made.request("PATCH", "/v1/first", b"first")
    made._HTTPConnection__state = "Idle"  # type: ignore[attr-defined]
    made.request("PATCH", "/v1/second", b"second")
    [one] = written
    assert b"first" not in one


def test_connect__a_failure_is_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever fails then, nothing was sent."""

    def fail(self: Any) -> None:
        raise OSError("no")

    monkeypatch.setattr(urllib3.connection.HTTPConnection, "connect", fail)
    made = HTTPConnection("bland.invalid")
    with pytest.raises(OSError, match="no") as caught:
        made.connect()
    assert caught.value.while_connecting  # type: ignore[attr-defined]

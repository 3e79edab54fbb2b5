"""What goes over a connection: our short cuts do what http.client and urllib3 do."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import urllib3
from hypothesis import given
from hypothesis import strategies as st

from bland_sms.client import wire
from bland_sms.client.wire import HTTPConnection

HEAD = b"HTTP/1.1 200 OK\r\n"
PLAIN = [
    HEAD + b"Content-Length: 2\r\n\r\n{}",
    HEAD
    + b"Date: Thu, 01 Jan 2026 00:00:00 GMT\r\ncontent-length:2\r\nX-A: 1 \r\nx-a:\t2\r\n\r\n{}",
    HEAD + b"Content-Length: 2\r\nConnection: Close\r\n\r\n{}",
    HEAD + b"Content-Length: 0\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n",
    b"HTTP/1.1 429 Too Many\r\nRetry-After: 3\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 502 \r\nServer: x\r\nContent-Length: 2\r\n\r\n{}",
]
ODD = [
    HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    HEAD + b"Content-Length: -2\r\n\r\n{}",
    HEAD + b"X-A: 1\r\n folded\r\nContent-Length: 2\r\n\r\n{}",
    HEAD + b"X-A: caf\xc3\xa9\r\nContent-Length: 2\r\n\r\n{}",
    HEAD + b"no colon\r\nContent-Length: 2\r\n\r\n{}",
    HEAD + b"Content-Length: 2\n\n{}",
    HEAD + b"\r\n{}",
    b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 100 Continue\r\n\r\n" + HEAD + b"Content-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\n{}",
]


@contextmanager
def received(answer: bytes) -> Iterator[socket.socket]:
    """A socket on which this has arrived, and nothing follows."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(answer)
        theirs.shutdown(socket.SHUT_WR)
        ours.settimeout(60)
        yield ours


def read(kind: Any, answer: bytes) -> Any:
    """All that an answer of that class tells, its body included; or why it tells nothing."""
    with received(answer) as sock:
        response = kind(sock, method="PATCH")
        try:
            response.begin()
            told = (
                response.version,
                response.status,
                response.code,
                response.reason,
                response.headers.items(),
                response.msg is response.headers,
                response.chunked,
                response.length,
                response.will_close,
            )
            return told, response.read(), response.isclosed()
        except (http.client.HTTPException, ValueError) as error:
            return type(error)
        finally:
            response.close()


@pytest.mark.parametrize("answer", [*PLAIN, *ODD])
def test_response__reads_a_head_as_http_client_does(answer: bytes) -> None:
    assert read(wire._DeadlineResponse, answer) == read(http.client.HTTPResponse, answer)


@given(
    st.lists(
        st.tuples(
            st.text("aZ0-", min_size=1, max_size=5) | st.just("Content-Length"),
            st.text(" \ta1:,\x0b\x0c\x1c\x00\x7f\x85", max_size=5),
            st.sampled_from(["\r\n", "\r\n", "\r\n", "\n", "\r"]),
        ),
        max_size=4,
    )
)
def test_response__reads_any_head_as_http_client_does(lines: list[tuple[str, str, str]]) -> None:
    head = "".join(f"{name}:{value}{end}" for name, value, end in lines).encode("latin-1")
    answer = HEAD + head + b"Content-Length: 2\r\n\r\n{}"

    assert read(wire._DeadlineResponse, answer) == read(http.client.HTTPResponse, answer)


@pytest.mark.parametrize("answer", PLAIN)
def test_response__a_usual_head_is_not_left_to_the_parser_of_emails(
    answer: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http.client, "parse_headers", None)

    _told, body, is_closed = read(wire._DeadlineResponse, answer)

    assert body in (b"{}", b"")
    assert is_closed


def test_response__a_head_in_two_pieces() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(60)
        theirs.sendall(HEAD[:9])
        response = wire._DeadlineResponse(ours, method="PATCH")
        response.fp.peek()  # so much has arrived when it is looked at
        theirs.sendall(HEAD[9:] + b"Content-Length: 2\r\n\r\n{}")
        response.begin()
        assert response.status == 200
        assert response.read() == b"{}"


def sent(kind: Any, headers: dict[str, str]) -> Any:
    """What such a connection writes for a request; or why it writes none."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        connection = kind("127.0.0.1")
        connection.sock = ours
        try:
            connection.request("PATCH", "/path", body=b"{}", headers=headers)
        except (ValueError, TypeError, UnicodeError) as error:
            return type(error)
        finally:
            ours.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: theirs.recv(4096), b""))


@pytest.mark.parametrize(
    "headers",
    [
        {"Accept": "application/json", "authorization": "org_key", "X-Empty": ""},
        {"X-A": "caf\u00e9"},
        {"X-A": "one\r\nX-B: two"},
        {"X-A": "folded\r\n more"},
        {"X A": "no token"},
        {"X-A": "\u20ac"},
        {"User-Agent": urllib3.util.SKIP_HEADER},
        {"X-A": urllib3.util.SKIP_HEADER},
    ],
)
def test_connection__writes_headers_as_urllib3_does(headers: dict[str, str]) -> None:
    assert sent(HTTPConnection, headers) == sent(urllib3.connection.HTTPConnection, headers)

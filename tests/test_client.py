"""Asking Bland: what goes over the wire, and what each answer, or none, is told as."""

from __future__ import annotations

import http.client
import json
import logging
import os
import socket
import ssl
import string
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import responses
import trustme
from django.core.exceptions import ImproperlyConfigured
from django.views.debug import ExceptionReporter
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from bland_sms import __version__
from bland_sms.client import BlandClient, ListFilter, check_client, get_client
from bland_sms.client.wire import HTTPConnection, _DeadlineResponse
from bland_sms.conf import BlandSettings, Secret, get_settings
from bland_sms.exceptions import (
    STOPPING_ERRORS,
    BlandAPIError,
    BlandAuthenticationError,
    BlandConfigurationError,
    BlandConflictError,
    BlandConnectionError,
    BlandError,
    BlandInvalidIdError,
    BlandNotFoundError,
    BlandNotSentError,
    BlandOutcomeUnknownError,
    BlandPayloadError,
    BlandRouteError,
    BlandTLSError,
    BlandUnavailableError,
    GaveUp,
)
from bland_sms.pacing import Allowance, RetryBudget
from bland_sms.sandbox import BlandSandbox

from .conftest import KEY

pytestmark = pytest.mark.usefixtures("no_waiting", "new_client")

SetBland = Callable[..., None]
HOST = "https://api.bland.ai"
PREFIX = "/v1/sms/conversations/"
URL = f"{HOST}{PREFIX}conv_1"
SAMPLES = Path(__file__).parent / "samples"
OK = (SAMPLES / "update_bare.json").read_bytes()


def update(conversation_id: str = "conv_1", **values: Any) -> Any:
    return get_client().update_conversation(conversation_id, is_active=False, **values)


def get(conversation_id: str = "conv_1", **values: Any) -> Any:
    return get_client().get_conversation(conversation_id, **values)


@pytest.fixture(scope="module")
def other_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The certificate of an authority that none of these servers has anything to do with."""
    path = tmp_path_factory.mktemp("authorities") / "other.pem"
    trustme.CA().cert_pem.write_to_path(path)
    return path


@pytest.fixture(autouse=True)
def few_authorities(other_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To read those of the whole world takes longer than a test."""
    monkeypatch.setattr("bland_sms.client.session.DEFAULT_CA_BUNDLE_PATH", str(other_bundle))


@pytest.fixture
def new_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that the test before had refused would go on slowly."""
    monkeypatch.setattr("bland_sms.client.current._client", None)


@pytest.fixture(scope="module")
def shared_sandbox() -> Iterator[BlandSandbox]:
    with BlandSandbox(api_key=KEY) as running:
        yield running


@pytest.fixture
def sandbox(
    shared_sandbox: BlandSandbox, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> BlandSandbox:
    """The stand-in that all tests here share, as good as new, with one conversation."""
    shared_sandbox.faults.clear()
    shared_sandbox.log.clear()
    shared_sandbox.account.rows.clear()
    shared_sandbox.account.add({"id": "conv_1"})
    monkeypatch.setattr(shared_sandbox, "api_key", KEY)
    monkeypatch.setattr(shared_sandbox, "latency_seconds", 0)
    settings.BLAND_SMS = {"API_KEY": KEY, "BASE_URL": shared_sandbox.base_url}
    return shared_sandbox


@pytest.fixture
def bland(settings: Any) -> Iterator[responses.RequestsMock]:
    """Bland's host without a network: the documented answers are registered by the test."""
    settings.BLAND_SMS = {"API_KEY": KEY}
    with responses.RequestsMock() as mock:
        yield mock


@dataclass
class RawServer:
    """A server for what the stand-in cannot do: each connection gets what a function does."""

    url: str
    connections: int = 0
    received: list[bytes] = field(default_factory=list)

    def read_request(self, connection: socket.socket) -> bytes:
        """One request, which has come whole when its body has."""
        found = b""
        while b"\r\n\r\n" not in found:
            chunk = connection.recv(65_536)
            if not chunk:
                return b""
            found += chunk
        head, _, body = found.partition(b"\r\n\r\n")
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                while len(body) < int(line.split(b":")[1]):
                    body += connection.recv(65_536)
        self.received.append(head + b"\r\n\r\n" + body)
        return self.received[-1]


@contextmanager
def raw_server(serve: Callable[[RawServer, socket.socket], None]) -> Iterator[RawServer]:
    """Serve connections one by one, each closed as soon as ``serve`` returns."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = RawServer(f"http://127.0.0.1:{listener.getsockname()[1]}")
    closing = threading.Event()
    latest: list[socket.socket] = []

    def run() -> None:
        while not closing.is_set():
            connection, _ = listener.accept()
            latest[:] = [connection]
            # Whoever tests a fault goes away in the middle of the answer.
            with connection, suppress(OSError):
                if not closing.is_set():
                    server.connections += 1
                    serve(server, connection)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        closing.set()
        with suppress(OSError):
            latest[-1].shutdown(socket.SHUT_RDWR)
        with suppress(OSError):
            socket.create_connection(listener.getsockname()).close()
        thread.join(5)
        listener.close()


@contextmanager
def connected_to(server: RawServer, settings: Any, **values: Any) -> Iterator[None]:
    settings.BLAND_SMS = {"API_KEY": KEY, "BASE_URL": server.url, "MAX_RETRIES": 0, **values}
    yield


def plain_answer(server: RawServer, connection: socket.socket) -> None:
    """Answer every request on the connection with success."""
    while server.read_request(connection):
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(OK), OK))


# --- on the wire ------------------------------------------------------------------------------


@pytest.fixture
def wire(settings: Any) -> Iterator[RawServer]:
    """What exactly was sent."""
    with raw_server(plain_answer) as server, connected_to(server, settings):
        yield server


def headers_of(request: bytes) -> dict[str, str]:
    lines = request.partition(b"\r\n\r\n")[0].decode("ascii").split("\r\n")[1:]
    return {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}


def test_update_conversation__request_line(wire: RawServer) -> None:
    update()

    assert wire.received[0].startswith(b"PATCH /v1/sms/conversations/conv_1 HTTP/1.1\r\n")


@pytest.mark.parametrize("is_active", [False, True])
def test_update_conversation__body(wire: RawServer, is_active: bool) -> None:
    get_client().update_conversation("conv_1", is_active=is_active)

    _, _, body = wire.received[0].partition(b"\r\n\r\n")
    assert body == (b'{"is_active": true}' if is_active else b'{"is_active": false}')


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("authorization", KEY),
        ("content-type", "application/json"),
        ("accept", "application/json"),
        ("accept-encoding", "identity"),
    ],
)
def test_update_conversation__header(wire: RawServer, name: str, value: str) -> None:
    update()

    assert headers_of(wire.received[0])[name] == value


def test_update_conversation__user_agent_names_the_version(wire: RawServer) -> None:
    update()

    assert headers_of(wire.received[0])["user-agent"].startswith(f"bland_sms/{__version__} ")


def test_update_conversation__key_is_sent_once_and_nowhere_else(wire: RawServer) -> None:
    update()

    assert wire.received[0].count(KEY.encode()) == 1


def test_get_conversation__request(wire: RawServer) -> None:
    get()

    head, _, body = wire.received[0].partition(b"\r\n\r\n")
    assert head.startswith(b"GET /v1/sms/conversations/conv_1 HTTP/1.1\r\n")
    assert body == b""


def test_client__bearer_in_front_of_the_key_is_sent_as_given(
    wire: RawServer, set_bland: SetBland
) -> None:
    set_bland(API_KEY=f"Bearer {KEY}")

    update()

    assert headers_of(wire.received[0])["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("path", ["", "/", "/v1", "/v1/"])
def test_client__base_url_may_end_in_slash_and_version(
    wire: RawServer, set_bland: SetBland, path: str
) -> None:
    set_bland(BASE_URL=wire.url + path)

    update()

    assert b" /v1/sms/conversations/conv_1 " in wire.received[0]


def test_list_conversations__query(bland: responses.RequestsMock) -> None:
    bland.get(f"{HOST}/v1/sms/conversations", json={"data": [], "errors": None})

    get_client().list_conversations(
        page=3,
        page_size=50,
        sort_by="updated_at",
        filters=[ListFilter("updated_at", "gte", "2026-01-01T00:00:00.000Z")],
    )

    assert getattr(bland.calls[0].request, "params", None) == {
        "page": "3",
        "pageSize": "50",
        "sortBy": "updated_at",
        "sortDir": "asc",
        "filters": '[{"field":"updated_at","operator":"gte","value":"2026-01-01T00:00:00.000Z"}]',
    }


def test_list_conversations__page_size_of_the_settings(
    bland: responses.RequestsMock, set_bland: SetBland
) -> None:
    bland.get(f"{HOST}/v1/sms/conversations", json={"data": []})
    set_bland(PAGE_SIZE=7)

    get_client().list_conversations()

    assert "pageSize=7" in str(bland.calls[0].request.url)


# --- ids --------------------------------------------------------------------------------------

SAFE = string.ascii_letters + string.digits
safe_ids = st.builds(
    str.__add__, st.sampled_from(SAFE), st.text(st.sampled_from(SAFE + "-_"), max_size=127)
)
other_ids = st.one_of(
    st.text(max_size=20),
    st.text(st.sampled_from("ab1-_./%?#@:;\\ \n\0é٣"), max_size=12),
    st.from_regex(r"[A-Za-z0-9]{1,8}[^A-Za-z0-9_-]", fullmatch=True),
    safe_ids.map(lambda value: (value * 129)[:129]),
)


@pytest.fixture(scope="module")
def shared_client(shared_sandbox: BlandSandbox) -> BlandClient:
    return BlandClient(
        BlandSettings(api_key=Secret(KEY), base_url=shared_sandbox.base_url, rate_limit=10_000)
    )


@hypothesis_settings(max_examples=100)
@given(conversation_id=safe_ids | other_ids)
@example(conversation_id="a\n")
@example(conversation_id="..")
@example(conversation_id="")
@example(conversation_id="%2e%2e")
@example(conversation_id="conv_00000001?x=1")
@example(conversation_id="A" * 128)
def test_client__an_id_is_sent_as_it_is_or_not_at_all(
    conversation_id: str, shared_sandbox: BlandSandbox, shared_client: BlandClient
) -> None:
    is_safe = (
        0 < len(conversation_id) <= 128
        and set(conversation_id) <= set(SAFE + "-_")
        and conversation_id[0] in SAFE
    )
    shared_sandbox.log.clear()

    with pytest.raises(BlandNotFoundError if is_safe else BlandInvalidIdError):
        shared_client.update_conversation(conversation_id, is_active=False)

    assert [seen["path"] for seen in shared_sandbox.log] == (
        [PREFIX + conversation_id] if is_safe else []
    )


@pytest.mark.parametrize("value", [None, 7, b"conv_1", ["conv_1"], True])
def test_client__an_id_that_is_no_text(value: Any, bland: responses.RequestsMock) -> None:
    with pytest.raises(BlandInvalidIdError):
        get(value)

    assert len(bland.calls) == 0


# --- answers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["update_bare", "update_enveloped"])
def test_update_conversation__confirmed(name: str, bland: responses.RequestsMock) -> None:
    bland.patch(URL, body=(SAMPLES / f"{name}.json").read_bytes())

    payload = update()

    assert (payload.id, payload.is_active) == ("conv_0001", False)


def test_update_conversation__observed_when_sent(sandbox: BlandSandbox) -> None:
    before = datetime.now(timezone.utc)

    payload = update()

    [seen] = sandbox.log
    assert before <= payload.observed_at
    assert payload.observed_at.timestamp() <= seen["at"]  # when it had come


def test_client__failure_tells_when_it_was_sent(sandbox: BlandSandbox) -> None:
    sandbox.faults.add("conv_1", "400")
    before = datetime.now(timezone.utc)

    with pytest.raises(BlandAPIError) as caught:
        update()

    assert caught.value.observed_at is not None
    assert before <= caught.value.observed_at <= datetime.now(timezone.utc)


def test_update_conversation__a_time_later_than_the_answer_is_no_age(
    bland: responses.RequestsMock,
) -> None:
    """By the answer's own ``Date``, however wrong our clock is."""
    bland.patch(URL, body=OK, headers={"Date": "Tue, 03 Feb 2026 03:00:00 GMT"})

    assert update().updated_at is None


def test_get_conversation__with_messages(bland: responses.RequestsMock) -> None:
    bland.get(f"{HOST}{PREFIX}conv_0001", body=(SAMPLES / "detail_b.json").read_bytes())

    payload = get("conv_0001")

    assert [message.bland_id for message in payload.messages] == ["SM0001", "102", "SM0003"]


@pytest.mark.parametrize("told", ["conv_2", "", None, 7])
def test_get_conversation__about_another_conversation(
    told: object, bland: responses.RequestsMock
) -> None:
    bland.get(URL, json={"data": {"id": told, "is_active": True}, "errors": None})

    with pytest.raises(BlandPayloadError):
        get()


@pytest.mark.parametrize("body", [{}, {"data": None, "errors": None}, {"message": "fine"}])
def test_get_conversation__about_none(body: Any, bland: responses.RequestsMock) -> None:
    bland.get(URL, json=body)

    with pytest.raises(BlandPayloadError):
        get()


def test_get_conversation__envelope_is_not_kept_as_a_fact(bland: responses.RequestsMock) -> None:
    bland.get(URL, json={"data": None, "errors": None, "id": "conv_1", "is_active": True})

    assert get().extra == {}


def test_list_conversations__documented_list(bland: responses.RequestsMock) -> None:
    bland.get(f"{HOST}/v1/sms/conversations", body=(SAMPLES / "list_a.json").read_bytes())

    page = get_client().list_conversations()

    assert [row.id for row in page.conversations] == ["3b0a6f4e-0000-4000-8000-000000000001"]


@pytest.mark.parametrize(
    ("status", "name", "kind", "code"),
    [
        (400, "error_400", BlandAPIError, "INVALID_IS_ACTIVE_VALUE"),
        (401, "error_401", BlandAuthenticationError, "AUTH_FAILURE"),
        (401, "error_401_other_name", BlandAuthenticationError, "UNAUTHORIZED"),
        (401, None, BlandAuthenticationError, "http_401"),
        (403, "error_403", BlandAuthenticationError, "ENTERPRISE_REQUIRED"),
        (403, "error_403_flagged", BlandAuthenticationError, "http_403"),
        (404, "error_404", BlandNotFoundError, "CONVERSATION_NOT_FOUND"),
        (404, None, BlandRouteError, "http_404"),
        (404, "error_of_texts", BlandRouteError, "http_404"),
        (408, None, BlandUnavailableError, "http_408"),
        (409, None, BlandConflictError, "http_409"),
        (418, None, BlandAPIError, "http_418"),
        (422, "error_of_texts", BlandAPIError, "http_422"),
        (429, "error_429_prose", BlandUnavailableError, "http_429"),
        (429, "error_429_speech", BlandUnavailableError, "rate_limited"),
        (500, "error_500", BlandUnavailableError, "ERROR_UPDATING_CONVERSATION"),
        (502, None, BlandUnavailableError, "http_502"),
        (503, None, BlandUnavailableError, "http_503"),
        (504, None, BlandUnavailableError, "http_504"),
        (301, None, BlandAPIError, "redirected"),
        (304, None, BlandAPIError, "redirected"),
        (307, None, BlandAPIError, "redirected"),
        (200, "errors_with_200", BlandAPIError, "SOMETHING_ODD"),
        (200, "error_404", BlandNotFoundError, "CONVERSATION_NOT_FOUND"),
        (200, "error_401", BlandAuthenticationError, "AUTH_FAILURE"),
        (200, "error_403_flagged", BlandAPIError, "http_200"),
        (200, "error_of_texts", BlandAPIError, "http_200"),
    ],
)
def test_client__error_is_told_by_what_to_do_next(
    status: int,
    name: str | None,
    kind: type[BlandAPIError],
    code: str,
    bland: responses.RequestsMock,
) -> None:
    body = (SAMPLES / f"{name}.json").read_bytes() if name else b"<h1>Nginx</h1>"
    bland.patch(URL, body=body, status=status)

    with pytest.raises(BlandAPIError) as caught:
        update(allowance=Allowance(attempts=1))

    assert type(caught.value) is kind
    assert (caught.value.status_code, caught.value.code) == (status, code)


@pytest.mark.parametrize("errors", [None, []])
def test_client__empty_errors_are_none(errors: Any, bland: responses.RequestsMock) -> None:
    bland.patch(URL, json={"data": json.loads(OK), "errors": errors})

    assert update().is_active is False


@pytest.mark.parametrize(
    "body", [b"", b"{", b"<html></html>", b"[]", b'"fine"', b'{"a": NaN}', b"[" * 50_000]
)
def test_client__success_that_cannot_be_read_leaves_it_open(
    body: bytes, bland: responses.RequestsMock
) -> None:
    bland.patch(URL, body=body)

    with pytest.raises(BlandOutcomeUnknownError) as caught:
        update(allowance=Allowance(attempts=1))

    assert (caught.value.code, caught.value.status_code) == ("bad_answer", 200)


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 5\r\nContent-Length: 6\r\n",
        b"Content-Length: 5, 6\r\n",
    ],
)
@pytest.mark.parametrize("status", [b"200 OK", b"400 Bad", b"503 Away"])
def test_client__answer_with_senseless_headers_leaves_it_open(
    head: bytes, status: bytes, settings: Any
) -> None:
    def serve(server: RawServer, connection: socket.socket) -> None:
        server.read_request(connection)
        connection.sendall(b"HTTP/1.1 " + status + b"\r\n" + head + b"\r\n" + OK)

    allowance = Allowance()
    with (
        raw_server(serve) as server,
        connected_to(server, settings, MAX_RETRIES=2),
        pytest.raises(BlandOutcomeUnknownError) as caught,
    ):
        update(allowance=allowance)

    assert caught.value.code == "bad_answer"
    assert allowance.sent["PATCH"] == server.connections == 3


def test_client__page_of_html_is_told_in_a_few_words(sandbox: BlandSandbox) -> None:
    sandbox.faults.add("conv_1", "html502")

    with pytest.raises(BlandUnavailableError) as caught:
        update(allowance=Allowance(attempts=1))

    assert "502 Bad Gateway" in caught.value.message
    assert "<" not in str(caught.value)
    assert len(caught.value.message) <= 200


def test_client__request_is_one_write_just_behind_the_fence(
    sandbox: BlandSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing can come between its head and its body, such as a process that is stopped."""
    send, written = http.client.HTTPConnection.send, []

    def note(self: Any, data: Any) -> None:
        written.append(bytes(data))
        send(self, data)

    sandbox.account.add({"id": "conv_1"})
    monkeypatch.setattr(http.client.HTTPConnection, "send", note)

    update(allowance=Allowance(fence=lambda: not written))
    with pytest.raises(BlandNotSentError):
        update(allowance=Allowance(fence=lambda: not written))

    assert len(written) == len(sandbox.requests("PATCH")) == 1
    assert written[0].endswith(b'{"is_active": false}')
    assert sandbox.account.rows["conv_1"]["is_active"] is False


def test_client__hostile_page_is_an_error_like_any_other(bland: responses.RequestsMock) -> None:
    bland.patch(URL, body=b"<a" * 700, status=502)

    with pytest.raises(BlandUnavailableError):
        update(allowance=Allowance(attempts=1))


# --- again, or not ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("max_retries", "status", "number"),
    [(0, 500, 1), (1, 500, 2), (2, 500, 3), (2, 429, 3), (2, 408, 3), (2, 503, 3)]
    + [(0, 409, 1), (1, 409, 2), (2, 409, 2)]
    + [(2, status, 1) for status in (400, 401, 403, 404, 418, 422, 302)],
)
def test_client__number_of_requests(
    max_retries: int,
    status: int,
    number: int,
    bland: responses.RequestsMock,
    set_bland: SetBland,
) -> None:
    bland.patch(URL, status=status)
    set_bland(MAX_RETRIES=max_retries)
    allowance = Allowance()

    with pytest.raises(BlandAPIError):
        update(allowance=allowance)

    assert len(bland.calls) == allowance.sent["PATCH"] == number


def test_client__success_after_a_fault(sandbox: BlandSandbox) -> None:
    sandbox.faults.add("conv_1", "503", "reset_after")

    assert update().is_active is False
    assert len(sandbox.requests("PATCH")) == 3


def test_client__unreachable() -> None:
    with pytest.raises(BlandConnectionError):
        update(allowance=(allowance := Allowance()))

    assert allowance.sent["PATCH"] == 3


def test_client__doubt_outlives_what_does_not_settle_it(bland: responses.RequestsMock) -> None:
    """The 500 may have applied it; the 429 after it did not, which says nothing of the 500."""
    bland.patch(URL, status=500)
    bland.patch(URL, status=429)
    bland.patch(URL, status=429)

    with pytest.raises(BlandUnavailableError) as caught:
        update()

    assert (caught.value.status_code, len(bland.calls)) == (500, 3)


def test_client__doubt_is_settled_by_an_answer(bland: responses.RequestsMock) -> None:
    bland.patch(URL, status=500)
    bland.patch(URL, body=(SAMPLES / "error_404.json").read_bytes(), status=404)

    with pytest.raises(BlandNotFoundError):
        update()


def test_client__empty_budget_ends_it(sandbox: BlandSandbox) -> None:
    sandbox.faults.add("conv_1", "forever:500")

    with pytest.raises(BlandUnavailableError) as caught:
        update(allowance=Allowance(budget=RetryBudget(1)))

    assert caught.value.gave_up is GaveUp.BUDGET
    assert len(sandbox.log) == 2


@pytest.mark.parametrize("status", [400, 404])
def test_client__a_refusal_earns_for_the_budget(status: int, bland: responses.RequestsMock) -> None:
    """Bland is up and answers."""
    bland.patch(URL, status=status)
    budget = RetryBudget(1, earned=1)
    budget.spend()

    with pytest.raises(BlandAPIError):
        update(allowance=Allowance(budget=budget))

    assert budget.spend()


def test_client__stopped_job_asks_nothing(sandbox: BlandSandbox) -> None:
    allowance = Allowance()
    allowance.stopped.set()

    with pytest.raises(BlandNotSentError):
        update(allowance=allowance)

    assert len(sandbox.log) == allowance.sent.total() == 0


def test_client__no_time_left_asks_nothing(sandbox: BlandSandbox) -> None:
    with pytest.raises(BlandNotSentError):
        update(allowance=Allowance.of_seconds(0))

    assert len(sandbox.log) == 0


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7),
        ({"Retry-After": " 7 "}, 7),
        ({"Retry-After": "0"}, 0),
        ({"Retry-After": "1.5"}, 1.5),
        (
            {
                "Retry-After": "Sun, 01 Mar 2020 12:00:07 GMT",
                "Date": "Sun, 01 Mar 2020 12:00:00 GMT",
            },
            7,
        ),
        (
            {
                "Retry-After": "Sun, 01 Mar 2020 11:00:00 GMT",
                "Date": "Sun, 01 Mar 2020 12:00:00 GMT",
            },
            0,
        ),
        ({}, None),
        ({"Retry-After": ""}, None),
        ({"Retry-After": "-1"}, None),
        ({"Retry-After": "soon; please"}, None),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "1e3"}, None),
        ({"Retry-After": "9" * 400}, 86_400),
        ({"Retry-After": "999999999999"}, 86_400),
        ({"Retry-After": "1796000000"}, 86_400),
        ({"Retry-After": "86401"}, 86_400),
        ({"Retry-After": "0" * 400}, 0),
        ({"Retry-After": "1." + "0" * 400}, 1),
        ({"Retry-After": "1.2.3"}, None),
        ({"Retry-After": "."}, None),
        ({"Retry-After": "\u0663"}, None),
        ({"Retry-After": "inf"}, None),
        ({"Retry-After": "Sun, 99 Mar 2020 12:00:07 GMT"}, None),
        ({"Retry-After": "Wed, 01 Mar 2999 12:00:07 GMT"}, 86_400),
        ({"Retry-After": "Fri, 31 Dec 9999 23:59:59 -1200"}, None),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
def test_client__retry_after(
    headers: dict[str, str], seconds: float | None, status: int, bland: responses.RequestsMock
) -> None:
    """A date is told by Bland's own clock, as its ``Date`` shows it."""
    bland.patch(URL, status=status, headers=headers)

    with pytest.raises(BlandUnavailableError) as caught:
        update(allowance=Allowance(attempts=1))

    assert caught.value.retry_after_seconds == seconds


def test_client__retry_after_is_honoured(sandbox: BlandSandbox) -> None:
    sandbox.faults.add("conv_1", "429:0.5")

    update()

    first, second = (seen["at"] for seen in sandbox.log)
    assert second - first >= 0.5


def test_client__retry_after_too_long_is_left_to_the_caller(sandbox: BlandSandbox) -> None:
    sandbox.faults.add("conv_1", "429:99999")

    with pytest.raises(BlandUnavailableError) as caught:
        update()

    assert (caught.value.gave_up, caught.value.retry_after_seconds) == (GaveUp.PATIENCE, 86_400)
    assert len(sandbox.log) == 1


def test_client__no_time_for_retry_after(sandbox: BlandSandbox) -> None:
    sandbox.faults.add("conv_1", "429:60")
    begin = time.monotonic()

    with pytest.raises(BlandUnavailableError) as caught:
        update(allowance=Allowance.of_seconds(30))

    assert caught.value.gave_up is GaveUp.TIME
    assert time.monotonic() - begin < 30


def test_client__refused_calls_slow_down_all(sandbox: BlandSandbox) -> None:
    sandbox.faults.add("conv_1", "429")
    before = get_client().pacer.rate

    update()

    assert get_client().pacer.rate < before


def test_client__rate_limit_of_the_settings(sandbox: BlandSandbox, set_bland: SetBland) -> None:
    set_bland(RATE_LIMIT=20)
    begin = time.monotonic()

    for _ in range(6):
        update()

    assert time.monotonic() - begin >= 0.2


# --- how long ---------------------------------------------------------------------------------


def assert_gives_up(kind: type[BlandError], seconds: float = 20, **values: Any) -> BlandError:
    """Long before what it waits for would be there, on a busy machine as well."""
    begin = time.monotonic()
    with pytest.raises(kind) as caught:
        update(**values)
    assert time.monotonic() - begin < seconds
    return caught.value


def test_client__no_answer(sandbox: BlandSandbox, set_bland: SetBland) -> None:
    set_bland(MAX_RETRIES=0, READ_TIMEOUT=0.4)
    sandbox.faults.add("conv_1", "hang_before:60")

    assert_gives_up(BlandOutcomeUnknownError)


def test_client__headers_that_drip(sandbox: BlandSandbox, set_bland: SetBland) -> None:
    """A receive each tenth of a second, and never one that is late."""
    set_bland(MAX_RETRIES=0, READ_TIMEOUT=0.4)
    sandbox.faults.add("conv_1", "drip:0.1")

    assert_gives_up(BlandOutcomeUnknownError)


@pytest.mark.parametrize(
    "head",
    [b"Content-Length: 500\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n1f4\r\n", b"\r\n"],
    ids=["declared", "chunked", "until closed"],
)
def test_client__body_that_drips(head: bytes, settings: Any) -> None:
    def serve(server: RawServer, connection: socket.socket) -> None:
        server.read_request(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\n" + head)
        for _ in range(400):
            connection.sendall(b" ")
            time.sleep(0.1)

    with raw_server(serve) as server, connected_to(server, settings, READ_TIMEOUT=0.4):
        assert_gives_up(BlandOutcomeUnknownError)


def test_client__never_longer_than_the_time_left(
    sandbox: BlandSandbox, set_bland: SetBland
) -> None:
    """And an answer that our deadline cut off is told as that."""
    set_bland(READ_TIMEOUT=60)
    sandbox.faults.add("conv_1", "forever:hang_before:60")

    caught = assert_gives_up(BlandOutcomeUnknownError, allowance=Allowance.of_seconds(2))

    assert (caught.cut_off, caught.gave_up) == (True, GaveUp.TIME)


def test_client__no_answer_in_the_whole_time_is_not_cut_off(
    sandbox: BlandSandbox, set_bland: SetBland
) -> None:
    set_bland(READ_TIMEOUT=0.4)
    sandbox.faults.add("conv_1", "forever:hang_before:60")
    allowance = Allowance(deadline=time.monotonic() + 60, attempts=1)

    caught = assert_gives_up(BlandOutcomeUnknownError, allowance=allowance)

    assert (caught.cut_off, caught.gave_up) == (False, GaveUp.ATTEMPTS)


def test_client__a_broken_connection_is_not_cut_off(
    sandbox: BlandSandbox, set_bland: SetBland
) -> None:
    set_bland(READ_TIMEOUT=60)
    sandbox.faults.add("conv_1", "reset_before")

    with pytest.raises(BlandOutcomeUnknownError) as caught:
        update(allowance=Allowance(deadline=time.monotonic() + 30, attempts=1))

    assert caught.value.cut_off is False


def test_client__connecting_is_part_of_the_time_left(
    set_bland: SetBland, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a handshake takes of it is not there for the answer."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    left: list[float] = []

    def note_and_answer(sock: Any, *args: Any, **values: Any) -> Any:
        left.append(sock.gettimeout())
        return _DeadlineResponse(sock, *args, **values)

    monkeypatch.setattr(HTTPConnection, "response_class", staticmethod(note_and_answer))

    def serve(server: RawServer, connection: socket.socket) -> None:
        time.sleep(0.3)
        with context.wrap_socket(connection, server_side=True) as secured:
            server.read_request(secured)

    with (
        authority.cert_pem.tempfile() as bundle,
        raw_server(serve) as server,
        connected_to(server, settings, READ_TIMEOUT=60, CA_BUNDLE=bundle),
    ):
        set_bland(BASE_URL=server.url.replace("http:", "https:"))
        with pytest.raises(BlandOutcomeUnknownError):
            update(allowance=Allowance.of_seconds(30))

    assert len(left) == 1
    assert 0 < left[0] <= 29.7


def test_client__connection_that_is_never_accepted(settings: Any) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        place = listener.getsockname()
        waiting = [socket.socket() for _ in range(4)]
        for filler in waiting:
            filler.setblocking(False)
            filler.connect_ex(place)
        settings.BLAND_SMS = {
            "API_KEY": KEY,
            "BASE_URL": f"http://127.0.0.1:{place[1]}",
            "CONNECT_TIMEOUT": 0.2,
            "READ_TIMEOUT": 60,
            "MAX_RETRIES": 0,
        }
        try:
            assert_gives_up(BlandConnectionError)
        finally:
            for filler in waiting:
                filler.close()


# --- how much ---------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 302])
@pytest.mark.parametrize("declared", [True, False], ids=["declared", "undeclared"])
def test_client__body_without_end(status: int, declared: bool, settings: Any) -> None:
    sent = 0

    def serve(server: RawServer, connection: socket.socket) -> None:
        nonlocal sent
        server.read_request(connection)
        length = b"Content-Length: 1000000000\r\n" if declared else b""
        head = b"HTTP/1.1 %d Status\r\nLocation: /elsewhere\r\n%b\r\n" % (status, length)
        connection.sendall(head)
        while sent < 100 * 1024 * 1024:
            sent += connection.send(b" " * 65_536)

    with raw_server(serve) as server, connected_to(server, settings, READ_TIMEOUT=60):
        assert_gives_up(BlandError)

    assert sent < 30 * 1024 * 1024  # the rest of it is in the kernel's buffers


def test_client__limit_of_an_update_is_a_mebibyte(sandbox: BlandSandbox) -> None:
    def answer_of(length: int) -> dict[str, Any]:
        return {"status": 200, "body": OK.decode().ljust(length)}

    sandbox.faults.add("conv_1", answer_of(1024 * 1024), answer_of(1024 * 1024 + 1))
    update(allowance=Allowance(attempts=1))

    with pytest.raises(BlandOutcomeUnknownError):
        update(allowance=Allowance(attempts=1))


def test_client__a_conversation_may_be_longer_than_an_update(sandbox: BlandSandbox) -> None:
    sandbox.account.add({"id": "conv_2", "messages": [{"id": "1", "message": "x" * 3_000_000}]})

    assert len(get("conv_2").messages) == 1


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "identity, gzip", "GZIP"])
def test_client__compressed_answer_is_refused(encoding: str, sandbox: BlandSandbox) -> None:
    sandbox.faults.add(
        "conv_1", {"status": 200, "body": OK.decode(), "headers": {"Content-Encoding": encoding}}
    )

    with pytest.raises(BlandOutcomeUnknownError, match="compressed"):
        update(allowance=Allowance(attempts=1))


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, BlandAPIError), (401, BlandAuthenticationError), (503, BlandUnavailableError)],
)
@pytest.mark.parametrize(
    "fault",
    [
        {"body": "x", "headers": {"Content-Encoding": "gzip"}},
        {"body": "x" * 2_000_000},
        {"body": "x\r\n", "headers": {"Transfer-Encoding": "chunked"}},
    ],
    ids=["compressed", "too long", "broken"],
)
def test_client__status_of_an_error_counts_whatever_its_body(
    status: int, kind: type[BlandAPIError], fault: dict[str, Any], sandbox: BlandSandbox
) -> None:
    sandbox.faults.add("conv_1", {"status": status, **fault})

    with pytest.raises(BlandError) as caught:
        update(allowance=Allowance(attempts=1))

    assert type(caught.value) is kind


# --- to whom ----------------------------------------------------------------------------------


@pytest.fixture
def stranger() -> Iterator[BlandSandbox]:
    """A server that must never see the key."""
    with BlandSandbox(api_key=KEY) as running:
        running.account.add({"id": "conv_1"})
        yield running


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_client__redirect_is_not_followed(
    status: int, sandbox: BlandSandbox, stranger: BlandSandbox
) -> None:
    sandbox.faults.add("conv_1", f"redirect{status}:{stranger.base_url}{PREFIX}conv_1")

    with pytest.raises(BlandAPIError, match="BASE_URL"):
        update()

    assert len(sandbox.log) == 1
    assert len(stranger.log) == 0


@pytest.mark.parametrize("status", [302, 307])
def test_client__redirect_within_the_host_is_not_followed(
    status: int, sandbox: BlandSandbox
) -> None:
    sandbox.account.add({"id": "conv_2"})
    sandbox.faults.add("conv_1", f"redirect{status}:{PREFIX}conv_2")

    with pytest.raises(BlandAPIError):
        update()

    assert sandbox.account.rows["conv_2"]["is_active"] is True
    assert len(sandbox.log) == 1


def test_client__cookies_are_refused(sandbox: BlandSandbox) -> None:
    sandbox.faults.add("conv_1", "cookie")

    update()
    update()

    assert "cookie" not in sandbox.log[-1]["headers"]


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
def test_client__proxies_of_the_environment_are_ignored(
    name: str, sandbox: BlandSandbox, stranger: BlandSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, stranger.base_url)

    update()

    assert (len(sandbox.log), len(stranger.log)) == (1, 0)


def test_client__proxies_of_the_settings_are_used(
    secured: Callable[..., TLS], set_bland: SetBland
) -> None:
    """A tunnel to Bland's own certificate: the proxy sees where it leads, and no more."""
    tls = secured()

    def serve(server: RawServer, connection: socket.socket) -> None:
        server.read_request(connection)
        connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")

    with raw_server(serve) as proxy:
        set_bland(PROXIES={"https": proxy.url}, MAX_RETRIES=0)
        with pytest.raises(BlandConnectionError):
            update()

    assert proxy.received[0].startswith(b"CONNECT 127.0.0.1:")
    assert KEY.encode() not in b"".join(proxy.received)
    assert len(tls.sandbox.log) == 0


@pytest.mark.parametrize("name", ["http", "all", "HTTP", "http://127.0.0.1", "all://127.0.0.1"])
def test_client__plain_http_is_not_sent_through_a_proxy(
    name: str, sandbox: BlandSandbox, stranger: BlandSandbox, set_bland: SetBland
) -> None:
    set_bland(PROXIES={name: stranger.base_url})

    with pytest.raises(BlandConfigurationError, match="PROXIES"):
        update()

    assert len(sandbox.log) == len(stranger.log) == 0


def test_client__proxy_for_another_scheme_does_no_harm(
    sandbox: BlandSandbox, stranger: BlandSandbox, set_bland: SetBland
) -> None:
    set_bland(PROXIES={"https": stranger.base_url})

    update()

    assert (len(sandbox.log), len(stranger.log)) == (1, 0)


def test_client__netrc_is_ignored(
    wire: RawServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n")
    monkeypatch.setenv("NETRC", str(netrc))

    update()

    assert headers_of(wire.received[0])["authorization"] == KEY


@pytest.mark.parametrize(
    "url",
    [f"https://user:{KEY}@api.bland.ai", f"https://api.bland.ai/?key={KEY}", "http://api.bland.ai"],
)
def test_client__unsafe_base_url(url: str, settings: Any) -> None:
    settings.BLAND_SMS = {"API_KEY": KEY, "BASE_URL": url}

    with pytest.raises(BlandConfigurationError, match="BASE_URL") as caught:
        get_client()

    assert KEY not in str(caught.value)


@pytest.mark.parametrize("key", ["", None, " \n", f"{KEY}\n{KEY}"])
def test_client__unusable_key(key: str | None, settings: Any) -> None:
    settings.BLAND_SMS = {"API_KEY": key}

    with pytest.raises(BlandConfigurationError, match="API_KEY") as caught:
        get_client()

    assert KEY not in str(caught.value)


# --- connections ------------------------------------------------------------------------------


def test_client__connection_is_used_again(wire: RawServer) -> None:
    for _ in range(5):
        update()

    assert wire.connections == 1


def test_client__idle_connection_closed_by_the_server(settings: Any) -> None:
    closed = threading.Event()

    def serve(server: RawServer, connection: socket.socket) -> None:
        server.read_request(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(OK), OK))
        connection.close()
        closed.set()

    with raw_server(serve) as server, connected_to(server, settings):
        for _ in range(3):
            assert update().is_active is False
            assert closed.wait(60)
            closed.clear()

    assert server.connections == 3


def test_client__connection_closed_while_the_request_is_on_its_way(sandbox: BlandSandbox) -> None:
    update()
    sandbox.faults.add("conv_1", "close_before")

    assert update().is_active is False
    assert len(sandbox.log) == 3


def test_client__many_threads_get_their_own_answers(sandbox: BlandSandbox) -> None:
    ids = [f"conv_{number}" for number in range(200)]
    for conversation_id in ids:
        sandbox.account.add({"id": conversation_id})
    client = get_client()

    with ThreadPoolExecutor(16) as pool:
        payloads = list(pool.map(lambda pk: client.update_conversation(pk, is_active=False), ids))

    assert [payload.id for payload in payloads] == ids


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")
def test_get_client__a_child_leaves_its_parents_connection_alone(
    sandbox: BlandSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = f"""
import os, sys
from django.conf import settings
settings.configure(USE_TZ=True, BLAND_SMS={{"API_KEY": {KEY!r}, "BASE_URL": {sandbox.base_url!r}}})
from bland_sms.client import get_client
parents = get_client()
parents.get_conversation("conv_1")
child = os.fork()
if child == 0:
    get_client().get_conversation("conv_1")
    os._exit(0 if get_client() is not parents else 1)
_, status = os.waitpid(child, 0)
parents.get_conversation("conv_1")
sys.exit(os.waitstatus_to_exitcode(status))
"""
    connections: list[socket.socket] = []
    wrap = sandbox.wrap

    def count(connection: socket.socket) -> socket.socket:
        connections.append(connection)
        return wrap(connection)

    monkeypatch.setattr(sandbox, "wrap", count)

    done = subprocess.run([sys.executable, "-c", script], check=False, timeout=120)

    assert done.returncode == 0
    assert (len(connections), len(sandbox.log)) == (2, 3)


# --- TLS --------------------------------------------------------------------------------------


@dataclass
class TLS:
    """A stand-in behind a certificate, and the authority that issued it."""

    sandbox: BlandSandbox
    bundle: str
    connections: int = 0


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def secured(
    authority: trustme.CA, tmp_path: Path, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., TLS]]:
    """Connect the app to a stand-in with such a certificate."""
    running: list[BlandSandbox] = []

    def start(*names: str, **values: Any) -> TLS:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(*(names or ("127.0.0.1",)), **values).configure_cert(context)
        sandbox = BlandSandbox(api_key=KEY, tls=context).start()
        sandbox.account.add({"id": "conv_1"})
        running.append(sandbox)
        bundle = tmp_path / "ca.pem"
        authority.cert_pem.write_to_path(bundle)
        tls = TLS(sandbox, str(bundle))
        wrap = sandbox.wrap

        def count(connection: socket.socket) -> socket.socket:
            tls.connections += 1
            return wrap(connection)

        monkeypatch.setattr(sandbox, "wrap", count)
        settings.BLAND_SMS = {
            "API_KEY": KEY,
            "BASE_URL": sandbox.base_url,
            "CA_BUNDLE": tls.bundle,
        }
        return tls

    yield start
    for sandbox in running:
        sandbox.stop()


@pytest.mark.usefixtures("new_client")
def test_plain_http__reads_no_authorities(
    sandbox: BlandSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bland_sms.client.session.tls_context", None)

    assert update().is_active is False


def test_tls__own_ca_bundle(secured: Callable[..., TLS]) -> None:
    secured()

    assert update().is_active is False


def test_tls__folder_of_certificates(secured: Callable[..., TLS], set_bland: SetBland) -> None:
    tls = secured()
    folder = Path(tls.bundle).parent / "certificates"
    folder.mkdir()
    name = subprocess.run(
        ["openssl", "x509", "-noout", "-subject_hash", "-in", tls.bundle],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    (folder / f"{name}.0").write_text(Path(tls.bundle).read_text())
    set_bland(CA_BUNDLE=str(folder))

    assert update().is_active is False


def assert_refused_once(tls: TLS) -> None:
    with pytest.raises(BlandTLSError, match="CA_BUNDLE") as caught:
        update(allowance=(allowance := Allowance()))
    assert isinstance(caught.value, STOPPING_ERRORS)
    assert (allowance.sent["PATCH"], tls.connections, len(tls.sandbox.log)) == (1, 1, 0)


def test_tls__unknown_authority(secured: Callable[..., TLS], set_bland: SetBland) -> None:
    tls = secured()
    set_bland(CA_BUNDLE=None)

    assert_refused_once(tls)


def test_tls__wrong_name(secured: Callable[..., TLS]) -> None:
    assert_refused_once(secured("api.example.com"))


def test_tls__expired_certificate(secured: Callable[..., TLS]) -> None:
    begin = datetime(2020, 1, 1, tzinfo=timezone.utc)

    assert_refused_once(secured(not_before=begin, not_after=begin + timedelta(days=30)))


def test_tls__server_without_tls(set_bland: SetBland, settings: Any) -> None:
    def serve(server: RawServer, connection: socket.socket) -> None:
        connection.recv(65_536)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

    with raw_server(serve) as server, connected_to(server, settings, MAX_RETRIES=2):
        set_bland(BASE_URL=server.url.replace("http:", "https:"))

        with pytest.raises(BlandTLSError):
            update()

    assert server.connections == 1


def test_tls__connection_broken_off_in_the_handshake(set_bland: SetBland, settings: Any) -> None:
    """Such as by a load balancer that restarts: nothing was sent, and the next may succeed."""

    def serve(server: RawServer, connection: socket.socket) -> None:
        connection.recv(65_536)

    with raw_server(serve) as server, connected_to(server, settings, MAX_RETRIES=2):
        set_bland(BASE_URL=server.url.replace("http:", "https:"))

        with pytest.raises(BlandConnectionError):
            update()

    assert server.connections == 3


@pytest.mark.parametrize("junk", [b"", b"\x17\x03\x03\x00\x20" + b"x" * 32, b"HTTP/1.1 200 OK"])
def test_tls__connection_broken_after_the_request(
    junk: bytes, authority: trustme.CA, set_bland: SetBland, settings: Any
) -> None:
    """Bland may have done it: what comes then refuses no certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)

    def serve(server: RawServer, connection: socket.socket) -> None:
        with context.wrap_socket(connection.dup(), server_side=True) as secured:
            server.read_request(secured)
            connection.sendall(junk)
            connection.shutdown(socket.SHUT_RDWR)

    with (
        authority.cert_pem.tempfile() as bundle,
        raw_server(serve) as server,
        connected_to(server, settings, MAX_RETRIES=1, READ_TIMEOUT=5, CA_BUNDLE=bundle),
    ):
        set_bland(BASE_URL=server.url.replace("http:", "https:"))
        with pytest.raises(BlandOutcomeUnknownError):
            update()

    assert server.connections == 2


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_tls__bundle_of_the_environment_is_ignored(
    name: str,
    secured: Callable[..., TLS],
    set_bland: SetBland,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tls = secured()
    monkeypatch.setenv(name, tls.bundle)
    set_bland(CA_BUNDLE=None)

    assert_refused_once(tls)


def test_tls__bundle_of_the_environment_does_not_replace_ours(
    secured: Callable[..., TLS], monkeypatch: pytest.MonkeyPatch, other_bundle: Path
) -> None:
    secured()
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(other_bundle))

    assert update().is_active is False


def test_tls__certificates_are_read_once_for_all_connections(
    secured: Callable[..., TLS], monkeypatch: pytest.MonkeyPatch
) -> None:
    tls = secured()
    client = get_client()
    loads: list[str] = []
    for name in ("load_verify_locations", "load_default_certs", "set_default_verify_paths"):
        monkeypatch.setattr(ssl.SSLContext, name, lambda *_a, n=name, **_k: loads.append(n))
    tls.sandbox.faults.add("conv_1", "close_before", "close_before")

    client.update_conversation("conv_1", is_active=False)

    assert (tls.connections, loads) == (3, [])


@pytest.mark.parametrize("content", [None, "junk", ""])
def test_client__unusable_ca_bundle(content: str | None, settings: Any, tmp_path: Path) -> None:
    bundle = tmp_path / "ca.pem"
    if content is not None:
        bundle.write_text(content)
    settings.BLAND_SMS = {"API_KEY": KEY, "CA_BUNDLE": str(bundle)}

    with pytest.raises(BlandConfigurationError, match="CA_BUNDLE"):
        get_client()


# --- one client per process -------------------------------------------------------------------


def test_get_client__the_same_until_the_settings_change(settings: Any) -> None:
    settings.BLAND_SMS = {"API_KEY": KEY}
    first = get_client()
    settings.BLAND_SMS = {"API_KEY": KEY}

    assert get_client() is first


@pytest.mark.parametrize(
    "change", [{"API_KEY": "org_another_key"}, {"READ_TIMEOUT": 3}, {"RATE_LIMIT": 5}]
)
def test_get_client__another_for_other_settings(change: dict[str, Any], settings: Any) -> None:
    settings.BLAND_SMS = {"API_KEY": KEY}
    first = get_client()
    settings.BLAND_SMS = {"API_KEY": KEY, **change}

    assert get_client() is not first


class Vault:
    """Another key each time, all of them good."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        return f"org_key_number_{self.calls}"


def test_get_client__a_vault_is_asked_once_for_each_job(
    wire: RawServer, set_bland: SetBland
) -> None:
    vault = Vault()
    set_bland(API_KEY=vault)
    get_settings()
    check_client()
    assert vault.calls == 0

    client = get_client()
    client.update_conversation("conv_1", is_active=False)
    client.update_conversation("conv_1", is_active=False)
    get_client().update_conversation("conv_1", is_active=False)

    keys = [headers_of(request)["authorization"] for request in wire.received]
    assert keys == ["org_key_number_1", "org_key_number_1", "org_key_number_2"]
    assert vault.calls == 2


def test_get_client__one_client_and_one_pace_whatever_the_vault_says(
    wire: RawServer, set_bland: SetBland
) -> None:
    set_bland(API_KEY=Vault())
    first = get_client()
    first.update_conversation("conv_1", is_active=False)
    pacer = first.pacer
    second = get_client()
    second.update_conversation("conv_1", is_active=False)

    assert second is first
    assert second.pacer is pacer
    assert wire.connections == 1


def vault_of_bytes() -> Any:
    return KEY.encode()


def vault_of_nothing() -> str:
    return ""


def vault_of_two_lines() -> str:
    return f"{KEY}\n{KEY}"


@pytest.mark.parametrize(
    "vault",
    [lambda: 1 / 0, vault_of_bytes, vault_of_nothing, vault_of_two_lines],
    ids=["down", "bytes", "nothing", "two lines"],
)
def test_get_client__a_vault_without_a_usable_key(vault: Any, set_bland: SetBland) -> None:
    set_bland(API_KEY=vault)

    check_client()
    with pytest.raises(BlandConfigurationError, match="API_KEY") as caught:
        get_client()

    assert KEY not in str(caught.value)


def test_get_client__rotated_key_is_used(sandbox: BlandSandbox, set_bland: SetBland) -> None:
    sandbox.api_key = "org_rotated_key"
    with pytest.raises(BlandAuthenticationError):
        update()

    set_bland(API_KEY="org_rotated_key")

    assert update().is_active is False


# --- the key is nowhere else ------------------------------------------------------------------


def spoken(error: BaseException) -> str:
    """Everything that an exception says of itself and of what it was made of."""
    words, todo, seen = "", [error], set()
    while todo:
        one = todo.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        words += f"{one!s} {one!r} {one.args!r} {vars(one)!r}"
        todo += [cause for cause in (one.__cause__, one.__context__) if cause is not None]
    return words


def test_key__not_in_repr(settings: Any) -> None:
    settings.BLAND_SMS = {"API_KEY": KEY}
    client = get_client()

    assert KEY not in f"{client!r} {client!s} {client.settings!r} {vars(client)!r}"


def echo(status: int, body: Any, **headers: str) -> dict[str, Any]:
    return {"status": status, "body": body, "headers": headers}


FAULTS: dict[str, Any] = {
    "400": "400",
    "401": "401",
    "500": "500",
    "reset": "reset_before",
    "hang": "hang_before:60",
    "truncated": "truncated",
    "html200": "html200",
    "redirect": echo(302, "", Location=f"http://127.0.0.1:9/?key={KEY}"),
    "echo in words": "echo_key",
    "echo in html": echo(502, f"<h1>{KEY}</h1>"),
    "echo in a 200": echo(200, {"errors": [f"odd {KEY}"]}),
    "echo in a code": echo(418, {"errors": [{"error": KEY, "message": KEY * 20}]}),
    "echo escaped": echo(400, json.dumps({"message": KEY}).replace("_", "\\u005f")),
    "echo without json": echo(200, KEY),
    "echo in a body too long": echo(200, KEY + " " * 2_000_000),
    "echo in headers": echo(429, "", **{"Retry-After": KEY, "Date": KEY, "Set-Cookie": KEY}),
    "echo in an encoding": echo(200, "{}", **{"Content-Encoding": KEY}),
    "echo in a broken header": echo(400, "", X=f"y\r\nthe key {KEY} is odd"),
}
every_fault = pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())


@pytest.fixture
def failing(
    sandbox: BlandSandbox, set_bland: SetBland, impatient: None
) -> Callable[[Any], Callable[[], object]]:
    """A call that suffers such a fault."""
    set_bland(MAX_RETRIES=0)

    def make(fault: Any) -> Callable[[], object]:
        sandbox.faults.add("conv_1", fault)
        return update

    return make


@every_fault
def test_key__not_in_what_is_raised(
    fault: Any, failing: Callable[[Any], Callable[[], object]]
) -> None:
    with pytest.raises(BlandError) as caught:
        failing(fault)()

    assert KEY not in spoken(caught.value)


@every_fault
def test_key__not_in_any_log(
    fault: Any,
    failing: Callable[[Any], Callable[[], object]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.DEBUG), pytest.raises(BlandError):
        failing(fault)()

    assert {"bland_sms.client", "urllib3.connectionpool"} <= {each.name for each in caplog.records}
    assert KEY not in caplog.text + "".join(repr(vars(each)) for each in caplog.records)


def test_key__not_in_the_log_of_a_success(
    sandbox: BlandSandbox, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        update()
        get()

    assert caplog.records
    assert KEY not in caplog.text + "".join(repr(vars(each)) for each in caplog.records)


def test_log__neither_numbers_nor_messages(
    sandbox: BlandSandbox, caplog: pytest.LogCaptureFixture
) -> None:
    message = {"id": "1", "message": "my secret illness", "sender": "USER"}
    sandbox.account.add({"id": "conv_1", "user_number": "+15550107777", "messages": [message]})
    sandbox.faults.add("conv_1", "500")

    with caplog.at_level(logging.DEBUG):
        get()

    assert "conv_1" in caplog.text
    assert "5550107777" not in caplog.text
    assert "illness" not in caplog.text


def test_key__echoed_without_its_bearer(sandbox: BlandSandbox, set_bland: SetBland) -> None:
    sandbox.api_key = f"Bearer {KEY}"
    set_bland(API_KEY=f"Bearer {KEY}", MAX_RETRIES=0)
    sandbox.faults.add("conv_1", {"status": 400, "body": {"message": f"odd key {KEY}"}})

    with pytest.raises(BlandAPIError) as caught:
        update()

    assert KEY not in spoken(caught.value)


def test_key__echoed_within_a_conversation(sandbox: BlandSandbox) -> None:
    sandbox.account.add(
        {
            "id": "conv_1",
            "summary": f"the key is {KEY}",
            "variables": {KEY: [KEY]},
            "messages": [{"id": "1", "message": KEY}],
        }
    )

    assert KEY not in repr(get())


def debug_page(call: Callable[[], object]) -> str:
    """Django's technical 500 page, as staff of a project with DEBUG or its e-mails show it."""
    try:
        call()
    except (BlandError, ImproperlyConfigured, LookupError):
        return ExceptionReporter(None, *sys.exc_info()).get_traceback_html()
    raise AssertionError("nothing was raised")


@every_fault
def test_key__not_on_the_debug_page(
    fault: Any, failing: Callable[[Any], Callable[[], object]], settings: Any
) -> None:
    settings.DEBUG = True

    assert KEY not in debug_page(failing(fault))


def test_key__not_on_the_debug_page_of_an_outage(
    sandbox: BlandSandbox, set_bland: SetBland, settings: Any
) -> None:
    settings.DEBUG = True
    set_bland(MAX_RETRIES=0)
    sandbox.faults.add("*", "forever:500")

    page = debug_page(get)

    assert "BlandUnavailableError" in page
    assert KEY not in page


def test_key__not_on_the_debug_page_of_an_unreachable_server(settings: Any) -> None:
    settings.DEBUG = True

    assert KEY not in debug_page(update)


def test_key__not_on_the_debug_page_of_a_refused_certificate(
    secured: Callable[..., TLS], set_bland: SetBland, settings: Any
) -> None:
    secured()
    set_bland(CA_BUNDLE=None)
    settings.DEBUG = True

    assert KEY not in debug_page(update)


def fails() -> str:
    raise LookupError("the vault is down")


@pytest.mark.parametrize(
    "given_settings",
    [
        {"API_KEY": KEY, "TIMEOUT": 3},
        {"API_KEY": KEY, "READ_TIMEOUT": "soon"},
        {"API_KEY": KEY, "WEBHOOK_SECRETS": f"{KEY}-2"},
        {"API_KEY": KEY, "WEBHOOK_SECRETS": [f"{KEY}-2", 7]},
        {"API_KEY": fails, "WEBHOOK_SECRETS": [f"{KEY}-2"]},
        {"API_KEY": KEY.encode},
        {"API_KEY": f"{KEY}\n{KEY}"},
        {"API_KEY": KEY, "BASE_URL": "http://api.bland.ai"},
        {"API_KEY": KEY, "CA_BUNDLE": "/nowhere"},
    ],
    ids=["unknown", "kind", "text", "item", "vault", "bytes", "newline", "http", "bundle"],
)
def test_key__not_on_the_debug_page_of_a_wrong_setting(
    given_settings: dict[str, Any], settings: Any
) -> None:
    settings.BLAND_SMS = given_settings
    settings.DEBUG = True
    del given_settings

    assert KEY not in debug_page(get_client)

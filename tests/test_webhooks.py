"""Webhook deliveries: what is let in, whose conversation is copied, and who does it."""

from __future__ import annotations

import hashlib
import hmac
import io
import json
import logging
import random
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.core.handlers.wsgi import WSGIRequest
from django.core.signals import request_finished
from django.db import (
    DatabaseError,
    OperationalError,
    close_old_connections,
    connection,
    connections,
    transaction,
)
from django.http import HttpResponse
from django.test import Client, RequestFactory, override_settings
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from bland_sms import tasks, webhooks
from bland_sms.models import Conversation, WebhookDelivery
from bland_sms.sandbox import BlandSandbox
from bland_sms.signals import conversation_created, webhook_received
from bland_sms.webhooks import background, claims, copying, settling, view
from bland_sms.webhooks import signature as signature_module

ADDRESS = "/bland-sms/webhook/"
SECRET = "whsec_one"
OTHER_SECRET = "whsec_two"
JSON = "application/json"
State = WebhookDelivery.State


@pytest.fixture(autouse=True)
def rested() -> None:
    """Tests post more in a second than anybody may."""
    view.throttle.fill()


@pytest.fixture
def bland(sandbox: BlandSandbox, set_bland: Callable[..., None], db: None) -> BlandSandbox:
    set_bland(WEBHOOK_SECRETS=[SECRET])
    return sandbox


def sign(body: bytes, secret: str = SECRET) -> str:
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def body_of(conversation_id: Any = "conv_1", **values: Any) -> bytes:
    told = {"conversation_id": conversation_id, "sender": "USER", "message": "Hello", **values}
    return json.dumps(told).encode()


def post(body: bytes | None = None, signature: str | None = "good", **extra: Any) -> HttpResponse:
    """Post a webhook; signed as it should be unless the test says otherwise."""
    body = body_of() if body is None else body
    headers = dict(extra.pop("headers", {}))
    if signature is not None:
        headers["X-Webhook-Signature"] = sign(body) if signature == "good" else signature
    return Client(raise_request_exception=True).post(
        ADDRESS, body, content_type=extra.pop("content_type", JSON), headers=headers, **extra
    )


def minutes_pass(minutes: float = 1.1) -> None:
    """Everything that was, was so much earlier."""
    earlier = timedelta(minutes=minutes)
    for name in ("received_at", "asked_at", "not_before", "lease_until"):
        rows = WebhookDelivery.objects.filter(**{f"{name}__isnull": False})
        for pk, moment in rows.values_list("pk", name):
            WebhookDelivery.objects.filter(pk=pk).update(**{name: moment - earlier})


def gets(bland: BlandSandbox, conversation_id: str = "") -> int:
    return len(bland.requests("GET", conversation_id))


# --- what is let in ---------------------------------------------------------------------------


def test_webhook__conversation_is_copied(bland: BlandSandbox) -> None:
    message = {"id": "m1", "sender": "USER", "message": "Hello"}
    bland.account.add({"id": "conv_1", "messages": [message]})
    answer = post()
    assert (answer.status_code, answer.content) == (200, b"")
    assert Conversation.objects.get(pk="conv_1").messages.get().text == "Hello"
    delivery = WebhookDelivery.objects.get()
    assert (delivery.state, delivery.kind, delivery.error) == (State.PROCESSED, "message", "")
    assert delivery.processed_at is not None
    assert delivery.claimed_conversation is None


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
def test_webhook__only_post(method: str, bland: BlandSandbox) -> None:
    body = body_of()
    headers = {"X-Webhook-Signature": sign(body)}
    answer = Client().generic(method, ADDRESS, body, content_type=JSON, headers=headers)
    assert (answer.status_code, answer["Allow"]) == (405, "POST")
    assert not WebhookDelivery.objects.exists()


@pytest.mark.parametrize("secrets", [[], [""], ["  ", ""]])
def test_webhook__without_a_secret_all_are_refused(
    secrets: list[str], bland: BlandSandbox, set_bland: Any
) -> None:
    set_bland(WEBHOOK_SECRETS=secrets)
    assert post(signature=sign(body_of(), "")).status_code == 503
    assert not WebhookDelivery.objects.exists()


def test_webhook__wrong_settings_are_no_500(bland: BlandSandbox, set_bland: Any) -> None:
    set_bland(WEBHOOK_SECRET=SECRET)
    assert post().status_code == 503


def test_webhook__refusals_are_not_mailed(
    bland: BlandSandbox, set_bland: Any, caplog: pytest.LogCaptureFixture
) -> None:
    set_bland(WEBHOOK_SECRETS=[])
    with caplog.at_level(logging.INFO):
        assert post().status_code == 503
    assert not [record for record in caplog.records if record.name == "django.request"]
    assert "WEBHOOK_SECRETS" in caplog.text


class Unread(io.BytesIO):
    """A body that must not be read."""

    def read(self, *args: Any) -> bytes:
        raise AssertionError


def arrived(stream: io.BytesIO, **environ: Any) -> WSGIRequest:
    """A request as a server hands it over, with any headers."""
    plain = {"CONTENT_TYPE": JSON, "CONTENT_LENGTH": "", "REQUEST_METHOD": "POST"}
    request = RequestFactory().generic("POST", ADDRESS)
    return WSGIRequest({**request.META, **plain, "wsgi.input": stream, **environ})


@pytest.mark.parametrize("length", ["1048577", "9" * 5000, " 1048577 "])
def test_webhook__too_long_is_not_read(length: str, bland: BlandSandbox) -> None:
    assert view.webhook(arrived(Unread(), CONTENT_LENGTH=length)).status_code == 413


@pytest.mark.parametrize("signature", ["sha256=" + "0" * 64, "t=1,v1=", "0" * 63, "é" * 64])
def test_webhook__malformed_signature_is_refused_before_the_body(
    signature: str, bland: BlandSandbox
) -> None:
    request = arrived(Unread(), CONTENT_LENGTH="10", HTTP_X_WEBHOOK_SIGNATURE=signature)
    assert view.webhook(request).status_code == 403


@pytest.mark.parametrize(("size", "status"), [(200, 200), (201, 413)])
def test_webhook__limit(size: int, status: int, bland: BlandSandbox, set_bland: Any) -> None:
    set_bland(WEBHOOK_MAX_BYTES=200)
    body = body_of(pad="").replace(b'"pad": ""', b'"pad": "%s"')
    body = body.replace(b"%s", b"x" * (size - len(body) + 2))
    assert len(body) == size
    assert post(body).status_code == status


@pytest.mark.parametrize("length", ["", "junk", "-1"])
def test_webhook__chunked(length: str, bland: BlandSandbox) -> None:
    body = body_of()
    environ = {"HTTP_X_WEBHOOK_SIGNATURE": sign(body), "wsgi.input_terminated": True}
    if length:
        environ |= {"CONTENT_LENGTH": length, "wsgi.input_terminated": False}
    answer = view.webhook(arrived(io.BytesIO(body), **environ))
    assert answer.status_code == (403 if length else 200)


def test_webhook__chunked_without_end(bland: BlandSandbox, set_bland: Any) -> None:
    class Endless(io.BytesIO):
        given = 0

        def read(self, size: Any = -1) -> bytes:
            self.given += size
            return b"x" * size

    set_bland(WEBHOOK_MAX_BYTES=100_000)
    stream = Endless()
    request = arrived(
        stream, **{"wsgi.input_terminated": True, "HTTP_X_WEBHOOK_SIGNATURE": "0" * 64}
    )
    assert view.webhook(request).status_code == 413
    assert stream.given == 100_001


@override_settings(DATA_UPLOAD_MAX_MEMORY_SIZE=10)
def test_webhook__limit_of_the_host_plays_no_part(bland: BlandSandbox) -> None:
    assert post().status_code == 200


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        (JSON, 200),
        ("application/json; charset=utf-8", 200),
        ("APPLICATION/JSON", 200),
        ("text/json", 200),
        ("application/vnd.bland.v1+json", 200),
        ("", 200),
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        ("multipart/form-data; boundary=x", 415),
        ("application/jsonp", 415),
        ("json", 415),
    ],
)
def test_webhook__content_type(content_type: str, status: int, bland: BlandSandbox) -> None:
    assert post(content_type=content_type).status_code == status


@pytest.mark.parametrize(
    ("signature", "status"),
    [
        (None, 401),
        ("", 401),
        ("wrong secret", 403),
        ("other body", 403),
        ("upper case", 403),
        ("prefixed", 403),
        ("one short", 403),
        ("one more", 403),
        ("é" * 64, 403),
        ("\u0661" * 64, 403),
        ("\udc80" * 64, 403),
        ("0" * 100_000, 403),
    ],
)
def test_webhook__signature(signature: str | None, status: int, bland: BlandSandbox) -> None:
    good = sign(body_of())
    given = {
        "wrong secret": sign(body_of(), OTHER_SECRET),
        "other body": sign(b"{}"),
        "upper case": good.upper(),
        "prefixed": f"sha256={good}",
        "one short": good[:-1],
        "one more": good + "0",
    }.get(signature or "", signature)
    environ = {} if given is None else {"HTTP_X_WEBHOOK_SIGNATURE": given}
    body = body_of()
    request = arrived(io.BytesIO(body), CONTENT_LENGTH=str(len(body)), **environ)
    answer = view.webhook(request)
    assert (answer.status_code, answer.content) == (status, b"")
    assert not WebhookDelivery.objects.exists()


@pytest.mark.parametrize("secret", [SECRET, OTHER_SECRET, "neither"])
def test_webhook__all_secrets_are_tried(
    secret: str, bland: BlandSandbox, set_bland: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def compare(one: str, other: str) -> bool:
        tried.append(one)
        return one == other

    monkeypatch.setattr(signature_module, "constant_time_compare", compare)
    set_bland(WEBHOOK_SECRETS=["", SECRET, OTHER_SECRET])
    expected = 403 if secret == "neither" else 200
    assert post(signature=sign(body_of(), secret)).status_code == expected
    assert len(tried) == 2


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'"text"',
        b"null",
        b"\xff\xfe",
        b'{"conversation_id": NaN}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"conversation_id": "conv_1", "conversation_id": "conv_2"}',
    ],
    ids=lambda body: body[:12],
)
def test_webhook__signed_nonsense(body: bytes, bland: BlandSandbox) -> None:
    assert post(body).status_code == 400
    assert not WebhookDelivery.objects.exists()


def test_webhook__connection_lost_while_reading(bland: BlandSandbox) -> None:
    class Broken(io.BytesIO):
        def read(self, *args: Any) -> bytes:
            raise ConnectionResetError

    request = arrived(Broken(), CONTENT_LENGTH="10", HTTP_X_WEBHOOK_SIGNATURE=sign(b""))
    assert view.webhook(request).status_code == 400


@pytest.mark.parametrize("headers", [{}, {"HTTP_X_WEBHOOK_SIGNATURE": ""}])
def test_webhook__without_signature_the_body_is_not_read(
    headers: dict[str, str], bland: BlandSandbox
) -> None:
    assert view.webhook(arrived(Unread(), CONTENT_LENGTH="10", **headers)).status_code == 401


def test_webhook__body_was_read_by_a_middleware(bland: BlandSandbox) -> None:
    body = body_of()
    request = arrived(
        io.BytesIO(body), CONTENT_LENGTH=str(len(body)), HTTP_X_WEBHOOK_SIGNATURE=sign(body)
    )
    assert request.body == body
    assert view.webhook(request).status_code == 200


@pytest.mark.parametrize("status", [200, 403])
def test_webhook__is_never_cached(status: int, bland: BlandSandbox) -> None:
    answer = post(signature="good" if status == 200 else "bad")
    assert answer.status_code == status
    assert "no-store" in answer["Cache-Control"]


def test_webhook__needs_no_csrf_token_and_no_login(bland: BlandSandbox, settings: Any) -> None:
    settings.MIDDLEWARE = [
        *settings.MIDDLEWARE,
        "django.contrib.auth.middleware.LoginRequiredMiddleware",
    ]
    body = body_of()
    answer = Client(enforce_csrf_checks=True).post(
        ADDRESS, body, content_type=JSON, headers={"X-Webhook-Signature": sign(body)}
    )
    assert answer.status_code == 200


@pytest.mark.django_db(transaction=True)
def test_webhook__under_atomic_requests(
    bland: BlandSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(connections.settings["default"], "ATOMIC_REQUESTS", True)
    real, found = view.receive, []

    def receive(*args: Any) -> Any:
        found.append(connection.in_atomic_block)
        return real(*args)

    monkeypatch.setattr(view, "receive", receive)
    bland.account.add({"id": "conv_1"})
    assert post().status_code == 200
    assert found == [False]
    assert WebhookDelivery.objects.get().state == State.PROCESSED


def test_webhook__keeps_nothing_that_people_wrote(bland: BlandSandbox) -> None:
    post(body_of(message="My PIN is 4711", phone_number="+15550100001", variables={"pin": 4711}))
    kept = str(list(WebhookDelivery.objects.values()))
    assert "PIN" not in kept
    assert "4711" not in kept.replace(hashlib.sha256(b"").hexdigest(), "")
    assert "5550100001" not in kept


def test_webhook__same_body_again(bland: BlandSandbox) -> None:
    bland.account.add({"id": "conv_1"})
    assert {post().status_code for _ in range(100)} == {200}
    assert WebhookDelivery.objects.count() == 1
    assert gets(bland) == 1
    minutes_pass(60 * 24 * 5)
    assert post().status_code == 200  # replayed days later
    assert gets(bland) == 1


def test_webhook__same_body_after_it_was_given_up(bland: BlandSandbox) -> None:
    bland.faults.add("conv_1", "400")
    assert post().status_code == 200
    assert states() == ["failed"]
    bland.faults.clear()
    bland.account.add({"id": "conv_1"})
    minutes_pass()
    assert post().status_code == 200
    delivery = WebhookDelivery.objects.get()
    assert (delivery.state, delivery.error, delivery.attempts) == (State.PROCESSED, "", 0)
    assert gets(bland) == 2


def test_webhook__without_the_slash(bland: BlandSandbox) -> None:
    bland.account.add({"id": "conv_1"})
    body = body_of()
    headers = {"X-Webhook-Signature": sign(body)}
    answer = Client().post(ADDRESS[:-1], body, content_type=JSON, headers=headers)
    assert (answer.status_code, answer["Content-Length"]) == (200, "0")
    assert states() == ["processed"]


@pytest.mark.parametrize(
    "told",
    [
        {"call_id": "c1", "to": "+15550100001", "concatenated_transcript": "Hello"},
        {"call_id": None, "conversation_id": ""},
        {"c_id": "c1", "completed": True},
        {"event_type": "multiple", "contents": [{"call_id": "c1"}]},
    ],
)
def test_webhook__about_phone_calls_is_counted(told: dict[str, Any], bland: BlandSandbox) -> None:
    for number in range(5):
        assert post(json.dumps({**told, "number": number}).encode()).status_code == 200
    delivery = WebhookDelivery.objects.get()
    assert (delivery.kind, delivery.count, delivery.state) == ("call", 5, State.IGNORED)
    assert not bland.log


def test_webhook__call_that_names_a_conversation(bland: BlandSandbox) -> None:
    bland.account.add({"id": "conv_1"})
    assert post(body_of(call_id="c1")).status_code == 200
    assert states() == ["processed"]


@pytest.mark.parametrize("place", ["conversation_id", "type", "status", "reason", "\0", "call_id"])
def test_webhook__nul_anywhere(place: str, bland: BlandSandbox) -> None:
    bland.account.add({"id": "conv_1"})
    told = {"conversation_id": "conv_1", "status": "ended", place: "conv_1\0"}
    assert post(json.dumps(told).encode()).status_code == 200
    assert post(json.dumps(told).encode().replace(b"\\u0000", b"\0")).status_code == 400
    assert "\0" not in str(list(WebhookDelivery.objects.values()))


def test_webhook__flood(bland: BlandSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view.throttle, "_per_second", 0.0)
    monkeypatch.setattr(view, "receive", lambda body, told: None)
    bodies = [body_of(number=number) for number in range(1000)]
    with CaptureQueriesContext(connection) as queries:
        answers = [post(body) for body in bodies]
    statuses = [answer.status_code for answer in answers]
    assert statuses == [200] * 500 + [429] * 500
    assert answers[-1]["Retry-After"] == "1"
    assert not queries
    assert post(signature="forged").status_code == 403  # who is not Bland learns nothing
    monkeypatch.setattr(view.throttle, "_per_second", view.PER_SECOND)
    view.throttle._counted_at -= 1.0
    assert [post(body).status_code for body in bodies[:102]].count(200) >= 100


def test_webhook__forged_ones_take_nothing_from_the_throttle(bland: BlandSandbox) -> None:
    for _ in range(600):
        assert post(signature="f" * 64).status_code == 403
    assert post().status_code == 200


@pytest.mark.parametrize("error", [OperationalError, DatabaseError])
def test_webhook__database_is_away(
    error: type[Exception], bland: BlandSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*args: Any, **kwargs: Any) -> Any:
        raise error("gone")

    with monkeypatch.context() as patched:
        patched.setattr(WebhookDelivery, "save", away)
        answer = post()
        assert (answer.status_code, answer.content) == (503, b"")
    bland.account.add({"id": "conv_1"})
    assert post().status_code == 200  # Bland sends it again
    assert Conversation.objects.count() == 1


ALLOWED = {200, 400, 401, 403, 405, 413, 415, 429, 503}


@pytest.mark.slow
def test_webhook__five_thousand_random_requests(
    bland: BlandSandbox, set_bland: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(view.throttle, "_per_second", 0.0)
    set_bland(WEBHOOK_SECRETS=[SECRET, OTHER_SECRET], API_KEY="", WEBHOOK_MAX_BYTES=5000)
    dice = random.Random(4711)
    statuses: dict[int, int] = {}
    client = Client()
    for number in range(5000):
        if number % 2500 == 0:
            view.throttle.fill()
        body = random_body(dice)
        answer = client.generic(
            dice.choices(["POST", "GET", "PUT", "HEAD", "OPTIONS", "BREW"], [20, 1, 1, 1, 1, 1])[0],
            ADDRESS,
            body,
            content_type=random_type(dice),
            headers=random_headers(dice, body),
        )
        statuses[answer.status_code] = statuses.get(answer.status_code, 0) + 1
    assert set(statuses) <= ALLOWED
    assert set(statuses) >= {200, 400, 401, 403, 405, 413, 415, 429}
    assert WebhookDelivery.objects.count() <= statuses[200]


def random_text(dice: random.Random, most: int = 40) -> str:
    ranges = [(0x20, 0x7E), (0, 0x1F), (0xA0, 0xFF), (0x660, 0x669), (0x1F600, 0x1F64F)]
    return "".join(chr(dice.randint(*dice.choice(ranges))) for _ in range(dice.randint(0, most)))


def random_value(dice: random.Random, depth: int = 0) -> Any:
    plain: list[Callable[[], Any]] = [
        lambda: random_text(dice),
        lambda: dice.choice([None, True, False, 0, -1, 10**30, 1.5, float("nan"), "\ud800", "\0"]),
        lambda: dice.choice(["ended", "conv_1", "../x", "conv_" + "9" * 200, "status"]),
    ]
    if depth < 3:
        plain.append(lambda: [random_value(dice, depth + 1) for _ in range(dice.randint(0, 3))])
        plain.append(lambda: random_object(dice, depth + 1))
    return dice.choice(plain)()


def random_object(dice: random.Random, depth: int = 0) -> dict[str, Any]:
    names = ["conversation_id", "type", "status", "reason", "status_reason", "sender", "message"]
    return {
        dice.choice([*names, *names, random_text(dice, 5)]): random_value(dice, depth + 1)
        for _ in range(dice.randint(0, 6))
    }


def random_body(dice: random.Random) -> bytes:
    kind = dice.randint(0, 9)
    if kind < 5:
        return json.dumps(random_object(dice)).encode()
    if kind < 7:
        return body_of(f"conv_{dice.randint(1, 5)}", number=dice.random())
    if kind == 7:
        return dice.randbytes(dice.choice([0, 1, 50, 4999, 5000, 5001, 8000]))
    return json.dumps(random_value(dice)).encode()[: dice.randint(0, 300)]


def random_type(dice: random.Random) -> str:
    odd = ["", "text/plain", "application/json; charset=utf-16", "application/json; charset=x y"]
    return dice.choice([JSON] * 8 + [*odd, random_header(dice).replace("\0", "")])


def random_header(dice: random.Random, most: int = 40) -> str:
    """Bytes as a WSGI server hands them over."""
    return random_text(dice, most).encode().decode("latin-1")


def random_headers(dice: random.Random, body: bytes) -> dict[str, str]:
    headers = {}
    kind = dice.randint(0, 9)
    if kind < 6:
        headers["X-Webhook-Signature"] = sign(body, dice.choice([SECRET, OTHER_SECRET]))
    elif kind < 8:
        headers["X-Webhook-Signature"] = dice.choice(
            [random_header(dice, 100), sign(body).upper(), "sha256=" + sign(body), sign(body, "x")]
        )
    if dice.random() < 0.1:
        headers["Content-Length"] = dice.choice(["0", "-5", "x", "99999", "10" * 30, "\u0665"])
    if dice.random() < 0.1:
        headers[dice.choice(["Transfer-Encoding", "Expect", "Cookie", "Authorization"])] = (
            random_header(dice)
        )
    return headers


# --- what is read -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "kind", "status", "reason"),
    [
        ({}, "message", "", ""),
        ({"sender": "USER", "message": "Hello", "status": "delivered"}, "message", "", ""),
        ({"sender": "AGENT", "chat_history": []}, "message", "", ""),
        ({"type": "status", "status": "ended"}, "status", "ended", ""),
        ({"type": "status", "status": "ended", "conversation_history": []}, "status", "ended", ""),
        ({"type": "status", "status": "read", "message": "x"}, "status", "read", ""),
        ({"status": "timeout"}, "status", "timeout", ""),
        ({"status": "something_new", "chat_history": []}, "status", "something_new", ""),
        ({"type": "status"}, "status", "", ""),
        ({"type": "status", "status": 7}, "status", "", ""),
        ({"type": "status", "status": "x" * 999}, "status", "x" * 64, ""),
        ({"status": "ended", "reason": "End node"}, "status", "ended", "End node"),
        ({"status": "ended", "status_reason": "Closed"}, "status", "ended", "Closed"),
        ({"status": "ended", "reason": "", "status_reason": "B"}, "status", "ended", "B"),
        ({"status": "ended", "reason": ["A"]}, "status", "ended", ""),
        ({"status": "ended", "reason": "a\0b" + "c" * 999}, "status", "ended", "ab" + "c" * 198),
        ({"status": "ended", "reason": "\ud800x"}, "status", "ended", "\ufffdx"),
    ],
)
def test_webhook__reading(
    told: dict[str, Any], kind: str, status: str, reason: str, bland: BlandSandbox
) -> None:
    bland.account.add({"id": "conv_1"})
    assert post(json.dumps({"conversation_id": "conv_1", **told}).encode()).status_code == 200
    delivery = WebhookDelivery.objects.get()
    assert (delivery.kind, delivery.status, delivery.reason) == (kind, status, reason)
    assert delivery.state == State.PROCESSED
    assert gets(bland, "conv_1") == 1


@pytest.mark.parametrize(
    "conversation_id", [None, "", 7, [], "..", "a#b", "a/b", "a?x=1", " conv_1", "x" * 129, "é"]
)
def test_webhook__id_that_can_be_none(conversation_id: Any, bland: BlandSandbox) -> None:
    assert post(body_of(conversation_id)).status_code == 200
    delivery = WebhookDelivery.objects.get()
    assert (delivery.conversation_id, delivery.state) == ("", State.IGNORED)
    assert not bland.log


STATUSES = ["ended", "timeout", "blacklisted", "inactive", "human_handoff", "human_handoff_ended"]


@pytest.mark.parametrize("status", [*STATUSES, "read", "link_clicked", "active", "never_heard_of"])
@pytest.mark.parametrize("is_active", [True, False])
def test_webhook__status_is_never_a_state(
    status: str, is_active: bool, bland: BlandSandbox
) -> None:
    bland.account.add({"id": "conv_1", "is_active": is_active})
    body = {"type": "status", "status": status, "conversation_id": "conv_1", "is_active": True}
    assert post(json.dumps(body).encode()).status_code == 200
    assert Conversation.objects.get().is_active is is_active


# --- one copy for many ------------------------------------------------------------------------


@pytest.fixture
def waiting(bland: BlandSandbox, set_bland: Any) -> Callable[..., list[WebhookDelivery]]:
    """Deliveries that came and that nobody has looked at."""

    def make(*conversation_ids: str, **values: Any) -> list[WebhookDelivery]:
        made = []
        for conversation_id in conversation_ids:
            number = WebhookDelivery.objects.count()
            made.append(
                WebhookDelivery.objects.create(
                    body_sha256=f"{number:064d}", conversation_id=conversation_id, **values
                )
            )
            bland.account.rows.get(conversation_id) or bland.account.add({"id": conversation_id})
        return made

    return make


Waiting = Callable[..., list[WebhookDelivery]]


def states() -> list[str]:
    return list(WebhookDelivery.objects.order_by("pk").values_list("state", flat=True))


def test_process__one_copy_serves_all_that_came_before(
    bland: BlandSandbox, waiting: Waiting
) -> None:
    several = waiting("conv_1", "conv_1", "conv_2", "conv_1")
    assert copying.process(several[1]) is True
    assert states() == ["processed", "processed", "received", "processed"]
    assert (gets(bland, "conv_1"), gets(bland, "conv_2")) == (1, 0)
    assert copying.process(several[0]) is True
    assert gets(bland) == 1


def test_process__one_that_came_while_bland_was_asked_is_not_served(
    bland: BlandSandbox, waiting: Waiting, monkeypatch: pytest.MonkeyPatch
) -> None:
    [first] = waiting("conv_1")
    real = copying.refresh

    def slow(*args: Any, **kwargs: Any) -> Any:
        outcome = real(*args, **kwargs)
        waiting("conv_1")
        return outcome

    monkeypatch.setattr(copying, "refresh", slow)
    assert copying.process(first) is True
    assert states() == ["processed", "received"]


def test_process__at_most_once_a_minute(bland: BlandSandbox, waiting: Waiting) -> None:
    [first] = waiting("conv_1")
    copying.process(first)
    second, third = waiting("conv_1", "conv_1")
    assert copying.process(second) is False
    assert copying.process(third) is False
    assert gets(bland) == 1
    second.refresh_from_db()
    first.refresh_from_db()
    assert first.asked_at is not None
    assert second.not_before == first.asked_at + timedelta(minutes=1)
    assert copying.process_waiting().processed == 0
    minutes_pass()
    assert copying.process_waiting().processed == 2
    assert gets(bland) == 2
    assert states() == ["processed"] * 3


@pytest.mark.slow
def test_process__flood_of_one_conversation(bland: BlandSandbox) -> None:
    bland.account.add({"id": "conv_1"})
    for number in range(300):
        assert post(body_of(number=number)).status_code == 200
    assert gets(bland) == 1
    bland.account.set_active("conv_1", False)
    minutes_pass()
    copying.process_waiting()
    assert gets(bland) == 2
    assert Conversation.objects.get().is_active is False
    assert set(states()) == {"processed"}


@pytest.mark.parametrize("hours", [-24, 24])
def test_process__another_machines_clock_is_wrong_by_a_day(
    hours: int, bland: BlandSandbox, waiting: Waiting
) -> None:
    now = timezone.now()
    waiting("conv_1", state=State.PROCESSED, asked_at=now + timedelta(hours=hours), received_at=now)
    [late] = waiting("conv_1", received_at=now - timedelta(hours=hours))
    assert copying.process(late) is True
    assert gets(bland) == 1


@pytest.mark.parametrize(
    "values",
    [
        {"asked_at": 1},
        {"asked_at": 60 * 24},
        {"not_before": 180, "put_off_at": 179},
        {"not_before": 60 * 24 * 30},
        {"lease_until": 180},
        {"asked_at": 180, "not_before": 181, "put_off_at": 180, "lease_until": 182},
        {"received_at": 180},
    ],
)
def test_process__times_ahead_of_now_hold_nothing_up(
    values: dict[str, int], bland: BlandSandbox, waiting: Waiting
) -> None:
    """A machine whose clock was ahead wrote them, in minutes from now, and died."""
    now = timezone.now()
    times = {name: now + timedelta(minutes=minutes) for name, minutes in values.items()}
    claimed = {"claimed_conversation": "conv_1"} if "lease_until" in values else {}
    waiting("conv_1", **times, **claimed)
    assert copying.process_waiting().processed == 1
    assert gets(bland) == 1


def test_process__pause_that_bland_asked_for_is_kept(waiting: Waiting) -> None:
    now = timezone.now()
    waiting("conv_1", not_before=now + timedelta(hours=20), put_off_at=now)
    assert copying.process_waiting() == copying.Worked()


@pytest.mark.parametrize("others", [0, 3])
def test_process__copy_refused_because_of_a_clock(
    others: int, bland: BlandSandbox, waiting: Waiting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is stored is dated ahead of now and stays: the newer transcript is not there."""
    waiting(*[f"conv_{number}" for number in range(others + 1)])
    held_up = copying._held_up

    def refuse(conversation_ids: Any) -> set[str]:
        ahead = timezone.now() + timedelta(minutes=5)
        Conversation.objects.filter(pk="conv_0").update(transcript_observed_at=ahead)
        return held_up(conversation_ids)

    monkeypatch.setattr(copying, "_held_up", refuse)
    worked = copying.process_waiting()
    assert (worked.processed, worked.put_off) == (others, 1)
    delivery = WebhookDelivery.objects.get(conversation_id="conv_0")
    assert (delivery.state, delivery.error, delivery.attempts) == (State.RECEIVED, "wrong_clock", 0)


def test_process__somebody_is_at_it(bland: BlandSandbox, waiting: Waiting) -> None:
    taken, mine = waiting("conv_1", "conv_1")
    WebhookDelivery.objects.filter(pk=taken.pk).update(
        claimed_conversation="conv_1", lease_until=timezone.now() + timedelta(seconds=30)
    )
    assert copying.process(mine) is False
    assert copying.process(taken) is False
    assert copying.process_waiting().processed == 0
    assert not bland.log
    minutes_pass()
    assert copying.process_waiting().processed == 2


@pytest.mark.django_db(transaction=True)
def test_process__many_threads(bland: BlandSandbox, waiting: Waiting) -> None:
    bland.latency_seconds = 0.05
    several = waiting(*["conv_1"] * 8)
    barrier = threading.Barrier(8)

    def go(delivery: WebhookDelivery) -> None:
        try:
            barrier.wait(60)
            copying.process(delivery)
        finally:
            connection.close()

    threads = [threading.Thread(target=go, args=[delivery]) for delivery in several]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert gets(bland) == 1
    assert set(states()) == {"processed"}


def dies_while_it_copies(*deliveries: WebhookDelivery) -> None:
    """A process claims these, and is killed; and then its leases end."""
    WebhookDelivery.objects.filter(pk__in=[delivery.pk for delivery in deliveries]).update(
        lease_token=None
    )
    for delivery in deliveries:
        claimed = claims._take(delivery)
        assert claimed is not None
    minutes_pass(3)


def test_process__crash_is_not_charged(bland: BlandSandbox, waiting: Waiting) -> None:
    [delivery] = waiting("conv_1")
    for _ in range(claims.MOST_CRASHES - 1):
        dies_while_it_copies(WebhookDelivery.objects.get())
        copying.recover()
    delivery.refresh_from_db()
    assert (delivery.attempts, delivery.crashes) == (0, claims.MOST_CRASHES - 1)
    assert copying.process(delivery) is True
    assert states() == ["processed"]


def test_process__no_process_survives_it(bland: BlandSandbox, waiting: Waiting) -> None:
    waiting("conv_1", "conv_2")
    for _ in range(claims.MOST_CRASHES):
        poison = WebhookDelivery.objects.get(conversation_id="conv_1")
        dies_while_it_copies(poison)
        copying.recover()
    worked = copying.process_waiting()
    assert states() == ["failed", "processed"]
    poison.refresh_from_db()
    assert poison.error == "interrupted"
    assert worked.processed == 1
    assert gets(bland, "conv_1") == 0
    [again] = waiting("conv_1")
    assert [len(some) for some in portions()] == [1]
    assert copying.process(again) is True


def portions() -> list[list[WebhookDelivery]]:
    return list(claims.due_portions(None, size=32, first=32, most=None))


def test_process_waiting__after_a_crash_one_by_one(bland: BlandSandbox, waiting: Waiting) -> None:
    """Nine processes die in the middle of a portion: nothing is lost."""
    waiting(*[f"conv_{number}" for number in range(40)])
    for _ in range(9):
        for portion in portions()[:1]:
            dies_while_it_copies(*portion)
        assert copying.recover() == []
    assert [len(some) for some in portions()] == [1] * 40
    crashes = [some[0].crashes for some in portions()]
    assert crashes == sorted(crashes)
    assert copying.process_waiting().processed == 40


def test_process__in_a_transaction(bland: BlandSandbox, waiting: Waiting) -> None:
    [delivery] = waiting("conv_1")
    copying.process(delivery)
    bland.log.clear()
    with transaction.atomic(), pytest.raises(RuntimeError):
        copying.process(delivery)  # although there is nothing to do
    with transaction.atomic(), pytest.raises(RuntimeError):
        copying.process_waiting()
    assert not bland.log


# --- when Bland does not answer ---------------------------------------------------------------


def test_process__not_found(bland: BlandSandbox, waiting: Waiting) -> None:
    [delivery] = waiting("conv_1")
    copying.process(delivery)
    del bland.account.rows["conv_1"]
    minutes_pass()
    [again] = waiting("conv_1")
    del bland.account.rows["conv_1"]
    assert copying.process(again) is True
    again.refresh_from_db()
    assert (again.state, again.error) == (State.PROCESSED, "CONVERSATION_NOT_FOUND")
    assert Conversation.objects.get().missing_since is not None


@pytest.mark.usefixtures("no_waiting")
@pytest.mark.parametrize(
    ("fault", "code", "seconds"),
    [
        ("500", "ERROR_UPDATING_CONVERSATION", 60),
        ("429:120", "http_429", 120),
        ("429:999999", "http_429", 24 * 3600),
        ("reset_before", "no_answer", 60),
        ("bad_json", "bad_answer", 60),
        ("wrong_id", "bad_answer", 60),
    ],
)
def test_process__failure_that_may_pass(
    fault: str, code: str, seconds: int, bland: BlandSandbox, waiting: Waiting
) -> None:
    [delivery] = waiting("conv_1")
    bland.faults.add("conv_1", f"forever:{fault}")
    pause, before = timedelta(seconds=seconds), timezone.now()
    assert copying.process(delivery) is False
    after = timezone.now()
    delivery.refresh_from_db()
    assert (delivery.state, delivery.attempts, delivery.error) == (State.RECEIVED, 1, code)
    assert delivery.claimed_conversation is None
    assert delivery.not_before is not None
    assert before + pause <= delivery.not_before <= after + pause
    bland.faults.clear()
    minutes_pass(60 * 24)
    assert copying.process_waiting().processed == 1
    delivery.refresh_from_db()
    assert (delivery.state, delivery.error) == (State.PROCESSED, "")


@pytest.mark.usefixtures("no_waiting")
def test_process__new_one_does_not_shorten_a_pause(bland: BlandSandbox, waiting: Waiting) -> None:
    [first] = waiting("conv_1")
    bland.faults.add("conv_1", "429:3600")
    copying.process(first)
    [second] = waiting("conv_1")
    assert copying.process(second) is False
    first.refresh_from_db()
    second.refresh_from_db()
    assert first.not_before is not None
    assert first.not_before > timezone.now() + timedelta(minutes=50)
    assert second.not_before is not None
    assert second.not_before < timezone.now() + timedelta(minutes=2)


@pytest.mark.usefixtures("no_waiting")
def test_process__gives_up_in_the_end(bland: BlandSandbox, waiting: Waiting) -> None:
    waiting("conv_1", "conv_1")
    bland.faults.add("conv_1", "forever:500")
    pauses = []
    for _ in range(settling.MOST_ATTEMPTS):
        worked = copying.process_waiting()
        delivery = WebhookDelivery.objects.first()
        assert delivery is not None
        if delivery.not_before is not None:
            pauses.append(round((delivery.not_before - timezone.now()).total_seconds() / 60))
        minutes_pass(61)
    assert pauses == [1, 2, 4, 8, 16, 32, 60]
    codes = {pk: failure.code for pk, failure in worked.failed.items()}
    assert codes == {"conv_1": "ERROR_UPDATING_CONVERSATION"}
    assert states() == ["failed", "failed"]
    assert copying.process_waiting() == copying.Worked()


@pytest.mark.slow
@pytest.mark.usefixtures("no_waiting", "impatient")
@pytest.mark.parametrize("fault", ["500", "reset_before", "hang_before:60", "429", "429:600"])
def test_process_waiting__dead_bland_costs_little(
    fault: str, bland: BlandSandbox, waiting: Waiting
) -> None:
    waiting(*[f"conv_{number}" for number in range(300)])
    bland.faults.add("*", f"forever:{fault}")
    worked = copying.process_waiting()
    assert worked.is_outage
    assert worked.processed == 0
    assert 3 <= gets(bland) <= 120
    assert set(WebhookDelivery.objects.values_list("attempts", flat=True)) == {0}
    first = gets(bland)
    for _ in range(20):  # a service that looks every few seconds
        copying.process_waiting()
        copying.process(WebhookDelivery.objects.order_by("?")[0])
    assert gets(bland) == first
    for _ in range(5):
        minutes_pass(0.2)
        copying.process_waiting()
    assert gets(bland) - first <= 5  # one conversation is tried, once
    bland.faults.clear()
    for _ in range(100):
        minutes_pass(16)
        copying.process_waiting()
        if set(states()) == {"processed"}:
            break
    assert set(states()) == {"processed"}


@pytest.mark.usefixtures("no_waiting")
def test_process_waiting__one_that_fails_is_no_outage(
    bland: BlandSandbox, waiting: Waiting
) -> None:
    ids = [f"conv_{number}" for number in range(50)]
    waiting(*ids)
    for conversation_id in ids[:6]:
        bland.faults.add(conversation_id, "forever:500")
    worked = copying.process_waiting()
    assert (worked.processed, worked.put_off, worked.is_outage) == (44, 6, False)
    failed = WebhookDelivery.objects.filter(state=State.RECEIVED)
    assert set(failed.values_list("attempts", flat=True)) == {1}


@pytest.mark.parametrize("fault", ["400", "422"])
def test_process__refused_for_good(fault: str, bland: BlandSandbox, waiting: Waiting) -> None:
    waiting("conv_1", "conv_2")
    bland.faults.add("conv_1", fault)
    worked = copying.process_waiting()
    assert worked.processed == 1
    assert list(worked.failed) == ["conv_1"]
    assert states() == ["failed", "processed"]


@pytest.mark.parametrize("fault", ["401", "403", "404_route"])
def test_process__bad_key_stops_everything(
    fault: str, bland: BlandSandbox, waiting: Waiting, set_bland: Any
) -> None:
    set_bland(MAX_CONCURRENCY=1)
    waiting(*[f"conv_{number}" for number in range(100)])
    bland.faults.add("*", f"forever:{fault}")
    worked = copying.process_waiting()
    assert worked.stop is not None
    assert gets(bland) == 1
    assert set(states()) == {"received"}
    assert set(WebhookDelivery.objects.values_list("attempts", flat=True)) == {0}
    assert WebhookDelivery.objects.exclude(error="").count() == 1
    bland.faults.clear()
    minutes_pass()
    assert copying.process_waiting().processed == 100


def test_process__without_a_key(bland: BlandSandbox, waiting: Waiting, set_bland: Any) -> None:
    set_bland(API_KEY="")
    waiting("conv_1", "conv_2")
    worked = copying.process_waiting()
    assert "API_KEY" in str(worked.stop)
    assert set(states()) == {"received"}
    delivery = WebhookDelivery.objects.first()
    assert delivery is not None
    assert (delivery.attempts, delivery.error) == (0, "not_configured")


@pytest.mark.parametrize("others", [0, 3])
def test_process__row_that_the_database_refuses(
    others: int, bland: BlandSandbox, waiting: Waiting, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bland_sms.sync import refreshing

    real = refreshing.apply_page

    def apply(payloads: Any, **kwargs: Any) -> Any:
        if any(payload.id == "conv_0" for payload in payloads):
            raise DatabaseError("invalid byte sequence")
        return real(payloads, **kwargs)

    monkeypatch.setattr(refreshing, "apply_page", apply)
    waiting(*[f"conv_{number}" for number in range(others + 1)])
    worked = copying.process_waiting()
    assert (worked.processed, worked.put_off) == (others, 1)
    poison = WebhookDelivery.objects.get(conversation_id="conv_0")
    assert (poison.state, poison.error, poison.attempts) == (State.RECEIVED, "not_stored", 1)


def test_process_waiting__side_by_side(bland: BlandSandbox, waiting: Waiting) -> None:
    bland.latency_seconds = 0.3
    waiting(*[f"conv_{number}" for number in range(40)])
    begun = timezone.now()
    assert copying.process_waiting().processed == 40
    assert (timezone.now() - begun).total_seconds() < 40 * 0.3
    assert Conversation.objects.count() == 40


def test_process_waiting__many_of_one_conversation(
    bland: BlandSandbox, waiting: Waiting, django_assert_max_num_queries: Any
) -> None:
    waiting(*["conv_1"] * 150)
    with django_assert_max_num_queries(40):
        assert copying.process_waiting().processed == 150


@pytest.mark.slow
def test_process_waiting__in_time(
    bland: BlandSandbox, waiting: Waiting, set_bland: Callable[..., None]
) -> None:
    set_bland(READ_TIMEOUT=5)
    bland.latency_seconds = 0.1
    waiting(*[f"conv_{number}" for number in range(400)])
    worked = copying.process_waiting(seconds=2.0)
    assert worked.processed < 400
    assert worked.failed == {}
    left = WebhookDelivery.objects.filter(state=State.RECEIVED)
    assert left.count() == 400 - worked.processed
    assert not left.exclude(claimed_conversation=None).exists()
    assert not left.exclude(attempts=0).exists()
    bland.latency_seconds = 0
    assert copying.process_waiting().processed == 400 - worked.processed  # no minute later


def test_process_waiting__stopped(bland: BlandSandbox, waiting: Waiting) -> None:
    waiting(*[f"conv_{number}" for number in range(100)])
    stopped = threading.Event()
    stopped.set()
    copying.process_waiting(stopped=stopped)
    assert gets(bland) <= copying.AT_ONCE


# --- who does it ------------------------------------------------------------------------------


@pytest.fixture
def kept_connection() -> Iterator[None]:
    """The end of a request closes its database connection, which is the test's own here."""
    request_finished.disconnect(close_old_connections)
    yield
    request_finished.connect(close_old_connections)


@pytest.mark.usefixtures("kept_connection")
def test_webhook__answers_before_it_works(
    bland: BlandSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "SPACING", timedelta(0))
    bland.account.add({"id": "conv_1"})
    body = body_of()
    request = arrived(
        io.BytesIO(body), CONTENT_LENGTH=str(len(body)), HTTP_X_WEBHOOK_SIGNATURE=sign(body)
    )
    answer = view.webhook(request)
    assert answer.status_code == 200
    assert not bland.log
    answer.close()
    WebhookDelivery.objects.update(state=State.RECEIVED)
    answer.close()  # a second time, as some middleware does
    assert gets(bland) == 1


def test_webhook__is_found_wherever_the_app_is_mounted(bland: BlandSandbox) -> None:
    from django.urls import reverse

    assert reverse("bland_sms:webhook") == ADDRESS


dispatched: list[tuple[str, int]] = []


def dispatch_to_somebody(kind: str, pk: int) -> None:
    dispatched.append((kind, pk))


def dispatch_to_nobody(kind: str, pk: int) -> bool:
    return False


def dispatch_into_a_queue_that_is_down(kind: str, pk: int) -> None:
    raise ConnectionRefusedError


@pytest.fixture
def dispatch_to(set_bland: Any) -> Iterator[Callable[[Callable[..., Any]], None]]:
    dispatched.clear()
    yield lambda function: set_bland(DISPATCH=f"{__name__}.{function.__name__}")
    dispatched.clear()


def test_webhook__somebody_else_does_it(bland: BlandSandbox, dispatch_to: Any) -> None:
    dispatch_to(dispatch_to_somebody)
    bland.account.add({"id": "conv_1"})
    assert post().status_code == 200
    delivery = WebhookDelivery.objects.get()
    assert dispatched == [("delivery", delivery.pk)]
    assert not bland.log
    tasks.work("delivery", delivery.pk)
    tasks.work("delivery", delivery.pk)
    assert gets(bland) == 1
    assert states() == ["processed"]


def test_webhook__duplicate_is_not_dispatched(bland: BlandSandbox, dispatch_to: Any) -> None:
    dispatch_to(dispatch_to_somebody)
    post()
    post()
    post(body_of(".."))
    assert len(dispatched) == 1


@pytest.mark.parametrize("function", [dispatch_to_nobody, dispatch_into_a_queue_that_is_down])
def test_webhook__nobody_else_does_it(
    function: Callable[..., Any], bland: BlandSandbox, dispatch_to: Any
) -> None:
    dispatch_to(function)
    bland.account.add({"id": "conv_1"})
    assert post().status_code == 200
    assert states() == ["processed"]


def test_work__delivery_that_is_gone(db: None) -> None:
    tasks.work("delivery", 4711)


def test_webhook__copying_that_fails_changes_no_answer(
    bland: BlandSandbox, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*args: Any, **kwargs: Any) -> bool:
        raise ZeroDivisionError

    monkeypatch.setattr(webhooks, "process_waiting", broken)
    assert post().status_code == 200
    assert states() == ["received"]
    assert "left for later" in caplog.text


def test_webhook__no_longer_than_it_may(
    bland: BlandSandbox, set_bland: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_bland(READ_TIMEOUT=15)
    monkeypatch.setattr(background, "PASS_SECONDS", 0.5)
    bland.account.add({"id": "conv_1"})
    bland.faults.add("conv_1", "hang_before:30")
    begun = timezone.now()
    assert post().status_code == 200
    assert (timezone.now() - begun).total_seconds() < 10
    assert states() == ["received"]


def test_webhook__what_waits_is_copied_as_well(bland: BlandSandbox, waiting: Waiting) -> None:
    waiting(*[f"old_{number}" for number in range(6)])
    bland.account.add({"id": "conv_1"})
    assert post().status_code == 200
    assert set(states()) == {"processed"}


# --- signal -----------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_webhook_received(bland: BlandSandbox, caplog: pytest.LogCaptureFixture) -> None:
    bland.account.add({"id": "conv_1"})
    heard: list[tuple[str, str]] = []

    def listen(sender: Any, delivery: WebhookDelivery, **kwargs: Any) -> None:
        heard.append(("recorded", delivery.conversation_id))

    def copied(sender: Any, conversation_id: str, **kwargs: Any) -> None:
        heard.append(("copied", conversation_id))

    def fail(sender: Any, **kwargs: Any) -> None:
        raise ZeroDivisionError

    webhook_received.connect(fail)
    webhook_received.connect(listen)
    conversation_created.connect(copied)
    try:
        assert post().status_code == 200
        assert post().status_code == 200
        assert post(signature="forged").status_code == 403
    finally:
        webhook_received.disconnect(fail)
        webhook_received.disconnect(listen)
        conversation_created.disconnect(copied)
    assert heard == [("recorded", "conv_1"), ("copied", "conv_1")]
    assert "ZeroDivisionError" in caplog.text

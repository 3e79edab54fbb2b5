"""Answers that Bland would never give, and might: for every door of ours.

``answers()`` yields the same ones each time. A door is tested against each of them by four laws: no
lie, no error of our own, other rows go on, and no secret and no number outside its place::

    for answer in hostile.answers():
        sandbox.faults.add("PATCH conv_1", *[answer.fault] * 3)
"""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

KEY = "org_test_key_000000"
NUMBER = "+15557654321"
ADDRESS = "ann.other@example.com"
MIB = 1024 * 1024

CONVERSATION: dict[str, Any] = {
    "id": "conv_1",
    "is_active": False,
    "created_at": "2026-01-02T03:04:05.000Z",
    "updated_at": "2026-01-02T03:04:05.000Z",
    "user_number": "+15550100001",
    "agent_number": "+15550100002",
    "timed_out_at": None,
    "ended_by_end_call_node": False,
    "message_count": 1,
    "last_message": "ok",
    "last_message_at": "2026-01-02T03:04:05.000Z",
    "last_message_timestamp": "2026-01-02T03:04:05.000Z",
    "effective_channel": "sms",
    "channel": "sms",
    "curr_pathway_id": "p1",
    "pathway_id": "p1",
    "curr_pathway_version": "1",
    "pathway_version": "1",
    "current_node_id": "n1",
    "summary": None,
    "disposition_tag": None,
    "variables": {"k": "v"},
    "human_handoff_at": None,
    "new_field": [],
}
MESSAGE: dict[str, Any] = {
    "id": "SM1",
    "created_at": "2026-01-02T03:04:05.000Z",
    "sender": "USER",
    "message": "ok",
    "text": "ok",
    "status": "delivered",
    "error_code": None,
    "attachments": None,
    "media_url": None,
    "app_card": None,
    "from": "+15550100001",
}
ODD_VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, 2**70, 1e300, 0.5, "", " ", "x", "true", "0", "\u0000\ud800"),
    *([], {}, [None], {"a": 1}, "9999-12-31T23:59:59Z", 1_767_323_045, "z" * 70_000),
]
RETRY_AFTER = [
    *(
        "0",
        "1e9",
        "-1",
        "nan",
        "inf",
        "999999999999",
        "9" * 400,
        "1796000000",
        "",
        "soon",
        "\u00b2",
    ),
    *(
        "Wed, 01 Mar 2999 12:00:07 GMT",
        "Fri, 31 Dec 9999 23:59:59 GMT",
        "Sun, 99 Mar 2020 1:2:3 GMT",
    ),
]


@dataclass(frozen=True)
class Hostile:
    """One answer."""

    description: str
    status: int = 200
    body: bytes = b""
    headers: dict[str, Any] = field(default_factory=dict)
    """A value that is a list is sent as often."""

    @property
    def fault(self) -> dict[str, Any]:
        """The same for ``sandbox.faults.add``."""
        return {"status": self.status, "headers": self.headers, "body": self.body}


def pieces_of(secret: str, text: str) -> list[str]:
    """Eight characters of the secret in a row that are in the text, or encoded there."""
    pieces = {secret[begin : begin + 8].lower() for begin in range(len(secret) - 7)}
    raw = secret.encode()
    for begin in range(len(raw) - 7):
        pieces.add(raw[begin : begin + 8].hex())
        pieces.add(base64.b64encode(raw[begin : begin + 9]).decode()[:10].lower())
    return [piece for piece in pieces if piece in text.lower()]


def answers(*, seed: int = 0, key: str = KEY, conversation_id: str = "conv_1") -> Iterator[Hostile]:
    """All of them, in an order that depends on the seed, as do the random ones."""
    dice = random.Random(seed)
    found = [
        *_deep(),
        *_many(),
        *_long(),
        *_headers(),
        *_statuses(),
        *_echoes(key),
        *_numbers(),
        *_fields(conversation_id),
        *_random(dice, conversation_id),
    ]
    dice.shuffle(found)
    yield from found


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def update_of(conversation: Any) -> bytes:
    return _json({"message": "Conversation updated successfully", "conversation": conversation})


def detail_of(conversation: Any) -> bytes:
    return _json({"data": conversation, "errors": None})


def _deep() -> Iterator[Hostile]:
    for depth in (60, 65, 400, 1_100, 3_000, 100_000):
        for begin, end in ((b"[", b"]"), (b'{"a":', b"}")):
            inner = begin * depth + b"1" + end * depth
            for status in (200, 400, 502):
                yield Hostile(f"{depth} deep", status, inner)
                yield Hostile(f"errors {depth} deep", status, b'{"errors":' + inner + b"}")
            yield Hostile(f"data {depth} deep", 200, b'{"data":' + inner + b"}")
            yield Hostile(
                f"a field {depth} deep",
                200,
                b'{"data":{"id":"conv_1","is_active":false,"variables":' + inner + b"}}",
            )


def _many() -> Iterator[Hostile]:
    for item in (b"1", b"{}", b"[]", b'""'):
        for count in (20_000, 290_000, 2_000_000):
            inner = b"[" + b",".join([item] * count) + b"]"
            about = f"{count} times {item.decode()}"
            if len(inner) < MIB:
                yield Hostile(f"errors: {about}", 400, b'{"errors":' + inner + b"}")
            head = b'{"data":{"id":"conv_1","is_active":false,"messages":'
            yield Hostile(f"messages: {about}", 200, head + inner + b"}}")
            yield Hostile(f"rows: {about}", 200, b'{"data":' + inner + b"}")
    keys = {f"k{number}": number for number in range(50_000)}
    yield Hostile("keys", 200, detail_of({"id": "conv_1", "is_active": False, **keys}))


def _long() -> Iterator[Hostile]:
    for size in (MIB - 100, MIB + 1, 9 * MIB):
        yield Hostile(f"{size} bytes of text", 200, _json({"message": "x" * size}))
        yield Hostile(f"{size} bytes of html", 502, b"<p>" * (size // 3))
        yield Hostile(f"{size} escapes", 400, b"%41&amp;" * (size // 8))


def _headers() -> Iterator[Hostile]:
    body = update_of(CONVERSATION)
    size = str(len(body))
    for status in (200, 400, 404, 429, 503):
        for lengths in ([size, "7"], [f"{size}, 7"], [size, size]):
            yield Hostile(f"lengths {lengths}", status, body, {"Content-Length": lengths})
        for text in RETRY_AFTER:
            yield Hostile(f"retry after {text[:20]!r}", status, b"{}", {"Retry-After": text})
        for text in ("junk", "Fri, 31 Dec 9999 23:59:59 GMT", "0"):
            yield Hostile(f"dated {text}", status, body, {"Date": text})
        yield Hostile("two dates", status, body, {"Date": ["a", "b"]})
        yield Hostile("encoded", status, body, {"Content-Encoding": "gzip"})
        yield Hostile("cookies", status, body, {"Set-Cookie": ["a=b; expires=never"] * 50})
        yield Hostile("type", status, body, {"Content-Type": "application/xml; charset=utf-7"})
        yield Hostile("200 headers", status, body, {"X": ["y"] * 200})
        yield Hostile("a long header", status, body, {"X": "y" * 70_000})


def _statuses() -> Iterator[Hostile]:
    for length in ("-5", "1e3", "9" * 30):  # no end is known: until the read timeout
        yield Hostile(f"length {length}", 200, b"{}", {"Content-Length": length})
    for status in (
        102,
        103,
        201,
        202,
        204,
        206,
        226,
        299,
        300,
        304,
        307,
        308,
        402,
        418,
        451,
        499,
        599,
        600,
    ):
        yield Hostile(f"status {status}", status, update_of(CONVERSATION))
        yield Hostile(f"status {status}, empty", status)
    for status in (200, 400, 401, 403, 404, 408, 409, 429, 500, 503):
        for body in (
            b"",
            b"null",
            b"[]",
            b'"x"',
            b"\xff\xfe",
            b"{",
            b"NaN",
            b'{"a":1,"a":2}',
            b"1",
        ):
            yield Hostile(f"{status} {body!r}", status, body)


def _echoes(key: str) -> Iterator[Hostile]:
    ways = [key, key.upper(), quote(key), "".join(f"%{ord(char):02x}" for char in key)]
    ways += ["".join(f"&#{ord(char)};" for char in key), "".join(f"\\u{ord(c):04x}" for c in key)]
    ways += [base64.b64encode(f"{start}{key}".encode()).decode() for start in ("", "a", "ab")]
    ways.append(key.encode().hex())
    for offset in (0, 150, 180, 185, 190, 195, 199, 200, 3_950, 3_990):
        for way in ways:
            text = "." * offset + way
            yield Hostile("the key on a page", 502, f"<pre>{text}</pre>".encode())
            yield Hostile("the key in words", 400, _json({"message": text}))
            yield Hostile("the key in errors", 200, _json({"errors": [text]}))
    for begin in range(len(key) - 8):
        part = key[begin : begin + 9]
        yield Hostile(
            "a part of the key", 422, _json({"errors": [{"error": "A", "message": part}]})
        )
    yield Hostile("the key as code", 400, _json({"errors": [{"error": key, "message": key}]}))
    for status in (200, 400):
        yield Hostile("the key as a header", status, b"{}", {"Retry-After": key, "Date": key})
    for name in CONVERSATION:
        yield Hostile(f"the key as {name}", 200, detail_of({**CONVERSATION, name: key}))
    for name in MESSAGE:
        told = {**CONVERSATION, "messages": [{**MESSAGE, name: key}]}
        yield Hostile(f"the key as {name} of a message", 200, detail_of(told))
    yield Hostile("the key as a key", 200, detail_of({**CONVERSATION, key: {key: key}}))


def _numbers() -> Iterator[Hostile]:
    text = f"row of {NUMBER} (Ann Other), {ADDRESS}"
    for status in (200, 400, 401, 403, 404, 409, 422, 429, 500, 503):
        yield Hostile("a number in words", status, _json({"message": text, "status": "error"}))
        yield Hostile("a number in errors", status, _json({"errors": [{"message": text}]}))
        yield Hostile("a number on a page", status, f"<h1>{text}</h1>".encode())
        code = f"A{NUMBER.strip('+')}"
        yield Hostile("a number as code", status, _json({"errors": [{"error": code}]}))
    confirmed = {"message": text, "conversation": CONVERSATION}
    yield Hostile("a number in a confirmation", 200, _json(confirmed))
    for name in ("sender", "status", "error_code"):
        told = {**CONVERSATION, "messages": [{**MESSAGE, name: text}]}
        yield Hostile(f"a number as {name}", 200, detail_of(told))


def _fields(conversation_id: str) -> Iterator[Hostile]:
    whole = {**CONVERSATION, "id": conversation_id}
    for name in whole:
        without = {key: value for key, value in whole.items() if key != name}
        yield Hostile(f"no {name}", 200, update_of(without))
        yield Hostile(f"no {name} in a detail", 200, detail_of({**without, "messages": []}))
        for value in ODD_VALUES:
            odd = {**whole, name: value}
            about = f"{name} is {str(value)[:20]!r}"
            if name in ("id", "is_active", "updated_at"):
                yield Hostile(about, 200, update_of(odd))
            yield Hostile(f"{about} in a detail", 200, detail_of({**odd, "messages": [MESSAGE]}))
    for name in MESSAGE:
        for value in ODD_VALUES:
            told = {**whole, "messages": [{**MESSAGE, name: value}, value]}
            yield Hostile(f"{name} of a message is {str(value)[:20]!r}", 200, detail_of(told))
    for name in ("data", "errors", "message", "conversation"):
        for value in ODD_VALUES:
            body = {"message": "fine", "conversation": whole, name: value}
            yield Hostile(f"{name} is {str(value)[:20]!r}", 200, _json(body))


def _random(dice: random.Random, conversation_id: str) -> Iterator[Hostile]:
    """Several oddities at once."""
    names = [*CONVERSATION, "messages", "errors", "data"]
    for number in range(200):
        odd = {**CONVERSATION, "id": conversation_id, "messages": [dict(MESSAGE)]}
        for name in dice.sample(names, 4):
            odd[name] = dice.choice(ODD_VALUES)
        status = dice.choice([200, 200, 200, 400, 404, 429, 503])
        shape = dice.choice([update_of, detail_of, _json])
        body = shape(odd)
        if dice.random() < 0.2:
            body = body[: dice.randrange(len(body))]
        yield Hostile(f"random {number}", status, body)

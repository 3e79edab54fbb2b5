"""How deep and how much: an answer that is neither is refused before anything is built of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bland_sms.exceptions import BlandPayloadError
from bland_sms.payloads import MAX_DEPTH, MAX_ELEMENTS, ConversationPayload, parse_json

MIB = 1024 * 1024


def nested(depth: int, begin: bytes = b"[", end: bytes = b"]") -> bytes:
    return begin * depth + end * depth


@pytest.mark.parametrize(
    "pair", [(b"[", b"]"), (b'{"a":', b"}"), (b"[[],", b"]")], ids=["lists", "objects", "wide"]
)
@pytest.mark.parametrize("depth", [65, 66, 500, 1_100, 5_000, 100_000, 500_000])
def test_parse_json__too_deep(depth: int, pair: tuple[bytes, bytes]) -> None:
    begin, end = pair
    with pytest.raises(BlandPayloadError) as caught:
        parse_json(begin * depth + b"0" + end * depth)

    assert caught.value.cause == "nested_too_deeply" or depth > 100_000
    assert caught.value.code == "bad_answer"


@pytest.mark.parametrize("depth", [1, 2, 63, MAX_DEPTH])
def test_parse_json__as_deep_as_it_may_be(depth: int) -> None:
    found = parse_json(b" " * MAX_ELEMENTS + nested(depth))

    for _ in range(depth - 1):
        [found] = found
    assert found == []


@pytest.mark.parametrize(
    "text",
    ["[" * 100, "]" * 100, '"[' * 100, "\\[" * 100, '\\"[' * 100, "{,}" * 100, "\\" * 101 + "["],
)
def test_parse_json__brackets_within_texts_are_no_depth(text: str) -> None:
    body = json.dumps({"a": [{"b": text, text: 1}] * 70}).encode()

    assert parse_json(body)["a"][0]["b"] == text


@given(st.recursive(st.text('[]{}",\\:a', max_size=6), st.lists, max_leaves=90))
def test_parse_json__counts_as_the_parser_does(value: object) -> None:
    """What is not too deep and not too much is read as ever."""
    body = json.dumps([value, "[" * 70]).encode()

    assert parse_json(body) == [value, "[" * 70]


@pytest.mark.parametrize("item", [b"1", b"[]", b"{}", b'""', b'{"":1}', b"null"])
def test_parse_json__too_much(item: bytes) -> None:
    with pytest.raises(BlandPayloadError) as caught:
        parse_json(b"[" + b",".join([item] * (MAX_ELEMENTS + 1)) + b"]")

    assert (caught.value.code, caught.value.cause) == ("bad_answer", "too_many_values")


def test_parse_json__as_much_as_may_be() -> None:
    found = parse_json(b"[" + b",".join([b"1"] * (MAX_ELEMENTS - 1)) + b"]")

    assert len(found) == MAX_ELEMENTS - 1


def test_conversation_payload__half_a_mebibyte_of_tiny_messages() -> None:
    """Its newest messages, and the number of the others: as Bland said it, and no gigabyte."""
    body = b'{"id":"conv_1","messages":[' + b",".join([b"1"] * 261_490) + b"]}"

    payload = ConversationPayload.from_json(parse_json(body))

    assert payload.messages is not None
    assert len(payload.messages) == 10_000
    assert payload.messages[0].extra == {"messages_left_out": 251_490}
    assert payload.messages[-1].bland_id == "no-id-261489"


CHILD = """
import resource, sys
import django
from django.conf import settings
settings.configure(USE_TZ=True)
from bland_sms.exceptions import BlandPayloadError
from bland_sms.payloads import ConversationPayload, parse_json
from bland_sms.words import scrub_json
item = sys.argv[1].encode()
count = int(sys.argv[2])
body = b'{"id":"c","messages":[' + b",".join([item] * count) + b"]}"
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    ConversationPayload.from_json(scrub_json(parse_json(body)))
except BlandPayloadError:
    pass
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.parametrize("item", ["1", "{}", "[]", '{"":{}}', '{"a":[1]}', "[[[[]]]]"])
@pytest.mark.parametrize("size", ["most", "all"])
def test_parse_json__peak_memory_of_eight_mebibytes(item: str, size: str) -> None:
    """Of tiny values, as many as may be and as many as fit: 2 GiB it was once."""
    values = 1 + item.count("[") + item.count("{")
    count = MAX_ELEMENTS // values - 10 if size == "most" else 8 * MIB // (len(item) + 1)
    child = subprocess.run(
        [sys.executable, "-c", CHILD, item, str(count)],
        capture_output=True,
        check=True,
        cwd=Path(__file__).parent.parent,
        text=True,
    )

    assert int(child.stdout) * 1024 < 160 * MIB

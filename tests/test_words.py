"""The gate for what Bland says: nothing of a secret, no number of a person, one short line."""

from __future__ import annotations

import base64
import html
import json
import string
import sys
import time
from collections.abc import Callable
from traceback import walk_tb
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bland_sms import words
from bland_sms.conf import Secret
from bland_sms.words import (
    MAX_WORDS,
    bland_code,
    bland_page,
    bland_words,
    clean_text,
    holds_secret,
    mask,
    one_line,
    scrub,
    scrub_json,
)

KEY = 'org_Zq7x"Wv%9Lp&3Kd/8Jm+2Hs=6Bn'
HOOK = "whsec_fjuDkRb5YtCg1XeVoN0aQzMi"


@pytest.fixture(autouse=True)
def secrets(monkeypatch: pytest.MonkeyPatch) -> list[Secret]:
    """What this process has read of its settings; not what other tests have."""
    monkeypatch.setattr("bland_sms.conf._remembered", {})
    return [Secret(KEY), Secret(HOOK, "WEBHOOK_SECRETS")]


def pieces_in(text: str, secret: str) -> list[str]:
    """Eight characters of the secret in a row, if they are in the text."""
    pieces = {secret[begin : begin + 8].lower() for begin in range(len(secret) - 7)}
    return [piece for piece in pieces if piece in text.lower()]


def every_escape(text: str) -> str:
    return "".join(f"\\u{ord(char):04x}" for char in text)


WAYS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "upper case": str.upper,
    "json": lambda text: json.dumps(text)[1:-1],
    "json in json": lambda text: json.dumps(json.dumps(text)),
    "json, every character": every_escape,
    "url": lambda text: quote(text, safe=""),
    "url in url": lambda text: quote(quote(text, safe=""), safe=""),
    "url, every character": lambda text: "".join(f"%{ord(char):02X}" for char in text),
    "html": html.escape,
    "html, every character": lambda text: "".join(f"&#{ord(char)};" for char in text),
    "html, hexadecimal": lambda text: "".join(f"&#x{ord(char):x};" for char in text),
    "json with slashes": lambda text: text.replace("/", "\\/"),
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64 of a header": lambda text: base64.b64encode(f"key: {text}".encode()).decode(),
    "base64 for an address": lambda text: base64.urlsafe_b64encode(f"a:{text}".encode()).decode(),
    "hexadecimal": lambda text: text.encode().hex(),
    "base64 in url": lambda text: quote(base64.b64encode(text.encode()).decode(), safe=""),
}
UNDO: dict[str, Callable[[str], str]] = {
    "u": lambda text: text.encode("latin-1", "replace").decode("unicode_escape", "replace"),
    "html": html.unescape,
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
@pytest.mark.parametrize("secret", [KEY, HOOK], ids=["key", "hook"])
def test_scrub__every_piece_however_it_is_written(way: Callable[[str], str], secret: str) -> None:
    for begin in range(len(secret)):
        for end in range(begin + 8, len(secret) + 1):
            piece = secret[begin:end]
            scrubbed = scrub(f"before {way(piece)} after")
            assert way(piece) not in scrubbed
            assert not pieces_in(scrubbed, secret)
            assert scrubbed.startswith("before ")
            assert scrubbed.endswith(" after")


@pytest.mark.parametrize("way", ["as it is", "base64", "hexadecimal"])
@pytest.mark.parametrize("size", range(1, 8))
def test_scrub__fewer_than_eight_characters_may_be_a_coincidence(size: int, way: str) -> None:
    for begin in range(len(KEY) - size + 1):
        text = f" {WAYS[way](KEY[begin : begin + size])} "
        assert scrub(text) == text


def test_scrub__without_any_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bland_sms.conf._remembered", {})
    text = f"%41 and {KEY}"

    assert scrub(text) == text
    assert not holds_secret(KEY.replace("%", "").replace("\\", "").encode())
    assert bland_words("row 1 is locked") == "row 1 is locked"


@given(st.text(max_size=40), st.integers(0, 30), st.integers(0, 30), st.text(max_size=40))
@example(before="%", begin=0, end=30, after="")
@example(before="İ", begin=3, end=25, after="ß")
@example(before="", begin=0, end=30, after=KEY)
def test_scrub__at_every_offset_of_any_text(before: str, begin: int, end: int, after: str) -> None:
    Secret(KEY)
    scrubbed = scrub(before + KEY[begin:end] + after)

    assert not pieces_in(scrubbed, KEY)


@given(st.text(alphabet=string.ascii_letters + string.digits + ' %\\u"&;#x', max_size=200))
def test_scrub__leaves_other_text_alone(text: str) -> None:
    if not pieces_in(text, KEY) and not pieces_in(text, HOOK):
        assert scrub(text) == text or "%" in text or "\\" in text or "&" in text


def test_scrub__a_short_secret_as_a_whole() -> None:
    Secret("qwxzvj")

    assert scrub("the qwxzvj is odd") == "the [secret] is odd"
    assert scrub("the qwxzv is odd") == "the qwxzv is odd"


def test_scrub__each_place_of_a_secret() -> None:
    Secret("zyxwvutsrqponmlk")

    assert scrub("a zyxwvutsrqponmlk b ZYXWVUTSRQPONMLK c") == "a [secret] b [secret] c"


def test_scrub__pieces_that_may_be_a_coincidence_stay() -> None:
    Secret("zyxwvutsrqponmlk")

    assert scrub("zyxwvut") == "zyxwvut"
    assert scrub("rqponmlk") == "[secret]"
    assert scrub("zyxwvuts") == "[secret]"


def test_scrub__short_bearer_without_its_prefix() -> None:
    Secret("Bearer qwxzvj")

    assert scrub("the qwxzvj is odd") == "the [secret] is odd"


def test_scrub__bearer_or_not() -> None:
    Secret("Bearer zyxwvutsrqponmlk")

    assert scrub("zyxwvutsrqponmlk") == "[secret]"
    assert "zyxwvuts" not in scrub("authorization: Bearer zyxwvutsrqponmlk")


def test_scrub__a_replaced_key_too() -> None:
    Secret("org_the_one_of_yesterday")
    Secret("org_the_one_of_today")

    assert scrub("org_the_one_of_yesterday") == "[secret]"


@pytest.mark.parametrize(
    "text",
    [
        "a" * 1_000_000,
        "%41" * 300_000,
        "&amp;" * 200_000,
        KEY * 30_000,
        "1 " * 500_000,
        "@" * 10**6,
    ],
    ids=["plain", "url", "html", "key", "digits", "at"],
)
def test_words__take_linear_time(text: str) -> None:
    begin = time.monotonic()

    bland_words(text)

    assert time.monotonic() - begin < 60  # seconds, not hours


def test_scrub_json__texts_and_keys_at_every_depth() -> None:
    body = {"a": [{KEY: 1, "b": [f"x {HOOK}"]}, None, True, 1.5], "c": KEY[3:20]}

    assert holds_secret(json.dumps(body).encode())
    assert scrub_json(body) == {
        "a": [{"[secret]": 1, "b": ["x [secret]"]}, None, True, 1.5],
        "c": "[secret]",
    }


class TimeLimitError(BaseException):
    """As a signal raises it, wherever the thread happens to be."""


def interrupted(call: Callable[[], Any], lines: int) -> BaseException | None:
    """What comes out of a call that is ended before a line of the gate; ``None``: it had fewer."""

    def trace(frame: Any, event: str, argument: Any) -> Any:
        nonlocal lines
        if frame.f_code.co_filename != words.__file__:
            return None
        lines -= event == "line"
        if lines < 0:
            raise TimeLimitError
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except TimeLimitError as error:
        return error
    finally:
        sys.settrace(before)
    return None


CALLS: list[Callable[[], Any]] = [
    lambda: bland_words("row 1 is locked"),
    lambda: scrub_json({"a": ["some words of a customer"]}),
    lambda: holds_secret(b"some words of a customer"),
]


@pytest.mark.parametrize("call", CALLS, ids=["words", "json", "bytes"])
def test_gate__shows_no_secret_to_an_error_report(
    call: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    short = ["org_Zq7xWv9", "whsec_fjuD"]
    monkeypatch.setattr("bland_sms.conf._remembered", dict.fromkeys(short))
    for lines in range(2_000):
        words._scrubber_of.cache_clear()
        words._cut_up.cache_clear()
        words._encodings.cache_clear()
        error = interrupted(call, lines)
        if error is None:
            assert lines > 50
            return
        shown = [
            repr(frame.f_locals)
            for frame, _line in walk_tb(error.__traceback__)
            if frame.f_code.co_filename == words.__file__
        ]
        assert not [text for text in shown for one in short if pieces_in(text, one)], lines
    pytest.fail("more lines than expected")


@pytest.mark.parametrize("before", ["", "a", "ab"])
def test_holds_secret__in_base64_or_hexadecimal(before: str) -> None:
    header = f"{before}{KEY}".encode()
    for code in (base64.b64encode(header).decode(), header.hex(), header.hex().upper()):
        body = {"summary": f"x {code} y"}
        assert holds_secret(json.dumps(body).encode())
        assert code[8:-8] not in scrub_json(body)["summary"]
    assert not holds_secret(base64.b64encode(b"what customers write to each other"))


# --- people -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "number",
    [
        "+15550100001",
        "15550100001",
        "+1 (555) 010-0001",
        "(555) 010-0001",
        "555.010.0001",
        "555-010-0001",
        "+65 9234 5678",
        "+44 20 7946 0958",
        "tel:+1-555-010-0001",
        "whatsapp:+15550100001",
        "+1\u00a0555\u2011010\u20110001",
        "0369 0614",
        "1_555_010_0001",
        "00 1 555 010 0001",
        "%2B15550100001",
        "\u0661\u0665\u0665\u0665\u0660\u0661\u0660\u0660\u0660\u0660\u0661",
        "15550100001\u200b",
        "+1555\u200b010\u200b0001",
        "".join(f"&#{ord(char)};" for char in "15550100001"),
        "".join(f"%{ord(char):x}" for char in "15550100001"),
        "".join(f"\\u{ord(char):04x}" for char in "15550100001"),
    ],
)
def test_mask__a_number_in_any_notation(number: str) -> None:
    for text in (number, f"row of {number} (a name)", f"x{number}y", f"a,{number};b"):
        masked = bland_words(text)
        assert "[number]" in masked
        assert sum(char.isdigit() for char in masked) <= 2  # those of an escape


@pytest.mark.parametrize(
    "address",
    [
        *("ann@example.com", "Ann.B+x@mail.example.co.uk", "ann@localhost", "<ann@b.c>"),
        *("ann%40example.com", "ann&#64;example.com", "ann&commat;b.c", "ann%2540b.c"),
        *(r"ann\u0040b.c", "ann\u200b@b.c", "ann\uff20b.c", "ann@[10.1.1.1]"),
        *('"ann other"@example.com', "ann{x}!#$&'*/=?^`|~y@example.com"),
    ],
)
def test_mask__an_address(address: str) -> None:
    masked = bland_words(f"{address} wrote")

    assert "ann" not in masked.lower()
    assert "[address]" in masked


@pytest.mark.parametrize(
    "text",
    [
        "INVALID_IS_ACTIVE_VALUE is_active must be a boolean value",
        "3b0a1234-5678-4321-8765-123456789012 is locked",
        "error 21610",
        "wait 3600 seconds",
        "page 1, 2, 3, 4, 5, 6, 7 or 8",
        "limit 1000, got 5000",
    ],
)
def test_mask__what_is_no_number_of_a_person(text: str) -> None:
    assert bland_words(text) == text


# --- cut and clean ----------------------------------------------------------------------------


@given(st.text(alphabet=st.characters(), max_size=300))
@example("a\nb\r\n\x00c\u202ed\u2066e\x1b[31m\ud800")
def test_bland_words__one_short_storable_line(text: str) -> None:
    words = bland_words(text)

    assert len(words) <= MAX_WORDS
    assert all(char.isprintable() for char in words)
    assert words == " ".join(words.split())
    words.encode("utf-8")


@pytest.mark.parametrize("text", ["x", "5 ", "\u00e9\u202e", "&amp;"])
def test_bland_words__are_cut_to_their_length(text: str) -> None:
    words = bland_words(text * 400)

    assert len(words) == MAX_WORDS == 200 or words == "[number]"
    assert len(bland_words(text * 400, 50)) == 50 or words == "[number]"


@pytest.mark.parametrize("between", ["\x00", "\u202e", "\u200b", "\u2066", "\ufeff", "\u00ad"])
def test_scrub__sees_through_what_is_not_seen(between: str) -> None:
    """A page takes it out of the text of a message, and no database keeps a NUL."""
    hidden = between.join(KEY)

    assert not pieces_in(scrub(f"x {hidden} y").replace(between, ""), KEY)


@pytest.mark.parametrize("between", ["\x00", "\n", "\u202e", "\u200b", "\ud800"])
def test_bland_words__cleaning_does_not_join_a_secret(between: str) -> None:
    words = bland_words(KEY[:6] + between + KEY[6:12] + between + KEY[12:18])

    assert not pieces_in(words, KEY)


@pytest.mark.parametrize("offset", range(150, 230))
def test_bland_words__a_key_across_the_cut(offset: int) -> None:
    assert not pieces_in(bland_words("x" * offset + " " + KEY), KEY)


@pytest.mark.parametrize("offset", [0, 150, 180, 3950, 3970, 3990, 65_500, 65_520])
def test_bland_page__key_across_any_cut(offset: int) -> None:
    page = f"<pre>{'.' * offset}authorization: {KEY}\nx-forwarded-for: 1</pre>"

    assert not pieces_in(bland_page(page.encode()), KEY)


def test_bland_page__a_proxy_that_lists_the_headers() -> None:
    page = f"<h1>Bad&nbsp;Gateway</h1><pre>authorization: {KEY}\r\nuser: +15550100001</pre>"

    assert bland_page(page.encode()) == ("Bad&nbsp;Gateway authorization: [secret] user: [number]")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("CONVERSATION_NOT_FOUND", "CONVERSATION_NOT_FOUND"),
        ("http_500", "http_500"),
        ("Rate Limit Exceeded", ""),
        ("A15550100001", ""),
        (HOOK, ""),
        ("", ""),
        ("A" * 65, ""),
    ],
)
def test_bland_code(text: str, code: str) -> None:
    assert bland_code(text) == code


@pytest.mark.parametrize("length", [0, 1, 5, 100])
def test_clean__cut_to_length(length: int) -> None:
    assert clean_text("\x00" + "\ud800" * 200, length) == "\ufffd" * length


def test_one_line__marks_of_direction() -> None:
    assert one_line("a\u202eb\u2066c\u200fd") == "a b c d"


def test_mask__twice_is_once() -> None:
    text: Any = mask("call +15550100001 or ann@example.com")

    assert mask(text) == text == "call [number] or [address]"

"""Filters what Bland says: all of its texts pass here on the way to a row, log, message or answer.

Four steps, in this order: *scrub* our secrets out, *mask* numbers and addresses of people (except
in columns made for them), *cut* to a length, *clean* what no text should hold.
"""

from __future__ import annotations

import html
import re
from array import array
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from .conf import MASK, SHORTEST_SECRET, known_secrets

LONGEST_PIECE = 7
"""This many characters of a secret in a row may be a coincidence; one more is a piece of it."""
MAX_WORDS = 200
"""Characters of Bland's own words that are kept. An error page can be megabytes long."""
NUMBER, ADDRESS = "[number]", "[address]"

_MAX_ESCAPES = 3
"""How often text may be escaped within escaped text and still be looked into."""

# --- scrub ------------------------------------------------------------------------------------


class _Scrubber:
    """Finds pieces of some secrets, in either case, fast where there are none."""

    def __init__(self, secrets: frozenset[str]) -> None:
        self._pieces: dict[int, set[str]] = {}
        for secret in secrets:
            for text in {secret, secret.removeprefix("Bearer ")}:
                size = min(len(text), LONGEST_PIECE + 1)
                if size >= SHORTEST_SECRET:
                    pieces = self._pieces.setdefault(size, set())
                    pieces.update(
                        text[begin : begin + size].lower() for begin in range(len(text) - size + 1)
                    )
        self._shortest = min(self._pieces, default=0)
        letters = {char for pieces in self._pieces.values() for piece in pieces for char in piece}
        letters |= {char.upper() for char in letters}
        allowed = "".join(re.escape(char) for char in sorted(letters))
        self._candidate = re.compile(f"[{allowed}]{{{self._shortest},}}") if letters else None

    def spans(self, text: str) -> Iterator[tuple[int, int]]:
        """Where the pieces are, from left to right; they may overlap."""
        if self._candidate is None or len(text) < self._shortest:
            return
        for found in self._candidate.finditer(text):
            words, offset = found[0].lower(), found.start()
            if len(words) != len(found[0]):  # a few letters become two
                words = found[0]
            for begin in range(len(words) - self._shortest + 1):
                for size, pieces in self._pieces.items():
                    if words[begin : begin + size] in pieces:
                        yield offset + begin, offset + begin + size


@lru_cache(maxsize=4)
def _scrubber(secrets: frozenset[str]) -> _Scrubber:
    return _Scrubber(secrets)


def scrub(text: str) -> str:
    """``text`` without the key and the webhook secrets, or pieces of them, escaped ones too."""
    return _scrub(text, _scrubber(known_secrets()))


def _scrub(text: str, scrubber: _Scrubber) -> str:
    spans = list(scrubber.spans(text))
    plain, places = text, array("I")
    for _ in range(_MAX_ESCAPES):
        if not _ESCAPE.search(plain):
            break
        plain, places = _unescape(plain, places)
        spans += [(places[begin], places[end]) for begin, end in scrubber.spans(plain)]
    return _masked(text, spans) if spans else text


_ESCAPE = re.compile(
    r"\\u[0-9a-fA-F]{4}|\\x[0-9a-fA-F]{2}|\\[\"\\/]|%[0-9a-fA-F]{2}|&#?[0-9a-zA-Z]{1,8};"
    "|[\x00\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]"
)
"""Invisible characters too: if they were removed later, the pieces of a secret would join."""


def _unescape(text: str, places: array[int]) -> tuple[str, array[int]]:
    """What escapes of JSON, of URLs and of HTML stand for, and where each character began.

    Args:
        places: Where each character of ``text`` itself began; empty: where it stands.
    """
    parts: list[str] = []
    began = array("I")
    end = 0
    for found in _ESCAPE.finditer(text):
        char = _unescaped(found[0])
        if len(char) <= 1:
            parts += [text[end : found.start()], char]
            began.extend(range(end, found.start() + len(char)))
            end = found.end()
    parts.append(text[end:])
    began.extend(range(end, len(text) + 1))
    if places:
        began = array("I", (places[place] for place in began))
    return "".join(parts), began


def _unescaped(escape: str) -> str:
    if escape[0] not in "\\%&":
        return ""
    if escape[0] == "&":
        return html.unescape(escape)
    if escape[0] == "%":
        return chr(int(escape[1:], 16))
    return chr(int(escape[2:], 16)) if len(escape) > 2 else escape[1]


def _masked(text: str, spans: list[tuple[int, int]]) -> str:
    parts: list[str] = []
    end = 0
    for begin, stop in sorted(spans):
        if begin > end or not parts:
            parts += [text[end:begin], MASK]
        end = max(end, stop)
    return "".join(parts) + text[end:]


# --- mask -------------------------------------------------------------------------------------

_UUID = r"\b[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}\b"
_BETWEEN = r"[^\w,;\"'<>{}\[\]|=&?]{0,3}|_"
_PERSON = re.compile(
    rf"(?P<id>{_UUID})"
    r"|(?P<address>[\w.+%'-]{1,64}@[\w-][\w.-]{0,254})"
    rf"|(?P<number>\+?\(?\d(?:(?:{_BETWEEN})\d){{6,}})"
)


def mask(text: str) -> str:
    """``text`` without numbers that could be a phone's, and without e-mail addresses."""
    return _PERSON.sub(_mask_one, text)


def _mask_one(found: re.Match[str]) -> str:
    if found["id"]:
        return found[0]
    return ADDRESS if found["address"] else NUMBER


# --- cut and clean ----------------------------------------------------------------------------


def clean(text: str, max_length: int) -> str:
    """Storable on every database: no NUL, no lone surrogates, cut to length."""
    text = text[: max_length * 2].replace("\x00", "")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text[:max_length]


def one_line(text: str) -> str:
    """Without line breaks, control characters and marks that change the direction of text."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


# --- all four steps ---------------------------------------------------------------------------


def bland_words(text: str, max_length: int = MAX_WORDS) -> str:
    """Bland's own words for a message, a log of syncs, an answer of ours: one short line."""
    if _PLAIN.fullmatch(text) and _is_clean(text):
        return text[:max_length]  # as most of them: nothing to scrub, mask, cut or clean
    shown = one_line(clean(mask(scrub(text)), len(text) + 1))
    # Once more: what stood between two pieces may be gone now.
    return mask(scrub(shown))[:max_length]


def bland_page(content: bytes) -> str:
    """The words of an error page, such as a proxy's, which may list the headers of our request."""
    text = scrub(content[:_MAX_SCRUBBED].decode("utf-8", "replace"))  # and then it is cut
    return bland_words(_TAG.sub(" ", text[:_MAX_PAGE]))


def bland_code(text: str) -> str:
    """Bland's machine-readable word, or ``""`` for what is none, a person's number included."""
    return text if _CODE.fullmatch(text) and text == mask(scrub(text)) else ""


def holds_secret(content: bytes) -> bool:
    """Whether ``content`` may hold a piece of a secret, or what could be one when unescaped."""
    text = content.decode("utf-8", "replace")
    return not _is_clean(text)


def _is_clean(text: str) -> bool:
    return not _ESCAPE.search(text) and next(_scrubber(known_secrets()).spans(text), None) is None


def scrub_json(value: Any) -> Any:
    """A parsed answer with our secrets scrubbed from all its texts, keys included."""
    return _scrub_json(value, _scrubber(known_secrets()))


def _scrub_json(value: Any, scrubber: _Scrubber) -> Any:
    if isinstance(value, str):
        return _scrub(value, scrubber) if len(value) >= SHORTEST_SECRET else value
    if isinstance(value, list):
        return [_scrub_json(item, scrubber) for item in value]
    if isinstance(value, dict):
        return {_scrub(key, scrubber): _scrub_json(item, scrubber) for key, item in value.items()}
    return value


_PLAIN = re.compile(r"[A-Za-z]+(?: [A-Za-z]+)*[.!]?", re.ASCII)
_TAG = re.compile(r"<[^>]*>?")
_MAX_PAGE = 4000
_MAX_SCRUBBED = 64 * 1024
"""Bytes of a page that are looked at: far more than what is kept, however it is escaped."""
_CODE = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}", re.ASCII)

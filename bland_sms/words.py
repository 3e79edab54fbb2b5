"""Filters what Bland says: all of its texts pass here on the way to a row, log, message or answer.

Four steps, in this order: *scrub* our secrets out, *mask* numbers and addresses of people (except
in columns made for them), *cut* to a length, *clean* what no text should hold.
"""

from __future__ import annotations

import base64
import html
import re
from array import array
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Any

from .conf import MASK, SHORTEST_SECRET, known_secrets
from .exceptions import without_frames

LONGEST_PIECE = 7
"""This many characters of a secret in a row may be a coincidence; one more is a piece of it."""
MAX_LONG_TEXT = 100_000
"""Characters of any text that is kept."""
MAX_WORDS = 200
"""Characters of Bland's own words that are kept. An error page can be megabytes long."""
NUMBER, ADDRESS = "[number]", "[address]"
Found = tuple[int, int, str]
"""Where something in a text begins and ends, and the word that takes its place."""

_MAX_ESCAPES = 3
"""How often text may be escaped within escaped text and still be looked into."""

# --- scrub ------------------------------------------------------------------------------------


class _Pieces:
    """Finds some short texts, in either case, fast where there are none."""

    def __init__(self, pieces: dict[int, set[str]]) -> None:
        self._pieces = pieces
        """By their length."""
        self._shortest = min(pieces, default=0)
        letters = {char for texts in pieces.values() for piece in texts for char in piece}
        letters |= {char.upper() for char in letters}
        allowed = "".join(re.escape(char) for char in sorted(letters))
        self._candidate = re.compile(f"[{allowed}]{{{self._shortest},}}") if letters else None

    def find(self, text: str) -> Iterator[Found]:
        """Where they are, from left to right; they may overlap."""
        if self._candidate is None or len(text) < self._shortest:
            return
        for found in self._candidate.finditer(text):
            words, offset = found[0].lower(), found.start()
            if len(words) != len(found[0]):  # a few letters become two
                words = found[0]
            for begin in range(len(words) - self._shortest + 1):
                for size, pieces in self._pieces.items():
                    if words[begin : begin + size] in pieces:
                        yield offset + begin, offset + begin + size, MASK


class _Scrubber:
    """Finds pieces of some secrets."""

    def __init__(self, secrets: frozenset[str]) -> None:
        texts = {text for secret in secrets for text in (secret, secret.removeprefix("Bearer "))}
        plain: dict[int, set[str]] = {}
        encoded: dict[int, set[str]] = {}
        for text in texts:
            size = min(len(text), LONGEST_PIECE + 1)
            if size >= SHORTEST_SECRET:
                plain.setdefault(size, set()).update(_cut_up(text, size))
            if size > LONGEST_PIECE:
                for code, piece_size in _encodings(text):
                    encoded.setdefault(piece_size, set()).update(_cut_up(code, piece_size))
        self.plain = _Pieces(plain)
        self.encoded = _Pieces(encoded)
        self.marks = [
            code[(len(code) - size) // 2 :][:size].encode()
            for text in texts
            if len(text) > LONGEST_PIECE
            for code, size in _encodings(text)
        ]
        """Each is in what a whole secret becomes when it is encoded."""

    # An error report shows the local variables of each frame that an exception passes through,
    # such as a time limit that a signal raises anywhere; below these the variables are pieces.

    def find(self, text: str) -> list[Found]:
        try:
            return [*self.plain.find(text), *self.encoded.find(text)]
        except BaseException as error:  # noqa: BLE001  raised again
            raise without_frames(error) from None

    def may_be_in(self, content: bytes, text: str) -> bool:
        """Whether a piece is in a text, or an encoded secret in its bytes."""
        try:
            return any(self.plain.find(text)) or any(mark in content for mark in self.marks)
        except BaseException as error:  # noqa: BLE001  raised again
            raise without_frames(error) from None


# A key that a callable returns may be another one each time: the others are not taken apart anew.


@lru_cache(maxsize=1024)
def _cut_up(text: str, size: int) -> frozenset[str]:
    lower = text.lower()
    return frozenset(lower[begin : begin + size] for begin in range(len(lower) - size + 1))


@lru_cache(maxsize=128)
def _encodings(text: str) -> list[tuple[str, int]]:
    """The text within base64 or hexadecimal digits of something longer, as a proxy may print a
    header; and how many characters of that stand for a piece of it."""
    raw = text.encode("utf-8", "surrogatepass")
    found = {(code, 2 * LONGEST_PIECE + 2) for code in (raw.hex(), raw.hex().upper())}
    size = ((LONGEST_PIECE + 1) * 8 - 4) // 6  # at its ends it shares a character with others
    for before in range(3):  # base64 writes three bytes as four characters
        code = base64.b64encode(bytes(before) + raw).decode()
        code = code[-(-before * 8 // 6) : (before + len(raw)) * 8 // 6]
        found |= {(code, size), (code.replace("+", "-").replace("/", "_"), size)}
    return sorted(found)


def _scrubber() -> _Scrubber:
    try:
        return _scrubber_of(known_secrets())
    except BaseException as error:  # noqa: BLE001  raised again
        raise without_frames(error) from None


@lru_cache(maxsize=4)
def _scrubber_of(secrets: frozenset[str]) -> _Scrubber:
    return _Scrubber(secrets)


def scrub(text: str) -> str:
    """``text`` without the key and the webhook secrets, or pieces of them, escaped or encoded ones
    too."""
    return _scrub(text, _scrubber())


def _scrub(text: str, scrubber: _Scrubber) -> str:
    return _without(text, _seen_through(text, scrubber.find))


def _seen_through(text: str, find: Callable[[str], Iterable[Found]]) -> Iterator[Found]:
    """What a function finds in a text and in what its escapes stand for, at its place in the
    text."""
    plain, places = text, array("I")
    yield from find(text)
    for _ in range(_MAX_ESCAPES):
        if not _ESCAPE.search(plain):
            break
        plain, places = _unescape(plain, places)
        for begin, end, word in find(plain):
            yield places[begin], places[end], word


_INVISIBLE = "\x00\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff"
_ESCAPE = re.compile(
    rf"[\\%&{_INVISIBLE}]"
    r"(?:(?<=\\)(?:u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2}|[\"\\/])|(?<=%)[0-9a-fA-F]{2}"
    rf"|(?<=&)#?[0-9a-zA-Z]{{1,8}};|(?<=[{_INVISIBLE}]))"
)
"""Invisible characters too: if they were removed later, the pieces of a secret would join.

It begins with a set of characters, so a text without any of them is looked through in a
quarter of the time that it took where the parts were tried one after the other."""


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


def _without(text: str, found: Iterable[Found]) -> str:
    """The text with words in the place of what was found; what overlaps is one."""
    parts: list[str] = []
    end = 0
    for begin, stop, word in sorted(found):
        if begin > end or not parts:
            parts += [text[end:begin], word]
        end = max(end, stop)
    return "".join(parts) + text[end:] if parts else text


# --- mask -------------------------------------------------------------------------------------

_UUID = r"\b[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}\b"
BETWEEN_DIGITS = r"[^\w,;\"'<>{}\[\]|=&?]{0,3}|_"
"""What people and programs write between the digits of one number."""
_LOCAL_PART = r"[\w.!#$%&'*+/=?^`{|}~-]{1,64}|\"[^\"\n]{1,64}\""
_DOMAIN = r"[\w-][\w.-]{0,254}|\[[^\]\s]{1,64}\]"
_PERSON = re.compile(
    rf"(?P<id>{_UUID})"
    rf"|(?P<address>(?:{_LOCAL_PART})[@\uff20](?:{_DOMAIN}))"
    rf"|(?P<number>\+?\(?\d(?:(?:{BETWEEN_DIGITS})\d){{6,}})"
)


def mask(text: str) -> str:
    """``text`` without numbers that could be a phone's, and without e-mail addresses, escaped ones
    too."""
    if _NAMES_NOBODY.fullmatch(text):
        return text  # as most words for a state
    return _without(text, _seen_through(text, _find_people))


_NAMES_NOBODY = re.compile(r"[A-Za-z _.!-]*", re.ASCII)


def _find_people(text: str) -> Iterator[Found]:
    for found in _PERSON.finditer(text):
        if not found["id"]:
            yield *found.span(), ADDRESS if found["address"] else NUMBER


# --- cut and clean ----------------------------------------------------------------------------


def clean_text(text: str, max_length: int = MAX_LONG_TEXT) -> str:
    """Storable on every database: no NUL, no lone surrogates, cut to length."""
    if len(text) <= max_length and text.isascii() and "\x00" not in text:
        return text  # as most texts
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
    if _PLAIN.fullmatch(text) and not _scrubber().find(text):
        return text[:max_length]  # as most of them: nothing to scrub, mask, cut or clean
    shown = one_line(clean_text(mask(scrub(text)), len(text) + 1))
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
    return _ESCAPE.search(text) is not None or _scrubber().may_be_in(content, text)


def scrub_json(value: Any) -> Any:
    """A parsed answer with our secrets scrubbed from all its texts, keys included."""
    return _scrub_json(value, _scrubber())


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

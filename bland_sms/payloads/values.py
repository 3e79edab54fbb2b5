"""Values of Bland's JSON, read tolerantly and made storable; the JSON parser itself."""

from __future__ import annotations

import base64
import enum
import hashlib
import json
import math
import re
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from typing import Any

from django.utils.dateparse import parse_datetime

from .. import __version__
from ..exceptions import BlandPayloadError
from ..words import clean_text, mask

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
CONVERSATION_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}", re.ASCII)
"""What may stand in a URL that carries the key; ``..``, ``a#b`` and ``a?x`` would change it."""

CLOCK_TOLERANCE = timedelta(minutes=5)
"""A time later than the answer's own ``Date`` by more than this is no age."""
LOCAL_CLOCK_TOLERANCE = timedelta(days=1)
"""The same where the answer has no ``Date``: our own clock may be wrong by hours."""

MAX_DEPTH = 64
"""Levels of one answer; what is nested more deeply is refused as a whole."""
MAX_STORED_DEPTH = 28
"""Levels that a stored value has of its own. MariaDB (10.11) calls JSON of 32 levels invalid, and
Django's constraint would then refuse the row; what lies deeper is kept as JSON in a text."""
MAX_ELEMENTS = 300_000
"""Values in one answer. Millions of them fit into its bytes, and take gigabytes of memory."""
MAX_KEYS = 500
"""Of one object that is kept as it is."""
LEFT_OUT = "[left out]"
"""The key under which an object says how many of its own keys are not kept."""
INT32_MAX = 2**31 - 1
INT64_MAX = 2**63 - 1


FIRST_SECONDS = 10**9
"""Of 2001: a smaller number is no time but a count or a duration."""
FIRST_MILLISECONDS = 10**11
MAX_TIME = 64
"""Characters of a time that is told as text."""
_EPOCH_TIME = re.compile(r"[0-9]{10,13}(\.[0-9]{1,9})?", re.ASCII)


class Absent(enum.Enum):
    """The type of :data:`ABSENT`."""

    ABSENT = "absent"


ABSENT = Absent.ABSENT
"""Bland did not mention the field. ``None`` and ``""`` mean that Bland said: empty."""


def is_conversation_id(value: object) -> bool:
    """Whether ``value`` may be put into a URL as a conversation's id."""
    return isinstance(value, str) and CONVERSATION_ID.fullmatch(value) is not None


# --- values -----------------------------------------------------------------------------------


def clean_json(value: Any, depth: int = 0) -> Any:
    """Make a JSON value storable, and equal to itself after a round trip on every database."""
    if isinstance(value, str):
        return clean_text(value)
    if depth >= MAX_STORED_DEPTH and isinstance(value, (dict, list)) and value:
        return clean_text(json.dumps(value, ensure_ascii=False))
    if isinstance(value, dict):
        kept = sorted(value)[: MAX_KEYS - 1] if len(value) > MAX_KEYS else value
        cleaned = {clean_text(key, 255): clean_json(value[key], depth + 1) for key in kept}
        if len(kept) < len(value):
            cleaned[LEFT_OUT] = len(value) - len(kept)
        return cleaned
    if isinstance(value, list):
        return [clean_json(item, depth + 1) for item in value]
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, float) and not value.is_integer():
        return value
    # PostgreSQL's jsonb gives 1e16 back as an integer and -0.0 as 0: say it that way at once.
    return int(value) if abs(value) <= INT64_MAX else str(value)


def parse_time(value: object, latest: datetime) -> datetime | None:
    """An aware time in UTC, or ``None`` where it is not usable as one.

    Args:
        latest: Aware; anything later than this counts as missing, as does anything not after 1970.
    """
    if isinstance(value, str):
        parsed = _moment_in(value) if len(value) <= MAX_TIME else None
    else:
        parsed = _moment(value)
    return parsed if parsed is not None and EPOCH < parsed <= latest else None


def _moment(value: object) -> datetime | None:
    try:
        parsed = _read_moment(value)
        if parsed is None:
            return None
        if parsed.tzinfo is None:
            parsed = parsed.replace(tzinfo=timezone.utc)
        return parsed.astimezone(timezone.utc)
    except (ValueError, OverflowError, OSError):
        return None


_moment_in: Callable[[str], datetime | None] = lru_cache(maxsize=1024)(_moment)
"""Of a text. Each is asked for several times: to sort by, to be believed, and to be kept."""


def _read_moment(value: object) -> datetime | None:
    """Of text in ISO 8601, or of seconds or milliseconds since 1970, as a number or as text."""
    if isinstance(value, str):
        text = value.strip()
        if not _EPOCH_TIME.fullmatch(text):
            return parse_datetime(text)
        value = float(text)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    if value >= FIRST_MILLISECONDS:
        value /= 1000
    return datetime.fromtimestamp(value, timezone.utc) if value >= FIRST_SECONDS else None


def latest_time(answered_at: datetime | None) -> datetime:
    """The latest time that an answer given at ``answered_at`` (its ``Date``) can truly name."""
    if answered_at is not None:
        return answered_at + CLOCK_TOLERANCE
    return datetime.now(timezone.utc) + LOCAL_CLOCK_TOLERANCE


_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":"), default=str).encode


def canonical(value: Any) -> str:
    """One text for one value, whatever the order of its keys: settles ties in any order."""
    return _canonical(value)


_compact = json.JSONEncoder(sort_keys=True, separators=(",", ":"), check_circular=False).encode


def fingerprint(value: Any) -> str:
    """A short text that is the same for the same JSON, as this release reads it."""
    digest = hashlib.blake2b(_compact(value).encode(), digest_size=12, key=_RELEASE).digest()
    return base64.b64encode(digest).decode()


_RELEASE = __version__.encode()
"""What is told is read anew by another release, which may understand more of it."""


# --- bodies -----------------------------------------------------------------------------------


def _refuse_constant(name: str) -> Any:
    raise BlandPayloadError("no_json_value", name=name)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise BlandPayloadError("number_too_large")
    return number


def _integer(text: str) -> int | str:
    # Python refuses to read integers of thousands of digits, with an error of its own.
    return int(text) if len(text) <= 20 else text


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    parsed = dict(pairs)
    if len(parsed) != len(pairs):
        raise BlandPayloadError("repeated_key")
    return parsed


_STRUCTURE = b'"[]{},'
_OTHER = bytes(set(range(256)) - set(_STRUCTURE))
_STRINGS = re.compile(rb'"[^"]*"?')


def _check_shape(body: bytes) -> None:
    """Refuse depth and number of values before anything is built of them.

    Python's parser stops at a depth that differs with its release, and what it did read breaks
    others: so depth is counted here, in what is left of the bytes without texts and numbers.
    """
    if body.count(b"[") + body.count(b"{") <= MAX_DEPTH and len(body) <= MAX_ELEMENTS:
        return
    plain = body.replace(b"\\\\", b"").replace(b'\\"', b"").translate(None, delete=_OTHER)
    if plain.count(b'"') > 4 * MAX_ELEMENTS:  # a key and a text for each value, at the most
        raise BlandPayloadError("too_many_values", number=MAX_ELEMENTS)
    shape = _STRINGS.sub(b"", plain.replace(b'""', b""))  # most texts hold none of the others
    if shape.count(b",") + shape.count(b"[") + shape.count(b"{") > MAX_ELEMENTS:
        raise BlandPayloadError("too_many_values", number=MAX_ELEMENTS)
    depth = 0
    for char in shape.replace(b",", b""):
        depth += 1 if char in b"[{" else -1
        if depth > MAX_DEPTH:
            raise BlandPayloadError("nested_too_deeply")


def parse_json(body: bytes) -> Any:
    """Read bytes as JSON in the strict sense. Raises BlandPayloadError, and nothing else."""
    _check_shape(body)
    try:
        return json.loads(
            body.decode("utf-8-sig"),
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_integer,
            object_pairs_hook=_unique_keys,
        )
    except (ValueError, RecursionError, MemoryError):
        # Built from the error's kind alone: its text would quote the body.
        raise BlandPayloadError("not_json") from None


def parse_body(body: bytes) -> dict[str, Any]:
    """Read a successful answer's body, which must be a JSON object. Raises BlandPayloadError."""
    parsed = parse_json(body)
    if not isinstance(parsed, dict):
        raise BlandPayloadError("not_an_object")
    return parsed


# --- fields, read tolerantly ------------------------------------------------------------------


def read_text(value: object, max_length: int) -> str | Absent:
    """Text of whatever Bland sends as text; null is empty, a structure is not text."""
    if isinstance(value, str):
        return clean_text(value, max_length)
    if value is None:
        return ""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return clean_text(str(value), max_length)
    return ABSENT


def told_text(value: object, max_length: int) -> str:
    text = read_text(value, max_length)
    return "" if text is ABSENT else text


def read_lower(value: object, max_length: int) -> str | Absent:
    text = read_text(value, max_length)
    return ABSENT if text is ABSENT else text.lower()[:max_length]


def read_code(value: object, max_length: int) -> str | Absent:
    """A word of Bland's such as a status; a person's number or address has no place in it."""
    return read_text(mask(value) if isinstance(value, str) else value, max_length)


_FLAGS = {"true": True, "false": False, "1": True, "0": False}


def read_flag(value: object) -> bool | Absent:
    """Null tells nothing; ``"true"`` and 1 say the same as ``true``."""
    return _FLAGS.get(str(value).strip().lower(), ABSENT)


def read_count(value: object) -> int | Absent:
    """Null and negative numbers tell nothing; ``"3"`` says the same as 3."""
    if isinstance(value, str) and _COUNT.fullmatch(value.strip()):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return ABSENT
    return min(int(value), INT32_MAX) if value >= 0 and value == int(value) else ABSENT


_COUNT = re.compile(r"[0-9]{1,10}", re.ASCII)


def read_time(value: object, latest: datetime) -> datetime | Absent | None:
    if value is None:
        return None
    parsed = parse_time(value, latest)
    return ABSENT if parsed is None else parsed

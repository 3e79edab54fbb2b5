"""What Bland says: frozen dataclasses, the one place that reads Bland's JSON.

Everything here is tolerant of what Bland leaves open (``docs/bland.md``) and strict about what
a database refuses: text loses NUL and lone surrogates, numbers fit 64 bits, times lie between
1970 and the answer's own ``Date``. For any bytes and any JSON the only exception that leaves
this module is :class:`~bland_sms.exceptions.BlandPayloadError`.
"""

from __future__ import annotations

import enum
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta, timezone
from typing import Any, Literal

from django.utils.dateparse import parse_datetime
from django.utils.translation import gettext_noop

from . import sentences
from .exceptions import MAX_TEXT, BlandPayloadError

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
CONVERSATION_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}", re.ASCII)
"""What may stand in a URL that carries the key; ``..``, ``a#b`` and ``a?x`` would change it."""

CLOCK_TOLERANCE = timedelta(minutes=5)
"""A time later than the answer's own ``Date`` by more than this is no age."""
LOCAL_CLOCK_TOLERANCE = timedelta(days=1)
"""The same where the answer has no ``Date``: our own clock may be wrong by hours."""

MAX_DEPTH = 64
MAX_LONG_TEXT = 100_000
INT32_MAX = 2**31 - 1
INT64_MAX = 2**63 - 1
_TAG = re.compile(r"<[^>]*>?")
_ERROR_CODE = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}", re.ASCII)


class Absent(enum.Enum):
    """The type of :data:`ABSENT`."""

    ABSENT = "absent"


ABSENT = Absent.ABSENT
"""Bland did not mention the field. ``None`` and ``""`` mean that Bland said: empty."""


def is_conversation_id(value: object) -> bool:
    """Whether ``value`` may be put into a URL as a conversation's id."""
    return isinstance(value, str) and CONVERSATION_ID.fullmatch(value) is not None


# --- values -----------------------------------------------------------------------------------


def clean_text(value: str, max_length: int = MAX_LONG_TEXT) -> str:
    """Make text storable on every database: no NUL, no lone surrogates, cut to length."""
    value = value[: max_length * 2].replace("\x00", "")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        value = value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return value[:max_length]


def clean_json(value: Any, depth: int = 0) -> Any:
    """Make a JSON value storable, and equal to itself after a round trip on every database."""
    if depth > MAX_DEPTH:
        return "[nested too deeply]"  # one hostile field must not cost the whole row
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, dict):
        return {clean_text(key, 255): clean_json(item, depth + 1) for key, item in value.items()}
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
    if not isinstance(value, str) or len(value) > 64:
        return None
    try:
        parsed = parse_datetime(value.strip())
        if parsed is None:
            return None
        if parsed.tzinfo is None:
            parsed = parsed.replace(tzinfo=timezone.utc)
        parsed = parsed.astimezone(timezone.utc)
    except (ValueError, OverflowError):
        return None
    return parsed if EPOCH < parsed <= latest else None


def latest_time(answered_at: datetime | None) -> datetime:
    """The latest time that an answer given at ``answered_at`` (its ``Date``) can truly name."""
    if answered_at is not None:
        return answered_at + CLOCK_TOLERANCE
    return datetime.now(timezone.utc) + LOCAL_CLOCK_TOLERANCE


def canonical(value: Any) -> str:
    """One text for one value, whatever the order of its keys: settles ties in any order."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)


# --- bodies -----------------------------------------------------------------------------------


def _refuse_constant(name: str) -> Any:
    raise BlandPayloadError(sentences.NO_JSON_VALUE % {"name": name})


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise BlandPayloadError(gettext_noop("Bland's answer contains a number beyond all bounds"))
    return number


def _integer(text: str) -> int | str:
    # Python refuses to read integers of thousands of digits, with an error of its own.
    return int(text) if len(text) <= 20 else text


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    parsed = dict(pairs)
    if len(parsed) != len(pairs):
        raise BlandPayloadError(gettext_noop("Bland's answer repeats a key within one object"))
    return parsed


def parse_json(body: bytes) -> Any:
    """Read bytes as JSON in the strict sense. Raises BlandPayloadError, and nothing else."""
    try:
        return json.loads(
            body.decode("utf-8-sig"),
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_integer,
            object_pairs_hook=_unique_keys,
        )
    except (ValueError, RecursionError, MemoryError) as error:
        # Built from the error's kind alone: its text would quote the body.
        words = gettext_noop("Bland's answer is not valid JSON")
        if isinstance(error, RecursionError):
            words = gettext_noop("Bland's answer is nested too deeply")
        raise BlandPayloadError(words) from None


def parse_body(body: bytes) -> dict[str, Any]:
    """Read a successful answer's body, which must be a JSON object. Raises BlandPayloadError."""
    parsed = parse_json(body)
    if not isinstance(parsed, dict):
        raise BlandPayloadError(gettext_noop("Bland's answer is not a JSON object"))
    return parsed


ENVELOPE = ("data", "errors", "message", "status")
"""What stands around a payload. No conversation has fields of these names."""


def unwrap(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """The payload of either documented shape: bare, or inside ``data``."""
    data = body.get("data")
    return data if isinstance(data, dict) else body


def read_error(body: bytes) -> tuple[str, str]:
    """Bland's code and words out of an error's body, ``""`` for what is not there.

    Six envelopes are in use, HTML pages of a proxy among them; none of them raises.
    """
    try:
        parsed = parse_json(body)
    except BlandPayloadError:
        page = body[:4000].decode("utf-8", "replace")
        return "", _words(_TAG.sub(" ", page))
    return describe_error(parsed)


def describe_error(parsed: Any) -> tuple[str, str]:
    """The same for a body that is parsed already."""
    if not isinstance(parsed, dict):
        return "", ""
    errors = parsed.get("errors")
    first = errors[0] if isinstance(errors, list) and errors else errors
    if isinstance(first, str):
        return "", _words(first)
    told = first if isinstance(first, dict) else parsed
    code, message = told.get("error"), told.get("message")
    code = code if isinstance(code, str) else ""
    message = message if isinstance(message, str) else ""
    if not _ERROR_CODE.fullmatch(code):  # prose, such as "Rate Limit Exceeded"
        code, message = "", message or code
    return code, _words(message)


def _words(text: str) -> str:
    """Bland's own words on one line, without control characters, cut short."""
    printable = "".join(char if char.isprintable() else " " for char in clean_text(text, 4000))
    return " ".join(printable.split())[:MAX_TEXT]


# --- payloads ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class MessagePayload:
    """One message of a transcript as Bland reports it."""

    bland_id: str
    """Bland's id as text: integers and strings are both in use."""
    sender: str
    """Upper case: USER, AGENT, HUMAN, or anything new. The direction is read from this."""
    text: str
    status: str = ""
    error_code: str = ""
    """The carrier's code, such as ``21610``: the recipient opted out."""
    created_at: datetime | None = None
    attachments: Any = None

    @classmethod
    def from_json(cls, data: Any, *, position: int, latest: datetime) -> MessagePayload:
        """Read one message; what is not an object is kept as its text.

        Args:
            position: Its place in the transcript, which names a message that Bland sent without id.
        """
        if not isinstance(data, dict):
            data = {"message": data}
        return cls(
            bland_id=_told_text(data.get("id"), 255).strip() or f"no-id-{position}",
            sender=_told_text(data.get("sender"), 32).upper()[:32],
            text=_told_text(data.get("message", data.get("text")), MAX_LONG_TEXT),
            status=_told_text(data.get("status"), 64),
            error_code=_told_text(data.get("error_code"), 64),
            created_at=parse_time(data.get("created_at"), latest),
            attachments=clean_json(data.get("attachments")),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationPayload:
    """A conversation as Bland lists it, or in detail with its messages.

    Field names are those of :class:`bland_sms.models.Conversation`. ``ABSENT``: not part of this
    answer, which differs from being empty.
    """

    id: str
    is_active: bool | None
    """``None``: absent, or anything but a JSON boolean."""
    updated_at: datetime | None
    """Aware, by Bland's clock. ``None``: absent or not usable as an age."""
    observed_at: datetime | None = None
    """Ours: when the request that brought this was sent. ``None``: no request did."""
    created_at: datetime | Absent | None = ABSENT
    user_number: str | Absent = ABSENT
    """E.164, such as ``+15550001111``; other channels have other identities."""
    agent_number: str | Absent = ABSENT
    timed_out_at: datetime | Absent | None = ABSENT
    ended_by_end_call_node: bool | Absent = ABSENT
    message_count: int | Absent = ABSENT
    last_message: str | Absent = ABSENT
    last_message_at: datetime | Absent | None = ABSENT
    channel: str | Absent = ABSENT
    """Lower case: ``sms``, ``rcs``, ``whatsapp``, ``imessage``."""
    pathway_id: str | Absent = ABSENT
    pathway_version: str | Absent = ABSENT
    current_node_id: str | Absent = ABSENT
    summary: str | Absent = ABSENT
    disposition_tag: str | Absent = ABSENT
    variables: Any = ABSENT
    human_handoff_at: datetime | Absent | None = ABSENT
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Whatever Bland sent that has no column."""
    messages: tuple[MessagePayload, ...] | None = None
    """Oldest first. ``None``: not part of this answer; ``()``: none yet."""

    @property
    def source(self) -> Literal["list", "detail"]:
        """Which of Bland's answers this is; a detail carries the messages."""
        return "list" if self.messages is None else "detail"

    def facts(self) -> dict[str, Any]:
        """The columns that this answer told, without state and transcript."""
        told = {name: getattr(self, name) for name in FACT_COLUMNS}
        return {name: value for name, value in told.items() if value is not ABSENT}

    @classmethod
    def from_json(
        cls,
        data: Any,
        *,
        observed_at: datetime | None = None,
        answered_at: datetime | None = None,
    ) -> ConversationPayload:
        """Parse one JSON object. Raises BlandPayloadError.

        Args:
            observed_at: Aware; when the request that brought it was sent.
            answered_at: Aware; the answer's ``Date``. Times later than that are not believed.
        """
        if not isinstance(data, dict):
            raise BlandPayloadError(
                gettext_noop("a conversation in Bland's answer is not a JSON object")
            )
        conversation_id = data.get("id")
        if not isinstance(conversation_id, str) or not is_conversation_id(conversation_id):
            raise BlandPayloadError(
                gettext_noop("a conversation in Bland's answer has no usable id")
            )
        latest = latest_time(answered_at)
        told, unread = _read_facts(data, latest)
        is_active = data.get("is_active")
        return cls(
            id=conversation_id,
            is_active=is_active if isinstance(is_active, bool) else None,
            updated_at=parse_time(data.get("updated_at"), latest),
            observed_at=observed_at,
            messages=_read_messages(data.get("messages"), latest),
            extra=clean_json(unread),
            **told,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdatePayload:
    """Bland's answer to an update: the state of one conversation and no other fact of it."""

    id: str | None
    """``None``: the answer named no conversation, which Bland's documentation allows."""
    is_active: bool | None
    """``None``: nothing in the answer says so with a JSON boolean."""
    updated_at: datetime | None
    observed_at: datetime | None = None
    message: str = ""
    """Bland's own confirmation, such as "Conversation updated successfully"."""

    @property
    def source(self) -> Literal["update"]:
        return "update"

    @classmethod
    def from_json(
        cls,
        body: Mapping[str, Any],
        *,
        observed_at: datetime | None = None,
        answered_at: datetime | None = None,
    ) -> UpdatePayload:
        """Read either documented shape, bare or inside ``data``. Never raises: see the fields."""
        root = unwrap(body)
        conversation = root.get("conversation")
        if not isinstance(conversation, dict):
            conversation = root if "is_active" in root else {}
        named, is_active = conversation.get("id"), conversation.get("is_active")
        message = root.get("message")
        return cls(
            id=None if named is None else _told_text(named, 256),
            is_active=is_active if isinstance(is_active, bool) else None,
            updated_at=parse_time(conversation.get("updated_at"), latest_time(answered_at)),
            observed_at=observed_at,
            message=_words(message) if isinstance(message, str) else "",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationPage:
    """One page of the list."""

    conversations: tuple[ConversationPayload, ...]
    refused: frozenset[str]
    """Rows that could not be read as a conversation, such as one with an unusable id: as text,
    so that one that is listed again is known again."""
    row_count: int
    """Rows that Bland sent, readable or not."""
    observed_at: datetime
    """Ours: when the request was sent."""
    answered_at: datetime | None
    """Bland's: the answer's ``Date``."""

    @classmethod
    def from_json(
        cls, body: Mapping[str, Any], *, observed_at: datetime, answered_at: datetime | None
    ) -> ConversationPage:
        """Read the ``data`` of one list answer. Raises BlandPayloadError."""
        rows = body.get("data")
        if not isinstance(rows, list):
            raise BlandPayloadError(gettext_noop("Bland's list of conversations has no list in it"))
        payloads = []
        refused = set()
        for row in rows:
            try:
                payload = ConversationPayload.from_json(
                    row, observed_at=observed_at, answered_at=answered_at
                )
            except BlandPayloadError:
                refused.add(canonical(clean_json(row)))  # one unreadable row never hides the others
                continue
            payloads.append(payload)
        return cls(
            conversations=tuple(payloads),
            refused=frozenset(refused),
            row_count=len(rows),
            observed_at=observed_at,
            answered_at=answered_at,
        )


_NOT_FACTS = {"id", "is_active", "updated_at", "observed_at", "messages"}
FACT_COLUMNS = tuple(f.name for f in fields(ConversationPayload) if f.name not in _NOT_FACTS)
"""The columns of law 1's group *facts*, ``extra`` among them."""


# --- fields -----------------------------------------------------------------------------------


def _text(value: object, max_length: int) -> str | Absent:
    """Text of whatever Bland sends as text; null is empty, a structure is not text."""
    if value is None:
        return ""
    if isinstance(value, (str, int, float)) and not isinstance(value, bool):
        return clean_text(str(value), max_length)
    return ABSENT


def _told_text(value: object, max_length: int) -> str:
    text = _text(value, max_length)
    return "" if text is ABSENT else text


def _lower(value: object, max_length: int) -> str | Absent:
    text = _text(value, max_length)
    return ABSENT if text is ABSENT else text.lower()[:max_length]


def _flag(value: object) -> bool | Absent:
    if value is None:
        return False
    return value if isinstance(value, bool) else ABSENT


def _count(value: object) -> int | Absent:
    if value is None:
        return 0
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return max(0, min(int(value), INT32_MAX))
    return ABSENT


def _time(value: object, latest: datetime) -> datetime | Absent | None:
    if value is None:
        return None
    parsed = parse_time(value, latest)
    return ABSENT if parsed is None else parsed


def _text_of(max_length: int) -> Callable[[object, datetime], str | Absent]:
    return lambda value, latest: _text(value, max_length)


_READERS: dict[str, tuple[tuple[str, ...], Callable[[object, datetime], Any]]] = {
    # column: (Bland's names for it, the one in force first; how it is read)
    "created_at": (("created_at",), _time),
    "user_number": (("user_number",), _text_of(64)),
    "agent_number": (("agent_number",), _text_of(64)),
    "timed_out_at": (("timed_out_at",), _time),
    "ended_by_end_call_node": (("ended_by_end_call_node",), lambda value, _: _flag(value)),
    "message_count": (("message_count",), lambda value, _: _count(value)),
    "last_message": (("last_message",), _text_of(MAX_LONG_TEXT)),
    "last_message_at": (("last_message_at", "last_message_timestamp"), _time),
    "channel": (("effective_channel", "channel"), lambda value, _: _lower(value, 32)),
    "pathway_id": (("curr_pathway_id", "pathway_id"), _text_of(255)),
    "pathway_version": (("curr_pathway_version", "pathway_version"), _text_of(255)),
    "current_node_id": (("current_node_id",), _text_of(255)),
    "summary": (("summary",), _text_of(MAX_LONG_TEXT)),
    "disposition_tag": (("disposition_tag",), _text_of(255)),
    "variables": (("variables",), lambda value, _: clean_json(value)),
    "human_handoff_at": (("human_handoff_at",), _time),
}


def _read_facts(data: Mapping[str, Any], latest: datetime) -> tuple[dict[str, Any], dict[str, Any]]:
    """The columns that were told, and whatever else Bland sent, unusable values included."""
    told: dict[str, Any] = {}
    unread = {key: value for key, value in data.items() if key not in _NOT_FACTS}
    for column, (names, read) in _READERS.items():
        for name in names:
            if name not in unread:
                continue
            value = read(unread[name], latest)
            if value is not ABSENT and column not in told:
                told[column] = value
                del unread[name]
    return told, unread


def _read_messages(value: Any, latest: datetime) -> tuple[MessagePayload, ...] | None:
    if not isinstance(value, list):
        return None  # tells nothing, and above all not that there are none
    found: dict[str, MessagePayload] = {}
    for position, data in enumerate(value):
        message = MessagePayload.from_json(data, position=position, latest=latest)
        found[message.bland_id] = message  # an id that comes twice: the later one, in its place
    return tuple(found.values())

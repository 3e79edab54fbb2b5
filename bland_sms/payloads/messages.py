"""Messages of a conversation as Bland reports them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from ..words import MAX_LONG_TEXT
from .columns import Readers, code_of, read_columns, text_of
from .values import ABSENT, Absent, clean_json, read_code, read_text, read_time, told_text

MAX_MESSAGES = 10_000
"""Of one conversation that are kept: the newest."""
MESSAGES_LEFT_OUT = "messages_left_out"
"""The key in the ``extra`` of the oldest kept message: how many older ones are not kept."""


@dataclass(slots=True, kw_only=True)  # frozen, it would take twice as long to read one
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
    """Of any shape; Bland documents a list."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Whatever Bland sent that has no column, such as ``app_card``."""
    occurrence: int = 0
    """Of its id in the thread, from 0: an id may be the caller's own text, and come twice."""

    @classmethod
    def from_json(
        cls,
        data: Any,
        *,
        name: str,
        position: int,
        latest: datetime,
        occurrence: int,
        numbers: Container[object],
    ) -> MessagePayload:
        """Read one message; what is not an object is kept as its text, or in ``extra``.

        Args:
            name: Its :func:`message_id`.
            position: Its place in the transcript, which names a message that Bland sent without id.
            numbers: Those of the conversation, which ``from`` and ``to`` only repeat.
        """
        if not isinstance(data, dict):
            is_text = read_text(data, 1) is not ABSENT
            data = {"message" if is_text else "value": data}
        told, unread = read_columns(data, _MESSAGE_READERS, latest)
        if name or not unread.get("id"):
            unread.pop("id", None)
        kept = {
            key: value
            for key, value in unread.items()
            if value is not None and not (key in ("from", "to") and value in numbers)
        }
        return cls(
            bland_id=name or f"no-id-{position}",
            occurrence=occurrence,
            extra=clean_json(kept),
            **{"sender": "", "text": "", **told},
        )


def message_id(data: Any) -> str:
    """Bland's id of a message as text; ``""`` where it has none."""
    return told_text(data.get("id"), 255).strip() if isinstance(data, dict) else ""


def _sender(value: object, latest: datetime) -> str | Absent:
    text = read_code(value, 32)
    return ABSENT if text is ABSENT else text.upper()[:32]


_MESSAGE_READERS: Readers = {
    "sender": (("sender",), _sender),
    "text": (("message", "text"), text_of(MAX_LONG_TEXT)),
    "status": (("status",), code_of(64)),
    "error_code": (("error_code",), code_of(64)),
    "created_at": (("created_at", "timestamp"), read_time),
    "attachments": (("attachments", "media_url"), lambda value, _: clean_json(value)),
}


def read_messages(
    value: Any, latest: datetime, numbers: Container[object]
) -> tuple[MessagePayload, ...] | None:
    """All of them up to the newest ``MAX_MESSAGES``; the oldest kept one tells of the others."""
    if not isinstance(value, list):
        return None  # tells nothing, and above all not that there are none
    seen: Counter[str] = Counter()
    left_out = max(0, len(value) - MAX_MESSAGES)
    for data in value[:left_out]:
        seen[message_id(data)] += 1
    messages = []
    for position, data in enumerate(value[left_out:], start=left_out):
        name = message_id(data)
        message = MessagePayload.from_json(
            data,
            name=name,
            position=position,
            latest=latest,
            occurrence=seen[name] if name else 0,
            numbers=numbers,
        )
        seen[name] += 1
        messages.append(message)
    if left_out:
        extra = {**messages[0].extra, MESSAGES_LEFT_OUT: left_out}
        messages[0] = replace(messages[0], extra=extra)
    return tuple(messages)

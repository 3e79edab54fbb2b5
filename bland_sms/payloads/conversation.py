"""Conversations, update answers and list pages as Bland reports them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, Literal

from ..exceptions import BlandPayloadError
from ..words import MAX_LONG_TEXT, bland_words
from .columns import Readers, code_of, read_columns, text_of
from .errors import unwrap
from .messages import MessagePayload, read_messages
from .values import (
    ABSENT,
    Absent,
    canonical,
    clean_json,
    fingerprint,
    is_conversation_id,
    latest_time,
    parse_time,
    read_count,
    read_flag,
    read_lower,
    read_time,
    told_text,
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
    fingerprint: str = field(default="", compare=False)
    """Of a row of the list: equal for rows that say the same. ``""``: the same row may say more
    another time, or there is none."""
    unread: tuple[Mapping[str, Any], datetime] | None = field(
        default=None, compare=False, repr=False
    )
    """A row of the list whose facts were not asked for yet."""

    @property
    def source(self) -> Literal["list", "detail"]:
        """Which of Bland's answers this is; a detail carries the messages."""
        return "list" if self.messages is None else "detail"

    def facts(self) -> dict[str, Any]:
        """The columns that this answer told, without state and transcript."""
        if self.unread is not None:
            told, extra = _read_facts(*self.unread)
            return {**told, "extra": extra}
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
        conversation_id = _id_of(data)
        latest = latest_time(answered_at)
        told, extra = _read_facts(data, latest)
        is_active = data.get("is_active")
        return cls(
            id=conversation_id,
            is_active=is_active if isinstance(is_active, bool) else None,
            updated_at=parse_time(data.get("updated_at"), latest),
            observed_at=observed_at,
            messages=read_messages(
                data.get("messages"), latest, (data.get("user_number"), data.get("agent_number"))
            ),
            extra=extra,
            **told,
        )

    @classmethod
    def from_list(
        cls, data: Any, *, observed_at: datetime, answered_at: datetime | None
    ) -> ConversationPayload:
        """The same for a row of the list, whose facts are read when they are first asked for.

        Most rows say what they said before, which their fingerprint tells.
        """
        conversation_id = _id_of(data)
        is_active = data.get("is_active")
        latest = latest_time(answered_at)
        updated_at = parse_time(data.get("updated_at"), latest)
        if not isinstance(is_active, bool) or updated_at is None or "messages" in data:
            return cls.from_json(data, observed_at=observed_at, answered_at=answered_at)
        payload = cls.__new__(cls)
        values = {
            "id": conversation_id,
            "is_active": is_active,
            "updated_at": updated_at,
            "observed_at": observed_at,
            "created_at": read_time(data["created_at"], latest) if "created_at" in data else ABSENT,
            "messages": None,
            "fingerprint": fingerprint(data) if _are_usable(data, latest) else "",
            "unread": (data, latest),
        }
        for name, value in values.items():
            object.__setattr__(payload, name, value)
        return payload

    def __getattr__(self, name: str) -> Any:
        if name not in _READ_LATE:
            raise AttributeError(name)
        assert self.unread is not None, "all is read at once"
        told, extra = _read_facts(*self.unread)
        for column in _READ_LATE:
            object.__setattr__(self, column, told.get(column, ABSENT))
        object.__setattr__(self, "extra", extra)
        object.__setattr__(self, "unread", None)
        return getattr(self, name)


def _id_of(data: Any) -> str:
    """Raises BlandPayloadError."""
    if not isinstance(data, dict):
        raise BlandPayloadError("row_not_an_object")
    conversation_id = data.get("id")
    if not isinstance(conversation_id, str) or not is_conversation_id(conversation_id):
        raise BlandPayloadError("row_without_id")
    return conversation_id


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
            id=None if named is None else told_text(named, 256),
            is_active=is_active if isinstance(is_active, bool) else None,
            updated_at=parse_time(conversation.get("updated_at"), latest_time(answered_at)),
            observed_at=observed_at,
            message=bland_words(message) if isinstance(message, str) else "",
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
            raise BlandPayloadError("no_list")
        payloads = []
        refused = set()
        for row in rows[:MAX_ROWS]:
            try:
                payload = ConversationPayload.from_list(
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


MAX_ROWS = 2_000
"""Of one list page that are read: twice as many as Bland's documentation allows to ask for."""
MOST_EXTRA = 200
"""Fields without a column that are kept of one conversation: those told last, then by name."""

_NOT_FACTS = {"id", "is_active", "updated_at", "observed_at", "messages"}
_NOT_TOLD = {*_NOT_FACTS, "fingerprint", "unread"}
FACT_COLUMNS = tuple(f.name for f in fields(ConversationPayload) if f.name not in _NOT_TOLD)
"""The columns of law 1's group *facts*, ``extra`` among them."""
_READ_LATE = frozenset(FACT_COLUMNS) - {"created_at"}


_READERS: Readers = {
    "created_at": (("created_at",), read_time),
    "user_number": (("user_number",), text_of(64)),
    "agent_number": (("agent_number",), text_of(64)),
    "timed_out_at": (("timed_out_at",), read_time),
    "ended_by_end_call_node": (("ended_by_end_call_node",), lambda value, _: read_flag(value)),
    "message_count": (("message_count",), lambda value, _: read_count(value)),
    "last_message": (("last_message",), text_of(MAX_LONG_TEXT)),
    "last_message_at": (("last_message_at", "last_message_timestamp"), read_time),
    "channel": (("effective_channel", "channel"), lambda value, _: read_lower(value, 32)),
    "pathway_id": (("curr_pathway_id", "pathway_id"), text_of(255)),
    "pathway_version": (("curr_pathway_version", "pathway_version"), text_of(255)),
    "current_node_id": (("current_node_id",), text_of(255)),
    "summary": (("summary",), text_of(MAX_LONG_TEXT)),
    "disposition_tag": (("disposition_tag",), code_of(255)),
    "variables": (("variables",), lambda value, _: clean_json(value)),
    "human_handoff_at": (("human_handoff_at",), read_time),
}
_TIMES = frozenset(name for names, read in _READERS.values() if read is read_time for name in names)


def _read_facts(data: Mapping[str, Any], latest: datetime) -> tuple[dict[str, Any], dict[str, Any]]:
    """The columns that were told, and what belongs into ``extra``."""
    facts = {key: value for key, value in data.items() if key not in _NOT_FACTS}
    told, unread = read_columns(facts, _READERS, latest)
    return told, dict(sorted(clean_json(unread).items())[:MOST_EXTRA]) if unread else {}


def _are_usable(data: Mapping[str, Any], latest: datetime) -> bool:
    """Whether all times can be read. One that lies ahead of this answer can be with the next."""
    return all(
        data.get(name) is None or parse_time(data[name], latest) is not None for name in _TIMES
    )

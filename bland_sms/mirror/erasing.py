"""Erases what tells of a person from conversations and messages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.utils import timezone

from ..database import using, write_transaction
from ..models import Conversation, Message
from .apply import announce_changed
from .rows import locked_rows


@dataclass(frozen=True)
class Erased:
    """What was forgotten."""

    conversation_ids: tuple[str, ...]
    messages: int


_PERSONAL: dict[str, Any] = {
    "user_number": "",
    "customer_key": "",
    "user_digits_reversed": "",
    "last_message": "",
    "summary": "",
    "variables": None,
    "extra": {},
    "disposition_tag": "",
    "older_facts": {},
    "listed": "",
}
"""What tells of a person, and what is left when they are forgotten."""


def erase(conversation_ids: Sequence[str]) -> Erased:
    """Forget whose conversations these are and what was said; for good.

    From then on a row takes its state only (see ``Merge.take``), so no later answer of Bland's
    brings the rest back. A row that was erased before stays as it is. Its events stay too: they are
    times and kinds of a conversation that identify no person.
    """
    alias = using()
    with write_transaction(Conversation):
        rows = [row for row in locked_rows(conversation_ids, alias) if row.erased_at is None]
        ids = [row.pk for row in rows]
        messages = Message.objects.using(alias).filter(conversation__in=ids).delete()[0]
        values = {**_PERSONAL, "erased_at": timezone.now()}
        Conversation.objects.using(alias).filter(pk__in=ids).update(**values)
        if ids:
            announce_changed(dict.fromkeys(ids, ("messages", *values)))
    return Erased(tuple(ids), messages)

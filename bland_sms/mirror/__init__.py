"""The only writer of Conversation and Message rows: applies payloads in any order, same result."""

from __future__ import annotations

import logging
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, TypeVar

from django.db import (
    DatabaseError,
    IntegrityError,
    OperationalError,
    router,
    transaction,
)
from django.db.models import Q
from django.utils import timezone

from ..models import Conversation, Message
from ..payloads import UpdatePayload
from ..signals import announce, conversation_changed, conversation_created
from .merge import Applied, Merge, Outcome, Payload
from .rows import locked_rows, new_row, write

__all__ = [
    "Applied",
    "Erased",
    "Outcome",
    "Payload",
    "apply_conversation",
    "apply_page",
    "erase",
    "mark_missing",
    "write_in_halves",
]

logger = logging.getLogger("bland_sms.mirror")

_INSERT_ATTEMPTS = 5


@dataclass(frozen=True)
class Erased:
    """What was forgotten."""

    conversation_ids: tuple[str, ...]
    messages: int


def apply_conversation(payload: Payload, *, observed_at: datetime, settle: bool = False) -> Outcome:
    """Bring one row up to what Bland said, unless the row already knows better.

    Args:
        observed_at: Aware; when the request that brought the payload was *sent*.
        settle: The payload is the best that Bland can tell: one without a usable
            ``updated_at`` is believed if it was observed later than the row.

    Returns:
        What became of it: created, changed, unchanged, stale, or gone.
    """
    return apply_page([replace(payload, observed_at=observed_at)], settle=settle)[
        str(payload.id)
    ].outcome


def apply_page(
    payloads: Sequence[Payload],
    *,
    settle: bool = False,
    creatable: Container[str] | None = None,
) -> dict[str, Applied]:
    """Apply any number of payloads in one transaction and a fixed number of statements.

    Args:
        payloads: Each with its ``id`` and ``observed_at``; several of one conversation may be
            among them.
        settle: See :func:`apply_conversation`.
        creatable: Ids of rows that may be made; ``None``: any. Other rows that are not there
            were deleted meanwhile and stay so.

    Returns:
        What became of each conversation, by id.

    Raises:
        DatabaseError: nothing was written.
    """
    using = router.db_for_write(Conversation)
    for attempt in range(1, _INSERT_ATTEMPTS + 1):
        try:
            with transaction.atomic(using=using):
                return _apply(payloads, settle, creatable, using)
        except IntegrityError:
            # Somebody inserted one of the rows between our look and our insert: now it is there.
            if attempt == _INSERT_ATTEMPTS:
                raise
    raise AssertionError("unreachable")


def mark_missing(conversation_id: str, observed_at: datetime) -> bool:
    """Bland answered a GET with CONVERSATION_NOT_FOUND: remember it, and keep the row.

    Args:
        observed_at: Aware; when that GET was sent. Whatever was observed later contradicts it.
    """
    marked = Conversation.objects.filter(
        Q(transcript_observed_at__isnull=True) | Q(transcript_observed_at__lte=observed_at),
        pk=conversation_id,
        observed_at__lte=observed_at,
        facts_observed_at__lte=observed_at,
        missing_since__isnull=True,
    ).update(missing_since=observed_at)
    if marked:
        _announce_changed({conversation_id: ("missing_since",)})
    return bool(marked)


_PERSONAL: dict[str, Any] = {
    "user_number": "",
    "user_digits": "",
    "user_digits_reversed": "",
    "last_message": "",
    "summary": "",
    "variables": None,
    "extra": {},
    "disposition_tag": "",
    "older_facts": {},
}
"""What tells of a person, and what is left when they are forgotten."""


def erase(conversation_ids: Sequence[str]) -> Erased:
    """Forget whose conversations these are and what was said; for good.

    From then on a row takes its state only (see ``Merge.take``), so no later answer of Bland's
    brings the rest back. A row that was erased before stays as it is.
    """
    using = router.db_for_write(Conversation)
    with transaction.atomic(using=using):
        rows = [row for row in locked_rows(conversation_ids, using) if row.erased_at is None]
        ids = [row.pk for row in rows]
        messages = Message.objects.using(using).filter(conversation__in=ids).delete()[0]
        values = {**_PERSONAL, "erased_at": timezone.now()}
        Conversation.objects.using(using).filter(pk__in=ids).update(**values)
        if ids:
            _announce_changed(dict.fromkeys(ids, ("messages", *values)))
    return Erased(tuple(ids), messages)


Row = TypeVar("Row")


def write_in_halves(
    rows: Sequence[Row],
    write: Callable[[Sequence[Row]], None],
    refused: Callable[[Row, DatabaseError], None],
) -> None:
    """Write a batch; one that the database refuses is halved until the poison row is alone.

    A database that is locked or away refuses nothing: that error is raised.
    """
    if not rows:
        return
    try:
        write(rows)
    except OperationalError:
        raise
    except (DatabaseError, ValueError, OverflowError) as error:
        if len(rows) == 1:
            logger.warning("the database refused a row: %s", type(error).__name__)
            refused(rows[0], DatabaseError(type(error).__name__))
            return
        middle = len(rows) // 2
        write_in_halves(rows[:middle], write, refused)
        write_in_halves(rows[middle:], write, refused)


def _apply(
    payloads: Sequence[Payload], settle: bool, creatable: Container[str] | None, using: str
) -> dict[str, Applied]:
    ids = sorted({str(payload.id) for payload in payloads})
    merges = {row.pk: Merge(row, is_new=False) for row in locked_rows(ids, using)}
    for payload in payloads:
        pk = str(payload.id)
        if pk not in merges:
            merges[pk] = Merge(new_row(pk), is_new=True)
        if merges[pk].exists or creatable is None or pk in creatable:
            merges[pk].take(payload, settle=settle)
    write(merges, using, state_only=all(isinstance(p, UpdatePayload) for p in payloads))
    applied = {pk: merge.applied() for pk, merge in merges.items()}
    _announce(applied)
    return applied


def _announce(applied: dict[str, Applied]) -> None:
    created = [pk for pk, one in applied.items() if one.outcome is Outcome.CREATED]
    if created:
        announce(
            conversation_created, Conversation, lambda: [{"conversation_id": pk} for pk in created]
        )
    changed = {pk: one.changed_fields for pk, one in applied.items() if one.changed_fields}
    if changed:
        _announce_changed(changed)


def _announce_changed(changed: dict[str, tuple[str, ...]]) -> None:
    announce(
        conversation_changed,
        Conversation,
        lambda: [
            {"conversation_id": pk, "changed_fields": fields} for pk, fields in changed.items()
        ],
    )

"""Applies what Bland said to the rows, in any order with the same result."""

from __future__ import annotations

import logging
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from datetime import datetime
from functools import cache

from django.db import IntegrityError
from django.db.models import Q
from django.utils import timezone

from ..database import after_commit, using, write_transaction
from ..models import Conversation
from ..payloads import UpdatePayload
from ..signals import announce, conversation_changed, conversation_created
from ..stop_words import stop_words
from .merge import Applied, Effect, Merge, Payload
from .rows import listed, locked_rows, new_row, write
from .watching import watchers

logger = logging.getLogger("bland_sms.mirror")

_INSERT_ATTEMPTS = 5


def apply_conversation(payload: Payload, *, observed_at: datetime, settle: bool = False) -> Effect:
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

    Rows of the list that say what is known already are not written. That they were told once more,
    and when, is known of the walk that read them: see ``sync.copied_at``. Their own ages would
    decide only between answers that contradict each other about one ``updated_at``, and were
    under way at the same time.

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
    alias = using()
    known = listed(payloads, alias)
    again = {
        str(payload.id): Applied(Effect.UNCHANGED, payload.is_active)
        for payload in payloads
        if payload.id in known
    }
    payloads = [payload for payload in payloads if payload.id not in known]
    if not payloads:
        return again
    for attempt in range(1, _INSERT_ATTEMPTS + 1):
        try:
            with write_transaction(Conversation):
                return again | _apply(payloads, settle, creatable, alias)
        except IntegrityError:
            # Another process inserted one of the rows after our SELECT: now it is there.
            if attempt == _INSERT_ATTEMPTS:
                raise
    raise AssertionError("unreachable")


def mark_missing(conversation_id: str, observed_at: datetime) -> bool:
    """Bland answered a GET with CONVERSATION_NOT_FOUND: remember it, and keep the row.

    Args:
        observed_at: Aware; when that GET was sent. Whatever was observed later contradicts it,
            but not what lies ahead of now: that was written by a clock that is wrong.
    """
    now = timezone.now()
    not_later = [
        Q(**{f"{name}__lte": observed_at}) | Q(**{f"{name}__gt": now})
        for name in ("observed_at", "facts_observed_at", "transcript_observed_at")
    ]
    marked = Conversation.objects.filter(
        not_later[0],
        not_later[1],
        not_later[2] | Q(transcript_observed_at__isnull=True),
        pk=conversation_id,
        missing_since__isnull=True,
    ).update(missing_since=min(observed_at, now))
    if marked:
        announce_changed({conversation_id: ("missing_since",)})
    return bool(marked)


def _apply(
    payloads: Sequence[Payload], settle: bool, creatable: Container[str] | None, alias: str
) -> dict[str, Applied]:
    ids = sorted({str(payload.id) for payload in payloads})
    rows, now = locked_rows(ids, alias), timezone.now()
    words = cache(stop_words)
    merges = {row.pk: Merge(row, is_new=False, now=now, words=words) for row in rows}
    for payload in payloads:
        pk = str(payload.id)
        if pk not in merges:
            merges[pk] = Merge(new_row(pk), is_new=True, now=now, words=words)
        if merges[pk].exists or creatable is None or pk in creatable:
            merges[pk].take(payload, settle=settle)
    write(merges, alias, state_only=all(isinstance(p, UpdatePayload) for p in payloads))
    applied = {pk: merge.applied() for pk, merge in merges.items()}
    _announce(applied)
    _show([merge.row for merge in merges.values() if merge.exists and merge.is_news])
    return applied


_gathered: ContextVar[list[Conversation] | None] = ContextVar("_gathered", default=None)


@contextmanager
def shown_together() -> Iterator[None]:
    """Tell the watchers of all that is written meanwhile at the end, as of one page; also where
    that is an error, since what was written before it stays."""
    rows: list[Conversation] = []
    token = _gathered.set(rows)
    try:
        yield
    finally:
        _gathered.reset(token)
        _show(rows)


def _show(rows: Sequence[Conversation]) -> None:
    """Tell the watchers of rows that are new or have changed, after commit."""
    gathered = _gathered.get()

    def tell() -> None:
        if gathered is not None:
            gathered.extend(rows)
            return
        for watch in watchers:
            watch(rows)

    if rows and watchers:
        after_commit(tell)


def _announce(applied: dict[str, Applied]) -> None:
    created = [pk for pk, one in applied.items() if one.outcome is Effect.CREATED]
    if created:
        announce(
            conversation_created, Conversation, lambda: [{"conversation_id": pk} for pk in created]
        )
    changed = {pk: one.changed_fields for pk, one in applied.items() if one.changed_fields}
    if changed:
        announce_changed(changed)


def announce_changed(changed: dict[str, tuple[str, ...]]) -> None:
    announce(
        conversation_changed,
        Conversation,
        lambda: [
            {"conversation_id": pk, "changed_fields": fields} for pk, fields in changed.items()
        ],
    )

"""Pull: one conversation, the changes since last time, everything."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.db import DatabaseError
from django.utils import timezone

from .client import BlandClient, ListFilter, get_client
from .exceptions import (
    STOPPING_ERRORS,
    BlandError,
    BlandNotFoundError,
    BlandNotSentError,
    BlandPayloadError,
)
from .mirror import Applied, Outcome, apply_page, mark_missing, write_in_halves
from .models import Conversation, SyncRun
from .pacing import Allowance
from .payloads import ConversationPayload
from .signals import announce, sync_finished
from .transactions import refuse_in_transaction

logger = logging.getLogger("bland_sms.sync")


def refresh(conversation_id: str, *, allowance: Allowance | None = None) -> Outcome:
    """Copy one conversation and its messages from Bland.

    Raises:
        BlandNotFoundError: this account has no such conversation; the row remembers it.
        BlandError: any other failure; nothing changed.
        RuntimeError: called inside a database transaction.
    """
    refuse_in_transaction()
    try:
        payload = get_client().get_conversation(conversation_id, allowance=allowance)
    except BlandNotFoundError as error:
        _remember_missing(conversation_id, error)
        raise
    return apply_page([payload], settle=True)[payload.id].outcome


def _remember_missing(conversation_id: str, error: BlandNotFoundError) -> None:
    if error.observed_at is not None:
        mark_missing(conversation_id, error.observed_at)


@dataclass
class Refreshed:
    """What became of several conversations that were to be copied."""

    copied: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    failed: dict[str, BlandError] = field(default_factory=dict)
    """By id; :class:`BlandNotSentError` where the time was up."""


def refresh_many(conversation_ids: Sequence[str], *, seconds: float | None = None) -> Refreshed:
    """Copy several conversations side by side; one that fails does not stop the others.

    Args:
        seconds: For all of them; ``None``: as long as it takes.

    Raises:
        BlandConfigurationError: there is no usable key, base URL or CA bundle.
        RuntimeError: called inside a database transaction.
    """
    refuse_in_transaction()
    client = get_client()
    allowance = Allowance() if seconds is None else Allowance.of_seconds(seconds)
    refreshed = Refreshed()
    with ThreadPoolExecutor(client.settings.max_concurrency, "bland_sms") as pool:
        asked = {
            pool.submit(client.get_conversation, conversation_id, allowance=allowance): (
                conversation_id
            )
            for conversation_id in dict.fromkeys(conversation_ids)
        }
        for future in as_completed(asked):
            conversation_id = asked[future]
            try:
                payload = future.result()
            except BlandNotFoundError as error:
                _remember_missing(conversation_id, error)
                refreshed.missing.append(conversation_id)
            except BlandError as error:
                if isinstance(error, STOPPING_ERRORS):
                    allowance.stopped.set()
                refreshed.failed[conversation_id] = error
            else:
                apply_page([payload], settle=True)
                refreshed.copied.append(conversation_id)
    return refreshed


def sync_all(
    *,
    trigger: str = "command",
    requested_by: Any = None,
    on_page: Callable[[SyncRun], None] = lambda run: None,
) -> SyncRun:
    """Copy the whole list, oldest conversation first.

    By keyset and not by page number: rows that come and go while we read move no other row out
    of sight. Each page asks for what was created at or after the last row's time, and a time
    that fills more than a page is walked by page number within itself.

    Args:
        requested_by: The user who asked for it, if one did.
        on_page: Called after each page with the run's counts so far.

    Returns:
        The finished run; ``incomplete`` with its ``error`` where the list could not be trusted.

    Raises:
        BlandError: Bland could not be asked; the run is recorded as failed.
        RuntimeError: called inside a database transaction.
    """
    refuse_in_transaction()
    run = SyncRun.objects.create(trigger=trigger, requested_by=requested_by)
    try:
        run.error = _walk(get_client(), run, on_page)
        run.status = SyncRun.Status.INCOMPLETE if run.error else SyncRun.Status.FINISHED
    except BaseException as error:
        run.status = SyncRun.Status.FAILED
        run.error = str(error)[:500] if isinstance(error, BlandError) else type(error).__name__
        raise
    finally:
        run.finished_at = timezone.now()
        run.save()
        announce(sync_finished, SyncRun, lambda: [{"sync_run": run}])
    return run


def _walk(client: BlandClient, run: SyncRun, on_page: Callable[[SyncRun], None]) -> str:
    """Read the list to its end; what is wrong with it in words, or ``""``."""
    cursor: datetime | None = None
    page_number, longest_page = 1, 0
    seen_at_cursor: set[str] = set()
    refused: set[str] = set()
    while True:
        filters = [] if cursor is None else [ListFilter("created_at", "gte", _as_text(cursor))]
        page = client.list_conversations(page=page_number, filters=filters)
        fresh = [payload for payload in page.conversations if payload.id not in seen_at_cursor]
        run.failed += len(page.refused - refused)
        refused |= page.refused
        _apply_counted(client, run, fresh)
        on_page(run)
        if page.row_count == 0:
            return ""
        times = [p.created_at for p in page.conversations if isinstance(p.created_at, datetime)]
        if times != sorted(times) or (cursor is not None and times and times[0] < cursor):
            return "Bland ignored the order or the filter asked for: the list cannot be walked"
        longest_page = max(longest_page, page.row_count)
        newest = _floor(times[-1]) if times else cursor
        if newest != cursor:
            cursor, page_number, seen_at_cursor = newest, 1, set()
        elif page.row_count < longest_page:
            return ""
        else:
            page_number += 1
        seen_at_cursor |= {
            p.id
            for p in page.conversations
            if isinstance(p.created_at, datetime) and _floor(p.created_at) == cursor
        }


def _floor(moment: datetime) -> datetime:
    """Rounded down to Bland's milliseconds, so that the row itself is in the next answer."""
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def _as_text(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _apply_counted(
    client: BlandClient,
    run: SyncRun,
    payloads: Iterable[ConversationPayload],
) -> None:
    def write(rows: Sequence[ConversationPayload]) -> None:
        applied.update(apply_page(rows))

    def refused(row: ConversationPayload, error: DatabaseError) -> None:
        logger.warning("conversation %s could not be stored", row.id)
        run.failed += 1

    applied: dict[str, Applied] = {}
    write_in_halves(list(payloads), write, refused)
    for conversation_id, one in applied.items():
        if one.needs_look:
            applied[conversation_id] = _look(client, conversation_id) or one
    outcomes = [one.outcome for one in applied.values()]
    run.seen += len(outcomes)
    run.created += outcomes.count(Outcome.CREATED)
    run.changed += outcomes.count(Outcome.CHANGED)
    run.unchanged += outcomes.count(Outcome.UNCHANGED) + outcomes.count(Outcome.STALE)
    run.failed += outcomes.count(Outcome.GONE)


def _look(client: BlandClient, conversation_id: str) -> Applied | None:
    """The list told no usable age or state: ask for the conversation itself, once."""
    try:
        payload = client.get_conversation(conversation_id)
    except (BlandNotFoundError, BlandPayloadError, BlandNotSentError) as error:
        logger.info("conversation %s: %s", conversation_id, error.code)
        return None
    return apply_page([payload], settle=True)[payload.id]


def last_copied_at() -> datetime | None:
    """When the last complete copy of the list was begun; ``None``: never."""
    finished = SyncRun.objects.filter(status=SyncRun.Status.FINISHED).order_by("-pk")
    return finished.values_list("started_at", flat=True).first()


def is_mirror_empty() -> bool:
    """Whether nothing was copied yet."""
    return not Conversation.objects.filter(pk__gt="").exists()  # one look into the index

"""The log of runs: who holds the lease, where the last one came to, what is known since when."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from django.db import IntegrityError
from django.db.models import Q
from django.utils import timezone

from ..database import not_locked, write_transaction
from ..models import Conversation, SyncRun
from ..reasons import Failure

Status = SyncRun.Status
LEASE_KEY = "sync"
RESUMABLE_FOR = timedelta(days=1)
"""A walk that stood still for longer is begun anew."""
FULL_WAIT_SECONDS = 600
"""How long a scheduled full run waits for a running incremental run before it is skipped."""
WAIT_INTERVAL_SECONDS = 1


def begin(run: SyncRun, *, wait_seconds: float = 0, stopped: threading.Event | None = None) -> bool:
    """Take the lease for a new run and save it; False, and recorded as skipped, if it is taken.

    Args:
        wait_seconds: How long to wait while an incremental run holds the lease. Another full run
            is not waited for: it copies the same.
        stopped: Once set, the wait ends.
    """
    give_up_at = time.monotonic() + wait_seconds
    stopped = stopped or threading.Event()
    while not _take_lease(run):
        other = SyncRun.objects.filter(lease_key=LEASE_KEY).values_list("mode", flat=True).first()
        is_worth_waiting = other != SyncRun.Mode.FULL and time.monotonic() < give_up_at
        if not is_worth_waiting or stopped.wait(WAIT_INTERVAL_SECONDS):
            run.status, run.finished_at = Status.SKIPPED, timezone.now()
            run.failure = Failure("sync_running")
            run.save()
            return False
    return True


def _take_lease(run: SyncRun) -> bool:
    """Take the lease and save the run, or leave it unsaved if another run holds the lease."""
    now = timezone.now()
    dead = SyncRun.objects.filter(SyncRun.unleased(), lease_key=LEASE_KEY)
    with write_transaction(SyncRun):
        # One that stands still in its write transaction holds its lease until that has ended.
        free = list(not_locked(dead).values_list("pk", flat=True))
        SyncRun.objects.filter(pk__in=free).update(
            lease_key=None,
            lease_token=None,
            lease_until=None,
            status=Status.INCOMPLETE,
            error_code="process_ended",
            error_params={},
            finished_at=now,
        )
    run.started_at = run.walk_began_at = now
    run.lease_key = LEASE_KEY
    run.begin_lease()
    try:
        with write_transaction(SyncRun):
            run.save()
    except IntegrityError:
        run.lease_key = run.lease_token = run.lease_until = None
        return False
    return True


def renew(run: SyncRun) -> None:
    """Keep the lease, and write how far the run has come. Raises LostLeaseError."""
    run.renew_lease(**_progress(run))


def _progress(run: SyncRun) -> dict[str, Any]:
    columns = ("cursor", "watermark", "dialect", "walk_began_at", "owed")
    counts = ("seen", "created", "changed", "unchanged", "failed")
    return {name: getattr(run, name) for name in (*columns, *counts)}


def end(run: SyncRun) -> None:
    """Give the lease back and say how it ended."""
    run.lease_key, run.finished_at = None, timezone.now()
    run.release_lease(
        lease_key=None,
        status=run.status,
        error_code=run.error_code,
        error_params=run.error_params,
        finished_at=run.finished_at,
        **_progress(run),
    )


def last_watermark() -> datetime | None:
    """By Bland's clock: every change before it is in the mirror. ``None``: nothing is known."""
    finished = SyncRun.objects.filter(status=Status.FINISHED, watermark__isnull=False)
    return finished.order_by("-pk").values_list("watermark", flat=True).first()


def last_dialect() -> str:
    """The dialect of the list that Bland obeyed last, or ``""``."""
    known = SyncRun.objects.exclude(dialect="").order_by("-pk")
    return known.values_list("dialect", flat=True).first() or ""


def interrupted(run: SyncRun) -> SyncRun | None:
    """The attempt before this one, if it stopped in the middle of such a walk."""
    before = SyncRun.objects.filter(mode=run.mode, pk__lt=run.pk).exclude(status=Status.SKIPPED)
    last = before.order_by("-pk").first()
    if last is None or last.status not in (Status.INCOMPLETE, Status.FAILED) or not last.cursor:
        return None
    # Another machine's clock may be ahead of ours: a walk of five minutes from now is fresh too.
    is_fresh = abs(timezone.now() - last.walk_began_at) < RESUMABLE_FOR
    return last if is_fresh and last.watermark is not None else None


def last_copied_at() -> datetime | None:
    """When the walk began that last was completed; ``None``: none was."""
    # A run "since" some time leaves a gap before it, and therefore has no watermark.
    whole = Q(mode=SyncRun.Mode.FULL) | Q(watermark__isnull=False)
    # A time ahead of now was written by a clock that is wrong, and says nothing about the age.
    finished = SyncRun.objects.filter(
        whole, status=Status.FINISHED, walk_began_at__lte=timezone.now()
    ).order_by("-pk")
    return finished.values_list("walk_began_at", flat=True).first()


def last_full_walk_at() -> datetime | None:
    """When the full walk began that last was completed; ``None``: none was."""
    finished = SyncRun.objects.filter(
        mode=SyncRun.Mode.FULL, status=Status.FINISHED, walk_began_at__lte=timezone.now()
    ).order_by("-pk")
    return finished.values_list("walk_began_at", flat=True).first()


def copied_at(
    conversation: Conversation, walked_at: Callable[[], datetime | None] = last_full_walk_at
) -> datetime:
    """When Bland last told what the row says: with an answer that was written, or in a walk.

    Args:
        walked_at: Asked where it matters only; for callers that ask for many rows.
    """
    if not conversation.listed or conversation.missing_since is not None:
        return conversation.observed_at
    return max(conversation.observed_at, walked_at() or conversation.observed_at)


def last_attempt() -> SyncRun | None:
    """The newest attempt that has ended, whatever came of it."""
    ended = (Status.FINISHED, Status.INCOMPLETE, Status.FAILED)
    return SyncRun.objects.filter(status__in=ended).order_by("-pk").first()


def is_mirror_empty() -> bool:
    """Whether nothing was copied yet."""
    return not Conversation.objects.filter(pk__gt="").exists()  # one look into the index

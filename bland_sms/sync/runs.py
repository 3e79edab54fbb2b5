"""The log of runs: who holds the lease, where the last one came to, what is known since when."""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta
from typing import Any

from django.db import IntegrityError, router, transaction
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_noop

from ..models import Conversation, SyncRun

Status = SyncRun.Status
LEASE = timedelta(seconds=15)
LEASE_KEY = "sync"
RESUMABLE_FOR = timedelta(days=1)
"""A walk that stood still for longer is begun anew."""


class LostLeaseError(Exception):
    """Another process has taken over: we were thought dead."""


def begin(run: SyncRun) -> bool:
    """Take the lease for a new run and save it; False, and recorded as skipped, if it is taken."""
    now = timezone.now()
    SyncRun.objects.filter(lease_key=LEASE_KEY, lease_until__lte=now).update(
        lease_key=None,
        lease_token=None,
        status=Status.INCOMPLETE,
        error=gettext_noop("its process ended in the middle"),
        finished_at=now,
    )
    run.lease_key, run.lease_token, run.lease_until = LEASE_KEY, uuid.uuid4(), now + LEASE
    try:
        with transaction.atomic(using=router.db_for_write(SyncRun)):
            run.save()
    except IntegrityError:
        run.lease_key = run.lease_token = run.lease_until = None
        run.status, run.finished_at = Status.SKIPPED, now
        run.error = gettext_noop("another sync is running")
        run.save()
        return False
    return True


def renew(run: SyncRun) -> None:
    """Keep the lease, and write how far the run has come. Raises LostLeaseError."""
    run.lease_until = timezone.now() + LEASE
    ours = SyncRun.objects.filter(pk=run.pk, lease_token=run.lease_token)
    if not ours.update(lease_until=run.lease_until, **_progress(run)):
        raise LostLeaseError


def _progress(run: SyncRun) -> dict[str, Any]:
    columns = ("cursor", "watermark", "dialect", "walk_began_at")
    counts = ("seen", "created", "changed", "unchanged", "failed")
    return {name: getattr(run, name) for name in (*columns, *counts)}


def end(run: SyncRun) -> None:
    """Give the lease back and say how it ended."""
    ours = SyncRun.objects.filter(pk=run.pk, lease_token=run.lease_token)
    run.finished_at = timezone.now()
    run.lease_key = run.lease_token = run.lease_until = None
    ours.update(
        status=run.status,
        error=run.error,
        finished_at=run.finished_at,
        lease_key=None,
        lease_token=None,
        lease_until=None,
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
    is_fresh = last.walk_began_at > timezone.now() - RESUMABLE_FOR
    return last if is_fresh and last.watermark is not None else None


def last_copied_at() -> datetime | None:
    """When the walk began that last was completed; ``None``: none was."""
    # A run "since" some time leaves a gap before it, and therefore has no watermark.
    whole = Q(mode=SyncRun.Mode.FULL) | Q(watermark__isnull=False)
    finished = SyncRun.objects.filter(whole, status=Status.FINISHED).order_by("-pk")
    return finished.values_list("walk_began_at", flat=True).first()


def is_mirror_empty() -> bool:
    """Whether nothing was copied yet."""
    return not Conversation.objects.filter(pk__gt="").exists()  # one look into the index

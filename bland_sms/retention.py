"""How long we keep what grows with time: webhook deliveries, sync runs, drafts, the ledger."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db.models import QuerySet
from django.utils import timezone

from .conf import get_settings
from .models import (
    BulkUpdate,
    BulkUpdateItem,
    DailyTotal,
    MonthlyTotal,
    PastedLine,
    SyncRun,
    WebhookDelivery,
)
from .models.event import day_of
from .summary import LONGEST_DAYS
from .updates import DRAFT_LIFE

ROWS_PER_STATEMENT = 500


@dataclass
class Pruned:
    """How many rows went, or would go."""

    deliveries: int = 0
    sync_runs: int = 0
    drafts: int = 0
    daily_totals: int = 0
    updates: int = 0
    items: int = 0
    """Of drafts and updates."""


def prune(*, dry_run: bool = False) -> Pruned:
    """Delete what is older than the settings say, in small batches that hold no lock for long.

    Deliveries and sync runs go after ``RETENTION_DAYS``, updates at rest after
    ``LEDGER_RETENTION_DAYS`` if that is set, drafts after an hour, totals after 400 days; events
    stay with their conversations. Of the sync runs those stay that the next one begins from.
    """
    settings = get_settings()
    now = timezone.now()
    oldest = now - timedelta(days=settings.retention_days)
    delete = _count if dry_run else _delete
    pruned = Pruned()
    pruned.deliveries = delete(WebhookDelivery.objects.filter(received_at__lt=oldest))
    runs = SyncRun.objects.filter(started_at__lt=oldest).exclude(status=SyncRun.Status.RUNNING)
    pruned.sync_runs = delete(runs.exclude(pk__in=_needed_runs()))
    drafts = BulkUpdate.objects.filter(
        status=BulkUpdate.Status.DRAFT, created_at__lt=now - DRAFT_LIFE
    )
    pruned.drafts = _prune_updates(drafts, delete, pruned)
    oldest_day = day_of(now) - timedelta(days=LONGEST_DAYS)
    # First the month that the oldest day lies in: what is left of it is read by its days. They are
    # the same numbers again, so they are not counted here.
    delete(MonthlyTotal.objects.filter(month__lt=oldest_day))
    pruned.daily_totals = delete(DailyTotal.objects.filter(day__lt=oldest_day))
    if settings.ledger_retention_days is not None:
        at_rest = BulkUpdate.objects.filter(
            status__in=BulkUpdate.Status.AT_REST,
            finished_at__lt=now - timedelta(days=settings.ledger_retention_days),
        )
        pruned.updates = _prune_updates(at_rest, delete, pruned)
    return pruned


def _needed_runs() -> list[int]:
    """The newest complete copy, the newest that knows Bland's clock, the newest of everything."""
    finished = SyncRun.objects.filter(status=SyncRun.Status.FINISHED).order_by("-pk")
    newest = (
        finished.first(),
        finished.filter(watermark__isnull=False).first(),
        finished.filter(mode=SyncRun.Mode.FULL).first(),
    )
    return [run.pk for run in newest if run is not None]


def _prune_updates(
    updates: QuerySet[BulkUpdate], delete: Callable[[QuerySet[Any]], int], pruned: Pruned
) -> int:
    """Items and lines first and in batches: a cascade would take all of them at once."""
    pruned.items += delete(BulkUpdateItem.objects.filter(bulk_update__in=updates))
    delete(PastedLine.objects.filter(bulk_update__in=updates))
    return delete(updates)


def _count(rows: QuerySet[Any]) -> int:
    return rows.count()


def _delete(rows: QuerySet[Any]) -> int:
    deleted = 0
    while True:
        some = list(rows.order_by("pk").values_list("pk", flat=True)[:ROWS_PER_STATEMENT])
        if not some:
            return deleted
        rows.model._default_manager.filter(pk__in=some).delete()
        deleted += len(some)

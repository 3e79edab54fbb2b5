"""What is thrown away with time, and what is not."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from bland_sms import retention
from bland_sms.models import (
    BulkUpdate,
    BulkUpdateItem,
    Conversation,
    Message,
    SyncRun,
    WebhookDelivery,
)
from bland_sms.retention import prune
from bland_sms.sync import last_copied_at

from .test_commands import manage

pytestmark = pytest.mark.django_db
OLD, FRESH = timedelta(days=31), timedelta(days=29)


def rang(number: int, ago: timedelta, **values: Any) -> WebhookDelivery:
    return WebhookDelivery.objects.create(
        body_sha256=f"{number:064d}", received_at=timezone.now() - ago, **values
    )


def synced(ago: timedelta, **values: Any) -> int:
    moment = timezone.now() - ago
    plain = {"status": SyncRun.Status.FINISHED, "mode": "incremental", "watermark": moment}
    return SyncRun.objects.create(started_at=moment, **{**plain, **values}).pk


def updated(ago: timedelta, status: str = "finished", items: int = 2) -> BulkUpdate:
    moment = timezone.now() - ago
    update = BulkUpdate.objects.create(
        is_active=False, source="admin", status=status, created_at=moment, finished_at=moment
    )
    BulkUpdateItem.objects.bulk_create(
        BulkUpdateItem(bulk_update=update, conversation_id=f"conv_{number}")
        for number in range(items)
    )
    return update


def test_prune__deliveries_of_any_state() -> None:
    for number, state in enumerate(WebhookDelivery.State.values):
        rang(number, OLD, state=state)
        rang(number + 100, FRESH, state=state)
    assert prune().deliveries == 4
    assert WebhookDelivery.objects.count() == 4
    assert prune() == retention.Pruned()


def test_prune__retention_days(set_bland: Any) -> None:
    set_bland(RETENTION_DAYS=3)
    rang(1, timedelta(days=4))
    rang(2, timedelta(days=2))
    assert prune().deliveries == 1


def test_prune__sync_runs_but_what_the_next_one_needs() -> None:
    synced(OLD * 4)
    full = synced(OLD * 3, mode="full", watermark=None)
    known = synced(OLD * 2)
    newest = synced(OLD + timedelta(hours=1), watermark=None)
    synced(OLD, status="failed", watermark=None)
    synced(OLD, status="skipped", watermark=None)
    running = synced(OLD, status="running", watermark=None)
    fresh = synced(FRESH, status="failed", watermark=None)
    copied_at = last_copied_at()
    assert prune().sync_runs == 3
    left = set(SyncRun.objects.values_list("pk", flat=True))
    assert left == {full, known, newest, running, fresh}
    assert last_copied_at() == copied_at


def test_prune__drafts() -> None:
    updated(timedelta(hours=2), "draft")
    fresh = updated(timedelta(minutes=30), "draft")
    pruned = prune()
    assert (pruned.drafts, pruned.items, pruned.updates) == (1, 2, 0)
    assert BulkUpdate.objects.get() == fresh


def test_prune__ledger_is_kept_unless_told_otherwise(set_bland: Any) -> None:
    updated(timedelta(days=10_000))
    assert prune() == retention.Pruned()
    set_bland(LEDGER_RETENTION_DAYS=365)
    assert prune() == retention.Pruned(updates=1, items=2)
    assert not BulkUpdateItem.objects.exists()


def test_prune__only_what_is_at_rest(set_bland: Any) -> None:
    set_bland(LEDGER_RETENTION_DAYS=10)
    for status in ("queued", "running", "stopped", "finished", "cancelled"):
        updated(OLD, status)
    updated(timedelta(days=9))
    assert prune().updates == 2
    left = sorted(BulkUpdate.objects.values_list("status", flat=True))
    assert left == ["finished", "queued", "running", "stopped"]
    assert BulkUpdateItem.objects.count() == 8


def test_prune__undo_outlives_what_it_undid(set_bland: Any) -> None:
    set_bland(LEDGER_RETENTION_DAYS=10)
    old, undo = updated(OLD), updated(FRESH)
    BulkUpdate.objects.filter(pk=undo.pk).update(
        undo_of=old, finished_at=timezone.now() - timedelta(days=1)
    )
    prune()
    undo.refresh_from_db()
    assert undo.undo_of_id is None


def test_prune__in_small_batches(monkeypatch: pytest.MonkeyPatch, set_bland: Any) -> None:
    monkeypatch.setattr(retention, "ROWS_PER_STATEMENT", 10)
    set_bland(LEDGER_RETENTION_DAYS=10)
    updated(OLD, items=25)
    for number in range(25):
        rang(number, OLD)
    with CaptureQueriesContext(connection) as queries:
        pruned = prune()
    assert (pruned.deliveries, pruned.items) == (25, 25)
    deletes = [query["sql"] for query in queries if query["sql"].startswith("DELETE")]
    assert len([sql for sql in deletes if "webhookdelivery" in sql]) == 3
    assert len([sql for sql in deletes if "bulkupdateitem" in sql]) >= 3


def test_prune__conversations_stay(set_bland: Any) -> None:
    row = Conversation.objects.create(pk="conv_1", created_at=timezone.now() - OLD * 100)
    Message.objects.create(conversation=row, bland_id="m1", position=0, sender="USER")
    prune()
    assert Message.objects.count() == 1


@pytest.mark.parametrize("dry_run", [True, False])
def test_prune_command(dry_run: bool, set_bland: Any) -> None:
    set_bland(LEDGER_RETENTION_DAYS=10)
    rang(1, OLD)
    synced(OLD)
    synced(OLD)
    updated(OLD)
    updated(OLD, "draft")
    options = ["--dry-run"] if dry_run else []
    ran = manage("bland_sms_prune", "--json", *options)
    assert ran.code == 0
    assert json.loads(ran.out) == {
        **{"deliveries": 1, "sync_runs": 1, "drafts": 1, "updates": 1, "items": 4},
        "daily_totals": 0,
        "dry_run": dry_run,
    }
    left = (WebhookDelivery.objects.count(), SyncRun.objects.count(), BulkUpdate.objects.count())
    assert left == ((1, 2, 2) if dry_run else (0, 1, 0))
    ran = manage("bland_sms_prune")
    assert ran.out.startswith("deleted: ")


@pytest.fixture(autouse=True)
def connected(settings: Any) -> None:
    settings.BLAND_SMS = {"API_KEY": "org_test_key_000000", "BASE_URL": "http://127.0.0.1:9"}

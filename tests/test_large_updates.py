"""Large updates: confirmation and progress cost the same however many rows they have."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from bland_sms import updates
from bland_sms.models import BulkUpdate, BulkUpdateItem, Conversation, ConversationEvent
from bland_sms.models.event import day_begins
from bland_sms.updates.recording import LiveCounts

pytestmark = pytest.mark.django_db
NUMBER = 30


@pytest.fixture
def conversations(monkeypatch: pytest.MonkeyPatch, settings: Any) -> list[str]:
    monkeypatch.setattr(updates.ledger, "COUNTED_EACH_TIME", 10)
    monkeypatch.setattr(updates, "COUNTED_EACH_TIME", 10)
    ids = [f"conv_{n:02}" for n in range(NUMBER)]
    Conversation.objects.bulk_create(
        Conversation(pk=pk, customer_key=f"1555000{n:04}", is_active=n % 3 > 0)
        for n, pk in enumerate(ids)
    )
    return ids


def statements(client: Client, url: str, table: str) -> list[str]:
    with CaptureQueriesContext(connection) as captured:
        assert client.get(url).status_code == 200
    return [one["sql"] for one in captured if table in one["sql"]]


def select_all(client: Client, listed: str = "") -> BulkUpdate:
    data = {"action": "deactivate_selected", "_selected_action": "x", "select_across": "1"}
    client.post(f"/admin/bland_sms/conversation/{listed}", data)
    return BulkUpdate.objects.get()


@pytest.mark.parametrize("listed", ["", "?event=started:2026-01-01:2026-01-01"])
def test_confirm__a_large_draft_was_counted_when_it_was_selected(
    listed: str, admin_client: Client, conversations: list[str]
) -> None:
    at = day_begins(date(2026, 1, 1))
    ConversationEvent.objects.bulk_create(
        ConversationEvent(conversation_id=pk, kind="started", at=at, observed_at=at, source=1)
        for pk in conversations
    )
    draft = select_all(admin_client, listed)

    url = f"/admin/bland_sms/bulkupdate/{draft.pk}/confirm/"
    content = admin_client.get(url).content.decode()
    asked = statements(admin_client, url, "bland_sms_bulkupdateitem")

    assert draft.preview == {"total": NUMBER, "customers": NUMBER, "already": 10, "newer": 0}
    assert "<strong>30</strong> conversations" in content
    assert "<strong>10</strong> are inactive here already" in content
    assert not any("COUNT" in sql for sql in asked)


def test_confirm__old_numbers_are_counted_again(
    admin_client: Client, conversations: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    draft = select_all(admin_client)
    Conversation.objects.filter(pk=conversations[1]).update(is_active=False)
    monkeypatch.setattr("bland_sms.admin.confirmation.PREVIEW_LIFE", updates.DRAFT_LIFE * 0)

    page = admin_client.get(f"/admin/bland_sms/bulkupdate/{draft.pk}/confirm/")

    assert "<strong>11</strong> are inactive here already" in page.content.decode()


def test_progress__a_large_update_costs_one_row(
    admin_client: Client, conversations: list[str]
) -> None:
    draft = select_all(admin_client)
    updates.start(draft)
    url = f"/admin/bland_sms/bulkupdate/{draft.pk}/progress/"

    asked = statements(admin_client, url, "bland_sms_bulkupdateitem")
    progress = admin_client.get(url).json()

    assert progress["counts"]["waiting"] == progress["total"] == NUMBER
    assert not any("COUNT" in sql for sql in asked)


def test_progress__how_long_a_large_update_takes_costs_no_row(
    admin_client: Client, conversations: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its driver knows: 5 seconds for 10 conversations, after whatever pause."""
    clock = [100.0]
    monkeypatch.setattr("bland_sms.updates.recording.time.monotonic", lambda: clock[0])
    draft = select_all(admin_client)
    updates.start(draft)
    url = f"/admin/bland_sms/bulkupdate/{draft.pk}/progress/"
    before = statements(admin_client, url, "bland_sms_bulkupdateitem")
    clock[0] += 3600
    counts = LiveCounts(draft)
    counts.begin()
    assert "left" not in admin_client.get(url).json()["words"]

    some = draft.items.order_by("pk").values("pk")[:10]
    BulkUpdateItem.objects.filter(pk__in=list(some.values_list("pk", flat=True))).update(
        state=BulkUpdateItem.State.CHANGED, finished_at=timezone.now()
    )
    for seconds in (5.0, 0.0):
        clock[0] += seconds
        counts._due_at = 0.0
        counts.keep()

    assert admin_client.get(url).json()["words"].endswith("about 10 seconds left")
    assert len(statements(admin_client, url, "bland_sms_bulkupdateitem")) == len(before)


def test_progress__what_others_change_is_counted(
    admin_client: Client, admin_user: Any, conversations: list[str]
) -> None:
    older = select_all(admin_client)
    updates.start(older)
    newer = updates.prepare(conversations[:3], True, requested_by=admin_user)

    updates.start(newer)  # the newer intent wins

    progress = admin_client.get(f"/admin/bland_sms/bulkupdate/{older.pk}/progress/").json()
    assert progress["counts"]["cancelled"] == 3
    assert progress["counts"]["waiting"] == NUMBER - 3


def test_known_counts__of_a_driver_that_was_killed_are_counted(
    admin_user: Any, conversations: list[str]
) -> None:
    draft = updates.prepare(conversations, False, requested_by=admin_user)
    updates.start(draft)
    draft.items.filter(conversation_id=conversations[0]).update(state=BulkUpdateItem.State.CHANGED)
    BulkUpdate.objects.filter(pk=draft.pk).update(status="running")  # and no lease

    found = BulkUpdate.objects.get(pk=draft.pk)

    assert found.live_counts["waiting"] == NUMBER
    assert found.known_counts()["waiting"] == NUMBER - 1

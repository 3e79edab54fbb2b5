"""Is it well: the same look from the command, the address and a monitor without a login."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.db import OperationalError, connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from bland_sms import health
from bland_sms.models import (
    BulkUpdate,
    BulkUpdateItem,
    Conversation,
    SyncRun,
    WebhookDelivery,
)

from .test_commands import manage

pytestmark = pytest.mark.django_db
ADDRESS = "/bland-sms/health/"
HOUR = timedelta(hours=1)
SetBland = Callable[..., None]


@pytest.fixture(autouse=True)
def connected(settings: Any) -> None:
    settings.BLAND_SMS = {"API_KEY": "org_test_key_000000", "BASE_URL": "http://127.0.0.1:9"}


@pytest.fixture
def synced() -> Callable[..., SyncRun]:
    """A sync that ended so long ago."""

    def make(ago: timedelta = timedelta(0), **values: Any) -> SyncRun:
        moment = timezone.now() - ago
        plain = {"status": SyncRun.Status.FINISHED, "watermark": moment}
        plain |= {"started_at": moment, "walk_began_at": moment, "finished_at": moment}
        return SyncRun.objects.create(**{**plain, **values})

    return make


Synced = Callable[..., SyncRun]


def record(number: int, **values: Any) -> WebhookDelivery:
    return WebhookDelivery.objects.create(
        body_sha256=f"{number:064d}", conversation_id="conv_1", **values
    )


def test_look__well(synced: Synced) -> None:
    synced()
    look = health.look()
    assert (look.status, look.is_ok, look.problem) == ("ok", True, "")
    assert look.age_seconds == 0


def test_look__never_synced() -> None:
    look = health.look()
    assert (look.status, look.synced_at, look.age_seconds) == ("never_synced", None, None)


def test_look__unfinished_sync_is_none(synced: Synced) -> None:
    synced(status=SyncRun.Status.FAILED, error_code="http_401", watermark=None)
    look = health.look()
    assert (look.status, look.problem) == ("never_synced", "Bland refused the key (401)")


def test_look__stale(synced: Synced) -> None:
    synced(HOUR)
    look = health.look()
    assert look.status == "stale"
    assert 3600 <= (look.age_seconds or 0) < 3610
    assert "timer" in look.words


def test_look__stale_after(synced: Synced, set_bland: SetBland) -> None:
    set_bland(STALE_AFTER=60)
    synced(timedelta(seconds=50))
    assert health.look().status == "ok"
    SyncRun.objects.update(started_at=timezone.now() - timedelta(seconds=61))
    SyncRun.objects.update(walk_began_at=timezone.now() - timedelta(seconds=61))
    assert health.look().status == "stale"


def test_look__failing(synced: Synced) -> None:
    synced(HOUR)
    synced(status=SyncRun.Status.FAILED, error_code="http_500", watermark=None)
    look = health.look()
    assert look.status == "failing"
    assert "HTTP 500" in look.words


def test_look__one_failure_is_no_alarm(synced: Synced) -> None:
    synced(timedelta(minutes=5))
    synced(status=SyncRun.Status.INCOMPLETE, error_code="no_answer", watermark=None)
    assert health.look().status == "ok"


def test_look__skipped_runs_say_nothing(synced: Synced) -> None:
    synced(HOUR)
    synced(status=SyncRun.Status.SKIPPED, error_code="sync_running", watermark=None)
    assert health.look().status == "stale"


@pytest.mark.parametrize(
    "wrong",
    [
        {"API_KEY": ""},
        {"API_KEY": "a b c"},
        {"BASE_URL": "http://example.com"},
        {"API_KEYS": "x"},
        {"READ_TIMEOUT": "soon"},
    ],
)
def test_look__not_configured(wrong: dict[str, Any], synced: Synced, set_bland: SetBland) -> None:
    synced()
    set_bland(**wrong)
    look = health.look()
    assert look.status == "not_configured"
    assert "BLAND_SMS" in look.words
    assert look.age_seconds is not None  # what was copied can still be read


def test_look__webhooks_that_nobody_carries_out(synced: Synced) -> None:
    synced()
    record(1)
    assert health.look().status == "ok"
    WebhookDelivery.objects.update(received_at=timezone.now() - HOUR)
    assert health.look().status == "behind"
    WebhookDelivery.objects.update(not_before=timezone.now() + HOUR)
    assert health.look().status == "ok"  # it was tried, and has its time
    WebhookDelivery.objects.update(not_before=None, state=WebhookDelivery.State.FAILED)
    assert health.look().status == "ok"


def test_look__updates_that_nobody_carries_out(synced: Synced) -> None:
    synced()
    update = BulkUpdate.objects.create(
        is_active=False, source="admin", status="queued", started_at=timezone.now()
    )
    item = BulkUpdateItem.objects.create(bulk_update=update, conversation_id="conv_1")
    assert health.look().status == "ok"
    BulkUpdate.objects.update(started_at=timezone.now() - HOUR)
    assert health.look().status == "behind"
    BulkUpdate.objects.update(lease_until=timezone.now())
    assert health.look().status == "ok"
    BulkUpdate.objects.update(lease_until=None)
    BulkUpdateItem.objects.filter(pk=item.pk).update(not_before=timezone.now() + HOUR)
    assert health.look().status == "ok"


def test_look__counts(synced: Synced) -> None:
    synced()
    for status in ("draft", "queued", "running", "running", "stopped", "finished"):
        BulkUpdate.objects.create(is_active=False, source="admin", status=status)
    for number, state in enumerate(("received", "received", "failed", "processed", "ignored")):
        record(number, state=state)
    for number in range(5):
        missing = {"missing_since": timezone.now()} if number < 3 else {}
        Conversation.objects.create(pk=f"conv_{number}", **missing)
    look = health.look()
    assert (look.updates_waiting, look.updates_running, look.updates_stopped) == (1, 2, 1)
    assert (look.deliveries_waiting, look.deliveries_failed) == (2, 1)
    assert look.conversations_missing == 3


def test_look__counts_end(
    synced: Synced, monkeypatch: pytest.MonkeyPatch, django_assert_max_num_queries: Any
) -> None:
    synced()
    monkeypatch.setattr(health, "COUNT_CAP", 3)
    for number in range(5):
        record(number)
    with CaptureQueriesContext(connection) as queries, django_assert_max_num_queries(11):
        assert health.look().deliveries_waiting == 3
    assert all("LIMIT" in query["sql"] for query in queries)


def test_look__missing_ones_are_counted_by_index() -> None:
    missing = Conversation.objects.filter(missing_since__gt=health.EPOCH).order_by()
    if connection.vendor == "sqlite":
        assert "bland_sms_conv_missing" in missing.explain()


def test_look__database_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    def away() -> None:
        raise OperationalError("no such table")

    monkeypatch.setattr(health, "last_copied_at", away)
    look = health.look()
    assert (look.status, look.is_ok) == ("database", False)
    assert look.words


# --- health/ ----------------------------------------------------------------------------------


def test_health__for_everybody(client: Client, synced: Synced) -> None:
    synced()
    answer = client.get(ADDRESS)
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
    assert "no-store" in answer["Cache-Control"]
    assert client.head(ADDRESS).status_code == 200


def test_health__not_well(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        answer = client.get(ADDRESS)
    assert (answer.status_code, answer.json()) == (503, {"status": "never_synced"})
    assert not caplog.records  # nobody is mailed each time that a monitor looks


@pytest.mark.parametrize("method", ["post", "put", "patch", "delete"])
def test_health__only_reading(method: str, client: Client) -> None:
    assert getattr(client, method)(ADDRESS).status_code == 405


def test_health__details_take_a_permission(client: Client, synced: Synced) -> None:
    synced()
    user = get_user_model().objects.create_user("mona", password="x")
    client.force_login(user)
    assert client.get(ADDRESS).json() == {"status": "ok"}
    user.user_permissions.add(Permission.objects.get(codename="view_syncrun"))
    told = client.get(ADDRESS).json()
    assert told["status"] == "ok"
    assert told["deliveries_waiting"] == 0
    assert told["synced_at"]


def test_health__needs_no_login(client: Client, settings: Any, synced: Synced) -> None:
    synced()
    settings.MIDDLEWARE = [
        *settings.MIDDLEWARE,
        "django.contrib.auth.middleware.LoginRequiredMiddleware",
    ]
    assert client.get(ADDRESS).status_code == 200


def test_health__host_without_users(client: Client, settings: Any, synced: Synced) -> None:
    synced()
    settings.MIDDLEWARE = ["django.middleware.common.CommonMiddleware"]
    assert client.get(ADDRESS).json() == {"status": "ok"}


@pytest.mark.parametrize("logged_in", [False, True])
def test_health__database_is_away(
    logged_in: bool, client: Client, admin_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*args: Any, **kwargs: Any) -> None:
        raise OperationalError("server closed the connection")

    asking = admin_client if logged_in else client
    with monkeypatch.context() as patched:
        patched.setattr("django.db.models.sql.compiler.SQLCompiler.execute_sql", away)
        answer = asking.get(ADDRESS)
    assert (answer.status_code, answer.json()) == (503, {"status": "database"})


# --- bland_sms_status -------------------------------------------------------------------------


def test_status__well(synced: Synced) -> None:
    synced()
    ran = manage("bland_sms_status")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("ok: copied from Bland 0 seconds ago\n")


def test_status__not_well() -> None:
    ran = manage("bland_sms_status")
    assert ran.code == 1
    assert ran.out.startswith("never_synced: ")
    assert "bland_sms_sync" in ran.err


@pytest.mark.parametrize("ago", [timedelta(0), HOUR])
def test_status__json(ago: timedelta, synced: Synced) -> None:
    synced(ago)
    ran = manage("bland_sms_status", "--json")
    told = json.loads(ran.out)
    assert (ran.code, told["status"]) == ((1, "stale") if ago else (0, "ok"))
    assert told["stale_after_seconds"] == 900
    assert set(told) >= {
        *("age_seconds", "synced_at", "updates_waiting", "updates_running", "updates_stopped"),
        *("deliveries_waiting", "deliveries_failed", "conversations_missing"),
    }


def test_status__what_waits_for_a_person_and_what_is_paused(synced: Synced) -> None:
    synced()
    record(1, state="failed")
    stopped = BulkUpdate.objects.create(
        is_active=False, source="admin", status="stopped", stop_code="AUTH_FAILURE"
    )
    ran = manage("bland_sms_status")
    assert ran.code == 0  # the app is well; the lines say what it cannot do by itself
    assert f"waits for a person: Update {stopped.pk}: Bland refused the key" in ran.out
    assert "waits for a person: 1 webhook delivery failed" in ran.out
    assert "paused" not in ran.out

    until = timezone.now() + timedelta(minutes=4)
    BulkUpdate.objects.create(
        is_active=False,
        source="admin",
        status="stopped",
        stop_code="outage",
        started_at=timezone.now(),
        outage_since=timezone.now(),
        not_before=until,
    )
    ran = manage("bland_sms_status")
    assert ran.code == 1
    assert ran.out.startswith("outage: ")
    assert f"paused: 1 updates, tried again at {until:%Y-%m-%d}" in ran.out
    assert "1 stopped" in ran.out
    told = json.loads(manage("bland_sms_status", "--json").out)
    assert (told["updates_stopped"], told["updates_paused"]) == (1, 1)
    assert told["paused_until"][:19] == until.isoformat()[:19]
    assert len(told["waiting_for_a_person"]) == 2


def test_look__an_outage_that_nobody_tries_to_end_is_behind(synced: Synced) -> None:
    synced()
    bulk_update = BulkUpdate.objects.create(
        is_active=False,
        source="admin",
        status="stopped",
        stop_code="outage",
        started_at=timezone.now() - HOUR,
        outage_since=timezone.now() - HOUR,
        not_before=timezone.now() - HOUR / 2,
    )
    bulk_update.items.create(conversation_id="conv_1")
    assert health.look().status == "behind"
    BulkUpdate.objects.update(not_before=timezone.now())
    assert health.look().status == "outage"
    BulkUpdate.objects.update(stop_code="AUTH_FAILURE", not_before=None)
    assert health.look().status == "ok"


def test_status__database_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    def away() -> None:
        raise OperationalError

    monkeypatch.setattr(health, "last_copied_at", away)
    ran = manage("bland_sms_status")
    assert (ran.code, ran.out) == (1, "")
    assert "database" in ran.err

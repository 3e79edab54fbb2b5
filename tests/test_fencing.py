"""One driver, fenced: a process that stands still, a lock that is held for ever, a wrong clock."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.db.models import F, Q, QuerySet
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from bland_sms import database, sync
from bland_sms.leases import Fence, LostLeaseError
from bland_sms.management.commands import bland_sms_work
from bland_sms.models import BulkUpdate, Conversation, SyncRun, WebhookDelivery
from bland_sms.sandbox import BlandSandbox
from bland_sms.sync import runs
from bland_sms.updates import cancel, run, waiting_updates
from tests.conftest import wait_until

Copied = Callable[..., list[str]]
Started = Callable[..., BulkUpdate]
Child = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def child(sandbox: BlandSandbox) -> Iterator[Child]:
    """Start a process that carries out an update."""
    children: list[subprocess.Popen[str]] = []

    def begin(bulk_update: BulkUpdate, *pause: str) -> subprocess.Popen[str]:
        name = str(connection.settings_dict["NAME"])
        arguments = [name, sandbox.base_url, str(bulk_update.pk), *pause]
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.child", *arguments],
            cwd=Path(__file__).parent.parent,
            text=True,
            stdout=subprocess.PIPE,
        )
        children.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        return process

    yield begin
    for process in children:
        process.kill()
        process.communicate()


@pytest.fixture
def frozen() -> Callable[..., Any]:
    """Let another connection hold locks on some rows, as that of a process that stands still."""

    @contextmanager
    def hold(*querysets: QuerySet[Any]) -> Iterator[None]:
        held, let_go = threading.Event(), threading.Event()

        def lock() -> bool:
            try:
                with transaction.atomic():
                    for rows in querysets:
                        list(rows.select_for_update())
                    held.set()
                    return let_go.wait(60)
            finally:
                connection.close()

        with ThreadPoolExecutor(1) as pool:
            holding = pool.submit(lock)
            assert held.wait(60)
            try:
                yield
            finally:
                let_go.set()
            assert holding.result() is True  # nobody waited until it gave up

    return hold


# --- the lease --------------------------------------------------------------------------------


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("ahead", "is_live"), [(-1, False), (10, True), (25, True), (40, False), (3 * 3600, False)]
)
def test_lease__ends_far_ahead_is_a_wrong_clock(
    ahead: int, is_live: bool, sandbox: BlandSandbox, copied: Copied, started: Started
) -> None:
    bulk_update = started(copied(1))
    lease_until = timezone.now() + timedelta(seconds=ahead)
    BulkUpdate.objects.update(status="running", lease_until=lease_until)
    bulk_update.refresh_from_db()

    assert bulk_update.has_live_lease is is_live
    assert waiting_updates().exists() is not is_live
    assert run(bulk_update) is not is_live


@pytest.mark.django_db
def test_lease__renew_tells_whether_the_condition_held(copied: Copied, started: Started) -> None:
    bulk_update = started(copied(1))
    assert bulk_update.take_lease(Q(status="queued"), status="running") is True
    assert bulk_update.fence.is_open()
    assert bulk_update.renew_lease(Q(status="running"), retry_tokens=3.0) is True
    assert bulk_update.renew_lease(Q(status="cancelled"), retry_tokens=1.0) is False
    assert BulkUpdate.objects.get().retry_tokens == 3.0
    BulkUpdate.objects.update(lease_token=None)
    with pytest.raises(LostLeaseError):
        bulk_update.renew_lease()
    assert not bulk_update.fence.is_open()
    assert bulk_update.release_lease() is False


@pytest.mark.django_db
def test_lease__taken_only_once_and_only_when_free(copied: Copied, started: Started) -> None:
    first = started(copied(1))
    second = BulkUpdate.objects.get()
    assert first.take_lease()
    assert not second.take_lease()
    assert first.release_lease()
    assert not second.take_lease(Q(status="draft"))
    assert second.take_lease()


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Both clocks stand still; here are the seconds by which each was moved on."""
    moved = {"monotonic": 0.0, "wall": 0.0}
    began, noon = time.monotonic(), timezone.now()
    monkeypatch.setattr(time, "monotonic", lambda: began + moved["monotonic"])
    monkeypatch.setattr(timezone, "now", lambda: noon + timedelta(seconds=moved["wall"]))
    return moved


@pytest.mark.django_db
@pytest.mark.parametrize("seconds", [-1, 0, 0.001, 15, 30, 30.001])
def test_lease__row_and_query_agree_whether_it_is_live(
    seconds: float, clocks: dict[str, float]
) -> None:
    now = timezone.now()
    row = BulkUpdate(is_active=False, lease_until=now + timedelta(seconds=seconds))
    row.save()
    item = row.items.create(conversation_id="conv_1")

    is_live = 0 < seconds <= 30
    assert row.has_live_lease is is_live
    assert list(BulkUpdate.objects.filter(BulkUpdate.unleased())) == [row] * (not is_live)
    of_items = row.items.filter(BulkUpdate.unleased("bulk_update__"))
    assert list(of_items) == [item] * (not is_live)
    assert row.take_lease() is not is_live
    assert (row.lease_until == now + BulkUpdate.LEASE) is (not is_live or seconds == 15)


@pytest.mark.django_db
def test_lease__kept_by_whoever_has_it(clocks: dict[str, float]) -> None:
    """What the object says is what the row says, whatever is refused."""
    row, other = (BulkUpdate.objects.create(is_active=False) for _ in range(2))

    def stored() -> tuple[Any, ...]:
        found = BulkUpdate.objects.get(pk=row.pk)
        assert (found.lease_until, found.status) == (row.lease_until, row.status)
        return found.lease_token, found.lease_until, found.status

    assert row.take_lease(Q(status="running")) is False
    assert (stored(), row.lease_token) == ((None, None, "draft"), None)
    assert not row.fence.is_open()
    assert row.take_lease(Q(status="draft"), status="running") is True
    token = row.lease_token
    assert stored() == (token, timezone.now() + BulkUpdate.LEASE, "running")
    assert token is not None

    clocks.update(monotonic=9.0, wall=9.0)
    assert row.renew_lease(Q(status="cancelled"), status="queued") is False
    assert stored() == (token, timezone.now() + BulkUpdate.LEASE, "running")
    clocks.update(monotonic=18.0, wall=18.0)
    assert row.fence.is_open(), "kept all the same"
    assert row.renew_lease(status="queued") is True
    assert stored() == (token, timezone.now() + BulkUpdate.LEASE, "queued")

    assert row.release_lease(Q(status="cancelled"), status="finished") is False
    assert stored() == (token, timezone.now() + BulkUpdate.LEASE, "queued")
    assert row.fence.is_open()
    assert row.release_lease(Q(status="queued"), status="finished") is True
    assert stored() == (None, None, "finished")
    assert not row.fence.is_open()
    assert row.lease_token == token, "to be repeated where it is rolled back"
    other.refresh_from_db()
    assert (other.lease_token, other.status) == (None, "draft")


@pytest.mark.django_db
@pytest.mark.parametrize("whose", ["nobody's", "another's", "another's, after ours"])
def test_lease__that_is_not_ours_allows_nothing(whose: str) -> None:
    row = BulkUpdate.objects.create(is_active=False)
    assert not row.has_live_lease
    if whose == "another's, after ours":
        assert row.take_lease()
        BulkUpdate.objects.update(lease_until=timezone.now())
    if whose != "nobody's":
        assert BulkUpdate.objects.get().take_lease()
    assert not row.leased_rows().exists()
    assert row.release_lease(status="finished") is False
    for conditions in ([], [Q(status="running")]):
        with pytest.raises(LostLeaseError):
            row.renew_lease(*conditions, status="finished")
    assert BulkUpdate.objects.get().status == "draft"


@pytest.mark.django_db
def test_lease__of_a_row_that_is_inserted(clocks: dict[str, float]) -> None:
    row = BulkUpdate(is_active=False)
    row.begin_lease()
    assert row.fence.is_open()
    row.save()
    assert row.leased_rows().get().lease_until == timezone.now() + BulkUpdate.LEASE
    assert row.has_live_lease


@pytest.mark.parametrize("clock", ["monotonic", "wall"])
def test_fence__each_clock_closes_it_in_the_last_third(
    clock: str, clocks: dict[str, float]
) -> None:
    fence = Fence()
    assert not fence.is_open()
    fence.extend(Fence.now(), timedelta(seconds=15))
    for seconds, is_open in ((0, True), (9.99, True), (10, False), (11, False)):
        clocks[clock] = seconds
        assert fence.is_open() is is_open
    clocks[clock] = 0
    assert fence.is_open()
    fence.close()
    assert not fence.is_open()


# --- a process that stands still --------------------------------------------------------------


def whole_requests(sandbox: BlandSandbox) -> int:
    """Headers alone may have been written before it stood still; Bland cannot act on them."""
    return sum(one["method"] == "GET" or one["is_active"] is not None for one in sandbox.log)


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_run__stopped_by_the_scheduler_sends_no_dead_wish(
    sandbox: BlandSandbox, copied: Copied, started: Started, child: Child
) -> None:
    sandbox.latency_seconds = 0.05
    ids = copied(150)
    bulk_update = started(ids)
    process = child(bulk_update, "stopped")
    assert process.stdout is not None
    assert process.stdout.readline() == "here\n"
    try:
        wait_until(lambda: not BulkUpdate.objects.get(pk=bulk_update.pk).has_live_lease)
        assert run(bulk_update) is True
        opposite = started(ids, is_active=True)
        assert run(opposite) is True
        sent = whole_requests(sandbox)
    finally:
        os.kill(process.pid, signal.SIGCONT)
    process.wait(60)

    assert whole_requests(sandbox) == sent
    assert all(row["is_active"] for row in sandbox.account.rows.values())
    assert Conversation.objects.filter(is_active=True).count() == 150
    assert bulk_update.counts()["changed"] == opposite.counts()["changed"] == 150


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif(connection.vendor == "sqlite", reason="SQLite locks its file, not a row")
def test_run__holder_frozen_inside_its_write_transaction(
    sandbox: BlandSandbox, copied: Copied, started: Started, child: Child
) -> None:
    ids = copied(30)
    bulk_update = started(ids)
    process = child(bulk_update, "locked")
    assert process.stdout is not None
    assert process.stdout.readline() == "here\n"
    began = time.monotonic()
    try:
        assert run(bulk_update) is False  # and does not wait for the row
        assert time.monotonic() - began < 10
        wait_until(lambda: run(bulk_update))
        assert time.monotonic() - began < 60
        other = started(copied(1), is_active=True)
        assert cancel(other) is True
    finally:
        os.kill(process.pid, signal.SIGCONT)
    process.wait(60)
    assert bulk_update.counts()["changed"] == 30


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("ended_by", [signal.SIGCONT, signal.SIGKILL])
def test_doors__holder_frozen_inside_its_write_transaction(
    ended_by: signal.Signals,
    sandbox: BlandSandbox,
    copied: Copied,
    started: Started,
    child: Child,
    admin_client: Client,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No door hangs: each says that the database is held up. A server ends such a transaction by
    itself; SQLite cannot, and all is well as soon as the process goes on or dies."""
    monkeypatch.setattr(database, "DECISION_PATIENCE_SECONDS", 0.3)
    monkeypatch.setattr(bland_sms_work, "DATABASE_PATIENCE_SECONDS", 0.3)
    if connection.vendor == "sqlite":
        # As a host may set it; in the demo it is 20 seconds.
        monkeypatch.setitem(connection.settings_dict["OPTIONS"], "timeout", 0.5)
        connection.close()
    bulk_update = started(copied(30))
    urls = {name: f"admin:bland_sms_bulkupdate_{name}" for name in ("cancel", "run", "change")}
    urls = {name: reverse(url, args=[bulk_update.pk]) for name, url in urls.items()}
    process = child(bulk_update, "locked")
    assert process.stdout is not None
    assert process.stdout.readline() == "here\n"
    try:
        told = admin_client.post(urls["cancel"], follow=True).content.decode()
        assert "database is not available" in told
        answer = admin_client.post(f"/bland-sms/api/v1/bulk-updates/{bulk_update.pk}/cancel/")
        assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")
        if connection.vendor == "sqlite":
            wait_until(lambda: not BulkUpdate.objects.get(pk=bulk_update.pk).has_live_lease)
            answer = admin_client.post(urls["run"], headers={"Accept": "application/json"})
            assert (answer.status_code, bool(answer["Retry-After"])) == (503, True)
            with pytest.raises(CommandError, match="database is not available"):
                call_command("bland_sms_work", "--once", stderr=StringIO())
            assert admin_client.get(urls["change"]).status_code == 200
        else:
            wait_until(lambda: run(bulk_update))
    finally:
        os.kill(process.pid, ended_by)
    process.wait(60)
    monkeypatch.undo()
    connection.close()
    wait_until(lambda: run(bulk_update))
    assert bulk_update.counts()["changed"] == 30
    assert not any(row["is_active"] for row in sandbox.account.rows.values())


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif(connection.vendor == "sqlite", reason="SQLite locks its file, not a row")
def test_work__picks_what_nobody_has_locked(
    sandbox: BlandSandbox, copied: Copied, started: Started, frozen: Callable[..., Any]
) -> None:
    """Whoever looks for work waits for no row that a process which stands still has locked."""
    ids = copied(9)
    stuck, free = started(ids[:5]), started(ids[5:])
    now = timezone.now()
    lapsed, asked_at = now - timedelta(seconds=1), now - timedelta(seconds=20)
    stuck.items.update(state="running", claimed_conversation=F("conversation_id"))
    BulkUpdate.objects.filter(pk=stuck.pk).update(status="running", lease_until=lapsed)
    deliveries = {
        name: WebhookDelivery.objects.create(body_sha256=name, conversation_id=pk, **values)
        for name, pk, values in [
            ("crashed", ids[0], {"claimed_conversation": ids[0], "lease_until": lapsed}),
            ("asked", ids[1], {"state": "processed", "asked_at": asked_at}),
            ("put off", ids[1], {}),
            ("free", ids[5], {}),
        ]
    }

    def state_of(name: str) -> str:
        return WebhookDelivery.objects.get(pk=deliveries[name].pk).state

    with frozen(
        BulkUpdate.objects.filter(pk=stuck.pk),
        stuck.items.all(),
        WebhookDelivery.objects.exclude(body_sha256="free"),
    ):
        with suppress(CommandError):
            call_command("bland_sms_work", "--once", stdout=StringIO(), stderr=StringIO())
        assert free.counts()["changed"] == 4
        assert state_of("free") == "processed"
        assert cancel(started(ids[8:], is_active=True))
    assert stuck.counts()["running"] == 5

    call_command("bland_sms_work", "--once", stdout=StringIO())
    assert stuck.counts()["changed"] == 5
    assert state_of("crashed") == "processed"


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif(connection.vendor == "sqlite", reason="SQLite locks its file, not a row")
def test_sync__does_not_wait_for_one_that_stands_still(
    sandbox: BlandSandbox, frozen: Callable[..., Any]
) -> None:
    lapsed = timezone.now() - timedelta(seconds=1)
    values = {"lease_key": runs.LEASE_KEY, "lease_token": uuid.uuid4(), "lease_until": lapsed}
    dead = SyncRun.objects.create(mode="incremental", status="running", **values)

    with frozen(SyncRun.objects.filter(pk=dead.pk)):
        assert sync.run().status == "skipped"

    assert sync.run().status == "finished"
    dead.refresh_from_db()
    assert (dead.status, dead.lease_key) == ("incomplete", None)


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif(connection.vendor == "sqlite", reason="SQLite knows no such limits")
def test_write_transaction__limits_are_ours_alone() -> None:
    limits = {
        "postgresql": "SELECT current_setting('lock_timeout'), "
        "current_setting('idle_in_transaction_session_timeout')",
        "mysql": "SELECT @@SESSION.innodb_lock_wait_timeout, @@SESSION.wait_timeout",
    }[connection.vendor]

    def read() -> Any:
        with connection.cursor() as cursor:
            cursor.execute(limits)
            return cursor.fetchone()

    before = read()
    with database.write_transaction(BulkUpdate):
        inside = read()
    assert inside in (("5s", "20s"), (database.LOCK_SECONDS, database.IDLE_SECONDS))
    assert read() == before
    with pytest.raises(ZeroDivisionError), database.write_transaction(BulkUpdate):
        raise ZeroDivisionError
    assert read() == before

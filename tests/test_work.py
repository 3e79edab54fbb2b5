"""bland_sms_work as a service: it takes turns, costs little, and outlives its database."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from datetime import timedelta
from functools import partial
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.utils import timezone

from bland_sms.management.commands import bland_sms_work
from bland_sms.management.turns import Turn, deliveries_wait, updates_behind, updates_in_turn
from bland_sms.models import BulkUpdate, WebhookDelivery
from bland_sms.sandbox import BlandSandbox
from bland_sms.updates import ending, run

from .conftest import ROOT, Start, wait_until
from .private_databases import MariaDB, PostgreSQL

Started = Callable[..., BulkUpdate]
Copied = Callable[..., list[str]]
DISPATCHED: list[tuple[str, int]] = []


def queue(kind: str, pk: int) -> None:
    DISPATCHED.append((kind, pk))


# --- turns ------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_work__nothing_waits_behind_a_large_update(
    sandbox: BlandSandbox, copied: Copied, started: Started, process: Start
) -> None:
    sandbox.latency_seconds = 0.1
    ids = copied(3000)  # by two threads: at least 150 seconds
    large = started(ids[:2990])
    process(sys.executable, "manage.py", "bland_sms_work")
    wait_until(lambda: len(sandbox.requests("PATCH")) > 40, 90)

    small = started(ids[2990:])
    sandbox.account.add({"id": "conv_rang"})
    WebhookDelivery.objects.create(body_sha256="1", conversation_id="conv_rang", kind="message")
    began = time.monotonic()
    wait_until(lambda: BulkUpdate.objects.filter(pk=small.pk, status="finished").exists(), 60)
    wait_until(lambda: WebhookDelivery.objects.filter(state="processed").exists(), 60)

    assert time.monotonic() - began < 60
    large.refresh_from_db()
    assert large.counts()["waiting"] > 1000
    asked = len(sandbox.requests("PATCH"))
    wait_until(lambda: len(sandbox.requests("PATCH")) > asked + 40, 60)  # and it goes on
    assert all(row["number"] == 1 for row in requests_by_id(sandbox))


def requests_by_id(sandbox: BlandSandbox) -> list[dict[str, Any]]:
    numbers: dict[str, int] = {}
    for seen in sandbox.requests("PATCH"):
        numbers[seen["conversation_id"]] = numbers.get(seen["conversation_id"], 0) + 1
    return [{"id": pk, "number": number} for pk, number in numbers.items()]


@pytest.mark.django_db
def test_updates_in_turn__the_one_that_had_least_time_then_the_small(
    copied: Copied, started: Started
) -> None:
    ids = copied(9)
    large, small, middle = started(ids[:5]), started(ids[5:6]), started(ids[6:])

    assert updates_in_turn({}) == [small, middle, large]
    assert updates_in_turn({small.pk: 2.0, middle.pk: 1.0}) == [large, middle, small]
    assert updates_behind({large.pk: 9.0, small.pk: 7.5}, 10.0) == [middle.pk]
    assert updates_behind({}, 2.0) == []


@pytest.mark.django_db
def test_deliveries_wait__only_for_what_is_due_and_not_taken() -> None:
    assert not deliveries_wait()
    delivery = WebhookDelivery.objects.create(body_sha256="1", conversation_id="conv_1")
    assert deliveries_wait()
    rows = WebhookDelivery.objects.filter(pk=delivery.pk)
    rows.update(claimed_conversation="conv_1")
    assert not deliveries_wait()
    later = timezone.now() + timezone.timedelta(hours=1)
    rows.update(claimed_conversation=None, not_before=later)
    assert not deliveries_wait()


def test_turn__looks_seldom_and_only_in_its_own_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    looks: list[float] = []
    ended = threading.Event()
    turn = Turn(ended, lambda seconds: bool(looks.append(seconds)) or len(looks) == 2)

    now += 1.9
    assert not turn.is_set()
    assert not looks
    now += 0.2
    thread = threading.Thread(target=turn.is_set)
    thread.start()
    thread.join()
    assert not looks
    assert not turn.is_set()
    assert not turn.is_set()
    assert len(looks) == 1
    now += 1.1
    assert turn.is_set()
    assert len(looks) == 2

    another = Turn(ended, lambda seconds: False)
    assert not another.is_set()
    ended.set()
    assert another.is_set()


# --- a service --------------------------------------------------------------------------------


class _Ended(threading.Event):
    """Ends the service in its third pause."""

    def __init__(self) -> None:
        super().__init__()
        self.pauses = 0

    def wait(self, timeout: float | None = None) -> bool:
        self.pauses += 1
        if self.pauses == 3:
            self.set()
        return self.is_set()


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> _Ended:
    event = _Ended()
    monkeypatch.setattr(bland_sms_work, "stop_signals", lambda: nullcontext(event))
    monkeypatch.setattr(bland_sms_work, "close_old_connections", lambda: None)
    return event


@pytest.mark.django_db
def test_work__an_idle_pass_is_cheap(
    sandbox: BlandSandbox, ended: _Ended, django_assert_max_num_queries: Any
) -> None:
    with django_assert_max_num_queries(29):
        call_command("bland_sms_work")
    assert ended.pauses == 3
    assert not sandbox.requests()


@pytest.mark.django_db
def test_work__an_error_of_ours_in_one_update_does_not_keep_the_next(
    sandbox: BlandSandbox,
    copied: Copied,
    started: Started,
    ended: _Ended,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from .test_commands import manage

    ids = copied(4)
    poison, second = started(ids[:1]), started(ids[1:])
    run = bland_sms_work.run
    calls = []

    def fails(bulk_update: BulkUpdate, **values: Any) -> bool:
        if bulk_update == poison:
            calls.append(bulk_update)
            raise LookupError
        return run(bulk_update, **values)

    monkeypatch.setattr(bland_sms_work, "run", fails)
    ran = manage("bland_sms_work")

    second.refresh_from_db()
    assert second.status == "finished"
    assert len(calls) == 1  # it rests
    assert ran.code == 1
    assert f"update {poison.pk} failed: LookupError" in ran.err


@pytest.mark.django_db
@pytest.mark.parametrize("second", [None, KeyboardInterrupt, SystemExit])
def test_work__ended_with_items_open_hands_on(
    second: type[BaseException] | None,
    copied: Copied,
    started: Started,
    ended: _Ended,
    set_bland: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By a signal, and by another one while it winds up."""
    set_bland(DISPATCH="tests.test_work.queue")
    bulk_update = started(copied(3))
    DISPATCHED.clear()

    def run(bulk_update: BulkUpdate, **values: Any) -> bool:
        ended.set()
        if second is not None:
            raise second
        return False

    monkeypatch.setattr(bland_sms_work, "run", run)
    with nullcontext() if second is None else pytest.raises(second):
        call_command("bland_sms_work", stderr=StringIO())

    assert [("update", bulk_update.pk)] == DISPATCHED


# --- Bland is restarted ------------------------------------------------------------------------


@pytest.mark.django_db
def test_work__outlives_a_restart_of_bland(
    sandbox: BlandSandbox,
    copied: Copied,
    started: Started,
    monkeypatch: pytest.MonkeyPatch,
    no_waiting: None,
) -> None:
    """The stand-in ends in the middle of an update and comes back at the same port."""
    from .test_commands import manage

    bulk_update = started(copied(120))
    sandbox.latency_seconds = 0.01
    ended, paused = threading.Event(), threading.Event()
    monkeypatch.setattr(bland_sms_work, "stop_signals", lambda: nullcontext(ended))
    monkeypatch.setattr(bland_sms_work, "close_old_connections", lambda: None)
    monkeypatch.setattr(bland_sms_work, "PAUSE_SECONDS", 0.1)
    monkeypatch.setattr(ending, "FIRST_PAUSE", timedelta(seconds=0.5))
    pause = ending.pause_for_outage

    def pause_and_tell(*args: Any) -> dict[str, Any]:
        paused.set()
        return pause(*args)

    monkeypatch.setattr(ending, "pause_for_outage", pause_and_tell)
    port = int(sandbox.base_url.rpartition(":")[2])
    again = []

    def restart() -> None:
        try:
            wait_until(lambda: len(sandbox.requests("PATCH")) >= 20, 60)
            sandbox.stop()
            assert paused.wait(60)
            again.append(BlandSandbox(port=port, api_key=sandbox.api_key))
            again[0].account = sandbox.account
            again[0].start()
            rows = sandbox.account.rows.values()
            # All but what it may have been in doubt about when it ended.
            wait_until(lambda: sum(row["is_active"] for row in rows) <= 16, 60)
        finally:
            ended.set()

    thread = threading.Thread(target=restart)
    thread.start()
    try:
        ran = manage("bland_sms_work")
    finally:
        ended.set()
        thread.join()
        for one in again:
            one.stop()
    wait_until(lambda: run(bulk_update), 60)  # what was in flight when the worker was ended
    counts = bulk_update.counts()
    assert counts["changed"] + counts["unknown"] == 120
    assert counts["unknown"] <= 16
    assert (ran.code, "Traceback" in ran.err) == (0, False)
    answered = [one["conversation_id"] for one in again[0].requests("PATCH")]
    before = [
        seen["conversation_id"] for seen in sandbox.requests("PATCH") if seen["status"] == 200
    ]
    assert len(set(answered) & set(before)) <= 2 * 16, "only what was in flight is asked again"


# --- a database that is restarted -------------------------------------------------------------


def need_programs(kind: type[PostgreSQL] | type[MariaDB]) -> None:
    import shutil

    missing = []
    if kind is PostgreSQL and not (PostgreSQL.bin() and find_spec("psycopg")):
        missing.append("PostgreSQL")
    if kind is MariaDB and not (shutil.which("mariadb-install-db") and find_spec("MySQLdb")):
        missing.append("MariaDB")
    if missing:
        (pytest.fail if os.environ.get("BLAND_SMS_CI") else pytest.skip)(
            f"needs {', '.join(missing)}"
        )


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[PostgreSQL | MariaDB]:
    need_programs(request.param)
    # No folder of pytest's: each pytest that begins closes them to all users but its own.
    with tempfile.TemporaryDirectory() as folder:
        private: PostgreSQL | MariaDB = request.param(Path(folder) / "server")
        private.start()
        yield private
        private.stop()


@pytest.mark.parametrize(
    ("server", "mode"),
    [
        (PostgreSQL, "immediate"),
        (PostgreSQL, "fast"),
        (PostgreSQL, "read-only"),
        (MariaDB, "immediate"),
    ],
    indirect=["server"],
)
def test_work__outlives_a_database_that_is_away(
    mode: str, server: PostgreSQL | MariaDB, tmp_path: Path
) -> None:
    with BlandSandbox(api_key="org_test_key_000000", latency_seconds=0.1) as sandbox:
        for number in range(300):
            sandbox.account.add({"id": f"conv_{number:04d}"})
        environment = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "tests.engine_settings",
            "DATABASE_URL": server.url,
            "BLAND_SMS_TEST_DATABASE": server.url.rpartition("/")[2],
            "BLAND_SMS_TEST_URL": sandbox.base_url,
            "PYTHONPATH": str(ROOT),
        }

        def run(*arguments: str) -> str:
            ran = subprocess.run(
                [sys.executable, *arguments],
                cwd=ROOT,
                env=environment,
                check=True,
                capture_output=True,
                text=True,
                timeout=120,
            )
            return ran.stdout.strip()

        def are_inactive(first: int, last: int) -> bool:
            rows = sandbox.account.rows
            return not any(rows[f"conv_{number:04d}"]["is_active"] for number in range(first, last))

        def complaints() -> int:
            return told.read_bytes().count(b"database is")

        run("manage.py", "migrate", "-v", "0")
        told = tmp_path / "told"
        with told.open("wb") as stderr:
            worker = subprocess.Popen(
                [sys.executable, "manage.py", "bland_sms_work"],
                cwd=ROOT,
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
            )
        try:
            run("-m", "tests.operator", "begin", "0", "20")
            wait_until(lambda: are_inactive(0, 20), 90)
            if mode != "read-only":  # which an idle worker does not notice
                server.stop(mode)
                wait_until(lambda: b"database is" in told.read_bytes(), 60)
                server.start()
            # Driving:
            second = run("-m", "tests.operator", "begin", "20", "300")
            before = len(sandbox.requests("PATCH"))
            wait_until(lambda: len(sandbox.requests("PATCH")) > before + 20, 90)
            times = complaints()
            server.stop(mode)
            wait_until(lambda: complaints() > times, 60)
            server.start()
            wait_until(lambda: are_inactive(20, 300), 120)
            status = partial(run, "-m", "tests.operator", "status", second)
            wait_until(lambda: status() == "finished 280", 60)
            assert worker.poll() is None
        finally:
            worker.kill()
            worker.wait()

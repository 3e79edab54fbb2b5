"""One run of an update: what it begins, and what each request may take."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from bland_sms.models import BulkUpdate
from bland_sms.pacing import Allowance
from bland_sms.sandbox import BlandSandbox
from bland_sms.threads import Crew
from bland_sms.updates import driver, run
from bland_sms.updates.asking import ClaimedItem, Outcome, Verdict
from bland_sms.updates.in_flight import FIRST_ANSWERS, Job, Window
from tests.conftest import wait_until

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("no_waiting")]
Copied = Callable[..., list[str]]
Started = Callable[..., BulkUpdate]


def outcomes(number: int, verdict: Verdict, **values: Any) -> Iterator[Outcome]:
    for item_id in range(number):
        item = ClaimedItem(item_id, f"conv_{item_id}", False, 0, False, True, None)
        yield Outcome(item, verdict, **values)


def test_run__each_request_ends_before_the_run(
    copied: Copied, started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Allowance] = []

    def ask(client: Any, item: ClaimedItem, allowance: Allowance) -> Outcome:
        seen.append(allowance)
        return Outcome(item, Verdict.FAILED, error_code="http_400", http_status=400)

    monkeypatch.setattr(driver, "ask", ask)

    assert run(started(copied(3)), seconds=100)

    for allowance in seen:
        assert allowance.deadline is not None
        assert allowance.send_until == allowance.deadline - 2  # the last fifth, at most 2 seconds
        assert allowance.fence is not None
        assert allowance.sent == {}
    assert len({id(allowance) for allowance in seen}) == 3  # each counts for itself
    assert len({id(allowance.budget) for allowance in seen}) == 1
    assert all(allowance.stopped.is_set() for allowance in seen)  # when the run is over


def test_run__short_one_sends_nothing_in_its_last_fifth() -> None:
    begun_at = time.monotonic()
    drive = driver._Drive(BulkUpdate(), 5, None)

    assert drive.allowance.deadline is not None
    assert drive.allowance.send_until == drive.allowance.deadline - 1
    assert drive.allowance.deadline >= begun_at + 5


@pytest.mark.parametrize(("slowest_seconds", "may_begin"), [(0, True), (50, True), (101, False)])
def test_run__begins_only_what_may_be_answered_in_time(
    slowest_seconds: float, may_begin: bool
) -> None:
    drive = driver._Drive(BulkUpdate(), 100, None)
    drive.allowance.fence = None
    drive.slowest_seconds = slowest_seconds

    assert bool(drive._room()) is may_begin


@pytest.mark.parametrize(("is_right_account", "is_stopped"), [(False, True), (True, False)])
def test_run__many_conversations_not_found_at_once(
    is_right_account: bool, is_stopped: bool
) -> None:
    drive = driver._Drive(BulkUpdate(), None, None)
    drive.answers.is_right_account = is_right_account  # an earlier answer has proved it

    for outcome in outcomes(FIRST_ANSWERS, Verdict.NOT_FOUND, http_status=404):
        drive._collect(outcome)

    assert bool(drive.stop) is is_stopped
    assert drive.allowance.stopped.is_set() is is_stopped


@pytest.mark.parametrize(
    ("seconds", "left", "most"),
    [(0.0, None, 32), (0.05, None, 500), (0.5, None, 64), (4.0, None, 32), (0.05, 0.2, 64)],
)
def test_window__as_many_as_are_asked_in_two_seconds(
    seconds: float, left: float | None, most: int
) -> None:
    window = Window(16)
    for _ in range(3):
        window.note(seconds)

    assert window.most(left) == most
    assert 16 <= window.few(left) < most
    assert Window(16, is_narrow=True).most(None) == 32


def test_crew__wakes_the_driver_for_many_answers_or_for_one_that_is_news() -> None:
    crew, began = Crew(1), time.monotonic()
    plain, news = next(outcomes(1, Verdict.CONFIRMED)), next(outcomes(1, Verdict.UNKNOWN))

    crew.submit(Job(plain.item, lambda: plain))
    crew.wait(0.2, 2)  # nothing to wake up for
    assert time.monotonic() - began >= 0.2
    for _ in range(2):
        crew.submit(Job(plain.item, lambda: plain))
    crew.wait(60, 2)
    crew.submit(Job(news.item, lambda: news))
    crew.wait(60, 100)
    crew.dismiss()
    assert time.monotonic() - began < 60


def test_job__that_was_run_is_freed_at_once() -> None:
    """Its work knows of it, and the garbage collector would have thousands of them to look for."""
    plain = next(outcomes(1, Verdict.CONFIRMED))

    def claimed() -> Job:
        job = Job(plain.item, lambda: Outcome(plain.item, in_doubt=job.is_wanted))
        return job

    job = claimed()
    left = weakref.ref(job)

    job.run()
    assert job.outcome is not None
    gc.disable()
    try:
        del job
        assert left() is None
    finally:
        gc.enable()


def test_run__large_update_costs_few_statements(
    sandbox: BlandSandbox, copied: Copied, started: Started
) -> None:
    bulk_update = started(copied(600))

    with CaptureQueriesContext(connection) as seen:
        assert run(bulk_update)

    assert bulk_update.counts()["changed"] == 600
    assert len(seen) <= 100, len(seen)


def test_run__small_update_is_looked_at_once(
    sandbox: BlandSandbox, copied: Copied, started: Started
) -> None:
    """What a run has closed is not asked about again, and what was never large has no counts."""
    bulk_update = started(copied(1))

    with CaptureQueriesContext(connection) as seen:
        assert run(bulk_update)

    sql = [one["sql"].replace('"', "").replace("`", "") for one in seen]
    assert sum(one.startswith("SELECT") and "live_counts" in one for one in sql) == 2
    closed = next(n for n, one in enumerate(sql) if "SET counts_at_rest" in one)
    assert not [one for one in sql[closed:] if "FROM bland_sms_bulkupdateitem" in one]


@pytest.mark.django_db(transaction=True)
def test_run__gives_back_what_a_newer_update_asks_the_opposite_of(
    sandbox: BlandSandbox, copied: Copied, started: Started, set_bland: Any, monkeypatch: Any
) -> None:
    """Whoever came later does not wait for all that was claimed ahead."""
    set_bland(MAX_CONCURRENCY=1, READ_TIMEOUT=15)
    monkeypatch.setattr("bland_sms.updates.in_flight.CLAIM_SECONDS", 60.0)  # all at once
    monkeypatch.setattr(driver, "LOOK_SECONDS", 0.05)
    sandbox.latency_seconds = 0.02
    ids = copied(150)
    bulk_update = started(ids)
    newer: list[BulkUpdate] = []

    def ask_the_opposite() -> None:
        wait_until(lambda: bulk_update.items.filter(state="running").count() > 100)
        newer.append(started(ids[-40:], is_active=True))
        connection.close()

    person = threading.Thread(target=ask_the_opposite)
    person.start()
    assert run(bulk_update)
    person.join()

    assert bulk_update.counts()["cancelled"] >= 20
    assert run(newer[0])
    asked = {one["conversation_id"] for one in sandbox.requests("PATCH") if not one["is_active"]}
    assert len(asked) == bulk_update.counts()["changed"]
    assert all(row["is_active"] for pk, row in sandbox.account.rows.items() if pk in ids[-40:])

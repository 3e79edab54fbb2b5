"""Who carries work out: a turn of a worker, and what it leaves to the next one."""

from __future__ import annotations

import random
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, connections
from django.utils import timezone

from bland_sms import dispatching, tasks, updates
from bland_sms.dispatching import (
    UnfinishedError,
    carry_out,
    driver_of,
    hand_over,
    stopped_at,
    take_turn,
)
from bland_sms.models import BulkUpdate, WebhookDelivery
from bland_sms.sandbox import BlandSandbox
from bland_sms.tasks import work

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("no_waiting", "quick")]
Started = Callable[..., BulkUpdate]
Copied = Callable[..., list[str]]

asked: list[tuple[str, int]] = []
LEASE = timedelta(seconds=2)


def queue(kind: str, pk: int) -> None:
    """A queue whose worker never comes."""
    asked.append((kind, pk))


def no_worker(kind: str, pk: int) -> bool:
    asked.append((kind, pk))
    return False


def at_once(kind: str, pk: int) -> None:
    """A queue that carries tasks out within the call, as Celery does with task_always_eager."""
    asked.append((kind, pk))
    work(kind, pk)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatching, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(dispatching, "WAIT_SECONDS", 0.3)
    monkeypatch.setattr(tasks, "WAIT_SECONDS", 0.3)


@pytest.fixture(autouse=True)
def _queue(sandbox: BlandSandbox, set_bland: Any) -> Iterator[None]:
    asked.clear()
    set_bland(DISPATCH="tests.test_dispatching.queue", READ_TIMEOUT=15)
    yield
    asked.clear()


def lease(bulk_update: BulkUpdate, length: timedelta = LEASE) -> None:
    """As a worker that drives it, or died a moment ago."""
    BulkUpdate.objects.filter(pk=bulk_update.pk).update(
        status="running", lease_token=uuid.uuid4(), lease_until=timezone.now() + length
    )


def status(bulk_update: BulkUpdate) -> str:
    bulk_update.refresh_from_db()
    return bulk_update.status


# --- here, or a worker ------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 4, 25])
@pytest.mark.parametrize("over", [0, 1])
def test_carry_out__up_to_inline_limit_here_and_more_by_a_worker(
    limit: int, over: int, sandbox: BlandSandbox, copied: Copied, started: Started, set_bland: Any
) -> None:
    set_bland(INLINE_LIMIT=limit, INLINE_SECONDS=60)
    number = limit + over
    bulk_update = started(copied(number))

    carry_out(bulk_update)

    assert len(sandbox.requests("PATCH")) == (0 if over else number)
    assert asked == ([("update", bulk_update.pk)] if over else [])
    assert status(bulk_update) == ("queued" if over else "finished")


# --- a turn -----------------------------------------------------------------------------------


def test_take_turn__hands_on_after_work_seconds(
    sandbox: BlandSandbox, copied: Copied, started: Started, set_bland: Any
) -> None:
    set_bland(WORK_SECONDS=4, MAX_CONCURRENCY=1)
    sandbox.latency_seconds = 0.1
    bulk_update = started(copied(60))

    work("update", bulk_update.pk)

    assert asked == [("update", bulk_update.pk)]
    assert status(bulk_update) == "queued"
    assert bulk_update.lease_until is None
    counts = bulk_update.counts()
    assert counts["running"] == 0
    asked_of_bland = len(sandbox.requests("PATCH"))
    assert 0 < counts["changed"] <= asked_of_bland <= counts["changed"] + 1 < 60
    assert driver_of(bulk_update) == "worker"


def test_take_turn__a_small_update_is_finished_and_not_handed_on(
    copied: Copied, started: Started
) -> None:
    bulk_update = started(copied(30))

    work("update", bulk_update.pk)

    assert status(bulk_update) == "finished"
    assert asked == []


@pytest.mark.parametrize("state", ["draft", "stopped", "cancelled", "finished"])
def test_take_turn__leaves_alone_what_needs_a_person(
    state: str, sandbox: BlandSandbox, copied: Copied, started: Started
) -> None:
    bulk_update = started(copied(3))
    BulkUpdate.objects.update(status=state)
    sandbox.log.clear()

    work("update", bulk_update.pk)

    assert not sandbox.requests()
    assert asked == []


def test_take_turn__waits_until_a_dead_workers_lease_lapses(
    sandbox: BlandSandbox, copied: Copied, started: Started
) -> None:
    bulk_update = started(copied(30))
    began = time.monotonic()
    lease(bulk_update)

    work("update", bulk_update.pk)

    assert time.monotonic() - began >= LEASE.total_seconds() - 0.1
    assert status(bulk_update) == "finished"
    assert len(sandbox.requests("PATCH")) == 30


@pytest.mark.django_db(transaction=True)
def test_take_turn__returns_when_the_lease_is_renewed(
    sandbox: BlandSandbox, copied: Copied, started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    bulk_update = started(copied(30))
    lease(bulk_update, timedelta(seconds=10))
    has_looked, is_renewed = threading.Event(), dispatching._is_renewed

    def look(*args: Any) -> bool:
        has_looked.set()
        return is_renewed(*args)

    monkeypatch.setattr(dispatching, "_is_renewed", look)
    turn = threading.Thread(target=in_thread, args=(bulk_update,))
    turn.start()
    assert has_looked.wait(60)
    BulkUpdate.objects.update(lease_until=timezone.now() + timedelta(seconds=14))
    turn.join(60)

    assert not turn.is_alive()
    assert not sandbox.requests("PATCH")
    assert asked == []


def in_thread(bulk_update: BulkUpdate) -> None:
    try:
        work("update", bulk_update.pk)
    finally:
        connections.close_all()


def test_take_turn__a_lease_that_outlives_the_turn_is_left_to_the_next_task(
    sandbox: BlandSandbox, copied: Copied, started: Started, set_bland: Any
) -> None:
    set_bland(WORK_SECONDS=1)
    bulk_update = started(copied(3))
    sandbox.log.clear()
    lease(bulk_update, timedelta(seconds=14))

    work("update", bulk_update.pk)

    assert asked == [("update", bulk_update.pk)]
    assert not sandbox.requests()


def pause(bulk_update: BulkUpdate, seconds: float) -> None:
    bulk_update.items.update(not_before=timezone.now() + timedelta(seconds=seconds))


def test_take_turn__waits_for_what_is_due_in_a_moment(
    sandbox: BlandSandbox, copied: Copied, started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatching, "WAIT_SECONDS", 20.0)
    bulk_update = started(copied(30))
    pause(bulk_update, 1)

    work("update", bulk_update.pk)

    assert status(bulk_update) == "finished"
    assert asked == []


def test_take_turn__gives_its_place_away_when_nothing_is_due_for_long(
    sandbox: BlandSandbox, copied: Copied, started: Started
) -> None:
    bulk_update = started(copied(30))
    pause(bulk_update, 3600)
    began = time.monotonic()

    work("update", bulk_update.pk)

    assert time.monotonic() - began >= 0.3
    assert asked == [("update", bulk_update.pk)]
    assert not sandbox.requests()
    bulk_update.refresh_from_db()
    assert driver_of(bulk_update) == "worker"


def test_take_turn__one_task_waits_for_all(
    sandbox: BlandSandbox, copied: Copied, started: Started
) -> None:
    ids = copied(30)
    older, newer = started(ids[:15]), started(ids[15:])
    pause(older, 3600)
    pause(newer, 3600)
    hand_over(older)
    hand_over(newer)
    asked.clear()

    work("update", newer.pk)  # gives way to the older one
    work("update", older.pk)  # comes back
    assert asked[-1] == ("update", older.pk)
    assert ("update", newer.pk) not in asked

    asked.clear()
    pause(newer, 0)
    work("update", older.pk)
    assert asked == [("update", older.pk), ("update", newer.pk)]

    asked.clear()
    BulkUpdate.objects.filter(pk=older.pk).update(status="cancelled")
    pause(newer, 3600)
    work("update", older.pk)
    assert asked == [("update", newer.pk)]


def test_take_turn__asks_for_a_worker_for_what_another_one_left_when_it_died(
    copied: Copied, started: Started
) -> None:
    ids = copied(30)
    lost, mine = started(ids[:15]), started(ids[15:])
    hand_over(lost)
    lease(lost, timedelta(milliseconds=1))
    asked.clear()

    work("update", mine.pk)

    assert asked == [("update", lost.pk)]
    work("update", mine.pk)
    assert asked == [("update", lost.pk)]  # once is enough


@pytest.mark.parametrize("dispatch", ["no_worker", "at_once"])
def test_take_turn__goes_on_without_another_worker(
    dispatch: str, sandbox: BlandSandbox, copied: Copied, started: Started, set_bland: Any
) -> None:
    # What is sent last has half a second to be answered, before the turn ends and it is in doubt.
    set_bland(DISPATCH=f"tests.test_dispatching.{dispatch}", WORK_SECONDS=3, MAX_CONCURRENCY=1)
    sandbox.latency_seconds = 0.1
    bulk_update = started(copied(30))

    work("update", bulk_update.pk)

    assert status(bulk_update) == "finished"
    assert asked
    assert len(sandbox.requests("PATCH")) == 30


@pytest.mark.parametrize("dispatch", ["no_worker", "at_once", "missing"])
def test_take_turn__is_no_success_when_no_worker_goes_on(
    dispatch: str, copied: Copied, started: Started, set_bland: Any
) -> None:
    set_bland(DISPATCH=f"tests.test_dispatching.{dispatch}")
    bulk_update = started(copied(3))
    pause(bulk_update, 3600)

    with pytest.raises(UnfinishedError):
        work("update", bulk_update.pk)
    assert status(bulk_update) == "queued"
    assert driver_of(bulk_update) == "none"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # one in __del__
@pytest.mark.django_db(transaction=True)
def test_work__thirty_time_limits_at_random_moments(
    sandbox: BlandSandbox, copied: Copied, started: Started, set_bland: Any
) -> None:
    """As RQ and Celery end a task: by a signal, in the main thread, anywhere."""
    set_bland(MAX_CONCURRENCY=4)
    sandbox.latency_seconds = 0.02
    bulk_update = started(copied(2000))
    hand_over(bulk_update)
    dice = random.Random(4711)
    limits = handed_on = 0

    def end(number: int, frame: Any) -> None:
        # Python swallows what is raised within a destructor: then it comes once more.
        signal.setitimer(signal.ITIMER_REAL, 2)
        raise LimitError

    before = signal.signal(signal.SIGALRM, end)
    try:
        for _ in range(30):
            BulkUpdate.objects.update(dispatched_at=timezone.now() - timedelta(seconds=5))
            asked.clear()
            try:
                signal.setitimer(signal.ITIMER_REAL, dice.uniform(0.05, 0.6))
                work("update", bulk_update.pk)
            except (LimitError, KeyError):  # threading makes a KeyError of some
                limits += 1
                handed_on += asked == [("update", bulk_update.pk)]
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
            bulk_update.refresh_from_db()
            assert not bulk_update.has_live_lease
            assert bulk_update.counts()["running"] == 0
            assert not connection.in_atomic_block
    finally:
        signal.signal(signal.SIGALRM, before)
    assert limits > 10
    assert handed_on >= limits - 2  # but for one that comes in the middle of handing on

    set_bland(WORK_SECONDS=600)
    work("update", bulk_update.pk)

    assert bulk_update.counts()["changed"] == 2000
    # What was in flight at a limit may be sent again, and nothing else.
    assert len(sandbox.requests("PATCH")) <= 2000 + 4 * limits


class LimitError(Exception):
    """As RQ's and Celery's: an Exception."""


@pytest.mark.parametrize("kind", [LimitError, KeyboardInterrupt, SystemExit])
def test_take_turn__what_ends_it_hands_on_and_goes_on_itself(
    kind: type[BaseException],
    copied: Copied,
    started: Started,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bulk_update = started(copied(3))
    hand_over(bulk_update)
    BulkUpdate.objects.update(dispatched_at=timezone.now() - timedelta(seconds=3))
    asked.clear()

    def run(*args: Any, **values: Any) -> bool:
        raise kind

    monkeypatch.setattr(updates, "run", run)
    with pytest.raises(kind):
        take_turn(bulk_update)
    assert asked == [("update", bulk_update.pk)]


def test_take_turn__an_error_does_not_go_round_in_circles(
    copied: Copied, started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    bulk_update = started(copied(3))
    hand_over(bulk_update)
    asked.clear()

    def run(*args: Any, **values: Any) -> bool:
        raise ValueError

    monkeypatch.setattr(updates, "run", run)
    with pytest.raises(ValueError):
        take_turn(bulk_update)
    assert asked == []


def test_work__of_a_row_that_is_gone(db: None) -> None:
    work("update", 4711)
    work("delivery", 4711)
    with pytest.raises(ValueError, match="unknown kind"):
        work("other", 1)


# --- who has it -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds_since_asked", "lease_seconds", "due_in", "expected"),
    [
        (None, None, 0, "none"),
        (5, None, 0, "worker"),
        (119, None, 0, "worker"),
        (121, None, 0, "none"),
        (500, 10, 0, "worker"),
        (60, -1, 0, "none"),  # it had begun: no patience
        (1, -30, 0, "worker"),  # somebody was asked since
        (500, None, 600, "worker"),  # there is nothing to do yet
    ],
)
def test_driver_of(
    seconds_since_asked: float | None,
    lease_seconds: float | None,
    due_in: float,
    expected: str,
    copied: Copied,
    started: Started,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bulk_update = started(copied(1))
    now = timezone.now()
    monkeypatch.setattr(timezone, "now", lambda: now)
    if seconds_since_asked is not None:
        bulk_update.dispatched_at = now - timedelta(seconds=seconds_since_asked)
    if lease_seconds is not None:
        bulk_update.lease_until = now + timedelta(seconds=lease_seconds)
    if due_in:
        pause(bulk_update, due_in)

    assert driver_of(bulk_update) == expected
    is_lost = lease_seconds == -1
    assert stopped_at(bulk_update) == (bulk_update.lease_until if is_lost else None)


# --- deliveries -------------------------------------------------------------------------------


def deliver(conversation_id: str, **values: Any) -> WebhookDelivery:
    return WebhookDelivery.objects.create(
        body_sha256=uuid.uuid4().hex, conversation_id=conversation_id, kind="message", **values
    )


def test_work__a_delivery_that_is_put_off_is_come_back_for(
    sandbox: BlandSandbox, copied: Copied
) -> None:
    [conversation_id] = copied(1)
    first, *_others = (deliver(conversation_id) for _ in range(3))
    work("delivery", first.pk)  # one GET serves all that came before it
    assert len(sandbox.requests("GET")) == 1
    assert not WebhookDelivery.objects.filter(state="received").exists()

    later, last = deliver(conversation_id), deliver(conversation_id)
    work("delivery", later.pk)
    work("delivery", last.pk)
    assert asked == [("delivery", later.pk)]
    assert len(sandbox.requests("GET")) == 1

    WebhookDelivery.objects.update(asked_at=timezone.now() - timedelta(minutes=2), not_before=None)
    work("delivery", later.pk)
    assert len(sandbox.requests("GET")) == 2
    assert not WebhookDelivery.objects.filter(state="received").exists()


def test_work__a_delivery_takes_others_along_that_nobody_came_for(
    sandbox: BlandSandbox, copied: Copied
) -> None:
    ids = copied(3)
    deliveries = [deliver(pk) for pk in ids]

    work("delivery", deliveries[2].pk)

    assert not WebhookDelivery.objects.filter(state="received").exists()
    assert asked == []


def test_work__a_delivery_that_is_due_much_later_is_left_alone(
    sandbox: BlandSandbox, copied: Copied
) -> None:
    [conversation_id] = copied(1)
    delivery = deliver(conversation_id, not_before=timezone.now() + timedelta(hours=1))

    work("delivery", delivery.pk)

    assert asked == []
    assert not sandbox.requests("GET")

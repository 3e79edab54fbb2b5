"""Whatever exception ends a run, and whenever it comes: nothing is lost, stuck or poisoned."""

from __future__ import annotations

import ctypes
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from django.db import connection, transaction

from bland_sms.models import BulkUpdate, Conversation
from bland_sms.sandbox import BlandSandbox
from bland_sms.tasks import work
from bland_sms.updates import driver, run

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("no_waiting"),
    # One that comes while Python destroys an object is lost, with a complaint. Nobody can help it.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
Copied = Callable[..., list[str]]
Started = Callable[..., BulkUpdate]
ROWS = 24
INTERRUPTED = int(os.environ.get("BLAND_SMS_INTERRUPTED", "4"))
"""How many tasks a test interrupts; more by hand."""


class TimeLimitError(Exception):
    """As RQ's and Celery's: an Exception, raised by a signal handler."""


class TimeLimitExceeded(BaseException):
    """As Dramatiq's and gevent's."""


@contextmanager
def by_signal(error: type[BaseException], seconds: float) -> Iterator[None]:
    """Raise it in this, the main thread."""

    def raise_error(number: int, frame: Any) -> None:
        raise error

    before = signal.signal(signal.SIGALRM, raise_error)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def asynchronously(error: type[BaseException], seconds: float) -> Iterator[None]:
    """Raise it in this thread between two instructions."""
    target, over, lock = threading.get_ident(), threading.Event(), threading.Lock()

    def raise_error() -> None:
        if not over.wait(seconds):
            with lock:
                if not over.is_set():
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(
                        ctypes.c_ulong(target), ctypes.py_object(error)
                    )

    thread = threading.Thread(target=raise_error)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def assert_connection_is_sound() -> None:
    assert connection.get_autocommit()
    assert not connection.in_atomic_block
    with transaction.atomic():
        assert BulkUpdate.objects.count() >= 0


# Before Python 3.12 an asynchronous one may end a thread that is being started.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("error", [TimeLimitError, TimeLimitExceeded, SystemExit])
@pytest.mark.parametrize("raised", [by_signal, asynchronously])
def test_run__ended_by_an_exception(
    raised: Callable[..., Any],
    error: type[BaseException],
    sandbox: BlandSandbox,
    copied: Copied,
    started: Started,
    set_bland: Any,
) -> None:
    set_bland(MAX_CONCURRENCY=4, READ_TIMEOUT=5)
    sandbox.latency_seconds = 0.005
    ids = copied(ROWS)
    dice = random.Random(f"{raised.__name__} {error.__name__} 2")
    began = time.monotonic()
    run(started(ids))
    duration = time.monotonic() - began
    ended = 0
    for number in range(10):
        is_active = number % 2 == 0
        bulk_update = started(ids, is_active=is_active)
        sandbox.log.clear()
        began = time.monotonic()
        try:
            with raised(error, dice.uniform(0, duration)):
                run(bulk_update)
            duration = min(duration, time.monotonic() - began)
        except error:
            ended += 1
        assert_connection_is_sound()
        bulk_update.refresh_from_db()
        assert bulk_update.lease_until is None, number
        assert not bulk_update.items.filter(state="running").exists(), number
        answered = {seen["conversation_id"] for seen in sandbox.requests("PATCH")}
        written = set(
            bulk_update.items.exclude(state="waiting").values_list("conversation_id", flat=True)
        )
        assert answered == written, number
        assert run(bulk_update) is True
        assert bulk_update.counts()["changed"] == ROWS
        assert len(sandbox.requests("PATCH")) == ROWS, number
        assert Conversation.objects.filter(is_active=is_active).count() == ROWS
    assert ended > 3


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_work__ended_by_an_asynchronous_exception(
    sandbox: BlandSandbox,
    copied: Copied,
    started: Started,
    set_bland: Any,
) -> None:
    """The same for a task, whose own steps lie around those of the run."""
    set_bland(MAX_CONCURRENCY=4, READ_TIMEOUT=5)
    sandbox.latency_seconds = 0.005
    ids = copied(ROWS)
    dice = random.Random(9)
    first = started(ids)
    began = time.monotonic()
    work("update", first.pk)
    duration = time.monotonic() - began
    for number in range(INTERRUPTED):
        bulk_update = started(ids, is_active=number % 2 == 0)
        sandbox.log.clear()
        moment = dice.uniform(0, duration)
        with suppress(TimeLimitExceeded), asynchronously(TimeLimitExceeded, moment):
            work("update", bulk_update.pk)
        assert_connection_is_sound()
        bulk_update.refresh_from_db()
        assert bulk_update.lease_until is None, number
        assert not bulk_update.items.filter(state="running").exists(), number
        answered = {seen["conversation_id"] for seen in sandbox.requests("PATCH")}
        left = bulk_update.items.filter(state="waiting")
        assert answered.isdisjoint(left.values_list("conversation_id", flat=True)), number
        work("update", bulk_update.pk)
        assert bulk_update.counts()["changed"] == ROWS
        assert len(sandbox.requests("PATCH")) == ROWS, number


@pytest.mark.parametrize("where", ["_collect", "_write", "_renew_lease", "_release", "_flush"])
def test_run__ended_at_each_step(
    where: str,
    sandbox: BlandSandbox,
    copied: Copied,
    started: Started,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bulk_update = started(copied(ROWS))
    step, calls = getattr(driver._Drive, where), []

    def fail_once(self: Any, *args: Any) -> Any:
        calls.append(args)
        if len(calls) == 1:
            raise TimeLimitExceeded
        return step(self, *args)

    monkeypatch.setattr(driver._Drive, where, fail_once)

    with pytest.raises(TimeLimitExceeded):
        run(bulk_update)

    bulk_update.refresh_from_db()
    assert bulk_update.lease_until is None
    assert_connection_is_sound()
    assert run(bulk_update) is True
    assert bulk_update.counts()["changed"] == ROWS
    assert len(sandbox.requests("PATCH")) == ROWS


def test_run__exception_in_the_middle_of_commit(
    sandbox: BlandSandbox, copied: Copied, started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a signal does it: the complaint about autocommit must not hide the exception."""
    bulk_update = started(copied(ROWS))
    commit, calls = connection.commit, []

    def interrupt() -> None:
        calls.append(1)
        if len(calls) == 3:
            raise TimeLimitExceeded
        commit()

    monkeypatch.setattr(connection, "commit", interrupt)

    with pytest.raises(TimeLimitExceeded):
        run(bulk_update)

    monkeypatch.undo()
    assert_connection_is_sound()
    bulk_update.refresh_from_db()
    assert bulk_update.lease_until is None
    assert not bulk_update.items.filter(state="running").exists()
    assert run(bulk_update) is True  # no row is blamed for it
    assert bulk_update.counts()["changed"] == ROWS

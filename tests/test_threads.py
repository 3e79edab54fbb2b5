"""The threads that ask Bland: no driver waits for one to start, and lost ones are replaced."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from bland_sms import sync, threads
from bland_sms.models import BulkUpdate, WebhookDelivery
from bland_sms.sandbox import BlandSandbox
from bland_sms.threads import Pool
from bland_sms.updates import run
from bland_sms.webhooks import process_waiting


@pytest.fixture
def no_waiting_for_threads(sandbox: BlandSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """This thread starts no ``threading.Thread``: before Python 3.12 an exception that a task queue
    raises asynchronously in it could hang it there for good."""
    start, driver = threading.Thread.start, threading.get_ident()

    def refuse(self: threading.Thread) -> None:
        if threading.get_ident() == driver:
            pytest.fail("a driver waits for its thread to start")
        start(self)

    monkeypatch.setattr(threading.Thread, "start", refuse)


@pytest.mark.django_db
@pytest.mark.usefixtures("no_waiting_for_threads")
@pytest.mark.parametrize("job", ["update", "deliveries", "sync", "messages", "full sync"])
def test_every_job__waits_for_no_thread_to_start(
    job: str,
    sandbox: BlandSandbox,
    copied: Callable[..., list[str]],
    started: Callable[..., BulkUpdate],
    set_bland: Callable[..., None],
) -> None:
    set_bland(READ_TIMEOUT=5)
    ids = copied(6)
    if job == "update":
        assert run(started(ids))
    elif job == "deliveries":
        for pk in ids:
            WebhookDelivery.objects.create(body_sha256=pk, conversation_id=pk)
        assert process_waiting().processed == len(ids)
    else:
        made = sync.run(full=job == "full sync", messages=job == "messages")
        assert made.status == "finished"
    assert sandbox.log


@pytest.mark.parametrize("size", [1, 3])
def test_pool__replaces_threads_that_were_lost(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as by an exception that was meant for the driver and ended them before they began."""
    start: Any = threads._thread.start_new_thread
    lost: list[object] = []

    def lose_the_first(function: Any, arguments: Any) -> None:
        if len(lost) < size:
            lost.append(arguments)
        else:
            start(function, arguments)

    monkeypatch.setattr(threads._thread, "start_new_thread", lose_the_first)
    with Pool(size) as pool:
        futures = [pool.submit(divmod, number, 2) for number in range(8)]
        assert not pool.wait(futures, 0)
        pool.wait(futures, 60)
    assert len(lost) == size
    assert [future.result() for future in futures] == [divmod(number, 2) for number in range(8)]


def test_pool__what_was_lost_is_waited_for_to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    start: Any = threads._thread.start_new_thread
    lost: list[object] = []

    def lose_the_first(function: Any, arguments: Any) -> None:
        if lost:
            start(function, arguments)
        lost.append(arguments)

    monkeypatch.setattr(threads._thread, "start_new_thread", lose_the_first)
    with Pool(1) as pool:
        future = pool.submit(divmod, 7, 2)
    assert future.result() == (3, 1)


def test_pool__hands_on_what_is_raised() -> None:
    with Pool(2) as pool:
        future = pool.submit(divmod, 1, 0)
        with pytest.raises(ZeroDivisionError):
            future.result(60)
        assert pool.submit(divmod, 1, 1).result(60) == (1, 0)


def test_pool__does_not_begin_what_was_cancelled() -> None:
    begun, may_end = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        may_end.wait(60)

    with Pool(1) as pool:
        first, second = pool.submit(work), pool.submit(work)
        assert begun.wait(60)
        assert second.cancel()
        assert not first.cancel()
        may_end.set()
    assert first.done()
    assert second.cancelled()

"""Items that are cancelled one by one while their driver has claimed them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from django.utils import timezone

from bland_sms import standing
from bland_sms.models import BulkUpdate, BulkUpdateItem, Conversation, StandingOrder
from bland_sms.pacing import Pacer
from bland_sms.sandbox import BlandSandbox
from bland_sms.sync import refresh, refresh_many
from bland_sms.updates import cancel, driver, prepare, run, start
from bland_sms.updates.in_flight import Job
from bland_sms.updates.transitions import call_back, release_dead_claims

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("no_waiting")]
Copied = Callable[..., list[str]]
Started = Callable[..., BulkUpdate]
ROWS, THREADS = 20, 4
SEEN = [f"conv_{number:04d}" for number in range(12)]
"""What the person who cancels may see: more than are claimed at first, which are 8."""


def seen() -> Any:
    return Conversation.objects.filter(pk__in=SEEN)


def states(bulk_update: BulkUpdate) -> dict[str, str]:
    return dict(bulk_update.items.values_list("conversation_id", "state"))


class Desk:
    """Somebody cancels what they see, or lifts its orders, as soon as the first answer has come.

    Until the driver has noticed, no thread but the first gets its turn to ask Bland: some of the
    claimed items are with threads that wait for it, some with none.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.noticed = threading.Event()
        self.ends_it: type[BaseException] | None = None
        self.decide: Callable[[BulkUpdate], object] = partial(cancel, visible=seen())
        self.was_running: set[str] = set()
        first, wait, collect = threading.Lock(), Pacer.wait, driver._Drive._collect
        look = driver._Drive._look

        def wait_for_turn(pacer: Pacer, *args: Any) -> bool:
            if not first.acquire(blocking=False):
                assert self.noticed.wait(60)
            return wait(pacer, *args)

        def decide_at_first(drive: Any, *args: Any) -> None:
            collect(drive, *args)
            if not self.was_running:
                running = drive.update.items.filter(state="running")
                self.was_running = set(running.values_list("conversation_id", flat=True))
                assert self.decide(BulkUpdate.objects.get(pk=drive.update.pk))

        def notice(drive: Any, *args: Any) -> None:
            look(drive, *args)
            if self.was_running:
                self.noticed.set()
                if self.ends_it is not None:
                    raise self.ends_it

        monkeypatch.setattr(Pacer, "wait", wait_for_turn)
        monkeypatch.setattr(driver._Drive, "_collect", decide_at_first)
        monkeypatch.setattr(driver._Drive, "_look", notice)


@pytest.fixture
def desk(sandbox: BlandSandbox, monkeypatch: pytest.MonkeyPatch, set_bland: Any) -> Desk:
    set_bland(MAX_CONCURRENCY=THREADS)
    return Desk(monkeypatch)


def test_cancel__what_is_claimed_and_not_sent_is_not_sent(
    desk: Desk, sandbox: BlandSandbox, copied: Copied, started: Started
) -> None:
    bulk_update = started(copied(ROWS))

    assert run(bulk_update) is True

    assert len(desk.was_running) == 2 * THREADS
    sent = {seen["conversation_id"] for seen in sandbox.requests("PATCH")}
    found = states(bulk_update)
    assert {pk for pk, state in found.items() if state == "changed"} == sent
    assert len(sent & set(SEEN)) == 1
    assert sum(state == "cancelled" for state in found.values()) == len(SEEN) - 1
    assert sent - set(SEEN) == set(found) - set(SEEN)
    cancelled = bulk_update.items.filter(state="cancelled")
    assert set(cancelled.values_list("error_code", "attempts", "claimed_conversation")) == {
        ("cancelled", 0, None)
    }
    bulk_update.refresh_from_db()
    assert bulk_update.status == "finished"


@pytest.fixture
def orders(sandbox: BlandSandbox) -> list[StandingOrder]:
    """Standing orders, and one update that they asked for."""
    numbers = [f"+1555010{number}" for number in range(8000, 8000 + ROWS)]
    made = standing.make_many([standing.Wish(number) for number in numbers], "by letter")
    refresh_many([sandbox.customer_texts(number, "hi") for number in numbers])
    return made


def test_lift__what_is_claimed_and_not_sent_is_not_sent(
    orders: list[StandingOrder], desk: Desk, sandbox: BlandSandbox
) -> None:
    bulk_update = BulkUpdate.objects.get(source="standing")
    desk.decide = lambda _update: standing.lift_many(orders)

    assert run(bulk_update) is True

    assert len(desk.was_running) == 2 * THREADS
    [sent] = sandbox.requests("PATCH")
    found = states(bulk_update)
    assert found.pop(sent["conversation_id"]) == "changed"
    assert set(found.values()) == {"cancelled"}
    codes = bulk_update.items.filter(state="cancelled").values_list("error_code", "attempts")
    assert set(codes) == {("lifted", 0)}
    bulk_update.refresh_from_db()
    assert bulk_update.status == "finished"


def test_expired_order__what_is_claimed_is_not_sent_after_its_last_second(
    orders: list[StandingOrder],
    sandbox: BlandSandbox,
    request: pytest.FixtureRequest,
) -> None:
    until = timezone.now() + timedelta(seconds=5)
    StandingOrder.objects.update(until=until)
    desk: Desk = request.getfixturevalue("desk")

    def wait_for_the_end(_update: BulkUpdate) -> bool:
        time.sleep(max(0.0, (until - timezone.now()).total_seconds()) + 0.01)
        return True

    desk.decide = wait_for_the_end
    bulk_update = BulkUpdate.objects.get(source="standing")

    assert run(bulk_update) is True

    [sent] = sandbox.requests("PATCH")
    found = states(bulk_update)
    assert found.pop(sent["conversation_id"]) == "changed"
    assert set(found.values()) == {"cancelled"}


@pytest.mark.parametrize("code", ["interrupted", "no_answer"])
def test_lift__of_what_was_in_flight_nobody_says_that_it_was_not_sent(
    sandbox: BlandSandbox, code: str
) -> None:
    order = standing.make("+15550108001", "by letter")
    refresh(sandbox.customer_texts("+15550108001", "hi"))
    BulkUpdateItem.objects.update(error_code=code, attempts=1)

    standing.lift(order)

    [item] = BulkUpdateItem.objects.all()
    assert (item.state, item.error_code, item.attempts) == ("unknown", "no_answer", 1)
    assert BulkUpdate.objects.get().status == "finished"


class TimeLimitError(BaseException):
    pass


def test_cancel__and_the_driver_is_ended_at_that_moment(
    desk: Desk, sandbox: BlandSandbox, copied: Copied, started: Started
) -> None:
    desk.ends_it = TimeLimitError
    bulk_update = started(copied(ROWS))

    with pytest.raises(TimeLimitError):
        run(bulk_update)

    desk.ends_it = None
    found = states(bulk_update)
    assert {found[pk] for pk in SEEN} == {"changed", "cancelled"}
    assert run(bulk_update) is True
    sent = [seen["conversation_id"] for seen in sandbox.requests("PATCH")]
    assert len(set(sent) & set(SEEN)) == 1
    assert len(sent) == len(set(sent)) == 1 + ROWS - len(SEEN)


def test_cancel__what_others_see_goes_on_though_all_of_it_is_claimed(
    copied: Copied, started: Started
) -> None:
    bulk_update = started(copied(ROWS))
    assert bulk_update.take_lease(status="running")
    bulk_update.items.update(state="running")

    assert cancel(bulk_update, visible=seen())

    bulk_update.refresh_from_db()
    assert bulk_update.status == "running"
    items = bulk_update.items.filter(error_params__isnull=False)
    assert sorted(items.values_list("conversation_id", flat=True)) == SEEN


def test_cancel__the_process_that_had_claimed_them_dies(copied: Copied, started: Started) -> None:
    """Nobody knows which of them were sent."""
    bulk_update = started(copied(ROWS))
    bulk_update.items.update(state="running")
    lapsed = timezone.now() - timedelta(seconds=1)
    BulkUpdate.objects.update(status="running", lease_until=lapsed)
    mine = bulk_update.items.filter(conversation_id__in=SEEN)
    call_back(list(mine.values_list("pk", flat=True)), "cancelled", by="dana")

    release_dead_claims()

    assert set(mine.values_list("state", "error_code", "error_params")) == {
        ("unknown", "no_answer", None)
    }
    others = bulk_update.items.exclude(conversation_id__in=SEEN)
    assert set(others.values_list("state", "error_code")) == {("waiting", "interrupted")}


def test_start__what_is_called_back_does_not_stand_for_a_new_request(
    copied: Copied, started: Started
) -> None:
    ids = copied(ROWS)
    bulk_update = started(ids)
    assert bulk_update.take_lease(status="running")
    bulk_update.items.update(state="running")
    assert cancel(bulk_update, visible=seen())

    again = prepare(ids, False)
    start(again)

    waiting = again.items.filter(state=BulkUpdateItem.State.WAITING)
    assert sorted(waiting.values_list("conversation_id", flat=True)) == SEEN


def test_job__called_back_is_not_begun() -> None:
    asked: list[str] = []
    job = Job(None, lambda: asked.append("asked"))  # type: ignore[arg-type,func-returns-value]
    assert job.call_back() is True
    job.run()
    assert asked == []

"""What is said of an item is true: with a sync in between, a failed look, the end of a slice."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import AbstractUser
from django.utils import timezone

from bland_sms.models import BulkUpdate, Conversation
from bland_sms.sandbox import BlandSandbox
from bland_sms.sync import refresh
from bland_sms.updates import (
    asking,
    driver,
    left_alone,
    prepare,
    proceed,
    retry,
    run,
    start,
    undo,
    waiting_updates,
)

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("no_waiting")]
Copied = Callable[..., list[str]]
Started = Callable[..., BulkUpdate]


def states(bulk_update: BulkUpdate) -> dict[str, int]:
    return {state: number for state, number in bulk_update.counts().items() if number}


# --- what we changed --------------------------------------------------------------------------


def test_changed__although_a_sync_copied_the_row_before_the_answer_was_written(
    sandbox: BlandSandbox, copied: Copied, started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = copied(3)
    bulk_update = started(ids)
    write = driver._Drive._write

    def sync_then_write(self: Any, outcomes: Any) -> None:
        for pk in ids:
            refresh(pk)
        write(self, outcomes)

    monkeypatch.setattr(driver._Drive, "_write", sync_then_write)

    run(bulk_update)

    assert states(bulk_update) == {"changed": 3}
    assert set(bulk_update.items.values_list("previous_is_active", flat=True)) == {True}
    assert undo(bulk_update).items.count() == 3


def test_changed__although_a_sync_came_between_crash_and_takeover(
    sandbox: BlandSandbox, copied: Copied, started: Started
) -> None:
    ids = copied(3)
    bulk_update = started(ids)
    # Its process died when Bland had done it.
    BulkUpdate.objects.update(status="running", lease_until=timezone.now())
    for pk in ids:
        sandbox.account.set_active(pk, False)
        bulk_update.items.filter(conversation_id=pk).update(
            state="running", claimed_conversation=pk, previous_is_active=True
        )
        refresh(pk)

    assert run(bulk_update) is True

    assert states(bulk_update) == {"changed": 3}
    assert not sandbox.requests("PATCH")


def test_changed__first_claim_of_what_was_never_asked_decides(
    sandbox: BlandSandbox, copied: Copied, started: Started, set_bland: Any
) -> None:
    """Stopped before anything was sent for it, the row may change before it is really asked."""
    ids = copied(40)
    set_bland(MAX_CONCURRENCY=4)
    bulk_update = started(ids)
    sandbox.faults.add("#1", "401")
    run(bulk_update)
    assert set(bulk_update.items.values_list("previous_is_active", flat=True)) <= {None, True}
    waiting = bulk_update.items.filter(state="waiting", previous_is_active=None)
    unasked = waiting.values_list("conversation_id", flat=True).order_by("-pk")[0]
    sandbox.account.set_active(unasked, False)
    refresh(unasked)
    proceed(bulk_update)

    assert run(bulk_update) is True

    assert bulk_update.items.get(conversation_id=unasked).state == "unchanged"


def test_left_alone__tells_what_undo_leaves(
    sandbox: BlandSandbox, copied: Copied, started: Started
) -> None:
    ids = copied(3)
    bulk_update = started(ids)
    run(bulk_update)
    sandbox.account.set_active(ids[0], True)
    refresh(ids[0])
    opposite = undo(bulk_update)
    assert [item.conversation_id for item in left_alone(opposite)] == [ids[0]]


def test_history__undone_only_when_the_undo_started(
    sandbox: BlandSandbox, copied: Copied, started: Started, staff: AbstractUser
) -> None:
    bulk_update = started(copied(1))
    run(bulk_update)
    draft = undo(bulk_update, staff)
    assert not LogEntry.objects.exists()
    start(draft)
    entry = LogEntry.objects.get()
    assert (entry.object_id, entry.user) == (str(bulk_update.pk), staff)


# --- what Bland has done ----------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["wrong_id", "404", "400", "errors_body", "422"])
def test_unknown__stays_so_when_the_look_says_nothing_of_it(
    fault: str, sandbox: BlandSandbox, copied: Copied, started: Started
) -> None:
    ids = copied(2)
    bulk_update = started(ids)
    sandbox.faults.add(f"PATCH {ids[0]}", *["close_after"] * 3)
    sandbox.faults.add(f"GET {ids[0]}", "500", *[fault] * 3)
    run(bulk_update)
    assert states(bulk_update) == {"changed": 1, "unknown": 1}

    retry(bulk_update)
    run(bulk_update)

    assert states(bulk_update) == {"changed": 1, "unknown": 1}
    assert len(sandbox.requests("PATCH", ids[0])) == 3


@pytest.mark.parametrize("status", [102, 103])
def test_interim_answer__is_no_refusal(
    status: int, sandbox: BlandSandbox, copied: Copied, started: Started
) -> None:
    """Python's http.client takes 103 Early Hints for the answer, which only follows it."""
    ids = copied(2)
    bulk_update = started(ids)
    interim = {"status": status}
    sandbox.faults.add(f"PATCH {ids[0]}", *[interim] * 3)
    sandbox.faults.add(f"GET {ids[0]}", interim)
    run(bulk_update)
    item = bulk_update.items.get(conversation_id=ids[0])
    assert (item.state, item.error_code, item.http_status) == ("unknown", "bad_answer", status)
    assert "interim answer (HTTP 10" in str(item.failure)
    assert states(bulk_update) == {"changed": 1, "unknown": 1}


@pytest.mark.parametrize("refusal", ["400", "404"])
@pytest.mark.usefixtures("impatient")
def test_refused_after_a_hang__is_looked_at(
    refusal: str, sandbox: BlandSandbox, copied: Copied, started: Started
) -> None:
    ids = copied(2)
    bulk_update = started(ids)
    sandbox.faults.add(f"PATCH {ids[0]}", "hang_after:60", refusal)
    run(bulk_update)
    assert bulk_update.items.get(conversation_id=ids[0]).state in ("changed", "unknown")


def test_attempts__one_cut_off_by_the_end_of_a_slice_counts(
    sandbox: BlandSandbox, copied: Copied, started: Started, set_bland: Any
) -> None:
    set_bland(READ_TIMEOUT=60)
    [pk] = copied(1)
    sandbox.faults.add(pk, "hang_after:60")
    bulk_update = started([pk])

    run(bulk_update, seconds=2.5)

    item = bulk_update.items.get()
    assert (item.state, item.attempts, item.error_code) == ("waiting", 1, "no_answer")
    run(bulk_update)
    assert bulk_update.items.get().attempts == 1


@pytest.mark.parametrize("seconds", ["999999999999", "1767225600"])
def test_retry_after__absurd_is_a_day_at_the_most(
    seconds: str, sandbox: BlandSandbox, copied: Copied, started: Started
) -> None:
    ids = copied(3)
    bulk_update = started(ids)
    sandbox.faults.add(ids[0], {"status": 429, "headers": {"Retry-After": seconds}, "body": "{}"})

    run(bulk_update)

    item = bulk_update.items.get(conversation_id=ids[0])
    assert (item.state, item.error_code) == ("waiting", "")
    assert item.not_before is not None
    assert item.not_before <= timezone.now() + timedelta(days=1)
    assert states(bulk_update) == {"changed": 2, "waiting": 1}


def test_error_of_ours__is_never_told_as_blands(
    sandbox: BlandSandbox, copied: Copied, started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = copied(4)
    bulk_update = started(ids)
    ask = asking.ask

    def fail(client: Any, item: Any, allowance: Any) -> Any:
        if item.conversation_id == ids[1]:
            raise OverflowError("ours")
        return ask(client, item, allowance)

    monkeypatch.setattr(driver, "ask", fail)

    assert run(bulk_update) is True

    item = bulk_update.items.get(conversation_id=ids[1])
    assert states(bulk_update) == {"changed": 3, "unknown": 1}
    assert (item.error_code, item.http_status) == ("error", None)


# --- an outage --------------------------------------------------------------------------------


def test_outage__slices_that_are_never_answered(
    sandbox: BlandSandbox, copied: Copied, started: Started, set_bland: Any
) -> None:
    set_bland(READ_TIMEOUT=60)
    bulk_update = started(copied(50))
    sandbox.faults.add("*", "forever:hang_before:60")

    for _slice in range(60):
        run(bulk_update, seconds=0.6)
        bulk_update.refresh_from_db()
        if bulk_update.status == "stopped":
            break

    assert (bulk_update.status, bulk_update.stop_code) == ("stopped", "outage")
    assert len(sandbox.log) <= 100
    assert states(bulk_update) == {"waiting": 50}


def test_outage__ends_by_itself(sandbox: BlandSandbox, copied: Copied, started: Started) -> None:
    bulk_update = started(copied(60))
    sandbox.faults.add("*", "forever:500")
    run(bulk_update)
    bulk_update.refresh_from_db()
    cost, pauses = len(sandbox.log), []
    assert bulk_update.trying_again_at is not None
    assert bulk_update.outage_since is not None
    assert not waiting_updates().exists()
    assert run(bulk_update) is False
    assert len(sandbox.log) == cost

    for _ in range(4):  # one row tries, by one request
        assert bulk_update.not_before is not None
        pauses.append(bulk_update.not_before - timezone.now())
        BulkUpdate.objects.update(not_before=timezone.now())
        assert list(waiting_updates()) == [bulk_update]
        assert run(bulk_update) is False
        bulk_update.refresh_from_db()
        assert (bulk_update.status, bulk_update.stop_code) == ("stopped", "outage")
    assert len(sandbox.log) - cost <= 8
    assert cost <= 150
    assert pauses[3] > pauses[0] * 2

    sandbox.faults.clear()
    BulkUpdate.objects.update(not_before=timezone.now())
    assert run(bulk_update) is True

    bulk_update.refresh_from_db()
    assert states(bulk_update) == {"changed": 60}
    assert bulk_update.status == "finished"
    assert BulkUpdate.objects.get().outage_since is None


def test_outage__continue_now(sandbox: BlandSandbox, copied: Copied, started: Started) -> None:
    bulk_update = started(copied(30))
    sandbox.faults.add("*", "forever:500")
    run(bulk_update)
    sandbox.faults.clear()
    bulk_update.refresh_from_db()

    assert proceed(bulk_update) is True
    assert run(bulk_update) is True
    assert states(bulk_update) == {"changed": 30}


def test_prepare__throws_expired_drafts_away(copied: Copied) -> None:
    ids = copied(1)
    old = prepare(ids, False)
    BulkUpdate.objects.update(created_at=timezone.now() - timedelta(hours=2))
    prepare(ids, False)
    assert not BulkUpdate.objects.filter(pk=old.pk).exists()


def test_claim__cancelled_newer_items_supersede_nothing(
    sandbox: BlandSandbox, copied: Copied, started: Started
) -> None:
    ids = copied(1)
    older = started(ids)
    older.items.update(state="running", claimed_conversation=ids[0], previous_is_active=True)
    newer = started(ids, is_active=True)
    newer.items.update(state="cancelled")
    older.items.update(state="waiting", claimed_conversation=None)
    run(older)
    assert states(older) == {"changed": 1}
    assert Conversation.objects.get().is_active is False

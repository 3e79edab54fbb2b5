"""Cancel, continue, retry and undo; and all of it in any order."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import AbstractUser
from django.utils import timezone
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from bland_sms import updates
from bland_sms.models import BulkUpdate, BulkUpdateItem, Conversation
from bland_sms.sandbox import BlandSandbox
from bland_sms.signals import bulk_update_finished
from bland_sms.updates import (
    EmptySelectionError,
    cancel,
    driver,
    expire_drafts,
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


def expire_leases() -> None:
    BulkUpdate.objects.exclude(lease_until=None).update(lease_until=timezone.now())


# --- cancel -----------------------------------------------------------------------------------


def test_cancel__the_rest_is_not_asked(
    sandbox: BlandSandbox, copied: Copied, started: Started, staff: AbstractUser
) -> None:
    bulk_update = started(copied(5))
    assert cancel(bulk_update, staff) is True
    assert run(bulk_update) is True
    assert states(bulk_update) == {"cancelled": 5}
    assert bulk_update.status == "cancelled"
    assert bulk_update.counts_at_rest is None or bulk_update.counts_at_rest["cancelled"] == 5
    assert not sandbox.log
    assert LogEntry.objects.get().user == staff
    assert cancel(bulk_update, staff) is False


def test_cancel__while_it_runs(
    sandbox: BlandSandbox,
    copied: Copied,
    started: Started,
    monkeypatch: pytest.MonkeyPatch,
    set_bland: Any,
) -> None:
    set_bland(MAX_CONCURRENCY=2)
    sandbox.latency_seconds = 0.02
    bulk_update = started(copied(60))
    write = driver._Drive._write

    def cancel_then_write(self: Any, results: Any) -> None:
        write(self, results)
        cancel(BulkUpdate.objects.get(pk=bulk_update.pk))

    monkeypatch.setattr(driver._Drive, "_write", cancel_then_write)

    assert run(bulk_update) is True

    bulk_update.refresh_from_db()
    asked = len(sandbox.log)
    assert asked < 20
    assert states(bulk_update) == {"changed": asked, "cancelled": 60 - asked}
    assert (bulk_update.status, bulk_update.lease_token) == ("cancelled", None)
    assert bulk_update.counts_at_rest["changed"] == asked


def test_cancel__a_draft_is_thrown_away(copied: Copied) -> None:
    draft = prepare(copied(2), False)
    assert cancel(draft) is True
    assert not BulkUpdate.objects.exists()
    assert not BulkUpdateItem.objects.exists()


def test_expire_drafts__only_old_ones(copied: Copied, started: Started) -> None:
    ids = copied(2)
    old, young, running = prepare(ids, False), prepare(ids, False), started(ids)
    long_ago = timezone.now() - timedelta(hours=2)
    BulkUpdate.objects.filter(pk__in=[old.pk, running.pk]).update(created_at=long_ago)
    expire_drafts()
    assert set(BulkUpdate.objects.values_list("pk", flat=True)) == {young.pk, running.pk}
    assert BulkUpdateItem.objects.count() == 4


# --- continue and retry -----------------------------------------------------------------------


def test_proceed__after_the_key_was_replaced(
    sandbox: BlandSandbox, copied: Copied, started: Started, set_bland: Any
) -> None:
    bulk_update = started(copied(30))
    sandbox.api_key = "org_the_new_key_0000"
    run(bulk_update)
    bulk_update.refresh_from_db()
    assert (bulk_update.status, states(bulk_update)) == ("stopped", {"waiting": 30})
    assert run(bulk_update) is False

    set_bland(API_KEY=sandbox.api_key)
    assert proceed(bulk_update) is True
    assert run(bulk_update) is True

    bulk_update.refresh_from_db()
    assert (bulk_update.status, bulk_update.stop_code) == ("finished", "")
    assert states(bulk_update) == {"changed": 30}


def test_retry__only_failed_and_unknown_and_attempts_are_kept(
    sandbox: BlandSandbox, copied: Copied, started: Started
) -> None:
    ids = copied(3)
    sandbox.faults.add(ids[0], "400")
    sandbox.faults.add(f"PATCH {ids[1]}", *["hang_after:3"] * 3)
    sandbox.faults.add(f"GET {ids[1]}", "500")
    bulk_update = started(ids)
    run(bulk_update)
    assert states(bulk_update) == {"changed": 1, "failed": 1, "unknown": 1}
    sandbox.log.clear()

    assert retry(bulk_update) == 2
    assert run(bulk_update) is True

    assert states(bulk_update) == {"changed": 3}
    assert bulk_update.items.get(conversation_id=ids[0]).attempts == 2
    assert [seen["method"] for seen in sandbox.requests("", ids[1])] == ["GET"]
    assert not sandbox.requests("", ids[2])
    assert retry(bulk_update) == 0


def test_retry__superseded_meanwhile(
    sandbox: BlandSandbox, copied: Copied, started: Started
) -> None:
    ids = copied(1)
    sandbox.faults.add(ids[0], "400")
    older = started(ids)
    run(older)
    run(started(ids, is_active=True))
    sandbox.log.clear()
    assert retry(older) == 1
    assert run(older) is True
    assert not sandbox.log
    assert older.items.get().error_code == "superseded"


def test_finished_is_announced_again_after_a_retry(
    sandbox: BlandSandbox, copied: Copied, started: Started, django_capture_on_commit_callbacks: Any
) -> None:
    heard: list[dict[str, int]] = []

    def hear(sender: type, counts: dict[str, int], **arguments: Any) -> None:
        heard.append(counts)

    ids = copied(2)
    sandbox.faults.add(ids[0], "400")
    bulk_update_finished.connect(hear)
    try:
        with django_capture_on_commit_callbacks(execute=True):
            bulk_update = started(ids)
            run(bulk_update)
            retry(bulk_update)
            run(bulk_update)
    finally:
        bulk_update_finished.disconnect(hear)
    assert [counts["changed"] for counts in heard] == [1, 2]


# --- undo -------------------------------------------------------------------------------------


def test_undo__exactly_what_it_changed_and_nobody_changed_since(
    sandbox: BlandSandbox, copied: Copied, started: Started, staff: AbstractUser
) -> None:
    ids = copied(5)
    sandbox.account.set_active(ids[0], False)
    Conversation.objects.filter(pk=ids[0]).update(is_active=False)
    sandbox.faults.add(ids[1], "400")
    first = started(ids)
    run(first)  # 0 was so already, 1 failed; 2, 3, 4 are changed
    run(started([ids[2]], is_active=True))
    run(started([ids[2]]))  # changed since, though back at our value
    Conversation.objects.filter(pk=ids[3]).update(is_active=True)  # by somebody at Bland

    opposite = undo(first, staff)
    start(opposite)
    assert run(opposite) is True

    assert list(opposite.items.values_list("conversation_id", flat=True)) == [ids[4]]
    assert (opposite.is_active, opposite.undo_of_id) == (True, first.pk)
    alone = left_alone(opposite).values_list("conversation_id", flat=True)
    assert set(alone) == {ids[2], ids[3]}
    assert sandbox.account.rows[ids[4]]["is_active"] is True
    with pytest.raises(EmptySelectionError):
        undo(first, staff)


# --- all of it in any order -------------------------------------------------------------------

IDS = [f"conv_{number}" for number in range(2)]
FAULTS = ["400", "500", "404", "reset_after", "429", "not_applied", "401", "bad_json", "wrong_id"]


class KilledError(BaseException):
    """Stands for SIGKILL: nothing of ours catches it."""


class Ledger(RuleBasedStateMachine):
    """Start, claim, answer, kill, resume, cancel, retry, undo, second update."""

    sandbox: BlandSandbox

    @initialize()
    def begin(self) -> None:
        BulkUpdate.objects.all().delete()
        Conversation.objects.all().delete()
        self.sandbox.faults.clear()
        for pk in IDS:
            self.sandbox.account.add({"id": pk})
            Conversation.objects.create(pk=pk)

    def _any(self, data: st.DataObject) -> BulkUpdate | None:
        known = list(BulkUpdate.objects.order_by("pk"))
        return data.draw(st.sampled_from(known)) if known else None

    @rule(ids=st.lists(st.sampled_from(IDS), min_size=1, unique=True), is_active=st.booleans())
    def start_one(self, ids: list[str], is_active: bool) -> None:
        start(prepare(ids, is_active))

    @rule(pk=st.sampled_from(IDS), fault=st.sampled_from(FAULTS))
    def break_one(self, pk: str, fault: str) -> None:
        self.sandbox.faults.add(pk, fault)

    @rule(data=st.data())
    def carry_out(self, data: st.DataObject) -> None:
        bulk_update = self._any(data)
        if bulk_update is not None:
            run(bulk_update)

    @rule()
    def carry_out_the_newest(self) -> None:
        newest = BulkUpdate.objects.order_by("-pk").first()
        if newest is not None:
            run(newest)

    @rule(data=st.data(), where=st.sampled_from(["_collect", "_write", "_renew_lease", "_release"]))
    def kill(self, data: st.DataObject, where: str) -> None:
        bulk_update = self._any(data)
        if bulk_update is None:
            return

        def die(*args: Any) -> None:
            raise KilledError

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(driver._Drive, where, die)
            try:
                run(bulk_update)
            except KilledError:
                expire_leases()

    @rule(data=st.data(), decide=st.sampled_from([cancel, proceed, retry]))
    def decide(self, data: st.DataObject, decide: Callable[[BulkUpdate], Any]) -> None:
        bulk_update = self._any(data)
        if bulk_update is not None and bulk_update.status != "draft":
            decide(bulk_update)

    @rule(data=st.data())
    def take_back(self, data: st.DataObject) -> None:
        bulk_update = self._any(data)
        if bulk_update is not None and bulk_update.status in ("finished", "cancelled"):
            with suppress(EmptySelectionError):
                start(undo(bulk_update))

    @invariant()
    def claims_and_states_agree(self) -> None:
        for item in BulkUpdateItem.objects.all():
            assert (item.claimed_conversation is not None) == (item.state == "running")
            assert (item.finished_at is None) == (item.state in ("waiting", "running"))

    @invariant()
    def what_is_finished_has_nothing_open(self) -> None:
        finished = BulkUpdate.objects.filter(status="finished")
        assert not finished.filter(items__state__in=("waiting", "running")).exists()

    def teardown(self) -> None:
        self.sandbox.faults.clear()
        for bulk_update in BulkUpdate.objects.filter(status="stopped"):
            proceed(bulk_update)
        expire_leases()
        for _ in range(3):
            for bulk_update in waiting_updates():
                run(bulk_update)
        assert not BulkUpdateItem.objects.filter(state__in=("waiting", "running")).exists()
        for pk in IDS:
            self.bland_has_what_was_wanted_last(pk)

    def bland_has_what_was_wanted_last(self, pk: str) -> None:
        items = BulkUpdateItem.objects.filter(conversation_id=pk)
        if items.filter(state__in=("failed", "unknown")).exists():
            return  # an older wish may have come true after all
        done = items.filter(state__in=("changed", "unchanged"))
        last = done.order_by("-bulk_update__started_at").select_related("bulk_update").first()
        if last is not None:
            assert self.sandbox.account.rows[pk]["is_active"] is last.bulk_update.is_active
            assert Conversation.objects.get(pk=pk).is_active is last.bulk_update.is_active


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_ledger__any_order(sandbox: BlandSandbox) -> None:
    Ledger.sandbox = sandbox
    run_state_machine_as_test(
        Ledger,
        settings=settings(
            max_examples=50,
            stateful_step_count=15,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_updates__what_is_public() -> None:
    assert all(hasattr(updates, name) for name in updates.__all__)

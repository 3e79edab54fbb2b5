"""Cancel, continue, retry and undo; and all of it in any order."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import AbstractUser
from django.contrib.messages import get_messages
from django.core.management import CommandError, call_command
from django.db import OperationalError
from django.test import Client
from django.urls import reverse
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

from bland_sms import database, updates
from bland_sms.models import BulkUpdate, BulkUpdateItem, Conversation
from bland_sms.sandbox import BlandSandbox
from bland_sms.signals import bulk_update_finished
from bland_sms.updates import (
    EmptySelectionError,
    cancel,
    decisions,
    driver,
    expire_drafts,
    ledger,
    left_alone,
    prepare,
    proceed,
    retry,
    run,
    start,
    undo,
    waiting_updates,
)

UPDATES = "/bland-sms/api/v1/bulk-updates/"
pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("no_waiting")]
Copied = Callable[..., list[str]]
Started = Callable[..., BulkUpdate]


def states(bulk_update: BulkUpdate) -> dict[str, int]:
    return {state: number for state, number in bulk_update.counts().items() if number}


def expire_leases() -> None:
    BulkUpdate.objects.exclude(lease_until=None).update(lease_until=timezone.now())


# --- cancel -----------------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["interrupted", "no_answer"])
def test_cancel__of_what_was_in_flight_nobody_knows(
    code: str, sandbox: BlandSandbox, copied: Copied, started: Started
) -> None:
    ids = copied(5)
    bulk_update = started(ids)
    bulk_update.items.filter(conversation_id=ids[2]).update(
        error_code=code, attempts=1, previous_is_active=True
    )
    sandbox.account.set_active(ids[2], False)  # Bland carried it out; the answer was lost

    cancel(bulk_update)

    assert states(bulk_update) == {"cancelled": 4, "unknown": 1}
    assert bulk_update.items.get(state="unknown").error_code == "no_answer"
    retry(bulk_update)
    run(bulk_update)
    assert bulk_update.items.get(conversation_id=ids[2]).state == "changed"
    assert sandbox.requests("PATCH", ids[2]) == []


def test_cancel__the_rest_is_not_asked(
    sandbox: BlandSandbox, copied: Copied, started: Started, staff: AbstractUser
) -> None:
    bulk_update = started(copied(5))
    assert cancel(bulk_update, staff) is True
    assert run(bulk_update) is True
    assert states(bulk_update) == {"cancelled": 5}
    assert {repr(one.error_params) for one in bulk_update.items.all()} == {"{'by': 'dana'}"}
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
    assert driver.LOOK_SECONDS <= 0.4
    monkeypatch.setattr(driver, "LOOK_SECONDS", 0.02)
    sandbox.latency_seconds = 0.05
    bulk_update = started(copied(60))
    collect, cancelled = driver._Drive._collect, []

    def cancel_and_collect(self: Any, outcome: Any) -> None:
        if self.budget.answers >= 4 and not cancelled:
            cancelled.append(cancel(BulkUpdate.objects.get(pk=bulk_update.pk)))
        collect(self, outcome)

    monkeypatch.setattr(driver._Drive, "_collect", cancel_and_collect)

    assert run(bulk_update) is True

    bulk_update.refresh_from_db()
    asked = len(sandbox.log)
    assert asked < 60  # of 60 that were claimed
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
    sandbox.faults.add(f"PATCH {ids[1]}", *["close_after"] * 3)
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
    ids = copied(6)
    sandbox.account.set_active(ids[0], False)
    Conversation.objects.filter(pk=ids[0]).update(is_active=False)
    sandbox.faults.add(ids[1], "400")
    first = started(ids[:5])
    run(first)  # 0 was so already, 1 failed; 2, 3, 4 are changed
    run(started([ids[2]], is_active=True))
    run(started([ids[2]]))  # changed since, though back at our value
    Conversation.objects.filter(pk=ids[3]).update(is_active=True)  # by somebody at Bland

    run(started(ids[5:]))  # another update's: no part of this
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


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_ledger__any_order(sandbox: BlandSandbox) -> None:
    Ledger.sandbox = sandbox
    run_state_machine_as_test(
        Ledger,
        settings=settings(
            max_examples=50,
            stateful_step_count=15,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_updates__what_is_public() -> None:
    assert all(hasattr(updates, name) for name in updates.__all__)


# --- a database that is held up ---------------------------------------------------------------


def held_up(monkeypatch: pytest.MonkeyPatch, times: int) -> list[str]:
    """Let so many write transactions of decisions end as those that wait in vain for a lock."""
    calls: list[str] = []

    def locked(*args: Any, **kwargs: Any) -> Any:
        calls.append("")
        if len(calls) <= times:
            raise OperationalError("canceling statement due to lock timeout")
        return database.write_transaction(*args, **kwargs)

    monkeypatch.setattr(decisions, "write_transaction", locked)
    monkeypatch.setattr(ledger, "write_transaction", locked)
    return calls


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("decide", [cancel, proceed, retry])
def test_decision__waits_for_a_lock(
    decide: Callable[..., Any],
    copied: Copied,
    started: Started,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bulk_update = started(copied(2))
    if decide is not cancel:
        BulkUpdate.objects.filter(pk=bulk_update.pk).update(status="stopped", stop_code="outage")
        bulk_update.items.update(state="failed")
    calls = held_up(monkeypatch, 2)

    assert decide(bulk_update)
    assert len(calls) == 3


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("name", ["cancel", "retry", "run"])
@pytest.mark.parametrize("door", ["admin", "json", "api"])
def test_decision__door_tells_that_the_database_is_held_up(
    door: str,
    name: str,
    copied: Copied,
    started: Started,
    admin_client: Client,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bulk_update = started(copied(2))
    BulkUpdate.objects.filter(pk=bulk_update.pk).update(status="stopped", stop_code="outage")
    monkeypatch.setattr(database, "DECISION_PATIENCE_SECONDS", 0.3)
    held_up(monkeypatch, 1000)
    accept = {"Accept": "application/json"} if door == "json" else {}
    if door == "api":
        verb = "continue" if name == "run" else name
        url = f"{UPDATES}{bulk_update.pk}/{verb}/"
    else:
        url = reverse(f"admin:bland_sms_bulkupdate_{name}", args=[bulk_update.pk])

    answer = admin_client.post(url, headers=accept)

    if door == "admin":
        assert answer.status_code == 302
        told = [str(message) for message in get_messages(answer.wsgi_request)]
        assert "database is not available" in told[0]
    else:
        assert (answer.status_code, bool(answer["Retry-After"])) == (503, True)
    if door == "api":
        assert answer.json()["code"] == "database_unavailable"
    bulk_update.refresh_from_db()
    assert bulk_update.status == "stopped"


@pytest.mark.django_db(transaction=True)
def test_prepare_and_start__wait_for_a_lock(
    copied: Copied, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = copied(2)
    calls = held_up(monkeypatch, 2)

    draft = updates.prepare((name for name in ids), is_active=False)
    assert len(calls) == 3
    assert draft.items.count() == 2

    calls.clear()
    updates.start(draft)
    assert len(calls) == 3
    assert (draft.status, BulkUpdate.objects.count()) == ("queued", 1)


@pytest.mark.django_db(transaction=True)
def test_undo__waits_for_a_lock(
    copied: Copied, started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    bulk_update = started(copied(2))
    updates.run(bulk_update)
    calls = held_up(monkeypatch, 2)

    assert updates.undo(bulk_update).items.count() == 2
    assert len(calls) == 3


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("door", "times"),
    [
        ("action", "prepare"),
        ("action", "start"),
        ("button", "start"),
        ("confirm", "start"),
        ("undo", "prepare"),
        ("patch", "prepare"),
        ("post", "start"),
        ("command", "prepare"),
    ],
)
def test_update__door_tells_that_the_database_is_held_up(
    door: str,
    times: str,
    copied: Copied,
    started: Started,
    admin_client: Client,
    admin_user: AbstractUser,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ids = copied(3)
    undone = draft = None
    if door == "undo":
        undone = started(ids[:2])
        updates.run(undone)
    if door == "confirm":
        draft = updates.prepare(ids, False, admin_user, source="admin")
    monkeypatch.setattr(database, "DECISION_PATIENCE_SECONDS", 0.3)
    calls = held_up(monkeypatch, 1000)
    if times == "start" and draft is None:
        locked = ledger.write_transaction

        def draft_first(*args: Any, **kwargs: Any) -> Any:
            monkeypatch.setattr(ledger, "write_transaction", locked)
            return database.write_transaction(*args, **kwargs)

        monkeypatch.setattr(ledger, "write_transaction", draft_first)

    url = "admin:bland_sms_"
    if door == "command":
        with pytest.raises(CommandError, match="database is not available"):
            call_command("bland_sms_update", "--deactivate", *ids[:2])
        assert calls
        return
    if door == "patch":
        answer = admin_client.patch(
            f"/bland-sms/api/v1/conversations/{ids[0]}/",
            {"is_active": False},
            content_type="application/json",
        )
    elif door == "post":
        asked = {"is_active": False, "conversation_ids": ids[:2]}
        answer = admin_client.post(UPDATES, asked, content_type="application/json")
    elif door == "action":
        answer = admin_client.post(
            reverse(f"{url}conversation_changelist"),
            {"action": "deactivate_selected", "_selected_action": ids[:2]},
        )
    elif door == "button":
        answer = admin_client.post(reverse(f"{url}conversation_deactivate", args=[ids[0]]))
    elif door == "confirm":
        assert draft is not None
        answer = admin_client.post(reverse(f"{url}bulkupdate_confirm", args=[draft.pk]))
    else:
        assert undone is not None
        answer = admin_client.post(reverse(f"{url}bulkupdate_undo", args=[undone.pk]))

    assert calls
    if door in ("patch", "post"):
        assert (answer.status_code, bool(answer["Retry-After"])) == (503, True)
        assert answer.json()["code"] == "database_unavailable"
    else:
        assert answer.status_code == 302
        told = [str(message) for message in get_messages(answer.wsgi_request)]
        assert "database is not available" in told[0]

"""A model of the ledger: everything that can happen to it, in any order.

Whatever happens, in the end each item says what is true, nothing that is known to be done is asked
again, Bland and the mirror agree with the newest wish, and undo restores exactly what was changed.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from bland_sms.models import BulkUpdate, BulkUpdateItem, Conversation
from bland_sms.sandbox import BlandSandbox
from bland_sms.sync import refresh
from bland_sms.sync import run as sync
from bland_sms.updates import (
    EmptySelectionError,
    cancel,
    driver,
    prepare,
    proceed,
    retry,
    run,
    start,
    undo,
    waiting_updates,
)

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("no_waiting")]

KNOWN = [f"conv_{number}" for number in range(3)]
NEW = "conv_new"
IDS = [*KNOWN, NEW]
FAULTS = ["400", "500", "404", "reset_after", "429", "not_applied", "bad_json", "wrong_id"]
STEPS = ["_collect", "_write", "_renew_lease", "_release", "_submit"]


class KilledError(BaseException):
    """Stands for SIGKILL: from here on nothing works any more in that run."""


class Ledger(RuleBasedStateMachine):
    sandbox: BlandSandbox

    @initialize(active=st.lists(st.booleans(), min_size=4, max_size=4))
    def begin(self, active: list[bool]) -> None:
        BulkUpdate.objects.all().delete()
        Conversation.objects.all().delete()
        self.sandbox.faults.clear()
        self.sandbox.account.rows.clear()
        self.sandbox.log.clear()
        self.shift = timedelta(0)
        self.had_faults = False
        for pk, is_active in zip(IDS, active, strict=True):
            self.sandbox.account.add({"id": pk, "is_active": is_active})
        for pk in KNOWN:
            refresh(pk)
        self.settled: dict[int, tuple[str, bool | None]] = {}

    def _any(self, data: st.DataObject) -> BulkUpdate | None:
        known = list(BulkUpdate.objects.order_by("pk"))
        return data.draw(st.sampled_from(known)) if known else None

    # --- what happens -------------------------------------------------------------------------

    @rule(ids=st.lists(st.sampled_from(IDS), min_size=1, unique=True), is_active=st.booleans())
    def start_one(self, ids: list[str], is_active: bool) -> None:
        start(prepare(ids, is_active))

    @rule(ids=st.lists(st.sampled_from(IDS), min_size=1, unique=True), is_active=st.booleans())
    def draft_one(self, ids: list[str], is_active: bool) -> None:
        prepare(ids, is_active)

    @rule(pk=st.sampled_from(IDS), fault=st.sampled_from(FAULTS))
    def break_one(self, pk: str, fault: str) -> None:
        self.had_faults = True
        self.sandbox.faults.add(pk, fault)

    @rule(data=st.data())
    def carry_out(self, data: st.DataObject) -> None:
        bulk_update = self._any(data)
        if bulk_update is not None:
            run(bulk_update)

    @rule(data=st.data(), where=st.sampled_from(STEPS), call=st.integers(1, 3))
    def crash(self, data: st.DataObject, where: str, call: int) -> None:
        """Its process is killed in the middle; its lease ends later."""
        bulk_update = self._any(data)
        if bulk_update is None:
            return
        calls: list[int] = []
        step = getattr(driver._Drive, where)

        def die(drive: Any, *args: Any) -> Any:
            calls.append(1)
            if len(calls) < call:
                return step(drive, *args)
            drive._finish_in_order = die_again
            raise KilledError

        def die_again() -> None:
            raise KilledError

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(driver._Drive, where, die)
            with suppress(KilledError):
                run(bulk_update)

    @rule()
    def leases_end(self) -> None:
        BulkUpdate.objects.exclude(lease_until=None).update(lease_until=timezone.now())

    @rule(hours=st.integers(1, 5))
    def another_machine_was_ahead(self, hours: int) -> None:
        """What it wrote ends far in the future: nobody waits for that."""
        ahead = timezone.now() + timedelta(hours=hours)
        BulkUpdate.objects.exclude(lease_until=None).update(lease_until=ahead)

    @rule(pk=st.sampled_from(IDS))
    def look(self, pk: str) -> None:
        """A refresh, or a webhook."""
        with suppress(Exception):
            refresh(pk)

    @rule()
    def copy_all(self) -> None:
        self.sandbox.faults._faults.pop("list", None)
        sync()

    @rule(data=st.data(), decide=st.sampled_from([cancel, proceed, retry]))
    def decide(self, data: st.DataObject, decide: Callable[[BulkUpdate], Any]) -> None:
        bulk_update = self._any(data)
        if bulk_update is not None and bulk_update.status != "draft":
            decide(bulk_update)

    @rule(data=st.data(), seen=st.lists(st.sampled_from(IDS), min_size=1, unique=True))
    def cancel_some(self, data: st.DataObject, seen: list[str]) -> None:
        """By a person who sees only some of the conversations, whoever has claimed them."""
        bulk_update = self._any(data)
        if bulk_update is not None and bulk_update.status != "draft":
            cancel(bulk_update, visible=Conversation.objects.filter(pk__in=seen))

    @rule(data=st.data())
    def take_back(self, data: st.DataObject) -> None:
        bulk_update = self._any(data)
        if bulk_update is None or bulk_update.status not in ("finished", "cancelled"):
            return
        with suppress(EmptySelectionError):
            opposite = undo(bulk_update)
            changed = bulk_update.items.filter(state="changed")
            of_undo = set(opposite.items.values_list("conversation_id", flat=True))
            assert of_undo <= set(changed.values_list("conversation_id", flat=True))
            start(opposite)

    @rule()
    @precondition(lambda self: not self.had_faults)
    def undo_restores(self) -> None:
        """With nobody in between: all rows as they were, and nothing else touched."""
        self.wind_down()
        before = {pk: row["is_active"] for pk, row in self.sandbox.account.rows.items()}
        forth = prepare(IDS, False)
        start(forth)
        assert run(forth)
        with suppress(EmptySelectionError):
            back = undo(forth)
            start(back)
            assert run(back)
        assert before == {pk: row["is_active"] for pk, row in self.sandbox.account.rows.items()}

    # --- what is always true ------------------------------------------------------------------

    @invariant()
    def claims_and_states_agree(self) -> None:
        for item in BulkUpdateItem.objects.all():
            assert (item.claimed_conversation is not None) == (item.state == "running")
            assert (item.finished_at is None) == (item.state in ("waiting", "running"))

    @invariant()
    def what_is_finished_has_nothing_open(self) -> None:
        finished = BulkUpdate.objects.filter(status="finished")
        assert not finished.filter(items__state__in=("waiting", "running")).exists()

    @invariant()
    def what_was_done_stays_done(self) -> None:
        """Settled as changed or unchanged: for good, and by what the row held before."""
        for item in BulkUpdateItem.objects.filter(state__in=("changed", "unchanged")):
            told = (item.state, item.previous_is_active)
            assert self.settled.setdefault(item.pk, told) == told
            if item.previous_is_active is not None:
                asked = item.bulk_update.is_active
                assert (item.state == "unchanged") == (item.previous_is_active is asked)

    @invariant()
    def what_is_called_back_does_not_wait_to_be_asked(self) -> None:
        waiting = BulkUpdateItem.objects.filter(state="waiting")
        assert not waiting.filter(error_params__isnull=False).exists()

    @invariant()
    def nothing_is_asked_again_that_is_known_to_be_done(self) -> None:
        """Without faults and crashes each item costs one update at the most."""
        if not self.had_faults:
            for item in BulkUpdateItem.objects.filter(state__in=("changed", "unchanged")):
                assert item.attempts <= 1

    # --- the end ------------------------------------------------------------------------------

    def wind_down(self) -> None:
        self.sandbox.faults.clear()
        for bulk_update in BulkUpdate.objects.filter(status="stopped"):
            proceed(bulk_update)
        self.leases_end()
        for _ in range(3):
            for bulk_update in waiting_updates():
                run(bulk_update)
        left = BulkUpdateItem.objects.filter(state__in=("waiting", "running"))
        assert not left.exclude(bulk_update__status="draft").exists()

    def teardown(self) -> None:
        if not hasattr(self, "settled"):
            return
        self.wind_down()
        self.claims_and_states_agree()
        self.what_was_done_stays_done()
        for pk in IDS:
            items = BulkUpdateItem.objects.filter(conversation_id=pk)
            if items.filter(state__in=("failed", "unknown")).exists():
                continue  # an older wish may have come true after all
            done = items.filter(state__in=("changed", "unchanged"))
            last = done.order_by("-bulk_update__started_at").select_related("bulk_update").first()
            if last is not None:
                assert self.sandbox.account.rows[pk]["is_active"] is last.bulk_update.is_active
                assert Conversation.objects.get(pk=pk).is_active is last.bulk_update.is_active


@pytest.mark.slow
def test_ledger__model(sandbox: BlandSandbox) -> None:
    Ledger.sandbox = sandbox
    run_state_machine_as_test(
        Ledger,
        settings=settings(
            max_examples=40,
            stateful_step_count=20,
            suppress_health_check=list(HealthCheck),
        ),
    )

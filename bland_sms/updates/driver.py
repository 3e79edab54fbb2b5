"""Carries an update out: one process drives it by a lease, threads ask, this thread writes.

What is claimed but not written yet is never more than twice the number of threads: that is what
a killed process leaves to be looked at.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from datetime import timedelta
from typing import TypeVar

from django.contrib.auth import get_user_model
from django.db import (
    DatabaseError,
    IntegrityError,
    router,
    transaction,
)
from django.db.models import Exists, F, OuterRef, Q, QuerySet
from django.utils import timezone
from django.utils.translation import gettext_noop

from .. import sentences
from ..client import BlandClient, get_client
from ..exceptions import BlandConfigurationError, BlandError
from ..mirror import mark_missing, write_in_halves
from ..models import OPEN_STATES, BulkUpdate, BulkUpdateItem, Conversation
from ..pacing import Allowance, RetryBudget
from ..transactions import patiently, refuse_in_transaction
from .asking import LOOK_FIRST_CODES, Result, Task, Verdict, ask, confirm_missing
from .items import (
    cancel_items,
    come_to_rest,
    finish_if_done,
    put_back,
    release_dead_claims,
)
from .recording import record

logger = logging.getLogger("bland_sms.updates")

State = BulkUpdateItem.State
Status = BulkUpdate.Status

LEASE = timedelta(seconds=15)
FLUSH_SECONDS = 0.2
"""Results wait no longer than this to be written."""
FIRST_ANSWERS = 20
"""So many first answers that all say CONVERSATION_NOT_FOUND mean the wrong account's key."""
LAST_SEND_SHARE, LAST_SEND_SECONDS = 0.2, 2.0
"""A run with a time limit sends nothing in its last fifth, two seconds at the most: an answer
that comes too late would leave its item in doubt."""

Value = TypeVar("Value")


class LostLeaseError(Exception):
    """Another process has taken the update over; it looks at what we had in flight."""


def run(
    bulk_update: BulkUpdate,
    seconds: float | None = None,
    *,
    stopped: threading.Event | None = None,
) -> bool:
    """Carry out a started update: the only function that asks Bland to change anything.

    Safe to call at any time, by any number of processes, after any crash: a second call for an
    update that somebody drives returns at once.

    Args:
        seconds: For a web request; what is left over stays queued. ``None``: to the end.
        stopped: Once set nothing new is asked; what is in flight is awaited and written.

    Returns:
        True when nothing of the update is open any more.

    Raises:
        RuntimeError: called inside a database transaction.
    """
    refuse_in_transaction()
    release_dead_claims()
    token = _take_lease(bulk_update.pk)
    if token is not None:
        # Whatever of it is still marked as running belongs to a process that died.
        put_back(bulk_update.items.filter(state=State.RUNNING))
        bulk_update = BulkUpdate.objects.select_related("requested_by").get(pk=bulk_update.pk)
        _Drive(bulk_update, token, seconds, stopped).go()
    return not BulkUpdateItem.objects.filter(
        bulk_update=bulk_update, state__in=OPEN_STATES
    ).exists()


def _take_lease(bulk_update_id: int) -> uuid.UUID | None:
    now, token = timezone.now(), uuid.uuid4()
    taken = BulkUpdate.objects.filter(
        Q(lease_until__isnull=True) | Q(lease_until__lte=now),
        pk=bulk_update_id,
        status__in=(Status.QUEUED, Status.RUNNING),
    ).update(status=Status.RUNNING, lease_token=token, lease_until=now + LEASE)
    return token if taken else None


class _Drive:
    """One run of one update."""

    def __init__(
        self,
        bulk_update: BulkUpdate,
        token: uuid.UUID,
        seconds: float | None,
        stopped: threading.Event | None,
    ) -> None:
        self.update = bulk_update
        self.token = token
        self.stopped = stopped or threading.Event()
        self.using = router.db_for_write(BulkUpdateItem)
        self.budget = RetryBudget()
        self.allowance = _allowance(seconds, self.budget)
        self.futures: set[Future[Result]] = set()
        self.results: list[Result] = []
        """Settled, to be written."""
        self.doubtful: list[Result] = []
        """Unknown, unless this turns out to be an outage: then they were not attempted."""
        self.not_found: list[Result] = []
        """First answers, all CONVERSATION_NOT_FOUND: perhaps this is the wrong account."""
        self.is_right_account = self.items.filter(http_status=200).exists()
        self.stop_code = self.stop_message = ""
        self.flushed_at = self.renewed_at = time.monotonic()

    @property
    def items(self) -> QuerySet[BulkUpdateItem]:
        return BulkUpdateItem.objects.filter(bulk_update_id=self.update.pk)

    def go(self) -> None:
        refusal = _refusal(self.update)
        try:
            if refusal:
                self._stop("not_permitted", refusal)
            else:
                self._drive(get_client())
        except BlandConfigurationError as error:
            self._stop(error.code, str(error))
        except LostLeaseError:
            logger.warning("update %s: another process has taken over", self.update.pk)
            return
        except (KeyboardInterrupt, SystemExit):
            # Nothing new was sent since; what was in flight has answered and is written.
            self._close()
            raise
        self._close()

    # --- asking -------------------------------------------------------------------------------

    def _drive(self, client: BlandClient) -> None:
        workers = client.settings.max_concurrency
        with ThreadPoolExecutor(workers, "bland_sms") as pool:
            try:
                while self._turn(client, pool, workers):
                    pass
            except (KeyboardInterrupt, SystemExit):
                self.allowance.stopped.set()
                while self._turn(client, pool, workers):
                    pass
                raise
            finally:
                # However this ends, nothing that was not sent yet is sent now.
                self.allowance.stopped.set()

    def _turn(self, client: BlandClient, pool: ThreadPoolExecutor, workers: int) -> bool:
        """Claim, collect, write; False when there is nothing left to do."""
        if self.stopped.is_set():
            self.allowance.stopped.set()
        room = 2 * workers - len(self.futures) - len(self.results)
        due_later = False
        if not self.stop_code and self.allowance.may_pause(0) and room >= max(1, workers // 2):
            tasks = patiently(lambda: self._claim(room))
            for task in tasks:
                self._submit(pool, ask, client, task)
            due_later = not tasks and not self.futures and self._waits_for_another()
        if not self.futures:
            if self.not_found and not self.stop_code:
                self._look_for_missing(client, pool)
                return True
            self._flush()
            return due_later and self.allowance.pause(FLUSH_SECONDS)
        done, self.futures = wait(self.futures, FLUSH_SECONDS, FIRST_COMPLETED)
        for future in done:
            self._collect(future.result())
        if self.is_right_account and self.not_found:
            self._look_for_missing(client, pool)
        is_time = time.monotonic() - self.flushed_at >= FLUSH_SECONDS
        if len(self.results) >= max(1, workers // 2) or is_time:
            self._flush()
        return True

    def _submit(
        self,
        pool: ThreadPoolExecutor,
        function: Callable[[BlandClient, Value, Allowance], Result],
        client: BlandClient,
        what: Value,
    ) -> None:
        allowance = Allowance(
            deadline=self.allowance.deadline,
            send_until=self.allowance.send_until,
            budget=self.budget,
            stopped=self.allowance.stopped,
        )
        self.futures.add(pool.submit(function, client, what, allowance))

    def _collect(self, result: Result) -> None:
        """Sort one result; what Bland says of one row may tell something of all."""
        if result.stop is not None:
            self._stop(result.stop.code, _stop_message(result.stop))
        elif result.is_outage:
            self._stop("outage", gettext_noop("Bland does not answer."))
        if result.verdict is Verdict.NOT_FOUND and not self.is_right_account:
            self.not_found.append(result)
            if len(self.not_found) >= FIRST_ANSWERS:
                self._stop(
                    "wrong_account",
                    sentences.WRONG_ACCOUNT % {"number": FIRST_ANSWERS},
                )
        elif result.verdict is Verdict.NOT_FOUND:
            self.not_found.append(result)
        elif result.verdict is Verdict.UNKNOWN:
            self.doubtful.append(result)
        else:
            self.results.append(result)
            if result.http_status is not None and result.verdict is not Verdict.WAITING:
                self.is_right_account = True
                self.results += self.doubtful
                self.doubtful = []

    def _look_for_missing(self, client: BlandClient, pool: ThreadPoolExecutor) -> None:
        for result in self.not_found:
            self._submit(pool, confirm_missing, client, result)
        self.not_found = []

    def _stop(self, code: str, message: str) -> None:
        if not self.stop_code:
            self.stop_code, self.stop_message = code, message
            self.allowance.stopped.set()
            logger.warning("update %s stopped: %s", self.update.pk, code)

    # --- claiming -----------------------------------------------------------------------------

    def _claimable(self) -> QuerySet[BulkUpdateItem]:
        now = timezone.now()
        return self.items.filter(
            Q(not_before__isnull=True) | Q(not_before__lte=now), state=State.WAITING
        )

    def _claim(self, number: int) -> list[Task]:
        """Take items; nobody else can take them while our lease lives."""
        in_flight = BulkUpdateItem.objects.filter(claimed_conversation=OuterRef("conversation_id"))
        waiting = self._claimable().filter(~Exists(in_flight)).order_by("pk")
        candidates = {item.pk: item for item in waiting[:number]}
        for item_id in self._cancel_superseded(candidates):
            del candidates[item_id]
        if not candidates:
            return []
        try:
            claimed = self._mark_running(list(candidates))
        except IntegrityError:
            # One of the conversations came into flight in another update just now.
            claimed = [item_id for item_id in candidates if self._mark_running_alone(item_id)]
        return self._tasks([candidates[item_id] for item_id in claimed])

    def _tasks(self, items: Sequence[BulkUpdateItem]) -> list[Task]:
        known = {
            pk: (is_active, updated_at)
            for pk, is_active, updated_at in Conversation.objects.filter(
                pk__in=[item.conversation_id for item in items]
            ).values_list("pk", "is_active", "updated_at")
        }
        tasks = []
        for item in items:
            is_active, updated_at = known.get(item.conversation_id, (None, None))
            tasks.append(
                Task(
                    item_id=item.pk,
                    conversation_id=item.conversation_id,
                    is_active=self.update.is_active,
                    attempts=item.attempts,
                    look_first=item.error_code in LOOK_FIRST_CODES,
                    known_is_active=is_active,
                    known_updated_at=updated_at,
                )
            )
        return tasks

    def _mark_running(self, item_ids: Sequence[int]) -> Sequence[int]:
        """Which of the items are ours now. Raises IntegrityError, LostLeaseError."""
        ours = BulkUpdate.objects.filter(pk=OuterRef("bulk_update_id"), lease_token=self.token)
        mine = self.items.filter(pk__in=item_ids)
        with transaction.atomic(using=self.using):
            number = mine.filter(Exists(ours), state=State.WAITING).update(
                state=State.RUNNING, claimed_conversation=F("conversation_id"), not_before=None
            )
        if number == len(item_ids):
            return item_ids
        self._renew_lease()  # was it lost? If not, somebody cancelled some of them just now
        return list(mine.filter(state=State.RUNNING).values_list("pk", flat=True))

    def _mark_running_alone(self, item_id: int) -> bool:
        try:
            return bool(self._mark_running([item_id]))
        except IntegrityError:
            return False  # it is waited for

    def _cancel_superseded(self, candidates: dict[int, BulkUpdateItem]) -> list[int]:
        """Cancel items whose conversation somebody has asked the opposite for since."""
        newer = (
            BulkUpdateItem.objects.filter(
                conversation_id__in=[item.conversation_id for item in candidates.values()],
                bulk_update__is_active=not self.update.is_active,
                bulk_update__started_at__gt=self.update.started_at,
            )
            .exclude(state=State.CANCELLED)
            .values_list("conversation_id", flat=True)
        )
        asked = set(newer)
        superseded = [pk for pk, item in candidates.items() if item.conversation_id in asked]
        cancel_items(superseded, "superseded", "")
        return superseded

    def _waits_for_another(self) -> bool:
        """Whether what is left is in flight in another update, which takes a moment."""
        if not self._claimable().exists():
            return False
        release_dead_claims()
        return True

    def _renew_lease(self) -> None:
        """Raises LostLeaseError: another process has taken over."""
        ours = BulkUpdate.objects.filter(pk=self.update.pk, lease_token=self.token)
        lease = {"lease_until": timezone.now() + LEASE}
        if not ours.filter(status=Status.RUNNING).update(**lease):
            self.allowance.stopped.set()
            # Cancelled, perhaps: then what is in flight is still ours to write.
            if not ours.update(**lease):
                raise LostLeaseError
        self.renewed_at = time.monotonic()

    # --- writing ------------------------------------------------------------------------------

    def _flush(self) -> None:
        """Write what is settled: items and rows of a batch in one transaction."""
        self.flushed_at = time.monotonic()
        results, self.results = self.results, []
        if results:
            patiently(lambda: write_in_halves(results, self._write, self._write_poison))
        elif time.monotonic() - self.renewed_at > LEASE.total_seconds() / 3:
            patiently(self._renew_lease)

    def _write(self, results: Sequence[Result]) -> None:
        with transaction.atomic(using=self.using):
            self._renew_lease()  # first: it takes the lock that keeps everybody else out
            record(self.update, results)
        for result in results:
            if result.missing_at is not None:
                mark_missing(result.task.conversation_id, result.missing_at)

    def _write_poison(self, result: Result, error: DatabaseError) -> None:
        """The database refuses this one row whatever we do: the item says so, alone."""
        result.payloads = []
        result.verdict, result.error_code = Verdict.FAILED, "not_stored"
        result.message = sentences.ROW_REFUSED % {"error": error}
        self._write([result])

    def _close(self) -> None:
        """Settle what was held back, and say how the update stands."""
        unsettled = self.doubtful + self.not_found
        self.doubtful, self.not_found = [], []
        for result in unsettled:
            if self.stop_code or result.verdict is Verdict.NOT_FOUND:
                result.verdict, result.error_code = Verdict.WAITING, ""
        self.results += unsettled
        try:
            self._flush()
            patiently(self._release)
        except LostLeaseError:
            return

    def _release(self) -> None:
        """Give the lease back and say how the update stands."""
        free: dict[str, object] = {"lease_token": None, "lease_until": None}
        ours = BulkUpdate.objects.filter(pk=self.update.pk, lease_token=self.token)
        with transaction.atomic(using=self.using):
            if self.stop_code:
                stop = {
                    "status": Status.STOPPED,
                    "stop_code": self.stop_code[:64],
                    "stop_message": self.stop_message[:500],
                }
                came_to_rest = ours.filter(status=Status.RUNNING).update(**free, **stop)
            else:
                ours.filter(status=Status.RUNNING).update(**free, status=Status.QUEUED)
                came_to_rest = 0
            if ours.filter(status=Status.CANCELLED).update(**free):
                unsent = self.items.filter(state=State.WAITING).values_list("pk", flat=True)
                cancel_items(list(unsent), "cancelled", "")
                came_to_rest = 1
            if not finish_if_done(self.update.pk) and came_to_rest:
                come_to_rest(self.update.pk)


def _allowance(seconds: float | None, budget: RetryBudget) -> Allowance:
    if seconds is None:
        return Allowance(budget=budget)
    now = time.monotonic()
    margin = min(seconds * LAST_SEND_SHARE, LAST_SEND_SECONDS)
    return Allowance(deadline=now + seconds, send_until=now + seconds - margin, budget=budget)


def _refusal(bulk_update: BulkUpdate) -> str:
    """Why its requester may not do this any more, or ``""``: checked again when a run begins."""
    user = bulk_update.requested_by
    if user is None:
        if bulk_update.requested_by_name and bulk_update.source != BulkUpdate.Source.COMMAND:
            return sentences.NO_ACCOUNT % {"who": bulk_update.requested_by_name}
        return ""
    fresh = get_user_model()._default_manager.get(pk=user.pk)
    if not fresh.is_active:
        return sentences.NOT_ACTIVE % {"who": bulk_update.requested_by_name}
    if not fresh.has_perm(bulk_update.permission):
        return sentences.NO_PERMISSION % {
            "who": bulk_update.requested_by_name,
            "permission": bulk_update.permission,
        }
    return ""


def _stop_message(error: BlandError) -> str:
    if error.status_code == 401:
        return gettext_noop("Bland refused the key (401).")
    if error.status_code == 403:
        words = getattr(error, "message", "")
        if words:
            return sentences.ACCOUNT_REFUSED % {"words": words}
        return gettext_noop("Bland refuses this account (403).")
    if error.status_code == 404:
        return gettext_noop("Bland has no such address (404): check BLAND_SMS['BASE_URL'].")
    return f"{error}."

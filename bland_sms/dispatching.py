"""Decides who carries work out: this process, a worker behind the host's queue, or none yet."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Literal

from django.db.models import Min, Q
from django.utils import timezone
from django.utils.module_loading import import_string

from . import updates
from .conf import get_settings
from .database import after_commit, patiently
from .models import BulkUpdate, BulkUpdateItem

logger = logging.getLogger("bland_sms.dispatching")

Status = BulkUpdate.Status
Kind = Literal["update", "delivery"]
Driver = Literal["done", "worker", "none"]
ItemState = BulkUpdateItem.State

ABANDONED_AFTER = timedelta(minutes=2)
"""How long a worker that was asked for may take to begin."""
WAIT_SECONDS = 15.0
"""A task that can do nothing yet waits no longer than this; then other tasks have their turn."""
LOOK_SECONDS = 0.5
"""Between two looks of a task that waits."""
MOST_OTHERS = 50
"""Updates that the end of a task looks after."""
FEWEST = timedelta(seconds=1)
"""A task that fails so soon after it was asked for is not handed on."""


class UnfinishedError(RuntimeError):
    """Items of an update are open, and there is no process to carry them out."""


# --- finding a worker -------------------------------------------------------------------------


def find_worker(kind: Kind, pk: int) -> bool:
    """Ask ``DISPATCH`` for another process; whether there is one.

    A queue that is down loses no work: it is in the database already.
    """
    was_dispatching, _turn.is_dispatching = _turn.is_dispatching, True
    _turn.was_called = False
    try:
        # A host's function that returns None has found one.
        is_taken = import_string(get_settings().dispatch)(kind, pk) is not False
    except Exception:
        logger.exception("%s %s could not be dispatched", kind, pk)
        return False
    finally:
        _turn.is_dispatching = was_dispatching
    # A queue that carries tasks out at once, within the call, has found only ourselves.
    return is_taken and not _turn.was_called


def carry_out(
    bulk_update: BulkUpdate,
    tell: Callable[[BulkUpdate], None] = lambda bulk_update: None,
    *,
    or_here: bool = False,
) -> None:
    """Start to carry a queued update out, and call ``tell`` with it.

    Up to ``INLINE_LIMIT`` open items are carried out here and now, for at most
    ``INLINE_SECONDS``; more of them, and what is left over, are handed to ``DISPATCH``. At once, or
    after commit where a transaction is open.

    Args:
        tell: Called with the update after that.
        or_here: Where ``DISPATCH`` finds no worker, begin with a larger one here as well.
    """

    def go() -> None:
        settings = get_settings()
        open_items = bulk_update.items.filter(state__in=ItemState.OPEN)
        is_small = open_items[: settings.inline_limit + 1].count() <= settings.inline_limit
        if is_small:
            try:
                updates.run(bulk_update, seconds=settings.inline_seconds)
            except BaseException:  # such as the time limit of the web server
                hand_on_what_is_left(bulk_update)
                raise
        bulk_update.refresh_from_db()
        if bulk_update.status == Status.QUEUED or bulk_update.trying_again_at is not None:
            hand_over(bulk_update)
            if or_here and not is_small and bulk_update.dispatched_at is None:
                updates.run(bulk_update, seconds=settings.inline_seconds)
                bulk_update.refresh_from_db()
        tell(bulk_update)

    after_commit(go)


def hand_over(bulk_update: BulkUpdate) -> bool:
    """Ask ``DISPATCH`` for a worker for the update, and remember whether there is one."""
    rows = BulkUpdate.objects.filter(pk=bulk_update.pk)
    # Written first: the worker may begin, and hand on, before DISPATCH returns.
    bulk_update.dispatched_at = timezone.now()
    rows.update(dispatched_at=bulk_update.dispatched_at)
    if find_worker("update", bulk_update.pk):
        return True
    rows.filter(dispatched_at=bulk_update.dispatched_at).update(dispatched_at=None)
    bulk_update.dispatched_at = None
    return False


def driver_of(bulk_update: BulkUpdate) -> Driver:
    """Who carries out the rest.

    A worker that was asked for is given two minutes to begin. One that has begun shows that it
    lives by its lease, and is gone as soon as that lapses.
    """
    if bulk_update.status in Status.AT_REST:
        return "done"
    if bulk_update.has_live_lease:
        return "worker"
    asked_at = bulk_update.dispatched_at
    if asked_at is None or not _goes_on(bulk_update):
        return "none"
    if stopped_at(bulk_update) is not None:
        return "none"
    expected_at = max(asked_at, due_at(bulk_update) or asked_at)
    return "worker" if timezone.now() - expected_at < ABANDONED_AFTER else "none"


def is_paused(bulk_update: BulkUpdate) -> bool:
    """Whether no process carries it out, as far as its own row tells: :func:`driver_of` without a
    query, for lists."""
    if bulk_update.status not in Status.OPEN or bulk_update.has_live_lease:
        return False
    return bulk_update.dispatched_at is None or stopped_at(bulk_update) is not None


def stopped_at(bulk_update: BulkUpdate) -> datetime | None:
    """When the worker that carried the update out stopped before its end, and none has been
    asked since; ``None``: no worker was lost."""
    until, asked_at = bulk_update.lease_until, bulk_update.dispatched_at
    if bulk_update.status not in Status.OPEN or until is None or bulk_update.has_live_lease:
        return None
    return until if asked_at is None or asked_at <= until else None


def due_at(bulk_update: BulkUpdate) -> datetime | None:
    """When there is something to do again; ``None``: now, or never."""
    due = _due(bulk_update)
    return due if due is not None and due > timezone.now() else None


def _due(bulk_update: BulkUpdate) -> datetime | None:
    """When its first item is or was due; ``None``: it has no time."""
    waiting = bulk_update.items.filter(state__in=ItemState.OPEN)
    if waiting.filter(not_before__isnull=True).exists():
        return bulk_update.not_before
    due = waiting.aggregate(due=Min("not_before"))["due"], bulk_update.not_before
    return max(filter(None, due), default=None)


# --- a worker's turn --------------------------------------------------------------------------


class _Turn(threading.local):
    """What this thread does at the moment."""

    is_on = False
    """A share of an update."""
    is_dispatching = False
    """It calls ``DISPATCH``."""
    was_called = False
    """It was called back by ``DISPATCH`` within that call."""


_turn = _Turn()


def is_called_by_dispatch() -> bool:
    """Whether ``DISPATCH`` carries tasks out within its call, so that it must not wait here."""
    return _turn.is_dispatching


def take_turn(bulk_update: BulkUpdate) -> None:
    """A background task's share of an update: ``WORK_SECONDS`` of it, then the queue has it again.

    Where another process holds the update by its lease, this one waits: it goes on when the lease
    lapses, and returns when the lease is renewed, since then the other process lives. Where there
    is nothing to do yet, it waits for a while and then gives its place in the queue to others.

    Raises:
        UnfinishedError: nothing can be done now, and ``DISPATCH`` finds no worker for later.
        RuntimeError: called inside a database transaction.
    """
    if _turn.is_on:
        # DISPATCH carries tasks out within its call: its caller goes on by itself.
        _turn.was_called = True
        return
    _turn.is_on = True
    try:
        while is_left := _go_on(bulk_update):
            if hand_over(bulk_update):
                break
            _refuse_to_wait_alone(bulk_update)
        _look_after_others(bulk_update, is_over=not is_left)
    except UnfinishedError:
        raise
    except BaseException as error:
        # A time limit, a second SIGTERM: what is left must be handed on at once.
        hand_on_what_is_left(bulk_update, may_be_ours=isinstance(error, Exception))
        raise
    finally:
        _turn.is_on = _turn.was_called = False


def _go_on(bulk_update: BulkUpdate) -> bool:
    """Carry it out, or wait; whether something is left then that no other process has."""
    give_up_at = time.monotonic() + get_settings().work_seconds
    while _is_open(bulk_update):
        left = give_up_at - time.monotonic()
        if left <= 0:
            return True
        if bulk_update.has_live_lease:
            if _is_renewed(bulk_update, give_up_at):
                return False
        elif due_at(bulk_update) is not None:
            if _is_cared_for(bulk_update):
                return False
            asked_at = bulk_update.dispatched_at
            if not _wait_until_due(bulk_update, min(left, WAIT_SECONDS)):
                return bulk_update.dispatched_at == asked_at
        elif not updates.run(bulk_update, seconds=left):
            time.sleep(min(LOOK_SECONDS, max(0.0, give_up_at - time.monotonic())))
    return False


def hand_on_what_is_left(bulk_update: BulkUpdate, *, may_be_ours: bool = False) -> None:
    """For a driver that ends before its time: what it leaves must not wait to be noticed.

    Args:
        may_be_ours: An error ends it that may come again at once, and would go round in circles.
    """
    try:
        if _is_open(bulk_update):
            asked_at = bulk_update.dispatched_at
            if may_be_ours and asked_at is not None and timezone.now() - asked_at < FEWEST:
                return
            hand_over(bulk_update)
    except Exception:
        # Whatever ends the driver must not be hidden by this.
        logger.exception("update %s could not be handed on", bulk_update.pk)


def _refuse_to_wait_alone(bulk_update: BulkUpdate) -> None:
    """Without a worker, go on only with an update that can be carried out now."""
    if due_at(bulk_update) is not None:
        raise UnfinishedError(f"update {bulk_update.pk} waits, and DISPATCH finds no worker")


def _is_open(bulk_update: BulkUpdate) -> bool:
    """Read the update again; whether it still waits to be carried out."""
    try:
        patiently(bulk_update.refresh_from_db)
    except BulkUpdate.DoesNotExist:
        return False
    return _goes_on(bulk_update)


def _goes_on(bulk_update: BulkUpdate) -> bool:
    """Whether it needs no person to go on."""
    return bulk_update.status in Status.OPEN or bulk_update.trying_again_at is not None


def _is_renewed(bulk_update: BulkUpdate, give_up_at: float) -> bool:
    """Wait until the lease of another process lapses; True: it was renewed, that process lives."""
    lease = bulk_update.lease_token, bulk_update.lease_until
    while bulk_update.has_live_lease and time.monotonic() < give_up_at:
        time.sleep(LOOK_SECONDS)
        if not _is_open(bulk_update):
            return False
        is_other = lease != (bulk_update.lease_token, bulk_update.lease_until)
        if is_other and bulk_update.has_live_lease:
            return True
    return False


def _wait_until_due(bulk_update: BulkUpdate, seconds: float) -> bool:
    """Wait ``seconds`` at most; False: it is still not due, or another worker was asked since."""
    give_up_at = time.monotonic() + seconds
    asked_at = bulk_update.dispatched_at
    while time.monotonic() < give_up_at:
        time.sleep(LOOK_SECONDS)
        if not _is_open(bulk_update) or bulk_update.has_live_lease:
            return True  # looked at again by our caller
        if bulk_update.dispatched_at != asked_at:
            return False
        if due_at(bulk_update) is None:
            return True
    return False


# --- one task that waits for all --------------------------------------------------------------


_UNFINISHED = Q(status__in=Status.OPEN) | Q(status=Status.STOPPED, stop_code="outage")
"""Updates that need no person to go on."""


def _is_cared_for(bulk_update: BulkUpdate) -> bool:
    """Whether a task of an older update, that comes back again and again, looks after this one.

    Where Bland is down all updates wait, and they must not fill the workers with waiting.
    """
    return (
        BulkUpdate.objects.filter(_UNFINISHED, pk__lt=bulk_update.pk)
        .filter(dispatched_at__gt=timezone.now() - ABANDONED_AFTER)
        .exists()
    )


def _look_after_others(bulk_update: BulkUpdate, *, is_over: bool) -> None:
    """Ask for a worker for the updates whose task was lost, or gave way to that of this one.

    Args:
        is_over: No task of this one comes back; the oldest of those that wait takes its place.
    """
    others = BulkUpdate.objects.filter(_UNFINISHED).exclude(pk=bulk_update.pk)
    is_cared_for = not is_over
    for other in others.order_by("pk")[:MOST_OTHERS]:
        if other.has_live_lease:
            continue
        now, due = timezone.now(), _due(other)
        if due is not None and due > now:
            if not is_cared_for:
                is_cared_for = hand_over(other)
        elif stopped_at(other) is not None or _was_asked_before(other, due):
            hand_over(other)


def _was_asked_before(bulk_update: BulkUpdate, due: datetime | None) -> bool:
    """Whether no worker was asked since it became due."""
    asked_at = bulk_update.dispatched_at
    return due is not None and asked_at is not None and asked_at < due

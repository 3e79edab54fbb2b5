"""Functions for task queues, a few lines each, reached only through the dotted path in DISPATCH."""

from __future__ import annotations

import time
from importlib import import_module
from typing import Any

from django.utils import timezone

from . import standing, sync, webhooks
from .conf import get_settings
from .dispatching import WAIT_SECONDS, find_worker, is_called_by_dispatch, take_turn
from .models import BulkUpdate, WebhookDelivery

ASK_SECONDS = 20.0
"""For the delivery that a task was called with; the rest of its time is for the others."""
COME_BACK_SECONDS = 120.0
"""Deliveries that are due later are left to the next task, or to ``bland_sms_work``."""


def _find_tasks() -> Any:
    """Django's Tasks, on 5.2 its backport, or nothing."""
    for name in ("django.tasks", "django_tasks"):
        try:
            return import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name:
                raise
    return None


_tasks = _find_tasks()


def work(kind: str, pk: int) -> None:
    """Do a piece of work that was dispatched. Safe to call twice, at once, or never.

    It takes about ``WORK_SECONDS`` at most; what is left over then is handed to ``DISPATCH`` again.

    Args:
        kind: ``update`` or ``delivery``.
        pk: Primary key of the row; one that is gone is no error.

    Raises:
        UnfinishedError: an update is not finished, and there is no worker to go on later.
    """
    if kind == "update":
        bulk_update = BulkUpdate.objects.filter(pk=pk).first()
        if bulk_update is not None:
            take_turn(bulk_update)
    elif kind == "delivery":
        delivery = WebhookDelivery.objects.filter(pk=pk).first()
        if delivery is not None:
            _attend(delivery)
    else:
        raise ValueError(f"unknown kind of work: {kind!r}")


def _attend(delivery: WebhookDelivery) -> None:
    """Copy the conversation of a delivery, and of others that wait; come back for those that are
    due soon. One task does that for all: that of the oldest delivery that waits."""
    seconds = get_settings().work_seconds
    give_up_at = time.monotonic() + seconds
    webhooks.process(delivery, seconds=min(seconds, ASK_SECONDS))
    webhooks.process_waiting(seconds=max(0.0, give_up_at - time.monotonic()))
    standing.carry_out_waiting(seconds=max(0.0, give_up_at - time.monotonic()))
    waiting = WebhookDelivery.objects.filter(state=WebhookDelivery.State.RECEIVED)
    oldest = waiting.order_by("pk").first()
    if oldest is None or oldest.pk != delivery.pk or is_called_by_dispatch():
        return
    due_at = oldest.not_before or oldest.lease_until or timezone.now()
    seconds_left = (due_at - timezone.now()).total_seconds()
    if seconds_left < COME_BACK_SECONDS:
        time.sleep(max(1.0, min(seconds_left, WAIT_SECONDS)))
        find_worker("delivery", oldest.pk)


def sync_now(full: bool = False) -> None:
    """Bring the mirror up to date: what a scheduler calls, such as Celery beat.

    Args:
        full: Read the whole list, after an incremental run that is under way.
    """
    sync.run(full=full, trigger="task", wait_seconds=sync.FULL_WAIT_SECONDS)
    standing.carry_out_waiting(seconds=get_settings().work_seconds)


if _tasks is not None:

    @_tasks.task  # type: ignore[untyped-decorator]
    def sync_in_background(full: bool = False) -> None:
        """:func:`sync_now` as a worker of Django's Tasks finds it."""
        sync_now(full)

    @_tasks.task  # type: ignore[untyped-decorator]
    def work_in_background(kind: str, pk: int) -> None:
        """:func:`work` as a worker of Django's Tasks finds it."""
        work(kind, pk)


def dispatch(kind: str, pk: int) -> bool:
    """Enqueue a piece of work with Django's Tasks.

    Args:
        kind: ``update`` or ``delivery``.
        pk: Primary key of the row.

    Returns:
        False where no other process would carry it out: the immediate backend would do all of it
        inside the request, the dummy backend none of it, and without a backport there is none.
    """
    if _tasks is None:
        return False
    backend = _tasks.task_backends[_tasks.DEFAULT_TASK_BACKEND_ALIAS]
    if type(backend).__name__ in ("ImmediateBackend", "DummyBackend"):
        return False
    work_in_background.enqueue(kind, pk)
    return True

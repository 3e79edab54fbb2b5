"""The background doors, a few lines each, reached only through the dotted path in DISPATCH."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from . import sync
from .deliveries import process
from .models import BulkUpdate, WebhookDelivery
from .updates import run


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

    Args:
        kind: ``update`` or ``delivery``.
        pk: Primary key of the row; one that is gone is no error.
    """
    if kind == "update":
        bulk_update = BulkUpdate.objects.filter(pk=pk).first()
        if bulk_update is not None:
            run(bulk_update)
    elif kind == "delivery":
        delivery = WebhookDelivery.objects.filter(pk=pk).first()
        if delivery is not None:
            process(delivery)
    else:
        raise ValueError(f"unknown kind of work: {kind!r}")


def sync_now(full: bool = False) -> None:
    """Bring the mirror up to date: what a scheduler calls, such as Celery beat."""
    sync.run(full=full, trigger="task")


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

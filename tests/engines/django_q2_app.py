"""django-q2, with its queue in the database."""

from __future__ import annotations

from django_q.tasks import async_task

from .task import LIMIT_SECONDS


def dispatch(kind: str, pk: int) -> None:
    async_task("tests.engines.task.carry_out", kind, pk, timeout=LIMIT_SECONDS)

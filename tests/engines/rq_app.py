"""RQ."""

from __future__ import annotations

import django
from redis import Redis
from rq import Queue

from .task import LIMIT_SECONDS, QUEUE
from .task import carry_out as _carry_out

django.setup()  # a host has django-rq, whose worker is a command of manage.py

queue = Queue(QUEUE, connection=Redis(db=14), default_timeout=LIMIT_SECONDS)


def carry_out(kind: str, pk: int) -> None:
    _carry_out(kind, pk)


def dispatch(kind: str, pk: int) -> None:
    queue.enqueue(carry_out, kind, pk)

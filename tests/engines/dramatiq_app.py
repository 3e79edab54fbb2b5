"""Dramatiq on Redis."""

from __future__ import annotations

import django
import dramatiq
from dramatiq.brokers.redis import RedisBroker

from .task import LIMIT_SECONDS, QUEUE
from .task import carry_out as _carry_out

django.setup()  # a host has django-dramatiq, whose worker is a command of manage.py

dramatiq.set_broker(RedisBroker(url="redis://127.0.0.1:6379/14", namespace=QUEUE))


@dramatiq.actor(time_limit=LIMIT_SECONDS * 1000)
def carry_out(kind: str, pk: int) -> None:
    _carry_out(kind, pk)


def dispatch(kind: str, pk: int) -> None:
    carry_out.send(kind, pk)

"""Huey on Redis."""

from __future__ import annotations

import django
from huey import RedisHuey

from .task import QUEUE
from .task import carry_out as _carry_out

django.setup()  # a host has huey.contrib.djhuey, whose worker is a command of manage.py

huey = RedisHuey(QUEUE, url="redis://127.0.0.1:6379/14")


@huey.task()
def carry_out(kind: str, pk: int) -> None:
    _carry_out(kind, pk)


def dispatch(kind: str, pk: int) -> None:
    carry_out(kind, pk)

"""Celery with acks_late, on Redis or RabbitMQ."""

from __future__ import annotations

import os

from celery import Celery, shared_task
from kombu import Queue

from .task import LIMIT_SECONDS, QUEUE
from .task import carry_out as _carry_out

app = Celery("host", broker=os.environ.get("BLAND_SMS_TEST_BROKER"))
app.conf.broker_connection_retry_on_startup = True
app.conf.task_default_queue = QUEUE
# RabbitMQ throws the queue away when no test has used it for ten minutes.
app.conf.task_queues = [Queue(QUEUE, expires=600)]
app.conf.worker_prefetch_multiplier = 1
app.conf.broker_transport_options = (
    {"global_keyprefix": QUEUE} if str(app.conf.broker_url).startswith("redis") else {}
)


@shared_task(acks_late=True, reject_on_worker_lost=True, soft_time_limit=LIMIT_SECONDS)
def carry_out(kind: str, pk: int) -> None:
    _carry_out(kind, pk)


def dispatch(kind: str, pk: int) -> None:
    carry_out.delay(kind, pk)

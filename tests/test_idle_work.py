"""What an idle ``bland_sms_work`` costs in a minute, however much waits for later."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.db.backends.base.base import BaseDatabaseWrapper
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from bland_sms.management.commands import bland_sms_work
from bland_sms.models import BulkUpdate, OwedLook, StandingOrder, WebhookDelivery
from bland_sms.sandbox import BlandSandbox

MOST_STATEMENTS = 30
MANY = 300
"""More than one portion of any job reads."""


class Clock:
    """Both clocks; it moves only where the worker waits."""

    def __init__(self) -> None:
        self.began = timezone.now()
        self.seconds = 0.0

    def now(self) -> datetime:
        return self.began + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return 1000.0 + self.seconds


class Ended:
    """The event of a signal, after so many seconds of the simulated clock."""

    def __init__(self, clock: Clock, at: float) -> None:
        self.clock, self.at = clock, at

    def __enter__(self) -> Ended:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def is_set(self) -> bool:
        return self.clock.seconds >= self.at

    def wait(self, seconds: float) -> bool:
        self.clock.seconds += seconds
        return self.is_set()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def minute(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Callable[[], tuple[list[str], int]]:
    """Let a worker idle for a minute, after one to arrive: its statements and connections."""

    def idle() -> tuple[list[str], int]:
        connects: list[float] = []

        def note(self: BaseDatabaseWrapper) -> None:
            connects.append(clock.seconds)

        with monkeypatch.context() as patched:
            patched.setattr(timezone, "now", clock.now)
            patched.setattr(time, "monotonic", clock.monotonic)
            patched.setattr(BaseDatabaseWrapper, "close_if_unusable_or_obsolete", note)
            patched.setattr(bland_sms_work, "stop_signals", lambda: Ended(clock, 60))
            with CaptureQueriesContext(connection) as captured, suppress(CommandError):
                call_command("bland_sms_work", stderr=StringIO())
        return [query["sql"] for query in captured.captured_queries], len(connects)

    return idle


def delivered(number: int, **values: Any) -> None:
    WebhookDelivery.objects.bulk_create(
        WebhookDelivery(body_sha256=str(one), **{"conversation_id": f"conv_{one}", **values})
        for one in range(number)
    )


def nothing(now: datetime) -> None:
    pass


def deliveries_that_are_due_later(now: datetime) -> None:
    delivered(MANY, not_before=now + timedelta(hours=1))


def deliveries_of_one_conversation_just_asked_for(now: datetime) -> None:
    delivered(MANY, conversation_id="conv")
    asked = WebhookDelivery(body_sha256="a", conversation_id="conv", state="processed")
    asked.asked_at = now
    asked.save()


def deliveries_of_one_conversation_that_another_worker_copies(now: datetime) -> None:
    delivered(MANY, conversation_id="conv")
    first = WebhookDelivery.objects.order_by("pk")[:1].get()
    WebhookDelivery.objects.filter(pk=first.pk).update(
        claimed_conversation="conv", lease_until=now + timedelta(seconds=120)
    )


def updates_that_wait_for_their_time(now: datetime) -> None:
    for _ in range(3):
        update = BulkUpdate.objects.create(is_active=False, status="stopped", stop_code="outage")
        BulkUpdate.objects.filter(pk=update.pk).update(not_before=now + timedelta(hours=1))


def looks_that_are_due_later(now: datetime) -> None:
    OwedLook.objects.bulk_create(
        OwedLook(
            conversation=f"conv_{one}",
            reason=OwedLook.Reason.DETAIL_FAILED,
            not_before=now + timedelta(hours=1),
        )
        for one in range(MANY)
    )


def an_order(now: datetime) -> None:
    StandingOrder.objects.create(customer_key="15550001111", reason="asked to")


@pytest.mark.django_db
@pytest.mark.parametrize(
    "waits",
    [
        nothing,
        deliveries_that_are_due_later,
        deliveries_of_one_conversation_just_asked_for,
        deliveries_of_one_conversation_that_another_worker_copies,
        updates_that_wait_for_their_time,
        looks_that_are_due_later,
        an_order,
    ],
    ids=lambda waits: waits.__name__,
)
def test_work__idle_costs_the_same_whatever_waits(
    waits: Callable[[datetime], None],
    clock: Clock,
    minute: Callable[[], tuple[list[str], int]],
    sandbox: BlandSandbox,
) -> None:
    waits(clock.began)

    statements, connections = minute()

    assert len(statements) <= MOST_STATEMENTS, "\n".join(statements)
    assert connections <= 1
    assert not sandbox.log

"""Any order of deliveries, repeated bodies, crashes, frozen processes and wrong clocks.

Bland is a counter for each conversation that goes up whenever it sends a webhook. A process reads
it while it holds its claims. What was accepted has to be copied by a look that came later.
"""

from __future__ import annotations

import json
import random
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from bland_sms.exceptions import BlandOutcomeUnknownError, BlandUnavailableError
from bland_sms.models import WebhookDelivery
from bland_sms.webhooks import claims, receive, settling

State = WebhookDelivery.State
POISON = "conv_poison"
IDS = [POISON, *(f"conv_{number}" for number in range(5))]
TIMES = ("received_at", "asked_at", "not_before", "put_off_at", "lease_until", "processed_at")


class Process:
    """One process with its claims, and its clock."""

    def __init__(self, context: AbstractContextManager[list[settling.Claimed]]) -> None:
        self.context = context
        self.claimed = context.__enter__()
        self.seen: dict[str, int] = {}


class World:
    def __init__(self, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.dice = random.Random(seed)
        self.versions = dict.fromkeys(IDS, 0)
        self.copied = dict.fromkeys(IDS, 0)
        self.accepted: dict[str, int] = {}
        """By hash: the version at which the newest webhook of that body was accepted."""
        self.bodies: list[bytes] = []
        self.alive: list[Process] = []
        self.ahead = timedelta(0)
        real_now = timezone.now
        monkeypatch.setattr(timezone, "now", lambda: real_now() + self.ahead)

    # --- what may happen ---------------------------------------------------------------------

    def deliver(self) -> None:
        pk = self.dice.choice(IDS)
        self.versions[pk] += 1
        told = {"conversation_id": pk, "message": "x", "number": self.versions[pk]}
        self.bodies.append(json.dumps(told).encode())
        self._accept(self.bodies[-1])

    def repeat(self) -> None:
        if self.bodies:
            self._accept(self.dice.choice(self.bodies))

    def begin(self) -> None:
        claims.recover()
        portions = list(claims.due_portions(None, size=3, first=3, most=None))
        if portions:
            self.alive.append(Process(claims.claim(self.dice.choice(portions))))

    def look(self) -> None:
        for process in self.dice.sample(self.alive, min(1, len(self.alive))):
            if any(one.delivery.conversation_id == POISON for one in process.claimed):
                self.die(process)
                return
            for one in process.claimed:
                if one.delivery.fence.is_open():
                    process.seen[one.delivery.conversation_id] = self.versions[
                        one.delivery.conversation_id
                    ]

    def end(self) -> None:
        for process in self.dice.sample(self.alive, min(1, len(self.alive))):
            self.alive.remove(process)
            held = {one.delivery.conversation_id for one in process.claimed if self._holds(one)}
            for one in process.claimed:
                seen = process.seen.get(one.delivery.conversation_id)
                if seen is None:
                    continue
                one.problem = self.dice.choice(
                    [None, None, None, BlandOutcomeUnknownError(), BlandUnavailableError(503)]
                )
                one.is_charged = self.dice.random() < 0.2
                if one.problem is None:
                    self.copied[one.delivery.conversation_id] = max(
                        seen, self.copied[one.delivery.conversation_id]
                    )
            process.context.__exit__(None, None, None)
            for one in process.claimed:
                assert one.delivery.conversation_id in held or not one.processed

    def interrupt(self) -> None:
        """A time limit, SystemExit or the like."""
        for process in self.dice.sample(self.alive, min(1, len(self.alive))):
            self.alive.remove(process)
            assert not process.context.__exit__(SystemExit, SystemExit(), None)

    def die(self, process: Process | None = None) -> None:
        for one in [process] if process else self.dice.sample(self.alive, min(1, len(self.alive))):
            self.alive.remove(one)
            one.claimed.clear()  # a dead process gives nothing back
            one.context.__exit__(SystemExit, SystemExit(), None)

    def wait(self) -> None:
        self.pass_time(timedelta(minutes=self.dice.choice([0.2, 1.1, 3, 16])))

    def set_clock(self) -> None:
        """The next steps are taken by a machine whose clock is wrong, or right again."""
        self.ahead = timedelta(hours=self.dice.choice([0, 0, 3, -3, 24 * 30]))

    # --- helpers -----------------------------------------------------------------------------

    def _accept(self, body: bytes) -> None:
        delivery = receive(body, json.loads(body))
        if delivery is not None:
            pk = delivery.conversation_id
            self.accepted[delivery.body_sha256] = self.versions[pk]

    def _holds(self, one: settling.Claimed) -> bool:
        return bool(one.delivery.leased_rows().exists())

    def pass_time(self, length: timedelta) -> None:
        for name in TIMES:
            rows = WebhookDelivery.objects.filter(**{f"{name}__isnull": False})
            for pk, moment in list(rows.values_list("pk", name)):
                rows.filter(pk=pk).update(**{name: moment - length})
        for process in self.alive:
            for one in process.claimed:
                fence = one.delivery.fence
                if fence._until is not None:
                    monotonic, wall = fence._until
                    fence._until = monotonic - length.total_seconds(), wall - length

    def check(self) -> None:
        for delivery in WebhookDelivery.objects.filter(state=State.PROCESSED):
            assert self.accepted[delivery.body_sha256] <= self.copied[delivery.conversation_id]
        for delivery in WebhookDelivery.objects.filter(state=State.FAILED):
            assert delivery.conversation_id == POISON or delivery.attempts >= settling.MOST_ATTEMPTS

    def drain(self) -> None:
        """Right clocks, a Bland that answers, and time."""
        self.ahead = timedelta(0)
        while self.alive:
            self.die()
        for _ in range(200):
            if not WebhookDelivery.objects.filter(state=State.RECEIVED).exists():
                return
            claims.recover()
            for portion in claims.due_portions(None, size=3, first=3, most=None):
                process = Process(claims.claim(portion))
                self.alive.append(process)
                self.look_of(process)
            self.pass_time(timedelta(minutes=3))
        raise AssertionError("something waits for ever")

    def look_of(self, process: Process) -> None:
        if any(one.delivery.conversation_id == POISON for one in process.claimed):
            self.die(process)
            return
        self.alive.remove(process)
        for one in process.claimed:
            self.copied[one.delivery.conversation_id] = self.versions[one.delivery.conversation_id]
            one.problem = None
        process.context.__exit__(None, None, None)


@pytest.fixture
def world(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(request.param, monkeypatch)


@pytest.mark.django_db
@pytest.mark.parametrize("world", range(16), indirect=True)
def test_deliveries__each_is_copied_later_than_it_came(world: World) -> None:
    steps: list[tuple[Any, int]] = [
        (world.deliver, 6),
        (world.repeat, 3),
        (world.begin, 6),
        (world.look, 6),
        (world.end, 5),
        (world.interrupt, 1),
        (world.die, 2),
        (world.wait, 4),
        (world.set_clock, 2),
    ]
    for _ in range(80):
        world.dice.choices([step for step, _ in steps], [weight for _, weight in steps])[0]()
        world.check()
    world.drain()
    world.check()
    left = WebhookDelivery.objects.exclude(state=State.PROCESSED)
    assert {row.conversation_id for row in left if row.error == "interrupted"} <= {POISON}
    assert not left.exclude(state=State.FAILED).exists()
    assert not WebhookDelivery.objects.exclude(claimed_conversation=None).exists()

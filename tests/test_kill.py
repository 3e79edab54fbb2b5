"""A worker is killed in the middle; the next one loses nothing and doubles nothing."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from bland_sms.models import BulkUpdate, Conversation
from bland_sms.sandbox import BlandSandbox
from bland_sms.updates import run
from bland_sms.updates.driver import FLUSH_ROWS
from bland_sms.updates.in_flight import MOST_CLAIMED

pytestmark = pytest.mark.django_db(transaction=True)
WORKERS = 4


@pytest.fixture
def child(sandbox: BlandSandbox) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a process that carries out an update."""
    children: list[subprocess.Popen[str]] = []

    def begin(bulk_update: BulkUpdate, *pause: str) -> subprocess.Popen[str]:
        name = str(connection.settings_dict["NAME"])
        process = subprocess.Popen(
            [
                sys.executable,
                *["-m", "tests.child", name, sandbox.base_url, str(bulk_update.pk), *pause],
            ],
            cwd=Path(__file__).parent.parent,
            text=True,
            stdout=subprocess.PIPE,
        )
        children.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        return process

    yield begin
    for process in children:
        process.kill()
        process.communicate()


def wait_until(condition: Callable[[], Any]) -> None:
    give_up_at = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < give_up_at
        time.sleep(0.005)


@pytest.mark.parametrize("moment", ["received", "answered", "writing"])
def test_run__killed(
    moment: str,
    sandbox: BlandSandbox,
    copied: Callable[..., list[str]],
    started: Callable[..., BulkUpdate],
    child: Callable[..., subprocess.Popen[str]],
) -> None:
    ids = copied(40)
    bulk_update = started(ids)
    if moment == "received":
        sandbox.faults.add(ids[20], "hang_after:30")
        process = child(bulk_update)
        wait_until(lambda: sandbox.requests("PATCH", ids[20]))
    else:
        process = child(bulk_update, moment)
        assert process.stdout is not None
        assert process.stdout.readline() == "here\n"
    process.kill()
    process.wait()
    time.sleep(0.1)  # what was on its way at the stand-in arrives
    known = set(bulk_update.items.filter(state="changed").values_list("conversation_id", flat=True))
    asked = len(sandbox.requests("PATCH"))
    assert not run(bulk_update)  # its lease lives on for a while, so nobody else takes over yet
    BulkUpdate.objects.update(lease_until=timezone.now())

    assert run(bulk_update) is True

    bulk_update.refresh_from_db()
    assert bulk_update.status == "finished"
    assert bulk_update.counts()["changed"] == 40
    assert not any(row["is_active"] for row in sandbox.account.rows.values())
    assert not Conversation.objects.filter(is_active=True).exists()
    assert asked < 40
    assert len(sandbox.requests("PATCH")) <= 40 + WORKERS
    assert all(len(sandbox.requests("", pk)) == 1 for pk in known)


@pytest.mark.slow
def test_run__killed_twenty_times(
    sandbox: BlandSandbox,
    copied: Callable[..., list[str]],
    started: Callable[..., BulkUpdate],
    child: Callable[..., subprocess.Popen[str]],
) -> None:
    sandbox.latency_seconds = 0.01
    ids = copied(1000)
    bulk_update = started(ids)
    dice = random.Random(4711)
    kills = 0
    for _ in range(20):
        process = child(bulk_update)
        time.sleep(dice.uniform(0.05, 0.25))
        kills += process.poll() is None
        process.kill()
        process.wait()
        BulkUpdate.objects.exclude(lease_until=None).update(lease_until=timezone.now())
    assert kills > 5

    assert run(bulk_update) is True

    time.sleep(0.1)
    assert bulk_update.counts()["changed"] == 1000
    assert not any(row["is_active"] for row in sandbox.account.rows.values())
    assert not Conversation.objects.filter(is_active=True).exists()
    # Each kill leaves at most what was in flight to be sent again, and what was claimed to be
    # looked at.
    assert len(sandbox.requests("PATCH")) <= 1000 + kills * WORKERS
    assert len(sandbox.requests("GET")) <= kills * (MOST_CLAIMED + FLUSH_ROWS + WORKERS)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
@pytest.mark.parametrize("number_of_updates", [1, 4])
def test_run__several_processes_ask_nothing_twice(
    processes: int,
    number_of_updates: int,
    sandbox: BlandSandbox,
    copied: Callable[..., list[str]],
    started: Callable[..., BulkUpdate],
    child: Callable[..., subprocess.Popen[str]],
) -> None:
    sandbox.latency_seconds = 0.01
    ids = copied(240)
    portion = len(ids) // number_of_updates
    bulk_updates = [
        # Each overlaps with the one before: the same wish is asked once all the same.
        started(ids[max(0, number * portion - 20) : (number + 1) * portion])
        for number in range(number_of_updates)
    ]
    children = [
        child(bulk_updates[number % number_of_updates]) for number in range(max(processes, 2))
    ]
    for process in children:
        assert process.wait(60) == 0
    for bulk_update in bulk_updates:
        run(bulk_update)
    asked = [seen["conversation_id"] for seen in sandbox.requests("PATCH")]
    assert sorted(asked) == ids
    assert not sandbox.requests("GET")

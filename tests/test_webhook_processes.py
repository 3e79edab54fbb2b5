"""Webhooks with real processes: web servers under a burst, and workers that are killed."""

from __future__ import annotations

import hashlib
import hmac
import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
import requests

from bland_sms.models import Conversation, WebhookDelivery
from bland_sms.sandbox import BlandSandbox
from bland_sms.webhooks import background

from .conftest import Start, wait_until
from .test_engines import need

pytestmark = pytest.mark.django_db(transaction=True)
State = WebhookDelivery.State
SETTINGS = {"DJANGO_SETTINGS_MODULE": "tests.webhook_settings", "DJANGO_DEBUG": "0"}


def body_of(conversation_id: str, number: int = 0) -> bytes:
    told = {"conversation_id": conversation_id, "sender": "USER", "number": number}
    return json.dumps(told).encode()


def waiting(*conversation_ids: str) -> None:
    for conversation_id in conversation_ids:
        digest = hashlib.sha256(conversation_id.encode()).hexdigest()
        WebhookDelivery.objects.create(body_sha256=digest, conversation_id=conversation_id)


def waiting_ids() -> list[str]:
    rows = WebhookDelivery.objects.filter(state=State.RECEIVED)
    return list(rows.values_list("conversation_id", flat=True))


@pytest.fixture
def servers() -> list[subprocess.Popen[bytes]]:
    return []


@pytest.fixture
def serve(process: Start, servers: list[subprocess.Popen[bytes]]) -> Callable[..., str]:
    """Start gunicorn; its address."""
    need("gunicorn")

    def begin(*arguments: str) -> str:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        gunicorn = str(shutil.which("gunicorn", path=str(Path(sys.executable).parent)))
        arguments = ("--bind", f"127.0.0.1:{port}", *arguments, "project.wsgi")
        servers.append(process(gunicorn, *arguments, **SETTINGS))
        address = f"http://127.0.0.1:{port}"
        wait_until(lambda: seconds_of(f"{address}/admin/login/") is not None)
        return address

    return begin


def seconds_of(url: str) -> float | None:
    """How long a page takes; ``None``: it does not come."""
    try:
        begun = time.monotonic()
        requests.get(url, timeout=60).raise_for_status()
        return time.monotonic() - begun
    except requests.RequestException:
        return None


def deliver(address: str, body: bytes) -> tuple[int, float]:
    """Post a signed webhook as Bland does; the status, and how long it took."""
    signature = hmac.new(b"whsec_one", body, hashlib.sha256).hexdigest()
    headers = {"Content-Type": "application/json", "X-Webhook-Signature": signature}
    begun = time.monotonic()
    answer = requests.post(f"{address}/bland-sms/webhook/", body, headers=headers, timeout=60)
    return answer.status_code, time.monotonic() - begun


def most_at_once(sandbox: BlandSandbox) -> int:
    """How many requests the sandbox answered at the same time, at the most."""
    begun = sorted(seen["at"] for seen in sandbox.log)
    return max(
        sum(1 for other in begun if at <= other < at + sandbox.latency_seconds) for at in begun
    )


def burst(address: str, bodies: list[bytes]) -> tuple[float, float]:
    """Post all of them, 20 at a time; the 99th percentile of the answers' seconds, and the
    slowest page that somebody else looked at meanwhile."""
    pages: list[float] = []
    is_over = threading.Event()

    def look() -> None:
        while not is_over.is_set():
            pages.append(seconds_of(f"{address}/admin/login/") or 999)

    visitor = threading.Thread(target=look)
    visitor.start()
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda body: deliver(address, body), bodies))
    is_over.set()
    visitor.join()
    assert {status for status, _ in answers} == {200}
    took = sorted(seconds for _, seconds in answers)
    return took[len(took) * 99 // 100], max(pages)


def test_gunicorn__burst_delays_nothing(sandbox: BlandSandbox, serve: Callable[..., str]) -> None:
    """Sync workers that copied before their next request would hold it up for Bland's latency,
    and four of them the whole site. Measured beside a burst after which there is nothing to copy,
    since a test knows nothing of how busy its machine is."""
    address = serve("--workers", "4", "--worker-class", "sync")
    sandbox.latency_seconds = 8.0  # far more than the two bursts may differ by
    ids = [f"conv_{number}" for number in range(200)]
    for conversation_id in ids:
        sandbox.account.add({"id": conversation_id})
    burst(address, [body_of("", number) for number in range(50)])
    idle = burst(address, [body_of("", number) for number in range(50, 250)])
    assert not sandbox.log
    busy = burst(address, [body_of(pk) for pk in ids])
    assert sandbox.log
    assert busy[0] < 2 * idle[0] + sandbox.latency_seconds / 2
    assert busy[1] < 2 * idle[1] + sandbox.latency_seconds / 2
    assert most_at_once(sandbox) <= background.AT_ONCE
    sandbox.latency_seconds = 0
    wait_until(lambda: not waiting_ids(), 120)
    assert Conversation.objects.count() == 200


@pytest.fixture
def work(process: Start) -> Callable[..., subprocess.Popen[bytes]]:
    """Start a worker that carries out what waits, and ends."""

    def begin(**environment: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "manage.py", "bland_sms_work", "--once"]
        return process(*command, **SETTINGS, **environment)

    return begin


def time_passes(**values: timedelta) -> None:
    """Everything that was, was so much earlier."""
    for name in ("asked_at", "not_before", "put_off_at", "lease_until"):
        rows = WebhookDelivery.objects.filter(**{f"{name}__isnull": False})
        for pk, moment in rows.values_list("pk", name):
            rows.filter(pk=pk).update(**{name: moment - timedelta(**values)})


@pytest.mark.slow
def test_work__nine_times_killed_in_the_middle(
    sandbox: BlandSandbox, work: Callable[..., subprocess.Popen[bytes]]
) -> None:
    ids = [f"conv_{number:02d}" for number in range(40)]
    waiting(*ids)
    for conversation_id in ids:
        sandbox.account.add({"id": conversation_id})
    sandbox.faults.add("*", "forever:hang_before:60")
    for _ in range(9):
        asked = len(sandbox.log)
        worker = work()
        wait_until(lambda asked=asked: len(sandbox.log) > asked)
        worker.kill()
        worker.wait()
        time_passes(minutes=3)
    assert len(waiting_ids()) == 40
    assert set(WebhookDelivery.objects.values_list("attempts", flat=True)) == {0}
    sandbox.faults.clear()
    assert work().wait(120) == 0
    assert not waiting_ids()
    assert Conversation.objects.count() == 40


@pytest.mark.slow
def test_work__only_what_kills_it_is_given_up(
    sandbox: BlandSandbox, work: Callable[..., subprocess.Popen[bytes]]
) -> None:
    ids = [f"conv_{number:02d}" for number in range(40)]
    waiting(*ids)
    for conversation_id in ids:
        sandbox.account.add({"id": conversation_id})
    deaths = 0
    while waiting_ids():
        deaths += work(BLAND_SMS_TEST_POISON="conv_07").wait(120) == -signal.SIGKILL
        time_passes(minutes=3)
        assert deaths <= 12
    given_up = WebhookDelivery.objects.exclude(state=State.PROCESSED)
    assert list(given_up.values_list("conversation_id", "error")) == [("conv_07", "interrupted")]
    assert Conversation.objects.count() == 39


def test_gunicorn__shuts_down_in_order_while_it_copies(
    sandbox: BlandSandbox, serve: Callable[..., str], servers: list[subprocess.Popen[bytes]]
) -> None:
    address = serve("--workers", "1", "--worker-class", "sync", "--graceful-timeout", "60")
    sandbox.faults.add("*", "forever:hang_before:3")
    for number in range(6):
        assert deliver(address, body_of(f"conv_{number}"))[0] == 200
    wait_until(lambda: len(sandbox.log) >= background.AT_ONCE)
    servers[0].terminate()
    assert servers[0].wait(60) == 0
    assert len(waiting_ids()) == 6
    assert not WebhookDelivery.objects.exclude(claimed_conversation=None).exists()
    assert set(WebhookDelivery.objects.values_list("crashes", flat=True)) == {0}

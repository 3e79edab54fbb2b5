"""Fixtures that several rooms' tests share."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractUser
from django.db import connection
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

from bland_sms.client import wire
from bland_sms.models import BulkUpdate, Conversation
from bland_sms.pytest_plugin import bland_sandbox, fake_bland  # noqa: F401  as a host's tests
from bland_sms.sandbox import BlandSandbox, server
from bland_sms.sync import refresh
from bland_sms.updates import prepare, start

KEY = "org_test_key_000000"
ROOT = Path(__file__).parent.parent
Start = Callable[..., subprocess.Popen[bytes]]

# A property holds however slow the machine is, and what fails in one run fails in the next one as
# well: no example has a time limit, nor has drawing them, and the same ones are drawn each time.
# Other ones: pytest --hypothesis-profile=others.
_CALM: dict[str, Any] = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
}
hypothesis_settings.register_profile("same", derandomize=True, **_CALM)
hypothesis_settings.register_profile("others", **_CALM)
hypothesis_settings.load_profile("same")


@pytest.fixture
def sandbox(settings: Any) -> Iterator[BlandSandbox]:
    """A stand-in for Bland that the app is connected to.

    The app waits for it as long as for Bland: on a busy machine an answer takes its time, and only
    a test that lets the stand-in hang gives up (``impatient``).
    """
    with BlandSandbox(api_key=KEY) as running:
        settings.BLAND_SMS = {"API_KEY": KEY, "BASE_URL": running.base_url}
        yield running


@pytest.fixture
def no_hanging(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time for an answer is over as soon as the stand-in lets it hang or drip.

    A READ_TIMEOUT of a moment would also cut off what does come, on a machine that does much else.
    """
    silent: set[Any] = set()
    send, read = server._Handler._send, wire._DeadlineReader.readinto

    def note_and_send(handler: Any, answer: Any, fault: Any) -> bool:
        if isinstance(fault, str) and fault.startswith(("hang", "drip")):
            silent.add(handler.client_address)
        return send(handler, answer, fault)

    def read_or_give_up(reader: Any, buffer: Any) -> int | None:
        address = reader._sock.getsockname()
        while not select.select([reader._sock], [], [], 0.01)[0]:
            if address in silent:
                silent.discard(address)
                reader._deadline = 0.0
                break
        return read(reader, buffer)

    monkeypatch.setattr(server._Handler, "_send", note_and_send)
    monkeypatch.setattr(wire._DeadlineReader, "readinto", read_or_give_up)


@pytest.fixture
def impatient(sandbox: BlandSandbox, no_hanging: None, set_bland: Callable[..., None]) -> None:
    """An answer that hangs does not come, and it is not the end of a job that cuts it off."""
    set_bland(READ_TIMEOUT=5)


@pytest.fixture
def set_bland(settings: Any) -> Callable[..., None]:
    """Change some of ``BLAND_SMS``."""

    def change(**values: Any) -> None:
        settings.BLAND_SMS = {**settings.BLAND_SMS, **values}

    return change


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """No back-off between requests; what Bland asks for with Retry-After is still honoured."""
    monkeypatch.setattr("bland_sms.pacing.allowance.FIRST_BACK_OFF_SECONDS", 0.0)
    monkeypatch.setattr("bland_sms.pacing.rate.START_RATE", 1000.0)
    monkeypatch.setattr("bland_sms.pacing.pacer.REFUSED_PAUSE_SECONDS", 0.0)


@pytest.fixture
def copied(sandbox: BlandSandbox, db: None) -> Callable[..., list[str]]:
    """Make conversations at the stand-in and copy them into the mirror."""

    def make(number: int = 1, **values: Any) -> list[str]:
        ids = [f"conv_{index:04d}" for index in range(number)]
        for conversation_id in ids:
            sandbox.account.add({"id": conversation_id, **values})
            if number <= 5:
                refresh(conversation_id)
        if number > 5:
            Conversation.objects.bulk_create(Conversation(pk=pk, is_active=True) for pk in ids)
        sandbox.log.clear()
        return ids

    return make


@pytest.fixture
def started() -> Callable[..., BulkUpdate]:
    """Prepare and start an update."""

    def make(ids: list[str], *, is_active: bool = False, **values: Any) -> BulkUpdate:
        bulk_update = prepare(ids, is_active, **values)
        start(bulk_update)
        return bulk_update

    return make


@pytest.fixture
def staff(db: None) -> AbstractUser:
    """A member of staff with every permission."""
    return get_user_model().objects.create_superuser("dana", "dana@example.com", "secret-enough")


@pytest.fixture
def process(sandbox: BlandSandbox) -> Iterator[Start]:
    """Start a program of this environment on the test's database and stand-in."""
    running: list[subprocess.Popen[bytes]] = []

    def begin(*arguments: str, **environment: str) -> subprocess.Popen[bytes]:
        child = subprocess.Popen(
            arguments,
            cwd=ROOT,
            env={
                **os.environ,
                "DJANGO_SETTINGS_MODULE": "tests.engine_settings",
                "PYTHONPATH": str(ROOT),
                "BLAND_SMS_TEST_DATABASE": str(connection.settings_dict["NAME"]),
                "BLAND_SMS_TEST_URL": sandbox.base_url,
                **environment,
            },
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        running.append(child)
        return child

    yield begin
    for child in running:
        with suppress(ProcessLookupError):  # it and what it started, such as behind a reloader
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def wait_until(condition: Callable[[], Any], seconds: float = 60) -> None:
    give_up_at = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up_at
        time.sleep(0.05)

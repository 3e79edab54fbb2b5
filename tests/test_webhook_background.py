"""Copying in a web process: by a thread, in one process of a host, and by none where that harms."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from django.core import mail
from django.utils import timezone

from bland_sms import webhooks
from bland_sms.models import Conversation, WebhookDelivery
from bland_sms.sandbox import BlandSandbox
from bland_sms.webhooks import background

from .conftest import wait_until
from .test_webhooks import body_of, post

State = WebhookDelivery.State


@pytest.fixture
def bland(
    sandbox: BlandSandbox, set_bland: Callable[..., None], transactional_db: None
) -> BlandSandbox:
    set_bland(WEBHOOK_SECRETS=["whsec_one"])
    return sandbox


@pytest.fixture
def in_production(bland: BlandSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """As outside Django's test runner, with short pauses."""
    monkeypatch.delattr(mail, "outbox")
    monkeypatch.setattr(background, "SHORTEST_PAUSE_SECONDS", 0.1)
    monkeypatch.setattr(background, "copier", background.Copier())


def is_processed() -> bool:
    return not WebhookDelivery.objects.exclude(state=State.PROCESSED).exists()


def is_idle() -> bool:
    return background.copier._thread is None


@pytest.mark.usefixtures("in_production")
def test_copy_soon__by_a_thread_that_ends(bland: BlandSandbox) -> None:
    bland.account.add({"id": "conv_1"})
    assert post().status_code == 200
    wait_until(is_processed)
    assert Conversation.objects.filter(pk="conv_1").exists()
    wait_until(is_idle)
    assert "bland_sms_webhooks" not in {thread.name for thread in threading.enumerate()}
    bland.account.add({"id": "conv_2"})
    assert post(body_of("conv_2")).status_code == 200
    wait_until(is_processed)
    wait_until(is_idle)


@pytest.mark.usefixtures("in_production")
def test_copy_soon__one_thread_for_many(
    bland: BlandSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    bland.latency_seconds = 0.05
    for number in range(20):
        bland.account.add({"id": f"conv_{number}"})
        assert post(body_of(f"conv_{number}")).status_code == 200
        names = [thread.name for thread in threading.enumerate()]
        assert names.count("bland_sms_webhooks") <= 1
    wait_until(is_processed)
    wait_until(is_idle)
    assert len(bland.log) == 20


@pytest.mark.usefixtures("in_production")
def test_copy_soon__another_process_of_the_host_is_at_it(bland: BlandSandbox) -> None:
    bland.account.add({"id": "conv_1"})
    with background._host_lock() as is_ours:
        assert is_ours
        assert post().status_code == 200
        wait_until(is_idle)
        assert not bland.log
    assert background._copy() is None  # what that process does, once it has let go
    assert is_processed()


@pytest.mark.usefixtures("in_production")
def test_copy_soon__goes_on_after_an_error(
    bland: BlandSandbox, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bland.account.add({"id": "conv_1"})
    with monkeypatch.context() as patched:
        patched.setattr(webhooks, "process_waiting", lambda **kwargs: 1 / 0)
        assert post().status_code == 200
        wait_until(is_idle)
    assert "ZeroDivisionError" in caplog.text
    assert post(body_of("conv_1", number=2)).status_code == 200
    wait_until(is_processed)
    wait_until(is_idle)


@pytest.mark.parametrize(
    ("options", "may"),
    [({}, False), ({"enable-threads": True}, True), ({"threads": b"2"}, True)],
)
@pytest.mark.usefixtures("in_production")
def test_copy_soon__under_uwsgi(
    options: dict[str, Any],
    may: bool,
    bland: BlandSandbox,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setitem(sys.modules, "uwsgi", SimpleNamespace(opt=options))
    bland.account.add({"id": "conv_1"})
    with caplog.at_level(logging.WARNING):
        assert post().status_code == 200
    if may:
        wait_until(is_processed)
    else:
        assert is_idle()
        assert "enable-threads" in caplog.text
        assert not bland.log
    wait_until(is_idle)


def test_host_lock__one_at_a_time(db: None) -> None:
    with background._host_lock() as first, background._host_lock() as second:
        assert (first, second) == (True, False)
    with background._host_lock() as again:
        assert again


def test_host_lock__is_not_taken_through_a_link(
    db: None, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "of_somebody"
    link = tmp_path / "lock"
    link.symlink_to(target)
    monkeypatch.setattr(background, "_lock_path", lambda: str(link))
    with background._host_lock() as is_ours:
        assert not is_ours
    assert not target.exists()


@pytest.mark.parametrize("seconds", [0, 30, 3600, None])
def test_copy__comes_back_for_what_is_due_soon(
    seconds: int | None, bland: BlandSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    if seconds is not None:
        now = timezone.now()
        due = {"not_before": now + timedelta(seconds=seconds), "put_off_at": now}
        claim = {"claimed_conversation": "conv_1", "lease_until": now + timedelta(minutes=1)}
        WebhookDelivery.objects.create(
            body_sha256="1" * 64, conversation_id="conv_1", **(due if seconds else claim)
        )
    pause = background._copy()
    if seconds is None or seconds == 3600:
        assert pause is None
    else:
        assert pause is not None
        assert background.SHORTEST_PAUSE_SECONDS <= pause <= max(seconds, 2)

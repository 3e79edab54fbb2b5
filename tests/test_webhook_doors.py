"""Deliveries as operators and staff meet them: the commands and the admin."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client
from django.utils import timezone

from bland_sms.management.commands import bland_sms_work
from bland_sms.models import Conversation, WebhookDelivery
from bland_sms.sandbox import BlandSandbox

from .test_commands import manage, process

pytestmark = pytest.mark.django_db
State = WebhookDelivery.State
LIST = "/admin/bland_sms/webhookdelivery/"
Record = Callable[..., list[int]]


@pytest.fixture
def record(sandbox: BlandSandbox, db: None) -> Record:
    """Deliveries that wait."""

    def make(*conversation_ids: str, **values: Any) -> list[int]:
        keys = []
        for conversation_id in conversation_ids:
            number = WebhookDelivery.objects.count()
            plain = {"body_sha256": f"{number:064d}", "conversation_id": conversation_id}
            keys.append(WebhookDelivery.objects.create(**{**plain, **values}).pk)
            if conversation_id and conversation_id not in sandbox.account.rows:
                sandbox.account.add({"id": conversation_id})
        return keys

    return make


def states() -> list[str]:
    return list(WebhookDelivery.objects.order_by("pk").values_list("state", flat=True))


# --- bland_sms_work ---------------------------------------------------------------------------


def test_work__carries_out_webhooks(sandbox: BlandSandbox, record: Record) -> None:
    record("conv_1", "conv_2", "conv_1")
    assert manage("bland_sms_work", "--once") == (0, "webhooks: 3 processed\n", "")
    assert Conversation.objects.count() == 2
    assert manage("bland_sms_work", "--once") == (0, "", "")
    assert len(sandbox.log) == 2


def test_work__updates_and_webhooks(
    sandbox: BlandSandbox, record: Record, copied: Any, started: Any
) -> None:
    started(copied(2))
    record("conv_0001")
    ran = manage("bland_sms_work", "--once")
    assert ran.code == 0
    assert [line.split(" ")[0] for line in ran.out.splitlines()] == ["update", "webhooks:"]


@pytest.mark.usefixtures("no_waiting")
def test_work__webhook_that_fails_is_told(sandbox: BlandSandbox, record: Record) -> None:
    record("conv_1", "conv_2", "conv_3")
    sandbox.faults.add("conv_2", "400")
    sandbox.faults.add("conv_3", "forever:503")
    ran = manage("bland_sms_work", "--once")
    assert ran.code == 1
    assert ran.out == "webhooks: 1 processed, 1 put off, 1 conversations failed\n"
    told = "INVALID_IS_ACTIVE_VALUE: Bland refused it (400 INVALID_IS_ACTIVE_VALUE)"
    assert ran.err == f"webhook for conv_2: {told}"


def test_work__key_is_refused(sandbox: BlandSandbox, record: Record) -> None:
    record("conv_1")
    sandbox.faults.add("*", "forever:401")
    ran = manage("bland_sms_work", "--once")
    assert ran.code == 1
    assert "webhooks stopped: Bland refused the key (401)" in ran.err
    assert states() == ["received"]


def test_work__as_a_service_does_not_hammer_a_bland_that_refuses(
    sandbox: BlandSandbox, record: Record, monkeypatch: pytest.MonkeyPatch, set_bland: Any
) -> None:
    set_bland(MAX_CONCURRENCY=1)
    record(*[f"conv_{number}" for number in range(40)])
    sandbox.faults.add("*", "forever:401")
    turns = []

    def pause(seconds: float) -> bool:
        turns.append(seconds)
        if len(turns) == 10:
            ended.set()
        return ended.is_set()

    ended = threading.Event()
    monkeypatch.setattr(ended, "wait", pause)

    @contextmanager
    def signals() -> Iterator[threading.Event]:
        yield ended

    monkeypatch.setattr(bland_sms_work, "stop_signals", signals)
    monkeypatch.setattr(bland_sms_work, "close_old_connections", lambda: None)
    ran = manage("bland_sms_work")
    assert ran.code == 1
    assert ran.err.count("webhooks stopped") == 1
    assert len(sandbox.log) == 1


@pytest.mark.django_db(transaction=True)
@pytest.mark.slow
def test_work__killed_while_bland_is_asked(sandbox: BlandSandbox, record: Record) -> None:
    record("conv_1", "conv_2")
    sandbox.faults.add("*", "forever:hang_before:30")
    worker = subprocess.Popen(
        [sys.executable, "manage.py", "bland_sms_work", "--once"],
        cwd=Path(__file__).parent.parent,
        env={
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "tests.engine_settings",
            "BLAND_SMS_TEST_DATABASE": str(connection.settings_dict["NAME"]),
            "BLAND_SMS_TEST_URL": sandbox.base_url,
        },
    )
    try:
        give_up_at = time.monotonic() + 30
        while len(sandbox.log) < 2:
            assert time.monotonic() < give_up_at
            time.sleep(0.02)
    finally:
        worker.send_signal(signal.SIGKILL)
        worker.wait()
    sandbox.faults.clear()
    assert states() == ["received", "received"]
    assert manage("bland_sms_work", "--once").out == ""  # its lease lives on for a while
    WebhookDelivery.objects.update(lease_until=timezone.now(), asked_at=None, not_before=None)
    assert manage("bland_sms_work", "--once").out == "webhooks: 2 processed\n"
    assert Conversation.objects.count() == 2


# --- bland_sms_webhooks -----------------------------------------------------------------------


def test_reprocess__failed_ones(sandbox: BlandSandbox, record: Record) -> None:
    record("conv_1", "conv_2", state=State.FAILED, attempts=8, error="no_answer")
    record("conv_3", state=State.PROCESSED)
    record("", state=State.IGNORED)
    ran = manage("bland_sms_webhooks", "reprocess", "--failed")
    assert ran == (0, "2 processed, 0 wait, 0 failed\n", "")
    assert states() == ["processed", "processed", "processed", "ignored"]
    assert {seen["conversation_id"] for seen in sandbox.log} == {"conv_1", "conv_2"}


def test_reprocess__by_id(sandbox: BlandSandbox, record: Record) -> None:
    keys = record("conv_1", "conv_2", state=State.PROCESSED)
    record("conv_3")
    ran = manage("bland_sms_webhooks", "reprocess", str(keys[1]))
    assert ran == (0, "1 processed, 0 wait, 0 failed\n", "")
    assert [seen["conversation_id"] for seen in sandbox.log] == ["conv_2"]


def test_reprocess__what_was_just_copied_waits(sandbox: BlandSandbox, record: Record) -> None:
    [key] = record("conv_1")
    manage("bland_sms_work", "--once")
    ran = manage("bland_sms_webhooks", "reprocess", str(key))
    assert ran == (0, "0 processed, 1 wait, 0 failed\n", "")
    assert len(sandbox.log) == 1
    assert states() == ["received"]


def test_reprocess__that_fails_again(sandbox: BlandSandbox, record: Record) -> None:
    [key] = record("conv_1", state=State.FAILED)
    sandbox.faults.add("conv_1", "400")
    ran = manage("bland_sms_webhooks", "reprocess", "--failed", str(key), "4711")
    assert ran.code == 1
    assert ran.out == "0 processed, 0 wait, 1 failed\n"
    assert ran.err.splitlines() == [
        "there is no delivery 4711",
        "conv_1: INVALID_IS_ACTIVE_VALUE: Bland refused it (400 INVALID_IS_ACTIVE_VALUE)",
    ]


def test_reprocess__without_a_key(sandbox: BlandSandbox, record: Record, set_bland: Any) -> None:
    set_bland(API_KEY="")
    record("conv_1", state=State.FAILED)
    ran = manage("bland_sms_webhooks", "reprocess", "--failed")
    assert ran.code == 1
    assert "API_KEY" in ran.err


def test_reprocess__in_portions(
    sandbox: BlandSandbox, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bland_sms.management.commands.bland_sms_webhooks.ROWS_PER_STATEMENT", 2)
    record(*[f"conv_{number}" for number in range(5)], state=State.FAILED)
    assert manage("bland_sms_webhooks", "reprocess", "--failed").out.startswith("5 processed")


def test_reprocess__which_ones(db: None) -> None:
    assert manage("bland_sms_webhooks", "reprocess").code == 2


@pytest.mark.parametrize("arguments", [[], ["reprocess", "x"], ["replay"]])
def test_webhooks_command__wrong_usage(arguments: list[str]) -> None:
    with pytest.raises(CommandError):
        call_command("bland_sms_webhooks", *arguments)


def test_webhooks_command__wrong_usage_as_a_process() -> None:
    assert process("bland_sms_webhooks", "reprocess", "x").code == 2


# --- admin ------------------------------------------------------------------------------------


@pytest.fixture
def log_in(client: Client) -> Callable[..., Client]:
    """A member of staff with these permissions and no others."""

    def log_in(*codenames: str) -> Client:
        user = get_user_model().objects.create_user("mona", password="x", is_staff=True)
        found = Permission.objects.filter(codename__in=codenames)
        assert len(found) == len(codenames)
        user.user_permissions.set(found)
        client.force_login(user)
        return client

    return log_in


def choose(client: Client, keys: list[int]) -> str:
    data = {"action": "reprocess_selected", "_selected_action": keys}
    return client.post(LIST, data, follow=True).content.decode()


def test_list__shows_deliveries(
    sandbox: BlandSandbox, record: Record, admin_client: Client
) -> None:
    Conversation.objects.create(pk="conv_1")
    record("conv_1", kind="status", status="ended", reason="<b>End</b> node", error="no_answer")
    record("conv_unknown", state=State.FAILED, attempts=8)
    html = admin_client.get(LIST).content.decode()
    assert '<a href="/admin/bland_sms/conversation/conv_5F1/change/">conv_1</a>' in html
    assert ">conv_unknown</a>" not in html
    assert "conv_unknown" in html
    assert "&lt;b&gt;End&lt;/b&gt; node" in html
    assert "Bland did not answer in time" in html
    assert "Waiting" in html


def test_list__filter_and_search(
    sandbox: BlandSandbox, record: Record, admin_client: Client
) -> None:
    record("conv_1", state=State.PROCESSED)
    record("conv_2", state=State.FAILED)
    html = admin_client.get(LIST, {"state__exact": "failed"}).content.decode()
    assert ("conv_2" in html, "conv_1" in html) == (True, False)
    html = admin_client.get(LIST, {"q": "conv_1"}).content.decode()
    assert ("conv_2" in html, "1 webhook delivery" in html) == (False, True)
    html = admin_client.get(LIST, {"q": " conv_1 conv_2, conv_3 "}).content.decode()
    assert "2 webhook deliveries" in html


@pytest.mark.parametrize("text", ["1 " * 10_000, " " * 20_000, "conv_1 " * 300, "(" * 20_000])
def test_list__search_of_any_length(text: str, record: Record, admin_client: Client) -> None:
    """Django's own search is a condition for each word: more than a database takes."""
    record("conv_1")
    began = time.process_time()
    assert admin_client.get(LIST, {"q": text}).status_code == 200
    assert time.process_time() - began < 5


def test_list__flat_cost(
    sandbox: BlandSandbox, record: Record, admin_client: Client, django_assert_num_queries: Any
) -> None:
    admin_client.get(LIST)
    for number in (1, 50):
        record(*[f"conv_{number}" for number in range(number)])
        Conversation.objects.bulk_create(
            [Conversation(pk=f"conv_{number}") for number in range(number)],
            ignore_conflicts=True,
        )
        with django_assert_num_queries(5):
            admin_client.get(LIST)


def test_page__is_read_only(sandbox: BlandSandbox, record: Record, admin_client: Client) -> None:
    [key] = record("conv_1", kind="status", status="ended", reason="End node")
    html = admin_client.get(f"{LIST}{key}/change/").content.decode()
    assert "End node" in html
    assert 'name="_save"' not in html
    assert admin_client.get(f"{LIST}add/").status_code == 403
    assert admin_client.post(f"{LIST}{key}/delete/", {"post": "yes"}).status_code == 403
    assert WebhookDelivery.objects.count() == 1


@pytest.mark.parametrize("address", [LIST, f"{LIST}%d/change/"])
def test_list__reason_is_text_of_people(
    address: str, sandbox: BlandSandbox, record: Record, log_in: Any
) -> None:
    [key] = record("conv_1", reason="Minka said bye")
    client = log_in("view_webhookdelivery")
    address = address.replace("%d", str(key))
    assert "Minka" not in client.get(address).content.decode()
    assert client.get(address).status_code == 200


def test_reprocess_selected(sandbox: BlandSandbox, record: Record, admin_client: Client) -> None:
    keys = record("conv_1", "conv_2", state=State.FAILED)
    html = choose(admin_client, keys)
    assert "2 deliveries processed." in html
    assert states() == ["processed", "processed"]
    assert Conversation.objects.count() == 2
    assert "2 deliveries wait" in choose(admin_client, keys)


def test_reprocess_selected__trouble(
    sandbox: BlandSandbox, record: Record, admin_client: Client
) -> None:
    keys = record("conv_1", "conv_2", state=State.FAILED)
    sandbox.faults.add("conv_1", "422")
    html = choose(admin_client, keys)
    assert "1 delivery processed." in html
    assert "Not copied: conv_1: Bland refused it (HTTP 422)" in html
    sandbox.faults.add("*", "forever:401")
    WebhookDelivery.objects.update(asked_at=None)
    assert "Nothing else was tried: Bland refused the key (401)" in choose(admin_client, keys)


def test_reprocess_selected__names_nobody(
    sandbox: BlandSandbox, record: Record, admin_client: Client
) -> None:
    assert "Nothing to process" in choose(admin_client, record("", state=State.IGNORED))
    assert states() == ["ignored"]


def test_reprocess_selected__too_many(
    sandbox: BlandSandbox, record: Record, admin_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bland_sms.admin.deliveries.REPROCESS_LIMIT", 2)
    assert "Process at most 2 deliveries again" in choose(
        admin_client, record("conv_1", "conv_2", "conv_3")
    )
    assert not sandbox.log


@pytest.mark.parametrize("may", [False, True])
def test_reprocess_selected__takes_its_permission(
    may: bool, sandbox: BlandSandbox, record: Record, log_in: Any
) -> None:
    keys = record("conv_1", state=State.FAILED)
    client = log_in("view_webhookdelivery", *(["reprocess_webhookdelivery"] if may else []))
    assert ("reprocess_selected" in client.get(LIST).content.decode()) is may
    choose(client, keys)
    assert states() == ["processed" if may else "failed"]


@pytest.mark.parametrize(
    "query", ["q=%00", "q=conv%00", "state__exact=%00", "state=%00", "o=%00", "p=%00", "id=%00"]
)
def test_list__nul_in_the_address(query: str, db: None, admin_client: Client) -> None:
    assert admin_client.get(f"{LIST}?{query}", follow=True).status_code in (200, 400)


@pytest.mark.parametrize("key", ["\0", "1\0", "x", ""])
def test_list__posted_key_that_no_row_has(key: str, db: None, admin_client: Client) -> None:
    data = {"action": "reprocess_selected", "_selected_action": [key]}
    assert admin_client.post(LIST, data, follow=True).status_code == 400


def test_list__takes_its_permission(sandbox: BlandSandbox, log_in: Any) -> None:
    client = log_in("reprocess_webhookdelivery")
    assert client.get(LIST).status_code == 403


def test_actions__each_names_a_permission() -> None:
    model_admin = admin.site.get_model_admin(WebhookDelivery)
    for name in model_admin.actions or ():
        assert getattr(model_admin, str(name)).allowed_permissions == ["reprocess"]

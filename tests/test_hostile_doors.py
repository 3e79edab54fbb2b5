"""Every door against answers that Bland would never give: four laws.

No lie: an item is told as done only where Bland said so. No error of our own: no page answers with
500. Other rows go on. No secret, and no number or address outside the columns made for them.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice
from typing import Any

import pytest
from django.contrib.auth.models import AbstractUser
from django.db.models import Model
from django.test import Client

from bland_sms import tasks, webhooks
from bland_sms.dispatching import UnfinishedError
from bland_sms.models import (
    BulkUpdate,
    BulkUpdateItem,
    Conversation,
    OwedLook,
    SyncRun,
    WebhookDelivery,
)
from bland_sms.sandbox import BlandSandbox
from bland_sms.updates import prepare, start

from . import hostile
from .conftest import KEY
from .test_commands import manage
from .test_hostile import has_person

pytestmark = [
    pytest.mark.slow,
    pytest.mark.django_db,
    pytest.mark.usefixtures("no_waiting"),
]

SECRET = "whsec_a_secret_of_ours"
ADMIN, API = "/admin/bland_sms", "/bland-sms/api/v1"
ANSWERS = 25
"""For each door, by a seed of its own."""
SLOW = ("length -5", "length 1e3", "length 9", "bytes of", "2000000 times", "290000 times")
"""What only takes long: its client test is enough."""
KEEPING = (BulkUpdate, BulkUpdateItem, SyncRun, WebhookDelivery, OwedLook)
STOPPING = {"http_401", "http_403", "http_404", "AUTH_FAILURE", "redirected", "outage"}
CONFIRMS = re.compile(rb"\"is_active\":\s*false")
Door = Callable[["Desk"], str]


class Desk:
    """Staff in front of an account of two conversations: one that Bland answers oddly for."""

    def __init__(self, bland: BlandSandbox, browser: Client) -> None:
        self.bland, self.browser = bland, browser

    def post(self, address: str, data: Any = None, **options: Any) -> str:
        """Post, follow, and give all that was shown."""
        response = self.browser.post(address, data or {}, follow=True, **options)
        assert response.status_code != 500, address
        return response.content.decode()

    def get(self, address: str) -> str:
        response = self.browser.get(address)
        assert response.status_code != 500, address
        body = b"".join(response) if response.streaming else response.content
        return body.decode()


@pytest.fixture
def desk(sandbox: BlandSandbox, set_bland: Any, staff: AbstractUser, client: Client) -> Desk:
    set_bland(READ_TIMEOUT=1, RATE_LIMIT=10_000, WEBHOOK_SECRETS=[SECRET], MAX_CONCURRENCY=2)
    client.force_login(staff)
    client.raise_request_exception = True
    return Desk(sandbox, client)


# --- the doors: each asks Bland about conv_1, most of them about conv_2 as well ---------------


def button(desk: Desk) -> str:
    return desk.post(f"{ADMIN}/conversation/conv_5F1/deactivate/")


def action(desk: Desk) -> str:
    form = {"action": "deactivate_selected", "_selected_action": ["conv_1", "conv_2"]}
    return desk.post(f"{ADMIN}/conversation/", form)


def worker(desk: Desk) -> str:
    update = prepare(["conv_1", "conv_2"], False)
    start(update)
    with suppress(UnfinishedError):  # it says so where an item waits, and there is no other worker
        tasks.work("update", update.pk)
    return ""


def work_command(desk: Desk) -> str:
    start(prepare(["conv_1", "conv_2"], False))
    ran = manage("bland_sms_work", "--once")
    return ran.out + ran.err


def update_command(desk: Desk) -> str:
    ran = manage("bland_sms_update", "--deactivate", "conv_1", "conv_2")
    return ran.out + ran.err


def refresh_button(desk: Desk) -> str:
    return desk.post(f"{ADMIN}/conversation/conv_5F1/refresh/")


def refresh_action(desk: Desk) -> str:
    form = {"action": "refresh_selected", "_selected_action": ["conv_1", "conv_2"]}
    return desk.post(f"{ADMIN}/conversation/", form)


def api_patch(desk: Desk) -> str:
    address = f"{API}/conversations/conv_1/"
    body = json.dumps({"is_active": False})
    response = desk.browser.patch(address, body, content_type="application/json")
    assert response.status_code != 500
    if response.status_code >= 400:
        assert response.json()["code"], response.content
    return response.content.decode()


def api_refresh(desk: Desk) -> str:
    return desk.post(f"{API}/conversations/conv_1/refresh/", content_type="application/json")


def webhook(desk: Desk) -> str:
    body = json.dumps({"conversation_id": "conv_1", "type": "status", "status": "ended"}).encode()
    signature = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    response = desk.browser.post(
        "/bland-sms/webhook/",
        body,
        content_type="application/json",
        headers={"X-Webhook-Signature": signature},
    )
    assert response.status_code == 200
    webhooks.process_waiting()
    return response.content.decode()


def sync_command(desk: Desk) -> str:
    ran = manage("bland_sms_sync", "--full", "--messages")
    return ran.out + ran.err


def sync_button(desk: Desk) -> str:
    return desk.post(f"{ADMIN}/conversation/sync/")


UPDATING = (button, action, worker, work_command, update_command, api_patch)
READING = (refresh_button, refresh_action, api_refresh, webhook, sync_command, sync_button)
TWO_ROWS = (action, worker, work_command, update_command)


def answers(door: Door, conversation_id: str = "conv_1") -> Iterator[hostile.Hostile]:
    seed = sum(map(ord, door.__name__))
    usable = (
        answer
        for answer in hostile.answers(seed=seed, conversation_id=conversation_id)
        if not any(words in answer.description for words in SLOW)
    )
    return islice(usable, ANSWERS)


def account(desk: Desk) -> None:
    """Two active conversations at Bland and here, and nothing else."""
    for model in (*KEEPING, Conversation):
        model._default_manager.all().delete()
    desk.bland.faults.clear()
    desk.bland.account.rows.clear()
    for name in ("conv_1", "conv_2"):
        desk.bland.account.add({"id": name, "is_active": True})
        Conversation.objects.create(pk=name, is_active=True)


def kept(models: tuple[type[Model], ...] = KEEPING) -> str:
    return json.dumps([list(model._default_manager.values()) for model in models], default=str)


def check_words(words: str, about: str) -> None:
    assert not hostile.pieces_of(KEY, words), about
    assert not has_person(words), about


def pages_of_updates(desk: Desk) -> str:
    shown = desk.get(f"{ADMIN}/bulkupdate/")
    for update in BulkUpdate.objects.all():
        shown += desk.get(f"{ADMIN}/bulkupdate/{update.pk}/change/")
        shown += desk.get(f"{ADMIN}/bulkupdate/{update.pk}/results.csv")
        shown += desk.get(f"{API}/bulk-updates/{update.pk}/items/")
    return shown


@pytest.mark.parametrize("door", UPDATING, ids=lambda door: door.__name__)
def test_hostile__updates(door: Door, desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for answer in answers(door):
        account(desk)
        about = f"{door.__name__}: {answer.description}"
        desk.bland.faults.add("PATCH conv_1", *[answer.fault] * 3)
        shown = door(desk) + pages_of_updates(desk)
        check_words(shown, about)
        check_words(kept(), about)
        check_words(caplog.text, about)
        caplog.clear()
        update = BulkUpdate.objects.get()
        states = dict(update.items.values_list("conversation_id", "state"))
        if states["conv_1"] in ("changed", "unchanged"):
            said_so = 200 <= answer.status < 300 and CONFIRMS.search(answer.body)
            is_so = not desk.bland.account.rows["conv_1"]["is_active"]
            assert said_so or is_so, about
        if door in TWO_ROWS and states["conv_2"] != "changed":
            assert update.status == "stopped", (about, states, update.stop_code)
            assert answer.status in (301, 302, 304, 307, 308, 401, 403, 404, 300), about
        assert "running" not in states.values(), about


@pytest.mark.parametrize("door", READING, ids=lambda door: door.__name__)
def test_hostile__reading(door: Door, desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for answer in answers(door):
        account(desk)
        about = f"{door.__name__}: {answer.description}"
        target = "GET list" if door in (sync_command, sync_button) else "GET conv_1"
        desk.bland.faults.add(target, *[answer.fault] * 3)
        shown = door(desk)
        check_words(shown, about)
        check_words(kept(), about)
        check_words(caplog.text, about)
        caplog.clear()
        for name in ("conv_1", "conv_2"):
            desk.get(f"{ADMIN}/conversation/{name.replace('_', '_5F')}/change/")
            desk.get(f"{API}/conversations/{name}/")
        assert not hostile.pieces_of(KEY, kept((Conversation,))), about
        if door is refresh_action and answer.status not in (401, 403, 404, *range(300, 309)):
            row = Conversation.objects.get(pk="conv_2")
            assert row.transcript_observed_at is not None, about
        desk.bland.faults.clear()
        if door in (sync_command, sync_button):  # nothing that Bland said holds up the next one
            assert manage("bland_sms_sync", "--full").code == 0, about


@pytest.mark.parametrize("door", [refresh_button, webhook], ids=lambda door: door.__name__)
def test_hostile__later_work_has_its_turn(door: Door, desk: Desk) -> None:
    """What came before is odd; what comes after is carried out all the same."""
    for answer in islice(answers(worker), 12):
        account(desk)
        desk.bland.faults.add("conv_1", *[answer.fault] * 6)
        door(desk)
        start(prepare(["conv_1"], False))
        desk.bland.faults.clear()
        desk.bland.faults.add("PATCH conv_1", *[answer.fault] * 3)
        start(prepare(["conv_2"], False))
        manage("bland_sms_work", "--once")
        item = BulkUpdateItem.objects.get(conversation="conv_2")
        assert item.state == "changed", answer.description

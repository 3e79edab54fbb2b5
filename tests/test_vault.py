"""A key that a callable returns, as from a vault: how often it is called, and when it fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import AbstractUser
from django.test import Client
from django.urls import reverse

from bland_sms.models import BulkUpdate, Conversation
from bland_sms.sandbox import BlandSandbox

from .conftest import KEY

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("no_waiting")]
LIST = reverse("admin:bland_sms_conversation_changelist")


class Vault:
    """Counts how often it is asked; ``is_down``: it raises."""

    def __init__(self) -> None:
        self.calls = 0
        self.is_down = False

    def __call__(self) -> str:
        self.calls += 1
        if self.is_down:
            raise ConnectionError(f"no vault, no {KEY}")
        return KEY


@pytest.fixture
def vault(sandbox: BlandSandbox, copied: Callable[..., list[str]], set_bland: Any) -> Vault:
    copied(2)
    vault = Vault()
    set_bland(API_KEY=vault, WEBHOOK_SECRETS=["whsec_0123456789"])
    return vault


@pytest.fixture
def desk(client: Client, staff: AbstractUser) -> Client:
    client.force_login(staff)
    return client


READ = {
    "list": LIST,
    "conversation": f"{LIST}conv_0000/change/",
    "updates": reverse("admin:bland_sms_bulkupdate_changelist"),
    "runs": reverse("admin:bland_sms_syncrun_changelist"),
    "deliveries": reverse("admin:bland_sms_webhookdelivery_changelist"),
    "transcript": f"{LIST}conv_0000/transcript.txt",
    "api list": "/bland-sms/api/v1/conversations/",
    "api": "/bland-sms/api/v1/conversations/conv_0000/",
    "health": "/bland-sms/health/",
}


@pytest.mark.parametrize("is_down", [False, True], ids=["up", "down"])
@pytest.mark.parametrize("address", READ.values(), ids=READ.keys())
def test_vault__reading_asks_it_nothing(
    address: str, is_down: bool, vault: Vault, desk: Client
) -> None:
    vault.is_down = is_down

    assert desk.get(address).status_code in (200, 503 if "health" in address else 200)

    assert vault.calls == 0


def test_vault__anonymous_health_and_unsigned_webhooks_ask_it_nothing(
    vault: Vault, client: Client
) -> None:
    client.get("/bland-sms/health/")
    body = b'{"conversation_id": "conv_0000"}'
    answer = client.post("/bland-sms/webhook/", body, content_type="application/json")

    assert (answer.status_code, vault.calls) == (401, 0)


def test_vault__one_call_for_a_click(vault: Vault, desk: Client) -> None:
    data = {"action": "deactivate_selected", "_selected_action": ["conv_0000", "conv_0001"]}
    answer = desk.post(LIST, data, follow=True)

    assert answer.status_code == 200
    assert not Conversation.objects.filter(is_active=True).exists()
    assert vault.calls == 1


def test_vault__one_call_for_a_patch(vault: Vault, desk: Client) -> None:
    answer = desk.patch(READ["api"], {"is_active": False}, content_type="application/json")

    assert (answer.status_code, answer.json()["is_active"]) == (200, False)
    assert vault.calls == 1


def test_vault__one_call_for_a_refresh(vault: Vault, desk: Client) -> None:
    desk.post(f"{LIST}conv_0000/refresh/", follow=True)

    assert vault.calls == 1


def test_vault__down_is_a_sentence_on_the_page(vault: Vault, desk: Client) -> None:
    vault.is_down = True
    data = {"action": "deactivate_selected", "_selected_action": ["conv_0000"]}

    pages = [
        desk.post(LIST, data, follow=True),
        desk.post(f"{LIST}conv_0000/refresh/", follow=True),
    ]

    for page in pages:
        html = page.content.decode()
        assert page.status_code == 200
        assert "This site is not connected to Bland" in html
        assert "API_KEY" not in html
        assert KEY not in html
    update = BulkUpdate.objects.get()
    assert (update.status, update.counts()["waiting"]) == ("stopped", 1)


def test_vault__down_is_no_server_error_of_the_api(vault: Vault, desk: Client) -> None:
    vault.is_down = True

    answers = [
        desk.patch(READ["api"], {"is_active": False}, content_type="application/json"),
        desk.post(f"{READ['api']}refresh/"),
    ]

    for answer in answers:
        assert (answer.status_code, answer.json()["code"]) == (503, "not_configured")
        assert KEY not in answer.content.decode()

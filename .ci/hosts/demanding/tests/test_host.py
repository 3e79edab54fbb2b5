"""What a host sees of the app it installed."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
from typing import Any

import pytest
from django.conf import settings
from django.contrib.admin.models import LogEntry
from django.contrib.admin.utils import quote
from django.core.management import call_command
from django.test import Client
from people.models import Person
from rest_framework.authtoken.models import Token
from shop.models import Ticket

from bland_sms import signals, updates
from bland_sms.models import BulkUpdate, Conversation
from bland_sms.sandbox import BlandSandbox, FakeBland
from bland_sms.sync import refresh

pytestmark = pytest.mark.django_db
SITES = ["/office/admin/", "/office/support/"]
TRIED_SITES = SITES[:1] if settings.THEME == "unfold" else SITES  # it knows no plain AdminSite


@pytest.fixture
def person() -> Person:
    return Person.objects.create_superuser("dana@example.com", "secret-enough")


@pytest.fixture
def browser(person: Person) -> Client:
    client = Client()
    client.force_login(person)
    return client


@pytest.fixture
def copied(fake_bland: FakeBland) -> list[str]:
    """Conversations at Bland and in the mirror."""
    ids = [fake_bland.add(messages=[{"message": "שלום"}]) for _ in range(3)]
    for conversation_id in ids:
        refresh(conversation_id)
    return ids


@pytest.mark.parametrize("site", TRIED_SITES)
def test_admin__every_page(site: str, copied: list[str], browser: Client, person: Person) -> None:
    bulk_update = updates.prepare(copied, is_active=False, requested_by=person)
    pages = [
        "",
        "bland_sms/",
        "bland_sms/conversation/",
        "bland_sms/conversation/?q=0001",
        f"bland_sms/conversation/{quote(copied[0])}/change/",
        f"bland_sms/conversation/{quote(copied[0])}/history/",
        "bland_sms/bulkupdate/",
        f"bland_sms/bulkupdate/{bulk_update.pk}/confirm/",
        f"bland_sms/bulkupdate/{bulk_update.pk}/change/",
        "bland_sms/syncrun/",
        "bland_sms/webhookdelivery/",
    ]
    for page in pages:
        told = browser.get(site + page, follow=True)
        assert told.status_code == 200, page
        text = told.content.decode()
        assert 'dir="rtl"' in text, page
        other = SITES[1 - SITES.index(site)]
        assert f'href="{other}' not in text, page


@pytest.mark.parametrize("site", TRIED_SITES)
def test_admin__action_under_atomic_requests(
    site: str, copied: list[str], browser: Client, person: Person, fake_bland: FakeBland
) -> None:
    told = browser.post(
        f"{site}bland_sms/conversation/",
        {"action": "deactivate_selected", "_selected_action": copied[:2]},
        follow=True,
    )

    assert told.status_code == 200
    assert [fake_bland.is_active(one) for one in copied] == [False, False, True]
    assert Conversation.objects.filter(is_active=False).count() == 2
    assert BulkUpdate.objects.get().requested_by == person
    assert BulkUpdate.objects.get().requested_by_name == "dana@example.com"
    assert LogEntry.objects.filter(user=person).count() == 2


def test_admin__own_column_filter_and_action(copied: list[str], browser: Client) -> None:
    Ticket.objects.filter(conversation=copied[0]).update(is_open=False)
    page = "/office/admin/bland_sms/conversation/"

    listed = browser.get(page, {"ticket__is_open__exact": "0"}).content.decode()
    assert "field-has_open_ticket" in listed
    assert listed.count('name="_selected_action"') == 1

    browser.post(page, {"action": "reopen_tickets", "_selected_action": copied})
    assert not Ticket.objects.filter(is_open=False).exists()


def test_admin__own_column_costs_no_query_per_row(
    fake_bland: FakeBland, browser: Client, django_assert_max_num_queries: Any
) -> None:
    for _ in range(30):
        refresh(fake_bland.add())
    with django_assert_max_num_queries(25):
        browser.get("/office/admin/bland_sms/conversation/")


def test_signals__receiver_that_raises_changes_nothing(
    copied: list[str], fake_bland: FakeBland, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(**kwargs: Any) -> None:
        raise ZeroDivisionError("the host's own mistake")

    signals.conversation_changed.connect(fail)
    try:
        with caplog.at_level(logging.ERROR, "bland_sms.signals"):
            bulk_update = updates.prepare(copied, is_active=False)
            updates.start(bulk_update)
            assert updates.run(bulk_update)
    finally:
        signals.conversation_changed.disconnect(fail)

    assert bulk_update.counts()["changed"] == 3
    assert not Ticket.objects.filter(is_open=True).exists()  # the other receiver was called
    assert "the host's own mistake" in caplog.text


def test_commands(fake_bland: FakeBland, capsys: pytest.CaptureFixture[str]) -> None:
    fake_bland.add()
    call_command("check", "--fail-level", "WARNING")
    call_command("makemigrations", "--check", "--dry-run")
    call_command("bland_sms_check")
    call_command("bland_sms_sync")
    call_command("bland_sms_work", "--once")

    assert Conversation.objects.count() == Ticket.objects.count() == 1
    assert "All well" in capsys.readouterr().out


def test_api__with_a_token(copied: list[str], person: Person, fake_bland: FakeBland) -> None:
    token = Token.objects.create(user=person)
    path = f"/office/texts/api/v1/conversations/{copied[0]}/"

    assert Client().get(path).status_code == 401
    client = Client(headers={"Authorization": f"Token {token.key}"})
    told = client.patch(path, json.dumps({"is_active": False}), content_type="application/json")

    assert told.status_code == 200, told.content
    assert told.json()["is_active"] is False
    assert not fake_bland.is_active(copied[0])


def test_webhook(copied: list[str], fake_bland: FakeBland) -> None:
    body = json.dumps({"type": "status", "conversation_id": copied[0], "status": "ended"})
    signature = hmac.new(b"whsec_not_real", body.encode(), hashlib.sha256).hexdigest()

    def ring(signed: str) -> int:
        caller = Client(headers={"X-Webhook-Signature": signed})
        return caller.post("/office/texts/webhook/", body, "application/json").status_code

    assert ring("0" * 64) in (401, 403)
    assert ring(signature) == 200


def test_health() -> None:
    assert Client().get("/office/texts/health/").status_code in (200, 503)


def test_sandbox(bland_sandbox: BlandSandbox) -> None:
    conversation_id = bland_sandbox.add()
    refresh(conversation_id)
    assert Ticket.objects.get().conversation_id == conversation_id

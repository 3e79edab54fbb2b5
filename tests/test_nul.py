"""NUL in every parameter and posted field of every address: refused or ignored, never an error."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import AbstractUser
from django.test import Client

from bland_sms.models import BulkUpdate, SyncRun, WebhookDelivery
from bland_sms.sandbox import BlandSandbox
from bland_sms.sync import refresh
from bland_sms.updates import prepare, run, start
from tests.addresses import Address, addresses

pytestmark = [
    pytest.mark.slow,
    pytest.mark.django_db,
    pytest.mark.usefixtures("no_waiting"),
    pytest.mark.urls("tests.addresses"),
]

ID = "conv_1"
NULS = ("a\0b", "1\0", f"{ID}\0")
PARAMETERS = {
    *("q", "p", "o", "e", "all", "_popup", "_to_field", "_changelist_filters", "next", "at"),
    *("status", "activity", "our_number", "change", "whose", "outcome", "state", "mode"),
    *("status__exact", "state__exact", "status__in", "state__in", "id", "id__exact", "pk__in"),
    *("is_active__exact", "user_number", "agent_number", "conversation_id", "requested_by"),
    *("requested_by__id__exact", "started_at__gte", "received_at__year", "object_id"),
    *("is_active", "updated_after", "search", "cursor", "page_size", "format", "lang"),
}
"""What our pages and Django's own read from an address, and what somebody could try."""
FIELDS = {
    *("action", "_selected_action", "select_across", "index", "reason", "sure", "here", "post"),
    *("_continue", "_save", "_popup", "is_active", "conversation_ids", "nonsense"),
}
LATER = {"Idempotency-Key": "a\0b", "Accept": "text/html\0", "Accept-Language": "es\0"}


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture
def desk(staff: AbstractUser) -> Client:
    browser = Client(raise_request_exception=False)
    browser.force_login(staff)
    return browser


class Rows:
    """One row of each kind; updates as an address needs them."""

    def __init__(self, sandbox: BlandSandbox, owner: AbstractUser) -> None:
        sandbox.account.add({"id": ID, "user_number": "+15550100001"})
        refresh(ID)
        self.owner = owner
        self.done = prepare([ID], False, requested_by=owner)
        start(self.done)
        run(self.done)
        self.sync = SyncRun.objects.create(status="finished")
        self.delivery = WebhookDelivery.objects.create(body_sha256="0" * 64, conversation_id=ID)

    def id_for(self, address: Address) -> object:
        if not address.has_id:
            return ""
        if "conversation" in address.route:
            return ID
        if "confirm" in address.route:
            drafts = BulkUpdate.objects.filter(status="draft")
            return (drafts.first() or prepare([ID], False, requested_by=self.owner)).pk
        if "bulk" in address.route:
            return self.done.pk
        return self.sync.pk if "syncrun" in address.route else self.delivery.pk


@pytest.fixture
def rows(sandbox: BlandSandbox, staff: AbstractUser) -> Rows:
    return Rows(sandbox, staff)


OURS = [address for address in addresses() if address.mount != "second"]


def asserted(response: Any, what: str) -> None:
    content = b"".join(response.streaming_content) if response.streaming else response.content
    assert response.status_code < 500, f"{what}: {response.status_code} {content[:200]!r}"


@pytest.mark.parametrize("address", OURS, ids=lambda address: address.name)
def test_nul__in_a_parameter(address: Address, rows: Rows, desk: Client) -> None:
    url = address.url(rows.id_for(address))
    for place, name in enumerate(sorted(PARAMETERS), OURS.index(address)):
        value = NULS[place % 2]  # the next address gets the other one
        asserted(desk.get(url, {name: value}), f"{url}?{name}={value!r}")
    asserted(desk.get(url, {"a\0b": "1"}), f"{url}, a name")
    asserted(desk.get(url, {"status\0": "1"}), f"{url}, a name")


@pytest.mark.parametrize("address", OURS, ids=lambda address: address.name)
def test_nul__in_a_posted_field(address: Address, rows: Rows, desk: Client) -> None:
    for name in sorted(FIELDS):
        for value in NULS[:1]:
            url = address.url(rows.id_for(address))
            form = {"action": "deactivate_selected", "_selected_action": [ID], name: value}
            if address.mount != "bland-sms":
                asserted(desk.post(url, form), f"POST {url} {name}={value!r}")
                continue
            for method in ("POST", "PATCH"):
                for body in ({name: value}, {name: [value]}, {"is_active": False, name: value}):
                    text = json.dumps(body)
                    response = desk.generic(method, url, text, "application/json")
                    asserted(response, f"{method} {url} {text}")
    url = address.url(rows.id_for(address))
    for name, value in LATER.items():
        asserted(desk.get(url, headers={name: value}), f"{url} {name}")
    body = json.dumps({"is_active": False, "conversation_ids": [ID]})
    for name, value in LATER.items():
        response = desk.post(url, body, "application/json", headers={name: value})
        asserted(response, f"POST {url} {name}")
    asserted(desk.post(url, {"a\0b": "\0"}), f"POST {url}, a name")


@pytest.mark.parametrize("address", OURS, ids=lambda address: address.name)
def test_nul__in_the_address_itself(address: Address, rows: Rows, desk: Client) -> None:
    for junk in NULS if address.has_id else ():
        url = address.url(junk, is_junk=True)
        for method in ("GET", "POST", "PATCH"):
            asserted(desk.generic(method, url), f"{method} {url}")


def test_nul__in_the_reason_is_refused_in_words(rows: Rows, desk: Client) -> None:
    draft = prepare([ID], True, requested_by=rows.owner)
    url = f"/admin/bland_sms/bulkupdate/{draft.pk}/confirm/"
    response = desk.post(url, {"reason": "because\0"})
    assert response.status_code == 200
    assert "Null characters are not allowed" in response.content.decode()
    draft.refresh_from_db()
    assert draft.status == BulkUpdate.Status.DRAFT


@pytest.mark.parametrize("name", ["search", "user_number", "agent_number", "status"])
def test_nul__in_a_filter_of_the_api_is_refused_by_name(
    name: str, rows: Rows, desk: Client
) -> None:
    """On every database: SQLite would look for it and find nothing."""
    response = desk.get("/bland-sms/api/v1/conversations/", {name: "1234\0"})
    assert response.status_code == 400
    assert list(response.json()["fields"]) == [name]


def test_nul__in_the_api_is_refused(rows: Rows, desk: Client) -> None:
    wish = {"is_active": False, "conversation_ids": [ID], "reason": "a\0b"}
    response = desk.post("/bland-sms/api/v1/bulk-updates/", json.dumps(wish), "application/json")
    assert response.status_code == 400

"""What a webhook costs until it is recorded: one statement, which is a transaction by itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from bland_sms.models import Conversation, WebhookDelivery
from bland_sms.signals import webhook_received
from bland_sms.webhooks import receive, view

from .test_webhooks import SECRET, post

Told = dict[str, Any]
ENDED: Told = {"conversation_id": "conv_1", "type": "status", "status": "ended"}
MESSAGE: Told = {"conversation_id": "conv_1", "sender": "USER", "message": "hello"}


def queue(kind: str, pk: int) -> None:
    pass


@pytest.fixture
def statements(settings: Any) -> Callable[[Told], list[str]]:
    """Post a webhook that a queue takes over; the statements that it costs."""
    settings.BLAND_SMS = {"WEBHOOK_SECRETS": [SECRET], "DISPATCH": f"{__name__}.queue"}
    view.throttle.fill()

    def run(told: Told) -> list[str]:
        with CaptureQueriesContext(connection) as captured:
            assert post(json.dumps(told).encode()).status_code == 200
        return [query["sql"] for query in captured.captured_queries]

    return run


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "told",
    [MESSAGE, ENDED, {**ENDED, "reason": "End node"}, {"type": "status"}],
    ids=["message", "status", "reason", "without a conversation"],
)
def test_webhook__new_one_is_one_statement(
    told: Told, statements: Callable[[Told], list[str]]
) -> None:
    made = statements(told)
    assert len(made) == 1, made
    assert made[0].startswith("INSERT")
    delivery = WebhookDelivery.objects.get()
    assert delivery.reason == told.get("reason", "")

    again = statements(told)
    assert len(again) == 2, again  # refused by the database, and whether it was given up
    assert WebhookDelivery.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_webhook__calls_of_a_day_are_one_statement_each(
    statements: Callable[[Told], list[str]],
) -> None:
    statements({"call_id": "call_1"})
    assert len(statements({"call_id": "call_2"})) == 1
    assert WebhookDelivery.objects.get().count == 2


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("is_erased", [True, False])
def test_webhook__reason_of_an_erased_conversation_is_not_kept(
    is_erased: bool, statements: Callable[[Told], list[str]]
) -> None:
    heard: list[str] = []

    def hear(delivery: WebhookDelivery, **kwargs: Any) -> None:
        heard.append(delivery.reason)

    Conversation.objects.create(id="conv_1", erased_at=timezone.now() if is_erased else None)
    webhook_received.connect(hear)
    try:
        statements({**ENDED, "reason": "Said 100% no"})
    finally:
        webhook_received.disconnect(hear)
    expected = "" if is_erased else "Said 100% no"
    assert WebhookDelivery.objects.get().reason == expected
    assert heard == [expected]


@pytest.mark.django_db(transaction=True)
def test_receive__repeated_within_a_transaction() -> None:
    """A host may call it within one of its own, which goes on."""
    with transaction.atomic():
        assert receive(b"1", MESSAGE) is not None
        assert receive(b"1", MESSAGE) is None
        assert receive(b"2", MESSAGE) is not None
    assert WebhookDelivery.objects.count() == 2

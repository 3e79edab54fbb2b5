"""Customers who write STOP, and the rule that makes an order of it."""

from __future__ import annotations

import json
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from bland_sms import standing
from bland_sms.models import BulkUpdate, Conversation, ConversationEvent, StandingOrder
from bland_sms.sandbox import FakeBland
from bland_sms.stop_words import asks_to_stop, stop_words
from bland_sms.sync import refresh

CUSTOMER = "+15550107001"


@pytest.mark.parametrize(
    "text",
    ["stop", "STOP", " Stop! ", "opt out", "Opt-Out.", "OPTOUT", "ｓｔｏｐ", "end", "Unsubscribe"],
)
def test_asks_to_stop(text: str) -> None:
    assert asks_to_stop(text, stop_words())


@pytest.mark.parametrize("text", ["", "!", "stop it please", "don't stop", "ende", "x" * 100_000])
def test_asks_to_stop__not(text: str) -> None:
    assert not asks_to_stop(text, stop_words())


def test_asks_to_stop__words_of_the_host(settings: Any) -> None:
    settings.BLAND_SMS = {**settings.BLAND_SMS, "STOP_WORDS": ["Alto", "ARRÊT"]}

    assert asks_to_stop("arrêt.", stop_words())
    assert not asks_to_stop("stop", stop_words())


@pytest.mark.django_db
def test_event_and_filter(fake_bland: FakeBland, client: Client, staff: Any) -> None:
    asked = fake_bland.customer_texts(CUSTOMER, "Stop!")
    other = fake_bland.customer_texts("+15550107002", "stop the music")
    for one in (asked, other, asked):
        refresh(one)

    event = ConversationEvent.objects.get(kind="asked_to_stop")
    assert event.conversation_id == asked
    client.force_login(staff)
    url = reverse("admin:bland_sms_conversation_changelist")
    listed = client.get(url, {"asked_to_stop": "yes"}).context_data["cl"].result_list  # type: ignore[attr-defined]
    assert [row.pk for row in listed] == [asked]
    assert not StandingOrder.objects.exists(), "the rule is off"


@pytest.mark.django_db
def test_rule__makes_an_order_for_review(fake_bland: FakeBland, settings: Any, staff: Any) -> None:
    settings.BLAND_SMS = {**settings.BLAND_SMS, "STOP_WORDS_ORDER": True}
    asked = fake_bland.customer_texts(CUSTOMER, "Opt-OUT!")

    refresh(asked)
    standing.carry_out_waiting()

    order = StandingOrder.objects.get()
    assert (order.source, order.needs_review, order.customer) == ("rule", True, CUSTOMER)
    assert not fake_bland.is_active(asked)
    moment = ConversationEvent.objects.get(kind="asked_to_stop").at
    assert order.reason == f"The customer wrote “opt out”, {moment:%Y-%m-%d %H:%M} UTC"
    standing.lift(order, staff)
    fake_bland.customer_texts(CUSTOMER, "hello again")
    refresh(asked)
    assert StandingOrder.objects.count() == 1, "not made again of the same message"


# --- bland_sms_update --where ---------------------------------------------------------------------


def where(filters: str, *more: str) -> Any:
    out = StringIO()
    call_command(
        "bland_sms_update", "--deactivate", "--where", filters, "--json", *more, stdout=out
    )
    return json.loads(out.getvalue())


@pytest.mark.django_db
def test_where__deactivates_what_is_long_idle(fake_bland: FakeBland) -> None:
    ids = [fake_bland.add(user_number=f"+1555010700{n}") for n in range(3)]
    for one in ids:
        refresh(one)
    long_ago = timezone.now() - timedelta(days=91)
    Conversation.objects.filter(pk__in=ids[:2]).update(last_activity_at=long_ago)
    filters = "status=active&last_activity=older90"

    tried = where(filters, "--dry-run")
    assert tried == {"count": 2, "ids": ids[:2]}
    assert not BulkUpdate.objects.exists()
    done = where(filters)

    assert done["counts"]["changed"] == 2
    assert BulkUpdate.objects.get().selection == filters
    assert where(filters) == {"count": 0, "ids": []}


@pytest.mark.django_db
def test_where__dry_run_names_ten(fake_bland: FakeBland) -> None:
    for n in range(12):
        refresh(fake_bland.add(user_number=f"+15550107{n:03d}"))

    tried = where("status=active", "--dry-run")

    assert (tried["count"], len(tried["ids"])) == (12, 10)
    assert fake_bland.requests("PATCH") == []


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("filters", "words"),
    [
        ("stats=active", "did you mean 'status'"),
        ("status=on", "none of active"),
        ("last_activity=90", "none of 24h"),
        ("status=active&status=inactive", "more than once"),
        ("", "no filter"),
    ],
)
def test_where__refused(filters: str, words: str) -> None:
    with pytest.raises(CommandError) as caught:
        where(filters)

    assert words in str(caught.value)
    assert caught.value.returncode == 2

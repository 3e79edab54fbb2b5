"""The rule that makes an order of a customer's request to stop: when, and which one."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone

from bland_sms import standing
from bland_sms.client.clock import note_date
from bland_sms.models import Conversation, ConversationEvent, Message, StandingOrder
from bland_sms.standing import rule

pytestmark = pytest.mark.django_db
HOUR, MILLISECOND = timedelta(hours=1), timedelta(milliseconds=1)
CUSTOMER = "+15550107001"


@pytest.fixture
def switched_on(set_bland: Callable[..., None]) -> None:
    set_bland(STOP_WORDS_ORDER=True)


def asked(
    ago: timedelta = HOUR, number: str = CUSTOMER, pk: str = "", kind: str = "asked_to_stop"
) -> Conversation:
    """A conversation in which the customer asked to stop so long ago."""
    moment = standing.rows.to_milliseconds(timezone.now() - ago)
    row = Conversation(pk=pk or f"c{number}", user_number=number, is_active=True, updated_at=moment)
    row.derive()
    row.save()
    ConversationEvent.objects.create(
        conversation=row, kind=kind, at=moment, observed_at=moment, source=1
    )
    return row


@pytest.mark.parametrize(
    ("ago", "kind", "is_on", "is_made"),
    [
        (HOUR, "asked_to_stop", True, True),
        (HOUR, "asked_to_stop", False, False),
        (HOUR, "timed_out", True, False),
        (23.9 * HOUR, "asked_to_stop", True, True),
        (24.1 * HOUR, "asked_to_stop", True, False),  # before the copy, or the rule
    ],
)
def test_rule__of_which_requests(
    ago: timedelta, kind: str, is_on: bool, is_made: bool, set_bland: Callable[..., None]
) -> None:
    set_bland(STOP_WORDS_ORDER=is_on)
    row = asked(ago, kind=kind)
    asked(number="+15550107002")  # which is not among the rows

    standing.look_for_stop_words([row])

    expected = {
        "customer_key": "15550107001",
        "starts_at": row.updated_at - MILLISECOND,
        "source": "rule",
        "needs_review": True,
        "requested_by_name": "rule",
    }
    assert list(StandingOrder.objects.values(*expected)) == [expected] * is_made


@pytest.mark.usefixtures("switched_on")
def test_rule__a_day_by_blands_clock() -> None:
    """Which is behind by half an hour."""
    now = timezone.now()
    note_date(now, now - HOUR / 2)
    row = asked(24.1 * HOUR)
    standing.look_for_stop_words([row])
    note_date(now, now)
    assert StandingOrder.objects.exists()


@pytest.mark.usefixtures("switched_on")
@pytest.mark.parametrize(
    "number", ["5550107001", "7001", "0015550107001", "whatsapp:+15550107001", "Dana@example.com"]
)
def test_rule__order_is_about_whoever_wrote(number: str) -> None:
    """A number that Bland tells without its country gets none: the order is about this customer."""
    row = asked(number=number)

    standing.look_for_stop_words([row])

    assert StandingOrder.objects.get().customer_key == row.customer_key
    assert standing.wants(StandingOrder.objects.get(), row), "the state they wrote it in is newer"


@pytest.mark.usefixtures("switched_on")
def test_rule__several_requests_are_one_order_of_the_first() -> None:
    later, first = asked(HOUR, pk="a"), asked(2 * HOUR, pk="b")
    nobody, other = asked(number="", pk="c"), asked(number="+15550107002")

    standing.look_for_stop_words([later, first, nobody, other])
    standing.look_for_stop_words([later, first, nobody, other])

    starts = dict(StandingOrder.objects.values_list("customer_key", "starts_at"))
    expected = {"15550107001": first, "15550107002": other}
    assert starts == {key: row.updated_at - MILLISECOND for key, row in expected.items()}


@pytest.mark.usefixtures("switched_on")
@pytest.mark.parametrize(("begun", "is_made"), [(-1, True), (0, False), (1, False)])
def test_rule__not_made_again_once_lifted(begun: int, is_made: bool) -> None:
    """Unless the customer has asked again since the lifted order began."""
    row = asked()
    starts_at = row.updated_at - MILLISECOND + begun * MILLISECOND
    standing.lift(standing.make(CUSTOMER, "before", starts_at=starts_at))
    standing.make("+15550107002", "another customer's")

    standing.look_for_stop_words([row])

    assert StandingOrder.objects.filter(source="rule").exists() is is_made


@pytest.mark.usefixtures("switched_on")
@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["hi", "STOP!"], "The customer wrote “stop”, {at:%Y-%m-%d %H:%M} UTC"),
        (["hi"], "The customer asked to stop, {at:%Y-%m-%d %H:%M} UTC"),
        ([], "The customer asked to stop, {at:%Y-%m-%d %H:%M} UTC"),
    ],
)
def test_rule__reason_names_the_word(texts: list[str], words: str) -> None:
    row, other = asked(), asked(number="+15550107002")
    at: datetime = row.updated_at
    told = [(row, text, at) for text in texts]
    told += [(row, "unsubscribe", at - HOUR), (other, "cancel", at)]
    for place, (conversation, text, moment) in enumerate(told):
        values = {"bland_id": f"m{place}", "position": place, "sender": "USER"}
        Message.objects.create(conversation=conversation, text=text, created_at=moment, **values)

    standing.look_for_stop_words([row])

    assert StandingOrder.objects.get().reason == words.format(at=at)


@pytest.mark.usefixtures("switched_on")
def test_rule__failure_of_ours_does_not_harm_the_copy(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*given: Any, **more: Any) -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(rule, "make", fail)
    standing.look_for_stop_words([asked()])
    assert "no standing order was made" in caplog.text


def test_asked_to_stop__customers_and_those_no_order_keeps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A customer counts once; one whose order is lifted is not kept; nobody is no customer."""
    kept, lifted, free = (f"+1555010700{n}" for n in range(3))
    for number in (kept, lifted, free):
        asked(number=number)
        asked(2 * HOUR, number=number, pk=f"earlier{number}")
    asked(number="", pk="nobody")
    asked(number="+15550107008", kind="timed_out")
    standing.make(kept, "by phone")
    standing.lift(standing.make(lifted, "by phone"))

    assert standing.asked_to_stop() == (3, 2)
    some = Conversation.objects.filter(user_number__in=[kept, free])
    assert standing.asked_to_stop(some) == (2, 1)
    monkeypatch.setattr(rule, "COUNT_CAP", 2)
    asked(timedelta(0), number="+15550107007")
    asked(timedelta(minutes=1), number="+15550107006")
    asked(timedelta(minutes=2), number=kept, pk="latest")
    assert standing.asked_to_stop() == (3, 2), "of the newest, and of one more than the cap"

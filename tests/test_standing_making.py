"""What an order is made of: about whom, with which number of ours, and what was said of it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import AbstractUser
from django.db import IntegrityError
from django.utils import timezone

from bland_sms import standing
from bland_sms.models import Conversation, StandingOrder
from bland_sms.reasons import Failure, history_words
from bland_sms.standing import making
from bland_sms.standing.rows import to_milliseconds

pytestmark = pytest.mark.django_db
CUSTOMER, OURS = "+15550107001", "+15550190001"
DAY = timedelta(days=1)


def known(user_number: str) -> Conversation:
    row = Conversation(pk="known", user_number=user_number)
    row.derive()
    row.save()
    return row


def code_of(outcome: Any) -> str:
    return outcome.code if isinstance(outcome, standing.OrderError) else ""


@pytest.mark.parametrize(
    ("typed", "country_code", "key"),
    [
        (CUSTOMER, "1", "15550107001"),
        (CUSTOMER, "44", "15550107001"),
        ("555 010 7001", "1", "15550107001"),
        ("1 555 010 7001", "1", "15550107001"),
        ("001 555 010 7001", "1", "15550107001"),
        ("020 7946 0018", "44", "442079460018"),
        ("tel:+1-555-010-7001", "1", "15550107001"),
        ("Dana@Example.com", "1", "dana@example.com"),
        ("020 7946 0018", "1", ""),  # no number of that country
        ("+1 555 010 700", "1", ""),
        ("7001", "1", ""),
        ("1-800-FLOWERS", "1", ""),
        ("dana", "1", ""),
        ("", "1", ""),
        ("@", "1", ""),
        ("@@", "1", ""),
        ("dana@", "1", ""),
        ("@example.com", "1", ""),
        ("dana@.", "1", ""),
        ("-@-", "1", ""),
        ("dana@example.com and lee", "1", ""),
        ("mailto:@", "1", ""),
    ],
)
def test_key_of__whole_numbers_and_addresses(
    typed: str, country_code: str, key: str, set_bland: Callable[..., None]
) -> None:
    set_bland(DEFAULT_COUNTRY_CODE=country_code)
    known("")  # somebody without a number is not a customer
    if key:
        assert standing.key_of(typed) == key
        return
    with pytest.raises(standing.OrderError) as caught:
        standing.key_of(typed)
    assert caught.value.code == "no_customer"


@pytest.mark.parametrize("name", ["dana", "+7001", "1-800-flowers"])
def test_key_of__whoever_is_in_the_copy(name: str) -> None:
    row = known(name)
    assert standing.key_of(name) == row.customer_key


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", ""),
        ("+1 (555) 019-0001", OURS),
        ("555 019 0001", OURS),
        ("0015550190001", OURS),
        ("whatsapp:+15550190001", OURS),
        ("12345", "12345"),  # a short code
        ("1234567", "1234567"),
        ("12345678", "+112345678"),
        ("Bland", "bland"),
        ("x" * 65, "x" * 64),
        ("5" * 65, "+" + "5" * 63),
    ],
)
def test_our_number__one_notation(text: str, told: str) -> None:
    assert standing.our_number(text) == told


def test_is_visible() -> None:
    known(CUSTOMER)
    seen, unseen = Conversation.objects.all(), Conversation.objects.none()
    told = [standing.is_visible(CUSTOMER, visible) for visible in (None, seen, unseen)]
    assert told == [True, True, False]


def test_make__keeps_what_it_is_told(staff: AbstractUser) -> None:
    before, until = to_milliseconds(timezone.now()), timezone.now() + DAY
    plain = standing.make(CUSTOMER, f"  {'x' * 201}")
    told = {
        "until": until,
        "spare_handed_off": False,
        "requested_by": staff,
        "source": "api",
        "needs_review": True,
        "starts_at": before - DAY,
        "idempotency_key": "k1",
        "request_sha256": "0" * 64,
    }
    full = standing.make(
        CUSTOMER, "by phone", agent_number=OURS, requested_by_name="not dana", **told
    )

    for order in (plain, full):
        order.refresh_from_db()
    assert {name: getattr(full, name) for name in told} == told
    assert (full.agent_number, full.requested_by_name) == (OURS, "dana")
    assert (plain.reason, plain.agent_number, plain.source) == ("x" * 200, "", "command")
    [entry] = LogEntry.objects.filter(object_id=full.pk)
    assert (entry.user, history_words(entry.change_message)) == (staff, "Ordered.")
    assert before <= plain.starts_at == to_milliseconds(plain.starts_at) <= timezone.now()
    assert (plain.until, plain.spare_handed_off, plain.needs_review) == (None, True, False)
    assert (plain.requested_by, plain.idempotency_key) == (None, None)
    standing.lift(full)  # it is not in the way: the key is
    with pytest.raises(IntegrityError):
        standing.make(CUSTOMER, "x", agent_number=OURS, requested_by=staff, idempotency_key="k1")


@pytest.mark.parametrize("seconds", [-1, 0, 1])
def test_make__must_end_later_than_now(seconds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    now = to_milliseconds(timezone.now())
    monkeypatch.setattr(timezone, "now", lambda: now)
    until = now + timedelta(seconds=seconds)

    [outcome] = standing.make_many([standing.Wish(CUSTOMER)], "x", until=until)

    assert code_of(outcome) == ("" if seconds > 0 else "until_past")


@pytest.mark.parametrize("says", [True, False])
def test_make_many__a_line_says_it_or_the_list_does(says: bool, staff: AbstractUser) -> None:
    listed = {"agent_number": OURS, "until": timezone.now() + DAY, "spare_handed_off": False}
    own = {"agent_number": "", "until": None, "spare_handed_off": True}
    line = {**own, "reason": "of the line", "says_until": True} if says else {}

    [order] = standing.make_many(
        [standing.Wish(CUSTOMER, **line)], "of the list", requested_by=staff, source="api", **listed
    )

    assert isinstance(order, StandingOrder)
    assert order.reason == ("of the line" if says else "of the list")
    assert {name: getattr(order, name) for name in own} == (own if says else listed)
    assert (order.source, order.requested_by, order.requested_by_name) == ("api", staff, "dana")
    [entry] = LogEntry.objects.filter(object_id=order.pk)
    assert (entry.user, history_words(entry.change_message)) == (staff, "Ordered.")


@pytest.mark.parametrize("is_many", [True, False])
def test_make__looks_for_what_came_in_meanwhile(is_many: bool) -> None:
    row = known(CUSTOMER)
    row.updated_at = timezone.now() + timedelta(minutes=1)
    row.save()

    if is_many:
        standing.make_many([standing.Wish(CUSTOMER)], "x")
    else:
        standing.make(CUSTOMER, "x")

    assert StandingOrder.objects.get().applications.get().conversation_id == row.pk


def test_make_many__what_became_of_each() -> None:
    """In the order of the lines; who is on two lines, or kept inactive already, gets one order."""
    taken, suspended = (standing.make(f"+1555010700{n}", "before") for n in (1, 2))
    StandingOrder.objects.filter(pk=suspended.pk).update(suspended_code="order_too_often")
    lines = ["7001", CUSTOMER, "+15550107002", "+15550107003", "555 010 7003", "+15550107004"]
    over = standing.make("+15550107004", "before")
    standing.lift(over)
    unreadable = standing.Wish("+15550107005", failure=Failure("order_exists", {"number": 7}))
    wishes = [*map(standing.Wish, lines), unreadable]

    outcomes = standing.make_many(wishes, "x")

    codes = ["no_customer", "order_exists", "", "", "order_exists", "", "order_exists"]
    assert list(map(code_of, outcomes)) == codes
    made = [one.pk for one in outcomes if isinstance(one, StandingOrder)]
    now = StandingOrder.objects.filter(StandingOrder.acting())
    assert set(now.values_list("pk", flat=True)) == {taken.pk, *made}
    assert over.pk not in made
    suspended.refresh_from_db()
    assert suspended.state == "lifted"
    more = [one.more for one in outcomes if isinstance(one, standing.OrderError)]
    assert more[1] == {"standing_order": taken.pk}
    assert more[0] == {}
    assert more[-1] == {"standing_order": 7}


def test_make__customer_who_was_forgotten_and_is_kept_inactive() -> None:
    standing.make(CUSTOMER, "before")
    standing.forget_orders("15550107001", dry_run=False, keep=True)

    assert list(map(code_of, standing.make_many([standing.Wish(CUSTOMER)], "x"))) == [
        "order_exists"
    ]
    with pytest.raises(standing.OrderError):
        standing.make(CUSTOMER, "x")


def test_make_many__only_of_whom_one_may_see() -> None:
    known(CUSTOMER)
    lines = [CUSTOMER, "+15550107002", "7001"]

    outcomes = standing.make_many(
        list(map(standing.Wish, lines)), "x", visible=Conversation.objects.all()
    )

    assert list(map(code_of, outcomes)) == ["", "customer_not_found", "no_customer"]


@pytest.mark.parametrize("state", ["lifted", "expired", "suspended"])
def test_make__place_of_an_order_that_does_not_act(state: str, staff: AbstractUser) -> None:
    """It is free; the suspended order is lifted by whoever replaces it."""
    before, elsewhere = (
        standing.make(CUSTOMER, "x"),
        standing.make(CUSTOMER, "x", agent_number=OURS),
    )
    change: dict[str, Any] = {
        "lifted": {"lifted_at": timezone.now(), "in_force": None},
        "expired": {"until": timezone.now()},
        "suspended": {"suspended_code": "order_too_often"},
    }[state]
    StandingOrder.objects.update(**change)

    order = standing.make(CUSTOMER, "x", requested_by=staff)

    before.refresh_from_db()
    assert before.in_force is None
    assert before.state == ("expired" if state == "expired" else "lifted")
    assert before.lifted_by == (staff if state == "suspended" else None)
    elsewhere.refresh_from_db()
    assert elsewhere.state == state, "it is another place"
    assert order.state == "in_force"
    told = LogEntry.objects.filter(object_id=before.pk, user=staff)
    words = f"Replaced by standing order {order.pk}." if state == "suspended" else ""
    assert [history_words(entry.change_message) for entry in told] == [words] * bool(words)


@pytest.mark.parametrize("call", [1, 2])
def test_make__another_process_makes_it_meanwhile(
    call: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Just before a list is written, or one order."""
    begun, begin, theirs = [], making.write_transaction, StandingOrder(reason="x", source="api")
    theirs.customer_key = "15550107001"

    def begin_later(model: Any) -> Any:
        begun.append(model)
        if len(begun) == call:
            theirs.save()
            for other in ({"customer_key": "15550107009"}, {"agent_number": OURS}):
                values = {"customer_key": theirs.customer_key, "source": "command", **other}
                StandingOrder.objects.create(reason="another one", **values)
        return begin(model)

    monkeypatch.setattr(making, "write_transaction", begin_later)
    if call == 1:
        wishes = [standing.Wish(CUSTOMER), standing.Wish("+15550107002")]
        outcomes = standing.make_many(wishes, "x")
        assert list(map(code_of, outcomes)) == ["order_exists", ""]
        return
    with pytest.raises(standing.OrderError) as caught:
        standing.make(CUSTOMER, "x")
    assert caught.value.failure.params == {"number": theirs.pk}

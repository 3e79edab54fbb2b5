"""Whatever happens in whatever order: Bland is asked for exactly what the orders in force want."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, NamedTuple

import pytest
from django.core.management import call_command
from django.utils import timezone
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bland_sms import standing
from bland_sms.models import BulkUpdate, Conversation, OwedLook, StandingOrder, WebhookDelivery
from bland_sms.sandbox import FakeBland
from bland_sms.sync import refresh
from bland_sms.webhooks import process

CUSTOMERS = ("+15550107001", "+15550107002")
OURS = ("+15550190001", "+15550190002")
ALL = ""
NOBODY = ("", "")

customers, ours = st.sampled_from(CUSTOMERS), st.sampled_from(OURS)
step = st.one_of(
    st.tuples(
        st.sampled_from(["order", "order all", "lift", "expire"]),
        customers,
        st.sampled_from((ALL, *OURS)),
    ),
    st.tuples(
        st.sampled_from(["text", "take over", "give back", "webhook", "refresh"]), customers, ours
    ),
    st.tuples(st.sampled_from(["sync", "work"]), st.just(""), st.just("")),
)

A, HERE, THERE = CUSTOMERS[0], *OURS
OLDER = [("text", A, HERE), ("order", A, ALL), ("webhook", A, HERE), ("sync", *NOBODY)]
ELSEWHERE = [("order", A, HERE), ("text", A, THERE), ("webhook", A, THERE), ("text", A, HERE)]
SPARED = [("order", A, ALL), ("text", A, HERE), ("take over", A, HERE), ("refresh", A, HERE)]
ASKED = [("order", A, ALL), ("text", A, HERE), ("refresh", A, HERE)]
AGAIN = [*ELSEWHERE, ("webhook", A, HERE), ("text", A, HERE), ("sync", *NOBODY), ("lift", A, HERE)]
TWO = [("order", A, HERE), *ASKED]


class Order(NamedTuple):
    """An order in force."""

    row: StandingOrder
    begun: str
    """Bland's time when it was made."""
    spares: bool


class World:
    """The app beside a model of it: what the mirror was shown, and which orders are in force.

    What is to be asked of Bland next is no memory of its own: it is what was shown as active and
    what some order that is in force now wants inactive.
    """

    def __init__(self, bland: FakeBland) -> None:
        self.bland = bland
        self.orders: dict[tuple[str, str], Order] = {}
        self.shown: dict[str, dict[str, Any]] = {}
        """By conversation: what Bland told of it last."""
        self.expected: list[str] = []

    def newest(self, customer: str, ours: str) -> dict[str, Any] | None:
        return self.bland.account.newest_of(customer, ours)

    # --- the model ------------------------------------------------------------------------------

    def show(self, *ids: str) -> None:
        for pk in ids:
            self.shown[pk] = dict(self.bland.account.rows[pk])

    def wanted(self) -> list[str]:
        return [
            pk
            for pk, row in self.shown.items()
            if row["is_active"] and any(self._wants(order, row) for order in self.orders.values())
        ]

    @staticmethod
    def _wants(order: Order, row: dict[str, Any]) -> bool:
        is_about = f"+{order.row.customer_key}" == row["user_number"]
        is_there = order.row.agent_number in (ALL, row["agent_number"])
        is_spared = order.spares and row["human_handoff_at"] is not None
        return is_about and is_there and not is_spared and row["updated_at"] > order.begun

    def carry_out(self) -> None:
        for pk in self.wanted():
            self.expected.append(pk)
            self.shown[pk]["is_active"] = False

    # --- what happens ---------------------------------------------------------------------------

    def order(self, customer: str, ours: str, *, spares: bool = True) -> None:
        if (customer, ours) in self.orders:
            with pytest.raises(standing.OrderError):
                standing.make(customer, "again", agent_number=ours)
            return
        made = standing.make(customer, "by phone", agent_number=ours, spare_handed_off=spares)
        self.orders[customer, ours] = Order(made, _text(made.starts_at), spares)

    def order_all(self, customer: str, ours: str) -> None:
        self.order(customer, ours, spares=False)

    def lift(self, customer: str, ours: str) -> None:
        order = self.orders.pop((customer, ours), None)
        if order is not None:
            assert standing.lift(order.row)

    def expire(self, customer: str, ours: str) -> None:
        order = self.orders.pop((customer, ours), None)
        if order is not None:
            until = timezone.now() - timedelta(milliseconds=1)
            StandingOrder.objects.filter(pk=order.row.pk).update(until=until)

    def text(self, customer: str, ours: str) -> None:
        self.bland.customer_texts(customer, "hello", agent_number=ours)

    def take_over(self, customer: str, ours: str) -> None:
        self._hand(customer, ours, is_taken=True)

    def give_back(self, customer: str, ours: str) -> None:
        self._hand(customer, ours, is_taken=False)

    def _hand(self, customer: str, ours: str, *, is_taken: bool) -> None:
        row = self.newest(customer, ours)
        if row is not None and row["is_active"]:
            self.bland.account.set_active(row["id"], True)  # a change, with its time
            row["human_handoff_at"] = row["updated_at"] if is_taken else None

    def webhook(self, customer: str, ours: str) -> None:
        """Its word is not believed: it says that the conversation is inactive."""
        row = self.newest(customer, ours)
        if row is not None:
            self.show(row["id"])
            WebhookDelivery.objects.all().delete()
            process(
                WebhookDelivery.objects.create(
                    body_sha256="0" * 64, conversation_id=row["id"], status="inactive"
                )
            )
            standing.carry_out_waiting()
            self.carry_out()

    def refresh(self, customer: str, ours: str) -> None:
        """What is recorded waits: there is no worker."""
        row = self.newest(customer, ours)
        if row is not None:
            self.show(row["id"])
            refresh(row["id"])

    def sync(self, *_nobody: str) -> None:
        self.show(*self.bland.account.rows)
        call_command("bland_sms_sync", full=True, verbosity=0)
        self.carry_out()

    def work(self, *_nobody: str) -> None:
        call_command("bland_sms_work", "--once", verbosity=0)
        self.carry_out()


def _text(moment: Any) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


@pytest.mark.django_db
@settings(max_examples=40, print_blob=True)
@example(steps=OLDER)
@example(steps=ELSEWHERE)
@example(steps=SPARED)
@example(steps=AGAIN)
@example(steps=[*ASKED, ("lift", A, ALL)])
@example(steps=[*TWO, ("lift", A, HERE)])
@example(steps=[*TWO, ("expire", A, HERE), ("work", *NOBODY), ("lift", A, ALL)])
@example(steps=[*ASKED, ("take over", A, HERE), ("refresh", A, HERE), ("work", *NOBODY)])
@given(steps=st.lists(step, max_size=16))
def test_standing__asks_for_exactly_what_orders_in_force_want(
    fake_bland: FakeBland, monkeypatch: pytest.MonkeyPatch, steps: list[tuple[str, str, str]]
) -> None:
    monkeypatch.setattr("bland_sms.standing.applying.MOST_AN_HOUR", 1000)
    monkeypatch.setattr("bland_sms.standing.applying.MOST_A_DAY", 1000)
    fake_bland.account.rows.clear()
    fake_bland.log.clear()
    for model in (StandingOrder, BulkUpdate, Conversation, OwedLook, WebhookDelivery):
        model.objects.all().delete()

    world = World(fake_bland)
    for name, customer, our_number in steps:
        getattr(world, name.replace(" ", "_"))(customer, our_number)
        asked = [seen["conversation_id"] for seen in fake_bland.requests("PATCH")]
        assert sorted(asked) == sorted(world.expected), name
    world.sync()

    asked = [seen["conversation_id"] for seen in fake_bland.requests("PATCH")]
    assert sorted(asked) == sorted(world.expected)

"""Whatever happens in whatever order: Bland is asked for exactly what the orders in force want."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.management import call_command
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bland_sms import standing
from bland_sms.models import Conversation, StandingOrder, WebhookDelivery
from bland_sms.sandbox import FakeBland
from bland_sms.sync import refresh

CUSTOMERS = ("+15550107001", "+15550107002")
OURS = ("+15550190001", "+15550190002")

step = st.one_of(
    st.tuples(st.just("order"), st.sampled_from(CUSTOMERS), st.sampled_from(("", *OURS))),
    st.tuples(st.just("lift"), st.sampled_from(CUSTOMERS), st.sampled_from(("", *OURS))),
    st.tuples(st.just("text"), st.sampled_from(CUSTOMERS), st.sampled_from(OURS)),
    st.tuples(st.just("take over"), st.sampled_from(CUSTOMERS), st.sampled_from(OURS)),
    st.tuples(st.just("sync"), st.just(""), st.just("")),
    st.tuples(st.just("webhook"), st.sampled_from(CUSTOMERS), st.sampled_from(OURS)),
    st.tuples(st.just("refresh"), st.sampled_from(CUSTOMERS), st.sampled_from(OURS)),
    st.tuples(st.just("work"), st.just(""), st.just("")),
)


A, HERE, THERE = CUSTOMERS[0], *OURS
OLDER = [("text", A, HERE), ("order", A, ""), ("webhook", A, HERE), ("sync", "", "")]
ELSEWHERE = [("order", A, HERE), ("text", A, THERE), ("webhook", A, THERE), ("text", A, HERE)]
SPARED = [("order", A, ""), ("text", A, HERE), ("take over", A, HERE), ("refresh", A, HERE)]
LIFTED = [("order", A, ""), ("text", A, HERE), ("refresh", A, HERE), ("lift", A, "")]
AGAIN = [*ELSEWHERE, ("webhook", A, HERE), ("text", A, HERE), ("sync", "", ""), ("lift", A, HERE)]


class World:
    """The app beside a model of it: which states at Bland the orders in force want ended."""

    def __init__(self, bland: FakeBland) -> None:
        self.bland = bland
        self.orders: dict[tuple[str, str], StandingOrder] = {}
        self.begun: dict[tuple[str, str], str] = {}
        """By order: Bland's time when it was made."""
        self.recorded: dict[str, list[tuple[str, str]]] = {}
        """Conversations with an update that waits, and the orders that want it."""
        self.expected: list[str] = []

    def newest(self, customer: str, ours: str) -> dict[str, Any] | None:
        return self.bland.account.newest_of(customer, ours)

    def order(self, customer: str, ours: str) -> None:
        if (customer, ours) in self.orders:
            with pytest.raises(standing.OrderError):
                standing.make(customer, "again", agent_number=ours)
            return
        self.orders[customer, ours] = standing.make(customer, "by phone", agent_number=ours)

    def lift(self, customer: str, ours: str) -> None:
        order = self.orders.pop((customer, ours), None)
        if order is not None:
            assert standing.lift(order)
            for pk, wanted_by in list(self.recorded.items()):
                if wanted_by[0] == (customer, ours):
                    del self.recorded[pk]

    def text(self, customer: str, ours: str) -> None:
        self.bland.customer_texts(customer, "hello", agent_number=ours)

    def take_over(self, customer: str, ours: str) -> None:
        row = self.newest(customer, ours)
        if row is not None:
            row["human_handoff_at"] = row["updated_at"]

    def see(self, ids: list[str]) -> None:
        """The mirror is about to be shown these: whom do the orders want inactive?"""
        for pk in ids:
            row = self.bland.account.rows[pk]
            known = Conversation.objects.filter(pk=pk).first()
            is_news = known is None or _text(known.updated_at) != row["updated_at"]
            if not is_news or not row["is_active"] or pk in self.recorded:
                continue
            if row["human_handoff_at"] is not None:
                continue
            wanted_by = [
                (key, order)
                for key, order in self.orders.items()
                if key[0] == row["user_number"]
                and key[1] in ("", row["agent_number"])
                and row["updated_at"] > _text(order.starts_at)
            ]
            if wanted_by:
                wanted_by.sort(key=lambda one: one[1].pk)
                self.recorded[pk] = [key for key, _order in wanted_by]

    def carry_out(self) -> None:
        self.expected += self.recorded
        self.recorded = {}


def _text(moment: Any) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


@pytest.mark.django_db
@settings(
    max_examples=25,
    deadline=None,
    # The model does not know that a second order takes over what a lifted one had recorded.
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@example(steps=OLDER)
@example(steps=ELSEWHERE)
@example(steps=SPARED)
@example(steps=LIFTED)
@example(steps=AGAIN)
@given(steps=st.lists(step, max_size=14))
def test_standing__asks_for_exactly_what_orders_in_force_want(
    fake_bland: FakeBland, steps: list[tuple[str, str, str]]
) -> None:
    from unittest.mock import patch

    fake_bland.account.rows.clear()
    fake_bland.log.clear()
    for model in (StandingOrder, Conversation, WebhookDelivery):
        model.objects.all().delete()
    world = World(fake_bland)
    with (
        patch("bland_sms.standing.applying.MOST_AN_HOUR", 1000),
        patch("bland_sms.standing.applying.MOST_A_DAY", 1000),
    ):
        for name, customer, ours in steps:
            _take(world, name, customer, ours)
        world.see(list(fake_bland.account.rows))
        call_command("bland_sms_sync", full=True, verbosity=0)
        world.carry_out()

    patched = [seen["conversation_id"] for seen in fake_bland.requests("PATCH")]
    assert sorted(patched) == sorted(world.expected)


def _take(world: World, name: str, customer: str, ours: str) -> None:
    if name in ("order", "lift", "text", "take over"):
        getattr(world, name.replace(" ", "_"))(customer, ours)
        return
    if name == "work":
        call_command("bland_sms_work", "--once", verbosity=0)
        world.carry_out()
        return
    if name == "sync":
        world.see(list(world.bland.account.rows))
        call_command("bland_sms_sync", full=True, verbosity=0)
        world.carry_out()
        return
    row = world.newest(customer, ours)
    if row is None:
        return
    world.see([row["id"]])
    if name == "refresh":
        refresh(row["id"])  # recorded only: there is no worker
        return
    _ring(row["id"])
    world.carry_out()


def _ring(conversation_id: str) -> None:
    """A webhook whose word is not believed: it says that the conversation is inactive."""
    from bland_sms.webhooks import process

    WebhookDelivery.objects.all().delete()
    delivery = WebhookDelivery.objects.create(
        body_sha256="0" * 64, conversation_id=conversation_id, status="inactive"
    )
    process(delivery)
    standing.carry_out_waiting()

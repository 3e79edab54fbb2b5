"""Whatever Bland tells, in whatever order and how often: in the end the mirror says the same."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from bland_sms.client import get_client
from bland_sms.mirror import Payload, apply_page
from bland_sms.models import Conversation, Message, WebhookDelivery
from bland_sms.payloads import EPOCH
from bland_sms.sandbox import BlandSandbox
from bland_sms.sandbox.account import now_text
from bland_sms.webhooks import process_waiting, view

SECRET = "whsec_test"
IDS = ("conv_1", "conv_2")
ACTIONS = ("toggles", "writes", "loses_message", "ends", "lists", "tells", "updates")
ARRIVALS = ("payload", "bell", "minute")


class World:
    """Bland on one side, the mirror on the other, and all that is on its way between them."""

    def __init__(self, bland: BlandSandbox) -> None:
        self.bland = bland
        self.payloads: list[Payload] = []
        self.bells: list[bytes] = []
        self.missed: list[bytes] = []
        """Bells that did not ring yet."""
        self.newest = dict.fromkeys(IDS, EPOCH)

    # --- at Bland ---

    def toggles(self, pk: str) -> None:
        row = self.bland.account.rows[pk]
        self.bland.account.set_active(pk, not row["is_active"])
        self._ring(pk, type="status", status="inactive")

    def writes(self, pk: str) -> None:
        row = self.bland.account.rows[pk]
        number = row["message_count"]
        text = f"text {number}"
        row["messages"] = [*row["messages"], {"id": number, "sender": "USER", "message": text}]
        self._change(pk, message_count=number + 1, last_message=text)
        self._ring(pk, sender="USER", message=text)

    def loses_message(self, pk: str) -> None:
        self._change(pk, messages=self.bland.account.rows[pk]["messages"][1:])
        self._ring(pk, sender="USER", message="")

    def ends(self, pk: str) -> None:
        self._change(pk, is_active=False, timed_out_at=now_text(), summary="It is over.")
        self._ring(pk, type="status", status="timeout", status_reason="No answer")

    def _change(self, pk: str, **values: Any) -> None:
        self.bland.account.rows[pk].update(**values, updated_at=now_text())

    def _ring(self, pk: str, **values: Any) -> None:
        told = {"conversation_id": pk, "number": len(self.bells), **values}
        self.bells.append(json.dumps(told).encode())
        self.missed.append(self.bells[-1])

    # --- asked by us, and on its way ---

    def lists(self, pk: str) -> None:
        self.payloads += get_client().list_conversations().conversations

    def tells(self, pk: str) -> None:
        self.payloads.append(get_client().get_conversation(pk))

    def updates(self, pk: str) -> None:
        is_active = not self.bland.account.rows[pk]["is_active"]
        self.payloads.append(get_client().update_conversation(pk, is_active=is_active))
        self._ring(pk, type="status", status="inactive")

    # --- arriving ---

    def arrive(self, kind: str, number: int) -> None:
        if kind == "payload" and self.payloads:
            apply_page([self.payloads[number % len(self.payloads)]])
        elif kind == "bell" and self.bells:
            self.rings(self.bells[number % len(self.bells)])
        elif kind == "minute":
            a_minute_passes()
            process_waiting()
        for pk, updated_at in Conversation.objects.values_list("pk", "updated_at"):
            assert updated_at >= self.newest[pk], "the mirror went back in time"
            self.newest[pk] = updated_at

    def rings(self, body: bytes) -> None:
        if body in self.missed:
            self.missed.remove(body)
        view.throttle.fill()
        signature = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
        answer = Client().post(
            "/bland-sms/webhook/",
            body,
            content_type="application/json",
            headers={"X-Webhook-Signature": signature},
        )
        assert answer.status_code == 200

    # --- in the end ---

    def check(self) -> None:
        told_of = {json.loads(body)["conversation_id"] for body in self.bells}
        for pk in told_of:
            bland, row = self.bland.account.rows[pk], Conversation.objects.get(pk=pk)
            stored = Message.objects.filter(conversation=pk).order_by("position")
            assert {
                "is_active": row.is_active,
                "updated_at": row.updated_at.isoformat(timespec="milliseconds"),
                "message_count": row.message_count,
                "last_message": row.last_message or None,
                "summary": row.summary or None,
                "timed_out": row.timed_out_at is not None,
                "messages": [message.text for message in stored],
            } == {
                "is_active": bland["is_active"],
                "updated_at": bland["updated_at"].replace("Z", "+00:00"),
                "message_count": bland["message_count"],
                "last_message": bland["last_message"],
                "summary": bland["summary"],
                "timed_out": bland["timed_out_at"] is not None,
                "messages": [message["message"] for message in bland["messages"]],
            }
        assert not WebhookDelivery.objects.exclude(state="processed").exists()


def a_minute_passes() -> None:
    earlier = timedelta(seconds=61)
    for name in ("asked_at", "not_before"):
        rows = WebhookDelivery.objects.filter(**{f"{name}__isnull": False})
        for pk, moment in rows.values_list("pk", name):
            WebhookDelivery.objects.filter(pk=pk).update(**{name: moment - earlier})


steps = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(ACTIONS), st.sampled_from(IDS)),
        st.tuples(st.sampled_from(ARRIVALS), st.integers(0, 20)),
    ),
    max_size=25,
)


@pytest.mark.slow
@pytest.mark.django_db
@pytest.mark.usefixtures("no_waiting")
@hypothesis_settings(max_examples=60)
@given(steps=steps, last=st.permutations(range(40)), again=st.integers(0, 20))
def test_any_order_and_repetition(
    sandbox: BlandSandbox,
    set_bland: Callable[..., None],
    steps: list[tuple[str, Any]],
    last: list[int],
    again: int,
) -> None:
    set_bland(WEBHOOK_SECRETS=[SECRET], READ_TIMEOUT=15)
    Message.objects.all().delete()
    Conversation.objects.all().delete()
    WebhookDelivery.objects.all().delete()
    for pk in IDS:
        sandbox.account.add({"id": pk, "message_count": 0})
    world = World(sandbox)
    for name, what in steps:
        if name in ACTIONS:
            getattr(world, name)(what)
        else:
            world.arrive(name, what)
    # What is still on its way comes, in any order, some of it once more.
    for number in last:
        if number < len(world.missed):
            world.rings(world.missed[number])
        world.arrive("payload" if number % 2 else "bell", number + again)
    for body in list(world.missed):
        world.rings(body)
    for _ in range(2):
        world.arrive("minute", 0)
    world.check()

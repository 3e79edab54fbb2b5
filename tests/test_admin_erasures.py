"""Staff forget a person: what they are told before, what is erased, and what becomes of orders."""

from __future__ import annotations

import re
from typing import Any
from unittest.mock import patch

import pytest
from django.contrib import admin
from django.contrib.admin.utils import quote
from django.contrib.auth.models import AbstractUser, Permission
from django.test import Client
from django.urls import reverse

from bland_sms import standing
from bland_sms.admin import ConversationAdmin
from bland_sms.erasure import traces
from bland_sms.models import Conversation, Erasure, StandingOrder
from bland_sms.sandbox import FakeBland
from bland_sms.sync import refresh

pytestmark = pytest.mark.django_db
CUSTOMER, OTHER = "+15550107001", "+15550107002"
LIST = reverse("admin:bland_sms_erasure_changelist")
ADD = reverse("admin:bland_sms_erasure_add")


@pytest.fixture
def dpo(client: Client, django_user_model: Any) -> Client:
    """A person who forgets, and may do nothing else."""
    user = django_user_model.objects.create_user("dpo", is_staff=True)
    names = ("add_erasure", "view_erasure", "view_conversation")
    user.user_permissions.set(Permission.objects.filter(codename__in=names))
    client.force_login(user)
    return client


@pytest.fixture
def row(fake_bland: FakeBland) -> Conversation:
    """Of a customer who wrote twice, and whom two orders keep inactive; one was lifted before."""
    for number in (CUSTOMER, OTHER):
        for text in ("hello", "a secret"):
            found = fake_bland.customer_texts(number, text)
        refresh(found)
    standing.lift(standing.make(CUSTOMER, "a mistake"))
    standing.make(CUSTOMER, "by phone")
    standing.make(CUSTOMER, "by phone", agent_number="+15550190001")
    return Conversation.objects.get(user_number=CUSTOMER)


def page_of(row: Conversation) -> str:
    return f"{ADD}?conversation={row.pk}"


def in_force() -> list[str]:
    orders = StandingOrder.objects.filter(StandingOrder.acting())
    return list(orders.order_by("pk").values_list("customer_key", flat=True))


def test_forget__the_page_says_what_it_does(dpo: Client, row: Conversation) -> None:
    shown = dpo.get(reverse("admin:bland_sms_conversation_change", args=[quote(row.pk)]))
    [link] = re.findall(r'href="([^"]+)">Forget this person…', shown.content.decode())

    page = dpo.get(link).content.decode()

    assert "conversations: 1, messages: 4, standing orders: 2" in page
    assert f"{row.pk} (customer: ends in 01)" in page
    assert CUSTOMER not in page
    assert "2 standing orders of theirs end" in page
    assert "keyed fingerprint" in page
    assert "cannot be undone" in page
    assert Erasure.objects.count() == 0
    assert len(in_force()) == 2


@pytest.mark.parametrize("keep", [False, True])
def test_forget__orders_end_or_go_on(
    keep: bool, dpo: Client, row: Conversation, fake_bland: FakeBland
) -> None:
    data = {"confirmed": "1", **({"keep_orders": "on"} if keep else {})}

    answer = dpo.post(page_of(row), data, follow=True)

    assert "Erased: conversations: 1, messages: 4" in answer.content.decode()
    assert list(traces(CUSTOMER)) == []
    assert Conversation.objects.get(user_number=OTHER).messages.count() == 4
    record = Erasure.objects.get()
    assert (record.requested_by_name, record.counts["orders"]) == ("dpo", 3)
    assert [key.startswith("hmac:") for key in in_force()] == [True] * (2 * keep)
    fake_bland.account.set_active(row.pk, False)
    new = fake_bland.customer_texts(CUSTOMER, "hello?")
    refresh(new)
    standing.carry_out_waiting()
    assert fake_bland.is_active(new) is not keep


def test_forget__once_more_ends_what_went_on(dpo: Client, row: Conversation) -> None:
    dpo.post(page_of(row), {"confirmed": "1", "keep_orders": "on"})
    page = dpo.post(ADD, {"number": CUSTOMER}).content.decode()
    assert "2 standing orders of theirs end" in page

    dpo.post(ADD, {"number": CUSTOMER, "confirmed": "1"})

    assert in_force() == []
    assert Erasure.objects.count() == 2


def test_forget__number_that_is_typed(dpo: Client, row: Conversation) -> None:
    page = dpo.post(ADD, {"number": "(555) 010-7001"}).content.decode()
    assert "conversations: 1" in page
    assert Erasure.objects.count() == 0

    answer = dpo.post(ADD, {"number": "(555) 010-7001", "confirmed": "1"})

    assert answer["Location"] == LIST
    assert "conversations: 1, messages: 4" in dpo.get(LIST).content.decode()
    assert list(traces(CUSTOMER)) == []


@pytest.mark.parametrize("number", ["", "7001", "nobody", "+15550107001" + "0" * 250])
def test_forget__not_a_number(number: str, dpo: Client, row: Conversation) -> None:
    answer = dpo.post(ADD, {"number": number, "confirmed": "1"})

    assert "errorlist" in answer.content.decode()
    assert Erasure.objects.count() == 0


def test_forget__conversation_of_nobody(dpo: Client, row: Conversation) -> None:
    dpo.post(page_of(row), {"confirmed": "1"})

    answer = dpo.post(page_of(row), {"confirmed": "1"})

    assert "nobody to forget" in answer.content.decode()
    assert Erasure.objects.count() == 1
    shown = dpo.get(reverse("admin:bland_sms_conversation_change", args=[quote(row.pk)]))
    assert "Forget this person…" not in shown.content.decode()


@pytest.mark.parametrize("missing", ["add_erasure", "view_conversation"])
def test_forget__needs_permission(missing: str, dpo: Client, row: Conversation) -> None:
    Permission.objects.get(codename=missing).user_set.clear()

    assert dpo.get(page_of(row)).status_code == 403
    assert dpo.post(page_of(row), {"confirmed": "1"}).status_code == 403
    assert dpo.post(ADD, {"number": CUSTOMER, "confirmed": "1"}).status_code == 403
    assert Erasure.objects.count() == 0


@pytest.mark.parametrize("seen", ["none", "some"])
def test_forget__not_whom_one_may_not_see(
    seen: str, dpo: Client, row: Conversation, fake_bland: FakeBland
) -> None:
    """A host may show only one team's conversations."""
    hidden = fake_bland.customer_texts(CUSTOMER, "hi", agent_number="+15550190002")
    refresh(hidden)
    ids = [row.pk] if seen == "some" else [Conversation.objects.get(user_number=OTHER).pk]

    def narrowed(self: Any, request: Any) -> Any:
        return Conversation.objects.filter(pk__in=ids)

    with patch.object(ConversationAdmin, "get_queryset", narrowed):
        pages = [
            dpo.post(ADD, {"number": CUSTOMER, "confirmed": "1"}),
            dpo.post(page_of(row), {"confirmed": "1"}),
        ]

    if seen == "some":
        assert all("may not see all conversations" in one.content.decode() for one in pages)
    else:
        assert "Not found" in pages[0].content.decode()
        assert pages[1].status_code == 404
    assert Erasure.objects.count() == 0


def test_forget__site_without_the_record(client: Client, staff: AbstractUser, row: Any) -> None:
    client.force_login(staff)
    model_admin = admin.site._registry[Erasure]
    with patch.dict(admin.site._registry):
        admin.site.unregister(Erasure)
        shown = client.get(reverse("admin:bland_sms_conversation_change", args=[quote(row.pk)]))
    assert admin.site._registry[Erasure] is model_admin

    assert shown.status_code == 200
    assert "Forget this person…" not in shown.content.decode()


def test_list__of_erasures(dpo: Client, row: Conversation) -> None:
    dpo.post(page_of(row), {"confirmed": "1"})
    erasure = Erasure.objects.get()

    page = dpo.get(reverse("admin:bland_sms_erasure_change", args=[erasure.pk])).content.decode()

    assert "dpo" in page
    assert "messages: 4" in page
    assert dpo.post(reverse("admin:bland_sms_erasure_delete", args=[erasure.pk])).status_code == 403

"""Wherever a suspended order is shown, so is the way to what keeps opening conversations."""

from __future__ import annotations

import json
import re
from io import StringIO
from typing import Any

import pytest
from django.contrib.admin.utils import quote
from django.contrib.auth.models import AbstractUser
from django.core.management import call_command
from django.test import Client
from django.urls import reverse

from bland_sms import standing
from bland_sms.models import StandingOrder
from bland_sms.sandbox import FakeBland
from bland_sms.sync import refresh

pytestmark = pytest.mark.django_db
CUSTOMER = "+15550107001"
RENEW = "Somebody who may make standing orders must renew it, in their own name."
LINK = re.compile(r'<a href="([^"#]+)#([^"]+)">See what it deactivated</a>')


@pytest.fixture
def opened(fake_bland: FakeBland) -> list[str]:
    """Conversations that something keeps opening, until the order is suspended."""
    standing.make(CUSTOMER, "by phone")
    found = []
    for _ in range(4):
        found.append(fake_bland.customer_texts(CUSTOMER, "a campaign of our own"))
        refresh(found[-1])
        standing.carry_out_waiting()
    assert StandingOrder.objects.get().suspended_code == "order_too_often"
    return found


@pytest.fixture
def page(opened: list[str]) -> str:
    order = StandingOrder.objects.get()
    return reverse("admin:bland_sms_standingorder_change", args=[order.pk])


@pytest.mark.parametrize("where", ["list", "order", "conversation"])
def test_suspended__link_in_the_admin(
    where: str, opened: list[str], page: str, client: Client, staff: AbstractUser
) -> None:
    client.force_login(staff)
    urls = {
        "list": reverse("admin:bland_sms_standingorder_changelist"),
        "order": page,
        "conversation": reverse("admin:bland_sms_conversation_change", args=[quote(opened[-1])]),
    }
    shown = client.get(urls[where]).content.decode()
    assert "Something keeps opening conversations" in shown
    path, place = LINK.findall(shown)[0]

    target = client.get(path)

    assert (path, target.status_code) == (page, 200)
    _before, _heading, section = target.content.decode().partition(f'id="{place}"')
    for one in opened[:3]:
        address = reverse("admin:bland_sms_conversation_change", args=[quote(one)])
        assert f'href="{address}"' in section
        assert client.get(address).status_code == 200


def test_suspended__address_in_the_api(page: str, client: Client, staff: AbstractUser) -> None:
    client.force_login(staff)

    [told] = client.get("/bland-sms/api/v1/standing-orders/").json()["results"]

    assert told["suspended_message"].endswith(f" http://testserver{page}#{standing.APPLIED}")


@pytest.mark.parametrize("as_json", [True, False])
def test_suspended__address_in_the_command(as_json: bool, page: str) -> None:
    out = StringIO()

    call_command("bland_sms_keep", "--list", json=as_json, stdout=out)

    told = out.getvalue().strip()
    if as_json:
        told = json.loads(told)["orders"][0]["suspended_message"]
    assert "perhaps a campaign of your own" in told
    assert told.endswith(f" {page}#{standing.APPLIED}")


def test_suspended__author_is_gone__who_must_renew_it(client: Client, staff: AbstractUser) -> None:
    order = standing.make(CUSTOMER, "by phone")
    params: dict[str, Any] = {"cause": "requester_gone", "who": "kim"}
    StandingOrder.objects.update(suspended_code="not_permitted", suspended_params=params)
    order.refresh_from_db()

    words = standing.suspended_words(order)
    assert words == f"{order.suspension.advice} {RENEW}"
    client.force_login(staff)
    listed = client.get(reverse("admin:bland_sms_standingorder_changelist")).content.decode()
    assert f"kim no longer has an account. {RENEW}" in listed
    assert "See what it deactivated" not in listed

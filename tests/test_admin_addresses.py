"""Addresses of the admin's pages, which servers refuse above some 4,000 characters."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import AbstractUser
from django.test import Client
from django.urls import reverse

LIST = "admin:bland_sms_conversation_changelist"
LONGEST = 4094 - len("GET  HTTP/1.1") - len("/admin")
"""gunicorn's limit of a request line."""


@pytest.mark.parametrize("number", [3, 200])
def test_pasted_list__makes_no_address_too_long(
    number: int,
    client: Client,
    staff: AbstractUser,
    copied: Callable[..., list[str]],
    set_bland: Any,
) -> None:
    set_bland(CONFIRM_OVER=0)
    ids = copied(1, user_number="+15550100000")
    client.force_login(staff)
    search = ", ".join(f"+1555010{n:04d}" for n in range(number))
    page = client.get(reverse(LIST), {"q": search})
    assert len(page.wsgi_request.get_full_path()) < LONGEST
    links = re.findall(r'(?:href|action)="([^"#]*)"', page.content.decode())
    assert [link for link in links if "/change/" in link]
    assert [link for link in links if len(link) > LONGEST] == []
    answer = client.post(
        page.wsgi_request.get_full_path(),
        {"action": "deactivate_selected", "_selected_action": ids},
    )
    assert "/confirm/" in answer["Location"]
    assert len(answer["Location"]) < LONGEST
    assert ("_changelist_filters" in answer["Location"]) == (number == 3)

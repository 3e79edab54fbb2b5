"""The ledger names both where one person is logged in as another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import AbstractUser
from django.core.signing import TimestampSigner
from django.test import Client
from django.urls import reverse

from bland_sms.models import BulkUpdate
from bland_sms.people import note_impersonator

API = "/bland-sms/api/v1/"


@pytest.fixture
def boss(django_user_model: Any) -> AbstractUser:
    return django_user_model.objects.create_superuser("boss")  # type: ignore[no-any-return]


@pytest.fixture
def impersonate(client: Client, staff: AbstractUser, boss: AbstractUser) -> Callable[[str], Client]:
    """As the packages leave the session; its user is dana."""
    told = {
        "hijack": ("hijack_history", [str(boss.pk), "another one, later"]),
        "loginas": ("loginas_from_user", TimestampSigner().sign(str(boss.pk))),
        "forged": ("loginas_from_user", "not signed"),
        "gone": ("hijack_history", ["4711"]),
        "odd": ("hijack_history", ["not a key"]),
    }

    def begin(kind: str) -> Client:
        client.force_login(staff)
        session = client.session
        session[told[kind][0]] = told[kind][1]
        session.save()
        return client

    return begin


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("hijack", "boss as dana"),
        ("loginas", "boss as dana"),
        ("forged", "? as dana"),
        ("gone", "4711 as dana"),
        ("odd", "not a key as dana"),
    ],
)
def test_ledger__names_both(
    kind: str, name: str, impersonate: Callable[[str], Client], copied: Callable[..., list[str]]
) -> None:
    [conversation_id] = copied()
    url = reverse("admin:bland_sms_conversation_deactivate", args=[conversation_id])
    impersonate(kind).post(url)
    bulk_update = BulkUpdate.objects.get()
    assert bulk_update.requested_by_name == name
    assert bulk_update.requested_by is not None
    assert bulk_update.requested_by.get_username() == "dana"


def test_ledger__names_both_in_actions_the_api_and_the_history(
    impersonate: Callable[[str], Client], copied: Callable[..., list[str]]
) -> None:
    ids = copied(2)
    client = impersonate("hijack")
    lists = reverse("admin:bland_sms_conversation_changelist")
    client.post(lists, {"action": "deactivate_selected", "_selected_action": ids[0]})
    body = {"is_active": False, "conversation_ids": [ids[1]]}
    client.post(f"{API}bulk-updates/", body, "application/json")
    names = set(BulkUpdate.objects.values_list("requested_by_name", flat=True))
    assert names == {"boss as dana"}

    stopped = BulkUpdate.objects.first()
    assert stopped is not None
    BulkUpdate.objects.filter(pk=stopped.pk).update(status=BulkUpdate.Status.STOPPED)
    client.post(reverse("admin:bland_sms_bulkupdate_cancel", args=[stopped.pk]))
    history = client.get(reverse("admin:bland_sms_bulkupdate_history", args=[stopped.pk]))
    assert "(boss as dana)" in history.content.decode()


def test_note_impersonator__not_of_somebody_else(rf: Any, staff: AbstractUser, boss: Any) -> None:
    """A program with a password of its own beside a browser's session."""
    request = rf.get("/")
    request.user, request.session = boss, {"_auth_user_id": str(staff.pk), "hijack_history": ["1"]}
    note_impersonator(request)
    assert not hasattr(boss, "bland_sms_impersonator")

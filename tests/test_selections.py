"""What an update was selected by, as data and in words."""

from __future__ import annotations

import json

import pytest
from django.contrib.auth.models import AbstractUser
from django.test import Client
from django.utils import translation

from bland_sms.models import BulkUpdate, Conversation
from bland_sms.sandbox import BlandSandbox
from bland_sms.selections import ALL, PICKED, selection_data, selection_words


@pytest.mark.parametrize(
    ("kept", "words"),
    [
        (selection_data(ALL), "All conversations"),
        (selection_data(PICKED), "Picked by hand"),
        (selection_data(ALL, status="active"), "All that match status “Active”"),
        (
            selection_data(PICKED, status="", activity="7d", search="yes"),
            "Picked by hand from what matches last activity “Past 7 days”, a search",
        ),
        (
            selection_data(ALL, activity_from="2026-01-02", activity_to="2026-01-03"),
            "All that match last activity from 2026-01-02, last activity until 2026-01-03",
        ),
        (selection_data(ALL, change="failed", our_number="yes"), None),
        ("the customers of March", "the customers of March"),
        ("12", "12"),
        ('{"how": "by magic"}', '{"how": "by magic"}'),
        ('{"how": "all", "status": ["active"]}', "All conversations"),
        ("", ""),
    ],
)
def test_selection_words__of_any_text(kept: str, words: str | None) -> None:
    if words is None:
        words = "All that match requested change “Failed or unknown”, one of our numbers"
    said = selection_words(kept)
    assert said == words
    assert ":" not in said or said == kept  # a label with a colon stands before it


@pytest.mark.django_db
def test_selection__is_worded_in_the_language_of_its_reader(
    client: Client, staff: AbstractUser, sandbox: BlandSandbox
) -> None:
    client.force_login(staff)
    Conversation.objects.bulk_create(Conversation(pk=f"c{number}") for number in range(30))
    action = {"action": "deactivate_selected", "select_across": "1", "_selected_action": ["c0"]}
    client.post("/admin/bland_sms/conversation/?status=active", action)
    kept = BulkUpdate.objects.get().selection
    assert json.loads(kept) == {"how": "all", "status": "active"}
    with translation.override("es"):
        assert "Active" not in selection_words(kept)
        assert "Activa" in selection_words(kept)

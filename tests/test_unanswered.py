"""What standing orders asked for and Bland did not answer: of which updates it is asked again."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from bland_sms.models import BulkUpdate, Conversation
from bland_sms.standing import unanswered
from bland_sms.standing.unanswered import ask_again

pytestmark = pytest.mark.django_db
DAY, MINUTE, SECOND = timedelta(days=1), timedelta(minutes=1), timedelta(seconds=1)
DUE: dict[str, Any] = {"state": "failed", "http_status": 503, "ago": 31 * SECOND, "attempts": 3}


def made(*items: dict[str, Any], began: timedelta | None = MINUTE, **values: Any) -> BulkUpdate:
    """An update that is over, with items that failed so long ago."""
    now = timezone.now()
    values = {"source": "standing", "status": "finished", **values}
    values["started_at"] = None if began is None else now - began
    bulk_update = BulkUpdate.objects.create(is_active=False, **values)
    for given in items:
        item = {**DUE, **given}
        pk, ago = f"conv_{Conversation.objects.count()}", item.pop("ago")
        Conversation.objects.create(pk=pk, is_active=True)
        bulk_update.items.create(conversation_id=pk, finished_at=now - ago, **item)
    return bulk_update


def states(bulk_update: BulkUpdate) -> list[str]:
    return list(bulk_update.items.order_by("pk").values_list("state", flat=True))


@pytest.mark.parametrize(
    ("values", "is_asked"),
    [
        ({}, True),
        ({"began": DAY - MINUTE}, True),
        ({"began": DAY + SECOND}, False),
        ({"began": None}, False),
        ({"source": "admin"}, False),
        ({"status": "cancelled"}, True),
        ({"status": "running"}, False),  # it is retried when this is over
    ],
    ids=repr,
)
def test_ask_again__of_which_updates(values: dict[str, Any], is_asked: bool) -> None:
    bulk_update = made({}, **values)
    ask_again()
    assert states(bulk_update) == ["waiting" if is_asked else "failed"]


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize("began", [MINUTE, 2 * DAY])
def test_ask_again__what_cannot_be_asked_does_not_keep_the_rest_waiting(
    began: timedelta, is_first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much there is: what was given up, and what is not due yet."""
    monkeypatch.setattr(unanswered, "AT_ONCE", 2)
    later = made({"ago": 5 * MINUTE}) if is_first else None
    many = made(*[{"ago": 10 * MINUTE, "attempts": 18}] * 3, began=began)
    if began == MINUTE:
        many.items.update(finished_at=timezone.now() - MINUTE)
    later = later or made({"ago": 5 * MINUTE})

    ask_again()

    assert states(many) == ["failed"] * 3
    assert states(later) == ["waiting"]

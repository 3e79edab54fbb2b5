"""Which conversations an order keeps inactive, and which of them are active now."""

from __future__ import annotations

from datetime import datetime
from datetime import timezone as zones
from typing import Any

import pytest
from django.contrib.auth.models import AbstractUser
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from bland_sms import standing
from bland_sms.models import Conversation, StandingOrder
from bland_sms.standing.rows import locked, to_milliseconds

pytestmark = pytest.mark.django_db
CUSTOMER, OURS = "+15550107001", "+15550190001"


@pytest.mark.parametrize(
    ("orders", "row", "is_found"),
    [
        ([{}], {}, True),
        ([{}, {"agent_number": OURS}], {"agent_number": OURS}, True),
        ([{"agent_number": OURS}], {"agent_number": "+15550190002"}, False),
        ([{}], {"is_active": False}, False),
        ([{}], {"human_handoff_at": "now"}, False),
        ([{"spare_handed_off": False}], {"human_handoff_at": "now"}, True),
        ([{}], {"user_number": "+15550107002"}, False),
        ([], {}, False),
    ],
)
def test_active_conversations__each_once(
    orders: list[dict[str, Any]],
    row: dict[str, Any],
    is_found: bool,
    django_assert_max_num_queries: Any,
) -> None:
    made = [standing.make(CUSTOMER, "x", **one) for one in orders]
    made.append(standing.make("+15550107009", "x"))
    values = {name: timezone.now() if value == "now" else value for name, value in row.items()}
    for pk, more in (("b", values), ("a", {"user_number": "+15550107009"})):
        one = Conversation(pk=pk, **{"user_number": CUSTOMER, "is_active": True, **more})
        one.derive()
        one.save()

    with django_assert_max_num_queries(1):
        assert standing.active_conversations(made) == ["a", "b"][: 1 + is_found]


@pytest.mark.parametrize(("told", "kept"), [(0, 0), (999, 0), (123_999, 123_000), (5_000, 5_000)])
def test_to_milliseconds(told: int, kept: int) -> None:
    moment = datetime(2030, 1, 31, 10, 20, 30, told, tzinfo=zones.utc)
    assert to_milliseconds(moment) == moment.replace(microsecond=kept)


def test_locked__before_anything_is_read(
    staff: AbstractUser, django_assert_num_queries: Any
) -> None:
    """By a write where rows cannot be locked, which changes nothing."""
    values = {"reason": "x", "source": "command", "requested_by": staff}
    for pk in (3, 2, 1):
        StandingOrder.objects.create(pk=pk, customer_key=str(pk), **values)

    with CaptureQueriesContext(connection) as queries:
        found = locked(StandingOrder.objects.filter(pk__lt=3).order_by("-pk"))

    first = queries[0]["sql"]
    assert first.startswith("UPDATE") or "FOR UPDATE" in first
    assert [order.pk for order in found] == [1, 2]
    with django_assert_num_queries(0):
        assert {order.requested_by for order in found} == {staff}
    assert set(StandingOrder.objects.values_list("reason", flat=True)) == {"x"}

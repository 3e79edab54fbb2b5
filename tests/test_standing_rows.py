"""Which conversations an order keeps inactive, and which of them are active now."""

from __future__ import annotations

from typing import Any

import pytest
from django.utils import timezone

from bland_sms import standing
from bland_sms.models import Conversation

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

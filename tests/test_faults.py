"""The fault table over real sockets: what each fault leads to, and how many requests it costs."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

import pytest

from bland_sms.models import BulkUpdate, Conversation
from bland_sms.sandbox import BlandSandbox
from bland_sms.updates import run

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("no_waiting", "impatient")]

Row = tuple[str, list[Any], str, bool, int, int]

# fault, state of the item, code, whether the mirror's row is active afterwards, PATCHes, GETs
SETTLED = [
    (["hang_before:60"], "changed", "", False, 2, 0),
    (["hang_after:60"], "changed", "", False, 2, 0),
    (["forever:hang_before:60"], "failed", "no_answer", True, 3, 1),
    (["forever:hang_after:60"], "changed", "", False, 3, 1),
    (["reset_before"], "changed", "", False, 2, 0),
    (["reset_after"], "changed", "", False, 2, 0),
    (["close_before"], "changed", "", False, 2, 0),
    (["close_after"], "changed", "", False, 2, 0),
    (["429"], "changed", "", False, 2, 0),
    (["429:1"], "changed", "", False, 2, 0),
    (["429date:1"], "changed", "", False, 2, 0),
    (["429junk"], "changed", "", False, 2, 0),
    (["503:1"], "changed", "", False, 2, 0),
    (["429:99999"], "waiting", "", True, 1, 0),
    (["503:99999"], "waiting", "no_answer", True, 1, 0),  # it may have done it: looked at first
    (["forever:429"], "failed", "http_429", True, 3, 0),
    (["500"], "changed", "", False, 2, 0),
    (["html502"], "changed", "", False, 2, 0),
    (["503"], "changed", "", False, 2, 0),
    (["504"], "changed", "", False, 2, 0),
    (["408"], "changed", "", False, 2, 0),
    (["forever:500"], "failed", "ERROR_UPDATING_CONVERSATION", True, 3, 1),
    (["forever:500_applied"], "changed", "", False, 3, 1),
    (["500_applied"], "changed", "", False, 2, 0),
    (["truncated"], "changed", "", False, 2, 0),
    (["bad_json"], "changed", "", False, 2, 0),
    (["empty200"], "changed", "", False, 2, 0),
    (["html200"], "changed", "", False, 2, 0),
    (["list_body"], "changed", "", False, 2, 0),
    (["forever:html200"], "changed", "", False, 3, 1),
    (["errors_body"], "failed", "SOMETHING_ODD", True, 1, 0),
    (["nan"], "changed", "", False, 2, 0),
    (["infinite"], "changed", "", False, 2, 0),
    (["deep"], "changed", "", False, 2, 0),
    (["duplicate_keys"], "changed", "", False, 2, 0),
    (["wrong_id"], "changed", "", False, 1, 1),
    (["missing"], "changed", "", False, 1, 1),
    (["nulls"], "changed", "", False, 1, 1),
    (["strings"], "changed", "", False, 1, 1),
    (["numbers"], "changed", "", False, 1, 1),
    (["not_applied"], "failed", "not_applied", True, 1, 1),
    (["old_ts"], "changed", "", False, 1, 1),
    (["bad_ts"], "changed", "", False, 1, 1),
    (["bad_ts:9999-12-31T23:59:59-12:00"], "changed", "", False, 1, 1),
    (["no_ts"], "changed", "", False, 1, 1),
    (["future_ts"], "changed", "", False, 1, 1),
    (["400"], "failed", "INVALID_IS_ACTIVE_VALUE", True, 1, 0),
    (["422"], "failed", "http_422", True, 1, 0),
    (["409"], "changed", "", False, 2, 0),
    (["forever:409"], "failed", "http_409", True, 2, 0),
    (["redirect302:http://127.0.0.1:9/"], "failed", "redirected", True, 1, 0),
    (["redirect307:http://127.0.0.1:9/"], "failed", "redirected", True, 1, 0),
    (["drip:0.05"], "changed", "", False, 2, 0),
    (["huge:3"], "changed", "", False, 2, 0),
    (["gzipbomb:20"], "changed", "", False, 2, 0),
    ([{"status": 200, "body": '{"message": "fine"}'}], "failed", "not_applied", True, 1, 1),
]


@pytest.mark.parametrize(
    ("faults", "state", "code", "is_active", "patches", "gets"), SETTLED, ids=lambda value: None
)
@pytest.mark.parametrize("enveloped", [False, True], ids=["bare", "enveloped"])
def test_run__fault(
    faults: list[Any],
    state: str,
    code: str,
    is_active: bool,
    patches: int,
    gets: int,
    enveloped: bool,
    sandbox: BlandSandbox,
    copied: Callable[..., list[str]],
    started: Callable[..., BulkUpdate],
) -> None:
    sandbox.enveloped = enveloped
    [conversation_id] = copied(1)
    before = Conversation.objects.get()
    sandbox.faults.add(f"PATCH {conversation_id}", *faults)
    bulk_update = started([conversation_id])

    run(bulk_update)

    item = bulk_update.items.get()
    row = Conversation.objects.get()
    assert (item.state, item.error_code) == (state, code)
    assert row.is_active is is_active
    assert len(sandbox.requests("PATCH")) == patches
    assert len(sandbox.requests("GET")) == gets
    assert before.updated_at <= row.updated_at <= datetime.now(timezone.utc)
    assert item.claimed_conversation is None
    assert Conversation.objects.count() == 1

"""Downloads are read by key in portions: whole behind a pooler, and flat in memory."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from datetime import timedelta
from operator import itemgetter
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

import bland_sms
from bland_sms import database, updates
from bland_sms.database import by_key
from bland_sms.models import Conversation

pytestmark = pytest.mark.django_db
PORTION = 10


@pytest.fixture
def ids(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(database, "ROWS_AT_ONCE", PORTION)
    monkeypatch.setattr("bland_sms.admin.results_csv.ROWS_AT_ONCE", PORTION)
    names = sorted(f"conv_{n:02}" for n in range(25))
    Conversation.objects.bulk_create(
        Conversation(id=name, user_number="+15550001111", is_active=True) for name in names
    )
    return names


def first_column(lines: Iterator[bytes]) -> list[str]:
    text = b"".join(lines).decode("utf-8-sig")
    return [row[0] for row in csv.reader(io.StringIO(text, newline=""))][1:]


def selects_from(table: str, captured: CaptureQueriesContext) -> list[str]:
    return [
        one["sql"] for one in captured if re.search(rf'SELECT .* FROM ["`]?{table}\b', one["sql"])
    ]


def export(client: Client, ids: list[str]) -> Any:
    data = {"action": "export_selected", "_selected_action": ids[:1], "select_across": "1"}
    return client.post("/admin/bland_sms/conversation/", data)


def test_export__every_row_once_and_a_portion_at_a_time(
    admin_client: Client, ids: list[str]
) -> None:
    response = export(admin_client, ids)

    with CaptureQueriesContext(
        connection,
    ) as captured:
        told = first_column(response.streaming_content)

    assert told == ids
    asked = selects_from("bland_sms_conversation", captured)
    assert len(asked) == 3
    assert all(sql.endswith(f"LIMIT {PORTION}") for sql in asked)


def test_export__a_row_that_changes_meanwhile_comes_once(
    admin_client: Client, ids: list[str]
) -> None:
    now = timezone.now()
    for number, pk in enumerate(ids):
        moment = now - timedelta(hours=len(ids) - number)
        Conversation.objects.filter(pk=pk).update(last_activity_at=moment)
    lines = iter(export(admin_client, ids).streaming_content)

    begun = [next(lines) for _ in range(3)]  # the header and two rows of the first portion
    moved = Conversation.objects.filter(pk__in=[ids[0], ids[20]])  # read already, and not yet
    moved.update(last_activity_at=now)
    told = first_column(iter([*begun, *lines]))

    assert told == [pk for pk in ids if pk != ids[20]] + [ids[20]]


def test_export__begins_before_the_rest_is_read(admin_client: Client, ids: list[str]) -> None:
    lines = iter(export(admin_client, ids).streaming_content)

    with CaptureQueriesContext(connection) as captured:
        begun = [next(lines) for _ in range(3)]

    assert ids[1].encode() in begun[2]
    assert len(selects_from("bland_sms_conversation", captured)) == 1


def test_results__every_row_once_and_a_portion_at_a_time(
    admin_client: Client, admin_user: Any, ids: list[str]
) -> None:
    draft = updates.prepare(ids, is_active=False, requested_by=admin_user)
    updates.start(draft)
    response: Any = admin_client.get(f"/admin/bland_sms/bulkupdate/{draft.pk}/results.csv")

    with CaptureQueriesContext(connection) as captured:
        told = first_column(response.streaming_content)

    assert told == ids
    asked = selects_from("bland_sms_bulkupdateitem", captured)
    assert len(asked) == 3
    assert all(sql.endswith(f"LIMIT {PORTION}") for sql in asked)


def test_by_key__while_rows_come_and_go(ids: list[str]) -> None:
    told = []
    for pk, _number in by_key(Conversation.objects.values_list("pk", "user_number"), itemgetter(0)):
        told.append(pk)
        if pk == ids[4]:
            Conversation.objects.filter(pk__in=[ids[2], ids[9]]).delete()
            Conversation.objects.create(id="conv_00a", user_number="", is_active=True)
            Conversation.objects.create(id="conv_99", user_number="", is_active=True)

    assert told == [*ids, "conv_99"]


@pytest.mark.parametrize("number", [0, PORTION, PORTION + 1])
def test_by_key__ends(ids: list[str], number: int) -> None:
    rows = Conversation.objects.filter(pk__in=ids[:number])

    assert [row.pk for row in by_key(rows)] == ids[:number]


def test_no_cursor_is_kept_at_the_server() -> None:
    """A pooler such as PgBouncer loses it, and MySQL's driver holds the whole result."""
    package = Path(bland_sms.__file__).parent
    users = [
        path for path in package.rglob("*.py") if re.search(r"\w\)?\.iterator\(", path.read_text())
    ]

    assert users == []

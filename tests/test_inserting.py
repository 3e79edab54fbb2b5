"""Many rows at once arrive as they are, however few or many they are, on each database."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from django.db import DataError, IntegrityError, connection, transaction

from bland_sms.mirror.inserting import COPY_FROM, insert
from bland_sms.mirror.rows import new_row
from bland_sms.models import Conversation, Message

pytestmark = pytest.mark.django_db

NOON = datetime(2026, 2, 3, 12, 0, 0, 123456, tzinfo=timezone.utc)
TEXTS = [
    "",
    "\\N",
    "\\.",
    "a\tb",
    "a\nb\r\n",
    "\\",
    "\\\\n",
    "\"quoted\", 'so'",
    "né 🎉",
    "NULL",
    "{}",
]
VALUES = [None, {}, [], "", 0, False, "\\", {"a\t": ["\\n", None, 1.5, {"é": True}]}]
NUMBERS = (1, COPY_FROM - 1, COPY_FROM, COPY_FROM + 30)


def rows(number: int) -> list[dict[str, Any]]:
    made = []
    for index in range(number):
        row = new_row(f"conv_{index}")
        row.last_message = TEXTS[index % len(TEXTS)]
        row.variables = VALUES[index % len(VALUES)]
        row.extra = {"text": row.last_message}
        row.is_active = index % 2 == 0
        row.message_count = index if index % 3 else None
        row.created_at = NOON + timedelta(microseconds=index) if index % 4 else None
        row.updated_at = NOON.astimezone(timezone(timedelta(hours=5, minutes=30)))
        made.append(vars(row))
    return made


def in_database() -> list[dict[str, Any]]:
    return list(Conversation.objects.order_by("last_activity_at", "id").values())


@pytest.mark.parametrize("number", NUMBERS)
def test_insert__all_values_arrive(number: int) -> None:
    made = {row["id"]: row for row in rows(number)}

    insert(Conversation, list(made.values()), connection.alias)

    assert len(in_database()) == number
    for row in in_database():
        told = {name: value for name, value in row.items() if name != "status"}
        assert told == {name: made[row["id"]][name] for name in told}
        assert row["status"] == ("active" if row["is_active"] else "inactive")


@pytest.mark.parametrize("number", NUMBERS)
def test_insert__keys_that_the_database_gives(number: int) -> None:
    insert(Conversation, rows(1), connection.alias)
    values = {"conversation_id": "conv_0", "sender": "USER", "status": "", "error_code": ""}
    values |= {"created_at": None, "attachments": None, "extra": {}, "occurrence": 0}
    texts = [TEXTS[position % len(TEXTS)] for position in range(number)]

    insert(
        Message,
        [
            {**values, "bland_id": f"m{position}", "position": position, "text": text}
            for position, text in enumerate(texts)
        ],
        connection.alias,
    )

    assert list(Message.objects.order_by("pk").values_list("text", flat=True)) == texts


@pytest.mark.parametrize("number", NUMBERS)
def test_insert__row_that_is_there_is_djangos_error(number: int) -> None:
    insert(Conversation, rows(1), connection.alias)

    with pytest.raises(IntegrityError), transaction.atomic():
        insert(Conversation, rows(number), connection.alias)

    assert [row["id"] for row in in_database()] == ["conv_0"]


@pytest.mark.parametrize("number", NUMBERS)
def test_insert__row_that_is_refused_is_djangos_error(number: int) -> None:
    if connection.vendor == "sqlite":
        pytest.skip("takes texts of any length")
    made = rows(number)
    made[-1]["channel"] = "x" * 33

    with pytest.raises(DataError), transaction.atomic():
        insert(Conversation, made, connection.alias)

    assert in_database() == []

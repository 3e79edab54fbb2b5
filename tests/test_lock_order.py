"""Processes that write the same conversations never wait for each other in a circle."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime, timedelta, timezone

import pytest
from django.db import connection, connections, transaction

from bland_sms.mirror import Applied, apply_page, erase
from bland_sms.models import Conversation
from bland_sms.payloads import ConversationPayload

from .conftest import wait_until

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(
        "connection.vendor != 'postgresql'", reason="asks PostgreSQL who waits for a lock"
    ),
]
NOON = datetime(2026, 2, 3, 12, tzinfo=timezone.utc)
IDS = ["conv_a", "conv_b", "conv_c"]
BACKWARDS = IDS[::-1]


def page(ids: Sequence[str], minute: int) -> list[ConversationPayload]:
    told_at = NOON + timedelta(minutes=minute)
    return [
        ConversationPayload(
            id=pk, is_active=bool(minute % 2), updated_at=told_at, observed_at=told_at
        )
        for pk in ids
    ]


class Other:
    """Another process: a thread with a connection of its own."""

    def __init__(self) -> None:
        self.pool = ThreadPoolExecutor(1)

    def applies(self, ids: Sequence[str], minute: int) -> Future[dict[str, Applied]]:
        return self.pool.submit(apply_page, page(ids, minute))

    def erases(self, ids: Sequence[str]) -> Future[object]:
        return self.pool.submit(erase, ids)


@pytest.fixture
def other() -> Iterator[Other]:
    process = Other()
    yield process
    process.pool.submit(connections.close_all).result()
    process.pool.shutdown()


def is_waiting_for_us() -> bool:
    with connection.cursor() as cursor:
        # Not pg_stat_activity, which stays the same within a transaction.
        cursor.execute(
            "SELECT count(*) FROM pg_locks "
            "WHERE NOT granted AND pg_backend_pid() = ANY(pg_blocking_pids(pid))"
        )
        return bool(cursor.fetchone()[0])


@pytest.mark.parametrize("ids", [IDS, BACKWARDS])
@pytest.mark.parametrize("stored", [IDS, BACKWARDS])
@pytest.mark.parametrize("verb", ["apply", "erase"])
def test_stored_rows__are_locked_in_the_order_of_their_ids(
    verb: str, stored: list[str], ids: list[str], other: Other
) -> None:
    """Whoever waits for the first holds none of the others, wherever the table has them."""
    for pk in stored:
        apply_page(page([pk], 0))
    rows = Conversation.objects.order_by("pk")
    with transaction.atomic():
        assert rows.select_for_update().first() is not None
        future = other.applies(ids, 1) if verb == "apply" else other.erases(ids)
        wait_until(is_waiting_for_us)
        assert len(rows.select_for_update(nowait=True)) == 3
    future.result(60)
    assert rows.filter(is_active=verb == "apply").count() == 3


@pytest.mark.parametrize("ids", [IDS, BACKWARDS, ["conv_b", "conv_a", "conv_c"]])
def test_new_rows__are_made_in_the_order_of_their_ids(ids: list[str], other: Other) -> None:
    with transaction.atomic():
        apply_page(page(["conv_a"], 0))
        future = other.applies(ids, 1)
        wait_until(is_waiting_for_us)
        apply_page(page(["conv_b", "conv_c"], 0))
    future.result(60)
    assert Conversation.objects.filter(is_active=True).count() == 3

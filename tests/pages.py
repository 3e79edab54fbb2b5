"""The pages that are measured, and any number of rows to fill them with.

For ``test_query_counts.py`` and ``benchmarks/pages.py``. Each list is longer than a page and each
thread longer than what is shown of it, so that what comes with a second page is in both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

from django.db import connection, models
from django.test import Client
from django.test.utils import CaptureQueriesContext

from bland_sms.models import (
    BulkUpdate,
    BulkUpdateItem,
    Conversation,
    Erasure,
    Message,
    PastedLine,
    StandingOrder,
    SyncRun,
    WebhookDelivery,
)
from tests.addresses import Address, addresses

CHUNK = 1000
MORE_THAN_IS_SHOWN = 250
"""Messages and items on the page of one."""
FEWEST_FILLED = MORE_THAN_IS_SHOWN
"""Rows beside which a benchmark adds those of its own."""
LONGEST_THREAD = 2000
OF_ONE_CUSTOMER = 30
TRANSACTIONS = ("BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE", "SET ")
"""How a request's statements are bracketed depends on who asks; it is not counted."""


def row_id(number: int) -> str:
    return f"conv-{number:07d}"


class Rows:
    """So many rows of each kind. The one that is looked at was made first."""

    def __init__(self, owner: Any) -> None:
        self.owner = owner
        self.number = 0
        self.now = datetime.now(timezone.utc).replace(microsecond=0)
        self.bulk_update, self.queued = self._updates(2)
        self.bulk_update.save()
        self.order = self._order(-1)
        self.order.save()
        self.queued.status, self.queued.counts_at_rest = "queued", None
        self.queued.save()

    def grow_to(self, number: int) -> None:
        """Add what is missing, also messages of one conversation and items of one update."""
        new = range(self.number, number)
        _write(Conversation, map(self._conversation, new))
        _write(BulkUpdate, self._updates(len(new)))
        _write(StandingOrder, map(self._order, new))
        _write(Erasure, map(self._erasure, new))
        _write(SyncRun, map(self._run, new))
        _write(WebhookDelivery, map(self._delivery, new))
        of_one = range(self._of_one(self.number), self._of_one(number))
        _write(Message, (self._message(index) for index in of_one if index < LONGEST_THREAD))
        _write(BulkUpdateItem, map(self._item, of_one))
        _write(PastedLine, map(self._line, of_one))
        self.number = number
        self.bulk_update.counts_at_rest = self.bulk_update.counts()
        self.bulk_update.save()
        with connection.cursor() as cursor:
            if connection.vendor != "mysql":
                cursor.execute("ANALYZE")

    def _of_one(self, number: int) -> int:
        return max(number, MORE_THAN_IS_SHOWN) if number else 0

    def _conversation(self, number: int) -> Conversation:
        moment = self.now - timedelta(seconds=number * 7)
        customer = 0 if number < OF_ONE_CUSTOMER else number
        row = Conversation(
            pk=row_id(number),
            user_number=f"+1555{customer:07d}",
            agent_number=f"+1666000000{number % 3}",
            is_active=number % 2 == 0,
            created_at=moment - timedelta(days=1),
            updated_at=moment,
            observed_at=self.now,
            transcript_observed_at=self.now,
            last_message=f"Thank you, that was all. Number {number}",
            last_message_at=moment,
            message_count=number % 40,
            summary="They said thank you.",
            variables={"order": number},
            extra={"new": number},
        )
        row.derive()
        return row

    def _order(self, number: int) -> StandingOrder:
        return StandingOrder(
            customer_key=f"1555{number + 1:07d}",  # the first customer has none: see self.order
            reason="asked by phone",
            requested_by=self.owner,
            requested_by_name="dana",
            source="admin",
            starts_at=self.now,
        )

    def _message(self, number: int) -> Message:
        return Message(
            conversation_id=row_id(0),
            bland_id=f"m{number}",
            position=number,
            sender="USER" if number % 2 else "AGENT",
            text=f"Message {number}",
            created_at=self.now - timedelta(seconds=10_000_000 - number),
        )

    def _updates(self, number: int) -> Iterator[BulkUpdate]:
        for index in range(number):
            yield BulkUpdate(
                is_active=False,
                status=("finished", "cancelled", "stopped")[index % 3],
                source="admin",
                requested_by=self.owner,
                requested_by_name="dana",
                started_at=self.now - timedelta(hours=3),
                finished_at=self.now - timedelta(hours=2),
                counts_at_rest={"changed": 3, "failed": 1},
            )

    def _item(self, number: int) -> BulkUpdateItem:
        few = {1: "failed", 2: "unknown", 3: "cancelled", 4: "unchanged"}
        return BulkUpdateItem(
            bulk_update=self.queued if number % 50 == 6 else self.bulk_update,
            conversation_id=row_id(number),
            state="waiting" if number % 50 == 6 else few.get(number, "changed"),
            error_code="CONVERSATION_NOT_FOUND" if number == 1 else "",
            http_status=404 if number == 1 else 200,
            previous_is_active=True,
            finished_at=self.now - timedelta(hours=2),
        )

    def _line(self, number: int) -> PastedLine:
        return PastedLine(
            bulk_update=self.bulk_update,
            number=number + 1,
            text=f"+1555{number:07d}",
            state="ambiguous" if number % 10 == 0 else "found",
            conversation_id=None if number % 10 == 0 else row_id(number),
            candidates=[{"customer": f"1555{number:07d}"}] if number % 10 == 0 else [],
        )

    def _erasure(self, number: int) -> Erasure:
        return Erasure(requested_by_name="dana", counts={"conversations": number, "messages": 7})

    def _run(self, number: int) -> SyncRun:
        return SyncRun(
            mode="full",
            trigger="task",
            status="finished",
            requested_by=self.owner,
            started_at=self.now,
            finished_at=self.now,
        )

    def _delivery(self, number: int) -> WebhookDelivery:
        return WebhookDelivery(
            body_sha256=f"{number:064d}",
            conversation_id=row_id(number),
            kind="status",
            status="ended",
            reason="They said goodbye",
            state="processed" if number % 2 else "failed",
            received_at=self.now,
            processed_at=self.now,
        )

    # --- pages --------------------------------------------------------------------------------

    def urls(self) -> dict[str, str]:
        """Every page that shows rows, by a name for it: from the URL conf, and its variants."""
        found = {
            address.name: address.url(self._id_for(address))
            for address in addresses()
            if address.mount != "second" and address.name not in NOT_PAGES
        }
        for name, queries in VARIANTS.items():
            for query in queries:
                found[f"{name}?{query}"] = f"{found[name]}?{query.replace('+', '%2B')}"
        return found

    def _id_for(self, address: Address) -> object:
        if not address.has_id:
            return ""
        if "conversation" in address.route:
            return row_id(0)
        if "bulk" in address.route:
            return self.bulk_update.pk
        if "standing" in address.route:
            return self.order.pk
        if "erasure" in address.route:
            return Erasure.objects.order_by("pk").values_list("pk", flat=True)[0]
        model = SyncRun if "syncrun" in address.route else WebhookDelivery
        return model._default_manager.order_by("pk").values_list("pk", flat=True)[0]


_OF_ONE = ("<id>/", "<id>/delete/")
NOT_PAGES = {
    *(
        f"admin/{model}/{page}"
        for model in ("conversation", "bulkupdate", "syncrun", "webhookdelivery")
        for page in ("add/", "<id>/", "<id>/delete/")
    ),
    *(
        f"admin/{model}/search/"
        for model in (
            *("conversation", "bulkupdate", "standingorder", "erasure"),
            *("syncrun", "webhookdelivery"),
        )
    ),
    *(f"admin/{model}/{page}" for model in ("standingorder", "erasure") for page in _OF_ONE),
    *(f"admin/standingorder/<id>/{verb}/" for verb in ("lift", "renew", "again", "review")),
    "api/v1/standing-orders/<id>/lift/",
    "admin/conversation/sync/",
    *(
        f"admin/conversation/<id>/{verb}/"
        for verb in ("deactivate", "reactivate", "deactivate-customer", "refresh", "copy")
    ),
    "admin/bulkupdate/<id>/confirm/",
    "admin/bulkupdate/<id>/pick/",
    *(f"admin/bulkupdate/<id>/{verb}/" for verb in ("run", "cancel", "retry", "undo")),
    "api/v1/conversations/<id>/refresh/",
    *(f"api/v1/bulk-updates/<id>/{verb}/" for verb in ("continue", "retry", "cancel", "undo")),
    "api/v1/schema/",
    # One statement for each thousand rows, and all of them are the answer.
    "admin/bulkupdate/<id>/results.csv",
    "admin/bulkupdate/<id>/lines.csv",
    "admin/bulkupdate/ledger.csv",
}
"""What shows no rows: what is pressed, and what there is none of."""
VARIANTS = {
    "admin/conversation/": (
        "p=2",
        "o=1",
        "status=active",
        "activity=7d",
        "our_number=+16660000001",
        "change=waiting",
        "change=failed",
        "event=started:2026-01-01:2026-12-31",
        "event=deactivated_by_us:2026-01-01:2026-12-31",
        "q=0000077",
        f"q={row_id(7)}x",
        "q=+15550000000&status=active",
    ),
    "admin/conversation/<id>/change/": ("all",),
    "admin/bulkupdate/": (
        "p=2",
        "whose=mine",
        "outcome=running",
        "outcome=failures",
        "outcome=undone",
        "source__exact=api",
        "started=7d",
        "started_from=2020-01-01&started_to=2020-02-01",
        "q=+15550000000",
    ),
    "admin/standingorder/": ("p=2", "state=in_force", "state=ended", "whose=mine", "q=15550000007"),
    "admin/erasure/": ("p=2",),
    "admin/erasure/add/": (f"conversation={row_id(0)}",),
    "admin/syncrun/": ("p=2", "status__exact=finished"),
    "admin/webhookdelivery/": ("p=2", "state__exact=failed", f"q={row_id(7)}"),
    "api/v1/conversations/": (
        "page_size=20",
        "is_active=true",
        "status=active",
        "agent_number=+16660000001",
        "user_number=+15550000000",
        "updated_after=2020-01-01T00:00:00Z",
        "search=0000077",
    ),
    "api/v1/bulk-updates/": ("status=finished",),
    "api/v1/bulk-updates/<id>/items/": ("state=changed", "state=failed"),
}


def measure(browser: Client, url: str) -> int:
    """Statements of one page, asked for twice: what the first one keeps is not counted."""
    browser.get(url)
    with CaptureQueriesContext(connection) as captured:
        answer = browser.get(url)
    assert answer.status_code == 200, f"{url}: {answer.status_code}"
    sql = [query["sql"].lstrip().upper() for query in captured.captured_queries]
    return sum(not one.startswith(TRANSACTIONS) for one in sql)


def counts(browser: Client, rows: Rows) -> dict[str, int]:
    """Statements of every page."""
    return {name: measure(browser, url) for name, url in sorted(rows.urls().items())}


def _write(model: type[models.Model], rows: Iterable[Any]) -> None:
    chunk: list[Any] = []
    save: Callable[..., Any] = model._default_manager.bulk_create
    for row in rows:
        chunk.append(row)
        if len(chunk) == CHUNK:
            save(chunk)
            chunk = []
    save(chunk)

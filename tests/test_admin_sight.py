"""A host's admin that narrows its conversations: updates show and touch only what it shows."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from html import unescape
from typing import Any

import pytest
from django.contrib.auth.models import AbstractUser, Permission
from django.db.models import Count, QuerySet
from django.http import HttpRequest
from django.test import Client

from bland_sms.admin import ConversationAdmin
from bland_sms.admin.sight import sight_of
from bland_sms.models import BulkUpdate, BulkUpdateItem, Conversation
from bland_sms.sandbox import BlandSandbox
from bland_sms.updates import prepare, run

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("no_waiting")]

Copied = Callable[..., list[str]]
Started = Callable[..., BulkUpdate]
TEAM, OTHERS = "+16660000001", "+16660000002"
LIST = "/admin/bland_sms/bulkupdate/"


def narrow(self: Any, request: HttpRequest) -> QuerySet[Conversation]:
    rows: QuerySet[Conversation] = super(ConversationAdmin, self).get_queryset(request)
    return rows.filter(agent_number=TEAM)


@pytest.fixture
def desk(client: Client, django_user_model: Any, monkeypatch: pytest.MonkeyPatch) -> Client:
    """Somebody of a team, on a site that shows them the conversations of their number."""
    monkeypatch.setattr(ConversationAdmin, "get_queryset", narrow)
    user = django_user_model.objects.create_user("tess", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(content_type__app_label="bland_sms"))
    client.force_login(user)
    return client


@pytest.fixture
def shared(
    copied: Copied, started: Started, staff: AbstractUser, sandbox: BlandSandbox
) -> Callable[..., BulkUpdate]:
    """An update of somebody else's: two conversations of the team, three of others."""

    def make(*, run_it: bool = True, fault: str = "") -> BulkUpdate:
        ids = copied(5)
        for number, row_id in enumerate(ids):
            Conversation.objects.filter(pk=row_id).update(
                agent_number=TEAM if number < 2 else OTHERS,
                user_number=f"+1555010000{number}",
            )
            if fault:
                sandbox.faults.add(row_id, fault)
        bulk_update = started(ids, requested_by=staff)
        if run_it:
            run(bulk_update)
            bulk_update.refresh_from_db()
        return bulk_update

    return make


def url_of(bulk_update: BulkUpdate, page: str = "change/") -> str:
    return f"{LIST}{bulk_update.pk}/{page}"


def words(response: Any) -> str:
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", response.content.decode())).split())


def states(bulk_update: BulkUpdate) -> list[str]:
    return list(bulk_update.items.order_by("conversation_id").values_list("state", flat=True))


@pytest.mark.parametrize("fault", ["", "400"])
def test_update__shows_the_visible_and_counts_the_others(
    fault: str, desk: Client, shared: Callable[..., BulkUpdate]
) -> None:
    bulk_update = shared(fault=fault)
    text = words(desk.get(url_of(bulk_update)))
    assert "and 3 that you may not see" in text
    assert [n for n in range(5) if f"conv_000{n}" in text] == [0, 1]
    assert [n for n in range(5) if f"+1555010000{n}" in text] == [0, 1]
    assert f"2 {'failed' if fault else 'changed'}" in text


def test_progress__counts_the_visible(desk: Client, shared: Callable[..., BulkUpdate]) -> None:
    told = desk.get(url_of(shared(), "progress/")).json()
    assert (told["total"], told["done"], told["hidden"]) == (2, 2, 3)
    assert told["counts"]["changed"] == 2
    assert "and 3 that you may not see" in told["words"]


def test_results__hold_the_visible(desk: Client, shared: Callable[..., BulkUpdate]) -> None:
    response: Any = desk.get(url_of(shared(), "results.csv"))
    text = b"".join(response.streaming_content).decode("utf-8-sig")
    [_header, *rows] = list(csv.reader(io.StringIO(text)))
    assert [row[0] for row in rows] == ["conv_0000", "conv_0001", ""]
    assert rows[-1][-1] == "and 3 that you may not see"


def test_retry__asks_for_the_visible(
    desk: Client, shared: Callable[..., BulkUpdate], sandbox: BlandSandbox
) -> None:
    bulk_update = shared(fault="400")
    sandbox.log.clear()
    response = desk.post(url_of(bulk_update, "retry/"), follow=True)
    run(bulk_update)
    assert states(bulk_update) == ["changed", "changed", "failed", "failed", "failed"]
    assert {call["conversation_id"] for call in sandbox.log} <= {"conv_0000", "conv_0001"}
    assert "conv_0002" not in words(response)


def test_undo__takes_back_the_visible(
    desk: Client, shared: Callable[..., BulkUpdate], sandbox: BlandSandbox
) -> None:
    bulk_update = shared()
    desk.post(url_of(bulk_update, "undo/"))
    active = [pk for pk, row in sandbox.account.rows.items() if row["is_active"]]
    assert active == ["conv_0000", "conv_0001"]
    opposite = BulkUpdate.objects.get(undo_of=bulk_update)
    text = words(desk.get(url_of(opposite)))
    assert [n for n in range(5) if f"conv_000{n}" in text] == [0, 1]


def test_cancel__leaves_the_others_waiting(desk: Client, shared: Callable[..., BulkUpdate]) -> None:
    bulk_update = shared(run_it=False)
    desk.post(url_of(bulk_update, "cancel/"))
    assert states(bulk_update) == ["cancelled", "cancelled", "waiting", "waiting", "waiting"]
    bulk_update.refresh_from_db()
    assert bulk_update.status in BulkUpdate.Status.OPEN
    run(bulk_update)
    assert states(bulk_update) == ["cancelled", "cancelled", "changed", "changed", "changed"]


def test_cancel__with_nothing_visible_left_changes_nothing(
    desk: Client, shared: Callable[..., BulkUpdate]
) -> None:
    bulk_update = shared(run_it=False)
    desk.post(url_of(bulk_update, "cancel/"))
    desk.post(url_of(bulk_update, "cancel/"))
    assert states(bulk_update) == ["cancelled", "cancelled", "waiting", "waiting", "waiting"]


@pytest.mark.parametrize("accept", ["text/html", "application/json"])
@pytest.mark.parametrize("stopped", [True, False])
def test_run__is_refused_while_others_wait(
    stopped: bool,
    accept: str,
    desk: Client,
    shared: Callable[..., BulkUpdate],
    sandbox: BlandSandbox,
) -> None:
    bulk_update = shared(run_it=False)
    if stopped:
        BulkUpdate.objects.update(status="stopped", stop_code="outage")
    assert desk.get(url_of(bulk_update, "progress/")).json()["drive"] is False
    desk.post(url_of(bulk_update, "run/"), {"here": "1"}, headers={"Accept": accept})
    assert states(bulk_update) == ["waiting"] * 5
    assert not sandbox.log
    bulk_update.refresh_from_db()
    assert (bulk_update.status == "stopped") is stopped


def test_sight__is_not_narrowed_where_the_host_narrows_nothing(
    rf: Any, staff: AbstractUser, copied: Copied
) -> None:
    """Then no page looks at the rows of conversations, and ids that are not copied are shown."""
    from django.contrib import admin

    request = rf.get("/")
    request.user = staff
    assert sight_of(request, admin.site).conversations is None


@pytest.mark.parametrize(
    "narrowing",
    [
        lambda rows: rows.none(),
        lambda rows: rows[:1],
        lambda rows: rows.exclude(pk="conv_0001"),
        lambda rows: rows.annotate(n=Count("messages")).filter(n=0, pk="conv_0000"),
        lambda rows: (
            rows.order_by().filter(pk="conv_0000").union(rows.order_by().filter(pk="conv_0001"))
        ),
    ],
    ids=["none", "slice", "exclude", "annotate", "union"],
)
def test_update__any_way_to_narrow(
    narrowing: Any,
    desk: Client,
    shared: Callable[..., BulkUpdate],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def get_queryset(self: Any, request: HttpRequest) -> Any:
        rows = super(ConversationAdmin, self).get_queryset(request)
        return narrowing(rows.filter(agent_number=TEAM))

    bulk_update = shared()
    monkeypatch.setattr(ConversationAdmin, "get_queryset", get_queryset)
    for page in ("change/", "progress/"):
        text = words(desk.get(url_of(bulk_update, page)))
        assert "conv_0002" not in text
        assert "that you may not see" in text


def test_update__the_ledger_itself_stays_whole(
    desk: Client, shared: Callable[..., BulkUpdate]
) -> None:
    """The ledger itself stays whole."""
    bulk_update = shared()
    desk.get(url_of(bulk_update))
    assert BulkUpdateItem.objects.filter(bulk_update=bulk_update).count() == 5


def test_confirm__counts_and_starts_only_what_is_visible(
    desk: Client, shared: Callable[..., BulkUpdate], django_user_model: Any
) -> None:
    shared(run_it=False)
    BulkUpdate.objects.all().delete()
    ids = sorted(Conversation.objects.values_list("pk", flat=True))
    owner = django_user_model.objects.get(username="tess")
    draft = prepare(ids, is_active=False, requested_by=owner, source="admin")

    text = words(desk.get(url_of(draft, "confirm/")))
    assert "Deactivate 2 conversations" in text
    assert "2 conversations of 1 customer. (and 3 that you may not see: they are left out)" in text

    desk.post(url_of(draft, "confirm/"))
    asked = draft.items.order_by("conversation_id").values_list("conversation_id", "state")
    assert list(asked) == [("conv_0000", "changed"), ("conv_0001", "changed")]


def test_confirm__of_nothing_that_is_visible_starts_nothing(
    desk: Client, shared: Callable[..., BulkUpdate], django_user_model: Any
) -> None:
    shared(run_it=False)
    BulkUpdate.objects.all().delete()
    ids = list(Conversation.objects.exclude(agent_number=TEAM).values_list("pk", flat=True))
    owner = django_user_model.objects.get(username="tess")
    draft = prepare(ids, is_active=False, requested_by=owner, source="admin")

    assert "There is nothing to do" in words(desk.post(url_of(draft, "confirm/")))
    assert set(states(draft)) == {"waiting"}
    draft.refresh_from_db()
    assert draft.status == "draft"

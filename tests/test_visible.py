"""The API shows and changes for a person of the admin what the admin shows them, no more."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any
from weakref import WeakSet

import pytest
from django.contrib import admin
from django.contrib.auth.models import AbstractUser, Permission
from django.db.models import QuerySet
from django.http import HttpRequest
from django.test import Client

from bland_sms import standing
from bland_sms.admin import ConversationAdmin
from bland_sms.models import BulkUpdate, Conversation, Message, StandingOrder
from bland_sms.sandbox import BlandSandbox
from bland_sms.summary import close_days
from bland_sms.sync import refresh
from bland_sms.updates import run
from bland_sms.visible import shown_to

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("no_waiting")]
TEAM, OTHERS = "+16660000001", "+16660000002"
API = "/bland-sms/api/v1/"
OURS, THEIRS = ["conv_0000", "conv_0001"], ["conv_0002", "conv_0003", "conv_0004"]


def narrow(self: Any, request: HttpRequest) -> QuerySet[Conversation]:
    rows: QuerySet[Conversation] = super(ConversationAdmin, self).get_queryset(request)
    return rows.filter(agent_number=TEAM)


@pytest.fixture(autouse=True)
def only_the_hosts_site(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other test modules have admin sites of their own, which live as long as the process."""
    own = WeakSet(site for site in admin.sites.all_sites if site.name == admin.site.name)
    monkeypatch.setattr("django.contrib.admin.sites.all_sites", own)


@pytest.fixture
def account(django_user_model: Any) -> Callable[..., Client]:
    def make(**values: bool) -> Client:
        user = django_user_model.objects.create_user(f"a{django_user_model.objects.count()}")
        django_user_model.objects.filter(pk=user.pk).update(**values)
        user.user_permissions.set(Permission.objects.filter(content_type__app_label="bland_sms"))
        client = Client()
        client.force_login(user)
        return client

    return make


@pytest.fixture
def desk(account: Callable[..., Client], monkeypatch: pytest.MonkeyPatch) -> Client:
    monkeypatch.setattr(ConversationAdmin, "get_queryset", narrow)
    return account(is_staff=True)


@pytest.fixture
def program(desk: Client, account: Callable[..., Client]) -> Client:
    return account(is_staff=False)


@pytest.fixture
def rows(sandbox: BlandSandbox) -> list[str]:
    """Two of the team, three of others."""
    for number, pk in enumerate(OURS + THEIRS):
        numbers = {
            "user_number": f"+1555010700{number}",
            "agent_number": TEAM if pk in OURS else OTHERS,
        }
        sandbox.account.add({"id": pk, **numbers})
        refresh(pk)
        Message.objects.create(conversation_id=pk, bland_id="1", position=1, text="hello")
    return OURS + THEIRS


@pytest.fixture
def shared(
    rows: list[str], started: Callable[..., BulkUpdate], sandbox: BlandSandbox
) -> Callable[..., BulkUpdate]:
    """An update of somebody else's about all of them."""

    def make(fault: str = "", *, run_it: bool = True) -> BulkUpdate:
        for pk in rows if fault else ():
            sandbox.faults.add(pk, fault)
        bulk_update = started(rows)
        if run_it:
            run(bulk_update)
        bulk_update.refresh_from_db()
        return bulk_update

    return make


def call(client: Client, method: str, path: str, body: Any = None) -> Any:
    return client.generic(
        method, API + path, json.dumps({} if body is None else body), "application/json"
    )


def ids_of(answer: Any, name: str = "id") -> list[str]:
    return sorted(row[name] for row in answer.json()["results"])


def states(bulk_update: BulkUpdate) -> list[str]:
    return list(bulk_update.items.order_by("conversation_id").values_list("state", flat=True))


# --- conversations ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "query", ["", "?is_active=true", "?search=7000,7002", "?user_number=%2B15550107002"]
)
def test_conversations(query: str, desk: Client, program: Client, rows: list[str]) -> None:
    seen = set(ids_of(desk.get(f"{API}conversations/{query}")))
    all_of_them = set(ids_of(program.get(f"{API}conversations/{query}")))
    assert seen == all_of_them & set(OURS)
    assert all_of_them - seen


def test_conversations__pages(desk: Client, rows: list[str]) -> None:
    first = desk.get(f"{API}conversations/?page_size=1").json()
    second = desk.get(first["next"]).json()
    assert sorted(page["results"][0]["id"] for page in (first, second)) == OURS
    assert second["next"] is None


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "", None),
        ("GET", "messages/", None),
        ("POST", "refresh/", None),
        ("PATCH", "", {"is_active": False}),
    ],
)
def test_conversation(
    method: str,
    path: str,
    body: Any,
    desk: Client,
    program: Client,
    rows: list[str],
    sandbox: BlandSandbox,
) -> None:
    sandbox.log.clear()
    assert call(desk, method, f"conversations/{THEIRS[0]}/{path}", body).status_code == 404
    assert not sandbox.log
    assert not BulkUpdate.objects.exists()
    assert call(desk, method, f"conversations/{OURS[0]}/{path}", body).status_code == 200
    assert call(program, method, f"conversations/{THEIRS[0]}/{path}", body).status_code == 200


# --- bulk updates -----------------------------------------------------------------------------


def test_bulk_update__is_asked_for_the_visible(
    desk: Client, program: Client, rows: list[str], sandbox: BlandSandbox
) -> None:
    sandbox.log.clear()
    for hidden in (rows, [OURS[0], "only-bland-knows"]):
        answer = call(
            desk, "POST", "bulk-updates/", {"is_active": False, "conversation_ids": hidden}
        )
        told = answer.json()["fields"]["conversation_ids"]
        assert answer.status_code == 400
        assert [one["code"] for one in told] == ["not_found"] * len(set(hidden) - set(OURS))
    assert not sandbox.log
    for client, ids in ((desk, OURS), (program, rows)):
        body = {"is_active": False, "conversation_ids": ids}
        assert call(client, "POST", "bulk-updates/", body).status_code == 202


def test_bulk_update__shows_the_visible(
    desk: Client, program: Client, shared: Callable[..., BulkUpdate]
) -> None:
    path = f"bulk-updates/{shared().pk}/"
    assert call(desk, "GET", path).json()["counts"]["changed"] == 2
    assert call(program, "GET", path).json()["counts"]["changed"] == 5
    assert ids_of(desk.get(f"{API}{path}items/"), "conversation_id") == OURS
    assert len(ids_of(program.get(f"{API}{path}items/"))) == 5
    assert [one["counts"] for one in desk.get(f"{API}bulk-updates/").json()["results"]] == [None]


def test_bulk_update__continue(
    desk: Client, program: Client, shared: Callable[..., BulkUpdate], sandbox: BlandSandbox
) -> None:
    bulk_update = shared(run_it=False)
    sandbox.log.clear()
    assert call(desk, "POST", f"bulk-updates/{bulk_update.pk}/continue/").status_code == 403
    assert not sandbox.log
    assert call(program, "POST", f"bulk-updates/{bulk_update.pk}/continue/").status_code == 202
    assert states(bulk_update) == ["changed"] * 5


def test_bulk_update__retry(desk: Client, shared: Callable[..., BulkUpdate]) -> None:
    bulk_update = shared("400")
    assert states(bulk_update) == ["failed"] * 5
    assert call(desk, "POST", f"bulk-updates/{bulk_update.pk}/retry/").status_code == 202
    run(bulk_update)
    assert states(bulk_update) == ["changed"] * 2 + ["failed"] * 3


def test_bulk_update__cancel(desk: Client, shared: Callable[..., BulkUpdate]) -> None:
    bulk_update = shared(run_it=False)
    assert call(desk, "POST", f"bulk-updates/{bulk_update.pk}/cancel/").status_code == 200
    assert states(bulk_update) == ["cancelled"] * 2 + ["waiting"] * 3


def test_bulk_update__undo(desk: Client, shared: Callable[..., BulkUpdate]) -> None:
    answer = call(desk, "POST", f"bulk-updates/{shared().pk}/undo/")
    assert answer.status_code == 202
    opposite = BulkUpdate.objects.get(pk=answer.json()["id"])
    assert sorted(opposite.items.values_list("conversation_id", flat=True)) == OURS


# --- standing orders, summary -----------------------------------------------------------------


def test_standing_orders(desk: Client, program: Client, rows: list[str]) -> None:
    ours, theirs = (standing.make(f"+1555010700{n}", "spam") for n in (0, 2))
    assert ids_of(desk.get(f"{API}standing-orders/")) == [ours.pk]
    assert ids_of(program.get(f"{API}standing-orders/")) == [ours.pk, theirs.pk]
    for method, path in (("GET", ""), ("POST", "lift/")):
        hidden = call(desk, method, f"standing-orders/{theirs.pk}/{path}")
        assert hidden.status_code == 404
        assert call(desk, method, f"standing-orders/{ours.pk}/{path}").status_code == 200
    theirs.refresh_from_db()
    assert theirs.state == "in_force"


def test_standing_order__about_somebody_hidden(
    desk: Client, program: Client, rows: list[str]
) -> None:
    for number in ("+15550107002", "+15550107999"):  # hidden, unknown: the same answer
        body = {"customer": number, "reason": "spam"}
        answer = call(desk, "POST", "standing-orders/", body)
        assert (answer.status_code, answer.json()["fields"]["customer"][0]["code"]) == (
            400,
            "not_found",
        )
        assert not StandingOrder.objects.exists()
        page = desk.post(
            "/admin/bland_sms/standingorder/add/",
            {"customers": number, "reason": "spam", "duration": "", "spare_handed_off": "on"},
        )
        assert page.status_code == 302
        assert not StandingOrder.objects.exists()
    body = {"customer": "+15550107000", "reason": "spam"}
    assert call(desk, "POST", "standing-orders/", body).status_code == 201
    body = {"customer": "+15550107999", "reason": "spam"}
    assert call(program, "POST", "standing-orders/", body).status_code == 201


def test_summary(desk: Client, program: Client, shared: Callable[..., BulkUpdate]) -> None:
    shared()
    close_days()
    seen, everything = (one.get(f"{API}summary/").json() for one in (desk, program))
    assert seen["total"]["deactivated_by_us"] == 2
    assert everything["total"]["deactivated_by_us"] == 5
    assert [one["agent_number"] for one in seen["agent_numbers"]] == [TEAM]
    early = desk.get(f"{API}summary/?from=2026-01-01&to=2026-06-30").json()
    assert (early["from"], early["to"]) == ("2026-05-31", "2026-06-30")


# --- whose admin ------------------------------------------------------------------------------


@pytest.fixture
def second_site() -> Iterator[admin.AdminSite]:
    site = admin.AdminSite(name="second")
    yield site
    admin.sites.all_sites.discard(site)


class OthersAdmin(ConversationAdmin):
    def get_queryset(self, request: HttpRequest) -> QuerySet[Conversation]:
        return admin.ModelAdmin.get_queryset(self, request).filter(agent_number=OTHERS)


def visible_to(user: AbstractUser, rf: Any) -> list[str]:
    request = rf.get("/")
    request.user = user
    shown = shown_to(request)
    rows = Conversation.objects.all() if shown is None else shown
    return sorted(rows.values_list("pk", flat=True))


def test_sites__what_the_user_may_enter(
    monkeypatch: pytest.MonkeyPatch,
    staff: AbstractUser,
    rf: Any,
    rows: list[str],
    second_site: admin.AdminSite,
) -> None:
    assert visible_to(staff, rf) == rows
    second_site.register(Conversation, OthersAdmin)
    assert visible_to(staff, rf) == rows  # the first site shows all
    monkeypatch.setattr(ConversationAdmin, "get_queryset", narrow)
    assert visible_to(staff, rf) == rows  # each shows a part
    monkeypatch.setattr(second_site, "has_permission", lambda request: False)
    assert visible_to(staff, rf) == OURS
    staff.is_staff = False
    assert visible_to(staff, rf) == rows


def test_sites__without_the_second_factor(
    monkeypatch: pytest.MonkeyPatch,
    staff: AbstractUser,
    rf: Any,
    rows: list[str],
    second_site: admin.AdminSite,
) -> None:
    """As django-otp's site: a token of the API passes no second factor."""
    monkeypatch.setattr(admin.site, "has_permission", lambda request: False)
    monkeypatch.setattr(ConversationAdmin, "get_queryset", narrow)
    assert visible_to(staff, rf) == OURS
    monkeypatch.setattr(second_site, "has_permission", lambda request: False)
    second_site.register(Conversation, ConversationAdmin)
    assert visible_to(staff, rf) == OURS
    second_site.unregister(Conversation)
    second_site.register(Conversation, OthersAdmin)
    assert visible_to(staff, rf) == []


@pytest.mark.parametrize("how", ["slice", "union"])
def test_admin__whose_rows_cannot_be_narrowed_further(
    how: str, monkeypatch: pytest.MonkeyPatch, desk: Client, rows: list[str]
) -> None:
    def few(self: Any, request: HttpRequest) -> QuerySet[Conversation]:
        both = narrow(self, request).order_by("pk")
        one: QuerySet[Conversation] = both.filter(pk=OURS[0]).order_by()
        return both[:1] if how == "slice" else one.union(one)

    monkeypatch.setattr(ConversationAdmin, "get_queryset", few)
    assert ids_of(desk.get(f"{API}conversations/")) == OURS[:1]


def test_host__narrows_by_several_rows(
    monkeypatch: pytest.MonkeyPatch, desk: Client, rows: list[str]
) -> None:
    def joined(self: Any, request: HttpRequest) -> QuerySet[Conversation]:
        rows: QuerySet[Conversation] = super(ConversationAdmin, self).get_queryset(request)
        return rows.filter(messages__text="hello", agent_number=TEAM).distinct()

    Message.objects.create(conversation_id=OURS[0], bland_id="2", position=2, text="hello")
    monkeypatch.setattr(ConversationAdmin, "get_queryset", joined)
    assert ids_of(desk.get(f"{API}conversations/")) == OURS
    assert ids_of(desk.get(f"{API}conversations/?search=7000")) == OURS[:1]

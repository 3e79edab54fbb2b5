"""What staff see and may do on the list of conversations and on the page of one."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from html import unescape
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import AbstractUser, Permission
from django.core.management import call_command
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import include, path, reverse
from django.utils import timezone

from bland_sms import updates
from bland_sms.admin import BulkUpdateAdmin, ConversationAdmin, SyncRunAdmin, base, named
from bland_sms.mirror import apply_conversation
from bland_sms.models import BulkUpdate, BulkUpdateItem, Conversation, SyncRun
from bland_sms.payloads import ConversationPayload
from bland_sms.sandbox import BlandSandbox
from bland_sms.sync import refresh

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("no_waiting")]
LIST = "/admin/bland_sms/conversation/"
CUSTOMER, STRANGER = "+15550100001", "+15550100002"
VERBS = ("deactivate", "reactivate", "refresh", "deactivate-customer")
PERMISSIONS = {
    "view_conversation",
    "view_transcript",
    "deactivate_conversation",
    "reactivate_conversation",
    "refresh_conversation",
    "export_conversation",
}
NEEDED = {
    "deactivate": "deactivate_conversation",
    "deactivate-customer": "deactivate_conversation",
    "reactivate": "reactivate_conversation",
    "refresh": "refresh_conversation",
}
Copied = Callable[..., list[str]]
Known = Callable[..., str]
Login = Callable[..., Client]

second_site = admin.AdminSite(name="second")
second_site.register(Conversation, ConversationAdmin)
second_site.register(BulkUpdate, BulkUpdateAdmin)
second_site.register(SyncRun, SyncRunAdmin)
urlpatterns = [path("", include("project.urls")), path("second/", second_site.urls)]


@pytest.fixture
def known(sandbox: BlandSandbox, db: None) -> Known:
    """A conversation that Bland has and that was copied with its messages."""

    def make(conversation_id: str = "conv_1", **values: Any) -> str:
        row = {"id": conversation_id, "user_number": CUSTOMER, **values}
        if isinstance(row.get("messages"), list):
            row["messages"] = [
                {"id": f"m{n}", "created_at": f"2026-01-02T03:04:{n:02d}.000Z", **message}
                for n, message in enumerate(row["messages"])
            ]
        sandbox.account.add(row)
        refresh(conversation_id)
        sandbox.log.clear()
        return conversation_id

    return make


@pytest.fixture
def desk(client: Client, staff: AbstractUser) -> Client:
    """A browser in which somebody is logged in who may do everything."""
    client.force_login(staff)
    return client


@pytest.fixture
def login(client: Client, django_user_model: Any) -> Login:
    """A browser in which staff with just these permissions is logged in."""

    def make(*codenames: str) -> Client:
        user = django_user_model.objects.create_user("sam", is_staff=True)
        user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
        client.force_login(user)
        return client

    return make


def url_of(conversation_id: str, verb: str = "change") -> str:
    return f"{LIST}{conversation_id.replace('_', '_5F')}/{verb}/"


def act(desk: Client, action: str, ids: list[str], at: str = LIST) -> Any:
    return desk.post(at, {"action": action, "_selected_action": ids}, follow=True)


def press(desk: Client, conversation_id: str, verb: str) -> Any:
    return desk.post(url_of(conversation_id, verb), follow=True)


def told(response: Any) -> list[tuple[str, str]]:
    """The messages on a page: level, and text without its link."""
    return [
        (message.level_tag, re.sub(r"\s*<a .*?</a>", "", unescape(str(message))).strip())
        for message in response.context["messages"]
    ]


def assert_success(response: Any, text: str) -> None:
    """One message, of success, that begins so; what is offered beside it is not our matter."""
    messages = told(response)
    assert [level for level, _ in messages] == ["success"]
    assert messages[0][1].startswith(text)


def page(desk: Client, conversation_id: str, query: str = "") -> str:
    response = desk.get(url_of(conversation_id) + query)
    assert response.status_code == 200
    return response.content.decode()


def words(html: str) -> str:
    """What is read on a page, without tags and runs of white space."""
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", html)).split())


def listed(html: str) -> set[str]:
    return set(re.findall(r'name="_selected_action" value="([^"]+)"', html))


def at_bland(sandbox: BlandSandbox) -> dict[str, bool]:
    return {pk: row["is_active"] for pk, row in sandbox.account.rows.items()}


# --- the list ---------------------------------------------------------------------------------


def test_list__columns(desk: Client, known: Known) -> None:
    known(last_message="See you at four", message_count=7, agent_number="+15550190001")
    html = desk.get(LIST).content.decode()
    heads = re.findall(r'<div class="text">(.*?)</div>', html, re.DOTALL)
    assert [words(head) for head in heads if "checkbox" not in head] == [
        "Customer",
        "Status",
        "Last message",
        "Messages",
        "Last activity",
        "Our number",
    ]
    for text in (CUSTOMER, "Active", "See you at four", "7", "+15550190001"):
        assert text in words(html)


def test_list__newest_activity_first(desk: Client, known: Known) -> None:
    for conversation_id, day in [("conv_old", 1), ("conv_new", 3), ("conv_mid", 2)]:
        known(conversation_id, last_message_at=f"2026-01-0{day}T00:00:00.000Z")
    html = desk.get(LIST).content.decode()
    order = re.findall(r'name="_selected_action" value="([^"]+)"', html)
    assert order == ["conv_new", "conv_mid", "conv_old"]


def test_list__fifty_a_page(desk: Client, copied: Copied) -> None:
    copied(60)
    assert len(listed(desk.get(LIST).content.decode())) == 50


def test_list__no_text_of_messages_without_the_permission(login: Login, known: Known) -> None:
    known(last_message="See you at four", summary="Wants four")
    html = login("view_conversation").get(LIST).content.decode()
    assert "See you at four" not in html
    assert "Last message" not in html


def test_list__no_boxes_to_tick_for_who_may_only_look(login: Login, known: Known) -> None:
    known()
    html = login("view_conversation").get(LIST).content.decode()
    assert listed(html) == set()
    assert CUSTOMER in html


def test_list__refused_without_permission(login: Login, known: Known) -> None:
    known()
    assert login("deactivate_conversation").get(LIST).status_code == 403


def test_list__says_when_it_was_copied(desk: Client, copied: Copied) -> None:
    copied(1)
    began = timezone.now() - timedelta(minutes=4)
    SyncRun.objects.create(status=SyncRun.Status.FINISHED, walk_began_at=began)
    text = words(desk.get(LIST).content.decode()).replace("\xa0", " ")
    assert "Copied from Bland 4 minutes ago" in text


def test_list__never_copied_names_the_next_step(
    desk: Client, login: Login, sandbox: BlandSandbox
) -> None:
    text = words(desk.get(LIST).content.decode())
    assert "Nothing was copied from Bland yet." in text
    assert "Copy your conversations now" in text
    text = words(login("view_conversation").get(LIST).content.decode())
    assert "Nothing was copied from Bland yet. Ask an administrator of this site" in text
    assert "bland_sms_sync" not in text  # staff have no terminal


def test_list__an_account_without_conversations_says_so(desk: Client) -> None:
    SyncRun.objects.create(status=SyncRun.Status.FINISHED, walk_began_at=timezone.now())
    assert "has no SMS conversations yet" in words(desk.get(LIST).content.decode())
    assert "has no SMS conversations yet" not in words(
        desk.get(f"{LIST}?status=active").content.decode()
    )


def test_list__checkboxes_name_the_customer(desk: Client, known: Known) -> None:
    pk = known(last_message_at="2026-01-02T03:04:05.000Z")
    html = desk.get(LIST).content.decode()
    [box] = re.findall(r'<input type="checkbox"[^>]*_selected_action[^>]*>', html)
    assert f'value="{pk}"' in box
    label = re.search('aria-label="([^"]*)"', box)
    assert label is not None
    assert CUSTOMER in label[1]
    assert " ago" in label[1]
    assert pk not in label[1]


def test_list__counts_are_grouped_and_end_at_the_cap(
    desk: Client, copied: Copied, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    settings.USE_THOUSAND_SEPARATOR = True
    copied(1200)
    html = desk.get(LIST).content.decode()
    assert "1,200 conversations" in words(html)
    assert "Show all" not in html
    assert 'data-actions-icnt="50"' in html
    monkeypatch.setattr(base, "COUNT_CAP", 1100)
    assert "1,100+ conversations" in words(desk.get(LIST).content.decode())


@pytest.mark.parametrize(("activity", "number"), [("older", 3), ("older90", 2), ("older180", 1)])
def test_list__older_than(activity: str, number: int, desk: Client, copied: Copied) -> None:
    for pk, days in zip(copied(4), (1, 31, 91, 181), strict=True):
        at = timezone.now() - timedelta(days=days)
        Conversation.objects.filter(pk=pk).update(last_activity_at=at)
    assert len(listed(desk.get(f"{LIST}?activity={activity}").content.decode())) == number


def test_list__from_one_day_to_another(desk: Client, copied: Copied, settings: Any) -> None:
    settings.TIME_ZONE = "Europe/Berlin"
    times = ("2026-01-01T22:59:00Z", "2026-01-01T23:00:00Z", "2026-01-02T23:01:00Z")
    for pk, at in zip(copied(3), times, strict=True):
        Conversation.objects.filter(pk=pk).update(last_activity_at=at)

    def found(query: str) -> set[str]:
        return listed(desk.get(f"{LIST}?{query}").content.decode())

    assert found("activity_from=2026-01-02&activity_to=2026-01-02") == {"conv_0001"}
    assert found("activity_from=2026-01-03") == {"conv_0002"}
    for odd in ("9999-12-31", "0001-01-01", "2026-02-31", "soon"):
        assert len(found(f"activity_from={odd}&activity_to={odd}")) == 3
    html = desk.get(f"{LIST}?status=active&activity_to=2026-01-02").content.decode()
    assert '<input type="date" name="activity_to" value="2026-01-02" form="' in html
    assert '<input type="hidden" name="status" value="active">' in html


def test_times__are_exact_with_their_zone(desk: Client, known: Known, settings: Any) -> None:
    settings.TIME_ZONE = "Europe/Berlin"
    known(last_message_at="2026-01-02T03:04:05.000Z")
    title = 'title="Jan. 2, 2026, 4:04 a.m. CET"'
    assert title in desk.get(LIST).content.decode()


def test_thread__links_no_update_that_the_reader_may_not_see(
    desk: Client, login: Login, known: Known
) -> None:
    press(desk, known(), "deactivate")
    pk = BulkUpdate.objects.get().pk
    assert f'bulkupdate/{pk}/change/">update {pk}</a>' in page(desk, "conv_1")
    html = page(login("view_conversation"), "conv_1")
    assert f"update {pk}" in html
    assert f"bulkupdate/{pk}/change/" not in html


def test_list__not_found_at_bland_is_marked(desk: Client, known: Known) -> None:
    Conversation.objects.filter(pk=known()).update(missing_since=timezone.now())
    assert "not found at Bland" in words(desk.get(LIST).content.decode())


def test_list__row_that_bland_tells_little_of(desk: Client, db: None, sandbox: Any) -> None:
    Conversation.objects.create(pk="conv_bare")
    html = desk.get(LIST).content.decode()
    assert "no number" in words(html)
    assert "1970" not in html


def test_list__cost_does_not_grow_with_rows(desk: Client, copied: Copied) -> None:
    copied(10)
    with CaptureQueriesContext(connection) as few:
        assert len(listed(desk.get(LIST).content.decode())) == 10
    Conversation.objects.bulk_create(Conversation(pk=f"more_{n}") for n in range(50))
    with CaptureQueriesContext(connection) as many:
        assert len(listed(desk.get(LIST).content.decode())) == 50
    assert len(many) == len(few)


@pytest.fixture
def low_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "COUNT_CAP", 6)
    monkeypatch.setattr(ConversationAdmin, "list_per_page", 3)


@pytest.mark.usefixtures("low_cap")
def test_list__counts_no_further_than_the_cap(desk: Client, copied: Copied) -> None:
    copied(20)
    response = desk.get(LIST)
    assert "narrow the search" in words(response.content.decode())
    assert response.context["cl"].paginator.num_pages == 2


@pytest.mark.usefixtures("low_cap")
def test_list__at_the_cap_says_nothing_of_it(desk: Client, copied: Copied) -> None:
    copied(6)
    assert "narrow the search" not in words(desk.get(LIST).content.decode())


@pytest.mark.usefixtures("low_cap")
def test_list__pages_beyond_the_cap_do_not_exist(desk: Client, copied: Copied) -> None:
    copied(20)
    assert desk.get(LIST, {"p": 2}).status_code == 200
    assert desk.get(LIST, {"p": 4}).status_code == 302


@pytest.mark.usefixtures("low_cap")
def test_list__a_capped_number_is_not_sold_as_all(desk: Client, copied: Copied) -> None:
    copied(20)
    assert not re.search(r"\b(Select all|All) 6\b", words(desk.get(LIST).content.decode()))


# --- its filters ------------------------------------------------------------------------------


@pytest.fixture
def one_of_each(known: Known) -> None:
    now = timezone.now()
    at = {
        name: (now - timedelta(days=days)).isoformat().replace("+00:00", "Z")
        for name, days in {"today": 0.5, "week": 5, "month": 20, "old": 90}.items()
    }
    known("active", last_message_at=at["today"], agent_number="+15550190001")
    known("handed_off", human_handoff_at=at["old"], last_message_at=at["week"])
    known("timed_out", is_active=False, timed_out_at=at["old"], last_message_at=at["month"])
    known("completed", is_active=False, ended_by_end_call_node=True, last_message_at=at["old"])
    known("inactive", is_active=False, last_message_at=at["old"], agent_number="+15550190002")


@pytest.mark.usefixtures("one_of_each")
@pytest.mark.parametrize("status", ["active", "handed_off", "timed_out", "completed", "inactive"])
def test_filter__status(status: str, desk: Client) -> None:
    html = desk.get(LIST, {"status": status}).content.decode()
    assert listed(html) == {status}


@pytest.mark.usefixtures("one_of_each")
@pytest.mark.parametrize(
    ("activity", "expected"),
    [
        ("24h", {"active"}),
        ("7d", {"active", "handed_off"}),
        ("30d", {"active", "handed_off", "timed_out"}),
        ("older", {"completed", "inactive"}),
    ],
)
def test_filter__last_activity(activity: str, expected: set[str], desk: Client) -> None:
    assert listed(desk.get(LIST, {"activity": activity}).content.decode()) == expected


@pytest.mark.usefixtures("one_of_each")
def test_filter__our_number(desk: Client) -> None:
    html = desk.get(LIST).content.decode()
    assert "?our_number=%2B15550190002" in html
    [words] = re.findall(r"our_number=%2B15550190002[^>]*>(.*?)</a>", html, re.DOTALL)
    assert words == "\u2066+15550190002\u2069"  # no markup: a theme makes a title of it
    html = desk.get(LIST, {"our_number": "+15550190002"}).content.decode()
    assert listed(html) == {"inactive"}


def test_filter__requested_change(desk: Client, sandbox: BlandSandbox, copied: Copied) -> None:
    ids = copied(3)
    sandbox.faults.add(f"PATCH {ids[0]}", "400")
    sandbox.faults.add(f"PATCH {ids[1]}", "400")
    act(desk, "deactivate_selected", ids)
    act(desk, "deactivate_selected", ids[1:2])
    assert listed(desk.get(LIST, {"change": "failed"}).content.decode()) == {ids[0]}


def test_cancelled_item__hides_no_failure(
    desk: Client, sandbox: BlandSandbox, copied: Copied, started: Any
) -> None:
    """Neither in the list nor in the filter: nothing was asked of Bland since."""
    ids = copied(2)
    sandbox.faults.add(f"PATCH {ids[0]}", "400")
    act(desk, "deactivate_selected", ids[:1])
    started(ids)
    updates.cancel(BulkUpdate.objects.latest("pk"))
    html = desk.get(LIST, {"change": "failed"}).content.decode()
    assert listed(html) == {ids[0]}
    assert "deactivation failed" in words(html)
    assert words(desk.get(LIST).content.decode()).count("deactivation failed") == 1


@pytest.mark.parametrize(("number", "is_done_at_once"), [(25, True), (26, False)])
def test_deactivate_selected__inline_limit_includes_its_number(
    number: int, is_done_at_once: bool, desk: Client, copied: Copied, set_bland: Any
) -> None:
    """25 conversations, as ``INLINE_LIMIT`` says by itself, return to the list with the outcome."""
    set_bland(CONFIRM_OVER=1000)
    ids = copied(number)
    response = desk.post(LIST, {"action": "deactivate_selected", "_selected_action": ids})
    assert (response["Location"] == LIST) is is_done_at_once
    assert ("/bulkupdate/" in response["Location"]) is not is_done_at_once


def test_filter__change_that_waits(desk: Client, copied: Copied, started: Any) -> None:
    ids = copied(3)
    started(ids[:1])
    assert listed(desk.get(LIST, {"change": "waiting"}).content.decode()) == {ids[0]}


@pytest.mark.parametrize("expected_rows", [None, 0])
@pytest.mark.parametrize("most", [10, 5, 3])
def test_filter__change__of_all_or_of_more_than_are_found(
    most: int,
    expected_rows: int | None,
    desk: Client,
    copied: Copied,
    started: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Pages, counts and other filters say the same, however the list finds its rows."""
    ids = copied(9)
    started(ids[:7])
    monkeypatch.setattr(named, "COUNT_CAP", most)
    monkeypatch.setattr(named, "SPARE", 1)
    if expected_rows is not None:  # a walk along the list would be longer
        monkeypatch.setattr(named, "_expected", lambda _rows: expected_rows)
    monkeypatch.setattr(base, "COUNT_CAP", most)
    monkeypatch.setattr(ConversationAdmin, "list_per_page", 2)
    Conversation.objects.filter(pk__in=ids[:2]).update(agent_number="+15550190009")
    rows = Conversation.objects.filter(pk__in=ids[:7]).order_by("-last_activity_at", "-id")
    expected = list(rows.values_list("pk", flat=True))[:most]
    shown = []
    for page in range(1, (min(most, 7) + 1) // 2 + 1):
        found = desk.get(LIST, {"change": "waiting", "p": page}).context["cl"]
        shown += [row.pk for row in found.result_list]
        assert found.result_count == min(most, 7)
        assert found.paginator.is_capped is (most < 7)
    assert shown == expected
    few = desk.get(LIST, {"change": "waiting", "our_number": "+15550190009"}).context["cl"]
    assert (few.result_count, few.paginator.is_capped) == (2, False)
    assert {row.pk for row in few.result_list} == set(ids[:2])


@pytest.mark.parametrize("name", ["status", "activity", "our_number", "change"])
def test_filter__nonsense_is_no_error(name: str, desk: Client, copied: Copied) -> None:
    copied(1)
    assert desk.get(LIST, {name: "\x00'"}, follow=True).status_code == 200


# --- read-only --------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["get", "post"])
@pytest.mark.parametrize("verb", ["add", "delete"])
def test_conversation__is_not_added_or_deleted(
    verb: str, method: str, desk: Client, known: Known
) -> None:
    url = f"{LIST}add/" if verb == "add" else url_of(known(), "delete")
    assert getattr(desk, method)(url, {"post": "yes"}).status_code == 403


def test_conversation__is_not_edited(desk: Client, known: Known) -> None:
    known(current_node_id="node_1")
    assert desk.post(url_of("conv_1"), {"current_node_id": "node_2"}).status_code == 403
    assert Conversation.objects.get().current_node_id == "node_1"


def test_conversation__nothing_to_type_in_or_save(desk: Client, known: Known) -> None:
    html = page(desk, known())
    [form] = re.findall(r'<form[^>]*id="conversation_form".*?</form>', html, re.DOTALL)
    fields = re.findall(r"<(?:textarea|select|input)\b[^>]*>", form)
    # The reason of "Deactivate all" stands within it and belongs to a form of its own.
    assert [one for one in fields if 'type="hidden"' not in one and ' form="' not in one] == []


def test_list__offers_our_actions_and_no_deletion(desk: Client, copied: Copied) -> None:
    copied(1)
    offered = set(re.findall(r'<option value="(\w+)"', desk.get(LIST).content.decode()))
    assert {"deactivate_selected", "reactivate_selected", "refresh_selected"} <= offered
    assert "delete_selected" not in offered


@pytest.mark.parametrize("name", ConversationAdmin.actions)
def test_action__names_its_permission(name: str) -> None:
    assert getattr(ConversationAdmin, name).allowed_permissions


# --- who may ----------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["deactivate", "reactivate", "refresh"])
def test_action__posted_without_permission_does_nothing(
    verb: str, login: Login, known: Known, sandbox: BlandSandbox
) -> None:
    known()
    act(login(*PERMISSIONS - {NEEDED[verb]}), f"{verb}_selected", ["conv_1"])
    assert not sandbox.log
    assert not BulkUpdate.objects.exists()


@pytest.mark.parametrize("verb", ["deactivate", "reactivate", "refresh"])
def test_action__is_not_offered_without_permission(verb: str, login: Login, known: Known) -> None:
    known()
    html = login(*PERMISSIONS - {NEEDED[verb]}).get(LIST).content.decode()
    assert f'value="{verb}_selected"' not in html


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("lacking", ["the verb's", "view_conversation"])
def test_button__posted_without_permission_is_refused(
    lacking: str, verb: str, login: Login, known: Known, sandbox: BlandSandbox
) -> None:
    known(is_active=verb != "reactivate")
    browser = login(*PERMISSIONS - {NEEDED[verb] if lacking == "the verb's" else lacking})
    assert browser.post(url_of("conv_1", verb)).status_code == 403
    assert not sandbox.log
    assert not BulkUpdate.objects.exists()


@pytest.mark.parametrize("verb", VERBS)
def test_button__is_not_shown_without_permission(verb: str, login: Login, known: Known) -> None:
    known(is_active=verb != "reactivate")
    assert url_of("conv_1", verb) not in button_targets(
        page(login(*PERMISSIONS - {NEEDED[verb]}), "conv_1")
    )


@pytest.mark.parametrize("verb", VERBS)
def test_button__needs_no_more_than_its_permission(
    verb: str, login: Login, known: Known, sandbox: BlandSandbox
) -> None:
    known(is_active=verb != "reactivate")
    browser = login("view_conversation", NEEDED[verb])
    assert url_of("conv_1", verb) in button_targets(page(browser, "conv_1"))
    assert press(browser, "conv_1", verb).status_code == 200
    assert len(sandbox.log) == 1


@pytest.mark.parametrize("verb", VERBS)
def test_button__get_changes_nothing(
    verb: str, desk: Client, known: Known, sandbox: BlandSandbox
) -> None:
    known()
    assert desk.get(url_of("conv_1", verb)).status_code == 405
    assert not sandbox.log


@pytest.mark.parametrize("verb", ["change", *VERBS])
def test_conversation__anonymous_is_sent_to_the_login(
    verb: str, client: Client, known: Known, sandbox: BlandSandbox
) -> None:
    known()
    for response in (client.get(url_of("conv_1", verb)), client.post(url_of("conv_1", verb))):
        assert response.status_code == 302
        assert response["Location"].startswith("/admin/login/?next=")
    assert not sandbox.log


def test_button__who_is_not_staff_is_sent_to_the_login(
    client: Client, known: Known, sandbox: BlandSandbox, django_user_model: Any
) -> None:
    known()
    user = django_user_model.objects.create_user("kim")
    user.user_permissions.set(Permission.objects.filter(codename__in=PERMISSIONS))
    client.force_login(user)
    assert client.post(url_of("conv_1", "deactivate")).status_code == 302
    assert not sandbox.log


def test_button__needs_the_token_of_the_page(
    staff: AbstractUser, known: Known, sandbox: BlandSandbox
) -> None:
    known()
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(staff)
    assert [browser.post(url_of("conv_1", verb)).status_code for verb in VERBS] == [403] * 4
    assert not sandbox.log


def button_targets(html: str) -> set[str]:
    """Where the buttons of a page lead that can be pressed."""
    targets = set()
    for attributes, inner in re.findall(r"<form([^>]*)>(.*?)</form>", html, re.DOTALL):
        action = re.search(r'action="([^"]+)"', attributes)
        form_id = re.search(r'id="([^"]+)"', attributes)
        has_button = "<button" in inner or (form_id and f'form="{form_id[1]}"' in html)
        if action and has_button:
            targets.add(action[1].partition("?")[0])  # behind it stands the place in the list
    return targets


# --- deactivating and reactivating ------------------------------------------------------------


def test_deactivate_selected__asks_bland_and_copies_what_it_confirmed(
    desk: Client, copied: Copied, sandbox: BlandSandbox
) -> None:
    ids = copied(3)
    response = act(desk, "deactivate_selected", ids[:2])
    assert_success(response, "2 conversations deactivated")
    assert at_bland(sandbox) == {ids[0]: False, ids[1]: False, ids[2]: True}
    row = Conversation.objects.get(pk=ids[0])
    assert row.is_active is False
    assert row.updated_at.isoformat(timespec="milliseconds") == sandbox.account.rows[ids[0]][
        "updated_at"
    ].replace("Z", "+00:00")


def test_reactivate_selected(desk: Client, copied: Copied, sandbox: BlandSandbox) -> None:
    ids = copied(2, is_active=False)
    response = act(desk, "reactivate_selected", ids)
    assert_success(response, "2 conversations reactivated")
    assert at_bland(sandbox) == dict.fromkeys(ids, True)


@pytest.mark.usefixtures("impatient")
def test_deactivate_selected__one_message_for_each_outcome(
    desk: Client, copied: Copied, sandbox: BlandSandbox
) -> None:
    changed, unchanged, gone, refused, silent = copied(5)
    for store in (sandbox.account.set_active, lambda pk, _: refresh(pk)):
        store(unchanged, False)
    del sandbox.account.rows[gone]
    sandbox.faults.add(f"PATCH {refused}", "400")
    sandbox.faults.add(silent, "forever:hang_after:60")

    response = act(desk, "deactivate_selected", [changed, unchanged, gone, refused, silent])

    messages = told(response)
    assert [text for level, text in messages if level == "success" and "1 conversation" in text]
    assert [text for level, text in messages if level == "info" and "1 was inactive" in text]
    warnings = [text for level, text in messages if level == "warning"]
    assert [text for text in warnings if "1 failed" in text and "404" in text]
    assert [text for text in warnings if "1 failed" in text and "INVALID_IS_ACTIVE_VALUE" in text]
    assert [text for text in warnings if "1 unknown" in text]
    assert len(messages) == 5
    assert Conversation.objects.get(pk=silent).is_active is True


def test_deactivate_selected__one_message_for_many_of_a_kind(
    desk: Client, copied: Copied, sandbox: BlandSandbox
) -> None:
    ids = copied(8)
    for conversation_id in ids[:4]:
        sandbox.faults.add(f"PATCH {conversation_id}", "422")
    messages = told(act(desk, "deactivate_selected", ids))
    assert [text[:15] for _, text in messages] == ["4 conversations", "4 failed: Bland"]


def test_deactivate_selected__links_to_the_update(
    desk: Client, copied: Copied, sandbox: BlandSandbox
) -> None:
    response = act(desk, "deactivate_selected", copied(1))
    [message] = response.context["messages"]
    link = re.search(r'<a href="([^"]+)"', str(message))
    assert link is not None
    assert copied(1)[0] in desk.get(link[1]).content.decode()


def test_deactivate_selected__blands_words_are_escaped(
    desk: Client, copied: Copied, sandbox: BlandSandbox
) -> None:
    ids = copied(1)
    body = {"data": None, "errors": [{"error": "X", "message": "<script>alert(1)</script>"}]}
    sandbox.faults.add(f"PATCH {ids[0]}", {"status": 422, "body": body})
    html = act(desk, "deactivate_selected", ids).content.decode()
    assert "<script>alert(1)" not in html
    assert "&lt;script&gt;alert(1)" in html


def test_deactivate_selected__stays_in_the_filtered_list(
    desk: Client, copied: Copied, sandbox: BlandSandbox
) -> None:
    response = act(desk, "deactivate_selected", copied(2), LIST + "?status=active")
    assert response.redirect_chain[-1][0].endswith("?status=active")


def test_deactivate_selected__stands_in_the_history(
    desk: Client, copied: Copied, sandbox: BlandSandbox
) -> None:
    ids = copied(1)
    act(desk, "deactivate_selected", ids)
    text = words(desk.get(url_of(ids[0], "history")).content.decode())
    assert "dana" in text
    assert f"Deactivated at Bland in bulk update {BulkUpdate.objects.get().pk}" in text


def test_deactivate_selected__history_of_what_did_not_change_is_empty(
    desk: Client, copied: Copied, sandbox: BlandSandbox
) -> None:
    ids = copied(1)
    sandbox.faults.add(f"PATCH {ids[0]}", "400")
    act(desk, "deactivate_selected", ids)
    assert "bulk update" not in words(desk.get(url_of(ids[0], "history")).content.decode())


def test_deactivate_selected__refused_key_stops_and_says_how_far_it_came(
    desk: Client, copied: Copied, sandbox: BlandSandbox, set_bland: Any
) -> None:
    set_bland(MAX_CONCURRENCY=2)
    ids = copied(20)
    sandbox.faults.add("#8", "401")
    messages = told(act(desk, "deactivate_selected", ids))
    [text] = [text for level, text in messages if level == "error"]
    found = re.match(
        r"Bland refused the key \(401\)\. Tell .* (\d+) changed, (\d+) not attempted\.", text
    )
    assert found is not None, text
    done = list(at_bland(sandbox).values()).count(False)
    assert (int(found[1]), int(found[2])) == (done, 20 - done)


def test_deactivate_selected__key_is_on_no_page(
    desk: Client, copied: Copied, sandbox: BlandSandbox
) -> None:
    ids = copied(1)
    sandbox.faults.add(ids[0], "echo_key")
    html = act(desk, "deactivate_selected", ids).content.decode()
    assert sandbox.api_key not in html


def test_deactivate_selected__outage_is_no_failure_of_rows(
    desk: Client, copied: Copied, set_bland: Any
) -> None:
    ids = copied(3)
    set_bland(BASE_URL="http://127.0.0.1:9")
    messages = told(act(desk, "deactivate_selected", ids))
    assert [level for level, _ in messages] == ["error"]
    assert messages[0][1].startswith(
        "Bland does not answer. Retry in a while. 0 changed, 3 not attempted."
    )


def test_deactivate_selected__what_does_not_fit_into_the_time_stays_queued(
    desk: Client, copied: Copied, sandbox: BlandSandbox, set_bland: Any
) -> None:
    set_bland(INLINE_SECONDS=3, MAX_CONCURRENCY=1)
    sandbox.latency_seconds = 1
    ids = copied(20)
    began = time.monotonic()
    messages = told(act(desk, "deactivate_selected", ids))
    assert time.monotonic() - began < 15
    done = BulkUpdate.objects.get().counts()["changed"]  # Bland may have done one more
    assert 0 < done < 20
    assert [text for _, text in messages if f"{20 - done} " in text and "waiting" in text]

    sandbox.latency_seconds = 0
    call_command("bland_sms_work", "--once")

    assert set(at_bland(sandbox).values()) == {False}
    assert not Conversation.objects.filter(is_active=True).exists()
    # One is sent again where its answer came when the time was over.
    assert len(sandbox.requests("PATCH")) in (20, 21)


def test_deactivate_selected__row_that_is_gone(
    desk: Client, copied: Copied, sandbox: BlandSandbox
) -> None:
    copied(1)
    act(desk, "deactivate_selected", ["conv_404"])
    assert not sandbox.log


# --- without transactions around Bland --------------------------------------------------------


@contextmanager
def atomic_requests(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bool]]:
    """``ATOMIC_REQUESTS``; collects whether a view's own reads were in a transaction."""
    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)
    seen: list[bool] = []

    def note(execute: Any, sql: str, *rest: Any) -> Any:
        if sql.startswith("SELECT") and '"bland_sms_conversation"' in sql.replace("`", '"'):
            seen.append(connection.in_atomic_block)
        return execute(sql, *rest)

    with connection.execute_wrapper(note):
        yield seen


@pytest.mark.django_db(transaction=True)
def test_deactivate_selected__under_atomic_requests(
    desk: Client, copied: Copied, sandbox: BlandSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = copied(2)
    with atomic_requests(monkeypatch) as seen:
        response = act(desk, "deactivate_selected", ids)
    assert seen[0], "the action was not in a transaction, so this proves nothing"
    assert_success(response, "2 conversations deactivated")
    assert set(at_bland(sandbox).values()) == {False}


@pytest.mark.django_db(transaction=True)
def test_refresh_selected__under_atomic_requests(
    desk: Client, copied: Copied, sandbox: BlandSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = copied(2)
    with atomic_requests(monkeypatch):
        response = act(desk, "refresh_selected", ids)
    assert_success(response, "2 conversations copied from Bland")


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("verb", VERBS)
def test_button__under_atomic_requests(
    verb: str,
    desk: Client,
    known: Known,
    sandbox: BlandSandbox,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known(is_active=verb != "reactivate")
    with atomic_requests(monkeypatch):
        [(level, _)] = told(press(desk, "conv_1", verb))
    assert level == "success"
    assert len(sandbox.log) == 1


# --- without a key ----------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["", "two\nlines"])
def test_list__without_a_usable_key(
    key: str, desk: Client, known: Known, set_bland: Any, sandbox: BlandSandbox
) -> None:
    known()
    set_bland(API_KEY=key)
    html = desk.get(LIST).content.decode()
    assert CUSTOMER in html
    assert "This site is not connected to Bland. Tell an administrator" in words(html)
    assert "two\nlines" not in html


def test_conversation__without_a_key(desk: Client, known: Known, set_bland: Any) -> None:
    known(messages=[{"sender": "USER", "message": "Hello"}])
    set_bland(API_KEY="")
    html = page(desk, "conv_1")
    assert "Hello" in html
    assert "This site is not connected to Bland" in words(html)
    assert not button_targets(html) & {url_of("conv_1", verb) for verb in VERBS}


@pytest.mark.parametrize("verb", ["deactivate", "reactivate", "refresh"])
def test_action__without_a_key_says_so(
    verb: str, desk: Client, known: Known, set_bland: Any, sandbox: BlandSandbox
) -> None:
    known()
    set_bland(API_KEY="")
    [(level, text)] = told(act(desk, f"{verb}_selected", ["conv_1"]))
    assert level == "error"
    assert "This site is not connected to Bland" in text
    assert not sandbox.log
    assert not BulkUpdate.objects.exists()


@pytest.mark.parametrize("verb", VERBS)
def test_button__without_a_key_says_so(
    verb: str, desk: Client, known: Known, set_bland: Any, sandbox: BlandSandbox
) -> None:
    known()
    set_bland(API_KEY="")
    [(level, text)] = told(press(desk, "conv_1", verb))
    assert level == "error"
    assert "This site is not connected to Bland" in text
    assert not sandbox.log


# --- the customer -----------------------------------------------------------------------------


def test_conversation__others_of_its_customer(desk: Client, known: Known) -> None:
    known("conv_1")
    known("conv_2", is_active=False)
    known("conv_3", user_number=STRANGER)
    html = page(desk, "conv_1")
    assert f'href="{url_of("conv_2")}"' in html
    assert "conv_3" not in html


def test_conversation__without_a_number_has_no_others(desk: Client, known: Known) -> None:
    known("conv_1", user_number="")
    known("conv_2", user_number="")
    others = page(desk, "conv_1").partition("Other conversations of this customer")[2]
    assert "conv_2" not in others.partition("</section>")[0]


def test_conversation__other_without_a_time_is_not_of_1970(desk: Client, known: Known) -> None:
    known("conv_1")
    Conversation.objects.create(pk="conv_2", user_number=CUSTOMER)
    assert "1970" not in words(page(desk, "conv_1"))


def test_conversation__stop_this_customer_says_how_many(desk: Client, known: Known) -> None:
    for conversation_id in ("conv_1", "conv_2", "conv_3"):
        known(conversation_id)
    known("conv_4", is_active=False)
    text = words(page(desk, "conv_1"))
    assert "Deactivate all active conversations of this customer (3)" in text
    assert "does not block the customer" in text


def test_deactivate_customer__takes_the_active_ones_of_this_customer(
    desk: Client, known: Known, sandbox: BlandSandbox
) -> None:
    known("conv_1", is_active=False)
    known("conv_2")
    known("conv_3")
    known("conv_4", user_number=STRANGER)
    known("conv_5", user_number="")
    response = press(desk, "conv_1", "deactivate-customer")
    assert_success(response, "2 conversations deactivated")
    asked = {seen["conversation_id"] for seen in sandbox.requests("PATCH")}
    assert asked == {"conv_2", "conv_3"}
    assert response.redirect_chain[-1][0] == url_of("conv_1")


def test_deactivate_customer__without_a_number_is_this_one_alone(
    desk: Client, known: Known, sandbox: BlandSandbox
) -> None:
    known("conv_1", user_number="")
    known("conv_2", user_number="")
    press(desk, "conv_1", "deactivate-customer")
    assert at_bland(sandbox) == {"conv_1": False, "conv_2": True}


def test_deactivate_customer__none_active(
    desk: Client, known: Known, sandbox: BlandSandbox
) -> None:
    known("conv_1", is_active=False)
    assert "of this customer (" not in words(page(desk, "conv_1"))
    [(level, _)] = told(press(desk, "conv_1", "deactivate-customer"))
    assert level == "warning"
    assert not sandbox.log


def test_conversation__title_of_the_tab_is_plain_text(desk: Client, known: Known) -> None:
    title = re.search(r"<title>(.*?)</title>", page(desk, known()), re.DOTALL)
    assert title is not None
    assert CUSTOMER in title[1]
    assert "<" not in unescape(title[1])


# --- the buttons of one -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("is_active", "shown", "hidden"),
    [(True, "deactivate", "reactivate"), (False, "reactivate", "deactivate")],
)
def test_conversation__button_for_its_state(
    is_active: bool, shown: str, hidden: str, desk: Client, known: Known
) -> None:
    targets = button_targets(page(desk, known(is_active=is_active)))
    assert url_of("conv_1", shown) in targets
    assert url_of("conv_1", hidden) not in targets


@pytest.mark.parametrize("is_active", [True, False])
def test_button__changes_one_and_returns_to_it(
    is_active: bool, desk: Client, known: Known, sandbox: BlandSandbox
) -> None:
    known("conv_1", is_active=not is_active)
    known("conv_2", is_active=not is_active)
    response = press(desk, "conv_1", "reactivate" if is_active else "deactivate")
    assert at_bland(sandbox) == {"conv_1": is_active, "conv_2": not is_active}
    assert response.redirect_chain[-1][0] == url_of("conv_1")
    verb = "reactivated" if is_active else "deactivated"
    assert_success(response, f"1 conversation {verb}")


def test_conversation__event_of_ours_stands_in_the_thread(
    desk: Client, known: Known, sandbox: BlandSandbox
) -> None:
    known(messages=[{"sender": "USER", "message": "Stop texting me"}])
    press(desk, "conv_1", "deactivate")
    update = BulkUpdate.objects.get()
    html = page(desk, "conv_1")
    text = words(html)
    assert text.index("Stop texting me") < text.index("Deactivated by dana")
    assert reverse("admin:bland_sms_bulkupdate_change", args=[update.pk]) in html


def test_refresh__copies_messages_and_state(
    desk: Client, known: Known, sandbox: BlandSandbox
) -> None:
    known(updated_at="2026-01-01T00:00:00.000Z")
    row = sandbox.account.rows["conv_1"]
    row["messages"] = [
        {"id": "m1", "sender": "USER", "message": "Brand new", "created_at": row["created_at"]}
    ]
    sandbox.account.set_active("conv_1", False)
    response = press(desk, "conv_1", "refresh")
    assert [level for level, _ in told(response)] == ["success"]
    text = words(response.content.decode())
    assert "Brand new" in text
    assert "Inactive" in text


def test_refresh__not_found_keeps_the_copy_and_marks_it(
    desk: Client, known: Known, sandbox: BlandSandbox
) -> None:
    known(messages=[{"sender": "USER", "message": "Hello"}])
    sandbox.account.rows.clear()
    response = press(desk, "conv_1", "refresh")
    [(level, _)] = told(response)
    assert level == "warning"
    html = response.content.decode()
    assert "Hello" in html
    assert "no such conversation under this key" in words(html)


@pytest.mark.parametrize("fault", ["forever:reset_before", "401", "html200", "404_route"])
def test_refresh__trouble_is_told_and_changes_nothing(
    fault: str, desk: Client, known: Known, sandbox: BlandSandbox
) -> None:
    known()
    before = Conversation.objects.values().get()
    sandbox.faults.add("conv_1", fault, fault, fault)
    [(level, _)] = told(press(desk, "conv_1", "refresh"))
    assert level == "error"
    assert Conversation.objects.values().get() == before


def test_refresh__takes_no_longer_than_a_web_request_may(
    desk: Client, known: Known, sandbox: BlandSandbox, set_bland: Any
) -> None:
    known()
    set_bland(INLINE_SECONDS=0.4, READ_TIMEOUT=60)
    sandbox.faults.add("conv_1", "forever:hang_before:60")
    began = time.monotonic()
    [(level, _)] = told(press(desk, "conv_1", "refresh"))
    assert time.monotonic() - began < 30
    assert level == "error"


def test_refresh_selected__each_outcome(
    desk: Client, copied: Copied, sandbox: BlandSandbox
) -> None:
    ids = copied(4)
    del sandbox.account.rows[ids[0]]
    sandbox.faults.add(ids[1], "forever:500")
    messages = told(act(desk, "refresh_selected", ids))
    assert [text for level, text in messages if level == "success" and "2 conver" in text]
    assert [text for level, text in messages if level == "warning" and "1 not found" in text]
    assert [text for level, text in messages if level == "error" and "1 not refreshed" in text]
    assert len(messages) == 3
    assert Conversation.objects.get(pk=ids[0]).missing_since is not None
    assert Conversation.objects.get(pk=ids[1]).missing_since is None


# --- the transcript ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sender", "label", "side"),
    [
        ("USER", "Customer", "customer"),
        ("AGENT", "Agent", "ours"),
        ("HUMAN", "Rep", "ours"),
        ("ROBOT_2", "ROBOT_2", "unknown"),
        (None, "Unknown sender", "unknown"),
    ],
)
def test_transcript__side_and_label(
    sender: str | None, label: str, side: str, desk: Client, known: Known
) -> None:
    known(messages=[{"sender": sender, "message": "Good morning"}])
    [(found_side, inner)] = entries(page(desk, "conv_1"))
    assert found_side == side
    assert words(inner).startswith(f"{label} Good morning")


def entries(html: str) -> list[tuple[str, str]]:
    return re.findall(r'<li class="[^"]*bland-sms-side-(\w+)">(.*?)</li>', html, re.DOTALL)


def test_transcript__in_the_order_of_bland(desk: Client, known: Known) -> None:
    known(messages=[{"sender": "USER", "message": f"number {n}"} for n in range(5)])
    text = words(page(desk, "conv_1"))
    places = [text.index(f"number {n}") for n in range(5)]
    assert places == sorted(places)


def test_transcript__days(desk: Client, known: Known) -> None:
    known(
        messages=[
            {"sender": "USER", "message": "alpha", "created_at": "2026-03-01T10:00:00.000Z"},
            {"sender": "USER", "message": "omega", "created_at": "2026-03-02T10:00:00.000Z"},
        ]
    )
    text = words(page(desk, "conv_1"))
    order = [text.index(part) for part in ("March 1, 2026", "alpha", "March 2, 2026", "omega")]
    assert order == sorted(order)


def test_transcript__failed_delivery(desk: Client, known: Known) -> None:
    message = {"sender": "AGENT", "message": "Hi", "status": "undelivered", "error_code": "30003"}
    known(messages=[message])
    assert "undelivered (30003)" in words(page(desk, "conv_1"))


def test_transcript__what_bland_itself_put_in_is_hidden(desk: Client, known: Known) -> None:
    known(
        messages=[
            {"sender": "USER", "message": "<Call Connected>"},
            {"sender": "AGENT", "message": "Hello"},
        ]
    )
    html = page(desk, "conv_1")
    assert "Call Connected" not in html
    assert len(entries(html)) == 1


@pytest.mark.parametrize(
    "hostile", ["<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "{{ 7|add:7 }}"]
)
def test_transcript__markup_in_a_text_is_inert(hostile: str, desk: Client, known: Known) -> None:
    known(messages=[{"sender": "USER", "message": hostile}], last_message=hostile, summary=hostile)
    html = page(desk, "conv_1") + desk.get(LIST).content.decode()
    assert "<script>alert(1)" not in html
    assert "<img src=x" not in html
    assert unescape(html).count(hostile) >= 3


def test_transcript__lines_stay_lines(desk: Client, known: Known) -> None:
    known(messages=[{"sender": "USER", "message": "first\nsecond"}])
    assert "first<br>second" in page(desk, "conv_1")


def test_transcript__attachments_are_linked_and_never_loaded(desk: Client, known: Known) -> None:
    files = ["https://files.example.com/a.jpg", {"url": "http://files.example.com/b"}]
    known(messages=[{"sender": "USER", "message": "look", "attachments": files}])
    html = page(desk, "conv_1")
    for address in ("https://files.example.com/a.jpg", "http://files.example.com/b"):
        link = re.search(rf'<a href="{address}"([^>]*)>', html)
        assert link is not None
        assert "noreferrer" in link[1]
        assert f'src="{address}"' not in html


@pytest.mark.parametrize(
    "address",
    [
        "javascript:alert(1)",
        " javascript:alert(1)",
        "JavaScript:alert(1)",
        "data:text/html,x",
        "//x.y",
    ],
)
def test_transcript__odd_attachments_are_not_linked(
    address: str, desk: Client, known: Known
) -> None:
    message = {"sender": "USER", "message": "look", "attachments": [address, {"url": address}]}
    known(messages=[message])
    html = page(desk, "conv_1")
    assert "look" in html
    assert address not in unescape(html)


@pytest.mark.parametrize("attachments", [None, "x", 7, {"a": 1}, [None, 7, {"url": 7}, []]])
def test_transcript__odd_attachments_are_no_error(
    attachments: Any, desk: Client, known: Known
) -> None:
    known(messages=[{"sender": "USER", "message": "look", "attachments": attachments}])
    assert "look" in page(desk, "conv_1")


@pytest.mark.parametrize(
    ("told", "shown"),
    [
        ({"attachments": {"kind": "image"}}, "Attachment (not shown)"),
        ({"attachments": ["javascript:alert(1)"]}, "Attachment (not shown)"),
        ({"media_url": "mms:7"}, "Attachment (not shown)"),
        ({"attachments": {"url": "https://a.b/c"}}, "Attachment"),
        ({"media_url": "https://a.b/c"}, "Attachment"),
        ({"location": {"latitude": 1.5}}, "Attachment (not shown)"),
        ({"contacts": [{"name": "Ann"}]}, "Attachment (not shown)"),
        ({"app_card": {"title": "Pay"}}, "Card"),
        ({"message": None}, "(no text)"),
        ({"message": " \n"}, "(no text)"),
        ({"message": ["odd"]}, "(no text)"),
    ],
)
def test_transcript__no_message_looks_empty(
    told: dict[str, Any], shown: str, desk: Client, known: Known
) -> None:
    known(messages=[{"sender": "USER", **told}])
    [(_side, inner)] = entries(page(desk, "conv_1"))
    assert words(inner).removeprefix("Customer ").startswith(shown)
    text = desk.get(f"{LIST}conv_1/transcript.txt").content.decode()
    assert (shown if "https" not in str(told) else "https://a.b/c") in text


def test_transcript__two_messages_that_share_an_id(desk: Client, known: Known) -> None:
    known(messages=[{"id": "x", "sender": "USER", "message": text} for text in ("one", "two")])
    html = page(desk, "conv_1")
    shown = [words(inner) for _, inner in entries(html)]
    assert [text.split()[1] for text in shown] == ["one", "two"]


def test_transcript__messages_that_were_too_many(
    desk: Client, known: Known, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bland_sms.payloads.messages.MAX_MESSAGES", 2)
    known(messages=[{"sender": "USER", "message": text} for text in ("one", "two", "three")])
    html = page(desk, "conv_1")
    assert "1 earlier message was not copied." in html
    assert ">one<" not in html


BIDI = [chr(code) for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))]


def test_transcript__controls_of_direction_are_taken_out(desk: Client, known: Known) -> None:
    known(messages=[{"sender": "USER", "message": "pay " + "".join(BIDI) + "now"}])
    html = page(desk, "conv_1")
    assert "pay now" in html
    assert not [sign for sign in BIDI if sign in html]


def test_list__controls_of_direction_are_taken_out(desk: Client, known: Known) -> None:
    known(last_message="pay \u202enow")
    assert "\u202e" not in desk.get(LIST).content.decode()


def test_conversation__controls_of_direction_are_taken_out_of_the_summary(
    desk: Client, known: Known
) -> None:
    known(summary="wants \u202ereturn")
    html = page(desk, "conv_1")
    assert "wants" in html
    assert "\u202e" not in html


def test_transcript__newest_are_shown_and_the_earlier_offered(desk: Client, known: Known) -> None:
    known(messages=[])
    row = Conversation.objects.get()
    row.messages.bulk_create(
        row.messages.model(
            conversation=row, bland_id=f"m{n}", position=n, sender="USER", text=f"text-{n}-"
        )
        for n in range(203)
    )
    html = page(desk, "conv_1")
    assert "text-2-" not in html
    assert "text-3-" in html
    assert "Show 3 earlier messages" in words(html)
    assert "text-0-" in page(desk, "conv_1", "?all")


def test_transcript__not_copied_yet_names_the_next_step(desk: Client, copied: Copied) -> None:
    Conversation.objects.create(pk="conv_bare")
    assert "Copy the messages now" in words(page(desk, "conv_bare"))


def test_conversation__no_text_without_the_permission(login: Login, known: Known) -> None:
    known(
        messages=[{"sender": "USER", "message": "private-text"}],
        last_message="private-last",
        summary="private-summary",
        variables={"name": "private-variable"},
        citation_variables={"a": "private-extra"},
    )
    html = page(login(*PERMISSIONS - {"view_transcript"}), "conv_1")
    assert "private-" not in html
    assert "may not read" in words(html)


def test_conversation__text_with_the_permission(login: Login, known: Known) -> None:
    known(
        messages=[{"sender": "USER", "message": "private-text"}],
        summary="private-summary",
        variables={"name": "private-variable"},
    )
    html = page(login("view_conversation", "view_transcript"), "conv_1")
    for text in ("private-text", "private-summary", "private-variable"):
        assert text in html


def table(html: str) -> dict[str, str]:
    """The rows of the page's tables of values: name, and what is read beside it."""
    rows = re.findall(r'<tr><th scope="row">(.*?)</th><td>(.*?)</td></tr>', html, re.DOTALL)
    return {words(name): words(value) for name, value in rows}


def test_conversation__variables_extra_and_citations_are_tables(desk: Client, known: Known) -> None:
    known(
        variables={
            "name": "Dana\nSmith",
            "order": {"items": [{"sku": "A-1", "price": 2.5}, {"sku": "B-2", "gift": True}]},
            "tags": ["new", "vip"],
            "note": "",
            "refund": None,
            "empty": {},
        },
        citation_variables={"interest": {"value": "high"}},
        batch={"id": 7},
    )
    html = page(desk, "conv_1")
    told = table(html)
    assert told["name"] == "Dana Smith"
    assert told["order › items › 1 › sku"] == "A-1"
    assert told["order › items › 1 › price"] == "2.5"
    assert told["order › items › 2 › gift"] == "yes"
    assert told["tags"] == "new vip"
    assert (told["note"], told["refund"], told["empty"]) == ("empty", "nothing", "empty")
    assert told["interest › value"] == "high"
    assert told["batch › id"] == "7"
    assert "citation_variables" not in html
    assert "{&" not in html, "no JSON is left"
    assert " style=" not in html.split("bland-sms-values", 1)[1].split("</fieldset>")[0]


def test_conversation__values_are_escaped_and_bounded(desk: Client, known: Known) -> None:
    known(
        variables={
            "<b>name</b>": "<script>alert(1)</script>\u202e",
            "deep": json.loads('{"a":' * 50 + '"bottom"' + "}" * 50),
            "last of all, in any order": list(range(3000)),
        }
    )
    html = page(desk, "conv_1")
    assert "<b>name" not in html
    assert "<script>alert" not in html
    assert "\u202e" not in html
    told = table(html)
    assert told["<b>name</b>"] == "<script>alert(1)</script>"
    assert told["deep" + " › a" * 27].endswith('"bottom"' + "}" * 23)
    assert len(told) <= 2 * 200
    assert "2,802 more values are not shown." in words(html)


def test_conversation__what_bland_never_told_is_not_zero(desk: Client, known: Known) -> None:
    apply_conversation(
        ConversationPayload.from_json(
            {"id": "conv_1", "is_active": True, "updated_at": "2026-01-01T00:00:00Z"}
        ),
        observed_at=timezone.now(),
    )
    assert Conversation.objects.get().message_count is None
    assert "Messages not told" in words(page(desk, "conv_1"))
    row = desk.get(LIST).content.decode().split('class="field-shown_messages"', 1)[1]
    assert words(row[: row.index("</td>")]).endswith("not told")


@pytest.mark.slow
def test_conversation__cost_does_not_grow(desk: Client, known: Known, sandbox: Any) -> None:
    def cost() -> int:
        with CaptureQueriesContext(connection) as captured:
            page(desk, "conv_1")
        return len(captured)

    known(messages=[{"sender": "USER", "message": "x"}])
    known("conv_2")
    press(desk, "conv_1", "deactivate")
    page(desk, "conv_1")
    little = cost()
    for n in range(15):
        known(f"other_{n}")
        press(desk, "conv_1", "reactivate" if n % 2 == 0 else "deactivate")
    known(
        messages=[{"sender": "USER", "message": "x"} for _ in range(50)],
        updated_at="2026-12-01T00:00:00.000Z",
    )
    assert cost() == little


# --- addresses --------------------------------------------------------------------------------

JUNK = [
    "%00",
    "a%00b",
    "..",
    "..%2F..",
    "a/b/c",
    "_",
    "_5",
    "_5F",
    "_zz",
    "%E2%80%AE",
    "é",
    "a" * 3000,
]


def test_conversation__junk_id_is_not_found(desk: Client, sandbox: BlandSandbox) -> None:
    answers = {junk: desk.get(f"{LIST}{junk}/change/").status_code for junk in JUNK}
    assert set(answers.values()) <= {302, 404}, answers


@pytest.mark.parametrize("verb", VERBS)
def test_button__junk_id_is_not_found(verb: str, desk: Client, sandbox: BlandSandbox) -> None:
    answers = {junk: desk.post(f"{LIST}{junk}/{verb}/").status_code for junk in JUNK}
    assert set(answers.values()) <= {302, 404}, answers
    assert not sandbox.log


@pytest.mark.parametrize("conversation_id", ["conv_1", "a_5Fb", "A-1_", "b3f1c0de-0000-4000"])
def test_conversation__id_in_its_address(
    conversation_id: str, desk: Client, known: Known, sandbox: BlandSandbox
) -> None:
    known(conversation_id)
    link = re.search(r'<a href="([^"]*/change/[^"]*)"', desk.get(LIST).content.decode())
    assert link is not None
    html = desk.get(link[1]).content.decode()
    [target] = [url for url in button_targets(html) if url.endswith("/deactivate/")]
    desk.post(target)
    assert at_bland(sandbox) == {conversation_id: False}


# --- under another name -----------------------------------------------------------------------


def addresses(html: str) -> set[str]:
    """Where a page leads to on this host, style sheets and scripts aside."""
    found = re.findall(r'(?:href|action)="(/[^"]*)"', html)
    return {one for one in found if one != "/" and not one.startswith("/static/")}


@pytest.mark.urls(__name__)
@pytest.mark.parametrize(
    "where",
    ["conversation/", "conversation/conv_5F1/change/", "bulkupdate/", "bulkupdate/{}/change/"],
)
def test_second_site__links_stay_in_it(
    where: str, desk: Client, known: Known, sandbox: BlandSandbox
) -> None:
    known("conv_1")
    known("conv_2")
    desk.post("/second/bland_sms/conversation/conv_5F1/deactivate/")
    update = BulkUpdate.objects.get()
    html = desk.get(f"/second/bland_sms/{where.format(update.pk)}").content.decode()
    inside = addresses(html)
    assert len(inside) > 3
    assert [address for address in inside if not address.startswith("/second/")] == []


@pytest.mark.urls(__name__)
def test_second_site__action_and_its_message(
    desk: Client, known: Known, sandbox: BlandSandbox
) -> None:
    known()
    response = act(desk, "deactivate_selected", ["conv_1"], "/second/bland_sms/conversation/")
    [message] = response.context["messages"]
    assert '<a href="/second/bland_sms/bulkupdate/' in str(message)
    assert at_bland(sandbox) == {"conv_1": False}


@pytest.mark.urls(__name__)
@pytest.mark.parametrize("verb", VERBS)
def test_second_site__buttons(verb: str, desk: Client, known: Known, sandbox: Any) -> None:
    known(is_active=verb != "reactivate")
    html = desk.get("/second/bland_sms/conversation/conv_5F1/change/").content.decode()
    [target] = [url for url in button_targets(html) if url.endswith(f"/{verb}/")]
    response = desk.post(target, follow=True)
    assert response.redirect_chain[-1][0] == "/second/bland_sms/conversation/conv_5F1/change/"
    assert [level for level, _ in told(response)] == ["success"]


lone_site = admin.AdminSite(name="lone")
lone_site.register(Conversation, ConversationAdmin)
urlpatterns.append(path("lone/", lone_site.urls))


@pytest.mark.urls(__name__)
def test_lone_site__without_the_pages_of_updates(
    desk: Client, known: Known, sandbox: BlandSandbox
) -> None:
    known()
    desk.raise_request_exception = False
    response = desk.post("/lone/bland_sms/conversation/conv_5F1/deactivate/", follow=True)
    assert response.status_code == 200  # Bland was asked: this is no place to fail
    assert "Deactivated by dana" in words(response.content.decode())


@pytest.mark.urls(__name__)
def test_second_site__search_for_one_id(desk: Client, known: Known) -> None:
    known()
    response = desk.get("/second/bland_sms/conversation/?q=conv_1")
    assert response["Location"] == "/second/bland_sms/conversation/conv_5F1/change/"


@pytest.mark.parametrize(
    ("name", "ending"),
    [
        ("deactivate", "conv_5F1/deactivate/"),
        ("reactivate", "conv_5F1/reactivate/"),
        ("refresh", "conv_5F1/refresh/"),
    ],
)
def test_url_names__of_the_buttons(name: str, ending: str) -> None:
    assert reverse(f"admin:bland_sms_conversation_{name}", args=["conv_5F1"]) == LIST + ending


# --- two people -------------------------------------------------------------------------------


def test_deactivate_selected__somebody_has_asked_already(
    desk: Client, copied: Copied, started: Any, staff: AbstractUser, sandbox: BlandSandbox
) -> None:
    ids = copied(1)
    first = started(ids, requested_by=staff)
    [(level, text)] = told(act(desk, "deactivate_selected", ids))
    assert level == "info"
    assert f"update {first.pk} by dana" in text
    assert not sandbox.log
    assert BulkUpdateItem.objects.filter(state="cancelled").count() == 1


# --- an old page ------------------------------------------------------------------------------


def test_action__says_which_of_the_selected_left_the_list(
    desk: Client, sandbox: BlandSandbox, copied: Callable[..., list[str]]
) -> None:
    ids = copied(3)
    act(desk, "deactivate_selected", ids[:1])  # in another tab
    page = act(desk, "deactivate_selected", ids, f"{LIST}?status=active")
    [(level, text), done] = told(page)
    assert level == "warning"
    assert text.startswith("1 of 3 selected is not in this list any more, and was left alone:")
    assert done[1].startswith("2 conversations deactivated.")
    assert BulkUpdate.objects.count() == 2


def test_action__of_which_nothing_is_left_is_no_missing_selection(
    desk: Client, sandbox: BlandSandbox, copied: Callable[..., list[str]]
) -> None:
    ids = copied(2)
    act(desk, "deactivate_selected", ids)
    page = act(desk, "deactivate_selected", ids, f"{LIST}?status=active")
    [(level, text)] = told(page)
    assert level == "warning"
    assert text.startswith("2 of 2 selected are not in this list any more, and were left alone:")
    assert page.redirect_chain[-1][0] == f"{LIST}?status=active"
    assert BulkUpdate.objects.count() == 1

"""Reading thread after thread: the place in the list, and messages that are copied when opened."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from html import unescape
from typing import Any
from urllib.parse import unquote, urlencode

import pytest
from django.contrib.auth.models import AbstractUser, Permission
from django.test import Client

from bland_sms.admin import ConversationAdmin, triage
from bland_sms.models import BulkUpdate, Conversation
from bland_sms.sandbox import BlandSandbox
from bland_sms.sync import refresh

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("no_waiting")]
LIST = "/admin/bland_sms/conversation/"
NEWEST = datetime(2026, 1, 9, 10, tzinfo=timezone.utc)
BEGAN = "event=started:2026-01-09:2026-01-09"
ACTIVE = {"_changelist_filters": "status=active"}


@pytest.fixture
def desk(client: Client, staff: AbstractUser) -> Client:
    client.force_login(staff)
    return client


@pytest.fixture
def account(sandbox: BlandSandbox, db: None) -> BlandSandbox:
    """Six conversations, c0 the newest; c1 and c2 share a moment, c3 is inactive."""
    for number in range(6):
        moment = NEWEST - timedelta(hours=1 if number in (1, 2) else number)
        at = moment.isoformat().replace("+00:00", "Z")
        sandbox.account.add(
            {
                "id": f"c{number}",
                "user_number": f"+1555010000{5 - number}",
                "is_active": number != 3,
                "created_at": at,
                "updated_at": at,
                "last_message_at": at,
                "messages": [{"id": "m", "created_at": at, "sender": "USER", "message": "Hello"}],
            }
        )
        refresh(f"c{number}")
    sandbox.log.clear()
    return sandbox


def page(browser: Client, pk: str, **query: str) -> str:
    response = browser.get(f"{LIST}{pk}/change/?{urlencode(query)}")
    assert response.status_code == 200
    return unescape(response.content.decode())


def place(html: str) -> tuple[str, str, str, str]:
    """The conversation before, the place in words, the conversation after, and the way back."""
    nav = re.search(r'<nav class="bland-sms-place".*?</nav>', html, re.DOTALL)
    assert nav is not None

    def leads_to(rel: str) -> str:
        found = re.search(rf'<a href="{LIST}([^/]+)/change/[^"]*" rel="{rel}"', nav[0])
        return found[1] if found else ""

    words = re.search("<bdi>(.*?)</bdi>", nav[0])
    back = re.search(r'<a href="([^"]+)">Back to the list', nav[0])
    assert back is not None
    return leads_to("prev"), words[1] if words else "", leads_to("next"), back[1]


def walk(browser: Client, first: str, **query: str) -> Iterator[str]:
    """Follow Next to the end."""
    pk = first
    while pk:
        yield pk
        pk = place(page(browser, pk, **query))[2]


@pytest.mark.parametrize(
    ("filters", "order"),
    [
        ("", "c0 c2 c1 c3 c4 c5"),
        ("status=active", "c0 c2 c1 c4 c5"),
        ("o=1", "c5 c4 c3 c2 c1 c0"),
        ("o=-5&status=active", "c0 c2 c1 c4 c5"),
        ("o=5", "c5 c4 c3 c2 c1 c0"),
        ("q=00005,00003,00002", "c0 c2 c3"),
        (f"{BEGAN}&status=active", "c0 c2 c1 c4 c5"),
        (f"{BEGAN}&o=1", "c5 c4 c3 c2 c1 c0"),
        (f"{BEGAN}&o=4", "c5 c4 c3 c2 c1 c0"),
        (f"{BEGAN}&q=00005,00003,00002", "c0 c2 c3"),
    ],
)
def test_place__next_and_previous_are_those_of_the_list(
    filters: str, order: str, desk: Client, account: BlandSandbox
) -> None:
    listed = re.findall(
        r'name="_selected_action" value="([^"]+)"', desk.get(f"{LIST}?{filters}").content.decode()
    )
    assert " ".join(listed) in (order, order.replace("c2 c1", "c1 c2"))
    query = {"_changelist_filters": filters} if filters else {}
    assert list(walk(desk, listed[0], **query)) == listed
    before = ""
    for number, pk in enumerate(listed, 1):
        previous, words, _next, back = place(page(desk, pk, **query))
        assert (previous, words) == (before, f"{number} of {len(listed)}")
        assert unquote(back) == (f"{LIST}?{filters}" if filters else LIST)
        before = pk


def test_list__what_began_in_some_days_is_in_that_order(
    desk: Client, account: BlandSandbox
) -> None:
    later = (NEWEST + timedelta(days=30)).isoformat().replace("+00:00", "Z")
    account.account.rows["c4"].update(last_message_at=later, updated_at=later)
    refresh("c4")

    changelist = desk.get(f"{LIST}?{BEGAN}").context["cl"]

    assert [row.pk for row in changelist.result_list] == ["c0", "c2", "c1", "c3", "c4", "c5"]
    sorted_by = changelist.get_ordering_field_columns()
    assert {changelist.list_display[at]: how for at, how in sorted_by.items()} == {"began": "desc"}
    assert list(walk(desk, "c3", _changelist_filters=BEGAN)) == ["c3", "c4", "c5"]
    assert desk.get(LIST).context["cl"].result_list[0].pk == "c4"


def test_place__back_leads_to_its_page_of_the_list(
    desk: Client, account: BlandSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bland_sms.admin import ConversationAdmin

    monkeypatch.setattr(ConversationAdmin, "list_per_page", 2)
    query = {"_changelist_filters": "status=active&p=1"}
    assert place(page(desk, "c5", **query))[1:] == ("5 of 5", "", f"{LIST}?status=active&p=3")


def test_place__counts_no_further_than_the_cap(
    desk: Client, account: BlandSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bland_sms.admin.base.COUNT_CAP", 3)
    monkeypatch.setattr(triage, "COUNT_CAP", 3)
    assert place(page(desk, "c0"))[:3] == ("", "1 of 3+", "c2")
    assert place(page(desk, "c4"))[:3] == ("c3", "3+ of 3+", "c5")


@pytest.mark.parametrize("filters", ["nonsense=1", "last_message__regex=a", "status=active%00", ""])
def test_place__odd_filters_are_no_error(filters: str, desk: Client, account: BlandSandbox) -> None:
    for at in ("", "yesterday", "2026-13-45T99:00:00Z", "2026-01-01", "\0"):
        assert "Back to the list" in page(desk, "c1", _changelist_filters=filters, at=at)


def test_place__other_classes_may_change_the_query(
    desk: Client, account: BlandSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as the mixin of django-admin-edit-mode, which takes its own parameter out."""
    get_instance = ConversationAdmin.get_changelist_instance

    def changed(self: ConversationAdmin, request: Any) -> Any:
        request.GET._mutable = True
        request.GET.pop("list_edit_mode", None)
        request.GET._mutable = False
        return get_instance(self, request)

    monkeypatch.setattr(ConversationAdmin, "get_changelist_instance", changed)
    kept = {"_changelist_filters": "status=active&list_edit_mode=1"}
    _before, words, _after, _back = place(page(desk, "c0", **kept))
    assert words == "1 of 5"


def test_deactivate__stays_on_the_thread_and_offers_the_next(
    desk: Client, account: BlandSandbox
) -> None:
    html = page(desk, "c2", **ACTIVE)
    form = re.search(rf'action="({LIST}c2/deactivate/[^"]*)"', html)
    assert form is not None
    response = desk.post(form[1], follow=True)
    assert response.redirect_chain[-1][0].startswith(f"{LIST}c2/change/?_changelist_filters=")
    after = unescape(response.content.decode())
    told = [str(message) for message in response.context["messages"]]
    assert any(re.search(f"Next in this list: .*{LIST}c1/change/", one) for one in told)
    assert place(after)[:3] == ("c0", "No longer in this list (4)", "c1")
    assert not Conversation.objects.get(pk="c2").is_active
    assert Conversation.objects.get(pk="c1").is_active


def test_refresh__keeps_the_place_though_the_conversation_has_moved(
    desk: Client, account: BlandSandbox
) -> None:
    html = page(desk, "c4", **ACTIVE)
    now = (NEWEST + timedelta(days=1)).isoformat().replace("+00:00", "Z")
    account.account.rows["c4"] |= {"updated_at": now, "last_message_at": now}
    form = re.search(rf'action="({LIST}c4/refresh/[^"]*)"', html)
    assert form is not None
    after = unescape(desk.post(form[1], follow=True).content.decode())
    assert Conversation.objects.get(pk="c4").last_activity_at > NEWEST
    assert place(after)[0] in ("c1", "c2")
    assert place(after)[2] == "c5"


def test_sync__comes_back_to_the_filtered_list(desk: Client, account: BlandSandbox) -> None:
    html = unescape(desk.get(f"{LIST}?status=active&q=0000").content.decode())
    form = re.search(rf'action="({LIST}sync/[^"]*)"', html)
    assert form is not None
    assert desk.post(form[1]).headers["Location"] == f"{LIST}?status=active&q=0000"


# --- messages that were never copied ----------------------------------------------------------


@pytest.fixture
def uncopied(account: BlandSandbox) -> BlandSandbox:
    Conversation.objects.update(transcript_observed_at=None)
    Conversation.objects.get(pk="c1").messages.all().delete()
    return account


@pytest.fixture
def reader(client: Client, django_user_model: Any) -> Client:
    """Who may read, and not refresh."""
    user = django_user_model.objects.create_user("sam", is_staff=True)
    names = ("view_conversation", "view_transcript")
    user.user_permissions.set(Permission.objects.filter(codename__in=names))
    client.force_login(user)
    return client


def copy_url(html: str) -> str:
    form = re.search(rf'id="bland-sms-copy-form" method="post" action="({LIST}[^"]+)"', html)
    return form[1] if form else ""


def test_copy__a_reader_copies_what_was_never_copied(
    reader: Client, uncopied: BlandSandbox
) -> None:
    html = page(reader, "c1", **ACTIVE)
    assert not uncopied.log  # nothing is asked, and nothing changes, by looking
    assert "Copy the messages now" in html
    after = reader.post(copy_url(html), follow=True)
    assert after.redirect_chain[-1][0].startswith(f"{LIST}c1/change/?_changelist_filters=")
    assert "Hello" in after.content.decode()
    assert copy_url(unescape(after.content.decode())) == ""


def test_copy__the_script_is_told_whether_it_went_well(
    reader: Client, uncopied: BlandSandbox
) -> None:
    url = copy_url(page(reader, "c1"))
    uncopied.faults.add("GET c1", "forever:401")
    answer = reader.post(url, headers={"accept": "application/json"})
    assert "Bland refused the key (401)." in answer.json()["problem"]
    uncopied.faults.clear()
    answer = reader.post(url, headers={"accept": "application/json"})
    assert answer.json() == {"problem": ""}
    assert "Hello" in page(reader, "c1")


def test_copy__is_no_way_to_refresh(reader: Client, uncopied: BlandSandbox) -> None:
    url = copy_url(page(reader, "c1"))
    reader.post(url)
    asked = len(uncopied.log)
    reader.post(url)
    assert len(uncopied.log) == asked == 1


@pytest.mark.parametrize("column", ["missing_since", "erased_at"])
def test_copy__not_of_what_is_not_there(
    column: str, reader: Client, uncopied: BlandSandbox
) -> None:
    Conversation.objects.filter(pk="c1").update(**{column: NEWEST})
    assert copy_url(page(reader, "c1")) == ""
    reader.post(f"{LIST}c1/copy/")
    assert not uncopied.log


def test_page__marks_what_was_requested_as_the_list_does(
    desk: Client, account: BlandSandbox, started: Callable[..., BulkUpdate]
) -> None:
    started(["c1"])
    assert "deactivation paused" in page(desk, "c1")
    BulkUpdate.objects.update(dispatched_at=datetime.now(timezone.utc))
    assert "being deactivated" in page(desk, "c1")

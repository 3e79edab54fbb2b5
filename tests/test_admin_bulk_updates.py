"""What staff see of updates: who asked for what, what became of it, and whose it is."""

from __future__ import annotations

import re
from collections.abc import Callable
from html import unescape
from typing import Any

import pytest
from django.contrib.auth.models import AbstractUser, Permission
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from bland_sms.models import BulkUpdate, BulkUpdateItem
from bland_sms.sandbox import BlandSandbox
from bland_sms.updates import prepare, run

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("no_waiting")]
LIST = "/admin/bland_sms/bulkupdate/"
Copied = Callable[..., list[str]]
Started = Callable[..., BulkUpdate]
Login = Callable[..., Client]


@pytest.fixture
def desk(client: Client, staff: AbstractUser) -> Client:
    """A browser in which somebody is logged in who may do everything."""
    client.force_login(staff)
    return client


@pytest.fixture
def sam(django_user_model: Any) -> AbstractUser:
    """Staff that may deactivate, and sees no updates but their own."""
    return with_permissions(
        django_user_model.objects.create_user("sam", is_staff=True),
        "view_conversation",
        "deactivate_conversation",
    )


def with_permissions(user: AbstractUser, *codenames: str) -> Any:
    user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
    return user


def url_of(bulk_update: BulkUpdate, verb: str = "change") -> str:
    return f"{LIST}{bulk_update.pk}/{verb}/"


def words(html: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", html)).split())


def page(browser: Client, bulk_update: BulkUpdate) -> str:
    response = browser.get(url_of(bulk_update))
    assert response.status_code == 200
    return response.content.decode()


def listed(browser: Client) -> list[int]:
    html = browser.get(LIST).content.decode().partition('id="result_list"')[2]
    return [int(pk) for pk in re.findall(rf'<a href="{LIST}(\d+)/change/', html)]


# --- whose it is ------------------------------------------------------------------------------


def test_list__everybodys_with_the_permission(
    desk: Client, copied: Copied, started: Started, sam: AbstractUser
) -> None:
    ids = copied(2)
    first = started(ids[:1], requested_by=sam)
    second = started(ids[1:])
    assert listed(desk) == [second.pk, first.pk]


def test_list__own_ones_without_the_permission(
    client: Client, copied: Copied, started: Started, staff: AbstractUser, sam: AbstractUser
) -> None:
    ids = copied(3)
    started(ids[:1], requested_by=staff)
    started(ids[1:2])
    own = started(ids[2:], requested_by=sam)
    client.force_login(sam)
    assert listed(client) == [own.pk]


def test_list__refused_to_who_may_not_change_anything(
    client: Client, django_user_model: Any
) -> None:
    user = django_user_model.objects.create_user("kim", is_staff=True)
    client.force_login(with_permissions(user, "view_conversation", "refresh_conversation"))
    assert client.get(LIST).status_code == 403


def test_update__own_one_opens(
    client: Client, copied: Copied, started: Started, sam: AbstractUser
) -> None:
    client.force_login(sam)
    assert copied(1)[0] in page(client, started(copied(1), requested_by=sam))


def test_update__own_one_opens_when_the_permission_is_gone(
    client: Client, copied: Copied, started: Started, sam: AbstractUser
) -> None:
    bulk_update = started(copied(1), requested_by=sam)
    client.force_login(with_permissions(sam, "view_conversation"))
    assert copied(1)[0] in page(client, bulk_update)


@pytest.mark.parametrize("verb", ["change", "history"])
@pytest.mark.parametrize("requester", ["another person", "an operator"])
def test_update__of_others_is_not_there(
    requester: str,
    verb: str,
    client: Client,
    copied: Copied,
    started: Started,
    staff: AbstractUser,
    sam: AbstractUser,
) -> None:
    ids = copied(1)
    by = staff if requester == "another person" else None
    bulk_update = started(ids, requested_by=by, reason="private-reason")
    client.force_login(sam)
    response = client.get(url_of(bulk_update, verb))
    assert response.status_code in (302, 403, 404)
    html = client.get(url_of(bulk_update, verb), follow=True).content.decode()
    assert ids[0] not in html
    assert "private-reason" not in html


def test_update__draft_is_not_in_the_list(
    desk: Client, copied: Copied, staff: AbstractUser
) -> None:
    prepare(copied(1), False, requested_by=staff)
    assert listed(desk) == []


def test_update__anonymous_is_sent_to_the_login(
    client: Client, copied: Copied, started: Started
) -> None:
    response = client.get(url_of(started(copied(1))))
    assert response["Location"].startswith("/admin/login/")


@pytest.mark.parametrize("junk", ["0", "-1", "x", "%00", "9" * 40, "1/2", "_"])
def test_update__junk_number_is_not_found(junk: str, desk: Client) -> None:
    assert desk.get(f"{LIST}{junk}/change/").status_code in (302, 404)


# --- read-only --------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["get", "post"])
@pytest.mark.parametrize("verb", ["add", "delete"])
def test_update__is_not_added_or_deleted(
    verb: str, method: str, desk: Client, copied: Copied, started: Started
) -> None:
    bulk_update = started(copied(1))
    url = f"{LIST}add/" if verb == "add" else url_of(bulk_update, "delete")
    assert getattr(desk, method)(url, {"post": "yes"}).status_code == 403
    assert BulkUpdate.objects.count() == 1


def test_update__is_not_edited(desk: Client, copied: Copied, started: Started) -> None:
    bulk_update = started(copied(1), reason="asked by mail")
    assert desk.post(url_of(bulk_update), {"reason": "another"}).status_code == 403
    bulk_update.refresh_from_db()
    assert bulk_update.reason == "asked by mail"


def test_list__offers_no_deletion(desk: Client, copied: Copied, started: Started) -> None:
    started(copied(1))
    assert "delete_selected" not in desk.get(LIST).content.decode()


# --- what it says -----------------------------------------------------------------------------


@pytest.mark.parametrize(("is_active", "verb"), [(False, "Deactivate"), (True, "Reactivate")])
def test_list__says_who_asked_for_what(
    is_active: bool,
    verb: str,
    desk: Client,
    copied: Copied,
    started: Started,
    sam: AbstractUser,
) -> None:
    started(copied(1, is_active=not is_active), is_active=is_active, requested_by=sam)
    [row] = re.findall(r"<tbody>(.*?)</tbody>", desk.get(LIST).content.decode(), re.DOTALL)
    assert verb in words(row)
    assert "sam" in words(row)


def test_update__says_who_why_and_where(
    desk: Client, copied: Copied, started: Started, sam: AbstractUser
) -> None:
    bulk_update = started(
        copied(1),
        requested_by=sam,
        reason="Complaint <1234>",
        source="admin",
        selection="status: active",
    )
    text = words(page(desk, bulk_update))
    for part in ("Deactivate", "sam", "Complaint <1234>", "Admin", "status: active"):
        assert part in text


def test_update__requester_stays_named_when_the_account_goes(
    desk: Client, copied: Copied, started: Started, sam: AbstractUser
) -> None:
    bulk_update = started(copied(1), requested_by=sam)
    sam.delete()
    assert "sam" in words(page(desk, bulk_update))


@pytest.fixture
def mixed(sandbox: BlandSandbox, copied: Copied, started: Started) -> BulkUpdate:
    """One changed, one not found, one refused with words, one without an answer."""
    changed, gone, refused, silent = copied(4)
    del sandbox.account.rows[gone]
    body = {"data": None, "errors": [{"error": "X_ODD", "message": "<b>no such luck</b>"}]}
    sandbox.faults.add(f"PATCH {refused}", {"status": 422, "body": body})
    sandbox.faults.add(silent, "forever:reset_after")
    bulk_update = started([changed, gone, refused, silent])
    run(bulk_update)
    return bulk_update


def rows(html: str) -> dict[str, str]:
    """Each conversation of an update's page, and what is read in its row."""
    found = re.findall(r"<tr>(.*?)</tr>", html, re.DOTALL)
    texts = [words(row) for row in found]
    named = [(re.search(r"\bconv_\w+", text), text) for text in texts]
    return {match[0]: text for match, text in named if match is not None}


@pytest.mark.parametrize(
    ("conversation_id", "parts"),
    [
        ("conv_0000", ["Changed", "200"]),
        ("conv_0001", ["Failed", "Not found under this key", "404", "row is kept"]),
        ("conv_0002", ["Failed", "422", "X_ODD", "<b>no such luck</b>"]),
        ("conv_0003", ["Unknown", "broke before its answer was complete", "Retry"]),
    ],
)
def test_update__tells_of_each_conversation(
    conversation_id: str, parts: list[str], desk: Client, mixed: BulkUpdate
) -> None:
    text = rows(page(desk, mixed))[conversation_id]
    assert [part for part in parts if part not in text] == []


def test_update__failures_come_first(desk: Client, mixed: BulkUpdate) -> None:
    assert list(rows(page(desk, mixed))) == ["conv_0001", "conv_0002", "conv_0003", "conv_0000"]


def test_update__counts(desk: Client, mixed: BulkUpdate) -> None:
    text = words(page(desk, mixed)).lower()
    for part in ("1 changed", "2 failed", "1 unknown"):
        assert part in text


def test_update__blands_words_are_escaped(desk: Client, mixed: BulkUpdate) -> None:
    assert "<b>no such luck" not in page(desk, mixed)


def test_update__links_to_its_conversations(desk: Client, mixed: BulkUpdate) -> None:
    assert '"/admin/bland_sms/conversation/conv_5F0002/change/"' in page(desk, mixed)


def test_update__stopped_says_why_and_how_far_it_came(
    desk: Client, sandbox: BlandSandbox, copied: Copied, started: Started
) -> None:
    bulk_update = started(copied(3))
    sandbox.faults.add("*", "forever:401")
    run(bulk_update)
    text = words(page(desk, bulk_update))
    assert "Stopped" in text
    assert "Bland refused the key (401)." in text
    assert "3 not attempted" in text


def test_update__cancelled_items_name_update_and_person(
    desk: Client, copied: Copied, started: Started, sam: AbstractUser
) -> None:
    ids = copied(1)
    older = started(ids)
    newer = started(ids, is_active=True, requested_by=sam)
    text = rows(page(desk, older))[ids[0]]
    assert "Cancelled" in text
    assert f"update {newer.pk} by sam" in text


def test_update__conversation_that_is_not_in_the_mirror(
    desk: Client, sandbox: BlandSandbox, started: Started
) -> None:
    assert "conv_404" in page(desk, started(["conv_404"]))


def test_update__long_one_says_how_many_are_not_shown(
    desk: Client, copied: Copied, started: Started
) -> None:
    bulk_update = started(copied(230))
    html = page(desk, bulk_update)
    shown = len(rows(html))
    assert 50 <= shown < 230
    assert f"{230 - shown} more are" in words(html)


def test_update__failures_of_a_long_one_are_shown(
    desk: Client, copied: Copied, started: Started
) -> None:
    ids = copied(230)
    bulk_update = started(ids)
    BulkUpdateItem.objects.filter(conversation_id=ids[229]).update(
        state="failed", error_code="http_422", http_status=422
    )
    assert next(iter(rows(page(desk, bulk_update)))) == ids[229]


def test_update__cost_does_not_grow_with_items(
    desk: Client, copied: Copied, started: Started
) -> None:
    ids = copied(80)
    few, many = started(ids[:10]), started(ids[10:])
    costs = []
    for bulk_update in (few, few, many):
        with CaptureQueriesContext(connection) as captured:
            page(desk, bulk_update)
        costs.append(len(captured))
    assert costs[1] == costs[2]


def test_list__cost_does_not_grow_with_updates(
    desk: Client, copied: Copied, started: Started
) -> None:
    ids = copied(12)
    costs = []
    for some in (ids[:2], ids[2:]):
        for conversation_id in some:
            started([conversation_id])
        with CaptureQueriesContext(connection) as captured:
            assert listed(desk)
        costs.append(len(captured))
    assert costs[0] == costs[1]


def test_update__key_is_not_on_its_page(
    desk: Client, sandbox: BlandSandbox, copied: Copied, started: Started
) -> None:
    bulk_update = started(copied(1))
    sandbox.faults.add("*", "echo_key")
    run(bulk_update)
    html = page(desk, bulk_update)
    assert "BAD_KEY" in html
    assert sandbox.api_key not in html

"""What staff do about the mirror's age, and what they take with them."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.test import Client
from django.utils import timezone

from bland_sms.models import BulkUpdate, BulkUpdateItem, Conversation, SyncRun
from bland_sms.sandbox import BlandSandbox
from bland_sms.sync import refresh, runs

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("no_waiting")]
LIST = "/admin/bland_sms/conversation/"
SYNC = f"{LIST}sync/"
CHANGE = f"{LIST}conv_5F1/"


@pytest.fixture
def desk(client: Client, staff: Any) -> Client:
    client.force_login(staff)
    return client


@pytest.fixture
def login(client: Client, django_user_model: Any) -> Callable[..., Client]:
    def make(*codenames: str) -> Client:
        user = django_user_model.objects.create_user("sam", is_staff=True)
        user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
        client.force_login(user)
        return client

    return make


def told(response: Any) -> list[tuple[str, str]]:
    return [(message.level_tag, str(message)) for message in response.context["messages"]]


# --- the button "Refresh" of the list ---------------------------------------------------------


def test_sync__copies_and_says_so(desk: Client, sandbox: BlandSandbox, staff: Any) -> None:
    sandbox.account.add({"id": "conv_1"})
    response = desk.post(SYNC, follow=True)
    assert told(response) == [("success", "Copied from Bland: 1 new, 0 changed.")]
    run = SyncRun.objects.get()
    assert (run.trigger, run.requested_by, run.status) == ("admin", staff, "finished")
    assert Conversation.objects.count() == 1


def test_sync__never_by_looking(desk: Client, sandbox: BlandSandbox) -> None:
    assert desk.get(SYNC).status_code == 405
    assert not sandbox.requests()


def test_sync__only_with_the_permission(login: Any, sandbox: BlandSandbox) -> None:
    desk = login("view_conversation")
    assert desk.post(SYNC).status_code == 403
    assert not sandbox.requests()
    assert SYNC not in desk.get(LIST).content.decode()


def test_sync__button_for_who_may(login: Any, sandbox: BlandSandbox) -> None:
    desk = login("view_conversation", "refresh_conversation")
    assert SYNC in desk.get(LIST).content.decode()


def test_sync__beside_another(desk: Client, sandbox: BlandSandbox) -> None:
    runs.begin(SyncRun(mode="full"))
    assert "running already" in told(desk.post(SYNC, follow=True))[0][1]


@pytest.mark.parametrize(("fault", "words"), [("401", "401"), ("forever:500", "500")])
def test_sync__trouble_is_told(fault: str, words: str, desk: Client, sandbox: BlandSandbox) -> None:
    sandbox.faults.add("list", fault)
    [(level, text)] = told(desk.post(SYNC, follow=True))
    assert level == "error"
    assert text.startswith("Nothing was copied, what you see is the last copy.")
    assert words in text


def test_sync__what_did_not_fit_is_told(
    desk: Client, sandbox: BlandSandbox, set_bland: Callable[..., None]
) -> None:
    set_bland(INLINE_SECONDS=3, PAGE_SIZE=5)
    sandbox.faults.add("#10", "hang_before:60")
    for index in range(150):
        moment = f"2026-01-01T00:{index % 60:02d}:00Z"
        sandbox.account.add({"id": f"c{index}", "created_at": moment})
    [(level, text)] = told(desk.post(SYNC, follow=True))
    assert level == "warning"
    assert "goes on from here" in text


@pytest.mark.parametrize(("seconds", "is_old"), [(800, False), (1000, True)])
def test_list__warns_when_the_copy_is_old(desk: Client, seconds: int, is_old: bool) -> None:
    began = timezone.now() - timedelta(seconds=seconds)
    SyncRun.objects.create(status="finished", walk_began_at=began)
    assert ("This copy is old." in desk.get(LIST).content.decode()) is is_old


# --- what was asked and is not so yet ---------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("waiting", "being deactivated"),
        ("running", "being deactivated"),
        ("failed", "deactivation failed"),
        ("unknown", "deactivation: outcome unknown"),
        ("changed", ""),
        ("cancelled", ""),
    ],
)
def test_list__requested_change_beside_the_state(
    state: str, words: str, desk: Client, copied: Any
) -> None:
    copied(1)
    update = BulkUpdate.objects.create(
        is_active=False, status="running", source="admin", dispatched_at=timezone.now()
    )
    BulkUpdateItem.objects.create(bulk_update=update, conversation_id="conv_0000", state=state)
    html = desk.get(LIST).content.decode()
    assert ">Active<" in html
    assert words in html
    if not words:
        assert "being deactivated" not in html
        assert "deactivation" not in html


def test_list__a_failure_that_was_made_good_is_not_shown(desk: Client, copied: Any) -> None:
    copied(1)
    for state in ("failed", "changed"):
        update = BulkUpdate.objects.create(is_active=False, status="finished", source="admin")
        BulkUpdateItem.objects.create(bulk_update=update, conversation_id="conv_0000", state=state)
    assert "deactivation failed" not in desk.get(LIST).content.decode()


# --- the transcript to take away --------------------------------------------------------------


@pytest.fixture
def thread(sandbox: BlandSandbox) -> str:
    sandbox.account.add(
        {
            "id": "conv_1",
            "user_number": "+15550100001",
            "messages": [
                {"id": 1, "sender": "USER", "message": "<Call Connected>", "status": None},
                {"id": 2, "sender": "USER", "message": "Hi\u202e there", "created_at": AT},
                {"id": "x", "sender": "AGENT", "message": "=1+1", "status": "delivered"},
                {"id": 4, "sender": "BOT", "message": "new", "error_code": 21610},
            ],
        }
    )
    refresh("conv_1")
    return "conv_1"


AT = "2026-01-02T03:04:05.000Z"


def test_transcript__as_text(desk: Client, thread: str) -> None:
    response = desk.get(f"{CHANGE}transcript.txt")
    assert response["Content-Type"] == "text/plain; charset=utf-8"
    assert response["Content-Disposition"] == 'attachment; filename="conv_1.txt"'
    lines = response.content.decode().splitlines()
    assert lines[0] == "Conversation conv_1"
    assert lines[1] == "Customer: +15550100001"
    assert lines[-3:] == [
        "[2026-01-02 03:04:05+00:00] Customer: Hi there",
        "[?] Agent (delivered): =1+1",
        "[?] BOT (21610): new",
    ]


def test_transcript__as_text_has_our_events(desk: Client, thread: str) -> None:
    desk.post(f"{CHANGE}deactivate/", {"reason": "ticket 4712"})
    *_others, event, reason = desk.get(f"{CHANGE}transcript.txt").content.decode().splitlines()
    assert re.fullmatch(r"\[20.*\] Deactivated by dana, update \d+", event)
    assert reason.strip() == "Reason: ticket 4712"


def test_transcript__link_on_the_page(desk: Client, thread: str) -> None:
    assert "transcript.txt" in desk.get(f"{CHANGE}change/").content.decode()


@pytest.mark.parametrize(
    ("codenames", "status"),
    [(["view_conversation"], 403), (["view_transcript"], 403), ([], 403)],
)
def test_transcript__only_with_the_permission(
    codenames: list[str], status: int, login: Any, thread: str
) -> None:
    assert login(*codenames).get(f"{CHANGE}transcript.txt").status_code == status


def test_transcript__unknown_conversation(desk: Client) -> None:
    assert desk.get(f"{LIST}nobody/transcript.txt").status_code == 404
    assert desk.post(f"{LIST}nobody/transcript.txt").status_code == 405


# --- the log ----------------------------------------------------------------------------------


def test_log__a_run_whose_process_died(desk: Client) -> None:
    dead = SyncRun(mode="full")
    runs.begin(dead)
    log = "/admin/bland_sms/syncrun/"
    assert "Running" in desk.get(log).content.decode()
    SyncRun.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
    html = desk.get(log).content.decode()
    assert "Interrupted: the next sync goes on from here" in html
    assert desk.get(f"{log}{dead.pk}/change/").status_code == 200


def test_log__names_what_is_to_be_copied_again(desk: Client) -> None:
    run = SyncRun.objects.create(status="finished", owed=[["conv_7", "no_answer"]])
    html = desk.get(f"/admin/bland_sms/syncrun/{run.pk}/change/").content.decode()
    assert "conv_7 (no_answer)" in html


def test_log__a_lease_far_ahead_is_no_living_process(desk: Client) -> None:
    runs.begin(SyncRun(mode="full"))
    SyncRun.objects.update(lease_until=timezone.now() + timedelta(hours=3))
    html = desk.get("/admin/bland_sms/syncrun/").content.decode()
    assert "Interrupted: the next sync goes on from here" in html

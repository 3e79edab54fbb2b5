"""From a selection in the admin to its result: confirm, run, cancel, retry, undo, CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from django.contrib.auth.models import AbstractUser, Permission
from django.contrib.messages import get_messages
from django.test import Client
from django.utils import timezone
from django.utils.formats import date_format

from bland_sms.admin import base, conversations, filters, sight
from bland_sms.admin.launching import AWAITED
from bland_sms.models import BulkUpdate, BulkUpdateItem, Conversation
from bland_sms.sandbox import BlandSandbox
from bland_sms.updates import cancel, run

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("no_waiting")]
Copied = Callable[..., list[str]]
Started = Callable[..., BulkUpdate]

LIST = "/admin/bland_sms/conversation/"
dispatched: list[tuple[str, int]] = []


def note_dispatch(kind: str, pk: int) -> None:
    dispatched.append((kind, pk))


@pytest.fixture
def worker(set_bland: Any) -> list[tuple[str, int]]:
    """A DISPATCH that takes everything and does nothing yet."""
    dispatched.clear()
    set_bland(DISPATCH="tests.test_flow.note_dispatch")
    return dispatched


@pytest.fixture
def lead(client: Client, staff: AbstractUser) -> Client:
    client.force_login(staff)
    return client


def act(client: Client, action: str, *, query: str = "", **form: Any) -> Any:
    chosen = {"action": action, "select_across": "1", "index": "0", "_selected_action": ["x"]}
    return client.post(f"{LIST}{query}", {**chosen, **form})


def page(bulk_update: BulkUpdate, name: str = "change") -> str:
    return f"/admin/bland_sms/bulkupdate/{bulk_update.pk}/{name}/"


def told(response: Any) -> str:
    return " ".join(str(message) for message in get_messages(response.wsgi_request))


@pytest.mark.parametrize("query", ["", "?our_number=%2B1555", "?q=conv_0000"])
def test_click__nothing_is_worked_out_twice_nor_for_a_page(
    query: str, lead: Client, copied: Copied, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Django asks twice for the rows of an action, which is answered without the list."""
    [pk] = copied(1, agent_number="+1555")
    calls: list[str] = []
    for module, name in (
        (filters, "our_numbers"),
        (conversations, "find"),
        (sight, "shown_by"),
        (conversations, "freshness_context"),
        (base, "line_context"),
        (base, "tell_finished"),
    ):
        known = getattr(module, name)
        noted = partial(note_call, calls, known)
        monkeypatch.setattr(module, name, noted)

    form = {"action": "deactivate_selected", "_selected_action": [pk]}
    assert lead.post(f"{LIST}{query}", form).status_code == 302
    assert calls == ["our_numbers", *["find"] * ("q=" in query), "shown_by"]
    assert Conversation.objects.get().is_active is False

    calls.clear()
    assert lead.get(LIST).status_code == 200
    prepared = [name for name in calls if name != "shown_by"]  # the menu of each page asks for it
    assert sorted(prepared) == sorted(
        ["our_numbers", "tell_finished", "line_context", "freshness_context"]
    )


def note_call(calls: list[str], known: Callable[..., Any], *args: Any) -> Any:
    calls.append(known.__name__)
    return known(*args)


def states(bulk_update: BulkUpdate) -> dict[str, int]:
    return {state: number for state, number in bulk_update.counts().items() if number}


def user_with(django_user_model: Any, *codenames: str) -> Any:
    user = django_user_model.objects.create_user(f"u{len(codenames)}", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
    return user


# --- confirm ----------------------------------------------------------------------------------


def test_action__above_confirm_over_asks_first(
    lead: Client, sandbox: BlandSandbox, copied: Copied
) -> None:
    copied(40)
    response = act(lead, "deactivate_selected", query="?status=active")
    draft = BulkUpdate.objects.get()
    assert response.url.startswith(page(draft, "confirm"))
    assert (draft.status, draft.items.count()) == ("draft", 40)
    assert not sandbox.log

    shown = lead.get(response.url)
    content = shown.content.decode()
    assert "Deactivate 40 conversations" in content
    assert "All that match status “Active”" in content
    assert "This does not block the customer" in content
    assert f'href="{LIST}?status=active"' in content
    assert content.count('name="') < 10  # no hidden input for each row
    assert not sandbox.log

    response = lead.post(response.url, {"reason": "Complaint"})
    assert response.url == page(draft)
    draft.refresh_from_db()
    assert (draft.status, draft.reason) == ("queued", "Complaint")


@pytest.mark.parametrize(("over", "asks"), [(0, True), (3, False), (2, True)])
def test_action__confirm_over(
    over: int, asks: bool, lead: Client, sandbox: BlandSandbox, copied: Copied, set_bland: Any
) -> None:
    set_bland(CONFIRM_OVER=over)
    copied(3)
    response = act(lead, "deactivate_selected")
    assert ("/confirm/" in response.url) is asks
    assert len(sandbox.log) == (0 if asks else 3)


def test_button__asks_first_too_when_confirm_over_is_zero(
    lead: Client, sandbox: BlandSandbox, copied: Copied, set_bland: Any
) -> None:
    set_bland(CONFIRM_OVER=0)
    copied(1)
    response = lead.post(f"{LIST}conv_5F0000/deactivate/")
    assert "/confirm/" in response.url
    assert not sandbox.log


def test_confirm__any_size(lead: Client, copied: Copied) -> None:
    copied(20)
    Conversation.objects.bulk_create(
        (Conversation(pk=f"more_{number}") for number in range(1500)), batch_size=500
    )
    url = act(lead, "deactivate_selected").url
    draft = BulkUpdate.objects.get()
    assert "Yes, 1,520 conversations" in lead.get(url).content.decode()
    refused = lead.post(url, {"reason": ""})
    assert refused.status_code == 200
    assert "Tick the box" in refused.content.decode()
    assert lead.post(url, {"reason": "", "sure": "on"}).url == page(draft)
    assert draft.items.count() == 1520


def test_confirm__above_the_limit_keeps_nothing(
    lead: Client, copied: Copied, set_bland: Any
) -> None:
    set_bland(BULK_LIMIT=10)
    copied(11)
    response = act(lead, "deactivate_selected")
    assert "More than 10 conversations" in told(response)
    assert not BulkUpdate.objects.exists()
    assert not BulkUpdateItem.objects.exists()


def test_confirm__sent_twice_is_one_update(
    lead: Client, sandbox: BlandSandbox, copied: Copied
) -> None:
    copied(30)
    url = act(lead, "deactivate_selected").url
    first, second = lead.post(url, {}), lead.post(url, {})
    assert first.url == second.url
    assert BulkUpdate.objects.count() == 1
    assert lead.get(url).url == first.url


def test_confirm__counts_what_would_change(lead: Client, copied: Copied, set_bland: Any) -> None:
    set_bland(CONFIRM_OVER=0)
    copied(3, user_number="+15550100007")
    Conversation.objects.filter(pk="conv_0000").update(is_active=False)
    content = lead.get(act(lead, "deactivate_selected").url).content.decode()
    assert "<strong>3</strong> conversations" in content
    assert "of <strong>1</strong> customer." in content
    assert "<strong>1</strong> is inactive here already" in content


def test_confirm__nothing_to_change_has_no_button(
    lead: Client, copied: Copied, set_bland: Any, sandbox: BlandSandbox
) -> None:
    set_bland(CONFIRM_OVER=0)
    copied(2, is_active=False)
    url = act(lead, "deactivate_selected").url
    content = lead.get(url).content.decode()
    assert "There is nothing to do" in content
    assert 'type="submit" class="default"' not in content
    lead.post(url, {})
    assert BulkUpdate.objects.get().status == "draft"


def test_confirm__reactivating_warns_of_newer_ones(
    lead: Client, copied: Copied, set_bland: Any, sandbox: BlandSandbox
) -> None:
    set_bland(CONFIRM_OVER=0)
    now = timezone.now()
    Conversation.objects.create(
        pk="old", is_active=False, user_number="+15550100001", created_at=now - timedelta(days=1)
    )
    Conversation.objects.create(pk="new", user_number="+15550100001", created_at=now)
    response = act(lead, "reactivate_selected", select_across="0", _selected_action=["old"])
    assert "1 customer has a newer active conversation" in lead.get(response.url).content.decode()


def test_confirm__expired_draft(lead: Client, copied: Copied) -> None:
    copied(30)
    url = act(lead, "deactivate_selected", query="?status=active").url
    BulkUpdate.objects.update(created_at=timezone.now() - timedelta(hours=2))
    response = lead.post(url, {})
    assert response.url == f"{LIST}?status=active"
    assert "not confirmed within an hour" in told(response)
    assert not BulkUpdate.objects.exists()


# --- who may ----------------------------------------------------------------------------------


def test_confirm__a_draft_is_its_owners_alone(
    lead: Client, copied: Copied, django_user_model: Any
) -> None:
    copied(30)
    url = act(lead, "deactivate_selected").url
    other = django_user_model.objects.create_superuser("other")
    lead.force_login(other)
    assert lead.get(url).status_code == 404
    assert lead.post(url, {}).status_code == 404
    draft = BulkUpdate.objects.get()
    for name in ("change", "progress", "results.csv"):
        response = lead.get(page(draft, name).removesuffix("/") + ("" if "." in name else "/"))
        assert response.status_code in (302, 404)
    assert draft.status == "draft"


@pytest.mark.parametrize("name", ["confirm", "run", "cancel", "retry", "undo"])
def test_flow__every_address_checks_the_permission(
    name: str,
    lead: Client,
    sandbox: BlandSandbox,
    copied: Copied,
    started: Started,
    django_user_model: Any,
) -> None:
    bulk_update = started(copied(2))
    BulkUpdate.objects.update(status="finished" if name in ("retry", "undo") else "queued")
    viewer = user_with(django_user_model, "view_conversation", "view_bulkupdate")
    lead.force_login(viewer)
    assert lead.post(page(bulk_update, name)).status_code in (403, 404)
    lead.logout()
    assert "/login/" in lead.post(page(bulk_update, name)).url
    assert not sandbox.log
    assert states(bulk_update) == {"waiting": 2}


@pytest.mark.parametrize("name", ["run", "cancel", "retry", "undo"])
def test_flow__nothing_changes_on_get(
    name: str, lead: Client, copied: Copied, started: Started
) -> None:
    assert lead.get(page(started(copied(1)), name)).status_code == 405


def test_undo__needs_the_permission_of_the_opposite_verb(
    lead: Client, sandbox: BlandSandbox, copied: Copied, started: Started, django_user_model: Any
) -> None:
    user = user_with(
        django_user_model, "view_conversation", "view_bulkupdate", "deactivate_conversation"
    )
    bulk_update = started(copied(2), requested_by=user)
    run(bulk_update)
    lead.force_login(user)
    assert "Undo" not in lead.get(page(bulk_update)).content.decode()
    assert lead.post(page(bulk_update, "undo")).status_code == 403


# --- running ----------------------------------------------------------------------------------


def test_run__small_ones_at_once_with_one_message(
    lead: Client, sandbox: BlandSandbox, copied: Copied
) -> None:
    copied(3)
    response = act(lead, "deactivate_selected", query="?status=active")
    assert response.url == f"{LIST}?status=active"
    assert "3 conversations deactivated." in told(response)
    assert len(sandbox.log) == 3


def test_run__large_ones_are_dispatched_after_commit(
    lead: Client,
    sandbox: BlandSandbox,
    copied: Copied,
    set_bland: Any,
    worker: list[tuple[str, int]],
) -> None:
    set_bland(CONFIRM_OVER=100, DISPATCH="tests.test_flow.note_dispatch")
    copied(30)
    response = act(lead, "deactivate_selected")
    bulk_update = BulkUpdate.objects.get()
    assert response.url == page(bulk_update)
    assert worker == [("update", bulk_update.pk)]
    assert bulk_update.dispatched_at is not None
    assert not sandbox.log
    content = lead.get(page(bulk_update)).content.decode()
    assert "you may close this page" in content


def test_run__what_is_left_over_is_dispatched(
    lead: Client,
    sandbox: BlandSandbox,
    copied: Copied,
    set_bland: Any,
    worker: list[tuple[str, int]],
) -> None:
    set_bland(INLINE_SECONDS=0.3, MAX_CONCURRENCY=1, DISPATCH="tests.test_flow.note_dispatch")
    sandbox.latency_seconds = 0.1
    copied(20)
    response = act(lead, "deactivate_selected")
    assert worker
    assert "still waiting" in told(response)


def test_run__without_a_worker_the_page_drives(
    lead: Client, sandbox: BlandSandbox, copied: Copied, started: Started, staff: AbstractUser
) -> None:
    bulk_update = started(copied(30), requested_by=staff, source="admin")
    assert "Runs while this page is open" in lead.get(page(bulk_update)).content.decode()
    progress = lead.get(page(bulk_update, "progress")).json()
    assert progress["drive"] is True
    assert (progress["status"], progress["total"], progress["finished"]) == ("queued", 30, False)
    assert set(progress["counts"]) == set(BulkUpdateItem.State.values)
    assert not sandbox.log

    driven = lead.post(page(bulk_update, "run"), headers={"Accept": "application/json"}).json()

    assert (driven["status"], driven["finished"], driven["open"]) == ("finished", True, False)
    assert states(bulk_update) == {"changed": 30}


def test_run__a_second_tab_doubles_nothing(
    lead: Client, sandbox: BlandSandbox, copied: Copied, started: Started
) -> None:
    bulk_update = started(copied(2))
    lease = timezone.now() + timedelta(seconds=9)
    BulkUpdate.objects.update(status="running", lease_until=lease)
    answer = lead.post(page(bulk_update, "run"), headers={"Accept": "application/json"})
    assert answer.json()["status"] == "running"
    assert not sandbox.log


def test_run__a_worker_that_never_came(
    lead: Client, sandbox: BlandSandbox, copied: Copied, started: Started
) -> None:
    bulk_update = started(copied(2))
    BulkUpdate.objects.update(dispatched_at=timezone.now() - timedelta(minutes=3))
    content = lead.get(page(bulk_update)).content.decode()
    assert "none has begun" in content
    assert "Continue here" in content
    lead.post(page(bulk_update, "run"), {"here": "1"})
    assert states(bulk_update) == {"changed": 2}


def test_change__a_worker_that_died_is_told_at_once(
    lead: Client, sandbox: BlandSandbox, copied: Copied, started: Started
) -> None:
    bulk_update = started(copied(2))
    now = timezone.now()
    BulkUpdate.objects.update(
        status="running",
        dispatched_at=now - timedelta(seconds=20),
        lease_until=now + timedelta(seconds=9),
    )
    content = lead.get(page(bulk_update)).content.decode()
    assert "A worker carries this out: you may close this page." in content

    lapsed_at = now - timedelta(seconds=1)
    BulkUpdate.objects.update(lease_until=lapsed_at)
    clock = date_format(timezone.localtime(lapsed_at), "TIME_FORMAT").removesuffix(".")
    note = f"The worker stopped at {clock}."  # "p.m." has its stop already
    content = lead.get(page(bulk_update)).content.decode()
    assert note in content
    assert "A worker carries this out" not in content
    assert "Continue" in content
    assert lead.get(page(bulk_update, "progress")).json()["note"] == note
    lead.post(page(bulk_update, "run"), {"here": "1"})
    assert states(bulk_update) == {"changed": 2}


def test_change__a_pause_for_429s_says_that_bland_limits_us(
    lead: Client, copied: Copied, started: Started
) -> None:
    bulk_update = started(copied(2))
    BulkUpdate.objects.update(
        status="stopped",
        stop_code="outage",
        stop_params={"cause": "rate_limited"},
        outage_since=timezone.now(),
        not_before=timezone.localtime().replace(hour=14, minute=5) + timedelta(days=365),
    )
    content = lead.get(page(bulk_update)).content.decode()
    assert "Bland limits how often it may be asked; trying again at" in content
    assert "does not answer" not in content


def test_change__an_outage_tells_when_it_is_tried_again(
    lead: Client, sandbox: BlandSandbox, copied: Copied, started: Started
) -> None:
    bulk_update = started(copied(2))
    now = timezone.localtime().replace(hour=12, minute=3)
    BulkUpdate.objects.update(
        status="stopped",
        stop_code="outage",
        outage_since=now,
        not_before=now + timedelta(days=365),
    )
    content = lead.get(page(bulk_update)).content.decode()
    assert "Bland does not answer since 12:03 p.m.; trying again at" in content
    assert "Continue" in content
    json = {"Accept": "application/json"}
    progress = lead.get(page(bulk_update, "progress")).json()
    assert (progress["open"], progress["drive"]) == (True, True)
    assert progress["wait_seconds"] > 3600
    # The page that is open looks again by itself; nobody pressed Continue.
    assert lead.post(page(bulk_update, "run"), headers=json).json()["status"] == "stopped"
    assert not sandbox.log
    BulkUpdate.objects.update(not_before=timezone.now())
    assert lead.post(page(bulk_update, "run"), headers=json).json()["status"] == "finished"
    assert states(bulk_update) == {"changed": 2}


def test_run__stopped_is_continued(
    lead: Client, sandbox: BlandSandbox, copied: Copied, started: Started, set_bland: Any
) -> None:
    bulk_update = started(copied(3))
    sandbox.api_key = "org_the_new_key_0000"
    run(bulk_update)
    content = lead.get(page(bulk_update)).content.decode()
    assert "Bland refused the key (401)." in content
    assert "3 not attempted" in content
    set_bland(API_KEY=sandbox.api_key)
    lead.post(page(bulk_update, "run"))
    assert states(bulk_update) == {"changed": 3}


def test_progress__tells_how_long_there_is_nothing_to_do(
    lead: Client, sandbox: BlandSandbox, copied: Copied, started: Started
) -> None:
    ids = copied(1)
    sandbox.faults.add(ids[0], "429:600")
    bulk_update = started(ids)
    run(bulk_update)
    progress = lead.get(page(bulk_update, "progress")).json()
    assert progress["open"] is True
    assert 500 < progress["wait_seconds"] <= 600


# --- buttons of the update page ---------------------------------------------------------------


def test_cancel_and_retry_and_undo(
    lead: Client, sandbox: BlandSandbox, copied: Copied, started: Started, staff: AbstractUser
) -> None:
    ids = copied(4)
    sandbox.faults.add(ids[0], "400")
    bulk_update = started(ids, requested_by=staff, source="admin")
    run(bulk_update)
    assert "Retry failed (1)" in lead.get(page(bulk_update)).content.decode()

    lead.post(page(bulk_update, "retry"))
    assert states(bulk_update) == {"changed": 4}

    response = lead.post(page(bulk_update, "undo"))
    opposite = BulkUpdate.objects.exclude(pk=bulk_update.pk).get()
    assert response.url == page(opposite)
    assert states(opposite) == {"changed": 4}
    assert all(row["is_active"] for row in sandbox.account.rows.values())
    assert f"Update {opposite.pk}" in lead.get(page(bulk_update)).content.decode()
    assert "Nothing is left to undo." in told(lead.post(page(bulk_update, "undo")))

    third = started(ids)
    lead.post(page(third, "cancel"))
    assert states(third) == {"cancelled": 4}


def test_undo__of_many_is_confirmed(
    lead: Client, sandbox: BlandSandbox, copied: Copied, started: Started
) -> None:
    bulk_update = started(copied(30))
    run(bulk_update)
    response = lead.post(page(bulk_update, "undo"))
    assert "/confirm/" in response.url
    assert f"This undoes update {bulk_update.pk}" in lead.get(response.url).content.decode()


def test_page__failures_first_by_cause_with_the_next_step(
    lead: Client, sandbox: BlandSandbox, copied: Copied, started: Started
) -> None:
    ids = copied(4)
    sandbox.faults.add(ids[3], "404")
    sandbox.faults.add(ids[2], "forever:429")
    bulk_update = started(ids)
    run(bulk_update)
    content = lead.get(page(bulk_update)).content.decode()
    assert "Not found under this key (404 CONVERSATION_NOT_FOUND)" in content
    assert "Bland asked us to slow down (429)" in content
    rows = content[content.index("<tbody>") :]
    assert rows.index(ids[3]) < rows.index(ids[0])


def test_page__who_has_written_again(
    lead: Client, sandbox: BlandSandbox, copied: Copied, started: Started
) -> None:
    bulk_update = started(copied(2, user_number="+15550100009"))
    run(bulk_update)
    assert "written again" not in lead.get(page(bulk_update)).content.decode()
    Conversation.objects.create(
        pk="new", user_number="+15550100009", created_at=timezone.now() + timedelta(seconds=5)
    )
    content = lead.get(page(bulk_update)).content.decode()
    assert "1 of these customers has written again since" in content


def test_results__formula_safe_and_numbers_intact(
    lead: Client, sandbox: BlandSandbox, copied: Copied, started: Started
) -> None:
    ids = copied(2, user_number="+15550100001")
    Conversation.objects.filter(pk=ids[1]).update(user_number="=HYPERLINK(1)")
    bulk_update = started(ids)
    run(bulk_update)
    bulk_update.items.filter(conversation_id=ids[0]).update(message="@SUM(1)")
    response = lead.get(f"/admin/bland_sms/bulkupdate/{bulk_update.pk}/results.csv")
    text = b"".join(response.streaming_content).decode("utf-8-sig")
    rows = list(csv.reader(io.StringIO(text)))
    assert rows[0][:3] == ["conversation", "customer", "state"]
    assert rows[1][:3] == [ids[0], "+15550100001", "changed"]
    assert rows[1][5] == "'@SUM(1)"
    assert rows[2][1] == "'=HYPERLINK(1)"


# --- coming back ------------------------------------------------------------------------------


LISTS = ("conversation", "bulkupdate", "syncrun", "webhookdelivery")


@pytest.mark.parametrize("model", LISTS)
def test_awaited__one_message_on_the_next_page_of_ours(
    lead: Client,
    sandbox: BlandSandbox,
    copied: Copied,
    set_bland: Any,
    worker: Any,
    model: str,
) -> None:
    address = f"/admin/bland_sms/{model}/"
    set_bland(CONFIRM_OVER=100, DISPATCH="tests.test_flow.note_dispatch")
    ids = copied(30)
    sandbox.faults.add(ids[0], "400")
    act(lead, "deactivate_selected")
    bulk_update = BulkUpdate.objects.get()
    assert "finished" not in told(lead.get(address))
    run(bulk_update)
    expected = f"Update {bulk_update.pk} finished with failures: 29 changed, 1 failed."
    before = lead.session[AWAITED]
    assert expected not in lead.get("/admin/").content.decode()  # a page that is not ours
    assert lead.session[AWAITED] == before == [bulk_update.pk]
    assert expected in lead.get(address).content.decode()
    assert expected not in lead.get(address).content.decode()


def test_awaited__not_told_to_who_has_seen_it(
    lead: Client, sandbox: BlandSandbox, copied: Copied, set_bland: Any, worker: Any
) -> None:
    set_bland(CONFIRM_OVER=100, DISPATCH="tests.test_flow.note_dispatch")
    copied(30)
    act(lead, "deactivate_selected")
    bulk_update = BulkUpdate.objects.get()
    run(bulk_update)
    assert "finished:" not in lead.get(page(bulk_update)).content.decode()
    assert "finished:" not in lead.get("/admin/bland_sms/conversation/").content.decode()


# --- the list of updates ----------------------------------------------------------------------


def test_list__filters_and_counts(
    lead: Client,
    sandbox: BlandSandbox,
    copied: Copied,
    started: Started,
    staff: AbstractUser,
    django_assert_max_num_queries: Any,
) -> None:
    ids = copied(3)
    sandbox.faults.add(ids[0], "400")
    run(started(ids[:1], requested_by=staff))
    run(started(ids[1:2]))
    queued = started(ids[2:])
    url = "/admin/bland_sms/bulkupdate/"
    with django_assert_max_num_queries(10):
        content = lead.get(url).content.decode()
    assert "1 failed" in content
    assert lead.get(url, {"whose": "mine"}).context["cl"].result_count == 1
    assert lead.get(url, {"outcome": "failures"}).context["cl"].result_count == 1
    running = lead.get(url, {"outcome": "running"}).context["cl"].result_list
    assert [one.pk for one in running] == [queued.pk]
    cancel(queued)


def test_export__texts_only_for_those_who_may_read(
    lead: Client, copied: Copied, sandbox: BlandSandbox, django_user_model: Any
) -> None:
    copied(1, last_message="hello there")
    everything = b"".join(act(lead, "export_selected").streaming_content).decode()
    assert "hello there" in everything
    lead.force_login(user_with(django_user_model, "view_conversation", "export_conversation"))
    without = b"".join(act(lead, "export_selected").streaming_content).decode()
    assert "conv_0000" in without
    assert "hello there" not in without

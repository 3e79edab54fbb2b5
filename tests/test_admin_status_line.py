"""What every page tells of updates that run, are paused or stopped, and of a failing copy."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from html import unescape

import pytest
from django.contrib.auth.models import AbstractUser, Permission
from django.test import Client
from django.utils import timezone

from bland_sms import sync
from bland_sms.admin import update_views
from bland_sms.models import BulkUpdate, BulkUpdateItem, SyncRun
from bland_sms.sandbox import BlandSandbox

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("no_waiting")]
ADMIN = "/admin/bland_sms"
Copied = Callable[..., list[str]]
Started = Callable[..., BulkUpdate]


@pytest.fixture
def desk(client: Client, staff: AbstractUser) -> Client:
    client.force_login(staff)
    return client


def line(browser: Client, url: str) -> str:
    """The line of a page, as it is read; ``""``: it has none."""
    response = browser.get(url)
    assert response.status_code == 200, url
    html = response.content.decode()
    assert html.count('id="bland-sms-stale"') == 1, url
    found = re.findall(r'<p class="bland-sms-note bland-sms-line.*?</p>', html, re.DOTALL)
    assert len(found) < 2
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", "".join(found))).split())


def test_line__on_every_page(
    desk: Client, copied: Copied, started: Started, staff: AbstractUser
) -> None:
    from bland_sms import updates

    ids = copied(30)
    run = SyncRun.objects.create(status="finished")
    open_one = started(ids[:25])
    draft = updates.prepare(ids[25:], False, requested_by=staff)
    pages = [
        "conversation/",
        "conversation/conv_5F0000/change/",
        "conversation/conv_5F0000/history/",
        "bulkupdate/",
        f"bulkupdate/{draft.pk}/confirm/",
        "syncrun/",
        f"syncrun/{run.pk}/change/",
        "webhookdelivery/",
    ]
    told = {line(desk, f"{ADMIN}/{page}") for page in pages}
    assert told == {f"Update {open_one.pk} is paused: 25 left. Continue"}


def test_line__tells_how_it_stands(desk: Client, copied: Copied, started: Started) -> None:
    now = timezone.now()
    url = f"{ADMIN}/conversation/"
    assert line(desk, url) == ""
    bulk_update = started(copied(3))
    rows = BulkUpdate.objects.filter(pk=bulk_update.pk)
    name = f"Update {bulk_update.pk}"
    assert line(desk, url) == f"{name} is paused: 3 left. Continue"
    rows.update(status="running", lease_until=now + timedelta(seconds=9))
    assert line(desk, url) == f"{name} is running: 3 left. Show"
    rows.update(lease_until=None, status="stopped", stop_code="http_401")
    assert line(desk, url) == f"{name} is stopped: 3 left. Continue"
    rows.update(stop_code="outage", not_before=now + timedelta(minutes=1))
    assert line(desk, url).startswith(f"{name} is paused until ")
    assert line(desk, f"{ADMIN}/bulkupdate/{bulk_update.pk}/change/") == ""  # it is about it


def test_line__names_what_needs_a_person_first(
    desk: Client, copied: Copied, started: Started
) -> None:
    ids = copied(3)
    first, *others = (started([pk]) for pk in ids)
    BulkUpdate.objects.filter(pk=first.pk).update(status="stopped", stop_code="http_401")
    told = line(desk, f"{ADMIN}/conversation/")
    assert told == f"Update {first.pk} is stopped: 1 left. Continue and 2 more"
    # A worker was asked for the others, and has the newest; the first one lost its worker.
    now = timezone.now()
    BulkUpdate.objects.update(dispatched_at=now, status="running")
    BulkUpdate.objects.filter(pk=others[-1].pk).update(lease_until=now + BulkUpdate.LEASE)
    lost = {"dispatched_at": now - timedelta(minutes=1), "lease_until": now - timedelta(seconds=1)}
    BulkUpdate.objects.filter(pk=first.pk).update(**lost)
    told = line(desk, f"{ADMIN}/conversation/")
    assert told == f"Update {first.pk} is paused: 1 left. Continue and 2 more"


def test_line__of_others_only_for_those_who_may_see_them(
    client: Client, copied: Copied, started: Started, django_user_model: type[AbstractUser]
) -> None:
    sam = django_user_model.objects.create_user("sam", is_staff=True)
    names = ("view_conversation", "deactivate_conversation")
    sam.user_permissions.set(Permission.objects.filter(codename__in=names))
    client.force_login(sam)
    ids = copied(2)
    started(ids[:1])
    assert line(client, f"{ADMIN}/conversation/") == ""
    own = started(ids[1:], requested_by=sam)
    words = f"Update {own.pk} is paused: 1 left. Continue"
    assert line(client, f"{ADMIN}/conversation/") == words


def test_list__says_that_the_last_copy_failed(desk: Client, sandbox: BlandSandbox) -> None:
    sandbox.account.add({"id": "c1"})
    sync.run()
    assert "The last attempt" not in desk.get(f"{ADMIN}/conversation/").content.decode()
    sandbox.faults.add("GET list", "forever:401")
    assert sync.run().status == SyncRun.Status.FAILED
    html = unescape(desk.get(f"{ADMIN}/conversation/").content.decode())
    assert "Copied from Bland" in html
    assert "failed or was not completed. Bland refused the key (401). Tell an administrator" in html


@pytest.mark.parametrize(
    ("stop_code", "mark"), [("http_401", "deactivation stopped"), ("outage", "deactivation paused")]
)
def test_marks__a_stopped_update_is_not_being_carried_out(
    stop_code: str, mark: str, desk: Client, copied: Copied, started: Started
) -> None:
    bulk_update = started(copied(1))
    BulkUpdate.objects.filter(pk=bulk_update.pk).update(status="stopped", stop_code=stop_code)
    for page in ("", "conv_5F0000/change/"):
        html = desk.get(f"{ADMIN}/conversation/{page}").content.decode()
        assert mark in html
        assert "being deactivated" not in html


def test_marks__an_update_that_no_process_carries_out_is_paused(
    desk: Client, copied: Copied, started: Started
) -> None:
    bulk_update = started(copied(2))
    rows = BulkUpdate.objects.filter(pk=bulk_update.pk)
    lists = ("conversation/", "conversation/conv_5F0000/change/", "bulkupdate/")
    page = f"bulkupdate/{bulk_update.pk}/change/"

    def is_paused(address: str) -> bool:
        html = desk.get(f"{ADMIN}/{address}").content.decode()
        is_told = "deactivation paused" in html.lower()
        assert is_told is not ("being deactivated" in html or ">Running<" in html), address
        return is_told

    rows.update(status="running")
    assert all(map(is_paused, lists))
    assert not is_paused(page)  # which carries it out itself
    for address in (*lists, page):
        now = timezone.now()
        rows.update(dispatched_at=now, lease_until=now + BulkUpdate.LEASE)
        assert not is_paused(address)
    rows.update(lease_until=timezone.now() - timedelta(seconds=1))
    rows.update(dispatched_at=timezone.now() - timedelta(minutes=1))
    assert all(map(is_paused, (*lists, page)))


def test_progress__of_a_lost_worker(desk: Client, copied: Copied, started: Started) -> None:
    bulk_update = started(copied(120))
    rows = BulkUpdate.objects.filter(pk=bulk_update.pk)
    began, lost = (timezone.now() - timedelta(minutes=ago) for ago in (5, 2))
    rows.update(status="running", started_at=began, dispatched_at=began, lease_until=lost)
    items = list(bulk_update.items.order_by("pk")[:40])
    for place, item in enumerate(items):
        item.state, item.finished_at = "changed", lost - timedelta(seconds=place)
    BulkUpdateItem.objects.bulk_update(items, ["state", "finished_at"])
    url = f"{ADMIN}/bulkupdate/{bulk_update.pk}/progress/"
    told = desk.get(url).json()
    assert told["words"] == "40 changed · 80 waiting"  # nobody knows when it goes on
    assert told["note"].startswith("The worker stopped at ")
    assert not told["note"].endswith("..")  # also behind "p.m."
    rows.update(lease_until=timezone.now() + BulkUpdate.LEASE)
    assert desk.get(url).json()["words"].endswith(" left")


def test_run__continue_here_is_pressed_once(
    desk: Client, copied: Copied, started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(update_views, "SLICE_SECONDS", 0)  # too short for all of it
    bulk_update = started(copied(30))
    BulkUpdate.objects.update(dispatched_at=timezone.now() - timedelta(minutes=3))
    page = f"{ADMIN}/bulkupdate/{bulk_update.pk}"
    assert "Continue here" in desk.get(f"{page}/change/").content.decode()
    desk.post(f"{page}/run/", {"here": "1"})
    told = desk.get(f"{page}/progress/").json()
    assert told["open"]
    assert told["drive"]
    assert "Runs while this page is open" in told["note"]
    assert "Continue here" not in desk.get(f"{page}/change/").content.decode()
    for _ in range(2):  # the second time there is nothing to take over
        assert desk.get(f"{page}/history/").content.decode().count(">Continued.<") == 1
        desk.post(f"{page}/run/", {"here": "1"})


def test_progress__paused_for_who_may_only_look(
    client: Client, copied: Copied, started: Started, django_user_model: type[AbstractUser]
) -> None:
    bulk_update = started(copied(30))
    lee = django_user_model.objects.create_user("lee", is_staff=True)
    names = ("view_conversation", "view_bulkupdate")
    lee.user_permissions.set(Permission.objects.filter(codename__in=names))
    client.force_login(lee)
    html = client.get(f"{ADMIN}/bulkupdate/{bulk_update.pk}/change/").content.decode()
    assert f"Update {bulk_update.pk} is paused." in html
    assert "Deactivation paused" in html
    assert "A worker carries this out" not in html


def test_parts__show_causes_and_rows_while_it_runs(
    desk: Client, copied: Copied, started: Started
) -> None:
    bulk_update = started(copied(2))
    item = bulk_update.items.order_by("pk")[0]
    item.state, item.error_code, item.http_status = "failed", "CONVERSATION_NOT_FOUND", 404
    item.save()
    response = desk.get(f"{ADMIN}/bulkupdate/{bulk_update.pk}/parts/")
    html = response.content.decode()
    assert set(re.findall('data-bland-sms-part="([a-z]+)"', html)) == {
        "badge",
        "actions",
        "facts",
        "items",
    }
    assert "Not found under this key (404 CONVERSATION_NOT_FOUND)" in html
    assert '<span class="bland-sms-badge bland-sms-failed">Failed</span>' in html
    assert "<html" not in html
    assert "no-store" in response.headers["Cache-Control"]

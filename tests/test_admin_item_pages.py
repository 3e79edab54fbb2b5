"""All rows of an update, page by page; and what other updates tell before one is started."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from html import unescape
from typing import Any

import pytest
from django.contrib.auth.models import AbstractUser
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from bland_sms import updates
from bland_sms.admin import lately
from bland_sms.admin import updates as updates_page
from bland_sms.admin.lately import seconds_each
from bland_sms.models import BulkUpdate, BulkUpdateItem

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("no_waiting")]
ADMIN = "/admin/bland_sms/bulkupdate"
Copied = Callable[..., list[str]]
Started = Callable[..., BulkUpdate]


@pytest.fixture
def desk(client: Client, staff: AbstractUser) -> Client:
    client.force_login(staff)
    return client


def pages(browser: Client, url: str) -> list[list[str]]:
    """The conversations of each page, from the first to the last."""
    found, query = [], ""
    while True:
        html = browser.get(url + query).content.decode()
        listed = html[html.index("bland-sms-items") if "bland-sms-items" in html else 0 :]
        found.append(list(dict.fromkeys(re.findall(r"conversation/(conv_5F\d+)/change", listed))))
        following = re.search(r'<a href="(\?after=[^"]+)" rel="next"', html)
        if following is None:
            return found
        query = unescape(following[1])


def test_items__all_of_them_page_by_page_failures_first(
    desk: Client, copied: Copied, started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(updates_page, "ITEMS_SHOWN", 4)
    bulk_update = started(copied(10))
    items = list(bulk_update.items.order_by("pk"))
    BulkUpdateItem.objects.filter(pk__in=[item.pk for item in items[5:8]]).update(state="failed")
    found = pages(desk, f"{ADMIN}/{bulk_update.pk}/change/")
    order = [*items[5:8], *items[:5], *items[8:]]
    expected = [item.conversation_id.replace("_", "_5F") for item in order]
    assert found == [expected[:4], expected[4:8], expected[8:]]


def test_update__numbers_are_grouped_for_people_and_not_for_browsers(
    desk: Client, copied: Copied, started: Started, settings: Any
) -> None:
    settings.USE_THOUSAND_SEPARATOR = True
    bulk_update = started(copied(1200))
    items = bulk_update.items.order_by("pk")
    items.update(state="changed")
    items.filter(pk=items[0].pk).update(state="failed")
    bulk_update.status, bulk_update.counts_at_rest = "finished", bulk_update.counts()
    bulk_update.save()
    html = desk.get(f"{ADMIN}/{bulk_update.pk}/change/").content.decode()
    assert '<progress max="1200" value="1200"' in html
    assert "Deactivate 1,200 conversations" in html
    assert "1,199 changed" in html
    # With a failure it is not green.
    assert re.search(r"bland-sms-failed\W+Finished with failures", html)


@pytest.mark.parametrize(
    "after", ["nonsense", "failed-", "changed-99999999999999999999", "\0", "a-1"]
)
def test_items__an_odd_place_is_the_beginning(
    after: str, desk: Client, copied: Copied, started: Started
) -> None:
    bulk_update = started(copied(2))
    response = desk.get(f"{ADMIN}/{bulk_update.pk}/change/", {"after": after})
    assert response.status_code == 200
    assert "conv_5F0001" in response.content.decode()


def test_confirm__lists_all_rows(desk: Client, copied: Copied, staff: AbstractUser) -> None:
    draft = updates.prepare(copied(120), False, requested_by=staff)
    found = pages(desk, f"{ADMIN}/{draft.pk}/confirm/")
    assert [len(page) for page in found] == [50, 50, 20]
    assert len({pk for page in found for pk in page}) == 120


def test_confirm__names_open_updates_of_the_same_conversations(
    desk: Client,
    copied: Copied,
    started: Started,
    staff: AbstractUser,
    django_user_model: type[AbstractUser],
) -> None:
    sam = django_user_model.objects.create_user("sam")
    ids = copied(8)
    same = started(ids[:3], requested_by=sam)
    opposite = started(ids[3:4], is_active=True, requested_by=sam)
    draft = updates.prepare(ids, False, requested_by=staff)
    html = unescape(desk.get(f"{ADMIN}/{draft.pk}/confirm/").content.decode())
    words = f"Update {same.pk} by sam does the same for 3 of them, which are left out here."
    assert words in html
    assert f"Update {opposite.pk} by sam does the opposite for 1 of them" in html
    alone = updates.prepare(ids[5:], False, requested_by=staff)
    html = unescape(desk.get(f"{ADMIN}/{alone.pk}/confirm/").content.decode())
    assert "does the same" not in html


def test_confirm__what_another_update_is_about_to_change_can_be_kept_as_it_is(
    desk: Client, copied: Copied, started: Started, staff: AbstractUser
) -> None:
    ids = copied(2)
    other = started(ids)
    draft = updates.prepare(ids, True, requested_by=staff)
    url = f"{ADMIN}/{draft.pk}/confirm/"
    html = desk.get(url).content.decode()
    assert "left out there once this one is started" in html
    assert "There is nothing to do" not in html
    desk.post(url, {"reason": "a mistake"})
    draft.refresh_from_db()
    assert draft.status == "finished"
    assert other.counts()["cancelled"] == 2


def test_confirm__where_there_is_nothing_to_do_it_does_not_say_how_it_is_done(
    desk: Client, copied: Copied, staff: AbstractUser
) -> None:
    draft = updates.prepare(copied(2), True, requested_by=staff)
    html = unescape(desk.get(f"{ADMIN}/{draft.pk}/confirm/").content.decode())
    assert "There is nothing to do: all of them are active here." in html
    assert "It takes" not in html
    assert "Bland marks them active" not in html


def test_confirm__counts_a_large_overlap_no_further_than_any_list(
    desk: Client,
    copied: Copied,
    started: Started,
    staff: AbstractUser,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lately, "COUNT_CAP", 4)
    ids = copied(6)
    first, second = started(ids[:4]), started(ids[4:])
    draft = updates.prepare(ids, True, requested_by=staff)
    html = unescape(desk.get(f"{ADMIN}/{draft.pk}/confirm/").content.decode())
    assert f"Update {first.pk} by an operator does the opposite for 4 of them" in html
    assert f"Update {second.pk} by an operator does the opposite for 2 of them" in html
    monkeypatch.setattr(lately, "COUNT_CAP", 3)
    html = unescape(desk.get(f"{ADMIN}/{draft.pk}/confirm/").content.decode())
    assert f"Update {first.pk} by an operator does the opposite for 3+ of them" in html


@pytest.mark.parametrize(
    ("shared", "words"), [(range(6), "4+"), (range(4), "4"), (range(3, 6), "3")]
)
def test_overlaps__of_a_large_one_the_first_ids_are_looked_at_first(
    shared: range,
    words: str,
    copied: Copied,
    started: Started,
    staff: AbstractUser,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where these do not tell that there are more than are counted, all of them are counted."""
    monkeypatch.setattr(lately, "COUNT_CAP", 4)
    monkeypatch.setattr(lately, "SPARE", 1)
    ids = sorted(copied(6))
    other = started([ids[place] for place in shared])
    BulkUpdate.objects.filter(pk=other.pk).update(live_counts={})  # as of a large one
    draft = updates.prepare(ids, True, requested_by=staff)
    with CaptureQueriesContext(connection) as asked:
        [found] = lately.overlaps(draft)
    assert f"Update {other.pk} by an operator does the opposite for {words} of them" in found.text
    looks = [one for one in asked if "COUNT(*)" in one["sql"]]
    assert len(looks) == (1 if words == "4+" else 2)


def answered(number: int, moments: list[float], state: str = "changed") -> BulkUpdate:
    """A finished update, with so many answers written at each of these seconds."""
    begin = timezone.now() - timedelta(hours=9)
    bulk_update = BulkUpdate.objects.create(
        is_active=False,
        source="admin",
        status="finished",
        started_at=begin,
        counts_at_rest={state: number * len(moments)},
    )
    BulkUpdateItem.objects.bulk_create(
        BulkUpdateItem(
            bulk_update=bulk_update,
            conversation_id=f"conv_{place}_{n}",
            state=state,
            finished_at=begin + timedelta(seconds=second),
        )
        for place, second in enumerate(moments)
        for n in range(number)
    )
    return bulk_update


def test_seconds_each__is_that_of_the_last_larger_updates() -> None:
    assert seconds_each() is None
    answered(10, [2, 4, 6])
    answered(10, [3, 6, 9], "unchanged")
    answered(10, [100, 109])  # too few
    answered(10, [9, 18, 27])
    assert seconds_each() == pytest.approx(0.3)


def test_seconds_each__a_pause_is_no_work() -> None:
    # Its page was opened an hour after it was started, closed in the middle and opened again.
    answered(20, [3600, 3602, 3604, 9000, 9002])
    assert seconds_each() == pytest.approx(0.1)


def test_progress__what_is_left_is_told_without_the_pauses(
    desk: Client, copied: Copied, started: Started
) -> None:
    bulk_update = started(copied(120))
    now = timezone.now()
    hour_ago = now - timedelta(hours=1)
    BulkUpdate.objects.filter(pk=bulk_update.pk).update(started_at=hour_ago, status="running")
    items = list(bulk_update.items.order_by("pk"))
    for n, item in enumerate(items[:40]):
        item.state, item.finished_at = "changed", now - timedelta(seconds=n // 10)
    BulkUpdateItem.objects.bulk_update(items, ["state", "finished_at"])
    words = desk.get(f"{ADMIN}/{bulk_update.pk}/progress/").json()["words"]
    assert words == "40 changed · 80 waiting · about 8 seconds left"

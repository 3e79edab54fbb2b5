"""Open pages say by themselves what has changed: no connection, no worker, a while ago."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth.models import AbstractUser
from django.utils import timezone

from bland_sms.models import BulkUpdate
from bland_sms.sandbox import BlandSandbox

from .conftest import require_browser
from .test_screens import Desk

if TYPE_CHECKING:
    from playwright.sync_api import Page, Route

require_browser()

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("no_waiting", "account"),
]


@pytest.fixture
def waiting(
    staff: AbstractUser, account: BlandSandbox, started: Callable[..., BulkUpdate]
) -> BulkUpdate:
    """An update with nothing to do for an hour, whose page looks again and again."""
    bulk_update = started(["conv_4"], requested_by=staff)
    bulk_update.items.update(not_before=timezone.now() + timedelta(hours=1))
    return bulk_update


def opened(page: Page, bulk_update: BulkUpdate) -> Page:
    root = page.url.partition("/conversation/")[0]
    page.goto(f"{root}/bulkupdate/{bulk_update.pk}/change/")
    return page


def test_live__lost_connection_and_back(
    desk: Desk, waiting: BulkUpdate, problems: list[str]
) -> None:
    page = opened(desk(), waiting)
    page.context.set_offline(True)
    told = page.get_by_text("No connection to this site: what you see may be old.")
    told.wait_for()
    page.context.set_offline(False)
    told.wait_for(state="hidden")
    # The browser itself notes in its console what it could not fetch.
    assert all("ERR_INTERNET_DISCONNECTED" in problem for problem in problems)
    problems.clear()


def test_live__logged_out_and_in_again_in_another_window(
    desk: Desk, waiting: BulkUpdate, staff: AbstractUser, problems: list[str]
) -> None:
    page = opened(desk(), waiting)
    page.get_by_text("Runs while this page is open").wait_for()
    other = page.context.new_page()
    other.goto(page.url.partition("bland_sms/")[0])
    other.click("#logout-form button")
    page.get_by_text("You are logged out.").wait_for()
    other.goto(page.url)
    other.fill("#id_username", staff.username)
    other.fill("#id_password", "secret-enough")
    other.click("input[type=submit]")
    other.close()
    page.locator("#bland-sms-trouble").wait_for(state="hidden")
    # It has a new token since: the page drives the update with that one.
    waiting.items.update(not_before=None)
    page.get_by_text("1 changed").locator("visible=true").first.wait_for()
    assert all("403" in problem for problem in problems)
    problems.clear()


def test_live__answers_of_an_older_release(desk: Desk, waiting: BulkUpdate) -> None:
    """While a release is rolled out: its page says that it is old, until the new one answers."""
    page = desk()

    def of_older_release(route: Route) -> None:
        told = route.fetch().json()
        del told["state"]
        route.fulfill(json=told)

    page.route("**/progress/", of_older_release)
    opened(page, waiting)
    old = page.get_by_text("This page shows how it was at")
    old.wait_for()
    page.unroute("**/progress/")
    waiting.items.update(not_before=None)
    page.get_by_text("1 changed").locator("visible=true").first.wait_for()
    old.wait_for(state="hidden")


@pytest.mark.parametrize("is_before", [True, False], ids=["before the first look", "after it"])
def test_live__worker_that_does_not_come(is_before: bool, desk: Desk, waiting: BulkUpdate) -> None:
    asked = BulkUpdate.objects.filter(pk=waiting.pk)
    asked.update(dispatched_at=timezone.now())
    page = desk()
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    if is_before:
        page.route("**/progress/", hold, times=1)
        opened(page, waiting)
        page.get_by_text("Waiting for a worker since").wait_for()
    else:
        with page.expect_response("**/progress/"):
            opened(page, waiting)
    waiting.items.update(not_before=None)
    asked.update(dispatched_at=timezone.now() - timedelta(minutes=3))
    if is_before:
        with page.expect_response("**/progress/"):
            while not held:
                page.wait_for_timeout(50)
            held[0].continue_()
    page.get_by_text("and none has begun for two minutes").wait_for()


@pytest.mark.parametrize("path", ["conversation/", "conversation/summary/", "bulkupdate/"])
def test_live__page_that_was_open_for_a_while(path: str, desk: Desk) -> None:
    page = desk()
    page.clock.install()
    page.goto(page.url.replace("conversation/", path))
    old = page.get_by_text("This page shows how it was at")
    page.clock.run_for(4 * 60 * 1000)
    assert not old.is_visible()
    page.clock.run_for(2 * 60 * 1000)
    old.wait_for()
    old.get_by_role("link", name="Reload").click()
    page.wait_for_load_state()
    assert not old.is_visible()


def test_live__causes_are_shown_while_it_runs(
    desk: Desk, waiting: BulkUpdate, account: BlandSandbox
) -> None:
    page = opened(desk(), waiting)
    page.get_by_text("Bland asked us to come back at").wait_for()
    item: Any = waiting.items.get()
    account.faults.add(f"PATCH {item.conversation_id}", "422")
    waiting.items.update(not_before=None)
    causes = page.locator(".bland-sms-causes")
    causes.get_by_text("Bland refused it (HTTP 422)").wait_for()
    page.get_by_text("Finished with failures", exact=True).wait_for()

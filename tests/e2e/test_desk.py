"""A day at the desk: the ten jobs of support staff, with the clicks and the pages counted."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth.models import AbstractUser
from django.utils import timezone

from bland_sms import sync, updates
from bland_sms.models import BulkUpdate, Conversation, StandingOrder
from bland_sms.sandbox import BlandSandbox

from .conftest import CHROMIUM, PATIENCE_MS, require_browser
from .test_screens import Desk, messages

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

require_browser()

assert CHROMIUM
pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("no_waiting"),
]
Fill = Callable[[int], list[str]]


class Steps:
    """Clicks, and pages that were gone to."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.clicks = 0
        self.pages = 0
        page.on("framenavigated", lambda _: self.moved())

    def moved(self) -> None:
        self.pages += 1

    def click(self, target: Locator) -> None:
        self.clicks += 1
        target.click()

    def type_and_enter(self, words: str) -> None:
        self.page.fill("#searchbar", words)
        with self.page.expect_navigation():
            self.page.keyboard.press("Enter")


def number_of(n: int) -> str:
    return f"+1555010{n:04d}"


@pytest.fixture
def filled(sandbox: BlandSandbox, transactional_db: None) -> Fill:
    """So many customers, each with one active conversation; all copied."""

    def fill(number: int) -> list[str]:
        now = timezone.now().replace(microsecond=0)
        for n in range(number):
            moment = (now - timedelta(minutes=n)).strftime("%Y-%m-%dT%H:%M:%S.000Z")
            sandbox.account.add(
                {
                    "id": f"conv_{n}",
                    "user_number": number_of(n),
                    "created_at": moment,
                    "updated_at": moment,
                    "last_message_at": moment,
                    "messages": [],
                    "message_count": 0,
                }
            )
        sync.run()
        Conversation.objects.update(transcript_observed_at=now)
        sandbox.log.clear()
        return [f"conv_{n}" for n in range(number)]

    return fill


def active(sandbox: BlandSandbox) -> int:
    return sum(bool(row["is_active"]) for row in sandbox.account.rows.values())


def test_desk__stop_one_customer(desk: Desk, filled: Fill, sandbox: BlandSandbox) -> None:
    filled(8)
    steps = Steps(page := desk())
    steps.type_and_enter("0005")
    steps.click(page.get_by_role("link", name=number_of(5)))
    steps.click(page.get_by_role("button", name="Deactivate", exact=True))
    assert "1 conversation deactivated" in messages(page)
    assert steps.clicks == 2
    assert not sandbox.account.rows["conv_5"]["is_active"]

    # Undo stands in the message: one click, no other page.
    steps.click(page.locator(".messagelist").get_by_role("button", name="Undo"))
    assert "1 conversation reactivated" in messages(page)
    assert steps.clicks == 3
    assert active(sandbox) == 8


NOTATIONS: tuple[Callable[[int], str], ...] = (
    number_of,
    lambda n: f"(555) 010-{n:04d}",
    lambda n: f"555.010.{n:04d}",
    lambda n: f"tel:{number_of(n)}",
    lambda n: f"'{number_of(n)}",
    lambda n: f'="{number_of(n)}"',
    lambda n: f"conv_{n}",
    lambda n: f"1-555-010-{n:04d}",
)


def test_desk__two_hundred_pasted_lines(desk: Desk, filled: Fill, sandbox: BlandSandbox) -> None:
    filled(190)
    lines = [NOTATIONS[n % 8](n) for n in range(200)]
    page = desk()
    page.get_by_role("link", name="Paste a list").click()
    steps = Steps(page)
    page.fill("[name=lines]", "\n".join(lines))
    page.check("input[value=deactivate]")
    page.fill("[name=reason]", "asked by mail")
    steps.click(page.get_by_role("button", name="Look them up"))
    page.get_by_text("Not found (10)").first.wait_for()
    steps.click(page.get_by_role("button", name="Deactivate 190 conversations"))
    page.get_by_text("190 changed").locator("visible=true").first.wait_for()
    assert steps.clicks == 2
    assert active(sandbox) == 0
    update = BulkUpdate.objects.get()
    assert update.reason == "asked by mail"
    assert update.pasted_lines.filter(state="not_found").count() == 10


def test_desk__by_filter_with_the_browser_closed_in_the_middle(
    desk: Desk, filled: Fill, sandbox: BlandSandbox
) -> None:
    filled(0)
    now = timezone.now()
    Conversation.objects.bulk_create(
        Conversation(
            pk=f"conv_{n}",
            user_number=number_of(n),
            agent_number="+15559990001",
            is_active=True,
            updated_at=now - timedelta(days=1),
            last_activity_at=now - timedelta(days=1, seconds=n),
        )
        for n in range(3200)
    )
    for n in range(3200):
        sandbox.account.add({"id": f"conv_{n}", "user_number": number_of(n)})
    page = desk()
    page.get_by_role("link", name="Active", exact=True).click()
    page.check("#action-toggle")
    page.get_by_role("button", name="Select all conversations matching these filters").click()
    page.select_option("select[name=action]", "deactivate_selected")
    page.click("button[name=index]")
    page.get_by_text("Yes, 3,200 conversations").click()
    sandbox.latency_seconds = 0.5  # of the 3,200 there will be some left for the next window
    page.get_by_role("button", name="Deactivate 3,200 conversations").click()
    page.wait_for_function("document.querySelector('#bland-sms-progress progress')?.value >= 25")
    page.context.close()
    update = BulkUpdate.objects.get()
    assert update.status in BulkUpdate.Status.OPEN

    again = desk()
    line = again.locator(".bland-sms-line")
    assert f"Update {update.pk} is" in line.inner_text()
    line.get_by_role("link").first.click()
    bar = again.locator("#bland-sms-progress progress")
    before = float(bar.evaluate("bar => bar.value"))
    assert before >= 25
    again.wait_for_function(
        f"document.querySelector('#bland-sms-progress progress')?.value > {before}"
    )
    again.get_by_role("button", name="Cancel the rest").click()
    again.get_by_text("Cancelled").locator("visible=true").first.wait_for()
    give_up_at = time.monotonic() + 60
    # What is put back waits for a moment, until its driver has cancelled it.
    while (counts := update.counts())["running"] or counts["waiting"]:
        assert time.monotonic() < give_up_at
        again.wait_for_timeout(100)
    # Cut off by the end of a slice, an answer is not known.
    assert counts["changed"] + counts["cancelled"] + counts["unknown"] == 3200
    assert 0 <= 3200 - active(sandbox) - counts["changed"] <= counts["unknown"]


@pytest.fixture
def a_week(filled: Fill, staff: AbstractUser, started: Callable[..., BulkUpdate]) -> list[str]:
    """Three updates for two reasons, one of whose conversations fails."""
    ids = filled(12)
    for some, reason in ((ids[:2], "spam"), (ids[2:5], "asked by phone"), (ids[5:6], "spam")):
        updates.run(started(some, requested_by=staff, reason=reason))
    return ids


@pytest.mark.usefixtures("a_week")
def test_desk__what_did_we_deactivate_this_week_and_why(desk: Desk) -> None:
    page = desk()
    steps = Steps(page)
    steps.click(page.get_by_role("link", name="Summary", exact=True))
    table = page.get_by_role("table", name="Deactivated by us")
    rows = [" ".join(row.split()) for row in table.get_by_role("row").all_inner_texts()]
    assert sorted(rows[1:]) == ["dana asked by phone 3", "dana spam 3"]
    assert steps.clicks == 1
    # Each number leads to exactly those.
    table.get_by_role("row").filter(has_text="asked by phone").get_by_role("link").click()
    page.get_by_text("3 conversations").locator("visible=true").first.wait_for()
    assert page.locator("#result_list tbody tr").count() == 3


def test_desk__thirty_threads_in_a_row(desk: Desk, filled: Fill) -> None:
    filled(32)
    page = desk()
    page.get_by_role("link", name="Active", exact=True).click()
    page.locator("th.field-customer a").first.click()
    steps = Steps(page)
    place = page.get_by_role("navigation", name="Place in the list", exact=True)
    for n in range(1, 31):
        assert f"{n} of 32" in place.inner_text()
        if n < 30:
            steps.click(place.get_by_role("link", name="Next"))
    assert steps.clicks == steps.pages == 29
    assert number_of(29) in page.title()
    page.reload()
    assert "30 of 32" in place.inner_text()
    place.get_by_role("link", name="Back to the list").click()
    assert "status=active" in page.url


@pytest.mark.usefixtures("a_week")
def test_desk__who_did_what_to_this_customer(desk: Desk) -> None:
    page = desk()
    page.goto(page.url.replace("conversation", "bulkupdate"))
    steps = Steps(page)
    steps.type_and_enter("(555) 010-0003")
    [row] = page.locator("#result_list tbody tr").all_inner_texts()
    assert "dana" in row
    assert "asked by phone" in row
    assert steps.pages == 1
    with page.expect_download() as download:
        page.get_by_role("link", name="All of this list as CSV").click()
    text = download.value.path().read_text("utf-8-sig")
    assert "asked by phone" in text
    assert number_of(3) in text


def test_desk__retry_what_failed(
    desk: Desk,
    filled: Fill,
    sandbox: BlandSandbox,
    staff: AbstractUser,
    started: Callable[..., BulkUpdate],
) -> None:
    ids = filled(4)
    sandbox.faults.add("PATCH conv_2", "422")
    update = started(ids, requested_by=staff)
    updates.run(update)
    page = desk()
    page.goto(page.url.replace("conversation/", f"bulkupdate/{update.pk}/change/"))
    assert "Finished with failures" in page.inner_text("#content")
    steps = Steps(page)
    steps.click(page.get_by_role("button", name="Retry failed (1)"))
    page.get_by_text("4 changed").locator("visible=true").first.wait_for()
    assert steps.clicks == 1
    assert active(sandbox) == 0
    with page.expect_download() as download:
        steps.click(page.get_by_role("link", name="Results as CSV"))
    assert download.value.path().read_text("utf-8-sig").count("changed") == 4


def test_desk__stop_for_good_and_lift(desk: Desk, filled: Fill, sandbox: BlandSandbox) -> None:
    filled(3)
    page = desk()
    page.get_by_role("link", name=number_of(1)).click()
    steps = Steps(page)
    steps.click(page.get_by_role("link", name="Stop this customer for good…"))
    page.fill("[name=reason]", "asked by phone")
    steps.click(page.locator(".submit-row input[type=submit]"))
    assert steps.clicks == 2
    order = StandingOrder.objects.get()
    assert order.reason == "asked by phone"
    page.goto(re.sub(r"/bland_sms/.*", "/bland_sms/conversation/conv_5F1/change/", page.url))
    steps.click(page.get_by_role("button", name="Lift"))
    assert StandingOrder.objects.get().lifted_at is not None
    assert steps.clicks == 3
    assert not sandbox.account.rows["conv_1"]["is_active"]


# --- a long list in the search box ------------------------------------------------------------

LONGEST = 2200
NUMBERS = [f"(555) 010-{n:04d}" for n in range(200)]


@pytest.mark.parametrize("script", [True, False], ids=["script", "no-script"])
def test_desk__two_hundred_numbers_in_the_search_box(
    script: bool, desk: Desk, filled: Fill
) -> None:
    filled(210)
    Conversation.objects.filter(pk__in=["conv_1", "conv_2"]).update(is_active=False)
    page = desk(java_script_enabled=script)
    steps = Steps(page)
    steps.type_and_enter(" ".join(NUMBERS))
    assert "Read as 200 whole numbers." in page.inner_text("#content")
    assert len(page.url) < LONGEST
    steps.click(page.get_by_role("link", name="Active", exact=True))
    assert "2 more match but are not active." in page.inner_text("#content")
    assert page.input_value("#searchbar") == " ".join(NUMBERS)
    page.locator("th.field-customer a").nth(4).click()
    assert "5 of 198" in page.inner_text("#content")
    page.go_back()
    page.fill("#searchbar", " ".join(f"+1555010{n:04d}" for n in range(300)))
    page.keyboard.press("Enter")
    page.wait_for_url("**/bulkupdate/paste/")
    assert page.input_value("[name=lines]").count("+1555") == 300


@pytest.fixture
def gunicorn(process: Any, staff: AbstractUser) -> str:
    """The address of a real server that refuses a request line of more than 4,094 characters."""
    import socket
    import sys

    from tests.conftest import wait_until

    pytest.importorskip("gunicorn")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process(sys.executable, "-m", "gunicorn", "project.wsgi", "-b", f"127.0.0.1:{port}", "-w", "1")

    def answers() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    wait_until(answers)
    return f"http://127.0.0.1:{port}"


def test_desk__gunicorn_takes_whatever_is_pasted(
    gunicorn: str, filled: Fill, chromium: Any
) -> None:
    filled(205)
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.goto(f"{gunicorn}/admin/bland_sms/conversation/?status=active")
    page.fill("#id_username", "dana")
    page.fill("#id_password", "secret-enough")
    page.click("input[type=submit]")
    page.fill("#searchbar", " ".join(NUMBERS))
    page.keyboard.press("Enter")
    page.get_by_text("Read as 200 whole numbers.").wait_for()
    assert page.locator("#result_list tbody tr").count() == 50
    assert "status=active" in page.url
    page.locator("th.field-customer a").first.click()
    page.get_by_role("link", name="Back to the list").first.click()
    page.get_by_text("Read as 200 whole numbers.").wait_for()
    page.fill("#searchbar", " ".join(f"+1555{n:07d}" for n in range(5000)))
    page.keyboard.press("Enter")
    page.wait_for_url("**/bulkupdate/paste/")
    assert page.input_value("[name=lines]").count("+1555") == 5000
    context.close()

"""Stop for good, end to end: a browser, a web server, a worker or timer, a customer who writes.

Each is a process of its own, and the stand-in for Bland sends its webhooks over a socket.
"""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from django.contrib.auth.models import AbstractUser
from django.utils import timezone

from bland_sms import standing
from bland_sms.models import StandingOrder
from bland_sms.sandbox import BlandSandbox
from bland_sms.sandbox.writers import send_webhook, webhook_body
from bland_sms.sync import refresh
from tests.conftest import Start, wait_until
from tests.test_engines import DATABASE_BACKEND, manage, need

from .conftest import require_browser

if TYPE_CHECKING:
    from playwright.sync_api import Page

require_browser()

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]
CUSTOMER, LIFTED, EXPIRED, TAKEN_OVER, OTHER = (f"+1555010700{n}" for n in range(1, 6))
OURS, OTHER_OURS = "+15550190001", "+15550190002"
SECRET = "whsec_one"
SETTINGS = {"DJANGO_SETTINGS_MODULE": "tests.webhook_settings", "DJANGO_DEBUG": "1"}


@pytest.fixture
def serve(process: Start, sandbox: BlandSandbox) -> Callable[..., str]:
    """Start the web server; its address."""

    def begin(**environment: str) -> str:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        process(*manage("runserver", "--noreload", f"127.0.0.1:{port}"), **SETTINGS, **environment)

        def answers() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        wait_until(answers)
        return f"http://127.0.0.1:{port}"

    return begin


def seed(sandbox: BlandSandbox) -> str:
    """What is older than all orders: a conversation of the customer that is still active, and a
    newer one that is over, so that their next text begins another."""
    old = sandbox.add(user_number=CUSTOMER, agent_number=OURS)
    over = sandbox.add(user_number=CUSTOMER, agent_number=OURS, is_active=False)
    for one in (old, over):
        refresh(one)
    return old


def order_in_browser(page: Page, address: str, staff: AbstractUser, conversation_id: str) -> None:
    page.goto(f"{address}/admin/bland_sms/conversation/{conversation_id}/change/")
    page.fill("#id_username", staff.username)
    page.fill("#id_password", "secret-enough")
    page.click("input[type=submit]")
    page.get_by_role("link", name="Stop this customer for good").click()
    assert "1 conversation is active now." in page.inner_text("#content")
    page.fill("#id_reason", "Asked by phone")
    page.select_option("#id_agent_number", OURS)
    page.uncheck("#id_now")
    page.get_by_role("button", name="Stop for good").click()
    assert "1 customer is kept inactive." in page.inner_text(".messagelist")
    assert "Kept inactive since" in page.inner_text("#content")


def make_others() -> None:
    """Orders that must not act, or not on what happens next."""
    standing.lift(standing.make(LIFTED, "was a mistake"))
    standing.make(EXPIRED, "for an hour", until=timezone.now() + timedelta(hours=1))
    StandingOrder.objects.exclude(until=None).update(until=timezone.now() - timedelta(seconds=1))
    standing.make(TAKEN_OVER, "by phone")


def let_all_write(sandbox: BlandSandbox) -> tuple[str, list[str]]:
    """The conversation that is to be deactivated, and those that are not."""
    other_number = sandbox.customer_texts(CUSTOMER, "hello", agent_number=OTHER_OURS)
    taken = sandbox.add(user_number=TAKEN_OVER, human_handoff_at="2026-11-30T01:00:00.000Z")
    rest = [sandbox.customer_texts(number, "hello") for number in (LIFTED, EXPIRED, OTHER)]
    new = sandbox.customer_texts(CUSTOMER, "hello?", agent_number=OURS)
    return new, [other_number, taken, *rest]


def deactivated(sandbox: BlandSandbox) -> list[str]:
    return [seen["conversation_id"] for seen in sandbox.requests("PATCH")]


@pytest.mark.parametrize("who", ["worker", "web server"])
def test_orders__webhook_and_within_seconds(
    who: str,
    sandbox: BlandSandbox,
    serve: Callable[..., str],
    process: Start,
    window: Callable[..., Page],
    staff: AbstractUser,
) -> None:
    environment = {}
    if who == "worker":
        need("django_tasks_db")
        environment = {"BLAND_SMS_TEST_TASKS": DATABASE_BACKEND}
        worker = manage("db_worker", "--interval", "0.1", "--no-startup-delay")
        process(*worker, **SETTINGS, **environment)
    old = seed(sandbox)
    address = serve(**environment)
    order_in_browser(window(), address, staff, old)
    make_others()
    sandbox.webhook_url, sandbox.webhook_secret = f"{address}/bland-sms/webhook/", SECRET

    new, others = let_all_write(sandbox)
    taken = sandbox.account.rows[others[1]]
    send_webhook(sandbox.webhook_url, SECRET, webhook_body(taken, "hello"))

    wait_until(lambda: not sandbox.is_active(new))  # sooner than any timer would come
    wait_until(lambda: all(sandbox.requests("GET", pk) for pk in others))
    order = StandingOrder.objects.get(agent_number=OURS)
    wait_until(lambda: order.applications.get().bulk_update.status == "finished")
    assert deactivated(sandbox) == [new]
    assert all(sandbox.is_active(pk) for pk in [old, *others])
    assert order.requested_by == staff


def test_orders__without_webhook_and_worker_one_run_of_the_timer(
    sandbox: BlandSandbox,
    serve: Callable[..., str],
    process: Start,
    window: Callable[..., Page],
    staff: AbstractUser,
) -> None:
    old = seed(sandbox)
    order_in_browser(window(), serve(), staff, old)
    make_others()
    new, others = let_all_write(sandbox)

    for command in (["bland_sms_sync"], ["bland_sms_work", "--once"]):
        timer: subprocess.Popen[bytes] = process(sys.executable, "manage.py", *command, **SETTINGS)
        assert timer.wait(120) == 0

    assert deactivated(sandbox) == [new]
    assert all(sandbox.is_active(pk) for pk in [old, *others])

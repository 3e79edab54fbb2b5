"""A real browser in front of the demo project's pages."""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth.models import AbstractUser

from bland_sms import sync
from bland_sms.sandbox import BlandSandbox
from bland_sms.sync import refresh_many

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

CUSTOMER = "+15550100001"
OTHERS = ["+15550100002", "+15550100003", "+15550100004"]
UUID = "b3f1c0de-0000-4000-8000-00000000d001"
HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script>"
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
PATIENCE_MS = 60_000
"""How long a page may take for anything, on a machine that does much else."""


def what_is_missing() -> str:
    """Why there can be no browser, or ``""``."""
    if importlib.util.find_spec("playwright") is None:
        return "no browser tests: the package playwright is not installed"
    if CHROMIUM is None:
        return "no browser tests: there is no program named chromium"
    return ""


def require_browser(besides: str = "") -> None:
    """Skip a file of tests where there can be no browser; in CI that is a failure.

    Args:
        besides: What else is missing; ``""``: nothing.
    """
    missing = what_is_missing() or besides
    if missing and os.environ.get("BLAND_SMS_CI"):
        raise RuntimeError(missing)
    if missing:
        pytest.skip(missing, allow_module_level=True)


def then_the_page_is_read(act: Callable[..., None]) -> Callable[..., None]:
    """A click returns once the next page's first byte is there; let it return with the whole page.

    What reads a page at once (its title, its address, how many of something) would else be told
    of an empty one now and then.
    """

    @functools.wraps(act)
    def acting(subject: Page | Locator, *args: Any, **values: Any) -> None:
        act(subject, *args, **values)
        page = getattr(subject, "page", subject)  # a locator has a page, a page has none
        if not page.is_closed():
            page.wait_for_load_state("domcontentloaded")

    return acting


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """The browser, for one file of tests."""
    from playwright.sync_api import Locator, Page, expect, sync_playwright

    expect.set_options(timeout=PATIENCE_MS)
    with pytest.MonkeyPatch.context() as patched:
        for kind, name in ((Page, "click"), (Locator, "click"), (Locator, "press")):
            patched.setattr(kind, name, then_the_page_is_read(getattr(kind, name)))
        # Playwright keeps an event loop in this thread, and Django would refuse its database.
        patched.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
            yield browser
            browser.close()


@pytest.fixture
def problems() -> list[str]:
    """What a page complained of in the console, or did behind our back."""
    return []


@pytest.fixture
def window(chromium: Browser, problems: list[str]) -> Iterator[Callable[..., Page]]:
    """Open a browser window; at the end none may have complained."""
    contexts = []

    def make(width: int = 1280, **values: Any) -> Page:
        context = chromium.new_context(viewport={"width": width, "height": 900}, **values)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("pageerror", lambda error: problems.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (problems.append("a dialog"), dialog.dismiss()))
        page.on("console", lambda message: note(message.type, message.text, message.location))
        return page

    def note(kind: str, text: str, location: Any) -> None:
        if kind in ("error", "warning") and "favicon" not in str(location):
            problems.append(f"{kind}: {text} ({location.get('url')})")

    yield make
    for context in contexts:
        context.close()
    assert problems == []


@pytest.fixture
def desk(window: Callable[..., Page], live_server: Any, staff: AbstractUser) -> Callable[..., Page]:
    """Open a browser window in which staff has logged in; it shows the conversations."""

    def make(width: int = 1280, **values: Any) -> Page:
        page = window(width, **values)
        page.goto(f"{live_server.url}/admin/bland_sms/conversation/")
        page.fill("#id_username", staff.username)
        page.fill("#id_password", "secret-enough")
        page.click("input[type=submit]")
        page.wait_for_url("**/bland_sms/conversation/")
        return page

    return make


@pytest.fixture
def account(sandbox: BlandSandbox, transactional_db: None) -> BlandSandbox:
    """Four active conversations of one customer, and one of each of three others; all copied."""
    numbers = [CUSTOMER] * 4 + OTHERS
    for n, number in enumerate(numbers):
        moment = f"2026-01-0{9 - n}T10:00:00.000Z"
        messages = [
            ("AGENT", "Your parcel arrives tomorrow. Details: https://example.com/" + "x" * 150),
            ("USER", "No " + HOSTILE),
            ("HUMAN", "Sam here, I will look into it.\nOne moment."),
        ]
        sandbox.account.add(
            {
                "id": f"conv_{n}" if n else UUID,
                "user_number": number,
                "created_at": moment,
                "updated_at": moment,
                "last_message_at": moment,
                "last_message": messages[0][1],
                "summary": "Wants the parcel on another day. " * 8,
                "message_count": len(messages),
                "messages": [
                    {
                        "id": f"m{n}-{place}",
                        "created_at": moment,
                        "sender": sender,
                        "message": text,
                        "status": None if sender == "USER" else "delivered",
                        "attachments": ["https://files.example.com/a.jpg"],
                    }
                    for place, (sender, text) in enumerate(messages)
                ],
            }
        )
    sync.run()
    refresh_many(list(sandbox.account.rows))
    sandbox.log.clear()
    return sandbox

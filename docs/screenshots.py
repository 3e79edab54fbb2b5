"""Take the pictures of the tutorial again: ``python docs/screenshots.py``.

Runs the demo with its stand-in for Bland, and a browser that does what the tutorial tells. Needs
the extra ``dev``, a program named chromium, and a font with emoji.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

import django
import requests

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
os.environ["DJANGO_SETTINGS_MODULE"] = "project.settings"
django.setup()

from django.core.management.base import BaseCommand  # noqa: E402
from playwright.sync_api import Locator, Page, sync_playwright  # noqa: E402

from project.management.commands.demo import LOGIN, PASSWORD, Children, Demo  # noqa: E402

IMAGES = HERE / "images"
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-sync", "--no-first-run"]
WIDTH = 1280
FILTERS = "?status=active&activity=7d"


def main() -> None:
    """Start the demo, walk through it, stop it."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Children() as children,
        sync_playwright() as playwright,
    ):
        demo = Demo(BaseCommand(), children, Path(folder) / "demo.sqlite3")
        demo.start(0, quiet=True)
        chromium = shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        page = browser.new_page(viewport={"width": WIDTH, "height": 760}, locale="en-GB")
        walk(page, demo)
        browser.close()


def walk(page: Page, demo: Demo) -> None:
    """The tutorial, a picture for each of its sections."""
    rows = page.locator("#result_list tbody tr")
    conversations = f"{demo.url}/admin/bland_sms/conversation/"
    page.goto(conversations)
    page.fill("#id_username", LOGIN)
    page.fill("#id_password", PASSWORD)
    page.click("input[type=submit]")
    page.wait_for_url(conversations)
    take(page, "conversations", rows.nth(7))

    page.goto(f"{conversations}{FILTERS}")
    ids = [box.get_attribute("value") for box in page.locator("input.action-select").all()]
    number = page.locator("th.field-customer").nth(3).inner_text()
    page.goto(f"{conversations}?q={number[-4:]}")
    take(page, "search", rows.last)
    page.goto(f"{conversations}{FILTERS}")
    page.locator("th.field-customer a").nth(3).click()
    page.get_by_role("link", name="Download as text").wait_for()  # once its messages are copied
    take(page, "conversation", page.locator(".bland-sms-thread").last)
    page.get_by_role("button", name="Deactivate", exact=True).click()
    page.locator(".messagelist").get_by_text("1 conversation deactivated").wait_for()
    take(page, "deactivated", page.locator(".bland-sms-facts").first)

    page.goto(f"{conversations}{FILTERS}")
    page.check("#action-toggle")
    everything = page.get_by_role("button", name="Select all conversations matching these filters")
    if everything.is_visible():  # not where all are on this page
        everything.click()
    page.select_option("select[name=action]", "deactivate_selected")
    take(page, "select", rows.nth(5))
    trouble = {ids[5]: "forever:404", ids[8]: "forever:404", ids[11]: "forever:reset_before"}
    requests.post(f"{demo.sandbox_url}/_sandbox/faults", json=trouble, timeout=10)
    page.click("button[name=index]")
    take(page, "confirm", page.locator("main li:has(.bland-sms-badge)").nth(9))
    page.fill("textarea[name=reason], input[name=reason]", "Campaign ended, ticket 4711")
    page.click("input[type=submit].default")
    page.wait_for_selector("[data-open=no]", timeout=60_000)
    take(page, "update", page.locator(".bland-sms-items tbody tr").nth(3))
    requests.post(f"{demo.sandbox_url}/_sandbox/clear", timeout=10)
    page.get_by_role("button", name="Retry failed").click()
    page.wait_for_selector("[data-open=no]", timeout=60_000)
    page.get_by_role("link", name="Bulk updates").first.click()
    take(page, "updates", rows.nth(6))


def take(page: Page, name: str, last: Locator) -> None:
    """The page down to what is shown last, as wide as the window."""
    page.set_viewport_size({"width": WIDTH, "height": 760})
    page.wait_for_load_state("networkidle")
    page.mouse.move(0, 0)
    page.evaluate("scrollTo(0, 0)")
    box = last.bounding_box()
    assert box is not None, name
    page.set_viewport_size({"width": WIDTH, "height": round(box["y"] + box["height"]) + 12})
    page.screenshot(path=IMAGES / f"{name}.png")


main()

"""Accessibility: our pages have no finding that a stock page of the admin does not have."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth.models import Group

from bland_sms.sandbox import BlandSandbox

from .conftest import require_browser
from .test_screens import Desk, screens

if TYPE_CHECKING:
    from playwright.sync_api import Page

AXE = importlib.util.find_spec("axe_playwright_python")

require_browser("" if AXE else "no axe: axe-playwright-python is missing")

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("no_waiting", "account"),
]


def findings(page: Page) -> set[str]:
    """The rules that axe finds broken."""
    assert AXE is not None
    script = Path(str(AXE.origin)).parent / "axe.min.js"
    page.evaluate(script.read_text("utf-8"))
    # Without preload, or axe would fetch style sheets again.
    found: dict[str, Any] = page.evaluate("axe.run({preload: false})")
    return {violation["id"] for violation in found["violations"]}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe__no_more_than_a_stock_page(scheme: Any, desk: Desk, sandbox: BlandSandbox) -> None:
    sandbox.faults.add("PATCH conv_5", "422")
    page = desk(color_scheme=scheme)
    ours = screens(page)
    group = Group.objects.create(name="Support")
    admin = page.url.partition("/bland_sms/")[0]
    # What Django's own markup does to the search box of every list with a search_help_text.
    stock = {"label-title-only"}
    for url in (f"{admin}/auth/group/?q=s", f"{admin}/auth/group/{group.pk}/change/"):
        page.goto(url)
        stock |= findings(page)
    more = {}
    for url in ours:
        page.goto(url)
        found = findings(page) - stock
        if found:
            more[url.partition("/admin/")[2]] = found
    assert more == {}

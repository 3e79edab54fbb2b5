"""The same facts for who reads from right to left, and on paper: every screen of ours."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from bland_sms.models import BulkUpdate
from bland_sms.sandbox import BlandSandbox

from .conftest import require_browser
from .test_screens import Desk, screens

if TYPE_CHECKING:
    from playwright.sync_api import Page

require_browser()

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("no_waiting", "account"),
]
PICTURES = os.environ.get("BLAND_SMS_PICTURES")
"""A folder: each screen is photographed for people's eyes."""

BARE_NUMBERS = """() => {
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode, own = node.parentElement;
    if (!/(?<!\\u2066)\\+\\d{7,}/.test(node.data)) continue;
    if (own.closest("script, style, option, textarea, title")) continue;
    if (!own.closest("bdi, [dir=ltr], [dir=auto]")) found.push(node.data.trim());
  }
  return found;
}"""
"""Phone numbers that the text around them may turn around: +1555 becomes 1555+. Not those behind
U+2066, which isolates as ``<bdi>`` does."""

MISPLACED_STOPS = r"""() => {
  const found = [];
  const place = (node, at) => {
    const range = document.createRange();
    range.setStart(node, at);
    range.setEnd(node, at + 1);
    return range.getBoundingClientRect();
  };
  const page = document.querySelector("#content");
  const walker = document.createTreeWalker(page, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode;
    const one = text.parentElement.closest("p, li, dd, a, button, .help");
    if (!one?.checkVisibility() || !/^[A-Za-z]/.test(one.innerText.trim())) continue;
    const at = text.data.trimEnd().search(/[A-Za-z]([.…]$|: ?$)/);
    if (at < 0) continue;
    const [letter, stop] = [place(text, at), place(text, at + 1)];
    if (letter.width && stop.left < letter.left) found.push(one.innerText.trim());
  }
  return found;
}"""
"""English words on a page in Hebrew whose full stop or colon stands before them."""

HIDDEN_TIMES = """() => [...document.querySelectorAll("time[title]")].filter(one => {
  const after = getComputedStyle(one, "::after").content;
  return one.checkVisibility() && !after.includes(one.title);
}).map(one => one.outerHTML)"""

CUT_OFF = """() => [...document.querySelectorAll("#content *")].filter(one => {
  const isCut = one.scrollWidth > one.clientWidth + 1 && one.clientWidth > 1;
  return isCut && getComputedStyle(one).overflowX !== "visible" && one.querySelector("table");
}).map(one => `${one.className}: ${one.scrollWidth} in ${one.clientWidth}`)"""
"""Tables that would have to be scrolled."""

WIDER = "document.documentElement.scrollWidth - window.innerWidth"


def photograph(page: Page, name: str) -> None:
    if PICTURES:
        path = page.url.partition("/bland_sms/")[2].partition("?")[0].strip("/").replace("/", "-")
        page.screenshot(path=f"{PICTURES}/{name}-{path}.png", full_page=True)


@pytest.mark.parametrize("language", ["he", "ar"])
def test_reading__from_right_to_left(language: str, desk: Desk, settings: Any) -> None:
    settings.LANGUAGES = [("en", "English"), (language, language)]
    page = desk(390, locale=language)
    faults = {}
    for url in screens(page):
        page.goto(url)
        assert page.locator("html").get_attribute("dir") == "rtl"
        found = page.evaluate(BARE_NUMBERS) + page.evaluate(MISPLACED_STOPS)
        wider = page.evaluate(WIDER)
        if found or wider > 0:
            faults[url.partition("/bland_sms/")[2]] = (wider, found)
        photograph(page, language)
    assert faults == {}


PAPERS = [("A4 with margins", 720), ("A4", 794), ("A4 on its side", 1123)]
"""At 96 dots per inch."""
UNUSED = """() => [...document.querySelectorAll("#changelist .results, #content .bland-sms-scroll")]
  .map(one => Math.round(window.innerWidth - one.getBoundingClientRect().width))
  .filter(unused => unused > 100)"""
BROKEN_WORDS = r"""() => {
  const found = new Set();
  for (const cell of document.querySelectorAll("#content :is(th, td)")) {
    const walker = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT);
    for (let node = walker.nextNode(); node; node = walker.nextNode()) {
      for (const word of node.data.matchAll(/[^\s\-_/]{2,16}/g)) {  // longer ones may be broken
        if (/\S/.test(node.data[word.index + word[0].length] ?? " ")) continue;
        const range = document.createRange();
        range.setStart(node, word.index);
        range.setEnd(node, word.index + word[0].length);
        const tops = [...range.getClientRects()].map(one => Math.round(one.top));
        if (new Set(tops).size > 1) found.add(word[0]);
      }
    }
  }
  return [...found];
}"""


@pytest.mark.parametrize("language", ["en", "es"])
def test_reading__on_paper(language: str, desk: Desk) -> None:
    page = desk(locale=language)
    urls = screens(page)
    page.emulate_media(media="print")
    faults = {}
    for url in urls:
        page.goto(url)
        for paper, width in PAPERS:
            page.set_viewport_size({"width": width, "height": 1000})
            found = [
                told
                for look in (HIDDEN_TIMES, CUT_OFF, BROKEN_WORDS, UNUSED)
                for told in page.evaluate(look)
            ]
            wider = page.evaluate(WIDER)
            if found or wider > 0:
                faults[url.partition("/bland_sms/")[2], paper] = (wider, found)
        photograph(page, "print")
    assert faults == {}


def test_reading__paper_says_what_was_asked_for_and_is_not_wasted(desk: Desk) -> None:
    page = desk()
    page.emulate_media(media="print")
    names = page.locator("#changelist-filter summary")
    box = page.locator("#searchbar")
    assert not any(name.is_visible() for name in names.all())
    assert not box.is_visible()
    page.goto(f"{page.url}?status=active&activity_from=2026-01-05&q=0003")
    shown = [name.inner_text().strip() for name in names.all() if name.is_visible()]
    assert shown == ["By status", "By last activity"]
    assert page.get_by_role("link", name="Active", exact=True).is_visible()
    assert not page.get_by_role("link", name="Completed").is_visible()
    assert page.locator("#changelist-filter [name=activity_from]").is_visible()
    assert box.is_visible()
    # Seven rows go on one sheet, and begin on it.
    page.goto(page.url.partition("?")[0])
    assert page.pdf(format="A4").count(b"/Type /Page\n") == 1


def tab_to(page: Page, name: str) -> None:
    """Press the tabulator until what has this name has the focus, and can be seen to have it."""
    for _ in range(150):
        page.keyboard.press("Tab")
        told = page.evaluate("""() => {
          const one = document.activeElement;
          const {outlineStyle, boxShadow} = getComputedStyle(one);
          const label = one.getAttribute("aria-label") || one.innerText || one.value || "";
          return [label.trim(), outlineStyle !== "none" || boxShadow !== "none"];
        }""")
        if told[0] == name:
            assert told[1], f"nothing shows that {name} has the focus"
            return
    raise AssertionError(f"the tabulator does not lead to {name}")


def test_reading__by_keyboard_alone(desk: Desk, account: BlandSandbox) -> None:
    page = desk()
    page.focus("#searchbar")
    page.keyboard.type("0003")
    page.keyboard.press("Enter")
    page.wait_for_url("**q=0003*")
    tab_to(page, "+15550100003")
    page.keyboard.press("Enter")
    page.wait_for_url("**/change/**")
    tab_to(page, "Reason")
    page.keyboard.type("asked by phone")
    page.keyboard.press("Tab")  # the button stands behind it
    page.keyboard.press("Enter")
    page.locator(".messagelist").get_by_text("1 conversation deactivated").wait_for()
    tab_to(page, "Undo")
    page.keyboard.press("Enter")
    page.locator(".messagelist").get_by_text("1 conversation reactivated").wait_for()
    assert all(row["is_active"] for row in account.account.rows.values())
    assert BulkUpdate.objects.order_by("pk")[0].reason == "asked by phone"


CUT_BUTTONS = """() => [...document.querySelectorAll("#content :is(button, input[type=submit])")]
  .filter(one => one.checkVisibility() && one.scrollWidth > one.clientWidth + 1)
  .map(one => one.innerText || one.value)"""


def test_reading__no_button_is_cut_off_on_a_phone(desk: Desk) -> None:
    page = desk(390, locale="es")
    cut_off = set()
    for url in screens(page):
        page.goto(url)
        cut_off |= set(page.evaluate(CUT_BUTTONS))
    assert cut_off == set()


WITH_COLUMNS = (
    "conversation",
    "conversation/summary",
    "bulkupdate",
    "standingorder",
    "syncrun",
    "webhookdelivery",
)


@pytest.mark.parametrize("language", ["en", "es"])
def test_reading__columns_fit_with_the_sidebar_open(language: str, desk: Desk) -> None:
    page = desk(locale=language)
    screens(page)
    update = BulkUpdate.objects.exclude(status=BulkUpdate.Status.DRAFT).get()
    update.reason = "Callback campaign of last week ended, ticket 4711"
    update.counts_at_rest |= {"failed": 12, "unknown": 1, "cancelled": 1034}
    update.save()
    BulkUpdate.objects.create(source="admin", is_active=True, status="finished", undo_of=update)
    root = page.url.partition("/bland_sms/")[0] + "/bland_sms"
    cut_off = {}
    for name in WITH_COLUMNS:
        page.goto(f"{root}/{name}/")
        page.locator("#main.shifted").wait_for()  # the sidebar is open
        photograph(page, f"sidebar-{language}")
        if found := page.evaluate(CUT_OFF):
            cut_off[name] = found
    assert cut_off == {}

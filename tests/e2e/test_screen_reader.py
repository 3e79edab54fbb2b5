"""What a screen reader is told: the browser's accessibility tree, by law on every screen, and word
by word for the main jobs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth.models import AbstractUser
from django.utils import timezone

from bland_sms.models import BulkUpdate, Conversation
from bland_sms.sandbox import BlandSandbox

from .conftest import CUSTOMER, OTHERS, require_browser
from .test_screens import Desk, screens

if TYPE_CHECKING:
    from playwright.sync_api import Page, Route

require_browser()

from playwright.sync_api import expect  # noqa: E402  may be missing

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("no_waiting", "account"),
]
CONTROLS = {
    "button",
    "checkbox",
    "combobox",
    "Date",
    "DisclosureTriangle",
    "link",
    "listbox",
    "progressbar",
    "radio",
    "searchbox",
    "spinbutton",
    "textbox",
}
TYPED_INTO = {"combobox", "listbox", "searchbox", "textbox"}
DECORATION = re.compile("[●○◆◔▲]")
"""Marks beside a word that says the same: read out, they are "black circle"."""


class Node:
    """One object of the tree that is not left out of it."""

    def __init__(self, told: dict[str, Any], children: list[Node]) -> None:
        self.role = str(told.get("role", {}).get("value", ""))
        self.name = " ".join(str(told.get("name", {}).get("value", "")).split())
        self.element = told.get("backendDOMNodeId")
        told_of = {one["name"]: one["value"].get("value") for one in told.get("properties", ())}
        self.url = str(told_of.get("url", ""))
        """Where a link leads."""
        self.children = children

    def __iter__(self) -> Iterator[Node]:
        """All of it in the order in which it is read."""
        yield self
        for child in self.children:
            yield from child

    def of(self, *roles: str) -> list[Node]:
        return [node for node in self if node.role in roles]

    @property
    def text(self) -> str:
        """The words in it."""
        return " ".join(node.name for node in self.of("StaticText") if node.name)

    def __repr__(self) -> str:
        return f"{self.role} {self.name!r}"


def tree(page: Page, selector: str = "#content") -> Node:
    """What is told of a part of a page."""
    session = page.context.new_cdp_session(page)
    asked = {"expression": f"document.querySelector({selector!r})"}
    found = session.send("Runtime.evaluate", asked)["result"]["objectId"]
    element = session.send("DOM.describeNode", {"objectId": found})["node"]["backendNodeId"]
    told = session.send("Accessibility.getFullAXTree")["nodes"]
    session.detach()
    by_id = {one["nodeId"]: one for one in told}

    def read(one: dict[str, Any]) -> list[Node]:
        below = [by_id[key] for key in one.get("childIds", ()) if key in by_id]
        children = [child for each in below for child in read(each)]
        if one["ignored"] and one.get("backendDOMNodeId") != element:
            return children
        return [Node(one, children)]

    [root] = read(told[0])
    return next(node for node in root if node.element == element)


# --- the laws ---------------------------------------------------------------------------------


def without_a_name(content: Node) -> Iterator[str]:
    yield from (repr(node) for node in content if node.role in CONTROLS and not node.name)


def with_the_name_of_another(content: Node) -> Iterator[str]:
    """Boxes to tick and fields that cannot be told from each other."""
    for roles in ({"checkbox"}, TYPED_INTO):
        names = Counter(node.name for node in content if node.role in roles)
        yield from (name for name, number in names.items() if number > 1)


def with_the_name_of_a_link_elsewhere(content: Node) -> Iterator[str]:
    """Links outside tables, where no row and no column tells them apart."""
    in_rows = {link.element for row in content.of("row") for link in row.of("link")}
    places: dict[str, set[str]] = {}
    for node in content.of("link"):
        if node.element not in in_rows:
            places.setdefault(node.name, set()).add(node.url)
    yield from (f"{name}: {len(each)} places" for name, each in places.items() if len(each) > 1)


def without_headers(content: Node) -> Iterator[str]:
    """Tables of numbers, names and texts; those of names and values have no head."""
    for table in content.of("table"):
        rows = [row for row in table.of("row") if row.of("cell", "gridcell")]
        yield from (f"no header: {row.text}" for row in rows if not row.of("rowheader"))
        if not table.of("columnheader") and any(len(row.of("cell")) > 1 for row in rows):
            yield f"no column has a header: {table.text[:60]}"


def with_marks(content: Node) -> Iterator[str]:
    yield from (repr(node) for node in content if DECORATION.search(node.name))


def with_half_a_number(content: Node) -> Iterator[str]:
    """The end of one behind an ellipsis, which is not read out."""
    yield from (repr(node) for node in content if re.search(r"…\s*\w", node.name))


BY_THE_MARKUP = """() => {
  const all = selector => [...document.querySelectorAll(selector)];
  const seen = one => one.checkVisibility() && one.innerText?.trim();
  const found = [];
  const levels = all("#content :is(h1, h2, h3, h4, h5, h6)").filter(seen)
    .map(one => Number(one.tagName[1]));
  levels.forEach((level, place) => {
    if (place ? level > levels[place - 1] + 1 || level === 1 : level !== 1) {
      found.push(`headings: ${levels}`);
    }
  });
  for (const name of ["aria-describedby", "aria-labelledby"]) {
    for (const one of all(`#content [${name}]`)) {
      for (const id of one.getAttribute(name).split(" ")) {
        if (!document.getElementById(id)) found.push(`${name}: there is no ${id}`);
      }
    }
  }
  const stock = "#change-history *, .bland-sms-values";
  for (const one of all("#content table").filter(one => !one.matches(stock))) {
    const isNamed = one.caption || one.ariaLabel || one.getAttribute("aria-labelledby");
    if (!isNamed) found.push(`table without a name: ${one.innerText.slice(0, 60)}`);
  }
  for (const one of all("li.selected > a:not([aria-current]), th.sorted:not([aria-sort])")) {
    found.push(`told by its looks alone: ${one.innerText}`);
  }
  for (const one of all("time[title]")) { // Orca falls silent at what leaves its line
    const {position, display} = getComputedStyle(one, "::after");
    if (position !== "static" || display !== "inline") found.push(`not in its line: ${one.title}`);
  }
  for (const one of all("#content [aria-hidden=true]").filter(seen)) {
    found.push(`seen and not read out: ${one.innerText}`);
  }
  const live = all("[role=status], [aria-live]:not(.action-counter)");
  if (live.length !== 1) found.push(`live regions: ${live.map(one => one.outerHTML)}`);
  if (live.some(one => one.innerText?.trim())) found.push("said without a cause");
  return found;
}"""

TITLES = """() => [...document.querySelectorAll("#content [title]")]
  .filter(one => one.checkVisibility() && !one.closest(".sortoptions, .actions"))
  .map(one => one.title)"""


def told_by_title_alone(page: Page, content: Node) -> Iterator[str]:
    titles = Counter(" ".join(title.split()) for title in page.evaluate(TITLES))
    text = content.text
    yield from (title for title, number in titles.items() if text.count(title) < number)


LAWS = (
    without_a_name,
    with_the_name_of_another,
    with_the_name_of_a_link_elsewhere,
    without_headers,
    with_marks,
    with_half_a_number,
)


@pytest.mark.parametrize("language", ["en", "es"])
def test_screen_reader__laws_on_every_screen(
    language: str, desk: Desk, account: BlandSandbox
) -> None:
    account.faults.add("PATCH conv_5", "422")
    page = desk(locale=language)
    faults: dict[str, dict[str, list[str]]] = {}
    for url in screens(page):
        page.goto(url)
        content = tree(page)
        found = {law.__name__: [*law(content)] for law in LAWS}
        found["markup"] = page.evaluate(BY_THE_MARKUP)
        found["title"] = [*told_by_title_alone(page, content)]
        if any(found.values()):
            kinds = {name: each for name, each in found.items() if each}
            faults[url.partition("/bland_sms/")[2]] = kinds
    assert faults == {}


# --- what is heard at the main jobs -----------------------------------------------------------


def spoken(node: Node) -> list[str]:
    """What is read of a part, in order: words, and controls with their names."""
    if node.role == "StaticText":
        return [node.name] if node.name else []
    if node.role in CONTROLS:
        return [f"{node.role}: {node.name}"]
    return [words for child in node.children for words in spoken(child)]


WANTED = OTHERS[1]


def test_screen_reader__one_customer_is_found_read_and_stopped(desk: Desk) -> None:
    page = desk()
    rows = {row.text: row for row in tree(page, "#result_list").of("row")}
    [row] = [row for text, row in rows.items() if WANTED in text]
    box = f"checkbox: Select this object for an action - {WANTED}, 10 months ago"
    message = "Your parcel arrives tomorrow. Details: https://example.com/…"
    assert spoken(row)[:5] == [box, f"link: {WANTED}", "Active", message, "3"]
    when = " ".join(spoken(row)[5:7])  # all of it: not for eyes and a mouse alone
    assert when == "10 months ago (Jan. 4, 2026, 10 a.m. UTC)"
    page.get_by_role("row").filter(has_text=WANTED).get_by_role("checkbox").check()
    expect(page.locator("[aria-live=polite]")).to_have_text("1 of 7 selected")

    page.get_by_role("link", name=WANTED).click()
    thread = tree(page)
    links = [node.name for node in thread.of("link")]
    assert f"Previous: {OTHERS[0]}" in links
    assert f"Next: {OTHERS[2]}" in links
    days = [each for each in thread.of("list") if "Sam here" in each.text]
    messages = [[*spoken(each)] for day in days for each in day.of("listitem")]
    assert [words[0] for words in messages] == ["Agent", "Customer", "Rep"]
    assert messages[2][1:3] == ["Sam here, I will look into it.", "One moment."]
    assert messages[2][3:] == ["link: Attachment 3", "10 a.m.", "· delivered"]

    page.get_by_role("button", name="Deactivate", exact=True).click()
    update = f"update {BulkUpdate.objects.get().pk}"
    said = f"1 conversation deactivated. U{update[1:]} Undo Next in this list: {OTHERS[2]}"
    expect(page.get_by_role("status")).to_have_text(said, use_inner_text=True)
    events = tree(page).of("listitem")[-1]
    assert spoken(events)[:2] == ["Deactivated by dana,", f"link: {update}"]


def reasons(page: Page) -> list[str]:
    return [node.name for node in tree(page).of("textbox")]


def test_screen_reader__reasons_are_told_apart_and_kept(desk: Desk) -> None:
    Conversation.objects.filter(pk="conv_5").update(transcript_observed_at=None)
    Conversation.objects.get(pk="conv_5").messages.all().delete()
    page = desk()
    held: list[Route] = []
    page.route("**/copy/**", lambda route: held.append(route))  # noqa: PLW0108  Playwright marks it
    with page.expect_request("**/copy/**"):
        page.get_by_role("link", name=WANTED).click()
    copying = "The messages are being copied from Bland."
    expect(page.get_by_role("status")).to_have_text(copying, use_inner_text=True)
    of_all = "Reason: Deactivate all active conversations of this customer (1)"
    assert reasons(page) == ["Reason", of_all]
    page.get_by_role("textbox", name=of_all).press_sequentially("asked by ph")
    held[0].continue_()
    expect(page.get_by_text("Sam here, I will look into it.")).to_be_visible()
    expect(page.get_by_role("textbox", name=of_all)).to_be_focused()
    expect(page.get_by_role("textbox", name=of_all)).to_have_value("asked by ph")


LISTEN = """() => {
  window.said = [];
  const region = document.querySelector("[role=status]");
  const note = () => region.innerText.trim() && window.said.push(region.innerText.trim());
  new MutationObserver(note).observe(region, {childList: true, subtree: true});
}"""
LOOKS = 80


def test_screen_reader__update_that_runs(
    desk: Desk, account: BlandSandbox, staff: AbstractUser, started: Callable[..., BulkUpdate]
) -> None:
    account.faults.add("PATCH conv_5", "422")
    bulk_update = started(["conv_4", "conv_5", "conv_6"], requested_by=staff)
    bulk_update.items.update(not_before=timezone.now() + timedelta(hours=1))
    page = desk()
    page.clock.install()
    looks = iter(range(1, 1000))

    def progress(route: Route) -> None:
        done = next(looks)
        told = {"status": "queued", "total": 1000, "done": done, "words": f"{done} changed"}
        more = {"state": "queued", "open": True, "drive": False, "wait_seconds": 0}
        route.fulfill(json={**told, **more})

    page.route("**/progress/", progress)
    page.goto(f"{page.url.partition('/conversation/')[0]}/bulkupdate/{bulk_update.pk}/change/")
    page.evaluate(LISTEN)
    link = page.get_by_role("link", name=OTHERS[0])
    link.focus()
    bulk_update.items.filter(conversation_id="conv_6").update(attempts=2)
    began = page.evaluate("Date.now()")
    while next(looks) < LOOKS:  # a number is left out here and there
        page.clock.run_for(500)
    elapsed = page.evaluate("Date.now()") - began  # milliseconds of the page's own clock
    expect(page.get_by_role("row").filter(has_text=OTHERS[2])).to_contain_text("2")
    expect(link).to_be_focused()  # its row is the same as before
    said = page.evaluate("window.said")
    assert 1 <= len(said) <= elapsed / 10_000 + 1, said
    assert all("changed" in text for text in said)
    [bar] = tree(page).of("progressbar")
    assert bar.name == "Progress"

    page.unroute("**/progress/")
    bulk_update.items.update(not_before=None)
    page.clock.resume()
    last = "Finished with failures: 2 changed · 1 failed"
    expect(page.get_by_role("status")).to_have_text(last, use_inner_text=True)
    expect(page.get_by_role("row").filter(has_text=WANTED)).to_contain_text("Failed")
    why = "Bland refused it (HTTP 422): Scripted 422. Look at the conversation at Bland."
    content = tree(page)
    [cause] = [each for each in content.of("listitem") if "422" in each.text]
    assert spoken(cause) == ["1 failed", why]
    [row] = [row for row in content.of("row") if WANTED in row.text]
    assert spoken(row)[:6] == [f"link: {WANTED}", "conv_5", "Failed", why, "422", "1"]


@pytest.mark.parametrize(
    ("verb", "keep", "words"),
    [
        ("deactivate", False, "Deactivate 4 conversations"),
        ("reactivate", False, "Reactivate 1 conversation"),
        ("deactivate", True, "Deactivate 4 conversations and keep them inactive"),
    ],
)
def test_screen_reader__button_that_confirms_says_what_it_does_and_to_how_many(
    verb: str, keep: bool, words: str, desk: Desk
) -> None:
    page = desk()
    Conversation.objects.filter(pk="conv_5").update(is_active=False)
    page.goto(page.url.replace("conversation/", "bulkupdate/paste/"))
    who = OTHERS[1] if verb == "reactivate" else CUSTOMER
    page.get_by_label("One customer on each line").fill(who)
    page.check(f"input[value={verb}]")
    if keep:
        page.get_by_label("keep them inactive").check()
        page.get_by_label("Reason").fill("asked by phone")
    page.get_by_role("button", name="Look them up").click()
    content = tree(page)
    [button] = [each.name for each in content.of("button") if "conversation" in each.name]
    assert button == words
    heading = next(each.name for each in content.of("heading"))
    assert button.startswith(heading)


def test_screen_reader__picture_of_the_summary(desk: Desk) -> None:
    page = desk()
    page.goto(page.url.replace("conversation/", "conversation/summary/"))
    content = tree(page)
    what = "What happened over time; the same numbers are in the table below."
    assert [node.name for node in content.of("image", "img")] == [what]
    assert [node.name for node in content.of("table")] == ["By time", "By our number"]

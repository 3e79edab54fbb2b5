"""The screens as staff use them: the main job, wide and narrow, light and dark, by keyboard."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractUser
from django.utils import timezone

from bland_sms import standing
from bland_sms.admin import ConversationAdmin
from bland_sms.models import BulkUpdate, Conversation, WebhookDelivery
from bland_sms.pasting import read_text
from bland_sms.sandbox import BlandSandbox
from bland_sms.updates import prepare_pasted

from .conftest import CUSTOMER, OTHERS, UUID, require_browser

if TYPE_CHECKING:
    from playwright.sync_api import Page

require_browser()

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("no_waiting", "account"),
]
Desk = Callable[..., "Page"]
LOOKS = [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark"), (320, "light")]
"""320 pixels are 1280 at a zoom of four."""


def deactivate_three(page: Page) -> None:
    """Tick the conversations of the three other customers and deactivate them."""
    for number in OTHERS:
        page.get_by_role("row").filter(has_text=number).get_by_role("checkbox").check()
    page.select_option("select[name=action]", "deactivate_selected")
    page.click("button[name=index]")


def messages(page: Page) -> str:
    return " ".join(page.locator(".messagelist").inner_text().split())


def active(sandbox: BlandSandbox) -> set[str]:
    return {row["user_number"] for row in sandbox.account.rows.values() if row["is_active"]}


def test_screens__from_the_login_to_a_stopped_customer(desk: Desk, account: BlandSandbox) -> None:
    page = desk()
    deactivate_three(page)
    assert "3 conversations deactivated" in messages(page)
    assert active(account) == {CUSTOMER}

    update = BulkUpdate.objects.get()
    page.locator(".messagelist").get_by_role("link", name=f"Update {update.pk}").click()
    assert "Deactivate" in page.inner_text("#content")
    assert page.locator("table tr", has_text="Changed").count() == 3

    page.goto(page.url.split("bulkupdate")[0] + "conversation/?status=active")
    page.get_by_role("link", name=CUSTOMER).first.click()
    page.get_by_role("button", name=re.compile(r"Deactivate all active .* \(4\)")).click()
    assert "4 conversations deactivated" in messages(page)
    assert active(account) == set()
    assert "Deactivated by dana" in page.inner_text("#content")
    assert not Conversation.objects.filter(is_active=True).exists()


def test_screens__without_javascript(desk: Desk, account: BlandSandbox) -> None:
    page = desk(java_script_enabled=False)
    deactivate_three(page)
    assert "3 conversations deactivated" in messages(page)
    page.locator(".messagelist").get_by_role("link", name=re.compile("Update")).click()
    assert page.locator("table tr", has_text="Changed").count() == 3
    # What the page's script would copy by itself has a button.
    Conversation.objects.filter(pk="conv_5").update(transcript_observed_at=None)
    Conversation.objects.get(pk="conv_5").messages.all().delete()
    page.get_by_role("link", name=OTHERS[1]).click()
    page.get_by_role("button", name="Copy the messages now").click()
    page.get_by_text("Sam here, I will look into it.").wait_for()


def test_screens__all_that_match_without_javascript(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ConversationAdmin, "list_per_page", 2)
    page = desk(java_script_enabled=False)
    page.get_by_role("row").get_by_role("checkbox").nth(1).check()
    page.get_by_label("Select all conversations matching these filters").check()
    page.select_option("select[name=action]", "deactivate_selected")
    page.click("button[name=index]")
    assert "7 conversations deactivated" in messages(page)


def screens(page: Page) -> list[str]:
    """The addresses of every screen, with something on each."""
    deactivate_three(page)
    root = page.url.split("/bland_sms/")[0] + "/bland_sms"
    update = BulkUpdate.objects.get()
    staff = get_user_model().objects.get()
    order = standing.make(CUSTOMER, reason="asked by phone", requested_by=staff)
    lines = read_text(f"{CUSTOMER}\n+1 (555) 010-0099\n1.5E+10\n0001\n{OTHERS[0]}")
    draft = prepare_pasted(lines, True, requested_by=staff)
    WebhookDelivery.objects.create(body_sha256="0" * 64, conversation_id=UUID, kind="status")
    return [
        page.url,
        f"{root}/conversation/summary/",
        f"{root}/conversation/messages/?q=parcel",
        f"{root}/bulkupdate/paste/",
        f"{root}/bulkupdate/{draft.pk}/confirm/",
        f"{root}/standingorder/",
        f"{root}/standingorder/add/?conversation={UUID}",
        f"{root}/standingorder/{order.pk}/change/",
        f"{root}/erasure/",
        f"{root}/erasure/add/?conversation={UUID}",
        f"{root}/webhookdelivery/",
        f"{root}/conversation/?q=0002,0003,9999",
        f"{root}/conversation/?q=nobody",
        f"{root}/conversation/{UUID}/change/",
        f"{root}/conversation/conv_5F6/change/",
        f"{root}/conversation/conv_5F6/history/",
        f"{root}/bulkupdate/",
        f"{root}/bulkupdate/{update.pk}/change/",
        f"{root}/syncrun/",
    ]


@pytest.mark.parametrize(("width", "scheme"), LOOKS)
def test_screens__nothing_is_wider_than_the_window(width: int, scheme: Any, desk: Desk) -> None:
    page = desk(width, color_scheme=scheme)
    wider, urls = {}, screens(page)
    root = urls[0].partition("/bland_sms/")[0]
    # With another column than the list has otherwise.
    urls.append(f"{root}/bland_sms/conversation/?event=started:2000-01-01:2999-12-31")
    for url in urls:
        page.goto(url)
        over = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        if over > 0:
            wider[url] = over
    assert wider == {}


class Nested(HTMLParser):
    """Forms that begin within another one: a browser drops them, and their buttons send the outer
    one."""

    def __init__(self) -> None:
        super().__init__()
        self.depth = 0
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "form":
            self.depth += 1
            if self.depth > 1:
                self.found.append(str(dict(attrs).get("action")))

    def handle_endtag(self, tag: str) -> None:
        self.depth -= tag == "form"


UNDRESSED = """@layer base {
  *, ::before, ::after { border: 0 solid; margin: 0; padding: 0 }
  a { color: inherit; text-decoration: inherit }
  input, select, textarea, button { background-color: transparent; color: inherit; font: inherit }
}"""
"""What themes that are made with Tailwind, such as unfold, begin with."""


def test_screens__in_a_theme_that_takes_the_look_of_fields_away(
    desk: Desk, live_server: Any, staff: AbstractUser, started: Callable[..., BulkUpdate]
) -> None:
    from playwright.sync_api import expect

    bulk_update = started(["conv_4"], requested_by=staff)
    page = desk()

    def bare(path: str) -> None:
        page.goto(f"{live_server.url}/admin/bland_sms/{path}")
        page.evaluate("""document.querySelectorAll('link[rel=stylesheet]').forEach(
          (link) => link.href.includes('/bland_sms/') || link.remove())""")
        page.add_style_tag(content=UNDRESSED)

    bare("bulkupdate/paste/")
    form = page.locator(".bland-sms-form")
    for field in ("textarea[name=lines]", "input[name=reason]"):
        expect(form.locator(field)).to_have_css("border-top-style", "solid")
        expect(form.locator(field)).not_to_have_css("border-top-width", "0px")
    expect(form.locator("input[type=submit]")).not_to_have_css(
        "background-color", "rgba(0, 0, 0, 0)"
    )
    bare(f"conversation/{UUID}/change/?at=x")
    reason = page.locator(".bland-sms-tool input[name=reason]")
    expect(reason).not_to_have_css("border-top-width", "0px")
    history = page.get_by_role("link", name="History")
    expect(history).to_have_css("text-decoration-line", "underline")
    bare(f"bulkupdate/{bulk_update.pk}/change/")
    results = page.get_by_role("link", name="Results as CSV")
    expect(results).to_have_css("text-decoration-line", "underline")
    # Else the browser draws it in green, whatever the result.
    expect(page.locator("progress")).to_have_css("border-top-style", "none")
    bare("conversation/")
    page.locator("#action-toggle").check()  # what says "all" hides itself by a class
    expect(page.locator(".actions .all")).to_be_hidden()


def test_screens__no_form_within_a_form(desk: Desk) -> None:
    page = desk()
    nested = {}
    for url in screens(page):
        parser = Nested()
        parser.feed(page.request.get(url).text())
        if parser.found:
            nested[url.partition("/bland_sms/")[2]] = parser.found
    assert nested == {}


CONTRASTS = """() => {
  const parse = text => (text.match(/[\\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map(value => {
      const part = value / 255;
      return part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const behind = element => {
    for (let one = element; one; one = one.parentElement) {
      const colour = parse(getComputedStyle(one).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const found = {};
  for (const element of document.querySelectorAll("#content [class*=bland-sms-]")) {
    if (!element.checkVisibility() || !element.innerText?.trim()) continue;
    const [text, ground] = [light(parse(getComputedStyle(element).color)), light(behind(element))];
    const ratio = (Math.max(text, ground) + 0.05) / (Math.min(text, ground) + 0.05);
    if (ratio < 4.5) found[element.className] = ratio.toFixed(1);
  }
  return found;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_screens__our_words_stand_out_from_their_ground(
    scheme: Any, desk: Desk, account: BlandSandbox
) -> None:
    account.faults.add("PATCH conv_5", "422")
    page = desk(color_scheme=scheme)
    dim = {}
    for url in screens(page):
        page.goto(url)
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (ground == "rgb(255, 255, 255)") is (scheme == "light")
        dim |= page.evaluate(CONTRASTS)
    assert dim == {}


def test_screens__under_a_strict_content_security_policy(desk: Desk, problems: list[str]) -> None:
    page = desk()
    urls = screens(page)

    def guard(route: Any) -> None:
        answer = route.fetch(max_redirects=0)
        policy = {"content-security-policy": "default-src 'self'; img-src 'self' data:"}
        route.fulfill(response=answer, headers={**answer.headers, **policy})

    page.route("**/*", guard)
    for url in urls:
        page.goto(url)
        page.wait_for_load_state("networkidle")
    assert problems == []


def test_conversation__customer_on_one_side_and_we_on_the_other(desk: Desk) -> None:
    page = desk()
    page.get_by_role("link", name=OTHERS[0]).click()

    def edges(text: str) -> tuple[float, float]:
        box = page.get_by_role("listitem").filter(has_text=text).bounding_box()
        assert box is not None
        return box["x"], box["x"] + box["width"]

    customer, agent, rep = edges("alert(2)"), edges("Your parcel"), edges("Sam here")
    assert customer[0] < agent[0]
    assert customer[0] < rep[0]
    assert agent[1] == rep[1] > customer[1]


def test_conversation__title_of_the_tab(desk: Desk) -> None:
    page = desk()
    page.get_by_role("link", name=OTHERS[0]).click()
    title = page.title()
    assert OTHERS[0] in title
    assert "<" not in title


def listed(page: Page) -> set[str]:
    return set(page.locator("#result_list tbody th").all_inner_texts())


PASTED = {
    "international": "+1 555 010 0002\n+1 555 010 0003\n+1 555 010 0004\n",
    "plain": "5550100002\n5550100003\n5550100004",
    "printed": "(555) 010-0002\n(555) 010-0003\n(555) 010-0004",
    "ids": "conv_4\r\nconv_5\r\nconv_6",
}


@pytest.mark.parametrize("text", PASTED.values(), ids=PASTED.keys())
def test_search__three_pasted_lines(text: str, desk: Desk, live_server: Any) -> None:
    page = desk()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=live_server.url)
    page.evaluate("text => navigator.clipboard.writeText(text)", text)
    page.focus("#searchbar")
    page.keyboard.press("Control+V")
    with page.expect_navigation():
        page.keyboard.press("Enter")
    assert listed(page) == set(OTHERS)


def test_search__three_lines_put_in_by_a_program(desk: Desk) -> None:
    page = desk()
    page.fill("#searchbar", "\n".join(OTHERS))
    with page.expect_navigation():
        page.keyboard.press("Enter")
    assert listed(page) == set(OTHERS)


def test_search__one_id_opens_its_conversation(desk: Desk) -> None:
    page = desk()
    page.fill("#searchbar", "conv_6")
    with page.expect_navigation():
        page.keyboard.press("Enter")
    assert page.url.endswith("/conv_5F6/change/")


def test_triage__thread_after_thread_and_messages_copied_when_opened(
    desk: Desk, account: BlandSandbox
) -> None:
    Conversation.objects.filter(pk="conv_5").update(transcript_observed_at=None)
    Conversation.objects.get(pk="conv_5").messages.all().delete()
    page = desk()
    page.get_by_role("link", name="Active", exact=True).click()
    page.get_by_role("link", name=OTHERS[0]).click()
    place = page.get_by_role("navigation", name="Place in the list", exact=True)
    assert "5 of 7" in place.inner_text()
    page.get_by_role("button", name="Deactivate", exact=True).click()
    assert "1 conversation deactivated" in messages(page)
    assert OTHERS[0] in page.title()  # nobody is moved on
    page.locator(".messagelist").get_by_role("link", name=OTHERS[1]).click()
    page.get_by_text("Sam here, I will look into it.").wait_for()  # copied by the page's script
    assert "5 of 6" in place.inner_text()
    place.get_by_role("link", name="Back to the list").click()
    assert "status=active" in page.url
    assert active(account) == {CUSTOMER, *OTHERS[1:]}


def test_update__notices_that_it_is_logged_out(
    desk: Desk, account: BlandSandbox, staff: Any, started: Callable[..., BulkUpdate]
) -> None:
    bulk_update = started(["conv_4"], requested_by=staff)
    later = timezone.now() + timedelta(hours=1)  # so it waits, and its page looks again and again
    bulk_update.items.update(not_before=later)
    page = desk()
    root = page.url.split("/conversation/")[0]
    page.goto(f"{root}/bulkupdate/{bulk_update.pk}/change/")
    page.context.clear_cookies()
    page.get_by_text("You are logged out.").wait_for()

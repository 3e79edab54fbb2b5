"""Pasting a list in the admin: what is found, what is started, and what stays with the update."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from html import unescape
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractUser, Permission
from django.core.files.uploadedfile import SimpleUploadedFile
from django.http import HttpRequest
from django.test import Client

from bland_sms.admin import ConversationAdmin
from bland_sms.models import BulkUpdate, BulkUpdateItem, Conversation
from bland_sms.sandbox import BlandSandbox

PASTE = "/admin/bland_sms/bulkupdate/paste/"
NOW = datetime(2026, 5, 1, tzinfo=timezone.utc)
LIST = "(555) 000-1111\n+15550002222\n3333\n+15550004444\n1.5E+10\n'+15550001111"


@pytest.fixture
def people(sandbox: BlandSandbox, db: None) -> BlandSandbox:
    for pk, number, is_active in (
        ("a1", "+15550001111", True),
        ("b1", "+15550002222", False),
        ("c1", "+15550003333", True),
        ("c2", "+15559993333", True),
    ):
        sandbox.account.add({"id": pk, "user_number": number, "is_active": is_active})
        Conversation(pk=pk, user_number=number, is_active=is_active, updated_at=NOW).save()
    sandbox.log.clear()
    return sandbox


def login(*codenames: str, name: str = "lee") -> Client:
    user: Any = get_user_model().objects.create_user(name, is_staff=True)
    user.user_permissions.set(
        Permission.objects.filter(content_type__app_label="bland_sms", codename__in=codenames)
    )
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def desk(people: BlandSandbox) -> Client:
    return login("view_conversation", "deactivate_conversation", name="dana")


def paste(client: Client, lines: str = LIST, verb: str = "deactivate", **values: Any) -> Any:
    return client.post(PASTE, {"lines": lines, "verb": verb, "reason": "", **values})


def drafted(client: Client, lines: str = LIST, **values: Any) -> BulkUpdate:
    answer = paste(client, lines, **values)
    draft = BulkUpdate.objects.latest("pk")
    assert answer.headers["Location"] == f"/admin/bland_sms/bulkupdate/{draft.pk}/confirm/"
    return draft


def page(client: Client, draft: BulkUpdate, name: str = "confirm", query: str = "") -> str:
    answer = client.get(f"/admin/bland_sms/bulkupdate/{draft.pk}/{name}/{query}")
    assert answer.status_code == 200
    return re.sub(r"\s+", " ", unescape(re.sub("<[^>]*>", " ", answer.content.decode())))


# --- the form -----------------------------------------------------------------------------------


def test_paste__asks_for_list_verb_and_reason(desk: Client) -> None:
    text = desk.get(PASTE).content.decode()
    names = set(re.findall(r'name="(\w+)"', text.partition('enctype="multipart')[2]))
    assert names & {"lines", "file", "verb", "reason"} == {"lines", "file", "verb", "reason"}
    assert 'value="deactivate"' in text
    assert 'value="reactivate"' not in text  # not theirs to ask


def test_paste__file(desk: Client) -> None:
    file = SimpleUploadedFile("list.csv", b"Name;Phone\nDana;+1 555 000 1111\n")
    draft = drafted(desk, "", file=file)
    assert [item.conversation_id for item in draft.items.all()] == ["a1"]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"lines": ""}, "no line in the list"),
        ({"lines": "1234\n" * 5001}, "longer than 5,000 lines"),
        ({"lines": "1", "file": SimpleUploadedFile("a.csv", b"1")}, "not both"),
        ({"lines": "", "file": SimpleUploadedFile("a.csv", b"\x00\x01")}, "not a spreadsheet"),
        ({"lines": "", "file": SimpleUploadedFile("a.csv", b"1" * 6_000_000)}, "larger than 5 MB"),
        ({"verb": ""}, "required"),
        ({"verb": "delete"}, "not one of the available choices"),
        ({"reason": "x" * 201}, "at most 200 characters"),
    ],
)
def test_paste__what_is_wrong_is_said(values: Any, words: str, desk: Client) -> None:
    for file in filter(None, [values.get("file")]):
        file.seek(0)
    answer = paste(desk, **values)
    assert answer.status_code == 200
    assert words in unescape(answer.content.decode())
    assert not BulkUpdate.objects.exists()


def test_paste__more_than_django_accepts(desk: Client, settings: Any) -> None:
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 1000
    answer = paste(desk, "1234\n" * 1000)
    assert answer.status_code == 413
    assert "more text than the site accepts" in answer.content.decode()
    anonymous = Client().post(PASTE, {"lines": "1234\n" * 1000})
    assert anonymous.headers["Location"].startswith("/admin/login/")


def test_paste__is_not_forged(desk: Client) -> None:
    forger = Client(enforce_csrf_checks=True)
    forger.cookies = desk.cookies
    assert paste(forger).status_code == 403
    assert not BulkUpdate.objects.exists()


def test_paste__what_was_too_much_for_the_search_box(desk: Client) -> None:
    found = desk.get("/admin/bland_sms/conversation/", {"q": ",".join(map(str, range(1000, 1300)))})
    assert f'action="{PASTE}"' in found.content.decode()
    answer = desk.post(PASTE, {"q": "+15550001111, 3333"})
    assert "+15550001111, 3333</textarea>" in answer.content.decode()
    assert not BulkUpdate.objects.exists()


@pytest.mark.parametrize(
    "held",
    [
        (),
        ("view_conversation",),
        ("deactivate_conversation",),
        ("view_bulkupdate", "view_conversation"),
    ],
)
def test_paste__refused_without_the_permissions_of_the_menu(
    held: tuple[str, ...], people: BlandSandbox
) -> None:
    client = login(*held)
    assert client.get(PASTE).status_code == 403
    assert paste(client).status_code == 403


def test_paste__verb_that_is_not_theirs(desk: Client) -> None:
    assert paste(desk, verb="reactivate").status_code == 403
    assert not BulkUpdate.objects.exists()


def test_paste__without_a_key(desk: Client, set_bland: Callable[..., None]) -> None:
    set_bland(API_KEY="")
    assert "not connected" in paste(desk).content.decode()
    assert not BulkUpdate.objects.exists()


# --- what was found ------------------------------------------------------------------------------


def test_confirm__says_what_each_line_is(desk: Client) -> None:
    text = page(desk, drafted(desk, reason="complaints"))
    for words in (
        "All (6) Found (1) Already inactive (1) Not found (1) Twice (1) Ambiguous (1) Not read (1)",
        "1 (555) 000-1111 Found +15550001111 Active",
        "2 +15550002222 Already inactive +15550002222 Inactive",
        "3 3333 Ambiguous",
        "4 +15550004444 Not found",
        "5 1.5E+10 Not read A spreadsheet has rounded this number. Format the column as text",
        "6 +15550001111 Twice +15550001111 Active The same as line 1.",
        "1 conversation of 1 customer.",
    ):
        assert words in text
    answer = desk.get(f"/admin/bland_sms/bulkupdate/{BulkUpdate.objects.get().pk}/confirm/")
    assert 'value="complaints"' in answer.content.decode()


@pytest.mark.parametrize(
    ("verb", "number", "pk", "words"),
    [
        ("reactivate", "+15550001111", "a1", ("Already active", "deactivation", "deactivated")),
        ("deactivate", "+15550002222", "b1", ("Already inactive", "reactivation", "reactivated")),
    ],
)
def test_confirm__what_another_update_is_to_change_is_not_told_as_already_so(
    people: BlandSandbox,
    started: Callable[..., BulkUpdate],
    verb: str,
    number: str,
    pk: str,
    words: tuple[str, str, str],
) -> None:
    """By the mark of the list, as long as what is asked there is not what is asked here."""
    already, change, done = words
    wanted = verb == "reactivate"
    desk = login("view_conversation", f"{verb}_conversation", name="dana")
    draft = drafted(desk, number, verb=verb)
    soon = datetime.now(timezone.utc) + timedelta(seconds=9)
    opposite = "Another update asked for the opposite."

    def told(state: str, note: str = opposite) -> None:
        text = page(desk, draft)
        assert re.search(rf"1 {re.escape(number)} {state} .*{note}", text), text
        assert (opposite in text) is bool(note)

    told(already, "")
    started([pk], is_active=wanted)
    told(already, "")
    other = started([pk], is_active=not wanted)
    told(f"{change.capitalize()} paused")
    csv = desk.get(f"/admin/bland_sms/bulkupdate/{draft.pk}/lines.csv")
    assert opposite in csv.getvalue().decode()
    BulkUpdate.objects.filter(pk=other.pk).update(status="running", lease_until=soon)
    told(f"Being {done}")
    other.items.update(state="unknown")
    told(f"{change.capitalize()}: outcome unknown")
    other.items.update(state="failed")
    told(already, "")
    BulkUpdate.objects.filter(pk=other.pk).update(status="stopped", stop_code="http_401")
    other.items.update(state="waiting")
    told(f"{change.capitalize()} stopped")
    BulkUpdate.objects.filter(pk=draft.pk).update(status="finished")
    text = page(login("view_bulkupdate"), draft, "change")  # who may see no conversation
    assert f"{change.capitalize()} stopped {opposite}" in text
    assert number not in text


def test_confirm__lines_by_state_and_page(desk: Client) -> None:
    draft = drafted(desk, LIST + "\n" + "\n".join(f"+1555111{at:04d}" for at in range(150)))
    text = page(desk, draft, query="?lines=not_found")
    assert "+15551110098" in text
    assert "+15551110099" not in text  # on the next page, with the one of the list
    assert "(555) 000-1111" not in text
    assert "+15551110149" in page(desk, draft, query="?lines=not_found&lines_page=2")
    assert "(555) 000-1111" in page(desk, draft, query="?lines=nonsense&lines_page=nonsense")


def test_lines__as_csv(desk: Client) -> None:
    draft = drafted(desk)
    url = f"/admin/bland_sms/bulkupdate/{draft.pk}/lines.csv"
    rows = desk.get(f"{url}?lines=not_found").getvalue().decode("utf-8-sig").splitlines()
    assert rows == [
        "line,text,state,customer,conversation,explanation",
        "4,+15550004444,not_found,,,",
    ]
    assert len(desk.get(url).getvalue().decode().splitlines()) == 7


def test_pick__ambiguous_line(desk: Client) -> None:
    draft = drafted(desk)
    line = draft.pasted_lines.get(state="ambiguous")
    url = f"/admin/bland_sms/bulkupdate/{draft.pk}"
    form = desk.get(f"{url}/confirm/").content.decode()
    assert f'<select name="line-{line.pk}"' in form
    answer = desk.post(f"{url}/pick/", {f"line-{line.pk}": "1", "line-x": "1", "line-9": "x"})
    assert answer.headers["Location"].startswith(f"{url}/confirm/")
    assert set(draft.items.values_list("conversation_id", flat=True)) == {"a1", "c2"}
    assert "1 line decided." in page(desk, draft)


def test_draft__is_its_owners_alone(desk: Client) -> None:
    draft = drafted(desk)
    other = login("view_conversation", "deactivate_conversation", "view_bulkupdate")
    url = f"/admin/bland_sms/bulkupdate/{draft.pk}"
    assert other.get(f"{url}/lines.csv").status_code == 404
    assert other.post(f"{url}/pick/").status_code == 404
    assert other.get(f"{url}/confirm/").status_code == 404


def test_start__asks_bland_for_what_was_found_alone(desk: Client, people: BlandSandbox) -> None:
    draft = drafted(desk, reason="complaints")
    url = f"/admin/bland_sms/bulkupdate/{draft.pk}"
    desk.post(f"{url}/confirm/", {"reason": "complaints"})
    draft.refresh_from_db()
    assert (draft.status, draft.reason) == ("finished", "complaints")
    assert [item.conversation_id for item in draft.items.all()] == ["a1"]
    text = page(desk, draft, "change")
    assert "4 +15550004444 Not found" in text  # it stays with the update
    assert desk.get(f"{url}/lines.csv?lines=not_found").status_code == 200


def test_start__nothing_was_found(desk: Client) -> None:
    draft = drafted(desk, "+15550004444\n+15550005555")
    text = page(desk, draft)
    assert "no line of the list names a conversation that would change" in text
    desk.post(f"/admin/bland_sms/bulkupdate/{draft.pk}/confirm/")
    draft.refresh_from_db()
    assert draft.status == "draft"


def test_lines__no_number_without_view_conversation(desk: Client) -> None:
    draft = drafted(desk)
    desk.post(f"/admin/bland_sms/bulkupdate/{draft.pk}/confirm/")
    text = page(login("view_bulkupdate"), draft, "change")
    assert "Not found (1)" in text
    assert "000-1111" not in text
    assert "555000" not in text
    reader = login("view_bulkupdate", name="kim")
    told = reader.get(f"/admin/bland_sms/bulkupdate/{draft.pk}/lines.csv").getvalue().decode()
    assert "555" not in told


class NarrowedAdmin(ConversationAdmin):
    """Who is not a superuser sees the conversations a1 and c1."""

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).filter(pk__in=["a1", "c1"])


@pytest.fixture
def narrowed(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = NarrowedAdmin(Conversation, admin.site)
    monkeypatch.setitem(admin.site._registry, Conversation, mine)


@pytest.mark.usefixtures("narrowed")
def test_narrowed__finds_what_they_may_see(desk: Client) -> None:
    draft = drafted(desk)
    text = page(desk, draft)
    assert "2 +15550002222 Not allowed You may not see the conversations of this customer." in text
    assert "3 3333 Found +15550003333" in text  # the other one is not theirs
    assert set(draft.items.values_list("conversation_id", flat=True)) == {"a1", "c1"}


def test_narrowed__reads_of_anothers_list_what_they_may_see(
    desk: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    draft = drafted(desk)
    desk.post(f"/admin/bland_sms/bulkupdate/{draft.pk}/confirm/")
    mine = NarrowedAdmin(Conversation, admin.site)
    monkeypatch.setitem(admin.site._registry, Conversation, mine)
    reader = login("view_conversation", "view_bulkupdate")
    text = page(reader, draft, "change")
    assert "+15550001111" in text
    assert "0004444" not in text
    assert "0002222" not in text
    assert "and 4 that you may not see" in text


# --- the ledger -----------------------------------------------------------------------------------

LEDGER = "/admin/bland_sms/bulkupdate/"


@pytest.fixture
def lead(staff: AbstractUser, people: BlandSandbox) -> Client:
    client = Client()
    client.force_login(staff)
    return client


def update(client: Client, pk: str = "a1", reason: str = "spam") -> BulkUpdate:
    client.post(f"/admin/bland_sms/conversation/{pk}/deactivate/", {"reason": reason})
    return BulkUpdate.objects.latest("pk")


def shown(client: Client, query: str = "") -> str:
    answer = client.get(f"{LEDGER}{query}")
    assert answer.status_code == 200
    text = re.sub(r"\s+", " ", unescape(re.sub("<[^>]*>", " ", answer.content.decode())))
    return text.partition("Select all objects")[2] or text


def test_reason__of_one_conversation_is_everywhere(lead: Client) -> None:
    done = update(lead)
    assert (done.reason, done.status) == ("spam", "finished")
    assert "spam" in shown(lead)
    lead.get(LEDGER)  # the message is read
    thread = lead.get("/admin/bland_sms/conversation/a1/change/").content.decode()
    assert "Reason: spam" in thread
    history = lead.get("/admin/bland_sms/conversation/a1/history/").content.decode()
    assert f"bulk update {done.pk}. Reason: spam" in history
    assert ",spam," in lead.get(f"{LEDGER}{done.pk}/results.csv").getvalue().decode()
    assert lead.get(f"/bland-sms/api/v1/bulk-updates/{done.pk}/").json()["reason"] == "spam"


def test_reason__of_the_menu(lead: Client) -> None:
    form = lead.get("/admin/bland_sms/conversation/").content.decode()
    assert 'name="reason"' in form
    chosen = {"action": "deactivate_selected", "_selected_action": ["a1"], "reason": "complaint"}
    lead.post("/admin/bland_sms/conversation/", chosen)
    assert BulkUpdate.objects.get().reason == "complaint"


def test_ledger__search(lead: Client, people: BlandSandbox) -> None:
    first, second = update(lead, "a1", "first-reason"), update(lead, "c1", "second-reason")
    for text in ("+1 (555) 000-1111", "1111", "a1", str(first.pk), f"%23{first.pk}"):
        found = shown(lead, f"?q={text.replace('+', '%2B')}")
        assert "first-reason" in found
        assert "second-reason" not in found
    assert "second-reason" in shown(lead, f"?q={second.pk}")
    assert "-reason" not in shown(lead, "?q=%2B15550004444")
    assert "at least 4 digits" in shown(lead, "?q=(99)")


def test_ledger__search_by_the_name_of_an_update(lead: Client, people: BlandSandbox) -> None:
    """As the list, the pages and the messages say it, in the language of who looks."""
    first, second = update(lead, "a1", "first-reason"), update(lead, "c1", "second-reason")
    number = first.pk
    names = (f"Update {number}", f"update {number} ", f"UPDATE  {number}", f"update #{number}")
    theirs = (f"Actualización {number}", f"actualizacion {number}")
    for language, texts in {"en": names, "es": names + theirs}.items():
        for text in texts:
            answer = lead.get(LEDGER, {"q": text}, headers={"accept-language": language})
            found = answer.content.decode()
            assert "first-reason" in found, text
            assert "second-reason" not in found, text
    for text in (theirs[0], f"order {number}", f"update {second.pk + 9}", "update", "update x"):
        assert "-reason" not in shown(lead, f"?q={text}"), text


def test_ledger__search_by_the_name_finds_no_customer(lead: Client, people: BlandSandbox) -> None:
    """Neither one whose conversation has this id, nor one whose number ends so."""
    Conversation(pk="update", user_number="+15550007777", updated_at=NOW).save()
    update(lead, "a1", "first-reason"), update(lead, "update", "second-reason")
    assert "-reason" not in shown(lead, "?q=update 1111")
    assert "second-reason" in shown(lead, "?q=update")


def test_ledger__search_finds_no_customer_without_view_conversation(lead: Client) -> None:
    update(lead, "a1", "first-reason")
    reader = login("view_bulkupdate")
    assert "first-reason" in shown(reader, "?q=a1")
    for number in ("1111", "%2B15550001111"):
        assert "first-reason" not in shown(reader, f"?q={number}")


def test_ledger__filters(lead: Client, staff: AbstractUser) -> None:
    done = update(lead, "a1", "first-reason")
    other = BulkUpdate.objects.create(is_active=False, source="command", status="stopped")
    BulkUpdate.objects.filter(pk=other.pk).update(reason="second-reason", started_at=NOW)
    for query, expected in {
        "whose=mine": "first",
        "whose=operator": "second",
        "source__exact=command": "second",
        "started=today": "first",
        "started_from=2026-05-01&started_to=2026-05-01": "second",
        "started_to=2026-04-30": "",
        "started_from=2026-02-31": "first second",
        "outcome=stopped": "second",
        "outcome=undone": "",
    }.items():
        text = shown(lead, f"?{query}")
        found = " ".join(one for one in ("first", "second") if f"{one}-reason" in text)
        assert (query, found) == (query, expected)
    reader = login("view_bulkupdate")
    assert "first-reason" in shown(reader, f"?whose={staff.pk}")
    assert "second-reason" not in shown(reader, f"?whose={staff.pk}")
    assert done.pk


def test_ledger__all_of_it_as_csv(lead: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bland_sms.admin.results_csv.UPDATES_AT_ONCE", 2)
    monkeypatch.setattr("bland_sms.admin.results_csv.ROWS_AT_ONCE", 2)
    numbers = [update(lead, pk).pk for pk in ("a1", "c1", "c2")]
    many = BulkUpdate.objects.create(is_active=False, source="api", status="cancelled")
    for number in range(5):
        BulkUpdateItem.objects.create(bulk_update=many, conversation_id=f"x{number}")

    def told(query: str = "") -> list[list[str]]:
        text = lead.get(f"{LEDGER}ledger.csv{query}").getvalue().decode("utf-8-sig")
        return [line.split(",") for line in text.splitlines()]

    header, *rows = told()
    at = header.index("update")
    assert sorted(int(row[at]) for row in rows) == [*numbers, *[many.pk] * 5]
    assert [row[header.index("source")] for row in told("?source__exact=api")[1:]] == ["api"] * 5
    assert lead.get(f"{LEDGER}ledger.csv?nonsense=1").status_code == 400
    assert lead.post(f"{LEDGER}ledger.csv").status_code == 405


def test_undo__in_the_message_and_then_gone(lead: Client, people: BlandSandbox) -> None:
    done = update(lead)
    url = "/admin/bland_sms/conversation/a1/change/"
    text = lead.get(url).content.decode()
    [form] = re.findall(rf'<form method="post" action="{LEDGER}{done.pk}/undo/".*?</form>', text)
    fields = dict(re.findall(r'name="(\w+)" value="([^"]*)"', form))
    answer = lead.post(f"{LEDGER}{done.pk}/undo/", fields)
    assert answer.headers["Location"] == url == fields["back"]
    assert Conversation.objects.get(pk="a1").is_active
    undo = BulkUpdate.objects.latest("pk")
    assert undo.undo_of_id == done.pk
    assert f"Undone by update {undo.pk}" in shown(lead)
    assert 'form="bland-sms-undo"' not in lead.get(f"{LEDGER}{done.pk}/change/").content.decode()
    assert f"Update {done.pk}" in shown(lead, "?outcome=undone")
    assert f"Update {undo.pk}" not in shown(lead, "?outcome=undone").replace(
        f"Undone by update {undo.pk}", ""
    )


def test_undo__is_no_link_for_who_may_not_open_it(lead: Client) -> None:
    desk = login("view_conversation", "deactivate_conversation")
    done = update(desk)
    lead.post(f"{LEDGER}{done.pk}/undo/")
    undo = BulkUpdate.objects.latest("pk")
    for address in (LEDGER, f"{LEDGER}{done.pk}/change/"):
        links = {client: client.get(address).content.decode() for client in (desk, lead)}
        link = f'href="{LEDGER}{undo.pk}/change/"'
        assert (link in links[desk], link in links[lead]) == (False, True)
    assert f"Undone by update {undo.pk}" in shown(desk)


def test_undo__returns_to_this_site_only(lead: Client) -> None:
    done = update(lead)
    answer = lead.post(f"{LEDGER}{done.pk}/undo/", {"back": "//evil.example/", "reason": "mistake"})
    undo = BulkUpdate.objects.latest("pk")
    assert answer.headers["Location"] == f"{LEDGER}{undo.pk}/change/"
    assert undo.reason == "mistake"


def test_undo__not_offered_without_the_permission(desk: Client) -> None:
    update(desk)
    text = desk.get("/admin/bland_sms/conversation/a1/change/").content.decode()
    assert "conversation deactivated" in text
    assert "/undo/" not in text


def test_ledger__explains_gaps_in_its_numbers(lead: Client) -> None:
    assert "A number that is missing in this list" in shown(lead)

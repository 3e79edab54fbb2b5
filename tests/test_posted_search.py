"""The search box posts: whatever is pasted into it, no address becomes long, and the list works."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.contrib.auth.models import AbstractUser, Permission
from django.http import HttpResponse
from django.test import Client

from bland_sms.models import Conversation
from bland_sms.search import parse_search
from bland_sms.templatetags.bland_sms_search import posted_search

pytestmark = pytest.mark.django_db

LIST = "/admin/bland_sms/conversation/"
SEARCH = f"{LIST}search/"
LONGEST = 2200
"""Characters of an address: the half of gunicorn's 4,094, since others quote it."""
NUMBERS = [f"+1 (555) 010-{n:04d}" for n in range(200)]
LONG = " ".join(NUMBERS)


@pytest.fixture
def desk(client: Client, staff: AbstractUser) -> Client:
    client.force_login(staff)
    return client


@pytest.fixture
def rows(db: None) -> None:
    Conversation.objects.bulk_create(
        Conversation(
            pk=f"conv_{n}",
            user_number=f"+1555010{n:04d}",
            customer_key=f"+1555010{n:04d}",
            user_digits_reversed=f"1555010{n:04d}"[::-1],
            is_active=n % 2 == 0,
        )
        for n in range(250)
    )


def form_of(page: HttpResponse) -> dict[str, str]:
    """What the search form of a page would send, its box apart."""
    found = re.search(r'<form id="changelist-search".*?</form>', page.content.decode(), re.DOTALL)
    assert found is not None
    assert 'method="post"' in found[0]
    assert found[0].count("method=") == 1
    hidden = re.findall(r'type="hidden" name="([^"]*)" value="([^"]*)"', found[0])
    return {name: value for name, value in hidden if name != "csrfmiddlewaretoken"}


def addresses(page: HttpResponse) -> list[str]:
    return re.findall(r'(?:href|action|src)="([^"#]*)"', page.content.decode())


@pytest.mark.usefixtures("rows")
def test_search__short_text_stands_in_the_address(desk: Client) -> None:
    assert form_of(desk.get(LIST, {"status": "active"})) == {"status": "active"}
    answer = desk.post(SEARCH, {"q": "0002, 0004", "status": "active"})
    assert answer["Location"] in (
        f"{LIST}?q=0002%2C+0004&status=active",
        f"{LIST}?status=active&q=0002%2C+0004",
    )
    one = desk.post(SEARCH, {"q": "conv_1"})["Location"]
    assert desk.get(one)["Location"] == f"{LIST}conv_5F1/change/"


@pytest.mark.usefixtures("rows")
def test_search__long_text_is_kept_and_the_list_works_with_filters(desk: Client) -> None:
    page: Any = desk.post(SEARCH, {"q": LONG}, follow=True)
    assert page.context["cl"].result_count == 200
    assert "Read as 200 whole numbers." in page.content.decode()
    assert page.context["cl"].query == LONG  # the box shows what was pasted
    assert [one for one in addresses(page) if len(one) > LONGEST] == []
    [active] = {one for one in addresses(page) if "status=active" in one}
    filtered: Any = desk.get(LIST + active.replace("&amp;", "&"))
    assert filtered.context["cl"].result_count == 100
    assert "100 more match but are not active." in filtered.content.decode()
    again = desk.post(SEARCH, {"q": "0007", **form_of(filtered)})["Location"]
    assert "status=active" in again
    assert "q=0007" in again
    thread = next(one for one in addresses(filtered) if "/change/" in one).replace("&amp;", "&")
    opened = desk.get(thread if thread.startswith("/") else LIST + thread)
    assert "1 of 100" in opened.content.decode()
    asked = desk.post(
        filtered.wsgi_request.get_full_path(),
        {"action": "deactivate_selected", "_selected_action": "conv_0", "select_across": "1"},
    )
    assert len(asked["Location"]) < LONGEST
    assert "100" in desk.get(asked["Location"]).content.decode()


@pytest.mark.usefixtures("rows")
def test_search__digits_of_another_script_are_long_sooner(desk: Client) -> None:
    text = " ".join(NUMBERS[:60]).translate({ord("0") + n: 0x0660 + n for n in range(10)})
    page: Any = desk.post(SEARCH, {"q": text}, follow=True)
    assert page.context["cl"].result_count == 60
    assert [one for one in addresses(page) if len(one) > LONGEST] == []


@pytest.mark.usefixtures("rows")
def test_search__more_than_one_search_can_take_goes_on_to_the_paste_page(desk: Client) -> None:
    lines = "\n".join(f"+1555010{n:04d}" for n in range(250))
    page = desk.post(SEARCH, {"q": lines}, follow=True)
    assert page.wsgi_request.path == "/admin/bland_sms/bulkupdate/paste/"
    assert page.context["form"].initial["lines"] == lines
    assert "At most 200 numbers or ids at once can be searched for." in page.content.decode()


@pytest.mark.usefixtures("rows")
def test_search__more_than_can_be_taken_by_who_may_only_look(
    client: Client, django_user_model: Any
) -> None:
    person = django_user_model.objects.create_user("tess", is_staff=True)
    person.user_permissions.set(Permission.objects.filter(codename="view_conversation"))
    client.force_login(person)
    page: Any = client.post(SEARCH, {"q": " ".join(map(str, range(1000, 6000)))}, follow=True)
    assert page.wsgi_request.path == LIST
    assert "At most 200 numbers or ids at once." in page.content.decode()
    assert page.context["cl"].result_count == 0


@pytest.mark.usefixtures("rows")
def test_search__kept_no_more_finds_nothing_and_says_so(desk: Client) -> None:
    where = desk.post(SEARCH, {"q": LONG})["Location"]
    for n in range(6):  # the oldest is forgotten
        desk.post(SEARCH, {"q": " ".join(NUMBERS[n + 1 :])})
    page: Any = desk.get(where)
    assert page.context["cl"].result_count == 0
    assert "paste it again" in page.content.decode()
    assert len(desk.session["bland_sms_searches"]) == 5


@pytest.mark.usefixtures("rows")
def test_search__session_in_a_cookie_has_no_room(desk: Client, settings: Any) -> None:
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
    page = desk
    page.login(username="dana", password="secret-enough")
    answer = page.post(SEARCH, {"q": LONG})
    assert (answer.status_code, answer["Location"]) == (307, "/admin/bland_sms/bulkupdate/paste/")


def test_search__needs_to_see_the_list(client: Client, django_user_model: Any) -> None:
    client.force_login(django_user_model.objects.create_user("tess", is_staff=True))
    for model in ("conversation", "webhookdelivery", "syncrun"):
        assert client.post(f"/admin/bland_sms/{model}/search/", {"q": "1"}).status_code == 403


def test_search__form_that_is_too_large_is_told(desk: Client, settings: Any) -> None:
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 1000
    page = desk.post(SEARCH, {"q": LONG}, follow=True)
    assert page.status_code == 200
    assert "more text than the site accepts" in page.content.decode()


def test_search__after_a_login_the_list_is_shown(client: Client, staff: AbstractUser) -> None:
    answer = client.post(SEARCH, {"q": "0002"})
    assert f"next={SEARCH}" in answer["Location"]
    client.force_login(staff)
    assert client.get(SEARCH)["Location"] == LIST


@pytest.mark.parametrize("model", ["bulkupdate", "webhookdelivery"])
def test_search__other_lists_of_ours(model: str, desk: Client) -> None:
    where = f"/admin/bland_sms/{model}/"
    form_of(desk.get(where))
    page: Any = desk.post(f"{where}search/", {"q": LONG}, follow=True)
    assert page.status_code == 200
    assert page.context["cl"].query == LONG
    assert len(page.wsgi_request.get_full_path()) < 100


@pytest.mark.parametrize(
    "form",
    [
        '<form id="changelist-search" method="get" role="search">',
        "<form action='' class=\"a\" id='changelist-search' method='GET'>",
        "<form method=get id=changelist-search>",
    ],
)
def test_posted_search__form_of_a_theme(form: str) -> None:
    context = {"bland_sms_search_url": "/s/?a=1&b=2", "csrf_token": "t<"}
    found = posted_search(context, f"<div>{form}<input></form></div>")
    assert ' method="post" action="/s/?a=1&amp;b=2">' in found
    assert 'value="t&lt;"' in found
    assert found.count("<form") == 1
    assert "get" not in found.lower()
    assert posted_search({}, form) == form


@pytest.mark.parametrize(
    "text", ["+1 555 010 0001 " * 600, "+15550100001" + " " * 20_000 + "+15550100002"]
)
def test_search__nothing_is_left_out_in_silence(text: str) -> None:
    assert parse_search(text).hint == "too_many"


def test_search__blank_space_around_is_no_length() -> None:
    assert len(parse_search(" " * 30_000 + "+15550100001" + "\n" * 30_000).terms) == 1

"""Finding customers: any notation, last digits, ids, pasted lists, and what that costs."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import quote_plus

import pytest
from django.contrib.auth.models import AbstractUser
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from bland_sms.admin import ConversationAdmin
from bland_sms.models import Conversation
from bland_sms.search import find, parse_search, single_id

LIST = "/admin/bland_sms/conversation/"
FIRST, SECOND, THIRD = "+15550100001", "+15550100002", "+15550100003"
Made = Callable[..., Conversation]
pytestmark = pytest.mark.django_db


@pytest.fixture
def made() -> Made:
    """Put a row into the mirror."""

    def make(conversation_id: str, user_number: str = "", **values: Any) -> Conversation:
        return Conversation.objects.create(pk=conversation_id, user_number=user_number, **values)

    return make


@pytest.fixture
def three(made: Made) -> None:
    """Three customers, and one whose number ends as the first one's does."""
    for conversation_id, number in [("conv_1", FIRST), ("conv_2", SECOND), ("conv_3", THIRD)]:
        made(conversation_id, number, agent_number="+15550190001")
    made("conv_other", "+447700990001", agent_number="+15550190002")


@pytest.fixture
def desk(client: Client, staff: AbstractUser) -> Client:
    """A browser in which staff is logged in."""
    client.force_login(staff)
    return client


def found(text: str) -> set[str]:
    condition = find(parse_search(text)).condition
    return set(Conversation.objects.filter(condition).values_list("pk", flat=True))


def page(desk: Client, text: str, more: str = "") -> str:
    return desk.get(f"{LIST}?q={quote_plus(text)}{more}").content.decode()


def listed(html: str) -> set[str]:
    return set(re.findall(r'name="_selected_action" value="([^"]+)"', html))


# --- one number -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "+15550100001",
        "+1 555 010 0001",
        "(555) 010-0001",
        "555.010.0001",
        "555-010-0001",
        "555/010/0001",
        "5550100001",
        "1 555 010 0001",
        "1-555-010-0001",
        "0015550100001",
        "001 555 010 0001",
        "  +1 555 010 0001  ",
        "\u00a0+1\u00a0555\u00a0010\u00a00001",
        "555‐010‐0001",
        "555\u2013010\u20130001",
        "\u202a+1 555 010 0001\u202c",
        "\u2066+15550100001\u2069",
        "５５５０１００００１",
        "٥٥٥٠١٠٠٠٠١",
        "+١ ٥٥٥ ٠١٠ ٠٠٠١",
        "५५५०१००००१",
    ],
)
def test_search__any_notation(text: str, three: None) -> None:
    assert found(text) == {"conv_1"}


@pytest.mark.parametrize(
    "text",
    [
        "＋１５５５０１００００１",
        "（５５５）０１０－０００１",
        "\u200e+1 555 010 0001",
        "+1\u200b555\u200b010\u200b0001",
        "\ufeff+15550100001",
    ],
    ids=[
        "wide plus",
        "wide brackets",
        "left-to-right mark",
        "zero width spaces",
        "byte order mark",
    ],
)
def test_search__notation_as_copied_from_elsewhere(text: str, three: None) -> None:
    assert found(text) == {"conv_1"}


def test_search__national_number_of_another_country(three: None, made: Made, settings: Any) -> None:
    settings.BLAND_SMS = {**settings.BLAND_SMS, "DEFAULT_COUNTRY_CODE": "44"}
    made("conv_london", "+447700900123")
    made("conv_paris", "+337700900123")
    assert found("07700 900123") == {"conv_london"}


def test_search__last_four_digits(three: None) -> None:
    assert found("0002") == {"conv_2"}


def test_search__last_four_digits_of_several(three: None) -> None:
    assert found("0001") == {"conv_1", "conv_other"}


def test_search__more_last_digits_with_a_dash(three: None) -> None:
    assert found("010-0003") == {"conv_3"}


def test_search__last_digits_are_the_last(three: None) -> None:
    assert found("5550") == set()


@pytest.mark.parametrize("digit", ["0009", "9999", "0999"])
def test_search__last_digits_at_the_edge_of_the_range(digit: str, made: Made) -> None:
    made("conv_nine", f"+1555010{digit}")
    made("conv_next", "+15550100000")
    assert found(digit) == {"conv_nine"}


def test_search__exact_match_before_endings(made: Made) -> None:
    made("conv_home", FIRST)
    made("conv_abroad", "+445550100001")
    assert found("5550100001") == {"conv_home"}


def test_search__ending_where_nothing_is_exact(made: Made) -> None:
    made("conv_abroad", "+445550100001")
    assert found("5550100001") == {"conv_abroad"}


def test_search__all_conversations_of_a_number(three: None, made: Made) -> None:
    made("conv_again", FIRST)
    assert found(FIRST) == {"conv_1", "conv_again"}


def test_search__not_in_the_text_of_messages(made: Made) -> None:
    made("conv_1", FIRST, last_message="needle", summary="needle")
    assert found("needle") == set()


@pytest.mark.parametrize("text", ["1", "12", "123", "+12", "1-2", " 001 ", "٠٠١"])
def test_search__too_few_digits(text: str, three: None, desk: Client) -> None:
    html = page(desk, text)
    assert "at least 4 digits" in html
    assert listed(html) == set()


def test_search__enough_digits_give_no_hint(three: None, desk: Client) -> None:
    assert "at least 4 digits" not in page(desk, "0001")


def test_search__no_match_is_said_with_a_way_back(three: None, desk: Client) -> None:
    html = page(desk, "+15550199999")
    assert "No conversation matches." in html
    assert re.search(r'<a href="\?">[^<]*Clear', html)


# --- ids --------------------------------------------------------------------------------------


def test_search__id(three: None) -> None:
    assert found("conv_2") == {"conv_2"}


def test_search__id_of_digits_alone(three: None, made: Made) -> None:
    made("20001", "+15550109999")
    assert found("20001") == {"20001"}


def test_search__id_is_case_sensitive(three: None) -> None:
    assert found("CONV_2") == set()


def test_search__uuid(made: Made) -> None:
    made("b3f1c0de-0000-4000-8000-00000000d001")
    assert found("b3f1c0de-0000-4000-8000-00000000d001") == {"b3f1c0de-0000-4000-8000-00000000d001"}


@pytest.mark.parametrize("text", ["conv_2", " conv_2 "])
def test_search__one_id_opens_its_page(text: str, three: None, desk: Client) -> None:
    response = desk.get(LIST, {"q": text})
    assert (response.status_code, response["Location"]) == (302, f"{LIST}conv_5F2/change/")


def test_search__unknown_id_stays_on_the_list(three: None, desk: Client) -> None:
    assert desk.get(LIST, {"q": "conv_404"}).status_code == 200


def test_search__id_with_a_filter_stays_on_the_list(three: None, desk: Client) -> None:
    assert desk.get(LIST, {"q": "conv_2", "status": "inactive"}).status_code == 200


def test_search__one_id_tells_nothing_without_permission(
    three: None, client: Client, django_user_model: Any
) -> None:
    client.force_login(django_user_model.objects.create_user("sam", is_staff=True))
    assert client.get(LIST, {"q": "conv_2"}).status_code == 403


@pytest.mark.parametrize("text", ["15550100001", "+15550100001", "conv_1,conv_2", "a b", "..", ""])
def test_single_id__is_none_for_anything_else(text: str) -> None:
    assert single_id(text) is None


# --- lists ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        f"{FIRST},{SECOND},{THIRD}",
        f"{FIRST}, {SECOND}, {THIRD},",
        f"{FIRST}\n{SECOND}\n{THIRD}\n",
        f"{FIRST}\r\n{SECOND}\r\n\r\n{THIRD}",
        f"{FIRST};{SECOND}\t{THIRD}",
        f"{FIRST} {SECOND} {THIRD}",
        f"{FIRST}{SECOND}{THIRD}",
        "+1 555 010 0001 +1 555 010 0002 +1 555 010 0003",
        "+1 555 010 0001+1 555 010 0002+1 555 010 0003",
        "5550100001 5550100002 5550100003",
        "555-010-0001 555-010-0002 555-010-0003",
        "(555) 010-0001\n(555) 010-0002\n(555) 010-0003",
        "555 010 0001\n555 010 0002\n555 010 0003",
        "(555)010-0001, 555.010.0002, +1 555 010 0003",
        f"conv_1, {SECOND}, 0003",
        "conv_1\nconv_2\nconv_3",
        "conv_1 conv_2 conv_3",
    ],
)
def test_search__list(text: str, three: None) -> None:
    assert found(text) == {"conv_1", "conv_2", "conv_3"}


@pytest.mark.parametrize(
    "text",
    [
        "(555) 010-0001 (555) 010-0002 (555) 010-0003",
        "(555) 010-0001(555) 010-0002(555) 010-0003",
        "555 010 0001 555 010 0002 555 010 0003",
    ],
    ids=["brackets, lines to spaces", "brackets, lines dropped", "groups, lines to spaces"],
)
def test_search__national_numbers_pasted_into_a_one_line_box(text: str, three: None) -> None:
    assert found(text) == {"conv_1", "conv_2", "conv_3"}


def test_search__same_number_twice_counts_once(three: None) -> None:
    assert found(", ".join([FIRST] * 300)) == {"conv_1"}


def test_search__two_hundred_numbers(desk: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ConversationAdmin, "list_per_page", 250)
    rows = [Conversation(pk=f"c{n}", user_number=f"+1555010{n:04d}") for n in range(210)]
    for row in rows:
        row.derive()
    Conversation.objects.bulk_create(rows)
    html = page(desk, "\n".join(row.user_number for row in rows[:200]))
    assert len(listed(html)) == 200
    assert "At most 200" not in html


def test_search__two_hundred_unknown_numbers(three: None, desk: Client) -> None:
    html = page(desk, "\n".join(f"+4477009{n:05d}" for n in range(200)))
    assert listed(html) == set()
    assert "+447700900199" in html


def test_search__more_than_two_hundred_are_refused(three: None, desk: Client) -> None:
    html = page(desk, "\n".join([FIRST, *(f"+4477009{n:05d}" for n in range(200))]))
    assert "At most 200" in html
    assert listed(html) == set()


def not_found(html: str) -> list[str]:
    block = re.search(r"Not found:(.*?)</p>", html, re.DOTALL)
    return re.findall(r"<bdi>([^<]*)</bdi>", block[1]) if block else []


def test_search__what_of_a_list_was_not_found(three: None, desk: Client) -> None:
    html = page(desk, f"{FIRST}, +15550107777, conv_2, conv_404, 8888")
    assert listed(html) == {"conv_1", "conv_2"}
    assert not_found(html) == ["+15550107777", "conv_404", "8888"]


def test_search__list_that_was_found_whole_says_nothing(three: None, desk: Client) -> None:
    assert "Not found:" not in page(desk, f"{FIRST}, {SECOND}")


def test_search__what_of_a_list_cannot_be_read_is_said_too(three: None, desk: Client) -> None:
    html = page(desk, f"{FIRST}, Dr. Müller; {SECOND}")
    assert listed(html) == {"conv_1", "conv_2"}
    assert "Müller" in " ".join(not_found(html))


def test_search__what_was_not_found_is_escaped(three: None, desk: Client) -> None:
    html = page(desk, f"{FIRST}, <b>x</b>, conv_404")
    assert "<b>x</b>" not in html


def test_search__select_all_that_was_found(three: None, desk: Client, sandbox: Any) -> None:
    sandbox.account.add({"id": "conv_1"})
    sandbox.account.add({"id": "conv_2"})
    form = {"action": "deactivate_selected", "select_across": "1", "_selected_action": "conv_1"}
    desk.post(f"{LIST}?q={quote_plus(f'{FIRST},{SECOND}')}", form)
    assert {seen["conversation_id"] for seen in sandbox.requests("PATCH")} == {"conv_1", "conv_2"}


# --- whatever is typed ------------------------------------------------------------------------

texts = st.one_of(
    st.text(),
    st.text(alphabet="0123456789+ ()-,.\n\u202a\u2066٣３_a"),
    st.lists(st.text(alphabet="0123456789+- "), max_size=250).map(",".join),
)


@given(texts)
@hypothesis_settings(max_examples=300)
def test_parse_search__never_raises(text: str) -> None:
    assert len(parse_search(text).terms) <= 200


@pytest.mark.parametrize(
    "text",
    [
        "'",
        '"',
        "%",
        "_",
        "\\",
        "\x00",
        "' OR 1=1 --",
        "\u202e",
        "😀",
        "a" * 5000,
        "1" * 5000,
        ",,,",
        "+",
    ],
)
def test_search__odd_text_finds_nothing(text: str, three: None, desk: Client) -> None:
    response = desk.get(LIST, {"q": text})
    assert response.status_code == 200
    assert "Traceback" not in response.content.decode()


# --- what it costs ----------------------------------------------------------------------------


def plans(desk: Client, query: str) -> list[str]:
    """How SQLite goes about each statement of the list page that reads conversations."""
    with CaptureQueriesContext(connection) as captured:
        assert desk.get(f"{LIST}?{query}").status_code == 200
    told = []
    for statement in captured.captured_queries:
        if 'FROM "bland_sms_conversation"' in statement["sql"]:
            with connection.cursor() as cursor:
                cursor.execute("EXPLAIN QUERY PLAN " + statement["sql"])
                told.append("\n".join(row[3] for row in cursor.fetchall()))
    return told


only_sqlite = pytest.mark.skipif(
    "connection.vendor != 'sqlite'", reason="reads the query plan of SQLite"
)
SEARCHES = [
    "q=0001",
    "q=%2B15550100001",
    "q=5550100001",
    "q=conv_1,conv_2",
    "q=%2B15550100001,conv_2,0003",
    "q=%2B15559999999",
]


@only_sqlite
@pytest.mark.parametrize(
    "query",
    [
        *SEARCHES,
        "status=active",
        "activity=24h",
        "activity=older",
        "our_number=%2B15550190001",
        "change=waiting",
        "change=failed",
        "status=active&activity=7d",
    ],
)
def test_list__never_reads_the_whole_table(query: str, three: None, desk: Client) -> None:
    told = plans(desk, query)
    assert told
    assert [plan for plan in told if "SCAN bland_sms_conversation" in plan] == []


@only_sqlite
def test_list__newest_first_comes_from_an_index(three: None, desk: Client) -> None:
    assert "TEMP B-TREE" not in "\n".join(plans(desk, ""))


@only_sqlite
@pytest.mark.parametrize("more", ["status=active", "our_number=%2B15550190001"])
@pytest.mark.parametrize("query", ["q=0001", "q=%2B15550100001", "q=conv_1,conv_2"])
def test_list__search_goes_before_a_filter(
    query: str, more: str, three: None, desk: Client
) -> None:
    wide = [
        plan
        for plan in plans(desk, f"{query}&{more}")
        if re.search(r"conv_(status|agent) \((status|agent_number)=\?\)", plan)
    ]
    assert wide == []  # it would read every active conversation to find one customer

"""Who a customer is: one key for any notation, and what is found, counted and hidden by it."""

from __future__ import annotations

import time
from urllib.parse import quote as quote_url

import pytest
from django.contrib.admin.utils import quote
from django.contrib.auth.models import AbstractUser
from django.db import connection
from django.test import Client
from hypothesis import example, given
from hypothesis import strategies as st

from bland_sms.customers import MAX_KEY, customer_key, is_address, may_be_whole, typed_key
from bland_sms.models import Conversation
from bland_sms.search import find, parse_search

LIST = "/admin/bland_sms/conversation/"
DIGITS = st.text("0123456789", min_size=5, max_size=11)
NUMBERS = st.builds("{}{}".format, st.sampled_from("123456789"), DIGITS)


@st.composite
def notations(draw: st.DrawFn, digits: str) -> str:
    """An international number as somebody may write it."""
    text = digits
    for place in sorted(draw(st.sets(st.integers(2, len(digits) - 1), max_size=3)), reverse=True):
        text = (
            text[:place]
            + draw(st.sampled_from([" ", "-", ".", "/", "\u2013", "\u00a0"]))
            + text[place:]
        )
    if draw(st.booleans()):
        wide = draw(st.sampled_from(["０１２３４５６７８９", "٠١٢٣٤٥٦٧٨٩"]))
        text = "".join(
            wide[int(char)] if char.isascii() and char.isdigit() else char for char in text
        )
    plus = draw(st.sampled_from(["", "+", "\uff0b"]))
    channel = draw(st.sampled_from(["", "tel:", "whatsapp:", "SMS:", "rcs:", "imessage:"]))
    around = draw(st.sampled_from(["", " ", "\u202a", "\ufeff"]))
    return f"{around}{channel}{plus}{text}{around}"


@given(st.data(), NUMBERS)
def test_customer_key__notations_of_one_number_are_one(data: st.DataObject, digits: str) -> None:
    assert customer_key(data.draw(notations(digits))) == digits


@given(st.data(), NUMBERS, NUMBERS)
def test_customer_key__different_numbers_stay_different(
    data: st.DataObject, one: str, other: str
) -> None:
    keys = {customer_key(data.draw(notations(digits))) for digits in (one, other)}
    assert len(keys) == len({one, other})


@given(
    st.emails(),
    st.sampled_from(["", "imessage:", "RCS: ", "whatsapp://", "mailto: ", "sms:mailto:"]),
    st.sampled_from(["", "?subject=hi", ";a=1?b=dana@example.com;c", " ?x"]),
)
@example("%00@a.ac", "imessage:", "")
@example("%00@a.ac", "mailto:", "?%40")
def test_customer_key__addresses(address: str, prefix: str, parameters: str) -> None:
    key = customer_key(address)
    assert key == customer_key(key) == key.lower()
    assert customer_key(f" imessage:{address.upper()} ") == customer_key(address.upper())
    if "mailto" in prefix:
        address = f"{quote_url(address)}{parameters}"
    assert customer_key(prefix + address) == key


@pytest.mark.parametrize("text", ["x", "5", "+5", "\u0661", "\ufdfa"])
def test_customer_key__is_never_longer_than_its_column(text: str) -> None:
    key = customer_key(text * 300)
    assert len(key) == 255
    assert customer_key(key) == key


@given(st.text(max_size=80))
def test_customer_key__any_text_has_a_stable_key(text: str) -> None:
    key = customer_key(text)
    assert len(key) <= 255
    assert customer_key(f"  {text}\t") == key


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("+44 (0)20 7946 0958", "442079460958"),
        ("0015550100001", "15550100001"),
        ("tel:%2B15550100001", "15550100001"),
        ("sms://+15550100001", "15550100001"),
        ("tel:+1-555-010-0001;ext=5", "15550100001"),
        ("sms:+15550100001?body=hi%3B%20there", "15550100001"),
        ("whatsapp://send?phone=15550100001", "send?phone=15550100001"),  # not one with all others
        ("mailto:Dana@Example.com?subject=hi", "dana@example.com"),
        ("sms:Support%20desk?x=1", "support desk?x=1"),  # no number or address: kept as a whole
        ("+1\u00b7555\u00b7010\u00b70001", "15550100001"),
        ("Dana@Example.com", "dana@example.com"),
        ("mailto:dana%2Btexts@example.com", "dana+texts@example.com"),
        ("imessage:dana%2Btexts@example.com", "dana%2btexts@example.com"),
        ("12345", "12345"),
        ("(0)20 7946 0958", "02079460958"),
        ("facebook:15550100001", "facebook:15550100001"),
        ("001234567", "1234567"),
        ("00123456", "00123456"),  # too short for what follows an international prefix
        ("(-)", "(-)"),  # no digits, but not one with all others
        ("", ""),
    ],
)
def test_customer_key__examples(text: str, key: str) -> None:
    assert customer_key(text) == key


@pytest.mark.parametrize(
    ("text", "country_code", "key"),
    [
        ("(659) 234-5678", "1", "16592345678"),
        ("+65 9234 5678", "1", "6592345678"),
        ("07700 900123", "44", "447700900123"),
        ("+447700900123", "1", "447700900123"),
        ("06 1234 5678", "39", "390612345678"),
        ("1 555 010 0001", "1", "15550100001"),
        ("Dana@Example.com", "1", "dana@example.com"),
        ("5", "1", "5"),  # too short for any number
        ("4915123456789", "49", "4915123456789"),  # numbers there may be as long as that at home
        ("62812345678", "62", "62812345678"),
        ("494915123456", "49", "494915123456"),
        ("3902123", "39", "393902123"),  # no whole number, so one without its country
        ("", "1", ""),
        ("6592345678", "1", "16592345678"),  # also a whole number of another country
    ],
)
def test_typed_key__country(text: str, country_code: str, key: str) -> None:
    assert typed_key(text, country_code) == key


@pytest.mark.parametrize(
    ("number", "country_code", "expected"),
    [
        ("5550100001", "1", True),
        ("+15550100001", "44", True),
        ("555010", "1", False),
        ("55501000012345", "1", False),
        ("5", "1", False),
        ("", "1", False),
    ],
)
def test_may_be_whole(number: str, country_code: str, expected: bool) -> None:
    assert may_be_whole(number, country_code) is expected


# --- in the mirror ----------------------------------------------------------------------------


def found(text: str) -> set[str]:
    return set(
        Conversation.objects.filter(find(parse_search(text)).condition).values_list("pk", flat=True)
    )


@pytest.fixture
def desk(client: Client, staff: AbstractUser) -> Client:
    client.force_login(staff)
    return client


NOTATIONS = ["+15550100001", "15550100001", "+1 (555) 010-0001", "tel:+15550100001"]


@pytest.fixture
def one_customer(db: None) -> list[str]:
    """Four conversations of one customer, each in a notation of its own, and somebody else's."""
    for place, number in enumerate(NOTATIONS):
        Conversation.objects.create(pk=f"conv_{place}", user_number=number, is_active=True)
    Conversation.objects.create(pk="conv_else", user_number="+15550100002", is_active=True)
    return [f"conv_{place}" for place in range(len(NOTATIONS))]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("dana@example.com", True),
        ("größe@x", True),
        ("_@x", True),
        *(
            (text, False)
            for text in ("@", "dana@", "@x", "a@b@c", "a b@c", "a@b\n", ".@.", "", "a")
        ),
        ("a" * 1_000_000, False),  # in linear time: files of megabytes may be one cell
        ("a" * 500_000 + "@" + "." * 500_000, False),
    ],
    ids=lambda value: str(value)[:20],
)
def test_is_address(text: str, expected: bool) -> None:
    assert is_address(text) is expected


def test_page__counts_all_notations_as_one_customer(desk: Client, one_customer: list[str]) -> None:
    html = desk.get(f"{LIST}conv_0/change/").content.decode()
    assert "Deactivate all active conversations of this customer (4)" in html
    for other in one_customer[1:]:
        assert f"{LIST}{quote(other)}/change/" in html
    assert f"{LIST}{quote('conv_else')}/change/" not in html


@pytest.mark.parametrize("text", [*NOTATIONS, "5550100001", "whatsapp:+1 555 010 0001"])
def test_search__finds_every_notation(text: str, one_customer: list[str]) -> None:
    assert found(text) == set(one_customer)


@pytest.mark.django_db
def test_search__an_address_as_the_list_prints_it() -> None:
    Conversation.objects.create(pk="conv_mail", user_number="Dana@Example.com")
    assert found("Dana@Example.com") == found("dana@example.COM ") == {"conv_mail"}


@pytest.mark.django_db
def test_search__last_digits_whatever_they_are() -> None:
    for number in range(0, 10_000, 7):
        Conversation.objects.create(pk=f"c{number:04}", user_number=f"+1555010{number:04}")
    for number in (*range(0, 10_000, 7 * 11), 9_996, 9_989, 0):
        if number % 7 == 0:
            assert found(f"{number:04}") == {f"c{number:04}"}
    Conversation.objects.create(pk="nines", user_number="+15550109999")
    Conversation.objects.create(pk="more_nines", user_number="+15550999999")
    assert found("9999") == {"nines", "more_nines"}
    assert found("99999") == {"more_nines"}


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("0369 0614 0642 0763", ["0369", "0614", "0642", "0763"]),
        ("12345678 87654321", ["12345678", "87654321"]),
        ("123456789 987654321", ["123456789", "987654321"]),
        ("+1 (555) 010 0001 +44 20 7946 0958", ["+1 (555) 010 0001", "+44 20 7946 0958"]),
        ("+1 555 010 0001 0002", ["+1 555 010 0001", "0002"]),
        ("dana@example.com rob@example.com", ["dana@example.com", "rob@example.com"]),
        ('"+15550100001","dana@example.com"', ["+15550100001", "dana@example.com"]),
        ("<dana@example.com> <rob@example.com>", ["dana@example.com", "rob@example.com"]),
    ],
)
def test_parse_search__what_is_separate_stays_so(text: str, terms: list[str]) -> None:
    assert [term.text for term in parse_search(text).terms] == terms


def test_list__says_how_a_search_was_read(desk: Client) -> None:
    html = desk.get(f"{LIST}?q=0369+0614+0642+0763").content.decode()
    assert "Read as 4 endings." in html
    assert "Read as" not in desk.get(f"{LIST}?q=0369").content.decode()


def test_list__names_what_the_filters_hide(desk: Client, one_customer: list[str]) -> None:
    Conversation.objects.filter(pk__in=one_customer[1:]).update(is_active=False)
    html = desk.get(f"{LIST}?q=%2B15550100001&status=active").content.decode()
    assert "3 more match but are not active." in html
    html = desk.get(f"{LIST}?q=%2B15550100001&status=active&activity=7d").content.decode()
    assert "4 more match, which the filters hide." in html
    assert "more match" not in desk.get(f"{LIST}?q=%2B15550100001").content.decode()


def test_api__number_in_any_notation(desk: Client, one_customer: list[str]) -> None:
    answer = desk.get("/bland-sms/api/v1/conversations/", {"user_number": "+1 (555) 010-0001"})
    assert {row["id"] for row in answer.json()["results"]} == set(one_customer)


@pytest.mark.parametrize("text", ["tel:", "rcs:", "%40", " "])
def test_customer_key__of_long_texts_takes_no_time(text: str) -> None:
    """Each prefix is a pass over the text: of megabytes of them it would take hours."""
    assert len(customer_key(text * 1_000_000)) <= MAX_KEY


@pytest.mark.parametrize("text", [" ", "1 ", "0 ", "(1", "- ", "1", "+ ", "a@ "])
def test_parse_search__takes_linear_time(text: str) -> None:
    """A hundred times its length must not take ten thousand times as long."""
    began = time.process_time()
    parse_search(text * 10_000)
    assert time.process_time() - began < 5


@pytest.mark.skipif("connection.vendor != 'postgresql'", reason="needs a collation that is not C")
@pytest.mark.django_db
def test_search__on_columns_that_no_collation_bends() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT a.attname, c.collname FROM pg_attribute a JOIN pg_collation c"
            " ON c.oid = a.attcollation WHERE a.attrelid = 'bland_sms_conversation'::regclass"
            " AND a.attname IN ('id', 'customer_key', 'user_digits_reversed')"
        )
        assert dict(cursor.fetchall()) == dict.fromkeys(
            ("id", "customer_key", "user_digits_reversed"), "C"
        )


@pytest.mark.skipif("connection.vendor != 'postgresql'", reason="no other database has them")
@pytest.mark.django_db
def test_columns_compared_byte_by_byte__have_no_second_index_for_like() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT indexdef FROM pg_indexes WHERE tablename = 'bland_sms_conversation'")
        assert [text for (text,) in cursor.fetchall() if "pattern_ops" in text] == []
        cursor.execute("SET LOCAL enable_seqscan = off")
        cursor.execute("EXPLAIN SELECT 1 FROM bland_sms_conversation WHERE id LIKE 'conv-1%'")
        plan = " ".join(text for (text,) in cursor.fetchall())
    assert "bland_sms_conversation_pkey" in plan
    assert "Index Cond" in plan

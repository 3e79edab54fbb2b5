"""Words in messages: found through the database's own index, by those who may read them."""

from __future__ import annotations

import re
import string
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from io import StringIO
from typing import Any

import pytest
from django.contrib.auth.models import AbstractUser, Permission
from django.core.management import call_command
from django.db import OperationalError, connection
from django.test import Client
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bland_sms import wordsearch
from bland_sms.erasure import forget
from bland_sms.mirror import apply_page
from bland_sms.models import Conversation, Message
from bland_sms.payloads import ConversationPayload, MessagePayload
from bland_sms.wordsearch import create, drop, exists, find

# MySQL sees its own uncommitted rows in no full-text index.
pytestmark = pytest.mark.django_db(transaction=True)

NOON = datetime(2026, 2, 3, 12, tzinfo=timezone.utc)
PAGE = "/admin/bland_sms/conversation/messages/"


@pytest.fixture
def index() -> Iterator[None]:
    create()
    yield
    drop()


def say(pk: str, *texts: str, minute: int = 0, number: str = "+15550100001") -> None:
    at = NOON + timedelta(minutes=minute)
    messages = tuple(
        MessagePayload(
            bland_id=f"m{place}",
            sender="USER",
            text=text,
            created_at=at + timedelta(seconds=place),
        )
        for place, text in enumerate(texts)
    )
    apply_page(
        [
            ConversationPayload(
                id=pk,
                is_active=True,
                updated_at=at,
                observed_at=at,
                user_number=number,
                messages=messages,
            )
        ]
    )


def texts(words: str, **narrow: Any) -> list[str]:
    return [message.text for message in find(words, **narrow).messages]


@pytest.mark.usefixtures("index")
def test_find__all_words_newest_first() -> None:
    say("conv_1", "Where is my parcel", "the PARCEL came, thanks")
    say("conv_2", "my parcel is broken", minute=5)
    assert texts("parcel") == [
        "my parcel is broken",
        "the PARCEL came, thanks",
        "Where is my parcel",
    ]
    assert texts("broken parcel") == ["my parcel is broken"]
    assert texts("parc") == []
    assert texts("parcel", conversations=Conversation.objects.filter(pk="conv_2")) == [
        "my parcel is broken"
    ]


@pytest.mark.usefixtures("index")
@pytest.mark.parametrize(
    "words", ["", "   ", '"', "* ( ) - + ~ @ < >", "'; --", "\0", "a\0b", "%s"]
)
def test_find__whatever_is_typed(words: str) -> None:
    say("conv_1", "hello")
    assert texts(words) == []
    assert texts(f'hello "{words}') in ([], ["hello"])


@pytest.mark.usefixtures("index")
def test_find__too_frequent_words_are_looked_for_in_what_was_copied_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def too_long(messages: Any) -> Any:
        raise OperationalError(3024, "Query execution was interrupted")

    say("conv_1", "the parcel", "a parcel", "my parcel")
    monkeypatch.setattr(wordsearch, "_in_time", too_long)
    monkeypatch.setattr(wordsearch, "MOST_LOOKED_AT", 2)
    found = find("parcel")
    assert [message.text for message in found.messages] == ["my parcel", "a parcel"]
    assert found.is_of_newest


@pytest.mark.usefixtures("index")
@given(
    threads=st.lists(
        st.lists(st.tuples(st.integers(0, 20), st.booleans()), max_size=4), min_size=1, max_size=6
    ),
    first=st.integers(0, 3),
)
@example(
    threads=[[(9, False), (0, True), (1, True)], [(5, True)]], first=1
)  # the thread of the last word holds old words
@settings(max_examples=40, suppress_health_check=list(HealthCheck))
def test_find__the_newest_wherever_it_looks_first(
    threads: list[list[tuple[int, bool]]], first: int
) -> None:
    """Threads begin and fall silent at any time: the newest messages may be in each of them."""
    Conversation.objects.all().delete()
    Message.objects.all().delete()
    told = []
    for number, messages in enumerate(threads):
        at = NOON + timedelta(minutes=max([minute for minute, _has in messages] or [0]))
        Conversation.objects.create(pk=f"conv_{number}", is_active=True, last_message_at=at)
        for place, (minute, has_word) in enumerate(messages):
            text = f"{'parcel' if has_word else 'letter'} {number} {place}"
            Message.objects.create(
                conversation_id=f"conv_{number}",
                bland_id=f"m{place}",
                position=place,
                text=text,
                created_at=NOON + timedelta(minutes=minute),
            )
            told.append((minute, text))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(wordsearch, "NEWEST_CONVERSATIONS", first)
        patched.setattr(wordsearch, "MOST_FOUND", 1)
        found = find("parcel")
    minutes = {text: minute for minute, text in told}
    wanted = sorted((minute for minute, text in told if "parcel" in text), reverse=True)
    assert [minutes[message.text] for message in found.messages] == wanted[:1]
    assert found.is_cut == (len(wanted) > 1)


WORDS = st.one_of(
    st.text("abcdefghijklmnop", min_size=3, max_size=8),
    st.text("0123456789", min_size=3, max_size=8),
    st.sampled_from(["PARCEL", "größe", "señor", "заказ", "com", "the", "www", "1234e5", "v20"]),
)


@pytest.mark.usefixtures("index")
@given(
    pieces=st.lists(
        st.tuples(
            WORDS, st.text(string.punctuation + " \n\u00a0\u2013\u2019", min_size=1, max_size=3)
        ),
        min_size=1,
        max_size=5,
    ),
    before=st.text(string.punctuation, max_size=2),
)
@example(pieces=[("ORD", "-"), ("1234", "")], before="")
@example(pieces=[("15550001111", " ")], before="+")
@example(pieces=[("dana", "@"), ("example", "."), ("com", "/"), ("help", "")], before="")
@example(pieces=[("1234", "."), ("500", "")], before="$")
@example(pieces=[("Where", " is my "), ("parcel", "?")], before="")
@settings(max_examples=150, suppress_health_check=list(HealthCheck))
def test_find__each_word_of_a_message_whatever_stands_beside_it(
    pieces: list[tuple[str, str]], before: str
) -> None:
    """A number of an order, an amount, a part of an address: each database reads such texts by
    rules of its own."""
    text = before + "".join(word + between for word, between in pieces)
    Conversation.objects.all().delete()
    say("conv_1", text)
    for word in re.findall(r"\w{3,}", text):
        assert texts(word) == [text], word
    assert texts(text) == [text]


def test_create__finds_what_was_there_before() -> None:
    say("conv_1", "an elephant")
    create()
    create()
    assert texts("elephant") == ["an elephant"]
    drop()
    drop()
    assert not exists()


@pytest.mark.usefixtures("index")
def test_find__changed_and_erased_messages_leave_the_index() -> None:
    say("conv_1", "an elephant", "a giraffe")
    say("conv_1", "an elephant", "a zebra", minute=1)
    assert (texts("giraffe"), texts("zebra")) == ([], ["a zebra"])
    forget("+15550100001")
    assert (texts("zebra"), Message.objects.count()) == ([], 0)
    if connection.vendor == "sqlite":
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT count(*) FROM {wordsearch.INDEX} WHERE text MATCH 'zebra'")
            assert cursor.fetchone() == (0,)


@pytest.mark.usefixtures("index")
def test_page__finds_and_leads_to_the_thread(client: Client, django_user_model: Any) -> None:
    say("conv_1", "an elephant <script>")
    reader: AbstractUser = django_user_model.objects.create_user("tess", is_staff=True)
    may = ["view_conversation", "view_transcript"]
    reader.user_permissions.set(Permission.objects.filter(codename__in=may))
    client.force_login(reader)
    page = client.get(PAGE, {"q": "elephant"}).content.decode()
    assert "an elephant &lt;script&gt;" in page
    assert "/admin/bland_sms/conversation/conv_5F1/change/" in page
    assert "No copied message" in client.get(PAGE, {"q": "zebra"}).content.decode()
    reader.user_permissions.set(Permission.objects.filter(codename="view_conversation"))
    assert client.get(PAGE, {"q": "elephant"}).status_code == 403


def test_page__says_when_there_is_no_index(client: Client, staff: AbstractUser) -> None:
    client.force_login(staff)
    page = client.get(PAGE, {"q": "elephant"})
    assert page.status_code == 200
    assert "cannot be searched" in page.content.decode()


def test_command() -> None:
    out = StringIO()
    call_command("bland_sms_search_index", "--create", stdout=out)
    call_command("bland_sms_search_index", "--drop", stdout=out)
    assert out.getvalue().splitlines() == ["There is an index.", "There is no index."]

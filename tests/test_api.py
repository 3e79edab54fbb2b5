"""The REST API: who may read what, pages that lose nothing, filters, and errors in one shape."""

from __future__ import annotations

import json
import random
from base64 import b64encode
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from importlib.util import find_spec
from typing import Any

import pytest
from django.contrib.auth.models import AbstractUser, Permission
from django.core.cache import cache
from django.db import OperationalError, connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import resolve, reverse
from rest_framework import exceptions, permissions
from rest_framework.settings import api_settings

from bland_sms.api.conversations import ConversationViewSet
from bland_sms.api.urls import urlpatterns
from bland_sms.models import BulkUpdate, BulkUpdateItem, Conversation, Message
from bland_sms.sandbox import BlandSandbox

pytestmark = pytest.mark.django_db
Login = Callable[..., Client]

API = "/bland-sms/api/v1/"
CONVERSATIONS = f"{API}conversations/"
UPDATES = f"{API}bulk-updates/"
SOME_DAY = datetime(2026, 3, 1, tzinfo=timezone.utc)
TEXTS = {"last_message", "summary", "variables", "extra"}


@pytest.fixture
def login(django_user_model: Any) -> Login:
    """A client of an account that has these permissions and no others; not staff."""
    number = iter(range(1000))

    def make(*codenames: str) -> Client:
        user = django_user_model.objects.create_user(f"program{next(number)}")
        found = Permission.objects.filter(codename__in=codenames)
        assert len(found) == len(codenames)
        user.user_permissions.set(found)
        client = Client()
        client.force_login(user)
        return client

    return make


@pytest.fixture
def reader(login: Login) -> Client:
    return login("view_conversation")


@pytest.fixture
def lead(client: Client, staff: AbstractUser) -> Client:
    client.force_login(staff)
    return client


def make_rows(number: int, *, moment: datetime = SOME_DAY, step: float = 0, **values: Any) -> None:
    rows = [
        Conversation(pk=f"c{n:05d}", updated_at=moment + timedelta(seconds=n * step), **values)
        for n in range(number)
    ]
    for row in rows:
        row.derive()
    Conversation.objects.bulk_create(rows, batch_size=500)


def walk(client: Client, url: str, **query: Any) -> list[list[dict[str, Any]]]:
    """Every page from the first on, by the links."""
    pages, query_or_none = [], query or None
    next_url: str | None = url
    while next_url:
        answer = client.get(next_url, query_or_none)
        assert answer.status_code == 200, answer.content
        pages.append(answer.json()["results"])
        next_url, query_or_none = answer.json()["next"], None
        assert len(pages) < 1000
    return pages


def ids(pages: list[list[dict[str, Any]]]) -> list[str]:
    return [row["id"] for page in pages for row in page]


# --- who may ----------------------------------------------------------------------------------


def addresses() -> Iterator[tuple[str, str]]:
    one, update = f"{CONVERSATIONS}c00000/", f"{UPDATES}1/"
    yield from (("get", CONVERSATIONS), ("get", one), ("patch", one), ("options", one))
    yield from (("get", f"{one}messages/"), ("post", f"{one}refresh/"), ("delete", one))
    yield from (("get", UPDATES), ("post", UPDATES), ("get", update), ("get", f"{update}items/"))
    for name in ("continue", "retry", "cancel", "undo"):
        yield "post", f"{update}{name}/"
    yield "get", f"{API}summary/"
    orders = f"{API}standing-orders/"
    yield from (("get", orders), ("post", orders), ("get", f"{orders}1/"))
    yield "post", f"{orders}1/lift/"
    if find_spec("drf_spectacular"):
        yield "get", f"{API}schema/"


@pytest.mark.parametrize(("method", "url"), list(addresses()))
def test_api__nothing_without_permission(
    method: str, url: str, login: Login, sandbox: BlandSandbox
) -> None:
    make_rows(1)
    update = BulkUpdate.objects.create(pk=1, is_active=False, source="api", status="finished")
    BulkUpdateItem.objects.create(bulk_update=update, conversation_id="c00000", state="changed")
    body = {"is_active": False, "conversation_ids": ["c00000"]}
    for client, expected in ((Client(), {401}), (login(), {403, 404})):
        answer = client.generic(method.upper(), url, json.dumps(body), "application/json")
        assert answer.status_code in expected
        assert set(answer.json()) == {"code", "detail"}
    assert not sandbox.log
    assert BulkUpdate.objects.count() == 1


def test_api__every_address_is_among_those() -> None:
    names = {str(resolve(url).url_name) for _method, url in addresses()}
    assert names == {str(pattern.name) for pattern in urlpatterns}


@pytest.mark.parametrize("name", [b"a\x00:b", b"\xff:b", b"dana:wrong", b"nobody:x", b":", b"dana"])
def test_api__login_that_nobody_has(name: bytes, staff: AbstractUser) -> None:
    for accept in ("application/json", "text/html"):
        headers = {"Authorization": f"Basic {b64encode(name).decode()}", "Accept": accept}
        assert Client().get(CONVERSATIONS, headers=headers).status_code == 401


def test_api__an_action_that_names_no_permission_is_nobody_s(staff: AbstractUser, rf: Any) -> None:
    from rest_framework.decorators import action
    from rest_framework.response import Response
    from rest_framework.test import force_authenticate

    from bland_sms.api.conversations import ConversationViewSet

    class Careless(ConversationViewSet):
        @action(detail=False)
        def everything(self, request: Any) -> Any:
            return Response("all of it")

    request = rf.get("/")
    force_authenticate(request, staff)
    assert Careless.as_view({"get": "everything"})(request).status_code == 403


@pytest.mark.parametrize(
    "spoil", [{"is_active": False}, {"password": "!"}], ids=["inactive", "logged out"]
)
def test_api__account_that_is_gone(
    spoil: dict[str, Any], reader: Client, django_user_model: Any
) -> None:
    django_user_model.objects.update(**spoil)
    assert reader.get(CONVERSATIONS).status_code == 401


def test_texts__are_absent_without_the_permission(login: Login) -> None:
    make_rows(1, last_message="hello", summary="said hello", variables={"a": 1}, extra={"b": 2})
    Message.objects.create(conversation_id="c00000", bland_id="m1", position=0, text="hello")
    reader, listener = login("view_conversation"), login("view_conversation", "view_transcript")
    for url in (CONVERSATIONS, f"{CONVERSATIONS}c00000/"):
        found = reader.get(url).json()
        row = found["results"][0] if "results" in found else found
        assert not TEXTS & set(row)
        assert "hello" not in reader.get(url).content.decode()
        assert "said hello" in listener.get(url).content.decode()
    assert reader.get(f"{CONVERSATIONS}c00000/messages/").status_code == 403
    told = listener.get(f"{CONVERSATIONS}c00000/messages/").json()["results"]
    assert told[0]["text"] == "hello"
    assert told[0]["id"] == "m1"


def test_host__may_narrow(rf: Any, staff: AbstractUser) -> None:
    from rest_framework.test import force_authenticate

    from bland_sms.api.conversations import ConversationViewSet

    class Ours(ConversationViewSet):
        def get_queryset(self) -> Any:
            return super().get_queryset().filter(agent_number="+1")

    make_rows(2)
    Conversation.objects.filter(pk="c00001").update(agent_number="+1")

    def ask(actions: dict[str, str], **kwargs: str) -> Any:
        request = rf.get("/")
        force_authenticate(request, staff)
        return Ours.as_view(actions)(request, **kwargs)

    assert [row["id"] for row in ask({"get": "list"}).data["results"]] == ["c00001"]
    assert ask({"get": "retrieve"}, pk="c00000").status_code == 404
    assert ask({"get": "messages"}, pk="c00000").status_code == 404


# --- what is shown ----------------------------------------------------------------------------


def test_conversation__as_it_is_shown(lead: Client, copied: Any, sandbox: BlandSandbox) -> None:
    (conversation_id,) = copied(1, user_number="+15550100007", last_message="hi")
    shown = lead.get(f"{CONVERSATIONS}{conversation_id}/").json()
    assert shown["id"] == conversation_id
    assert (shown["is_active"], shown["status"]) == (True, "active")
    assert shown["user_number"] == "+15550100007"
    assert shown["updated_at"].endswith("Z")
    assert shown["copied_at"].endswith("Z")
    assert shown["missing_since"] is None
    assert set(shown) >= TEXTS


def test_conversation__never_told_is_null(reader: Client) -> None:
    Conversation.objects.create(pk="c1")
    shown = reader.get(f"{CONVERSATIONS}c1/").json()
    assert shown["updated_at"] is shown["last_activity_at"] is shown["copied_at"] is None


def test_conversation__times_are_utc_wherever_the_host_is(reader: Client, settings: Any) -> None:
    settings.TIME_ZONE = "America/New_York"
    make_rows(1)
    assert reader.get(CONVERSATIONS).json()["results"][0]["updated_at"] == "2026-03-01T00:00:00Z"


@pytest.mark.parametrize(
    "url",
    [
        "nope",
        "..",
        "%2e%2e",
        "a%00b",
        "x" * 200,
        "c00000%20",
        "C00000",
        "%D9%A3",
        "c00000/messages/x",
    ],
)
def test_conversation__not_found(url: str, lead: Client) -> None:
    make_rows(1)
    answer = lead.get(f"{CONVERSATIONS}{url}/")
    assert answer.status_code == 404


def test_messages__in_bland_s_order_without_bland_s_own(lead: Client) -> None:
    make_rows(1, transcript_observed_at=SOME_DAY)
    Message.objects.bulk_create(
        Message(
            conversation_id="c00000",
            bland_id=f"m{n}",
            position=n,
            sender="USER",
            text="<Call Connected>" if n == 0 else f"text {n}",
        )
        for n in range(230)
    )
    pages = walk(lead, f"{CONVERSATIONS}c00000/messages/", page_size=100)
    assert [len(page) for page in pages] == [100, 100, 29]
    assert ids(pages) == [f"m{n}" for n in range(1, 230)]
    page = lead.get(f"{CONVERSATIONS}c00000/messages/").json()
    assert page["copied_at"] == "2026-03-01T00:00:00Z"


# --- pages ------------------------------------------------------------------------------------


def test_pages__rows_that_share_one_time(reader: Client) -> None:
    make_rows(1500)
    pages = walk(reader, CONVERSATIONS, page_size=100)
    assert ids(pages) == [f"c{n:05d}" for n in reversed(range(1500))]


def test_pages__ties_of_any_length_and_both_directions(reader: Client) -> None:
    chance = random.Random(1)
    rows = []
    for n in range(120):
        moment = SOME_DAY + timedelta(seconds=chance.choice([0, 0, 0, 1, 2, 3, 40 + n]))
        rows.append(Conversation(pk=f"c{chance.randrange(10**6)}_{n}", updated_at=moment))
    Conversation.objects.bulk_create(rows)
    expected = [row.pk for row in sorted(rows, key=lambda r: (r.updated_at, r.pk), reverse=True)]
    for size in (1, 7, 40, 120, 121):
        pages, url = [], f"{CONVERSATIONS}?page_size={size}"
        while url:
            answer = reader.get(url).json()
            pages.append(answer)
            url = answer["next"]
        assert ids([page["results"] for page in pages]) == expected
        assert pages[0]["previous"] is None
        backwards, url = [pages[-1]], pages[-1]["previous"]
        while url:
            answer = reader.get(url).json()
            backwards.append(answer)
            url = answer["previous"]
        assert ids([page["results"] for page in reversed(backwards)]) == expected
        assert backwards[-1]["previous"] is None


def test_pages__rows_that_are_added_above_move_nothing(reader: Client) -> None:
    make_rows(30, step=1)
    first = reader.get(CONVERSATIONS, {"page_size": 10}).json()
    Conversation.objects.create(pk="new", updated_at=SOME_DAY + timedelta(days=1))
    Conversation.objects.filter(pk="c00005").delete()
    rest = walk(reader, first["next"])
    assert ids([first["results"], *rest]) == [f"c{n:05d}" for n in reversed(range(30)) if n != 5]


def test_pages__keep_their_filters(reader: Client) -> None:
    make_rows(30, is_active=False)
    Conversation.objects.filter(pk__gte="c00010").update(is_active=True)
    pages = walk(reader, CONVERSATIONS, is_active="false", page_size=4)
    assert ids(pages) == [f"c{n:05d}" for n in reversed(range(10))]


@pytest.mark.parametrize(("size", "rows"), [("1", 1), ("200", 200), ("201", 200), ("9" * 30, 200)])
def test_pages__size_is_capped(size: str, rows: int, reader: Client) -> None:
    make_rows(205)
    assert len(reader.get(CONVERSATIONS, {"page_size": size}).json()["results"]) == rows


JUNK = [
    "",
    "x",
    "é",
    "n",
    "n1",
    "n1.",
    "n.c1",
    "x1.c1",
    "n1.c1.c2",
    "n1.a/b",
    "n1.a\x00",
    "n1.c1\n",
    f"n{10**16}.c1",
    "n٣.c1",
    f"n1.{'a' * 129}",
]


@pytest.mark.parametrize("cursor", JUNK)
def test_pages__junk_cursor(cursor: str, reader: Client) -> None:
    answer = reader.get(CONVERSATIONS, {"cursor": cursor})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_cursor")


@pytest.mark.parametrize("cursor", [f"n{10**16 - 1}.z", f"p-{10**16 - 1}.A", "n0.0", "p0.0"])
def test_pages__cursor_at_the_end_of_time(cursor: str, reader: Client) -> None:
    assert reader.get(CONVERSATIONS, {"cursor": cursor}).status_code == 200


@pytest.mark.parametrize("cursor", ["n-1", "n1.1", "n1.5", f"n{10**18}", "n", "1"])
def test_pages__junk_cursor_of_numbers(cursor: str, lead: Client) -> None:
    make_rows(1)
    answer = lead.get(UPDATES, {"cursor": cursor})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_cursor")
    largest = 10**18 - 1
    messages = f"{CONVERSATIONS}c00000/messages/"
    for direction in "np":
        assert lead.get(UPDATES, {"cursor": f"{direction}{largest}"}).status_code == 200
        cursor = f"{direction}{largest}.{largest}"
        assert lead.get(messages, {"cursor": cursor}).status_code == 200


# --- filters ----------------------------------------------------------------------------------


@pytest.fixture
def varied() -> None:
    rows = [
        Conversation(pk="a", user_number="+15550100001", agent_number="+1", updated_at=SOME_DAY),
        Conversation(
            pk="b",
            user_number="+15550100002",
            agent_number="+2",
            is_active=False,
            updated_at=SOME_DAY + timedelta(days=1),
        ),
        Conversation(
            pk="c",
            user_number="+445550100001",
            agent_number="+2",
            human_handoff_at=SOME_DAY,
            updated_at=SOME_DAY + timedelta(days=2),
        ),
    ]
    for row in rows:
        row.save()


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", "cba"),
        ("is_active=true", "ca"),
        ("is_active=False", "b"),
        ("status=handed_off", "c"),
        ("status=active", "a"),
        ("user_number=%2B15550100002", "b"),
        ("user_number=+15550100002", "b"),
        ("user_number=%2B1555", ""),
        ("agent_number=%2B2", "cb"),
        ("agent_number=%2B2&is_active=true", "c"),
        ("updated_after=2026-03-02T00:00:00Z", "cb"),
        ("updated_after=2026-03-02T00:00:00.000001Z", "c"),
        ("updated_after=2026-03-02T02:00:00%2B02:00", "cb"),
        ("updated_after=2026-03-02", "cb"),
        ("updated_after=0001-01-01T00:00:00Z", "cba"),
        ("search=0001", "ca"),
        ("search=(555)%20010-0001", "a"),
        ("search=b", "b"),
        ("search=a,0002", "ba"),
        ("search=0001&agent_number=%2B1", "a"),
        ("search=zzz", ""),
    ],
)
def test_filters__find(query: str, found: str, varied: None, reader: Client) -> None:
    answer = reader.get(f"{CONVERSATIONS}?{query}")
    assert "".join(row["id"] for row in answer.json()["results"]) == found


@pytest.mark.parametrize(
    ("query", "field", "words"),
    [
        ("is_active=maybe", "is_active", "true or false"),
        ("is_active=", "is_active", "true or false"),
        ("status=gone", "status", "handed_off"),
        ("status=%00", "status", "handed_off"),
        ("status=active&status=inactive", "status", "more than once"),
        ("user_number=", "user_number", "stored"),
        ("user_number=%00", "user_number", "stored"),
        ("agent_number=" + "1" * 65, "agent_number", "stored"),
        ("updated_after=yesterday", "updated_after", "2026"),
        ("updated_after=2026-13-01T00:00:00Z", "updated_after", "2026"),
        ("updated_after=0001-01-01T00:00:00%2B14:00", "updated_after", "2026"),
        ("updated_after=2026-01-01T00:00:00+02:00", "updated_after", "%2B"),
        ("updated_after=%00", "updated_after", "2026"),
        ("search=123", "search", "4 digits"),
        ("search=12,34,+1", "search", "4 digits"),
        ("search=", "search", "4 digits"),
        ("search=%20,", "search", "4 digits"),
        ("search=" + ",".join(f"x{n}" for n in range(201)), "search", "200"),
        ("page_size=0", "page_size", "1 to 200"),
        ("page_size=-1", "page_size", "1 to 200"),
        ("page_size=ten", "page_size", "1 to 200"),
        ("page_size=%D9%A3", "page_size", "1 to 200"),
        ("user_nubmer=1", "user_nubmer", "did you mean user_number?"),
        ("offset=1", "offset", "agent_number"),
        ("%ED%A0%80=1", "\ufffd\ufffd\ufffd", "Unknown"),
        ("a%00=1", "a", "Unknown"),
    ],
)
def test_filters__unusable_values(query: str, field: str, words: str, reader: Client) -> None:
    make_rows(1)
    answer = reader.get(f"{CONVERSATIONS}?{query}")
    body = answer.json()
    assert (answer.status_code, body["code"]) == (400, "invalid")
    assert words in body["fields"][field][0]["detail"]
    assert body["detail"].startswith(f"{field}: ")


@pytest.mark.skipif("connection.vendor != 'sqlite'", reason="reads the query plan of SQLite")
@pytest.mark.parametrize(
    "query",
    [
        {},
        {"is_active": "true"},
        {"is_active": "false"},
        {"status": "active"},
        {"user_number": "+1"},
        {"agent_number": "+1"},
        {"updated_after": "2026-01-01T00:00:00Z"},
        {"search": "0001"},
        {"search": "+15550100001"},
        {"status": "active", "updated_after": "2026-01-01T00:00:00Z"},
    ],
)
def test_filters__by_index_only(query: dict[str, str], reader: Client) -> None:
    make_rows(30, user_number="+15550100001", agent_number="+1")
    next_url = reader.get(CONVERSATIONS, {**query, "page_size": 10}).json()["next"]
    with CaptureQueriesContext(connection) as captured:
        assert reader.get(CONVERSATIONS, query).status_code == 200
        assert next_url is None or reader.get(next_url).status_code == 200
    for statement in captured.captured_queries:
        if 'FROM "bland_sms_conversation"' in statement["sql"]:
            with connection.cursor() as cursor:
                cursor.execute("EXPLAIN QUERY PLAN " + statement["sql"])
                plan = "\n".join(row[3] for row in cursor.fetchall())
            if not query:
                plan = plan.replace("SCAN bland_sms_conversation USING INDEX", "walks down")
            assert "SCAN" not in plan, plan
            if not {"user_number", "search"} & set(query):  # those find a few rows
                assert "TEMP B-TREE" not in plan, plan


# --- what it costs ----------------------------------------------------------------------------


def queries(client: Client, url: str, **query: Any) -> int:
    with CaptureQueriesContext(connection) as captured:
        assert client.get(url, query).status_code == 200
    assert not [one for one in captured.captured_queries if "OFFSET" in one["sql"]]
    return len(captured)


def test_cost__same_number_of_queries_at_any_size(
    lead: Client, started: Any, staff: AbstractUser
) -> None:
    found: dict[str, set[int]] = {}
    for number in (10, 500):
        Conversation.objects.all().delete()
        BulkUpdate.objects.all().delete()
        make_rows(number, user_number="+15550100001")
        Message.objects.bulk_create(
            Message(conversation_id="c00000", bland_id=f"m{n}", position=n) for n in range(number)
        )
        for _update in range(number // 10):
            BulkUpdate.objects.create(is_active=False, source="api", status="finished")
        update = started([f"c{n:05d}" for n in range(number)], requested_by=staff)
        for name, url, query in (
            ("conversations", CONVERSATIONS, {"page_size": 200}),
            ("filtered", CONVERSATIONS, {"page_size": 200, "status": "active"}),
            ("search", CONVERSATIONS, {"page_size": 200, "search": "0001"}),
            ("conversation", f"{CONVERSATIONS}c00000/", {}),
            ("messages", f"{CONVERSATIONS}c00000/messages/", {"page_size": 200}),
            ("updates", UPDATES, {"page_size": 200}),
            ("update", f"{UPDATES}{update.pk}/", {}),
            ("items", f"{UPDATES}{update.pk}/items/", {"page_size": 200}),
        ):
            found.setdefault(name, set()).add(queries(lead, url, **query))
        later = lead.get(CONVERSATIONS, {"page_size": 5}).json()["next"]
        found.setdefault("next page", set()).add(queries(lead, later))
    assert found == {
        "conversations": {3},
        "filtered": {3},
        "search": {5},
        "conversation": {3},
        "messages": {4},
        "updates": {3},
        "update": {4},
        "items": {4},
        "next page": {3, 4},
    }


# --- errors -----------------------------------------------------------------------------------


def test_errors__all_have_a_code(lead: Client, reader: Client) -> None:
    make_rows(1)
    one = f"{CONVERSATIONS}c00000/"
    for answer, status, code in (
        (Client().get(CONVERSATIONS), 401, "not_authenticated"),
        (reader.get(UPDATES), 403, "permission_denied"),
        (lead.get(f"{CONVERSATIONS}nope/"), 404, "not_found"),
        (lead.get(f"{UPDATES}99999999999999999999/"), 404, "not_found"),
        (lead.get(f"{UPDATES}x/"), 404, "not_found"),
        (lead.put(one), 405, "method_not_allowed"),
        (lead.get(f"{one}refresh/"), 405, "method_not_allowed"),
        (lead.get(one, headers={"Accept": "image/png"}), 406, "not_acceptable"),
        (lead.patch(one, "is_active=1", "application/x-www-form-urlencoded"), 415, None),
        (lead.patch(one, "{", "application/json"), 400, "parse_error"),
        (lead.patch(one, "{}", "application/json"), 400, "invalid"),
    ):
        assert answer.status_code == status, answer.content
        assert answer.json()["code"] == (code or "unsupported_media_type")
        assert answer.json()["detail"]
        assert "no-store" in answer["Cache-Control"]


def test_errors__database_away(reader: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*args: Any) -> None:
        raise OperationalError("secret host name")

    monkeypatch.setattr("bland_sms.api.paging.KeysetPagination._rows", away)
    answer = reader.get(CONVERSATIONS)
    assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")
    assert "secret" not in answer.content.decode()
    assert int(answer["Retry-After"]) > 0


def test_errors__settings_that_cannot_be_read(lead: Client, settings: Any) -> None:
    make_rows(1)
    settings.BLAND_SMS = {"API_KEY": "org_secret_key_123", "NONSENSE": 1}
    answer = lead.patch(f"{CONVERSATIONS}c00000/", '{"is_active": false}', "application/json")
    assert (answer.status_code, answer.json()["code"]) == (503, "not_configured")
    assert "org_secret" not in answer.content.decode()


# --- throttles --------------------------------------------------------------------------------


def test_throttle__only_where_the_host_sets_a_rate(
    lead: Client, settings: Any, sandbox: BlandSandbox
) -> None:
    cache.clear()
    make_rows(1)
    for _time in range(3):
        assert lead.get(CONVERSATIONS).status_code == 200
    settings.REST_FRAMEWORK = {
        "DEFAULT_THROTTLE_RATES": {"bland_sms_read": "2/min", "bland_sms_write": "1/min"}
    }
    statuses = [lead.get(CONVERSATIONS).status_code for _time in range(3)]
    assert statuses == [200, 200, 429]
    answer = lead.get(CONVERSATIONS)
    assert answer.json()["code"] == "throttled"
    assert int(answer["Retry-After"]) > 0
    refresh = f"{CONVERSATIONS}c00000/refresh/"
    assert [lead.post(refresh).status_code for _time in range(2)] == [404, 429]
    cache.clear()


# --- in a browser -----------------------------------------------------------------------------


def test_browsable__pages_and_forms(lead: Client, started: Any) -> None:
    make_rows(60)
    update = started(["c00000"])
    for url, words in (
        (CONVERSATIONS, "cursor="),
        (f"{CONVERSATIONS}c00000/", "&quot;is_active&quot;: true"),
        (f"{CONVERSATIONS}c00000/messages/", "results"),
        (UPDATES, "&quot;conversation_ids&quot;: []"),
        (f"{UPDATES}{update.pk}/", "queued"),
        (f"{UPDATES}{update.pk}/items/", "waiting"),
        (f"{UPDATES}{update.pk}/cancel/", "method_not_allowed"),
        (f"{CONVERSATIONS}?status=x", "handed_off"),
    ):
        answer = lead.get(url, headers={"Accept": "text/html"})
        assert answer["Content-Type"].startswith("text/html")
        assert words in answer.content.decode(), url


def test_urls__have_names() -> None:
    assert reverse("bland_sms:conversation-detail", args=["c1"]) == f"{CONVERSATIONS}c1/"
    assert reverse("bland_sms:bulk-update-continue", args=[7]) == f"{UPDATES}7/continue/"


# --- permissions and errors of the host -----------------------------------------------------------


class OwnRows(permissions.BasePermission):
    """A host's: conversations with its own number, and nobody from outside its house."""

    def has_permission(self, request: Any, view: Any) -> bool:
        return "X-Outside" not in request.headers

    def has_object_permission(self, request: Any, view: Any, row: Any) -> bool:
        return getattr(row, "agent_number", "") != "+16660000002"


def test_api_permission_classes__are_asked_as_well_as_ours(
    login: Login, reader: Client, set_bland: Callable[..., None]
) -> None:
    make_rows(1)
    other = Conversation(pk="other", updated_at=SOME_DAY, agent_number="+16660000002")
    other.derive()
    other.save()
    set_bland(API_PERMISSION_CLASSES=[f"{__name__}.OwnRows"])
    assert reader.get(CONVERSATIONS).status_code == 200
    assert reader.get(f"{CONVERSATIONS}c00000/").status_code == 200
    assert reader.get(f"{CONVERSATIONS}other/").status_code == 403
    outside = {"X-Outside": "1"}
    assert reader.get(CONVERSATIONS, headers=outside).json()["code"] == "permission_denied"
    assert reader.post(UPDATES, {}, "application/json", headers=outside).status_code == 403
    assert login().get(CONVERSATIONS).status_code == 403  # ours as ever


def test_api_permission_classes__that_cannot_be_imported_let_nobody_in(
    reader: Client, set_bland: Callable[..., None]
) -> None:
    set_bland(API_PERMISSION_CLASSES=["nowhere.at.All"])
    answer = reader.get(CONVERSATIONS)
    assert (answer.status_code, answer.json()["code"]) == (503, "not_configured")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (exceptions.ValidationError({"detail": "Not today."}), "Not today."),
        (exceptions.AuthenticationFailed({"detail": "Expired.", "code": "old"}), "Expired."),
        (exceptions.ValidationError({api_settings.NON_FIELD_ERRORS_KEY: ["Both."]}), "Both."),
        (exceptions.ValidationError({"reason": ["Too long."]}), "reason: Too long."),
    ],
)
def test_error__detail_names_fields_only(
    error: Exception, told: str, reader: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise error

    monkeypatch.setattr(ConversationViewSet, "list", refuse)
    assert reader.get(CONVERSATIONS).json()["detail"] == told

"""The stand-in for Bland on the wire, asked by a client that is not ours."""

from __future__ import annotations

import ast
import gzip
import http.client
import http.server
import json
import socket
import sys
import time
from collections.abc import Callable, Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from urllib.parse import urlencode, urlsplit

import pytest

import bland_sms.sandbox
from bland_sms.conf import Secret
from bland_sms.sandbox import Account, BlandSandbox, seed_account, stand_in
from bland_sms.sandbox.writers import Writers
from bland_sms.webhooks.signature import is_signed

KEY = "sandbox-key"
CONVERSATIONS = "/v1/sms/conversations"
ASKED = {"is_active": False}


class Answered(NamedTuple):
    """What came over the wire."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes
    seconds: float

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        [error] = self.json["errors"]
        assert self.json["data"] is None
        assert error["message"]
        return str(error["error"])


@pytest.fixture(scope="module")
def server() -> Iterator[BlandSandbox]:
    with BlandSandbox(api_key=KEY) as running:
        yield running


@pytest.fixture
def bland(server: BlandSandbox) -> BlandSandbox:
    """A stand-in as it is in the beginning, with one active conversation."""
    server.account = Account()
    server.faults.clear()
    server.log.clear()
    server.enveloped, server.rate_limit, server.latency_seconds = False, None, 0
    server.account.add({"id": "conv_1", "updated_at": "2026-01-02T03:04:05.678Z"})
    return server


def call(
    bland: BlandSandbox, method: str, path: str, body: Any = None, key: str | None = KEY
) -> Answered:
    parts = urlsplit(bland.base_url)
    assert parts.hostname is not None
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=60)
    headers = {} if key is None else {"authorization": key}
    content = body if isinstance(body, bytes) else None if body is None else json.dumps(body)
    began = time.monotonic()
    try:
        connection.request(method, path, content, headers)
        response = connection.getresponse()
        return Answered(
            response.status, response.headers, response.read(), time.monotonic() - began
        )
    finally:
        connection.close()


def patch(bland: BlandSandbox, conversation_id: str = "conv_1", body: Any = ASKED) -> Answered:
    return call(bland, "PATCH", f"{CONVERSATIONS}/{conversation_id}", body)


def is_applied(bland: BlandSandbox) -> bool:
    return bland.account.rows["conv_1"]["is_active"] is False


# --- updates ----------------------------------------------------------------------------------


def test_update__bare(bland: BlandSandbox) -> None:
    answered = patch(bland)
    row = bland.account.rows["conv_1"]
    assert answered.status == 200
    assert answered.json == {
        "message": "Conversation updated successfully",
        "conversation": {"id": "conv_1", "is_active": False, "updated_at": row["updated_at"]},
    }
    assert row["is_active"] is False
    assert row["updated_at"] > "2026-01-02T03:04:05.678Z"


def test_update__enveloped(bland: BlandSandbox) -> None:
    bare = patch(bland).json
    bland.enveloped = True
    enveloped = patch(bland).json
    bare["conversation"].pop("updated_at")
    enveloped["data"]["conversation"].pop("updated_at")
    assert enveloped == {"data": bare, "errors": None}


def test_update__and_back(bland: BlandSandbox) -> None:
    patch(bland)
    assert patch(bland, body={"is_active": True}).json["conversation"]["is_active"] is True
    assert not is_applied(bland)


@pytest.mark.parametrize(
    "body", [{}, {"is_active": None}, {"is_active": "false"}, {"is_active": 0}, [], b"", b"{"]
)
def test_update__value_that_is_no_boolean(body: Any, bland: BlandSandbox) -> None:
    answered = patch(bland, body=body)
    assert (answered.status, answered.code) == (400, "INVALID_IS_ACTIVE_VALUE")
    assert not is_applied(bland)


@pytest.mark.parametrize("path", [CONVERSATIONS, CONVERSATIONS + "/"])
def test_update__without_an_id(path: str, bland: BlandSandbox) -> None:
    answered = call(bland, "PATCH", path, ASKED)
    assert (answered.status, answered.code) == (400, "CONVERSATION_ID_REQUIRED")


@pytest.mark.parametrize("method", ["PATCH", "GET"])
def test_conversation__unknown(method: str, bland: BlandSandbox) -> None:
    answered = call(bland, method, f"{CONVERSATIONS}/conv_404", ASKED)
    assert (answered.status, answered.code) == (404, "CONVERSATION_NOT_FOUND")


@pytest.mark.parametrize("key", [None, "", "another"])
@pytest.mark.parametrize("method", ["PATCH", "GET"])
def test_conversation__wrong_key(method: str, key: str | None, bland: BlandSandbox) -> None:
    answered = call(bland, method, f"{CONVERSATIONS}/conv_1", ASKED, key)
    assert (answered.status, answered.code) == (401, "AUTH_FAILURE")
    assert not is_applied(bland)


@pytest.mark.parametrize("path", ["/", "/v1/sms", "/v1/sms/conversationsx", "/sms/conversations"])
def test_route__unknown_has_none_of_blands_codes(path: str, bland: BlandSandbox) -> None:
    answered = call(bland, "GET", path)
    assert answered.status == 404
    assert b"CONVERSATION_NOT_FOUND" not in answered.body


def test_detail__has_messages(bland: BlandSandbox) -> None:
    message = {"id": "m1", "sender": "USER", "message": "Hello"}
    bland.account.add({"id": "conv_2", "messages": [message]})
    answered = call(bland, "GET", f"{CONVERSATIONS}/conv_2")
    assert answered.json["errors"] is None
    assert answered.json["data"]["id"] == "conv_2"
    assert answered.json["data"]["messages"] == [message]


def test_server__keeps_a_connection_open(bland: BlandSandbox) -> None:
    parts = urlsplit(bland.base_url)
    assert parts.hostname is not None
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=60)
    sockets = set()
    for _ in range(3):
        connection.request("GET", f"{CONVERSATIONS}/conv_1", headers={"authorization": KEY})
        assert connection.getresponse().read()
        sockets.add(id(connection.sock))
    connection.close()
    assert len(sockets) == 1


# --- lists ------------------------------------------------------------------------------------


@pytest.fixture
def many(bland: BlandSandbox) -> BlandSandbox:
    """Sixty conversations, one a day, in no order."""
    bland.account.rows.clear()
    for n in sorted(range(60), key=lambda n: n * 37 % 60):
        moment = f"2026-0{1 + n // 28}-{1 + n % 28:02d}T00:00:00.000Z"
        bland.account.add(
            {
                "id": f"conv_{n:02d}",
                "created_at": moment,
                "updated_at": moment,
                "user_number": f"+155501000{n:02d}",
                "is_active": n % 2 == 0,
                "message_count": n,
                "messages": [{"id": "m1"}],
            }
        )
    return bland


def listed(bland: BlandSandbox, **query: Any) -> list[str]:
    return [row["id"] for row in page(bland, **query)["data"]]


def page(bland: BlandSandbox, **query: Any) -> Any:
    answered = call(bland, "GET", f"{CONVERSATIONS}?{urlencode(query, doseq=True)}")
    assert answered.status == 200
    return answered.json


def condition(field: str, operator: str, value: Any) -> dict[str, Any]:
    return {"field": field, "operator": operator, "value": value}


NEWEST_FIRST = [f"conv_{n:02d}" for n in range(59, -1, -1)]


def test_list_a__begins_with_the_newest_25(many: BlandSandbox) -> None:
    body = page(many)
    assert [row["id"] for row in body["data"]] == NEWEST_FIRST[:25]
    assert body["errors"] is None
    assert body["extra"]["pagination"] == {
        "totalItems": 60,
        "totalPages": 3,
        "currentPage": 1,
        "pageSize": 25,
    }


def test_list_a__pages(many: BlandSandbox) -> None:
    assert listed(many, page=3, pageSize=25) == NEWEST_FIRST[50:]
    assert listed(many, page=4, pageSize=25) == []


def test_list_a__order(many: BlandSandbox) -> None:
    assert listed(many, sortBy="message_count", sortDir="asc", pageSize=3) == [
        "conv_00",
        "conv_01",
        "conv_02",
    ]


@pytest.mark.parametrize("dialect", ["a", "b"])
def test_list__has_no_messages(dialect: str, many: BlandSandbox) -> None:
    many.account.dialect = dialect
    [row] = page(many, pageSize=1, limit=1)["data"]
    assert not {"messages", "human_handoff_at"} & set(row)
    assert {"id", "is_active", "updated_at", "user_number", "last_message"} <= set(row)


FILTERS = [
    ("is_active", "eq", False, {n for n in range(60) if n % 2}),
    ("message_count", "gt", 57, {58, 59}),
    ("message_count", "gte", 57, {57, 58, 59}),
    ("message_count", "lt", 2, {0, 1}),
    ("message_count", "lte", 2, {0, 1, 2}),
    ("created_at", "gte", "2026-03-03T00:00:00.000Z", {58, 59}),
    ("user_number", "contains", "0005", set(range(50, 60)) | {5}),
    ("user_number", "startsWith", "+15550100059", {59}),
    ("user_number", "endsWith", "07", {7}),
]


@pytest.mark.parametrize(("field", "operator", "value", "expected"), FILTERS)
def test_list_a__filter(
    field: str, operator: str, value: Any, expected: set[int], many: BlandSandbox
) -> None:
    filters = json.dumps([condition(field, operator, value)])
    found = listed(many, filters=filters, pageSize=100)
    assert set(found) == {f"conv_{n:02d}" for n in expected}


@pytest.mark.parametrize(("field", "operator", "value", "expected"), FILTERS)
@pytest.mark.parametrize("name", ["filters", "filters[]"])
def test_list_b__filter(
    name: str, field: str, operator: str, value: Any, expected: set[int], many: BlandSandbox
) -> None:
    many.account.dialect = "b"
    one = condition(field, {"eq": "equals"}.get(operator, operator), value)
    found = listed(many, **{name: json.dumps([one] if name == "filters" else one)})
    assert set(found) == {f"conv_{n:02d}" for n in expected}


def test_list__filters_add_up(many: BlandSandbox) -> None:
    conditions = [condition("message_count", "gte", 50), condition("is_active", "eq", True)]
    assert len(listed(many, filters=json.dumps(conditions), pageSize=100)) == 5
    many.account.dialect = "b"
    conditions[1]["operator"] = "equals"
    texts = [json.dumps(one) for one in conditions]
    assert len(listed(many, **{"filters[]": texts})) == 5


def test_list_b__not(many: BlandSandbox) -> None:
    many.account.dialect = "b"
    assert len(listed(many, filters=json.dumps([condition("is_active", "not", True)]))) == 30


def test_list_b__begins_with_the_newest_and_is_long(many: BlandSandbox) -> None:
    many.account.dialect = "b"
    body = page(many)
    assert [row["id"] for row in body["data"]] == NEWEST_FIRST
    assert body["pagination"]["totalItems"] == 60
    assert "extra" not in body


def test_list_b__pages_and_order(many: BlandSandbox) -> None:
    many.account.dialect = "b"
    assert listed(many, **{"limit": 2, "from": 3}) == NEWEST_FIRST[3:5]
    assert listed(many, limit=2, sort_by="message_count", ascending="true") == [
        "conv_00",
        "conv_01",
    ]


@pytest.mark.parametrize(
    ("field", "operator"),
    [("nonsense", "equals"), ("is_active", "nonsense"), ("message_count", "eq")],
    ids=["field", "operator", "operator of dialect a"],
)
def test_list_b__unknown_filter_is_ignored(field: str, operator: str, many: BlandSandbox) -> None:
    many.account.dialect = "b"
    assert len(listed(many, filters=json.dumps([condition(field, operator, 1)]))) == 60


def test_list_b__longest_page(many: BlandSandbox) -> None:
    many.account.dialect = "b"
    assert len(listed(many, limit=1000)) == 60
    answered = call(many, "GET", f"{CONVERSATIONS}?limit=1001")
    assert (answered.status, answered.code) == (400, "INVALID_PARAMETER")


def test_list_a__has_no_longest_page(many: BlandSandbox) -> None:
    assert len(listed(many, pageSize=5000)) == 60


def test_list__filters_ignored_on_demand(many: BlandSandbox) -> None:
    many.account.ignores_filters = True
    filters = json.dumps([condition("is_active", "eq", True)])
    assert len(listed(many, filters=filters, pageSize=100)) == 60


def test_list__clamped_on_demand(many: BlandSandbox) -> None:
    many.account.longest_page = 10
    body = page(many, pageSize=100)
    assert len(body["data"]) == body["extra"]["pagination"]["pageSize"] == 10


# --- faults that leave no answer --------------------------------------------------------------


@pytest.mark.parametrize("applied", [False, True], ids=["before", "after"])
def test_fault__hang(applied: bool, bland: BlandSandbox) -> None:
    bland.faults.add("conv_1", f"hang_{'after' if applied else 'before'}:0.3")
    began = time.monotonic()
    with pytest.raises(http.client.RemoteDisconnected):
        patch(bland)
    assert time.monotonic() - began >= 0.3
    assert is_applied(bland) is applied


@pytest.mark.parametrize("applied", [False, True], ids=["before", "after"])
def test_fault__reset(applied: bool, bland: BlandSandbox) -> None:
    bland.faults.add("conv_1", f"reset_{'after' if applied else 'before'}")
    with pytest.raises(ConnectionResetError) as raised:
        patch(bland)
    assert not isinstance(raised.value, http.client.RemoteDisconnected)
    assert is_applied(bland) is applied


@pytest.mark.parametrize("applied", [False, True], ids=["before", "after"])
def test_fault__close(applied: bool, bland: BlandSandbox) -> None:
    bland.faults.add("conv_1", f"close_{'after' if applied else 'before'}")
    with pytest.raises(http.client.RemoteDisconnected):
        patch(bland)
    assert is_applied(bland) is applied


def test_fault__truncated(bland: BlandSandbox) -> None:
    bland.faults.add("conv_1", "truncated")
    with pytest.raises(http.client.IncompleteRead):
        patch(bland)
    assert is_applied(bland)


# --- faults that answer -----------------------------------------------------------------------

Check = Callable[[Answered], object]


def conversation(answered: Answered) -> Any:
    return answered.json["conversation"]


def constants(answered: Answered) -> list[str]:
    found: list[str] = []
    json.loads(answered.body, parse_constant=found.append)
    return found


def is_no_json(answered: Answered) -> bool:
    try:
        json.loads(answered.body)
    except ValueError:
        return True
    return False


def is_too_deep(answered: Answered) -> bool:
    try:
        json.loads(answered.body)
    except RecursionError:
        return True
    return False


def keys_of_conversation(answered: Answered) -> list[str]:
    """With those that stand there twice."""
    keys: list[str] = []

    def note(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys.extend(key for key, _ in pairs)
        return dict(pairs)

    json.loads(answered.body, object_pairs_hook=note)
    return keys


def seconds_to_come_back(answered: Answered) -> float:
    at = parsedate_to_datetime(answered.headers["Retry-After"])
    return (at - parsedate_to_datetime(answered.headers["Date"])).total_seconds()


# fault, status, whether it was applied, what else is so
ANSWERED: list[tuple[Any, int, bool, Check]] = [
    ("400", 400, False, lambda a: a.code == "INVALID_IS_ACTIVE_VALUE"),
    ("401", 401, False, lambda a: a.code == "AUTH_FAILURE"),
    ("403", 403, False, lambda a: a.code == "ENTERPRISE_REQUIRED"),
    ("404", 404, False, lambda a: a.code == "CONVERSATION_NOT_FOUND"),
    ("404_route", 404, False, is_no_json),
    ("408", 408, False, lambda a: a.json["errors"]),
    ("409", 409, False, lambda a: a.json["errors"]),
    ("422", 422, False, lambda a: a.json["errors"]),
    ("429", 429, False, lambda a: a.headers["Retry-After"] is None),
    ("429:7", 429, False, lambda a: a.headers["Retry-After"] == "7"),
    ("429date:60", 429, False, lambda a: 58 <= seconds_to_come_back(a) <= 61),
    ("429junk", 429, False, lambda a: not a.headers["Retry-After"].isdigit()),
    ("500", 500, False, lambda a: a.code == "ERROR_UPDATING_CONVERSATION"),
    ("500_applied", 500, True, lambda a: a.code == "ERROR_UPDATING_CONVERSATION"),
    ("503", 503, False, lambda a: a.headers["Retry-After"] is None),
    ("503:2", 503, False, lambda a: a.headers["Retry-After"] == "2"),
    ("503date:60", 503, False, lambda a: 58 <= seconds_to_come_back(a) <= 61),
    ("html502", 502, False, lambda a: b"<h1>" in a.body and is_no_json(a)),
    *(
        (f"redirect{status}:http://127.0.0.1:9/x", status, False, lambda a: (
            a.headers["Location"] == "http://127.0.0.1:9/x"
        ))
        for status in (301, 302, 303, 307, 308)
    ),
    ("bad_json", 200, True, is_no_json),
    ("empty200", 200, True, lambda a: a.body == b""),
    ("html200", 200, True, lambda a: a.body.startswith(b"<html>")),
    ("list_body", 200, True, lambda a: isinstance(a.json, list)),
    ("errors_body", 200, True, lambda a: a.code == "SOMETHING_ODD"),
    ("nan", 200, True, lambda a: constants(a) == ["NaN"]),
    ("infinite", 200, True, lambda a: a.json["message"] == float("inf")),
    ("deep", 200, True, is_too_deep),
    ("duplicate_keys", 200, True, lambda a: keys_of_conversation(a).count("is_active") == 2),
    ("wrong_id", 200, True, lambda a: conversation(a)["id"] != "conv_1"),
    ("missing", 200, True, lambda a: "is_active" not in conversation(a)),
    ("nulls", 200, True, lambda a: conversation(a)["is_active"] is None),
    ("strings", 200, True, lambda a: conversation(a)["is_active"] == "false"),
    ("numbers", 200, True, lambda a: type(conversation(a)["is_active"]) is int),
    ("not_applied", 200, False, lambda a: conversation(a)["is_active"] is True),
    ("old_ts", 200, True, lambda a: conversation(a)["updated_at"] < "2026"),
    ("future_ts", 200, True, lambda a: conversation(a)["updated_at"] > "2090"),
    ("no_ts", 200, True, lambda a: "updated_at" not in conversation(a)),
    ("bad_ts", 200, True, lambda a: not conversation(a)["updated_at"][0].isdigit()),
    ("bad_ts:9999-12-31", 200, True, lambda a: conversation(a)["updated_at"] == "9999-12-31"),
    ("drip:0.002", 200, True, lambda a: a.seconds >= 0.002 * len(a.body)),
    ("huge:1", 200, True, lambda a: len(a.body) > 1024 * 1024),
    ("gzipbomb:1", 200, True, lambda a: (
        a.headers["Content-Encoding"] == "gzip"
        and len(gzip.decompress(a.body)) >= 1024 * 1024 > 10 * len(a.body)
    )),
    ("echo_key", 400, False, lambda a: KEY.encode() in a.body),
    ("cookie", 200, True, lambda a: a.headers["Set-Cookie"]),
    (
        {"status": 418, "headers": {"X-Odd": "1"}, "body": "<teapot>"},
        418,
        False,
        lambda a: a.body == b"<teapot>" and a.headers["X-Odd"] == "1",
    ),
    ({"status": 200, "body": {"a": 1}}, 200, False, lambda a: a.json == {"a": 1}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("fault", "status", "applied", "check"), ANSWERED, ids=[str(row[0])[:20] for row in ANSWERED]
)
def test_fault__answer(
    fault: Any, status: int, applied: bool, check: Check, bland: BlandSandbox
) -> None:
    bland.faults.add("conv_1", fault)
    answered = patch(bland)
    assert answered.status == status
    assert check(answered)
    assert is_applied(bland) is applied
    assert patch(bland).status == 200  # once, and no more


@pytest.mark.parametrize("fault", ["old_ts", "future_ts", "wrong_id"])
def test_fault__odd_values_are_in_the_answer_alone(fault: str, bland: BlandSandbox) -> None:
    bland.faults.add("PATCH conv_1", fault)
    patch(bland)
    row = call(bland, "GET", f"{CONVERSATIONS}/conv_1").json["data"]
    assert row["id"] == "conv_1"
    assert row["updated_at"][:4] == time.strftime("%Y", time.gmtime())


@pytest.mark.parametrize(
    ("fault", "name", "value"),
    [
        ("missing", "is_active", "absent"),
        ("strings", "is_active", "false"),
        ("not_applied", "is_active", True),
        ("wrong_id", "id", "conv_somebody_else"),
        ("no_ts", "updated_at", "absent"),
    ],
)
def test_fault__in_the_envelope_too(fault: str, name: str, value: Any, bland: BlandSandbox) -> None:
    bland.enveloped = True
    bland.faults.add("conv_1", fault)
    assert patch(bland).json["data"]["conversation"].get(name, "absent") == value


# --- which call -------------------------------------------------------------------------------


def statuses(bland: BlandSandbox, number: int = 3) -> list[int]:
    return [patch(bland).status for _ in range(number)]


def test_faults__line_up_and_wear_off(bland: BlandSandbox) -> None:
    bland.faults.add("conv_1", "500", "503")
    assert statuses(bland) == [500, 503, 200]


def test_faults__for_ever(bland: BlandSandbox) -> None:
    bland.faults.add("conv_1", "500", "forever:503")
    assert statuses(bland, 4) == [500, 503, 503, 503]


def test_faults__of_one_conversation(bland: BlandSandbox) -> None:
    bland.account.add({"id": "conv_2"})
    bland.faults.add("conv_1", "forever:500")
    assert patch(bland, "conv_2").status == 200


def test_faults__of_one_method(bland: BlandSandbox) -> None:
    bland.faults.add("PATCH conv_1", "forever:500")
    assert call(bland, "GET", f"{CONVERSATIONS}/conv_1").status == 200
    assert patch(bland).status == 500


def test_faults__of_every_call(bland: BlandSandbox) -> None:
    bland.faults.add("*", "forever:500")
    assert patch(bland).status == call(bland, "GET", CONVERSATIONS).status == 500


def test_faults__of_every_call_of_a_method(bland: BlandSandbox) -> None:
    bland.faults.add("GET *", "forever:500")
    assert patch(bland).status == 200
    assert call(bland, "GET", CONVERSATIONS).status == 500


def test_faults__of_the_list(bland: BlandSandbox) -> None:
    bland.faults.add("list", "503")
    assert call(bland, "GET", f"{CONVERSATIONS}/conv_1").status == 200
    assert call(bland, "GET", CONVERSATIONS).status == 503


def test_faults__of_the_nth_call() -> None:
    with BlandSandbox(api_key=KEY) as fresh:
        fresh.account.add({"id": "conv_1"})
        fresh.faults.add("#3", "500")
        assert statuses(fresh, 5) == [200, 200, 500, 200, 200]


# --- rate limit -------------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds of the stand-in's clock, which stands still."""
    seconds = [1000.0]
    stopped = SimpleNamespace(time=time.time, monotonic=lambda: seconds[0])
    monkeypatch.setattr(stand_in, "time", stopped)
    return seconds


@pytest.mark.usefixtures("clock")
def test_rate_limit__refuses_what_is_above() -> None:
    with BlandSandbox(api_key=KEY, rate_limit=4) as fresh:
        fresh.account.add({"id": "conv_1"})
        answered = [patch(fresh) for _ in range(10)]
    assert [one.status for one in answered] == [200] * 4 + [429] * 6
    assert answered[-1].code == "RATE_LIMITED"


def test_rate_limit__passes_again_a_second_later(clock: list[float]) -> None:
    with BlandSandbox(api_key=KEY, rate_limit=1) as fresh:
        fresh.account.add({"id": "conv_1"})
        assert statuses(fresh, 2) == [200, 429]
        clock[0] += 1
        assert patch(fresh).status == 200


def test_latency(bland: BlandSandbox) -> None:
    bland.latency_seconds = 0.2
    assert patch(bland).seconds >= 0.2


# --- what it saw ------------------------------------------------------------------------------


def test_log__tells_of_each_call(bland: BlandSandbox) -> None:
    before = time.time()
    patch(bland)
    call(bland, "GET", f"{CONVERSATIONS}?pageSize=5")
    first, second = bland.log
    assert (first["method"], first["conversation_id"]) == ("PATCH", "conv_1")
    assert (first["is_active"], first["status"]) == (False, 200)
    assert before <= first["at"] <= time.time()
    assert (second["method"], second["path"]) == ("GET", f"{CONVERSATIONS}?pageSize=5")
    assert second["conversation_id"] == ""


def test_log__has_what_was_left_without_an_answer(bland: BlandSandbox) -> None:
    bland.faults.add("conv_1", "reset_before")
    with pytest.raises(ConnectionResetError):
        patch(bland)
    assert len(bland.requests("PATCH", "conv_1")) == 1


def test_log__never_holds_the_key(bland: BlandSandbox) -> None:
    patch(bland)
    call(bland, "GET", CONVERSATIONS, key="org_another_key")
    assert KEY not in repr(bland.log)
    assert "org_another_key" not in repr(bland.log)


def test_log__filtered(bland: BlandSandbox) -> None:
    patch(bland)
    call(bland, "GET", f"{CONVERSATIONS}/conv_1")
    patch(bland, "conv_2")
    assert len(bland.requests("PATCH")) == len(bland.requests("", "conv_1")) == 2
    assert len(bland.requests("PATCH", "conv_1")) == 1


# --- the test's own door ----------------------------------------------------------------------


def control(bland: BlandSandbox, name: str, body: Any = None) -> Answered:
    method = "GET" if body is None else "POST"
    return call(bland, method, f"/_sandbox/{name}", body, key=None)


def test_control__state(bland: BlandSandbox) -> None:
    row = bland.account.rows["conv_1"]
    assert control(bland, "state").json == {
        "conversations": {"conv_1": {"is_active": True, "updated_at": row["updated_at"]}}
    }


def test_control__log_without_itself(bland: BlandSandbox) -> None:
    patch(bland)
    control(bland, "state")
    [seen] = control(bland, "log").json["requests"]
    assert (seen["method"], seen["conversation_id"], seen["status"]) == ("PATCH", "conv_1", 200)


def test_control__faults(bland: BlandSandbox) -> None:
    assert control(bland, "faults", {"conv_1": ["500", "503"], "list": "429"}).status == 200
    assert statuses(bland) == [500, 503, 200]
    assert call(bland, "GET", CONVERSATIONS).status == 429


def test_control__clear(bland: BlandSandbox) -> None:
    bland.faults.add("conv_1", "forever:500")
    patch(bland)
    control(bland, "clear", {})
    assert not bland.log
    assert patch(bland).status == 200


def test_control__settings(bland: BlandSandbox) -> None:
    control(bland, "settings", {"enveloped": True, "latency_seconds": 0.1})
    answered = patch(bland)
    assert "data" in answered.json
    assert answered.seconds >= 0.1


def test_control__settings_change_the_key(bland: BlandSandbox) -> None:
    control(bland, "settings", {"api_key": "rotated"})
    try:
        assert patch(bland).status == 401
    finally:
        bland.api_key = KEY


def test_control__seed(bland: BlandSandbox) -> None:
    control(bland, "seed", {"number": 12})
    assert len(bland.account.rows) == 13


@pytest.mark.parametrize(("name", "body"), [("nonsense", None), ("nonsense", {}), ("faults", None)])
def test_control__unknown(name: str, body: Any, bland: BlandSandbox) -> None:
    assert control(bland, name, body).status == 404


# --- data -------------------------------------------------------------------------------------


def test_seed__same_seed_same_conversations() -> None:
    accounts = [Account(), Account()]
    for account in accounts:
        seed_account(account, 20)
    assert list(accounts[0].rows) == list(accounts[1].rows)


def test_seed__is_lifelike() -> None:
    account = Account()
    seed_account(account, 200)
    rows = list(account.rows.values())
    active = [row for row in rows if row["is_active"]]
    assert 40 <= len(active) <= 120
    assert len({row["user_number"] for row in rows}) < len(rows)
    assert all(row["message_count"] == len(row["messages"]) > 0 for row in rows)
    assert {message["sender"] for row in rows for message in row["messages"]} == {
        "USER",
        "AGENT",
        "HUMAN",
    }
    assert all(row["user_number"].startswith("+155501") for row in rows)  # set aside for fiction


# --- customers --------------------------------------------------------------------------------


def test_writers__who_was_deactivated_writes_again_once(bland: BlandSandbox) -> None:
    writers = Writers(bland, 1)
    deactivated = bland.add(user_number="+15550107001")
    assert patch(bland, deactivated).status == 200

    new = writers.write_one()
    assert new not in (None, deactivated, "conv_1")
    assert bland.account.rows[str(new)]["user_number"] == "+15550107001"
    assert patch(bland, str(new)).status == 200

    assert writers.write_one() == "conv_1", "the first one has written again already"


def test_customer_texts__does_what_bland_documents(bland: BlandSandbox) -> None:
    first = bland.customer_texts("+15550107001", "hello")
    assert bland.customer_texts("+15550107001", "again") == first
    senders = [message["sender"] for message in bland.account.rows[first]["messages"]]
    assert senders == ["USER", "AGENT"] * 2
    bland.account.set_active(first, False)

    second = bland.customer_texts("+15550107001", "a new one")

    assert second != first
    assert bland.is_active(second)
    assert bland.account.rows[second]["messages"][-1]["sender"] == "AGENT"
    assert not bland.is_active(first)


def test_customer_texts__stored_without_an_answer_where_nothing_restarts(
    bland: BlandSandbox,
) -> None:
    first = bland.customer_texts("+15550107001", "hello")
    bland.account.set_active(first, False)
    bland.account.restart_after_end_call = False

    assert bland.customer_texts("+15550107001", "anybody?") == first

    assert not bland.is_active(first)
    last = bland.account.rows[first]["messages"][-1]
    assert (last["sender"], last["text"]) == ("USER", "anybody?")


def test_customer_texts__signed_webhook(bland: BlandSandbox) -> None:
    told: list[tuple[bytes, str]] = []

    class Site(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            told.append((body, self.headers["X-Webhook-Signature"]))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            """Nothing on the terminal."""

    with http.server.HTTPServer(("127.0.0.1", 0), Site) as site:
        bland.webhook_url = f"http://127.0.0.1:{site.server_address[1]}/"
        bland.webhook_secret = "whsec_one"
        conversation_id = bland.customer_texts("+15550107001", "hello")
        site.timeout = 30
        site.handle_request()

    [(body, signature)] = told
    assert json.loads(body)["conversation_id"] == conversation_id
    assert is_signed(body, signature, [Secret("whsec_one")])


# --- apart ------------------------------------------------------------------------------------

SOURCES = sorted(Path(bland_sms.sandbox.__file__).parent.glob("*.py"))


def imported(source: Path) -> set[str]:
    """Modules that a file of the stand-in imports, wherever in it; of its own room, ``.name``."""
    found = set()
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name.partition(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            dots, module = "." * node.level, node.module or ""
            if not module:
                found |= {dots + name.name for name in node.names}
            else:
                found.add(dots + (module if dots else module.partition(".")[0]))
    return found


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_source__shares_nothing_with_what_it_checks(source: Path) -> None:
    own = {f".{one.stem}" for one in SOURCES}
    # What carries the answers in process has to know what they are carried to.
    carriers = {"requests", "responses", "urllib3"} if source.name == "in_process.py" else set()
    assert imported(source) - own - carriers <= set(sys.stdlib_module_names)


def test_source__was_found() -> None:
    assert {source.name for source in SOURCES} >= {"account.py", "faults.py", "server.py"}


def test_server__survives_junk(bland: BlandSandbox) -> None:
    parts = urlsplit(bland.base_url)
    for junk in (b"\r\n\r\n", b"GET\r\n\r\n", b"\xff\xfe\x00\r\n\r\n", b"PATCH / HTTP/1.1\r\n"):
        with socket.create_connection((parts.hostname, parts.port), timeout=60) as raw:
            raw.sendall(junk)
    assert patch(bland).status == 200

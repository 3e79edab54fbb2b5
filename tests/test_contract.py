"""Both stand-ins against Bland's documented answers, field by field, asked by a client not ours.

The samples are the answers as Bland documents them (``docs/bland.md``): two dialects of the list,
two shapes of an update's answer, and the envelopes of errors.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import requests

from bland_sms.client import get_client
from bland_sms.exceptions import BlandAPIError
from bland_sms.pacing import Allowance
from bland_sms.sandbox import StandIn

SAMPLES = Path(__file__).parent / "samples"
CONVERSATIONS = "/v1/sms/conversations"
ONLY_NEWER = {"timed_out_at", "ended_by_end_call_node"}
"""Fields of a listed conversation that the older documentation does not have."""
DETAIL_ONLY = {"messages", "user_id", "inbound_id"}
AS_BLAND_WRITES_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def sample(name: str) -> Any:
    return json.loads((SAMPLES / f"{name}.json").read_text())


DOCUMENTED = (
    set(sample("detail_a")["data"])
    | set(sample("detail_b")["data"])
    | set(sample("list_b")["data"][0])
)
"""Every name that a conversation's field has in the documentation."""


@pytest.fixture(params=["fake_bland", "bland_sandbox"])
def bland(request: pytest.FixtureRequest) -> StandIn:
    stand_in: StandIn = request.getfixturevalue(request.param)
    return stand_in


def ask(
    bland: StandIn, method: str, path: str = "", key: str | None = None, **options: Any
) -> requests.Response:
    return requests.request(
        method,
        bland.base_url + CONVERSATIONS + path,
        headers={"authorization": bland.api_key if key is None else key},
        timeout=60,
        **options,
    )


# --- the list ---------------------------------------------------------------------------------

QUERIES = {
    "a": {"page": 1, "pageSize": 25, "sortBy": "created_at", "sortDir": "asc"},
    "b": {"limit": 25, "from": 0, "sort_by": "created_at", "ascending": "true"},
}


@pytest.mark.parametrize("dialect", ["a", "b"])
def test_list(dialect: str, bland: StandIn) -> None:
    documented = sample(f"list_{dialect}")
    [row] = documented["data"]
    bland.dialect = dialect
    bland.account.add(row)

    told = ask(bland, "GET", params=QUERIES[dialect])

    body = told.json()
    assert told.status_code == 200
    assert told.headers["Content-Type"] == "application/json"
    assert set(body) == set(documented)
    left_out = ONLY_NEWER if dialect == "a" else set()
    listed = body["data"][0]
    assert {k: listed.get(k, "absent") for k in row.keys() - left_out} == {
        k: row[k] for k in row.keys() - left_out
    }
    assert not left_out & set(listed)
    assert set(listed) <= DOCUMENTED - DETAIL_ONLY
    assert without_data(body) == without_data(documented)


def without_data(body: dict[str, Any]) -> dict[str, Any]:
    """Envelope and pagination."""
    return {name: value for name, value in body.items() if name != "data"}


@pytest.mark.parametrize("dialect", ["a", "b"])
def test_list__empty_account(dialect: str, bland: StandIn) -> None:
    bland.dialect = dialect
    body = ask(bland, "GET", params=QUERIES[dialect]).json()

    assert body["data"] == []
    assert body["errors"] is None
    pagination = body["pagination"] if dialect == "b" else body["extra"]["pagination"]
    assert pagination == {"totalItems": 0, "totalPages": 0, "currentPage": 1, "pageSize": 25}


@pytest.mark.parametrize(("dialect", "other"), [("a", "b"), ("b", "a")])
def test_list__the_other_dialects_parameters_mean_nothing(
    dialect: str, other: str, bland: StandIn
) -> None:
    bland.dialect = dialect
    for number in range(30):
        bland.add(created_at=f"2026-01-01T00:00:{number:02d}.000Z")

    told = ask(bland, "GET", params={**QUERIES[other], "limit": 2, "pageSize": 2}).json()["data"]

    assert len(told) == 2  # its own word for it
    assert told[0]["id"] == "conv_0030"  # and its own order: newest first
    filters = {"filters": json.dumps([{"field": "id", "operator": "nonsense", "value": 1}])}
    assert len(ask(bland, "GET", params=filters).json()["data"]) == (25 if dialect == "a" else 30)


# --- one conversation -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["detail_a", "detail_b"])
def test_detail(name: str, bland: StandIn) -> None:
    documented = sample(name)
    bland.account.add(documented["data"])

    body = ask(bland, "GET", "/conv_0001").json()

    assert {k: body["data"].get(k, "absent") for k in documented["data"]} == documented["data"]
    assert set(body["data"]) <= DOCUMENTED
    assert without_data(body) == without_data(documented)


def test_detail__own_conversations_look_the_same(bland: StandIn) -> None:
    bland.add("conv_1", messages=[{"message": "Hello"}])
    documented = set(sample("detail_a")["data"]["messages"][0])

    told = ask(bland, "GET", "/conv_1").json()["data"]

    assert set(told) <= DOCUMENTED
    assert AS_BLAND_WRITES_TIME.fullmatch(told["updated_at"])
    assert set(told["messages"][0]) <= documented
    assert told["message_count"] == 1


# --- updates ----------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", ["bare", "enveloped"])
def test_update(shape: str, bland: StandIn) -> None:
    bland.enveloped = shape == "enveloped"
    bland.add("conv_0001")

    told = ask(bland, "PATCH", "/conv_0001", json={"is_active": False})

    body = told.json()
    conversation = body["data"]["conversation"] if bland.enveloped else body["conversation"]
    assert told.status_code == 200
    assert AS_BLAND_WRITES_TIME.fullmatch(conversation["updated_at"])
    conversation["updated_at"] = "2026-02-03T04:05:06.789Z"
    assert body == sample(f"update_{shape}")
    assert ask(bland, "GET", "/conv_0001").json()["data"]["is_active"] is False


# --- errors -----------------------------------------------------------------------------------

REFUSED: list[tuple[str, int, str, dict[str, Any]]] = [
    ("error_401", 401, "/conv_0001", {"key": "somebody_elses"}),
    ("error_401", 401, "", {"key": ""}),
    ("error_404", 404, "/conv_nowhere", {}),
]


@pytest.mark.parametrize(("name", "status", "path", "options"), REFUSED)
def test_error(name: str, status: int, path: str, options: dict[str, Any], bland: StandIn) -> None:
    told = ask(bland, "GET", path, **options)

    assert told.status_code == status
    assert told.json() == sample(name)


@pytest.mark.parametrize("value", ["false", 0, None])
def test_error__value_that_is_no_boolean(value: Any, bland: StandIn) -> None:
    told = ask(bland, "PATCH", f"/{bland.add()}", json={"is_active": value})

    assert told.status_code == 400
    assert told.json() == sample("error_400")


def test_error__page_too_long(bland: StandIn) -> None:
    bland.dialect = "b"
    told = ask(bland, "GET", params={"limit": 1001})

    assert told.status_code == 400
    assert told.json() == sample("error_400_parameter")


@pytest.mark.parametrize(("status", "name"), [(403, "error_403"), (500, "error_500")])
def test_error__by_switch_has_the_documented_code(status: int, name: str, bland: StandIn) -> None:
    bland.faults.add("*", str(status))
    told = ask(bland, "PATCH", f"/{bland.add()}", json={"is_active": False})

    assert told.status_code == status
    assert told.json()["data"] is None
    assert told.json()["errors"][0]["error"] == sample(name)["errors"][0]["error"]


ENVELOPES = {
    "error_400": (400, "INVALID_IS_ACTIVE_VALUE"),
    "error_400_parameter": (400, "INVALID_PARAMETER"),
    "error_401": (401, "AUTH_FAILURE"),
    "error_401_other_name": (401, "UNAUTHORIZED"),
    "error_403": (403, "ENTERPRISE_REQUIRED"),
    "error_403_flagged": (403, "http_403"),
    "error_404": (404, "CONVERSATION_NOT_FOUND"),
    "error_429_prose": (429, "http_429"),
    "error_429_speech": (429, "rate_limited"),
    "error_500": (500, "ERROR_UPDATING_CONVERSATION"),
    "error_of_texts": (400, "http_400"),
    "errors_with_200": (200, "SOMETHING_ODD"),
}


@pytest.mark.parametrize("name", sorted(ENVELOPES))
def test_error__every_documented_envelope_can_be_played(name: str, bland: StandIn) -> None:
    status, code = ENVELOPES[name]
    conversation_id = bland.add()
    fault = {"status": status, "body": sample(name)}
    bland.faults.add(conversation_id, fault, fault)

    told = ask(bland, "GET", f"/{conversation_id}")
    assert (told.status_code, told.json()) == (status, sample(name))
    with pytest.raises(BlandAPIError) as caught:
        get_client().get_conversation(conversation_id, allowance=Allowance(attempts=1))
    assert caught.value.code == code


def test_error__no_envelope_is_left_out() -> None:
    assert {path.stem for path in SAMPLES.glob("error*.json")} == set(ENVELOPES)


def test_error__route_that_is_not_there_has_none_of_blands_codes(bland: StandIn) -> None:
    told = requests.get(
        f"{bland.base_url}/v1/nothing", headers={"authorization": bland.api_key}, timeout=60
    )

    assert told.status_code == 404
    assert "CONVERSATION_NOT_FOUND" not in told.text

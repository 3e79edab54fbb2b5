"""The API and the command of standing orders."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.core.management import CommandError, call_command
from django.test import Client
from django.utils import timezone

from bland_sms import standing
from bland_sms.models import StandingOrder

pytestmark = pytest.mark.django_db
URL = "/bland-sms/api/v1/standing-orders/"
BODY = {"customer": "+1 (555) 010-7001", "reason": "asked by phone"}
Login = Callable[..., Client]


@pytest.fixture
def login(django_user_model: Any) -> Login:
    def make(*codenames: str) -> Client:
        user = django_user_model.objects.create_user(f"u{django_user_model.objects.count()}")
        user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
        client = Client()
        client.force_login(user)
        return client

    return make


def post(client: Client, url: str = URL, body: Any = None, **headers: str) -> Any:
    data = json.dumps(BODY if body is None else body)
    return client.post(url, data, content_type="application/json", headers=headers)


def test_create__answers_with_the_order(login: Login) -> None:
    client = login("add_standingorder", "view_conversation")

    answer = post(client)

    assert answer.status_code == 201
    shown = answer.json()
    assert (shown["customer"], shown["state"]) == ("+15550107001", "in_force")
    assert (shown["suspended_code"], shown["applied_count"]) == ("", 0)
    assert client.get(answer["Location"]).json() == shown
    assert client.get(URL).json()["results"] == [shown]


def test_create__idempotency_key(login: Login) -> None:
    client = login("add_standingorder")
    first = post(client, **{"Idempotency-Key": "k1"})

    again = post(client, **{"Idempotency-Key": "k1"})
    other = post(client, body={**BODY, "reason": "no"}, **{"Idempotency-Key": "k1"})

    assert again.json() == first.json()
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_key_reused")
    assert StandingOrder.objects.count() == 1
    assert post(client, **{"Idempotency-Key": "a b"}).status_code == 400


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({**BODY, "customer": "7001"}, 409, "no_customer"),
        ({**BODY, "until": "2020-01-01T00:00:00Z"}, 409, "until_past"),
        ({**BODY, "spare": True}, 400, "invalid"),
        ({"customer": BODY["customer"]}, 400, "invalid"),
        ({**BODY, "reason": ""}, 409, "no_reason"),
    ],
)
def test_create__refused(login: Login, body: Any, status: int, code: str) -> None:
    answer = post(login("add_standingorder"), body=body)

    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_create__one_is_in_force(login: Login) -> None:
    order = standing.make(BODY["customer"], "by hand")

    answer = post(login("add_standingorder"))

    assert (answer.status_code, answer.json()["code"]) == (409, "order_exists")
    assert answer.json()["standing_order"] == order.pk


def test_lift(login: Login) -> None:
    order = standing.make(BODY["customer"], "by hand")
    client = login("lift_standingorder")

    answer = post(client, f"{URL}{order.pk}/lift/", {})

    assert (answer.status_code, answer.json()["state"]) == (200, "lifted")
    again = post(client, f"{URL}{order.pk}/lift/", {})
    assert (again.status_code, again.json()["code"]) == (409, "order_over")


def test_permissions(login: Login) -> None:
    order = standing.make(BODY["customer"], "by hand")
    one = f"{URL}{order.pk}/"

    assert login().get(URL).status_code == 403
    assert post(login("view_standingorder")).status_code == 403
    assert (
        post(login("view_standingorder", "add_standingorder"), f"{one}lift/", {}).status_code == 403
    )
    assert login("add_standingorder").get(one).status_code == 404, "somebody else's"
    shown = login("view_standingorder").get(one).json()
    assert shown["customer"] == "", "numbers need view_conversation"


def test_list__filters(login: Login) -> None:
    standing.lift(standing.make("+15550107001", "one"))
    standing.make("+15550107002", "two")
    client = login("view_standingorder")

    def reasons(**filters: str) -> list[str]:
        return [one["reason"] for one in client.get(URL, filters).json()["results"]]

    assert reasons() == ["two", "one"]
    assert reasons(state="in_force") == ["two"]
    assert reasons(state="lifted") == ["one"]
    assert reasons(state="suspended") == reasons(state="expired") == []
    assert reasons(customer="555 010 7001") == ["one"]
    assert client.get(URL, {"state": "x"}).status_code == 400


# --- the command ----------------------------------------------------------------------------------


def keep(*arguments: str) -> Any:
    out = StringIO()
    call_command("bland_sms_keep", *arguments, "--json", stdout=out)
    return json.loads(out.getvalue())


def test_keep__add_list_lift() -> None:
    made = keep("--add", "--reason", "by phone", "--until", "30d", "+15550107001", "555 010 7002")
    assert [one["state"] for one in made["orders"]] == ["in_force"] * 2
    assert len(keep("--list")["orders"]) == 2

    lifted = keep("--lift", "(555) 010-7001")

    assert [one["state"] for one in lifted["orders"]] == ["lifted"]
    assert len(keep("--list")["orders"]) == 1


def test_keep__from_file(tmp_path: Any) -> None:
    path = tmp_path / "numbers.txt"
    path.write_text("+15550107001\n\n+15550107001\nnobody\n")

    with pytest.raises(CommandError) as caught:
        keep("--add", "--reason", "list", "--from-file", str(path))

    assert "line 2 (…dy): no_customer" in str(caught.value)
    assert StandingOrder.objects.count() == 1


def test_keep__csv_that_the_page_exports(tmp_path: Any, client: Client, staff: Any) -> None:
    standing.make("+15550107001", "asked by phone", agent_number="+15550190001")
    passing = standing.make("+15550107002", "holidays", until=timezone.now() + timedelta(days=9))
    standing.lift(standing.make("+15550107003", "a mistake"))
    client.force_login(staff)
    pks = list(StandingOrder.objects.values_list("pk", flat=True))
    data = {"action": "export_selected", "_selected_action": pks}
    path = tmp_path / "orders.csv"
    path.write_bytes(client.post("/admin/bland_sms/standingorder/", data).getvalue())  # type: ignore[attr-defined]
    StandingOrder.objects.all().delete()

    keep("--add", "--from-file", str(path))

    assert [
        (order.customer, order.agent_number, order.reason, order.until)
        for order in StandingOrder.objects.order_by("customer_key")
    ] == [
        ("+15550107001", "+15550190001", "asked by phone", None),
        ("+15550107002", "", "holidays", passing.until),
    ]
    assert len(keep("--lift", "--from-file", str(path))["orders"]) == 2


@pytest.mark.parametrize(
    "arguments",
    [("--add", "+15550107001"), ("--add", "--reason", "x", "--until", "soon", "+15550107001")],
)
def test_keep__wrong_usage(arguments: tuple[str, ...]) -> None:
    with pytest.raises(CommandError) as caught:
        keep(*arguments)

    assert caught.value.returncode == 2

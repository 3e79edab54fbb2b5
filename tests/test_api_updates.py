"""The REST API that asks Bland: PATCH, refresh, and bulk updates from POST to undo."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import AbstractUser, Permission
from django.db import connection, transaction
from django.test import Client
from django.utils import timezone

from bland_sms import updates
from bland_sms.models import BulkUpdate, Conversation
from bland_sms.reasons import history_words
from bland_sms.sandbox import BlandSandbox

from .conftest import KEY

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("no_waiting")]
Copied = Callable[..., list[str]]
Started = Callable[..., BulkUpdate]

API = "/bland-sms/api/v1/"
CONVERSATIONS = f"{API}conversations/"
UPDATES = f"{API}bulk-updates/"
BOTH = ("view_conversation", "deactivate_conversation", "reactivate_conversation")
dispatched: list[tuple[str, int]] = []


def note_dispatch(kind: str, pk: int) -> None:
    dispatched.append((kind, pk))


def broken_dispatch(kind: str, pk: int) -> None:
    raise ConnectionError("no broker")


@pytest.fixture
def worker(set_bland: Any, sandbox: BlandSandbox) -> list[tuple[str, int]]:
    """A DISPATCH that takes everything and does nothing yet."""
    dispatched.clear()
    set_bland(DISPATCH="tests.test_api_updates.note_dispatch")
    return dispatched


@pytest.fixture
def lead(client: Client, staff: AbstractUser) -> Client:
    client.force_login(staff)
    return client


@pytest.fixture
def login(django_user_model: Any) -> Callable[..., Client]:
    def make(*codenames: str) -> Client:
        name = f"program{django_user_model.objects.count()}"
        user = django_user_model.objects.create_user(name)
        user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
        client = Client()
        client.force_login(user)
        return client

    return make


def patch(client: Client, conversation_id: str, is_active: Any = False, **more: Any) -> Any:
    body = json.dumps({"is_active": is_active, **more})
    return client.patch(f"{CONVERSATIONS}{conversation_id}/", body, "application/json")


def post(
    client: Client, ids: Any, is_active: Any = False, key: str | None = None, **more: Any
) -> Any:
    body = json.dumps({"is_active": is_active, "conversation_ids": ids, **more})
    headers = {} if key is None else {"Idempotency-Key": key}
    return client.post(UPDATES, body, "application/json", headers=headers)


def act(client: Client, pk: int, name: str) -> Any:
    return client.post(f"{UPDATES}{pk}/{name}/")


def states(answer: Any) -> dict[str, int]:
    return {state: number for state, number in answer.json()["counts"].items() if number}


# --- PATCH ------------------------------------------------------------------------------------


def test_patch__asks_bland_and_answers_with_the_row(
    lead: Client, sandbox: BlandSandbox, copied: Copied, staff: AbstractUser
) -> None:
    (one,) = copied(1, last_message="hi")
    answer = patch(lead, one)
    assert answer.status_code == 200
    assert (answer.json()["is_active"], answer.json()["status"]) == (False, "inactive")
    assert answer.json() == lead.get(f"{CONVERSATIONS}{one}/").json()
    assert [seen["method"] for seen in sandbox.log] == ["PATCH"]
    assert sandbox.account.rows[one]["is_active"] is False
    update = BulkUpdate.objects.get()
    assert (update.source, update.requested_by, update.status) == ("api", staff, "finished")
    assert patch(lead, one, True).json()["is_active"] is True
    assert patch(lead, one, True).status_code == 200  # already so: Bland is asked all the same


@pytest.mark.parametrize(("verb", "may"), [("deactivate", False), ("reactivate", True)])
def test_patch__each_verb_has_its_permission(
    verb: str, may: bool, login: Any, sandbox: BlandSandbox, copied: Copied
) -> None:
    (one,) = copied(1)
    client = login("view_conversation", f"{verb}_conversation")
    assert patch(client, one, not may).status_code == 403
    assert not sandbox.log
    answer = patch(client, one, may)
    assert answer.status_code == 200
    assert "last_message" not in answer.json()


@pytest.mark.parametrize(
    "body",
    [
        "",
        "{}",
        "[]",
        "null",
        '"x"',
        "1",
        '{"is_active": "false"}',
        '{"is_active": 0}',
        '{"is_active": null}',
        '{"is_active": []}',
        '{"is_active": false, "user_number": "+1"}',
        '{"isactive": false}',
        '{"is_active": false, "\\u0000": 1}',
        '{"is_active": false, "\\ud800": 1}',
        '{"is_active": NaN}',
        '{"is_active": ' + "9" * 5000 + "}",
        "[" * 100_000,
        '{"a":' * 100_000,
        "{",
        "\x00",
        "\xff",
    ],
)
def test_patch__bodies_that_make_no_sense(
    body: str, lead: Client, sandbox: BlandSandbox, copied: Copied
) -> None:
    (one,) = copied(1)
    for html in (False, True):
        headers = {"Accept": "text/html"} if html else {}
        answer = lead.generic(
            "PATCH",
            f"{CONVERSATIONS}{one}/",
            body.encode("latin-1"),
            "application/json",
            headers=headers,
        )
        assert answer.status_code == 400
    assert not sandbox.log
    assert not BulkUpdate.objects.exists()


def test_patch__unknown_field_is_named(lead: Client, copied: Copied) -> None:
    answer = patch(lead, copied(1)[0], isactive=True)
    assert answer.json()["fields"]["isactive"][0] == {
        "code": "unknown",
        "detail": "Unknown, did you mean is_active?",
    }


FAILURES = [
    ("404", 404, "CONVERSATION_NOT_FOUND", "failed"),
    ("forever:400", 409, None, "failed"),
    ("forever:409", 409, None, "failed"),
    ("forever:422", 409, None, "failed"),
    ("forever:429", 503, None, "failed"),
    ("forever:429:99999", 503, "http_429", "waiting"),
    ("forever:401", 502, None, "waiting"),
    ("forever:403", 502, None, "waiting"),
    ("forever:404_route", 502, None, "waiting"),
    ("forever:redirect302:/", 502, "redirected", "failed"),
    ("forever:500", 502, None, "unknown"),
    ("forever:503:99999", 502, "http_503", "waiting"),
    ("forever:html502", 502, None, "unknown"),
    ("forever:408", 502, None, "unknown"),
    ("forever:hang_after:60", 504, "no_answer", "unknown"),
    ("forever:reset_before", 504, "no_answer", "unknown"),
    ("forever:not_applied", 409, "not_applied", "failed"),
    ("forever:bad_json", 502, "bad_answer", "unknown"),
    ("forever:wrong_id", 502, "not_applied", "unknown"),
    ("forever:echo_key", None, None, None),
]


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(("fault", "status", "code", "state"), FAILURES)
def test_patch__failures(
    fault: str,
    status: int | None,
    code: str | None,
    state: str | None,
    lead: Client,
    sandbox: BlandSandbox,
    copied: Copied,
    set_bland: Any,
) -> None:
    set_bland(INLINE_SECONDS=60)
    (one,) = copied(1)
    target = one if "404" not in fault or "route" in fault else "*"
    sandbox.faults.add(target, fault if fault != "404" else "forever:404")
    answer = patch(lead, one)
    body = answer.json()
    assert 400 <= answer.status_code < 600
    assert answer.status_code != 500
    update = BulkUpdate.objects.get()
    item = update.items.get()
    assert body["bulk_update"] == update.pk
    assert body["state"] == item.state
    assert body["code"]
    assert body["detail"]
    assert KEY not in answer.content.decode()
    if status is not None:
        assert (answer.status_code, body["state"]) == (status, state), body
    if code is not None:
        assert body["code"] == code
    if item.error_code and item.state != "waiting":
        assert body["code"] == item.error_code
    assert ("may have been done" in body["detail"]) is (item.state == "unknown")
    if answer.status_code == 503:
        assert int(answer["Retry-After"]) > 0
    if "99999" in fault:
        assert 86_000 < int(answer["Retry-After"]) <= 86_400
        assert body["http_status"] == int(fault[8:11])
    if status == 409 and fault[8:].isdigit():
        assert body["http_status"] == int(fault[8:])


def test_patch__nothing_listens(lead: Client, copied: Copied, set_bland: Any) -> None:
    (one,) = copied(1)
    set_bland(BASE_URL="http://127.0.0.1:9")
    answer = patch(lead, one)
    assert (answer.status_code, answer.json()["code"]) == (504, "outage")
    assert BulkUpdate.objects.get().status == "stopped"


def test_patch__without_a_key_nothing_is_recorded(
    lead: Client, copied: Copied, set_bland: Any
) -> None:
    (one,) = copied(1)
    set_bland(API_KEY="")
    for answer in (
        patch(lead, one),
        post(lead, [one]),
        lead.post(f"{CONVERSATIONS}{one}/refresh/"),
    ):
        assert (answer.status_code, answer.json()["code"]) == (503, "not_configured")
    assert not BulkUpdate.objects.exists()


def test_patch__not_in_the_mirror(lead: Client, sandbox: BlandSandbox) -> None:
    answer = patch(lead, "nowhere")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert not sandbox.log


def test_patch__while_another_update_does_the_same(
    lead: Client, copied: Copied, started: Started, staff: AbstractUser
) -> None:
    (one,) = copied(1)
    other = started([one], requested_by=staff)
    answer = patch(lead, one)
    body = answer.json()
    assert (answer.status_code, body["code"]) == (202, "already_queued")
    assert f"update {other.pk} by dana" in body["detail"]


def test_patch__the_newer_wish_wins(
    lead: Client, copied: Copied, started: Started, sandbox: BlandSandbox
) -> None:
    (one,) = copied(1)
    older = started([one])
    assert patch(lead, one, True).status_code == 200
    assert older.items.get().error_code == "superseded"


def test_patch__in_flight_elsewhere_is_accepted(
    lead: Client, copied: Copied, started: Started, set_bland: Any, sandbox: BlandSandbox
) -> None:
    (one,) = copied(1)
    set_bland(INLINE_SECONDS=0.5)
    other = started([one])
    later = timezone.now() + BulkUpdate.LEASE  # further ahead than that is a wrong clock
    BulkUpdate.objects.update(status="running", lease_until=later)
    other.items.update(state="running", claimed_conversation=one)
    answer = patch(lead, one, True)
    assert (answer.status_code, answer.json()["code"]) == (202, "waiting")
    assert answer.json()["state"] == "waiting"


@pytest.mark.parametrize("is_active", [True, False])
@pytest.mark.parametrize("name", ["retrieve", "items"])
def test_inactive_account__reaches_no_action_without_needs(
    name: str, is_active: bool, staff: AbstractUser, copied: Copied, started: Started
) -> None:
    """However the host tells who somebody is: some of its ways let inactive accounts in."""
    from rest_framework.test import APIRequestFactory, force_authenticate

    from bland_sms.api.bulk_updates import BulkUpdateViewSet

    bulk_update = started(copied(1), requested_by=staff)
    assert BulkUpdateViewSet.needs[name] == ()
    staff.is_active = is_active
    staff.save()
    request = APIRequestFactory().get("/")
    force_authenticate(request, staff)
    options = getattr(getattr(BulkUpdateViewSet, name), "kwargs", {})  # those of @action
    view = BulkUpdateViewSet.as_view({"get": name}, **options)
    response = view(request, pk=str(bulk_update.pk))
    assert response.status_code == (200 if is_active else 403)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("where", ["view", "around"])
def test_patch__under_atomic_requests(
    where: str, lead: Client, sandbox: BlandSandbox, copied: Copied, monkeypatch: pytest.MonkeyPatch
) -> None:
    (one,) = copied(1)
    if where == "view":
        monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)
        assert patch(lead, one).status_code == 200
        assert lead.post(f"{CONVERSATIONS}{one}/refresh/").status_code == 200
        assert post(lead, [one], True).json()["driver"] == "done"
        return
    with transaction.atomic():  # a host's own, such as in a middleware
        answer = patch(lead, one)
        assert (answer.status_code, answer.json()["code"]) == (202, "waiting")
        assert lead.post(f"{CONVERSATIONS}{one}/refresh/").status_code == 202
        assert post(lead, [one], True).json()["driver"] == "none"
        assert not sandbox.log
    assert sandbox.account.rows[one]["is_active"] is True
    assert [seen["method"] for seen in sandbox.log].count("PATCH") == 1  # the newer wish


# --- refresh ----------------------------------------------------------------------------------


def test_refresh__copies(lead: Client, sandbox: BlandSandbox, copied: Copied) -> None:
    (one,) = copied(1)
    sandbox.account.rows[one] |= {"last_message": "news", "updated_at": "2026-11-01T00:00:00.000Z"}
    sandbox.account.set_active(one, False)
    answer = lead.post(f"{CONVERSATIONS}{one}/refresh/")
    assert answer.status_code == 200
    assert (answer.json()["last_message"], answer.json()["is_active"]) == ("news", False)
    assert not BulkUpdate.objects.exists()


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        ("forever:404", 404, "CONVERSATION_NOT_FOUND"),
        ("forever:404_route", 502, None),
        ("forever:401", 502, None),
        ("forever:429:7", 503, None),
        ("forever:500", 502, None),
        ("forever:hang_before:60", 504, "no_answer"),
        ("forever:bad_json", 502, "bad_answer"),
        ("forever:html200", 502, "bad_answer"),
        ("forever:errors_body", None, None),
        ("forever:echo_key", None, None),
    ],
)
def test_refresh__failures(
    fault: str,
    status: int | None,
    code: str | None,
    lead: Client,
    sandbox: BlandSandbox,
    copied: Copied,
    set_bland: Any,
) -> None:
    (one,) = copied(1)
    set_bland(MAX_RETRIES=0)
    sandbox.faults.add(one, fault)
    answer = lead.post(f"{CONVERSATIONS}{one}/refresh/")
    assert answer.status_code not in (200, 500)
    assert KEY not in answer.content.decode()
    if status is not None:
        assert answer.status_code == status, answer.json()
    if code is not None:
        assert answer.json()["code"] == code
    if fault == "forever:429:7":
        assert answer["Retry-After"] == "7"
        assert answer.json()["http_status"] == 429


# --- POST bulk-updates ------------------------------------------------------------------------


def test_post__few_are_done_at_once(
    lead: Client, sandbox: BlandSandbox, copied: Copied, staff: AbstractUser
) -> None:
    ids = copied(3)
    sandbox.faults.add(ids[1], "400")
    answer = post(lead, [*ids, ids[0]], reason="Complaint 7")
    body = answer.json()
    assert answer.status_code == 202
    assert (body["status"], body["driver"], body["next_step"]) == ("finished", "done", "")
    assert states(answer) == {"changed": 2, "failed": 1}
    assert (body["total"], body["reason"], body["requested_by"]) == (3, "Complaint 7", "dana")
    assert answer["Location"] == f"http://testserver{UPDATES}{body['id']}/"
    assert lead.get(answer["Location"]).json() == body
    items = lead.get(f"{answer['Location']}items/").json()["results"]
    assert [(item["conversation_id"], item["state"], item["attempts"]) for item in items] == [
        (ids[0], "changed", 1),
        (ids[1], "failed", 1),
        (ids[2], "changed", 1),
    ]
    assert items[1]["http_status"] == 400
    assert items[1]["error_code"]
    assert items[1]["finished_at"]
    failed = lead.get(f"{answer['Location']}items/?state=failed").json()["results"]
    assert [item["conversation_id"] for item in failed] == [ids[1]]
    wrong = lead.get(f"{answer['Location']}items/?state=lost")
    assert wrong.json()["fields"]["state"][0]["detail"].startswith("One of: waiting")
    assert lead.get(UPDATES).json()["results"][0]["counts"] == body["counts"]


def test_post__an_id_that_only_bland_knows_is_adopted(lead: Client, sandbox: BlandSandbox) -> None:
    sandbox.account.add({"id": "conv_new"})
    answer = post(lead, ["conv_new", "conv_nowhere"])
    assert states(answer) == {"changed": 1, "failed": 1}
    assert Conversation.objects.get().pk == "conv_new"


def test_post__more_than_fit_without_a_worker(
    lead: Client, sandbox: BlandSandbox, copied: Copied, set_bland: Any
) -> None:
    set_bland(INLINE_SECONDS=3, MAX_CONCURRENCY=1)
    sandbox.latency_seconds = 0.2
    answer = post(lead, copied(40))
    body = answer.json()
    assert (answer.status_code, body["status"], body["driver"]) == (202, "queued", "none")
    assert f"POST http://testserver{UPDATES}{body['id']}/continue/" in body["next_step"]
    assert 0 < body["counts"]["changed"] < 40
    assert lead.get(UPDATES).json()["results"][0]["counts"] is None
    set_bland(INLINE_SECONDS=20, MAX_CONCURRENCY=16)
    answer = act(lead, body["id"], "continue")
    assert (answer.status_code, answer.json()["driver"]) == (202, "done")
    assert states(answer) == {"changed": 40}
    assert len(sandbox.requests("PATCH")) == 40
    assert act(lead, body["id"], "continue").json()["code"] == "nothing_to_continue"


def test_post__more_than_fit_with_a_worker(
    lead: Client, sandbox: BlandSandbox, copied: Copied, worker: list[tuple[str, int]]
) -> None:
    answer = post(lead, copied(40))
    body = answer.json()
    assert worker == [("update", body["id"])]
    assert (body["status"], body["driver"], body["next_step"]) == ("queued", "worker", "")
    assert not sandbox.log
    long_ago = timezone.now() - timedelta(minutes=3)
    BulkUpdate.objects.update(dispatched_at=long_ago)
    assert lead.get(answer["Location"]).json()["driver"] == "none"  # it never came


def test_post__a_queue_that_is_down_costs_nobody_the_update(
    lead: Client, sandbox: BlandSandbox, copied: Copied, set_bland: Any
) -> None:
    set_bland(DISPATCH="tests.test_api_updates.broken_dispatch")
    answer = post(lead, copied(40))
    assert (answer.status_code, answer.json()["driver"]) == (202, "done")


def test_post__a_rejected_key_stops_it_and_continue_goes_on(
    lead: Client, sandbox: BlandSandbox, copied: Copied
) -> None:
    ids = copied(3)
    sandbox.api_key = "another"
    body = post(lead, ids).json()
    assert (body["status"], body["stop_code"], body["driver"]) == (
        "stopped",
        "AUTH_FAILURE",
        "none",
    )
    assert "Stopped" in body["next_step"]
    sandbox.api_key = KEY
    assert states(act(lead, body["id"], "continue")) == {"changed": 3}
    entry = LogEntry.objects.get(object_id=str(body["id"]))
    assert history_words(entry.change_message) == "Continued."


@pytest.mark.parametrize(
    ("body", "field", "code"),
    [
        ({"conversation_ids": ["a"]}, "is_active", "required"),
        ({"is_active": "no", "conversation_ids": ["a"]}, "is_active", "invalid"),
        ({"is_active": False}, "conversation_ids", "required"),
        ({"is_active": False, "conversation_ids": []}, "conversation_ids", "empty"),
        ({"is_active": False, "conversation_ids": "abc"}, "conversation_ids", "not_a_list"),
        ({"is_active": False, "conversation_ids": {"a": 1}}, "conversation_ids", "not_a_list"),
        ({"is_active": False, "conversation_ids": None}, "conversation_ids", "null"),
        ({"is_active": False, "conversation_ids": [7]}, "conversation_ids", "invalid_id"),
        ({"is_active": False, "conversation_ids": ["a/b"]}, "conversation_ids", "invalid_id"),
        ({"is_active": False, "conversation_ids": ["a\x00"]}, "conversation_ids", "invalid_id"),
        ({"is_active": False, "conversation_ids": [["a"]]}, "conversation_ids", "invalid_id"),
        ({"is_active": False, "conversation_ids": ["a"] * 6}, "conversation_ids", "too_many"),
        ({"is_active": False, "conversation_ids": ["a"], "reason": 7}, "reason", "invalid"),
        ({"is_active": False, "conversation_ids": ["a"], "reason": None}, "reason", "null"),
        (
            {"is_active": False, "conversation_ids": ["a"], "reason": "x" * 201},
            "reason",
            "max_length",
        ),
        (
            {"is_active": False, "conversation_ids": ["a"], "reason": "\x00"},
            "reason",
            "null_characters_not_allowed",
        ),
        (
            {"is_active": False, "conversation_ids": ["a"], "reason": "\ud800"},
            "reason",
            "surrogate_characters_not_allowed",
        ),
        ({"is_active": False, "conversation_ids": ["a"], "ids": ["b"]}, "ids", "unknown"),
    ],
)
def test_post__bodies_that_make_no_sense(
    body: dict[str, Any], field: str, code: str, lead: Client, sandbox: BlandSandbox, set_bland: Any
) -> None:
    set_bland(BULK_LIMIT=5)
    answer = lead.post(UPDATES, json.dumps(body), "application/json")
    told = answer.json()
    assert (answer.status_code, told["code"]) == (400, "invalid")
    assert told["fields"][field][0]["code"] == code
    assert not BulkUpdate.objects.exists()


def test_post__wrong_ids_are_told_by_their_place(lead: Client, sandbox: BlandSandbox) -> None:
    told = post(lead, ["a", "-", "b", *(["?"] * 500)]).json()["fields"]["conversation_ids"]
    assert told[0] == {"code": "invalid_id", "detail": "Not a conversation id, at index 1."}
    assert len(told) == 10


def test_post__body_without_end(lead: Client, set_bland: Any, sandbox: BlandSandbox) -> None:
    set_bland(BULK_LIMIT=5)
    answer = post(lead, ["a"], reason="x" * 100_000)
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


def test_post__needs_the_verb_s_permission(
    login: Any, sandbox: BlandSandbox, copied: Copied
) -> None:
    ids = copied(1)
    client = login("view_conversation", "deactivate_conversation")
    assert post(client, ids, True).status_code == 403
    assert post(login("deactivate_conversation"), ids).status_code == 403
    assert not BulkUpdate.objects.exists()
    assert post(client, ids).status_code == 202


def test_post__host_may_narrow(rf: Any, staff: AbstractUser, sandbox: BlandSandbox) -> None:
    from rest_framework.test import force_authenticate

    from bland_sms.api.bulk_updates import BulkUpdateViewSet

    class Ours(BulkUpdateViewSet):
        def get_conversations(self) -> Any:
            return Conversation.objects.filter(agent_number="+1")

    def ask(*ids: str) -> Any:
        body = json.dumps({"is_active": False, "conversation_ids": ids})
        request = rf.post("/", body, "application/json")
        force_authenticate(request, staff)
        return Ours.as_view({"post": "create"})(request)

    Conversation.objects.create(pk="ours", agent_number="+1")
    Conversation.objects.create(pk="theirs")
    answer = ask("ours", "theirs", "unknown")
    assert answer.status_code == 400
    assert [one["code"] for one in answer.data["fields"]["conversation_ids"]] == ["not_found"] * 2
    answer = ask("ours")
    assert (answer.status_code, answer.data["driver"]) == (202, "done")
    both = updates.prepare(["ours", "theirs"], False, requested_by=staff, source="api")
    updates.start(both)

    def read(action: str, **kwargs: Any) -> Any:
        request = rf.get("/")
        force_authenticate(request, staff)
        return Ours.as_view({"get": action})(request, **kwargs).data

    one = read("retrieve", pk=str(both.pk))
    assert (one["total"], one["counts"]["waiting"]) == (1, 1)
    assert [found["counts"] for found in read("list")["results"]] == [None, None]
    assert "Location" not in answer


# --- Idempotency-Key --------------------------------------------------------------------------


def test_key__same_request_is_one_update(
    lead: Client, sandbox: BlandSandbox, copied: Copied
) -> None:
    ids = copied(3)
    first = post(lead, ids, key="k1", reason="r")
    again = post(lead, list(reversed(ids)), key="k1", reason="r")
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.json() == again.json()
    assert first["Location"] == again["Location"]
    assert len(sandbox.requests("PATCH")) == 3


def test_key__another_request_is_refused(
    lead: Client, sandbox: BlandSandbox, copied: Copied
) -> None:
    ids = copied(3)
    known = post(lead, ids, key="k1").json()["id"]
    for answer in (
        post(lead, ids[:2], key="k1"),
        post(lead, ids, True, key="k1"),
        post(lead, ids, key="k1", reason="x"),
    ):
        assert (answer.status_code, answer.json()["code"]) == (409, "idempotency_key_reused")
        assert answer.json()["bulk_update"] == known
    assert BulkUpdate.objects.count() == 1


def test_key__is_its_user_s_own(
    lead: Client, login: Any, sandbox: BlandSandbox, copied: Copied
) -> None:
    ids = copied(1)
    first, second = post(lead, ids, key="k1"), post(login(*BOTH), ids, key="k1")
    assert first.json()["id"] != second.json()["id"]


@pytest.mark.parametrize("key", ["", "x" * 256, "a b", "é"])
def test_key__that_is_none(key: str, lead: Client, sandbox: BlandSandbox) -> None:
    answer = post(lead, ["a"], key=key)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_idempotency_key")


def test_key__of_a_request_that_died_before_it_began(
    lead: Client, sandbox: BlandSandbox, copied: Copied, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = copied(3)

    class Killed(BaseException):
        pass

    def die(*args: Any) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr("bland_sms.updates.start", die)
        with pytest.raises(Killed):
            post(lead, ids, key="k1")
    assert BulkUpdate.objects.get().status == "draft"
    answer = post(lead, ids, key="k1")
    assert states(answer) == {"changed": 3}
    assert BulkUpdate.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_key__sent_twice_at_once(
    sandbox: BlandSandbox, copied: Copied, staff: AbstractUser
) -> None:
    ids = copied(3)
    barrier = threading.Barrier(4)
    answers: list[Any] = []

    def send() -> None:
        client = Client()
        client.force_login(staff)
        barrier.wait()
        try:
            answers.append(post(client, ids, key="k1"))
        finally:
            connection.close()

    threads = [threading.Thread(target=send) for _thread in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    statuses = [answer.status_code for answer in answers]
    assert set(statuses) <= {202, 503}  # 503: the database had another to serve
    assert 202 in statuses
    assert BulkUpdate.objects.count() == 1
    assert len(sandbox.requests("PATCH")) == 3


# --- cancel, retry, undo ----------------------------------------------------------------------


def test_cancel__the_rest(
    lead: Client, sandbox: BlandSandbox, copied: Copied, worker: Any, staff: AbstractUser
) -> None:
    body = post(lead, copied(40)).json()
    answer = act(lead, body["id"], "cancel")
    assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
    assert states(answer) == {"cancelled": 40}
    assert not sandbox.log
    again = act(lead, body["id"], "cancel")
    assert (again.status_code, again.json()["code"]) == (409, "nothing_to_cancel")
    entry = LogEntry.objects.get(object_id=str(body["id"]))
    assert (entry.user, history_words(entry.change_message)) == (staff, "Cancelled the rest.")


def test_retry__only_what_failed(lead: Client, sandbox: BlandSandbox, copied: Copied) -> None:
    ids = copied(3)
    sandbox.faults.add(ids[0], "400")
    body = post(lead, ids).json()
    answer = act(lead, body["id"], "retry")
    assert answer.status_code == 202
    assert states(answer) == {"changed": 3}
    assert len(sandbox.requests("PATCH")) == 4
    again = act(lead, body["id"], "retry")
    assert (again.status_code, again.json()["code"]) == (409, "nothing_to_retry")
    told = LogEntry.objects.values_list("change_message", flat=True)
    assert "Retried 1." in map(history_words, told)


def test_undo__is_an_update_of_its_own(lead: Client, sandbox: BlandSandbox, copied: Copied) -> None:
    ids = copied(3)
    body = post(lead, ids).json()
    answer = act(lead, body["id"], "undo")
    undo = answer.json()
    assert answer.status_code == 202
    assert (undo["undo_of"], undo["is_active"], undo["source"]) == (body["id"], True, "api")
    assert answer["Location"].endswith(f"/{undo['id']}/")
    assert states(answer) == {"changed": 3}
    assert all(sandbox.account.rows[one]["is_active"] for one in ids)
    again = act(lead, body["id"], "undo")
    assert (again.status_code, again.json()["code"]) == (409, "nothing_to_undo")


def test_undo__reason(lead: Client, copied: Copied) -> None:
    body = post(lead, copied(2)).json()
    url = f"{UPDATES}{body['id']}/undo/"
    misspelt = lead.post(url, {"reasons": "mistake"}, content_type="application/json")
    assert misspelt.status_code == 400
    answer = lead.post(url, {"reason": "mistake"}, content_type="application/json")
    assert answer.json()["reason"] == "mistake"


def test_patch__reason(lead: Client, copied: Copied) -> None:
    [pk] = copied(1)
    asked = {"is_active": False, "reason": "spam"}
    url = f"/bland-sms/api/v1/conversations/{pk}/"
    assert lead.patch(url, asked, content_type="application/json").status_code == 200
    assert BulkUpdate.objects.get().reason == "spam"


def test_undo__not_while_it_runs(
    lead: Client, sandbox: BlandSandbox, copied: Copied, worker: Any
) -> None:
    body = post(lead, copied(40)).json()
    assert act(lead, body["id"], "undo").json()["code"] == "nothing_to_undo"


def test_continue__a_second_driver_doubles_nothing(
    lead: Client, sandbox: BlandSandbox, copied: Copied, started: Started
) -> None:
    update = started(copied(2))
    later = timezone.now() + timedelta(seconds=9)
    BulkUpdate.objects.update(status="running", lease_until=later)
    answer = act(lead, update.pk, "continue")
    assert (answer.status_code, answer.json()["driver"]) == (202, "worker")
    assert not sandbox.log


def test_decisions__need_the_verb_s_permission(
    login: Any, lead: Client, sandbox: BlandSandbox, copied: Copied
) -> None:
    ids = copied(2)
    sandbox.faults.add(ids[0], "400")
    theirs = post(lead, ids).json()["id"]
    sandbox.log.clear()
    only_sees = login("view_bulkupdate")
    wrong_verb = login("view_bulkupdate", "reactivate_conversation")
    stranger = login(*BOTH)
    for name in ("continue", "retry", "cancel"):
        assert act(only_sees, theirs, name).status_code == 403
        assert act(wrong_verb, theirs, name).status_code == 403
        assert act(stranger, theirs, name).status_code == 404
    assert (
        act(login("view_bulkupdate", "deactivate_conversation"), theirs, "undo").status_code == 403
    )
    assert not sandbox.log
    assert act(wrong_verb, theirs, "undo").status_code == 202


def test_list__own_ones_and_all(
    lead: Client, login: Any, sandbox: BlandSandbox, copied: Copied
) -> None:
    ids = copied(1)
    own = login(*BOTH)
    theirs, mine = post(lead, ids).json()["id"], post(own, ids, True).json()["id"]
    assert [one["id"] for one in own.get(UPDATES).json()["results"]] == [mine]
    assert own.get(f"{UPDATES}{theirs}/").status_code == 404
    assert own.get(f"{UPDATES}{theirs}/items/").status_code == 404
    everything = login("view_bulkupdate").get(UPDATES).json()["results"]
    assert [one["id"] for one in everything] == [mine, theirs]
    assert login("view_bulkupdate").get(f"{UPDATES}?status=queued").json()["results"] == []


def test_draft__is_seen_by_nobody(lead: Client, copied: Copied, started: Started) -> None:
    update = started(copied(1))
    BulkUpdate.objects.update(status="draft")
    assert lead.get(f"{UPDATES}{update.pk}/").status_code == 404
    assert lead.get(UPDATES).json()["results"] == []


def test_items__pages(lead: Client, copied: Copied, started: Started) -> None:
    update = started(copied(130))
    run_url, found = f"{UPDATES}{update.pk}/items/?page_size=50", []
    while run_url:
        page = lead.get(run_url).json()
        found += [item["conversation_id"] for item in page["results"]]
        run_url = page["next"]
    assert found == [f"conv_{n:04d}" for n in range(130)]

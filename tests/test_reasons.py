"""One table from code to words: complete, each hole filled, and nothing worded is ever stored."""

from __future__ import annotations

import ast
import html
import json
import pickle
import re
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import AbstractUser, Permission
from django.core.management import CommandError, call_command
from django.db import models
from django.test import Client
from django.utils import translation

from bland_sms import exceptions, health, sync
from bland_sms.management.commands import bland_sms_update
from bland_sms.models import (
    BulkUpdate,
    BulkUpdateItem,
    Conversation,
    SyncRun,
    WebhookDelivery,
)
from bland_sms.reasons import (
    BLANDS_CODES,
    HOLES_GIVEN_HERE,
    REASONS,
    Failure,
    history_entry,
    history_words,
)
from bland_sms.sandbox import BlandSandbox
from bland_sms.sync import runs
from bland_sms.updates import cancel, prepare, proceed, retry, run, start, undo
from bland_sms.webhooks import process

APP = Path(exceptions.__file__).parent
HOLE = re.compile(r"%\((\w+)\)s")
COLUMNS = ("error_code", "stop_code", "error")
"""Columns and attributes that hold a code."""


# --- the code, read as it stands ------------------------------------------------------------------


def modules() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(APP.rglob("*.py")):
        name = str(path.relative_to(APP))
        if not name.startswith(("sandbox/", "migrations/")):
            yield name, ast.parse(path.read_text("utf-8"))


def text_of(node: ast.expr | None) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def name_of(call: ast.Call) -> str:
    function = call.func
    return getattr(function, "id", "") or getattr(function, "attr", "")


ERRORS = {
    name: kind
    for name, kind in vars(exceptions).items()
    if isinstance(kind, type) and issubclass(kind, exceptions.BlandError)
}
CAUSE_FIRST = {
    name for name, kind in ERRORS.items() if not issubclass(kind, exceptions.BlandAPIError)
}


def uses() -> Iterator[tuple[str, str, set[str] | None]]:
    """Each code that some room raises or keeps: where, and which holes are filled there.

    ``None``: by names that are known at run time only; those are driven below.
    """
    for module, tree in modules():
        if module == "reasons.py":
            continue
        for node in ast.walk(tree):
            place = f"{module}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Call):
                yield from _of_call(place, node)
            elif isinstance(node, ast.Dict):
                for key, value in zip(node.keys, node.values, strict=True):
                    if text_of(key) in ("cause", "error_code", "stop_code") and text_of(value):
                        yield place, str(text_of(value)), None
            elif isinstance(node, ast.Assign):
                yield from _of_assignment(place, node)


def _of_call(place: str, call: ast.Call) -> Iterator[tuple[str, str, set[str] | None]]:
    name, first = name_of(call), text_of(call.args[0]) if call.args else None
    given = {keyword.arg for keyword in call.keywords if keyword.arg}
    is_whole = all(keyword.arg for keyword in call.keywords)
    if name in CAUSE_FIRST:
        is_kept = not call.args or first is not None
        assert is_kept or place.startswith("client/answers.py"), f"{place}: not a code"
        yield place, first or ERRORS[name].code, given if is_whole and is_kept else None
    elif name == "Failure" and first is not None:
        params = call.args[1] if len(call.args) > 1 else None
        if params is not None and not isinstance(params, ast.Dict):
            yield place, first, None
            return
        told = (
            {str(text_of(k)): text_of(v) for k, v in zip(params.keys, params.values, strict=True)}
            if params
            else {}
        )
        yield place, told.get("cause") or first, None if "None" in told else set(told)
    elif name in ("history_entry", "_note", "cancel_items"):
        codes = [text_of(one) for one in call.args]
        for code in filter(None, codes):
            yield place, code, given if is_whole else None
    elif name == "_found" and first is not None:
        yield place, f"check_{first}", given if is_whole else None
    for keyword in call.keywords:
        if keyword.arg in COLUMNS and (code := text_of(keyword.value)):
            yield place, code, None


def _of_assignment(place: str, node: ast.Assign) -> Iterator[tuple[str, str, set[str] | None]]:
    pairs: list[tuple[ast.expr, ast.expr]] = []
    for target in node.targets:
        if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
            pairs += zip(target.elts, node.value.elts, strict=True)
        else:
            pairs.append((target, node.value))
    for target, value in pairs:
        name = getattr(target, "attr", getattr(target, "id", ""))
        if name in COLUMNS:
            parts = (value.body, value.orelse) if isinstance(value, ast.IfExp) else (value,)
            for part in parts:
                if code := text_of(part):
                    yield place, code, None


def holes(code: str) -> set[str]:
    return set(HOLE.findall(str(REASONS[code].sentence))) - set(HOLES_GIVEN_HERE)


USES = list(uses())


def test_table__has_every_code_that_is_raised_or_kept() -> None:
    assert len(USES) > 60  # or this looks in the wrong places
    assert [(place, code) for place, code, _given in USES if code not in REASONS] == []


def test_table__each_hole_is_filled_where_the_code_is_raised() -> None:
    empty = [
        (place, code, holes(code) - given)
        for place, code, given in USES
        if given is not None and not holes(code) <= given
    ]
    assert empty == []


@pytest.mark.parametrize("kind", ERRORS.values())
def test_table__has_the_code_of_every_exception(kind: type[exceptions.BlandError]) -> None:
    if not issubclass(kind, exceptions.BlandAPIError):
        assert kind.code in REASONS


def test_table__has_every_status_of_health() -> None:
    told = re.findall(r"``(\w+)``", str(health.Health.__dataclass_fields__ and _health_source()))
    statuses = {name for name in told if f"health_{name}" in REASONS}
    assert {f"health_{name}" for name in statuses} == {
        code for code in REASONS if code.startswith("health_")
    }


def _health_source() -> str:
    return (APP / "health.py").read_text("utf-8").partition("problem: str")[0]


def test_table__has_no_code_that_nobody_uses() -> None:
    known = {code for _place, code, _given in USES} | {kind.code for kind in ERRORS.values()}
    known |= {*BLANDS_CODES, "http_401", "http_403", "http_404", "http_429"}
    known |= {"http_4xx", "http_5xx", "redirected"}
    texts = {
        text
        for module, tree in modules()
        if module != "reasons.py"
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(text := node.value, str)
    }
    unused = set(REASONS) - known - texts
    assert unused == {code for code in REASONS if code.startswith("health_")}


def test_table__sentences_have_no_full_stop_and_next_steps_have_one() -> None:
    for code, reason in REASONS.items():
        assert not str(reason.sentence).endswith((".", " ")), code
        assert str(reason.next_step) == "" or str(reason.next_step).endswith("."), code


# --- wording --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        (Failure(), ""),
        (Failure("outage"), "Bland does not answer."),
        (Failure("AUTH_FAILURE", {"http_status": 401}), "Bland refused the key (401)."),
        (
            Failure("http_403", {"http_status": 403, "words": "Your account is flagged."}),
            "Bland refuses this account (HTTP 403): Your account is flagged.",
        ),
        (
            Failure("AUTH_FAILURE", {"http_status": 403}),
            "Bland refuses this account (403 AUTH_FAILURE).",
        ),
        (
            Failure("http_404", {"http_status": 404}).for_operators,
            "Bland has no such address (404): check BLAND_SMS['BASE_URL'].",
        ),
        (Failure("http_404", {"http_status": 404}), "Bland has no such address (404)."),
        (
            Failure("CONVERSATION_NOT_FOUND", {"http_status": 404}),
            "Not found under this key (404 CONVERSATION_NOT_FOUND).",
        ),
        (Failure("RATE", {"http_status": 429}), "Bland asked us to slow down (429)."),
        (Failure("http_500"), "Bland reported an internal error (HTTP 500)."),
        (Failure("http_408"), "Bland reported an internal error (HTTP 408)."),
        (Failure("X", {"http_status": 422, "words": "no"}), "Bland refused it (422 X): no."),
        (Failure("X", {"http_status": 200}), "Bland refused it (200 X)."),
        (Failure("Odd"), "Unexpected error (Odd)."),
        (Failure("no_answer", {"cause": "broken_off"}), "The connection to Bland broke before"),
        (Failure("no_answer", {"cause": "of a later release"}), "Bland did not answer in time."),
        (Failure("no_answer", {"cause": "answer_too_long"}), "Bland's answer is longer than ?"),
        (
            Failure("superseded", {"update": 3, "by": "dana"}),
            "A newer update asks for the opposite (update 3 by dana).",
        ),
        (
            Failure("superseded", {"update": 3}),
            "A newer update asks for the opposite (update 3).",
        ),
        (Failure("cancelled", {"by": "dana"}), "Cancelled before it was sent (by dana)."),
        (
            Failure("not_permitted", {"cause": "requester_gone", "who": "dana %s"}),
            "dana %s no longer has an account.",
        ),
        (
            Failure(
                "not_looked_at",
                {"because": Failure("no_answer", {"cause": "broken_off"}).as_json()},
            ),
            "Some conversations that Bland no longer lists could not be checked: "
            "the connection to Bland broke",
        ),
    ],
)
def test_failure__in_words(failure: Failure, words: str) -> None:
    told = failure.as_sentence
    assert told == words or (not words.endswith(".") and told.startswith(words))
    assert bool(failure) is bool(words)
    assert failure.advice.startswith(told)


@pytest.mark.parametrize("code", REASONS)
def test_failure__keeps_through_json(code: str) -> None:
    params = dict.fromkeys(holes(code), "x")
    failure = Failure(code, params)
    again = Failure(code, json.loads(json.dumps(params)))
    assert str(again) == str(failure)
    assert "%(" not in failure.advice
    assert "?" not in str(failure).replace("running?", "").replace("key?", "")
    assert 200 <= failure.reason.status < 600


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500])
def test_failure__statuses_are_told_apart(status: int) -> None:
    all_told = {str(Failure(f"http_{one}")) for one in (401, 403, 404, 408, 409, 429, 500)}
    assert len(all_told) == 7
    assert str(Failure("BLANDS_CODE", {"http_status": status})) != str(Failure("BLANDS_CODE"))


@pytest.mark.parametrize(
    "error",
    [
        exceptions.BlandOutcomeUnknownError("answer_too_long", number=7),
        exceptions.BlandNotFoundError(404, "CONVERSATION_NOT_FOUND", "no"),
        exceptions.BlandConnectionError(),
    ],
)
def test_error__is_a_sentence_and_survives_a_pickle(error: exceptions.BlandError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert str(error) == str(error.failure) == str(again)
    assert again.failure == error.failure


def test_history__any_admin_can_read_it_and_ours_words_it(staff: AbstractUser) -> None:
    conversation = Conversation.objects.create(pk="conv_1")
    entry = history_entry("history_deactivated", number=17)
    LogEntry.objects.log_actions(staff.pk, [conversation], 2, entry)
    kept = LogEntry.objects.get()
    assert history_words(kept.change_message) == "Deactivated at Bland in bulk update 17."
    assert "17" in kept.get_change_message()
    for strange in ("", "Changed.", "bland_sms", '["bland_sms"]', '[{"bland_sms": 1}]'):
        assert history_words(strange) == strange


# --- nothing worded is kept -----------------------------------------------------------------------


def fragments(language: str) -> set[str]:
    """What the table's sentences consist of between their holes, in one language."""
    with translation.override(language):
        told = [str(reason.sentence) for reason in REASONS.values()]
        told += [str(reason.next_step) for reason in REASONS.values()]
    parts = {part.strip(" .:()") for text in told for part in HOLE.split(text)}
    return {part for part in parts if len(part) > 9 and " " in part}


FRAGMENTS = fragments("en") | fragments("es")


def kept() -> Iterator[tuple[str, str]]:
    """Every text and JSON that any of our rows holds, and the History."""
    for model in (BulkUpdate, BulkUpdateItem, SyncRun, WebhookDelivery, LogEntry):
        columns = [
            field.attname
            for field in model._meta.concrete_fields
            if isinstance(field, (models.CharField, models.TextField, models.JSONField))
        ]
        for row in model._default_manager.all():
            for column in columns:
                value = getattr(row, column)
                if value:
                    yield f"{model.__name__}.{column}", json.dumps(value, ensure_ascii=False)


def check_nothing_is_worded() -> None:
    found = [(column, text, part) for column, text in kept() for part in FRAGMENTS if part in text]
    assert found == []


def check_all_is_in_the_table() -> None:
    """Each code that is kept is ours, or one that Bland sent with a status."""
    failures = [one.failure for one in BulkUpdateItem.objects.all()]
    failures += [one.stop for one in BulkUpdate.objects.all()]
    failures += [one.failure for one in SyncRun.objects.all()]
    failures += [one.failure for one in WebhookDelivery.objects.all()]
    for failure in filter(None, failures):
        assert failure.code in REASONS or failure.http_status is not None, failure
        assert failure.params.get("cause", "error") in REASONS, failure
        assert "?" not in str(failure).replace("running?", "").replace("key?", ""), failure


ANSWERS = [
    *("400", "401", "403", "404", "404_route", "409", "422", "429", "408", "500", "503:99999"),
    *("html502", "redirect302:/", "truncated", "bad_json", "empty200", "html200", "list_body"),
    *("errors_body", "nan", "infinite", "deep", "duplicate_keys", "wrong_id", "not_applied"),
    *("missing", "nulls", "strings", "reset_before", "reset_after", "hang_before:60", "huge:9"),
    *("gzipbomb:1", "echo_key", "close_before"),
]
LANGUAGES = pytest.mark.parametrize("language", ["en", "es"])


@LANGUAGES
@pytest.mark.usefixtures("no_waiting", "impatient")
@pytest.mark.parametrize("fault", ANSWERS)
def test_kept__no_sentence_whatever_bland_answers(
    fault: str,
    language: str,
    sandbox: BlandSandbox,
    copied: Callable[..., list[str]],
    started: Callable[..., BulkUpdate],
) -> None:
    (one,) = copied(1)
    with translation.override(language):
        bulk_update = started([one])
        sandbox.faults.add("*", f"forever:{fault}")
        run(bulk_update, seconds=60)
        sync.run(full=True)
        delivery = WebhookDelivery.objects.create(body_sha256="1", conversation_id=one)
        process(delivery, seconds=60)
    check_nothing_is_worded()
    check_all_is_in_the_table()
    item = BulkUpdateItem.objects.get()
    assert item.error_code or item.bulk_update.stop_code or SyncRun.objects.get().error_code


@LANGUAGES
@pytest.mark.usefixtures("no_waiting")
def test_kept__no_sentence_of_what_people_decide(
    language: str,
    sandbox: BlandSandbox,
    copied: Callable[..., list[str]],
    started: Callable[..., BulkUpdate],
    staff: AbstractUser,
) -> None:
    ids = copied(3)
    with translation.override(language):
        done = started(ids[:1], requested_by=staff)
        run(done)
        start(undo(done, staff))
        first = started(ids[1:], requested_by=staff)
        started(ids[1:2], requested_by=staff)  # already queued
        started(ids[2:], is_active=True, requested_by=staff)  # supersedes
        cancel(first, staff)
        sandbox.api_key = "another"
        stopped = started(ids[:1], is_active=True, requested_by=None)
        run(stopped)
        proceed(stopped, staff)
        cancel(stopped, staff)
        sandbox.api_key = "org_test_key_000000"
        sandbox.faults.add("*", "400")
        refused = started(ids[1:2], is_active=True, requested_by=staff)
        run(refused)
        retry(refused, staff)
    codes = set(BulkUpdateItem.objects.values_list("error_code", flat=True))
    assert {"already_queued", "superseded", "cancelled"} <= codes
    assert LogEntry.objects.count() >= 4
    check_nothing_is_worded()
    check_all_is_in_the_table()


@LANGUAGES
@pytest.mark.usefixtures("no_waiting")
@pytest.mark.parametrize("change", ["inactive", "not_allowed", "gone"])
def test_kept__no_sentence_of_who_may_not(
    change: str,
    language: str,
    sandbox: BlandSandbox,
    copied: Callable[..., list[str]],
    django_user_model: Any,
) -> None:
    user = django_user_model.objects.create_user("sam")
    user.user_permissions.add(Permission.objects.get(codename="deactivate_conversation"))
    bulk_update = prepare(copied(1), False, requested_by=user, source="admin")
    start(bulk_update)
    if change == "inactive":
        django_user_model.objects.update(is_active=False)
    elif change == "not_allowed":
        user.user_permissions.clear()
    else:
        user.delete()
    with translation.override(language):
        run(bulk_update)
    bulk_update.refresh_from_db()
    assert bulk_update.stop_params["cause"] == f"requester_{change}"
    assert "sam" in bulk_update.stop_message
    check_nothing_is_worded()
    check_all_is_in_the_table()


@LANGUAGES
@pytest.mark.usefixtures("no_waiting")
def test_kept__no_sentence_of_syncs(
    language: str, sandbox: BlandSandbox, copied: Callable[..., list[str]], settings: Any
) -> None:
    copied(1)
    with translation.override(language):
        runs.begin(SyncRun(mode="full"))
        sync.run()
        SyncRun.objects.filter(lease_key="sync").update(lease_until="2020-01-01T00:00Z")
        sandbox.account.rows.clear()
        Conversation.objects.bulk_create(Conversation(pk=f"gone_{one}") for one in range(30))
        sync.run(full=True)
        settings.BLAND_SMS = {}
        sync.run(full=True)
    codes = set(SyncRun.objects.values_list("error_code", flat=True))
    assert {"sync_running", "process_ended", "too_few_found", "not_configured"} <= codes
    check_nothing_is_worded()
    check_all_is_in_the_table()


# --- the same words at every door -----------------------------------------------------------------


@pytest.mark.usefixtures("no_waiting")
@pytest.mark.parametrize(
    ("fault", "words", "to_operators"),
    [
        ("401", "Bland refused the key (401).", ""),
        ("403", "Bland refuses this account (403 ENTERPRISE_REQUIRED): Scripted 403.", ""),
        (
            "404_route",
            "Bland has no such address (404).",
            "Bland has no such address (404): check BLAND_SMS['BASE_URL'].",
        ),
    ],
)
def test_doors__tell_why_an_update_stopped(
    fault: str,
    words: str,
    to_operators: str,
    sandbox: BlandSandbox,
    copied: Callable[..., list[str]],
    admin_client: Client,
) -> None:
    (one,) = copied(1)
    sandbox.faults.add("*", f"forever:{fault}")
    with pytest.raises(CommandError) as caught:
        call_command("bland_sms_update", "--deactivate", one, stdout=StringIO())
    assert str(caught.value).splitlines() == [to_operators or words, f"{one}: waiting"]
    bulk_update = BulkUpdate.objects.get()
    assert bulk_update.stop_message == (to_operators or words)
    page = admin_client.get(f"/admin/bland_sms/bulkupdate/{bulk_update.pk}/change/")
    assert html.escape(words) in page.content.decode()
    told = admin_client.get(f"/bland-sms/api/v1/bulk-updates/{bulk_update.pk}/").json()
    assert told["stop_message"] == words
    answer = admin_client.patch(
        f"/bland-sms/api/v1/conversations/{one}/",
        {"is_active": False},
        content_type="application/json",
    )
    assert (answer.status_code, answer.json()["code"]) in (
        (502, bulk_update.stop_code),
        (202, "already_queued"),
    )


@pytest.mark.usefixtures("no_waiting")
@pytest.mark.parametrize(
    ("fault", "state"), [("422", "failed"), ("reset_before", "unknown"), ("404", "failed")]
)
def test_doors__tell_why_an_item_is_not_as_asked(
    fault: str,
    state: str,
    sandbox: BlandSandbox,
    copied: Callable[..., list[str]],
    admin_client: Client,
) -> None:
    (one,) = copied(1)
    sandbox.faults.add("*", f"forever:{fault}")
    answer = admin_client.patch(
        f"/bland-sms/api/v1/conversations/{one}/",
        {"is_active": False},
        content_type="application/json",
    )
    item = BulkUpdateItem.objects.get()
    assert item.state == state
    assert answer.json()["detail"].startswith(item.failure.as_sentence)
    base = f"/admin/bland_sms/bulkupdate/{item.bulk_update_id}/"
    page = admin_client.get(f"{base}change/").content.decode()
    assert page.count(html.escape(item.failure.advice)) == 2  # the cause, and the row
    rows = b"".join(admin_client.get(f"{base}results.csv").streaming_content).decode()
    assert item.failure.advice in rows.replace('""', '"')
    with pytest.raises(CommandError) as caught:
        call_command("bland_sms_update", "--deactivate", one, stdout=StringIO())
    assert str(item.failure) in str(caught.value)


def test_update_command__counts_unknown_items_apart() -> None:
    command = bland_sms_update.Command(stderr=StringIO())
    nothing = dict.fromkeys(BulkUpdateItem.State.values, 0)
    for counts, told in (
        ({"unknown": 2, "changed": 1}, "3/3, 2 unknown "),
        ({"unknown": 2, "failed": 1}, "3/3, 1 failed, 2 unknown "),
        ({"failed": 1, "waiting": 4}, "1/5, 1 failed "),
        ({"changed": 1}, "1/1 "),
    ):
        command.stderr._out.truncate(0)  # type: ignore[attr-defined]
        command._draw({**nothing, **counts})
        assert command.stderr._out.getvalue().endswith(told)  # type: ignore[attr-defined]

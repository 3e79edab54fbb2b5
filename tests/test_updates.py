"""Carrying out an update: what stops it, what it costs, and what two people do to each other."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import responses
import trustme
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import AbstractUser, Permission
from django.db import DatabaseError, OperationalError, connection, transaction
from django.utils import timezone

from bland_sms import mirror
from bland_sms.dispatching import carry_out
from bland_sms.exceptions import BlandInvalidIdError
from bland_sms.leases import LostLeaseError
from bland_sms.models import BulkUpdate, BulkUpdateItem, Conversation
from bland_sms.reasons import history_words
from bland_sms.sandbox import BlandSandbox
from bland_sms.signals import bulk_update_finished
from bland_sms.updates import (
    EmptySelectionError,
    SelectionTooLargeError,
    driver,
    prepare,
    recording,
    run,
    start,
    waiting_updates,
)
from bland_sms.updates.claiming import claim

from .conftest import wait_until

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("no_waiting")]
Copied = Callable[..., list[str]]
Started = Callable[..., BulkUpdate]


def states(bulk_update: BulkUpdate) -> dict[str, int]:
    return {state: number for state, number in bulk_update.counts().items() if number}


# --- what stops an update ---------------------------------------------------------------------


def test_run__refused_key_stops_the_rest(
    sandbox: BlandSandbox, copied: Copied, started: Started, set_bland: Any
) -> None:
    set_bland(MAX_CONCURRENCY=4)
    bulk_update = started(copied(100))
    sandbox.faults.add("#20", "401")

    assert run(bulk_update) is False

    bulk_update.refresh_from_db()
    assert len(sandbox.log) <= 20 + 2 * 4 + 1
    assert bulk_update.status == "stopped"
    assert bulk_update.stop_code == "AUTH_FAILURE"
    assert bulk_update.stop_message == "Bland refused the key (401)."
    done = len([seen for seen in sandbox.log if seen["status"] == 200])
    assert states(bulk_update) == {"changed": done, "waiting": 100 - done}
    waiting = bulk_update.items.filter(state="waiting")
    assert not waiting.exclude(attempts=0).exists()
    assert not waiting.exclude(claimed_conversation=None).exists()


@pytest.mark.parametrize("fault", ["403", "404_route"])
def test_run__other_refusals_of_all_rows(
    fault: str, sandbox: BlandSandbox, copied: Copied, started: Started
) -> None:
    bulk_update = started(copied(3))
    sandbox.faults.add("*", f"forever:{fault}")

    run(bulk_update)

    bulk_update.refresh_from_db()
    assert bulk_update.status == "stopped"
    assert states(bulk_update) == {"waiting": 3}


@pytest.mark.parametrize("number", [100, 3200])
@pytest.mark.parametrize("fault", ["forever:500", "forever:503", "forever:reset_before"])
def test_run__outage_costs_little(
    fault: str, number: int, sandbox: BlandSandbox, copied: Copied, started: Started
) -> None:
    bulk_update = started(copied(number))
    sandbox.faults.add("*", fault)

    assert run(bulk_update) is False

    bulk_update.refresh_from_db()
    assert len(sandbox.log) <= (150 if number == 100 else 200)
    assert (bulk_update.status, bulk_update.stop_code) == ("stopped", "outage")
    assert bulk_update.stop_message == "Bland does not answer."
    assert states(bulk_update) == {"waiting": number}
    assert Conversation.objects.filter(is_active=True).count() == number


def test_run__nobody_listens(
    sandbox: BlandSandbox, copied: Copied, started: Started, set_bland: Any
) -> None:
    bulk_update = started(copied(1))
    set_bland(BASE_URL="http://127.0.0.1:9")

    run(bulk_update)

    bulk_update.refresh_from_db()
    assert (bulk_update.status, bulk_update.stop_code) == ("stopped", "outage")
    assert states(bulk_update) == {"waiting": 1}


@pytest.mark.slow
def test_run__bland_puts_off_everybody_for_a_day(
    sandbox: BlandSandbox, copied: Copied, started: Started
) -> None:
    bulk_update = started(copied(200))
    sandbox.faults.add("*", "forever:429:86400")

    run(bulk_update)

    bulk_update.refresh_from_db()
    assert len(sandbox.log) <= 100
    assert (bulk_update.status, bulk_update.stop_code) == ("stopped", "outage")
    assert bulk_update.stop_message == "Bland limits how often it may be asked."
    assert states(bulk_update) == {"waiting": 200}


def test_run__one_row_put_off_for_a_day_does_not_keep_the_others(
    sandbox: BlandSandbox, copied: Copied, started: Started
) -> None:
    ids = copied(10)
    bulk_update = started(ids)
    sandbox.faults.add(ids[3], "429:86400")

    assert run(bulk_update) is False

    bulk_update.refresh_from_db()
    item = bulk_update.items.get(state="waiting")
    assert states(bulk_update) == {"changed": 9, "waiting": 1}
    assert timedelta(hours=23) < item.not_before - timezone.now() <= timedelta(hours=24)
    assert item.attempts == 0
    assert bulk_update.status == "queued"
    assert not waiting_updates().exists()


@pytest.mark.parametrize("trusted", [True, False])
def test_run__certificate(
    trusted: bool, copied: Copied, started: Started, settings: Any, db: None, tmp_path: Any
) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    bundle = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(bundle)
    with BlandSandbox(api_key="org_test_key_000000", tls=context) as sandbox:
        sandbox.account.add({"id": "conv_1"})
        Conversation.objects.create(pk="conv_1")
        settings.BLAND_SMS = {
            "API_KEY": "org_test_key_000000",
            "BASE_URL": sandbox.base_url,
            "CA_BUNDLE": str(bundle) if trusted else None,
        }
        bulk_update = started(["conv_1"])

        run(bulk_update)

        bulk_update.refresh_from_db()
        if trusted:
            assert states(bulk_update) == {"changed": 1}
        else:
            assert bulk_update.stop_code == "tls_refused"
            assert "CA_BUNDLE" in bulk_update.stop_message
            assert states(bulk_update) == {"waiting": 1}
            assert not sandbox.log


def test_run__wrong_host_name_in_certificate(
    started: Started, settings: Any, tmp_path: Any
) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("api.example.com").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    with BlandSandbox(tls=context) as sandbox:
        settings.BLAND_SMS = {
            "API_KEY": "sandbox-key",
            "BASE_URL": sandbox.base_url,
            "CA_BUNDLE": str(tmp_path / "ca.pem"),
        }
        bulk_update = started(["conv_1"])
        run(bulk_update)
        bulk_update.refresh_from_db()
        assert bulk_update.stop_code == "tls_refused"


@pytest.mark.parametrize("key", ["", None, "two\nlines"])
def test_run__without_a_usable_key(
    key: str | None, sandbox: BlandSandbox, copied: Copied, started: Started, set_bland: Any
) -> None:
    bulk_update = started(copied(1))
    set_bland(API_KEY=key)

    run(bulk_update)

    bulk_update.refresh_from_db()
    assert bulk_update.stop_code == "not_configured"
    assert "API_KEY" in bulk_update.stop_message
    assert not sandbox.log


def test_run__requester_lost_the_permission(
    sandbox: BlandSandbox, copied: Copied, started: Started, django_user_model: Any
) -> None:
    user = django_user_model.objects.create_user("sam", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="deactivate_conversation"))
    bulk_update = started(copied(1), requested_by=user, source="admin")
    user.user_permissions.clear()

    run(bulk_update)

    bulk_update.refresh_from_db()
    assert bulk_update.stop_code == "not_permitted"
    assert not sandbox.log


@pytest.mark.parametrize("change", [{"is_active": False}, None])
def test_run__requester_is_gone(
    change: dict[str, bool] | None,
    sandbox: BlandSandbox,
    copied: Copied,
    started: Started,
    staff: AbstractUser,
) -> None:
    bulk_update = started(copied(1), requested_by=staff, source="admin")
    if change is None:
        staff.delete()
    else:
        type(staff).objects.update(**change)

    run(bulk_update)

    bulk_update.refresh_from_db()
    assert bulk_update.stop_code == "not_permitted"
    assert "dana" in bulk_update.stop_message
    assert not sandbox.log


# --- not found --------------------------------------------------------------------------------


def test_run__not_found_is_confirmed_before_the_row_is_marked(
    sandbox: BlandSandbox, copied: Copied, started: Started
) -> None:
    ids = copied(3)
    del sandbox.account.rows[ids[0]]
    sandbox.faults.add(f"PATCH {ids[1]}", "404")
    bulk_update = started(ids)

    run(bulk_update)

    assert states(bulk_update) == {"changed": 1, "failed": 2}
    assert bulk_update.items.filter(error_code="CONVERSATION_NOT_FOUND").count() == 2
    assert Conversation.objects.get(pk=ids[0]).missing_since is not None
    assert Conversation.objects.get(pk=ids[1]).missing_since is None
    for conversation_id in ids[:2]:
        assert [seen["method"] for seen in sandbox.requests("", conversation_id)] == [
            "PATCH",
            "GET",
        ]


def test_run__another_accounts_key(sandbox: BlandSandbox, copied: Copied, started: Started) -> None:
    bulk_update = started(copied(100))
    sandbox.account.rows.clear()

    run(bulk_update)

    bulk_update.refresh_from_db()
    assert (bulk_update.status, bulk_update.stop_code) == ("stopped", "wrong_account")
    assert states(bulk_update) == {"waiting": 100}
    assert not Conversation.objects.exclude(missing_since=None).exists()
    assert len(sandbox.log) <= 20 + 2 * 16
    assert not sandbox.requests("GET")


@pytest.mark.parametrize(("number", "is_stopped"), [(19, False), (20, True), (21, True)])
def test_run__twenty_first_answers_tell_of_another_accounts_key(
    number: int,
    is_stopped: bool,
    sandbox: BlandSandbox,
    copied: Copied,
    started: Started,
    set_bland: Any,
) -> None:
    set_bland(MAX_CONCURRENCY=1)
    bulk_update = started(copied(number))
    sandbox.account.rows.clear()

    assert run(bulk_update) is not is_stopped

    bulk_update.refresh_from_db()
    assert bulk_update.stop_code == ("wrong_account" if is_stopped else "")
    assert states(bulk_update) == {"waiting" if is_stopped else "failed": number}
    missing = Conversation.objects.exclude(missing_since=None)
    assert missing.count() == (0 if is_stopped else number)


def test_run__one_answer_proves_the_account(
    sandbox: BlandSandbox, copied: Copied, started: Started, set_bland: Any
) -> None:
    set_bland(MAX_CONCURRENCY=1)
    ids = copied(40)
    bulk_update = started(ids)
    for conversation_id in ids[:19] + ids[20:]:
        del sandbox.account.rows[conversation_id]

    assert run(bulk_update) is True
    assert states(bulk_update) == {"changed": 1, "failed": 39}


# --- rows -------------------------------------------------------------------------------------


def test_run__row_deleted_meanwhile_is_not_recreated(
    sandbox: BlandSandbox, copied: Copied, started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    [conversation_id] = copied(1)
    bulk_update = started([conversation_id])
    sandbox.faults.add(conversation_id, "no_ts")  # one more GET, whose facts could make a row
    apply = recording.apply_page

    def delete_then_apply(*args: Any, **kwargs: Any) -> Any:
        Conversation.objects.all().delete()
        return apply(*args, **kwargs)

    monkeypatch.setattr(recording, "apply_page", delete_then_apply)

    run(bulk_update)

    assert states(bulk_update) == {"changed": 1}
    assert not Conversation.objects.exists()


@pytest.mark.parametrize(("was_active", "state"), [(True, "changed"), (False, "unchanged")])
def test_run__unknown_id_is_adopted(
    was_active: bool, state: str, sandbox: BlandSandbox, started: Started
) -> None:
    sandbox.account.add({"id": "conv_new", "is_active": was_active, "user_number": "+15550100042"})
    bulk_update = started(["conv_new"])

    run(bulk_update)

    item = bulk_update.items.get()
    assert (item.state, item.previous_is_active) == (state, was_active)
    row = Conversation.objects.get()
    assert (row.is_active, row.user_number) == (False, "+15550100042")


def test_run__no_change_needed_is_unchanged(
    sandbox: BlandSandbox, copied: Copied, started: Started
) -> None:
    bulk_update = started(copied(1, is_active=False))
    run(bulk_update)
    assert states(bulk_update) == {"unchanged": 1}
    assert len(sandbox.requests("PATCH")) == 1


def test_run__poison_row_is_alone(
    sandbox: BlandSandbox, copied: Copied, started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = copied(8)
    bulk_update = started(ids)
    apply = mirror.apply_page

    def refuse_one(payloads: Any, **kwargs: Any) -> Any:
        if any(payload.id == ids[5] for payload in payloads):
            raise DatabaseError("value out of range")
        return apply(payloads, **kwargs)

    monkeypatch.setattr(recording, "apply_page", refuse_one)

    run(bulk_update)

    assert states(bulk_update) == {"changed": 7, "failed": 1}
    assert bulk_update.items.get(state="failed").error_code == "not_stored"


@pytest.mark.django_db(transaction=True)
def test_run__results_survive_a_locked_database(
    sandbox: BlandSandbox, copied: Copied, started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    bulk_update = started(copied(5))
    apply, failures = mirror.apply_page, [1, 2, 3]

    def fail_at_first(payloads: Any, **kwargs: Any) -> Any:
        if failures:
            failures.pop()
            raise OperationalError("database is locked")
        return apply(payloads, **kwargs)

    monkeypatch.setattr(recording, "apply_page", fail_at_first)

    assert run(bulk_update) is True

    assert states(bulk_update) == {"changed": 5}
    assert len(sandbox.requests("PATCH")) == 5


def test_run__history_tells_who_did_what(
    sandbox: BlandSandbox, copied: Copied, started: Started, staff: AbstractUser
) -> None:
    ids = copied(3)
    Conversation.objects.filter(pk=ids[2]).update(is_active=False)
    bulk_update = started(ids, requested_by=staff, source="admin")

    run(bulk_update)

    entries = LogEntry.objects.order_by("object_id")
    assert [entry.object_id for entry in entries] == ids[:2]
    assert entries[0].user == staff
    told = f"Deactivated at Bland in bulk update {bulk_update.pk}."
    assert history_words(entries[0].change_message) == told


def test_run__finished_is_announced_once_and_robustly(
    sandbox: BlandSandbox, copied: Copied, started: Started, django_capture_on_commit_callbacks: Any
) -> None:
    heard: list[Any] = []

    def raise_after(sender: type, **arguments: Any) -> None:
        heard.append((arguments["bulk_update"].pk, arguments["counts"]["changed"]))
        raise ValueError("a receiver of the host")

    bulk_update_finished.connect(raise_after)
    try:
        bulk_update = started(copied(2))
        with django_capture_on_commit_callbacks(execute=True):
            run(bulk_update)
            run(bulk_update)
    finally:
        bulk_update_finished.disconnect(raise_after)

    assert heard == [(bulk_update.pk, 2)]


# --- leases and time --------------------------------------------------------------------------


def test_run__second_run_returns_at_once(
    sandbox: BlandSandbox, copied: Copied, started: Started
) -> None:
    bulk_update = started(copied(2))
    BulkUpdate.objects.update(status="running", lease_until=timezone.now() + timedelta(seconds=9))
    assert run(bulk_update) is False
    assert not sandbox.log


def test_run__takeover_looks_first(sandbox: BlandSandbox, copied: Copied, started: Started) -> None:
    ids = copied(3)
    bulk_update = started(ids)
    sandbox.account.set_active(ids[0], False)
    expired = timezone.now() - timedelta(seconds=1)
    BulkUpdate.objects.update(status="running", lease_until=expired)
    for conversation_id in ids[:2]:
        bulk_update.items.filter(conversation_id=conversation_id).update(
            state="running", claimed_conversation=conversation_id
        )

    assert run(bulk_update) is True

    asked = {pk: [s["method"] for s in sandbox.requests("", pk)] for pk in ids}
    assert asked == {ids[0]: ["GET"], ids[1]: ["GET", "PATCH"], ids[2]: ["PATCH"]}
    assert states(bulk_update) == {"changed": 3}


def test_run__a_confirmation_without_a_time_counts_more_than_the_look_before_it(
    sandbox: BlandSandbox, copied: Copied, started: Started
) -> None:
    [conversation_id] = copied(1)
    sandbox.account.set_active(conversation_id, True)  # newer at Bland than in the mirror
    bulk_update = started([conversation_id])
    bulk_update.items.update(error_code="interrupted", previous_is_active=True)
    sandbox.faults.add(f"PATCH {conversation_id}", "no_ts")
    sandbox.faults.add("#4", "500")  # the look after it; the first call copied the row

    assert run(bulk_update) is True

    assert [seen["method"] for seen in sandbox.log] == ["GET", "PATCH", "GET"]
    assert states(bulk_update) == {"changed": 1}
    assert Conversation.objects.get().is_active is False


def test_run__lost_lease_writes_nothing(
    sandbox: BlandSandbox, copied: Copied, started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    [conversation_id] = copied(1)
    bulk_update = started([conversation_id])
    ask = driver.ask

    def lose_lease(*args: Any) -> Any:
        result = ask(*args)
        lost.set()
        return result

    lost = threading.Event()
    monkeypatch.setattr(driver, "ask", lose_lease)
    collect = driver._Drive._collect

    def take_over(self: Any, result: Any) -> None:
        assert lost.is_set()
        BulkUpdate.objects.update(lease_token="00000000-0000-4000-8000-000000000000")
        collect(self, result)

    monkeypatch.setattr(driver._Drive, "_collect", take_over)

    assert run(bulk_update) is False
    assert bulk_update.items.get().state == "running"
    assert Conversation.objects.get().is_active is True


@pytest.mark.parametrize("token", [None, "00000000-0000-4000-8000-000000000000"])
def test_claim__needs_the_lease(token: str | None, copied: Copied, started: Started) -> None:
    bulk_update = started(copied(3))
    assert bulk_update.take_lease()
    assert len(claim(bulk_update, 1)) == 1
    BulkUpdate.objects.update(lease_token=token)  # another process has taken over, or is done

    with pytest.raises(LostLeaseError):
        claim(bulk_update, 2)

    assert states(bulk_update) == {"running": 1, "waiting": 2}


def test_run__once_stopped_asks_nothing_new(
    sandbox: BlandSandbox, copied: Copied, started: Started, set_bland: Any
) -> None:
    """What is in flight is awaited and written."""
    set_bland(MAX_CONCURRENCY=2, READ_TIMEOUT=15)
    bulk_update = started(copied(60))
    stopped = threading.Event()
    sandbox.latency_seconds = 0.05

    def stop_at_the_first_request() -> None:
        wait_until(lambda: sandbox.log)
        stopped.set()

    watcher = threading.Thread(target=stop_at_the_first_request)
    watcher.start()
    assert run(bulk_update, stopped=stopped) is False
    watcher.join()

    done = len(sandbox.log)
    assert done < 60
    assert states(bulk_update) == {"changed": done, "waiting": 60 - done}
    bulk_update.refresh_from_db()
    assert (bulk_update.status, bulk_update.lease_until) == ("queued", None)


def test_run__stopped_before_it_begins(
    sandbox: BlandSandbox, copied: Copied, started: Started
) -> None:
    bulk_update = started(copied(2))
    stopped = threading.Event()
    stopped.set()
    assert run(bulk_update, stopped=stopped) is False
    assert not sandbox.log
    assert states(bulk_update) == {"waiting": 2}
    assert list(waiting_updates()) == [bulk_update]


def test_run__time_is_up(
    sandbox: BlandSandbox,
    copied: Copied,
    started: Started,
    set_bland: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    set_bland(MAX_CONCURRENCY=2)
    sandbox.latency_seconds = 0.1
    bulk_update = started(copied(60))
    # It sends for two seconds, and all that is left is for what is in flight.
    monkeypatch.setattr(driver, "LAST_SEND_SECONDS", 28.0)
    monkeypatch.setattr(driver, "LAST_SEND_SHARE", 1.0)

    assert run(bulk_update, seconds=30) is False

    bulk_update.refresh_from_db()
    done = len(sandbox.log)
    assert 2 <= done <= 40
    assert states(bulk_update) == {"changed": done, "waiting": 60 - done}
    assert bulk_update.status == "queued"
    assert list(waiting_updates()) == [bulk_update]
    sandbox.latency_seconds = 0
    assert run(bulk_update) is True
    assert len(sandbox.log) == 60


def test_run__hanging_past_the_time_is_looked_at_next_time(
    sandbox: BlandSandbox, copied: Copied, started: Started, set_bland: Any
) -> None:
    set_bland(READ_TIMEOUT=60)
    [conversation_id] = copied(1)
    sandbox.faults.add(conversation_id, "hang_after:60")
    bulk_update = started([conversation_id])

    began = time.monotonic()
    assert run(bulk_update, seconds=2.5) is False
    assert time.monotonic() - began < 30  # whatever READ_TIMEOUT is
    assert bulk_update.items.get().state == "waiting"
    assert run(bulk_update) is True

    assert [seen["method"] for seen in sandbox.log] == ["PATCH", "GET"]
    assert states(bulk_update) == {"changed": 1}


def test_run__refuses_an_open_transaction(started: Started) -> None:
    bulk_update = started(["conv_1"])
    with transaction.atomic(), pytest.raises(RuntimeError, match="transaction"):
        run(bulk_update)


@responses.activate
def test_carry_out__in_a_host_test_with_responses(settings: Any, started: Started) -> None:
    settings.BLAND_SMS = {"API_KEY": "org_test_key_000000"}
    Conversation.objects.create(pk="conv_1")
    answer = responses.patch(
        "https://api.bland.ai/v1/sms/conversations/conv_1",
        json={
            "message": "Conversation updated successfully",
            "conversation": {
                "id": "conv_1",
                "is_active": False,
                "updated_at": "2024-01-15T10:30:00.000Z",
            },
        },
    )
    told: list[BulkUpdate] = []

    carry_out(started(["conv_1"]), told.append)

    assert answer.call_count == 1
    assert states(told[0]) == {"changed": 1}
    assert Conversation.objects.get().updated_at.isoformat() == "2024-01-15T10:30:00+00:00"


@pytest.mark.django_db(transaction=True)
def test_carry_out__waits_for_commit(
    sandbox: BlandSandbox, copied: Copied, started: Started
) -> None:
    ids = copied(1)
    told: list[BulkUpdate] = []
    with transaction.atomic():
        bulk_update = started(ids)
        carry_out(bulk_update, told.append)
        assert not sandbox.log
        assert not told
    assert len(sandbox.log) == 1
    assert told == [bulk_update]


# --- selections -------------------------------------------------------------------------------


def test_prepare__from_a_queryset(copied: Copied, django_assert_max_num_queries: Any) -> None:
    copied(50)
    some = Conversation.objects.filter(pk__lt="conv_0030").order_by("-pk")
    with django_assert_max_num_queries(5):
        bulk_update = prepare(some, False)
    assert bulk_update.items.count() == 30
    assert bulk_update.status == "draft"
    item = bulk_update.items.order_by("pk")[0]
    assert (item.state, item.attempts, item.error_code, item.message) == ("waiting", 0, "", "")


def test_prepare__from_a_sliced_queryset(copied: Copied) -> None:
    copied(10)
    assert prepare(Conversation.objects.order_by("pk")[:4], False).items.count() == 4


@pytest.mark.parametrize("as_ids", [True, False])
def test_prepare__too_many_or_none(as_ids: bool, copied: Copied, set_bland: Any) -> None:
    ids = copied(11)
    set_bland(BULK_LIMIT=10)
    everything = ids if as_ids else Conversation.objects.all()
    nothing: Any = [] if as_ids else Conversation.objects.none()
    with pytest.raises(SelectionTooLargeError, match="10"):
        prepare(everything, False)
    with pytest.raises(EmptySelectionError):
        prepare(nothing, False)
    assert not BulkUpdate.objects.exists()
    assert not BulkUpdateItem.objects.exists()


@pytest.mark.parametrize("bad", ["..", "", "a/b", "a#b", "conv_1?x=1", "é", "a" * 129, "-a"])
def test_prepare__unusable_id(bad: str, db: None) -> None:
    with pytest.raises(BlandInvalidIdError):
        prepare(["conv_1", bad], False)
    assert not BulkUpdate.objects.exists()


# --- two people -------------------------------------------------------------------------------


def test_start__newer_opposite_intent_wins(
    sandbox: BlandSandbox, copied: Copied, started: Started, staff: AbstractUser
) -> None:
    ids = copied(2)
    older = started(ids)
    newer = started(ids[:1], is_active=True, requested_by=staff)

    run(older)
    run(newer)

    item = older.items.get(conversation_id=ids[0])
    assert (item.state, item.error_code) == ("cancelled", "superseded")
    assert f"update {newer.pk} by dana" in str(item.failure)
    assert (item.error_params, item.message) == ({"update": newer.pk, "by": "dana"}, "")
    assert [seen["is_active"] for seen in sandbox.requests("PATCH", ids[0])] == [True]
    assert [seen["is_active"] for seen in sandbox.requests("PATCH", ids[1])] == [False]


def test_start__same_intent_is_not_doubled(
    sandbox: BlandSandbox, copied: Copied, started: Started, staff: AbstractUser
) -> None:
    ids = copied(2)
    first = started(ids[:1], requested_by=staff)
    second = started(ids)

    run(second)
    run(first)

    item = second.items.get(conversation_id=ids[0])
    assert (item.state, item.error_code) == ("cancelled", "already_queued")
    assert f"update {first.pk} by dana" in str(item.failure)
    assert (item.error_params, item.message) == ({"update": first.pk, "by": "dana"}, "")
    assert len(sandbox.requests("PATCH", ids[0])) == 1


def test_start__all_queued_elsewhere_is_finished_at_once(copied: Copied, started: Started) -> None:
    ids = copied(1)
    started(ids)
    second = started(ids)
    second.refresh_from_db()
    assert second.status == "finished"
    assert second.finished_at is not None


def test_run__late_retry_of_the_older_intent_is_not_sent(
    sandbox: BlandSandbox, copied: Copied, started: Started
) -> None:
    ids = copied(1)
    older = started(ids)
    # In flight when the newer one starts, then its process dies.
    older.items.update(state="running", claimed_conversation=ids[0])
    BulkUpdate.objects.update(status="running", lease_until=timezone.now() + timedelta(seconds=9))
    newer = started(ids, is_active=True)
    BulkUpdate.objects.filter(pk=older.pk).update(lease_until=timezone.now())

    run(newer)
    run(older)

    assert [seen["is_active"] for seen in sandbox.requests("PATCH")] == [True]
    assert older.items.get().error_code == "superseded"


def test_run__one_in_flight_elsewhere_is_waited_for(
    sandbox: BlandSandbox, copied: Copied, started: Started
) -> None:
    ids = copied(2)
    older = started(ids[:1])
    older.items.update(state="running", claimed_conversation=ids[0])
    lease = timezone.now() + timedelta(seconds=0.5)
    BulkUpdate.objects.update(status="running", lease_until=lease)
    newer = started(ids, is_active=True)

    assert run(newer) is True

    assert len(sandbox.requests("PATCH", ids[0])) == 1
    assert timezone.now() >= lease


def test_draft_takes_no_part(copied: Copied, started: Started) -> None:
    ids = copied(1)
    prepare(ids, True)
    bulk_update = started(ids)
    assert states(bulk_update) == {"waiting": 1}
    assert connection.in_atomic_block  # the draft above was not started by accident
    start(bulk_update)
    assert states(bulk_update) == {"waiting": 1}

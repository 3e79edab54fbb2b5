"""A person is forgotten, everywhere and for good; nobody else is."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Event
from typing import Any

import pytest
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.db import connection, connections
from django.utils import timezone

from bland_sms import erasure, mirror, sync, webhooks
from bland_sms.client import get_client
from bland_sms.erasure import forget, traces
from bland_sms.models import (
    BulkUpdate,
    BulkUpdateItem,
    Conversation,
    DailyTotal,
    Erasure,
    Message,
    MonthlyTotal,
    PastedLine,
    SyncRun,
    UncountedDay,
    WebhookDelivery,
)
from bland_sms.person import ERASED, NotANumberError
from bland_sms.reasons import history_words
from bland_sms.sandbox import BlandSandbox
from bland_sms.signals import conversation_changed
from bland_sms.summary import counting
from bland_sms.sync import refresh
from bland_sms.updates import prepare, run, start

from .conftest import wait_until
from .test_commands import manage

pytestmark = pytest.mark.django_db
NUMBER, OTHER = "+15550100001", "+15550100002"
TEXTS = ("My cat is called Minka", "Summary of Minka", "Minka!", "VIP-Minka", "minka@example.com")


@pytest.fixture
def account(sandbox: BlandSandbox, set_bland: Any) -> BlandSandbox:
    """Two people, two conversations each, copied with all that they said."""
    for number, who in enumerate((NUMBER, OTHER, NUMBER, OTHER)):
        message = {"id": f"m{number}", "sender": "USER", "message": TEXTS[0]}
        sandbox.account.add(
            {
                "id": f"conv_{number}",
                "user_number": who,
                "messages": [message],
                "summary": TEXTS[1],
                "last_message": TEXTS[2],
                "disposition_tag": TEXTS[3],
                "variables": {"mail": TEXTS[4]},
                "inbound_id": TEXTS[4],
            }
        )
        refresh(f"conv_{number}")
    return sandbox


def everything() -> str:
    """All that is stored, as text."""
    tables = (Conversation, Message, BulkUpdate, BulkUpdateItem, WebhookDelivery, LogEntry)
    return json.dumps([list(model.objects.values()) for model in tables], default=str)


def whole(conversation_id: str) -> tuple[Any, ...]:
    row = Conversation.objects.values().get(pk=conversation_id)
    return row, list(Message.objects.filter(conversation=conversation_id).values())


def test_forget__nothing_is_left_of_one_and_all_of_the_other(account: BlandSandbox) -> None:
    mirror.apply_page(get_client().list_conversations().conversations)
    assert Conversation.objects.get(pk="conv_0").older_facts
    others = [whole("conv_1"), whole("conv_3")]
    forgotten = forget(NUMBER)
    assert (forgotten.conversations, forgotten.messages) == (2, 2)
    assert [whole("conv_1"), whole("conv_3")] == others
    for pk in ("conv_0", "conv_2"):
        row, messages = whole(pk)
        assert messages == []
        assert row["erased_at"] is not None
        assert row["agent_number"]  # that is ours
        told = json.dumps(row, default=str)
        assert "inka" not in told
        assert "0001" not in row["user_number"] + row["customer_key"] + row["user_digits_reversed"]
        names = ("user_number", "customer_key", "user_digits_reversed", "last_message", "listed")
        assert [row[name] for name in (*names, "summary", "disposition_tag")] == [""] * 7
        assert row["older_facts"] == {}


@pytest.mark.parametrize(
    "notation",
    [
        *("+15550100001", "15550100001", "5550100001", "+1 (555) 010-0001", "555.010.0001"),
        *("001 555 010 0001", "\uff15\uff15\uff150100001", " +1 555\u2011010\u20110001 "),
    ],
)
def test_forget__any_notation(notation: str, account: BlandSandbox) -> None:
    assert forget(notation).conversations == 2


@pytest.mark.parametrize(
    "number", ["", "0001", "100001", "conv_0", "Minka", "+15550100001, +15550100002", "%", "+"]
)
def test_forget__not_a_whole_number(number: str, account: BlandSandbox) -> None:
    before = everything()
    with pytest.raises(NotANumberError):
        forget(number)
    assert everything() == before


def test_forget__country_code(account: BlandSandbox, set_bland: Any) -> None:
    set_bland(DEFAULT_COUNTRY_CODE="49")
    account.account.add({"id": "conv_de", "user_number": "+4930123456789"})
    refresh("conv_de")
    assert forget("030 123456789").conversations == 1
    assert forget("5550100001").conversations == 0  # +49 5550100001 is somebody else


def test_forget__name_on_another_channel(account: BlandSandbox) -> None:
    account.account.add({"id": "conv_mail", "user_number": "minka@example.com"})
    refresh("conv_mail")
    assert forget("minka@example.com").conversations == 1


def test_forget__unknown_number(account: BlandSandbox) -> None:
    before = everything()
    assert forget("+15559999999") == erasure.Forgotten()
    assert everything() == before


def test_forget__twice(account: BlandSandbox) -> None:
    forget(NUMBER)
    before = everything()
    assert forget(NUMBER) == erasure.Forgotten()
    assert everything() == before


def test_forget__dry_run(account: BlandSandbox, staff: Any) -> None:
    wrote(account, staff)
    before = everything()
    counted = forget(NUMBER, dry_run=True)
    assert everything() == before
    assert forget(NUMBER) == counted
    assert [name for name, number in vars(counted).items() if not number] == ["orders"]


# --- the other tables -------------------------------------------------------------------------


def wrote(account: BlandSandbox, staff: Any) -> BulkUpdate:
    """Staff deactivated all four, and Bland rang about each."""
    update = prepare(
        [f"conv_{number}" for number in range(4)],
        False,
        requested_by=staff,
        reason="(555) 010-0001 asked us to stop, 555 010 0002 as well",
        selection="Search: 15550100001",
    )
    start(update)
    assert run(update)
    for number in range(4):
        WebhookDelivery.objects.create(
            body_sha256=f"{number:064d}", conversation_id=f"conv_{number}", reason="Minka said bye"
        )
    PastedLine.objects.create(bulk_update=update, number=1, text=NUMBER, state="not_found")
    return update


def test_forget__ledger_history_and_webhooks(account: BlandSandbox, staff: Any) -> None:
    update = wrote(account, staff)
    for pk in ("conv_0", "conv_1"):
        LogEntry.objects.log_actions(
            staff.pk, Conversation.objects.filter(pk=pk), CHANGE, f"Called {TEXTS[0]}"
        )
    forgotten = forget(NUMBER)
    assert (forgotten.items, forgotten.deliveries, forgotten.updates) == (2, 2, 1)
    assert forgotten.history == 3
    update.refresh_from_db()
    assert update.reason == f"{ERASED} asked us to stop, 555 010 0002 as well"
    assert update.selection == f"Search: {ERASED}"
    words = dict(update.items.values_list("conversation_id", "message"))
    assert words["conv_0"] == words["conv_2"] == ""
    assert words["conv_1"] == words["conv_3"] == "Conversation updated successfully"
    assert update.counts()["changed"] == 4
    reasons = dict(WebhookDelivery.objects.values_list("conversation_id", "reason"))
    assert reasons == {
        **{"conv_0": "", "conv_2": ""},
        **{"conv_1": "Minka said bye", "conv_3": "Minka said bye"},
    }
    mine = LogEntry.objects.filter(object_id__in=("conv_0", "conv_2"))
    assert {(entry.object_repr, entry.get_change_message()) for entry in mine} == {
        ("conv_0", ERASED),
        ("conv_2", ERASED),
    }
    others = LogEntry.objects.filter(object_id="conv_1")
    # The update's own entry names the id alone.
    assert {entry.object_repr for entry in others} == {"conv_1", "conv_1 (customer: ends in 0002)"}
    assert {history_words(entry.change_message) for entry in others} == {
        f"Deactivated at Bland in bulk update {update.pk}.",
        f"Called {TEXTS[0]}",
    }
    assert LogEntry.objects.filter(user=staff).count() == 6  # who did it is no secret


def test_forget__ids_differ_by_case(account: BlandSandbox, staff: Any) -> None:
    account.account.add({"id": "CONV_0", "user_number": OTHER})
    refresh("CONV_0")
    for pk in ("conv_0", "CONV_0"):
        LogEntry.objects.log_actions(staff.pk, Conversation.objects.filter(pk=pk), CHANGE, "x")
    forget(NUMBER)
    entries = dict(LogEntry.objects.values_list("object_id", "change_message"))
    assert entries == {"conv_0": ERASED, "CONV_0": "x"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("+15550100001", ERASED),
        ("call 1-555-010-0001 today", f"call {ERASED} today"),
        ("call (555) 010 0001.", f"call {ERASED}."),
        ("010-0001", ERASED),
        ("001 555 0100001 and +1 555 0100001", f"{ERASED} and {ERASED}"),
        ("٥٥٥٠١٠٠٠٠١", ERASED),
        ("5550100001 2026-01-01", f"{ERASED} 2026-01-01"),
        ("25550100001", "25550100001"),
        ("55501000012", "55501000012"),
        ("5550100002", "5550100002"),
        ("100001", "100001"),
        ("0001", "0001"),
        ("", ""),
    ],
)
def test_forget__number_in_what_staff_wrote(text: str, expected: str, account: Any) -> None:
    update = BulkUpdate.objects.create(
        is_active=False, source="admin", reason=text, selection=text, requested_by_name="dana"
    )
    forget(NUMBER)
    update.refresh_from_db()
    assert (update.reason, update.selection) == (expected, expected)


def test_forget__all_or_nothing(account: BlandSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any) -> int:
        raise ZeroDivisionError

    monkeypatch.setattr(erasure, "_mask", broken)
    before = everything()
    with pytest.raises(ZeroDivisionError):
        forget(NUMBER)
    assert everything() == before  # with the number gone, nobody could find the rest again


def test_forget__is_announced(
    account: BlandSandbox, django_capture_on_commit_callbacks: Any
) -> None:
    heard: dict[str, Any] = {}

    def listen(sender: Any, conversation_id: str, changed_fields: Any, **kwargs: Any) -> None:
        heard[conversation_id] = changed_fields

    conversation_changed.connect(listen)
    try:
        with django_capture_on_commit_callbacks(execute=True):
            forget(NUMBER)
    finally:
        conversation_changed.disconnect(listen)
    assert set(heard) == {"conv_0", "conv_2"}
    assert "erased_at" in heard["conv_0"]


# --- it does not come back --------------------------------------------------------------------


def test_forget__next_sync_brings_nothing_back(account: BlandSandbox) -> None:
    forget(NUMBER)
    account.account.set_active("conv_0", False)
    account.account.rows["conv_2"]["messages"].append(
        {"id": "m9", "sender": "USER", "message": "Minka again"}
    )
    assert manage("bland_sms_sync", "--full").code == 0
    assert (
        manage("bland_sms_sync", "--conversation", "conv_0", "--conversation", "conv_2").code == 0
    )
    refresh("conv_0")
    refresh("conv_2")
    WebhookDelivery.objects.create(body_sha256="1" * 64, conversation_id="conv_0")
    assert webhooks.process_waiting().processed == 1
    body = {"conversation_id": "conv_2", "status": "ended", "reason": "Minka left"}
    assert webhooks.receive(b"2", body) is not None
    told = [whole("conv_0"), whole("conv_2")]
    kept = json.dumps([told, list(WebhookDelivery.objects.values())], default=str)
    assert "inka" not in kept
    assert "5550100001" not in kept
    assert Conversation.objects.get(pk="conv_0").is_active is False  # its state is still copied
    assert Message.objects.filter(conversation="conv_1").count() == 1


def test_forget__page_says_so(account: BlandSandbox, admin_client: Any) -> None:
    forget(NUMBER)
    pages = [
        admin_client.get(f"/admin/bland_sms/conversation/conv_5F{number}/change/").content.decode()
        for number in (0, 1)
    ]
    assert ["This person was forgotten" in page for page in pages] == [True, False]
    assert "5550100001" not in pages[0]


def test_forget__conversation_that_begins_later_is_copied(account: BlandSandbox) -> None:
    forget(NUMBER)
    account.account.add({"id": "conv_new", "user_number": NUMBER})
    refresh("conv_new")
    assert Conversation.objects.get(pk="conv_new").user_number == NUMBER


def test_erase__answer_that_was_on_its_way(account: BlandSandbox) -> None:
    payload = get_client().get_conversation("conv_0")
    forget(NUMBER)
    assert mirror.apply_page([payload])["conv_0"].outcome is not mirror.Effect.CREATED
    assert Conversation.objects.get(pk="conv_0").user_number == ""
    assert not Message.objects.filter(conversation="conv_0").exists()


# --- bland_sms_forget -------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("typed", "erased"), [("yes\n", True), ("no\n", False), ("\n", False)])
def test_forget_command__asks_on_a_terminal(
    typed: str, erased: bool, account: BlandSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(typed))
    ran = manage("bland_sms_forget", NUMBER)
    assert ran.code == (0 if erased else 1)
    assert "2 conversations" in ran.err
    assert Conversation.objects.filter(erased_at__isnull=False).exists() is erased


@pytest.mark.parametrize("options", [["--yes"], ["--yes", "--json"], ["--dry-run"]])
def test_forget_command(
    options: list[str], account: BlandSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal())
    ran = manage("bland_sms_forget", "(555) 010-0001", *options)
    assert (ran.code, ran.err) == (0, "")
    if "--json" in options:
        told = json.loads(ran.out)
        assert (told["conversations"], told["messages"], told["dry_run"]) == (2, 2, False)
    else:
        assert "2 conversations, 2 messages" in ran.out
    assert "0001" not in ran.out
    left = Conversation.objects.filter(user_number=NUMBER).count()
    assert left == (2 if "--dry-run" in options else 0)


def test_forget_command__wrong_usage(account: BlandSandbox) -> None:
    ran = manage("bland_sms_forget", "0001")
    assert ran.code == 2
    assert "phone number" in ran.err


@pytest.mark.django_db(transaction=True)
def test_forget__outside_a_test_transaction(account: BlandSandbox) -> None:
    assert forget(NUMBER).conversations == 2
    assert not connection.in_atomic_block


@pytest.mark.skipif("connection.vendor == 'sqlite'", reason="one writes at a time there")
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("counted", ["days", "months"])
def test_forget__while_another_process_counts_what_names_the_person(
    counted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has read the reason before it was erased, and keeps its total afterwards."""
    long_ago = timezone.now() - timedelta(days=70)
    row = Conversation.objects.create(pk="conv_0", user_number=OTHER, updated_at=long_ago)
    update = BulkUpdate.objects.create(reason=f"{NUMBER} rang", is_active=False, status="finished")
    BulkUpdateItem.objects.create(
        bulk_update=update, conversation=row, state="changed", finished_at=long_ago
    )
    UncountedDay.objects.create(day=long_ago)
    has_counted, is_erased = Event(), Event()
    name = {"days": "count", "months": "add_up"}[counted]
    real_count, real_forget = getattr(counting, name), erasure._forget_searches

    def count(*args: Any) -> Any:
        found = real_count(*args)
        has_counted.set()
        assert is_erased.wait(60)
        wait_until(lambda: erasing.done() or is_lock_awaited())
        return found

    def forget_searches(person: Any) -> None:
        real_forget(person)
        is_erased.set()  # and committed

    def other(work: Callable[[], object]) -> None:
        try:
            work()
        finally:
            connections.close_all()

    monkeypatch.setattr(counting, name, count)
    monkeypatch.setattr(erasure, "_forget_searches", forget_searches)
    with ThreadPoolExecutor(2) as pool:
        closing = pool.submit(other, counting.close_days)
        assert has_counted.wait(60)
        erasing = pool.submit(other, lambda: forget(NUMBER))
        closing.result(60)
        erasing.result(60)

    for model in (DailyTotal, MonthlyTotal):
        reasons = {total.reason for total in model.objects.all()}
        assert reasons - {""} == {f"{ERASED} rang"}
    assert list(traces(NUMBER)) == []


def is_lock_awaited() -> bool:
    """Of anybody in the server: too soon is no harm."""
    statement = {
        "postgresql": "SELECT 'waiting', count(*) FROM pg_locks WHERE NOT granted",
        # Not a table of information_schema: whoever asks often is told the same again.
        "mysql": "SHOW GLOBAL STATUS LIKE 'Innodb_row_lock_current_waits'",
    }[connection.vendor]
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return int(cursor.fetchone()[1]) > 0


# --- whole, and nobody else -------------------------------------------------------------------


@pytest.mark.parametrize("number", ["", " ", "\t", "+", "()", "tel:", "0001", "555 0100"])
def test_forget__an_empty_or_cut_number_is_refused(number: str, account: BlandSandbox) -> None:
    Conversation.objects.create(pk="conv_nobody", user_number="")
    before = everything()
    with pytest.raises(NotANumberError):
        forget(number)
    assert manage("bland_sms_forget", number, "--yes").code == 2
    assert everything() == before


def test_forget__national_number_is_nobody_elses_international_one(account: BlandSandbox) -> None:
    for pk, number in (("conv_us", "+16592345678"), ("conv_sg", "+6592345678")):
        Conversation.objects.create(pk=pk, user_number=number)
    assert forget("(659) 234-5678").conversations == 1
    assert Conversation.objects.get(pk="conv_us").user_number == ""
    assert Conversation.objects.get(pk="conv_sg").user_number == "+6592345678"


@pytest.mark.parametrize("number", [NUMBER, "15550100001", "tel:+1 (555) 010-0001"])
def test_forget__every_notation_that_is_stored(number: str, account: BlandSandbox) -> None:
    for place, notation in enumerate(["15550100001", "whatsapp:+15550100001"]):
        Conversation.objects.create(pk=f"conv_more_{place}", user_number=notation)
    assert forget(number).conversations == 4


def test_forget__an_address_is_matched_whole(account: BlandSandbox) -> None:
    Conversation.objects.create(pk="conv_mail", user_number="Minka@Example.com")
    text = "minka@example.com, not aminka@example.com, minka@example.com.au or rob@example.com"
    update = BulkUpdate.objects.create(is_active=False, source="admin", reason=text)
    forget("minka@example.COM")
    update.refresh_from_db()
    assert update.reason == (
        f"{ERASED}, not aminka@example.com, minka@example.com.au or rob@example.com"
    )


def test_forget__words_in_every_table(account: BlandSandbox) -> None:
    words = "row of +1 555 010 0001"
    update = BulkUpdate.objects.create(is_active=False, source="admin", stop_params={"a": [words]})
    item = update.items.create(conversation_id="conv_9", message=words, error_params={"b": words})
    call = WebhookDelivery.objects.create(
        body_sha256="1" * 64, conversation_id="conv_9", status=words, error_params={"c": words}
    )
    run_ = SyncRun.objects.create(error_params={"d": words})
    assert {trace.table for trace in erasure.traces(NUMBER)} >= {
        update._meta.db_table,
        item._meta.db_table,
        call._meta.db_table,
        run_._meta.db_table,
    }
    forget(NUMBER)
    assert list(erasure.traces(NUMBER)) == []
    item.refresh_from_db()
    assert item.message == f"row of {ERASED}"


def test_forget__is_recorded_without_the_number(account: BlandSandbox) -> None:
    ran = manage("bland_sms_forget", NUMBER, "--yes", "--by", "dana")
    assert ran.code == 0
    record = Erasure.objects.get()
    assert (record.requested_by_name, record.counts["conversations"]) == ("dana", 2)
    assert "0001" not in json.dumps(record.counts)
    assert manage("bland_sms_forget", NUMBER, "--yes").code == 0
    assert Erasure.objects.count() == 1  # nothing was left to erase


def test_forget_command__in_a_script_needs_yes(account: BlandSandbox) -> None:
    ran = manage("bland_sms_forget", NUMBER)
    assert (ran.code, "--yes" in ran.err) == (2, True)
    assert not Conversation.objects.filter(erased_at__isnull=False).exists()


def test_forget_command__dry_run_names_the_rows(account: BlandSandbox) -> None:
    ran = manage("bland_sms_forget", NUMBER, "--dry-run")
    assert "conv_0 (…01): 1 messages" in ran.out
    assert "conv_2 (…01): 1 messages" in ran.out
    assert "conv_1" not in ran.out


def test_forget_command__verify(account: BlandSandbox, staff: Any) -> None:
    wrote(account, staff)
    ran = manage("bland_sms_forget", NUMBER, "--verify")
    assert ran.code == 1
    for place in (
        "bland_sms_conversation.user_number: row conv_0",
        "bland_sms_conversation.customer_key: row conv_2",
        "bland_sms_bulkupdate.reason",
    ):
        assert place in ran.err
    assert manage("bland_sms_forget", NUMBER, "--yes").code == 0
    ran = manage("bland_sms_forget", NUMBER, "--verify")
    assert (ran.code, ran.out) == (0, "named nowhere\n")
    assert manage("bland_sms_forget", "", "--verify").code == 2


def test_forget__no_door_brings_the_number_back(account: BlandSandbox, staff: Any) -> None:
    """Each door runs once more against a Bland that names the number in all of its words."""
    assert forget(NUMBER).conversations == 2
    for conversation_id in ("conv_0", "conv_2"):
        refresh(conversation_id)
    account.faults.add("conv_0", "400")
    update = prepare(["conv_0", "conv_2"], False, requested_by=staff)
    start(update)
    assert run(update)
    sync.run(full=True)
    for place, conversation_id in enumerate(("conv_0", "conv_2")):
        told = {
            "conversation_id": conversation_id,
            "type": "status",
            "status": f"ended {NUMBER}",
            "reason": f"{NUMBER} left",
        }
        webhooks.receive(str(place).encode(), told)
    webhooks.process_waiting()
    assert list(erasure.traces(NUMBER)) == []


def test_forget__lines_of_pasted_lists(account: BlandSandbox) -> None:
    update = prepare(["conv_0"], False)
    for number, values in enumerate(
        [
            {"text": "0001", "state": "found", "conversation_id": "conv_0"},
            {"text": "(555) 010-0001", "state": "not_allowed"},
            {"text": "01", "state": "ambiguous", "candidates": [NUMBER[1:], OTHER[1:]]},
            {"text": OTHER, "state": "found", "conversation_id": "conv_1"},
        ]
    ):
        PastedLine.objects.create(bulk_update=update, number=number + 1, **values)
    assert forget(NUMBER, dry_run=True).lines == 3
    assert forget(NUMBER).lines == 3
    lines = PastedLine.objects.values_list("text", "candidates")
    assert list(lines) == [(ERASED, []), (ERASED, []), ("01", [ERASED, OTHER[1:]]), (OTHER, [])]
    assert list(erasure.traces(NUMBER)) == []


@pytest.mark.parametrize(
    "text",
    [
        "+1\u00b7555\u00b7010\u00b70001",
        "1_555_010_0001",
        "+1\u200b555\u200b010\u200b0001",
        "555 – 010 – 0001",
    ],
)
def test_forget__whatever_stands_between_the_digits(text: str, account: BlandSandbox) -> None:
    update = BulkUpdate.objects.create(is_active=False, source="admin", reason=f"for {text}.")
    assert [trace.column for trace in erasure.traces(NUMBER) if trace.pk == str(update.pk)]
    forget(NUMBER)
    update.refresh_from_db()
    assert update.reason == f"for {ERASED}."


def test_forget__history_of_updates_and_kept_searches(
    account: BlandSandbox, staff: Any, client: Any
) -> None:
    update = BulkUpdate.objects.create(is_active=False, source="admin")
    entry = LogEntry.objects.create(
        user=staff,
        content_type=ContentType.objects.get_for_model(BulkUpdate),
        object_id=str(update.pk),
        object_repr=f"Update for {NUMBER}",
        action_flag=CHANGE,
        change_message=f"Cancelled: {OTHER} and {NUMBER} asked",
    )
    client.force_login(staff)
    numbers = [NUMBER, OTHER, *(f"+1555020{number:04}" for number in range(150))]
    listed = client.post("/admin/bland_sms/conversation/search/", {"q": ", ".join(numbers)})
    assert "list%3A" in listed.url
    assert {"django_session", "django_admin_log"} <= {one.table for one in erasure.traces(NUMBER)}

    assert forget(NUMBER).history == 1

    assert list(erasure.traces(NUMBER)) == []
    assert list(erasure.traces(OTHER))
    entry.refresh_from_db()
    assert entry.change_message == f"Cancelled: {OTHER} and {ERASED} asked"
    assert client.get(listed.url).status_code == 200

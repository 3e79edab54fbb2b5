"""Law 1: payloads in any order end in the same row."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from django.db import IntegrityError, connection
from django.test.utils import CaptureQueriesContext
from hypothesis import given, settings
from hypothesis import strategies as st

from bland_sms.mirror import (
    Effect,
    apply_conversation,
    apply_page,
    mark_missing,
    merge,
    shown_together,
)
from bland_sms.mirror import apply as applying
from bland_sms.models import Conversation, Message
from bland_sms.payloads import (
    EPOCH,
    MOST_EXTRA,
    ConversationPayload,
    MessagePayload,
    UpdatePayload,
)
from bland_sms.signals import conversation_changed, conversation_created

pytestmark = pytest.mark.django_db

NOON = datetime(2026, 2, 3, 12, tzinfo=timezone.utc)
MINUTE = timedelta(minutes=1)
Payload = ConversationPayload | UpdatePayload


def listed(**values: Any) -> ConversationPayload:
    plain = {"id": "conv_1", "is_active": True, "updated_at": NOON, "observed_at": NOON}
    return ConversationPayload(**{**plain, **values})


def detailed(*texts: str, **values: Any) -> ConversationPayload:
    messages = tuple(
        MessagePayload(bland_id=f"m{number}", sender="USER", text=text)
        for number, text in enumerate(texts)
    )
    return listed(messages=messages, **values)


def updated(**values: Any) -> UpdatePayload:
    plain = {"id": "conv_1", "is_active": False, "updated_at": NOON, "observed_at": NOON}
    return UpdatePayload(**{**plain, **values})


def stored() -> dict[str, Any] | None:
    row = Conversation.objects.values().first()
    messages = Message.objects.order_by("position").values_list("bland_id", "text", "position")
    return None if row is None else {**row, "messages": list(messages)}


# --- order ------------------------------------------------------------------------------------

moments = st.sampled_from([NOON, NOON + MINUTE, NOON + 2 * MINUTE])
facts = st.fixed_dictionaries(
    {},
    optional={
        "user_number": st.sampled_from(["+15550100001", "+15550100002"]),
        "message_count": st.integers(0, 3),
        "summary": st.sampled_from(["", "short", "longer"]),
        "timed_out_at": st.sampled_from([None, NOON]),
        "human_handoff_at": st.sampled_from([None, NOON]),
        "variables": st.sampled_from([None, {}, {"a": 1}, {"a": [1.5, "b"]}]),
        "extra": st.dictionaries(st.sampled_from("xyz"), st.integers(0, 2)),
    },
)
ages = st.fixed_dictionaries(
    {"updated_at": moments, "observed_at": moments, "is_active": st.booleans()}
)
payloads = st.one_of(
    st.builds(lambda age, told: listed(**age, **told), ages, facts),
    st.builds(
        lambda age, told, texts: detailed(*texts, **age, **told),
        ages,
        facts,
        st.lists(st.sampled_from(["hello", "bye"]), max_size=2),
    ),
    st.builds(lambda age: updated(**age), ages),
)


def outcome_of(arrivals: Sequence[Payload], *, as_page: bool) -> dict[str, Any] | None:
    Conversation.objects.all().delete()
    if as_page:
        apply_page(arrivals)
    else:
        for payload in arrivals:
            assert payload.observed_at is not None
            apply_conversation(payload, observed_at=payload.observed_at)
    row = stored()
    for one in Conversation.objects.all():
        one.derive()
        one.save()  # a column that follows from others does so already
    assert stored() == row
    return row


@pytest.mark.slow
@settings(max_examples=150)
@given(data=st.data(), some=st.lists(payloads, min_size=2, max_size=6))
def test_apply__any_order_ends_in_the_same_row(data: st.DataObject, some: list[Payload]) -> None:
    shuffled = data.draw(st.permutations([*some, *some[:2]]))
    expected = outcome_of(some, as_page=False)
    assert outcome_of(shuffled, as_page=False) == expected
    assert outcome_of(shuffled, as_page=True) == expected


@settings(max_examples=60)
@given(data=st.data(), some=st.lists(payloads, min_size=2, max_size=5))
def test_apply__too_many_other_fields_are_bounded_in_any_order(
    data: st.DataObject, some: list[Payload]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(merge, "MOST_EXTRA", 2)
        some = [
            replace(one, extra=dict(sorted(one.extra.items())[:2]))
            if isinstance(one, ConversationPayload)
            else one
            for one in some
        ]
        shuffled = data.draw(st.permutations([*some, *some[:2]]))
        expected = outcome_of(some, as_page=False)
        assert outcome_of(shuffled, as_page=False) == expected
        assert expected is None or len(expected["extra"]) <= 2


def test_apply__an_answer_that_rotates_its_keys_does_not_grow_the_row() -> None:
    for turn in range(12):
        told = {"id": "conv_1", "is_active": True, "updated_at": (NOON + turn * MINUTE).isoformat()}
        told |= {f"key_{turn}_{number:02}": number for number in range(50)}
        observed_at = NOON + turn * MINUTE
        payload = ConversationPayload.from_json(told, observed_at=observed_at)
        apply_page([payload])
    row = Conversation.objects.get()
    assert len(row.extra) == MOST_EXTRA == 200
    assert {name.split("_")[1] for name in row.extra} == {"8", "9", "10", "11"}
    assert len(row.older_facts) < 200


def test_apply__one_answer_of_too_many_keys() -> None:
    told = {"id": "conv_1", "is_active": True, "updated_at": NOON.isoformat()}
    told |= {f"key_{number:04}": number for number in range(1000)}
    apply_page([ConversationPayload.from_json(told, observed_at=NOON)])
    extra = Conversation.objects.get().extra
    assert len(extra) == MOST_EXTRA
    assert "[left out]" in extra, "the payload says how many it leaves out"


def test_apply__newest_of_all_is_what_remains() -> None:
    newest = detailed("hi", updated_at=NOON + MINUTE, is_active=False, summary="new")
    older = [listed(summary="old"), updated(is_active=True), detailed("old", summary="older")]
    for payload in [older[0], newest, *older[1:]]:
        apply_page([payload])
    row = Conversation.objects.get()
    assert (row.is_active, row.summary, row.updated_at) == (False, "new", NOON + MINUTE)


def test_apply__older_payload_changes_nothing() -> None:
    newer = listed(is_active=False)
    apply_conversation(newer, observed_at=NOON)
    older = replace(newer, is_active=True, updated_at=NOON - MINUTE)
    assert apply_conversation(older, observed_at=NOON + MINUTE) is Effect.STALE
    assert Conversation.objects.get().is_active is False


@pytest.mark.parametrize("turned", [False, True])
def test_apply__at_equal_age_update_beats_detail_beats_list(turned: bool) -> None:
    arrivals = [listed(summary="l"), detailed(summary="d"), updated()]
    for payload in reversed(arrivals) if turned else arrivals:
        apply_page([payload])
    row = Conversation.objects.get()
    assert (row.is_active, row.summary) == (False, "d")


def test_apply__what_a_list_leaves_out_stays() -> None:
    apply_page([detailed("hi", human_handoff_at=NOON, extra={"user_id": "u"})])
    apply_page([listed(updated_at=NOON + MINUTE, observed_at=NOON + MINUTE, extra={"tag": 1})])
    row = Conversation.objects.get()
    assert (row.status, row.human_handoff_at) == ("handed_off", NOON)
    assert row.extra == {"user_id": "u", "tag": 1}
    assert row.messages.count() == 1


def test_apply__told_null_empties() -> None:
    apply_page([detailed(human_handoff_at=NOON)])
    apply_page([detailed(updated_at=NOON + MINUTE, human_handoff_at=None)])
    assert Conversation.objects.get().status == "active"


# --- without an age ---------------------------------------------------------------------------


def test_apply__without_a_time_asks_for_a_look() -> None:
    apply_page([listed()])
    late = updated(updated_at=None, observed_at=NOON + MINUTE)
    applied = apply_page([late])["conv_1"]
    assert (applied.outcome, applied.needs_look) == (Effect.STALE, True)
    assert Conversation.objects.get().is_active is True


@pytest.mark.parametrize(("seconds", "is_active"), [(60, False), (-60, True)])
def test_apply__without_a_time_at_last_the_later_observation_counts(
    seconds: int, is_active: bool
) -> None:
    apply_page([listed()])
    observed_at = NOON + timedelta(seconds=seconds)
    apply_page([updated(updated_at=None, observed_at=observed_at)], settle=True)
    row = Conversation.objects.get()
    assert (row.is_active, row.updated_at) == (is_active, NOON)


def test_apply__never_told_time_is_the_epoch() -> None:
    apply_page([listed(updated_at=None)])
    assert Conversation.objects.get().updated_at == EPOCH


def test_apply__without_state_makes_no_row() -> None:
    applied = apply_page([listed(is_active=None, user_number="+1555")])["conv_1"]
    assert (applied.outcome, applied.needs_look) == (Effect.GONE, True)
    assert not Conversation.objects.exists()


def test_apply__without_state_still_tells_facts() -> None:
    apply_page([listed()])
    later = listed(is_active=None, updated_at=NOON + MINUTE, summary="new")
    assert apply_page([later])["conv_1"].outcome is Effect.CHANGED
    row = Conversation.objects.get()
    assert (row.summary, row.is_active, row.updated_at) == ("new", True, NOON)


# --- statements and signals -------------------------------------------------------------------


def page(number: int, **values: Any) -> list[ConversationPayload]:
    return [
        listed(id=f"conv_{index:03d}", user_number=f"+1555010{index:04d}", **values)
        for index in range(number)
    ]


@pytest.mark.parametrize("change", ["created", "unchanged", "changed"])
def test_apply_page__statements_do_not_grow(
    change: str, django_assert_max_num_queries: Any
) -> None:
    later = {"observed_at": NOON + MINUTE}
    if change == "changed":
        later |= {"updated_at": NOON + MINUTE, "message_count": 9}
    for number in (20, 30):
        Conversation.objects.all().delete()
        if change != "created":
            apply_page(page(number))
        with django_assert_max_num_queries(6):
            apply_page(page(number, **later))


def test_apply_page__unchanged_rows_get_younger_and_nothing_else() -> None:
    apply_page([listed(summary="s")])
    heard: list[Any] = []

    def hear(sender: type, **arguments: Any) -> None:
        heard.append(arguments)

    conversation_changed.connect(hear)
    try:
        again = listed(summary="s", observed_at=NOON + MINUTE)
        assert apply_page([again])["conv_1"].outcome is Effect.UNCHANGED
    finally:
        conversation_changed.disconnect(hear)
    row = Conversation.objects.get()
    assert (row.observed_at, row.facts_observed_at) == (NOON + MINUTE, NOON + MINUTE)
    assert not heard


def test_apply_page__updates_and_facts_in_one_page() -> None:
    apply_page([listed(id="a", summary="old"), listed(id="b")])
    later = NOON + MINUTE
    apply_page([updated(id="b", updated_at=later), listed(id="a", updated_at=later, summary="new")])
    assert list(Conversation.objects.order_by("pk").values_list("is_active", "summary")) == [
        (True, "new"),
        (False, ""),
    ]


def test_apply_page__what_is_told_again_moves_ages_only() -> None:
    facts = {"summary": "s", "created_at": NOON, "ended_by_end_call_node": False}
    apply_page([detailed("hi", **facts)])
    apply_page([listed(observed_at=NOON + MINUTE, **facts)])
    for later in (
        listed(observed_at=NOON + 2 * MINUTE, **facts),
        listed(observed_at=NOON + 3 * MINUTE, **facts, extra={}),
        updated(is_active=True, observed_at=NOON + 4 * MINUTE),
    ):
        with CaptureQueriesContext(connection) as queries:
            assert apply_page([later])["conv_1"].outcome is Effect.UNCHANGED
        assert not [query for query in queries if query["sql"].startswith("INSERT")]
        assert Conversation.objects.get().observed_at == later.observed_at


def test_watchers__hear_of_news_only_and_once_of_what_is_shown_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    heard: list[list[str]] = []
    watch = [lambda rows: heard.append(sorted(row.pk for row in rows))]
    monkeypatch.setattr(applying, "watchers", watch)
    monkeypatch.setattr(applying, "after_commit", lambda tell: tell())
    apply_page([listed(id="a"), listed(id="b"), listed(id="c", is_active=None)])
    later = NOON + MINUTE
    apply_page([updated(id="a", updated_at=later), updated(id="b", is_active=True)])
    apply_page([listed(id="a", observed_at=later)])
    assert heard == [["a", "b"], ["a"]]

    def fail_at_last() -> None:
        with shown_together():
            apply_page([listed(id="d"), listed(id="e")])
            apply_page([listed(id="f")])
            assert len(heard) == 2
            raise ValueError("later")

    with pytest.raises(ValueError, match="later"):
        fail_at_last()
    assert heard[2:] == [["d", "e", "f"]], "what was written before an error stays"
    apply_page([listed(id="g")])
    assert heard[3:] == [["g"]]


def test_apply_page__signals_after_commit(django_capture_on_commit_callbacks: Any) -> None:
    heard: list[Any] = []

    def hear(sender: type, signal: Any, **arguments: Any) -> None:
        heard.append(arguments)

    conversation_created.connect(hear)
    conversation_changed.connect(hear)
    try:
        with django_capture_on_commit_callbacks(execute=True):
            apply_page([listed()])
            assert not heard
        with django_capture_on_commit_callbacks(execute=True):
            apply_page([updated(updated_at=NOON + MINUTE)])
    finally:
        conversation_created.disconnect(hear)
        conversation_changed.disconnect(hear)
    assert heard == [
        {"conversation_id": "conv_1"},
        {"conversation_id": "conv_1", "changed_fields": ("is_active", "updated_at")},
    ]


@pytest.mark.parametrize("times", [1, 4, 5])
def test_apply_page__somebody_else_inserts_first(
    times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As often as four times in a row."""
    write, failures = applying.write, [0] * times

    def insert_first(*args: Any, **kwargs: Any) -> None:
        if failures:
            failures.pop()
            raise IntegrityError("duplicate key")
        write(*args, **kwargs)

    monkeypatch.setattr(applying, "write", insert_first)
    if times < 5:
        assert apply_page([listed()])["conv_1"].outcome is Effect.CREATED
    else:
        with pytest.raises(IntegrityError):
            apply_page([listed()])
    assert not failures


def test_apply_page__only_rows_that_may_be_made() -> None:
    applied = apply_page([listed(id="a"), listed(id="b")], creatable={"b"})
    assert (applied["a"].outcome, applied["b"].outcome) == (Effect.GONE, Effect.CREATED)
    assert not applied["a"].needs_look, "there is no row to look for"
    assert Conversation.objects.get().pk == "b"


def test_apply_page__ids_differ_by_case() -> None:
    apply_page([listed(id="conv_a"), listed(id="conv_A", is_active=False)])
    assert Conversation.objects.get(pk="conv_a").is_active is True
    assert Conversation.objects.get(pk="conv_A").is_active is False


# --- missing ----------------------------------------------------------------------------------


def test_mark_missing__any_later_payload_clears_it() -> None:
    apply_page([listed()])
    assert mark_missing("conv_1", NOON + MINUTE) is True
    assert Conversation.objects.get().missing_since == NOON + MINUTE
    apply_page([listed(id="conv_2", observed_at=NOON + 2 * MINUTE)])
    assert Conversation.objects.get(pk="conv_1").missing_since == NOON + MINUTE
    apply_page([listed(observed_at=NOON + 2 * MINUTE)])
    assert Conversation.objects.get(pk="conv_1").missing_since is None


def test_mark_missing__an_older_404_arrives_late() -> None:
    apply_page([listed(observed_at=NOON + MINUTE)])
    assert mark_missing("conv_1", NOON) is False
    apply_page([listed(observed_at=NOON - MINUTE)])
    assert Conversation.objects.get().missing_since is None


def test_mark_missing__announces_that_one_row_once() -> None:
    apply_page([listed(), listed(id="conv_2")])
    heard: list[tuple[str, tuple[str, ...]]] = []

    def hear(conversation_id: str, changed_fields: tuple[str, ...], **kwargs: Any) -> None:
        heard.append((conversation_id, changed_fields))

    conversation_changed.connect(hear)
    try:
        assert mark_missing("conv_1", NOON + MINUTE) is True
        assert mark_missing("conv_1", NOON + 2 * MINUTE) is False  # it is since then, and not later
    finally:
        conversation_changed.disconnect(hear)

    assert heard == [("conv_1", ("missing_since",))]
    missing = Conversation.objects.exclude(missing_since=None)
    assert list(missing.values_list("pk", "missing_since")) == [("conv_1", NOON + MINUTE)]


def test_mark_missing__never_in_the_future() -> None:
    apply_page([listed()])
    assert mark_missing("conv_1", datetime.now(timezone.utc) + 60 * MINUTE) is True
    since = Conversation.objects.get().missing_since
    assert since is not None
    assert since <= datetime.now(timezone.utc)


# --- transcript -------------------------------------------------------------------------------


def test_messages__kept_in_order_and_deleted_ones_go() -> None:
    apply_page([detailed("one", "two", "three")])
    first = Message.objects.get(bland_id="m0").pk
    without_two = detailed("one", "two", "three", observed_at=NOON + MINUTE)
    assert without_two.messages is not None
    kept = (without_two.messages[0], replace(without_two.messages[2], text="3"))
    apply_page([replace(without_two, messages=kept)])
    assert list(Message.objects.values_list("text", "position")) == [("one", 0), ("3", 1)]
    assert Message.objects.get(bland_id="m0").pk == first


def test_messages__older_transcript_is_ignored() -> None:
    apply_page([detailed("new", observed_at=NOON + MINUTE)])
    apply_page([detailed("old", observed_at=NOON, updated_at=NOON + MINUTE)])
    assert Message.objects.get().text == "new"


# --- hostile values ---------------------------------------------------------------------------


HOSTILE: dict[str, Any] = {
    "user_number": "+1555\x000100001",
    "summary": "lone \ud800 surrogate \x00",
    "message_count": 2**40,
    "disposition_tag": "x" * 10_000,
    "variables": {"a\x00b": 2**70, "deep": [[[[{}]]]], "f": 1e300, "z": -0.0},
    "curr_pathway_id": 17,
    "created_at": "9999-12-31T23:59:59-12:00",
    "odd": {"\ud800": ["\x00"]},
}


def test_apply_page__hostile_values_are_stored_clean() -> None:
    data = {"id": "conv_1", "is_active": True, "updated_at": "2026-02-03T12:00:00Z", **HOSTILE}
    payload = ConversationPayload.from_json(data, observed_at=NOON)
    assert apply_page([payload])["conv_1"].outcome is Effect.CREATED
    row = Conversation.objects.get()
    assert row.user_number == "+15550100001"
    assert row.message_count == 2**31 - 1
    assert len(row.disposition_tag) == 255
    assert row.pathway_id == "17"
    assert row.created_at is None
    assert row.variables["ab"] == str(2**70)
    again = replace(payload, observed_at=NOON + MINUTE)
    assert apply_page([again])["conv_1"].outcome is Effect.UNCHANGED


@pytest.mark.parametrize(
    ("values", "status"),
    [
        ({}, "active"),
        ({"human_handoff_at": NOON}, "handed_off"),
        ({"is_active": False}, "inactive"),
        ({"is_active": False, "timed_out_at": NOON}, "timed_out"),
        ({"is_active": False, "ended_by_end_call_node": True}, "completed"),
        ({"is_active": False, "human_handoff_at": NOON}, "inactive"),
    ],
)
def test_status__follows_from_the_columns(values: dict[str, Any], status: str) -> None:
    apply_page([listed(**values)])
    assert Conversation.objects.filter(status=status).exists()


def test_conversation__digits_and_activity_follow() -> None:
    apply_page([listed(user_number="+1 (555) 010-0001", created_at=NOON, last_message_at=None)])
    row = Conversation.objects.get()
    assert (row.customer_key, row.user_digits_reversed) == ("15550100001", "10000105551")
    assert row.last_activity_at == NOON
    assert str(row) == "conv_1 (customer: ends in 0001)"


def test_rows_are_locked_before_they_are_read(django_assert_num_queries: Any) -> None:
    apply_page([listed()])
    with django_assert_num_queries(5 if connection.vendor == "sqlite" else 4) as captured:
        apply_page([listed(updated_at=NOON + MINUTE)])
    first = captured.captured_queries[1]["sql"]
    assert first.startswith("UPDATE") or "FOR UPDATE" in first


# --- a machine whose clock is ahead ------------------------------------------------------------


@pytest.fixture
def at_noon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django.utils.timezone.now", lambda: NOON + 2 * MINUTE)


AHEAD = NOON + 10 * MINUTE
SOON = NOON + MINUTE


def by_a_fast_clock(monkeypatch: pytest.MonkeyPatch, *payloads: Payload) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("django.utils.timezone.now", lambda: AHEAD + MINUTE)
        apply_page(payloads)


def test_clock_ahead__transcript_does_not_hold_up_a_newer_one(
    at_noon: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_a_fast_clock(monkeypatch, detailed("old", observed_at=AHEAD))
    apply_page([detailed("old", "new", observed_at=SOON)])
    row = Conversation.objects.get()
    assert [message.text for message in Message.objects.order_by("position")] == ["old", "new"]
    assert (row.transcript_observed_at, row.observed_at) == (SOON, SOON)


def test_clock_ahead__state_and_facts_do_not_either(
    at_noon: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_a_fast_clock(monkeypatch, updated(is_active=True, observed_at=AHEAD))
    by_a_fast_clock(monkeypatch, detailed(is_active=True, summary="old", observed_at=AHEAD))
    apply_page([listed(is_active=False, summary="new", observed_at=SOON)])
    row = Conversation.objects.get()
    assert (row.is_active, row.summary, row.facts_observed_at) == (False, "new", SOON)


def test_clock_ahead__facts_that_a_list_leaves_out(
    at_noon: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    handed = detailed(human_handoff_at=NOON, observed_at=AHEAD)
    by_a_fast_clock(monkeypatch, handed, listed(observed_at=AHEAD + MINUTE))
    apply_page([detailed(human_handoff_at=None, observed_at=SOON)])
    assert Conversation.objects.get().human_handoff_at is None


def test_clock_ahead__missing_is_neither_held_up_nor_kept(
    at_noon: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_a_fast_clock(monkeypatch, detailed("hi", observed_at=AHEAD))
    assert mark_missing("conv_1", SOON) is True
    Conversation.objects.update(missing_since=AHEAD)
    apply_page([listed(observed_at=SOON)])
    assert Conversation.objects.get().missing_since is None


def test_clock_ahead__a_payload_of_a_clock_that_was_set_back_counts_as_now(at_noon: None) -> None:
    apply_page([detailed("hi", summary="new", observed_at=AHEAD)])
    apply_page([detailed("old", is_active=False, summary="old", observed_at=SOON)])
    row = Conversation.objects.get()
    assert row.observed_at == row.transcript_observed_at == NOON + 2 * MINUTE
    assert (row.is_active, row.summary, Message.objects.get().text) == (True, "new", "hi")


@pytest.mark.parametrize(
    "values",
    [
        {"facts_observed_at": NOON + MINUTE},
        {"transcript_observed_at": NOON + MINUTE},
        {"observed_at": NOON + MINUTE},
    ],
    ids=["facts", "transcript", "state"],
)
def test_mark_missing__what_was_observed_later_contradicts_it(values: dict[str, Any]) -> None:
    apply_page([detailed("hi")])
    Conversation.objects.update(**values)
    assert mark_missing("conv_1", NOON + MINUTE / 2) is False
    Conversation.objects.update(**dict.fromkeys(values, NOON))
    assert mark_missing("conv_1", NOON + MINUTE / 2) is True


# --- values of any depth ------------------------------------------------------------------------


@pytest.mark.parametrize("deep", ["[" * 60 + "]" * 60, '{"a":' * 60 + "1" + "}" * 60])
def test_values__of_any_depth_are_stored_on_every_database(deep: str) -> None:
    """MariaDB calls JSON of 32 levels invalid."""
    value = json.loads(deep)
    message = {"id": "m1", "sender": "USER", "attachments": value, "card": value}
    row = {"id": "conv_1", "is_active": True, "updated_at": "2026-02-03T12:00:00Z"}
    row |= {"variables": value, "a_field_without_column": value, "messages": [message]}

    apply_conversation(ConversationPayload.from_json(row, observed_at=NOON), observed_at=NOON)

    stored = Conversation.objects.get()
    kept = Message.objects.get()
    assert stored.variables == kept.attachments
    assert stored.variables
    assert stored.extra["a_field_without_column"]
    assert kept.extra["card"]

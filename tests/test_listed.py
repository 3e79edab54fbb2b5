"""What a list repeats is not written: only where writing it would change nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bland_sms import sync
from bland_sms.mirror import Effect, apply_page, erase, mark_missing
from bland_sms.mirror.rows import listed
from bland_sms.models import Conversation, ConversationEvent, Message, OwedLook
from bland_sms.payloads import ConversationPage, ConversationPayload, UpdatePayload
from bland_sms.sandbox import BlandSandbox
from bland_sms.sync import missing
from bland_sms.sync.walk import Covered

pytestmark = pytest.mark.django_db

NOON = datetime(2026, 2, 3, 12, tzinfo=timezone.utc)
MINUTE = timedelta(minutes=1)
AGES = {
    "observed_at",
    "observed_from",
    "facts_updated_at",
    "facts_observed_at",
    "facts_observed_from",
    "older_facts",
    "event_history",
    "transcript_observed_at",
    "listed",
}


def text_of(minutes: int) -> str:
    return (NOON + minutes * MINUTE).isoformat()


def read(row: Any, minutes: int, *, answered: int | None = None) -> ConversationPayload:
    """A row of the list, asked for at this minute."""
    observed_at = NOON + minutes * MINUTE
    answered_at = observed_at if answered is None else NOON + answered * MINUTE
    page = ConversationPage.from_json(
        {"data": [row]}, observed_at=observed_at, answered_at=answered_at
    )
    return page.conversations[0]


def row_of(**values: Any) -> dict[str, Any]:
    return {"id": "conv_1", "is_active": True, "updated_at": text_of(0), **values}


def values() -> Any:
    """All that the mirror says, without how old it is."""
    row = Conversation.objects.values().first()
    events = ConversationEvent.objects.order_by("at", "kind")
    messages = Message.objects.order_by("position").values_list("bland_id", "text")
    told = {} if row is None else {name: row[name] for name in row if name not in AGES}
    return told, list(messages), list(events.values_list("kind", "at", "to_status"))


# --- any payload ------------------------------------------------------------------------------

times = st.sampled_from([None, text_of(-9), text_of(0), text_of(1), text_of(30), "never", 0])
facts = st.fixed_dictionaries(
    {},
    optional={
        "created_at": times,
        "timed_out_at": times,
        "human_handoff_at": times,
        "last_message_at": times,
        "message_count": st.sampled_from([0, 1, "2", -1, None]),
        "summary": st.sampled_from(["", "short", None]),
        "ended_by_end_call_node": st.sampled_from([True, False, None]),
        "tag": st.integers(0, 2),
        "other": st.integers(0, 1),
    },
)
rows = st.builds(
    lambda told, updated_at, is_active: row_of(**told, updated_at=updated_at, is_active=is_active),
    facts,
    st.sampled_from([text_of(0), text_of(1), text_of(2), None]),
    st.sampled_from([True, False, None]),
)
minutes = st.integers(3, 40)
listings = st.builds(read, rows, minutes)
details = st.builds(
    lambda row, at, texts: ConversationPayload.from_json(
        {**row, "messages": [{"id": text, "sender": "USER", "text": text} for text in texts]},
        observed_at=NOON + at * MINUTE,
        answered_at=NOON + at * MINUTE,
    ),
    rows,
    minutes,
    st.lists(st.sampled_from(["hello", "STOP"]), max_size=2, unique=True),
)
updates = st.builds(
    lambda at, updated_at, is_active: UpdatePayload(
        id="conv_1",
        is_active=is_active,
        updated_at=NOON + updated_at * MINUTE,
        observed_at=NOON + at * MINUTE,
    ),
    minutes,
    st.integers(0, 3),
    st.booleans(),
)


@settings(max_examples=100)
@given(
    first=st.lists(rows, min_size=1, max_size=2),
    later=st.lists(st.one_of(st.integers(0, 1), listings, details, updates), max_size=5),
    last=minutes,
)
def test_what_counts_as_known__changes_nothing_when_it_is_merged(
    first: list[dict[str, Any]], later: list[Any], last: int
) -> None:
    Conversation.objects.all().delete()
    apply_page([read(first[0], 3)])
    for number, payload in enumerate(later):
        one = read(first[payload % len(first)], 4 + number) if type(payload) is int else payload
        apply_page([one], settle=number % 2 == 0)
    for row in first:
        again = read(row, last)
        if again.id not in listed([again], "default"):
            continue
        before = values()
        applied = apply_page([replace(again, fingerprint="")])["conv_1"]
        assert applied.outcome in (Effect.UNCHANGED, Effect.STALE)
        assert values() == before


# --- one by one -------------------------------------------------------------------------------


def is_known(payload: ConversationPayload) -> bool:
    return payload.id in listed([payload], "default")


def test_row_that_is_told_again__is_not_written(django_assert_num_queries: Any) -> None:
    row = row_of(summary="s", created_at=text_of(-5))
    apply_page([read(row, 1)])
    with django_assert_num_queries(1):
        applied = apply_page([read(row, 2)])["conv_1"]
    assert (applied.outcome, applied.previous_is_active) == (Effect.UNCHANGED, True)
    assert Conversation.objects.get().observed_at == NOON + MINUTE


def test_first_detail__leaves_it_known() -> None:
    """It tells what no list does."""
    row = row_of(message_count=1)
    apply_page([read(row, 1)])
    told = {**row, "summary": "s", "messages": [{"id": 1, "sender": "USER", "text": "hi"}]}
    apply_page([ConversationPayload.from_json(told, observed_at=NOON + 2 * MINUTE)])
    assert is_known(read(row, 3))


@pytest.mark.parametrize(
    "change", ["update", "detail", "by_hand", "erased", "missing", "state ahead", "facts ahead"]
)
def test_row_that_is_another_now__is_not_known(change: str) -> None:
    row = row_of(message_count=1, user_number="+15550100001")
    apply_page([read(row, 1)])
    later = NOON + 2 * MINUTE
    if change == "update":
        apply_page(
            [UpdatePayload(id="conv_1", is_active=False, updated_at=later, observed_at=later)]
        )
    elif change == "detail":
        told = {**row, "message_count": 2, "messages": []}
        apply_page([ConversationPayload.from_json(told, observed_at=later)])
    elif change == "by_hand":
        Conversation.objects.get().save()
    elif change == "erased":
        erase(["conv_1"])
    elif change == "missing":
        assert mark_missing("conv_1", later)
    else:
        column = "observed_at" if change == "state ahead" else "facts_observed_at"
        Conversation.objects.update(**{column: datetime.now(timezone.utc) + 60 * MINUTE})
    assert not is_known(read(row, 5))


def test_row_that_was_told_late__is_not_known() -> None:
    """It did not count, but told once more it may: then it is the newest."""
    newer = row_of(message_count=2, messages=[])
    apply_page([ConversationPayload.from_json(newer, observed_at=NOON + 5 * MINUTE)])
    row = row_of(message_count=1)
    apply_page([read(row, 1)])
    assert not is_known(read(row, 6))
    apply_page([read(row, 6)])
    assert Conversation.objects.get().message_count == 1
    assert is_known(read(row, 7))


def test_two_rows_of_one_conversation_that_differ__are_merged() -> None:
    apply_page([read(row_of(), 1)])
    later = row_of(updated_at=text_of(1), is_active=False)
    apply_page([read(later, 2), read(row_of(), 2)])
    assert Conversation.objects.get().is_active is False


def test_time_ahead_of_the_answer__may_be_told_later() -> None:
    row = row_of(timed_out_at=text_of(20))
    apply_page([read(row, 1)])
    assert Conversation.objects.get().timed_out_at is None
    apply_page([read(row, 30)])
    assert Conversation.objects.get().timed_out_at == NOON + 20 * MINUTE


# --- how old a copy is ------------------------------------------------------------------------


@pytest.fixture
def copied(sandbox: BlandSandbox, set_bland: Callable[..., None]) -> Conversation:
    sandbox.account.add({"id": "conv_1"})
    sandbox.account.add({"id": "conv_2"})
    sync.run(full=True)
    return Conversation.objects.get(pk="conv_1")


def test_copied_at__is_told_by_the_walk_that_covered_it(copied: Conversation) -> None:
    run = sync.run(full=True)
    row = Conversation.objects.get(pk="conv_1")
    assert row.observed_at == copied.observed_at < run.walk_began_at
    assert sync.copied_at(row) == run.walk_began_at


@pytest.mark.parametrize("why", ["not listed", "missing", "no walk"])
def test_copied_at__is_never_later_than_what_is_known(copied: Conversation, why: str) -> None:
    if why == "not listed":
        missing.note_unlisted([Covered(None, None, frozenset({"conv_2"}))], None)
    elif why == "missing":
        Conversation.objects.filter(pk="conv_1").update(missing_since=copied.observed_at)
    row = Conversation.objects.get(pk="conv_1")
    walked_at = None if why == "no walk" else datetime.now(timezone.utc)
    assert sync.copied_at(row, lambda: walked_at) == copied.observed_at


def test_stretches_of_time__are_looked_at_together() -> None:
    times = [text_of(-number) for number in range(8)]
    for number, created_at in enumerate(times):
        apply_page([read(row_of(id=f"conv_{number}", created_at=created_at), 1)])

    def stretch(begin: int, until: int, *listed: int) -> Covered:
        ids = frozenset(f"conv_{number}" for number in listed)
        return Covered(NOON - begin * MINUTE, NOON - until * MINUTE, ids)

    missing.note_unlisted([stretch(3, 1, 2), stretch(5, 3, 5, 4), stretch(7, 6)], None)
    noted = OwedLook.objects.order_by("conversation").values_list("conversation", flat=True)
    assert list(noted) == ["conv_3", "conv_7"]


@pytest.mark.parametrize(
    ("stretches", "before", "expected"),
    [
        ([], None, ""),
        ([(None, None)], None, "0123456"),
        ([(None, 3)], None, "012"),
        ([(3, None)], None, "3456"),
        ([(2, 4)], None, "23"),
        ([(2, 4), (4, 6)], None, "2345"),
        ([(0, 6), (1, 2), (4, 5)], None, "012345"),
        ([(0, 1), (5, 6)], None, "05"),
        ([(0, 1), (2, 6), (3, 4)], None, "02345"),
        ([(None, None)], 4, "0123"),
        ([(2, None), (None, 1)], 4, "023"),
    ],
)
def test_note_unlisted__made_within_the_stretches(
    stretches: list[tuple[int | None, int | None]],
    before: int | None,
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rows that were made 0 to 6 minutes after noon; Bland lists none of them, but others."""
    monkeypatch.setattr(missing, "INSERT_ROWS", 2)
    apply_page([read(row_of(id=f"c{n}", created_at=text_of(n)), 9) for n in range(7)])
    others = [row_of(id="gone", created_at=text_of(3)), row_of(id="never_told")]
    others += [row_of(id=f"l{n}", created_at=text_of(n)) for n in range(7)]
    apply_page([read(row, 9) for row in others])
    assert mark_missing("gone", NOON + 10 * MINUTE)
    told = frozenset(f"l{n}" for n in range(7))

    def at(minutes: int | None) -> datetime | None:
        return None if minutes is None else NOON + minutes * MINUTE

    covered = [Covered(at(begin), at(until), told) for begin, until in stretches]
    for _ in range(2):  # what was noted is noted once
        missing.note_unlisted(covered, at(before))

    noted = OwedLook.objects.filter(reason="not_listed").order_by("conversation")
    names = [f"c{n}" for n in expected]
    assert list(noted.values_list("conversation", flat=True)) == names
    unknown = Conversation.objects.filter(listed="").exclude(pk="gone").order_by("pk")
    assert list(unknown.values_list("pk", flat=True)) == names, "they are written once more"


def test_note_timeless__those_that_were_not_listed() -> None:
    rows = [row_of(id="listed"), row_of(id="not_listed"), row_of(id="gone")]
    apply_page([read(row, 1) for row in [*rows, row_of(id="made", created_at=text_of(0))]])
    assert mark_missing("gone", NOON + 2 * MINUTE)
    owed = OwedLook.objects.create(conversation="other", reason="refused")

    missing.note_timeless({"listed"})

    assert OwedLook.objects.exclude(pk=owed.pk).get().conversation == "not_listed"
    missing.forget()
    assert OwedLook.objects.get() == owed

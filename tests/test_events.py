"""Events: the same whatever the order of Bland's answers, and what they say."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta, timezone
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from hypothesis import given, settings
from hypothesis import strategies as st

from bland_sms.admin.transcript import transcript_of
from bland_sms.erasure import forget
from bland_sms.mirror import apply_conversation, apply_page
from bland_sms.mirror.history import MAX_VERSIONS
from bland_sms.models import (
    BulkUpdate,
    BulkUpdateItem,
    Conversation,
    ConversationEvent,
    UncountedDay,
)
from bland_sms.models.conversation import Source
from bland_sms.models.event import day_of
from bland_sms.payloads import EPOCH, ConversationPayload, MessagePayload, UpdatePayload

pytestmark = pytest.mark.django_db

NOON = datetime(2026, 2, 3, 12, tzinfo=timezone.utc)
MINUTE = timedelta(minutes=1)
Payload = ConversationPayload | UpdatePayload


def at(minutes: float) -> datetime:
    return NOON + minutes * MINUTE


def listed(minute: float, **values: Any) -> ConversationPayload:
    """A list row that Bland changed at this minute and that we asked for in the same."""
    plain = {"id": "conv_1", "is_active": True, "updated_at": at(minute), "observed_at": at(minute)}
    return ConversationPayload(**{**plain, **values})


def detailed(minute: float, **values: Any) -> ConversationPayload:
    message = MessagePayload(bland_id="m1", sender="USER", text="hello")
    return listed(minute, messages=(message,), **values)


def updated(minute: float, **values: Any) -> UpdatePayload:
    plain = {"id": "conv_1", "is_active": False, "updated_at": at(minute)}
    return UpdatePayload(**{**plain, "observed_at": at(minute), **values})


def told(kind: str, minute: float, before: str, after: str) -> tuple[str, float, str, str]:
    return kind, minute, before, after


def events(conversation_id: str = "conv_1") -> list[tuple[str, float, str, str]]:
    rows = ConversationEvent.objects.filter(conversation=conversation_id)
    return sorted(
        ((e.kind, (e.at - NOON) / MINUTE, e.from_status, e.to_status) for e in rows),
        key=lambda event: event[1],
    )


# --- order ------------------------------------------------------------------------------------

minutes = st.integers(0, 6)
times = st.one_of(st.none(), minutes.map(at))
facts = st.fixed_dictionaries(
    {},
    optional={
        "created_at": st.sampled_from([at(-10), at(-9)]),
        "timed_out_at": times,
        "human_handoff_at": times,
        "ended_by_end_call_node": st.booleans(),
        "message_count": st.integers(0, 3),
    },
)
ages = st.fixed_dictionaries(
    {"minute": minutes, "observed_at": minutes.map(at), "is_active": st.booleans()}
)
payloads = st.one_of(
    st.builds(lambda age, told: listed(**age, **told), ages, facts),
    st.builds(lambda age, told: detailed(**age, **told), ages, facts),
    st.builds(lambda age: updated(**age), ages),
)

stateless = st.builds(lambda age, told: listed(**{**age, "is_active": None}, **told), ages, facts)


def outcome_of(arrivals: Sequence[Payload], *, as_page: bool) -> tuple[Any, ...]:
    Conversation.objects.all().delete()
    UncountedDay.objects.all().delete()
    if as_page:
        apply_page(arrivals)
    else:
        for payload in arrivals:
            assert payload.observed_at is not None
            apply_conversation(payload, observed_at=payload.observed_at)
    rows = ConversationEvent.objects.order_by("at", "kind").values()
    # Others may be counted as well: those of an event that a later answer explained in another way.
    days = set(UncountedDay.objects.values_list("day", flat=True))
    assert days >= {day_of(row["at"]) for row in rows}
    history = Conversation.objects.values_list("event_history", flat=True).first()
    return [{**row, "id": 0} for row in rows], history


@settings(max_examples=150)
@given(data=st.data(), some=st.lists(payloads, min_size=2, max_size=6))
def test_events__any_order_ends_in_the_same_events(
    data: st.DataObject, some: list[Payload]
) -> None:
    shuffled = data.draw(st.permutations([*some, *some[:2]]))
    expected = outcome_of(some, as_page=False)
    assert outcome_of(shuffled, as_page=False) == expected
    assert outcome_of(shuffled, as_page=True) == expected


@settings(max_examples=60)
@given(
    data=st.data(),
    some=st.lists(st.one_of(payloads, stateless), min_size=2, max_size=5),
)
def test_events__without_a_state_in_any_order_too(data: st.DataObject, some: list[Payload]) -> None:
    """What tells no state makes no row, so there is one before."""
    shuffled = data.draw(st.permutations([*some, *some[:2]]))
    expected = outcome_of([listed(-1), *some], as_page=False)
    assert outcome_of([listed(-1), *shuffled], as_page=False) == expected


# --- what they say ----------------------------------------------------------------------------


def test_events__of_a_whole_life() -> None:
    start = {"created_at": at(-10)}
    for payload in [
        listed(0, **start),
        detailed(1, human_handoff_at=at(0.5), **start),
        detailed(2, human_handoff_at=None, **start),
        updated(3),
        updated(4, is_active=True),
        listed(5, is_active=False, timed_out_at=at(4.5), **start),
    ]:
        apply_page([payload])
    assert events() == [
        told("started", -10, "", "active"),
        told("handed_off", 0.5, "active", "handed_off"),
        told("taken_back", 2, "handed_off", "active"),
        told("deactivated", 3, "active", "inactive"),
        told("reactivated", 4, "inactive", "active"),
        told("timed_out", 4.5, "active", "timed_out"),
    ]


@pytest.mark.parametrize("observed", [0, 30])
def test_events__first_told_by(observed: int) -> None:
    """Who told an event first, by when the request was sent and not by when the answer came."""
    apply_page([listed(1, is_active=False, observed_at=at(observed))])
    apply_page([updated(1, observed_at=at(10))])
    later = {"is_active": False, "ended_by_end_call_node": False, "observed_at": at(40)}
    apply_page([detailed(1, **later)])
    event = ConversationEvent.objects.get()
    first = min((at(observed), Source.LIST), (at(10), Source.UPDATE))
    assert (event.observed_at, event.source) == first


@pytest.mark.parametrize(
    ("values", "kind", "minute"),
    [
        ({}, "deactivated", 5),
        ({"ended_by_end_call_node": True}, "completed", 5),
        ({"ended_by_end_call_node": False}, "deactivated", 5),
        ({"timed_out_at": at(4)}, "timed_out", 4),
        ({"timed_out_at": at(5) + timedelta(milliseconds=9)}, "timed_out", 5 + 0.009 / 60),
        ({"timed_out_at": at(4), "ended_by_end_call_node": True}, "timed_out", 4),
    ],
)
def test_events__why_it_ended(values: dict[str, Any], kind: str, minute: float) -> None:
    """Also when the first that we hear of a conversation is its end."""
    apply_page([listed(5, is_active=False, **values)])
    assert [event[:2] for event in events()] == [(kind, pytest.approx(minute))]


def test_events__deactivated_after_it_was_completed_and_began_anew() -> None:
    end = {"ended_by_end_call_node": True}
    apply_page([listed(1, is_active=False, **end)])
    apply_page([listed(2, **end)])
    apply_page([updated(3)])
    apply_page([listed(4, is_active=False, **end)])  # Bland still says it of the first end
    assert [event[:2] for event in events()] == [
        ("completed", 1),
        ("reactivated", 2),
        ("deactivated", 3),
    ]


def test_events__told_later_of_the_same_version() -> None:
    apply_page([listed(2)])
    apply_page([listed(2, created_at=at(0), observed_at=at(3))])
    apply_page([detailed(2, created_at=at(0), human_handoff_at=at(1), observed_at=at(4))])
    assert [event[:2] for event in events()] == [("started", 0), ("handed_off", 1)]
    apply_page([listed(2, created_at=at(-1), timed_out_at=at(1.5), observed_at=at(5))])
    assert [event[:2] for event in events()] == [
        ("started", -1),
        ("handed_off", 1),
        ("timed_out", 1.5),
        ("reactivated", 2),
    ]


def test_events__ended_while_a_person_had_it() -> None:
    apply_page([detailed(1, human_handoff_at=at(0))])
    apply_page([detailed(2, is_active=False, human_handoff_at=None)])
    assert events() == [
        told("handed_off", 0, "", "handed_off"),
        told("deactivated", 2, "handed_off", "inactive"),
    ]


def test_events__late_answer_splits_what_looked_like_one_stretch() -> None:
    for minute in (1, 2, 5):
        apply_page([listed(minute)])
    assert events() == []
    apply_page([listed(3, is_active=False)])
    assert [event[:2] for event in events()] == [("deactivated", 3), ("reactivated", 5)]
    apply_page([listed(4)])
    assert [event[:2] for event in events()] == [("deactivated", 3), ("reactivated", 4)]


def test_events__of_a_row_copied_before_there_were_events() -> None:
    Conversation.objects.create(
        id="conv_1", is_active=False, created_at=at(-9), updated_at=at(0), timed_out_at=at(-1)
    )
    apply_page([listed(1)])
    assert [event[:2] for event in events()] == [
        ("started", -9),
        ("timed_out", -1),
        ("reactivated", 1),
    ]


def test_events__of_a_row_of_which_little_was_known() -> None:
    Conversation.objects.create(id="conv_1", is_active=True, updated_at=at(0))
    apply_page([listed(1, is_active=False)])
    assert [event[:2] for event in events()] == [("deactivated", 1)]


def test_events__without_a_time_of_blands_there_is_none() -> None:
    apply_page([listed(1, updated_at=None, is_active=False)])
    assert Conversation.objects.get().updated_at == EPOCH
    assert events() == []


def test_events__repeated_answers_write_nothing() -> None:
    payload = detailed(1, created_at=at(0), human_handoff_at=None, ended_by_end_call_node=False)
    apply_page([payload])
    UncountedDay.objects.all().delete()
    again = detailed(
        1,
        created_at=at(0),
        human_handoff_at=None,
        ended_by_end_call_node=False,
        observed_at=at(2),
    )
    with CaptureQueriesContext(connection) as queries:
        apply_page([again])
    tables = ("bland_sms_conversationevent", "bland_sms_uncountedday")
    assert not [one for one in queries if any(name in one["sql"] for name in tables)]


def test_events__forget_what_is_settled() -> None:
    """A conversation of many versions keeps a bounded history, and all of its events."""
    apply_page([listed(0, created_at=at(-1), is_active=False)])
    for minute in range(1, MAX_VERSIONS + 30):
        apply_page([listed(minute, created_at=at(-1), is_active=minute % 10 != 0)])
    known = events()
    assert known[:3] == [
        told("started", -1, "", "active"),
        told("deactivated", 0, "active", "inactive"),
        told("reactivated", 1, "inactive", "active"),
    ]
    assert len(known) == 3 + 2 * 7
    history = Conversation.objects.get().event_history
    assert len(history["versions"]) == MAX_VERSIONS
    oldest = 30
    assert history["settled"] == "inactive"
    apply_page([listed(5.5, is_active=False, timed_out_at=at(5.6), human_handoff_at=at(5.4))])
    assert events() == known, "what is settled stays"
    apply_page([listed(75.5, is_active=False), listed(oldest + 0.5)])
    later = [event for event in events() if event not in known]
    assert later == [
        told("reactivated", oldest + 0.5, "inactive", "active"),
        told("deactivated", 75.5, "active", "inactive"),
        told("reactivated", 76, "inactive", "active"),
    ]


def test_events__handoff_over_many_versions_is_taken_back_once() -> None:
    apply_page([detailed(0, human_handoff_at=at(-1))])
    for minute in range(1, MAX_VERSIONS + 10):
        apply_page([detailed(minute, human_handoff_at=at(-1))])
    for minute in range(MAX_VERSIONS + 10, 2 * MAX_VERSIONS + 20):
        apply_page([detailed(minute, human_handoff_at=None)])
    assert [event[0] for event in events()] == ["handed_off", "taken_back"]


# --- cost, days, erasure ----------------------------------------------------------------------


@pytest.mark.parametrize("late", [False, True])
def test_events__statements_do_not_grow(late: bool) -> None:
    counts = []
    for number in (10, 20):
        Conversation.objects.all().delete()
        pages = [
            [listed(m, id=f"c{i}", created_at=at(0), is_active=a) for i in range(number)]
            for m, a in [(1, True), (3, False), (2, False)]
        ]
        for page in pages[: 2 if late else 1]:
            apply_page(page)
        with CaptureQueriesContext(connection) as queries:
            apply_page(pages[2] if late else pages[1])
        assert ConversationEvent.objects.filter(kind="deactivated").count() == number
        counts.append(len(queries))
    assert counts[0] == counts[1] <= (10 if late else 8)


def test_events__days_to_count_again() -> None:
    apply_page([listed(0, created_at=NOON - timedelta(days=3))])
    assert set(UncountedDay.objects.values_list("day", flat=True)) == {date(2026, 1, 31)}
    UncountedDay.objects.all().delete()
    apply_page([listed(1, is_active=False)])
    assert set(UncountedDay.objects.values_list("day", flat=True)) == {date(2026, 2, 3)}
    UncountedDay.objects.all().delete()
    apply_page([listed(2, is_active=False, message_count=5)])
    assert set(UncountedDay.objects.values_list("day", flat=True)) == {date(2026, 1, 31)}
    UncountedDay.objects.all().delete()
    apply_page([listed(3, is_active=False, agent_number="+15550100009")])
    both = {date(2026, 1, 31), date(2026, 2, 3)}  # each is counted by our number
    assert set(UncountedDay.objects.values_list("day", flat=True)) == both


def test_events__of_an_erased_person_are_its_state_only() -> None:
    apply_page([listed(0, created_at=at(-1), user_number="+15550100001")])
    forget("+15550100001")
    apply_page([detailed(2, is_active=False, human_handoff_at=at(1), timed_out_at=at(1))])
    assert [event[:2] for event in events()] == [("started", -1), ("deactivated", 2)]


def test_thread__shows_events_in_their_place_and_ours_once() -> None:
    apply_page([listed(0, created_at=at(-1))])
    messages = (
        MessagePayload(bland_id="m1", sender="USER", text="hello", created_at=at(0)),
        MessagePayload(bland_id="m2", sender="HUMAN", text="bye", created_at=at(2)),
    )
    apply_page([listed(2, messages=messages, human_handoff_at=at(1))])
    apply_page([updated(3)])
    update = BulkUpdate.objects.create(is_active=False, requested_by_name="dana", source="admin")
    BulkUpdateItem.objects.create(
        bulk_update=update, conversation_id="conv_1", state="changed", finished_at=at(3.2)
    )
    apply_page([listed(30), listed(60, is_active=False)])
    shown = transcript_of(Conversation.objects.get(), show_all=False, with_text=True)
    assert [entry.text for _day, entries in shown.days for entry in entries] == [
        "hello",
        "Handed to a person",
        "bye",
        "Deactivated by dana",
        "Reactivated",
        "Deactivated",
    ]

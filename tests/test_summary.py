"""The numbers of a desk: counted once a day is over; the same on the page, in CSV, API, command."""

from __future__ import annotations

import json
import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime, timedelta, timezone
from functools import partial
from io import StringIO
from typing import Any
from unittest.mock import patch

import pytest
from django.contrib.auth.models import AbstractUser, Permission
from django.core.management import call_command
from django.db import connection, connections
from django.db.models import QuerySet
from django.http import HttpRequest
from django.test import Client
from django.test.utils import CaptureQueriesContext
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from bland_sms.admin import ConversationAdmin, named
from bland_sms.database import patiently
from bland_sms.mirror import apply_page
from bland_sms.models import (
    BulkUpdate,
    BulkUpdateItem,
    Conversation,
    DailyTotal,
    MonthlyTotal,
    UncountedDay,
    UncountedMonth,
)
from bland_sms.payloads import ConversationPayload
from bland_sms.retention import prune
from bland_sms.summary import LONGEST_DAYS, STEPS, Summary, close_days, days_of, read

pytestmark = pytest.mark.django_db

OURS, OTHER = "+15559990001", "+15559990002"
LIST = "/admin/bland_sms/conversation/"
PAGE = f"{LIST}summary/"
API = "/bland-sms/api/v1/summary/"
WEDNESDAY, THURSDAY, TODAY = date(2026, 11, 25), date(2026, 11, 26), date(2026, 11, 27)


@pytest.fixture(autouse=True)
def friday_noon(monkeypatch: pytest.MonkeyPatch) -> None:
    noon = datetime(2026, 11, 27, 12, tzinfo=timezone.utc)
    monkeypatch.setattr("django.utils.timezone.now", lambda: noon)


@pytest.fixture
def person(django_user_model: Any) -> AbstractUser:
    found: AbstractUser = django_user_model.objects.create_user("tess", is_staff=True)
    return found


@pytest.fixture
def desk(client: Client, person: AbstractUser) -> Client:
    """May see conversations and nothing else."""
    person.user_permissions.set(Permission.objects.filter(codename="view_conversation"))
    client.force_login(person)
    return client


def told(pk: str, day: date, hour: float, **values: Any) -> None:
    """Bland tells of a conversation that began in that hour of that day."""
    began = datetime(day.year, day.month, day.day, tzinfo=timezone.utc) + timedelta(hours=hour)
    plain = {
        "id": pk,
        "is_active": True,
        "agent_number": OURS,
        "created_at": began,
        "updated_at": began,
        "observed_at": began,
        "message_count": 3,
    }
    apply_page([ConversationPayload(**{**plain, **values})])


def a_few_days() -> None:
    for number in range(3):
        told(f"wed_{number}", WEDNESDAY, 9)
    later = datetime(2026, 11, 25, 9, 10, tzinfo=timezone.utc)
    told("wed_0", WEDNESDAY, 9, updated_at=later, human_handoff_at=later)
    ended = datetime(2026, 11, 26, 8, tzinfo=timezone.utc)
    told("wed_1", WEDNESDAY, 9, updated_at=ended, is_active=False, timed_out_at=ended)
    told("thu_0", THURSDAY, 10, agent_number=OTHER)
    told("now_0", TODAY, 8)
    told("now_0", TODAY, 8, updated_at=later + timedelta(days=2), is_active=False)
    update = BulkUpdate.objects.create(
        is_active=False, requested_by_name="dana", reason="spam", source="admin", started_at=ended
    )
    for pk in ("wed_2", "thu_0"):
        BulkUpdateItem.objects.create(
            bulk_update=update, conversation_id=pk, state="changed", finished_at=ended
        )
    UncountedDay.objects.create(day=THURSDAY)


def numbers(found: Summary, *kinds: str) -> list[tuple[int, ...]]:
    return [tuple(one.numbers.counts[kind] for kind in kinds) for one in found.periods]


def week(step: str = "day", **narrow: Any) -> Summary:
    return read(step, WEDNESDAY, TODAY, **narrow)


SHOWN = ("started", "handed_off", "timed_out", "deactivated", "deactivated_by_us", "messages")
EXPECTED = [(3, 1, 0, 0, 0, 9), (1, 0, 1, 0, 2, 3), (1, 0, 0, 1, 0, 3)]


# --- counting ---------------------------------------------------------------------------------


def test_read__before_and_after_a_day_is_counted() -> None:
    a_few_days()
    assert numbers(week(), *SHOWN) == EXPECTED
    assert close_days() == 2
    assert set(UncountedDay.objects.values_list("day", flat=True)) == {TODAY}
    assert DailyTotal.objects.filter(day=WEDNESDAY).exists()
    assert numbers(week(), *SHOWN) == EXPECTED
    assert close_days() == 0
    found = week("week")
    assert numbers(found, *SHOWN) == [(5, 1, 1, 1, 2, 15)]
    assert found.total.seconds_to_hand_off == 600
    assert found.by_us == [("dana", "spam", 2)]
    assert found.by_number[OTHER].counts["started"] == 1
    assert found.active_now == {OURS: {"active": 1, "handed_off": 1}, OTHER: {"active": 1}}
    assert numbers(week(agent_number=OTHER), "started") == [(0,), (1,), (0,)]


def test_close_days__late_event_counts_its_day_again() -> None:
    a_few_days()
    close_days()
    totals = list(DailyTotal.objects.order_by("day", "kind").values("day", "kind", "count"))
    told("wed_9", WEDNESDAY, 23)
    assert numbers(week(), "started") == [(4,), (1,), (1,)]  # before it is counted again, too
    assert close_days() == 1
    assert numbers(week(), "started") == [(4,), (1,), (1,)]
    Conversation.objects.filter(pk="wed_9").delete()
    UncountedDay.objects.create(day=WEDNESDAY)
    close_days()
    assert totals == list(DailyTotal.objects.order_by("day", "kind").values("day", "kind", "count"))


def test_close_days__day_ends_at_midnight_here(settings: Any) -> None:
    settings.TIME_ZONE = "America/New_York"
    told("c", THURSDAY, 3)  # Wednesday evening there
    close_days()
    assert numbers(week(), "started") == [(1,), (0,), (0,)]


def test_read__many_days_wait_to_be_counted() -> None:
    for number in range(20):
        UncountedDay.objects.create(day=TODAY - timedelta(days=number))
    found = read("day", TODAY - timedelta(days=29), TODAY)
    assert found.uncounted == 20 - 7
    close_days()
    assert read("day", TODAY - timedelta(days=29), TODAY).uncounted == 0


DAYS_BACK = st.sampled_from([0, 27, 57, 361])
"""Among them the first and the last days of months."""


@pytest.mark.slow
@hypothesis_settings(max_examples=150)
@given(
    moves=st.lists(
        st.tuples(st.sampled_from(["told", "told", "close", "killed", "prune"]), DAYS_BACK),
        min_size=4,
        max_size=20,
    ),
    step=st.sampled_from(STEPS),
    first=st.sampled_from([399, 361, 360, 58, 57, 56]),
    until=st.sampled_from([0, 27, 28]),
    number=st.sampled_from(["", OURS, OTHER]),
)
def test_read__totals_of_months_say_what_those_of_days_say(
    moves: list[tuple[str, int]], step: str, first: int, until: int, number: str
) -> None:
    """In any order of late news, of counting, of a killed process and of deleting what is old."""
    for model in (Conversation, DailyTotal, MonthlyTotal, UncountedDay, UncountedMonth):
        model.objects.all().delete()
    for place, (kind, days) in enumerate(moves):
        if kind == "told":
            agent = OURS if place % 2 else OTHER
            told(f"c{place}", TODAY - timedelta(days=days), 9, agent_number=agent)
        elif kind == "close":
            close_days(1 + days // 20)
        elif kind == "killed":  # when the days were counted
            with patch("bland_sms.summary.counting._close_month"):
                close_days()
        else:
            with patch("bland_sms.retention.LONGEST_DAYS", days + 1):
                prune()

    asked = (step, TODAY - timedelta(days=first), TODAY - timedelta(days=until))
    with_months = read(*asked, agent_number=number)
    kept = list(MonthlyTotal.objects.all())
    MonthlyTotal.objects.all().delete()
    assert read(*asked, agent_number=number) == with_months
    MonthlyTotal.objects.bulk_create(kept)
    close_days()
    assert not UncountedMonth.objects.filter(month__lt=TODAY.replace(day=1)).exists()


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_close_days__several_processes_at_once_count_nothing_twice() -> None:
    """Each hears of late news, and counts what all of them noted."""
    days = [TODAY - timedelta(days=back) for back in (27, 28, 57)]
    rounds = 12

    def desk(name: int) -> None:
        try:
            for number in range(rounds):
                patiently(partial(told, f"c{name}_{number}", days[(name + number) % 3], 9))
                close_days()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(desk, range(4)))
    close_days()
    started = DailyTotal.objects.filter(kind="started").order_by("day")
    expected = Counter(days[(name + number) % 3] for name in range(4) for number in range(rounds))
    assert list(started.values_list("day", "count")) == sorted(expected.items())
    [october] = MonthlyTotal.objects.filter(kind="started", month=date(2026, 10, 1))
    assert october.count == sum(expected[day] for day in days if day.month == 10)


def test_read__a_year_is_read_from_the_totals_of_months() -> None:
    for back in (20, 40, 60, 80, 300):
        told(f"c{back}", TODAY - timedelta(days=back), 9)
    close_days()
    first, last = date(2026, 1, 15), TODAY
    expected = {step: read(step, first, last) for step in STEPS}
    months = set(MonthlyTotal.objects.values_list("month", flat=True))
    assert months == {date(2026, 10, 1), date(2026, 9, 1), date(2026, 1, 1)}
    for month in months - {date(2026, 1, 1)}:
        DailyTotal.objects.filter(day__month=month.month).delete()
    assert read("month", first, last) == expected["month"]
    assert read("week", first, last).by_number == expected["week"].by_number
    told("late", date(2026, 9, 30), 9)
    assert read("month", first, last).periods != expected["month"].periods


def test_read__a_page_of_all_numbers_reads_no_reasons_of_one_and_the_other_way_around() -> None:
    a_few_days()
    close_days()
    every, one = week(), week(agent_number=OTHER)
    assert every.by_us
    assert one.by_us
    for kind, page in (("why_of_number", every), ("why", one)):
        kept = list(DailyTotal.objects.filter(kind=kind))
        DailyTotal.objects.filter(kind=kind).delete()
        assert week(agent_number=OTHER if page is one else "") == page
        DailyTotal.objects.bulk_create(kept)


def test_read__only_periods_asks_for_nothing_else() -> None:
    a_few_days()
    close_days()
    whole = week()
    with CaptureQueriesContext(connection) as asked:
        found = week(only_periods=True)
    assert (found.periods, found.total) == (whole.periods, whole.total)
    assert not any("status" in one["sql"] for one in asked)
    assert sum("dailytotal" in one["sql"] for one in asked) == 1


def test_read__more_active_than_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    a_few_days()
    monkeypatch.setattr("bland_sms.summary.reading.ACTIVE_CAP", 2)
    assert week().active_now is None


@pytest.mark.parametrize(
    ("step", "number", "first"),
    [("day", 30, "2026-10-29"), ("week", 13, "2026-08-31"), ("month", 13, "2025-11-01")],
)
def test_days_of__default(step: str, number: int, first: str) -> None:
    begin, end = days_of(step, None, None, LONGEST_DAYS)
    assert (begin.isoformat(), end) == (first, TODAY)
    assert len(read(step, begin, end).periods) == number
    assert days_of(step, None, date(2026, 12, 31), LONGEST_DAYS)


def test_days_of__refused() -> None:
    for first, last in [
        (TODAY, WEDNESDAY),
        (date(2020, 1, 1), TODAY),
        (None, date.min),
        (None, date.max),
    ]:
        with pytest.raises(ValueError, match="day"):
            days_of("day", first, last, LONGEST_DAYS)


def test_prune__totals_go_when_no_page_shows_them() -> None:
    for age in (LONGEST_DAYS + 1, LONGEST_DAYS - 1):
        DailyTotal.objects.create(day=TODAY - timedelta(days=age), kind="started", count=1)
    assert prune().daily_totals == 1
    assert DailyTotal.objects.count() == 1


# --- the page ---------------------------------------------------------------------------------


@pytest.fixture(params=["as they are", "long ago", "more than are named"])
def many(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list behind a number finds its rows by another way where they are many, or long ago."""
    if request.param == "long ago":
        monkeypatch.setattr(named, "_expected", lambda _rows: 0)
    if request.param == "more than are named":
        monkeypatch.setattr(named, "MOST_NAMED", 0)
        monkeypatch.setattr(named, "MOST_IN_AN_ARRAY", 0)
        monkeypatch.setattr(named, "MOST_INSTEAD_OF_A_WALK", 0)


@pytest.mark.usefixtures("many")
def test_page__numbers_lead_to_the_lists_behind_them(desk: Client) -> None:
    a_few_days()
    close_days()
    page = desk.get(PAGE, {"from": "2026-11-25", "to": "2026-11-27"})
    text = page.content.decode()
    assert "<svg" in text
    assert "style=" not in text.partition('id="content-main"')[2]
    rows = {row.label: row for row in page.context["periods"]}
    assert [cell.number for cell in page.context["total"].cells] == [5, 1, 1, 0, 1, 2, 0, 0, 15]
    assert len(rows) == 3
    shown = 0
    for cell in [
        *page.context["total"].cells[:-1],
        *(c for r in rows.values() for c in r.cells[:-1]),
    ]:
        found = desk.get(cell.url).context["cl"]
        if cell.number:
            shown += 1
            assert found.result_count == cell.number
            assert f'href="{cell.url.replace("&", "&amp;")}"' in text
    assert shown >= 8


def test_page__by_number_and_by_whom(desk: Client) -> None:
    a_few_days()
    page = desk.get(PAGE, {"from": "2026-11-25", "our_number": OTHER, "step": "week"})
    assert [row.label for row in page.context["numbers"]] == [OTHER]
    assert [row[:3] for row in page.context["by_us"]] == [("dana", "spam", 1)]
    assert "our_number=%2B15559990002" in page.context["total"].cells[0].url


@pytest.mark.usefixtures("many")
def test_page__by_whom_and_why_lead_to_exactly_those(desk: Client) -> None:
    a_few_days()
    ended = datetime(2026, 11, 26, 9, tzinfo=timezone.utc)
    others = [("", "spam & more"), ("dana", ""), ("rosa", "spam")]
    for n, (name, reason) in enumerate(others):
        told(f"other_{n}", WEDNESDAY, 9)
        update = BulkUpdate.objects.create(
            is_active=False, requested_by_name=name, reason=reason, started_at=ended
        )
        BulkUpdateItem.objects.create(
            bulk_update=update, conversation_id=f"other_{n}", state="changed", finished_at=ended
        )
    page = desk.get(PAGE, {"from": "2026-11-25", "to": "2026-11-27"})
    found = {}
    for name, reason, number, url in page.context["by_us"]:
        assert f'href="{url.replace("&", "&amp;")}"' in page.content.decode()
        rows = desk.get(url).context["cl"].queryset
        found[name, reason] = (number, set(rows.values_list("pk", flat=True)))
    assert found == {
        ("dana", "spam"): (2, {"wed_2", "thu_0"}),
        ("an operator", "spam & more"): (1, {"other_0"}),
        ("dana", ""): (1, {"other_1"}),
        ("rosa", "spam"): (1, {"other_2"}),
    }


def test_page__active_now_leads_to_the_lists(desk: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    a_few_days()
    told("off", TODAY, 1, is_active=False)
    rows = desk.get(PAGE).context["numbers"]
    found = {row.label: [cell.number for cell in row.active] for row in rows}
    assert found == {OURS: [1, 1], OTHER: [1, 0]}
    for cell in (cell for row in rows for cell in row.active):
        assert desk.get(cell.url).context["cl"].result_count == cell.number
    assert (
        f'href="{rows[0].active[0].url.replace("&", "&amp;")}"' in desk.get(PAGE).content.decode()
    )
    monkeypatch.setattr("bland_sms.summary.reading.ACTIVE_CAP", 2)
    page = desk.get(PAGE)
    assert all(cell.number is None for row in page.context["numbers"] for cell in row.active)
    [now] = re.findall('<p class="bland-sms-now">(.*?)</p>', page.content.decode(), re.DOTALL)
    links = dict(re.findall('<a href="([^"]*)">([^<]*)</a>', now.partition("·")[0]))
    found = {words: desk.get(url).context["cl"].result_count for url, words in links.items()}
    assert found == {"Active": 2, "With a person": 1}


@pytest.mark.parametrize(
    "query", [{"from": "yesterday"}, {"from": "2026-13-45"}, {"from": "2020-01-01"}, {"to": "1"}]
)
def test_page__wrong_days_are_told(desk: Client, query: dict[str, str]) -> None:
    page = desk.get(PAGE, {**query, "step": "\0", "our_number": "\0"})
    assert page.status_code == 200
    assert page.context["asked"].problem


def test_page__empty_account(desk: Client) -> None:
    assert desk.get(PAGE).status_code == 200
    assert desk.get(f"{LIST}?event=started:x:y").status_code == 200


def test_page__needs_view_conversation(client: Client, person: AbstractUser) -> None:
    person.user_permissions.set(Permission.objects.filter(codename="view_bulkupdate"))
    client.force_login(person)
    for url in (PAGE, f"{LIST}summary.csv", API):
        assert client.get(url).status_code == 403


def test_page__narrowed_admin_counts_what_it_shows(
    desk: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def narrow(self: Any, request: HttpRequest) -> QuerySet[Conversation]:
        rows: QuerySet[Conversation] = super(ConversationAdmin, self).get_queryset(request)
        return rows.filter(agent_number=OTHER)

    a_few_days()
    close_days()
    monkeypatch.setattr(ConversationAdmin, "get_queryset", narrow)
    page = desk.get(PAGE, {"from": "2026-11-25"})
    assert [cell.number for cell in page.context["total"].cells] == [1, 0, 0, 0, 0, 1, 0, 0, 3]
    assert [row[:3] for row in page.context["by_us"]] == [("dana", "spam", 1)]
    assert OURS not in page.content.decode()
    assert "31 days" in page.content.decode()
    assert desk.get(PAGE, {"from": "2026-10-01"}).context["asked"].problem


def test_page__statements_do_not_grow(desk: Client) -> None:
    counts = []
    for number in (1, 6):
        for pk in range(number):
            told(f"c{number}_{pk}", TODAY - timedelta(days=pk), 1, agent_number=f"+1555000{pk:04}")
        close_days()
        with CaptureQueriesContext(connection) as queries:
            desk.get(PAGE)
        counts.append(len(queries))
    assert counts[0] == counts[1]


# --- CSV, API, command ------------------------------------------------------------------------


def test_csv__same_numbers(desk: Client) -> None:
    a_few_days()
    answer: Any = desk.get(f"{LIST}summary.csv", {"from": "2026-11-25"})
    lines = b"".join(answer.streaming_content).decode("utf-8-sig").split("\r\n")
    assert lines[0].startswith("first_day,last_day,started,handed_off,")
    assert lines[1] == "2026-11-25,2026-11-25,3,1,0,0,0,0,0,0,9,600"


def test_api__same_numbers(desk: Client) -> None:
    a_few_days()
    answer = desk.get(API, {"from": "2026-11-25", "step": "week", "agent_number": OURS}).json()
    assert answer["total"]["started"] == 4
    assert answer["total"]["seconds_to_hand_off"] == 600
    assert answer["periods"][0]["to"] == "2026-11-27"
    assert answer["deactivated_by_us"] == [{"requested_by": "dana", "reason": "spam", "count": 1}]
    early = desk.get(API, {"from": "2020-01-01", "step": "month"}).json()
    assert (early["from"], early["to"]) == ("2025-10-24", "2026-11-27")
    for days in ({"from": "2026-12-24"}, {"to": "0001-01-01"}, {"to": "9999-12-31"}):
        assert desk.get(API, days).status_code == 200
    for query in ({"step": "year"}, {"from": "x"}, {"form": "2026-11-25"}):
        refused = desk.get(API, query)
        assert (refused.status_code, refused.json()["code"]) == (400, "invalid")


def test_status__summary() -> None:
    a_few_days()
    out = StringIO()
    call_command("bland_sms_status", "--summary", "week", "--json", stdout=out)
    assert json.loads(out.getvalue())["total"]["started"] == 5
    out = StringIO()
    call_command("bland_sms_status", "--summary", stdout=out)
    lines = out.getvalue().splitlines()
    assert lines[0].split("\t")[:3] == ["first_day", "last_day", "started"]
    assert len(lines) == 31

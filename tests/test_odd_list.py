"""Whatever the list does: once it stops, the mirror says what Bland says, and few requests were
needed. No watermark ever passes a change that is not in the mirror."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import DatabaseError, DataError, InternalError, OperationalError
from django.utils import timezone
from hypothesis import Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from bland_sms import sync
from bland_sms.exceptions import BlandAuthenticationError
from bland_sms.mirror import apply as applying
from bland_sms.mirror import rows
from bland_sms.models import Conversation, OwedLook, SyncRun
from bland_sms.payloads import ConversationPayload
from bland_sms.sync import owed, refreshing, runs, writing

from .odd_list import BEGIN, HOUR, OddList, iso

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("no_waiting")]
NEVER_TOLD = "9999-12-31T23:59:59.000Z"


@pytest.fixture
def connect(settings: Any) -> Any:
    """Connect the app to an odd list."""

    def to(bland: OddList, **values: Any) -> None:
        settings.BLAND_SMS = {
            "API_KEY": "org_test_key_000000",
            "BASE_URL": bland.base_url,
            "PAGE_SIZE": 5,
            **values,
        }

    return to


@pytest.fixture
def bland(connect: Any) -> Iterator[OddList]:
    with OddList() as running:
        connect(running)
        yield running


def fill(bland: OddList, number: int) -> list[str]:
    names = [f"c{index:03d}" for index in range(number)]
    for index, name in enumerate(names):
        bland.add(name, index)
    return names


def stored() -> set[str]:
    return set(Conversation.objects.values_list("pk", flat=True))


def make_due() -> None:
    OwedLook.objects.exclude(reason="not_listed").update(not_before=BEGIN)


# --- a page of 500 for ever -------------------------------------------------------------------


@pytest.mark.parametrize("dialect", ["a", "b"])
@pytest.mark.parametrize("full", [True, False], ids=["full", "incremental"])
@pytest.mark.parametrize(
    "poison", [["c013"], ["c000"], ["c039"], ["c013", "c014", "c030"], ["c010", "c012"]], ids=str
)
def test_poison__all_else_arrives(
    poison: list[str], full: bool, dialect: str, bland: OddList
) -> None:
    names = fill(bland, 40)
    bland.dialect = dialect
    bland.poison = set(poison)
    if not full:
        SyncRun.objects.create(mode="full", status="finished", watermark=BEGIN, dialect=dialect)

    run = sync.run(full=full)

    assert stored() == set(names) - bland.poison
    assert (run.status, run.error_code) == ("incomplete", "list_gap")
    assert bland.requests["list"] < 150
    before = runs.last_watermark()
    assert before is None or before <= BEGIN

    bland.requests.clear()
    again = sync.run(full=full)
    assert again.status == "incomplete"
    assert bland.requests["list"] < 60 * len(poison)  # only the gap, and what is new

    bland.poison.clear()
    assert sync.run(full=full).status == "finished"
    assert stored() == set(names)


def test_poison__the_span_is_named_and_new_changes_arrive(bland: OddList) -> None:
    fill(bland, 40)
    bland.poison = {"c013"}
    run = sync.run()
    begin, _, end = run.error_params["spans"].removeprefix("created_at ").partition(" ... ")
    assert iso(BEGIN + 11 * HOUR) < begin <= iso(BEGIN + 13 * HOUR)  # its half of the list
    assert end == iso(BEGIN + 14 * HOUR)
    assert end in run.error
    bland.touch("c030")
    sync.run()
    assert Conversation.objects.get(pk="c030").is_active is False


def test_poison__in_rows_that_share_one_time(bland: OddList) -> None:
    fill(bland, 10)
    for index in range(30):
        bland.add(f"tie{index:02d}", 4)
    bland.poison = {"tie17"}
    run = sync.run()
    assert stored() == set(bland.rows) - {"tie17"}
    assert run.error_code == "list_gap"


def test_poison__hours_for_which_bland_does_not_answer(bland: OddList) -> None:
    """Neither smaller pages nor page numbers lead past it: a later time does."""
    names = fill(bland, 60)
    bland.dead_hours = (20, 33)
    run = sync.run()
    assert stored() >= set(names[:20]) | set(names[34:])
    assert run.error_code == "list_gap"
    bland.dead_hours = None
    assert sync.run().status == "finished"
    assert stored() == set(names)


@pytest.mark.parametrize("hours", [(20, 580), (1, 599), (20, 33), (299, 341)], ids=str)
@pytest.mark.parametrize("retries", [0, 2])
def test_poison__hours_that_every_range_meets(
    retries: int, hours: tuple[int, int], bland: OddList, connect: Any
) -> None:
    """Ranges are read side by side: however many meet it at once, it is no outage."""
    connect(bland, MAX_RETRIES=retries)
    names = fill(bland, 600)
    bland.dead_hours = hours
    run = sync.run()
    assert (run.status, run.error_code) == ("incomplete", "list_gap")
    assert stored() >= {*names[: hours[0]], *names[hours[1] + 1 :]}
    assert bland.requests["list"] < 600
    bland.dead_hours = None
    assert sync.run().status == "finished"
    assert stored() == set(names)


def test_poison__refusals_meanwhile_are_not_taken_for_it(bland: OddList) -> None:
    """Bland says now and then that it is asked too often: that is no matter of one row."""
    names = fill(bland, 40)
    bland.poison = {"c013"}
    bland.refuses_first = True
    run = sync.run()
    assert run.error_code == "list_gap"
    assert stored() == set(names) - {"c013"}


@pytest.mark.parametrize("messages", [False, True])
@pytest.mark.parametrize("after", [0, 5])
def test_outage__costs_few_requests(after: int, messages: bool, bland: OddList) -> None:
    fill(bland, 300)
    sync.run()
    Conversation.objects.filter(pk__gt="c150").delete()
    for name in list(bland.rows)[:after]:
        bland.touch(name)
    bland.is_down = True
    bland.requests.clear()
    run = sync.run(messages=messages)
    assert run.status == "failed"
    assert bland.requests["down"] <= 50


# --- pages that are wrong ---------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["repeat", "shuffled", "longer", "empty", "no list", "html"])
@pytest.mark.parametrize("full", [True, False], ids=["full", "incremental"])
def test_wrong_page__is_asked_for_again(fault: str, full: bool, bland: OddList) -> None:
    names = fill(bland, 60)
    if not full:
        SyncRun.objects.create(mode="full", status="finished", watermark=BEGIN, dialect="a")
    # An empty page is asked for twice only: so far apart, no range meets two of them in a row.
    between = [None] * (40 if fault == "empty" else 9)
    bland.faults = [None, None, None, fault, *between, fault, *between, fault]
    run = sync.run(full=full)
    assert (run.status, run.seen) == ("finished", 60)
    assert stored() == set(names)


def test_wrong_page__longer_than_asked_for_is_not_believed(bland: OddList) -> None:
    fill(bland, 60)
    bland.faults = ["longer"] * 6
    run = sync.run()
    assert (run.status, run.error_code) == ("failed", "list_untrusted")
    assert not stored()


# --- what is owed a look ----------------------------------------------------------------------


def test_owed__transcripts_that_were_never_copied(bland: OddList) -> None:
    fill(bland, 30)
    sync.run()
    assert not bland.asked
    sync.run(messages=True)
    assert len(bland.asked) == 30
    assert not Conversation.objects.filter(transcript_observed_at=None).exists()


def test_owed__a_detail_that_failed_is_asked_for_again(bland: OddList) -> None:
    fill(bland, 12)
    bland.dead_details = {"c003"}
    run = sync.run(messages=True)
    assert (run.status, run.failed, run.owed) == ("finished", 1, [["c003", "ERROR"]])
    look = OwedLook.objects.get()
    assert (look.conversation, look.reason, look.attempts) == ("c003", "detail_failed", 1)

    bland.asked.clear()
    sync.run()
    assert "c003" not in bland.asked  # not before its time
    make_due()
    sync.run()
    assert bland.asked.count("c003") == 3
    assert OwedLook.objects.get().attempts == 2
    assert OwedLook.objects.get().not_before > look.not_before

    make_due()
    bland.dead_details.clear()
    looked = sync.look_at_owed()
    assert (looked.copied, looked.failed) == (1, {})
    assert not OwedLook.objects.exists()
    assert Conversation.objects.get(pk="c003").transcript_observed_at is not None


def test_owed__one_that_is_gone_is_marked(bland: OddList) -> None:
    fill(bland, 3)
    bland.dead_details = {"c001"}
    sync.run(messages=True)
    del bland.rows["c001"]
    bland.dead_details.clear()
    make_due()
    assert sync.look_at_owed().missing == 1
    assert Conversation.objects.get(pk="c001").missing_since is not None
    assert not OwedLook.objects.exists()


def test_owed__a_time_far_ahead_holds_nothing_up(bland: OddList) -> None:
    fill(bland, 1)
    owed.add(["c000"], "detail_failed", "no_answer")
    OwedLook.objects.update(not_before=datetime(2400, 1, 1, tzinfo=BEGIN.tzinfo))
    assert sync.look_at_owed().copied == 1


def test_owed__an_outage_is_no_attempt_and_costs_little(bland: OddList) -> None:
    names = fill(bland, 300)
    sync.run()
    owed.add(names, "detail_failed", "no_answer")
    make_due()
    bland.is_down = True
    bland.requests.clear()
    looked = sync.look_at_owed()
    assert looked.stop is not None
    assert bland.requests["down"] <= 120
    untouched = OwedLook.objects.filter(attempts=1).count()
    assert untouched > 200
    bland.is_down = False
    make_due()
    assert sync.look_at_owed().copied == 300


@pytest.mark.parametrize("retries", [0, 2])
def test_refresh_many__costs_few_requests_in_an_outage(
    retries: int, bland: OddList, connect: Any
) -> None:
    connect(bland, MAX_RETRIES=retries, MAX_CONCURRENCY=1)
    names = fill(bland, 300)
    bland.is_down = True
    refreshed = sync.refresh_many(names)
    assert len(refreshed.failed) == 300
    assert refreshed.outage is not None
    assert bland.requests["down"] <= 70  # the retry budget is 40, however many there are


def test_refresh_many__raises_of_a_refused_row_after_the_others_are_written(
    bland: OddList, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = fill(bland, 20)
    write = refreshing.apply_page

    def refuse_one(payloads: Sequence[ConversationPayload], **options: Any) -> Any:
        if any(payload.id == names[7] for payload in payloads):
            raise DataError("no such value")
        return write(payloads, **options)

    monkeypatch.setattr(refreshing, "apply_page", refuse_one)
    with pytest.raises(DatabaseError):
        sync.refresh_many(names)
    assert Conversation.objects.count() == 19


def test_messages__cost_few_requests_in_an_outage(bland: OddList) -> None:
    fill(bland, 300)
    sync.run()
    bland.dead_details = set(bland.rows)  # the list answers, and no detail does
    bland.requests.clear()
    run = sync.run(messages=True)
    assert run.status != "finished"
    assert bland.requests["detail"] <= 120


# --- odd rows ---------------------------------------------------------------------------------


@pytest.mark.parametrize("odd", [NEVER_TOLD, None, "yesterday"], ids=str)
def test_quiet_account__one_odd_row_is_no_failure(odd: Any, bland: OddList) -> None:
    fill(bland, 12)
    bland.rows["c004"]["updated_at"] = odd
    for _ in range(3):
        run = sync.run()
        assert (run.status, run.error_code) == ("finished", "")
    bland.rows["c004"]["is_active"] = False
    bland.clock += HOUR
    if odd is not None:  # Bland lists no row without a time where one is asked for
        sync.run()
        assert Conversation.objects.get(pk="c004").is_active is False


def test_quiet_account__more_odd_rows_than_a_page(bland: OddList, connect: Any) -> None:
    fill(bland, 12)
    sync.run()
    for name in ("c001", "c002", "c003"):
        bland.rows[name]["updated_at"] = NEVER_TOLD
    assert sync.run().status == "finished"


# --- refused by the database ------------------------------------------------------------------


class CrashError(BaseException):
    """The process ends in the middle of a write."""


@pytest.fixture
def refuse(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Conversations that the database refuses; ``crash`` ends the process at its next write."""
    refused: set[str] = set()
    write = rows.write

    def choosy(merges: Any, *args: Any, **values: Any) -> None:
        if refused & merges.keys():
            raise DataError("invalid input")
        if "crash" in refused and merges:
            refused.remove("crash")
            raise CrashError
        write(merges, *args, **values)

    monkeypatch.setattr(applying, "write", choosy)
    return refused


@pytest.mark.parametrize("full", [True, False], ids=["full", "incremental"])
def test_refused__the_watermark_does_not_pass_it(
    full: bool, bland: OddList, refuse: set[str]
) -> None:
    names = fill(bland, 30)
    SyncRun.objects.create(mode="full", status="finished", watermark=BEGIN)
    refuse.add("c012")
    run = sync.run(full=full)
    assert (run.status, run.failed) == ("finished", 1)
    assert stored() == set(names) - {"c012"}
    assert run.watermark is not None
    assert run.watermark <= BEGIN + 12 * HOUR
    assert OwedLook.objects.get().reason == "refused"

    refuse.clear()
    run = sync.run()
    assert stored() == set(names)
    assert run.watermark is not None
    assert run.watermark > BEGIN + 12 * HOUR
    assert not OwedLook.objects.exists()


# --- missing, by the walk and not by a clock ---------------------------------------------------


def test_unlisted__resumed_by_a_machine_whose_clock_is_slow(
    bland: OddList, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = fill(bland, 120)
    sync.run()
    del bland.rows["c050"]
    bland.faults = [None] * 12 + ["500"] * 60
    assert sync.run(full=True).status == "incomplete"
    bland.faults.clear()
    bland.asked.clear()
    now = timezone.now
    monkeypatch.setattr("django.utils.timezone.now", lambda: now() - 5 * HOUR / 60)
    run = sync.run(full=True)
    assert run.status == "finished"
    assert run.seen < 120  # it was resumed
    assert bland.asked == ["c050"]
    assert Conversation.objects.get(missing_since__isnull=False).pk == "c050"
    assert stored() == set(names)


def test_unlisted__one_look_that_fails_does_not_stop_the_rest(bland: OddList) -> None:
    fill(bland, 100)
    sync.run()
    for name in ("c010", "c020", "c030"):
        del bland.rows[name]
    bland.dead_details = {"c020"}
    assert sync.run(full=True).status == "finished"
    marked = Conversation.objects.filter(missing_since__isnull=False)
    assert {row.pk for row in marked} == {"c010", "c030"}
    bland.dead_details.clear()
    make_due()
    sync.look_at_owed()
    assert Conversation.objects.get(pk="c020").missing_since is not None


# --- all of it, in any mixture ----------------------------------------------------------------

FAULTS = st.sampled_from([None, None, "500", "repeat", "shuffled", "longer", "html", "no list"])
accounts = st.lists(
    st.tuples(st.integers(0, 12), st.integers(0, 30), st.sampled_from("....?")), max_size=40
)


@pytest.mark.slow
@hypothesis_settings(
    max_examples=40,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # shrinking takes minutes
)
@given(
    account=accounts,
    dialect=st.sampled_from("ab"),
    page_size=st.integers(2, 7),
    clamp=st.sampled_from([1000, 1000, 3]),
    faults=st.lists(st.lists(FAULTS, max_size=15), min_size=1, max_size=3),
    moves=st.lists(
        st.tuples(st.sampled_from(["add", "touch", "touch", "delete"]), st.integers(0, 50)),
        max_size=20,
    ),
    poison=st.sets(st.integers(0, 40), max_size=3),
    dead=st.none() | st.tuples(st.integers(0, 30), st.integers(1, 20)),
    refuses_first=st.booleans(),
    refused=st.sets(st.integers(0, 40), max_size=2),
    crashes=st.lists(st.booleans(), min_size=3, max_size=3),
)
def test_any_mixture__converges(
    connect: Any,
    refuse: set[str],
    account: list[tuple[int, int, str]],
    dialect: str,
    page_size: int,
    clamp: int,
    faults: list[list[str | None]],
    moves: list[tuple[str, int]],
    poison: set[int],
    dead: tuple[int, int] | None,
    refuses_first: bool,
    refused: set[int],
    crashes: list[bool],
) -> None:
    refuse.clear()
    for model in (OwedLook, SyncRun, Conversation):
        model.objects.all().delete()
    with OddList(dialect=dialect) as bland:
        connect(bland, PAGE_SIZE=page_size)
        for number, (created, later, kind) in enumerate(account):
            bland.add(f"c{number:02d}", created, created + later)
            if kind == "?":
                bland.rows[f"c{number:02d}"]["updated_at"] = NEVER_TOLD
        bland.clamp = clamp
        bland.poison = {f"c{number:02d}" for number in poison}
        bland.dead_hours = (dead[0], dead[0] + dead[1]) if dead else None
        bland.refuses_first = refuses_first
        refuse |= {f"c{number:02d}" for number in refused}
        for some, is_crash in zip(faults, crashes, strict=False):
            bland.faults, bland.moves = list(some), [*moves]
            bland.requests.clear()
            refuse |= {"crash"} if is_crash else set()
            with suppress(CrashError):
                sync.run()
            assert bland.requests["list"] <= 250 + 6 * len(bland.rows)
            no_watermark_passes_what_is_not_stored(bland)
        bland.faults, bland.moves, bland.poison = [], [], set()
        bland.dead_hours, bland.refuses_first = None, False
        refuse.clear()
        make_due()
        for _ in range(3):
            if sync.run().status == "finished":
                break
        make_due()
        run = sync.run(full=True)
        # So many of few may be gone that none is believed to be.
        assert run.status == "finished" or run.error_code == "too_few_found", run.error
        make_due()
        sync.run()
        mirror = {row.pk: row for row in Conversation.objects.all()}
        for name, row in bland.rows.items():
            assert mirror[name].is_active is row["is_active"]
            if row["updated_at"] != NEVER_TOLD:
                assert iso(mirror[name].updated_at) == row["updated_at"]
        gone = {pk for pk, row in mirror.items() if row.missing_since is not None}
        assert not gone & bland.rows.keys()


def no_watermark_passes_what_is_not_stored(bland: OddList) -> None:
    watermark = runs.last_watermark()
    if watermark is None:
        return
    mirror = dict(Conversation.objects.values_list("pk", "updated_at"))
    for name, row in bland.rows.items():
        if row["updated_at"] < iso(watermark):
            assert name in mirror
            assert iso(mirror[name]) == row["updated_at"]


# --- told by the commands ---------------------------------------------------------------------


def test_command__names_what_is_owed_and_the_span(
    bland: OddList, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(bland, 30)
    bland.dead_details = {"c003"}
    with pytest.raises(CommandError, match="1 conversations could not be"):
        call_command("bland_sms_sync", "--messages")
    assert "c003: ERROR" in capsys.readouterr().err
    bland.poison = {"c010"}
    with pytest.raises(CommandError, match=r"2026-01-01T09.*2026-01-01T11"):
        call_command("bland_sms_sync", "--full")


def test_work__looks_at_what_is_owed(bland: OddList, capsys: pytest.CaptureFixture[str]) -> None:
    fill(bland, 4)
    sync.run()
    owed.add(["c001", "c002"], "detail_failed", "no_answer")
    call_command("bland_sms_work", "--once")
    assert not bland.asked  # not before its time
    make_due()
    call_command("bland_sms_work", "--once")
    assert sorted(bland.asked) == ["c001", "c002"]
    assert "2 copied" in capsys.readouterr().out
    assert not OwedLook.objects.exists()


def test_look_at_owed__does_not_end_what_its_caller_does(bland: OddList, connect: Any) -> None:
    names = fill(bland, 4)
    owed.add(names, "detail_failed", "no_answer")
    make_due()
    ended = threading.Event()
    bland.refuses_key = True
    looked = sync.look_at_owed(5, ended)
    assert isinstance(looked.stop, BlandAuthenticationError)
    assert not ended.is_set()
    ended.set()
    bland.refuses_key = False
    make_due()
    assert sync.look_at_owed(5, ended).copied == 0


# --- a database that is away or read-only for a moment ------------------------------------------


def read_only(*_: Any, **__: Any) -> None:
    """As psycopg reports a server that is a standby for a moment."""
    cause = Exception("cannot execute INSERT in a read-only transaction")
    cause.sqlstate = "25006"  # type: ignore[attr-defined]
    raise InternalError("cannot execute INSERT in a read-only transaction") from cause


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("failure", ["read only", "locked"])
def test_database__read_only_for_a_moment_is_waited_for(
    failure: str, bland: OddList, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = fill(bland, 44)
    write, failures = rows.write, [1] * 4

    def fail_first(*args: Any, **values: Any) -> None:
        if failures and failures.pop():
            if failure == "locked":
                raise OperationalError("database is locked")
            read_only()
        write(*args, **values)

    monkeypatch.setattr(applying, "write", fail_first)
    run = sync.run()
    assert (run.status, run.failed) == ("finished", 0)
    assert stored() == set(names)
    assert not OwedLook.objects.exists()


def test_database__that_stays_read_only_loses_no_row(
    bland: OddList, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = fill(bland, 44)
    with monkeypatch.context() as patch:
        patch.setattr("bland_sms.database.DATABASE_PATIENCE_SECONDS", 0)
        patch.setattr(writing, "patiently", lambda write: write())
        patch.setattr(applying, "write", read_only)
        with pytest.raises(InternalError):
            sync.run()
    assert runs.last_watermark() is None
    assert sync.run().status == "finished"
    assert stored() == set(names)


def test_run__that_gets_nowhere_keeps_what_is_left_to_read(bland: OddList) -> None:
    fill(bland, 60)
    SyncRun.objects.create(mode="full", status="finished", watermark=BEGIN, dialect="a")
    bland.faults = [None] * 5 + ["500"] * 60
    assert sync.run().status == "incomplete"
    bland.faults = []
    bland.is_down = True
    assert sync.run().status == "failed"
    bland.is_down = False
    run = sync.run()
    assert run.status == "finished"
    assert run.seen < 50
    assert Conversation.objects.count() == 60

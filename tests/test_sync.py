"""The sync against a list that changes while it is read, lies, breaks off, or speaks otherwise."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from django.db import connection
from django.db.models import Count
from django.test.utils import CaptureQueriesContext

from bland_sms import sync
from bland_sms.exceptions import (
    BlandAuthenticationError,
    BlandConnectionError,
    BlandNotFoundError,
)
from bland_sms.mirror import Effect
from bland_sms.models import Conversation, OwedLook, SyncRun
from bland_sms.pacing import Allowance
from bland_sms.reasons import Failure
from bland_sms.sandbox import BlandSandbox
from bland_sms.sync import driver, missing, runs, writing
from bland_sms.sync.refreshing import Refreshed
from bland_sms.updates import run as run_update

from .conftest import Start, wait_until

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("no_waiting")]
BEGIN = datetime(2026, 1, 1, tzinfo=timezone.utc)
DIALECTS = pytest.mark.parametrize("dialect", ["a", "b"])


def text_of(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def fill(sandbox: BlandSandbox, number: int, *, every: timedelta = timedelta(minutes=1)) -> None:
    """Conversations that were made and last changed one after the other."""
    for index in range(number):
        moment = text_of(BEGIN + index * every)
        sandbox.account.add({"id": f"c{index:05d}", "created_at": moment, "updated_at": moment})


def ids() -> set[str]:
    return set(Conversation.objects.values_list("pk", flat=True))


def filters_of(request: dict[str, Any]) -> list[dict[str, Any]]:
    query = parse_qs(urlsplit(request["path"]).query)
    found: list[dict[str, Any]] = json.loads(query.get("filters", ["[]"])[0])
    return found


def listed(sandbox: BlandSandbox) -> list[dict[str, Any]]:
    return [seen for seen in sandbox.requests("GET") if not seen["conversation_id"]]


def goes_down(sandbox: BlandSandbox, *, after: int) -> None:
    """From then on Bland answers nothing but 500."""
    for call in range(after + 1, after + 60):
        sandbox.faults.add(f"#{call}", "500")


@pytest.fixture
def small_pages(sandbox: BlandSandbox, set_bland: Callable[..., None]) -> BlandSandbox:
    set_bland(PAGE_SIZE=20)
    return sandbox


@pytest.fixture
def on_answer(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Change something at Bland after each page of its list."""

    def install(sandbox: BlandSandbox, change: Callable[[], None]) -> None:
        list_page = sandbox.account.list_page

        def answer(query: Any) -> Any:
            page = list_page(query)
            with sandbox.account.lock:
                change()
            return page

        monkeypatch.setattr(sandbox.account, "list_page", answer)

    return install


# --- completeness -----------------------------------------------------------------------------


@DIALECTS
@pytest.mark.parametrize("full", [True, False], ids=["full", "incremental"])
@pytest.mark.parametrize("kind", ["insert", "delete", "update", "mixed"])
def test_run__misses_no_row_that_existed_all_the_time(
    kind: str,
    full: bool,
    dialect: str,
    small_pages: BlandSandbox,
    on_answer: Callable[..., None],
) -> None:
    account = small_pages.account
    account.dialect = dialect
    fill(small_pages, 600)
    always = set(account.rows)
    chance = random.Random(7)
    if not full:
        SyncRun.objects.create(mode="full", status="finished", watermark=BEGIN)

    def insert() -> None:
        account.add({"id": f"new{chance.random()}".replace(".", "")})

    def delete() -> None:
        gone = chance.choice(sorted(account.rows))
        del account.rows[gone]
        always.discard(gone)

    def update() -> None:
        account.set_active(chance.choice(sorted(account.rows)), False)

    changes = {"insert": [insert], "delete": [delete], "update": [update]}
    kinds = changes.get(kind, [insert, delete, update])
    on_answer(small_pages, lambda: [chance.choice(kinds)() for _ in range(3)] and None)

    run = sync.run(full=full)

    assert (run.status, run.error) == ("finished", "")
    assert always - ids() == set()


@DIALECTS
@pytest.mark.parametrize("page", [100, 40, 7], ids=["as asked", "clamped", "clamped hard"])
@pytest.mark.parametrize("full", [True, False], ids=["full", "incremental"])
def test_run__walks_a_tie(dialect: str, page: int, full: bool, sandbox: BlandSandbox) -> None:
    sandbox.account.dialect = dialect
    sandbox.account.longest_page = page
    fill(sandbox, 10)
    tie = text_of(BEGIN + timedelta(minutes=3))
    for index in range(150):
        sandbox.account.add({"id": f"tie{index}", "created_at": tie, "updated_at": tie})
    if not full:
        SyncRun.objects.create(mode="full", status="finished", watermark=BEGIN)
    assert sync.run(full=full).status == "finished"
    assert Conversation.objects.count() == 160


@DIALECTS
@pytest.mark.parametrize("full", [True, False], ids=["full", "incremental"])
@pytest.mark.parametrize("kind", ["delete", "update"])
def test_run__misses_no_row_of_a_tie_that_shrinks(
    kind: str, full: bool, dialect: str, sandbox: BlandSandbox, on_answer: Callable[..., None]
) -> None:
    """What leaves a tie pulls another row over the edge of a page."""
    account = sandbox.account
    account.dialect = dialect
    fill(sandbox, 200)
    tie = text_of(BEGIN + timedelta(minutes=30))
    tied = [f"tie{index:03d}" for index in range(350)]
    for pk in tied:
        account.add({"id": pk, "created_at": tie, "updated_at": tie})
    always = set(account.rows)
    chance, changes = random.Random(11), 3
    if not full:
        SyncRun.objects.create(mode="full", status="finished", watermark=BEGIN)

    def change() -> None:
        for pk in chance.sample(sorted(tied), min(changes, len(tied))):
            tied.remove(pk)
            if kind == "delete":
                del account.rows[pk]
                always.discard(pk)
            else:
                account.set_active(pk, False)

    on_answer(sandbox, change)
    assert sync.run(full=full).status == "finished"
    assert always - ids() == set()
    if kind == "update" and not full:
        changes = 0
        sync.run()
        stale = Conversation.objects.filter(is_active=True, pk__startswith="tie")
        assert {row.pk for row in stale} <= set(tied)


@DIALECTS
def test_run__believes_no_totals(
    dialect: str, sandbox: BlandSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox.account.dialect = dialect
    fill(sandbox, 250)
    chance = random.Random(1)
    monkeypatch.setattr(
        "bland_sms.sandbox.account._pagination",
        lambda total, page, size: {
            "totalItems": chance.randint(0, 9),
            "totalPages": chance.randint(0, 2),
            "currentPage": page,
            "pageSize": size,
        },
    )
    assert sync.run().seen == 250


@DIALECTS
def test_run__pages_that_shrink(dialect: str, sandbox: BlandSandbox, on_answer: Any) -> None:
    sandbox.account.dialect = dialect
    fill(sandbox, 400)
    chance = random.Random(3)
    sandbox.account.longest_page = 100

    def shrink() -> None:
        sandbox.account.longest_page = chance.randint(3, 100)

    on_answer(sandbox, shrink)
    assert sync.run().status == "finished"
    assert Conversation.objects.count() == 400


def test_run__reads_ranges_side_by_side(small_pages: BlandSandbox) -> None:
    fill(small_pages, 600)
    run = sync.run(full=True)
    assert (run.seen, run.created) == (600, 600)
    # Whichever of them comes first, each has an end of its own.
    ends = {tuple(one["value"] for one in filters_of(seen)[1:]) for seen in listed(small_pages)}
    assert len(ends - {()}) >= 5
    assert len(listed(small_pages)) < 70  # each range costs two or four to see its end


def test_run__uneven_years_are_cut_again(small_pages: BlandSandbox) -> None:
    fill(small_pages, 5, every=timedelta(days=30))
    for index in range(600):
        moment = text_of(BEGIN + timedelta(days=119, minutes=index))
        small_pages.account.add({"id": f"late{index}", "created_at": moment, "updated_at": moment})
    run = sync.run(full=True)
    assert (run.status, run.seen) == ("finished", 605)


# --- what changed -----------------------------------------------------------------------------


def test_run__then_only_what_changed(sandbox: BlandSandbox) -> None:
    fill(sandbox, 300)
    assert sync.run().mode == "full"
    sandbox.account.set_active("c00007", False)
    sandbox.log.clear()
    run = sync.run()
    assert (run.mode, run.status, run.seen, run.changed) == ("incremental", "finished", 1, 1)
    assert filters_of(listed(sandbox)[0])[0]["field"] == "updated_at"
    assert len(listed(sandbox)) <= 5
    assert Conversation.objects.get(pk="c00007").is_active is False


def test_run__watermark_is_by_blands_clock(sandbox: BlandSandbox) -> None:
    fill(sandbox, 3)
    SyncRun.objects.create(mode="full", status="finished", watermark=BEGIN)
    assert sync.run().watermark == BEGIN + timedelta(minutes=2)


@pytest.mark.parametrize("days", [-1, 1], ids=["a day slow", "a day fast"])
def test_run__our_clock_decides_nothing(
    days: int, sandbox: BlandSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(sandbox, 3)
    now = runs.timezone.now
    monkeypatch.setattr("django.utils.timezone.now", lambda: now() + timedelta(days=days))
    sync.run()
    sandbox.account.set_active("c00001", False)
    monkeypatch.setattr("django.utils.timezone.now", now)
    assert sync.run().status == "finished"
    assert Conversation.objects.get(pk="c00001").is_active is False


def test_run__full_begins_the_next_one_where_it_began(
    small_pages: BlandSandbox, on_answer: Callable[..., None]
) -> None:
    """A row that changes behind the walk, in an hour that other rows were changed after."""
    fill(small_pages, 100)
    moments = iter(range(1000))

    def change() -> None:
        row = small_pages.account.set_active("c00000", False)
        small_pages.account.rows["c00000"]["updated_at"] = row["updated_at"]
        later = datetime.now(timezone.utc) + timedelta(minutes=4)
        small_pages.account.rows["c00099"]["updated_at"] = text_of(later)
        next(moments)

    on_answer(small_pages, change)
    sync.run(full=True)
    sync.run()
    assert Conversation.objects.get(pk="c00000").is_active is False


def test_run__since(sandbox: BlandSandbox) -> None:
    fill(sandbox, 60)
    run = sync.run(since=BEGIN + timedelta(minutes=50))
    assert (run.mode, run.seen) == ("incremental", 10)
    assert sync.last_copied_at() is None  # not as a whole
    assert sync.run().seen == 60  # such a run leaves a gap before it, which the next one fills


def test_run__no_watermark_from_a_run_that_was_not_completed(small_pages: BlandSandbox) -> None:
    fill(small_pages, 100)
    SyncRun.objects.create(mode="full", status="finished", watermark=BEGIN)
    goes_down(small_pages, after=2)
    run = sync.run()
    assert run.status == "incomplete"
    assert "500" in run.error
    assert runs.last_watermark() == BEGIN


# --- one at a time, and resumed ---------------------------------------------------------------


def test_run__skipped_beside_another(sandbox: BlandSandbox) -> None:
    held = SyncRun(mode="full")
    assert runs.begin(held)
    skipped = sync.run()
    assert (skipped.status, skipped.pk is not None) == ("skipped", True)
    assert not listed(sandbox)
    runs.end(held)
    assert sync.run().status == "finished"


class EndsDuringTheWait(threading.Event):
    """An event that nobody sets; meanwhile the other run ends, or another thing happens."""

    def __init__(self, happens: Callable[[], object]) -> None:
        super().__init__()
        self.happens = happens
        self.waits = 0

    def wait(self, timeout: float | None = None) -> bool:
        self.waits += 1
        self.happens()
        return self.is_set()


def test_run__full_waits_for_an_incremental_run(sandbox: BlandSandbox) -> None:
    fill(sandbox, 3)
    held = SyncRun(mode="incremental")
    assert runs.begin(held)
    stopped = EndsDuringTheWait(lambda: stopped.waits < 3 or runs.end(held))

    run = sync.run(full=True, wait_seconds=60, stopped=stopped)

    assert (run.status, run.mode, run.seen) == ("finished", "full", 3)
    assert stopped.waits == 3
    assert not SyncRun.objects.filter(status="skipped").exists()
    assert run.walk_began_at >= SyncRun.objects.get(pk=held.pk).finished_at


@pytest.mark.parametrize(
    ("mode", "full", "wait_seconds"),
    [("incremental", True, 0), ("incremental", False, 60), ("full", True, 60)],
    ids=["no time", "incremental itself", "full beside full"],
)
def test_run__does_not_wait(
    mode: str, full: bool, wait_seconds: float, sandbox: BlandSandbox
) -> None:
    assert runs.begin(SyncRun(mode=mode))
    SyncRun.objects.create(mode="full", status="finished", watermark=BEGIN)
    stopped = EndsDuringTheWait(lambda: None)

    assert sync.run(full=full, wait_seconds=wait_seconds, stopped=stopped).status == "skipped"
    assert stopped.waits == 0


def test_run__waiting_is_bounded_and_ends_when_stopped(
    sandbox: BlandSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = SyncRun(mode="incremental")
    assert runs.begin(held)
    clock = [0.0]
    monkeypatch.setattr(runs.time, "monotonic", lambda: clock[0])

    def pass_time() -> None:
        clock[0] += 1
        runs.renew(held)  # it goes on and on

    stopped = EndsDuringTheWait(pass_time)
    assert sync.run(full=True, wait_seconds=5, stopped=stopped).status == "skipped"
    assert stopped.waits == 5

    def stop() -> None:
        stopped.set()

    stopped = EndsDuringTheWait(stop)
    assert sync.run(full=True, wait_seconds=600, stopped=stopped).status == "skipped"
    assert stopped.waits == 1
    assert SyncRun.objects.filter(status="skipped").count() == 2


def test_run__takes_over_from_the_dead(sandbox: BlandSandbox) -> None:
    dead = SyncRun(mode="full")
    runs.begin(dead)
    SyncRun.objects.update(lease_until=runs.timezone.now() - timedelta(seconds=1))
    assert sync.run().status == "finished"
    dead.refresh_from_db()
    assert (dead.status, dead.lease_key) == ("incomplete", None)


def test_run__stops_when_another_took_over(
    small_pages: BlandSandbox, on_answer: Callable[..., None]
) -> None:
    fill(small_pages, 200)

    def take_over(run: SyncRun) -> None:
        if run.seen >= 40:
            SyncRun.objects.filter(pk=run.pk).update(lease_token=None)

    run = sync.run(on_page=take_over)
    assert run.seen < 200
    assert Conversation.objects.count() < 200


def test_run__goes_on_where_a_page_failed_for_good(small_pages: BlandSandbox) -> None:
    fill(small_pages, 200)
    SyncRun.objects.create(mode="full", status="finished", watermark=BEGIN)
    goes_down(small_pages, after=3)
    first = sync.run()
    assert (first.status, first.seen) == ("incomplete", 58)
    assert first.cursor
    small_pages.faults.clear()
    small_pages.log.clear()
    second = sync.run()
    assert second.status == "finished"
    assert second.seen <= 200 - 58 + 1
    assert Conversation.objects.count() == 200


@pytest.mark.parametrize(
    ("days", "is_resumed"), [(0.9, True), (-0.9, True), (7, False), (-7, False)]
)
def test_run__a_walk_that_stood_still_for_long_is_begun_anew(
    days: float, is_resumed: bool, small_pages: BlandSandbox
) -> None:
    fill(small_pages, 100)
    SyncRun.objects.create(mode="full", status="finished", watermark=BEGIN)
    SyncRun.objects.create(
        mode="incremental",
        status="incomplete",
        watermark=BEGIN,
        cursor=[[text_of(BEGIN + timedelta(minutes=90)), None, None]],
        walk_began_at=runs.timezone.now() - timedelta(days=days),
    )
    assert sync.run().seen == (10 if is_resumed else 100)


def test_run__a_lease_far_ahead_is_a_wrong_clock(sandbox: BlandSandbox) -> None:
    """A machine three hours ahead died in the middle of a sync."""
    fill(sandbox, 3)
    assert runs.begin(SyncRun(mode="full"))
    SyncRun.objects.update(lease_until=runs.timezone.now() + timedelta(hours=3))
    assert sync.run().status == "finished"
    assert SyncRun.objects.filter(status="incomplete", error_code="process_ended").count() == 1


def test_last_copied_at__a_time_ahead_of_now_says_nothing() -> None:
    now = runs.timezone.now()
    earlier = now - timedelta(hours=1)
    for moment in (earlier, now + timedelta(hours=3)):
        SyncRun.objects.create(mode="full", status="finished", walk_began_at=moment)
    assert sync.last_copied_at() == earlier


def test_run__nothing_is_marked_after_a_broken_walk(small_pages: BlandSandbox) -> None:
    fill(small_pages, 100)
    sync.run()
    del small_pages.account.rows["c00050"]
    for call in range(small_pages._calls + 3, small_pages._calls + 60):
        small_pages.faults.add(f"#{call}", "500")
    assert sync.run(full=True).status == "incomplete"
    assert not Conversation.objects.filter(missing_since__isnull=False).exists()


def test_run__in_a_given_time(small_pages: BlandSandbox) -> None:
    fill(small_pages, 400)
    SyncRun.objects.create(mode="full", status="finished", watermark=BEGIN)
    small_pages.faults.add("#8", "hang_before:60")
    first = sync.run(seconds=3)
    assert first.status == "incomplete"
    assert "goes on from here" in first.error
    assert sync.run().status == "finished"
    assert Conversation.objects.count() == 400


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("full", [True, False], ids=["full", "incremental"])
def test_run__resumes_after_sigkill(
    full: bool, sandbox: BlandSandbox, process: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(sandbox, 3000)
    sandbox.latency_seconds = 0.3 if full else 0.1
    options = ["--full"] if full else []
    if not full:
        SyncRun.objects.create(mode="full", status="finished", watermark=BEGIN)
    child = process(sys.executable, "manage.py", "bland_sms_sync", *options)
    wait_until(lambda: Conversation.objects.count() >= 500)
    child.kill()
    child.wait()
    SyncRun.objects.filter(lease_key__isnull=False).update(lease_until=runs.timezone.now())
    before = Conversation.objects.count()
    assert before < 3000
    sandbox.latency_seconds = 0

    run = sync.run(full=full)

    assert run.status == "finished"
    assert Conversation.objects.count() == 3000
    # Nothing that was written is fetched again, but for the last row of each range.
    assert run.seen <= 3000 - before + 2 * driver.SIDE_BY_SIDE


def test_command__ends_well_on_sigterm(sandbox: BlandSandbox, process: Start) -> None:
    # Only what the process itself does is looked at: it has no part in this test's transaction.
    child = process(sys.executable, "-c", TERMINATED)
    assert child.wait(90) == 0


TERMINATED = """
import os, signal
from bland_sms.management.interrupt import stop_signals
with stop_signals() as stopped:
    os.kill(os.getpid(), signal.SIGTERM)
    assert stopped.wait(60)
"""


# --- trust ------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [0, 1, 2, 250])
def test_run__finds_the_dialect_out_and_remembers_it(rows: int, sandbox: BlandSandbox) -> None:
    sandbox.account.dialect = "b"
    fill(sandbox, rows)
    assert sync.run().status == "finished"
    assert Conversation.objects.count() == rows
    if rows < 2:
        return
    sandbox.log.clear()
    assert sync.run(full=True).status == "finished"
    assert all("sort_by=" in seen["path"] for seen in listed(sandbox))


@pytest.mark.parametrize(("clamp", "tied", "others"), [(25, 25, 60), (30, 30, 200), (1, 1, 5)])
def test_run__wrong_dialect_that_looked_right_is_started_over(
    clamp: int, tied: int, others: int, sandbox: BlandSandbox
) -> None:
    """The newest rows share one time and fill a page, so no order shows."""
    sandbox.account.dialect = "b"
    sandbox.account.longest_page = clamp
    fill(sandbox, others)
    for index in range(tied):
        moment = text_of(BEGIN + timedelta(days=9))
        sandbox.account.add({"id": f"tie{index}", "created_at": moment, "updated_at": moment})
    assert sync.run().status == "finished"
    assert Conversation.objects.count() == tied + others


def test_run__back_to_the_other_dialect(sandbox: BlandSandbox) -> None:
    fill(sandbox, 250)
    SyncRun.objects.create(mode="full", status="finished", dialect="b")
    assert sync.run().status == "finished"
    assert Conversation.objects.count() == 250


def test_run__other_dialect_after_a_refusal(sandbox: BlandSandbox) -> None:
    sandbox.account.dialect = "b"
    fill(sandbox, 5)
    sandbox.faults.add("list", "400")
    assert sync.run().status == "finished"


@pytest.mark.parametrize("dialect", ["a", "b"])
def test_run__a_dialect_that_was_set_is_kept(
    dialect: str, sandbox: BlandSandbox, set_bland: Callable[..., None]
) -> None:
    sandbox.account.dialect = "a" if dialect == "b" else "b"
    fill(sandbox, 150)
    set_bland(LIST_DIALECT=dialect)
    run = sync.run()
    assert run.status == "failed"
    assert "ignored" in run.error
    assert not Conversation.objects.exists()


@DIALECTS
def test_run__ignored_filter_changes_no_row(
    dialect: str, sandbox: BlandSandbox, django_assert_num_queries: Any
) -> None:
    sandbox.account.dialect = dialect
    fill(sandbox, 150)
    sync.run()
    for row in sandbox.account.rows.values():
        row["is_active"] = False  # without a trace in updated_at, so only our own rule protects
    before = list(Conversation.objects.order_by("pk").values())
    sandbox.account.ignores_filters = True
    run = sync.run()
    assert run.status == "failed"
    assert "ignored" in run.error
    assert list(Conversation.objects.order_by("pk").values()) == before
    assert not run.cursor


def test_run__rows_without_a_usable_time(sandbox: BlandSandbox) -> None:
    fill(sandbox, 5)
    SyncRun.objects.create(mode="full", status="finished", watermark=BEGIN)
    for row in sandbox.account.rows.values():
        row["updated_at"] = "9999-12-31T23:59:59.000Z"
    run = sync.run()
    assert run.status == "incomplete"
    assert "usable time" in run.error
    assert not run.cursor


def test_run__a_row_without_a_time_is_looked_at(sandbox: BlandSandbox) -> None:
    fill(sandbox, 5)
    sandbox.account.rows["c00003"]["updated_at"] = None
    assert sync.run().status == "finished"
    assert len(sandbox.requests("GET", "c00003")) == 1


# --- what is not listed any more --------------------------------------------------------------


def test_run__what_is_gone_is_asked_for_and_marked(sandbox: BlandSandbox) -> None:
    fill(sandbox, 40)
    sync.run()
    del sandbox.account.rows["c00005"]
    sandbox.log.clear()
    assert sync.run(full=True).status == "finished"
    marked = Conversation.objects.filter(missing_since__isnull=False)
    assert [row.pk for row in marked] == ["c00005"]
    assert len(sandbox.requests("GET", "c00005")) == 1
    assert Conversation.objects.count() == 40


def test_run__what_is_only_not_listed_is_not_marked(
    sandbox: BlandSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(sandbox, 40)
    sync.run()
    page_a = sandbox.account._page_a
    monkeypatch.setattr(
        sandbox.account,
        "_page_a",
        lambda rows, query: page_a([row for row in rows if row["id"] != "c00005"], query),
    )
    assert sync.run(full=True).status == "finished"
    assert len(sandbox.requests("GET", "c00005")) == 1
    assert not Conversation.objects.filter(missing_since__isnull=False).exists()


def test_run__too_many_gone_are_not_believed(sandbox: BlandSandbox) -> None:
    fill(sandbox, 100)
    sync.run()
    for index in range(10, 20):
        del sandbox.account.rows[f"c{index:05d}"]
    run = sync.run(full=True)
    assert run.status == "incomplete"
    assert "another account" in run.error
    assert not Conversation.objects.filter(missing_since__isnull=False).exists()


def test_run__another_accounts_key_costs_few_looks(sandbox: BlandSandbox) -> None:
    fill(sandbox, 300)
    sync.run()
    sandbox.account.rows.clear()
    sandbox.log.clear()
    assert sync.run(full=True).status == "failed"
    assert len(sandbox.requests("GET")) <= 2 + 20
    assert not Conversation.objects.filter(missing_since__isnull=False).exists()


class Asked:
    """Stands for ``refresh_many``: Bland finds all conversations but these."""

    def __init__(self, *, gone: set[str], **values: Any) -> None:
        self.gone = gone
        self.values = values
        self.portions: list[int] = []

    def __call__(self, ids: list[str], *, mark: bool, **values: Any) -> Refreshed:
        assert not mark, "not before it is known how many there are"
        assert values.keys() == {"allowance", "on_turn"}
        self.portions.append(len(ids))
        gone = {pk: BlandNotFoundError(404) for pk in ids if pk in self.gone}
        for error in gone.values():
            error.observed_at = runs.timezone.now()
        copied = {pk: Effect.UNCHANGED for pk in ids if pk not in gone}
        return Refreshed(missing=gone, copied=copied, **self.values)


def unlisted(rows: int, number: int) -> list[str]:
    """So many of the mirror's rows were not listed."""
    names = [f"{index:05d}" for index in range(100, 100 + rows)]
    Conversation.objects.bulk_create(Conversation(pk=pk, is_active=True) for pk in names)
    looks = [OwedLook(conversation=pk, reason="not_listed") for pk in names[:number][::-1]]
    OwedLook.objects.bulk_create(looks)
    return names[:number]


def owed_looks() -> dict[str, int]:
    reasons = OwedLook.objects.values_list("reason")
    return dict(reasons.annotate(number=Count("pk")).order_by("reason"))


@pytest.mark.parametrize(
    ("rows", "number", "gone", "portions", "is_believed"),
    [
        (400, 20, range(20), [20], True),
        (400, 21, range(21), [20], False),  # one of so many would be found
        (400, 21, range(1, 21), [20, 1], True),
        (400, 140, range(0, 140, 7), [20, 100, 20], True),
        (400, 140, range(1, 22), [20, 100], False),
        (19, 1, range(1), [1], True),  # one always may be
        (39, 2, range(2), [2], False),
        (40, 2, range(2), [2], True),
        (40, 0, range(0), [], True),
    ],
)
def test_confirm_missing__not_more_than_a_few(
    rows: int,
    number: int,
    gone: range,
    portions: list[int],
    is_believed: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = unlisted(rows, number)
    OwedLook.objects.create(conversation=names[0] if names else "other", reason="detail_failed")
    bland = Asked(gone={names[place] for place in gone})
    monkeypatch.setattr(missing, "refresh_many", bland)

    failure = missing.confirm_missing(Allowance(), lambda refreshed: None)

    marked = set(Conversation.objects.exclude(missing_since=None).values_list("pk", flat=True))
    assert bland.portions == portions
    assert (failure, marked) == (
        (Failure(), bland.gone) if is_believed else (Failure("too_few_found"), set())
    )
    kept = {} if is_believed else {"not_listed": number}
    assert owed_looks() == {"detail_failed": 1, **kept}


OUTAGE = BlandConnectionError("refused")


@pytest.mark.parametrize(
    ("values", "is_over", "because"),
    [
        ({"failed": {"00101": OUTAGE}}, False, None),
        ({"outage": OUTAGE}, False, OUTAGE.failure),
        (
            {"failed": {"00101": OUTAGE, "00102": BlandAuthenticationError(401, "AUTH")}},
            False,
            BlandAuthenticationError(401, "AUTH").failure,
        ),
        ({"failed": {"00101": OUTAGE}}, True, OUTAGE.failure),
        ({}, True, Failure("not_finished")),
    ],
    ids=["one failed", "outage", "refused key", "one failed at the end", "time is up"],
)
def test_confirm_missing__what_was_not_looked_at_stays_noted(
    values: dict[str, Any], is_over: bool, because: Failure | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    unlisted(400, 3)
    monkeypatch.setattr(missing, "refresh_many", Asked(gone={"00100"}, **values))
    allowance = Allowance()
    if is_over:
        allowance.stopped.set()

    failure = missing.confirm_missing(allowance, lambda refreshed: None)

    marked = list(Conversation.objects.exclude(missing_since=None).values_list("pk", flat=True))
    if because is None:
        assert (failure, marked) == (Failure(), ["00100"])
        look = OwedLook.objects.get()
        told = (look.conversation, look.reason, look.error_code)
        assert told == ("00101", "detail_failed", OUTAGE.code)
    else:
        assert (failure, marked) == (Failure("not_looked_at", {"because": because.as_json()}), [])
        assert owed_looks() == {"not_listed": 3}


# --- transcripts, trying out, costs -----------------------------------------------------------


def test_run__messages(sandbox: BlandSandbox) -> None:
    fill(sandbox, 30)
    said = {"id": 1, "sender": "USER", "message": "Hi", "created_at": text_of(BEGIN)}
    sandbox.account.rows["c00002"]["messages"] = [said]
    sync.run()
    assert not Conversation.objects.get(pk="c00002").messages.exists()
    sync.run(full=True, messages=True)
    assert Conversation.objects.get(pk="c00002").messages.get().text == "Hi"
    assert not Conversation.objects.filter(transcript_observed_at__isnull=True).exists()
    sandbox.account.set_active("c00004", False)
    sandbox.log.clear()
    sync.run(messages=True)
    assert {seen["conversation_id"] for seen in sandbox.requests("GET")} == {"", "c00004"}


def test_run__dry_run_writes_nothing(sandbox: BlandSandbox) -> None:
    fill(sandbox, 30)
    run = sync.run(dry_run=True)
    assert (run.pk, run.created) == (None, 30)
    assert not Conversation.objects.exists()
    assert not SyncRun.objects.exists()


def test_run__statements_for_each_page(sandbox: BlandSandbox, set_bland: Any) -> None:
    fill(sandbox, 200)
    costs = {}
    for size in (20, 200):
        set_bland(PAGE_SIZE=size)
        Conversation.objects.all().delete()
        pages = []
        with CaptureQueriesContext(
            connection,
        ) as queries:
            sync.run(since=BEGIN, on_page=pages.append)
        costs[size] = len(queries) / len(pages)
    assert abs(costs[20] - costs[200]) < 6


def test_run__an_older_page_never_flips_a_row_back(
    sandbox: BlandSandbox, started: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page is asked for before the update and written after it."""
    fill(sandbox, 3)
    sync.run()
    apply_page = writing.apply_page

    def update_first(payloads: Any) -> Any:
        monkeypatch.setattr(writing, "apply_page", apply_page)
        later = text_of(datetime.now(timezone.utc))
        sandbox.account.rows["c00001"]["updated_at"] = later
        held.extend(payloads)
        return apply_page([])

    held: list[Any] = []
    monkeypatch.setattr(writing, "apply_page", update_first)
    sync.run(full=True)
    run_update(started(["c00001"]))
    assert Conversation.objects.get(pk="c00001").is_active is False
    assert any(payload.id == "c00001" and payload.is_active for payload in held)
    apply_page(held)
    assert Conversation.objects.get(pk="c00001").is_active is False


def test_command__exit_codes(sandbox: BlandSandbox) -> None:
    done = subprocess.run(
        [sys.executable, "manage.py", "bland_sms_sync", "--full", "--since", "2026-01-01"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "contradict" in done.stderr

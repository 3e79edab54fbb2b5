"""Standing orders when something goes wrong: Bland is down, workers die, everybody writes."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import AbstractUser
from django.core.management import call_command
from django.db.models import F
from django.utils import timezone

from bland_sms import standing
from bland_sms.models import BulkUpdate, BulkUpdateItem, OrderApplication, StandingOrder
from bland_sms.sandbox import BlandSandbox, FakeBland
from bland_sms.sync import refresh, refresh_many

from .conftest import ROOT, wait_until

CUSTOMER = "+15550107001"


def order_for(customer: str = CUSTOMER, **values: Any) -> StandingOrder:
    return standing.make(customer, "asked by phone", **values)


def patched(bland: Any) -> list[str]:
    return [seen["conversation_id"] for seen in bland.requests("PATCH")]


def time_passes(**values: float) -> None:
    """Whatever is to be tried again later is due, and what was applied is so much longer ago."""
    earlier = timedelta(**values)
    BulkUpdate.objects.exclude(not_before=None).update(not_before=timezone.now())
    BulkUpdateItem.objects.exclude(not_before=None).update(not_before=timezone.now())
    BulkUpdateItem.objects.exclude(finished_at=None).update(finished_at=F("finished_at") - earlier)
    for application in OrderApplication.objects.all():
        application.applied_at -= earlier
        application.save()


@pytest.mark.django_db
@pytest.mark.usefixtures("no_waiting")
def test_bland_is_down__carried_out_when_it_is_back(fake_bland: FakeBland) -> None:
    order_for()
    new = fake_bland.customer_texts(CUSTOMER, "hi")
    refresh(new)
    fake_bland.faults.add("PATCH *", "forever:503")
    for _ in range(3):
        standing.carry_out_waiting()
        time_passes(minutes=20)
        standing.catch_up()
    assert fake_bland.is_active(new)
    assert BulkUpdate.objects.count() == 1, "one update, however long it takes"
    fake_bland.faults.clear()
    asked = len(patched(fake_bland))

    time_passes(minutes=20)
    call_command("bland_sms_work", "--once")

    assert not fake_bland.is_active(new)
    assert len(patched(fake_bland)) == asked + 1


@pytest.mark.django_db
@pytest.mark.usefixtures("no_waiting")
@pytest.mark.parametrize("end", ["lifted", "expired"])
def test_bland_is_down__order_is_over_when_it_is_back(fake_bland: FakeBland, end: str) -> None:
    order = order_for()
    new = fake_bland.customer_texts(CUSTOMER, "hi")
    refresh(new)
    fake_bland.faults.add("PATCH *", "forever:503")
    standing.carry_out_waiting()
    fake_bland.faults.clear()
    asked = len(patched(fake_bland))
    if end == "lifted":
        standing.lift(order)
    else:
        StandingOrder.objects.update(until=timezone.now())

    time_passes(minutes=20)
    call_command("bland_sms_work", "--once")

    assert len(patched(fake_bland)) == asked
    assert fake_bland.is_active(new)


@pytest.mark.django_db(transaction=True)
def test_worker_killed__the_next_one_goes_on(sandbox: BlandSandbox) -> None:
    from django.db import connection

    numbers = [f"+1555010{number}" for number in range(8000, 8012)]
    standing.make_many([standing.Wish(number) for number in numbers], "by letter")
    ids = [sandbox.customer_texts(number, "hi") for number in numbers]
    refresh_many(ids)
    [update] = BulkUpdate.objects.filter(status="queued")
    sandbox.log.clear()
    child = subprocess.Popen(
        [
            *[sys.executable, "-m", "tests.child", str(connection.settings_dict["NAME"])],
            *[sandbox.base_url, str(update.pk), "answered"],
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    with child:
        assert child.stdout is not None
        assert [child.stdout.readline(), child.stdout.readline()] == ["started\n", "here\n"]
        child.kill()
    BulkUpdate.objects.update(lease_until=timezone.now())

    call_command("bland_sms_work", "--once")

    assert not any(sandbox.is_active(pk) for pk in ids)
    assert set(patched(sandbox)) <= set(ids)
    update.refresh_from_db()
    assert update.status == "finished"


@pytest.mark.django_db(transaction=True)
def test_lifted_while_its_update_runs(
    sandbox: BlandSandbox, set_bland: Callable[..., None]
) -> None:
    """What is in flight is awaited, and of the rest nothing is asked."""
    numbers = [f"+1555010{number}" for number in range(8000, 8040)]
    standing.make_many([standing.Wish(number) for number in numbers], "by letter")
    ids = {sandbox.customer_texts(number, "hi") for number in numbers}
    refresh_many(sorted(ids))
    sandbox.log.clear()
    set_bland(RATE_LIMIT=8)
    lifting = threading.Thread(target=_lift_soon, args=(sandbox,))
    lifting.start()
    standing.carry_out_waiting()
    lifting.join()

    asked = patched(sandbox)
    assert 0 < len(asked) < len(ids), "lifted in the middle"
    assert {pk for pk in ids if not sandbox.is_active(pk)} == set(asked)
    states = dict(
        BulkUpdateItem.objects.filter(conversation_id__in=ids).values_list("conversation", "state")
    )
    assert {pk for pk, state in states.items() if state == "changed"} == set(asked)
    assert set(states.values()) == {"changed", "cancelled"}


def _lift_soon(sandbox: BlandSandbox) -> None:
    from django.db import connections

    wait_until(lambda: sandbox.requests("PATCH"))
    try:
        standing.lift_many(list(StandingOrder.objects.all()))
    finally:
        connections.close_all()


@pytest.mark.django_db
def test_author_deactivated__in_the_middle_of_an_update(
    fake_bland: FakeBland, django_user_model: Any, staff: AbstractUser
) -> None:
    kim = django_user_model.objects.create_superuser("kim", "kim@example.com", "x")
    order_for(requested_by=kim, source="admin")
    theirs = standing.make("+15550107002", "by letter", requested_by=staff, source="admin")
    ids = [fake_bland.customer_texts(number, "hi") for number in (CUSTOMER, "+15550107002")]
    for one in ids:
        refresh(one)
    django_user_model.objects.filter(pk=kim.pk).update(is_active=False)

    standing.carry_out_waiting()

    assert patched(fake_bland) == [ids[1]], "the other author's is carried out"
    assert theirs.applications.count() == 1


@pytest.mark.django_db
@pytest.mark.parametrize("apart", [-600, -40, 40, 600])
def test_clocks_apart(fake_bland: FakeBland, monkeypatch: pytest.MonkeyPatch, apart: int) -> None:
    """Bland's clock is ahead of ours or behind: new is deactivated, older is not."""
    from email.utils import formatdate

    from bland_sms.sandbox import account, in_process

    shift = timedelta(seconds=apart)

    def now_text() -> str:
        now = timezone.now() + shift
        return now.strftime("%Y-%m-%dT%H:%M:%S.") + f"{now.microsecond // 1000:03d}Z"

    def date(timeval: float | None = None, usegmt: bool = True) -> str:
        return formatdate((timezone.now() + shift).timestamp(), usegmt=usegmt)

    monkeypatch.setattr(account, "now_text", now_text)
    monkeypatch.setattr(in_process, "formatdate", date)
    old = fake_bland.add(user_number=CUSTOMER)
    row = fake_bland.account.rows[old]
    before = timezone.now() + shift - timedelta(seconds=5)
    row["created_at"] = row["updated_at"] = before.strftime("%Y-%m-%dT%H:%M:%S.000Z")
    refresh(old)  # shows how Bland's clock differs
    order_for()
    refresh(old)
    other = fake_bland.add(user_number=CUSTOMER, is_active=False)
    refresh(other)
    moment = timezone.now() + shift + timedelta(seconds=2)
    new = fake_bland.customer_texts(CUSTOMER, "hi")
    text = moment.strftime("%Y-%m-%dT%H:%M:%S.000Z")
    fake_bland.account.rows[new] |= {"updated_at": text, "last_message_at": text}

    refresh(new)
    standing.carry_out_waiting()

    assert patched(fake_bland) == [new]


@pytest.mark.django_db
@pytest.mark.slow
@pytest.mark.parametrize("limit", [1000, 200])
def test_500_customers_write_within_a_minute(
    fake_bland: FakeBland, settings: Any, limit: int
) -> None:
    settings.BLAND_SMS = {**settings.BLAND_SMS, "STANDING_ORDERS_PER_HOUR": limit}
    numbers = [f"+1555010{number}" for number in range(2000, 2500)]
    standing.make_many([standing.Wish(number) for number in numbers], "by letter")
    others = [f"+1555010{number}" for number in range(3000, 3050)]
    ids = [fake_bland.customer_texts(number, "hi") for number in numbers]
    for number in others:
        fake_bland.customer_texts(number, "hi")

    call_command("bland_sms_sync", verbosity=0)
    call_command("bland_sms_work", "--once")

    asked = patched(fake_bland)
    assert len(asked) == len(set(asked)) == min(limit, 500)
    assert set(asked) <= set(ids)
    assert BulkUpdate.objects.count() < 30, "many of one pass are one update"
    codes = set(StandingOrder.objects.values_list("suspended_code", flat=True))
    assert codes == ({""} if limit > 500 else {"orders_too_often"})


@pytest.mark.django_db
def test_own_campaign_reopens_each_minute__suspended_after_three(fake_bland: FakeBland) -> None:
    order = order_for()
    for _minute in range(12):
        refresh(fake_bland.customer_texts(CUSTOMER, "Our offer of today"))
        standing.carry_out_waiting()
        time_passes(minutes=1)

    order.refresh_from_db()
    assert order.suspended_code == "order_too_often"
    assert len(patched(fake_bland)) == 3

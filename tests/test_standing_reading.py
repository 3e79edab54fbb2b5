"""What a list or a table of customers says."""

from __future__ import annotations

import io
from datetime import datetime, timedelta
from datetime import timezone as zones
from typing import Any

import pytest
from django.utils import timezone

from bland_sms import standing
from bland_sms.pasting import ListError
from bland_sms.reasons import Failure
from bland_sms.standing import reading

CUSTOMER = "+15550107001"


def local(text: str) -> datetime:
    return timezone.make_aware(datetime.fromisoformat(text))


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2030-01-31", local("2030-02-01")),  # the whole day
        ("2030-01-31T10:00", local("2030-01-31T10:00")),
        ("2030-01-31 10:00:30", local("2030-01-31T10:00:30")),
        ("2030-01-31T10:00:00Z", datetime(2030, 1, 31, 10, tzinfo=zones.utc)),
        ("2030-01-31T10:00:00+02:00", datetime(2030, 1, 31, 8, tzinfo=zones.utc)),
        ("soon", None),
        ("", None),
        ("30", None),
        ("d", None),
        ("12345d", None),
        ("2030-02-31", None),
        ("2030-01-31 25:00", None),
    ],
)
def test_read_until(text: str, moment: datetime | None) -> None:
    told: datetime | None
    try:
        told = standing.read_until(text)
    except ValueError:
        told = None
    assert told == moment


@pytest.mark.parametrize("days", [1, 30, 9999])
def test_read_until__number_of_days(days: int, monkeypatch: pytest.MonkeyPatch) -> None:
    now = timezone.now()
    monkeypatch.setattr(timezone, "now", lambda: now)
    assert standing.read_until(f"{days}d") == now + timedelta(days=days)


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("customer", True),
        ("\n\n  Customer;reason\n+15550107001;x", True),
        ('\ufeff"customer","until"\r\n', True),
        ("reason\tCUSTOMER\t", True),
        ("reason| customer |until", True),
        ("customers\n+15550107001", False),
        ("+15550107001\ncustomer", False),
        ("", False),
    ],
)
def test_is_table(text: str, is_one: bool) -> None:
    assert standing.is_table(text) is is_one


def wish(**told: Any) -> standing.Wish:
    return standing.Wish(CUSTOMER, 2, **told)


@pytest.mark.parametrize(
    ("names", "cells", "told"),
    [
        ("", "", {}),
        (",reason", ",by phone", {"reason": "by phone"}),
        (",reason", ",", {"reason": ""}),
        (",reason", ",'=x", {"reason": "=x"}),
        (",reason", ",'x", {"reason": "'x"}),
        (",reason", "", {}),  # a short line
        ("", ",more", {}),
        (",agent_number", ", +15550190001 ", {"agent_number": "+15550190001"}),
        (",agent_number", ",", {"agent_number": ""}),  # with all of our numbers
        (",until", ",2030-01-31", {"until": local("2030-02-01"), "says_until": True}),
        (",Until ", ",", {"says_until": True}),  # for good
        (",until", ",soon", {"says_until": True, "failure": "until_unreadable"}),
        (",until", ",9999-12-31", {"says_until": True, "failure": "until_unreadable"}),
        (",spare_handed_off", ",", {}),
        *((",spare_handed_off", f",{no}", {"spare_handed_off": False}) for no in ("No", "0")),
        (",spare_handed_off", ",FALSE", {"spare_handed_off": False}),
        (",spare_handed_off", ",True", {"spare_handed_off": True}),
        (",state", ",in_force", {}),
        (",state", ",Lifted", None),
        (",state", ",expired", None),
    ],
)
@pytest.mark.parametrize("is_file", [True, False])
def test_read_customers__columns_of_a_table(
    names: str, cells: str, told: dict[str, Any] | None, is_file: bool
) -> None:
    text = f"customer{names}\n{CUSTOMER}{cells}\n , ,\n'+15550107002,\n"
    source = io.BytesIO(text.encode()) if is_file else f"\n{text}"

    found = standing.read_customers(source)

    expected = {**(told or {})}
    code = expected.pop("failure", "")
    *first, last = found
    assert (last.customer, last.number) == ("+15550107002", 4)
    assert [one.failure.code for one in first] == [code] * (told is not None)
    if told is not None and not code:
        assert first == [wish(**expected)]


@pytest.mark.parametrize(
    "text", ["\n+15550107001\nnobody knows\n", "name,number\nAda,+15550107001\n"]
)
@pytest.mark.parametrize("is_file", [True, False])
def test_read_customers__plain_list(text: str, is_file: bool) -> None:
    found = standing.read_customers(io.BytesIO(text.encode()) if is_file else text)

    assert CUSTOMER in [one.customer for one in found]
    assert {(one.reason, one.until, one.agent_number) for one in found} == {(None, None, None)}
    assert all(one.number for one in found)


def test_read_customers__why_a_line_makes_no_order() -> None:
    found = standing.read_customers(io.BytesIO(f"Everybody\n{CUSTOMER}\n".encode()))
    assert [one.failure.code for one in found] == ["line_heading", ""]


def test_read_customers__several_on_a_pasted_line() -> None:
    """In a file they are the columns of one row."""
    text = f"{CUSTOMER}, +15550107002"
    assert [one.customer for one in standing.read_customers(text)] == [CUSTOMER, "+15550107002"]
    [row] = standing.read_customers(io.BytesIO(text.encode()))
    assert row.customer == CUSTOMER


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("customer\n", "list_empty"),
        ("customer\n+15550107001\n", ""),
        ("customer\n+15550107001\n+15550107002\n", ""),
        ("customer\n" + "+15550107001\n" * 3, "list_too_long"),
    ],
)
@pytest.mark.parametrize("is_file", [True, False])
def test_read_customers__how_many_lines(
    text: str, code: str, is_file: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "MAX_LINES", 2)
    told = Failure()
    try:
        standing.read_customers(io.BytesIO(text.encode()) if is_file else text)
    except ListError as error:
        told = error.failure
    assert told == Failure(code, {"number": 2} if code == "list_too_long" else {})


def test_wish__does_not_show_who_it_is() -> None:
    assert CUSTOMER not in repr(wish(reason="x"))

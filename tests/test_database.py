"""What a database says: it is away for a while, it refuses a row, or it is no fault of a row."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from django.db import (
    DatabaseError,
    DataError,
    Error,
    IntegrityError,
    InterfaceError,
    InternalError,
    OperationalError,
    ProgrammingError,
    connection,
)

from bland_sms.database import (
    Among,
    is_lock_timeout,
    is_passing,
    is_refusal,
    patiently,
    using,
    write_bisecting,
)
from bland_sms.models import Conversation, Message


def told(kind: type[Error], sqlstate: str) -> Error:
    """As Django raises what psycopg reports."""
    error, cause = kind(), Exception()
    cause.sqlstate = sqlstate  # type: ignore[attr-defined]
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "passes", "refuses"),
    [
        (OperationalError("database is locked"), True, False),
        (OperationalError(1205, "Lock wait timeout exceeded"), True, False),
        (OperationalError(1290, "running with the --read-only option"), True, False),
        (OperationalError(2006, "Server has gone away"), True, False),
        (InterfaceError("connection already closed"), True, False),
        (told(InternalError, "25006"), True, False),  # read-only
        (told(InternalError, "25P03"), True, False),  # idle in a transaction
        (told(DatabaseError, "40P01"), True, False),  # a deadlock
        # An exception came in the middle of COMMIT, or the tables are another version's.
        (ProgrammingError("can't change 'autocommit' now"), False, False),
        (told(ProgrammingError, "42703"), False, False),
        (DataError("value too long"), False, True),
        (IntegrityError("UNIQUE constraint failed"), False, True),
        (OperationalError(1366, "Incorrect string value"), False, True),
        (told(InternalError, "XX001"), False, True),
    ],
)
def test_error__passes_or_refuses(error: Error, passes: bool, refuses: bool) -> None:
    assert (is_passing(error), is_refusal(error)) == (passes, refuses)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (told(OperationalError, "55P03"), True),
        (OperationalError(1205, "Lock wait timeout exceeded"), True),
        (OperationalError(1213, "Deadlock found"), False),
        (told(OperationalError, "40P01"), False),
        (OperationalError("database is locked"), False),
        (IntegrityError(1205), False),
    ],
)
def test_is_lock_timeout(error: Error, expected: bool) -> None:
    assert is_lock_timeout(error) is expected


class Table:
    """Refuses some rows."""

    def __init__(self, error: Exception, *refused: int) -> None:
        self.error, self.refused = error, refused
        self.stored: list[int] = []
        self.told: list[int] = []

    def write(self, rows: Sequence[int]) -> None:
        if set(rows) & set(self.refused):
            raise self.error
        self.stored += rows

    def refuse(self, row: int, error: DatabaseError) -> None:
        self.told.append(row)


@pytest.mark.parametrize("refused", [(), (0,), (6,), (2, 3), tuple(range(7))])
def test_write_bisecting__only_the_rows_at_fault_are_left_out(refused: tuple[int, ...]) -> None:
    table = Table(DataError(), *refused)
    write_bisecting(range(7), table.write, table.refuse)
    assert table.stored == [row for row in range(7) if row not in refused]
    assert table.told == list(refused)


@pytest.mark.parametrize(
    "error", [OperationalError("locked"), ProgrammingError("autocommit"), InterfaceError("closed")]
)
def test_write_bisecting__no_row_is_blamed_for_the_connection(error: Error) -> None:
    table = Table(error, 1)
    with pytest.raises(type(error)):
        write_bisecting(range(3), table.write, table.refuse)
    assert table.told == []


@pytest.mark.django_db(transaction=True)
def test_patiently__waits_for_what_passes_only() -> None:
    failures: list[Error] = [OperationalError("locked"), told(InternalError, "25006")]

    def write() -> str:
        if failures:
            raise failures.pop()
        return "written"

    assert patiently(write) == "written"
    failures.append(OperationalError("locked"))
    with pytest.raises(OperationalError):
        patiently(write, seconds=0)
    failures.extend([OperationalError("locked"), ProgrammingError("autocommit")])
    with pytest.raises(ProgrammingError):
        patiently(write)
    assert len(failures) == 1


@pytest.mark.django_db
def test_among__the_same_rows_as_in_and_one_parameter_on_postgresql() -> None:
    ids = [Conversation.objects.create(pk=pk).pk for pk in ("a-1", "b-2", "c-3")]
    rows = Conversation.objects.order_by("pk")
    for some in (ids[:2], ids[:1] * 2, ["unknown", ids[2]], ['it\'s {1}, "2"', *ids], []):
        expected = list(rows.filter(pk__in=some))
        assert list(rows.filter(Among("pk", some))) == expected
        assert list(rows.exclude(Among("pk", some))) == list(rows.exclude(pk__in=some))
        assert rows.filter(Among("pk", some)).update(missing_since=None) == len(expected)
    message = Message.objects.create(
        conversation_id=ids[0], bland_id="1", position=0, sender="USER"
    )
    assert Message.objects.get(Among("conversation_id", ids)) == message
    assert Message.objects.get(Among("pk", [message.pk])) == message
    _sql, params = rows.filter(Among("pk", ids)).query.get_compiler(using()).as_sql()
    assert len(params) == (1 if connection.vendor == "postgresql" else len(ids))

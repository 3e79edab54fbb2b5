"""Transactions that bound themselves, a database that is away for a while, and refused batches."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial, wraps
from operator import attrgetter
from typing import Any, ParamSpec, TypeVar

from django.apps import apps
from django.core.exceptions import EmptyResultSet
from django.db import (
    DatabaseError,
    Error,
    InterfaceError,
    OperationalError,
    ProgrammingError,
    connections,
    router,
    transaction,
)
from django.db.models import F, Model, QuerySet
from django.db.models.lookups import In

logger = logging.getLogger("bland_sms")

DATABASE_PATIENCE_SECONDS = 30.0
"""How long what Bland said is kept to be written again while the database is locked or away."""

DECISION_PATIENCE_SECONDS = 15.0
"""The same for what a person decides, who waits for the page."""

ROWS_PER_STATEMENT = 500
"""Values that one statement names at most: SQLite and the query planners have limits."""

ROWS_AT_ONCE = 1000
"""Rows that are in memory at once where a table is read from its beginning to its end."""

IDLE_SECONDS, LOCK_SECONDS = 20, 5
"""The database server ends a write transaction of ours that is idle for this long, and none of its
statements waits longer for a lock. Otherwise a process that is stopped while it holds a row lock
would block all others for good."""

Given = ParamSpec("Given")
Value = TypeVar("Value")


def using(model: type[Model] | None = None) -> str:
    """The alias of the database that ``model`` is written to, as the host's routers say.

    Args:
        model: ``None``: the conversations.
    """
    return router.db_for_write(model or apps.get_model("bland_sms", "Conversation"))


def batches(values: Sequence[Value], size: int = ROWS_PER_STATEMENT) -> Iterable[Sequence[Value]]:
    """The values in portions of at most ``size``."""
    for begin in range(0, len(values), size):
        yield values[begin : begin + size]


class Among(In):
    """``column IN (values)`` as a condition, which PostgreSQL is given as one array.

    Of many values as parameters of their own, Django and psycopg take longer to write the
    statement than the server to answer it.
    """

    def __init__(self, column: str, values: Iterable[Any]) -> None:
        """
        Args:
            column: A field, ``"pk"`` or a foreign key's ``"conversation_id"``.
            values: Of the column's own type, since nothing converts them.
        """
        super().__init__(F(column), list(values))

    def get_prep_lookup(self) -> Any:
        return self.rhs

    def as_postgresql(self, compiler: Any, connection: Any) -> tuple[str, list[Any]]:
        if not self.rhs:
            raise EmptyResultSet
        sql, params = self.process_lhs(compiler, connection)
        return f"{sql} = ANY(%s)", [*params, self.rhs]


def by_key(rows: QuerySet[Any], key: Callable[[Any], Any] = attrgetter("pk")) -> Iterator[Any]:
    """All rows in the order of their primary keys, read in portions; memory does not grow.

    ``iterator()`` keeps a cursor at the server, which PgBouncer in transaction mode loses between
    two statements, and on MySQL and MariaDB the driver holds the whole result.

    Args:
        key: The primary key of a row; ``itemgetter(0)`` for lists of values that begin with it.
    """
    rows = rows.order_by("pk")
    portion = list(rows[:ROWS_AT_ONCE])
    while portion:
        yield from portion
        if len(portion) < ROWS_AT_ONCE:
            return
        portion = list(rows.filter(pk__gt=key(portion[-1]))[:ROWS_AT_ONCE])


def existing(**rows: QuerySet[Any]) -> set[str]:
    """The names of those that are not empty: one statement, where all are in one database."""
    queries: dict[str, list[tuple[str, str, tuple[Any, ...]]]] = {}
    for name, some in rows.items():
        alias = using(some.model)
        with suppress(EmptyResultSet):
            compiler = some.order_by().values("pk").query.get_compiler(alias)
            sql, params = compiler.as_sql()
            queries.setdefault(alias, []).append((name, sql, tuple(params)))
    found: set[str] = set()
    for alias, asked in queries.items():
        with connections[alias].cursor() as cursor:
            cursor.execute(
                "SELECT " + ", ".join(f"EXISTS ({sql})" for _name, sql, _params in asked),
                [param for _name, _sql, params in asked for param in params],
            )
            answers = cursor.fetchone()
        found |= {
            name for (name, _sql, _params), is_there in zip(asked, answers, strict=True) if is_there
        }
    return found


# --- transactions -----------------------------------------------------------------------------


def in_transaction(alias: str | None = None) -> bool:
    """Whether a transaction is open; that of a test case does not count."""
    return not all(map(_is_test_cases, connections[alias or using()].atomic_blocks))


def _is_test_cases(block: Any) -> bool:
    return bool(block._from_testcase)


def refuse_in_transaction() -> None:
    """Raises RuntimeError: Bland is never asked while a transaction holds locks and snapshots."""
    if in_transaction():
        raise RuntimeError(
            "Bland cannot be asked inside a database transaction: call this after commit, "
            "for example in transaction.on_commit()"
        )


@contextmanager
def write_transaction(model: type[Model] | None = None) -> Iterator[None]:
    """``atomic()`` for what we write: the server ends it when this process is stopped inside it.

    Inside an open transaction it is a savepoint of that one, whose limits are the host's.
    """
    alias = using(model)
    connection = connections[alias]
    is_ours = not connection.in_atomic_block
    handled = sys.exc_info()[1]
    try:
        with _limits(connection, is_ours), transaction.atomic(using=alias):
            if is_ours and connection.vendor == "postgresql":
                _execute(
                    connection,
                    f"SET LOCAL idle_in_transaction_session_timeout = '{IDLE_SECONDS}s'; "
                    f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'",
                )
            yield
    except BaseException as error:
        if is_ours and _is_state_unknown(connection):
            discard_connection(alias)
            masked = masked_by(error, handled)
            if masked is not None:
                raise masked from None
        raise


def not_locked(rows: QuerySet[Any]) -> QuerySet[Any]:
    """The rows, locked until the transaction ends, without those that another process has locked:
    it may stand still for long. Where the database cannot tell, all of them."""
    alias = using(rows.model)
    if not connections[alias].features.has_select_for_update_skip_locked:
        return rows
    return rows.using(alias).select_for_update(skip_locked=True)


@contextmanager
def _limits(connection: Any, is_ours: bool) -> Iterator[None]:
    """The same limits on MySQL and MariaDB, which know them for the whole session only."""
    if not is_ours or connection.vendor != "mysql":
        yield
        return
    _execute(
        connection,
        "SET @bland_sms_lock = @@SESSION.innodb_lock_wait_timeout, "
        "@bland_sms_idle = @@SESSION.wait_timeout, "
        f"SESSION innodb_lock_wait_timeout = {LOCK_SECONDS}, SESSION wait_timeout = {IDLE_SECONDS}",
    )
    try:
        yield
    finally:
        if not _is_state_unknown(connection) and connection.connection is not None:
            try:
                _execute(
                    connection,
                    "SET SESSION innodb_lock_wait_timeout = @bland_sms_lock, "
                    "SESSION wait_timeout = @bland_sms_idle",
                )
            except Error:
                connection.close()  # it takes the limits along


def _execute(connection: Any, statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)


def _is_state_unknown(connection: Any) -> bool:
    """Whether a connection that should be outside any transaction may be inside one.

    An exception that a signal or another thread raises in the middle of COMMIT leaves it so.
    Entering ``atomic()`` on it would never commit anything again.
    """
    if connection.connection is None:
        return bool(connection.in_atomic_block)
    expected = connection.settings_dict["AUTOCOMMIT"]
    return bool(connection.in_atomic_block or connection.autocommit is not expected)


def masked_by(error: BaseException, handled: BaseException | None) -> BaseException | None:
    """What was raised in the middle of a statement, where the driver's complaint hides it.

    Such as "can't change 'autocommit' now" or "commands out of sync".

    Args:
        handled: What was being handled before the transaction began.
    """
    masked: BaseException | None = error
    while masked is not None and masked is not handled:
        if not any(kind.__name__ == "Error" for kind in type(masked).__mro__):
            return None if masked is error else masked  # no database error: Django's or a driver's
        masked = masked.__context__
    return None


def discard_connection(alias: str | None = None) -> None:
    """Close this thread's connection whatever state it is in; the next statement opens a new one.

    For after an exception that may have come at any moment. Does nothing inside a test case's
    transaction, which ends with its connection.
    """
    connection = connections[alias or using()]
    if any(map(_is_test_cases, connection.atomic_blocks)):
        return
    connection.in_atomic_block = connection.closed_in_transaction = False
    connection.needs_rollback = False
    connection.savepoint_ids, connection.atomic_blocks = [], []
    connection.run_on_commit = []
    try:
        if connection.connection is not None:
            connection.connection.rollback()  # SQLite keeps a database in memory open
    except Exception:
        logger.debug("a connection could not be rolled back", exc_info=True)
    with suppress(Exception):
        connection.close()
    if connection.connection is not None:
        connection.autocommit = connection.settings_dict["AUTOCOMMIT"]


# --- after commit -----------------------------------------------------------------------------


class AfterCommit:
    """A call of ours among those that Django makes after commit."""

    def __init__(self, function: Callable[[], None]) -> None:
        self.function = function

    def __call__(self) -> None:
        self.function()


def after_commit(function: Callable[[], None], model: type[Model] | None = None) -> None:
    """Call ``function`` at once when no transaction is open, else when it was committed.

    A test case's own transaction is never committed and does not count.
    """
    alias = using(model)
    if in_transaction(alias):
        transaction.on_commit(AfterCommit(function), using=alias)
    else:
        function()


# --- a database that is away, or refuses ------------------------------------------------------

_PASSING_STATES = ("08", "57", "25006", "25P03", "40", "53", "55P03")
"""Beginnings of SQLSTATE: no connection, shutting down, read-only, ended as idle, deadlock, out of
resources, lock not available. psycopg reports some of them as InternalError."""
_REFUSED_BY_MYSQL = {1118, 1153, 1292, 1366, 3140, 4025}
"""Rows that MySQL refuses although mysqlclient's OperationalError stands for passing trouble."""


def is_passing(error: BaseException) -> bool:
    """Whether the database is locked, in a deadlock, read-only or away, and refuses no row."""
    if isinstance(error, OperationalError):
        return not (error.args and error.args[0] in _REFUSED_BY_MYSQL)
    if isinstance(error, InterfaceError):
        return True
    cause = error.__cause__
    state = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None) or ""
    return isinstance(error, DatabaseError) and state.startswith(_PASSING_STATES)


def is_lock_timeout(error: BaseException) -> bool:
    """Whether another process has held a lock for longer than ``LOCK_SECONDS``."""
    cause = error.__cause__
    state = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)
    return state == "55P03" or (isinstance(error, OperationalError) and error.args[:1] == (1205,))


def is_refusal(error: BaseException) -> bool:
    """Whether the database refuses what was written: it is there, and its tables are ours."""
    return not is_passing(error) and not isinstance(error, (InterfaceError, ProgrammingError))


def patiently(write: Callable[[], Value], *, seconds: float = DATABASE_PATIENCE_SECONDS) -> Value:
    """Do it again while the database is locked, in a deadlock, read-only, or away.

    Raises:
        DatabaseError, InterfaceError: so it still was in the end.
    """
    give_up_at = time.monotonic() + seconds
    pause = 0.05
    while True:
        try:
            return write()
        except Error as error:
            connection = connections[using()]
            is_over = connection.in_atomic_block or time.monotonic() + pause > give_up_at
            if is_over or not is_passing(error):
                raise
            logger.warning("the database is not available: %s", type(error).__name__)
            connection.close_if_unusable_or_obsolete()
            time.sleep(pause)
            pause = min(2.0, pause * 2)


def patient(decide: Callable[Given, Value]) -> Callable[Given, Value]:
    """Let a person's decision wait a while for the database, and then raise what it says.

    It may be called several times, so it must not use up what it is given.
    """

    @wraps(decide)
    def decide_patiently(*args: Given.args, **kwargs: Given.kwargs) -> Value:
        return patiently(partial(decide, *args, **kwargs), seconds=DECISION_PATIENCE_SECONDS)

    return decide_patiently


def write_bisecting(
    rows: Sequence[Value],
    write: Callable[[Sequence[Value]], None],
    refused: Callable[[Value, DatabaseError], None],
) -> None:
    """Write a batch; one that the database refuses is halved until the row at fault is alone.

    A database that is locked or away refuses nothing, nor does one whose tables are not as this
    version of the code expects them: those errors are raised.
    """
    if not rows:
        return
    try:
        write(rows)
    except (DatabaseError, ValueError, OverflowError) as error:
        if not is_refusal(error):
            raise
        if len(rows) == 1:
            logger.warning("the database refused a row: %s", type(error).__name__)
            refused(rows[0], DatabaseError(type(error).__name__))
            return
        middle = len(rows) // 2
        write_bisecting(rows[:middle], write, refused)
        write_bisecting(rows[middle:], write, refused)

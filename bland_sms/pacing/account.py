"""Where the processes of the account meet: one row, read and written about once a second."""

from __future__ import annotations

import _thread
import logging
import sys
import threading
import time
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from django.apps import apps
from django.db import connections
from django.db.models.functions import Now

from ..database import using
from .shares import State

if TYPE_CHECKING:
    from ..models import AccountPace

logger = logging.getLogger("bland_sms")

TICK_SECONDS, HURRY_SECONDS = 1.0, 0.25
"""How often a busy process looks at the row; and where it has not got its share yet, or was
refused."""
LEAVE_SECONDS = 1.0
"""How long whoever leaves waits for that to be written, at most."""
TRIES = 8
"""At one look, where others write the row at the same moment."""
CLOCK_SECONDS = 60.0
"""How long the database's clock is told from our own."""


def may_share() -> bool:
    """Whether the caller's database may be written by another connection.

    Not in tests: what a test case writes is never committed, and its database cannot be dropped
    while a connection to it is open. Not in memory: each connection would have a database of its
    own.
    """
    if not apps.ready or hasattr(sys.modules.get("django.core.mail"), "outbox"):
        return False
    connection: Any = connections[using(_model())]
    is_in_memory = connection.vendor == "sqlite" and connection.is_in_memory_db()
    return not (is_in_memory or any(block._from_testcase for block in connection.atomic_blocks))


def _model() -> type[AccountPace]:
    model: type[AccountPace] = apps.get_model("bland_sms", "AccountPace")
    return model


class Member(Protocol):
    """A process that takes part."""

    def wanted(self) -> float: ...
    def is_busy(self) -> bool: ...
    def propose(self, state: State, name: str, wanted: float, at: float) -> State: ...
    def settle(self, before: State, after: State, name: str) -> None: ...
    def is_in_hurry(self, state: State, name: str) -> bool: ...


class Stored(NamedTuple):
    """The row as it was read or written last."""

    version: int
    state: State
    clock: float
    """The database's clock minus ours."""
    read_at: float


class Account:
    """This process's part in the account: a thread with a connection of its own, while it is busy.

    So no transaction of a caller is disturbed, and no request waits for the database.
    """

    def __init__(self, member: Member) -> None:
        self._member = member
        self._name = uuid.uuid4().hex
        self._lock = threading.Lock()
        self._is_joined = False
        self._hurried, self._leaving, self._left = (threading.Event() for _ in range(3))
        self._stored: Stored | None = None

    def join(self) -> bool:
        """Take part from now on, as long as there is something to ask; False where it does."""
        if self._is_joined:
            return False
        with self._lock:
            if self._is_joined:
                return False
            self._is_joined = True
            self._leaving, self._left = threading.Event(), threading.Event()
        try:
            # Not ``threading.Thread``: see ``Crew`` for what an exception from outside does to it.
            _thread.start_new_thread(self._serve, ())
        except RuntimeError:  # the system gives no more of them
            self._is_joined = False
            return False
        return True

    def hurry(self) -> None:
        """Tell the others soon."""
        self._hurried.set()

    def leave(self) -> None:
        """Give our share back now, before the process may end."""
        with self._lock:
            is_joined, leaving, left = self._is_joined, self._leaving, self._left
        if is_joined:
            leaving.set()
            self._hurried.set()
            left.wait(LEAVE_SECONDS)

    def _serve(self) -> None:
        pause, failures, left = 0.0, 0, self._left
        try:
            while True:
                try:
                    pause = HURRY_SECONDS if self.look() else TICK_SECONDS
                    failures = 0
                except Exception as error:  # noqa: BLE001  any of a database's, or of a router
                    failures += 1
                    pause = min(30.0, TICK_SECONDS * 2**failures)
                    logger.info("no share of the rate: %s", type(error).__name__)
                    self._disconnect()
                self._rest(pause, may_hurry=not failures)
                if self._leaving.is_set() or not self._member.is_busy():
                    break
            if not failures:
                if self._leaving.is_set():  # in the middle of a spell: tell what was learned last
                    self._try(self.look)
                self._try(self.give_back)
        finally:
            self._disconnect()
            self._is_joined = False
            left.set()

    def _rest(self, seconds: float, *, may_hurry: bool) -> None:
        began = time.monotonic()
        self._hurried.clear()
        if may_hurry and not self._leaving.is_set() and self._hurried.wait(seconds):
            seconds = min(seconds, HURRY_SECONDS)
        self._leaving.wait(max(0.0, began + seconds - time.monotonic()))

    def _try(self, write: Callable[[], object]) -> None:
        try:
            write()
        except Exception as error:  # noqa: BLE001  the share ends by itself
            logger.info("the share was not given back: %s", type(error).__name__)

    def _disconnect(self) -> None:
        self._stored = None
        self._try(self._close)

    def _close(self) -> None:
        connections[using(_model())].close()

    # --- the row ------------------------------------------------------------------------------

    def look(self) -> bool:
        """Take our share anew; whether to look again soon."""
        wanted = self._member.wanted()
        before, after = self._write(
            lambda state, at: self._member.propose(state, self._name, wanted, at)
        )
        self._member.settle(before, after, self._name)
        return self._member.is_in_hurry(after, self._name)

    def give_back(self) -> None:
        """Have no share any more."""
        self._write(lambda state, _at: state.without(self._name))

    def _write(self, change: Callable[[State, float], State]) -> tuple[State, State]:
        """Change the row, again and again while others do the same. Returns it before and after.

        As long as nobody else has a share the row is what we wrote, and one statement will do.
        """
        for attempt in range(TRIES):
            stored, self._stored = self._stored or self._read(), None
            after = change(stored.state, time.monotonic() + stored.clock)
            if self._replace(stored, after):
                is_alone = set(after.shares) <= {self._name}
                is_fresh = time.monotonic() - stored.read_at < CLOCK_SECONDS
                if is_alone and is_fresh:
                    self._stored = stored._replace(version=stored.version + 1, state=after)
                return stored.state, after
            time.sleep(0.002 * attempt)
        raise TimeoutError

    def _read(self) -> Stored:
        rows = _model().objects.using(using(_model()))
        while True:
            row = rows.filter(pk=1).values_list("version", "state", Now()).first()
            if row is not None:
                now = time.monotonic()
                return Stored(row[0], State.from_json(row[1]), row[2].timestamp() - now, now)
            rows.bulk_create([_model()(pk=1)], ignore_conflicts=True)

    def _replace(self, stored: Stored, after: State) -> bool:
        rows = _model().objects.using(using(_model()))
        state = {"version": stored.version + 1, "state": after.to_json()}
        return bool(rows.filter(pk=1, version=stored.version).update(**state))

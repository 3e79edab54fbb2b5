"""Copies in a background thread of a web process, where there is no worker for it.

One process of a host does so at a time, and no answer waits for it: a sync web worker takes the
next request only after it is done with the last one, so even work after the answer would delay
the next.
"""

from __future__ import annotations

import hashlib
import logging
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from django.core import mail
from django.db import connections
from django.db.models import Min
from django.utils import timezone

from .. import standing, webhooks
from ..database import using
from ..models import WebhookDelivery

try:
    import fcntl
except ImportError:  # Windows, where web servers have one process
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger("bland_sms.webhooks")

PASS_SECONDS = 10.0
"""Time limit for one pass; a web process that shuts down waits for it no longer than this."""
AT_ONCE = 4
"""Conversations that are copied side by side: a web process has other things to do."""
SHORTEST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 2.0, 65.0
"""The thread stays for a delivery that is due so soon, and holds no connection meanwhile."""
LOOK_SECONDS = 0.5
"""How often the thread checks whether the process shuts down."""


def copy_soon() -> None:
    """Let what waits be copied soon, by a thread of this process or of another one of this host.

    Under Django's test runner it is copied at once: a thread would see nothing of a test case's
    transaction, and would outlive the test.
    """
    if hasattr(mail, "outbox"):
        webhooks.process_waiting(seconds=PASS_SECONDS, at_once=AT_ONCE)
        standing.carry_out_waiting(seconds=PASS_SECONDS)
    elif _has_threads():
        copier.wake()
    else:
        logger.warning("uWSGI runs without enable-threads: webhooks wait for bland_sms_work")


def _has_threads() -> bool:
    """False under uWSGI without ``enable-threads``: there a thread is suspended between requests,
    and with it the claims and the transaction that it holds."""
    uwsgi = sys.modules.get("uwsgi")
    if uwsgi is None:
        return True
    return any(uwsgi.opt.get(name) for name in ("enable-threads", "threads"))


class Copier:
    """The thread of this process that copies, while there is something to copy."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wanted = threading.Event()
        self._thread: threading.Thread | None = None

    def wake(self) -> None:
        """Something new waits."""
        with self._lock:
            self._wanted.set()
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="bland_sms_webhooks")
                self._thread.start()

    def _run(self) -> None:
        pause: float | None = 0.0
        while not self._is_done(pause):
            try:
                pause = _copy()
            except Exception as error:  # noqa: BLE001  the deliveries wait, whatever it is
                logger.warning("webhooks wait for the next one: %s", type(error).__name__)
                pause = None
            finally:
                with suppress(Exception):
                    connections.close_all()
            give_up_at = time.monotonic() + (pause or 0)
            while time.monotonic() < give_up_at and not (self._wanted.is_set() or _is_ending()):
                self._wanted.wait(LOOK_SECONDS)

    def _is_done(self, pause: float | None) -> bool:
        """Whether to end; decided with the lock, so that :meth:`wake` is never too late."""
        with self._lock:
            if _is_ending() or (pause is None and not self._wanted.is_set()):
                self._thread = None
                return True
            self._wanted.clear()
            return False


copier = Copier()


def _copy() -> float | None:
    """One pass, if no other process of this host is at it; seconds until the next, if any."""
    with _host_lock() as is_ours:
        if not is_ours:
            return None  # that process looks again once it has let go, and finds ours
        worked = webhooks.process_waiting(seconds=PASS_SECONDS, at_once=AT_ONCE, stopped=_Ending())
        standing.carry_out_waiting(seconds=PASS_SECONDS)
    seconds = _seconds_to_next()
    if seconds is None or seconds > LONGEST_PAUSE_SECONDS:
        return None
    is_refused = worked.is_outage or worked.stop is not None
    return LONGEST_PAUSE_SECONDS if is_refused else max(seconds, SHORTEST_PAUSE_SECONDS)


def _seconds_to_next() -> float | None:
    """Seconds until a delivery is due; ``None``: none waits."""
    rows = WebhookDelivery.objects.filter(state=WebhookDelivery.State.RECEIVED)
    if rows.filter(not_before__isnull=True).exists():
        return 0.0
    first = rows.aggregate(first=Min("not_before"))["first"]
    return None if first is None else (first - timezone.now()).total_seconds()


def _is_ending() -> bool:
    """Whether the process shuts down: then it waits for this thread."""
    return not threading.main_thread().is_alive()


class _Ending(threading.Event):
    """Set when the process shuts down."""

    def is_set(self) -> bool:
        return _is_ending()


@contextmanager
def _host_lock() -> Iterator[bool]:
    """Whether this process has the lock that one process of a host can have. It dies with it."""
    if fcntl is None:
        yield True
        return
    try:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(_lock_path(), flags, 0o600)
    except OSError as error:
        logger.warning("no lock file for webhooks: %s", type(error).__name__)
        yield False
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        try:
            yield True
        finally:
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # for copies that a fork made as well
    finally:
        os.close(descriptor)


def _lock_path() -> str:
    """One file for each user and database: two projects on a host do not wait for each other."""
    database = connections[using(WebhookDelivery)].settings_dict
    names = [str(database.get(name, "")) for name in ("ENGINE", "NAME", "HOST", "PORT")]
    digest = hashlib.sha256("\0".join(names).encode()).hexdigest()[:16]
    return os.path.join(tempfile.gettempdir(), f"bland_sms-{os.geteuid()}-{digest}.lock")

"""One client per process, which follows the settings."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ..conf import get_settings
from ..pacing import may_share
from .client import BlandClient

_lock = threading.Lock()
_client: BlandClient | None = None
_jobs = 0
"""How many are under way in this process."""


def get_client() -> BlandClient:
    """The process's client; a new one as soon as the settings say something else.

    A key that a callable returns is read once for each call of this function: take the client
    once for each job. Its pace and its connections stay the same whatever the key.

    Raises:
        BlandConfigurationError: no usable key, base URL or CA bundle.
        ImproperlyConfigured: ``BLAND_SMS`` itself is wrong.
    """
    client = _current_client()
    client.read_key()
    client.pacer.may_share = may_share()
    return client


def _current_client() -> BlandClient:
    global _client  # noqa: PLW0603  what "one per process" means
    settings = get_settings()
    with _lock:
        if _client is None or _client.settings != settings:
            _client = BlandClient(settings)
        return _client


@contextmanager
def taking_part() -> Iterator[None]:
    """A job of many calls: the end of the last one gives the share of this process back.

    At once, since the process may end with it, and nobody could use its share for three seconds.
    """
    global _jobs  # noqa: PLW0603
    with _lock:
        _jobs += 1
    try:
        yield
    finally:
        with _lock:
            _jobs -= 1
            is_last = not _jobs
        if is_last and _client is not None:
            _client.pacer.leave()


def _forget_client() -> None:
    global _client, _jobs, _lock
    _lock, _client, _jobs = threading.Lock(), None, 0


if hasattr(os, "register_at_fork"):  # a child must not write on its parent's sockets
    os.register_at_fork(after_in_child=_forget_client)

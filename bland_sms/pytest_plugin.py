"""pytest fixtures for host projects: Bland in the test's own process, and over a socket.

pytest loads this module wherever the wheel is installed, so it imports nothing of Django and
nothing of the extra ``testing`` before one of the fixtures is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .sandbox import BlandSandbox, FakeBland, StandIn

__all__ = ["bland_sandbox", "fake_bland"]

SOCKET_TIMEOUT_SECONDS = 2.0
"""How long an answer of ``bland_sandbox`` may take, so that a hang does not hold the tests up."""


@pytest.fixture
def fake_bland(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FakeBland]:
    """Bland in the test's own process; ``BLAND_SMS`` leads to it."""
    settings = _settings(request)
    from .sandbox import FakeBland

    try:
        bland = FakeBland().start()
    except ModuleNotFoundError as error:
        pytest.fail(_missing(str(error.name)), pytrace=False)
    _connect(bland, settings, monkeypatch)
    yield bland
    bland.stop()


@pytest.fixture
def bland_sandbox(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[BlandSandbox]:
    """Bland as a server on a free port of this machine; ``BLAND_SMS`` leads to it."""
    settings = _settings(request)
    from .sandbox import BlandSandbox

    with BlandSandbox() as bland:
        _connect(bland, settings, monkeypatch, READ_TIMEOUT=SOCKET_TIMEOUT_SECONDS)
        yield bland


def _settings(request: pytest.FixtureRequest) -> Any:
    try:
        return request.getfixturevalue("settings")
    except pytest.FixtureLookupError:
        pytest.fail(_missing("pytest-django"), pytrace=False)


def _missing(package: str) -> str:
    return f'{package} is not installed, which this fixture needs: pip install "bland-sms[testing]"'


def _connect(bland: StandIn, settings: Any, monkeypatch: pytest.MonkeyPatch, **values: Any) -> None:
    """Lead the app to it, over whatever the host set, and take the waiting out of its client."""
    settings.BLAND_SMS = {
        **getattr(settings, "BLAND_SMS", {}),
        **bland.settings,
        "RATE_LIMIT": None,
        "PROXIES": {},
        "CA_BUNDLE": None,
        **values,
    }
    monkeypatch.setattr("bland_sms.pacing.FIRST_BACK_OFF_SECONDS", 0.0)
    monkeypatch.setattr("bland_sms.pacing.START_RATE", 10_000.0)
    monkeypatch.setattr("bland_sms.pacing.REFUSED_PAUSE_SECONDS", 0.0)
    _announce_in_test_cases(monkeypatch)


# --- after commit, in a test that commits nothing ---------------------------------------------


def _announce_in_test_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what the app does after commit happen inside a test case's own transaction.

    That one is never committed, so a plain ``django_db`` test would see no signal. What the host
    registered with ``on_commit`` itself is left to Django.
    """
    from django.db import transaction
    from django.db.backends.base.base import BaseDatabaseWrapper

    leave, register = transaction.Atomic.__exit__, BaseDatabaseWrapper.on_commit

    def leave_and_announce(self: Any, kind: Any, error: Any, traceback: Any) -> None:
        leave(self, kind, error, traceback)
        if kind is None:
            _run_ours(transaction.get_connection(self.using))

    def register_and_announce(self: Any, function: Any, robust: bool = False) -> None:
        register(self, function, robust)
        _run_ours(self)

    monkeypatch.setattr(transaction.Atomic, "__exit__", leave_and_announce)
    monkeypatch.setattr(BaseDatabaseWrapper, "on_commit", register_and_announce)


def _run_ours(connection: Any) -> None:
    """Call what the app left for after commit, where only a test case's transaction is open."""
    blocks = connection.atomic_blocks
    if not blocks or not all(block._from_testcase for block in blocks):
        return
    waiting, connection.run_on_commit = connection.run_on_commit, []
    connection.run_on_commit += [entry for entry in waiting if not _is_ours(entry[1])]
    for _savepoints, function, _is_robust in waiting:
        if _is_ours(function):
            function()


def _is_ours(function: Any) -> bool:
    function = getattr(function, "func", function)  # what a partial calls
    return str(getattr(function, "__module__", "")).startswith("bland_sms.")

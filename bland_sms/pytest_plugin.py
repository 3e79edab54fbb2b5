"""pytest fixtures for host projects: Bland in the test's own process, and over a socket.

pytest loads this module wherever the wheel is installed, so it imports nothing of Django and
nothing of the extra ``testing`` before one of the fixtures is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
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
    with _announced_in_test_cases():
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
        with _announced_in_test_cases():
            yield bland


def _settings(request: pytest.FixtureRequest) -> Any:
    try:
        return request.getfixturevalue("settings")
    except pytest.FixtureLookupError:
        pytest.fail(_missing("pytest-django"), pytrace=False)


def _missing(package: str) -> str:
    return (
        f"{package} is not installed, which this fixture needs: "
        'install bland-sms with its extra "testing"'
    )


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
    monkeypatch.setattr("bland_sms.pacing.allowance.FIRST_BACK_OFF_SECONDS", 0.0)
    monkeypatch.setattr("bland_sms.pacing.rate.START_RATE", 10_000.0)
    monkeypatch.setattr("bland_sms.pacing.pacer.REFUSED_PAUSE_SECONDS", 0.0)


# --- after commit, in a test that commits nothing ---------------------------------------------


@contextmanager
def _announced_in_test_cases() -> Iterator[None]:
    """Let what the app does after commit happen inside a test case's own transaction.

    That one is never committed, so a plain ``django_db`` test would see no signal. What the host
    registered with ``on_commit`` itself is left to Django.
    """
    from django.db import connections

    with ExitStack() as stack:
        for connection in connections.all():
            stack.enter_context(connection.execute_wrapper(_after_release))
        yield


def _after_release(execute: Any, sql: Any, params: Any, many: Any, context: Any) -> Any:
    """A statement; at the end of the outermost block inside a test case, what waited for commit."""
    from .database import AfterCommit

    result = execute(sql, params, many, context)
    connection = context["connection"]
    blocks = connection.atomic_blocks
    is_over = blocks and all(block._from_testcase for block in blocks)
    if is_over and str(sql).startswith("RELEASE SAVEPOINT"):
        waiting, connection.run_on_commit = connection.run_on_commit, []
        for entry in waiting:
            if not isinstance(entry[1], AfterCommit):
                connection.run_on_commit.append(entry)
        for _savepoints, function, _is_robust in waiting:
            if isinstance(function, AfterCommit):
                function()
    return result

"""What the host project is told, and that its mistakes stay its own."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from django.db import connection, router, transaction
from django.dispatch import Signal

from bland_sms import database, signals
from bland_sms.models import Conversation
from bland_sms.sandbox import FakeBland
from bland_sms.signals import announce
from bland_sms.sync import refresh

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def signal() -> Signal:
    """One that nobody listens to yet."""
    return Signal()


def never() -> list[dict[str, Any]]:
    raise AssertionError("nobody listens, so there is nothing to make")


def test_announce__costs_nothing_where_nobody_listens(signal: Signal) -> None:
    with transaction.atomic():
        announce(signal, Conversation, never)
        assert connection.run_on_commit == []


def test_announce__after_commit(signal: Signal) -> None:
    heard: list[int] = []
    signal.connect(lambda number, **kwargs: heard.append(number), weak=False)

    with transaction.atomic():
        announce(signal, Conversation, lambda: [{"number": 1}, {"number": 2}])
        assert heard == []

    assert heard == [1, 2]


def test_announce__not_after_a_rollback(signal: Signal) -> None:
    signal.connect(lambda **kwargs: never(), weak=False)
    with transaction.atomic():
        announce(signal, Conversation, never)
        transaction.set_rollback(True)


def test_announce__on_the_database_of_its_sender(
    signal: Signal, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    signal.connect(lambda **kwargs: None, weak=False)
    monkeypatch.setattr(router, "db_for_write", lambda model, **hints: "somewhere_else")
    monkeypatch.setattr(database, "in_transaction", asked.append)

    announce(signal, Conversation, list)

    assert asked == ["somewhere_else"]


def test_receiver__that_raises_is_logged_and_changes_nothing(
    fake_bland: FakeBland, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[str] = []

    def fail(**kwargs: Any) -> None:
        raise ZeroDivisionError("the host's own mistake")

    def listen(conversation_id: str, **kwargs: Any) -> None:
        heard.append(conversation_id)

    conversation_id = fake_bland.add()
    for receiver in (fail, listen):
        signals.conversation_created.connect(receiver)
    try:
        with caplog.at_level(logging.ERROR, "bland_sms.signals"):
            refresh(conversation_id)
    finally:
        for receiver in (fail, listen):
            signals.conversation_created.disconnect(receiver)

    assert Conversation.objects.get().pk == conversation_id
    assert heard == [conversation_id]
    [record] = [one for one in caplog.records if one.name == "bland_sms.signals"]
    assert record.exc_info is not None
    assert "the host's own mistake" in caplog.text

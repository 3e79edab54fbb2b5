"""The client against answers that Bland would never give: four laws."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from bland_sms.client import get_client
from bland_sms.exceptions import BlandError
from bland_sms.pacing import Allowance
from bland_sms.payloads import ConversationPage, ConversationPayload, UpdatePayload
from bland_sms.sandbox import BlandSandbox

from . import hostile
from .conftest import KEY

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_waiting")]
Answer = UpdatePayload | ConversationPayload | ConversationPage
COLUMNS_OF_NUMBERS = ("text", "last_message", "summary", "variables", "extra", "user_number")


@pytest.fixture
def bland(sandbox: BlandSandbox, set_bland: Callable[..., None]) -> BlandSandbox:
    set_bland(READ_TIMEOUT=1, RATE_LIMIT=10_000)
    for name in ("conv_1", "conv_2"):
        sandbox.account.add({"id": name})
    return sandbox


def ask(kind: str) -> Answer:
    client, allowance = get_client(), Allowance(attempts=1)
    if kind == "update":
        return client.update_conversation("conv_1", is_active=False, allowance=allowance)
    if kind == "detail":
        return client.get_conversation("conv_1", allowance=allowance)
    return client.list_conversations(allowance=allowance)


def asked(kind: str, answer: hostile.Hostile, bland: BlandSandbox) -> Answer | BlandError:
    bland.faults.clear()
    bland.faults.add("*", answer.fault)
    try:
        return ask(kind)
    except BlandError as error:
        return error


def told(found: Answer | BlandError) -> str:
    """All that anybody may come to read of it."""
    if isinstance(found, BlandError):
        return f"{found} {found!r} {found.code} {found.message} {found.failure.advice}"
    return repr(found)


@pytest.mark.parametrize("kind", ["update", "detail", "list"])
def test_client__hostile_answers(
    kind: str, bland: BlandSandbox, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for answer in hostile.answers(seed=len(kind)):
        found = asked(kind, answer, bland)  # and nothing else is raised
        words = told(found)
        about = answer.description
        assert not hostile.pieces_of(KEY, words), about
        if isinstance(found, BlandError):
            assert found.retry_after_seconds is None or 0 <= found.retry_after_seconds <= 86_400
            assert not has_person(words), about
            assert len(found.message) <= 200, about
        elif isinstance(found, UpdatePayload):
            assert not has_person(words), about
            assert answer.status < 300, about
        elif isinstance(found, ConversationPayload):
            assert found.id == "conv_1", about
            for message in found.messages or ():
                assert not has_person(f"{message.sender} {message.status} {message.error_code}")
        assert not hostile.pieces_of(KEY, caplog.text), about
        assert not has_person(caplog.text), about
        caplog.clear()
    bland.faults.clear()
    assert get_client().get_conversation("conv_2").id == "conv_2"


def has_person(words: str) -> bool:
    digits = hostile.NUMBER.removeprefix("+")
    return digits in words or "7654321" in words or hostile.ADDRESS in words


def test_hostile__the_same_each_time() -> None:
    first, again = list(hostile.answers()), list(hostile.answers())

    assert first == again
    assert len(first) > 1_500
    assert list(hostile.answers(seed=1)) != first


def test_hostile__honest_conversation_is_read(bland: BlandSandbox) -> None:
    """What the generator starts from is no oddity itself."""
    honest: Any = hostile.Hostile("honest", 200, hostile.update_of(hostile.CONVERSATION))

    found = asked("update", honest, bland)

    assert isinstance(found, UpdatePayload)
    assert (found.id, found.is_active) == ("conv_1", False)

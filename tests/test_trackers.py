"""Error trackers and tracers of the host: what they see of a healthy page, and of our threads."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextvars import ContextVar
from io import StringIO
from pathlib import Path
from traceback import walk_tb
from typing import Any

import pytest
from django.utils.safestring import SafeString, mark_safe
from django.views.debug import ExceptionReporter

from bland_sms.admin.formatting import Unlogged
from bland_sms.client import BlandClient, get_client
from bland_sms.conf import Secret
from bland_sms.exceptions import BlandNotSentError
from bland_sms.sandbox import BlandSandbox
from bland_sms.sync import refresh_many, run
from bland_sms.threads import Crew
from bland_sms.updates.asking import ClaimedItem, Outcome
from bland_sms.updates.in_flight import Job
from bland_sms.webhooks.signature import is_signed

from .conftest import KEY
from .test_engines import need

ROOT = Path(__file__).parent.parent
span: ContextVar[str] = ContextVar("span", default="none")


@pytest.mark.skipif("DATABASE_URL" in os.environ, reason="it is on SQLite always")
def test_sentry__a_healthy_page_sends_neither_numbers_nor_messages() -> None:
    need("sentry_sdk")
    from .tracked_host import MESSAGE, NUMBER, SUMMARY

    done = subprocess.run(
        [sys.executable, "-m", "tests.tracked_host"],
        cwd=ROOT,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert {page["status"] for page in told["shown"].values()} == {"200 OK"}
    assert sum(page["number"] for page in told["shown"].values()) >= 4
    assert sum(page["text"] for page in told["shown"].values()) >= 3
    spans = [one for event in told["sent"] for one in event.get("spans", ())]
    templates = [one for one in spans if one["op"] == "template.render"]
    assert any("bland_sms_transcript" in one["data"]["context"] for one in templates)
    sent = json.dumps(told["sent"])
    assert NUMBER not in sent
    assert MESSAGE not in sent
    assert SUMMARY not in sent


def test_unlogged__is_shown_and_not_told() -> None:
    assert f"{Unlogged('+15550107777')}" == "+15550107777"
    assert "5550107777" not in repr([Unlogged("+15550107777")])
    assert not Unlogged("")
    assert isinstance(str(Unlogged(mark_safe("<b>"))), SafeString)


class TimeLimitError(BaseException):
    """As a task engine's, raised by a signal wherever the thread happens to be."""


def reports_of(error: BaseException) -> Iterator[str]:
    """What Django's e-mails and debug page, Sentry and rich show of an exception."""
    from rich.console import Console
    from rich.traceback import Traceback
    from sentry_sdk.serializer import serialize
    from sentry_sdk.utils import event_from_exception

    reporter = ExceptionReporter(None, type(error), error, error.__traceback__)
    yield reporter.get_traceback_html()
    yield reporter.get_traceback_text()
    yield json.dumps(serialize(event_from_exception(error)[0]))
    console = Console(file=StringIO(), width=200)
    told = Traceback.from_exception(
        type(error), error, error.__traceback__, show_locals=True, locals_max_string=None
    )
    console.print(told)
    yield console.file.getvalue()  # type: ignore[attr-defined]


SEES_THE_KEY = re.compile(r"/(requests|urllib3|http)/")
"""Files whose frames hold a request's headers."""


# One that comes while Python destroys an object is lost, with a complaint. Nobody can help it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("moments", [10, pytest.param(50, marks=pytest.mark.slow)])
def test_key__in_no_report_of_a_time_limit_in_the_middle_of_a_call(
    moments: int, sandbox: BlandSandbox, settings: Any
) -> None:
    need("sentry_sdk", "rich")
    settings.BLAND_SMS = {**settings.BLAND_SMS, "READ_TIMEOUT": 15}
    sandbox.account.add({"id": "conv_1"})
    sandbox.latency_seconds = 0.01
    client = get_client()
    dice, reached = random.Random(moments), 0

    def end(number: int, frame: Any) -> None:
        raise TimeLimitError

    before = signal.signal(signal.SIGALRM, end)
    try:
        for number in range(moments):
            settings.DEBUG = number % 2 == 0
            client._session.close()  # connecting is a part of the call
            signal.setitimer(signal.ITIMER_REAL, dice.uniform(0.0005, 0.03))
            try:
                for _ in range(100):
                    client.get_conversation("conv_1")
            except TimeLimitError as error:
                reached += 1
                frames = [frame.f_code.co_filename for frame, _ in walk_tb(error.__traceback__)]
                assert not [name for name in frames if SEES_THE_KEY.search(name)], frames
                for report in reports_of(error):
                    assert "TimeLimitError" in report
                    assert KEY not in report
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert reached > moments // 2


def test_webhook_secret__in_no_report_of_a_time_limit_while_a_body_is_verified(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    need("sentry_sdk", "rich")

    def new(key: bytes, *args: Any) -> Any:
        raise TimeLimitError

    monkeypatch.setattr("bland_sms.webhooks.signature.hmac.new", new)
    with pytest.raises(TimeLimitError) as caught:
        is_signed(b"{}", "0" * 64, [Secret(KEY, "WEBHOOK_SECRETS")])
    for report in reports_of(caught.value):
        assert "TimeLimitError" in report
        assert KEY not in report


def test_crew__works_in_the_context_of_its_driver() -> None:
    span.set("driver")
    item = ClaimedItem(1, "conv_1", False, 0, False, True, None)
    job = Job(item, lambda: Outcome(item, message=span.get()))
    crew = Crew(1)
    crew.submit(job)
    crew.wait(60)
    crew.dismiss()
    assert job.outcome is not None
    assert job.outcome.message == "driver"


@pytest.fixture
def contexts(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The contexts in which the client sends; nothing is sent."""
    found: set[str] = set()

    def note(*args: Any, **kwargs: Any) -> BlandNotSentError:
        found.add(span.get())
        return BlandNotSentError()

    monkeypatch.setattr(BlandClient, "_exchange", note)
    return found


@pytest.mark.django_db
def test_sync__works_in_the_context_of_its_driver(
    sandbox: BlandSandbox, contexts: set[str]
) -> None:
    span.set("driver")
    refresh_many(["conv_1"], seconds=5)
    assert contexts == {"driver"}
    contexts.clear()
    run(full=True)
    assert contexts == {"driver"}

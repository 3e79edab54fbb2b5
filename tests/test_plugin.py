"""The fixtures for host projects, used as a host uses them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
import responses
from django.core.management import call_command
from django.db import connection, transaction
from django.dispatch import Signal
from django.test import Client, TestCase, override_settings

from bland_sms import signals, updates
from bland_sms.client import get_client
from bland_sms.conf import get_settings
from bland_sms.exceptions import BlandConnectionError
from bland_sms.mirror import apply_page
from bland_sms.models import Conversation
from bland_sms.pacing import Allowance
from bland_sms.sandbox import BlandSandbox, FakeBland, StandIn
from bland_sms.sandbox.faults import NAMES
from bland_sms.sync import refresh

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(params=["fake_bland", "bland_sandbox"])
def bland(request: pytest.FixtureRequest) -> StandIn:
    """Each of the two in turn."""
    stand_in: StandIn = request.getfixturevalue(request.param)
    return stand_in


@contextmanager
def heard(signal: Signal) -> Iterator[list[dict[str, Any]]]:
    """What a receiver of the host is told."""
    calls: list[dict[str, Any]] = []

    def receive(sender: Any, signal: Any, **arguments: Any) -> None:
        calls.append(arguments)

    signal.connect(receive)
    try:
        yield calls
    finally:
        signal.disconnect(receive)


def deactivate(conversation_id: str) -> None:
    bulk_update = updates.prepare([conversation_id], is_active=False)
    updates.start(bulk_update)
    updates.run(bulk_update)


# --- what a host's test does ------------------------------------------------------------------


@pytest.mark.django_db
def test_fixture__plain_test(bland: StandIn) -> None:
    conversation_id = bland.add(messages=[{"message": "Hello"}])
    refresh(conversation_id)

    deactivate(conversation_id)

    assert Conversation.objects.get().is_active is False
    assert Conversation.objects.get().messages.get().text == "Hello"
    assert not bland.is_active(conversation_id)
    assert [seen["is_active"] for seen in bland.requests("PATCH", conversation_id)] == [False]


@pytest.mark.django_db(transaction=True)
def test_fixture__test_that_commits(bland: StandIn) -> None:
    conversation_id = bland.add()
    with heard(signals.conversation_created) as calls:
        refresh(conversation_id)

    assert calls == [{"conversation_id": conversation_id}]


@pytest.mark.django_db
def test_fixture__receivers_hear_in_a_plain_test(bland: StandIn) -> None:
    conversation_id = bland.add()
    with (
        heard(signals.conversation_created) as created,
        heard(signals.conversation_changed) as changed,
    ):
        refresh(conversation_id)
        deactivate(conversation_id)

    assert created == [{"conversation_id": conversation_id}]
    assert [call["conversation_id"] for call in changed] == [conversation_id]
    assert "is_active" in changed[0]["changed_fields"]


@pytest.mark.django_db
def test_fixture__update_and_sync_are_heard_in_a_plain_test(bland: StandIn) -> None:
    conversation_id = bland.add()
    with heard(signals.bulk_update_finished) as updated, heard(signals.sync_finished) as synced:
        call_command("bland_sms_sync")
        deactivate(conversation_id)

    assert [call["counts"]["changed"] for call in updated] == [1]
    assert [call["sync_run"].status for call in synced] == ["finished"]


@pytest.mark.django_db
def test_fixture__rolled_back_is_not_heard(fake_bland: FakeBland) -> None:
    conversation_id = fake_bland.add()
    page = get_client().get_conversation(conversation_id)

    def fail() -> None:
        with transaction.atomic():
            apply_page([page])
            assert calls == []
            raise ZeroDivisionError

    with heard(signals.conversation_created) as calls, pytest.raises(ZeroDivisionError):
        fail()

    assert calls == []


@pytest.mark.django_db
def test_fixture__hosts_own_callbacks_are_left_to_django(
    fake_bland: FakeBland, django_capture_on_commit_callbacks: Any
) -> None:
    calls: list[str] = []
    conversation_id = fake_bland.add()
    with (
        heard(signals.conversation_created) as created,
        django_capture_on_commit_callbacks() as captured,
    ):
        transaction.on_commit(lambda: calls.append("the host's"))
        refresh(conversation_id)
        assert len(created) == 1

    assert calls == []
    assert len(captured) == 1


@pytest.mark.django_db
def test_fixture__action_under_atomic_requests(
    fake_bland: FakeBland, staff: Any, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    conversation_id = fake_bland.add()
    refresh(conversation_id)
    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)
    client = Client()
    client.force_login(staff)

    client.post(
        "/admin/bland_sms/conversation/",
        {"action": "deactivate_selected", "_selected_action": [conversation_id]},
    )

    assert not fake_bland.is_active(conversation_id)


def test_fixture__keeps_the_hosts_other_settings(bland: StandIn, settings: Any) -> None:
    assert get_settings().base_url == bland.base_url
    settings.BLAND_SMS = {**settings.BLAND_SMS, "INLINE_LIMIT": 3}
    assert get_settings().inline_limit == 3


def test_fixture__nothing_is_left_behind(request: pytest.FixtureRequest, settings: Any) -> None:
    assert get_settings().base_url == "http://127.0.0.1:9"
    assert getattr(responses.mock, "_patcher") is None  # noqa: B009
    assert responses.mock.registered() == []
    assert transaction.Atomic.__exit__.__module__ == "django.db.transaction"


class InDjangosTestCase(TestCase):
    """Without pytest's fixtures the same object is a context manager."""

    def test_fake(self) -> None:
        with FakeBland() as bland, override_settings(BLAND_SMS=bland.settings):
            conversation_id = bland.add()
            with self.captureOnCommitCallbacks(execute=True):
                refresh(conversation_id)

        assert Conversation.objects.get().pk == conversation_id


# --- its switches -----------------------------------------------------------------------------


def test_add__names_and_fills_in(bland: StandIn) -> None:
    assert [bland.add(), bland.add("conv_0003"), bland.add()] == [
        "conv_0001",
        "conv_0003",
        "conv_0004",
    ]

    bland.add("conv_x", user_number="+15550107777", messages=[{"message": "a"}, {"message": "b"}])
    told = get_client().get_conversation("conv_x")
    assert told.user_number == "+15550107777"
    assert told.message_count == 2
    assert [message.bland_id for message in told.messages or ()] == ["SM0001", "SM0002"]


@pytest.mark.parametrize("dialect", ["a", "b"])
def test_dialect(dialect: str, bland: StandIn) -> None:
    bland.add("conv_1")
    bland.dialect = dialect

    page = get_client().list_conversations(page_size=1)

    assert [row.id for row in page.conversations] == ["conv_1"]
    assert bland.dialect == bland.account.dialect == dialect


@pytest.mark.parametrize("enveloped", [True, False])
def test_enveloped(enveloped: bool, bland: StandIn) -> None:
    bland.enveloped = enveloped
    told = get_client().update_conversation(bland.add(), is_active=False)

    assert told.is_active is False


def test_key__another_is_refused(bland: StandIn) -> None:
    bland.add("conv_1")
    bland.api_key = "somebody_elses"

    assert outcome("conv_1") == ("BlandAuthenticationError", "AUTH_FAILURE")


def test_unreachable(fake_bland: FakeBland) -> None:
    fake_bland.is_reachable = False

    with pytest.raises(BlandConnectionError):
        get_client().get_conversation("conv_1")
    assert fake_bland.requests() == []


def outcome(conversation_id: str) -> tuple[str, str]:
    """What one request to deactivate comes to."""
    try:
        told = get_client().update_conversation(
            conversation_id, is_active=False, allowance=Allowance(attempts=1)
        )
    except Exception as error:  # noqa: BLE001
        return type(error).__name__, getattr(error, "code", "")
    return "told", f"{told.id} {told.is_active} {told.updated_at is not None}"


FAULTS = [
    "hang_before:60",
    "hang_after:60",
    "reset_before",
    "reset_after",
    "close_before",
    "close_after",
    "400",
    "401",
    "403",
    "404",
    "404_route",
    "409",
    "422",
    "429",
    "429:1",
    "429date:1",
    "429junk",
    "500",
    "503:1",
    "500_applied",
    "html502",
    "redirect302:https://example.invalid/",
    "truncated",
    "bad_json",
    "empty200",
    "html200",
    "list_body",
    "errors_body",
    "nan",
    "infinite",
    "deep",
    "duplicate_keys",
    "wrong_id",
    "missing",
    "nulls",
    "strings",
    "numbers",
    "not_applied",
    "old_ts",
    "bad_ts",
    "no_ts",
    "future_ts",
    "drip:0.1",
    "huge:2",
    "gzipbomb:1",
    "echo_key",
    "cookie",
]


@pytest.mark.parametrize("fault", FAULTS)
def test_fault__in_process_as_over_a_socket(
    fault: str,
    fake_bland: FakeBland,
    no_hanging: None,
    settings: Any,
    request: pytest.FixtureRequest,
) -> None:
    fake_bland.add("conv_1")
    fake_bland.faults.add("conv_1", fault)
    in_process = outcome("conv_1"), fake_bland.is_active("conv_1")

    sandbox: BlandSandbox = request.getfixturevalue("bland_sandbox")
    sandbox.add("conv_1")
    sandbox.faults.add("conv_1", fault)

    assert (outcome("conv_1"), sandbox.is_active("conv_1")) == in_process


def test_fault__wears_off_without_a_wait(fake_bland: FakeBland) -> None:
    fake_bland.add("conv_1")
    fake_bland.faults.add("conv_1", "500", "hang_before")

    assert get_client().update_conversation("conv_1", is_active=False).is_active is False
    assert len(fake_bland.requests("PATCH")) == 3


# --- beside other things ----------------------------------------------------------------------


def test_beside__another_service(fake_bland: FakeBland) -> None:
    responses.add("GET", "https://other.example/", body="theirs")
    fake_bland.add("conv_1")

    assert requests.get("https://other.example/", timeout=1).text == "theirs"
    assert get_client().get_conversation("conv_1").id == "conv_1"
    with pytest.raises(requests.ConnectionError, match="Connection refused by Responses"):
        requests.get("https://nobody.example/", timeout=1)


@responses.activate
def test_beside__decorated(fake_bland: FakeBland) -> None:
    responses.add("GET", "https://other.example/", body="theirs")
    fake_bland.add("conv_1")

    assert requests.get("https://other.example/", timeout=1).text == "theirs"
    assert get_client().get_conversation("conv_1").id == "conv_1"


def test_beside__mock_that_was_there_first(request: pytest.FixtureRequest) -> None:
    with responses.mock:
        responses.add("GET", "https://other.example/", body="theirs")
        with FakeBland():
            pass
        assert requests.get("https://other.example/", timeout=1).text == "theirs"


def test_beside__server_of_this_machine(fake_bland: FakeBland) -> None:
    with BlandSandbox() as server:
        assert requests.get(f"{server.base_url}/_sandbox/log", timeout=60).json() == {
            "requests": []
        }


# --- the plugin itself ------------------------------------------------------------------------


def test_import__brings_nothing_along() -> None:
    code = """
import sys
import bland_sms.pytest_plugin
heavy = {"django", "responses", "requests", "urllib3", "rest_framework", "pytest_django"}
print(sorted(heavy & {name.partition(".")[0] for name in sys.modules}))
"""
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert ran.stdout.strip() == "[]"


@pytest.fixture
def inner_pytest(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """A run of pytest in a project that is not ours and has not even Django's settings."""

    def run(test: str, conftest: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "conftest.py").write_text(
            "from bland_sms.pytest_plugin import bland_sandbox, fake_bland\n" + conftest
        )
        (tmp_path / "test_inner.py").write_text(test)
        environment = {k: v for k, v in os.environ.items() if k != "DJANGO_SETTINGS_MODULE"}
        return subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**environment, "PYTHONPATH": str(ROOT)},
            check=False,
        )

    return run


USING = "def test_uses(fake_bland):\n    fake_bland.add()\n"


def test_plugin__unused_in_a_project_without_django(inner_pytest: Any) -> None:
    ran = inner_pytest("def test_plain():\n    pass\n", "", "-p", "no:django")
    assert ran.returncode == 0, ran.stdout


def test_plugin__without_pytest_django(inner_pytest: Any) -> None:
    ran = inner_pytest(USING, "", "-p", "no:django")
    assert ran.returncode == 1
    assert "pytest-django is not installed" in ran.stdout
    assert 'install bland-sms with its extra "testing"' in ran.stdout


def test_plugin__without_responses(inner_pytest: Any) -> None:
    conftest = """
import sys
from django.conf import settings
sys.modules["responses"] = None
def pytest_configure():
    settings.configure()
"""
    ran = inner_pytest(USING, conftest)
    assert ran.returncode == 1
    assert "responses is not installed" in ran.stdout


# --- documentation ----------------------------------------------------------------------------

PYTHON_BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)


@pytest.mark.parametrize("page", ["testing", "extending"])
def test_docs__every_example_is_a_file_that_ci_runs(page: str) -> None:
    blocks = PYTHON_BLOCK.findall((ROOT / f"docs/{page}.md").read_text())
    assert blocks
    assert all(re.match(r"# (shop/\w+|settings)\.py\n", block) for block in blocks)


def test_docs__test_of_a_receiver_is_short() -> None:
    [block] = [
        block
        for block in PYTHON_BLOCK.findall((ROOT / "docs/testing.md").read_text())
        if block.startswith("# shop/test_receivers.py\n")
    ]
    assert len(block.splitlines()) < 20


def test_docs__every_fault() -> None:
    documented = (ROOT / "docs/testing.md").read_text().partition("## Faults")[2]
    assert set(re.findall(r"`([\w]+)(?::\w+)?`", documented)) >= NAMES


def test_faults__every_one_is_tried_both_ways() -> None:
    assert {fault.partition(":")[0] for fault in FAULTS} >= NAMES

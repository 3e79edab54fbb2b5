"""The commands as an operator, a timer or a terminal calls them."""

from __future__ import annotations

import gc
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from django.core.management import CommandError, call_command

from bland_sms.models import BulkUpdate, Conversation, SyncRun
from bland_sms.sandbox import BlandSandbox

ROOT = Path(__file__).resolve().parent.parent
KEY = "sandbox-key"
quick = pytest.mark.usefixtures("no_waiting")


class Ran(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str


def manage(*arguments: str) -> Ran:
    """Run a command in this process; its exit code as ``manage.py`` would give it."""
    out, err = io.StringIO(), io.StringIO()
    code = 0
    try:
        call_command(*arguments, stdout=out, stderr=err)
    except CommandError as error:
        code = error.returncode
        err.write(str(error))
    return Ran(code, out.getvalue(), err.getvalue())


def environment(**values: str) -> dict[str, str]:
    """Of a process that knows nothing of the tests' settings."""
    known = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("DJANGO_", "BLAND_", "DATABASE_"))
    }
    return {**known, "PYTHONUNBUFFERED": "1", **values}


def process(*arguments: str, **values: str) -> Ran:
    """Run a command as a process of its own."""
    done = subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=ROOT,
        env=environment(**values),
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    return Ran(done.returncode, done.stdout, done.stderr)


# --- bland_sms_sync ---------------------------------------------------------------------------


def account_of(sandbox: BlandSandbox, number: int, **values: Any) -> None:
    for n in range(number):
        created_at = f"2026-01-01T{n // 60:02d}:{n % 60:02d}:00.000Z"
        sandbox.account.add({"id": f"conv_{n}", "created_at": created_at, **values})


@quick
@pytest.mark.django_db
def test_sync__copies_everything(sandbox: BlandSandbox) -> None:
    account_of(sandbox, 250)
    ran = manage("bland_sms_sync")
    assert ran == (0, "finished: 250 seen, 250 created, 0 changed, 0 unchanged, 0 failed\n", "")
    assert Conversation.objects.count() == 250


@quick
@pytest.mark.django_db
def test_sync__again_changes_what_changed(sandbox: BlandSandbox) -> None:
    account_of(sandbox, 3)
    manage("bland_sms_sync")
    sandbox.account.set_active("conv_1", False)
    counts = json.loads(manage("bland_sms_sync", "--json").out)
    assert counts == {
        "run": SyncRun.objects.latest("pk").pk,
        "mode": "incremental",
        "status": "finished",
        "seen": 3,
        "created": 0,
        "changed": 1,
        "unchanged": 2,
        "failed": 0,
        "error": "",
        "owed": [],
    }
    assert Conversation.objects.get(pk="conv_1").is_active is False


@quick
@pytest.mark.django_db
def test_sync__empty_account(sandbox: BlandSandbox) -> None:
    assert manage("bland_sms_sync").code == 0


@quick
@pytest.mark.django_db
@pytest.mark.parametrize("page", [None, 40], ids=["as asked", "clamped by Bland"])
def test_sync__many_of_one_moment(page: int | None, sandbox: BlandSandbox) -> None:
    account_of(sandbox, 3)
    for n in range(150):
        sandbox.account.add({"id": f"tie_{n}", "created_at": "2026-01-01T00:01:30.000Z"})
    sandbox.account.longest_page = page
    assert manage("bland_sms_sync").code == 0
    assert Conversation.objects.count() == 153


@quick
@pytest.mark.django_db
def test_sync__ignored_filter_is_noticed(sandbox: BlandSandbox) -> None:
    account_of(sandbox, 150)
    sandbox.account.ignores_filters = True
    ran = manage("bland_sms_sync", "--json")
    assert ran.code == 1
    assert json.loads(ran.out)["status"] == "incomplete"
    assert "ignored" in ran.err
    assert SyncRun.objects.get().status == "incomplete"


@quick
@pytest.mark.django_db
def test_sync__incomplete_copy_is_not_shown_as_fresh(
    sandbox: BlandSandbox, admin_client: Any
) -> None:
    account_of(sandbox, 150)
    sandbox.account.ignores_filters = True
    manage("bland_sms_sync")
    html = admin_client.get("/admin/bland_sms/conversation/").content.decode()
    assert "was not copied from Bland as a whole yet" in html


@quick
@pytest.mark.django_db
def test_sync__rows_without_a_usable_id_are_counted(sandbox: BlandSandbox) -> None:
    account_of(sandbox, 2)
    for odd in ("../x", "a#b", ""):
        sandbox.account.add({"id": odd})
    ran = manage("bland_sms_sync", "--json")
    counts = json.loads(ran.out)
    assert ran.code == 1
    assert (counts["seen"], counts["failed"]) == (2, 3)
    assert "3 conversations could not be read" in ran.err
    assert set(Conversation.objects.values_list("pk", flat=True)) == {"conv_0", "conv_1"}


@quick
@pytest.mark.django_db
@pytest.mark.parametrize(
    ("fault", "words"),
    [("401", "401"), ("403", "ENTERPRISE_REQUIRED"), ("404_route", "404"), ("forever:500", "500")],
)
def test_sync__trouble_is_told_and_recorded(fault: str, words: str, sandbox: BlandSandbox) -> None:
    account_of(sandbox, 1)
    sandbox.faults.add("list", fault)
    ran = manage("bland_sms_sync")
    assert (ran.code, ran.out) == (1, "")
    assert words in ran.err
    assert SyncRun.objects.get().status == "failed"


@quick
@pytest.mark.django_db
def test_sync__trouble_in_the_middle_keeps_what_came(sandbox: BlandSandbox) -> None:
    account_of(sandbox, 250)
    sandbox.faults.add("#3", "401")
    assert manage("bland_sms_sync").code == 1
    assert 100 <= Conversation.objects.count() < 250


@pytest.mark.django_db
def test_sync__without_a_key(sandbox: BlandSandbox, set_bland: Any) -> None:
    set_bland(API_KEY="")
    ran = manage("bland_sms_sync")
    assert ran.code == 1
    assert "API_KEY" in ran.err
    assert not sandbox.log


@quick
@pytest.mark.django_db
def test_sync__one_conversation_with_its_messages(sandbox: BlandSandbox) -> None:
    message = {"id": "m1", "sender": "USER", "message": "Hello"}
    sandbox.account.add({"id": "conv_1", "messages": [message]})
    sandbox.account.add({"id": "conv_2"})
    assert manage("bland_sms_sync", "--conversation", "conv_1") == (0, "conv_1: created\n", "")
    assert Conversation.objects.get().messages.get().text == "Hello"


@quick
@pytest.mark.django_db
def test_sync__one_that_fails_does_not_stop_the_next(sandbox: BlandSandbox) -> None:
    sandbox.account.add({"id": "conv_1"})
    wanted = ["--conversation", "conv_404", "--conversation", "conv_1", "--conversation", ".."]
    ran = manage("bland_sms_sync", "--json", *wanted)
    assert ran.code == 1
    assert json.loads(ran.out) == {
        "conv_404": "CONVERSATION_NOT_FOUND",
        "conv_1": "created",
        "..": "invalid_id",
    }
    assert "conv_404" in ran.err
    assert "conv_1:" not in ran.err


# --- bland_sms_work ---------------------------------------------------------------------------

Copied = Callable[..., list[str]]
Started = Callable[..., BulkUpdate]


@quick
@pytest.mark.django_db
def test_work__finishes_whatever_waits(
    sandbox: BlandSandbox, copied: Copied, started: Started
) -> None:
    ids = copied(12)
    first, second = started(ids[:6]), started(ids[6:], is_active=True)
    ran = manage("bland_sms_work", "--once")
    assert (ran.code, ran.err) == (0, "")
    assert [line.split(":")[0] for line in ran.out.splitlines()] == [
        f"update {first.pk}",
        f"update {second.pk}",
    ]
    assert {update.status for update in BulkUpdate.objects.all()} == {"finished"}
    assert len(sandbox.requests("PATCH")) == 12


@pytest.mark.django_db
def test_work__nothing_to_do(sandbox: BlandSandbox) -> None:
    assert manage("bland_sms_work", "--once") == (0, "", "")


@quick
@pytest.mark.django_db
def test_work__stopped_update_is_an_error_with_its_reason(
    sandbox: BlandSandbox, copied: Copied, started: Started
) -> None:
    bulk_update = started(copied(3))
    sandbox.faults.add("*", "forever:401")
    ran = manage("bland_sms_work", "--once")
    assert ran.code == 1
    assert f"update {bulk_update.pk} stopped: Bland refused the key (401)." in ran.err


@quick
@pytest.mark.django_db
def test_work__stopped_update_does_not_keep_the_next(
    sandbox: BlandSandbox, copied: Copied, started: Started
) -> None:
    ids = copied(2)
    started(ids[:1])
    second = started(ids[1:])
    sandbox.faults.add(ids[0], "403")
    assert manage("bland_sms_work", "--once").code == 1
    second.refresh_from_db()
    assert second.status == "finished"


@quick
@pytest.mark.django_db
def test_work__what_was_put_off_is_left_for_later(
    sandbox: BlandSandbox, copied: Copied, started: Started
) -> None:
    bulk_update = started(copied(1))
    sandbox.faults.add("*", "429:3600")
    assert manage("bland_sms_work", "--once").code == 0
    assert manage("bland_sms_work", "--once") == (0, "", "")
    bulk_update.refresh_from_db()
    assert bulk_update.status == "queued"
    assert len(sandbox.log) == 1


# --- as processes -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ("bland_sms_sync", "--nonsense"),
        ("bland_sms_work", "surplus"),
        ("bland_sms_sandbox", "--port", "x"),
    ],
)
def test_command__wrong_usage(arguments: tuple[str, ...]) -> None:
    ran = process(*arguments)
    assert ran.code == 2
    assert "usage:" in ran.err


@pytest.mark.slow
def test_sync__as_a_process(tmp_path: Path) -> None:
    with BlandSandbox(api_key=KEY) as sandbox:
        account_of(sandbox, 3)
        values = {
            "DATABASE_URL": f"sqlite:///{tmp_path / 'db.sqlite3'}",
            "BLAND_API_KEY": KEY,
            "BLAND_BASE_URL": sandbox.base_url,
            "BLAND_WEBHOOK_SECRETS": "one",
        }
        assert process("migrate", "--verbosity=0", **values).code == 0
        ran = process("bland_sms_sync", **values)
        assert (ran.code, ran.err) == (0, "")  # quiet in a pipe
        assert ran.out.startswith("finished: 3 seen")
        ran = process("bland_sms_sync", **{**values, "BLAND_API_KEY": "org_another_key"})
        assert ran.code == 1
        assert "Traceback" not in ran.err
        assert "org_another_key" not in ran.out + ran.err


@pytest.mark.slow
def test_sync__nightly_full_copy_waits_for_the_one_under_way(tmp_path: Path) -> None:
    with BlandSandbox(api_key=KEY) as sandbox:
        account_of(sandbox, 3)
        values = {
            "DATABASE_URL": f"sqlite:///{tmp_path / 'db.sqlite3'}",
            "BLAND_API_KEY": KEY,
            "BLAND_BASE_URL": sandbox.base_url,
        }
        assert process("migrate", "--verbosity=0", **values).code == 0
        assert process("bland_sms_sync", **values).code == 0
        before = len(sandbox.requests("GET"))
        sandbox.faults.add("list", "hang_before:5")
        with subprocess.Popen(
            [sys.executable, "manage.py", "bland_sms_sync", "--json"],
            cwd=ROOT,
            env=environment(**values),
            stdout=subprocess.PIPE,
            text=True,
        ) as incremental:
            while len(sandbox.requests("GET")) == before:
                assert incremental.poll() is None
                time.sleep(0.05)
            full = json.loads(process("bland_sms_sync", "--full", "--json", **values).out)
            assert incremental.stdout is not None
            first = json.loads(incremental.stdout.read())
    assert (first["mode"], first["status"]) == ("incremental", "finished")
    assert (full["mode"], full["status"], full["seen"]) == ("full", "finished", 3)


# --- bland_sms_sandbox ------------------------------------------------------------------------

WITH_CTRL_C = (
    *(sys.executable, "-c"),
    "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL);"
    "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])",
)
"""Python as a terminal starts it: what a script starts in the background ignores Ctrl-C."""


@pytest.fixture
def served() -> Iterator[Callable[..., tuple[subprocess.Popen[str], str]]]:
    """Start the stand-in as a process; the process and its address."""
    running: list[subprocess.Popen[str]] = []

    def serve(*arguments: str) -> tuple[subprocess.Popen[str], str]:
        child = subprocess.Popen(
            [*WITH_CTRL_C, "manage.py", "bland_sms_sandbox", *arguments],
            cwd=ROOT,
            env=environment(),
            stdout=subprocess.PIPE,
            text=True,
        )
        running.append(child)
        assert child.stdout is not None
        found = re.search(r"http://\S+", child.stdout.readline())
        assert found is not None
        return child, found.group()

    yield serve
    for child in running:
        child.kill()
        child.communicate()


def get(url: str, key: str = KEY) -> Any:
    with urllib.request.urlopen(
        urllib.request.Request(url, headers={"Authorization": key}), timeout=60
    ) as answer:
        return json.load(answer)


def test_sandbox__serves_where_it_says(served: Any) -> None:
    child, url = served("--port", "0", "--seed", "7", "--key", "my-key")
    listed = get(f"{url}/v1/sms/conversations", "my-key")
    assert len(listed["data"]) == 7
    assert child.stdout.readline() == f"BLAND_BASE_URL={url} BLAND_API_KEY=my-key\n"


def test_sandbox__dialect_and_envelope_and_faults(served: Any) -> None:
    _, url = served("--port", "0", "--seed", "1", "--dialect", "b", "--fault", "#2=html200")
    assert "pagination" in get(f"{url}/v1/sms/conversations")
    with pytest.raises(json.JSONDecodeError):
        get(f"{url}/v1/sms/conversations")


def test_sandbox__ends_with_ctrl_c(served: Any) -> None:
    child, url = served("--port", "0")
    assert get(f"{url}/_sandbox/state")
    child.send_signal(signal.SIGINT)
    assert child.wait(timeout=60) == 0


def test_sandbox__taken_port_is_told() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ran = manage("bland_sms_sandbox", "--port", str(taken.getsockname()[1]))
    assert ran.code == 1
    assert str(taken_port(ran.err)) in ran.err
    assert "in use" in ran.err


def taken_port(text: str) -> int:
    found = re.search(r"port (\d+)", text)
    assert found is not None, text
    return int(found[1])


@pytest.mark.parametrize(
    "arguments",
    [
        ("--port", "99999"),
        ("--port", "0", "--fault", "nonsense"),
        ("--port", "0", "--fault", "*={broken"),
    ],
    ids=["port", "fault", "fault as JSON"],
)
def test_sandbox__unusable_option_is_told_without_a_traceback(arguments: tuple[str, ...]) -> None:
    assert manage("bland_sms_sandbox", *arguments).code == 2
    gc.collect()  # a socket that was opened and forgotten is complained of here


# --- demo -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_demo__smoke() -> None:
    ran = process("demo", "--smoke")
    assert ran.code == 0, ran.err
    assert "inactive at the stand-in and in the mirror" in ran.out


def children_of(pid: int) -> set[int]:
    """Processes that a process has started, as Linux knows them."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, IndexError):
            continue
        if parent == pid:
            found.add(int(folder.name))
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks into Linux's /proc")
def test_demo__ctrl_c_leaves_nothing_behind(tmp_path: Path) -> None:
    log = tmp_path / "out"
    with log.open("w") as out:
        demo = subprocess.Popen(
            [*WITH_CTRL_C, "manage.py", "demo", "--port", "0"],
            cwd=ROOT,
            env=environment(TMPDIR=str(tmp_path)),
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        children: set[int] = set()
        try:
            wait_until(lambda: demo.poll() is not None or "Ctrl-C" in log.read_text())
            children = children_of(demo.pid)
            assert len(children) == 2, log.read_text()  # the stand-in and the web server
            os.killpg(demo.pid, signal.SIGINT)  # as a terminal does
            assert demo.wait(timeout=60) == 0
        finally:
            if demo.poll() is None:
                os.killpg(demo.pid, signal.SIGKILL)
                demo.wait()
        left = {pid for pid in children if Path(f"/proc/{pid}").exists()}
        for pid in left:
            os.kill(pid, signal.SIGKILL)
    assert left == set()
    assert list(tmp_path.glob("bland_sms_demo_*")) == []
    assert "Traceback" not in log.read_text()


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    give_up_at = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up_at
        time.sleep(0.1)

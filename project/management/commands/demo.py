"""Everything at once, on this machine alone: a stand-in for Bland, data, a login, the server."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import requests
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from project.morning import AGENT, LEAD

LOGIN = PASSWORD = LEAD
KEY, SECRET = "sandbox-key", "sandbox-webhook-secret"
NUMBER = 200
START_SECONDS = 60
WRITING_SECONDS = 15
UNUSED = "+15550190009"


class Command(BaseCommand):
    help = "Run the demo: open the address that it prints. Ctrl-C stops all of it."
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--port", type=int, default=8000, help="another one if it is taken")
        parser.add_argument(
            "--smoke", action="store_true", help="no browser: deactivate three, check, and exit"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        # A stop signal ends the demo as Ctrl-C does, so that no server is left behind.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        with (
            tempfile.TemporaryDirectory(prefix="bland_sms_demo_") as folder,
            Children() as children,
        ):
            demo = Demo(self, children, Path(folder) / "demo.sqlite3")
            try:
                if options["smoke"]:
                    demo.start(0, quiet=True)
                    demo.smoke()
                else:
                    demo.start(options["port"])
                    self._invite(demo)
                    demo.let_customers_write()
                    children.wait()
            except KeyboardInterrupt:
                self.stdout.write("\nStopped.")

    def _invite(self, demo: Demo) -> None:
        self.stdout.write(
            self.style.SUCCESS(f"\n  Open   {demo.url}/admin/bland_sms/conversation/")
        )
        self.stdout.write(f"  Login  {LOGIN}    Password  {PASSWORD}    may do everything")
        self.stdout.write(f"  Login  {AGENT}    Password  {AGENT}    may read, deactivate, refresh")
        self.stdout.write(
            "  Select some conversations and run the action “Deactivate selected conversations”."
        )
        self.stdout.write(
            "  Customers write meanwhile. One was stopped for good, and is deactivated again:"
        )
        self.stdout.write(f"  {demo.url}/admin/bland_sms/standingorder/")
        self.stdout.write("  Ctrl-C stops all of it; nothing is kept.\n")
        self.stdout.flush()


class Children:
    """Processes that end with us."""

    def __init__(self) -> None:
        self._running: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Children:
        return self

    def __exit__(self, *_: object) -> None:
        for child in self._running:
            child.terminate()
        for child in self._running:
            try:
                child.wait(timeout=5)
            except subprocess.TimeoutExpired:
                child.kill()

    def start(
        self,
        arguments: Sequence[str],
        environment: dict[str, str],
        *,
        read: bool = False,
        quiet: bool = False,
    ) -> subprocess.Popen[str]:
        child = subprocess.Popen(
            [sys.executable, "manage.py", *arguments],
            cwd=settings.BASE_DIR,
            env=environment,
            text=True,
            stdout=subprocess.PIPE if read else subprocess.DEVNULL,
            stderr=subprocess.DEVNULL if quiet else None,
            # In a group of its own: Ctrl-C reaches us alone, and we end them in order.
            start_new_session=True,
        )
        self._running.append(child)
        return child

    def wait(self) -> None:
        """Until one of them ends, which none does by itself."""
        while all(child.poll() is None for child in self._running):
            time.sleep(0.2)
        raise CommandError("one of the demo's servers ended by itself")


class Demo:
    """The demo's parts and how they find each other."""

    def __init__(self, command: BaseCommand, children: Children, database: Path) -> None:
        self.command = command
        self.children = children
        self.environment = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "project.settings",  # whatever the shell has
            "BLAND_API_KEY": KEY,
            "BLAND_WEBHOOK_SECRETS": SECRET,
            "DATABASE_URL": f"sqlite:///{database}",
            "DJANGO_DEBUG": "1",
            "DJANGO_REQUEST_LOG_LEVEL": "ERROR",  # or each request would push the login away
        }
        self.sandbox_url = self.url = ""

    def start(self, port: int, *, quiet: bool = False) -> None:
        """Stand-in, database, staff login, data, server: each by the command meant for it."""
        self._say("Starting a stand-in for Bland")
        sandbox = self.children.start(
            ["bland_sms_sandbox", "--port", "0", "--key", KEY, "--seed", str(NUMBER)],
            self.environment,
            read=True,
        )
        assert sandbox.stdout is not None
        found = re.search(r"http://\S+", sandbox.stdout.readline())
        if found is None:
            raise CommandError("the stand-in for Bland did not start")
        self.sandbox_url = self.environment["BLAND_BASE_URL"] = found.group()
        self._say("Preparing the database")
        self._manage("migrate", "--verbosity=0")
        self._call("make_people")
        self._say(f"Copying {NUMBER} conversations with their messages")
        self._manage("bland_sms_sync")
        self._call("copy_messages")
        self._say("Beginning the day")
        self._call("begin_the_day")
        self._manage("bland_sms_sync")  # which also counts the days anew
        self._manage("bland_sms_search_index", "--create")
        port = _free_port(port)
        self.url = f"http://127.0.0.1:{port}"
        self.children.start(
            ["runserver", "--noreload", "--verbosity=0", str(port)], self.environment, quiet=quiet
        )
        self._wait_for_server()
        # From now on the stand-in tells of texts, as Bland does.
        self._tell_sandbox(
            "settings", webhook_url=f"{self.url}/bland-sms/webhook/", webhook_secret=SECRET
        )

    def let_customers_write(self) -> None:
        """Who was deactivated writes again, and others write too: a text each few seconds."""
        self._tell_sandbox("settings", writing_seconds=WRITING_SECONDS)

    def smoke(self) -> None:
        """Do what staff would do, over HTTP, and look at the stand-in and the mirror afterwards."""
        before = self._at_bland()
        session = requests.Session()
        session.trust_env = False
        admin = f"{self.url}/admin"
        _post(session, f"{admin}/login/", username=LOGIN, password=PASSWORD, next="/admin/")
        listed = session.get(f"{admin}/bland_sms/conversation/?status=active").text
        ids = re.findall(r'name="_selected_action" value="([^"]+)"', listed)[:3]
        if len(ids) != 3:
            raise CommandError("the list shows no three active conversations: is the login good?")
        self._say(f"Logged in; deactivating {', '.join(ids)}")
        answer = _post(
            session,
            f"{admin}/bland_sms/conversation/?status=active",
            action="deactivate_selected",
            _selected_action=ids,
        )
        after, mirrored = self._at_bland(), self._in_mirror(ids)
        problems = []
        if "3 conversations deactivated" not in answer.text:
            problems.append("the page does not say that 3 conversations were deactivated")
        for conversation_id in ids:
            if after[conversation_id]["is_active"] is not False:
                problems.append(f"{conversation_id} is still active at the stand-in")
            if mirrored[conversation_id] is not False:
                problems.append(f"{conversation_id} is still active in the mirror")
        others = [pk for pk in before if pk not in ids and before[pk] != after[pk]]
        if others:
            problems.append(f"others changed as well: {', '.join(others)}")
        if problems:
            raise CommandError("\n".join(problems))
        self._say("All three are inactive at the stand-in and in the mirror, and no other changed.")
        self._smoke_order(session, ids[0])

    def _smoke_order(self, session: requests.Session, conversation_id: str) -> None:
        """Stop a customer for good, let them write, and wait until that is deactivated."""
        url = f"{self.url}/admin/bland_sms/standingorder/add/?conversation={conversation_id}"
        page = _post(session, url, reason="Asked by phone", spare_handed_off="on")
        if "is kept inactive" not in page.text:
            raise CommandError("the page does not say that the customer is kept inactive")
        # To a number that they never wrote to, so that it is a new conversation in any case.
        told = self._tell_sandbox(
            "texts", number=self._customer_of(conversation_id), text="Hello?", agent_number=UNUSED
        )
        give_up_at = time.monotonic() + START_SECONDS
        while self._at_bland()[told["conversation_id"]]["is_active"]:
            if time.monotonic() > give_up_at:
                raise CommandError("the customer's new conversation was not deactivated")
            time.sleep(0.2)
        self._say("The customer wrote again, and the new conversation was deactivated.")

    def _tell_sandbox(self, what: str, **values: Any) -> dict[str, Any]:
        url = f"{self.sandbox_url}/_sandbox/{what}"
        answer = requests.post(url, json=values, timeout=10)
        answer.raise_for_status()
        told: dict[str, Any] = answer.json()
        return told

    def _at_bland(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.sandbox_url}/_sandbox/state", timeout=10) as answer:  # noqa: S310
            state: dict[str, Any] = json.load(answer)["conversations"]
        return state

    def _in_mirror(self, ids: Sequence[str]) -> dict[str, bool]:
        code = (
            "import json; from bland_sms.models import Conversation; "
            f"rows = Conversation.objects.filter(pk__in={list(ids)!r}); "
            "print(json.dumps(dict(rows.values_list('pk', 'is_active'))))"
        )
        found: dict[str, bool] = json.loads(
            self._manage("shell", "--verbosity=0", "--command", code)
        )
        return found

    def _customer_of(self, conversation_id: str) -> str:
        code = (
            "from bland_sms.models import Conversation; "
            f"print(Conversation.objects.get(pk={conversation_id!r}).user_number)"
        )
        return self._manage("shell", "--verbosity=0", "--command", code).strip()

    def _call(self, name: str) -> None:
        """Call a function of :mod:`project.morning` in a process of the demo's settings."""
        code = f"from project import morning; morning.{name}()"
        self._manage("shell", "--verbosity=0", "--command", code)

    def _manage(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=settings.BASE_DIR,
            env=self.environment,
            text=True,
            stdout=subprocess.PIPE,
            check=False,
        )
        if done.returncode:
            raise CommandError(f"manage.py {arguments[0]} failed")
        return done.stdout

    def _wait_for_server(self) -> None:
        give_up_at = time.monotonic() + START_SECONDS
        while time.monotonic() < give_up_at:
            try:
                with urllib.request.urlopen(f"{self.url}/admin/login/", timeout=5):  # noqa: S310
                    return
            except OSError:
                time.sleep(0.1)
        raise CommandError(f"the server did not answer on {self.url}")

    def _say(self, text: str) -> None:
        self.command.stdout.write(text)
        self.command.stdout.flush()


def _post(session: requests.Session, url: str, **form: Any) -> requests.Response:
    """Post a form as a browser does: with the token of the page that it stands on."""
    session.get(url, timeout=30).raise_for_status()
    form["csrfmiddlewaretoken"] = session.cookies["csrftoken"]
    answer = session.post(url, data=form, headers={"Referer": url}, timeout=60)
    answer.raise_for_status()
    return answer


def _free_port(wanted: int) -> int:
    """The port, or any free one where it is taken."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            number: int = probe.getsockname()[1]
            return number
    raise CommandError("there is no free port")

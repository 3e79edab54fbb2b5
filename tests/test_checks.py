"""What ``manage.py check`` says, without a database and without a network."""

from __future__ import annotations

import json
import os
import re
import ssl
import subprocess
import sys
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest
import trustme
from django.core.checks import CheckMessage, run_checks
from django.core.management import CommandError, call_command
from django.urls import include, path

import bland_sms.checks.host
from bland_sms.conf import Secret
from bland_sms.management.commands import bland_sms_check
from bland_sms.sandbox import BlandSandbox, FakeBland

ROOT = Path(__file__).resolve().parent.parent
KEY = "org_test_key_000000"
SOUND = {"API_KEY": KEY, "WEBHOOK_SECRETS": ["whsec_1"]}


def provide_key() -> str:
    raise AssertionError("a check asks nobody")


constant_key = "org with spaces in it"
constant_number = 7


@pytest.fixture
def check(settings: Any) -> Callable[..., list[CheckMessage]]:
    """Our checks over a ``BLAND_SMS``."""

    def run(given: Any, *, deploy: bool = False, **others: Any) -> list[CheckMessage]:
        settings.BLAND_SMS = given
        for name, value in others.items():
            setattr(settings, name, value)
        return run_checks(tags=["bland_sms"], include_deployment_checks=deploy)

    return run


def ids(found: list[CheckMessage]) -> list[str]:
    return [str(one.id).removeprefix("bland_sms.") for one in found]


def test_check__sound(check: Any) -> None:
    assert check(SOUND) == []


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, ["E001", "W001", "W003"]),
        (["API_KEY"], ["E001", "W001", "W003"]),
        ({**SOUND, "API_KEYS": KEY}, ["E002"]),
        ({**SOUND, "page_size": 3}, ["E002"]),
        ({**SOUND, 7: KEY, None: KEY}, ["E002", "E002"]),
        ({**SOUND, "PAGE_SIZE": 0, "READ_TIMEOUT": "15"}, ["E003", "E003"]),
        ({**SOUND, "PROXIES": KEY}, ["E003"]),
        ({**SOUND, "API_KEY": 7}, ["E003"]),
        ({**SOUND, "API_KEY": KEY.encode()}, ["E003"]),
        ({**SOUND, "API_KEY": f"{__name__}.constant_number"}, ["E003"]),
        ({**SOUND, "API_KEY": f"{KEY}\nand more"}, ["E004"]),
        ({**SOUND, "API_KEY": f"{KEY} and more words"}, ["E004"]),
        ({**SOUND, "API_KEY": f"{KEY}é"}, ["E004"]),
        ({**SOUND, "API_KEY": f"{__name__}.constant_key"}, ["E004"]),
        ({**SOUND, "API_KEY": Secret(f"{KEY}\n.")}, ["E004"]),
        ({**SOUND, "API_KEY": f"{__name__}.no_such_function"}, ["E005"]),
        ({**SOUND, "API_KEY": "bland_sms.nowhere.key"}, ["E005"]),
        ({**SOUND, "BASE_URL": "http://api.bland.ai"}, ["E006"]),
        ({**SOUND, "BASE_URL": "api.bland.ai"}, ["E006"]),
        ({**SOUND, "BASE_URL": ""}, ["E006"]),
        ({**SOUND, "BASE_URL": "https://user:word@api.bland.ai"}, ["E006"]),
        ({**SOUND, "BASE_URL": "https://api.bland.ai:port"}, ["E006"]),
        ({**SOUND, "BASE_URL": "https://api.bland.ai/v1/sms/conversations"}, ["E006"]),
        ({**SOUND, "BASE_URL": 7}, ["E003"]),
        ({**SOUND, "WEBHOOK_SECRETS": [""]}, ["E007"]),
        ({**SOUND, "WEBHOOK_SECRETS": [" ", None, "whsec_1"]}, ["E007", "E007", "W004"]),
        ({**SOUND, "WEBHOOK_SECRETS": "whsec_1"}, ["E003"]),
        ({**SOUND, "WEBHOOK_SECRETS": [7]}, ["E003"]),
        ({**SOUND, "WEBHOOK_SECRETS": ["bland_sms.nowhere.secret"]}, ["E005"]),
        ({**SOUND, "WEBHOOK_SECRETS": ["a", "b", "c"]}, ["W004"]),
        ({**SOUND, "WEBHOOK_SECRETS": ["whsec_1,old"]}, ["W008"]),
        ({**SOUND, "WEBHOOK_SECRETS": ["old", "whsec_1 old"]}, ["W008"]),
        ({**SOUND, "WEBHOOK_SECRETS": ["whsec_1\nold", "a\tb"]}, ["W008", "W008"]),
        ({**SOUND, "WEBHOOK_SECRETS": ['"whsec_1"']}, ["W008"]),
        ({**SOUND, "WEBHOOK_SECRETS": ["'whsec_1'"]}, ["W008"]),
        ({**SOUND, "WEBHOOK_SECRETS": [Secret("“whsec_1”")]}, ["W008"]),
        ({**SOUND, "DISPATCH": "nowhere.at_all"}, ["E008"]),
        ({**SOUND, "DISPATCH": f"{__name__}.constant_number"}, ["E008"]),
        ({**SOUND, "DISPATCH": "dispatch"}, ["E003"]),
        ({**SOUND, "API_PERMISSION_CLASSES": "shop.permissions.Scope"}, ["E003"]),
        ({**SOUND, "API_PERMISSION_CLASSES": ["IsAdminUser"]}, ["E003"]),
        (
            {**SOUND, "API_PERMISSION_CLASSES": ["nowhere.Scope", f"{__name__}.constant_number"]},
            ["E013", "E013"],
        ),
        ({**SOUND, "API_PERMISSION_CLASSES": ["rest_framework.permissions.IsAdminUser"]}, []),
        ({**SOUND, "CA_BUNDLE": "/no/such/file.pem"}, ["E011"]),
        ({**SOUND, "CA_BUNDLE": __file__}, ["E011"]),
        (
            {**SOUND, "BASE_URL": "http://127.0.0.1:9", "PROXIES": {"http": "http://p"}},
            ["E012"],
        ),
        ({**SOUND, "API_KEY": ""}, ["W001"]),
        ({**SOUND, "API_KEY": None}, ["W001"]),
        ({**SOUND, "API_KEY": Secret("")}, ["W001"]),
        ({"WEBHOOK_SECRETS": ["whsec_1"]}, ["W001"]),
        ({**SOUND, "API_KEY": "mistyped_module.secrets.bland_key"}, ["W002"]),
        ({"API_KEY": KEY}, ["W003"]),
        ({**SOUND, "WEBHOOK_SECRETS": []}, ["W003"]),
        ({}, ["W001", "W003"]),
    ],
)
def test_check__what_is_wrong(given: Any, expected: list[str], check: Any) -> None:
    found = check(given)

    assert sorted(ids(found)) == sorted(expected)
    for one in found:
        assert one.hint
        assert one.msg.endswith((".", "?"))
        assert (one.level >= 40) == str(one.id).startswith("bland_sms.E")
        for text in (one.msg, one.hint):
            assert KEY not in text
            assert "whsec_1" not in text
            assert "word@" not in text


@pytest.mark.parametrize(
    "changes",
    [
        {"API_KEY": f"  {KEY}\n"},
        {"API_KEY": f"Bearer {KEY}"},
        {"API_KEY": provide_key},
        {"API_KEY": f"{__name__}.provide_key"},
        {"API_KEY": Secret(KEY)},
        {"API_KEY": "org_a1b2.c3d4.e5f6"},
        {"WEBHOOK_SECRETS": ("old", "new")},
        {"WEBHOOK_SECRETS": [" whsec_1\n", "a+b/c=="]},
        {"WEBHOOK_SECRETS": [provide_key, f"{__name__}.provide_key"]},
        {"BASE_URL": "http://127.0.0.1:8765/"},
        {"BASE_URL": "https://api.bland.ai/v1/"},
        {"BASE_URL": "https://gateway.example.com/bland"},
        {"DISPATCH": f"{__name__}.provide_key"},
        {"CA_BUNDLE": str(ROOT)},
        {"CA_BUNDLE": None},
        {"PAGE_SIZE": 25},
    ],
)
def test_check__nothing_wrong(changes: dict[str, Any], check: Any) -> None:
    assert check({**SOUND, **changes}) == []


def test_check__nearest_name(check: Any) -> None:
    [found] = check({**SOUND, "WEBHOOK_SECRET": "whsec_1"})
    assert "did you mean 'WEBHOOK_SECRETS'?" in found.msg


def test_check__setting_that_is_not_there(check: Any, settings: Any) -> None:
    del settings.BLAND_SMS
    assert sorted(ids(run_checks(tags=["bland_sms"]))) == ["W001", "W003"]


def test_check__use_tz(check: Any) -> None:
    assert ids(check(SOUND, USE_TZ=False)) == ["E009"]


def test_check__rest_framework(check: Any, settings: Any) -> None:
    others = [name for name in settings.INSTALLED_APPS if name != "rest_framework"]
    assert ids(check(SOUND, INSTALLED_APPS=others)) == ["E010"]


# --- the webhook's address --------------------------------------------------------------------


def url_conf(*patterns: Any) -> ModuleType:
    module = ModuleType("urls_of_a_host")
    module.urlpatterns = list(patterns)  # type: ignore[attr-defined]
    return module


def test_check__webhook_wherever_it_is_mounted(check: Any) -> None:
    urls = url_conf(path("a/", include([path("b/", include("bland_sms.urls"))])))
    assert ids(check({"API_KEY": KEY}, ROOT_URLCONF=urls)) == ["W003"]


def test_check__webhook_that_is_not_mounted(check: Any) -> None:
    theirs = path("webhook/", test_check__use_tz, name="webhook")
    for patterns in ([], [theirs], [path("api/", include("bland_sms.api.urls"))]):
        assert check({"API_KEY": KEY}, ROOT_URLCONF=url_conf(*patterns)) == []


def test_check__broken_url_conf_is_djangos_to_tell(check: Any, settings: Any) -> None:
    assert check({"API_KEY": KEY}, ROOT_URLCONF="nowhere.urls") == []
    del settings.ROOT_URLCONF
    assert check({"API_KEY": KEY}) == []


# --- tasks ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("backend", "expected"),
    [
        ("not_installed_at_all.Backend", ["W005"]),
        ("django.tasks.backends.immediate.ImmediateBackend", []),
        (None, []),
    ],
)
def test_check__tasks(backend: Any, expected: list[str], check: Any) -> None:
    pytest.importorskip("django.tasks")
    assert ids(check(SOUND, TASKS={"default": {"BACKEND": backend}})) == expected


def test_check__tasks_without_their_app(check: Any, settings: Any) -> None:
    pytest.importorskip("django_tasks_db")
    others = [name for name in settings.INSTALLED_APPS if name != "django_tasks_db"]
    tasks = {"default": {"BACKEND": "django_tasks_db.DatabaseBackend"}}

    [found] = check(SOUND, TASKS=tasks, INSTALLED_APPS=others)

    assert found.id == "bland_sms.W005"
    assert "django_tasks_db, which is not in INSTALLED_APPS" in found.msg


def test_check__tasks_without_the_backport(check: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bland_sms.checks.host, "find_spec", lambda name: None)
    monkeypatch.setattr(bland_sms.checks.host, "has_module", lambda name: name != "django_tasks")
    tasks = {"default": {"BACKEND": "some_queue.Backend"}}

    [found] = check(SOUND, TASKS=tasks)

    assert found.id == "bland_sms.W005"
    assert "needs django-tasks" in found.msg


def test_check__tasks_are_nothing_to_a_dispatch_of_the_hosts(check: Any) -> None:
    given = {**SOUND, "DISPATCH": f"{__name__}.provide_key"}
    assert check(given, TASKS={"default": {"BACKEND": "not_installed_at_all.Backend"}}) == []


# --- deployment -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "debug", "expected"),
    [
        ({}, False, []),
        ({}, True, ["W006"]),
        ({"API_KEY": provide_key}, True, ["W006"]),
        ({"BASE_URL": "http://127.0.0.1:8765"}, False, ["W007"]),
        ({"BASE_URL": "http://127.0.0.1:8765"}, True, ["W007"]),
        ({"BASE_URL": "junk"}, True, ["E006"]),
        ({"API_KEY": "bland_sms.nowhere.key"}, True, ["E005"]),
    ],
)
def test_check__deployment(
    changes: dict[str, Any], debug: bool, expected: list[str], check: Any
) -> None:
    assert ids(check({**SOUND, **changes}, deploy=True, DEBUG=debug)) == expected


# --- as a command -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "code", "expected"),
    [
        (SOUND, 0, []),
        ({}, 0, ["W001"]),
        ({"API_KEYS": KEY, "PAGE_SIZE": "x", "BASE_URL": "junk"}, 1, ["E002", "E003", "E006"]),
        (None, 1, ["E001"]),
    ],
)
def test_command__never_a_traceback(
    given: Any, code: int, expected: list[str], tmp_path: Path
) -> None:
    source = (
        f"import json\nfrom tests.settings import *\nBLAND_SMS = json.loads({json.dumps(given)!r})"
    )
    (tmp_path / "broken_settings.py").write_text(source)
    ran = subprocess.run(
        [sys.executable, "manage.py", "check"],
        cwd=ROOT,
        env={
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "broken_settings",
            "PYTHONPATH": str(tmp_path),
        },
        capture_output=True,
        text=True,
        check=False,
    )

    assert ran.returncode == code, ran.stderr
    assert "Traceback" not in ran.stderr
    assert KEY not in ran.stderr
    for one in expected:
        assert f"bland_sms.{one}" in ran.stderr


# --- documentation ----------------------------------------------------------------------------


def test_docs__every_id_and_no_other() -> None:
    files = Path(bland_sms.checks.__file__).parent.glob("*.py")
    source = "".join(path.read_text() for path in files)
    raised = set(re.findall(r'id="(bland_sms\.[EW]\d{3})"', source))
    rows = re.findall(r"^\| `(bland_sms\.[EW]\d{3})`", (ROOT / "docs/checks.md").read_text(), re.M)

    assert len(rows) == len(set(rows))
    assert set(rows) == raised


# --- bland_sms_check --------------------------------------------------------------------------


class Told(NamedTuple):
    """What the command said."""

    code: int
    text: str
    json: dict[str, Any]


@pytest.fixture
def ask() -> Callable[[], Told]:
    """Run the command in words and as JSON; it says the same."""

    def run() -> Told:
        said: list[tuple[int, str, str]] = []
        for options in ((), ("--json",)):
            out, code, words = StringIO(), 0, ""
            try:
                call_command("bland_sms_check", *options, stdout=out)
            except CommandError as error:
                code, words = error.returncode, str(error)
            said.append((code, out.getvalue().strip(), words))
        (code, plain, words), (json_code, printed, json_words) = said
        told = json.loads(printed)
        assert json_code == code
        assert json_words == words
        assert told["ok"] is (code == 0) is (told["code"] == "ok")
        text = words or plain
        for shown in (text, printed):
            assert KEY not in shown
            assert "\n" not in shown
        if "slow" not in text:
            assert told["message"] == text
        return Told(code, text, told)

    return run


def test_ask__all_well(ask: Any, fake_bland: FakeBland) -> None:
    fake_bland.add()
    fake_bland.add()

    told = ask()

    assert told.code == 0
    assert told.text.startswith(f"All well: Bland answers at {fake_bland.base_url}")
    assert {name: told.json[name] for name in ("key", "host", "plan", "code")} == dict.fromkeys(
        ("key", "host", "plan", "code"), "ok"
    )
    calls = fake_bland.requests()
    assert len(calls) == 2  # one for each of the two runs
    assert "pageSize=1&" in calls[0]["path"]


def test_ask__empty_account(ask: Any, fake_bland: FakeBland) -> None:
    assert "no conversations yet" in ask().text


def test_ask__slow(ask: Any, fake_bland: FakeBland, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bland_sms_check, "SLOW_SECONDS", -1.0)
    assert "which is slow" in ask().text


@pytest.mark.parametrize(
    ("fault", "code", "key", "host", "plan", "words"),
    [
        ("401", "key_refused", "bad", "ok", "unknown", "does not accept the key"),
        ("403", "plan", "ok", "ok", "bad", "plan does not include SMS"),
        (
            {"status": 403, "body": {"status": "error", "message": "Your account is flagged"}},
            "forbidden",
            "unknown",
            "ok",
            "unknown",
            "Your account is flagged",
        ),
        ("404_route", "wrong_host", "unknown", "bad", "unknown", "is not Bland's SMS API"),
        ("redirect302:/x", "wrong_host", "unknown", "bad", "unknown", "is not Bland's SMS API"),
        ("429:7", "rate_limited", "unknown", "ok", "unknown", "asked too often"),
        ("503", "unavailable", "unknown", "unknown", "unknown", "has trouble"),
        ("html502", "unavailable", "unknown", "unknown", "unknown", "has trouble"),
        ("hang_before", "no_answer", "unknown", "unknown", "unknown", "did not answer it"),
        ("reset_before", "no_answer", "unknown", "unknown", "unknown", "did not answer it"),
        ("html200", "odd_answer", "unknown", "unknown", "unknown", "not answer as Bland does"),
        ("list_body", "odd_answer", "unknown", "unknown", "unknown", "not answer as Bland does"),
        ("errors_body", "odd_answer", "unknown", "unknown", "unknown", "does not document"),
        ("400", "odd_answer", "unknown", "unknown", "unknown", "does not document"),
        (
            {"body": {"data": {"no": "list"}}},
            "odd_answer",
            "unknown",
            "unknown",
            "unknown",
            "not answer as Bland does",
        ),
        ("echo_key", "odd_answer", "unknown", "unknown", "unknown", "[secret]"),
    ],
)
def test_ask__what_is_wrong(
    fault: Any,
    code: str,
    key: str,
    host: str,
    plan: str,
    words: str,
    ask: Any,
    fake_bland: FakeBland,
    settings: Any,
) -> None:
    fake_bland.api_key = KEY
    settings.BLAND_SMS = {**settings.BLAND_SMS, "API_KEY": KEY}
    fake_bland.faults.add("list", fault, fault)

    told = ask()

    assert told.code == 1
    assert told.json["code"] == code
    assert (told.json["key"], told.json["host"], told.json["plan"]) == (key, host, plan)
    assert words in told.text
    assert len(fake_bland.requests()) == 2


def test_ask__unreachable(ask: Any, fake_bland: FakeBland) -> None:
    fake_bland.is_reachable = False
    assert ask().json["code"] == "unreachable"


def test_ask__certificate_of_somebody_else(ask: Any, settings: Any) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    with BlandSandbox(api_key=KEY, tls=context) as sandbox:
        settings.BLAND_SMS = sandbox.settings
        assert ask().json["code"] == "tls_refused"


@pytest.mark.parametrize(
    ("given", "code", "words"),
    [
        ({}, "no_key", "There is no key"),
        ({"API_KEY": f"{KEY}\n{KEY}"}, "bad_key", "cannot be sent"),
        ({"API_KEY": KEY, "PAGE_SIZES": 7}, "bad_settings", "did you mean 'PAGE_SIZE'"),
        ({"API_KEY": f"{__name__}.provide_key"}, "bad_settings", "AssertionError"),
        ({"API_KEY": KEY, "BASE_URL": "http://api.bland.ai"}, "bad_url", "https://"),
        ({"API_KEY": KEY, "CA_BUNDLE": "/no/such/file"}, "bad_url", "CA_BUNDLE"),
    ],
)
def test_ask__nothing_was_asked(given: Any, code: str, words: str, ask: Any, settings: Any) -> None:
    settings.BLAND_SMS = given
    told = ask()

    assert told.json["code"] == code
    assert told.json["seconds"] is None
    assert words in told.text


def test_docs__every_code_of_the_command() -> None:
    source = Path(bland_sms_check.__file__).read_text()
    told = set(re.findall(r'_found\(\s*"(\w+)"', source)) - {"undocumented"} | {"odd_answer"}
    documented = (ROOT / "docs/checks.md").read_text().partition("## `bland_sms_check`")[2]
    assert told == set(
        re.findall(r"^\| `(\w+)` \|", documented.partition("| `code` | means")[2], re.M)
    )

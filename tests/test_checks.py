"""What ``manage.py check`` says, without a database and without a network."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from django.core.checks import CheckMessage, run_checks
from django.urls import include, path

import bland_sms.checks
from bland_sms.conf import Secret

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
        ({**SOUND, "DISPATCH": "nowhere.at_all"}, ["E008"]),
        ({**SOUND, "DISPATCH": f"{__name__}.constant_number"}, ["E008"]),
        ({**SOUND, "DISPATCH": "dispatch"}, ["E003"]),
        ({**SOUND, "CA_BUNDLE": "/no/such/file.pem"}, ["E011"]),
        ({**SOUND, "CA_BUNDLE": __file__}, ["E011"]),
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
    assert ids(run_checks(tags=["bland_sms"])) == ["W001", "W003"]


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
    monkeypatch.setattr(bland_sms.checks, "find_spec", lambda name: None)
    monkeypatch.setattr(bland_sms.checks, "has_module", lambda name: name != "django_tasks")
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
    source = Path(bland_sms.checks.__file__).read_text()
    raised = set(re.findall(r'id="(bland_sms\.[EW]\d{3})"', source))
    rows = re.findall(r"^\| `(bland_sms\.[EW]\d{3})`", (ROOT / "docs/checks.md").read_text(), re.M)

    assert len(rows) == len(set(rows))
    assert set(rows) == raised

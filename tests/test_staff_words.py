"""Staff are never told to run a command or change a setting: they have no shell. Operators are, by
check and health."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from html import unescape
from pathlib import Path

import pytest
from django.contrib.auth.models import AbstractUser
from django.test import Client

import bland_sms
from bland_sms.conf import FIELD_NAMES
from bland_sms.models import BulkUpdate, SyncRun
from bland_sms.reasons import REASONS, Failure

APP = Path(bland_sms.__file__).parent
COMMANDS = sorted(
    one.stem for one in (APP / "management/commands").glob("*.py") if one.stem != "__init__"
)
COMMAND = re.compile(rf"manage\.py|django-admin|\b({'|'.join(COMMANDS)})\b(?!_)")
SETTING = re.compile(rf"BLAND_SMS\b|\b({'|'.join(map(str.upper, sorted(FIELD_NAMES)))})\b")
OTHER_DOORS = ("management", "checks", "sandbox", "api", "migrations")
"""What operators and programs read."""
OPERATORS_REASONS = ("health_", "check_")
TAG = re.compile(r"{%\s*(\w+)(.*?)%}|{{.*?}}", re.DOTALL)


def marked(source: str) -> Iterator[str]:
    """The texts that a module marks for translation: what people can read of it."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
            continue
        if node.func.id == "_" or "gettext" in node.func.id:
            texts = [one.value for one in node.args if isinstance(one, ast.Constant)]
            yield from (text for text in texts if isinstance(text, str))


def printed(source: str) -> str:
    """What a template prints by itself, its translated words among it."""

    def words(tag: re.Match[str]) -> str:
        return str(tag[2]) if tag[1] in ("translate", "trans") else " "

    return TAG.sub(words, source)


def modules() -> list[Path]:
    found = [one for one in APP.rglob("*.py") if one.relative_to(APP).parts[0] not in OTHER_DOORS]
    return [one for one in found if one.name != "reasons.py"]


def names_what_operators_do(text: str) -> bool:
    return bool(COMMAND.search(text) or SETTING.search(text))


def test_staff_words__no_module_names_a_command_or_setting() -> None:
    texts = {(one.name, text) for one in modules() for text in marked(one.read_text("utf-8"))}

    assert len(texts) > 200
    found = {text for text in texts if names_what_operators_do(text[1])}
    assert {text for text in found if text[0] != "conf.py"} == set()  # it speaks to operators


def test_staff_words__no_template_names_a_command_or_setting() -> None:
    found = {one: printed(one.read_text("utf-8")) for one in (APP / "templates").rglob("*.html")}

    assert len(found) > 15
    assert {one for one, text in found.items() if names_what_operators_do(text)} == set()


def test_staff_words__no_reason_of_a_failure_names_a_command_or_setting() -> None:
    told = {
        code: f"{reason.sentence} {reason.next_step}"
        for code, reason in REASONS.items()
        if not code.startswith(OPERATORS_REASONS)
    }

    assert {code: text for code, text in told.items() if names_what_operators_do(text)} == {}


def test_staff_words__operators_are_told_the_setting_instead() -> None:
    told = {
        code: Failure(code, {"name": "API_KEY", "error": "OSError"}).for_operators
        for code, reason in REASONS.items()
        if reason.for_operators
    }

    assert len(told) > 10
    for failure in told.values():
        assert SETTING.search(failure.as_sentence)
        assert failure.advice == failure.as_sentence  # and nobody else to tell


NOT_CONNECTED = [
    {"API_KEY": ""},
    {"API_KEY": "a b c"},
    {"BASE_URL": "http://api.bland.ai"},
    {"BASE_URL": "junk"},
    {"CA_BUNDLE": "/no/such/file"},
]


@pytest.mark.django_db
@pytest.mark.parametrize("wrong", NOT_CONNECTED, ids=str)
def test_staff_words__no_page_names_a_setting_where_one_is_wrong(
    client: Client,
    staff: AbstractUser,
    set_bland: Callable[..., None],
    started: Callable[..., BulkUpdate],
    copied: Callable[..., list[str]],
    wrong: dict[str, str],
) -> None:
    ids = copied(30)
    update = started(ids[:25])
    SyncRun.objects.create(status="failed", error_code="not_configured", error_params={})
    set_bland(**wrong)
    client.force_login(staff)
    admin = "/admin/bland_sms"
    choose = {"_selected_action": ids[25:28]}
    answers = [
        client.get(f"{admin}/conversation/"),
        client.get(f"{admin}/conversation/{ids[0]}/change/"),
        client.get(f"{admin}/bulkupdate/paste/"),
        client.get(f"{admin}/bulkupdate/{update.pk}/change/"),
        client.get(f"{admin}/syncrun/"),
        *(
            client.post(f"{admin}/conversation/", {"action": action, **choose}, follow=True)
            for action in ("refresh_selected", "deactivate_selected")
        ),
        client.post(f"{admin}/conversation/{ids[0]}/refresh/", follow=True),
        client.post(f"{admin}/conversation/sync/", follow=True),
        client.post(f"{admin}/bulkupdate/{update.pk}/run/", follow=True),
        client.post(f"{admin}/bulkupdate/paste/", {"lines": ids[29], "verb": "deactivate"}),
    ]

    for answer in answers:
        html = unescape(answer.content.decode())
        assert not re.search(r"BLAND_SMS\b|API_KEY|BASE_URL|CA_BUNDLE", html)
    assert "This site is not connected to Bland. Tell an administrator" in html


@pytest.mark.parametrize(
    "text", ["run `manage.py migrate`", "`bland_sms_work` copies it", "bland_sms_sync does it"]
)
def test_staff_words__what_is_looked_for(text: str) -> None:
    assert COMMAND.search(text)
    assert COMMAND.search("".join(marked(f"message(_({text!r}))")))
    assert COMMAND.search(printed(f'<p>{{% translate "{text}" %}}</p>'))
    assert not COMMAND.search(printed("{% if bland_sms_status %}{{ bland_sms_status }}{% endif %}"))

"""Staff are never told to run a command: they have no shell. Operators are, by check and health."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import bland_sms
from bland_sms.reasons import REASONS

APP = Path(bland_sms.__file__).parent
COMMANDS = sorted(
    one.stem for one in (APP / "management/commands").glob("*.py") if one.stem != "__init__"
)
COMMAND = re.compile(rf"manage\.py|django-admin|\b({'|'.join(COMMANDS)})\b(?!_)")
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


def test_staff_words__no_module_names_a_command() -> None:
    texts = {(one.name, text) for one in modules() for text in marked(one.read_text("utf-8"))}

    assert len(texts) > 200
    assert {text for text in texts if COMMAND.search(text[1])} == set()


def test_staff_words__no_template_names_a_command() -> None:
    found = {one: printed(one.read_text("utf-8")) for one in (APP / "templates").rglob("*.html")}

    assert len(found) > 15
    assert {one for one, text in found.items() if COMMAND.search(text)} == set()


def test_staff_words__no_reason_of_a_failure_names_a_command() -> None:
    told = {
        code: f"{reason.sentence} {reason.next_step}"
        for code, reason in REASONS.items()
        if not code.startswith(OPERATORS_REASONS)
    }

    assert {code: text for code, text in told.items() if COMMAND.search(text)} == {}


@pytest.mark.parametrize(
    "text", ["run `manage.py migrate`", "`bland_sms_work` copies it", "bland_sms_sync does it"]
)
def test_staff_words__what_is_looked_for(text: str) -> None:
    assert COMMAND.search(text)
    assert COMMAND.search("".join(marked(f"message(_({text!r}))")))
    assert COMMAND.search(printed(f'<p>{{% translate "{text}" %}}</p>'))
    assert not COMMAND.search(printed("{% if bland_sms_status %}{{ bland_sms_status }}{% endif %}"))

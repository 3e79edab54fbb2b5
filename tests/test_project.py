"""The demo project reads the environment as docs/settings.md says."""

from __future__ import annotations

import asyncio
import re
import runpy
from pathlib import Path
from typing import Any

import pytest
from asgiref.testing import ApplicationCommunicator
from django.core.management import call_command
from django.test import AsyncRequestFactory

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def project_settings(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Execute the demo's settings with these environment variables."""

    def read(**environment: str) -> dict[str, Any]:
        for name in ("DATABASE_URL", "BLAND_WEBHOOK_SECRETS"):
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        return runpy.run_path(str(ROOT / "project" / "settings.py"))

    return read


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (" , ", []),
        ("one", ["one"]),
        ("new,old", ["new", "old"]),
        ("new old", ["new", "old"]),
        (" new ,\n\told,", ["new", "old"]),
    ],
)
def test_settings__webhook_secrets_by_commas_and_white_space(
    text: str, expected: list[str], project_settings: Any
) -> None:
    demo = project_settings(BLAND_WEBHOOK_SECRETS=text)

    assert demo["BLAND_SMS"]["WEBHOOK_SECRETS"] == expected


SQLITE = {
    "transaction_mode": "IMMEDIATE",
    "timeout": 20,
    "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
}


@pytest.mark.parametrize(
    ("url", "engine", "name", "options"),
    [
        ("", "sqlite3", ROOT / "db.sqlite3", SQLITE),
        ("sqlite:////srv/a%20b.sqlite3?timeout=5", "sqlite3", "/srv/a b.sqlite3", {"timeout": 5}),
        ("postgresql://me:p%40w@host:5433/site?sslmode=require", "postgresql", "site", {}),
        ("postgres:///site", "postgresql", "site", {}),
        ("mysql://me@/site", "mysql", "site", {"charset": "utf8mb4"}),
        ("mariadb://me@host/site?charset=utf8", "mysql", "site", {"charset": "utf8"}),
    ],
)
def test_settings__database_url(
    url: str, engine: str, name: object, options: dict[str, Any], project_settings: Any
) -> None:
    found = project_settings(DATABASE_URL=url)["DATABASES"]["default"]

    assert found["ENGINE"] == f"django.db.backends.{engine}"
    assert found["NAME"] == name
    assert found["OPTIONS"].items() >= options.items()
    if engine == "sqlite3":
        assert found["OPTIONS"].keys() == SQLITE.keys()
    if "@host:5433" in url:
        assert (found["USER"], found["PASSWORD"]) == ("me", "p@w")
        assert (found["HOST"], found["PORT"]) == ("host", 5433)
        assert found["OPTIONS"] == {"sslmode": "require"}


def test_settings__database_url_of_unknown_scheme(project_settings: Any) -> None:
    with pytest.raises(ValueError, match="nonsense"):
        project_settings(DATABASE_URL="nonsense://host/site")


def test_settings__database_url_is_no_setting(project_settings: Any) -> None:
    """It may hold a password, which a debug page would show under that name."""
    demo = project_settings(DATABASE_URL="postgresql://me:hidden@host/site")

    shown = {name: value for name, value in demo.items() if name.isupper() and name != "DATABASES"}
    assert "hidden" not in repr(shown)


CELLS = re.findall(r'^    \("(3\.\d+)", "(\d\.\d)"\),$', (ROOT / "noxfile.py").read_text(), re.M)
"""Each Python with each Django that CI tests."""
NEWEST = {"3.14", "3.15"}
"""Those that ``.ci/newest`` finds in Debian's suite "sid", each with the newest Django."""


def test_ci__same_cells_everywhere() -> None:
    workflow = (ROOT / ".github/workflows/test.yml").read_text()
    hosts = (ROOT / ".ci/hosts/run").read_text()
    assert len(CELLS) == len(set(CELLS)) >= 8
    assert re.findall(r'\{python: "(\S+)", django: "(\S+)"\}', workflow) == CELLS
    assert sorted(re.findall(r'Cell\(\s*"(3\.\d+)",\s*"(\d\.\d)"', hosts)) == sorted(CELLS)


def test_ci__classifiers_name_what_is_tested() -> None:
    project = (ROOT / "pyproject.toml").read_text()
    djangos = re.findall(r'"Framework :: Django :: (\d\.\d)"', project)
    pythons = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', project)
    assert sorted(djangos) == sorted({django for _python, django in CELLS})
    assert sorted(pythons) == sorted(NEWEST | {python for python, _django in CELLS})


@pytest.mark.django_db
def test_migrations__agree_with_the_models() -> None:
    call_command("makemigrations", "--check", "--dry-run", verbosity=0)


def test_asgi__answers() -> None:
    from project.asgi import application

    async def status_of(path: str) -> int:
        scope = {**AsyncRequestFactory().get(path).scope, "headers": [(b"host", b"localhost")]}
        asked = ApplicationCommunicator(application, scope)
        await asked.send_input({"type": "http.request", "body": b""})
        status = int((await asked.receive_output(timeout=30))["status"])
        await asked.receive_output(timeout=30)  # the body
        await asked.wait(timeout=30)  # the request's temporary file is closed
        return status

    assert asyncio.run(status_of("/")) == 302

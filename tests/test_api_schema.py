"""The REST API as tools see it: its schema, Schemathesis, and hosts with defaults of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import AbstractUser
from django.test import Client

from bland_sms.sandbox import BlandSandbox

from .test_engines import need

ROOT = Path(__file__).parent.parent
SCHEMA = "/bland-sms/api/v1/schema/"
Copied = Callable[..., list[str]]


@pytest.mark.django_db
def test_schema__is_valid(client: Client, staff: AbstractUser, capfd: Any) -> None:
    need("drf_spectacular")
    from drf_spectacular.drainage import GENERATOR_STATS
    from drf_spectacular.validation import validate_schema

    client.force_login(staff)
    answer = client.get(SCHEMA)
    schema = answer.json()
    validate_schema(schema)
    assert not GENERATOR_STATS  # what it warns of
    assert "warning" not in capfd.readouterr().err.lower()
    paths = {
        path.removeprefix("/bland-sms/api/v1/"): set(methods)
        for path, methods in schema["paths"].items()
    }
    update = "bulk-updates/{id}/"
    assert paths == {
        "conversations/": {"get"},
        "conversations/{id}/": {"get", "patch"},
        "conversations/{id}/messages/": {"get"},
        "conversations/{id}/refresh/": {"post"},
        "bulk-updates/": {"get", "post"},
        update: {"get"},
        f"{update}items/": {"get"},
        **{f"{update}{name}/": {"post"} for name in ("continue", "retry", "cancel", "undo")},
    }


@pytest.mark.django_db
def test_schema__is_the_same_for_everybody(
    client: Client, staff: AbstractUser, django_user_model: Any
) -> None:
    need("drf_spectacular")
    from django.contrib.auth.models import Permission

    client.force_login(staff)
    everything = client.get(SCHEMA).json()
    reader = django_user_model.objects.create_user("reader")
    reader.user_permissions.set(Permission.objects.filter(codename="view_conversation"))
    client.force_login(reader)
    assert client.get(SCHEMA).json() == everything
    yaml = client.get(SCHEMA, headers={"Accept": "application/vnd.oai.openapi"})
    assert yaml.content.decode().startswith("openapi: 3.0.3")
    odd = client.get(SCHEMA, {"version": "\x00\n", "lang": "../x"})
    assert odd.json() == everything
    assert odd["Content-Disposition"] == 'inline; filename="bland_sms.json"'


@pytest.mark.django_db(transaction=True)
def test_schemathesis__finds_nothing(
    live_server: Any, sandbox: BlandSandbox, copied: Copied, staff: AbstractUser, tmp_path: Path
) -> None:
    need("drf_spectacular", "schemathesis")
    copied(5)
    found = subprocess.run(
        [
            *(str(Path(sys.executable).with_name("schemathesis")), "run", live_server.url + SCHEMA),
            *("--auth", "dana:secret-enough", "--max-examples", "8", "--seed", "1", "--no-color"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert found.returncode == 0, found.stdout[-5000:] + found.stderr[-2000:]


@pytest.mark.skipif("DATABASE_URL" in os.environ, reason="it is on SQLite always")
def test_careless_host__all_of_it_holds() -> None:
    """The tests of the API again, where the host's defaults are the worst that we know of."""
    found = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"),
            *("--ds", "tests.careless_settings", "tests/test_api.py", "tests/test_api_updates.py"),
        ],
        cwd=ROOT,
        # On SQLite always: this process is using the other databases' test database.
        env={name: value for name, value in os.environ.items() if name != "DATABASE_URL"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert found.returncode == 0, found.stdout[-5000:]


def test_without_spectacular__there_is_no_schema_and_the_rest_works() -> None:
    code = (
        "import sys; sys.modules['drf_spectacular'] = None\n"
        "import django; django.setup()\n"
        "from django.urls import NoReverseMatch, reverse\n"
        "print(reverse('bland_sms:conversation-list'))\n"
        "try: reverse('bland_sms:schema')\n"
        "except NoReverseMatch: print('none')\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.split() == ["/bland-sms/api/v1/conversations/", "none"]

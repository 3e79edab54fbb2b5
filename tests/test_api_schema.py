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
CONVERSATIONS = "/bland-sms/api/v1/conversations/"
ANY_ID = {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9_-]{0,127}$"}
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
        "summary/": {"get"},
        "bulk-updates/": {"get", "post"},
        update: {"get"},
        f"{update}items/": {"get"},
        "standing-orders/": {"get", "post"},
        "standing-orders/{id}/": {"get"},
        "standing-orders/{id}/lift/": {"post"},
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


@pytest.mark.django_db
@pytest.mark.parametrize("kind", ["application/json", "application/yaml", "*/*"])
def test_schema__is_what_was_asked_for(client: Client, staff: AbstractUser, kind: str) -> None:
    need("drf_spectacular")
    client.force_login(staff)
    answer = client.get(SCHEMA, headers={"Accept": kind})
    assert answer.status_code == 200
    expected = kind if kind != "*/*" else "application/vnd.oai.openapi+json"
    assert answer["Content-Type"].partition(";")[0] == expected


@pytest.mark.django_db
def test_schema__names_the_addresses_as_they_are_called(
    client: Client, staff: AbstractUser, settings: Any
) -> None:
    need("drf_spectacular")
    client.force_login(staff)
    below = client.get(SCHEMA, SCRIPT_NAME="/sub").json()["paths"]
    assert {path[:27] for path in below} == {
        "/sub/bland-sms/api/v1/conve",
        "/sub/bland-sms/api/v1/bulk-",
        "/sub/bland-sms/api/v1/summa",
        "/sub/bland-sms/api/v1/stand",
    }
    settings.ROOT_URLCONF = "tests.schema_host"
    of_tenant = client.get("/acme/texts/api/v1/schema/").json()["paths"]
    assert of_tenant["/acme/texts/api/v1/conversations/{id}/"]["get"]["parameters"] == [
        {"in": "path", "name": "id", "schema": ANY_ID, "required": True}
    ]
    assert len(of_tenant) == len(below)


def enums(schema: Any) -> set[str]:
    return {name for name, one in schema["components"]["schemas"].items() if "enum" in one}


@pytest.mark.django_db
def test_schema_of_host__keeps_its_names_and_ours_have_a_prefix(
    client: Client, staff: AbstractUser, settings: Any
) -> None:
    need("drf_spectacular")
    from drf_spectacular.drainage import GENERATOR_STATS
    from drf_spectacular.validation import validate_schema

    settings.ROOT_URLCONF = "tests.schema_host"
    client.force_login(staff)
    everything = client.get("/schema/").json()
    assert not GENERATOR_STATS
    validate_schema(everything)
    own = client.get("/schema-of-own/").json()["components"]["schemas"]
    with_ours = everything["components"]["schemas"]
    assert {name: one for name, one in with_ours.items() if name in own} == own
    assert {name for name in set(with_ours) - set(own) if name[:5] != "Bland"} == set()
    assert set(own) >= {"Message", "StateEnum", "StatusEnum"}
    ours = client.get("/acme/texts/api/v1/schema/").json()["components"]["schemas"]
    assert {name: one for name, one in with_ours.items() if name.startswith("Bland")} == ours
    assert {"BlandMessage", "BlandConversation", "BlandConversationPage"} <= set(ours)


@pytest.mark.django_db
@pytest.mark.parametrize("first", ["/schema/", "/acme/texts/api/v1/schema/"])
def test_schema__and_that_of_the_host_do_not_change_each_other(
    client: Client, staff: AbstractUser, settings: Any, first: str
) -> None:
    need("drf_spectacular", "djangorestframework_camel_case")
    from drf_spectacular.plumbing import _load_enum_name_overrides
    from drf_spectacular.settings import patched_settings, spectacular_settings

    settings.ROOT_URLCONF = "tests.schema_host"
    client.force_login(staff)
    ours, of_host = "/acme/texts/api/v1/schema/", "/schema/"
    plain = client.get(ours).json()
    hooks = [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "drf_spectacular.contrib.djangorestframework_camel_case.camelize_serializer_fields",
    ]
    of_hosts = {
        "TITLE": "The host's",
        "CAMELIZE_NAMES": True,
        "ENUM_NAME_OVERRIDES": {"Light": ["red", "green"]},
        "SCHEMA_PATH_PREFIX_TRIM": True,
        "SERVERS": [{"url": "https://example.com"}],
        "POSTPROCESSING_HOOKS": hooks,
    }
    _load_enum_name_overrides.cache_clear()
    try:
        with patched_settings(of_hosts):
            found = {first: client.get(first).json()}
            found |= {one: client.get(one).json() for one in (ours, of_host) if one != first}
            assert client.get(first).json() == found[first]
            assert spectacular_settings.TITLE == "The host's"
            with patched_settings({"PREPROCESSING_HOOKS": ["tests.schema_host.nothing"]}):
                assert client.get(ours).json()["paths"] == plain["paths"]
    finally:
        _load_enum_name_overrides.cache_clear()
    assert found[ours]["paths"] == plain["paths"]
    assert found[ours]["info"] == plain["info"]
    assert set(found[ours]["components"]["schemas"]) == set(plain["components"]["schemas"])
    assert enums(found[of_host]) == {"Light", "StateEnum", *enums(plain)}
    for schema in found.values():  # ours are named as the views name them, whatever the hook does
        [told] = schema["components"]["schemas"]["BlandConversation"]["allOf"]
        assert {"user_number", "is_active"} <= set(told["properties"])
        assert "BlandConversationPage" in schema["components"]["schemas"]


@pytest.mark.django_db
def test_browsable_api__shows_our_names_where_the_host_writes_camel_case(
    client: Client, staff: AbstractUser, copied: Copied, monkeypatch: pytest.MonkeyPatch
) -> None:
    need("djangorestframework_camel_case")
    from djangorestframework_camel_case.render import CamelCaseBrowsableAPIRenderer
    from rest_framework.renderers import JSONRenderer

    from bland_sms.api.base import showing_what_is_sent
    from bland_sms.api.conversations import ConversationViewSet

    shown = showing_what_is_sent(CamelCaseBrowsableAPIRenderer)
    assert issubclass(shown, CamelCaseBrowsableAPIRenderer)
    monkeypatch.setattr(ConversationViewSet, "renderer_classes", [JSONRenderer, shown])
    [conversation_id] = copied()
    client.force_login(staff)
    page = client.get(f"{CONVERSATIONS}{conversation_id}/", headers={"Accept": "text/html"})
    assert "user_number" in page.content.decode()
    assert "userNumber" not in page.content.decode()


@pytest.mark.slow
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
        timeout=900,
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
        timeout=900,
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

"""What a process imports when it starts, and what only when it is first used."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from django.urls import URLPattern

from bland_sms.api import routes, urls

ROOT = Path(__file__).parent.parent
HEAVY = {
    "requests",
    "urllib3",
    "rest_framework.views",
    "rest_framework.serializers",
    "drf_spectacular",
    "django.tasks",
    "django_tasks",
    "openpyxl",
    "zipfile",
    "phonenumbers",
    "responses",
    "bland_sms.api.base",
    "bland_sms.client.client",
    "bland_sms.mirror.apply",
    "bland_sms.pasting.reading",
    "bland_sms.sandbox",
    "bland_sms.standing.applying",
    "bland_sms.sync.driver",
    "bland_sms.tasks",
    "bland_sms.updates.driver",
    "bland_sms.webhooks.copying",
}
PACKAGES = ["client", "mirror", "pasting", "payloads", "standing", "sync", "updates", "webhooks"]
START = """
import json, sys
import django
django.setup()
{then}
print(json.dumps(sorted(sys.modules)))
"""


def imported(then: str = "", **environment: str) -> set[str]:
    """The modules of a new process of the demo that has started, and has done that.

    On SQLite, since drivers import what they like: psycopg imports ``zipfile``.
    """
    child = subprocess.run(
        [sys.executable, "-W", "error", "-c", START.format(then=then)],
        capture_output=True,
        check=True,
        cwd=ROOT,
        env={
            **{name: value for name, value in os.environ.items() if name != "DATABASE_URL"},
            "PYTHONPATH": str(ROOT),
            "DJANGO_SETTINGS_MODULE": "project.settings",
            **environment,
        },
        text=True,
    )
    return set(json.loads(child.stdout))


def test_start__imports_nothing_that_only_requests_need() -> None:
    assert HEAVY & imported() == set()


def test_web_worker__imports_nothing_more_for_its_addresses_and_a_refused_webhook() -> None:
    then = """
from django.core.handlers.wsgi import WSGIHandler
from django.test import RequestFactory
from django.urls import reverse
reverse("admin:index"), reverse("bland_sms:conversation-list")
answer = WSGIHandler().get_response(RequestFactory().post("/bland-sms/webhook/", headers={
    "host": "localhost"}))
assert answer.status_code == 503, answer.status_code
"""
    assert HEAVY & imported(then) == set()


@pytest.mark.parametrize("name", PACKAGES)
def test_package__hands_on_each_of_its_names(name: str) -> None:
    package = import_module(f"bland_sms.{name}")
    for each in package.__all__:
        assert getattr(package, each) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        package.nothing  # noqa: B018


def test_api__addresses_are_those_of_its_routes() -> None:
    theirs = {str(route.name): str(route.pattern).strip("^$") for route in routes.urlpatterns}
    ours = {name: address.strip("^$") for name, address in urls.ADDRESSES.items()}
    assert list(theirs.items()) == list(ours.items())


def test_api__views_tell_what_tools_ask_of_them() -> None:
    for ours, route in zip(urls.urlpatterns, routes.urlpatterns, strict=True):
        assert isinstance(ours, URLPattern)
        assert isinstance(route, URLPattern)
        theirs: Any = route.callback
        view: Any = ours.callback
        assert view.cls is theirs.cls
        assert view.csrf_exempt is theirs.csrf_exempt
        assert ours.lookup_str == f"bland_sms.api.urls.{ours.name}"

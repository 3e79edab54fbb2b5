"""Executes the documentation's Python examples inside a project that is not this one.

``test_docs_examples.py`` copies this file into a generated project and runs it there. It reads
``examples.json``, a list of ``{"name", "place", "code"}``, and writes ``outcomes.json``: for each
name an empty text, or the traceback.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import traceback
import types
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
Example = dict[str, str]


def execute(example: Example) -> None:
    """Execute one example where its first line says that it belongs."""
    place, code = example["place"], compile(example["code"], example["name"], "exec")
    if place == "settings.py":
        execute_settings(code)
    elif place == "urls.py":
        execute_urls(code)
    elif place == "manage.py shell":
        exec(code, {"__name__": "__main__"})
    else:
        importlib.import_module(place.removesuffix(".py").replace("/", "."))


def execute_settings(code: types.CodeType) -> None:
    """At the end of the project's settings; the system checks then find no error."""
    from django.core.management import call_command
    from django.test import override_settings

    names = runpy.run_path(str(HERE / "host" / "settings.py"))
    exec(code, names)
    changed = {name: value for name, value in names.items() if name.isupper()}
    # The README's own lines are already there: its apps would be named twice.
    changed["INSTALLED_APPS"] = list(dict.fromkeys(changed["INSTALLED_APPS"]))
    with override_settings(**changed):
        call_command("check", verbosity=0)


def execute_urls(code: types.CodeType) -> None:
    """At the end of the project's URLs; each address without a variable part then answers."""
    from django.contrib.auth import get_user_model
    from django.test import Client, override_settings
    from django.urls import get_resolver

    module: Any = types.ModuleType("host_urls")
    exec((HERE / "host" / "urls.py").read_text(), vars(module))
    exec(code, vars(module))
    with override_settings(ROOT_URLCONF=module, ALLOWED_HOSTS=["testserver"]):
        client = Client(raise_request_exception=True)
        users = get_user_model().objects
        staff = {"is_staff": True, "is_superuser": True}
        client.force_login(users.get_or_create(username="dana", defaults=staff)[0])
        addresses = plain_addresses(get_resolver().url_patterns)
        assert addresses
        for address in addresses:
            assert client.get(f"/{address}").status_code in (200, 302, 403, 405, 503), address


def plain_addresses(patterns: list[Any], prefix: str = "") -> list[str]:
    found = []
    for pattern in patterns:
        path = prefix + str(pattern.pattern).removeprefix("^").removesuffix("$")
        if hasattr(pattern, "url_patterns"):
            found += plain_addresses(pattern.url_patterns, path)
        elif "<" not in path and "\\" not in path and "(" not in path:
            found.append(path)
    return found


def main() -> None:
    examples: list[Example] = json.loads((HERE / "examples.json").read_text())
    os.environ["DJANGO_SETTINGS_MODULE"] = "host.settings"
    import django
    from django.core.management import call_command

    django.setup()
    call_command("makemigrations", "shop", verbosity=0)
    call_command("migrate", verbosity=0)
    outcomes = {}
    for example in examples:
        try:
            execute(example)
            outcomes[example["name"]] = ""
        except BaseException:  # noqa: BLE001  whatever it is, it is told
            outcomes[example["name"]] = traceback.format_exc()
    (HERE / "outcomes.json").write_text(json.dumps(outcomes))


if __name__ == "__main__":
    main()

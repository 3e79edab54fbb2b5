"""Inside a fresh project: our admin classes with other people's mixins, before ours and after."""

from __future__ import annotations

import os
import sys

sys.path.insert(0, os.getcwd())
os.environ["DJANGO_SETTINGS_MODULE"] = "host.settings"

import django

django.setup()

from django.conf import settings
from django.contrib import admin
from django.contrib.admin.utils import quote
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.test import Client
from django.urls import path
from guardian.admin import GuardedModelAdmin
from host import urls
from import_export.admin import ExportActionMixin, ImportExportModelAdmin
from reversion.admin import VersionAdmin
from simple_history.admin import SimpleHistoryAdmin

from bland_sms import sync
from bland_sms.admin import ConversationAdmin
from bland_sms.models import Conversation
from bland_sms.sandbox import BlandSandbox, seed_account

MIXINS = (
    GuardedModelAdmin,
    ImportExportModelAdmin,
    ExportActionMixin,
    VersionAdmin,
    SimpleHistoryAdmin,
)


def orders(mixin: type) -> list[tuple[str, tuple[type, ...]]]:
    name = mixin.__name__.lower()
    return [
        (f"{name}-first", (mixin, ConversationAdmin)),
        (f"{name}-last", (ConversationAdmin, mixin)),
    ]


def main() -> None:
    names = []
    for mixin in MIXINS:
        for name, bases in orders(mixin):
            site = admin.AdminSite(name=name)
            site.register(Conversation, type("Mixed", bases, {}))
            urls.urlpatterns.append(path(f"{name}/", site.urls))
            names.append(name)
    settings.ALLOWED_HOSTS = ["testserver"]
    call_command("migrate", verbosity=0)
    with BlandSandbox() as sandbox:
        seed_account(sandbox.account, 60)
        settings.BLAND_SMS.update(sandbox.settings)
        sync.run()
        browser = Client()
        browser.force_login(get_user_model().objects.create_superuser("dana", "", "secret-enough"))
        active = iter(Conversation.objects.filter(is_active=True).values_list("pk", flat=True))
        for name in names:
            ids = [next(active), next(active)]
            do_the_job(browser, f"/{name}/bland_sms/conversation/", ids)
            assert not any(map(sandbox.is_active, ids)), name
            print(f"{name}: well", flush=True)


def do_the_job(browser: Client, page: str, ids: list[str]) -> None:
    listed = browser.get(page)
    assert "Copied from Bland" in listed.content.decode(), page
    one = f"{page}{quote(ids[0])}/"
    shown = browser.get(f"{one}change/").content.decode()
    for expected in (f'action="{one}deactivate/', f'action="{one}refresh/', "Transcript"):
        assert expected in shown, (page, expected)
    told = browser.post(f"{one}deactivate/", follow=True)
    assert told.status_code == 200, page
    chosen = {"action": "deactivate_selected", "_selected_action": ids[1:]}
    assert browser.post(page, chosen, follow=True).status_code == 200, page
    if "simplehistory" not in page:  # whose page of that name needs a table in the host's app
        assert browser.get(f"{one}history/").status_code == 200, page


main()

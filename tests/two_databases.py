"""A stranger's project whose router keeps this app's tables apart from the users.

``python -m tests.two_databases FOLDER`` migrates both databases there, copies conversations from
the stand-in, and does the staff's job in the admin. It fails where any of it does.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent


class Router:
    """As Django's documentation writes one; it has no opinion on other apps."""

    def db_for_read(self, model: Any, **hints: Any) -> str | None:
        return "texts" if model._meta.app_label == "bland_sms" else None

    db_for_write = db_for_read

    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool:
        return (db == "texts") is (app_label == "bland_sms")


def configure(folder: Path) -> None:
    import django
    from django.conf import settings

    engine = {"ENGINE": "django.db.backends.sqlite3"}
    context = "django.contrib.auth.context_processors.auth"
    settings.configure(
        SECRET_KEY="only for tests",
        USE_TZ=True,
        ALLOWED_HOSTS=["testserver"],
        ROOT_URLCONF="tests.two_databases",
        DATABASES={
            "default": {**engine, "NAME": folder / "users.sqlite3"},
            "texts": {**engine, "NAME": folder / "texts.sqlite3"},
        },
        DATABASE_ROUTERS=["tests.two_databases.Router"],
        INSTALLED_APPS=[
            "django.contrib.admin",
            "django.contrib.auth",
            "django.contrib.contenttypes",
            "django.contrib.sessions",
            "django.contrib.messages",
            "django.contrib.staticfiles",
            "rest_framework",
            "bland_sms",
        ],
        MIDDLEWARE=[
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
            "django.contrib.messages.middleware.MessageMiddleware",
        ],
        TEMPLATES=[
            {
                "BACKEND": "django.template.backends.django.DjangoTemplates",
                "APP_DIRS": True,
                "OPTIONS": {
                    "context_processors": [
                        "django.template.context_processors.request",
                        context,
                        "django.contrib.messages.context_processors.messages",
                    ]
                },
            }
        ],
        STATIC_URL="static/",
        PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
        BLAND_SMS={"API_KEY": "org_not_a_real_key_0000"},
    )
    django.setup()
    from django.contrib import admin
    from django.urls import include, path

    globals()["urlpatterns"] = [
        path("admin/", admin.site.urls),
        path("bland-sms/", include("bland_sms.urls")),
    ]


def work() -> None:
    from django.conf import settings
    from django.core.management import call_command
    from django.db import connections

    from bland_sms.sandbox import BlandSandbox, seed_account

    call_command("check", databases=["default", "texts"])
    for alias in ("default", "texts"):
        call_command("migrate", database=alias, verbosity=0)
    for alias, absent in (("default", "bland_sms_"), ("texts", "auth_")):
        tables = connections[alias].introspection.table_names()
        assert not [name for name in tables if name.startswith(absent)], tables
    with BlandSandbox() as sandbox:
        seed_account(sandbox.account, 30)
        settings.BLAND_SMS.update(sandbox.settings)
        call_command("bland_sms_sync", verbosity=0)
        call_command("bland_sms_status", verbosity=0)
        staffs_job(sandbox)
        standing_order(sandbox)
        a_person_is_forgotten()
        user_goes()
        call_command("bland_sms_work", "--once")


def staffs_job(sandbox: Any) -> None:
    from django.contrib.admin.models import LogEntry
    from django.contrib.admin.utils import quote
    from django.contrib.auth import get_user_model
    from django.test import Client

    from bland_sms.models import BulkUpdate, Conversation

    dana = get_user_model().objects.create_superuser("dana", "", "secret-enough")
    browser = Client()
    browser.force_login(dana)
    ids = list(Conversation.objects.filter(is_active=True).values_list("pk", flat=True)[:4])
    admin = "/admin/bland_sms/"

    def page(address: str, **data: Any) -> str:
        url = f"{admin}{address}"
        answer: Any = browser.post(url, data, follow=True) if data else browser.get(url)
        assert answer.status_code == 200, (address, answer.status_code)
        body = b"".join(answer.streaming_content) if answer.streaming else answer.content
        return str(body.decode())

    page("conversation/", action="deactivate_selected", _selected_action=ids[:3])
    page(f"conversation/{quote(ids[3])}/deactivate/", now="1")
    page(f"conversation/{quote(ids[3])}/refresh/", now="1")
    page("conversation/sync/", now="1")
    assert not any(sandbox.is_active(one) for one in ids)
    first, second = BulkUpdate.objects.order_by("pk")
    assert first.requested_by == second.requested_by == dana
    assert LogEntry.objects.filter(object_id__in=ids).count() == len(ids)
    assert "dana" in page(f"conversation/{quote(ids[0])}/history/")
    assert "3 changed" in page(f"bulkupdate/{first.pk}/change/")
    assert ids[0] in page(f"bulkupdate/{first.pk}/results.csv")
    page(f"bulkupdate/{first.pk}/undo/", now="1")
    undo = BulkUpdate.objects.latest("pk")
    page(f"bulkupdate/{undo.pk}/confirm/", reason="a mistake")
    assert all(sandbox.is_active(one) for one in ids[:3])
    for address in (
        "",
        "conversation/?q=0001",
        f"conversation/{quote(ids[0])}/change/",
        "bulkupdate/?whose=mine",
        "syncrun/",
        "webhookdelivery/",
    ):
        page(address)
    listed = browser.get("/bland-sms/api/v1/bulk-updates/").json()["results"]
    assert [one["requested_by"] for one in listed] == ["dana"] * 3, listed


def standing_order(sandbox: Any) -> None:
    from django.contrib.auth import get_user_model

    from bland_sms import standing, sync
    from bland_sms.models import BulkUpdate, StandingOrder

    dana = get_user_model().objects.get()
    number = "+15550007777"
    standing.make(number, requested_by=dana, reason="asked us to stop")
    moment = "2099-01-01T00:00:00Z"
    sandbox.account.add({"id": "conv_new", "user_number": number, "created_at": moment})
    sync.refresh("conv_new")
    assert StandingOrder.objects.get().requested_by == dana
    assert BulkUpdate.objects.latest("pk").source == "standing", BulkUpdate.objects.latest("pk")


def a_person_is_forgotten() -> None:
    """What we keep of them is in both databases: the History and sessions are the users'."""
    from django.contrib.admin.models import CHANGE, LogEntry
    from django.contrib.auth import get_user_model
    from django.contrib.contenttypes.models import ContentType
    from django.core.management import call_command
    from django.test import Client

    from bland_sms.erasure import traces
    from bland_sms.models import BulkUpdate, Conversation

    number = Conversation.objects.exclude(user_number="").latest("last_activity_at").user_number
    dana = get_user_model().objects.get()
    LogEntry.objects.create(
        user=dana,
        content_type=ContentType.objects.get_for_model(BulkUpdate),
        object_id="1",
        object_repr="Update 1",
        action_flag=CHANGE,
        change_message=f"{number} asked",
    )
    browser = Client()
    browser.force_login(dana)
    numbers = ", ".join([number, *(f"+1555020{one:04}" for one in range(150))])
    browser.post("/admin/bland_sms/conversation/search/", {"q": numbers})
    assert {"django_session", "django_admin_log"} <= {one.table for one in traces(number)}
    call_command("bland_sms_forget", number, yes=True, verbosity=0)
    call_command("bland_sms_forget", number, verify=True)


def user_goes() -> None:
    from django.contrib.auth import get_user_model

    from bland_sms.models import BulkUpdate, StandingOrder, SyncRun

    get_user_model().objects.get().delete()
    for model in (BulkUpdate, StandingOrder, SyncRun):
        assert not model.objects.filter(requested_by__isnull=False).exists(), model
    assert {one.requested_by_name for one in BulkUpdate.objects.all()} == {"dana"}


if __name__ == "__main__":
    sys.modules["tests.two_databases"] = sys.modules["__main__"]
    configure(Path(sys.argv[1]))
    work()

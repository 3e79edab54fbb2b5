"""Settings of the workers: those of the other processes of the tests, and one engine's."""

from __future__ import annotations

import os

from tests.engine_settings import *  # noqa: F403

from .task import LIMIT_SECONDS, QUEUE

ENGINE = os.environ["BLAND_SMS_TEST_ENGINE"]

if ENGINE != "django_tasks_db":
    BLAND_SMS["DISPATCH"] = f"tests.engines.{ENGINE}_app.dispatch"  # noqa: F405
if ENGINE == "django_q2":
    INSTALLED_APPS = [*INSTALLED_APPS, "django_q"]  # noqa: F405
    Q_CLUSTER = {
        "name": QUEUE,
        "orm": "default",
        "workers": 1,
        "timeout": LIMIT_SECONDS,
        "retry": 4 * LIMIT_SECONDS,
        "poll": 0.2,
        "guard_cycle": 0.2,
        "save_limit": 10,
        "ack_failures": False,
    }
if ENGINE == "procrastinate":
    INSTALLED_APPS = [*INSTALLED_APPS, "procrastinate.contrib.django"]
    DATABASES["queue"] = {  # noqa: F405
        "ENGINE": "django.db.backends.postgresql",
        "NAME": os.environ["BLAND_SMS_TEST_QUEUE_DATABASE"],
    }
    DATABASE_ROUTERS = ["tests.engines.routers.QueueRouter"]
    PROCRASTINATE_DATABASE_ALIAS = "queue"
    PROCRASTINATE_IMPORT_PATHS = ["tests.engines.procrastinate_app"]

"""Settings of processes that the tests start: workers and web servers on the test's database."""

from __future__ import annotations

import os

from tests.settings import *  # noqa: F403

DATABASES["default"]["NAME"] = os.environ["BLAND_SMS_TEST_DATABASE"]  # noqa: F405
ALLOWED_HOSTS = ["127.0.0.1"]
BLAND_SMS = {
    "API_KEY": "org_test_key_000000",
    "BASE_URL": os.environ["BLAND_SMS_TEST_URL"],
    "MAX_CONCURRENCY": 2,
}
if os.environ.get("BLAND_SMS_TEST_TASKS"):
    TASKS = {"default": {"BACKEND": os.environ["BLAND_SMS_TEST_TASKS"]}}

"""Settings of web servers and workers that the tests send webhooks to."""

from __future__ import annotations

import os

from tests.engine_settings import *  # noqa: F403

BLAND_SMS["WEBHOOK_SECRETS"] = ["whsec_one"]  # noqa: F405
BLAND_SMS["READ_TIMEOUT"] = 30  # noqa: F405
if os.environ.get("BLAND_SMS_TEST_POISON"):
    INSTALLED_APPS = [*INSTALLED_APPS, "tests.poison.PoisonConfig"]  # noqa: F405

"""The demo project's settings with nothing of the outside world in them."""

from __future__ import annotations

import os
import tempfile
from importlib.util import find_spec
from pathlib import Path

for name in ("BLAND_API_KEY", "BLAND_BASE_URL", "BLAND_WEBHOOK_SECRETS"):
    os.environ.pop(name, None)

from project.settings import *  # noqa: E402, F403

SECRET_KEY = "only-for-tests"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
BLAND_SMS = {"API_KEY": "org_test_key_000000", "BASE_URL": "http://127.0.0.1:9"}

if str(DATABASES["default"]["ENGINE"]).endswith("sqlite3"):  # noqa: F405
    # A file, which child processes can open as well; one in memory belongs to this process.
    _name = Path(tempfile.gettempdir()) / f"bland_sms_test_{os.getpid()}.sqlite3"
    DATABASES["default"]["TEST"] = {"NAME": str(_name)}  # noqa: F405

if find_spec("django_tasks_db") and (find_spec("django.tasks") or find_spec("django_tasks")):
    # Its tables, for the tests with a real worker; the backend in force stays the immediate one.
    INSTALLED_APPS = [*INSTALLED_APPS, "django_tasks_db"]  # noqa: F405

# A database of another collation: TEST_DATABASE_TEMPLATE on PostgreSQL, TEST_DATABASE_COLLATION on
# MariaDB and MySQL.
for _option in ("TEMPLATE", "COLLATION"):
    if f"TEST_DATABASE_{_option}" in os.environ:
        DATABASES["default"].setdefault("TEST", {})  # noqa: F405
        DATABASES["default"]["TEST"][_option] = os.environ[f"TEST_DATABASE_{_option}"]  # noqa: F405

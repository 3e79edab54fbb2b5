"""A project that is as unlike the demo as a host's may be."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import bland_sms

SECRET_KEY = "only-for-tests"
DEBUG = False
ALLOWED_HOSTS = ["testserver", "127.0.0.1"]
ROOT_URLCONF = "demanding.urls"
THEME = os.environ.get("HOST_THEME", "")

INSTALLED_APPS = [
    *([THEME] if THEME else []),
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "rest_framework.authtoken",
    "bland_sms",
    "people",
    "shop",
]
if find_spec("django_tasks_db"):  # with all extras
    if not find_spec("django.tasks"):
        INSTALLED_APPS += ["django_tasks"]
    INSTALLED_APPS += ["django_tasks_db"]
    TASKS = {"default": {"BACKEND": "django_tasks_db.DatabaseBackend"}}

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.auth.middleware.LoginRequiredMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
TEMPLATES: list[dict[str, Any]] = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

DATABASE: dict[str, dict[str, Any]] = {
    "sqlite": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"},
    "postgresql": {"ENGINE": "django.db.backends.postgresql", "NAME": "bland_sms_host"},
    "mariadb": {
        "ENGINE": "django.db.backends.mysql",
        "NAME": "bland_sms_host",
        "USER": os.environ.get("USER", "root"),
        "OPTIONS": {"charset": "utf8mb4"},
    },
}
DATABASES = {
    "default": {**DATABASE[os.environ.get("HOST_DATABASE", "sqlite")], "ATOMIC_REQUESTS": True}
}

AUTH_USER_MODEL = "people.Person"
LANGUAGE_CODE = "he"  # from right to left
TIME_ZONE = "Asia/Jerusalem"
USE_TZ = True
USE_THOUSAND_SEPARATOR = True
STATIC_URL = "static/"
STATIC_ROOT = Path(__file__).resolve().parent.parent / "static"
if not THEME:  # themes name files that they do not have
    STORAGES = {
        "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.ManifestStaticFilesStorage"},
    }
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["rest_framework.authentication.TokenAuthentication"]
}
BLAND_SMS = {"API_KEY": "org_not_a_real_key", "WEBHOOK_SECRETS": ["whsec_not_real"]}

assert "site-packages" in bland_sms.__file__, "this is to test what was installed"

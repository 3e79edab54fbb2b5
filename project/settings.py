"""Settings of the demo project, read from the environment. A host has settings of its own."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import dj_database_url

BASE_DIR = Path(__file__).resolve().parent.parent

DEBUG = os.environ.get("DJANGO_DEBUG", "1") not in ("", "0", "false", "False")
SECRET_KEY = os.environ.get("DJANGO_SECRET_KEY", "only-for-the-demo" if DEBUG else "")
ALLOWED_HOSTS = [
    host
    for host in os.environ.get("DJANGO_ALLOWED_HOSTS", "localhost,127.0.0.1,[::1]").split(",")
    if host
]

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "bland_sms",
    "project",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
ROOT_URLCONF = "project.urls"
WSGI_APPLICATION = "project.wsgi.application"
ASGI_APPLICATION = "project.asgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
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

# dj-database-url knows MariaDB only under the name of MySQL.
dj_database_url.register("mariadb", "django.db.backends.mysql")


def database(url: str) -> dict[str, Any]:
    """Django's settings for a URL; without one, SQLite in the project's folder."""
    default = {"ENGINE": "django.db.backends.sqlite3", "NAME": BASE_DIR / "db.sqlite3"}
    found: dict[str, Any] = {**(dj_database_url.parse(url) if url else default)}
    options: dict[str, dict[str, Any]] = {
        "django.db.backends.sqlite3": {
            # Readers never wait for the writer, and writers queue instead of failing.
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
        },
        "django.db.backends.mysql": {"charset": "utf8mb4"},
    }
    return {**found, "OPTIONS": {**options.get(found["ENGINE"], {}), **found.get("OPTIONS", {})}}


DATABASES = {"default": database(os.environ.get("DATABASE_URL", ""))}

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
LANGUAGE_CODE = "en-us"
LANGUAGES = [("en", "English"), ("es", "Español")]
TIME_ZONE = "UTC"
USE_I18N = True
USE_TZ = True
STATIC_URL = "static/"
STATIC_ROOT = BASE_DIR / "staticfiles"

REQUEST_LOG_LEVEL = os.environ.get("DJANGO_REQUEST_LOG_LEVEL", "INFO")
LOGGING = {
    "version": 1,
    "incremental": True,  # Django's own handlers stay
    "loggers": {name: {"level": REQUEST_LOG_LEVEL} for name in ("django.request", "django.server")},
}

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "rest_framework.authentication.BasicAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
}

BLAND_TASKS_BACKEND = os.environ.get("BLAND_TASKS_BACKEND", "")
if BLAND_TASKS_BACKEND:
    TASKS = {"default": {"BACKEND": BLAND_TASKS_BACKEND}}
    # The backend's own app, and the backport on Django 5.2, where there is none.
    INSTALLED_APPS += [
        name
        for name in ("django_tasks", BLAND_TASKS_BACKEND.partition(".")[0])
        if name != "django" and (name != "django_tasks" or find_spec("django.tasks") is None)
    ]

BLAND_SMS = {
    "API_KEY": os.environ.get("BLAND_API_KEY", ""),
    "BASE_URL": os.environ.get("BLAND_BASE_URL") or "https://api.bland.ai",
    # Separated by commas, white space or both.
    "WEBHOOK_SECRETS": os.environ.get("BLAND_WEBHOOK_SECRETS", "").replace(",", " ").split(),
}

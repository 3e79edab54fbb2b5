"""What the app adds to the start of a process: CPU of ``django.setup()``, memory of a web worker.

    python -m benchmarks.startup [runs] [checkout]

Beside a bare project with the admin and Django REST framework among its apps, in turns, the least
of all runs; with the folder of another checkout beside that one too. The memory is of a process
that has read its addresses and waits for its first request.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BARE = """
SECRET_KEY = "x"
USE_TZ = True
STATIC_URL = "static/"
ROOT_URLCONF = "bare"
INSTALLED_APPS = ["django.contrib." + name for name in (
    "admin", "auth", "contenttypes", "sessions", "messages", "staticfiles")] + ["rest_framework"]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True,
    "OPTIONS": {"context_processors": ["django.template.context_processors.request",
        "django.contrib.auth.context_processors.auth",
        "django.contrib.messages.context_processors.messages"]}}]

def __getattr__(name):
    if name != "urlpatterns":
        raise AttributeError(name)
    from django.contrib import admin
    from django.urls import path
    return [path("admin/", admin.site.urls)]
"""
OURS = """
from bare import *
INSTALLED_APPS = [*INSTALLED_APPS, "bland_sms"]
ROOT_URLCONF = "ours"

def __getattr__(name):
    if name != "urlpatterns":
        raise AttributeError(name)
    import bare
    from django.urls import include, path
    return [*bare.urlpatterns, path("bland-sms/", include("bland_sms.urls"))]
"""
CHILD = """
import time
began = time.process_time()
import django
django.setup()
seconds = time.process_time() - began
from django.core.handlers.wsgi import WSGIHandler
from django.urls import reverse
WSGIHandler()
reverse("admin:index")
memory = next(line for line in open("/proc/self/status") if line.startswith("VmRSS"))
print(seconds * 1000, int(memory.split()[1]) / 1024)
"""


def start(folder: str, settings: str, checkout: Path) -> tuple[float, float]:
    child = subprocess.run(
        [sys.executable, "-c", CHILD],
        capture_output=True,
        cwd=folder,
        check=True,
        env={
            **os.environ,
            "DJANGO_SETTINGS_MODULE": settings,
            "PYTHONPATH": f"{folder}{os.pathsep}{checkout}",
            "PYTHONDONTWRITEBYTECODE": "",
        },
        text=True,
    )
    milliseconds, mebibytes = map(float, child.stdout.split())
    return milliseconds, mebibytes


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    checkouts = [ROOT, *map(Path, sys.argv[2:])]
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "bare.py").write_text(BARE)
        Path(folder, "ours.py").write_text(OURS)
        cells = [("bare", ROOT), *(("ours", checkout) for checkout in checkouts)]
        found: dict[tuple[str, Path], list[tuple[float, float]]] = {cell: [] for cell in cells}
        for _ in range(runs):
            for cell in cells:
                found[cell].append(start(folder, *cell))
    least = {cell: [min(column) for column in zip(*found[cell], strict=True)] for cell in cells}
    bare = least[cells[0]]
    for (settings, checkout), (milliseconds, mebibytes) in least.items():
        print(
            f"{settings:5} {milliseconds:5.0f} ms (+{milliseconds / bare[0] - 1:.0%})"
            f"  {mebibytes:5.1f} MB (+{mebibytes - bare[1]:.1f})  {checkout}"
        )


if __name__ == "__main__":
    main()

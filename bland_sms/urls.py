"""Our addresses outside the admin: ``include("bland_sms.urls")``."""

from __future__ import annotations

from django.urls import URLPattern, URLResolver, include, path

app_name = "bland_sms"
urlpatterns: list[URLPattern | URLResolver] = [
    path("api/v1/", include("bland_sms.api.urls")),
]

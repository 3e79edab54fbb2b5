"""Our addresses outside the admin: ``include("bland_sms.urls")``."""

from __future__ import annotations

from django.urls import URLPattern, URLResolver, include, path

from .health import health_view
from .webhooks import webhook

app_name = "bland_sms"
urlpatterns: list[URLPattern | URLResolver] = [
    path("webhook/", webhook, name="webhook"),
    path("webhook", webhook),  # a redirect would lose what is posted
    path("health/", health_view, name="health"),
    path("api/v1/", include("bland_sms.api.urls")),
]

"""Two admin sites, and the app's own addresses in a corner of their own."""

from __future__ import annotations

from django.conf import settings
from django.contrib import admin
from django.urls import include, path
from shop.sites import support_site

urlpatterns = [
    path("office/admin/", admin.site.urls),
    path("office/support/", support_site.urls),
    path("office/texts/", include("bland_sms.urls")),
]

if settings.THEME == "unfold":
    import shop.unfold_admin  # noqa: F401  registers its class instead

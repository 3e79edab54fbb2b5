"""Addresses of the demo project."""

from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView

urlpatterns = [
    path("", RedirectView.as_view(pattern_name="admin:bland_sms_conversation_changelist")),
    path("admin/", admin.site.urls),
    path("bland-sms/", include("bland_sms.urls")),
]

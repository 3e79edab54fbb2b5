"""A host whose defaults for its own API would make ours unsafe, or break it."""

from __future__ import annotations

from tests.settings import *  # noqa: F403
from tests.settings import DATABASES, MIDDLEWARE

DATABASES["default"]["ATOMIC_REQUESTS"] = True
MIDDLEWARE = [*MIDDLEWARE, "django.contrib.auth.middleware.LoginRequiredMiddleware"]
TIME_ZONE = "America/New_York"
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "rest_framework.authentication.BasicAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.AllowAny"],
    "DEFAULT_PAGINATION_CLASS": "rest_framework.pagination.LimitOffsetPagination",
    "DEFAULT_FILTER_BACKENDS": ["rest_framework.filters.OrderingFilter"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.FormParser"],
    "DEFAULT_RENDERER_CLASSES": [
        "rest_framework.renderers.StaticHTMLRenderer",
        "rest_framework.renderers.BrowsableAPIRenderer",
    ],
    "DEFAULT_THROTTLE_CLASSES": ["rest_framework.throttling.ScopedRateThrottle"],
    "DEFAULT_VERSIONING_CLASS": "rest_framework.versioning.NamespaceVersioning",
    "DEFAULT_METADATA_CLASS": None,
    "EXCEPTION_HANDLER": "tests.careless_settings.handle",
    "NON_FIELD_ERRORS_KEY": "oops",
    "PAGE_SIZE": 1,
    "DATETIME_FORMAT": "%d.%m.",
    "COERCE_DECIMAL_TO_STRING": False,
    "STRICT_JSON": False,
    "UNICODE_JSON": False,
    "URL_FORMAT_OVERRIDE": None,
}


def handle(error: Exception, context: object) -> None:
    """Answers nothing: every error would be a 500."""

"""Ask Bland once, and say whether key, host and plan work."""

from __future__ import annotations

import json
import time
from argparse import ArgumentParser
from dataclasses import asdict, dataclass
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError
from django.utils.translation import gettext as _

from bland_sms.client import get_client
from bland_sms.client.connecting import normalise_base_url
from bland_sms.conf import get_settings
from bland_sms.exceptions import (
    BlandAPIError,
    BlandAuthenticationError,
    BlandConfigurationError,
    BlandConnectionError,
    BlandError,
    BlandOutcomeUnknownError,
    BlandRouteError,
    BlandTLSError,
    BlandUnavailableError,
)
from bland_sms.pacing import Allowance
from bland_sms.reasons import Failure

SLOW_SECONDS = 5.0
OK, BAD, UNKNOWN = "ok", "bad", "unknown"


@dataclass(kw_only=True)
class Finding:
    """What came of asking."""

    code: str
    message: str
    """One paragraph for a person."""
    key: str = UNKNOWN
    host: str = UNKNOWN
    plan: str = UNKNOWN
    base_url: str = ""
    http_status: int | None = None
    bland_code: str = ""
    seconds: float | None = None
    """``None``: nothing was asked."""

    @property
    def is_well(self) -> bool:
        return self.code == "ok"


class Command(BaseCommand):
    help = "Say whether key, host and plan work, in one cheap call. Exits with 0 or 1."
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="print the outcome as JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        finding = look()
        if options["json"]:
            self.stdout.write(json.dumps({"ok": finding.is_well, **asdict(finding)}))
        elif finding.is_well:
            self.stdout.write(finding.message)
        if not finding.is_well:
            raise CommandError(finding.message)


def look() -> Finding:
    """Look at the settings, and ask for one conversation of the list if they can be used."""
    try:
        settings = get_settings()
    except ImproperlyConfigured as error:
        return _found("bad_settings", error=str(error))
    if not settings.api_key:
        return _found("no_key", key=BAD)
    try:
        base_url = normalise_base_url(settings.base_url)
        client = get_client()
    except BlandConfigurationError as error:
        if error.cause == "bad_key":
            return _found("bad_key", key=BAD)
        if error.cause == "secret_not_read":
            return _found("bad_settings", key=BAD, error=str(error))
        return _found("bad_url", host=BAD, error=str(error))
    began = time.monotonic()
    try:
        page = client.list_conversations(page_size=1, allowance=Allowance(attempts=1))
    except BlandError as error:
        finding = judge(error, base_url)
        finding.http_status = error.status_code
        finding.bland_code = error.code if isinstance(error, BlandAPIError) else ""
    else:
        finding = _well(base_url, is_empty=not page.row_count)
    finding.base_url = base_url
    finding.seconds = round(time.monotonic() - began, 3)
    if finding.is_well and finding.seconds > SLOW_SECONDS:
        slow = _("The answer took %(seconds).1f seconds, which is slow.")
        finding.message += " " + slow % {"seconds": finding.seconds}
    return finding


def _found(
    code: str, *, key: str = UNKNOWN, host: str = UNKNOWN, plan: str = UNKNOWN, **params: str
) -> Finding:
    """A finding, worded by the table of reasons."""
    message = Failure(f"check_{code}", params).advice
    return Finding(code=code, message=message, key=key, host=host, plan=plan)


def _well(base_url: str, *, is_empty: bool) -> Finding:
    finding = _found("ok", key=OK, host=OK, plan=OK, url=base_url)
    if is_empty:
        finding.message += " " + _("This account has no conversations yet.")
    return finding


def judge(error: BlandError, base_url: str) -> Finding:
    """What a failed call says about key, host and plan."""
    told = {"url": base_url, "error": str(error)}
    if isinstance(error, BlandAPIError):
        return _judge_answer(error, told)
    if isinstance(error, BlandTLSError):
        return _found("tls_refused", host=BAD, **told)
    if isinstance(error, BlandConnectionError):
        return _found("unreachable", host=BAD, **told)
    if isinstance(error, BlandConfigurationError):
        return _found("bad_url", host=BAD, **told)
    if isinstance(error, BlandOutcomeUnknownError) and error.status_code is None:
        return _found("no_answer", **told)
    return _found("odd_answer", **told)


def _judge_answer(error: BlandAPIError, told: dict[str, str]) -> Finding:
    if isinstance(error, BlandAuthenticationError) and error.status_code != 403:
        return _found("key_refused", key=BAD, host=OK, **told)
    if error.code == "ENTERPRISE_REQUIRED":
        return _found("plan", key=OK, host=OK, plan=BAD, **told)
    if isinstance(error, BlandAuthenticationError):
        return _found("forbidden", host=OK, **told)
    if isinstance(error, BlandRouteError) or error.code == "redirected":
        return _found("wrong_host", host=BAD, **told)
    if error.status_code == 429:
        return _found("rate_limited", host=OK, **told)
    if isinstance(error, BlandUnavailableError):
        return _found("unavailable", **told)
    finding = _found("undocumented", **told)
    finding.code = "odd_answer"
    return finding

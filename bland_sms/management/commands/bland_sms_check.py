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
from bland_sms.conf import check_api_key, get_settings, normalise_base_url
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
from bland_sms.sentences import translated

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
        words = _(
            "BLAND_SMS is wrong, so nothing was asked: %(error)s. `manage.py check` says more."
        )
        return Finding(code="bad_settings", message=words % {"error": error})
    if not settings.api_key:
        words = _(
            "There is no key, so nothing was asked: set BLAND_SMS['API_KEY'] to a key of your "
            "Bland account. Until then what was copied can be read, and nothing can be changed."
        )
        return Finding(code="no_key", key=BAD, message=words)
    try:
        check_api_key(settings.api_key)
    except BlandConfigurationError:
        words = _(
            "The key cannot be sent, so nothing was asked: BLAND_SMS['API_KEY'] holds white space "
            "or characters that no key has. Copy it again, on one line."
        )
        return Finding(code="bad_key", key=BAD, message=words)
    try:
        base_url = normalise_base_url(settings.base_url)
        client = get_client()
    except BlandConfigurationError as error:
        words = _("Bland cannot be asked: %(error)s.")
        return Finding(code="bad_url", host=BAD, message=words % {"error": translated(error)})
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


def _well(base_url: str, *, is_empty: bool) -> Finding:
    words = _(
        "All well: Bland answers at %(url)s, accepts the key, and the plan lets it read SMS "
        "conversations."
    )
    message = words % {"url": base_url}
    if is_empty:
        message += " " + _("This account has no conversations yet.")
    return Finding(code="ok", key=OK, host=OK, plan=OK, message=message)


def judge(error: BlandError, base_url: str) -> Finding:
    """What a failed call says about key, host and plan."""
    finding = _judge_answer(error) if isinstance(error, BlandAPIError) else _judge_silence(error)
    finding.message %= {"url": base_url, "error": translated(error)}
    return finding


def _judge_answer(error: BlandAPIError) -> Finding:
    if isinstance(error, BlandAuthenticationError) and error.status_code != 403:
        words = _(
            "Bland at %(url)s does not accept the key (%(error)s): it is mistyped, was revoked, or "
            "is of another service. Set BLAND_SMS['API_KEY'] to a key of your Bland account."
        )
        return Finding(code="key_refused", key=BAD, host=OK, message=words)
    if error.code == "ENTERPRISE_REQUIRED":
        words = _(
            "Bland at %(url)s accepts the key, but the account's plan does not include SMS "
            "conversations (%(error)s). Ask Bland to add them."
        )
        return Finding(code="plan", key=OK, host=OK, plan=BAD, message=words)
    if isinstance(error, BlandAuthenticationError):
        words = _(
            "Bland at %(url)s knows the key and refuses what it asks (%(error)s). The account may "
            "be blocked: ask Bland."
        )
        return Finding(code="forbidden", host=OK, message=words)
    if isinstance(error, BlandRouteError) or error.code == "redirected":
        words = _(
            "What answers at %(url)s is not Bland's SMS API (%(error)s). Correct "
            "BLAND_SMS['BASE_URL'], or leave it out for https://api.bland.ai."
        )
        return Finding(code="wrong_host", host=BAD, message=words)
    if error.status_code == 429:
        words = _(
            "Bland at %(url)s is asked too often with this key (%(error)s), so the rest is not "
            "known. Try again in a minute; BLAND_SMS['RATE_LIMIT'] slows us down for good."
        )
        return Finding(code="rate_limited", host=OK, message=words)
    if isinstance(error, BlandUnavailableError):
        words = _(
            "Bland at %(url)s has trouble (%(error)s), so nothing is known about the key. Try "
            "again later; what waits is not lost."
        )
        return Finding(code="unavailable", message=words)
    words = _(
        "Bland at %(url)s answered in a way that it does not document (%(error)s). Check "
        "BLAND_SMS['BASE_URL'] first."
    )
    return Finding(code="odd_answer", message=words)


def _judge_silence(error: BlandError) -> Finding:
    """No answer, or none that can be read."""
    if isinstance(error, BlandTLSError):
        words = _(
            "The certificate of %(url)s is not trusted, or there is none, so the key was not sent. "
            "Check BLAND_SMS['BASE_URL']; if a proxy of yours answers, BLAND_SMS['CA_BUNDLE'] "
            "names its certificates."
        )
        return Finding(code="tls_refused", host=BAD, message=words)
    if isinstance(error, BlandConnectionError):
        words = _(
            "Nothing answers at %(url)s: no such host, no network, or a firewall. Check "
            "BLAND_SMS['BASE_URL'] and ['PROXIES']: proxies of the environment are not used."
        )
        return Finding(code="unreachable", host=BAD, message=words)
    if isinstance(error, BlandConfigurationError):
        return Finding(code="bad_url", host=BAD, message=_("Bland cannot be asked: %(error)s."))
    if isinstance(error, BlandOutcomeUnknownError) and error.status_code is None:
        words = _(
            "%(url)s took the request and did not answer it (%(error)s), so nothing is known about "
            "the key. Try again; BLAND_SMS['READ_TIMEOUT'] says how long we wait."
        )
        return Finding(code="no_answer", message=words)
    words = _(
        "What answers at %(url)s does not answer as Bland does (%(error)s). Check "
        "BLAND_SMS['BASE_URL']."
    )
    return Finding(code="odd_answer", message=words)

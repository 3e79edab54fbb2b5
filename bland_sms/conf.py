"""The BLAND_SMS setting, typed, strict, never cached."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.functional import Promise
from django.utils.module_loading import import_string
from django.utils.text import format_lazy
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, gettext_noop

from .exceptions import BlandConfigurationError

MASK = "[secret]"
_DOTTED_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", re.ASCII)
_KEY = re.compile(r"([Bb]earer )?[\x21-\x7e]+", re.ASCII)  # "Bearer <key>" is sent as given
Kind = str | Promise
"""What a value must be, in words."""
LOOPBACK = {"127.0.0.1", "localhost", "::1"}


class Secret:
    """Text that shows itself to nobody: not in ``repr``, not in ``str``, not on a debug page."""

    __slots__ = ("__text",)

    def __init__(self, text: str) -> None:
        self.__text = text

    def reveal(self) -> str:
        """The text itself, for the one line that sends it."""
        return self.__text

    def scrub(self, text: str) -> str:
        """``text`` without the secret in it. Secrets under six characters would hit by chance."""
        for part in (self.__text, self.__text.removeprefix("Bearer ")):
            if len(part) >= 6:
                text = text.replace(part, MASK)
        return text

    def __bool__(self) -> bool:
        return bool(self.__text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other.__text == self.__text

    def __hash__(self) -> int:
        return hash(self.__text)

    def __repr__(self) -> str:
        return MASK if self.__text else "''"

    def __reduce__(self) -> Any:
        raise TypeError("a secret is not pickled")


@dataclass(frozen=True, kw_only=True, slots=True)
class BlandSettings:
    """``settings.BLAND_SMS`` with its defaults. Durations are seconds.

    The words below each field are its line in ``docs/settings.md``.
    """

    api_key: Secret = field(default_factory=lambda: Secret(""))
    """Of the Bland account, see [below](#the-key). Without it nothing is copied or changed."""
    base_url: str = "https://api.bland.ai"
    """Where Bland is. https, or http on this machine alone."""
    connect_timeout: float = 5
    """Seconds for a connection."""
    read_timeout: float = 15
    """Seconds for the whole answer, headers and body; in a web request never more than the time
    left."""
    max_retries: int = 2
    """Requests for one call beyond the first one."""
    max_concurrency: int = 16
    """Requests at a time in one process."""
    rate_limit: float | None = None
    """Calls a second and process. ``None``: paced by Bland's answers alone."""
    proxies: Mapping[str, str] = field(default_factory=dict, repr=False)
    """As for requests, such as ``{"https": "http://proxy:3128"}``; the environment's are
    ignored."""
    ca_bundle: str | None = None
    """File or folder of certificates. ``None``: the usual authorities; the environment's is
    ignored."""
    page_size: int = 100
    """Conversations on a page of Bland's list."""
    list_dialect: str = "auto"
    """Which of the two documented ways the list is asked in. ``"auto"``: found out and
    remembered."""
    inline_limit: int = 25
    """Updates of up to so many conversations are carried out within the request."""
    inline_seconds: float = 10
    """For so long at the most."""
    bulk_limit: int = 10_000
    """Conversations of one update."""
    confirm_over: int = 25
    """Above so many conversations a page asks first. 0: always."""
    dispatch: str = "bland_sms.tasks.dispatch"
    """Dotted path of a function that hands work to a queue, see [background](background.md). The
    default one uses Django's Tasks."""
    default_country_code: str = "1"
    """For searches by a national number."""
    stale_after: float = 900
    """Seconds from which the copy is called old."""
    webhook_secrets: tuple[Secret, ...] = ()
    """Of the Bland account, new and old side by side. Each as ``API_KEY``; none: every webhook is
    refused."""
    webhook_max_bytes: int = 1024 * 1024
    """Longer webhooks are refused."""
    retention_days: int = 30
    """For so long deliveries and sync runs are kept."""
    ledger_retention_days: int | None = None
    """For so long finished updates are kept. ``None``: for good."""


FIELD_NAMES = {f.name for f in fields(BlandSettings)}
SETTING_NAMES = {name.upper() for name in FIELD_NAMES}


def get_settings() -> BlandSettings:
    """Read the settings now: nothing is cached, so ``override_settings`` works.

    Raises:
        ImproperlyConfigured: an unknown name, or a value of the wrong kind.
    """
    # Read in a frame of its own: this one shows up on the debug page when it raises, and must
    # not hold the key in a local variable then.
    read = read_settings(getattr(settings, "BLAND_SMS", {}))
    if isinstance(read, str):
        raise ImproperlyConfigured(read)
    return read


def read_settings(given: object) -> BlandSettings | str:
    """The settings, or in words what is wrong with them. Shows no secret and never raises."""
    if not isinstance(given, Mapping):
        return _("BLAND_SMS must be a dict")
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name not in SETTING_NAMES:
            return _unknown(name)
        kind, convert = _KINDS[name.lower()]
        try:
            values[name.lower()] = convert(value)
        except (ImportError, TypeError, ValueError):
            words = _("BLAND_SMS[%(name)r] must be %(kind)s, not %(value)r")
            if name in {"API_KEY", "WEBHOOK_SECRETS", "PROXIES"}:
                words = _("BLAND_SMS[%(name)r] must be %(kind)s")
            return words % {"name": name, "kind": kind, "value": value}
        except Exception as error:  # noqa: BLE001  a host's function; its text may hold the key
            words = _("BLAND_SMS[%(name)r] could not be read: %(error)s")
            return words % {"name": name, "error": type(error).__name__}
    return BlandSettings(**values)


def _unknown(name: object) -> str:
    near = difflib.get_close_matches(str(name).upper(), sorted(SETTING_NAMES), n=1, cutoff=0)
    words = _("BLAND_SMS: unknown setting %(name)r, did you mean %(near)r?")
    if not near:
        words = _("BLAND_SMS: unknown setting %(name)r")
    return words % {"name": name, "near": near and near[0]}


# --- kinds of values --------------------------------------------------------------------------


def _number(low: float, high: float) -> tuple[Kind, Callable[[Any], float]]:
    def convert(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError
        if not low <= value <= high:
            raise ValueError
        return value

    words = gettext_lazy("a number from {low} to {high}")
    return format_lazy(words, low=f"{low:g}", high=f"{high:.10g}"), convert


def _whole(low: int, high: int) -> tuple[Kind, Callable[[Any], int]]:
    def convert(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError
        if not low <= value <= high:
            raise ValueError
        return value

    words = gettext_lazy("a whole number from {low} to {high}")
    return format_lazy(words, low=low, high=high), convert


def _or_none(
    kind: tuple[Kind, Callable[[Any], Any]],
) -> tuple[Kind, Callable[[Any], Any]]:
    words, convert = kind
    return format_lazy(
        gettext_lazy("{kind}, or None"), kind=words
    ), lambda value: None if value is None else convert(value)


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _path(value: Any) -> str:
    text = _string(value)
    if not is_dotted_path(text):
        raise ValueError
    return text


def _digits(value: Any) -> str:
    text = _string(value)
    if not re.fullmatch(r"[1-9][0-9]{0,3}", text, re.ASCII):
        raise ValueError
    return text


def _dialect(value: Any) -> str:
    if value not in ("auto", "a", "b"):
        raise ValueError
    return str(value)


def _secret(value: Any) -> Secret:
    """A key as text, a callable that returns it, or the dotted path of such a callable."""
    if isinstance(value, Secret):
        return value
    if value is None:
        return Secret("")
    if isinstance(value, str) and is_dotted_path(value) and has_module(value):
        value = import_string(value)
    if callable(value):
        value = value()
    return Secret(_string(value).strip())


def is_dotted_path(text: str) -> bool:
    """Whether it could name a callable; a key with dots in it could too."""
    return _DOTTED_PATH.fullmatch(text) is not None


def has_module(path: str) -> bool:
    """Whether the first part of a dotted path is a module that is there."""
    try:
        return find_spec(path.partition(".")[0]) is not None
    except (ImportError, ValueError):
        return False


def _secrets(value: Any) -> tuple[Secret, ...]:
    if isinstance(value, str):
        raise TypeError
    return tuple(_secret(item) for item in value)


def _proxies(value: Any) -> Mapping[str, str]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise TypeError
    return {_string(scheme): _string(url) for scheme, url in value.items()}


_KINDS: dict[str, tuple[Kind, Callable[[Any], Any]]] = {
    "api_key": (gettext_lazy("text, or the dotted path of a callable that returns it"), _secret),
    "base_url": (gettext_lazy("text"), _string),
    "connect_timeout": _number(0.1, 60),
    "read_timeout": _number(0.1, 300),
    "max_retries": _whole(0, 2),
    "max_concurrency": _whole(1, 256),
    "rate_limit": _or_none(_number(0.01, 10_000)),
    "proxies": (gettext_lazy("a dict of scheme to URL"), _proxies),
    "ca_bundle": _or_none((gettext_lazy("the path of a file or folder of certificates"), _string)),
    "page_size": _whole(1, 1000),
    "list_dialect": (gettext_lazy('"auto", "a" or "b"'), _dialect),
    "inline_limit": _whole(0, 500),
    "inline_seconds": _number(0.1, 300),
    "bulk_limit": _whole(1, 1_000_000),
    "confirm_over": _whole(0, 1_000_000),
    "dispatch": (gettext_lazy("the dotted path of a callable"), _path),
    "default_country_code": (gettext_lazy("the digits of a country code"), _digits),
    "stale_after": _number(1, 10**9),
    "webhook_secrets": (gettext_lazy("a list of texts"), _secrets),
    "webhook_max_bytes": _whole(1, 100 * 1024 * 1024),
    "retention_days": _whole(1, 36_500),
    "ledger_retention_days": _or_none(_whole(1, 36_500)),
}


# --- what the client needs before it may send -------------------------------------------------


def check_api_key(api_key: Secret) -> None:
    """Refuse a key that cannot be sent, without showing it. Raises BlandConfigurationError."""
    if not api_key:
        raise BlandConfigurationError(
            gettext_noop("Bland is not connected yet: set BLAND_SMS['API_KEY']")
        )
    if not _KEY.fullmatch(api_key.reveal()):
        raise BlandConfigurationError(
            gettext_noop(
                "BLAND_SMS['API_KEY'] holds white space or characters that no key has: "
                "paste it again"
            )
        )


def normalise_base_url(url: str) -> str:
    """The URL without a trailing slash or version. Raises BlandConfigurationError.

    The key travels to this host and no other, so it must be https, or loopback for tests.
    """
    try:
        parts = urlsplit(url.strip())
        host, _port = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or parts.scheme not in ("http", "https"):
        raise BlandConfigurationError(
            gettext_noop("BLAND_SMS['BASE_URL'] is not a URL like https://api.bland.ai")
        )
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise BlandConfigurationError(
            gettext_noop("BLAND_SMS['BASE_URL'] must not hold a user, password, query or fragment")
        )
    if parts.scheme != "https" and host not in LOOPBACK:
        raise BlandConfigurationError(
            gettext_noop(
                "BLAND_SMS['BASE_URL'] must start with https:// unless it is on this machine"
            )
        )
    path = parts.path.rstrip("/").removesuffix("/v1").rstrip("/")
    return f"{parts.scheme}://{parts.netloc}{path}"

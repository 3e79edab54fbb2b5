"""Reads the setting BLAND_SMS: typed, strict, never cached."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from importlib.util import find_spec
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.functional import Promise
from django.utils.module_loading import import_string
from django.utils.text import format_lazy
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from .exceptions import BlandConfigurationError, without_frames

MASK = "[secret]"
SHORTEST_SECRET = 6
"""Shorter ones would be found everywhere by chance."""
_DOTTED_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", re.ASCII)
Kind = str | Promise
"""The description of the values that a setting accepts."""


class Secret:
    """Text that is not shown in ``repr``, in ``str`` or on a debug page.

    Args:
        source: The text, or a callable that returns it, which is called as late as possible: a
            page that only reads what was copied needs no vault.
    """

    __slots__ = ("__source", "name")

    def __init__(self, source: str | Callable[[], object], name: str = "API_KEY") -> None:
        self.__source, self.name = source, name
        if isinstance(source, str):
            _remember(source)

    @property
    def is_lazy(self) -> bool:
        """Whether the text is not known before a callable has returned it."""
        return not isinstance(self.__source, str)

    def read(self) -> Secret:
        """The secret with its text known. Raises BlandConfigurationError."""
        if isinstance(self.__source, str):
            return self
        read = _call(self.__source, self.name)
        if isinstance(read, str):
            raise BlandConfigurationError("secret_not_read", name=self.name, error=read)
        return read

    def reveal(self) -> str:
        """The text itself, for the one place that sends it. Raises BlandConfigurationError."""
        if isinstance(self.__source, str):
            return self.__source
        return self.read().reveal()

    def __bool__(self) -> bool:
        return bool(self.__source)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and bool(other.__source == self.__source)

    def __hash__(self) -> int:
        return hash(self.__source)

    def __repr__(self) -> str:
        return MASK if self.__source else "''"

    def __reduce__(self) -> Any:
        raise TypeError("a secret is not pickled")


def _call(source: Callable[[], object], name: str) -> Secret | str:
    """The secret that a host's callable returns, or the name of the error where there is none.

    A debug page shows the local variables of each frame that an error passes through, and these
    hold the secret: so nothing is raised from here, nor kept of what the callable raises.
    """
    try:
        text = source()
    except Exception as error:  # noqa: BLE001  a host's function; its text may hold the key
        return type(error).__name__
    except BaseException as error:  # noqa: BLE001  raised again: a time limit, by a signal
        raise without_frames(error) from None
    return Secret(text.strip(), name) if isinstance(text, str) else "TypeError"


_remembered: dict[str, None] = {}
_REMEMBERED_MAX = 64


def _remember(text: str) -> None:
    if len(text) >= SHORTEST_SECRET and text not in _remembered:
        _remembered[text] = None
        for oldest in list(_remembered)[:-_REMEMBERED_MAX]:
            _remembered.pop(oldest, None)


def known_secrets() -> frozenset[str]:
    """The text of every secret that this process has met, replaced ones included: what may be
    nowhere in what Bland says. No callable is called for it."""
    return frozenset(_remembered)


@dataclass(frozen=True, kw_only=True, slots=True)
class BlandSettings:
    """``settings.BLAND_SMS`` with its defaults. Durations are seconds.

    The text below each field is its description in ``docs/settings.md``.
    """

    api_key: Secret = field(default_factory=lambda: Secret(""))
    """API key of your Bland account, see [below](#the-key). Without it nothing is copied or
    changed."""
    base_url: str = "https://api.bland.ai"
    """Bland's base URL: https, or http on this machine only."""
    connect_timeout: float = 5
    """Time limit for opening a connection."""
    read_timeout: float = 15
    """Time limit for the whole answer, headers and body; in a web request never more than the time
    left."""
    max_retries: int = 2
    """How many times a call is repeated after its first request."""
    max_concurrency: int = 16
    """Maximum number of requests at a time, per process."""
    rate_limit: float | None = None
    """Maximum calls per second for the account, whatever the number of processes, see
    [pace](operations.md#pace). ``None``: the rate follows Bland's answers, and is remembered."""
    proxies: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Proxies in the format of ``requests``, such as ``{"https": "http://proxy:3128"}``. Proxies
    from the environment are ignored."""
    ca_bundle: str | None = None
    """Path of a file or folder of CA certificates. ``None``: the usual certificate authorities.
    The environment's certificates are ignored."""
    page_size: int = 100
    """Conversations per page of Bland's list."""
    list_dialect: str = "auto"
    """Which of the two documented query formats of the list is used. ``"auto"``: detected and
    remembered."""
    inline_limit: int = 25
    """Updates of at most this many conversations are carried out within the request."""
    inline_seconds: float = 10
    """Time limit within a request."""
    bulk_limit: int = 10_000
    """Maximum number of conversations in one update."""
    confirm_over: int = 25
    """Updates of more conversations than this are confirmed on a page first. 0: all of them."""
    dispatch: str = "bland_sms.tasks.dispatch"
    """Dotted path of a function that hands work to a queue, see [background](background.md). The
    default uses Django's Tasks."""
    work_seconds: float = 45
    """Seconds that a background task works on an update before it hands the rest to the queue
    again. Keep it well below the time limit of your task queue."""
    default_country_code: str = "1"
    """Country code of numbers in a search that have none."""
    stale_after: float = 900
    """Age in seconds from which the copy is shown as old."""
    webhook_secrets: tuple[Secret, ...] = ()
    """Webhook secrets of your Bland account, new and old side by side; each may be given like
    ``API_KEY``. Without one every webhook is refused."""
    webhook_max_bytes: int = 1024 * 1024
    """Maximum size of a webhook's body."""
    retention_days: int = 30
    """Days that webhook deliveries and sync runs are kept."""
    ledger_retention_days: int | None = None
    """Days that finished updates are kept. ``None``: always."""
    stop_words: tuple[str, ...] = (
        "stop",
        "quit",
        "end",
        "revoke",
        "opt out",
        "cancel",
        "unsubscribe",
    )
    """A customer's message that is nothing but one of these [asks to
    stop](standing.md#customers-who-write-stop); case, punctuation and white space do not matter."""
    stop_words_order: bool = False
    """Whether a customer who asks to stop gets a standing order at once, for staff to review."""
    standing_orders_per_hour: int = 200
    """How many conversations all [standing orders](standing.md) together deactivate within
    an hour before all of them are suspended."""
    api_permission_classes: tuple[str, ...] = ()
    """Dotted paths of permission classes of Django REST framework, such as one that asks for an
    OAuth scope. The API asks them as well as its own, see [API](api.md#permissions-of-your-own)."""


FIELD_NAMES = {f.name for f in fields(BlandSettings)}
SETTING_NAMES = {name.upper() for name in FIELD_NAMES}


def get_settings() -> BlandSettings:
    """Read the settings now: nothing is cached, so ``override_settings`` works.

    Raises:
        ImproperlyConfigured: an unknown name, or a value of the wrong kind.
    """
    # Read in a frame of its own: this one shows up on the debug page when it raises, and must
    # not hold the key in a local variable then.
    try:
        read = read_settings(getattr(settings, "BLAND_SMS", {}))
    except BaseException as error:  # noqa: BLE001  raised again: a time limit, by a signal
        raise without_frames(error) from None
    if isinstance(read, str):
        raise ImproperlyConfigured(read)
    return read


def read_settings(given: object) -> BlandSettings | str:
    """The settings, or a text that says what is wrong with them. Never contains a secret or
    raises."""
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
        except Exception as error:  # noqa: BLE001  a host's module; its text may hold the key
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


def _paths(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        raise TypeError
    return tuple(_path(item) for item in value)


def _digits(value: Any) -> str:
    text = _string(value)
    if not re.fullmatch(r"[1-9][0-9]{0,3}", text, re.ASCII):
        raise ValueError
    return text


def _dialect(value: Any) -> str:
    if value not in ("auto", "a", "b"):
        raise ValueError
    return str(value)


def _secret(value: Any, name: str = "API_KEY") -> Secret:
    """A key as text, a callable that returns it, or the dotted path of such a callable."""
    if isinstance(value, Secret):
        return value
    if value is None:
        return Secret("", name)
    if isinstance(value, str) and is_dotted_path(value) and has_module(value):
        value = import_string(value)
    if callable(value):
        return Secret(value, name)
    return Secret(_string(value).strip(), name)


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
    return tuple(_secret(item, "WEBHOOK_SECRETS") for item in value)


def _texts(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        raise TypeError
    return tuple(map(_string, value))


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


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
    "work_seconds": _number(1, 3600),
    "default_country_code": (gettext_lazy("the digits of a country code"), _digits),
    "stale_after": _number(1, 10**9),
    "webhook_secrets": (gettext_lazy("a list of texts"), _secrets),
    "webhook_max_bytes": _whole(1, 100 * 1024 * 1024),
    "retention_days": _whole(1, 36_500),
    "ledger_retention_days": _or_none(_whole(1, 36_500)),
    "stop_words": (gettext_lazy("a list of texts"), _texts),
    "stop_words_order": (gettext_lazy("True or False"), _flag),
    "standing_orders_per_hour": _whole(1, 1_000_000),
    "api_permission_classes": (gettext_lazy("a list of dotted paths"), _paths),
}

"""What must be right before anything is sent to Bland: the key, the base URL, the proxies."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ..conf import Secret, get_settings
from ..exceptions import BlandConfigurationError

if TYPE_CHECKING:
    import ssl

LOOPBACK = {"127.0.0.1", "localhost", "::1"}
_KEY = re.compile(r"([Bb]earer )?[\x21-\x7e]+", re.ASCII)  # "Bearer <key>" is sent as given


def check_client() -> None:
    """Raise what ``get_client`` would raise, as far as that is known without a key; what a request
    needs is not imported for it."""
    settings = get_settings()
    check_api_key(settings.api_key)
    check_proxies(normalise_base_url(settings.base_url), settings.proxies)
    if settings.ca_bundle:
        tls_context(settings.ca_bundle)


def tls_context(bundle: str) -> ssl.SSLContext:
    """Trusts what this file or folder holds; read again only when that has changed, since it takes
    longer than a request. Raises BlandConfigurationError."""
    try:
        return _read_bundle(bundle, os.stat(bundle).st_mtime_ns)
    except OSError:
        raise BlandConfigurationError("bad_ca_bundle") from None


@lru_cache(maxsize=8)
def _read_bundle(bundle: str, changed_at: int) -> ssl.SSLContext:
    import ssl

    if os.path.isdir(bundle):
        return ssl.create_default_context(capath=bundle)
    return ssl.create_default_context(cafile=bundle)


def check_api_key(api_key: Secret) -> None:
    """Refuse a key that cannot be sent, without showing it. Raises BlandConfigurationError.

    One that a callable returns is checked when it is read.
    """
    if not api_key:
        raise BlandConfigurationError("no_key")
    if not api_key.is_lazy and not _KEY.fullmatch(api_key.reveal()):
        raise BlandConfigurationError("bad_key")


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
        raise BlandConfigurationError("bad_url")
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise BlandConfigurationError("url_with_extras")
    if parts.scheme != "https" and host not in LOOPBACK:
        raise BlandConfigurationError("url_not_https")
    path = parts.path.rstrip("/").removesuffix("/v1").rstrip("/")
    return f"{parts.scheme}://{parts.netloc}{path}"


def check_proxies(base_url: str, proxies: Mapping[str, str]) -> None:
    """Refuse a proxy for plain http, which would be shown the key with each request.

    Raises BlandConfigurationError.
    """
    used = [name for name in proxies if name.partition(":")[0].strip().lower() in ("http", "all")]
    if used and base_url.strip().lower().startswith("http:"):
        raise BlandConfigurationError("proxy_sees_key")

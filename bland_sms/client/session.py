"""The one hardened ``requests.Session`` that all threads share.

It is configured once and never changed again; cookies are refused, and what the threads share
beyond it is urllib3's pool, which is thread-safe.
"""

from __future__ import annotations

import http.client
import io
import os
import ssl
import time
from http.cookiejar import DefaultCookiePolicy
from typing import Any

import requests
import urllib3
from django.utils.translation import gettext_noop
from requests.adapters import DEFAULT_CA_BUNDLE_PATH, HTTPAdapter

from .. import __version__
from ..conf import BlandSettings, Secret
from ..exceptions import BlandConfigurationError


class _KeyAuth(requests.auth.AuthBase):
    """The bare key, no ``Bearer``. As ``auth`` it is in nobody's local variables."""

    def __init__(self, api_key: Secret) -> None:
        self._api_key = api_key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["authorization"] = self._api_key.reveal()
        return request


class _Session(requests.Session):
    def get_redirect_target(self, resp: requests.Response) -> None:
        """No redirect leads anywhere; asked for one, requests would read its whole body first."""


class _DeadlineReader(io.RawIOBase):
    """Reads a socket until a moment. A socket's own timeout starts anew with every byte."""

    def __init__(self, raw: io.RawIOBase, sock: Any, deadline: float) -> None:
        self._raw, self._sock, self._deadline = raw, sock, deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self._sock.settimeout(left)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _DeadlineResponse(http.client.HTTPResponse):
    """An answer whose status, headers and body together take no longer than the read timeout."""

    def __init__(self, sock: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        seconds = sock.gettimeout()
        if seconds is not None:
            reader = _DeadlineReader(self.fp.detach(), sock, time.monotonic() + seconds)
            self.fp = io.BufferedReader(reader)

    def begin(self) -> None:
        super().begin()
        # urllib3 logs header lines that it cannot read, and such a line may repeat the key.
        self.msg.defects = []
        self.msg.set_payload("")


class _HTTPConnection(urllib3.connection.HTTPConnection):
    response_class = _DeadlineResponse


class _HTTPSConnection(urllib3.connection.HTTPSConnection):
    response_class = _DeadlineResponse


class _HTTPPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _HTTPConnection


class _HTTPSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _HTTPSConnection


_POOLS = {"http": _HTTPPool, "https": _HTTPSPool}


class _Adapter(HTTPAdapter):
    """One TLS context for all connections: urllib3 would read the CA bundle for each anew."""

    def __init__(self, context: ssl.SSLContext, pool_size: int) -> None:
        self._context = context
        super().__init__(pool_connections=4, pool_maxsize=pool_size, max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(*args, **kwargs)
        manager.pool_classes_by_scheme = _POOLS
        return manager

    def build_connection_pool_key_attributes(
        self, request: requests.PreparedRequest, verify: Any, cert: Any = None
    ) -> Any:
        host, _tls = super().build_connection_pool_key_attributes(request, verify, cert)
        return host, {"ssl_context": self._context, "cert_reqs": "CERT_REQUIRED"}

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        conn.cert_reqs = "CERT_REQUIRED"  # and no ca_certs: the context has them


def build_session(settings: BlandSettings) -> requests.Session:
    bundle = settings.ca_bundle or DEFAULT_CA_BUNDLE_PATH
    try:
        if os.path.isdir(bundle):
            context = ssl.create_default_context(capath=bundle)
        else:
            context = ssl.create_default_context(cafile=bundle)
    except OSError:
        raise BlandConfigurationError(
            gettext_noop("BLAND_SMS['CA_BUNDLE'] is not a readable file or folder of certificates")
        ) from None
    session = _Session()
    session.trust_env = False  # no proxies, .netrc or CA bundle of the environment
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    session.auth = _KeyAuth(settings.api_key)
    session.headers.update(
        {
            "User-Agent": f"bland_sms/{__version__} requests/{requests.__version__}",
            "Accept": "application/json",
            "Accept-Encoding": "identity",
        }
    )
    adapter = _Adapter(context, settings.max_concurrency)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    return session

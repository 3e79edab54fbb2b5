"""The one hardened ``requests.Session`` that all threads share.

It is configured once and never changed again; cookies are refused, and what the threads share
beyond it is urllib3's pool, which is thread-safe.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from http.cookiejar import DefaultCookiePolicy
from typing import Any

import requests
import urllib3
from requests.adapters import DEFAULT_CA_BUNDLE_PATH, HTTPAdapter
from requests.cookies import RequestsCookieJar
from requests.structures import CaseInsensitiveDict

from .. import __version__
from ..conf import BlandSettings, Secret
from .connecting import tls_context
from .wire import HTTPConnection, HTTPSConnection


class KeyAuth(requests.auth.AuthBase):
    """The bare key, without ``Bearer``. Given as ``auth`` it is in no frame's local variables."""

    def __init__(self, api_key: Secret) -> None:
        self.api_key = api_key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["authorization"] = self.api_key.reveal()
        return request


class _Headers(CaseInsensitiveDict):  # type: ignore[type-arg]
    """Made and copied in a moment, since each request has its own: tracers add to them."""

    _store: dict[str, tuple[str, str]]

    @classmethod
    def of(cls, headers: Mapping[str, str]) -> _Headers:
        made = cls.__new__(cls)
        made._store = {name.lower(): (name, value) for name, value in headers.items()}
        return made

    def copy(self) -> _Headers:
        copied = _Headers.__new__(_Headers)
        copied._store = self._store.copy()
        return copied


class _PreparedRequest(requests.PreparedRequest):
    path_url = ""
    """Known, where requests would take the URL apart for it."""


class _NoCookies(RequestsCookieJar):
    def extract_cookies(self, response: Any, request: Any) -> None:
        """Refused, whatever the answer sets."""


class Session(requests.Session):
    """Prepares what is asked of one address once, and then only fills in the path and the key."""

    def __init__(self) -> None:
        super().__init__()
        self._ready: dict[tuple[str, tuple[Any, ...]], tuple[requests.PreparedRequest, str, str]]
        self._ready = {}

    def prepared(
        self,
        method: str,
        base_url: str,
        path: str,
        params: Mapping[str, str | int] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> requests.PreparedRequest:
        """A request that is ready to be sent.

        Args:
            path: Nothing in it needs to be quoted.
        """
        if params is not None:
            url = base_url + path
            return self.prepare_request(requests.Request(method, url, params=params, json=body))
        key = method, tuple(body.items()) if body else ()
        if key not in self._ready:
            given = requests.Request(method, base_url + path, json=body)
            pattern = self.prepare_request(given)
            del pattern.headers["authorization"]
            pattern.headers = _Headers(pattern.headers)
            start = str(pattern.url).removesuffix(path)
            self._ready[key] = pattern, start, pattern.path_url.removesuffix(path)
        pattern, start, path_start = self._ready[key]
        request = _PreparedRequest()
        request.method, request.body = pattern.method, pattern.body
        request.url, request.path_url = start + path, path_start + path
        request.headers = pattern.headers.copy()
        request._cookies = pattern._cookies  # type: ignore[attr-defined]
        assert isinstance(self.auth, KeyAuth)
        return self.auth(request)

    def get_redirect_target(self, resp: requests.Response) -> None:
        """No redirect leads anywhere; asked for one, requests would read its whole body first."""


class _HTTPPool(urllib3.HTTPConnectionPool):
    @property
    def ConnectionCls(self) -> Any:  # type: ignore[override]  # noqa: N802
        return _unless_replaced(HTTPConnection, urllib3.HTTPConnectionPool)


class _HTTPSPool(urllib3.HTTPSConnectionPool):
    @property
    def ConnectionCls(self) -> Any:  # type: ignore[override]  # noqa: N802
        return _unless_replaced(HTTPSConnection, urllib3.HTTPSConnectionPool)


def _unless_replaced(ours: type, pool: Any) -> Any:
    """VCR.py records and replays by a connection class of its own in urllib3's two pool classes.
    With ours in its place a test that must not reach Bland would."""
    theirs = pool.ConnectionCls
    return ours if issubclass(ours, theirs) else theirs


_POOLS = {"http": _HTTPPool, "https": _HTTPSPool}


class _Adapter(HTTPAdapter):
    """One TLS context for all connections: urllib3 would read the CA bundle for each anew."""

    def __init__(self, context: ssl.SSLContext | None, pool_size: int) -> None:
        self._context = context
        self._pools: dict[str, Any] = {}
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

    # What follows does what requests does, for one address and without cookies, in a tenth of the
    # time.

    def get_connection_with_tls_context(
        self, request: requests.PreparedRequest, verify: Any, proxies: Any = None, cert: Any = None
    ) -> Any:
        find = super().get_connection_with_tls_context
        if proxies:
            return find(request, verify, proxies=proxies, cert=cert)
        address = "/".join(str(request.url).split("/", 3)[:3])
        if address not in self._pools:
            self._pools[address] = find(request, verify, cert=cert)
        return self._pools[address]

    def close(self) -> None:
        self._pools = {}
        super().close()

    def request_url(self, request: requests.PreparedRequest, proxies: Any) -> str:
        return super().request_url(request, proxies) if proxies else request.path_url

    def build_response(self, req: requests.PreparedRequest, resp: Any) -> requests.Response:
        response = requests.Response()
        response.status_code, response.reason = resp.status, resp.reason
        response.headers = _Headers.of(resp.headers)
        response.url, response.request = str(req.url), req
        response.raw, response.connection = resp, self
        return response


def build_session(settings: BlandSettings, auth: KeyAuth) -> Session:
    context = None  # plain http is for loopback: to read all authorities takes longer than a call
    if settings.ca_bundle or not settings.base_url.strip().lower().startswith("http:"):
        context = tls_context(settings.ca_bundle or DEFAULT_CA_BUNDLE_PATH)
    session = Session()
    session.trust_env = False  # no proxies, .netrc or CA bundle of the environment
    session.cookies = _NoCookies(DefaultCookiePolicy(allowed_domains=[]))
    session.auth = auth
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

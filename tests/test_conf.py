"""The BLAND_SMS setting: what is accepted, and in which words the rest is refused."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from bland_sms.client.connecting import check_api_key, check_proxies, normalise_base_url
from bland_sms.conf import (
    FIELD_NAMES,
    BlandSettings,
    Secret,
    get_settings,
)
from bland_sms.exceptions import BlandConfigurationError

from .conftest import KEY


def provide_key() -> str:
    """A host's own source of the key, such as a vault."""
    return f"{KEY}\n"


def refusal(settings: Any, given: Any) -> str:
    """The words in which the setting is refused."""
    settings.BLAND_SMS = given
    with pytest.raises(ImproperlyConfigured) as caught:
        get_settings()
    return str(caught.value)


# --- reading ----------------------------------------------------------------------------------


def test_get_settings__every_name_has_a_default(settings: Any) -> None:
    del settings.BLAND_SMS

    assert get_settings() == BlandSettings()


def test_get_settings__documented_defaults(settings: Any) -> None:
    settings.BLAND_SMS = {}

    read = get_settings()

    assert {name: getattr(read, name) for name in FIELD_NAMES} == {
        "api_key": Secret(""),
        "base_url": "https://api.bland.ai",
        "connect_timeout": 5,
        "read_timeout": 15,
        "max_retries": 2,
        "max_concurrency": 16,
        "rate_limit": None,
        "proxies": {},
        "ca_bundle": None,
        "page_size": 100,
        "list_dialect": "auto",
        "inline_limit": 25,
        "inline_seconds": 10,
        "bulk_limit": 10_000,
        "confirm_over": 25,
        "dispatch": "bland_sms.tasks.dispatch",
        "work_seconds": 45,
        "default_country_code": "1",
        "stale_after": 900,
        "webhook_secrets": (),
        "webhook_max_bytes": 1024 * 1024,
        "retention_days": 30,
        "ledger_retention_days": None,
        "stop_words": ("stop", "quit", "end", "revoke", "opt out", "cancel", "unsubscribe"),
        "stop_words_order": False,
        "standing_orders_per_hour": 200,
        "api_permission_classes": (),
    }


def test_get_settings__nothing_is_cached() -> None:
    with override_settings(BLAND_SMS={"PAGE_SIZE": 7}):
        assert get_settings().page_size == 7
    assert get_settings().page_size == 100


@pytest.mark.parametrize(
    "given_key",
    [KEY, f"  {KEY}\n", provide_key, f"{__name__}.provide_key", Secret(KEY)],
    ids=["text", "white space", "callable", "dotted path", "secret"],
)
def test_get_settings__api_key(given_key: object, settings: Any) -> None:
    settings.BLAND_SMS = {"API_KEY": given_key}

    assert get_settings().api_key.reveal() == KEY


def test_get_settings__api_key_with_dots_that_is_no_path(settings: Any) -> None:
    settings.BLAND_SMS = {"API_KEY": "org_a1b2.c3d4.e5f6"}

    assert get_settings().api_key.reveal() == "org_a1b2.c3d4.e5f6"


def test_get_settings__webhook_secrets(settings: Any) -> None:
    settings.BLAND_SMS = {"WEBHOOK_SECRETS": ["new-secret", f"{__name__}.provide_key"]}

    texts = [secret.reveal() for secret in get_settings().webhook_secrets]
    assert texts == ["new-secret", KEY]


def vault_that_is_down() -> str:
    raise LookupError(KEY)


@pytest.mark.parametrize("name", ["API_KEY", "WEBHOOK_SECRETS"])
def test_secret__a_callable_is_called_when_it_is_needed(name: str, settings: Any) -> None:
    """Pages that only read what was copied go on when the vault is down."""
    given = vault_that_is_down if name == "API_KEY" else [vault_that_is_down]
    settings.BLAND_SMS = {name: given}

    read = get_settings()
    secret = read.api_key if name == "API_KEY" else read.webhook_secrets[0]
    with pytest.raises(BlandConfigurationError) as caught:
        secret.reveal()

    assert str(caught.value) == (
        f"BLAND_SMS['{name}'] could not be read: the callable that returns it failed (LookupError)"
    )
    assert caught.value.__cause__ is caught.value.__context__ is None
    assert KEY not in repr(secret)


def test_secret__equal_by_its_callable() -> None:
    assert Secret(provide_key) == Secret(provide_key) != Secret(vault_that_is_down)
    assert bool(Secret(vault_that_is_down)) is True


@pytest.mark.parametrize(
    ("base_url", "proxies", "is_refused"),
    [
        ("http://127.0.0.1:1", {"http": "http://proxy"}, True),
        ("HTTP://127.0.0.1:1", {"all": "http://proxy"}, True),
        ("http://127.0.0.1:1", {"http://127.0.0.1": "http://proxy"}, True),
        ("http://127.0.0.1:1", {"https": "http://proxy"}, False),
        ("https://api.bland.ai", {"http": "http://proxy", "all": "http://proxy"}, False),
        ("http://127.0.0.1:1", {}, False),
    ],
)
def test_check_proxies(base_url: str, proxies: dict[str, str], is_refused: bool) -> None:
    caught: Any = pytest.raises(BlandConfigurationError) if is_refused else nullcontext()

    with caught:
        check_proxies(base_url, proxies)


# --- refusing ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("API_KEYS", "API_KEY"),
        ("TIMEOUT", "READ_TIMEOUT"),
        ("RETRIES", "MAX_RETRIES"),
        ("WEBHOOK_SECRET", "WEBHOOK_SECRETS"),
        ("api_key", "API_KEY"),
        ("Page_Size", "PAGE_SIZE"),
    ],
)
def test_get_settings__unknown_name_suggests_the_nearest(
    name: str, nearest: str, settings: Any
) -> None:
    words = refusal(settings, {"API_KEY": KEY, name: KEY})

    assert f"unknown setting {name!r}, did you mean {nearest!r}?" in words
    assert KEY not in words


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("READ_TIMEOUT", "15", "a number from 0.1 to 300, not '15'"),
        ("READ_TIMEOUT", 0, "a number from 0.1 to 300, not 0"),
        ("READ_TIMEOUT", float("nan"), "a number from 0.1 to 300, not nan"),
        ("CONNECT_TIMEOUT", None, "a number from 0.1 to 60, not None"),
        ("MAX_RETRIES", 3, "a whole number from 0 to 2, not 3"),
        ("MAX_RETRIES", True, "a whole number from 0 to 2, not True"),
        ("MAX_CONCURRENCY", 0, "a whole number from 1 to 256, not 0"),
        ("RATE_LIMIT", 0, "a number from 0.01 to 10000, or None, not 0"),
        ("PAGE_SIZE", 1001, "a whole number from 1 to 1000, not 1001"),
        ("LIST_DIALECT", "c", """"auto", "a" or "b", not 'c'"""),
        ("DISPATCH", "dispatch", "the dotted path of a callable, not 'dispatch'"),
        ("DEFAULT_COUNTRY_CODE", "+1", "the digits of a country code, not '+1'"),
        ("CA_BUNDLE", 1, "the path of a file or folder of certificates, or None, not 1"),
        ("BASE_URL", None, "text, not None"),
        ("RETENTION_DAYS", 1.5, "a whole number from 1 to 36500, not 1.5"),
    ],
)
def test_get_settings__wrong_kind(name: str, value: object, kind: str, settings: Any) -> None:
    assert refusal(settings, {name: value}) == f"BLAND_SMS[{name!r}] must be {kind}"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("API_KEY", [KEY]),
        ("API_KEY", KEY.encode()),
        ("WEBHOOK_SECRETS", KEY),
        ("WEBHOOK_SECRETS", [KEY, 7]),
        ("PROXIES", f"http://{KEY}@proxy"),
        ("PROXIES", {"https": [f"http://{KEY}@proxy"]}),
    ],
)
def test_get_settings__wrong_kind_of_secret_is_not_shown(
    name: str, value: object, settings: Any
) -> None:
    words = refusal(settings, {name: value})

    assert words.startswith(f"BLAND_SMS[{name!r}] must be ")
    assert KEY not in words


@pytest.mark.parametrize("given_key", [f"{__name__}.no_such_function", "bland_sms.nowhere.key"])
def test_get_settings__dotted_path_to_nothing(given_key: str, settings: Any) -> None:
    assert refusal(settings, {"API_KEY": given_key}).startswith("BLAND_SMS['API_KEY'] must be text")


@pytest.mark.parametrize("given", [None, [], "API_KEY", 7])
def test_get_settings__not_a_dict(given: object, settings: Any) -> None:
    assert refusal(settings, given) == "BLAND_SMS must be a dict"


# --- secrets ----------------------------------------------------------------------------------


@pytest.mark.parametrize("show", [repr, str, "{}".format, "{!r}".format, "%s".__mod__])
def test_secret__shows_itself_to_nobody(show: Any) -> None:
    assert KEY not in show(Secret(KEY))


def test_secret__is_not_pickled() -> None:
    with pytest.raises(TypeError):
        pickle.dumps(Secret(KEY))


def test_secret__equal_by_content() -> None:
    assert Secret(KEY) == Secret(KEY) != Secret("another")
    assert Secret(KEY) != KEY


@pytest.mark.parametrize(
    "given",
    [
        {"API_KEY": KEY},
        {"WEBHOOK_SECRETS": [KEY]},
        {"PROXIES": {"https": f"http://user:{KEY}@proxy.example.com"}},
    ],
    ids=lambda given: next(iter(given)),
)
def test_settings__secrets_are_not_in_repr(given: Mapping[str, Any], settings: Any) -> None:
    settings.BLAND_SMS = given

    assert KEY not in repr(get_settings())


# --- before anything is sent ------------------------------------------------------------------


@pytest.mark.parametrize("key", [KEY, f"Bearer {KEY}", "sk-a/b+c=="])
def test_check_api_key__accepts(key: str) -> None:
    check_api_key(Secret(key))


@pytest.mark.parametrize(
    "key",
    ["org ab", f"{KEY}\n{KEY}", f"{KEY}\r\nX: y", f"a b {KEY}", f"{KEY}é", f"{KEY}\t{KEY}", "\x00"],
)
def test_check_api_key__refuses_without_showing_it(key: str) -> None:
    with pytest.raises(BlandConfigurationError, match="API_KEY") as caught:
        check_api_key(Secret(key))

    assert KEY not in str(caught.value)


def test_check_api_key__missing() -> None:
    with pytest.raises(BlandConfigurationError, match=r"set BLAND_SMS\['API_KEY'\]"):
        check_api_key(Secret(""))


@pytest.mark.parametrize(
    ("url", "normal"),
    [
        ("https://api.bland.ai", "https://api.bland.ai"),
        (" https://api.bland.ai/\n", "https://api.bland.ai"),
        ("https://api.bland.ai/v1", "https://api.bland.ai"),
        ("https://api.bland.ai/v1/", "https://api.bland.ai"),
        ("https://gateway.example.com/bland/v1/", "https://gateway.example.com/bland"),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("http://localhost:8000/", "http://localhost:8000"),
        ("http://[::1]:8000", "http://[::1]:8000"),
    ],
)
def test_normalise_base_url__accepts(url: str, normal: str) -> None:
    assert normalise_base_url(url) == normal


@pytest.mark.parametrize(
    "url",
    [
        "",
        "api.bland.ai",
        "ftp://api.bland.ai",
        "https://",
        "https://host:99999",
        "https://[::1",
        "http://api.bland.ai",
        "http://127.0.0.1.example.com",
        "http://10.0.0.1",
        f"https://{KEY}@api.bland.ai",
        f"https://user:{KEY}@api.bland.ai",
        "https://@api.bland.ai",
        f"https://api.bland.ai/?key={KEY}",
        f"https://api.bland.ai/#{KEY}",
        "http://localhost\\.example.com",
        "http://localhost\\@example.com",
    ],
)
def test_normalise_base_url__refuses_without_showing_it(url: str) -> None:
    with pytest.raises(BlandConfigurationError, match="BASE_URL") as caught:
        normalise_base_url(url)

    assert KEY not in str(caught.value)

"""Tools of a host's tests that record HTTP, and what prints it, see our requests as any others."""

from __future__ import annotations

import gc
import http.client
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bland_sms.client import get_client
from bland_sms.sandbox import BlandSandbox

from .conftest import KEY
from .test_engines import need

# On older Pythons VCR.py leaves the sockets of what it replaces to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
ID = "conv_1"


@pytest.fixture(autouse=True)
def conversation(sandbox: BlandSandbox) -> Iterator[None]:
    """There is one, and a connection that was opened before any recorder came."""
    sandbox.account.add({"id": ID})
    get_client().get_conversation(ID)
    sandbox.log.clear()
    yield
    gc.collect()  # here, where the warnings are expected


@pytest.mark.parametrize("base_url", ["", "https://api.bland.ai"])
def test_vcr__lets_nothing_out_that_is_not_recorded(
    base_url: str, sandbox: BlandSandbox, set_bland: Callable[..., None], tmp_path: Path
) -> None:
    need("vcr")
    import vcr

    set_bland(BASE_URL=base_url or sandbox.base_url)
    with (
        vcr.use_cassette(str(tmp_path / "none.yaml"), record_mode="none"),
        pytest.raises(vcr.errors.CannotOverwriteExistingCassetteException),
    ):
        get_client().update_conversation(ID, is_active=False)
    assert sandbox.requests() == []
    assert sandbox.is_active(ID)


def test_vcr__records_and_replays(sandbox: BlandSandbox, tmp_path: Path) -> None:
    need("vcr")
    import vcr

    cassette = tmp_path / "one.yaml"
    for _ in range(2):
        with vcr.use_cassette(str(cassette), filter_headers=["authorization"]) as tape:
            assert get_client().get_conversation(ID).id == ID
        assert len(sandbox.requests()) == 1
    assert tape.play_count == 1
    assert KEY not in cassette.read_text()
    get_client().get_conversation(ID)  # and afterwards as before
    assert len(sandbox.requests()) == 2


def test_debuglevel__prints_no_key(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(http.client.HTTPConnection, "debuglevel", 1)
    get_client()._session.close()  # so that a new connection is opened
    get_client().get_conversation(ID)
    assert capfd.readouterr().out == ""

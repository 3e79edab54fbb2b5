"""Verifies that a webhook's body was signed with one of our secrets."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

from django.utils.crypto import constant_time_compare
from django.views.decorators.debug import sensitive_variables

from ..conf import Secret
from ..exceptions import without_frames


@sensitive_variables()
def is_signed(body: bytes, signature: str, secrets: Sequence[Secret]) -> bool:
    """Whether one of the secrets made this signature. All are tried, so that the time taken
    does not tell which.

    Source: X-Webhook-Signature, https://docs.bland.ai/tutorials/webhook-signing
    """
    try:
        matches = [_made(secret, body, signature) for secret in secrets]
    except BaseException as error:  # noqa: BLE001  raised again: a server's time limit, by a signal
        raise without_frames(error) from None
    return any(matches)


def _made(secret: Secret, body: bytes, signature: str) -> bool:
    """The frames below this one hold the secret."""
    made = hmac.new(_bytes_of(secret), body, hashlib.sha256)
    return constant_time_compare(made.hexdigest(), signature)


def _bytes_of(secret: Secret) -> bytes:
    return secret.reveal().encode("utf-8", "surrogateescape")

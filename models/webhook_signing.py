"""The secrets that sign webhooks, and the signatures.

Signed according to Standard Webhooks: `webhook-id` is the same for all attempts of a delivery, `webhook-timestamp` is
the attempt's, `webhook-signature` contains one `v1,…` per valid secret, separated by spaces.
"""

import base64
import hashlib
import hmac
import os
from collections.abc import Iterable
from dataclasses import dataclass

SECRET_PREFIX = "whsec_"
SECRET_BYTES = 32
ROTATION_S = 86_400.0
"""How long a replaced secret keeps signing in addition to the new one."""

SECRET_READ = "webhook.secret.read"
"""The audited action of reading the secrets for webhooks to callback URLs."""


@dataclass(frozen=True, slots=True)
class Signing:
    """What a delivery is signed with, or why its receiver is disabled."""

    secrets: tuple[str, ...]
    refused: str | None = None


def callback_owner(tenant: str) -> str:
    """The owner of the secrets for a tenant's callback URLs."""
    return f"tenant:{tenant}"


def new_secret() -> str:
    return SECRET_PREFIX + base64.b64encode(os.urandom(SECRET_BYTES)).decode()


def signature(secret: str, webhook_id: str, timestamp: int, body: bytes) -> str:
    """One `v1,…`: HMAC-SHA256 of id, timestamp and body, joined by dots."""
    signed = f"{webhook_id}.{timestamp}.".encode() + body
    key = base64.b64decode(secret.removeprefix(SECRET_PREFIX))
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


def signed_headers(secrets: Iterable[str], webhook_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The headers by which a receiver verifies an attempt."""
    return {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(signature(secret, webhook_id, timestamp, body) for secret in secrets),
    }

"""Keys of the HTTP API: their format, what is stored of them, and how one is verified.

A key is `us_<id>_<secret>`. The id may be shown and logged; only the SHA-256 of the secret is stored, which is enough
for 200 random bits: they cannot be guessed by brute force.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
"""Without letters that are easily confused with digits or with each other."""

ID_CHARS = 12
SECRET_CHARS = 40  # 200 bits
SHAPE = re.compile(rf"us_([{ALPHABET}]{{{ID_CHARS}}})_([{ALPHABET}]{{{SECRET_CHARS}}})", re.ASCII)
NO_HASH = "0" * 64


class Scope(StrEnum):
    READ = "read"  # see the tenant's own jobs, batches and files
    SUBMIT = "submit"  # create and cancel them
    ADMIN = "admin"  # the tenant's own keys, webhooks and audit


INCLUDED = {
    Scope.READ: frozenset({Scope.READ}),
    Scope.SUBMIT: frozenset({Scope.READ, Scope.SUBMIT}),
    Scope.ADMIN: frozenset(Scope),
}
"""What each scope allows."""


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that was just created. Only `text` contains its secret, and no representation shows it."""

    id: str
    hash: str = field(repr=False)
    text: str = field(repr=False)


KeyState = Literal["active", "expired", "revoked"]


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """A key as stored in the ledger."""

    id: str
    tenant: str
    name: str
    hash: str = field(repr=False)
    scopes: frozenset[Scope]
    created_at: float
    expires_at: float | None = None
    revoked_at: float | None = None

    def state(self, now: float) -> KeyState:
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= now else "active"

    def allows(self) -> frozenset[Scope]:
        return frozenset().union(*(INCLUDED[scope] for scope in self.scopes))


def new_key() -> NewKey:
    id_, secret = _random(ID_CHARS), _random(SECRET_CHARS)
    return NewKey(id_, secret_hash(secret), f"us_{id_}_{secret}")


def parts_of(text: str) -> tuple[str, str] | None:
    """Id and secret; None if it is not a key of ours."""
    match = SHAPE.fullmatch(text)
    return None if match is None else (match[1], match[2])


def is_right(secret: str, record: KeyRecord | None) -> bool:
    """Takes as long for a nonexistent key as for a wrong secret."""
    same = hmac.compare_digest(secret_hash(secret), record.hash if record else NO_HASH)
    return same and record is not None


def secret_hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def written(scopes: Iterable[Scope]) -> str:
    """Scopes as stored in the ledger."""
    given = set(scopes)
    return " ".join(scope for scope in Scope if scope in given)


def _random(chars: int) -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(chars))

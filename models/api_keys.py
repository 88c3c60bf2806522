"""Keys of the HTTP API: what they look like, what is kept of them, and how one is known again.

A key is `us_<id>_<secret>`. The id may be shown and logged; of the secret only its SHA-256 is kept, which is enough
for 200 random bits: nobody can try them all.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
"""Without the letters that are taken for digits or for each other."""

ID_CHARS = 12
SECRET_CHARS = 40  # 200 bits
SHAPE = re.compile(rf"us_([{ALPHABET}]{{{ID_CHARS}}})_([{ALPHABET}]{{{SECRET_CHARS}}})", re.ASCII)
NO_HASH = "0" * 64


class Scope(StrEnum):
    READ = "read"  # look at the tenant's own jobs, batches and files
    SUBMIT = "submit"  # make and cancel them
    ADMIN = "admin"  # the tenant's own keys, webhooks and audit


INCLUDED = {
    Scope.READ: frozenset({Scope.READ}),
    Scope.SUBMIT: frozenset({Scope.READ, Scope.SUBMIT}),
    Scope.ADMIN: frozenset(Scope),
}
"""What each scope allows."""


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that was just made. `text` is the only place where its secret is, and no representation shows it."""

    id: str
    hash: str = field(repr=False)
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """A key as the ledger keeps it."""

    id: str
    tenant: str
    name: str
    hash: str = field(repr=False)
    scopes: frozenset[Scope]
    created_at: float
    expires_at: float | None = None
    revoked_at: float | None = None

    def state(self, now: float) -> str:
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= now else "active"

    def allows(self) -> frozenset[Scope]:
        return frozenset().union(*(INCLUDED[scope] for scope in self.scopes))


def new_key() -> NewKey:
    id_, secret = _random(ID_CHARS), _random(SECRET_CHARS)
    return NewKey(id_, secret_hash(secret), f"us_{id_}_{secret}")


def parts_of(text: str) -> tuple[str, str] | None:
    """Id and secret; None when it is no key of ours."""
    match = SHAPE.fullmatch(text)
    return None if match is None else (match[1], match[2])


def is_right(secret: str, record: KeyRecord | None) -> bool:
    """Takes as long for a key that does not exist as for a wrong secret."""
    same = hmac.compare_digest(secret_hash(secret), record.hash if record else NO_HASH)
    return same and record is not None


def secret_hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def written(scopes: Iterable[Scope]) -> str:
    """Scopes as the ledger writes them."""
    given = set(scopes)
    return " ".join(scope for scope in Scope if scope in given)


def _random(chars: int) -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(chars))

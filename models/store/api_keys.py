"""Keys of the HTTP API."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, Select, bindparam, func, insert, literal_column, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from understudy.models.api_keys import KeyRecord, NewKey, Scope, written
from understudy.models.store.audit import record_act
from understudy.models.store.ledger import Area
from understudy.models.store.sql import NOW, api_key, clean

INSERT_KEY = insert(api_key).values(created_at=NOW)
"""A new key, of which only the hash is stored."""

KEY = select(api_key).where(api_key.c.id == bindparam("key_id"))
"""A key by id."""

KEYS = (
    select(api_key)
    .where(or_(bindparam("tenant") == "", api_key.c.tenant == bindparam("tenant")))
    .order_by(api_key.c.tenant, api_key.c.created_at, api_key.c.id)
)
"""The keys of a tenant, or of all, oldest first."""

ANY_KEY: Select[Any] = select(literal_column("1")).select_from(api_key).where(api_key.c.revoked_at.is_(None)).limit(1)
"""Whether a key exists that was not revoked."""

KEYS_LOCK = 0x75736B6579  # "uskey"

ONE_MAKES_KEYS = select(func.pg_advisory_xact_lock(KEYS_LOCK))
"""Processes that check whether a key exists do so one after the other."""

REVOKE_KEY = (
    update(api_key)
    .where(
        api_key.c.id == bindparam("key_id"),
        api_key.c.revoked_at.is_(None),
        or_(bindparam("of_tenant") == "", api_key.c.tenant == bindparam("of_tenant")),
    )
    .values(revoked_at=NOW)
    .returning(api_key.c.tenant, api_key.c.name, api_key.c.scopes)
)
"""Revoke a key, unless it was revoked before."""


class ApiKeys(Area):
    async def add(
        self,
        new: NewKey,
        *,
        tenant: str,
        name: str,
        scopes: Sequence[Scope],
        expires_at: float | None = None,
        actor: str,
    ) -> KeyRecord:
        """Store a key that was just created; its secret is not stored."""
        async with self._db.write() as connection:
            return await _add_key(
                connection, new, tenant=tenant, name=name, scopes=scopes, expires_at=expires_at, actor=actor
            )

    async def add_first(
        self, new: NewKey, *, tenant: str, name: str, scopes: Sequence[Scope], actor: str
    ) -> KeyRecord | None:
        """The same, unless a key exists that was not revoked: of processes starting together only one creates it."""
        async with self._db.write() as connection:
            if connection.dialect.name == "postgresql":
                await connection.execute(ONE_MAKES_KEYS)
            if (await connection.execute(ANY_KEY)).first() is not None:
                return None
            return await _add_key(connection, new, tenant=tenant, name=name, scopes=scopes, actor=actor)

    async def find(self, key_id: str) -> KeyRecord | None:
        row = await self._db.row(KEY, {"key_id": clean(key_id)})
        return None if row is None else _key(row)

    async def owner_of(self, key_id: str) -> str | None:
        """The tenant of a key, whatever its state; None: no such key."""
        row = await self._db.row(KEY, {"key_id": clean(key_id)})
        return None if row is None else str(row.tenant)

    async def listed(self, tenant: str | None = None) -> list[KeyRecord]:
        """The keys of a tenant or, without one, of all, including revoked ones."""
        return [_key(row) for row in await self._db.rows(KEYS, {"tenant": tenant or ""})]

    async def exist(self) -> bool:
        """Whether any key was created and not revoked. Expired keys count: access never opens by itself."""
        return await self._db.row(ANY_KEY) is not None

    async def revoke(self, key_id: str, *, tenant: str | None = None, actor: str) -> bool:
        """False if there is no such key (of this tenant), or if it was revoked before."""
        async with self._db.write() as connection:
            asked = {"key_id": clean(key_id), "of_tenant": tenant or ""}
            ended = (await connection.execute(REVOKE_KEY, asked)).first()
            if ended is not None:
                was = {"name": ended.name, "scopes": ended.scopes}
                await record_act(connection, actor, ended.tenant, "key.revoke", key_id, was)
            return ended is not None


async def _add_key(
    connection: AsyncConnection,
    new: NewKey,
    *,
    tenant: str,
    name: str,
    scopes: Sequence[Scope],
    expires_at: float | None = None,
    actor: str,
) -> KeyRecord:
    row = {
        "id": new.id,
        "tenant": tenant,
        "name": clean(name),
        "hash": new.hash,
        "scopes": written(scopes),
        "expires_at": expires_at,
    }
    await connection.execute(INSERT_KEY, row)
    made = {"name": name, "scopes": row["scopes"], "expires_at": expires_at}
    await record_act(connection, actor, tenant, "key.create", new.id, None, made)
    return _key((await connection.execute(KEY, {"key_id": new.id})).one())


def _key(row: Row[Any]) -> KeyRecord:
    columns = dict(row._mapping)
    return KeyRecord(**columns | {"scopes": frozenset(Scope(each) for each in row.scopes.split())})

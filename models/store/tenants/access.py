"""Authorization: API keys, and tenants."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import orjson
from sqlalchemy import Row, Select, bindparam, func, insert, literal_column, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from understudy.models.api_keys import KeyRecord, NewKey, Scope, written
from understudy.models.routing.data_rules import Rules, Tags
from understudy.models.store.audit import changes, record_act
from understudy.models.store.ledger import Area
from understudy.models.store.sql import NOW, api_key, clean, tenant
from understudy.models.tenants import StoreContent, TenantLimits

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

TENANTS = select(tenant).order_by(tenant.c.name)
"""The tenants with a row."""

LIMITS = (
    *("jobs_per_minute", "queued_jobs", "usd_per_month", "weight", "store_content"),
    *("stored_bytes", "open_batches"),
)
RULES = ("require", "forbid", "allow")

LIMITS_OF = select(tenant).where(tenant.c.name == bindparam("name"))
"""A tenant's limits and rules."""


def _put_tenant(dialect: Any) -> Any:
    put = dialect.insert(tenant).values(created_at=NOW)
    return put.on_conflict_do_update(
        index_elements=["name"], set_={each: put.excluded[each] for each in LIMITS + RULES}
    )


PUT_TENANT = {"sqlite": _put_tenant(sqlite), "postgresql": _put_tenant(postgresql)}
"""Replace a tenant's limits and rules."""


def _put_content(dialect: Any) -> Any:
    put = dialect.insert(tenant).values(created_at=NOW)
    return put.on_conflict_do_update(index_elements=["name"], set_={"store_content": put.excluded.store_content})


PUT_CONTENT = {"sqlite": _put_content(sqlite), "postgresql": _put_content(postgresql)}
"""Set how long a tenant's content is kept; its limits are unchanged."""


class Access(Area):
    async def add_key(
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

    async def add_first_key(
        self, new: NewKey, *, tenant: str, name: str, scopes: Sequence[Scope], actor: str
    ) -> KeyRecord | None:
        """The same, unless a key exists that was not revoked: of processes starting together only one creates it."""
        async with self._db.write() as connection:
            if connection.dialect.name == "postgresql":
                await connection.execute(ONE_MAKES_KEYS)
            if (await connection.execute(ANY_KEY)).first() is not None:
                return None
            return await _add_key(connection, new, tenant=tenant, name=name, scopes=scopes, actor=actor)

    async def key(self, key_id: str) -> KeyRecord | None:
        async with self._db.read() as connection:
            row = (await connection.execute(KEY, {"key_id": clean(key_id)})).first()
        return None if row is None else _key(row)

    async def owner_of_key(self, key_id: str) -> str | None:
        """The tenant of a key, whatever its state; None: no such key."""
        async with self._db.read() as connection:
            row = (await connection.execute(KEY, {"key_id": clean(key_id)})).first()
        return None if row is None else str(row.tenant)

    async def keys(self, tenant: str | None = None) -> list[KeyRecord]:
        """The keys of a tenant or, without one, of all, including revoked ones."""
        async with self._db.read() as connection:
            return [_key(row) for row in await connection.execute(KEYS, {"tenant": tenant or ""})]

    async def has_keys(self) -> bool:
        """Whether any key was created and not revoked. Expired keys count: access never opens by itself."""
        async with self._db.read() as connection:
            return (await connection.execute(ANY_KEY)).first() is not None

    async def revoke_key(self, key_id: str, *, tenant: str | None = None, actor: str) -> bool:
        """False if there is no such key (of this tenant), or if it was revoked before."""
        async with self._db.write() as connection:
            asked = {"key_id": clean(key_id), "of_tenant": tenant or ""}
            ended = (await connection.execute(REVOKE_KEY, asked)).first()
            if ended is not None:
                was = {"name": ended.name, "scopes": ended.scopes}
                await record_act(connection, actor, ended.tenant, "key.revoke", key_id, was)
            return ended is not None

    async def limits(self) -> list[TenantLimits]:
        """The tenants with limits."""
        async with self._db.read() as connection:
            return [limits_of(row) for row in await connection.execute(TENANTS)]

    async def rules(self, name: str) -> Rules:
        """The rules for every job of a tenant accepted from now on."""
        async with self._db.read() as connection:
            return (await _limits(connection, name)).rules

    async def set_limits(self, limits: TenantLimits, *, actor: str) -> None:
        """Replace a tenant's limits. API processes notice within seconds."""
        row = {"name": limits.name, **{each: getattr(limits, each) for each in LIMITS}}
        row |= {each: orjson.dumps(tags).decode() if (tags := getattr(limits, each)) else None for each in RULES}
        row["allow"] = None if limits.allow is None else orjson.dumps(limits.allow).decode()
        async with self._db.write() as connection:
            before = await _limits(connection, limits.name)
            await connection.execute(PUT_TENANT[connection.dialect.name], row)
            old, new = changes(asdict(before), asdict(limits))
            await record_act(connection, actor, limits.name, "tenant.set", limits.name, old, new)

    async def set_store_content(self, tenant: str, keep: StoreContent | None, *, actor: str) -> None:
        """How long a tenant's prompts and answers are kept; None: the installation's setting."""
        row = {"name": tenant, "store_content": keep, "weight": TenantLimits(tenant).weight}
        async with self._db.write() as connection:
            before = await _limits(connection, tenant)
            await connection.execute(PUT_CONTENT[connection.dialect.name], row)
            old, new = {"store_content": before.store_content}, {"store_content": keep}
            await record_act(connection, actor, tenant, "tenant.set", tenant, old, new)


async def _limits(connection: AsyncConnection, name: str) -> TenantLimits:
    row = (await connection.execute(LIMITS_OF, {"name": name})).first()
    return TenantLimits(name) if row is None else limits_of(row)


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


def limits_of(row: Row[Any]) -> TenantLimits:
    limits: dict[str, Any] = {each: getattr(row, each) for each in LIMITS}
    allow = None if row.allow is None else tuple(orjson.loads(row.allow))
    return TenantLimits(row.name, **limits, require=_tags(row.require), forbid=_tags(row.forbid), allow=allow)


def _tags(written: str | None) -> Tags:
    return {} if written is None else {tag: tuple(values) for tag, values in orjson.loads(written).items()}


def _key(row: Row[Any]) -> KeyRecord:
    columns = dict(row._mapping)
    return KeyRecord(**columns | {"scopes": frozenset(Scope(each) for each in row.scopes.split())})

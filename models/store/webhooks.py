"""Administration of webhooks: endpoints, their secrets, the delivery log, replays."""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from sqlalchemy import Row, Select, bindparam, case, delete, insert, literal_column, or_, select, update

from understudy.models.ids import new_id
from understudy.models.store.audit import record_act
from understudy.models.store.ledger import Area
from understudy.models.store.sql import (
    NOW,
    SLICE,
    BulkInsert,
    clean,
    webhook_delivery,
    webhook_endpoint,
    webhook_secret,
)
from understudy.models.webhook_events import DEAD, PENDING, Delivery
from understudy.models.webhook_signing import ROTATION_S, Signing, new_secret

_row = webhook_delivery.c
_pending = _row.state == literal_column("'pending'")

SECRETS_IN_FORCE = (
    select(webhook_secret.c.secret)
    .where(
        webhook_secret.c.owner == bindparam("owner"),
        or_(webhook_secret.c.retires_at.is_(None), webhook_secret.c.retires_at > NOW),
    )
    .order_by(webhook_secret.c.retires_at.is_not(None), webhook_secret.c.id.desc())
)
"""The current signing secrets of an owner, newest first."""

RETIRE_SECRETS = (
    update(webhook_secret)
    .where(webhook_secret.c.owner == bindparam("whose"), webhook_secret.c.retires_at.is_(None))
    .values(retires_at=NOW + ROTATION_S)
)
"""The current secret remains valid for one more day."""

INSERT_SECRETS = BulkInsert(webhook_secret, conflict="ignored")
"""A secret."""

ENDPOINT_DISABLED = select(webhook_endpoint.c.disabled).where(webhook_endpoint.c.id == bindparam("endpoint_id"))
"""Why an endpoint is disabled, if so."""

DISABLE_ENDPOINT = (
    update(webhook_endpoint)
    .where(webhook_endpoint.c.id == bindparam("to"), webhook_endpoint.c.disabled.is_(None))
    .values(disabled=bindparam("reason"))
    .returning(webhook_endpoint.c.id)
)
"""Disable an endpoint."""

GIVE_UP_SLICE = (
    update(webhook_delivery)
    .where(
        _row.id.in_(
            select(_row.id)
            .where(_pending, _row.receiver == bindparam("to"))
            .limit(SLICE)
            .with_for_update(skip_locked=True)
        )
    )
    .values(state=DEAD, claimed_by=None, ended_at=NOW, last_error=bindparam("reason"))
    .returning(_row.id)
)
"""Give up some deliveries pending for an endpoint."""

INSERT_ENDPOINT = insert(webhook_endpoint).values(created_at=NOW, disabled=None)
"""A new endpoint."""

ENDPOINTS = (
    select(webhook_endpoint).where(webhook_endpoint.c.tenant == bindparam("tenant")).order_by(webhook_endpoint.c.id)
)
"""A tenant's endpoints, oldest first."""

ENDPOINT = select(webhook_endpoint).where(
    webhook_endpoint.c.tenant == bindparam("tenant"), webhook_endpoint.c.id == bindparam("endpoint_id")
)
"""One endpoint of a tenant."""

ENABLE_ENDPOINT = (
    update(webhook_endpoint)
    .where(webhook_endpoint.c.tenant == bindparam("whose"), webhook_endpoint.c.id == bindparam("endpoint_id"))
    .values(disabled=None)
    .returning(webhook_endpoint.c.id)
)
"""Enable an endpoint."""

DELETE_ENDPOINT = (
    delete(webhook_endpoint)
    .where(webhook_endpoint.c.tenant == bindparam("whose"), webhook_endpoint.c.id == bindparam("endpoint_id"))
    .returning(webhook_endpoint.c.url, webhook_endpoint.c.events)
)
"""Remove an endpoint."""

DELETE_SECRETS = delete(webhook_secret).where(webhook_secret.c.owner == bindparam("whose"))
"""Remove its secrets."""

_endpoint_is_told = (
    select(webhook_endpoint.c.id)
    .where(webhook_endpoint.c.id == _row.endpoint_id, webhook_endpoint.c.disabled.is_(None))
    .exists()
)

_can_be_told = or_(_row.endpoint_id.is_(None), _endpoint_is_told)

_again = {
    "state": PENDING,
    "next_at": case((_row.claimed_by.is_(None), NOW), else_=_row.next_at),
    "tries": case((_row.state == literal_column("'pending'"), _row.tries), else_=0),
    "ended_at": None,
}

REPLAY = (
    update(webhook_delivery)
    .where(_row.tenant == bindparam("whose"), _row.id == bindparam("delivery_id"), _can_be_told)
    .values(**_again)
    .returning(_row.id)
)
"""Make a delivery due at once under its old id, keeping the log of earlier attempts."""

REPLAY_SLICE = (
    update(webhook_delivery)
    .where(
        _row.id.in_(
            select(_row.id)
            .where(
                _row.tenant == bindparam("whose"),
                _row.state == DEAD,
                _row.created_at >= bindparam("since"),
                _can_be_told,
            )
            .limit(SLICE)
            .with_for_update(skip_locked=True, of=webhook_delivery)
        )
    )
    .values(**_again)
    .returning(_row.id)
)
"""Make some of a tenant's dead deliveries due at once."""

DELETE_ENDED_SLICE = (
    delete(webhook_delivery)
    .where(_row.id.in_(select(_row.id).where(_row.ended_at < bindparam("before")).limit(SLICE)))
    .returning(_row.id)
)
"""Delete some deliveries that ended before a time."""


def deliveries_page(tenant: str, after: str, equal: Mapping[str, str | None]) -> Select[Any]:
    """A tenant's deliveries with the given values, newest first."""
    page = select(webhook_delivery).where(_row.tenant == tenant).order_by(_row.id.desc())
    for name, value in equal.items():
        if value is not None:
            page = page.where(_row[name] == value)
    return page.where(_row.id < after) if after else page


class Webhooks(Area):
    async def add_endpoint(
        self, tenant: str, url: str, events: Sequence[str], match: Mapping[str, str] | None = None, *, actor: str
    ) -> tuple[dict[str, Any], str]:
        """A new endpoint, and its secret."""
        id_ = new_id("whe")
        secret = await self._secret_row(new_id("whs"), id_)
        row = {
            "id": id_,
            "tenant": tenant,
            "url": url,
            "events": orjson.dumps(list(events)).decode(),
            "match": clean(orjson.dumps(match).decode()) if match else None,
        }
        async with self._db.write() as connection:
            await connection.execute(INSERT_ENDPOINT, row)
            await INSERT_SECRETS.run(connection, [secret])
            made = {"url": url, "events": list(events), "match": match}
            await record_act(connection, actor, tenant, "webhook.create", id_, None, made)
        found = await self.endpoint(tenant, id_)
        assert found is not None
        return found, secret["secret"]

    async def endpoints(self, tenant: str) -> list[dict[str, Any]]:
        return [_endpoint(row) for row in await self._db.rows(ENDPOINTS, {"tenant": tenant})]

    async def endpoint(self, tenant: str, endpoint_id: str) -> dict[str, Any] | None:
        row = await self._db.row(ENDPOINT, {"tenant": tenant, "endpoint_id": endpoint_id})
        return None if row is None else _endpoint(row)

    async def enable_endpoint(self, tenant: str, endpoint_id: str, *, actor: str) -> bool:
        """Enable an endpoint for future events; deliveries that were given up are only replayed on demand."""
        async with self._db.write() as connection:
            key = {"whose": tenant, "endpoint_id": endpoint_id}
            before = (await connection.execute(ENDPOINT, {**key, "tenant": tenant})).first()
            if before is None:
                return False
            await connection.execute(ENABLE_ENDPOINT, key)
            old, new = {"disabled": before.disabled}, {"disabled": None}
            await record_act(connection, actor, tenant, "webhook.enable", endpoint_id, old, new)
        return True

    async def disable_endpoint(self, endpoint_id: str, reason: str) -> bool:
        """Disable an endpoint and give up its pending deliveries. False if it was disabled or removed already."""
        words = {"to": endpoint_id, "reason": clean(reason)}
        disabled = await self._db.change(DISABLE_ENDPOINT, words) > 0
        await self._give_up(words)
        return disabled

    async def remove_endpoint(self, tenant: str, endpoint_id: str, *, actor: str) -> bool:
        """Remove an endpoint with its secrets; pending deliveries are given up, its log is kept."""
        async with self._db.write() as connection:
            key = {"whose": tenant, "endpoint_id": endpoint_id}
            gone = (await connection.execute(DELETE_ENDPOINT, key)).first()
            if gone is None:
                return False
            await connection.execute(DELETE_SECRETS, {"whose": endpoint_id})
            was = {"url": gone.url, "events": orjson.loads(gone.events)}
            await record_act(connection, actor, tenant, "webhook.remove", endpoint_id, was)
        await self._give_up({"to": endpoint_id, "reason": "the endpoint was removed"})
        return True

    async def signing(self, of: Delivery) -> Signing:
        """What a delivery is signed with. Its owner's first secret is created when needed."""
        refused = None
        async with self._db.read() as connection:
            if of.endpoint_id is not None:
                row = (await connection.execute(ENDPOINT_DISABLED, {"endpoint_id": of.endpoint_id})).first()
                refused = "the endpoint was removed" if row is None else row.disabled
            secrets = (await connection.execute(SECRETS_IN_FORCE, {"owner": of.owner})).scalars().all()
        if refused is None and not secrets:
            secrets = await self.signing_secrets(of.owner)
        return Signing(tuple(secrets), refused)

    async def signing_secrets(self, owner: str) -> list[str]:
        """The current signing secrets of an owner, newest first; created if there is none."""
        async with self._db.write() as connection:
            found = await connection.execute(SECRETS_IN_FORCE, {"owner": owner})
            if secrets := list(found.scalars()):
                return secrets
            # Named after its owner, so that two processes creating the first one at once create the same row.
            first = await self._secret_row(f"whs_0_{owner}", owner)
            await INSERT_SECRETS.run(connection, [first])
            return list((await connection.execute(SECRETS_IN_FORCE, {"owner": owner})).scalars())

    async def rotate_secret(self, tenant: str, owner: str, *, actor: str) -> str:
        """Create a new secret; the previous ones remain valid for one more day."""
        row = await self._secret_row(new_id("whs"), owner)
        async with self._db.write() as connection:
            await connection.execute(RETIRE_SECRETS, {"whose": owner})
            await INSERT_SECRETS.run(connection, [row])
            await record_act(connection, actor, tenant, "webhook.rotate", owner)
        return str(row["secret"])

    async def deliveries(
        self,
        tenant: str,
        *,
        endpoint_id: str | None = None,
        state: str | None = None,
        object_id: str | None = None,
        limit: int = 100,
        after: str = "",
    ) -> list[dict[str, Any]]:
        """A tenant's deliveries, newest first; `after` is the id of the last one seen."""
        equal = {"endpoint_id": endpoint_id, "state": state, "object_id": object_id}
        return [_delivery(row) for row in await self._db.rows(deliveries_page(tenant, after, equal).limit(limit))]

    async def delivery(self, tenant: str, delivery_id: str) -> dict[str, Any] | None:
        row = await self._db.row(deliveries_page(tenant, "", {"id": delivery_id}))
        return None if row is None else _delivery(row)

    async def replay(self, tenant: str, delivery_id: str, *, actor: str) -> bool:
        """Deliver (again) now. False if there is no such delivery, or its endpoint is disabled or removed."""
        async with self._db.write() as connection:
            key = {"whose": tenant, "delivery_id": delivery_id}
            if (await connection.execute(REPLAY, key)).first() is None:
                return False
            await record_act(connection, actor, tenant, "webhook.replay", delivery_id)
        return True

    async def replay_dead(self, tenant: str, since: float = 0.0, *, actor: str) -> int:
        """Deliver now what was given up and was created at `since` or later; returns how many."""
        replayed = 0
        while True:
            async with self._db.write() as connection:
                done = (await connection.execute(REPLAY_SLICE, {"whose": tenant, "since": since})).all()
                if done:
                    await record_act(connection, actor, tenant, "webhook.replay", f"{len(done)} dead deliveries")
            replayed += len(done)
            if not done:
                return replayed

    async def prune_deliveries(self, before: float) -> int:
        """Delete deliveries of all tenants that were delivered or given up before a time; returns how many."""
        return await self._db.change_slices(DELETE_ENDED_SLICE, {"before": before})

    async def _give_up(self, words: Mapping[str, Any]) -> None:
        await self._db.change_slices(GIVE_UP_SLICE, words)

    async def _secret_row(self, id_: str, owner: str) -> dict[str, Any]:
        return {
            "id": id_,
            "owner": owner,
            "secret": new_secret(),
            "created_at": await self._ledger.now(),
        }


def _endpoint(row: Row[Any]) -> dict[str, Any]:
    match = None if row.match is None else orjson.loads(row.match)
    return {**row._mapping, "events": orjson.loads(row.events), "match": match}


def _delivery(row: Row[Any]) -> dict[str, Any]:
    return {**row._mapping, "log": orjson.loads(row.log)}

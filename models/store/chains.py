"""Chains: written with their first job, stripped when the content of their jobs is removed, deleted with their last
job.

A chain contains what a caller wrote into a step (a system prompt, tools, a prediction), so it is content like a prompt.
"""

from collections.abc import Sequence

import orjson
from sqlalchemy import BindParameter, Select, bindparam, delete, exists, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from understudy.models.jobs.submission import NewJob
from understudy.models.routing.chain import Chain, Step
from understudy.models.store.sql import BulkInsert, chain, job

DROPPED_AT_ONCE = 500

_ids: BindParameter[str] = bindparam("ids", expanding=True)

_unused = ~exists(select(job.c.id).where(job.c.chain_id == chain.c.id))

INSERT_CHAINS = BulkInsert(chain, conflict="ignored")
"""Chains, each once."""

KEEP_CHAINS = (
    select(chain.c.id).where(chain.c.id.in_(_ids)).order_by(chain.c.id).with_for_update(read=True, key_share=True)
)
"""Those of the given chains that exist, protected from deletion until the commit; many transactions may do so at
once."""

CHAINS_OF = select(chain.c.id, chain.c.document).where(
    chain.c.id.in_(select(job.c.chain_id).where(job.c.id.in_(_ids)).distinct())
)
"""The chains of some jobs."""

MOVE_JOBS = (
    update(job)
    .where(job.c.id.in_(_ids), job.c.chain_id == bindparam("of_chain"))
    .values(chain_id=bindparam("other_chain"))
)
"""Replace the chain of some jobs that share one."""

UNUSED: Select[tuple[str]] = select(chain.c.id).where(_unused).limit(DROPPED_AT_ONCE)
"""Some chains that no job uses and no transaction is assigning to a job."""

DROP = delete(chain).where(chain.c.id.in_(_ids), _unused)
"""Delete chains that no job uses."""


async def insert_chains(connection: AsyncConnection, jobs: Sequence[NewJob], now: float) -> dict[int, str]:
    """Chain ids by chain object: most jobs share one, and hashing it for each job would be slow.

    They are protected until the transaction has written the jobs.
    """
    distinct = {id(each.chain): each.chain for each in jobs}
    chain_ids = {key: each.id for key, each in distinct.items()}
    await _insert(connection, {chain_ids[key]: each for key, each in distinct.items()}, now)
    return chain_ids


async def _insert(connection: AsyncConnection, chains: dict[str, Chain], now: float) -> None:
    rows = [{"id": id_, "document": chains[id_].model_dump_json(), "created_at": now} for id_ in sorted(chains)]
    while rows:
        await INSERT_CHAINS.run(connection, rows)
        if connection.dialect.name == "sqlite":  # SQLite has a single writer
            return
        kept = (await connection.execute(KEEP_CHAINS, {"ids": [row["id"] for row in rows]})).scalars().all()
        rows = [row for row in rows if row["id"] not in kept]


async def cut_chains(connection: AsyncConnection, ids: Sequence[str], now: float) -> bool:
    """Reduce the chains of some ended jobs to provider and model names. False: they already were."""
    found = (await connection.execute(CHAINS_OF, {"ids": list(ids)})).all()
    whole = {row.id: Chain.model_validate(orjson.loads(row.document)) for row in found}
    cut = {id_: short for id_, each in whole.items() if (short := _names_of(each)) != each}
    await _insert(connection, {each.id: each for each in cut.values()}, now)
    for id_, short in cut.items():
        await connection.execute(MOVE_JOBS, {"ids": list(ids), "of_chain": id_, "other_chain": short.id})
    return bool(cut)


def _names_of(of: Chain) -> Chain:
    steps = tuple(Step(provider=step.provider, model=step.model) for step in of.steps)
    return Chain(steps=steps, endpoint=of.endpoint)


async def drop_unused_chains(connection: AsyncConnection) -> int:
    """Delete some of the chains that no job uses any more; returns how many were examined.

    Chains locked by transactions that are writing jobs are skipped; a job written before the lock was taken is only
    seen by the second statement.
    """
    unused = UNUSED if connection.dialect.name == "sqlite" else UNUSED.with_for_update(skip_locked=True)
    ids = (await connection.execute(unused)).scalars().all()
    if ids:
        await connection.execute(DROP, {"ids": ids})
    return len(ids)

"""Disabled credentials, until they are enabled again."""

from sqlalchemy import Boolean, bindparam, delete, or_, select

from understudy.models.disabled import ALL_MODELS, DisabledCredential
from understudy.models.failure import FailureClass
from understudy.models.store.ledger import Area
from understudy.models.store.sql import clean, credential, replacing, upsert

SET_ASIDE = replacing(upsert(credential), (each.name for each in credential.columns if not each.primary_key))
"""Disable a credential, replacing an earlier record."""

CREDENTIALS = select(credential).order_by(credential.c.provider, credential.c.key, credential.c.model)
"""The disabled credentials."""

ENABLE = (
    delete(credential)
    .where(
        credential.c.provider == bindparam("provider"),
        or_(credential.c.key == bindparam("name"), bindparam("all_keys", type_=Boolean)),
        or_(credential.c.model == bindparam("model"), bindparam("all_records", type_=Boolean)),
    )
    .returning(credential.c.key)
)
"""Enable a provider's credential, or all of them: every record or a single one."""


class Credentials(Area):
    async def set_aside(
        self,
        provider: str,
        key: str,
        model: str,
        failure: FailureClass,
        reason: str,
        fingerprint: str = "",
        probe_at: float | None = None,
        since: float | None = None,
        job_id: str | None = None,
    ) -> None:
        """Disable a credential (for one model, or ALL_MODELS) as of now, with the reason, replacing an earlier
        record. `job_id`: the job whose call failed for this reason."""
        now = await self._ledger.now() if since is None else since
        words = {"failure": str(failure), "reason": clean(reason), "fingerprint": fingerprint, "probe_at": probe_at}
        words["job_id"] = job_id
        row = {"provider": provider, "key": key, "model": model or ALL_MODELS, "since": now, **words}
        await self._db.change(SET_ASIDE, row)

    async def listed(self) -> list[DisabledCredential]:
        rows = await self._db.rows(CREDENTIALS)
        return [DisabledCredential(**{**row._mapping, "failure": FailureClass(row.failure)}) for row in rows]

    async def enable(self, provider: str, key: str | None = None, model: str | None = None) -> list[str]:
        """Enable a credential, or all of a provider; returns the keys of the removed records.

        `model`: remove only the record for this model, or the one for ALL_MODELS.
        """
        asked = {"provider": provider, "name": key or "", "all_keys": key is None}
        asked |= {"model": model or ALL_MODELS, "all_records": model is None}
        async with self._db.write() as connection:
            return list((await connection.execute(ENABLE, asked)).scalars())

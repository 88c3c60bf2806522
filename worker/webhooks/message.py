"""What a delivery sends: its body, built when it is sent because ended jobs and batches do not change, and its headers
(signed as in models/webhook_signing.py).

    {"id": "evt_…", "object": "event", "type": "job.succeeded", "created_at": 1795000000,
     "timestamp": "2026-11-22T20:00:00Z", "data": {…}}

A job's `data` is the job as shown by the HTTP API, with its whole `result`; a result over 256 kB is only linked by
`result_url`. A batch's `data` is its id, as OpenAI sends it; for a batch that waits for a person also the `reason`.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

import orjson

from understudy.models.objects.job import job_object, with_result
from understudy.models.state import JobState
from understudy.models.store import Store
from understudy.models.webhook_events import Delivery
from understudy.models.webhook_signing import Signing, signed_headers

MAX_INLINE_BYTES = 256 * 1024

SECRETS_KEPT_S = 3.0
"""A replaced secret stays valid for a day, so one this old is right. An endpoint that was disabled or removed may be
notified for this long."""

KEPT_OWNERS = 1_000


class Unsendable(Exception):
    """The delivery can never be sent; the message is the reason."""


class Message(NamedTuple):
    headers: Mapping[str, str]
    body: bytes


class Messages:
    """Writes and signs. Secrets are in memory only, and no longer than they are used: many deliveries query the ledger
    once per owner."""

    def __init__(self, store: Store, public_url: str | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._public_url = public_url or ""
        self._clock = clock
        self._known: dict[str, tuple[float, Signing]] = {}
        self._asking: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def write(self, delivery: Delivery, now: float) -> Message:
        """The message of one attempt at `now`. Raises Unsendable, StoreError."""
        signing = await self._signing(delivery)
        if signing.refused is not None:
            raise Unsendable(signing.refused)
        event = {
            "id": delivery.id,
            "object": "event",
            "type": delivery.event,
            "created_at": int(delivery.created_at),
            "timestamp": datetime.fromtimestamp(int(delivery.created_at), UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "data": await self._data(delivery),
        }
        body = orjson.dumps(event)
        return Message(signed_headers(signing.secrets, delivery.id, int(now), body), body)

    def forget(self, owner: str) -> None:
        """Drop the cached secrets."""
        self._known.pop(owner, None)

    async def _data(self, delivery: Delivery) -> Mapping[str, Any]:
        if delivery.data is not None:
            return dict(orjson.loads(delivery.data))
        if delivery.event.startswith("batch."):
            return {"id": delivery.object_id}
        view = await self._store.jobs.view(delivery.object_id, delivery.tenant)
        if view is None:
            raise Unsendable("the job was deleted")
        chain = await self._store.get_chain(view.chain_id)
        fits = view.state is JobState.SUCCEEDED and view.answer_bytes <= MAX_INLINE_BYTES
        answer = await self._store.jobs.answer(delivery.object_id) if fits else None
        if answer is not None and len(answer.encode()) > MAX_INLINE_BYTES:
            answer = None
        return with_result(job_object(view, chain, self._public_url), answer)

    async def _signing(self, delivery: Delivery) -> Signing:
        asking = self._asking.setdefault(delivery.owner, asyncio.Lock())
        async with asking:
            now = self._clock()
            until, signing = self._known.get(delivery.owner, (now, None))
            if signing is None or now >= until:
                signing = await self._store.webhooks.signing(delivery)
                self._keep(delivery.owner, now, signing)
            return signing

    def _keep(self, owner: str, now: float, signing: Signing) -> None:
        if len(self._known) >= KEPT_OWNERS:
            self._known = {name: kept for name, kept in self._known.items() if now < kept[0]}
        if len(self._known) < KEPT_OWNERS:
            self._known[owner] = now + SECRETS_KEPT_S, signing

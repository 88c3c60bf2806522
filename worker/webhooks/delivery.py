"""The delivery of webhooks: claim what is due, fairly among tenants and receivers, sign, send, and retry later.

Every worker delivers. A claim is a lease in the ledger, so what a killed worker was sending is sent by another, under
the same `webhook-id`: a receiver may get an event twice, and it never misses one without a dead delivery that shows it.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from random import Random

from understudy.models.cancellation import end
from understudy.models.config.settings import Settings
from understudy.models.store import Store, StoreOutage
from understudy.models.store.deliveries import Due, Place
from understudy.models.webhook_events import DEAD, DELIVERED, PENDING, Delivery, Tried
from understudy.worker.concurrency import Coalescer
from understudy.worker.failures.retry_after import MAX_HINT_S, retry_after_s
from understudy.worker.planner.fair_share import Entrant, FairShare, Path
from understudy.worker.webhooks.message import Messages, Unsendable
from understudy.worker.webhooks.sender import DEADLINE_S, Answer, Sender

log = logging.getLogger(__name__)

IN_FLIGHT = 400
"""Concurrent attempts in one worker, over all receivers. A tenant has no more of them than are free: a single one
half of them, each of two a third. So there is always room for a tenant that had nothing to send before."""

LEASE_S = 3 * DEADLINE_S
"""A claim outlives the wait for a place at an address, its attempt, and the recording of the outcome."""

UNTRIED_DELAY_S = 5.0
"""Delay of an attempt for which there was no place."""

LOOKS = 4
"""Deliveries that read the ledger at the same time: many of them must leave connections to others."""

TURNS = "webhooks"

DELAYS_S = (5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)
"""After the first attempt, the second, and so on: over three days. After the last the delivery is dead."""

JITTER = 0.1
GATHER_S = 0.005
LOOK_AGAIN_S = 0.2
STORE_PAUSE_S = 1.0
GONE = 410


class Deliverer:
    """Sends due deliveries until closed."""

    def __init__(
        self,
        worker_id: str,
        store: Store,
        settings: Settings,
        sender: Sender,
        clock: Callable[[], float],
        rng: Random,
    ) -> None:
        self._worker_id = worker_id
        self._store = store
        self._per_receiver = settings.webhooks.max_in_flight
        self._sender = sender
        self._clock = clock
        self._rng = rng
        self._place = Place()
        self._turns = FairShare()
        self._messages = Messages(store, settings.api.public_url)
        self._looks = asyncio.Semaphore(LOOKS)
        self._tries: dict[asyncio.Task[None], str] = {}
        self._ended: Coalescer[Tried, None] = Coalescer(self._write, max_items=IN_FLIGHT, max_delay_s=GATHER_S)

    async def pass_once(self) -> None:
        """Start attempts while any delivery is due that may start. Returns while slow ones are still in progress."""
        while (free := self._free()) > 0:
            claimed, self._place = await self._store.deliveries.claim(
                self._worker_id, free, self._per_receiver, LEASE_S, self._place, self._choose
            )
            for delivery in claimed:
                task = asyncio.create_task(self._try(delivery), name=f"webhook {delivery.id}")
                self._tries[task] = delivery.tenant
                task.add_done_callback(self._tries.pop)
            if not claimed and not self._place.more:
                done, _ = await self._some_ended()
                if not done:
                    return
        await self._some_ended()

    async def idle(self) -> None:
        """Return when no attempt is in progress."""
        while self._tries:
            await asyncio.wait(self._tries)

    async def close(self) -> None:
        """Abort the attempts in progress. Claims are released when the worker exits, or is rescued."""
        await end(set(self._tries))
        await self._ended.close()

    def _free(self) -> int:
        return IN_FLIGHT - len(self._tries) - self._sender.late.total()

    def _choose(self, due: Sequence[Due]) -> Iterator[Due]:
        """Tenants take turns, and within a tenant its receivers; no one takes the last free slots from others."""
        free, under_way = self._free(), Counter(self._tries.values()) + self._sender.late
        by_path: dict[Path, Due] = {(each.tenant, each.receiver): each for each in due}
        entrants = [Entrant(path, (1.0, 1.0), each.room) for path, each in by_path.items()]
        taken: Counter[Path] = Counter()
        for entrant in self._turns.in_order(TURNS, entrants):
            tenant = entrant.path[0]
            if under_way[tenant] < free:
                free, under_way[tenant] = free - 1, under_way[tenant] + 1
                taken[entrant.path] += 1
        self._turns = self._turns.after(TURNS, entrants, taken).of(by_path)
        for path, tries in taken.items():
            yield from [by_path[path]] * tries

    async def _some_ended(self) -> tuple[set["asyncio.Task[None]"], set["asyncio.Task[None]"]]:
        if not self._tries:
            return set(), set()
        return await asyncio.wait(self._tries, timeout=LOOK_AGAIN_S, return_when=asyncio.FIRST_COMPLETED)

    async def _try(self, delivery: Delivery) -> None:
        began = self._clock()
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            answer = await self._send(delivery, began)
        except StoreOutage:
            return  # nothing was sent; it is due again when the lease ends
        except Exception as defect:
            log.error("Webhook %s hit an internal error: %s", delivery.id, type(defect).__name__)
            answer = Answer(error="it could not be sent; see the worker's log")
        tried = self._judged(delivery, answer, began, round((loop.time() - started) * 1000))
        if answer.status == GONE and delivery.endpoint_id is not None:
            await self._disable(delivery.endpoint_id)
        await self._ended.add(tried)

    async def _send(self, delivery: Delivery, now: float) -> Answer:
        try:
            async with self._looks:
                message = await self._messages.write(delivery, now)
        except Unsendable as reason:
            return Answer(error=f"{reason}", given_up=True)
        return await self._sender.post(delivery.url, message.headers, message.body, delivery.tenant)

    def _judged(self, delivery: Delivery, answer: Answer, began: float, took_ms: int) -> Tried:
        if answer.untried:
            delay_s = UNTRIED_DELAY_S * (1 + JITTER * self._rng.random())
            return Tried(delivery, PENDING, delay_s, began, None, answer.error, took_ms, counted=False)
        state, delay_s = verdict(delivery.tries, answer, began, self._rng)
        error = None if state == DELIVERED else answer.error or f"answered {answer.status}"
        return Tried(delivery, state, delay_s, began, answer.status, error, took_ms)

    async def _disable(self, endpoint_id: str) -> None:
        try:
            await self._store.webhooks.disable_endpoint(endpoint_id, "it answered 410 Gone")
        except StoreOutage:
            return  # a repeated attempt would get the same answer
        self._messages.forget(endpoint_id)
        log.warning("Webhook endpoint %s answered 410 and was disabled", endpoint_id)

    async def _write(self, ended: Sequence[Tried]) -> list[None]:
        """Retried while the leases are live; after that the attempts are repeated."""
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + LEASE_S
        while True:
            try:
                await self._store.deliveries.finish(self._worker_id, ended)
                break
            except StoreOutage as outage:
                if loop.time() > give_up_at:
                    log.warning(
                        "The ledger did not accept the outcomes of %d webhooks: %s", len(ended), type(outage).__name__
                    )
                    break
                await asyncio.sleep(STORE_PAUSE_S)
        return [None] * len(ended)


def verdict(tries: int, answer: Answer, now: float, rng: Random) -> tuple[str, float]:
    """The outcome of a delivery's next attempt, after `tries` earlier ones, and the delay in seconds before another."""
    if answer.status is not None and 200 <= answer.status < 300:
        return DELIVERED, 0.0
    if answer.given_up or answer.status == GONE or tries >= len(DELAYS_S):
        return DEAD, 0.0
    delay_s = DELAYS_S[tries] * (1 + JITTER * rng.random())
    return PENDING, max(delay_s, min(retry_after_s(answer.headers, now) or 0.0, MAX_HINT_S))

"""Backpressure: a request without room is refused with a time to come back, and no part of it is accepted."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace

import httpx
import pytest
from api_help import Clock, Served, bearer, key_for, served
from ledger_help import filled_batch, new_worker, open_batch, run_all, singles, succeeded

from understudy.models.api_keys import Scope
from understudy.models.config.settings import ApiSettings, Settings
from understudy.models.store import Store
from understudy.models.tenants import TenantLimits
from understudy.producer.api.access.admission import admit, count_accepted
from understudy.producer.api.access.auth import Caller
from understudy.producer.api.errors import ApiError

ROOM = 500
START = 1_767_225_600.0  # the first second of a month, a day and a minute
CALLER = Caller("default", frozenset(Scope))


@pytest.fixture
def clock() -> Clock:
    return Clock(START)


@pytest.fixture
async def api(store: Store, clock: Clock) -> AsyncIterator[Served]:
    settings = Settings(api=ApiSettings(max_queued_jobs=ROOM))
    async with served(store, clock, settings, monotonic=clock) as opened:
        yield opened


async def limit(store: Store, tenant: str, **limits: float) -> dict[str, bytes]:
    """The header of a key of a tenant with these limits."""
    await store.tenants.set_limits(TenantLimits(tenant, **limits), actor="test")  # type: ignore[arg-type]
    return bearer(await key_for(store, Scope.SUBMIT, tenant=tenant))


def refused(answer: httpx.Response, code: str) -> bool:
    assert answer.status_code == 429
    assert 1 <= int(answer.headers["retry-after"]) < 120
    error = answer.json()["error"]
    assert (error["type"], error["code"]) == ("rate_limit_error", code)
    return True


async def submit(http: httpx.AsyncClient, jobs: int = 1, headers: dict[str, bytes] | None = None) -> httpx.Response:
    return await http.post("/try/submit", params={"jobs": jobs}, headers=headers)


async def test_waiting_jobs_are_counted_by_tenant(store: Store) -> None:
    _, ids = await open_batch(store, 7, tenant="acme")
    await open_batch(store, 3)
    await filled_batch(store, 2, tenant="acme")
    single = await singles(store, 4, tenant="acme")
    assert await store.tenants.queued() == {"acme": 11, "default": 3}
    worker = await new_worker(store)
    await run_all(store, worker, ids[:2])
    await store.claims.start(worker, [*ids[2:3], *single[:1]])
    assert await store.tenants.queued() == {"acme": 7, "default": 3}


async def test_a_full_system_accepts_nothing_more(store: Store, api: Served) -> None:
    await singles(store, ROOM - 1)
    async with api.client() as http:
        assert refused(await submit(http, 2), "system_full")
        assert (await submit(http, 1)).status_code == 200
        assert refused(await submit(http, 1), "system_full")
    assert (await store.tenants.queued())["default"] == ROOM - 1


async def test_jobs_that_were_not_accepted_after_all_are_given_back(api: Served) -> None:
    for _ in range(3):
        await admit(api.context, CALLER, ROOM)
        with pytest.raises(ApiError, match="the system is full"):
            await admit(api.context, CALLER, 1)
        count_accepted(api.context, CALLER, -ROOM)


async def test_there_is_room_again_when_jobs_have_ended(store: Store, api: Served, clock: Clock) -> None:
    ids = await singles(store, ROOM)
    async with api.client() as http:
        answer = await submit(http, 3)
        assert refused(answer, "system_full")
        await run_all(store, await new_worker(store), ids[:3])
        clock.now += int(answer.headers["retry-after"])
        assert (await submit(http, 3)).status_code == 200


async def test_a_tenants_queue_is_its_own(store: Store, api: Served) -> None:
    acme, other = await limit(store, "acme", queued_jobs=10), await limit(store, "other")
    await singles(store, 8, tenant="acme")
    await singles(store, 50, tenant="other")
    async with api.client() as http:
        answer = await submit(http, 3, acme)
        assert refused(answer, "tenant_queue_full")
        assert "tenant 'acme' has 8 jobs waiting, and its limit is 10" in answer.json()["error"]["message"]
        assert (await submit(http, 2, acme)).status_code == 200
        assert refused(await submit(http, 1, acme), "tenant_queue_full")
        assert (await submit(http, 100, other)).status_code == 200


@pytest.mark.parametrize(
    ("limits", "jobs"), [({"queued_jobs": 100}, 101), ({"jobs_per_minute": 100}, 101), ({}, ROOM + 500)]
)
async def test_what_can_never_fit_is_refused_for_good(
    store: Store, api: Served, limits: dict[str, float], jobs: int
) -> None:
    headers = await limit(store, "acme", **limits)
    async with api.client() as http:
        answer = await submit(http, jobs, headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "too_many_jobs")
    assert "smaller parts" in answer.json()["error"]["message"]
    assert "retry-after" not in answer.headers


async def test_jobs_per_minute_hold_over_the_edge_of_a_minute(store: Store, api: Served, clock: Clock) -> None:
    headers = await limit(store, "acme", jobs_per_minute=10)
    accepted = []
    async with api.client() as http:
        for second in range(180):
            clock.now = START + second
            for _ in range(3):
                answer = await submit(http, 1, headers)
                if answer.status_code == 200:
                    accepted.append(second)
                else:
                    assert refused(answer, "rate_limit_exceeded")
    assert len([second for second in accepted if second < 60]) == 10
    assert max(sum(at <= second < at + 60 for second in accepted) for at in range(120)) <= 14
    assert len(accepted) >= 25


async def test_two_processes_share_a_tenants_minute(store: Store, api: Served, clock: Clock) -> None:
    headers = await limit(store, "acme", jobs_per_minute=100)
    async with served(store, clock, monotonic=clock) as second, api.client() as one, second.client() as two:
        statuses = []
        for _ in range(100):
            clock.now += 0.2
            statuses += [(await submit(one, 1, headers)).status_code, (await submit(two, 1, headers)).status_code]
    assert 100 <= statuses.count(200) <= 120
    assert statuses.count(200) + statuses.count(429) == 200


async def test_counts_of_minutes_long_past_are_dropped(store: Store) -> None:
    minute = int(START // 60)
    await store.tenants.record_accepted("acme", "api_1", {minute: 5})
    await store.tenants.record_accepted("acme", "api_2", {minute: 6})
    await store.tenants.record_accepted("acme", "api_2", {minute + 1: 7})
    use = await store.tenants.use("acme", START + 60)
    assert (use.accepted_this_minute, use.accepted_last_minute) == (7, 11)
    await store.tenants.record_accepted("acme", "api_3", {minute + 60: 1})
    use = await store.tenants.use("acme", START + 60)
    assert (use.accepted_this_minute, use.accepted_last_minute) == (0, 0)


async def test_a_spent_budget_holds_until_the_month_ends(store: Store) -> None:
    headers = await limit(store, "acme", usd_per_month=0.5)
    ids = await singles(store, 3, tenant="acme")
    clock = Clock(time.time())
    async with served(store, clock, monotonic=clock) as api, api.client() as http:
        worker = await new_worker(store)
        await run_for_acme(store, worker, ids[:1])
        assert (await submit(http, 1, headers)).status_code == 200
        await run_for_acme(store, worker, ids[1:])
        clock.now += 2
        answer = await submit(http, 1, headers)
        assert refused(answer, "insufficient_quota")
        assert "spent 0.75 USD this month; its limit is 0.50" in answer.json()["error"]["message"]
        clock.now += 31 * 86_400
        assert (await submit(http, 1, headers)).status_code == 200


async def run_for_acme(store: Store, worker: str, ids: list[str]) -> None:
    """Each job costs a quarter of a dollar."""
    await store.claims.settle(
        worker, [replace(succeeded(job), tenant="acme") for job in await store.claims.start(worker, ids)]
    )


async def test_a_crowd_that_comes_back_when_it_is_told_to_gets_everything_accepted(
    store: Store, api: Served, clock: Clock
) -> None:
    headers = await limit(store, "acme", queued_jobs=40)
    worker, accepted, times = await new_worker(store), 0, set()
    due = {START: 30}  # submitters of five jobs each, in the order in which they try
    async with api.client() as http:
        while due:
            clock.now = max(clock.now, min(due))
            for _ in range(due.pop(min(due))):
                answer = await submit(http, 5, headers)
                if answer.status_code == 200:
                    accepted += 5
                    await singles(store, 5, tenant="acme")
                    continue
                assert refused(answer, "tenant_queue_full")
                times.add(answer.headers["retry-after"])
                back = clock.now + int(answer.headers["retry-after"])
                due[back] = due.get(back, 0) + 1
            await run_all(store, worker, await waiting(store))
            assert clock.now < START + 3_600
    assert accepted == 150
    assert len(times) > 1


async def waiting(store: Store) -> list[str]:
    lanes = await store.planning.lanes()
    return [head.id for lane in lanes for head in await store.planning.heads(lane, 15)]


async def test_a_crowd_at_once_reads_the_ledger_once(
    store: Store, api: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = []
    read = store.tenants.queued

    async def counted() -> dict[str, int]:
        reads.append(1)
        await asyncio.sleep(0)
        return await read()

    monkeypatch.setattr(store.tenants, "queued", counted)
    async with api.client() as http:
        answers = await asyncio.gather(*(submit(http, 2) for _ in range(200)))
    assert [each.status_code for each in answers].count(200) == 200
    assert len(reads) == 1


async def test_no_tenant_makes_the_system_full_for_the_others(store: Store, api: Served, clock: Clock) -> None:
    big, small = [bearer(await key_for(store, Scope.SUBMIT, tenant=each)) for each in ("big", "small")]
    taken = 0
    async with api.client() as http:

        async def submitted(headers: dict[str, bytes], jobs: int = 1) -> httpx.Response:
            return await http.post("/try/submit", params={"jobs": jobs}, headers=headers)

        while (answer := await submitted(big)).status_code == 200:
            taken += 1
        assert refused(answer, "tenant_queue_full")
        assert taken == ROOM * 4 // 5
        assert (await submitted(small)).status_code == 200
        never = await submitted(small, ROOM)
        assert (never.status_code, never.json()["error"]["code"]) == (400, "too_many_jobs")
        await limit(store, "big", queued_jobs=ROOM)
        clock.now += 15
        assert (await submitted(big, ROOM)).status_code == 200, "what an operator says holds instead"

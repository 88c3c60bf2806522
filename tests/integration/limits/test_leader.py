"""The leader: one at a time, rarely looked up, given up at once."""

from redis.asyncio import Redis

from understudy.models.queue import keys
from understudy.worker.background import LEAD_FOR_S, LOOK_EVERY_S, RENEW_EVERY_S, LeaderLock
from understudy.worker.redis_scripts import ScriptRunner


class Hand:
    """Monotonic time that a test moves by hand."""

    def __init__(self) -> None:
        self.s = 100.0

    def __call__(self) -> float:
        return self.s


async def test_one_leads_until_it_resigns_and_the_other_is_next(redis_url: str) -> None:
    async with Redis.from_url(redis_url) as redis:
        hand = Hand()
        one, other = LeaderLock(ScriptRunner(redis), "one", hand), LeaderLock(ScriptRunner(redis), "other", hand)
        assert (await one.held(), await other.held()) == (True, False)
        hand.s += 10
        assert (await one.held(), await other.held()) == (True, False)
        await one.resign()
        hand.s += LOOK_EVERY_S
        assert (await one.held(), await other.held()) == (False, True)
        assert await redis.get(keys.PLANNER) == b"other"


async def test_redis_is_asked_seldom_and_the_lock_is_kept(redis_url: str) -> None:
    async with Redis.from_url(redis_url) as redis:
        hand = Hand()
        lead = LeaderLock(ScriptRunner(redis), "one", hand)
        assert await lead.held()
        await redis.set(keys.PLANNER, "other")
        hand.s += RENEW_EVERY_S - 0.1
        assert await lead.held(), "what was said holds for a moment"
        hand.s += 0.1
        assert not await lead.held()
        await redis.delete(keys.PLANNER)
        hand.s += LOOK_EVERY_S
        assert await lead.held()
        assert 0 < await redis.pttl(keys.PLANNER) <= LEAD_FOR_S * 1000


async def test_resigning_takes_nothing_from_another(redis_url: str) -> None:
    async with Redis.from_url(redis_url) as redis:
        await redis.set(keys.PLANNER, "other")
        await LeaderLock(ScriptRunner(redis), "one").resign()
        assert await redis.get(keys.PLANNER) == b"other"

"""Which of several candidates a call gets, and that Redis keeps none of it forever."""

from limiter_fleet import Fleet, candidate

from understudy.models.failure import Scope


async def test_the_earliest_start_wins(fleet: Fleet) -> None:
    busy, idle = candidate("busy", rpm=60), candidate("idle", rpm=60)
    await fleet.grant(busy)
    assert (await fleet.grant(busy, idle)).candidate == idle


async def test_among_equals_the_first_wins(fleet: Fleet) -> None:
    assert (await fleet.grant(candidate("b"), candidate("a"))).candidate == candidate("b")


async def test_a_full_one_never_hides_one_that_can_start_within_the_wait(fleet: Fleet) -> None:
    full, paced = candidate("full", most=1), candidate("paced", rpm=70)
    await fleet.grant(full)
    await fleet.grant(paced)
    chosen = await fleet.grant(full, paced)
    assert chosen.candidate == paced
    assert 0.1 < chosen.wait_s < 1


async def test_a_cooled_one_never_hides_a_usable_one(fleet: Fleet) -> None:
    cooled, paced = candidate("cooled"), candidate("paced", rpm=70)
    await fleet.grant(paced)
    await fleet.one.cool(cooled.deployment, Scope.MODEL, 0.1, "429")
    assert (await fleet.grant(cooled, paced)).candidate == paced


async def test_when_none_can_start_the_refusal_names_the_earliest(fleet: Fleet) -> None:
    await fleet.one.cool(candidate("one").deployment, Scope.MODEL, 30.0, "429")
    await fleet.one.cool(candidate("two").deployment, Scope.MODEL, 7.0, "429")
    refused = await fleet.refusal(candidate("one"), candidate("two"))
    assert refused.deployment.key == "two"
    waiting = refused.waiting
    assert (waiting.reason, waiting.account) == ("cooling down after a refusal at alpha/large", "alpha:two")


async def test_every_key_expires(fleet: Fleet) -> None:
    limited = candidate(rpm=60, tpm=6000, most=3)
    grants = [await fleet.next_call(limited) for _ in range(3)]
    for grant, scope in zip(grants, (Scope.MODEL, Scope.ACCOUNT, Scope.PROVIDER), strict=True):
        await fleet.one.release(grant, 500, refused=True)
        assert await fleet.one.refused(grant, scope, 2.0, "429") is not None
    fleet.one.count(lambda: [("alpha:main", "large")])
    await fleet.leases[0].beat()
    written: list[bytes] = await fleet.redis.keys("*")
    assert len(written) == 5
    assert all([await fleet.redis.pttl(key) > 0 for key in written])

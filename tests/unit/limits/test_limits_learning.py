"""What refusals teach over a fake Redis: the accepted rate, where no limit or a wrong one is known."""

import math

import pytest
from limiter_fleet import BEGIN_MS, Fleet, candidate, moment

from understudy.models.failure import Scope
from understudy.models.queue import keys
from understudy.worker.limits.grants import Candidate, Grant, Hold


async def learned(fleet: Fleet, model: str = "large") -> float:
    return float(await fleet.redis.hget(keys.rate("alpha:main", model), "learned") or "nan")


async def call_each(fleet: Fleet, every_ms: float, times: int) -> list[Grant]:
    grants = []
    await fleet.has_proven_itself()
    for _ in range(times):
        grants.append(await fleet.grant(candidate()))
        fleet.at_ms(fleet.ms + every_ms)
    return grants


async def answer_each(fleet: Fleet, limited: Candidate, every_ms: float, times: int) -> None:
    for _ in range(times):
        await fleet.one.release(await fleet.grant(limited), 10)
        fleet.at_ms(fleet.ms + every_ms)


@pytest.mark.parametrize("every_ms", [pytest.param(10.0, marks=pytest.mark.slow), 100.0, 1000.0, 5000.0])
async def test_a_rest_paces_at_a_little_less_than_was_accepted(fleet: Fleet, every_ms: float) -> None:
    await fleet.has_proven_itself()
    await answer_each(fleet, candidate(), every_ms, max(round(20_000 / every_ms), 30))
    assert await fleet.refuse_together([await fleet.grant(candidate()) for _ in range(5)]) == moment(
        fleet.ms / 1000 + 2
    )
    assert await learned(fleet) == pytest.approx(0.98 * 60_000 / every_ms, rel=0.06)


async def test_one_refusal_among_calls_that_are_answered_teaches_nothing(fleet: Fleet) -> None:
    grants = await call_each(fleet, 100, 200)
    assert await fleet.refuse(grants[-1]) is None
    assert math.isnan(await learned(fleet))
    assert await fleet.grants_now(candidate(), most=50) == 50


async def test_two_refusals_try_a_pace_below_what_was_accepted(fleet: Fleet) -> None:
    grants = await call_each(fleet, 100, 200)
    for refused in grants[-6], grants[-1]:
        assert await fleet.refuse(refused) is None
    assert await learned(fleet) == pytest.approx(0.98 * 600, rel=0.06)
    fleet.after_s(1)
    assert 60_000 / (await fleet.grant(candidate())).cost_ms == pytest.approx(0.9 * 600, rel=0.06)


async def test_refused_calls_do_not_count_however_late_they_are_refused(fleet: Fleet) -> None:
    grants = await call_each(fleet, 50, 400)
    fleet.after_s(8)
    for refused in grants[1::2]:
        await fleet.one.release(refused, None, refused=True)
    for refused in grants[1], grants[3]:
        await fleet.one.refused(refused, Scope.MODEL, None, "429")
    assert await learned(fleet) == pytest.approx(0.98 * 600, rel=0.06)


async def test_it_grows_by_one_percent_a_second_from_the_rests_end(fleet: Fleet) -> None:
    await fleet.has_proven_itself()
    await answer_each(fleet, candidate(), 100, 200)
    end = await fleet.refuse_until_it_rests(candidate())
    rate = await learned(fleet)
    fleet.at_ms(end * 1000 - BEGIN_MS)
    assert 60_000 / (await fleet.grant(candidate())).cost_ms == pytest.approx(rate)
    fleet.after_s(10)
    assert 60_000 / (await fleet.grant(candidate())).cost_ms == pytest.approx(rate * 1.01**10, rel=0.001)


async def test_a_rate_that_is_far_too_low_recovers_within_two_minutes(fleet: Fleet) -> None:
    await fleet.has_proven_itself()
    await answer_each(fleet, candidate(), 100, 200)
    await fleet.refuse_until_it_rests(candidate())
    await fleet.redis.hset(keys.rate("alpha:main", "large"), "learned", 1)
    for _ in range(240):
        fleet.after_s(0.5)
        reply = await fleet.one.reserve([candidate()], 10)
    assert isinstance(reply, Grant)
    assert 60_000 / reply.cost_ms > 600


async def test_a_storm_that_accepts_nothing_halves_the_rate_once_a_rest(fleet: Fleet) -> None:
    storm = await call_each(fleet, 0, 50)
    while await fleet.refuse(storm.pop(0)) is None:
        pass
    rate = await learned(fleet)
    for refused in storm:
        await fleet.refuse(refused)
    assert await learned(fleet) == rate
    for _ in range(4):
        call = await fleet.next_call(candidate())
        await fleet.refuse(call)
        assert await learned(fleet) == pytest.approx(60_000 / call.cost_ms / 2)


async def test_without_any_evidence_the_rate_is_twenty_calls_a_second(fleet: Fleet) -> None:
    for _ in range(3):
        assert await fleet.refuse(await fleet.next_call(candidate())) is None
    assert await learned(fleet) == 1200
    assert (await fleet.next_call(candidate())).cost_ms == 50


@pytest.mark.parametrize(("at_the_start", "growth"), [(True, 1.1), (False, 1.01)])
async def test_a_rate_that_a_run_at_the_start_teaches_is_rough_and_grows_fast(
    fleet: Fleet, at_the_start: bool, growth: float
) -> None:
    if not at_the_start:
        await fleet.has_proven_itself()
    await answer_each(fleet, candidate(), 50.0, 15)
    end = await fleet.refuse_until_it_rests(candidate())
    rate = await learned(fleet)
    assert rate > 120
    fleet.at_ms(end * 1000 - BEGIN_MS + 5000)
    assert 60_000 / (await fleet.grant(candidate())).cost_ms == pytest.approx(rate * growth**5, rel=0.001)


@pytest.mark.slow
async def test_a_configured_limit_below_the_learned_one_stays(fleet: Fleet) -> None:
    await fleet.has_proven_itself()
    await answer_each(fleet, candidate(), 10, 2000)
    await fleet.refuse_until_it_rests(candidate())
    assert await learned(fleet) > 1000
    fleet.after_s(2)
    assert (await fleet.grant(candidate(rpm=120))).cost_ms == 500


@pytest.mark.slow
async def test_no_herd_after_short_rests(fleet: Fleet) -> None:
    await fleet.has_proven_itself()
    await answer_each(fleet, candidate(), 10, 2000)
    end = await fleet.refuse_until_hints_are_doubted(candidate(), 0.05)
    fleet.at_ms(end * 1000 - BEGIN_MS)
    assert await fleet.grants_now(candidate()) <= 6


async def test_a_hint_that_is_believed_teaches_no_rate(fleet: Fleet) -> None:
    grants = await call_each(fleet, 100, 200)
    assert await fleet.refuse(grants[-1], 2.0) == moment(fleet.ms / 1000 + 2)
    assert math.isnan(await learned(fleet))
    fleet.after_s(2)
    assert await fleet.grants_now(candidate(), most=50) == 50


@pytest.mark.parametrize(("hint_s", "at_first"), [(None, 2), (2.0, 30)])
@pytest.mark.slow
async def test_after_a_refusal_without_a_hint_few_calls_try_again_at_first(
    fleet: Fleet, hint_s: float | None, at_first: int
) -> None:
    await fleet.has_proven_itself()
    await answer_each(fleet, candidate(), 10, 2000)
    if hint_s is None:
        await fleet.refuse_until_it_rests(candidate())
    else:
        await fleet.refuse_until_hints_are_doubted(candidate(), hint_s)
    assert await learned(fleet) > 1000
    fleet.after_s(2)
    again = [await fleet.one.reserve([candidate()], 10) for _ in range(30)]
    assert sum(isinstance(each, Grant) for each in again) == at_first


@pytest.mark.slow
async def test_more_try_again_when_nothing_was_refused_for_a_moment(fleet: Fleet) -> None:
    await fleet.has_proven_itself()
    await answer_each(fleet, candidate(), 10, 2000)
    await fleet.refuse_until_it_rests(candidate())
    fleet.after_s(2)
    for _ in range(20):
        await fleet.one.reserve([candidate()], 10)
        fleet.after_s(0.1)
    again = [await fleet.one.reserve([candidate()], 10) for _ in range(30)]
    assert 10 <= sum(isinstance(each, Grant) for each in again)


async def test_what_was_learned_outlives_a_long_rest(fleet: Fleet) -> None:
    """The first call after a rest is refused as well, and says for how long."""
    await fleet.has_proven_itself()
    await answer_each(fleet, candidate(), 1000, 30)
    await fleet.refuse_until_it_rests(candidate())
    await fleet.refuse_until_it_rests(candidate(), 600.0)
    assert not math.isnan(await learned(fleet))
    assert await fleet.redis.pttl(keys.rate("alpha:main", "large")) >= 600_000


async def test_a_call_that_came_a_little_too_soon_costs_a_fiftieth_for_two_seconds(fleet: Fleet) -> None:
    limited = candidate(rpm=60)
    await answer_each(fleet, limited, 1000.0, 20)
    assert await fleet.refuse(await fleet.grant(limited)) is None
    assert await learned(fleet) == pytest.approx(0.98 * 60)
    fleet.after_s(3)
    assert (await fleet.grant(limited)).cost_ms == pytest.approx(1000)


async def test_a_rest_at_a_limit_that_was_nearly_kept_costs_a_fiftieth(fleet: Fleet) -> None:
    limited = candidate(rpm=600)
    await answer_each(fleet, limited, 100.0, 100)
    await fleet.refuse_until_hints_are_doubted(limited, 0.05)
    assert await learned(fleet) == pytest.approx(0.98 * 600)


async def test_a_herd_of_such_refusals_is_one(fleet: Fleet) -> None:
    limited = candidate(rpm=600)
    await answer_each(fleet, limited, 100.0, 100)
    for _ in range(2):
        await fleet.refuse_until_it_rests(limited, 0.05)
    fleet.after_s(0.5)
    herd = [await fleet.grant(limited) for _ in range(11)]
    for refused in herd:
        await fleet.refuse(refused, 0.05)
    assert await learned(fleet) == pytest.approx(0.98 * 600)


async def test_a_limit_that_is_far_lower_than_configured_is_learned(fleet: Fleet) -> None:
    limited = candidate(rpm=6000)
    await answer_each(fleet, limited, 100.0, 100)
    await fleet.refuse_until_it_rests(limited)
    assert await learned(fleet) == pytest.approx(0.98 * 600, rel=0.06)


async def test_the_next_call_waits_for_the_rests_end_and_no_burst_follows(fleet: Fleet) -> None:
    limited = candidate(rpm=600)
    await answer_each(fleet, limited, 100.0, 100)
    end = await fleet.refuse_until_hints_are_doubted(limited, 0.05)
    assert (await fleet.refusal(limited)).until == end
    fleet.at_ms(end * 1000 - BEGIN_MS + 10)
    assert (await fleet.grant(limited)).wait_s == 0
    assert (await fleet.grant(limited)).wait_s > 0.05


async def test_where_only_tokens_have_a_limit_no_rate_of_requests_is_learned(fleet: Fleet) -> None:
    limited = candidate(tpm=60_000)
    await answer_each(fleet, limited, 100.0, 100)
    end = await fleet.refuse_until_hints_are_doubted(limited, 0.05)
    assert await fleet.redis.hget(keys.rate("alpha:main", "large"), "learned") is None
    fleet.at_ms(end * 1000 - BEGIN_MS + 1050)
    waits = [(await fleet.grant(limited, tokens=400)).wait_s for _ in range(4)]
    assert waits[3] - waits[2] == pytest.approx(0.4 / 0.98, abs=0.001)
    fleet.after_s(20)
    waits = [(await fleet.grant(limited, tokens=400)).wait_s for _ in range(4)]
    assert waits[3] - waits[2] == pytest.approx(0.4, abs=0.001)


async def test_a_rest_without_a_hint_slows_tokens_and_not_requests(fleet: Fleet) -> None:
    """By a fiftieth for the first refusal, and by one for the rest."""
    limited = candidate(tpm=60_000)
    await answer_each(fleet, limited, 100.0, 100)
    end = await fleet.refuse_until_it_rests(limited)
    fleet.at_ms(end * 1000 - BEGIN_MS + 1050)
    grants = [await fleet.grant(limited, tokens=400) for _ in range(4)]
    assert [each.cost_ms for each in grants] == [0] * 4
    assert grants[3].wait_s - grants[2].wait_s == pytest.approx(0.4 / 0.98**2, abs=0.001)


async def test_tokens_of_a_refused_call_are_given_back(fleet: Fleet) -> None:
    limited = candidate(tpm=6000)
    await fleet.one.release(await fleet.grant(limited, tokens=1000), None, refused=True)
    assert (await fleet.grant(limited, tokens=100)).wait_s == 0


async def test_who_is_held_by_a_learned_rate_is_told_since_when(fleet: Fleet) -> None:
    await fleet.has_proven_itself()
    await answer_each(fleet, candidate(), 100, 200)
    await fleet.refuse_until_hints_are_doubted(candidate(), 1.0)
    taught = fleet.ms / 1000
    for _ in range(10):
        fleet.after_s(2)
        while isinstance(reply := await fleet.one.reserve([candidate()], 10), Grant):
            await fleet.one.release(reply, 10)
        assert (reply.hold, reply.since) == (Hold.REQUESTS, moment(taught))
        (seen,) = await fleet.one.outlook([candidate()], 1.0)
        assert seen.paced_for_s == pytest.approx(fleet.ms / 1000 - taught, abs=0.002)


async def test_who_is_held_by_a_configured_rate_is_not(fleet: Fleet) -> None:
    await fleet.has_proven_itself()
    limited = candidate(rpm=120)
    while isinstance(reply := await fleet.one.reserve([limited], 10), Grant):
        await fleet.one.release(reply, 10)
    assert (reply.hold, reply.since) == (Hold.REQUESTS, None)
    (seen,) = await fleet.one.outlook([limited], 1.0)
    assert seen.paced_for_s is None


@pytest.mark.parametrize(("answered", "refusals"), [(200, 3), (20, 5), (5, 10), (1, 19)])
async def test_a_run_after_a_long_quiet_stretch_needs_fewer_refusals(
    fleet: Fleet, answered: int, refusals: int
) -> None:
    await fleet.has_proven_itself()
    await answer_each(fleet, candidate(), 100.0, answered)
    herd = [await fleet.grant(candidate()) for _ in range(20)]
    ends = [await fleet.refuse(each) for each in herd]
    assert ends.index(moment(fleet.ms / 1000 + 2)) == refusals - 1


@pytest.mark.parametrize(("answered", "refusals"), [(60, 4), (160, 6)])
async def test_among_many_calls_a_run_needs_a_surer_proof(fleet: Fleet, answered: int, refusals: int) -> None:
    """In slow start, where every twentieth call is refused by chance."""
    for number in range(answered):
        call = await fleet.next_call(candidate())
        if number % 20 == 10:
            assert await fleet.refuse(call) is None
        else:
            await fleet.one.release(call, 10)
        fleet.after_s(0.1)
    ends = [await fleet.refuse(await fleet.next_call(candidate())) for _ in range(refusals)]
    assert [end is None for end in ends] == [True] * (refusals - 1) + [False]


async def test_the_trial_of_a_slow_limit_does_not_fall_to_a_sum_that_lags_behind_its_growth(fleet: Fleet) -> None:
    await fleet.has_proven_itself()
    await answer_each(fleet, candidate(), 2000, 60)
    await fleet.refuse_until_it_rests(candidate())
    while (call := await fleet.next_call(candidate())).cost_ms > 1500:
        await fleet.one.release(call, 10)
    assert await fleet.refuse(await fleet.next_call(candidate())) is None
    second = await fleet.next_call(candidate())
    assert await fleet.refuse(second) is None
    assert await learned(fleet) >= 0.78 * 60_000 / second.cost_ms


async def test_a_trial_that_is_refused_behind_its_end_goes_on_below_what_the_rate_has_grown_to(fleet: Fleet) -> None:
    grants = await call_each(fleet, 100, 200)
    for refused in grants[-6], grants[-1]:
        await fleet.refuse(refused)
    fleet.after_s(50)
    late = await fleet.next_call(candidate())
    assert 60_000 / late.cost_ms > 750
    assert await fleet.refuse(late) is None
    after = await fleet.next_call(candidate())
    assert 60_000 / after.cost_ms == pytest.approx(0.75 * 60_000 / late.cost_ms, rel=0.01)

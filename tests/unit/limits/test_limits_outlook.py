"""What the limiter promises the planner, over a fake Redis."""

from hypothesis import given
from hypothesis import strategies as st
from limiter_fleet import BEGIN_MS, EXAMPLES, Fleet, candidate, moment, simulated

from understudy.models.failure import Scope
from understudy.worker.limits.grants import NO_LIMIT, Grant, Hold, Outlook


@EXAMPLES
@given(
    st.sampled_from([None, 7, 60, 600]),
    st.sampled_from([None, 500, 60_000]),
    st.integers(0, 20),
    st.floats(0, 2500),
    st.sampled_from([0.5, 2.0]),
)
def test_it_never_promises_more_starts_than_reservations_get(
    rpm: int | None, tpm: int | None, earlier: int, gap: float, horizon_s: float
) -> None:
    async def story(fleet: Fleet) -> tuple[int, int]:
        paced, started = candidate(rpm=rpm, tpm=tpm), 0
        for _ in range(earlier):
            await fleet.one.reserve([paced], 100)
        fleet.at_ms(gap)
        (seen,) = await fleet.one.outlook([paced], horizon_s, 100)
        end_ms = fleet.ms + horizon_s * 1000
        while fleet.ms <= end_ms + 1:
            reply = await fleet.one.reserve([paced], 100)
            if isinstance(reply, Grant) and fleet.ms + reply.wait_s * 1000 <= end_ms + 1:
                started += 1
            elif isinstance(reply, Grant):
                break
            else:
                fleet.at_ms(max(fleet.ms + 0.01, reply.until * 1000 - BEGIN_MS))
            if started > 200:
                return NO_LIMIT, NO_LIMIT
        return seen.starts, started

    promised, started = simulated(story)
    assert promised <= started


async def test_a_full_deployment_is_expected_to_end_a_quarter_of_its_calls(fleet: Fleet) -> None:
    limited = candidate(most=8)
    await fleet.has_proven_itself()
    assert await fleet.one.outlook([limited], 2.0) == [Outlook(10, None, Hold.IN_FLIGHT)]
    for _ in range(8):
        await fleet.grant(limited)
    assert await fleet.one.outlook([limited], 2.0) == [Outlook(2, None, Hold.IN_FLIGHT)]


async def test_it_names_cooldowns_and_counts_only_probes_when_half_open(fleet: Fleet) -> None:
    for length in (2, 4):
        await fleet.one.cool(candidate().deployment, Scope.MODEL, None, "429")
        assert (await fleet.one.outlook([candidate()], 2.0))[0].cooled_for_s == length
        fleet.after_s(length)
    assert await fleet.one.outlook([candidate()], 2.0) == [Outlook(2, None, Hold.COOLDOWN)]


async def test_it_says_what_holds_and_until_when(fleet: Fleet) -> None:
    paced = candidate(rpm=6)
    await fleet.grant(paced)
    (seen,) = await fleet.one.outlook([paced], 2.0)
    assert (seen.starts, seen.hold, seen.first_at) == (0, Hold.REQUESTS, moment(10))
    (spent,) = await fleet.one.outlook([candidate(tpm=60)], 2.0, tokens=100_000)
    assert (spent.starts, spent.hold) == (1, Hold.TOKENS)
    await fleet.one.cool(paced.deployment, Scope.PROVIDER, 30.0, "529")
    (seen,) = await fleet.one.outlook([paced], 2.0)
    assert (seen.hold, seen.first_at) == (Hold.BREAKER, moment(30))


async def test_without_a_limit_a_deployment_that_has_proven_itself_has_none(fleet: Fleet) -> None:
    await fleet.has_proven_itself()
    assert await fleet.one.outlook([candidate()], 2.0, 100) == [Outlook(NO_LIMIT, None)]

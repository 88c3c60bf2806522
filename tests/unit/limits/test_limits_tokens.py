"""The schedule of tokens over a fake Redis: what a call takes from it and gives back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from limiter_fleet import EXAMPLES, Fleet, candidate, moment, simulated, worst_excess

from examples import examples
from understudy.models.queue import keys
from understudy.worker.limits.grants import BULK, Grant, Hold

Move = tuple[float, int, float, int]
token_stories = st.lists(
    st.tuples(
        st.one_of(st.just(0.0), st.floats(0, 2000)),
        st.integers(1, 5000),
        st.floats(0, 1),
        st.sampled_from([0, 0, 1, 9]),
    ),
    min_size=1,
    max_size=60,
)
"""Milliseconds that pass, tokens that a call reserves, the share that an earlier one used of its own, and which."""


@EXAMPLES
@given(st.lists(st.tuples(st.floats(0, 3000), st.integers(1, 400)), min_size=1, max_size=60))
def test_no_window_starts_more_tokens_than_its_share_and_one_second_of_burst(calls: list[tuple[float, int]]) -> None:
    async def story(fleet: Fleet) -> list[tuple[float, float]]:
        starts = []
        for gap, tokens in calls:
            fleet.at_ms(fleet.ms + gap)
            reply = await fleet.one.reserve([candidate(tpm=6000)], tokens)
            if isinstance(reply, Grant):
                starts.append((fleet.ms + reply.wait_s * 1000, float(tokens)))
        return starts

    assert worst_excess(simulated(story), 0.1) <= max(100, *(tokens for _, tokens in calls)) + 0.01


@given(token_stories)
@examples(60)
def test_whatever_is_given_back_no_start_is_more_than_a_bucket_of_one_second_has(moves: list[Move]) -> None:
    async def story(fleet: Fleet) -> list[tuple[float, float]]:
        begun: list[tuple[float, Grant]] = []
        used: dict[int, float] = {}
        for gap, reserved, share, which in moves:
            fleet.at_ms(fleet.ms + gap)
            reply = await fleet.one.reserve([candidate(tpm=60_000)], reserved, BULK)
            if isinstance(reply, Grant):
                begun.append((fleet.ms + reply.wait_s * 1000, reply))
            ended = [index for index, (at, _) in enumerate(begun) if at <= fleet.ms and index not in used]
            if which < len(ended):
                _, grant = begun[ended[which]]
                used[ended[which]] = tokens = round(grant.tokens * share)
                await fleet.one.release(grant, tokens)
        return [(at, used.get(index, grant.tokens)) for index, (at, grant) in enumerate(begun)]

    level, before = 1000.0, 0.0
    for at, cost in sorted(simulated(story), key=lambda start: start[0]):
        level = min(1000.0, level + at - before)
        assert level >= min(cost, 1000) - 0.1, "it would have been refused"
        level, before = level - cost, at


async def test_what_was_not_used_is_lost_to_calls_behind_one_that_waits_for_a_whole_second(fleet: Fleet) -> None:
    paced = candidate(tpm=60_000)
    small = await fleet.grant(paced, tokens=500)
    assert (await fleet.grant(paced, tokens=2000)).wait_s == pytest.approx(0.5)
    await fleet.one.release(small, 100)
    assert (await fleet.refusal(paced, tokens=500)).until == moment(2 - 0.5)


async def test_a_call_larger_than_the_burst_starts_when_idle_and_pushes_the_schedule(fleet: Fleet) -> None:
    paced = candidate(tpm=6000)
    assert (await fleet.grant(paced, tokens=1000)).wait_s == 0
    refused = await fleet.refusal(paced, tokens=100)
    assert refused.hold is Hold.TOKENS
    assert refused.until == moment(10 - 0.5)


async def test_unused_tokens_can_be_used_again(fleet: Fleet) -> None:
    paced = candidate(tpm=6000)
    await fleet.one.release(await fleet.grant(paced, tokens=1000), 100)
    assert (await fleet.grant(paced, tokens=100)).wait_s == pytest.approx(1.0)


async def test_tokens_used_beyond_the_reservation_are_paid_for_later(fleet: Fleet) -> None:
    paced = candidate(tpm=6000)
    await fleet.one.release(await fleet.grant(paced, tokens=10), 50_000)
    assert (await fleet.refusal(paced)).until == moment(499.1 - 0.5)
    assert await fleet.redis.pttl(keys.rate("alpha:main", "large")) > 500_000, "a debt outlives the key's usual minute"


async def test_a_call_whose_usage_is_unknown_keeps_its_reservation(fleet: Fleet) -> None:
    paced = candidate(tpm=6000)
    await fleet.one.release(await fleet.grant(paced, tokens=1000), None)
    assert (await fleet.refusal(paced, tokens=100)).until == moment(10 - 0.5)

"""Cooldowns over a fake Redis: their length, their scope, and who probes afterwards."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from limiter_fleet import BEGIN_MS, EXAMPLES, Fleet, candidate, moment, simulated

from understudy.models.failure import Scope
from understudy.worker.limits.grants import Hold, Refusal


async def test_a_cooldown_is_refused_however_short(fleet: Fleet) -> None:
    end = await fleet.one.cool(candidate().deployment, Scope.MODEL, 0.2, "429")
    refused = await fleet.refusal(candidate())
    assert refused.until == end == moment(0.2)


@EXAMPLES
@given(st.lists(st.tuples(st.floats(0, 5000), st.one_of(st.none(), st.floats(0.05, 60))), min_size=1, max_size=12))
def test_a_longer_cooldown_is_never_shortened(refusals: list[tuple[float, float | None]]) -> None:
    async def story(fleet: Fleet) -> None:
        end = 0.0
        for gap, hint_s in refusals:
            fleet.at_ms(fleet.ms + gap)
            now_s = (BEGIN_MS + fleet.ms) / 1000
            before, end = end, await fleet.one.cool(candidate().deployment, Scope.MODEL, hint_s, "429")
            assert end >= before - 0.001
            if hint_s is not None:
                assert end >= now_s + hint_s - 0.002

    simulated(story)


async def test_without_a_hint_it_doubles_from_two_seconds_to_a_minute(fleet: Fleet) -> None:
    lengths = []
    for _ in range(7):
        await fleet.one.cool(candidate().deployment, Scope.MODEL, None, "429")
        lengths.append(await fleet.cools_for_s(candidate()))
        fleet.after_s(lengths[-1] + 0.001)
    assert lengths == [2, 4, 8, 16, 32, 60, 60]


async def test_a_refused_herd_counts_as_one_refusal(fleet: Fleet) -> None:
    for _ in range(50):
        await fleet.one.cool(candidate().deployment, Scope.MODEL, None, "429")
        fleet.at_ms(fleet.ms + 1)
    fleet.after_s(2)
    await fleet.one.cool(candidate().deployment, Scope.MODEL, None, "429")
    assert await fleet.cools_for_s(candidate()) == 4


async def test_hints_are_kept_within_sane_bounds(fleet: Fleet) -> None:
    await fleet.one.cool(candidate().deployment, Scope.MODEL, -5.0, "429")
    assert await fleet.cools_for_s(candidate()) == 0.05
    await fleet.one.cool(candidate().deployment, Scope.MODEL, 1e9, "429")
    assert await fleet.cools_for_s(candidate()) == 86_400


async def test_after_several_without_a_hint_one_probe_a_second_until_an_answer(fleet: Fleet) -> None:
    await fleet.has_proven_itself()
    for length in (2, 4):
        await fleet.one.cool(candidate().deployment, Scope.MODEL, None, "429")
        fleet.after_s(length)
    probe = await fleet.grant(candidate())
    assert probe.streak == 2
    assert await fleet.cools_for_s(candidate()) == 1
    fleet.after_s(1)
    await fleet.grant(candidate())
    assert (await fleet.refusal(candidate())).hold is Hold.COOLDOWN
    await fleet.one.answered(probe)
    for _ in range(20):
        assert (await fleet.grant(candidate())).streak == 0


async def test_after_a_hinted_cooldown_there_is_no_probe(fleet: Fleet) -> None:
    await fleet.has_proven_itself()
    for _ in range(3):
        await fleet.one.cool(candidate().deployment, Scope.MODEL, 1.0, "429")
        fleet.after_s(1)
    await fleet.grant(candidate())
    await fleet.grant(candidate())


async def test_refusals_without_a_hint_amid_a_hinted_cooldown_change_nothing(fleet: Fleet) -> None:
    await fleet.has_proven_itself()
    for _ in range(3):
        await fleet.one.cool(candidate().deployment, Scope.MODEL, 1.0, "429")
        await fleet.one.cool(candidate().deployment, Scope.MODEL, None, "429")
        fleet.after_s(1)
    await fleet.grant(candidate())
    await fleet.grant(candidate())


async def test_an_answer_does_not_end_a_cooldown_that_began_after_its_call(fleet: Fleet) -> None:
    await fleet.one.cool(candidate().deployment, Scope.MODEL, 1.0, "429")
    fleet.after_s(1)
    early = await fleet.grant(candidate())
    await fleet.one.cool(candidate().deployment, Scope.MODEL, 10.0, "429")
    await fleet.one.answered(early)
    assert await fleet.cools_for_s(candidate()) == 10


@pytest.mark.parametrize(
    ("scope", "cooled"),
    [
        (Scope.MODEL, {("one", "large")}),
        (Scope.ACCOUNT, {("one", "large"), ("one", "small")}),
        (Scope.PROVIDER, {("one", "large"), ("two", "large")}),
    ],
)
async def test_a_cooldown_covers_its_scope_and_nothing_else(
    fleet: Fleet, scope: Scope, cooled: set[tuple[str, str]]
) -> None:
    await fleet.one.cool(candidate("one", "large").deployment, scope, 5.0, "429")
    for key in ("one", "two"):
        for model in ("large", "small"):
            reply = await fleet.one.reserve([candidate(key, model)], 10)
            assert isinstance(reply, Refusal) == ((key, model) in cooled)

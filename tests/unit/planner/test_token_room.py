"""How many jobs a token limit lets start, each with its own size."""

from hypothesis import given
from hypothesis import strategies as st

from understudy.models.routing.chain import Chain, Step
from understudy.models.state import Priority
from understudy.models.store.work.planning import Head, Lane
from understudy.worker.limits.grants import Candidate, Deployment, Hold, Outlook
from understudy.worker.planner.outlook import SPARE, StepOutlook, for_small_calls, over_all_credentials
from understudy.worker.planner.plan import LaneHeads, overfull, plan
from understudy.worker.planner.token_room import TokenRoom, too_many

ALPHA = Chain(steps=(Step(provider="alpha", model="m"),))
STEP = "alpha/m"


def lane(*tokens: int) -> LaneHeads:
    heads = [Head(f"job-{number:03}", each) for number, each in enumerate(tokens)]
    return LaneHeads(Lane("batch", "default", ALPHA.id, Priority.BULK), ALPHA, heads)


def staged(view: LaneHeads, at: StepOutlook) -> int:
    """As the planner does it, with each job's own reservation."""
    outlook, views = for_small_calls({STEP: at}), {view.lane: view}
    chosen = plan([view], outlook, 100).chosen
    full = overfull(chosen, views, outlook, lambda _, head: head.tokens)
    return full.get(STEP, len(chosen))


def test_small_jobs_start_where_one_of_the_usual_size_could_not() -> None:
    spent = StepOutlook(starts=0, room=TokenRoom(-500, 1000, calls=100))
    assert staged(lane(*[100] * 20), spent) == 5
    assert staged(lane(1000), spent) == 0


def test_a_large_job_takes_the_room_of_many() -> None:
    idle = StepOutlook(starts=10, room=TokenRoom(600, 1000, calls=100))
    assert staged(lane(4000, *[10] * 9), idle) == 1
    assert staged(lane(400, 4000, *[10] * 9), idle) == 2
    assert staged(lane(700, 4000, *[10] * 9), idle) == 1, "the large one needs a whole second, and nothing overtakes it"


def test_other_limits_hold_for_small_jobs_too() -> None:
    at = StepOutlook(starts=1, room=TokenRoom(600, 1000, calls=3))
    assert staged(lane(*[10] * 20), at) == 3
    assert staged(lane(*[10] * 20), at.without(calls=2, tokens=20)) == 1
    assert staged(lane(*[10] * 20), StepOutlook(starts=1, room=TokenRoom(600, 1000, calls=100))) == 1 + SPARE


def test_without_a_limit_of_tokens_the_size_of_a_job_does_not_matter() -> None:
    assert staged(lane(*[50_000] * 20), StepOutlook(starts=7)) == 7


def test_credentials_add_their_room_and_one_without_a_limit_has_room_for_all() -> None:
    limited = Outlook(5, None, Hold.TOKENS, room=TokenRoom(-100, 1000, calls=9))
    free = Outlook(1_000_000_000, None)
    keys = [Candidate(Deployment("alpha", "m", key, f"alpha:{key}")) for key in ("one", "two")]
    both = over_all_credentials([(keys[0], limited), (keys[1], limited)])
    assert both.room == TokenRoom(-200, 2000, calls=18)
    assert over_all_credentials([(keys[0], limited), (keys[1], free)]).room is None


@given(st.lists(st.integers(1, 5000), max_size=30), st.integers(-2000, 2000), st.integers(1, 2000))
def test_what_fits_starts_within_the_horizon_and_the_next_would_not(sizes: list[int], left: int, burst: int) -> None:
    count = too_many([(STEP, size) for size in sizes], {STEP: TokenRoom(left, burst, 100)}).get(STEP, len(sizes))
    late = [sum(sizes[:n]) - left - max(burst - sizes[n], 0) for n in range(len(sizes))]
    assert all(each <= 0 for each in late[:count])
    assert count == len(sizes) or late[count] > 0

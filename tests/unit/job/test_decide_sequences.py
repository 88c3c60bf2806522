"""Whatever happens to a job, in any order, its decisions follow the rules."""

from random import Random

import orjson
from hypothesis import given
from hypothesis import strategies as st

from examples import examples
from understudy.models.failure import Failure, FailureClass, classes_where
from understudy.models.routing.chain import Chain, Step
from understudy.models.routing.suitability import WhyNot
from understudy.models.state import Priority
from understudy.worker.job.decide import decide
from understudy.worker.job.events import Event, EveryKeyRefused, Fail, MoveOn, PutBack, Situation, TryAgain, Verdict
from understudy.worker.job.progress import (
    RETRIES_PER_ROUND,
    Progress,
    begin_round,
    first_error,
    skipped,
    worth_waiting_for,
)
from understudy.worker.limits.credentials import Absence
from understudy.worker.limits.grants import Deployment, Hold, Refusal
from understudy.worker.providers.base import CannotExpress

NOW = 1_000_000.0
DEPLOYMENT = Deployment("a", "m", "k", "a:k")
MODELS = ["gpt-4", "gpt-4o", "unheard-of"]
IN_CALLS = [cls for cls in FailureClass if cls not in (FailureClass.CANCELLED, FailureClass.CRASHED)]
TURNS_AWAY = classes_where(lambda traits: traits.about_credential)
CALLED_AGAIN = [cls for cls in IN_CALLS if cls not in TURNS_AWAY]
"""The others set the credential aside, so that their number is an end."""

chains = st.builds(
    Chain,
    steps=st.lists(
        st.builds(Step, provider=st.sampled_from("abc"), model=st.sampled_from(MODELS)), min_size=1, max_size=4
    ),
    patience_s=st.sampled_from([None, 0.0, 10.0]),
    spill=st.booleans(),
    fallback_on=st.none() | st.frozensets(st.sampled_from(IN_CALLS)),
)
seconds = st.sampled_from([0.0, 0.05, 0.5, 2.0, 30.0, 4000.0])
Told = Event | tuple[Hold, float]
"""What happens: an event, or a refusal for some seconds."""

failures = st.builds(
    Failure, cls=st.sampled_from(IN_CALLS), message=st.just("no"), status=st.just(500), hint_s=st.none() | seconds
)
events: st.SearchStrategy[Told] = st.one_of(
    failures,
    st.tuples(st.sampled_from(Hold), seconds),
    st.builds(Absence, st.sampled_from(sorted(classes_where(lambda traits: traits.blocks))), st.just("no money")),
    st.builds(WhyNot, st.just("not this one"), rule=st.booleans()),
    st.just(CannotExpress("cannot be said")),
)


def decided(at: Situation, progress: Progress, told: Told) -> tuple[Verdict, Progress]:
    if isinstance(told, tuple):
        hold, in_s = told
        told = Refusal(at.now + in_s, hold, DEPLOYMENT)
    if isinstance(told, Failure) and told.cls in TURNS_AWAY and "k" in progress.refused_by:
        told = EveryKeyRefused()  # no other key is left to ask
    return decide(at, progress, told)


@examples(400)
@given(
    chain=chains,
    priority=st.sampled_from(Priority),
    told=st.lists(st.tuples(events, seconds), max_size=40),
    shuffle=st.none() | st.randoms(use_true_random=False),
)
def test_any_sequence_of_events_keeps_to_the_rules(
    chain: Chain, priority: Priority, told: list[tuple[Told, float]], shuffle: Random | None
) -> None:
    """`shuffle` makes another order for each round; None: the order of the chain."""
    now, progress, retries = NOW, Progress(), 0
    for event, passes_s in told:
        now += passes_s
        if shuffle is not None and not progress.order:
            progress = begin_round(progress, tuple(shuffle.sample(range(len(chain.steps)), len(chain.steps))))
        before = progress
        order = before.order or tuple(range(len(chain.steps)))
        verdict, progress = decided(Situation(chain, priority, now, Random(1), key="k"), before, event)
        if progress.round == before.round and not isinstance(verdict, PutBack):
            assert order.index(progress.step) >= order.index(before.step), "never backwards within a round"
        assert progress.step not in progress.ruled_out or isinstance(verdict, Fail)
        assert Progress.from_dict(orjson.loads(orjson.dumps(progress.to_dict()))) == progress
        retries = retries if progress.round == before.round else 0
        match verdict:
            case TryAgain() if isinstance(event, Failure) and event.cls.traits.retries:
                retries += 1
                assert retries <= RETRIES_PER_ROUND
                assert verdict.after_s >= 0
            case MoveOn():
                assert order.index(progress.step) > order.index(before.step)
            case PutBack(until, reason):
                assert until >= now and reason
                assert priority is not Priority.INTERACTIVE or progress.round == before.round
            case Fail():
                assert first_error(progress) is not None or skipped(progress)
                assert priority is Priority.INTERACTIVE or not worth_waiting_for(chain, progress)
                return


@examples(200)
@given(
    chain=chains,
    told=st.lists(st.sampled_from(sorted(classes_where(lambda traits: traits.transient))), min_size=60, max_size=60),
)
def test_what_time_heals_never_fails_a_job_of_a_batch(chain: Chain, told: list[FailureClass]) -> None:
    now, progress = NOW, Progress()
    for cls in told:
        now += 1.0
        at = Situation(chain, Priority.BULK, now, Random(1))
        verdict, progress = decide(at, progress, Failure(cls, "no", status=500))
        assert not isinstance(verdict, Fail)


@examples(200)
@given(
    chain=chains,
    priority=st.sampled_from(Priority),
    seed=st.integers(0, 1000),
    classes=st.lists(st.sampled_from(CALLED_AGAIN), min_size=1, max_size=3),
)
def test_a_job_that_meets_nothing_but_failures_ends_or_leaves_its_slot_soon(
    chain: Chain, priority: Priority, seed: int, classes: list[FailureClass]
) -> None:
    """Cooldowns of no length and calls of a tenth of a second: the worst that a limiter may allow."""
    rng, progress, now = Random(seed), Progress(), NOW
    verdict: Verdict | None = None
    while not isinstance(verdict, Fail | PutBack):
        now += 0.1
        cls = rng.choice(classes)
        at = Situation(chain, priority, now, Random(1))
        verdict, progress = decide(at, progress, Failure(cls, "no", status=500))
        patience_s = max(at.patience_s, 1.0)
        assert now - NOW <= len(chain.steps) * (patience_s + 0.5)

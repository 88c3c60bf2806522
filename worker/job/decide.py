"""What follows from a failure or a refusal. Pure: values in, a verdict and the new progress out.

    after_failure   a provider was called and did not answer
    after_refusal   the limiter did not let the call start
    after_short     a budget did not let the call start
    after_block     no credential of the step can be used until a person mends it
    after_misfit    the step cannot serve this request at all
    after_every_key_refused  every credential of the step refused this job, though they serve others
    after_unfit     the step may not be asked: a data rule, or what the request is
    without_a_place only the first step that may serve this job may answer any more

Rounds, and how a job goes through the steps of one, are told in `progress`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from understudy.models.config.catalog import window
from understudy.models.failure import Failure, FailureClass
from understudy.models.jobs.wait_reasons import failed_at
from understudy.models.routing.chain import Chain
from understudy.models.routing.suitability import WhyNot
from understudy.models.state import Priority
from understudy.worker.budgets.reservations import InsufficientBudget, Shortage
from understudy.worker.job.progress import (
    Passed,
    Progress,
    at_the_best_step,
    later_steps,
    moved_to,
    new_round,
    passed_over,
    worth_waiting_for,
)
from understudy.worker.limits.limiter import Hold, Refusal

ROUND_BACKOFF_S = (5.0, 600.0)
SHORTEST_ROUND_S = 1.0
UNCONFIRMED_ROUNDS = 4
"""After so many rounds of about half a minute together, what nobody else met is about the job."""

RETRY_BACKOFF_S = (0.25, 8.0)
IN_SLOT_S = 1.0
"""A pause up to this long is waited out in the slot; a longer one goes back to the ledger."""

BLOCKED_RECHECK_S = 2.0
"""The planner leaves jobs alone whose steps are all blocked, so they may come due at once and wait for the person."""

MONEY_RECHECK_S = 0.5
"""Calls under way hold the rest of a budget: what they really cost is known soon."""

SHARE_USED_UP = "the batch's max_fallback_share is used up"

REFUSED_LIKE: Mapping[Hold, FailureClass] = {
    Hold.COOLDOWN: FailureClass.RATE_LIMIT,
    Hold.DAY: FailureClass.RATE_LIMIT,
    Hold.BREAKER: FailureClass.OVERLOADED,
}
"""The failure that a refusal stands for. The other holds are our own pacing, which is not a failure of the step: they
end in a moment, while a day that is used up may last longer than patience. A pace that refusals taught tells `since`
when."""


@dataclass(frozen=True, slots=True)
class TryAgain:
    """The same step once more, after a pause."""

    after_s: float = 0.0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class MoveOn:
    """The step that the new progress points at."""


@dataclass(frozen=True, slots=True)
class PutBack:
    """Return to the ledger until a time; costs no attempt."""

    until: float
    reason: str


@dataclass(frozen=True, slots=True)
class Fail:
    """Failed for good; the error is in the progress (`first_error`)."""


Verdict = TryAgain | MoveOn | PutBack | Fail


@dataclass(frozen=True, slots=True)
class Situation:
    """What a decision depends on beside the event itself. `now` in unix seconds. `account` is that of the call which
    was made, if one was."""

    chain: Chain
    priority: Priority
    now: float
    rng: Random
    account: str | None = None

    @property
    def patience_s(self) -> float:
        return self.priority.patience_s if self.chain.patience_s is None else self.chain.patience_s


def after_failure(at: Situation, progress: Progress, failure: Failure, key: str = "") -> tuple[Verdict, Progress]:
    """`key` is the name of the credential that was used."""
    error = {"class": failure.cls, "message": failure.message, "status": failure.status, "body": failure.body}
    progress = replace(progress, errors={**progress.errors, progress.step: error})
    cls = failure.cls
    if cls.traits.asks_another_credential:
        return _after_refused_call(at, progress, failure, key)
    pause = _backoff(RETRY_BACKOFF_S, progress.tries, at.rng) if failure.hint_s is None else failure.hint_s
    worth_waiting = pause <= max(at.patience_s, IN_SLOT_S)
    retries = cls.traits.retries if failure.repeatable else 0
    if worth_waiting and progress.tries < retries and progress.retries_left > 0:
        retried = replace(progress, tries=progress.tries + 1, retries_left=progress.retries_left - 1)
        return TryAgain(pause, _failed(at, progress, cls)), retried
    if cls.traits.transient or progress.tries < retries:  # the retry that it deserves may be left in the next round
        return _pass_over_failure(at, progress, failure)
    if cls in (FailureClass.CONTEXT_LENGTH, FailureClass.TOO_LARGE):
        progress = _rule_out_smaller_windows(at.chain, progress, cls)
    return _after_verdict(at, progress, cls, failure.message)


def after_refusal(at: Situation, progress: Progress, refusal: Refusal) -> tuple[Verdict, Progress]:
    cls = REFUSED_LIKE.get(refusal.hold)
    passed = Passed(refusal.reason, refusal.until)
    if cls is None:
        spills = at.chain.spill and refusal.hold is not Hold.STARTING
        if (spills or _is_out_of_patience(at, refusal)) and later_steps(at.chain, progress):
            return _advance(at, passed_over(progress, passed))
        return PutBack(refusal.until, refusal.reason), at_the_best_step(at.chain, progress, refusal.until)
    too_far = refusal.until - at.now > at.patience_s
    refusing_s = -1.0 if refusal.since is None else at.now - refusal.since
    if too_far or max(_refused_for(at, progress), refusing_s) >= at.patience_s:
        return _pass_over(at, _with_error(progress, cls, refusal.reason), cls, passed)
    return PutBack(refusal.until, refusal.reason), replace(progress, refused_since=progress.refused_since or at.now)


def after_short(
    at: Situation, progress: Progress, short: InsufficientBudget, *, alone: bool
) -> tuple[Verdict, Progress]:
    """A provider whose budget is spent is passed over. A batch or tenant that has spent its budget waits, and begins
    again at the lead: an understudy that costs less is not asked instead.

    `alone`: the job belongs to no batch. When somebody waits for it (`interactive`), it fails at once.
    """
    if short.why is not Shortage.SPENT:
        return PutBack(at.now + MONEY_RECHECK_S, short.waits), progress
    error = {"class": FailureClass.QUOTA, "message": short.reason, "status": 402, "body": _no_money(short.reason)}
    refused = replace(progress, errors={progress.step: error, **progress.errors})
    if short.is_of_provider:
        return _pass_over(at, refused, FailureClass.QUOTA, Passed(short.waits, until=None))
    if alone and at.priority is Priority.INTERACTIVE:
        return Fail(), refused
    times = [each.until for each in progress.passed.values() if each.until is not None]
    until = max(min(times, default=at.now + BLOCKED_RECHECK_S), at.now + SHORTEST_ROUND_S)
    return PutBack(until, short.waits), new_round(at.chain, progress)


def _no_money(message: str) -> dict[str, Any]:
    """As OpenAI's API tells it, with the status that it has at others: 429 would be tried again."""
    return {"error": {"message": message, "type": "insufficient_quota", "param": None, "code": "budget_reached"}}


def after_block(
    at: Situation, progress: Progress, cls: FailureClass, reason: str, until: float | None = None
) -> tuple[Verdict, Progress]:
    """`cls` is what every usable credential of the step was refused for: `quota` or `credential`, until a person acts;
    or `model_missing`, where that is only supposed, `until` it is tried again."""
    return _pass_over(at, _with_error(progress, cls, reason), cls, Passed(reason, until))


def after_misfit(
    at: Situation, progress: Progress, reason: str, cls: FailureClass = FailureClass.BAD_REQUEST
) -> tuple[Verdict, Progress]:
    return _rule_out(at, _with_error(progress, cls, reason), reason)


def after_every_key_refused(
    at: Situation, progress: Progress, failure: Failure | None = None
) -> tuple[Verdict, Progress]:
    """Each credential of the step refused this job, `failure` was the last refusal, and nothing is proved against them:
    it may be about this job. It is asked once more, because one odd answer proves nothing. What can only be about a
    credential is waited out for some rounds: others will confirm it, or a later call is answered."""
    error = progress.errors[progress.step]
    cls = FailureClass(error["class"])
    if cls.traits.transient:
        return _pass_over_failure(at, progress, failure or Failure(cls, error["message"]))
    if not progress.tries and progress.retries_left:
        pause_s = _backoff(RETRY_BACKOFF_S, 0, at.rng)
        once_more = replace(progress, tries=1, retries_left=progress.retries_left - 1, refused_by=())
        return TryAgain(pause_s, _failed(at, progress, cls)), once_more
    if failure is not None and failure.sure and failure.cls.traits.blocks and progress.round < UNCONFIRMED_ROUNDS:
        return _pass_over_failure(at, progress, failure)
    return _after_verdict(at, progress, cls, error["message"])


def after_unfit(at: Situation, progress: Progress, why: WhyNot) -> tuple[Verdict, Progress]:
    """The step is skipped, whatever the chain falls back on; its job's error is that of a step that was asked."""
    if not why.rule:
        return _rule_out(at, progress, why.text)
    passed = Passed(why.text, until=None, rule=True)
    return _advance(at, passed_over(progress, passed))


def without_a_place(at: Situation, progress: Progress, lead: int) -> tuple[Verdict, Progress]:
    """The batch has used up its share of fallbacks: the job does as if its chain had no step but `lead`, by index."""
    passed = {step: why for step, why in progress.passed.items() if step == lead}
    progress = replace(moved_to(progress, lead), passed=passed)
    if lead in progress.ruled_out:
        return Fail(), progress
    if not passed:
        return MoveOn(), progress
    verdict, progress = _end_of_round(at, progress)
    if isinstance(verdict, PutBack):
        verdict = replace(verdict, reason=f"{verdict.reason}; {SHARE_USED_UP}")
    return verdict, progress


def _after_refused_call(at: Situation, progress: Progress, failure: Failure, key: str) -> tuple[Verdict, Progress]:
    """A call that the provider turned away without doing it: the limiter knows what else may start.

    Cooldowns may end sooner than other credentials refuse, so that without an end there might always be one to ask.
    Without patience the step's other credentials are asked once each, unless it is overloaded, and then the next step.
    """
    at_once = at.patience_s == 0 and at.chain.falls_back_on(failure.cls) and bool(later_steps(at.chain, progress))
    if not failure.cls.traits.transient:
        return TryAgain(), replace(progress, refused_by=(*progress.refused_by, key))
    overloaded = failure.cls is FailureClass.OVERLOADED
    if (at_once and overloaded) or _refused_for(at, progress) >= max(at.patience_s, IN_SLOT_S):
        return _pass_over_failure(at, progress, failure)
    refused_by = (*progress.refused_by, key) if at_once else progress.refused_by
    return TryAgain(), replace(progress, refused_by=refused_by, refused_since=progress.refused_since or at.now)


def _pass_over_failure(at: Situation, progress: Progress, failure: Failure) -> tuple[Verdict, Progress]:
    """Unless another step is usable sooner, this one is asked again after the round's backoff."""
    pause_s = max(_backoff(ROUND_BACKOFF_S, progress.round - 1, at.rng), failure.hint_s or 0.0)
    passed = Passed(_failed(at, progress, failure.cls), at.now + pause_s, called=True)
    return _pass_over(at, progress, failure.cls, passed)


def _failed(at: Situation, progress: Progress, cls: FailureClass) -> str:
    step = at.chain.steps[progress.step]
    return failed_at(cls, step.provider, step.model, at.account)


def _is_out_of_patience(at: Situation, refusal: Refusal) -> bool:
    """With a pace that the step's refusals taught: that is the provider refusing, not a limit of ours."""
    learned = refusal.since is not None and at.chain.falls_back_on(FailureClass.RATE_LIMIT)
    return learned and at.now - (refusal.since or at.now) >= at.patience_s


def _refused_for(at: Situation, progress: Progress) -> float:
    """For how many seconds the step has answered nothing but refusals; -1 before the first."""
    return -1.0 if progress.refused_since is None else at.now - progress.refused_since


def _with_error(progress: Progress, cls: FailureClass, message: str) -> Progress:
    """A step that was not even called has an error, too. What a provider told is worth more, unless it was a passing
    reason and this is none. Who asks for a model that is known to be missing gets the status of that."""
    told = progress.errors.get(progress.step)
    if told is not None and (cls.traits.transient or not FailureClass(told["class"]).traits.transient):
        return progress
    status = 404 if cls is FailureClass.MODEL_MISSING else None
    error = {"class": cls, "message": message, "status": status, "body": None}
    return replace(progress, errors={**progress.errors, progress.step: error})


def _pass_over(at: Situation, progress: Progress, cls: FailureClass, passed: Passed) -> tuple[Verdict, Progress]:
    """A chain that does not fall back on this class waits for its step instead."""
    progress = passed_over(progress, passed)
    return _advance(at, progress) if at.chain.falls_back_on(cls) else _end_of_round(at, progress)


def _rule_out(at: Situation, progress: Progress, reason: str) -> tuple[Verdict, Progress]:
    return _advance(at, replace(progress, ruled_out={**progress.ruled_out, progress.step: reason}))


def _after_verdict(at: Situation, progress: Progress, cls: FailureClass, message: str) -> tuple[Verdict, Progress]:
    """What the step says of this request rules it out, and nothing else: steps that were passed over are waited for.

    Where the chain does not fall back on the class, no later step is asked in any round.
    """
    progress = replace(progress, ruled_out={**progress.ruled_out, progress.step: f"{cls}: {message}"})
    if at.chain.falls_back_on(cls):
        return _advance(at, progress)
    why = f"not asked, because this chain does not fall back on {cls}, the answer of {at.chain.steps[progress.step]}"
    not_asked = dict.fromkeys(later_steps(at.chain, progress), why)
    return _end_of_round(at, replace(progress, ruled_out={**progress.ruled_out, **not_asked}))


def _advance(at: Situation, progress: Progress) -> tuple[Verdict, Progress]:
    later = later_steps(at.chain, progress)
    if not later:
        return _end_of_round(at, progress)
    return MoveOn(), moved_to(progress, later[0])


def _rule_out_smaller_windows(chain: Chain, progress: Progress, cls: FailureClass) -> Progress:
    """A prompt that is too long for one model is not sent on to another that cannot take more. An earlier step that is
    waited for says so itself.

    What was merely too large may fit the same model elsewhere: that limit is an account's or a gateway's.
    """
    ours = chain.steps[progress.step].model
    size = window(ours)
    too_small = {}
    for index in later_steps(chain, progress):
        model = chain.steps[index].model
        same = model == ours and cls is FailureClass.CONTEXT_LENGTH
        smaller = model != ours and size is not None and (window(model) or size + 1) <= size
        if same or smaller:
            too_small[index] = f"{cls} at {chain.steps[progress.step]}"
    return replace(progress, ruled_out={**progress.ruled_out, **too_small})


def _end_of_round(at: Situation, progress: Progress) -> tuple[Verdict, Progress]:
    passed = worth_waiting_for(at.chain, progress)
    waits = [(each.until, each.reason) for each in passed if each.until is not None]
    if at.priority is Priority.INTERACTIVE or not passed:
        return Fail(), progress
    following = new_round(at.chain, progress)
    if not waits:
        return PutBack(at.now + BLOCKED_RECHECK_S, passed[0].reason), replace(following, round=progress.round)
    earliest, reason = min(waits)
    until = max(earliest, at.now + SHORTEST_ROUND_S)
    if len(waits) < len(passed):  # a person may mend the others at any moment
        until = min(until, at.now + _backoff(ROUND_BACKOFF_S, progress.round - 1, at.rng))
    return PutBack(until, reason), following


def _backoff(bounds_s: tuple[float, float], exponent: int, rng: Random) -> float:
    """Doubling with full jitter over the upper half, so that a herd spreads and nobody comes too early."""
    low, high = bounds_s
    full: float = min(low * 2 ** min(exponent, 20), high)
    return full * (0.5 + 0.5 * rng.random()) if exponent else full * (1.0 + 0.25 * rng.random())

"""Decides what follows from an event at a step: a failure, a refusal, or a reason why the step was not called. Pure:
values in, a verdict and the new progress out.

See `progress` for rounds, and for how a job moves through the steps of one.
"""

from collections.abc import Mapping
from dataclasses import replace
from random import Random

from understudy.models.failure import Failure, FailureClass
from understudy.models.jobs.wait_reasons import Waiting, failed_at, put_back_for
from understudy.models.routing.suitability import WhyNot
from understudy.models.state import Priority
from understudy.worker.budgets.fallback_quota import QuotaUsedUp
from understudy.worker.budgets.reservations import InsufficientBudget, Shortage
from understudy.worker.job.events import (
    Event,
    EveryKeyRefused,
    Fail,
    MoveOn,
    NotStarted,
    PutBack,
    ShareUsedUp,
    Situation,
    TryAgain,
    Verdict,
)
from understudy.worker.job.progress import (
    Passed,
    Progress,
    at_the_best_step,
    later_steps,
    moved_to,
    new_round,
    passed_over,
    ruled_out,
    smaller_windows,
    worth_waiting_for,
)
from understudy.worker.limits.credentials import Absence
from understudy.worker.limits.grants import Hold, Refusal
from understudy.worker.providers.base import CannotExpress

ROUND_BACKOFF_S = (5.0, 600.0)
SHORTEST_ROUND_S = 1.0
UNCONFIRMED_ROUNDS = 4
"""After this many rounds, about half a minute in total, a failure seen by no other job is attributed to this one."""

RETRY_BACKOFF_S = (0.25, 8.0)
IN_SLOT_S = 1.0
"""Shorter pauses are waited out in the slot; longer ones in the ledger."""

BLOCKED_RECHECK_S = 2.0
"""The planner skips jobs whose steps are all blocked, so they may be due at once and wait for the person."""

MONEY_RECHECK_S = 0.5
"""Calls in flight reserve the rest of a budget: their actual cost is known soon."""

SHARE_USED_UP = "the batch's max_fallback_share is used up"

REFUSED_LIKE: Mapping[Hold, FailureClass] = {
    Hold.COOLDOWN: FailureClass.RATE_LIMIT,
    Hold.DAY: FailureClass.RATE_LIMIT,
    Hold.BREAKER: FailureClass.OVERLOADED,
}
"""The failure that a refusal stands for. The other holds are our own pacing, which is not a failure of the step:
they end soon, while a used-up day may outlast the patience. For a rate learned from refusals, `since` says when it
began."""


def decide(at: Situation, progress: Progress, event: Event) -> tuple[Verdict, Progress]:
    """What the job does next, and its progress then."""
    match event:
        case Failure():
            return _after_failure(at, progress, event)
        case Refusal():
            return _after_refusal(at, progress, event)
        case InsufficientBudget():
            return _after_shortage(at, progress, event)
        case QuotaUsedUp():
            return PutBack(at.now + event.in_s, put_back_for(event.reason)), progress
        case ShareUsedUp(primary):
            return _at_primary_alone(at, progress, primary)
        case Absence():
            return _after_absence(at, progress, event)
        case EveryKeyRefused(failure):
            return _after_every_key_refused(at, progress, failure)
        case WhyNot() | CannotExpress():
            return _after_misfit(at, progress, event)
        case NotStarted():
            return TryAgain(), progress


def _after_failure(at: Situation, progress: Progress, failure: Failure) -> tuple[Verdict, Progress]:
    error = {"class": failure.cls, "message": failure.message, "status": failure.status, "body": failure.body}
    progress = replace(progress, errors={**progress.errors, progress.step: error})
    cls = failure.cls
    if cls.traits.asks_another_credential:
        return _after_refused_call(at, progress, failure)
    pause = _backoff(RETRY_BACKOFF_S, progress.tries, at.rng) if failure.hint_s is None else failure.hint_s
    worth_waiting = pause <= max(at.patience_s, IN_SLOT_S)
    retries = cls.traits.retries if failure.repeatable else 0
    if worth_waiting and progress.tries < retries and progress.retries_left > 0:
        retried = replace(progress, tries=progress.tries + 1, retries_left=progress.retries_left - 1)
        return TryAgain(pause, _failed(at, progress, cls)), retried
    if cls.traits.transient or progress.tries < retries:  # its retry may be left for the next round
        return _pass_over_failure(at, progress, failure)
    if cls in (FailureClass.CONTEXT_LENGTH, FailureClass.TOO_LARGE):
        progress = ruled_out(progress, smaller_windows(at.chain, progress, cls))
    return _after_verdict(at, progress, cls, failure.message)


def _after_refusal(at: Situation, progress: Progress, refusal: Refusal) -> tuple[Verdict, Progress]:
    cls = REFUSED_LIKE.get(refusal.hold)
    passed = Passed(refusal.waiting, refusal.until)
    if cls is None:
        spills = at.chain.spill and refusal.hold is not Hold.STARTING
        if (spills or _is_out_of_patience(at, refusal)) and later_steps(at.chain, progress):
            return _advance(at, passed_over(progress, passed))
        return PutBack(refusal.until, refusal.waiting), at_the_best_step(at.chain, progress, refusal.until)
    too_far = refusal.until - at.now > at.patience_s
    refusing_s = -1.0 if refusal.since is None else at.now - refusal.since
    if too_far or max(_refused_for(at, progress), refusing_s) >= at.patience_s:
        return _pass_over(at, _with_error(progress, cls, refusal.waiting.sentence), cls, passed)
    return PutBack(refusal.until, refusal.waiting), replace(progress, refused_since=progress.refused_since or at.now)


def _after_shortage(at: Situation, progress: Progress, short: InsufficientBudget) -> tuple[Verdict, Progress]:
    """A provider whose budget is spent is skipped. A batch or tenant that has spent its budget waits, and starts again
    at the first step: a cheaper step is not used instead. If a client waits for a job of its own, it fails at once.
    """
    if short.why is not Shortage.SPENT:
        return PutBack(at.now + MONEY_RECHECK_S, put_back_for(short.waits)), progress
    # in the form of OpenAI's API, with the status that other APIs use: 429 would be retried
    words = {"message": short.reason, "type": "insufficient_quota", "param": None, "code": "budget_reached"}
    error = {"class": FailureClass.QUOTA, "message": short.reason, "status": 402, "body": {"error": words}}
    refused = replace(progress, errors={progress.step: error, **progress.errors})
    if short.is_of_provider:
        return _pass_over(at, refused, FailureClass.QUOTA, Passed(put_back_for(short.waits), until=None))
    if at.alone and at.priority is Priority.INTERACTIVE:
        return Fail(), refused
    times = [each.until for each in progress.passed.values() if each.until is not None]
    until = max(min(times, default=at.now + BLOCKED_RECHECK_S), at.now + SHORTEST_ROUND_S)
    return PutBack(until, put_back_for(short.waits)), new_round(at.chain, progress)


def _after_absence(at: Situation, progress: Progress, absence: Absence) -> tuple[Verdict, Progress]:
    """Every usable credential of the step is rejected until a person acts; or the model is missing, for good or
    presumably."""
    cls, why = absence.cls, absence.text
    progress = _with_error(progress, cls, why)
    if not absence.mendable and absence.until is None:
        return _rule_out(at, progress, why)
    return _pass_over(at, progress, cls, Passed(put_back_for(why), None if absence.mendable else absence.until))


def _after_misfit(at: Situation, progress: Progress, why: WhyNot | CannotExpress) -> tuple[Verdict, Progress]:
    """The step is skipped, whatever `fallback_on` says. A step that may not be used adds no error: the job's is that of
    a step that was tried."""
    if isinstance(why, CannotExpress):
        reason = f"{at.chain.steps[progress.step]}: {why}"
        return _rule_out(at, _with_error(progress, FailureClass.BAD_REQUEST, reason), reason)
    if not why.rule:
        return _rule_out(at, progress, why.text)
    return _advance(at, passed_over(progress, Passed(put_back_for(why.text), until=None, rule=True)))


def _after_every_key_refused(at: Situation, progress: Progress, failure: Failure | None) -> tuple[Verdict, Progress]:
    """The step is retried once, because one odd answer proves nothing. A failure that can only be about a credential
    is waited out for some rounds: other jobs will confirm it, or a later call succeeds."""
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


def _at_primary_alone(at: Situation, progress: Progress, primary: int) -> tuple[Verdict, Progress]:
    """The job continues as if its chain had only this step."""
    passed = {step: why for step, why in progress.passed.items() if step == primary}
    progress = replace(moved_to(progress, primary), passed=passed)
    if primary in progress.ruled_out:
        return Fail(), progress
    if not passed:
        return MoveOn(), progress
    verdict, progress = _end_of_round(at, progress)
    if isinstance(verdict, PutBack):
        verdict = replace(verdict, waiting=put_back_for(f"{verdict.waiting.sentence}; {SHARE_USED_UP}"))
    return verdict, progress


def _after_refused_call(at: Situation, progress: Progress, failure: Failure) -> tuple[Verdict, Progress]:
    """After a call that the provider rejected unprocessed: the limiter knows what else may start.

    Cooldowns may end before all other credentials have been rejected, so there might always be one to try. Without
    patience each of the step's other credentials is tried once, unless the step is overloaded, and then the next step.
    """
    at_once = at.patience_s == 0 and at.chain.falls_back_on(failure.cls) and bool(later_steps(at.chain, progress))
    if not failure.cls.traits.transient:
        return TryAgain(), replace(progress, refused_by=(*progress.refused_by, at.key))
    overloaded = failure.cls is FailureClass.OVERLOADED
    if (at_once and overloaded) or _refused_for(at, progress) >= max(at.patience_s, IN_SLOT_S):
        return _pass_over_failure(at, progress, failure)
    refused_by = (*progress.refused_by, at.key) if at_once else progress.refused_by
    return TryAgain(), replace(progress, refused_by=refused_by, refused_since=progress.refused_since or at.now)


def _pass_over_failure(at: Situation, progress: Progress, failure: Failure) -> tuple[Verdict, Progress]:
    """Unless another step is usable sooner, this one is retried after the round's backoff."""
    pause_s = max(_backoff(ROUND_BACKOFF_S, progress.round - 1, at.rng), failure.hint_s or 0.0)
    passed = Passed(_failed(at, progress, failure.cls), at.now + pause_s, called=True)
    return _pass_over(at, progress, failure.cls, passed)


def _failed(at: Situation, progress: Progress, cls: FailureClass) -> Waiting:
    step = at.chain.steps[progress.step]
    return failed_at(cls, step.provider, step.model, at.account)


def _is_out_of_patience(at: Situation, refusal: Refusal) -> bool:
    """A rate learned from the step's refusals counts as rejection by the provider, not as a limit of ours."""
    learned = refusal.since is not None and at.chain.falls_back_on(FailureClass.RATE_LIMIT)
    return learned and at.now - (refusal.since or at.now) >= at.patience_s


def _refused_for(at: Situation, progress: Progress) -> float:
    """For how many seconds the step has only rejected calls; -1 before the first."""
    return -1.0 if progress.refused_since is None else at.now - progress.refused_since


def _with_error(progress: Progress, cls: FailureClass, message: str) -> Progress:
    """A step that was not even called has an error, too. A provider's error takes precedence, unless it is transient
    and this one is not. A request for a model known to be missing gets the status of that."""
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
    return _advance(at, ruled_out(progress, {progress.step: reason}))


def _after_verdict(at: Situation, progress: Progress, cls: FailureClass, message: str) -> tuple[Verdict, Progress]:
    """The step's verdict on this request rules out this step only: skipped steps are waited for.

    If the chain does not fall back on the class, no later step is tried in any round.
    """
    progress = ruled_out(progress, {progress.step: f"{cls}: {message}"})
    if at.chain.falls_back_on(cls):
        return _advance(at, progress)
    why = f"not tried, because this chain does not fall back on {cls}, the failure of {at.chain.steps[progress.step]}"
    not_asked = dict.fromkeys(later_steps(at.chain, progress), why)
    return _end_of_round(at, ruled_out(progress, not_asked))


def _advance(at: Situation, progress: Progress) -> tuple[Verdict, Progress]:
    later = later_steps(at.chain, progress)
    if not later:
        return _end_of_round(at, progress)
    return MoveOn(), moved_to(progress, later[0])


def _end_of_round(at: Situation, progress: Progress) -> tuple[Verdict, Progress]:
    passed = worth_waiting_for(at.chain, progress)
    waits = [(each.until, each.waiting) for each in passed if each.until is not None]
    if at.priority is Priority.INTERACTIVE or not passed:
        return Fail(), progress
    following = new_round(at.chain, progress)
    if not waits:
        return PutBack(at.now + BLOCKED_RECHECK_S, passed[0].waiting), replace(following, round=progress.round)
    earliest, waiting = min(waits, key=lambda each: each[0])
    until = max(earliest, at.now + SHORTEST_ROUND_S)
    if len(waits) < len(passed):  # a person may fix the others at any moment
        until = min(until, at.now + _backoff(ROUND_BACKOFF_S, progress.round - 1, at.rng))
    return PutBack(until, waiting), following


def _backoff(bounds_s: tuple[float, float], exponent: int, rng: Random) -> float:
    """Doubling, with jitter over the upper half, so that a herd spreads out and no one comes too early."""
    low, high = bounds_s
    full: float = min(low * 2 ** min(exponent, 20), high)
    return full * (0.5 + 0.5 * rng.random()) if exponent else full * (1.0 + 0.25 * rng.random())

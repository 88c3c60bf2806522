"""A job's position in its chain, and how it moves through it. Pure, and without policy: that is in `decide`.

A round is one pass over the chain. When every step of a round was passed over, at least one of them for a transient
reason, the job returns to the ledger and a new round begins, until its deadline.

The steps of a round are tried in chain order, or in the order that `begin_round` was given for this round.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from understudy.models.config.catalog import window
from understudy.models.failure import FailureClass
from understudy.models.jobs.wait_reasons import PUT_BACK, Waiting
from understudy.models.routing.chain import Chain

RETRIES_PER_ROUND = 3
"""For the whole chain: three retries on three steps must not become twelve calls."""


MOST_ATTEMPTS = 50
"""The latest attempts listed in a job's row and result. A job that waits out an outage makes hundreds: the ledger's
table of attempts has all of them."""


@dataclass(frozen=True, slots=True)
class Passed:
    """Why a step was passed over in this round, and when it may be usable again (unix seconds).

    None: once a person has fixed it. `called`: this job's own call failed there, it was not merely held back. `rule`: a
    data rule forbids it.
    """

    waiting: Waiting
    until: float | None
    called: bool = False
    rule: bool = False


@dataclass(frozen=True, slots=True)
class Progress:
    """A job's position in its chain. Stored in its row when it is put back.

    `order` is that of this round, by index; empty: chain order. `refused_since` is when the current step began to only
    reject calls, `refused_by` the names of its credentials that were rejected for this job. `errors` holds the last
    error of each step, because the job's error is that of the first step that has one.
    """

    step: int = 0
    order: tuple[int, ...] = ()
    round: int = 1
    retries_left: int = RETRIES_PER_ROUND
    tries: int = 0
    refused_since: float | None = None
    refused_by: tuple[str, ...] = ()
    passed: Mapping[int, Passed] = field(default_factory=dict)
    ruled_out: Mapping[int, str] = field(default_factory=dict)
    errors: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    attempts: tuple[Mapping[str, Any], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        document = asdict(self)
        for name in ("passed", "ruled_out", "errors"):
            document[name] = {str(step): value for step, value in document[name].items()}
        return document

    @classmethod
    def from_dict(cls, document: Mapping[str, Any] | None) -> "Progress":
        if not document:
            return cls()
        values = dict(document)
        values["passed"] = {int(step): _passed(value) for step, value in values["passed"].items()}
        values["ruled_out"] = {int(step): reason for step, reason in values["ruled_out"].items()}
        values["errors"] = {int(step): error for step, error in values["errors"].items()}
        values["attempts"] = tuple(values["attempts"])
        values["order"] = tuple(values.get("order", ()))
        values["refused_by"] = tuple(values.get("refused_by", ()))
        return cls(**values)


def _passed(values: Mapping[str, Any]) -> Passed:
    values = dict(values)
    waiting = values.pop("waiting", None) or {"reason": values.pop("reason"), "hold": PUT_BACK}  # of versions before
    return Passed(Waiting(**waiting), **values)


def steps_with_errors(progress: Progress) -> Sequence[int]:
    """By index, in the order in which they were tried."""
    ordered = [step for step in progress.order if step in progress.errors]
    return ordered or sorted(progress.errors)


def first_error(progress: Progress) -> tuple[int, Mapping[str, Any]] | None:
    """The job's error as its caller would have seen it, with its step: the earliest step that has one."""
    steps = steps_with_errors(progress)
    return (steps[0], progress.errors[steps[0]]) if steps else None


def skipped(progress: Progress) -> Mapping[int, str]:
    """Why steps were ruled out for good, or by a data rule, by index."""
    by_rule = {step: passed.waiting.sentence for step, passed in progress.passed.items() if passed.rule}
    return {**by_rule, **progress.ruled_out}


def left_out(progress: Progress) -> Mapping[int, str]:
    """Why each step did not serve the job, by index, including steps passed over temporarily."""
    return {**{step: passed.waiting.sentence for step, passed in progress.passed.items()}, **progress.ruled_out}


def in_order(chain: Chain, progress: Progress) -> Sequence[int]:
    """The steps of this round by index, in the order in which they are tried."""
    return progress.order or range(len(chain.steps))


def later_steps(chain: Chain, progress: Progress) -> list[int]:
    """The steps after the current one, in the order in which they would be tried."""
    steps = in_order(chain, progress)
    return [step for step in steps[steps.index(progress.step) + 1 :] if step not in progress.ruled_out]


def is_last_resort(chain: Chain, progress: Progress) -> bool:
    """Whether no other step of the chain could serve the job, not even later."""
    return all(step in progress.ruled_out for step in range(len(chain.steps)) if step != progress.step)


def worth_waiting_for(chain: Chain, progress: Progress) -> list[Passed]:
    """Steps that break a data rule are waited for only if all do: then the configuration has changed since
    submission."""
    passed = [each for step, each in progress.passed.items() if step not in progress.ruled_out]
    if len(passed) == len(chain.steps) and all(each.rule for each in passed):
        return passed
    return [each for each in passed if not each.rule]


def with_attempt(progress: Progress, brief: Mapping[str, Any]) -> Progress:
    """Adds a provider call, as listed in results."""
    return replace(progress, attempts=(*progress.attempts, brief)[-MOST_ATTEMPTS:])


def with_judgement(progress: Progress, there: Progress, step: int) -> Progress:
    """Adds what an attempt that ran alongside the current one found out about its step, without moving there."""
    errors = {step: there.errors[step]} if step in there.errors else {}
    out = {step: there.ruled_out[step]} if step in there.ruled_out else {}
    return replace(progress, errors={**errors, **progress.errors}, ruled_out={**out, **progress.ruled_out})


def moved_to(progress: Progress, step: int) -> Progress:
    """Makes another step the current one."""
    return replace(progress, step=step, tries=0, refused_since=None, refused_by=())


def passed_over(progress: Progress, why: Passed) -> Progress:
    """Passes over the current step for the rest of the round."""
    return replace(progress, passed={**progress.passed, progress.step: why})


def ruled_out(progress: Progress, why: Mapping[int, str]) -> Progress:
    """Rules out steps for good, each for a reason."""
    return replace(progress, ruled_out={**progress.ruled_out, **why})


def smaller_windows(chain: Chain, progress: Progress, cls: FailureClass) -> dict[int, str]:
    """Later steps that need not be asked, with the reason: a prompt too long for one model is not sent to another with
    no larger window. An earlier step that is waited for reports this itself.

    A request that was merely too large may fit the same model elsewhere: that limit belongs to an account or a gateway.
    """
    ours = chain.steps[progress.step].model
    size = window(ours)
    found = {}
    for index in later_steps(chain, progress):
        model = chain.steps[index].model
        same = model == ours and cls is FailureClass.CONTEXT_LENGTH
        smaller = model != ours and size is not None and (window(model) or size + 1) <= size
        if same or smaller:
            found[index] = f"{cls} at {chain.steps[progress.step]}"
    return found


def at_the_best_step(chain: Chain, progress: Progress, then: float) -> Progress:
    """A job that waits for our own pacing continues at the first step that may be usable by then, not where it waited.

    Steps where its own call failed are left for the next round, so that a job that hurts a provider does not return.
    """
    steps = in_order(chain, progress)
    waits = (each for each in steps[: steps.index(progress.step)] if each not in progress.ruled_out)
    for step in waits:
        passed = progress.passed.get(step)
        if passed is not None and not passed.called and passed.until is not None and passed.until <= then:
            others = {each: why for each, why in progress.passed.items() if each != step}
            return replace(moved_to(progress, step), passed=others)
    return progress


def begin_round(progress: Progress, order: tuple[int, ...]) -> Progress:
    """Use this order until the round ends. `order` contains every step of the chain."""
    first = next(step for step in order if step not in progress.ruled_out)
    return replace(progress, order=order, step=first)


def new_round(chain: Chain, progress: Progress) -> Progress:
    first = next(step for step in range(len(chain.steps)) if step not in progress.ruled_out)
    first_again = moved_to(progress, first)
    return replace(first_again, order=(), round=progress.round + 1, retries_left=RETRIES_PER_ROUND, passed={})

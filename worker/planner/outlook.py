"""What a pass knows of each step: how many calls it could start shortly, what prevents more, and which steps of a chain
a job would use now. Pure.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add

from understudy.models.failure import FailureClass, classes_where
from understudy.models.routing.chain import Chain, Step
from understudy.models.state import Priority
from understudy.worker.limits.grants import Candidate, Hold, Outlook
from understudy.worker.planner.token_room import TokenRoom

UNLIMITED = 1_000_000_000

SPARE = 8
"""Extra jobs to consider: some may be smaller than the typical call."""

NOWHERE = ""
"""In place of a step: the job is staged although no step can take it, so that a worker ends it with the reason."""

BLOCKED_FOR = classes_where(lambda traits: traits.blocks)
COOLED_FOR = classes_where(lambda traits: traits.load)
"""The failures that a blocked or cooled step may stand for; a chain need not fall back on them."""


@dataclass(frozen=True, slots=True)
class StepOutlook:
    """How many calls a step could start shortly, over all its credentials.

    `cooled_for_s` is how long it cannot be chosen (None: it can be chosen now); `refusing_for_s` how long it has only
    rejected or failed calls (None: it is not cooled, nor merely probed); `paced_for_s` how long it has been limited to
    a rate learned from refusals (None: it is not); `blocked` that a person must fix it first; `missing` that no
    credential has the model. `hold` is what prevents more starts, `until` when the first could happen (unix seconds;
    None: unknown), `account` whose limits these are. `blocked_by` is why the credentials were rejected, `why` what
    blocks it if it is not a lack of credentials. `room` is what a token limit leaves for them.
    """

    starts: int = UNLIMITED
    cooled_for_s: float | None = None
    refusing_for_s: float | None = None
    paced_for_s: float | None = None
    blocked: bool = False
    missing: bool = False
    hold: Hold | None = None
    until: float | None = None
    account: str | None = None
    why: str | None = None
    blocked_by: FailureClass | None = None
    room: TokenRoom | None = None

    def without(self, calls: int, tokens: int) -> "StepOutlook":
        """The same, less this many calls with this many tokens in total that are already on their way to it."""
        room = self.room.after(tokens, calls) if self.room is not None else None
        return replace(self, starts=max(self.starts - calls, 0), room=room)


def over_all_credentials(seen: Sequence[tuple[Candidate, Outlook]]) -> StepOutlook:
    """A step is cooled while all of its credentials are; its starts are the sum of the others'."""
    usable = [each for each in seen if each[1].cooled_for_s is None]
    candidate, first = min(usable or seen, key=lambda each: each[1].first_at)
    refusing = [each.refusing_for_s for _, each in seen if each.refusing_for_s is not None]
    paced = [each.paced_for_s for _, each in seen if each.paced_for_s is not None]
    rooms = [each.room for _, each in usable if each.room is not None]
    until = None if first.hold in (None, Hold.IN_FLIGHT, Hold.STARTING) else first.first_at
    return StepOutlook(
        starts=min(sum(each.starts for _, each in usable), UNLIMITED),
        cooled_for_s=None if usable else min(each.cooled_for_s or 0.0 for _, each in seen),
        refusing_for_s=min(refusing) if len(refusing) == len(seen) else None,
        paced_for_s=min(paced) if len(paced) == len(seen) else None,
        hold=first.hold,
        until=until,
        account=candidate.deployment.account,
        room=reduce(add, rooms) if rooms and len(rooms) == len(usable) else None,
    )


def for_small_calls(outlook: Mapping[str, StepOutlook]) -> dict[str, StepOutlook]:
    """The outlook with a few more starts where a token limit may allow smaller calls to start."""
    return {
        step: replace(at, starts=max(min(at.starts + SPARE, at.room.calls), at.starts))
        if at.room is not None and at.room.fits(0)
        else at
        for step, at in outlook.items()
    }


def open_steps(chain: Chain, priority: Priority, outlook: Mapping[str, StepOutlook]) -> list[str]:
    """The steps (`provider/model`) that a job of this chain would use now.

    The first step, and those after it while each is passed over: missing, blocked, cooled, or rejecting or limited to a
    learned rate for longer than patience (a rejecting step may be usable for a probe, a limited one takes what it can),
    or merely at its limit in a chain that spills. A cooled first step within patience is waited for. NOWHERE if the job
    would fail: no step has its model, or the steps of an interactive job would not be waited for.
    """
    seen = reachable(chain, priority, outlook)
    usable = [str(step) for step, at in seen if not (at.missing or at.blocked or at.cooled_for_s is not None)]
    usable = list(dict.fromkeys(usable))
    missing = len(seen) == len(chain.steps) and all(at.missing for _, at in seen)
    return usable or ([NOWHERE] if missing or priority is Priority.INTERACTIVE else [])


def reachable(chain: Chain, priority: Priority, outlook: Mapping[str, StepOutlook]) -> list[tuple[Step, StepOutlook]]:
    """The steps that a job would consider now: up to the first that it does not pass over."""
    patience_s = chain.patience_for(priority)
    seen: list[tuple[Step, StepOutlook]] = []
    for step in chain.steps:
        at = outlook.get(str(step), StepOutlook())
        seen.append((step, at))
        refuses = any(for_s is not None and for_s >= patience_s for for_s in (at.refusing_for_s, at.paced_for_s))
        passed_over = at.missing or at.blocked or (at.cooled_for_s or 0.0) > patience_s or refuses
        if not (passed_over or chain.spill) or not _falls_back(chain, at):
            break
    return seen


def _falls_back(chain: Chain, at: StepOutlook) -> bool:
    refused = any(each is not None for each in (at.cooled_for_s, at.refusing_for_s, at.paced_for_s))
    causes = BLOCKED_FOR if at.blocked else COOLED_FOR if refused else ()
    return not causes or any(chain.falls_back_on(cls) for cls in causes)

"""What to stage next. Pure: the limiter's outlook and the heads of the lanes in, tickets out.

Priorities come first, then turns: tenants, within a tenant its batches, within a batch its chains. A job is
staged only when a deployment of its chain can start it soon, so that a saturated provider's jobs wait in the
ledger, where they cost nothing.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from models.chain import Chain, Step
from models.failure import BLOCKING, FailureClass
from models.records import Head, Lane
from models.state import Priority
from worker.limits import Hold

UNLIMITED = 1_000_000_000

NOWHERE = ""
"""In place of a step: the job is staged although no step can take it, so that a worker ends it with the reason."""

COOLED_FOR = frozenset({FailureClass.RATE_LIMIT, FailureClass.OVERLOADED})
"""The failures that a cooled step may stand for; a chain need not fall back on them."""


@dataclass(frozen=True, slots=True)
class StepOutlook:
    """How many calls a step could start in the next moments, over all its credentials.

    `cooled_for_s` is how long nobody will pick it (None: it can be picked now); `blocked` that a person must
    mend it first; `missing` that no credential has the model. `hold` is what lets no more of them start, `until` when
    the first could (unix seconds; None: nobody can tell), `account` whose limits these are.
    """

    starts: int = UNLIMITED
    cooled_for_s: float | None = None
    blocked: bool = False
    missing: bool = False
    hold: Hold | None = None
    until: float | None = None
    account: str | None = None


@dataclass(frozen=True, slots=True)
class LaneHeads:
    """A lane with the jobs at its head that have no ticket yet, in the order in which they should start."""

    lane: Lane
    chain: Chain
    heads: Sequence[Head]


def open_steps(chain: Chain, priority: Priority, outlook: Mapping[str, StepOutlook]) -> list[str]:
    """The steps (`provider/model`) that a job of this chain would use now.

    The lead, and what comes after it while each is passed over: missing, blocked, or cooled for longer than patience,
    or merely at its limit in a chain that spills. A cooled lead within patience is waited for. NOWHERE when the job
    would fail: no step has its model, or nobody waits for an interactive job's steps to come back.
    """
    seen = reachable(chain, priority, outlook)
    usable = [str(step) for step, at in seen if not (at.missing or at.blocked or at.cooled_for_s is not None)]
    missing = len(seen) == len(chain.steps) and all(at.missing for _, at in seen)
    return usable or ([NOWHERE] if missing or priority is Priority.INTERACTIVE else [])


def reachable(chain: Chain, priority: Priority, outlook: Mapping[str, StepOutlook]) -> list[tuple[Step, StepOutlook]]:
    """The steps that a job would look at now: up to the first that it does not pass over."""
    patience_s = priority.patience_s if chain.patience_s is None else chain.patience_s
    seen: list[tuple[Step, StepOutlook]] = []
    for step in chain.steps:
        at = outlook.get(str(step), StepOutlook())
        seen.append((step, at))
        passed_over = at.missing or at.blocked or (at.cooled_for_s or 0.0) > patience_s
        if not (passed_over or chain.spill) or not _falls_back(chain, at):
            break
    return seen


def _falls_back(chain: Chain, at: StepOutlook) -> bool:
    causes = BLOCKING if at.blocked else COOLED_FOR if at.cooled_for_s is not None else ()
    return not causes or any(chain.falls_back_on(cls) for cls in causes)


def plan(lanes: Iterable[LaneHeads], outlook: Mapping[str, StepOutlook], budget: int) -> list[tuple[Head, Lane]]:
    """Choose up to `budget` jobs to stage. Each takes one start from the first open step that has one."""
    room = {step: seen.starts for step, seen in outlook.items()}
    chosen: list[tuple[Head, Lane]] = []
    by_priority = sorted(lanes, key=lambda each: each.lane.priority)
    steps = {each.lane: open_steps(each.chain, each.lane.priority, outlook) for each in by_priority}
    for _, group in groupby(by_priority, key=lambda each: each.lane.priority):
        for each, head in _turns(list(group)):
            if len(chosen) >= budget:
                return chosen
            step = _first_with_room(steps[each.lane], room)
            if step is not None:
                room[step] = room.get(step, UNLIMITED) - 1
                chosen.append((head, each.lane))
    return chosen


def _first_with_room(steps: Iterable[str], room: Mapping[str, int]) -> str | None:
    return next((step for step in steps if room.get(step, UNLIMITED) > 0), None)


def _turns(lanes: Sequence[LaneHeads]) -> Iterator[tuple[LaneHeads, Head]]:
    """Tenants take turns, each with its batches taking turns, each with its chains taking turns."""
    tenants: dict[str, dict[str, list[LaneHeads]]] = {}
    for each in lanes:
        tenants.setdefault(each.lane.tenant, {}).setdefault(each.lane.batch_id, []).append(each)
    return _round_robin(
        [
            _round_robin([_round_robin([_heads(lane) for lane in chains]) for chains in batches.values()])
            for batches in tenants.values()
        ]
    )


def _heads(each: LaneHeads) -> Iterator[tuple[LaneHeads, Head]]:
    return ((each, head) for head in each.heads)


def _round_robin(
    sources: Sequence[Iterator[tuple[LaneHeads, Head]]],
) -> Iterator[tuple[LaneHeads, Head]]:
    waiting = list(sources)
    while waiting:
        still: list[Iterator[tuple[LaneHeads, Head]]] = []
        for source in waiting:
            item = next(source, None)
            if item is not None:
                still.append(source)
                yield item
        waiting = still

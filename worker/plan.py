"""What to stage next. Pure: the limiter's outlook and the heads of the lanes in, tickets out.

Priorities come first, then turns: tenants, within a tenant its batches, within a batch its chains. A job is
staged only when a deployment of its chain can start it soon, so that a saturated provider's jobs wait in the
ledger, where they cost nothing.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import groupby, islice, repeat
from operator import add

from models.chain import Chain, Step
from models.failure import BLOCKING, FailureClass
from models.records import Head, Lane
from models.state import Priority
from worker.limits import Candidate, Hold, Outlook
from worker.token_room import TokenRoom, too_many
from worker.turns import Entrant, Path, Turns

UNLIMITED = 1_000_000_000

SPARE = 8
"""So many more jobs are looked at than calls of the usual size could start, because they may be smaller."""

NOWHERE = ""
"""In place of a step: the job is staged although no step can take it, so that a worker ends it with the reason."""

DEPTH = "depth"
"""In place of a step: the tickets that may wait in Redis, which all steps share."""

NOBODYS_TURN = Turns()

COOLED_FOR = frozenset({FailureClass.RATE_LIMIT, FailureClass.OVERLOADED})
"""The failures that a cooled step may stand for; a chain need not fall back on them."""


@dataclass(frozen=True, slots=True)
class StepOutlook:
    """How many calls a step could start in the next moments, over all its credentials.

    `cooled_for_s` is how long nobody will pick it (None: it can be picked now); `refusing_for_s` how long it has
    answered nothing but refusals and failures (None: it is not cooled, nor merely probed); `paced_for_s` how long it is
    paced by what refusals taught (None: it is not); `blocked` that a person must
    mend it first; `missing` that no credential has the model. `hold` is what lets no more of them start, `until` when
    the first could (unix seconds; None: nobody can tell), `account` whose limits these are. `blocked_by` is what the
    credentials were refused for, `why` says what blocks it when it is not the want of one. `room` is what a limit of
    tokens leaves for them.
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
        """The same when so many calls, of so many tokens together, are on their way to it already."""
        room = self.room.after(tokens, calls) if self.room is not None else None
        return replace(self, starts=max(self.starts - calls, 0), room=room)


@dataclass(frozen=True, slots=True)
class LaneHeads:
    """A lane with the jobs at its head that have no ticket yet, in the order in which they should start.

    `chain` has the steps that data rules allow, in the order in which they would be asked now. `barred`: the rule that
    no step keeps, so that the jobs wait for the configuration; `chain` is then as it was accepted.
    """

    lane: Lane
    chain: Chain
    heads: Sequence[Head]
    more: bool = False  # others wait behind these; nobody has read them
    batch_weight: float = 1.0
    tenant_weight: float = 1.0
    barred: str | None = None
    most: int = UNLIMITED  # no more of them may be staged now


def over_all_credentials(seen: Sequence[tuple[Candidate, Outlook]]) -> StepOutlook:
    """A step is cooled while all of its credentials are, and starts the sum of the rest."""
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
    """The outlook with a few more starts where a limit of tokens may let calls start that are smaller than others."""
    return {
        step: replace(at, starts=max(min(at.starts + SPARE, at.room.calls), at.starts))
        if at.room is not None and at.room.fits(0)
        else at
        for step, at in outlook.items()
    }


def overfull(
    chosen: Iterable[tuple[Head, Lane]],
    views: Mapping[Lane, LaneHeads],
    outlook: Mapping[str, StepOutlook],
    tokens_of: Callable[[LaneHeads, Head], int],
) -> dict[str, int]:
    """Steps whose limit of tokens cannot start all that was chosen for them, with how many of it they can."""
    rooms = {step: at.room for step, at in outlook.items() if at.room is not None}
    if not rooms:
        return {}
    first = {lane: next(iter(steps_of(view, outlook)), NOWHERE) for lane, view in views.items()}
    full = too_many(((first[lane], tokens_of(views[lane], head)) for head, lane in chosen), rooms)
    return {step: count for step, count in full.items() if count < outlook[step].starts}


def open_steps(chain: Chain, priority: Priority, outlook: Mapping[str, StepOutlook]) -> list[str]:
    """The steps (`provider/model`) that a job of this chain would use now.

    The lead, and what comes after it while each is passed over: missing, blocked, cooled, refusing or paced by what its
    refusals taught for longer than patience (one that refuses may be usable for a probe, one that is paced takes what
    it can), or merely at its limit in a chain that spills. A cooled lead within patience is waited for. NOWHERE when
    the job would fail: no step has its model, or nobody waits for an interactive job's steps to come back.
    """
    seen = reachable(chain, priority, outlook)
    usable = [str(step) for step, at in seen if not (at.missing or at.blocked or at.cooled_for_s is not None)]
    usable = list(dict.fromkeys(usable))
    missing = len(seen) == len(chain.steps) and all(at.missing for _, at in seen)
    return usable or ([NOWHERE] if missing or priority is Priority.INTERACTIVE else [])


def reachable(chain: Chain, priority: Priority, outlook: Mapping[str, StepOutlook]) -> list[tuple[Step, StepOutlook]]:
    """The steps that a job would look at now: up to the first that it does not pass over."""
    patience_s = priority.patience_s if chain.patience_s is None else chain.patience_s
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
    causes = BLOCKING if at.blocked else COOLED_FOR if refused else ()
    return not causes or any(chain.falls_back_on(cls) for cls in causes)


NOTHING_STAGED: Mapping[Priority, int] = {}


@dataclass(frozen=True, slots=True)
class Plan:
    """What to stage, in this order, and the turns as they are afterwards.

    `unread` are turns of lanes whose next jobs nobody has read yet: read them and plan again.
    """

    chosen: list[tuple[Head, Lane]]
    unread: Counter[Lane]
    turns: Turns


def plan(
    lanes: Iterable[LaneHeads],
    outlook: Mapping[str, StepOutlook],
    depth: int,
    turns: Turns = NOBODYS_TURN,
    staged: Mapping[Priority, int] = NOTHING_STAGED,
) -> Plan:
    """Choose up to `depth` jobs to stage, less those that are `staged` already and not less urgent. Each takes one
    start from the first open step that has one.

    Priorities come strictly first. Where a step has fewer starts than there are jobs for it, its own turns say whose
    they are; where the depth is short, the turns at the depth. So who is ahead elsewhere does not starve here.
    """
    lanes = list(lanes)
    made = Plan([], Counter(), turns.of(_path(each.lane) for each in lanes))
    room = {step: seen.starts for step, seen in outlook.items()}
    for priority, group in groupby(sorted(lanes, key=_priority), key=_priority):
        before = sum(count for each, count in staged.items() if each <= priority)
        left = depth - before - len(made.chosen) - made.unread.total()
        if left > 0:
            made = _staged(_Priority(list(group), outlook, room, left), made)
    return made


def _staged(here: "_Priority", before: Plan) -> Plan:
    """The plan with what one priority adds to it."""
    granted = here.grants(before.turns)
    entrants = [_entrant(each, len(granted[each.lane])) for each in here.lanes]
    chosen, unread = list(before.chosen), Counter(before.unread)
    taken: dict[str, Counter[Path]] = {}
    heads = {each.lane: iter(each.heads) for each in here.lanes}
    by_path = {_path(each.lane): each.lane for each in here.lanes}
    for entrant in islice(before.turns.in_order(here.at(DEPTH), entrants), here.left):
        lane = by_path[entrant.path]
        step = granted[lane].popleft()
        here.room[step] = here.room.get(step, UNLIMITED) - 1
        head = next(heads[lane], None)
        if head is None:
            unread[lane] += 1
            continue
        chosen.append((head, lane))
        for resource in (DEPTH, step):
            taken.setdefault(resource, Counter())[entrant.path] += 1
    turns = before.turns
    for resource, counts in taken.items():
        turns = turns.after(here.at(resource), entrants if resource == DEPTH else here.users[resource], counts)
    return Plan(chosen, unread, turns)


def steps_of(each: LaneHeads, outlook: Mapping[str, StepOutlook]) -> list[str]:
    if each.barred is not None:  # nobody waits for an interactive job's configuration
        return [NOWHERE] if each.lane.priority is Priority.INTERACTIVE else []
    return open_steps(each.chain, each.lane.priority, outlook)


class _Priority:
    """The lanes of one priority, and what is left for them: starts of each step, and depth."""

    def __init__(
        self, lanes: list[LaneHeads], outlook: Mapping[str, StepOutlook], room: dict[str, int], left: int
    ) -> None:
        self.lanes = lanes
        self.room = room
        self.left = left
        self.users: dict[str, list[Entrant]] = {}
        self._steps = [steps_of(each, outlook) for each in lanes]

    def at(self, resource: str) -> tuple[str, Priority]:
        return resource, self.lanes[0].lane.priority

    def grants(self, turns: Turns) -> dict[Lane, deque[str]]:
        """Where each lane may start its next jobs: at its first open step, or where that is full at a later one."""
        granted: dict[Lane, deque[str]] = {each.lane: deque() for each in self.lanes}
        by_path = {_path(each.lane): each.lane for each in self.lanes}
        wants = [min(self.left if each.more else len(each.heads), each.most) for each in self.lanes]
        room = dict(self.room)
        for choice in range(max(map(len, self._steps), default=0)):
            asked: dict[str, list[Entrant]] = {}
            for each, steps, want in zip(self.lanes, self._steps, wants, strict=True):
                still = min(want, self.left) - len(granted[each.lane])
                if choice < len(steps) and still > 0:
                    asked.setdefault(steps[choice], []).append(_entrant(each, still))
            for step, entrants in asked.items():
                self.users.setdefault(step, []).extend(entrants)
                left = room.get(step, UNLIMITED)
                wanted = Counter({each.path: each.wants for each in entrants})
                if wanted.total() > left:
                    wanted = Counter(
                        each.path for each in islice(turns.in_order(self.at(step), entrants), max(left, 0))
                    )
                for path, count in wanted.items():
                    granted[by_path[path]].extend(repeat(step, count))
                room[step] = left - wanted.total()
        return granted


def _priority(each: LaneHeads) -> Priority:
    return each.lane.priority


def _path(lane: Lane) -> Path:
    return lane.tenant, lane.batch_id, lane.chain_id


def _entrant(each: LaneHeads, wants: int) -> Entrant:
    return Entrant(_path(each.lane), (each.tenant_weight, each.batch_weight, 1.0), wants)

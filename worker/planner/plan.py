"""What to stage next. Pure: the limiter's outlook and the heads of the lanes in, tickets out.

Tenants take turns. A tenant's own jobs go by priority; within a priority its batches take turns, within a batch its
chains. A job is staged only when a deployment of its chain can start it soon, so that a saturated provider's jobs wait
in the ledger, where they cost nothing.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from itertools import groupby, islice
from operator import add

from understudy.models.failure import FailureClass, classes_where
from understudy.models.routing.chain import Chain, Step
from understudy.models.state import Priority
from understudy.models.store.work.planning import Head, Lane
from understudy.worker.limits.grants import Candidate, Hold, Outlook
from understudy.worker.planner.fair_share import IN_ORDER, Entrant, FairShare, Path
from understudy.worker.planner.token_room import TokenRoom, too_many

UNLIMITED = 1_000_000_000

SPARE = 8
"""Extra jobs to consider: some may be smaller than the typical call."""

NOWHERE = ""
"""In place of a step: the job is staged although no step can take it, so that a worker ends it with the reason."""

DEPTH = "depth"
"""In place of a step: the number of tickets that may wait in Redis, shared by all steps."""

NOBODYS_TURN = FairShare()

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


@dataclass(frozen=True, slots=True)
class LaneHeads:
    """A lane with the jobs at its head that have no ticket yet, in the order in which they should start.

    `chain` has the steps that data rules allow, in the order in which they would be tried now. `barred`: the rule that
    every step breaks, so that the jobs wait for the configuration; `chain` is then as accepted.
    """

    lane: Lane
    chain: Chain
    heads: Sequence[Head]
    more: bool = False  # further jobs wait behind these, unread
    batch_weight: float = 1.0
    tenant_weight: float = 1.0
    barred: str | None = None
    most: int = UNLIMITED  # how many more of them may be staged now


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


def overfull(
    chosen: Iterable[tuple[Head, Lane]],
    views: Mapping[Lane, LaneHeads],
    outlook: Mapping[str, StepOutlook],
    tokens_of: Callable[[LaneHeads, Head], int],
) -> dict[str, int]:
    """Steps whose token limit cannot start all jobs chosen for them, with the number they can start."""
    rooms = {step: at.room for step, at in outlook.items() if at.room is not None}
    if not rooms:
        return {}
    first = {lane: next(iter(steps_of(view, outlook)), NOWHERE) for lane, view in views.items()}
    full = too_many(((first[lane], tokens_of(views[lane], head)) for head, lane in chosen), rooms)
    return {step: count for step, count in full.items() if count < outlook[step].starts}


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


NOTHING_STAGED: Mapping[Priority, int] = {}
EVERYBODY: Mapping[str, int] = {}


@dataclass(frozen=True, slots=True)
class Plan:
    """What to stage, in this order, and the fair-share state afterwards.

    `in_line` are the ids of urgent jobs whose tickets belong in the queue of bulk jobs: their tenant has overtaken
    enough. `unread` are turns of lanes whose next jobs are unread: read them and plan again.
    """

    chosen: list[tuple[Head, Lane]]
    unread: Counter[Lane]
    turns: FairShare
    in_line: set[str] = field(default_factory=set)


def plan(
    lanes: Iterable[LaneHeads],
    outlook: Mapping[str, StepOutlook],
    depth: int,
    turns: FairShare = NOBODYS_TURN,
    staged: Mapping[Priority, int] = NOTHING_STAGED,
    overtaking: Mapping[str, int] = EVERYBODY,
) -> Plan:
    """Choose up to `depth` jobs to stage, and for each queue no more than what is `staged` there and in more urgent
    ones leaves. Of each tenant in `overtaking`, that many urgent jobs go before others', the rest by fair share. Each
    takes one start from the first open step that has one.

    If a step has fewer starts than jobs, its own fair share decides; if the depth is short, that of the depth. So a
    tenant ahead elsewhere does not starve here.
    """
    lanes = list(lanes)
    turns = turns.of(_path(each) for each in lanes)
    left = {queue: depth - sum(count for each, count in staged.items() if each <= queue) for queue in Priority}
    overtakes = dict(overtaking)
    starts = _Starts(lanes, outlook, left, overtaking)
    granted = starts.granted(turns)
    entrants = [_entrant(each, granted[each.lane].total()) for each in lanes]
    by_path = {_path(each): each for each in lanes}
    heads = {each.lane: iter(each.heads) for each in lanes}
    made = Plan([], Counter(), turns)
    taken: dict[str, Counter[Path]] = {}
    for entrant in turns.in_order(DEPTH, entrants):
        if len(made.chosen) + made.unread.total() >= depth:
            break
        view = by_path[entrant.path]
        urgent = view.lane.priority < Priority.BULK and overtakes.get(view.lane.tenant, 1) > 0
        queue = view.lane.priority if urgent else Priority.BULK
        if left[queue] <= 0:
            continue
        for each in Priority:
            left[each] -= each >= queue
        step = _first_of(granted[view.lane])
        head = next(heads[view.lane], None)
        if head is None:
            made.unread[view.lane] += 1
            continue
        if queue is not view.lane.priority:
            made.in_line.add(head.id)
        elif urgent and view.lane.tenant in overtakes:
            overtakes[view.lane.tenant] -= 1
        made.chosen.append((head, view.lane))
        for resource in (DEPTH, step):
            taken.setdefault(resource, Counter())[entrant.path] += 1
    for resource, counts in taken.items():
        turns = turns.after(resource, entrants if resource == DEPTH else starts.users[resource], counts)
    return replace(made, turns=turns)


def steps_of(each: LaneHeads, outlook: Mapping[str, StepOutlook]) -> list[str]:
    if each.barred is not None:  # an interactive job does not wait for the configuration
        return [NOWHERE] if each.lane.priority is Priority.INTERACTIVE else []
    return open_steps(each.chain, each.lane.priority, outlook)


class _Starts:
    """The starts of each step, shared among the lanes that would use them."""

    def __init__(
        self,
        lanes: Sequence[LaneHeads],
        outlook: Mapping[str, StepOutlook],
        left: Mapping[Priority, int],
        overtaking: Mapping[str, int],
    ) -> None:
        self.users: dict[str, list[Entrant]] = {}
        self._lanes = lanes
        self._room = {step: seen.starts for step, seen in outlook.items()}
        self._steps = {each.lane: steps_of(each, outlook) for each in lanes}
        self._still = {each.lane: _wants(each, _tickets_left(each.lane, left, overtaking)) for each in lanes}
        self._granted: dict[Lane, Counter[str]] = defaultdict(Counter)
        self._given: dict[str, dict[Path, Entrant]] = {}  # by step, the starts of each lane

    def granted(self, turns: FairShare) -> Mapping[Lane, Counter[str]]:
        """Where each lane may start how many of its jobs: at its first open step, or if that is full at a later one.

        More urgent lanes choose first, and leave other tenants' less urgent lanes their turns at their first step.
        """
        by_priority = {
            priority: list(group) for priority, group in groupby(sorted(self._lanes, key=_priority), key=_priority)
        }
        for priority, lanes in by_priority.items():
            rivals = self._asking(
                0, (each for later, group in by_priority.items() if later > priority for each in group)
            )
            for choice in range(max(len(self._steps[each.lane]) for each in lanes)):
                for step, asking in self._asking(choice, lanes).items():
                    self._grant(step, asking, rivals.get(step, []), turns)
        return self._granted

    def _asking(self, choice: int, lanes: Iterable[LaneHeads]) -> dict[str, list[LaneHeads]]:
        """By step, the lanes with jobs that have no start yet and whose next choice it is."""
        asked: dict[str, list[LaneHeads]] = {}
        for each in lanes:
            if choice < len(self._steps[each.lane]) and self._still[each.lane]:
                asked.setdefault(self._steps[each.lane][choice], []).append(each)
        return asked

    def _grant(self, step: str, asking: Sequence[LaneHeads], rivals: Sequence[LaneHeads], turns: FairShare) -> None:
        given = self._given.setdefault(step, {})
        asked = [_entrant(each, self._still[each.lane]) for each in asking]
        self.users.setdefault(step, []).extend(asked)
        wanted = Counter({each.path: each.wants for each in asked})
        left = max(self._room.get(step, UNLIMITED), 0) - sum(each.wants for each in given.values())
        if wanted.total() + sum(self._still[each.lane] for each in rivals) > left:
            entrants = [*asked, *(_entrant(each, self._still[each.lane]) for each in rivals)]
            wanted = _new(turns.in_order(step, [*given.values(), *entrants]), given, wanted, left)
        for each, entrant in zip(asking, asked, strict=True):
            if count := wanted[entrant.path]:
                self._granted[each.lane][step] = count
                self._still[each.lane] -= count
                given[entrant.path] = replace(entrant, wants=count)


def _first_of(granted: Counter[str]) -> str:
    """Take a start at the first step that has one left for this lane."""
    step = next(iter(granted))
    granted[step] -= 1
    if not granted[step]:
        del granted[step]
    return step


def _new(
    order: Iterable[Entrant], given: Mapping[Path, Entrant], wanted: Mapping[Path, int], left: int
) -> Counter[Path]:
    """The next turns at a step, of which `given` were already given, among the lanes that want them now."""
    before = {path: each.wants for path, each in given.items()}
    new: Counter[Path] = Counter()
    for each in islice(order, left + sum(before.values())):
        if before.get(each.path):
            before[each.path] -= 1
        elif each.path in wanted and left:
            new[each.path] += 1
            left -= 1
    return new


def _tickets_left(lane: Lane, left: Mapping[Priority, int], overtaking: Mapping[str, int]) -> int:
    own, bulk = left[lane.priority], left[Priority.BULK]
    if lane.priority is Priority.BULK or lane.tenant not in overtaking:
        return own
    return min(own, max(overtaking[lane.tenant], 0) + max(bulk, 0))


def _wants(each: LaneHeads, left: int) -> int:
    return max(min(left if each.more else min(len(each.heads), left), each.most), 0)


def _priority(each: LaneHeads) -> Priority:
    return each.lane.priority


def _path(each: LaneHeads) -> Path:
    lane = each.lane
    return lane.tenant, str(int(lane.priority)), lane.batch_id, lane.chain_id


def _entrant(each: LaneHeads, wants: int) -> Entrant:
    return Entrant(_path(each), (each.tenant_weight, IN_ORDER, each.batch_weight, 1.0), wants)

"""What to stage next. Pure: the limiter's outlook and the heads of the lanes in, tickets out.

Tenants take turns. A tenant's own jobs go by priority; within a priority its batches take turns, within a batch its
chains. A job is staged only when a deployment of its chain can start it soon, so that a saturated provider's jobs wait
in the ledger, where they cost nothing.

Workers serve more urgent queues first, regardless of the tenant. That is meant for the few jobs that a client waits
for. A tenant that would fill the slots with urgent jobs while others wait gets its remaining tickets among theirs, by
fair share, and none immediately: what a tenant calls urgent then orders only its own work.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby, islice

from understudy.models.routing.chain import Chain
from understudy.models.state import Priority
from understudy.models.store.work.planning import Head, Lane
from understudy.worker.planner.fair_share import IN_ORDER, Entrant, FairShare, Path
from understudy.worker.planner.outlook import NOWHERE, UNLIMITED, StepOutlook, open_steps
from understudy.worker.planner.token_room import too_many

DEPTH = "depth"
"""In place of a step: the number of tickets that may wait in Redis, shared by all steps."""

NOBODYS_TURN = FairShare()


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

    def queue(self, head: Head, lane: Lane) -> Priority:
        return Priority.BULK if head.id in self.in_line else lane.priority


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
    starts = _Starts(lanes, outlook, left, overtaking)
    choice = _Choice(lanes, starts.granted(turns), left, overtaking)
    entrants = [_entrant(each, choice.granted[each.lane].total()) for each in lanes]
    for entrant in turns.in_order(DEPTH, entrants):
        if len(choice.chosen) + choice.unread.total() >= depth:
            break
        choice.take(entrant.path)
    for resource, counts in choice.taken.items():
        turns = turns.after(resource, entrants if resource == DEPTH else starts.users[resource], counts)
    return Plan(choice.chosen, choice.unread, turns, choice.in_line)


class _Choice:
    """The jobs chosen so far, and what they leave: of each queue, of each lane's starts, and of overtaking."""

    def __init__(
        self,
        lanes: Iterable[LaneHeads],
        granted: Mapping[Lane, Counter[str]],
        left: dict[Priority, int],
        overtaking: Mapping[str, int],
    ) -> None:
        self.granted = granted
        self.chosen: list[tuple[Head, Lane]] = []
        self.unread: Counter[Lane] = Counter()
        self.in_line: set[str] = set()
        self.taken: dict[str, Counter[Path]] = defaultdict(Counter)  # turns, by resource
        self._by_path = {_path(each): (each.lane, iter(each.heads)) for each in lanes}
        self._left = left
        self._overtakes = dict(overtaking)

    def take(self, path: Path) -> None:
        """It is this lane's turn: take its next job, if its queue has room."""
        lane, heads = self._by_path[path]
        urgent = lane.priority < Priority.BULK and self._overtakes.get(lane.tenant, 1) > 0
        queue = lane.priority if urgent else Priority.BULK
        if self._left[queue] <= 0:
            return
        for each in Priority:
            self._left[each] -= each >= queue
        step = _first_of(self.granted[lane])
        head = next(heads, None)
        if head is None:
            self.unread[lane] += 1
            return
        if queue is not lane.priority:
            self.in_line.add(head.id)
        elif urgent and lane.tenant in self._overtakes:
            self._overtakes[lane.tenant] -= 1
        self.chosen.append((head, lane))
        for resource in (DEPTH, step):
            self.taken[resource][path] += 1


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


def overtaking(urgent: Mapping[str, int], slots: int, weights: Mapping[str, float]) -> dict[str, int]:
    """How many more jobs of each tenant may now go before others'. Tenants not listed: unlimited.

    `urgent` are each tenant's jobs that already do so, running or about to start. `weights` are those of the tenants
    with jobs to start: while others wait, each of n tenants may use about 1/(n + 1) of the slots this way, by weight,
    and at least one.
    """
    found = {}
    for tenant in {*urgent, *weights}:
        of = {tenant: 1.0, **weights}
        if len(of) > 1:
            share = of[tenant] / sum(of.values()) * len(of) / (len(of) + 1)
            found[tenant] = max(int(share * slots), 1) - urgent.get(tenant, 0)
    return found


def left_over(
    views: Iterable[LaneHeads], chosen: Sequence[tuple[Head, Lane]], weights: Mapping[str, float]
) -> set[str]:
    """The tenants whose urgent jobs found no room, while other tenants have jobs to start, too."""
    staged = {head.id for head, _ in chosen}
    return {
        view.lane.tenant
        for view in views
        if view.lane.priority < Priority.BULK
        and weights.keys() - {view.lane.tenant}
        and (view.more or any(head.id not in staged for head in view.heads))
    }

"""One pass of the planner: read what waits and what can start, let `plan` choose, write the tickets.

One worker at a time plans. It keeps nothing that a wiped Redis or another leader could not do without: which jobs have
a ticket is read from the queues themselves, and a ticket written twice is harmless.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import redis.asyncio

from understudy.models.costs.budgets import BudgetKey
from understudy.models.jobs.submission import SINGLE
from understudy.models.jobs.wait_reasons import Waiting
from understudy.models.queue.tickets import leave_staging_to_planner, stage, staged_ids
from understudy.models.request.tokens import TYPICAL_OUTPUT_TOKENS
from understudy.models.routing.chain import Chain, Step
from understudy.models.state import Priority
from understudy.models.store import Store
from understudy.models.store.work.planning import Head, Lane, OpenLane
from understudy.worker.budgets.fallback_quota import FallbackQuota
from understudy.worker.job.step_selection import StepSelection
from understudy.worker.limits.credentials import CredentialPool
from understudy.worker.limits.estimates import Estimates
from understudy.worker.limits.limiter import Limiter
from understudy.worker.planner.affordability import NO_BUDGETS, Affordability
from understudy.worker.planner.batch_waits import BatchWaits, Blocked, waits_for, waits_for_rule
from understudy.worker.planner.budget_sync import BudgetSync
from understudy.worker.planner.canary import Canary, shares_of
from understudy.worker.planner.fair_share import FairShare
from understudy.worker.planner.outlook import UNLIMITED, StepOutlook, for_small_calls, open_steps, over_all_credentials
from understudy.worker.planner.plan import LaneHeads, Plan, left_over, overfull, overtaking, plan, steps_of
from understudy.worker.planner.window import Window
from understudy.worker.redis_wiped import WipedRedis

PASS_EVERY_S, IDLE_PASS_EVERY_S, IDLE_AFTER_S = 0.1, 0.3, 5.0
"""A batch that is opened after an idle period waits a little longer; a single job never waits for a pass."""

AHEAD_S = 2.0
"""How much work is staged: what the fleet starts within this time."""

STARTS_WITHIN_S = 0.6
"""A job is staged when its call could start this soon, a little more than batches may book ahead. A job staged
earlier would be claimed and put back for nothing, over and over while its provider is saturated."""

BOOKED_BY_NOW_S = 0.25
"""A ticket that left its queue more recently may not have reserved its call yet: the limiter does not count it."""

STAGED_BOUNDS = (200, 20_000)
CLAIMED_BY_NOW_S = 1.5
"""A ticket that left its queue this long ago without its job having started is lost, or its job was put back since:
either way another is written. Too early is harmless (an extra ticket), too late keeps a job waiting."""

READY_COUNTED = 50
"""Startable jobs counted per lane, to find lanes with jobs without tickets."""

COUNTED_FOR_S = 0.3
"""Seconds for which the count of running urgent jobs is used, adjusted by the tickets taken since."""

LANES_PER_PASS = 200
"""Lanes whose jobs are read in one pass; the others' turns come in the next."""


class Planner:
    """Remembers between passes only which tickets it wrote, how fast tickets are taken, the fair-share state, and
    the reported wait reasons."""

    def __init__(
        self,
        redis: redis.asyncio.Redis,
        store: Store,
        fleet: CredentialPool,
        limiter: Limiter,
        choice: StepSelection,
        fallback_quota: FallbackQuota,
        balances: BudgetSync,
        monotonic: Callable[[], float] = time.monotonic,
        estimates: Estimates | None = None,
        canary: Canary | None = None,
    ) -> None:
        self._redis = redis
        self._store = store
        self._fleet = fleet
        self._limiter = limiter
        self._choice = choice
        self._fallback_quota = fallback_quota
        self._balances = balances
        self._wiped = WipedRedis(limiter.scripts)
        self._monotonic = monotonic
        self._estimates = estimates or Estimates()
        self._canary = canary
        self._tickets: dict[str, _Ticket] = {}
        self._window = Window()
        self._chains: dict[str, Chain] = {}  # of lanes and tickets, as plans need them
        self._taken_per_s = 0.0
        self._left = 0
        self._staged: Mapping[Priority, int] = {}
        self._running: Mapping[str, int] = {}
        self._counted_at = -math.inf
        self._busy_at = monotonic()
        self._passed_at = monotonic()
        self._turns = FairShare()
        self._typical_tokens = TYPICAL_OUTPUT_TOKENS
        self._waits = BatchWaits()
        self._blocked = Blocked()

    async def pass_once(self) -> int:
        """Stage what can start soon. Returns how many tickets were written."""
        waiting = await self._waiting()
        rooms = await self._canary.rooms() if self._canary else {}
        lanes = await self._store.planning.ready_lanes(READY_COUNTED)
        views: list[LaneHeads] = []
        outlook: dict[str, StepOutlook] = {}
        made, chosen = Plan([], Counter(), self._turns), list[tuple[Head, Lane]]()
        affordability = NO_BUDGETS
        if lanes:
            workers = await self._store.workers.live()
            slots = sum(worker.concurrency for worker in workers)
            depth = self._depth(slots)
            views = await self._unstaged(lanes, waiting, rooms)
            affordability = await self._balances.affordability([each.lane for each in lanes], self._drawn(waiting))
            outlook = affordability.pass_over_spent(await self._outlook(views, waiting))
            weights = self._may_start(lanes, views, outlook, waiting)
            may_overtake = await self._may_overtake(slots, weights)
            made, views = await self._choose(views, outlook, affordability, depth, waiting, may_overtake)
            chosen = made.chosen
            waiting_tenants = _in_line(made, may_overtake) | left_over(views, chosen, weights)
            await leave_staging_to_planner(self._redis, waiting_tenants)
            await stage(self._redis, [(head.id, made.queue(head, lane)) for head, lane in chosen])
        now = self._monotonic()
        if lanes or waiting:
            self._busy_at = now
        size = {view.lane: view for view in views}
        self._tickets.update(
            (
                head.id,
                _Ticket(lane, now, affordability.drawn.get(head.id, {}), self._tokens(size[lane], head), overtakes),
            )
            for head, lane in chosen
            for overtakes in [made.queue(head, lane) < Priority.BULK]
        )
        self._left = len(waiting) + len(chosen)
        moving = {ticket.lane.batch_id for ticket in self._tickets.values()}
        await self._tell(views, outlook, affordability, moving, now)
        await self._balances.pause_spent(affordability, views, outlook, moving)
        return len(chosen)

    def _may_start(
        self,
        lanes: Sequence[OpenLane],
        views: Sequence[LaneHeads],
        outlook: Mapping[str, StepOutlook],
        waiting: set[str],
    ) -> dict[str, float]:
        """The tenants with jobs that may start soon, or with tickets, and their weights."""
        able = {view.lane for view in views if steps_of(view, outlook)}
        able.update(ticket.lane for job_id, ticket in self._tickets.items() if job_id in waiting)
        return {each.lane.tenant: each.tenant_weight for each in lanes if each.lane in able}

    async def _may_overtake(self, slots: int, weights: Mapping[str, float]) -> dict[str, int]:
        """How many urgent jobs of each tenant may still go before others', if several have jobs to start."""
        if not weights:
            return {}
        now = self._monotonic()
        if now >= self._counted_at + COUNTED_FOR_S:
            self._running, self._counted_at = await self._store.planning.urgent_running(), now
        urgent = Counter(self._running)
        urgent.update(
            ticket.lane.tenant
            for ticket in self._tickets.values()
            if ticket.overtakes and ticket.seen_at >= self._counted_at
        )
        return overtaking(urgent, slots, weights)

    async def tell_blocked(self) -> None:
        """Report to the ledger which batches are blocked, and which no longer are."""
        blocked, free = self._blocked.news(await self._store.batch_lifecycle.blocked(), self._monotonic())
        if blocked:
            await self._store.batch_lifecycle.block(blocked)
        if free:
            await self._store.batch_lifecycle.unblock(free)

    def rest_s(self) -> float:
        """Seconds to rest before the next pass."""
        return PASS_EVERY_S if self._monotonic() - self._busy_at < IDLE_AFTER_S else IDLE_PASS_EVERY_S

    async def _know_chains(self, lanes: Sequence[OpenLane]) -> None:
        """Read the chains that are new, in a few statements, and forget those that nothing has any more."""
        wanted = {each.lane.chain_id for each in lanes} | {each.lane.chain_id for each in self._tickets.values()}
        known = {chain_id: chain for chain_id, chain in self._chains.items() if chain_id in wanted}
        self._chains = known | await self._store.planning.chains(wanted - known.keys())

    def _drawn(self, waiting: set[str]) -> Counter[BudgetKey]:
        """The expected cost, by balance, of jobs whose tickets wait in the queues."""
        drawn: Counter[BudgetKey] = Counter()
        for job_id, ticket in self._tickets.items():
            if job_id in waiting:
                drawn.update(ticket.draws)
        return drawn

    async def _unstaged(
        self, lanes: Sequence[OpenLane], waiting: set[str], rooms: Mapping[str, int]
    ) -> list[LaneHeads]:
        """The lanes that have jobs without tickets, unread; for watched batches, those with an allowance."""
        queued = Counter(ticket.lane for job_id, ticket in self._tickets.items() if job_id in waiting)
        lanes = self._window.of(each for each in lanes if each.ready > queued[each.lane] or each.ready == READY_COUNTED)
        await self._know_chains(lanes)
        shares = shares_of(lanes, rooms, Counter(ticket.lane.batch_id for ticket in self._tickets.values()), queued)
        return [
            LaneHeads(each.lane, chain, (), True, each.batch_weight, each.tenant_weight, barred, most)
            for each in lanes
            if (most := shares.get(each.lane, UNLIMITED)) and each.lane.chain_id in self._chains
            for chain, barred in [await self._as_asked_now(each.lane)]
        ]

    async def _as_asked_now(self, lane: Lane) -> tuple[Chain, str | None]:
        """A lane's chain with the steps that its rules allow, in the current order; or the rule that every step breaks.

        Only the first step, if the batch has used up its fallbacks.
        """
        chain, barred = self._choice.planned(self._chains[lane.chain_id], self._typical_tokens)
        share, quota = chain.max_fallback_share, self._fallback_quota
        if share is not None and lane.batch_id != SINGLE and not await quota.has_left(lane.batch_id, share):
            chain = chain.lead_alone()
        return chain, barred

    async def _choose(
        self,
        views: Sequence[LaneHeads],
        outlook: Mapping[str, StepOutlook],
        affordability: Affordability,
        depth: int,
        waiting: set[str],
        may_overtake: Mapping[str, int],
    ) -> tuple[Plan, list[LaneHeads]]:
        """What to stage, and the lanes with the jobs that were read: only when it is a lane's turn."""
        seen = {view.lane: view for view in views}
        tickets = Counter(ticket.lane for ticket in self._tickets.values())
        may_read, outlook = LANES_PER_PASS, for_small_calls(outlook)
        while True:
            payable = affordability.payable(list(seen.values()), outlook)
            made = plan(payable, outlook, depth, self._turns, self._staged, may_overtake)
            if not made.unread or not may_read:
                if full := overfull(made.chosen, seen, outlook, self._tokens):
                    outlook = {name: replace(at, starts=full.get(name, at.starts)) for name, at in outlook.items()}
                    continue
                break
            for lane, count in islice(made.unread.items(), may_read):
                may_read -= 1
                limit = len(seen[lane].heads) + count + tickets[lane]
                seen[lane] = await self._read(seen[lane], limit, waiting)
        self._turns = made.turns
        self._learn_tokens(seen.values())
        return made, list(seen.values())

    def _tokens(self, view: LaneHeads, head: Head) -> int:
        """Tokens that a call of this job reserves at the first step of its chain."""
        model = (view.chain.steps[0].provider, view.chain.steps[0].model)
        output = self._estimates.output_tokens(model, view.lane.batch_id, head.max_output_tokens)
        return self._estimates.input_tokens(model, head.tokens) + output

    async def _read(self, view: LaneHeads, limit: int, waiting: set[str]) -> LaneHeads:
        heads = await self._store.planning.heads(view.lane, limit)
        fresh = [head for head in heads if head.id not in waiting and head.id not in self._tickets]
        return replace(view, heads=fresh, more=len(heads) == limit)

    async def _tell(
        self,
        views: Sequence[LaneHeads],
        outlook: Mapping[str, StepOutlook],
        affordability: Affordability,
        moving: Collection[str],
        now: float,
    ) -> None:
        """Report to the ledger the wait reasons of batches without a current or very recent ticket."""
        held: dict[str, Waiting] = {}
        for view in views:
            batch_id = view.lane.batch_id
            if batch_id != SINGLE and batch_id not in moving and batch_id not in held:
                money = affordability.reason(view, outlook)
                rule = waits_for_rule(view.barred)
                waits = rule or waits_for(view.chain, view.lane.priority, outlook)
                held[batch_id] = money if money and not rule else waits
        self._blocked.see(held, now, moving)
        if news := self._waits.news(held, now):
            await self._store.planning.say_waiting(news)

    async def _waiting(self) -> set[str]:
        """Tickets in the queues now. Forgets those that were taken, and all of them if Redis was wiped."""
        if await self._wiped.was_wiped():
            self._tickets.clear()
        staged = await staged_ids(self._redis)
        self._staged = {Priority.named(queue): len(ids) for queue, ids in staged.items()}
        waiting = {job_id for ids in staged.values() for job_id in ids}
        now = self._monotonic()
        taken, elapsed_s = max(self._left - len(waiting), 0), max(now - self._passed_at, 0.001)
        self._taken_per_s = 0.7 * self._taken_per_s + 0.3 * taken / elapsed_s
        self._passed_at = now
        for job_id, ticket in list(self._tickets.items()):
            if job_id in waiting:
                ticket.seen_at = now
            elif now - ticket.seen_at > CLAIMED_BY_NOW_S:
                del self._tickets[job_id]
        return waiting

    def _depth(self, slots: int) -> int:
        low, high = STAGED_BOUNDS
        return int(min(max(low, 2 * slots, AHEAD_S * self._taken_per_s), high))

    async def _outlook(self, views: Sequence[LaneHeads], waiting: set[str]) -> dict[str, StepOutlook]:
        """What each step can start shortly, less what is already on its way to it.

        No further ahead than a call may wait in its slot: a job that arrives sooner would be put back.
        """
        steps = {str(step): step for view in views for step in view.chain.steps}
        candidates = {name: self._fleet.usable(step) for name, step in steps.items()}
        flat = [candidate for each in candidates.values() for candidate in each]
        seen = iter(await self._limiter.outlook(flat, STARTS_WITHIN_S, self._typical_tokens) if flat else [])
        outlook = {
            name: self._probed(steps[name], over_all_credentials(list(zip(each, islice(seen, len(each)), strict=True))))
            if each
            else self._without_credentials(steps[name])
            for name, each in candidates.items()
        }
        for step, tickets in (await self._on_their_way(waiting, outlook)).items():
            if step in outlook:
                outlook[step] = outlook[step].without(len(tickets), sum(tickets))
        return outlook

    def _learn_tokens(self, views: Iterable[LaneHeads]) -> None:
        """Average tokens reserved by calls of the jobs read, at the first steps of their chains."""
        costs = [self._tokens(view, head) for view in views for head in view.heads]
        if costs:
            self._typical_tokens = sum(costs) // len(costs)

    def _probed(self, step: Step, outlook: StepOutlook) -> StepOutlook:
        """One job probes a disabled credential; others would be put back."""
        return replace(outlook, starts=min(outlook.starts, 1)) if self._fleet.is_probed(step) else outlook

    def _without_credentials(self, step: Step) -> StepOutlook:
        why = self._fleet.why_none(step)
        return StepOutlook(starts=0, blocked=why.mendable, missing=not why.mendable, blocked_by=why.cls)

    async def _on_their_way(self, waiting: set[str], outlook: Mapping[str, StepOutlook]) -> dict[str, list[int]]:
        """The tokens of jobs with current or very recent tickets that will reserve a call of each step."""
        lately = self._monotonic() - BOOKED_BY_NOW_S
        lanes: dict[Lane, list[int]] = {}
        for job_id, ticket in self._tickets.items():
            if job_id in waiting or ticket.seen_at > lately:
                lanes.setdefault(ticket.lane, []).append(ticket.tokens)
        found: dict[str, list[int]] = {}
        for lane, tokens in lanes.items():
            if lane.chain_id not in self._chains:  # all of its jobs have ended and are forgotten
                continue
            chain, _ = await self._as_asked_now(lane)
            for step in open_steps(chain, lane.priority, outlook)[:1]:
                found.setdefault(step, []).extend(tokens)
        return found


@dataclass(slots=True)
class _Ticket:
    """A ticket that this planner wrote, when it was last seen waiting (monotonic seconds), and its cost and tokens."""

    lane: Lane
    seen_at: float
    draws: Mapping[BudgetKey, float]
    tokens: int
    overtakes: bool  # it is ahead of bulk jobs


def _in_line(made: Plan, may_overtake: Mapping[str, int]) -> set[str]:
    """The tenants that overtake as many as they may, including what was just chosen."""
    now = Counter(lane.tenant for head, lane in made.chosen if made.queue(head, lane) < Priority.BULK)
    return {tenant for tenant, most in may_overtake.items() if now[tenant] >= most}

"""Every Redis key of ours, and the names of the queues. RQ's own keys are known only to `worker.rq.bridge`.

| key | type | owner | meaning |
|---|---|---|---|
| understudy:planner | string, TTL | planner | id of the worker that plans now |
| understudy:in-line:<tenant> | string, TTL | planner | new jobs of this tenant get no ticket at once, others wait |
| understudy:epoch | string | planner | exists unless Redis was wiped; its loss makes the planner stage anew |
| understudy:rate:<account>:<model> | hash, TTL | limiter | virtual schedules (GCRA), calls accepted, learned rate |
| understudy:flight:<account>:<model> | hash, TTL | limiter | calls in flight, one field per worker |
| understudy:day:<account>:<model> | hash, TTL | limiter | calls and tokens of a UTC day, where a day has a limit |
| understudy:purse:<budget> | hash, TTL | budgets | limit, spent, held by each worker, what was refused last |
| understudy:cool:<scope key> | hash, TTL | limiter | cooldown: until, streak, hinted, probe, reason |
| understudy:latency | hash, TTL | workers | how fast steps answer: milliseconds by step, and when that was measured |
| understudy:places:<batch> | sorted set, TTL | places | claimed jobs that a later step may answer, by end of lease |
| understudy:places-since | string | places | since when places are known: Redis was empty then (ms) |
"""

from understudy.models.failure import Scope
from understudy.models.state import Priority

QUEUES: tuple[str, ...] = tuple(priority.queue for priority in Priority)
"""In the order in which a worker takes from them."""

JOB_FUNCTION = "understudy.worker.rq.ticket.run_ticket"
"""The only function that a ticket may name."""

ENDED = "understudy:ended"
"""The channel on which ids of single jobs and batches that have just ended are published, separated by spaces."""

PLANNER = "understudy:planner"
EPOCH = "understudy:epoch"
LATENCY = "understudy:latency"
PLACES_SINCE = "understudy:places-since"


def in_line(tenant: str) -> str:
    return f"understudy:in-line:{tenant}"


def rate(account: str, model: str) -> str:
    return f"understudy:rate:{account}:{model}"


def flight(account: str, model: str) -> str:
    return f"understudy:flight:{account}:{model}"


def day(account: str, model: str) -> str:
    return f"understudy:day:{account}:{model}"


LIMITS = "understudy:*"
"""Matches all keys of the limiter, and few others."""


def cooldown(scope: Scope, provider: str, account: str, model: str) -> str:
    """What is cooled: (account, model), the account, or the deployment (provider, model) for everybody."""
    if scope is Scope.PROVIDER:
        return cool(f"provider:{provider}:{model}")
    if scope is Scope.ACCOUNT:
        return cool(f"account:{account}")
    return cool(f"model:{account}:{model}")


def cool(scope_key: str) -> str:
    return f"understudy:cool:{scope_key}"


def balance(budget: str) -> str:
    return f"understudy:purse:{budget}"


def places(batch_id: str) -> str:
    return f"understudy:places:{batch_id}"

"""All our Redis keys, and the names of the queues. RQ's own keys are known only to `worker.rq.bridge`.

| key | type | owner | meaning |
|---|---|---|---|
| understudy:known-since | string | all | since when Redis knows (ms): it was empty then, new or wiped |
| understudy:planner | string, TTL | leader | id of the worker that is planning |
| understudy:in-line:<tenant> | string, TTL | planner | new jobs of this tenant get no ticket at once |
| understudy:rate:<account>:<model> | hash, TTL | limiter | virtual schedules (GCRA), calls accepted, learned rate |
| understudy:flight:<account>:<model> | hash, TTL | limiter | calls in flight, one field per worker |
| understudy:day:<account>:<model> | hash, TTL | limiter | calls and tokens of a UTC day, where a daily limit exists |
| understudy:balance:<budget> | hash, TTL | budgets | limit, spent, reserved by each worker, latest refusal |
| understudy:cool:<scope key> | hash, TTL | limiter | cooldown: until, streak, hinted, probe, reason |
| understudy:latency | hash, TTL | workers | latency of steps: milliseconds by step, and when measured |
| understudy:fallbacks:<batch> | hash, TTL | fallback quota | jobs a later step may answer, one field per worker |
| understudy:session:<hash> | string, TTL | web page | id of the API key that signed in; hash of the session's token |
"""

from understudy.models.failure import Scope
from understudy.models.state import Priority

QUEUES: tuple[str, ...] = tuple(priority.queue for priority in Priority)
"""In the order in which a worker takes from them."""

JOB_FUNCTION = "understudy.worker.rq.ticket.run_ticket"
"""The only function that a ticket may call."""

ENDED = "understudy:ended"
"""The channel on which ids of single jobs and batches that just ended are published, separated by spaces."""

PLANNER = "understudy:planner"
KNOWN_SINCE = "understudy:known-since"
LATENCY = "understudy:latency"


def in_line(tenant: str) -> str:
    return f"understudy:in-line:{tenant}"


def rate(account: str, model: str) -> str:
    return f"understudy:rate:{account}:{model}"


def flight(account: str, model: str) -> str:
    return f"understudy:flight:{account}:{model}"


def day(account: str, model: str) -> str:
    return f"understudy:day:{account}:{model}"


def session(token_hash: str) -> str:
    return f"understudy:session:{token_hash}"


LIMITS = "understudy:*"
"""Matches all keys of the limiter, and few others."""


def cooldown(scope: Scope, provider: str, account: str, model: str) -> str:
    """The key of what is cooled: (account, model), the account, or the deployment (provider, model) for everyone."""
    if scope is Scope.PROVIDER:
        return cool(f"provider:{provider}:{model}")
    if scope is Scope.ACCOUNT:
        return cool(f"account:{account}")
    return cool(f"model:{account}:{model}")


def cool(scope_key: str) -> str:
    return f"understudy:cool:{scope_key}"


def balance(budget: str) -> str:
    return f"understudy:balance:{budget}"


def fallbacks(batch_id: str) -> str:
    return f"understudy:fallbacks:{batch_id}"

"""One HTTP exchange with a provider, read as an answer or as a classified failure."""

import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace

import orjson

from understudy.models.failure import Failure, FailureClass
from understudy.worker.budgets.plausible_usage import is_believable
from understudy.worker.failures import LimitSignals, classify, classify_exception, classify_success, read_limits
from understudy.worker.failures.complaint import MAX_READ_BYTES
from understudy.worker.failures.masking import headers_without_key, without_key
from understudy.worker.limits.credentials import Target
from understudy.worker.providers.base import Answer, BadAnswer, Call, Usage, WireRequest
from understudy.worker.providers.client import ProviderClient

log = logging.getLogger(__name__)

NOTHING_USED = Usage()
OUR_WORDS = "extra_fields"
"""Reserved for our own data in an answer, even if a provider has a field of that name."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """The outcome: the tokens used, and the limits advertised in the response's headers (None: no response).

    `written` is the completion of an answer as JSON, removed by the code that stores it: a large one must not be in
    memory twice.
    """

    reply: Answer | Failure
    usage: Usage = NOTHING_USED
    told: LimitSignals | None = None
    written: list[bytes] = field(default_factory=list, repr=False)

    @property
    def tokens(self) -> int | None:
        return None if self.usage == NOTHING_USED else self.usage.input_tokens + self.usage.output_tokens


async def exchange(
    client: ProviderClient,
    target: Target,
    call: Call,
    request: WireRequest,
    clock: Callable[[], float],
    read: Callable[..., Awaitable[Exchange]],
) -> Exchange:
    """Send one request. `read` runs the parsing where it blocks no one. Never raises because of what a provider
    does."""
    protocol, secret = target.adapter.protocol, target.endpoint.secret
    try:
        status, headers, content = await client.send(request, target.endpoint, target.timeout_s)
    except BadAnswer as bad:
        return Exchange(_no_answer(bad))
    except Exception as error:
        return Exchange(classify_exception(error))
    headers = headers_without_key(headers, secret)
    told = read_limits(target.dialect, protocol, headers, clock())
    if not 200 <= status < 300:
        refusal = without_key(content, secret)
        return Exchange(classify(target.dialect, protocol, status, headers, refusal, clock(), request), told=told)
    came, begins, size = [without_key(content, secret, answer=True)], content[:MAX_READ_BYTES], len(content)
    del content
    try:
        return replace(await read(_read, call, target, request, status, headers, came), told=told)
    except BadAnswer as bad:
        failure = _no_answer(bad)
        if bad.cls is FailureClass.BAD_RESPONSE:  # some send errors with status 200, and may repeat the key in them
            inside = without_key(begins, secret)
            failure = classify_success(target.dialect, protocol, headers, inside, clock(), request) or failure
        usage = bad.answer.usage if bad.answer else NOTHING_USED
        return Exchange(failure, _believed(usage, call, request, size), told)


def _read(
    call: Call, target: Target, request: WireRequest, status: int, headers: Mapping[str, str], came: list[bytes]
) -> Exchange:
    """The answer, and its serialized form. Consumes the body, which may be too large to hold twice. Raises BadAnswer
    for anything wrong with it."""
    content = came.pop()
    size = len(content)
    try:
        answer = target.adapter.answer(call, status, headers, content)
    except BadAnswer:
        raise
    except Exception as error:  # nested too deeply, not a number: nothing that a provider sends is our bug
        log.error("An answer of %s/%s could not be read: %s", target.dialect, call.model, type(error).__name__)
        words = f"the answer is nested too deeply, or does not follow its protocol ({type(error).__name__})"
        raise BadAnswer(words) from None
    del content
    usage = _believed(answer.usage, call, request, size)
    try:
        written = orjson.dumps({name: said for name, said in answer.completion.items() if name != OUR_WORDS})
        orjson.dumps([answer.model, answer.raw_usage, answer.raw_finish])  # which our own message repeats
    except TypeError:  # from orjson: more than 254 levels, or more than 64 bits
        words = "the answer cannot be serialized: it is nested too deeply, or contains a number that is too large"
        raise BadAnswer(words, answer=replace(answer, usage=usage)) from None
    return Exchange(replace(answer, usage=usage), usage, written=[written])


def _no_answer(bad: BadAnswer) -> Failure:
    return Failure(bad.cls, str(bad), status=200, possibly_billed=True)


def _believed(usage: Usage, call: Call, request: WireRequest, answer_bytes: int) -> Usage:
    """Implausible counts are ignored."""
    if is_believable(usage, call, request, answer_bytes):
        return usage
    log.warning(
        "%s/%s reports impossible usage: %d and %d tokens for %d bytes sent and %d received; it is not counted",
        *(call.dialect, call.model, usage.input_tokens, usage.output_tokens, len(request.content), answer_bytes),
    )
    return NOTHING_USED


class Stopwatch:
    """Wall time for the record, monotonic time for the latency."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.started_at = clock()
        self._began = time.monotonic()

    def elapsed_s(self) -> float:
        return time.monotonic() - self._began

    def elapsed_ms(self) -> int:
        return round(self.elapsed_s() * 1000)

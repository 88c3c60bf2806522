"""One HTTP exchange with a provider, read as an answer or as a classified failure.

Its token counts are believed only if they can be true: they are priced, charged to budgets, and train the limiter and
the estimates, so that one absurd count would harm everyone. A count is certainly false if neither the request, nor the
answer, nor the model is that large.
"""

import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace

import orjson

from understudy.models.config.catalog import window
from understudy.models.failure import Failure, FailureClass
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

SURE_TOKENS = 100_000
"""An excess over what was sent and answered that is not questioned: images, reasoning, a provider's own system
prompt."""

LARGEST_WINDOW = 2**21
"""For models with an unknown context window."""

LARGEST_OUTPUT = 2**19
"""Tokens of one answer, hidden reasoning included, in addition to the visible ones."""

TURNS = 8
"""A provider that runs its own tools reads the preceding context again with each of them, and counts it again."""

RUNS_TOOLS = ("tools", "web_search_options", "plugins", "mcp_servers", "search_parameters")
MOST_CHOICES = 128


@dataclass(frozen=True, slots=True)
class Exchange:
    """The outcome: the tokens used, and the limits advertised in the response's headers (None: no response).

    `written` is the completion of an answer as JSON, removed by the code that stores it: a large one must not be in
    memory twice.
    """

    reply: Answer | Failure
    usage: Usage = NOTHING_USED
    advertised: LimitSignals | None = None
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
    advertised = read_limits(target.dialect, protocol, headers, clock())
    if not 200 <= status < 300:
        refusal = without_key(content, secret)
        return Exchange(
            classify(target.dialect, protocol, status, headers, refusal, clock(), request), advertised=advertised
        )
    came, begins, size = [without_key(content, secret, answer=True)], content[:MAX_READ_BYTES], len(content)
    del content
    try:
        return replace(await read(_read, call, target, request, status, headers, came), advertised=advertised)
    except BadAnswer as bad:
        failure = _no_answer(bad)
        if bad.cls is FailureClass.BAD_RESPONSE:  # some send errors with status 200, and may repeat the key in them
            inside = without_key(begins, secret)
            failure = classify_success(target.dialect, protocol, headers, inside, clock(), request) or failure
        usage = bad.answer.usage if bad.answer else NOTHING_USED
        return Exchange(failure, _believed(usage, call, request, size), advertised)


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


def is_believable(usage: Usage, call: Call, request: WireRequest, answer_bytes: int) -> bool:
    """`answer_bytes`: the size of the answer on the wire. No token is shorter than a byte."""
    most_input = max(usage.input_tokens, usage.cached_tokens + usage.cache_write_tokens)
    most_output = max(usage.output_tokens, usage.reasoning_tokens)
    if most_input <= len(request.content) + SURE_TOKENS and most_output <= answer_bytes + SURE_TOKENS:
        return True
    turns = TURNS if any(call.body.get(name) for name in RUNS_TOOLS) else 1
    context = (window(call.model) or LARGEST_WINDOW) * turns
    answers = call.body.get("n")
    choices = min(answers, MOST_CHOICES) if isinstance(answers, int) else 1
    return most_input <= max(len(request.content), context) and (
        most_output <= answer_bytes + min(context, LARGEST_OUTPUT * turns) * choices
    )


class Stopwatch:
    """Wall time for the record, monotonic time for the latency."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.started_at = clock()
        self._began = time.monotonic()

    def elapsed_s(self) -> float:
        return time.monotonic() - self._began

    def elapsed_ms(self) -> int:
        return round(self.elapsed_s() * 1000)

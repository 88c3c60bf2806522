"""One HTTP exchange with a provider, read as an answer or as a classified failure."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from models.failure import Failure, FailureClass
from worker.failures import LimitSignals, classify, classify_exception, classify_success, read_limits
from worker.fleet import Target
from worker.providers.base import Answer, BadAnswer, Call, Usage, WireRequest
from worker.providers.client import ProviderClient

NOTHING_USED = Usage()
SHORTEST_SECRET = 8


@dataclass(frozen=True, slots=True)
class Exchange:
    """What came back: the tokens that it cost, and what the response's headers tell of limits (None: no response)."""

    reply: Answer | Failure
    usage: Usage = NOTHING_USED
    told: LimitSignals | None = None

    @property
    def tokens(self) -> int | None:
        return None if self.usage == NOTHING_USED else self.usage.input_tokens + self.usage.output_tokens


async def exchange(
    client: ProviderClient, target: Target, call: Call, request: WireRequest, clock: Callable[[], float]
) -> Exchange:
    """Ask once. Raises nothing for a provider's sake."""
    protocol, told, content = target.adapter.protocol, None, b""
    headers: Mapping[str, str] = {}
    try:
        status, headers, content = await client.send(request, target.endpoint, target.timeout_s)
        told = read_limits(target.dialect, protocol, headers, clock())
        if not 200 <= status < 300:
            error = _without_secret(content, target)
            return Exchange(classify(target.dialect, protocol, status, headers, error, clock(), request), told=told)
        answer = _answer(call, target, status, headers, content)
        return Exchange(answer, answer.usage, told)
    except BadAnswer as bad:
        failure = Failure(bad.cls, str(bad), status=200, body=bad.body, possibly_billed=True)
        if bad.cls is FailureClass.BAD_RESPONSE:
            error = _without_secret(content, target)
            failure = classify_success(target.dialect, protocol, headers, error, clock(), request) or failure
        return Exchange(failure, bad.answer.usage if bad.answer else NOTHING_USED, told)
    except Exception as error:
        return Exchange(classify_exception(error), told=told)


def _answer(call: Call, target: Target, status: int, headers: Mapping[str, str], content: bytes) -> Answer:
    """Raises BadAnswer. An answer is left as it is; some tell their errors with 200, and may repeat the key in them."""
    try:
        return target.adapter.answer(call, status, headers, content)
    except BadAnswer:
        return target.adapter.answer(call, status, headers, _without_secret(content, target))


def _without_secret(content: bytes, target: Target) -> bytes:
    """Providers like to repeat the key they refuse; what they say is stored and shown.

    A word such as `none` or `ollama`, which local servers are given for a key, is no secret.
    """
    secret = target.endpoint.secret or ""
    return content.replace(secret.encode(), b"***") if len(secret) >= SHORTEST_SECRET else content


class Stopwatch:
    """Wall time for the record, monotonic time for the latency."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.started_at = clock()
        self._began = time.monotonic()

    def elapsed_s(self) -> float:
        return time.monotonic() - self._began

    def elapsed_ms(self) -> int:
        return round(self.elapsed_s() * 1000)

"""The fake providers as one HTTP server: read, limit, decide, wait, answer.

`running_mock` runs it inside the current event loop, for tests:

    async with running_mock({"rules": [{"provider": "alpha", "fail": "rate_limit", "first": 2}]}) as mock:
        ...  # call mock.base_url("alpha") + "/v1/chat/completions"
        assert mock.stats()["providers"]["alpha"]["statuses"] == {"200": 8, "429": 2}
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import orjson
from aiohttp import web

from understudy.models.config.errors import SettingsError
from understudy.worker.mock.answers import compose
from understudy.worker.mock.bodies import answer_body, embeddings_body, model_list
from understudy.worker.mock.calls import ReceivedCall, Route, Unreadable, read_call, route_of
from understudy.worker.mock.config import Answers, DialectName, Fail, MockConfig, Rule, parse_config
from understudy.worker.mock.errors import Wire, failure, limit_headers
from understudy.worker.mock.limits import Limiter, Verdict
from understudy.worker.mock.refusals import REFUSALS
from understudy.worker.mock.rules import Decision, Rulebook, draw
from understudy.worker.mock.stats import Stats

MAX_BODY_BYTES = 256 * 1024 * 1024
DRIP_EVERY_S = 1.0
SHUTDOWN_S = 1.0

_ADMITTED = Verdict(0.0)
_DIALECTS: dict[str, DialectName] = {name: name for name in REFUSALS}


class MockServer:
    """The server's state and its handlers. `clock` counts seconds (monotonic), `wall` is the unix time."""

    def __init__(
        self, config: MockConfig, clock: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time
    ) -> None:
        self._clock = clock
        self._wall = wall
        self.url = ""
        self._stats = Stats(wall())
        self.configure(config)

    def base_url(self, provider: str) -> str:
        return f"{self.url}/{provider}"

    def stats(self, prompts: bool = False) -> dict[str, Any]:
        """What `GET /stats` shows."""
        return self._stats.report(prompts)

    def configure(self, config: MockConfig) -> None:
        """Replace the script; its counters, limits and clock restart, the statistics continue."""
        self._config = config
        self._rules = Rulebook(config.rules, config.seed)
        self._limiter = Limiter(config.limits)
        self._start = self._clock()

    def reset(self) -> None:
        """Restart with the same script. Calls in flight stay counted as in flight."""
        in_flight = self._stats.in_flight
        self._stats = Stats(self._wall(), in_flight, in_flight)
        self.configure(self._config)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        route = route_of(request.raw_path.partition("?")[0]) if request.method == "POST" else None
        if route is None:
            return await self._other(request)
        self._stats.enter()
        try:
            return await self._complete(request, route)
        finally:
            self._stats.leave()

    async def _complete(self, request: web.BaseRequest, route: Route) -> web.StreamResponse:
        """One request for a completion, from its first byte to its last."""
        raw = await request.read()
        try:
            call = read_call(route, request.headers, raw)
        except Unreadable as error:
            return self._unreadable(route, str(error))
        dialect = self._dialect(call)
        verdict = self._admit(call)
        headers = limit_headers(dialect, verdict, self._wall())
        if not verdict.admitted:
            return self._refuse(call, dialect, verdict, headers)
        decision = self._rules.decide(call, self._clock() - self._start)
        await self._wait(call, decision)
        rule = decision.rule
        if rule is None or rule.fail is None:
            return self._answer(call, rule, headers)
        return await self._fail(request, call, dialect, rule, rule.fail, headers)

    def _dialect(self, call: ReceivedCall) -> DialectName:
        chosen = self._config.dialects.get(call.provider)
        if chosen is None and call.protocol == "openai":
            chosen = _DIALECTS.get(call.provider)
        return chosen or call.protocol

    def _admit(self, call: ReceivedCall) -> Verdict:
        if not self._config.limits:
            return _ADMITTED
        output_tokens = 0 if call.texts else compose(call, self._config.answers, self._config.seed).output_tokens
        return self._limiter.admit(call, output_tokens, self._clock() - self._start)

    def _refuse(
        self, call: ReceivedCall, dialect: DialectName, verdict: Verdict, headers: dict[str, str]
    ) -> web.StreamResponse:
        fail = Fail.TOO_LARGE if verdict.wait_s is None else Fail.RATE_LIMIT
        wire = failure(dialect, fail, call.model, verdict.wait_s, call.digest.hex()[:24])
        self._stats.count(call, str(wire.status), "limit")
        return _response(wire, headers)

    async def _wait(self, call: ReceivedCall, decision: Decision) -> None:
        rule = decision.rule
        spread = rule.latency_s if rule else None
        if spread is None and (rule is None or rule.fail is None):
            answer = rule.answer if rule and rule.answer else self._config.answers
            named = "latency_s" in answer.model_fields_set
            spread = answer.latency_s if named else self._config.answers.latency_s
        if not spread:
            return
        try:
            await asyncio.sleep(draw(spread, decision.chance))
        except asyncio.CancelledError:
            self._stats.count(call, "abandoned", "client_left")
            raise

    def _answer(self, call: ReceivedCall, rule: Rule | None, headers: dict[str, str]) -> web.StreamResponse:
        answers = self._config.answers
        if rule and rule.answer:
            changes = {name: getattr(rule.answer, name) for name in rule.answer.model_fields_set}
            answers = answers.model_copy(update=changes)
        content, output_tokens = self._content(call, answers)
        self._stats.answered(call, call.input_tokens, output_tokens)
        return _response(Wire(200, content, headers), {})

    async def _fail(
        self,
        request: web.BaseRequest,
        call: ReceivedCall,
        dialect: DialectName,
        rule: Rule,
        fail: Fail,
        headers: dict[str, str],
    ) -> web.StreamResponse:
        if fail in _BREAKS:
            self._stats.count(call, fail.value, fail.value)
            return await _BREAKS[fail](request, self._content(call, self._config.answers)[0])
        if fail is Fail.TRUNCATED:
            whole, _ = self._content(call, self._config.answers)
            wire = Wire(200, whole[: len(whole) // 2], {})
        else:
            wire = failure(dialect, fail, call.model, rule.retry_after_s, call.digest.hex()[:24])
        self._stats.count(call, str(wire.status), fail.value)
        return _response(wire, headers)

    def _content(self, call: ReceivedCall, answers: Answers) -> tuple[bytes, int]:
        """The body of a success, and its output tokens."""
        if call.texts:
            return orjson.dumps(embeddings_body(call)), 0
        reply = compose(call, answers, self._config.seed)
        return orjson.dumps(answer_body(call, reply, int(self._wall()))), reply.output_tokens

    def _unreadable(self, route: Route, why: str) -> web.StreamResponse:
        wire = failure(route.protocol, Fail.BAD_REQUEST, route.model or "", None, "0" * 24)
        call = ReceivedCall(route.provider, route.protocol, route.model or "", "", "", b"", 0)
        self._stats.count(call, str(wire.status), "unreadable")
        return web.json_response(_explained(orjson.loads(wire.content), why), status=wire.status)

    async def _other(self, request: web.BaseRequest) -> web.StreamResponse:
        """Everything other than completions: the lists of models, and the server's own controls."""
        match request.method, request.path:
            case "GET", "/stats":
                return web.json_response(self.stats(prompts=request.query.get("prompts") == "1"))
            case "POST", "/reset":
                self.reset()
                return web.json_response({"reset": True})
            case "POST", "/config":
                return await self._replace(request)
            case "GET", path if path.endswith("/models"):
                protocol = (
                    "gemini"
                    if "/v1beta/" in path
                    else "anthropic"
                    if "anthropic-version" in request.headers
                    else "openai"
                )
                return web.json_response(model_list(protocol, self._config.models, int(self._wall())))
            case method, path:
                return web.json_response({"error": {"message": f"Nothing answers {method} {path}."}}, status=404)

    async def _replace(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            self.configure(parse_config(orjson.loads(await request.read())))
        except (SettingsError, orjson.JSONDecodeError) as error:
            return web.json_response({"error": str(error)}, status=400)
        return web.json_response({"configured": True})


def _explained(body: Any, why: str) -> Any:
    """The protocol's own error body with the reason, so that a bug in an adapter explains itself."""
    (body["error"] if isinstance(body.get("error"), dict) else body)["message"] = f"mock: {why}"
    return body


def _response(wire: Wire, headers: dict[str, str]) -> web.Response:
    return web.Response(
        status=wire.status, body=wire.content, headers=headers | wire.headers, content_type=wire.content_type
    )


async def _stall(request: web.BaseRequest, completion: bytes) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError("unreachable: only a client disconnect or the server's shutdown interrupts a stall")


async def _drip(request: web.BaseRequest, completion: bytes) -> web.StreamResponse:
    response = web.StreamResponse(headers={"content-type": "application/json"})
    await response.prepare(request)
    while True:
        await response.write(b" ")
        await asyncio.sleep(DRIP_EVERY_S)


async def _drop(request: web.BaseRequest, completion: bytes) -> web.StreamResponse:
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


async def _drop_midway(request: web.BaseRequest, completion: bytes) -> web.StreamResponse:
    response = web.StreamResponse(headers={"content-type": "application/json"})
    response.content_length = len(completion)
    await response.prepare(request)
    await response.write(completion[: len(completion) // 2])
    if request.transport is not None:
        request.transport.close()
    return response


_BREAKS = {Fail.STALL: _stall, Fail.DRIP: _drip, Fail.DROP: _drop, Fail.DROP_MIDWAY: _drop_midway}


@asynccontextmanager
async def running_mock(
    config: MockConfig | dict[str, Any] | None = None, host: str = "127.0.0.1", port: int = 0
) -> AsyncIterator[MockServer]:
    """A server in the current event loop; port 0 picks a free one. Raises SettingsError, OSError."""
    parsed = config if isinstance(config, MockConfig) else parse_config(config or {})
    mock = MockServer(parsed)
    runner = web.ServerRunner(
        web.Server(
            mock.handle,
            request_factory=_request_factory(asyncio.get_running_loop()),
            handler_cancellation=True,  # a client that disconnects ends its stall
            access_log=None,
        ),
        shutdown_timeout=SHUTDOWN_S,
    )
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port, backlog=4096)
        await site.start()
        mock.url = f"http://{host}:{runner.addresses[0][1]}"
        yield mock
    finally:
        await runner.cleanup()


def _request_factory(loop: asyncio.AbstractEventLoop) -> Callable[..., web.BaseRequest]:
    """aiohttp's own default refuses bodies above 1 MB."""

    def make(message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
        return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=MAX_BODY_BYTES)

    return make

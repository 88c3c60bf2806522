"""The fake providers over real HTTP: four protocols, every failure, enforced limits, counts."""

import asyncio
import re
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from typing import Any

import httpx
import orjson
import pytest

from understudy.worker.mock import Fail, MockServer, running_mock

PROTOCOLS = ("openai", "anthropic", "gemini", "bedrock")


def call(protocol: str, prompt: str = "hello", model: str = "m-1", **extra: Any) -> dict[str, Any]:
    """The arguments of httpx's `post`, with a path below the provider's base URL."""
    message = {"role": "user", "content": prompt}
    blocks = {"role": "user", "content": [{"text": prompt}]}
    match protocol:
        case "openai":
            path, body = "/v1/chat/completions", {"model": model, "messages": [message]}
            headers = {"authorization": "Bearer sk-openai-1111"}
        case "anthropic":
            path, body = "/v1/messages", {"model": model, "max_tokens": 500, "messages": [message]}
            headers = {"x-api-key": "sk-ant-2222", "anthropic-version": "2023-06-01"}
        case "gemini":
            path, body = f"/v1beta/models/{model}:generateContent", {"contents": [{"parts": [{"text": prompt}]}]}
            headers = {"x-goog-api-key": "AIza-3333"}
        case _:
            path, body = f"/model/{model}/converse", {"messages": [blocks]}
            headers = {"authorization": "Bearer bedrock-4444"}
    return {"url": path, "json": {**body, **extra}, "headers": headers}


class Client:
    """One client of one mock. `ask` uses any protocol with any provider."""

    def __init__(self, mock: MockServer, http: httpx.AsyncClient) -> None:
        self.mock = mock
        self.http = http

    async def ask(self, protocol: str = "openai", provider: str = "alpha", **about: Any) -> httpx.Response:
        request = call(protocol, **about)
        return await self.http.post(self.mock.base_url(provider) + request.pop("url"), **request)


@asynccontextmanager
async def client(config: dict[str, Any] | None = None, timeout_s: float = 5.0) -> AsyncIterator[Client]:
    async with running_mock(config) as mock, httpx.AsyncClient(timeout=timeout_s) as http:
        yield Client(mock, http)


async def until(condition: Any, deadline_s: float = 5.0) -> None:
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, "the condition never came true"
        await asyncio.sleep(0.005)


async def test_every_protocol_is_answered_in_its_own_words() -> None:
    async with client({"answers": {"text": "{prompt}!", "reasoning_tokens": 3, "cached_share": 0.5}}) as mock:
        openai, anthropic, gemini, bedrock = [(await mock.ask(each)).json() for each in PROTOCOLS]
    assert openai["choices"][0]["message"]["content"] == "hello!"
    assert openai["choices"][0]["finish_reason"] == "stop"
    assert openai["usage"]["completion_tokens"] == 5
    assert openai["usage"]["completion_tokens_details"] == {"reasoning_tokens": 3}
    assert anthropic["content"] == [{"type": "text", "text": "hello!"}]
    assert (anthropic["stop_reason"], anthropic["usage"]["output_tokens"]) == ("end_turn", 5)
    assert gemini["candidates"][0]["content"]["parts"] == [{"text": "hello!"}]
    assert gemini["usageMetadata"]["candidatesTokenCount"] == 2
    assert gemini["usageMetadata"]["thoughtsTokenCount"] == 3
    assert bedrock["output"]["message"]["content"] == [{"text": "hello!"}]
    assert bedrock["stopReason"] == "end_turn"


async def test_anthropic_and_bedrock_do_not_count_cached_tokens_as_input() -> None:
    async with client({"answers": {"cached_share": 0.5}}) as mock:
        openai = (await mock.ask("openai")).json()["usage"]
        anthropic = (await mock.ask("anthropic")).json()["usage"]
    assert openai["prompt_tokens_details"]["cached_tokens"] == openai["prompt_tokens"] // 2
    assert abs(anthropic["input_tokens"] - anthropic["cache_read_input_tokens"]) <= 1


async def test_azure_paths_carry_the_model_and_its_key_header_is_read() -> None:
    async with client() as mock:
        url = mock.mock.base_url("azure") + "/openai/deployments/my-gpt/chat/completions?api-version=2024-10-21"
        body = {"messages": [{"role": "user", "content": "hi"}]}
        answer = await mock.http.post(url, json=body, headers={"api-key": "azure-key-5555"})
        assert answer.json()["model"] == "my-gpt"
        assert mock.mock.stats()["providers"]["azure"]["keys"] == {"…5555": {"200": 1}}


async def test_a_model_name_with_a_slash_or_colon_in_the_path_is_unquoted() -> None:
    async with client() as mock:
        await mock.ask("bedrock", model="us.anthropic.claude-v1%3A0")
        assert mock.mock.stats()["providers"]["alpha"]["models"] == {"us.anthropic.claude-v1:0": 1}


async def test_forced_tools_and_json_schemas_are_honoured_in_every_protocol() -> None:
    schema = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
    function = {"name": "f", "parameters": schema}
    async with client() as mock:
        openai = await mock.ask("openai", tools=[{"type": "function", "function": function}], tool_choice="required")
        anthropic = await mock.ask(
            "anthropic", tools=[{"name": "f", "input_schema": schema}], tool_choice={"type": "tool", "name": "f"}
        )
        gemini = await mock.ask(
            "gemini",
            tools=[{"functionDeclarations": [function]}],
            toolConfig={"functionCallingConfig": {"mode": "ANY"}},
        )
        spec = {"toolSpec": {"name": "f", "inputSchema": {"json": schema}}}
        bedrock = await mock.ask("bedrock", toolConfig={"tools": [spec], "toolChoice": {"any": {}}})
        structured = await mock.ask(
            "openai", response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
        )
        by_gemini = await mock.ask("gemini", generationConfig={"responseJsonSchema": schema})
    choice = openai.json()["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["tool_calls"][0]["function"] == {"name": "f", "arguments": '{"x":0}'}
    assert anthropic.json()["content"][0]["input"] == {"x": 0}
    assert anthropic.json()["stop_reason"] == "tool_use"
    assert gemini.json()["candidates"][0]["content"]["parts"] == [{"functionCall": {"name": "f", "args": {"x": 0}}}]
    assert bedrock.json()["output"]["message"]["content"][0]["toolUse"]["input"] == {"x": 0}
    assert orjson.loads(structured.json()["choices"][0]["message"]["content"]) == {"x": 0}
    assert orjson.loads(by_gemini.json()["candidates"][0]["content"]["parts"][0]["text"]) == {"x": 0}


async def test_max_tokens_cuts_the_answer_in_every_protocol() -> None:
    async with client({"answers": {"output_tokens": 100}}) as mock:
        openai = await mock.ask("openai", max_completion_tokens=7)
        anthropic = await mock.ask("anthropic", max_tokens=7)
        gemini = await mock.ask("gemini", generationConfig={"maxOutputTokens": 7})
        bedrock = await mock.ask("bedrock", inferenceConfig={"maxTokens": 7})
    assert openai.json()["choices"][0]["finish_reason"] == "length"
    assert openai.json()["usage"]["completion_tokens"] == 7
    assert anthropic.json()["stop_reason"] == "max_tokens"
    assert gemini.json()["candidates"][0]["finishReason"] == "MAX_TOKENS"
    assert bedrock.json()["stopReason"] == "max_tokens"


async def test_several_choices_come_when_several_are_asked_for() -> None:
    async with client() as mock:
        assert [each["index"] for each in (await mock.ask(n=3)).json()["choices"]] == [0, 1, 2]


async def test_a_rule_can_change_single_fields_of_the_answer() -> None:
    rules = [{"message": "secret", "answer": {"finish": "refusal"}}]
    async with client({"rules": rules, "answers": {"text": "fine"}}) as mock:
        refused = (await mock.ask(prompt="a secret")).json()["choices"][0]["message"]
        assert refused["content"] is None
        assert refused["refusal"]
        assert (await mock.ask()).json()["choices"][0]["message"]["content"] == "fine"


@pytest.mark.parametrize(
    ("protocol", "breakage", "words"),
    [
        ("openai", {"messages": []}, "there are no messages"),
        ("openai", {"stream": True}, "stream is not served"),
        ("openai", {"max_tokens": "many"}, "max_tokens must be a positive integer"),
        ("anthropic", {"max_tokens": None}, "max_tokens: field required"),
        ("gemini", {"contents": [{"parts": "text"}], "generationConfig": 3}, "does not have the shape"),
    ],
)
async def test_a_request_that_breaks_its_protocol_is_told_why(protocol: str, breakage: Any, words: str) -> None:
    async with client() as mock:
        answer = await mock.ask(protocol, **breakage)
        assert answer.status_code == 400
        assert words in answer.json()["error"]["message"]
        assert mock.mock.stats()["providers"]["alpha"]["failures"] == {"unreadable": 1}


async def test_bodies_of_many_megabytes_are_read() -> None:
    async with client() as mock:
        assert (await mock.ask(prompt="x" * 5_000_000)).status_code == 200


STATUSES: dict[Fail, dict[str, int]] = {
    Fail.RATE_LIMIT: dict.fromkeys(PROTOCOLS, 429),
    Fail.RATE_LIMIT_NO_HINT: dict.fromkeys(PROTOCOLS, 429),
    Fail.RATE_LIMIT_PER_DAY: dict.fromkeys(PROTOCOLS, 429),
    Fail.SERVER: dict.fromkeys(PROTOCOLS, 500),
    Fail.BAD_GATEWAY: dict.fromkeys(PROTOCOLS, 502),
    Fail.GATEWAY_TIMEOUT: dict.fromkeys(PROTOCOLS, 504),
    Fail.UNAVAILABLE: dict.fromkeys(PROTOCOLS, 503),
    Fail.OVERLOADED: {"openai": 503, "anthropic": 529, "gemini": 503, "bedrock": 503},
    Fail.CREDENTIAL: {"openai": 401, "anthropic": 401, "gemini": 400, "bedrock": 403},
    Fail.QUOTA: {"openai": 429, "anthropic": 400, "gemini": 429, "bedrock": 403},
    Fail.MODEL_MISSING: {"openai": 404, "anthropic": 404, "gemini": 404, "bedrock": 400},
    Fail.CONTEXT_LENGTH: dict.fromkeys(PROTOCOLS, 400),
    Fail.TOO_LARGE: {"openai": 429, "anthropic": 413, "gemini": 400, "bedrock": 413},
    Fail.CONTENT_FILTER: {"openai": 400, "anthropic": 400, "gemini": 200, "bedrock": 400},
    Fail.BAD_REQUEST: dict.fromkeys(PROTOCOLS, 400),
    Fail.REGION: {"openai": 403, "anthropic": 403, "gemini": 400, "bedrock": 403},
    Fail.MALFORMED: dict.fromkeys(PROTOCOLS, 200),
    Fail.TRUNCATED: dict.fromkeys(PROTOCOLS, 200),
    Fail.HTML: dict.fromkeys(PROTOCOLS, 200),
    Fail.EMPTY: dict.fromkeys(PROTOCOLS, 200),
    Fail.ERROR_IN_200: dict.fromkeys(PROTOCOLS, 200),
}
BREAKS = {Fail.STALL, Fail.DRIP, Fail.DROP, Fail.DROP_MIDWAY}


def test_every_failure_is_covered_here() -> None:
    assert set(STATUSES) | BREAKS == set(Fail)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("fail", STATUSES)
async def test_each_failure_has_the_status_and_body_of_its_protocol(fail: Fail, protocol: str) -> None:
    async with client({"rules": [{"fail": fail}]}) as mock:
        answer = await mock.ask(protocol)
        assert answer.status_code == STATUSES[fail][protocol]
        stats = mock.mock.stats()
    assert stats["answered"] == 0
    assert stats["providers"]["alpha"]["failures"] == {fail.value: 1}
    if fail in {Fail.BAD_GATEWAY, Fail.GATEWAY_TIMEOUT, Fail.HTML}:
        assert answer.headers["content-type"].startswith("text/html")
    elif fail in {Fail.MALFORMED, Fail.TRUNCATED, Fail.EMPTY, Fail.UNAVAILABLE}:
        with pytest.raises(ValueError):
            answer.json()
    else:
        assert_error_of(protocol, answer, fail)


def assert_error_of(protocol: str, answer: httpx.Response, fail: Fail) -> None:
    body = answer.json()
    match protocol:
        case "openai":
            assert {"message", "type", "param", "code"} == set(body["error"])
        case "anthropic":
            assert body["type"] == "error"
            assert {"type", "message"} == set(body["error"])
        case "gemini" if fail is Fail.CONTENT_FILTER:
            assert body["promptFeedback"]["blockReason"]
        case "gemini":
            assert isinstance(body["error"]["code"], int)
            assert re.fullmatch("[A-Z_]+", body["error"]["status"])
        case _:
            assert body["message"]
            assert answer.headers["x-amzn-errortype"].endswith("Exception")


async def test_a_stall_and_a_drip_last_until_the_client_gives_up_and_then_free_their_place() -> None:
    rules = [{"provider": "alpha", "fail": "stall"}, {"provider": "beta", "fail": "drip"}]
    async with client({"rules": rules}) as mock:
        for provider in ("alpha", "beta"):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await mock.ask(provider=provider)
        await until(lambda: mock.mock.stats()["in_flight"] == 0)


async def test_a_stalled_call_does_not_hold_up_the_end_of_the_server() -> None:
    async with httpx.AsyncClient() as http:
        async with running_mock({"rules": [{"fail": "stall"}]}) as mock:
            asking = asyncio.create_task(Client(mock, http).ask())
            await until(lambda: mock.stats()["in_flight"] == 1)
            began = time.monotonic()
        assert time.monotonic() - began < 3.0
        with pytest.raises(httpx.TransportError):
            await asking


@pytest.mark.parametrize("fail", ["drop", "drop_midway"])
async def test_a_dropped_connection_is_a_transport_error_and_the_next_call_works(fail: str) -> None:
    async with client({"rules": [{"first": 1, "fail": fail}]}) as mock:
        with pytest.raises(httpx.RemoteProtocolError if fail == "drop_midway" else httpx.TransportError):
            await mock.ask()
        assert (await mock.ask()).status_code == 200
        assert mock.mock.stats()["providers"]["alpha"]["statuses"] == {"200": 1, fail: 1}


HINTS = [
    ("alpha", "openai", {"retry-after": "2", "retry-after-ms": "1500"}),
    ("azure", "openai", {"retry-after": "2", "x-ms-retry-after-ms": "1500"}),
    ("groq", "openai", {"retry-after": "2"}),
    ("mistral", "openai", {}),
    ("alpha", "anthropic", {"retry-after": "2"}),
    ("alpha", "gemini", {}),
    ("alpha", "bedrock", {}),
]


@pytest.mark.parametrize(("provider", "protocol", "hints"), HINTS)
async def test_each_dialect_hints_in_its_own_headers(provider: str, protocol: str, hints: dict[str, str]) -> None:
    async with client({"rules": [{"fail": "rate_limit", "retry_after_s": 1.5}]}) as mock:
        answer = await mock.ask(protocol, provider)
    assert {name: value for name, value in answer.headers.items() if "retry-after" in name} == hints


async def test_gemini_hints_in_the_body_and_tells_a_daily_quota_by_its_id() -> None:
    rules = [{"message": "day", "fail": "rate_limit_per_day"}, {"fail": "rate_limit", "retry_after_s": 34.07}]
    async with client({"rules": rules}) as mock:
        minute = (await mock.ask("gemini")).json()["error"]["details"]
        day = (await mock.ask("gemini", prompt="day")).json()["error"]["details"]
    assert minute[-1]["retryDelay"] == "34.07s"
    assert "PerMinute" in minute[0]["violations"][0]["quotaId"]
    assert "PerDay" in day[0]["violations"][0]["quotaId"]


async def test_a_dialect_can_be_given_to_a_provider_of_any_name() -> None:
    script = {"dialects": {"alpha": "xai"}, "rules": [{"fail": "credential"}]}
    async with client(script) as mock:
        answer = await mock.ask()
    assert answer.status_code == 400
    assert set(answer.json()) == {"code", "error"}


async def test_exactly_the_limit_is_admitted_and_headers_tell_the_truth() -> None:
    limit = {"provider": "alpha", "requests_per_minute": 40, "window": "fixed"}
    async with client({"limits": [limit]}) as mock:
        answers = await asyncio.gather(*(mock.ask(prompt=f"p{number}") for number in range(60)))
        other = await mock.ask(provider="beta")
    assert Counter(answer.status_code for answer in answers) == {200: 40, 429: 20}
    left = sorted(int(answer.headers["x-ratelimit-remaining-requests"]) for answer in answers)
    assert left == [0] * 20 + list(range(40))
    assert {answer.headers["x-ratelimit-limit-requests"] for answer in answers} == {"40"}
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert 50 < int(refused.headers["retry-after"]) <= 60
    assert "x-ratelimit-limit-requests" not in other.headers


async def test_a_bucket_admits_again_after_the_hinted_time_and_not_before() -> None:
    async with client({"limits": [{"requests_per_minute": 120}]}) as mock:
        first = [await mock.ask() for _ in range(3)]
        assert [answer.status_code for answer in first] == [200, 200, 429]
        await asyncio.sleep(int(first[-1].headers["retry-after-ms"]) / 1000)
        assert (await mock.ask()).status_code == 200
        assert (await mock.ask()).status_code == 429


LIMIT_HEADERS = [
    ("alpha", "openai", "x-ratelimit-reset-requests", r"\d+(\.\d+)?(ms|s)"),
    ("azure", "openai", "x-ratelimit-reset-tokens", r"\d+"),
    ("mistral", "openai", "x-ratelimit-remaining-req-minute", r"\d+"),
    ("mistral", "openai", "x-ratelimit-limit-tokens-minute", r"90000"),
    ("openrouter", "openai", "x-ratelimit-reset", r"\d{13}"),
    ("alpha", "anthropic", "anthropic-ratelimit-tokens-reset", r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"),
    ("alpha", "anthropic", "anthropic-ratelimit-requests-remaining", r"\d+"),
]


@pytest.mark.parametrize(("provider", "protocol", "name", "shape"), LIMIT_HEADERS)
async def test_each_dialect_tells_its_limits_in_its_own_headers(
    provider: str, protocol: str, name: str, shape: str
) -> None:
    async with client({"limits": [{"requests_per_minute": 600, "tokens_per_minute": 90_000}]}) as mock:
        answer = await mock.ask(protocol, provider)
    assert re.fullmatch(shape, answer.headers[name])


async def test_a_request_above_a_whole_minutes_tokens_is_too_large() -> None:
    async with client({"limits": [{"tokens_per_minute": 100}]}) as mock:
        answer = await mock.ask(prompt="x" * 1000)
    assert "Request too large" in answer.json()["error"]["message"]


async def test_a_request_refused_by_a_limit_uses_up_no_rule() -> None:
    script = {
        "limits": [{"requests_per_minute": 1, "window": "fixed", "model": "tight"}],
        "rules": [{"first_per_prompt": 1, "model": "tight", "fail": "server"}],
    }
    async with client(script) as mock:
        assert [(await mock.ask(model="tight")).status_code for _ in range(3)] == [500, 429, 429]


async def test_the_same_requests_meet_the_same_failures_over_any_number_of_connections() -> None:
    rules = [{"probability": 0.3, "fail": "server"}, {"probability": 0.2, "fail": "html"}]

    async def fates(at_once: int) -> list[tuple[int, str]]:
        gate = asyncio.Semaphore(at_once)
        async with client({"seed": 3, "rules": rules}) as mock:

            async def one(number: int) -> tuple[int, str]:
                async with gate:
                    answer = await mock.ask(prompt=f"prompt {number}")
                    return answer.status_code, answer.headers["content-type"]

            return await asyncio.gather(*(one(number) for number in range(120)))

    alone = await fates(1)
    assert len(set(alone)) == 3
    assert alone == await fates(40)


async def test_stats_tell_who_asked_what_and_never_show_a_key() -> None:
    async with client({"rules": [{"model": "bad", "fail": "quota"}]}) as mock:
        await mock.ask()
        await mock.ask(model="bad")
        await mock.ask("anthropic", provider="beta")
        answer = await mock.http.get(mock.mock.url + "/stats")
    stats = answer.json()
    assert (stats["requests"], stats["answered"], stats["in_flight"], stats["peak_in_flight"]) == (3, 2, 0, 1)
    alpha = stats["providers"]["alpha"]
    assert alpha["statuses"] == {"200": 1, "429": 1}
    assert alpha["failures"] == {"quota": 1}
    assert alpha["models"] == {"bad": 1, "m-1": 1}
    assert alpha["keys"] == {"…1111": {"200": 1, "429": 1}}
    assert stats["providers"]["beta"]["keys"] == {"…2222": {"200": 1}}
    assert stats["providers"]["beta"]["output_tokens"] > 0
    assert "prompts" not in stats
    assert "sk-openai" not in answer.text


async def test_stats_prove_how_often_each_prompt_was_answered() -> None:
    async with client({"rules": [{"message": "twice", "first": 1, "fail": "server"}]}) as mock:
        for prompt in ("once", "twice", "twice", "twice"):
            await mock.ask(prompt=prompt)
        prompts = (await mock.http.get(mock.mock.url + "/stats?prompts=1")).json()["prompts"]
    assert prompts == {sha256(b"once").hexdigest(): 1, sha256(b"twice").hexdigest(): 2}


async def test_a_client_that_leaves_during_the_latency_is_counted_as_abandoned() -> None:
    async with client({"answers": {"latency_s": 30}}) as mock:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await mock.ask()
        await until(lambda: mock.mock.stats()["in_flight"] == 0)
        assert mock.mock.stats()["providers"]["alpha"]["statuses"] == {"abandoned": 1}
        assert mock.mock.stats()["answered"] == 0


async def test_latency_is_that_of_the_rule_and_a_refusal_comes_at_once() -> None:
    rules = [{"message": "slow", "latency_s": 0.3}, {"message": "refused", "fail": "rate_limit"}]
    async with client({"rules": rules, "answers": {"latency_s": 0.15}}) as mock:
        took = {}
        for prompt in ("slow", "refused", "plain"):
            began = time.monotonic()
            await mock.ask(prompt=prompt)
            took[prompt] = time.monotonic() - began
    assert took["refused"] < 0.15 <= took["plain"]
    assert took["slow"] >= 0.3


async def test_reset_clears_counters_and_statistics() -> None:
    async with client({"rules": [{"first": 1, "fail": "server"}]}) as mock:
        assert [(await mock.ask()).status_code for _ in range(2)] == [500, 200]
        assert (await mock.http.post(mock.mock.url + "/reset")).json() == {"reset": True}
        assert mock.mock.stats()["requests"] == 0
        assert (await mock.ask()).status_code == 500


async def test_the_script_can_be_replaced_while_it_runs_and_a_wrong_one_changes_nothing() -> None:
    async with client() as mock:
        wrong = await mock.http.post(mock.mock.url + "/config", json={"rules": [{"fial": "server"}]})
        assert wrong.status_code == 400
        assert "did you mean 'fail'?" in wrong.json()["error"]
        assert (await mock.ask()).status_code == 200
        await mock.http.post(mock.mock.url + "/config", json={"rules": [{"fail": "server"}]})
        assert (await mock.ask()).status_code == 500
        assert mock.mock.stats()["requests"] == 2


async def test_lists_of_models_come_in_the_shape_of_the_protocol() -> None:
    async with client({"models": ["one"]}) as mock:
        base = mock.mock.base_url("alpha")
        openai = (await mock.http.get(base + "/v1/models")).json()
        anthropic = (await mock.http.get(base + "/v1/models", headers={"anthropic-version": "2023-06-01"})).json()
        gemini = (await mock.http.get(base + "/v1beta/models")).json()
        nothing = await mock.http.get(base + "/v1/embeddings")
    assert openai["data"][0]["id"] == "one"
    assert anthropic["data"][0]["type"] == "model"
    assert gemini["models"][0]["name"] == "models/one"
    assert nothing.status_code == 404

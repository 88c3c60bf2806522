"""Every failure that the mock can play is classified as the class that it claims."""

import httpx
import pytest

from understudy.models.failure import Failure, FailureClass
from understudy.worker.failures import classify, classify_exception
from understudy.worker.mock import Fail, running_mock
from understudy.worker.providers.base import BadAnswer, Call, Endpoint
from understudy.worker.providers.client import ProviderClient
from understudy.worker.providers.registry import adapter_for

NOW = 1_795_000_000.0
SOON_S, PATIENT_S = 0.5, 20.0
"""How long an answer may take: only what plays a timeout should meet one, even on a busy machine."""

DIALECTS = ["openai", "anthropic", "gemini", "bedrock", "azure", "groq", "mistral", "openrouter", "xai"]


async def failure_of(fail: Fail, dialect: str, retry_after_s: float | None = None) -> Failure:
    protocol = dialect if dialect in ("anthropic", "gemini", "bedrock") else "openai"
    adapter = adapter_for(protocol)
    call = Call(protocol, "m-1", {"messages": [{"role": "user", "content": "hello"}]})
    script = {"rules": [{"fail": fail, "retry_after_s": retry_after_s}], "dialects": {"alpha": dialect}}
    async with running_mock(script) as mock, ProviderClient(max_connections=2) as client:
        endpoint = Endpoint(mock.base_url("alpha") + ("/v1" if protocol == "openai" else ""), secret="sk-7777")
        try:
            timeout_s = SOON_S if fail.cls is FailureClass.TIMEOUT else PATIENT_S
            status, headers, content = await client.send(adapter.request(call, endpoint), endpoint, timeout_s)
        except httpx.TransportError as error:
            return classify_exception(error)
        if status != 200:
            return classify(dialect, protocol, status, headers, content, NOW)
        with pytest.raises(BadAnswer) as caught:
            adapter.answer(call, status, headers, content)
        return Failure(caught.value.cls, str(caught.value), status)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("fail", Fail)
async def test_each_scripted_failure_is_classified_as_the_class_it_claims(fail: Fail, dialect: str) -> None:
    assert (await failure_of(fail, dialect)).cls is fail.cls


@pytest.mark.parametrize("dialect", ["openai", "azure", "groq", "openrouter", "anthropic", "gemini"])
async def test_a_scripted_hint_is_read(dialect: str) -> None:
    failure = await failure_of(Fail.RATE_LIMIT, dialect, retry_after_s=7.0)
    assert (failure.cls, failure.hint_s) == (FailureClass.RATE_LIMIT, 7.0)


@pytest.mark.parametrize("dialect", ["openai", "groq", "gemini"])
async def test_a_scripted_daily_limit_is_known_as_one(dialect: str) -> None:
    assert (await failure_of(Fail.RATE_LIMIT_PER_DAY, dialect)).per_day

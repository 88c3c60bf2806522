"""The list of models, read with OpenAI's own client."""

from collections.abc import AsyncIterator
from contextlib import nullcontext

import httpx
import openai
import pytest
from api_help import application
from fakeredis import FakeAsyncRedis

from understudy.models.config.settings import Settings
from understudy.models.store import Store
from understudy.producer.api.context import Context

SETTINGS = Settings.model_validate(
    {
        "providers": {
            "openai": {"models": ["gpt-4o"]},
            "fireworks": {},
            "local": {"base_url": "http://127.0.0.1:9/v1", "models": ["llama3", "nomic-embed-text"]},
        },
        "chains": {
            "default": {"steps": ["openai/gpt-4o-mini", "fireworks/accounts/fireworks/models/kimi-k2"]},
            "cheap": {"steps": ["local/llama3"]},
        },
    }
)
EXPECTED = {
    "default": "understudy",
    "cheap": "understudy",
    "openai/gpt-4o": "openai",
    "openai/gpt-4o-mini": "openai",
    "fireworks/accounts/fireworks/models/kimi-k2": "fireworks",
    "local/llama3": "local",
    "local/nomic-embed-text": "local",
}


@pytest.fixture
async def sdk(store: Store) -> AsyncIterator[openai.AsyncOpenAI]:
    with application(nullcontext(Context(SETTINGS, store, FakeAsyncRedis(), lambda: 0.0))) as app:
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=httpx.ASGITransport(app)) as http,
        ):
            yield openai.AsyncOpenAI(base_url="http://127.0.0.1/v1", api_key="none", http_client=http, max_retries=0)


async def test_chains_and_models_are_listed_each_once_with_whose_they_are(sdk: openai.AsyncOpenAI) -> None:
    page = await sdk.models.list()
    assert {each.id: each.owned_by for each in page.data} == EXPECTED
    assert len(page.data) == len(EXPECTED)
    assert {(page.object, each.object, type(each.created)) for each in page.data} == {("list", "model", int)}


@pytest.mark.parametrize("name", EXPECTED)
async def test_each_can_be_looked_up_by_its_id_slashes_included(sdk: openai.AsyncOpenAI, name: str) -> None:
    model = await sdk.models.retrieve(name)
    assert (model.id, model.owned_by) == (name, EXPECTED[name])


async def test_one_that_is_not_configured_is_not_found(sdk: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        await sdk.models.retrieve("openai/gpt-1")
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")

"""The values for a request's `model`: the chains by name, and the configured models as `provider/model`."""

from contextlib import suppress
from typing import Any

from fastapi import APIRouter, Response
from pydantic import BaseModel

from understudy.models.config.settings import Settings
from understudy.models.request.wire import NOT_FOUND, RequestError
from understudy.models.routing.allowlist import Allowed
from understudy.models.routing.model_names import quoted
from understudy.models.routing.route import configured_chain
from understudy.producer.api.access.auth import Caller, Reader
from understudy.producer.api.context import Api, Context
from understudy.producer.api.errors import ApiError, json_response, rejections

router = APIRouter(prefix="/v1/models", tags=["models"])

OURS = "understudy"
CREATED = 0
"""OpenAI returns when a model was created; we do not know it."""


class Model(BaseModel):
    """OpenAI's object. `owned_by`: the name of the provider, or `understudy` for a chain."""

    id: str
    object: str = "model"
    created: int = CREATED
    owned_by: str


class ModelList(BaseModel):
    object: str = "list"
    data: list[Model]


@router.get("", summary="List the chains and models", response_model=ModelList, responses=rejections(401, 403, 503))
async def list_models(api: Api, caller: Reader) -> Response:
    """The chains and models your tenant may use, from the configuration. Other models of the providers can be requested
    as `provider/model`, too."""
    data = [_model(name, owner) for name, owner in (await _owners(api, caller)).items()]
    return json_response({"object": "list", "data": data})


@router.get(
    "/{model:path}",
    summary="Retrieve a chain or model",
    response_model=Model,
    responses=rejections(400, 401, 403, 404, 503),
)
async def retrieve_model(model: str, api: Api, caller: Reader) -> Response:
    known = await _owners(api, caller)
    if model not in known:
        reason = f"no model {quoted(model)} is configured; GET /v1/models lists the configured models"
        raise ApiError(404, reason, param="model", code=NOT_FOUND)
    return json_response(_model(model, known[model]))


async def _owners(api: Context, caller: Caller) -> dict[str, str]:
    rules = await api.rules.of(api.store, caller.tenant)
    return owners(api.settings, Allowed(api.settings, rules.allow))


def owners(settings: Settings, allowed: Allowed) -> dict[str, str]:
    """The owner of each usable chain and model."""
    chains = [name for name in settings.chains if allowed.chain(name)]
    found = dict.fromkeys(chains, OURS)
    for chain in chains:
        with suppress(RequestError):  # an unusable chain raises its error on use
            found |= {str(step): step.provider for step in configured_chain(settings, chain).steps}
    for name, provider in settings.providers.items():
        found |= {f"{name}/{model}": name for model in provider.models}
    found |= {model: model.partition("/")[0] for model in allowed.models}
    return {name: owner for name, owner in found.items() if owner == OURS or allowed.model(name)}


def _model(name: str, owner: str) -> dict[str, Any]:
    return Model(id=name, owned_by=owner).model_dump()

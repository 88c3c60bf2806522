"""Who asks, and what that caller may do."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from fastapi import Depends

from producer.api.context import Api

DEFAULT_TENANT = "default"


class Scope(StrEnum):
    READ = "read"  # look at the tenant's own jobs, batches and files
    SUBMIT = "submit"  # make and cancel them
    ADMIN = "admin"  # keys, tenants and webhooks


@dataclass(frozen=True, slots=True)
class Caller:
    """`key_id` None: nobody has made a key yet, and the caller is on this machine."""

    tenant: str
    scopes: frozenset[Scope]
    key_id: str | None = None


async def reader(api: Api) -> Caller:
    return Caller(DEFAULT_TENANT, frozenset(Scope))


async def submitter(api: Api) -> Caller:
    return Caller(DEFAULT_TENANT, frozenset(Scope))


async def administrator(api: Api) -> Caller:
    return Caller(DEFAULT_TENANT, frozenset(Scope))


Reader = Annotated[Caller, Depends(reader)]
Submitter = Annotated[Caller, Depends(submitter)]
Administrator = Annotated[Caller, Depends(administrator)]

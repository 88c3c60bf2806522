"""The Python client: `AsyncClient` for async code, `Client` for everything else. They have the same methods.

with Client() as client:
    job = client.submit("Say hello in Latin.", model="openai/gpt-4o-mini")
    print(client.wait(job.id, timeout_s=60).text)
"""

from understudy.models.state import BatchState, JobState, PriorityWord
from understudy.producer.client.asynchronous import AsyncClient
from understudy.producer.client.blocking import Client
from understudy.producer.client.errors import (
    InputError,
    NoAnswer,
    NoJudge,
    NoLedger,
    NotPossible,
    RequestError,
    RetryUnderWay,
    SettingsError,
    StoreError,
    StoreOutage,
    UnderstudyError,
    UnknownId,
    WaitTimeout,
)
from understudy.producer.client.reading import Request
from understudy.producer.client.results import Attempt, Batch, Job, Page, Result

__all__ = [
    "AsyncClient",
    "Attempt",
    "Batch",
    "BatchState",
    "Client",
    "InputError",
    "Job",
    "JobState",
    "NoAnswer",
    "NoJudge",
    "NoLedger",
    "NotPossible",
    "Page",
    "PriorityWord",
    "Request",
    "RequestError",
    "Result",
    "RetryUnderWay",
    "SettingsError",
    "StoreError",
    "StoreOutage",
    "UnderstudyError",
    "UnknownId",
    "WaitTimeout",
]

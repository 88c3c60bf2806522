"""The Python client: `AsyncClient` for async code, `Client` for everything else. They have the same methods.

with Client() as client:
    job = client.submit("Say hello in Latin.", model="openai/gpt-4o-mini")
    print(client.wait(job.id, timeout_s=60).text)
"""

from understudy.models.config.errors import SettingsError
from understudy.models.errors import UnderstudyError
from understudy.models.request.wire import RequestError
from understudy.models.schemas.process import NoJudge
from understudy.models.state import BatchState, JobState, PriorityWord
from understudy.models.store import StoreError, StoreOutage
from understudy.producer.client.asynchronous import AsyncClient
from understudy.producer.client.blocking import Client
from understudy.producer.client.errors import NoAnswer, NotPossible, WaitTimeout
from understudy.producer.client.results import Attempt, Batch, Job, Page, Result
from understudy.producer.client.submission import Request
from understudy.producer.ingest.decoding import InputError
from understudy.producer.ledger import NoLedger, UnknownId
from understudy.producer.runs.reruns import RetryUnderWay

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

"""What the client raises. The text of each is one sentence that says what to do, without prompts or secrets.

UnderstudyError
├── RequestError (ValueError)    the request is wrong and nothing was accepted: correct what `param` names
├── InputError                   the file as a whole cannot be read: name or save it as the sentence says
├── UnknownId (LookupError)      there is no such job or batch: look at `list_jobs` and `list_batches`
├── WaitTimeout (TimeoutError)   it has not ended yet; the work goes on: wait again, or come back later
├── NoAnswer                     `text` of a job that has none: look at its `result.error`, or `retry` it
├── NotPossible                  it has ended, or there is nothing to retry: submit it again if you need to
├── RetryUnderWay                the same is being retried right now: wait for that
├── SettingsError                understudy.toml or the environment is wrong: correct the line that it names
├── NoJudge                      no process can be started to check a JSON schema: call again later
├── NoLedger                     there is no ledger at that place: name another data folder
└── StoreError                   the database did not do it
    └── StoreOutage              it is away, busy or full: call again later, with the same `idempotency_key`

A client that is not open, or a `Client` that is called in a coroutine, is a mistake in the program: RuntimeError.
"""

from typing import TYPE_CHECKING

from understudy.models.config.errors import SettingsError
from understudy.models.errors import UnderstudyError, WrongUse
from understudy.models.request.wire import RequestError
from understudy.models.schemas.process import NoJudge
from understudy.models.store import StoreError, StoreOutage
from understudy.producer.ingest.decoding import InputError
from understudy.producer.ledger import NoLedger, UnknownId
from understudy.producer.runs.reruns import RetryUnderWay

if TYPE_CHECKING:
    from understudy.producer.client.results import Result

__all__ = [
    "InputError",
    "NoAnswer",
    "NoJudge",
    "NoLedger",
    "NotPossible",
    "RequestError",
    "RetryUnderWay",
    "SettingsError",
    "StoreError",
    "StoreOutage",
    "UnderstudyError",
    "UnknownId",
    "WaitTimeout",
]


class WaitTimeout(UnderstudyError, TimeoutError):
    """What was waited for has not ended yet; the work goes on."""

    def __init__(self, waited_for: str, timeout_s: float | None) -> None:
        super().__init__(
            f"{waited_for} has not ended within {timeout_s:g} seconds; it goes on, so wait again with the same id"
        )


class NoAnswer(UnderstudyError):
    """A job without an answer was asked for it. `result` says how it ended."""

    def __init__(self, sentence: str, result: "Result") -> None:
        super().__init__(sentence)
        self.result = result


class NotPossible(WrongUse):
    """The job or batch is not in a state for that."""

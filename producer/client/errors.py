"""Exceptions of the client. Each message is one sentence that says what to do, without prompts or secrets.

UnderstudyError
├── RequestError (ValueError)    the request is invalid and nothing was accepted: correct the field in `param`
├── InputError                   the file as a whole cannot be read: rename or save it as the message says
├── UnknownId (LookupError)      there is no such job or batch: see `list_jobs` and `list_batches`
├── WaitTimeout (TimeoutError)   it has not ended yet; the work continues: wait again, or come back later
├── NoAnswer                     the job has no `text`: see its `result.error`, or `retry` it
├── NotPossible                  it has ended, or there is nothing to retry: submit it again if you need to
├── RetryUnderWay                another retry of the batch is in progress: wait for it
├── SettingsError                understudy.toml or the environment is invalid: correct the named setting
├── NoJudge                      no process could be started to check a JSON schema: try again later
├── NoLedger                     there is no ledger there: use another data folder
└── StoreError                   the database operation failed
    └── StoreOutage              it is unreachable, busy or full: try again later, with the same `idempotency_key`

Using a client that is not open, or a `Client` in a coroutine, is a programming error: RuntimeError.
"""

from typing import TYPE_CHECKING

from understudy.models.errors import UnderstudyError, WrongUse

if TYPE_CHECKING:
    from understudy.producer.client.results import Result


class WaitTimeout(UnderstudyError, TimeoutError):
    """The job or batch has not ended yet; the work continues."""

    def __init__(self, waited_for: str, timeout_s: float | None) -> None:
        super().__init__(
            f"{waited_for} has not ended within {timeout_s:g} seconds; it continues, so wait again with the same id"
        )


class NoAnswer(UnderstudyError):
    """The job has no answer. `result` tells how it ended."""

    def __init__(self, sentence: str, result: "Result") -> None:
        super().__init__(sentence)
        self.result = result


class NotPossible(WrongUse):
    """The job or batch is not in a state that allows this."""

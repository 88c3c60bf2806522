"""Errors that are reported to people as one sentence, without a traceback. The class says how a command ends, and what
the HTTP API answers.

                                 exit   HTTP  code
UnderstudyError                     1    500  internal_error
├── WrongUse                        2
│   ├── RequestError                     400  invalid_request
│   ├── SettingsError
│   ├── UnknownProvider
│   ├── NoLedger
│   ├── UnknownId                        404  not_found
│   ├── InputError
│   ├── TooLarge                         413  file_too_large
│   ├── Empty                            400  file_empty
│   ├── NoBlob                           404  not_found
│   ├── DataFolderBusy
│   ├── OtherRun
│   ├── BadInput
│   ├── NotPossible
│   ├── RetryUnderWay                    409  retry_under_way
│   └── Refused
├── OutOfReach                      3    503  unavailable
│   ├── StoreError
│   │   ├── StoreOutage
│   │   │   ├── StoreUnavailable
│   │   │   │   └── StoreMisplaced  2
│   │   │   └── StoreBusy
│   │   │       └── StoreFull
│   │   ├── StoreConflict                409  conflict
│   │   │   └── OtherRequest             422  idempotency_key_reused
│   │   ├── StoreRefused
│   │   └── StoreDefect
│   ├── QueueUnavailable
│   ├── StorageDown
│   ├── NoJudge
│   └── WorkersFailed
├── ApiError
├── WaitTimeout
└── NoAnswer

Empty columns are as in the class above. A RequestError has its own code, and with some codes another status; an
ApiError has its own status and code. 500 means that no request should cause it: the API answers without its sentence,
as after any defect. `producer.client.errors` tells what a program does about those that it meets.
"""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from types import MappingProxyType

ALL_SUCCEEDED = 0
SOME_FAILED = 1
WRONG_USE = 2
UNREACHABLE = 3
INTERRUPTED = 130
"""Exit codes of the command line."""

DEFECT = 500
NO_HEADERS: Mapping[str, str] = MappingProxyType({})
OUTAGE_HEADERS: Mapping[str, str] = MappingProxyType({"Retry-After": "5"})

ERROR_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
}
"""OpenAI's `type` by status; all others are `invalid_request_error`."""


class UnderstudyError(Exception):
    """Something could not be done. The text is one sentence with the remedy, without prompts or secrets."""

    exit_code = SOME_FAILED
    status = DEFECT
    code: str | None = "internal_error"
    param: str | None = None
    headers = NO_HEADERS

    @property
    def type(self) -> str:
        """OpenAI's `type`."""
        return ERROR_TYPES.get(self.status, "invalid_request_error")


class WrongUse(UnderstudyError):
    """A person has to change something: an argument, a setting or a request."""

    exit_code = WRONG_USE


class OutOfReach(UnderstudyError):
    """A required service does not work at the moment; the request may be right."""

    exit_code = UNREACHABLE
    status = 503
    code = "unavailable"
    headers = OUTAGE_HEADERS


def suggestion(name: str, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown name: the closest known one, or all of them."""
    names = sorted(known)
    near = get_close_matches(name, names, n=1)
    if near:
        return f"; did you mean '{near[0]}'?"
    return f"; known: {', '.join(names)}" if names else "; none is configured"

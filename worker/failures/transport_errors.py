"""Classifies a call without a response: above all, whether the request was sent."""

import asyncio
import ssl
from socket import gaierror

import httpx

from understudy.models.failure import Failure, FailureClass, Scope
from understudy.worker.failures.complaint import MAX_MESSAGE_CHARS
from understudy.worker.failures.masking import masked

_MEANING: tuple[tuple[tuple[type[BaseException], ...], FailureClass, str], ...] = (
    ((asyncio.CancelledError,), FailureClass.CANCELLED, "the call was cancelled"),
    (
        (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError, ssl.SSLError, gaierror),
        FailureClass.CONNECT,
        "no connection could be made",
    ),
    ((ConnectionRefusedError,), FailureClass.CONNECT, "the connection was refused"),
    # Only a person can fix an address: the jobs wait for that instead of failing one by one.
    (
        (httpx.UnsupportedProtocol, httpx.InvalidURL),
        FailureClass.CREDENTIAL,
        "the provider's base_url is not a valid http:// or https:// address; correct it in the configuration",
    ),
    (
        (httpx.LocalProtocolError,),
        FailureClass.CREDENTIAL,
        "the request cannot be sent: look for line breaks in the provider's key and headers",
    ),
    ((httpx.TimeoutException, TimeoutError), FailureClass.TIMEOUT, "no complete answer came in time"),
    (
        (httpx.NetworkError, httpx.RemoteProtocolError, ConnectionError),
        FailureClass.TIMEOUT,
        "the connection was lost after the request was sent",
    ),
    ((httpx.DecodingError, httpx.TooManyRedirects), FailureClass.BAD_RESPONSE, "the answer cannot be decoded"),
)
"""The first matching row counts."""

_TELLING = (httpx.ConnectError, httpx.TimeoutException, httpx.NetworkError, httpx.ProxyError, httpx.RemoteProtocolError)
"""Errors whose text consists of a host and a reason. Other texts may quote headers or a URL and are not repeated."""

_MAYBE_BILLED = frozenset({FailureClass.TIMEOUT, FailureClass.BAD_RESPONSE, FailureClass.CANCELLED})


def classify_exception(error: BaseException) -> Failure:
    """The failure for an exception of the HTTP client. Unknown ones become `unknown`."""
    for kinds, cls, meaning in _MEANING:
        if isinstance(error, kinds):
            said = masked(str(error))[:MAX_MESSAGE_CHARS] if isinstance(error, _TELLING) else ""
            scope = Scope.ACCOUNT if cls is FailureClass.CREDENTIAL else Scope.REQUEST
            return Failure(
                *(cls, said or meaning),
                scope=scope,
                possibly_billed=cls in _MAYBE_BILLED,
                sure=cls is FailureClass.CREDENTIAL,
            )
    return Failure(FailureClass.UNKNOWN, f"the call failed unexpectedly ({type(error).__name__})", possibly_billed=True)

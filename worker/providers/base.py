"""The protocol of a provider adapter. An adapter is pure: it translates, does no I/O and never retries.

Its input is OpenAI's request body for the call's endpoint; its output is an OpenAI chat completion (`id, object,
created, model, choices, usage`) or list of embeddings, whatever the wire protocol in between.

Errors:
    CannotExpress   the request cannot be expressed in this protocol; the step is skipped with the reason
    BadAnswer       a 200 without an answer; becomes `bad_response` (or the class it carries)
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import urlsplit

from understudy.models.failure import FailureClass
from understudy.models.request.tokens import Usage as Usage
from understudy.models.routing.chain import CHAT
from understudy.models.routing.chain import Endpoint as Surface


class CannotExpress(Exception):
    """The request cannot be translated without changing its meaning. The message names the field."""


class BadAnswer(Exception):
    """A success status without a completion in the body. The message never contains the model's text.

    `answer` is what could be read nevertheless: a blocked or unfinished answer is still billed.
    """

    def __init__(
        self,
        message: str,
        cls: FailureClass = FailureClass.BAD_RESPONSE,
        body: object = None,
        answer: "Answer | None" = None,
    ) -> None:
        super().__init__(message)
        self.cls = cls
        self.body = body
        self.answer = answer


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The address and credential of a call. `secret` is None for servers that need no key."""

    base_url: str
    secret: str | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)

    def versioned(self, version: str, path: str) -> str:
        """`/version/path`, without the version if the base URL already contains one: both forms are common."""
        segments = urlsplit(self.base_url).path.split("/")
        return f"/{path}" if any(map(_VERSION_SEGMENT.fullmatch, segments)) else f"/{version}/{path}"

    def headers_with(self, key_header: str, own: Mapping[str, str] | None = None) -> dict[str, str]:
        """The headers of a call, with the secret in the one named `key_header`. The configured ones win: they are how
        a user works around what we do not know."""
        headers = {"content-type": "application/json", **(own or {})}
        if self.secret:
            headers[key_header] = f"Bearer {self.secret}" if key_header == "authorization" else self.secret
        return headers | {name.lower(): value for name, value in self.headers.items()}


_VERSION_SEGMENT = re.compile(r"v\d+(?:(?:alpha|beta)\d*)?")


@dataclass(frozen=True, slots=True)
class Call:
    """One chat completion, or the embeddings of some texts, for one model.

    `dialect` is the preset's name (openai, groq, mistral, azure …): adapters of one protocol differ by it. `body` is
    never modified by an adapter.
    """

    dialect: str
    model: str
    body: Mapping[str, Any]
    endpoint: Surface = CHAT


@dataclass(frozen=True, slots=True)
class WireRequest:
    """`path` is joined to the endpoint's base URL. `dropped` lists omitted advisory parameters."""

    path: str
    headers: dict[str, str]
    content: bytes
    dropped: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """`completion` is OpenAI's chat completion or list of embeddings; `raw_usage` and `raw_finish` are in the
    provider's own terms."""

    completion: dict[str, Any]
    usage: Usage
    model: str
    raw_usage: Any = None
    raw_finish: str | None = None


class Adapter(Protocol):
    protocol: str

    def request(self, call: Call, endpoint: Endpoint) -> WireRequest:
        """Translate. Raises CannotExpress."""
        ...

    def answer(self, call: Call, status: int, headers: Mapping[str, str], content: bytes) -> Answer:
        """Read a 2xx response. Raises BadAnswer. Other statuses go to `worker.failures.classify`."""
        ...

"""Paths and headers that adapters construct alike."""

import re
from urllib.parse import urlsplit

from understudy.worker.providers.base import Endpoint

_VERSION_SEGMENT = re.compile(r"v\d+(?:(?:alpha|beta)\d*)?")


def versioned_path(base_url: str, version: str, path: str) -> str:
    """`/version/path`, without the version if the base URL already contains one: both forms are common."""
    segments = urlsplit(base_url).path.split("/")
    if any(_VERSION_SEGMENT.fullmatch(segment) for segment in segments):
        return f"/{path}"
    return f"/{version}/{path}"


def request_headers(endpoint: Endpoint, **own: str) -> dict[str, str]:
    """The configured headers win: they are how a user works around what we do not know."""
    headers = {"content-type": "application/json"} | {name.replace("_", "-"): value for name, value in own.items()}
    return headers | {name.lower(): value for name, value in endpoint.headers.items()}

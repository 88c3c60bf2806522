"""URLs of a job and its result."""

from fastapi import Request

from understudy.models.config.settings import Settings
from understudy.producer.api.access.locality import host_of


def root_of(request: Request, settings: Settings) -> str:
    """The part of links before the path: as configured, or from the request."""
    if settings.api.public_url is not None:
        return settings.api.public_url
    host = host_of(request)
    return "" if host is None else f"{request.scope['scheme']}://{host}"  # a relative link is correct, too

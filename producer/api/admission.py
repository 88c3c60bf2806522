"""Whether there is room for more work: the producers' backpressure."""

from producer.api.auth import Caller
from producer.api.context import Context


async def admit(api: Context, caller: Caller, jobs: int) -> None:
    """Return when so many more jobs may be accepted from this caller; raise ApiError 429 with Retry-After else.

    To be asked before anything of the request is written: all of it is accepted, or nothing.
    """

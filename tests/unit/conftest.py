"""What the limiter's tests share."""

from collections.abc import AsyncIterator

import pytest
from limiter_fleet import Fleet


@pytest.fixture
async def fleet() -> AsyncIterator[Fleet]:
    made = Fleet()
    yield made
    await made.redis.aclose()

from collections.abc import AsyncIterator

import pytest

from far.hosts import FarHosts, far_hosts


@pytest.fixture
async def far() -> AsyncIterator[FarHosts]:
    async with far_hosts() as hosts:
        yield hosts

import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from storage.pair import Pair, two_hosts


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    # Not tmp_path: UNIX socket paths must stay under 108 bytes.
    with tempfile.TemporaryDirectory(prefix="whimbrel-") as folder:
        async with two_hosts(Path(folder)) as hosts:
            yield hosts

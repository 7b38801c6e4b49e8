import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from contract.harness import Harness, qemu_harness, resident_harness, simulated_harness


@pytest.fixture(params=["simulated", "qemu", "resident"])
async def pair(request: pytest.FixtureRequest) -> AsyncIterator[Harness]:
    if request.param == "simulated":
        async with simulated_harness() as simulated:
            yield simulated
        return
    # Not tmp_path: UNIX socket paths must stay under 108 bytes.
    with tempfile.TemporaryDirectory(prefix="whimbrel-") as folder:
        building = qemu_harness if request.param == "qemu" else resident_harness
        async with building(Path(folder) / request.param) as harness:
            yield harness

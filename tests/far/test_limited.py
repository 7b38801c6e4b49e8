"""A disk that moves under a limit which its guest's writes exceed."""

from pathlib import Path

import pytest

from far.person import person
from whimbrel.model.units import MIB


@pytest.mark.timeout(400)
async def test_a_limited_copy_that_the_guest_outruns_comes_to_its_end(tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir()
    disk = f'[[disks]]\nname = "disk"\npath = "{tmp_path}/web.img"\nsize = "32 MiB"\n'
    async with person() as at:
        await at.up("web", more=disk)
        async with at.redline("web", "a") as guest:
            await guest.fill_disk("/dev/vda", 8 * MIB)
            await guest.load_disk("/dev/vda", 2 * MIB, 50e3)
        said = await at.whimbrel("move", "web", "--storage", f"{there}/", "--limit", "256 KiB/s")
        async with at.redline("web", "a") as guest:
            assert (await guest.verify_disk("/dev/vda")).intact
    assert said.code == 0, said.errors
    assert "writes to disk wait for their copies" in said.errors

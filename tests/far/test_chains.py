"""A disk with a backing file goes to another host by its top image alone, and whole."""

import asyncio
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from far.hosts import needs_far_hosts
from far.person import Person, person
from whimbrel.errors import ExitCode
from whimbrel.model.units import MIB

pytestmark = [needs_far_hosts, pytest.mark.timeout(300)]

BASE = 24 * MIB
"""Bytes of the base that hold something; the guest never writes there."""

AT = 64 * MIB
SIZE = 128 * MIB


def chained(folder: Path) -> tuple[Path, Path]:
    """Make an image that rests on another one, and return both, the base first."""
    folder.mkdir()
    base, top = folder / "golden.raw", folder / "db.qcow2"
    with base.open("wb") as file:
        file.write(os.urandom(BASE))
        file.truncate(SIZE)
    words = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(base), "-F", "raw", str(top)]
    subprocess.run(words, check=True)
    return base, top


def chain(image: Path) -> list[dict[str, Any]]:
    words = ["qemu-img", "info", "-U", "--backing-chain", "--output=json", str(image)]
    found: list[dict[str, Any]] = json.loads(subprocess.check_output(words))
    return found


def begins_as(image: Path, base: Path) -> bool:
    """Tell whether the guest would read the base's bytes from an image."""
    words = ["qemu-img", "dd", "-U", "-O", "raw", f"bs={BASE}", "count=1", f"if={image}"]
    plain = image.with_suffix(".plain")
    subprocess.run([*words, f"of={plain}"], check=True)
    with base.open("rb") as file:
        return plain.read_bytes() == file.read(BASE)


async def with_chain(at: Person, folder: Path) -> tuple[Path, Path]:
    base, top = await asyncio.to_thread(chained, folder)
    disk = f'[[disks]]\nname = "vda"\npath = "{top}"\nformat = "qcow2"\n'
    await at.up("db", more=disk)
    async with at.redline("db", "a") as guest:
        await guest.fill_disk("/dev/vda", 4 * MIB, at=AT)
    return base, top


async def test_the_top_image_goes_alone_and_then_the_whole_chain_as_one() -> None:
    async with person() as at:
        base, _ = await with_chain(at, at.far.folder / "here")
        there, back = at.far.folder / "there", at.far.folder / "back"
        there.mkdir()
        back.mkdir()
        words = ("db", "--to", "b", "--storage", str(there), "--chain", "top", "--survey", "none")
        said = await at.whimbrel("plan", *words, "--json")
        assert said.code == ExitCode.DONE, said.errors
        [proof] = [each for each in said.json["checks"] if "base golden.raw" in each["name"]]
        assert proof["result"] == "pass"
        said = await at.whimbrel("move", *words)
        assert said.code in {ExitCode.DONE, ExitCode.GOAL_MISSED}, said.errors
        top, below = chain(there / "db.qcow2")
        assert below["filename"] == str(base)
        assert top["actual-size"] < BASE
        async with at.redline("db", "b") as guest:
            assert (await guest.verify_disk("/dev/vda")).intact
        assert await asyncio.to_thread(begins_as, there / "db.qcow2", base)

        said = await at.whimbrel(
            "move", "db", "--to", "a", "--storage", str(back), "--survey", "none"
        )
        assert said.code in {ExitCode.DONE, ExitCode.GOAL_MISSED}, said.errors
        [whole] = chain(back / "db.qcow2")
        assert whole["actual-size"] >= BASE
        async with at.redline("db", "a") as guest:
            assert (await guest.verify_disk("/dev/vda")).intact
        assert await asyncio.to_thread(begins_as, back / "db.qcow2", base)

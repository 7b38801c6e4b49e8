"""The lab's guest in a real QEMU, under TCG so that it is the same everywhere."""

import json
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from whimbrel.errors import LabError
from whimbrel.lab.accelerator import boot_probe
from whimbrel.lab.heartbeat import HeartbeatListener
from whimbrel.lab.image import BEAT_PORT, CONTROL_PORT, Image, build_image
from whimbrel.lab.kernel import find_kernel
from whimbrel.lab.redline import Redline, RedlineStatus
from whimbrel.model.scenario import Access, Load, Pattern
from whimbrel.model.units import MIB

LOAD = Load(fill=96 * MIB, pattern=Pattern.TEXT, hot=32 * MIB, dirty_rate=20 * MIB)
SECONDS = 120.0


@dataclass(frozen=True)
class Guest:
    """A guest's sockets and its serial console."""

    folder: Path

    @property
    def control(self) -> Path:
        return self.folder / "control"

    @property
    def beat(self) -> Path:
        return self.folder / "beat"

    def monitor(self, *commands: dict[str, Any]) -> dict[str, Any]:
        """Run QMP commands over a new connection and return the last one's answer."""
        answer: dict[str, Any] = {}
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self.folder / "qmp"))
            lines = connection.makefile("r")
            lines.readline()
            for command in ({"execute": "qmp_capabilities"}, *commands):
                connection.sendall(json.dumps(command).encode())
                answer = json.loads(lines.readline())
                while "event" in answer:
                    answer = json.loads(lines.readline())
            lines.close()
        return answer


@contextmanager
def running(image: Image, folder: Path, mebibytes: int, *more: str) -> Iterator[Guest]:
    folder.mkdir()
    words = [
        *("setpriv", "--pdeathsig", "KILL", "--", "qemu-system-x86_64", "-M", "q35"),
        *("-nodefaults", "-display", "none", "-no-reboot", "-accel", "tcg,thread=multi"),
        *("-m", str(mebibytes), "-serial", f"file:{folder}/console", *image.arguments),
        *("-qmp", f"unix:{folder}/qmp,server=on,wait=off", "-device", "virtio-serial-pci"),
    ]
    for name, port in (("control", CONTROL_PORT), ("beat", BEAT_PORT)):
        words += ["-chardev", f"socket,id={name},path={folder}/{name},server=on,wait=off"]
        words += ["-device", f"virtserialport,chardev={name},name={port}"]
    with subprocess.Popen([*words, *more], stdin=subprocess.DEVNULL) as process:
        try:
            yield Guest(folder)
        finally:
            process.kill()


@pytest.fixture(scope="module")
def image() -> Image:
    return build_image(find_kernel())


@pytest.fixture(scope="module")
def guest(image: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    with running(image, tmp_path_factory.mktemp("guest") / "vm", 256) as found:
        yield found


async def until_written(redline: Redline, pages: int) -> RedlineStatus:
    enough = (await redline.status()).pages_dirtied + pages
    while (status := await redline.status()).pages_dirtied < enough:
        pass  # every question waits for its answer
    return status


async def test_the_guest_boots_and_beats(guest: Guest) -> None:
    async with Redline.connect(guest.control, SECONDS) as redline:
        status = await redline.ready()
    assert 200 * MIB < status.memory_total < 256 * MIB
    with HeartbeatListener() as listener:
        listener.add("source", guest.beat)
        assert listener.wait_for_beat("source", SECONDS)


async def test_a_fill_is_verified_and_one_wrong_bit_is_found(guest: Guest) -> None:
    told: list[float] = []
    async with Redline.connect(guest.control, SECONDS) as redline:
        before = await redline.ready()
        await redline.fill(replace(LOAD, dirty_rate=0), told.append)
        filled = await redline.status()
        assert before.memory_free - filled.memory_free > 90 * MIB
        assert (await redline.verify()).intact
        await redline.corrupt(4321)
        wrong = await redline.verify()
    assert (wrong.bad_pages, wrong.first_bad) == (1, 4321)
    assert told == sorted(told)


async def test_the_rate_that_was_asked_for_is_reached(guest: Guest) -> None:
    async with Redline.connect(guest.control, SECONDS) as redline:
        await redline.fill(LOAD)
        status = await until_written(redline, 10_000)
        # The whole time never holds more than was asked for; some second, whatever else the
        # machine does, is one in which the guest could work.
        assert status.writing
        assert status.rate_since < 1.1 * LOAD.dirty_rate
        while status.rate != pytest.approx(LOAD.dirty_rate, rel=0.1):
            status = await redline.status()


async def test_a_changed_load_keeps_verification_exact(guest: Guest) -> None:
    async with Redline.connect(guest.control, SECONDS) as redline:
        await redline.fill(replace(LOAD, pattern=Pattern.MIXED))
        for access, touch in zip(Access, (64, 4096, 1), strict=True):
            await redline.change(replace(LOAD, access=access, touch=touch, hot=16 * MIB))
            await until_written(redline, 5_000)
            verification = await redline.verify()
            assert verification.intact
            assert verification.pages_checked == 96 * MIB // 4096


async def test_freed_memory_is_free_again(guest: Guest) -> None:
    async with Redline.connect(guest.control, SECONDS) as redline:
        await redline.fill(LOAD)
        before = await redline.status()
        await redline.free(replace(LOAD, freed=48 * MIB))
        assert (await redline.status()).memory_free > before.memory_free - 4 * MIB


async def test_a_fill_that_does_not_fit_is_refused_and_the_guest_lives(guest: Guest) -> None:
    async with Redline.connect(guest.control, SECONDS) as redline:
        with pytest.raises(LabError, match="does not fit"):
            await redline.fill(Load(fill=250 * MIB))
        assert (await redline.status()).filled == 0
        await redline.fill(LOAD)
        assert (await redline.verify()).intact


async def test_a_client_that_left_in_the_middle_disturbs_no_other(guest: Guest) -> None:
    with socket.socket(socket.AF_UNIX) as leaving:
        leaving.connect(str(guest.control))
        leaving.sendall(b'{"id": 1, "do": "verify"}\n{"id": 2, "do": "fi')
    async with Redline.connect(guest.control, SECONDS) as redline:
        await redline.ready()
        await redline.fill(LOAD)
        assert (await redline.verify()).intact


async def test_a_guest_of_128_mib_boots_and_holds_a_small_fill(
    image: Image, tmp_path: Path
) -> None:
    with running(image, tmp_path / "small", 128) as guest:
        async with Redline.connect(guest.control, SECONDS) as redline:
            await redline.ready()
            await redline.fill(Load(fill=16 * MIB, pattern=Pattern.MIXED))
            assert (await redline.verify()).intact


async def test_a_moved_guest_is_intact_and_its_standstill_is_heard(
    image: Image, tmp_path: Path
) -> None:
    channel = f"unix:{tmp_path}/channel"
    with ExitStack() as stack:
        listener = stack.enter_context(HeartbeatListener())
        source = stack.enter_context(running(image, tmp_path / "source", 256))
        listener.add("source", source.beat)
        async with Redline.connect(source.control, SECONDS) as redline:
            await redline.ready()
            await redline.fill(LOAD)
            assert listener.wait_for_beat("source", SECONDS)
            words = ("-incoming", "defer")
            destination = stack.enter_context(running(image, tmp_path / "there", 256, *words))
            listener.add("destination", destination.beat)
            began = time.monotonic()
            destination.monitor({"execute": "migrate-incoming", "arguments": {"uri": channel}})
            move(source, channel)
        async with Redline.connect(destination.control, SECONDS) as redline:
            status = await redline.ready()
            await until_written(redline, 1000)
            assert (await redline.verify()).intact
        gap = listener.gap_across_switchover("source", "destination")
        longest = listener.longest_gap(began, time.monotonic())
        sequences = list(listener.record().sequences)
    assert status.writing
    assert gap is not None
    assert longest is not None
    assert 0 < gap <= longest
    assert sequences == sorted(sequences)


def move(source: Guest, channel: str) -> None:
    capacity = {"max-bandwidth": 1 << 30}
    source.monitor(
        {"execute": "migrate-set-parameters", "arguments": capacity},
        {"execute": "migrate", "arguments": {"uri": channel}},
    )
    while True:
        answer = source.monitor({"execute": "query-migrate"})["return"]
        assert answer["status"] not in {"failed", "cancelled"}, answer
        if answer["status"] == "completed":
            return


def test_a_probe_boots_this_guest_and_sees_its_first_line(image: Image) -> None:
    probe = boot_probe(["qemu-system-x86_64", "-accel", "tcg"], image, SECONDS)
    assert probe.seconds is not None, probe.failure

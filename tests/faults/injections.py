"""The faults, and how each is done to a move that is under way.

What they break, `Stage.mend` mends.
"""

import asyncio
import ctypes
import errno
import json
import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from far.control import switch
from faults.phases import Missed, Phase, thaw
from faults.stage import DISK_FILL, Stage
from faults.underway import VM
from whimbrel.errors import LabError
from whimbrel.lab.namespaces import in_namespace
from whimbrel.model.journal import Step
from whimbrel.model.storage import EXPORT_PORTS
from whimbrel.model.units import MIB
from whimbrel.sites.onsite.claims import boot_id, free_memory, start_time


class Fault(StrEnum):
    """A row of the matrix."""

    WHIMBREL = "whimbrel killed"
    SOURCE = "source QEMU killed"
    DESTINATION = "destination QEMU killed"
    LINK_BREAK = "link cut for 5 s"
    LINK = "link cut for good"
    DISK = "destination disk full"
    PORT = "port taken"
    MEMORY = "destination out of memory"
    SSH = "SSH lost to both hosts"
    QMP_HERE = "source's QMP closed"
    QMP_THERE = "destination's QMP closed"


BREAK = 5.0
"""Seconds that a link is cut for."""

Inject = Callable[[Stage, Phase], Awaitable[None]]


@dataclass(frozen=True)
class Injection:
    """How a fault is done.

    Attributes:
        inject: Done once the move is in its phase, and held there.
        after: Done then, with nothing held any more; the link is fast again.
        early: Whether it stands in the way already when a move that is to be caught "before
            start" is asked for.
        disks: Whether it needs a move that copies its disk.
    """

    inject: Inject
    after: Inject | None = None
    early: bool = False
    disks: bool = False


async def _kill_whimbrel(stage: Stage, _: Phase) -> None:
    stage.signal(signal.SIGKILL)
    assert stage.process is not None
    await stage.process.wait()


def _kill_qemu(host: str) -> Inject:
    async def kill(stage: Stage, _: Phase) -> None:
        pid = stage.pid(host)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        if host == "a":
            thaw(stage)

    return kill


async def _cut(stage: Stage, _: Phase) -> None:
    """Cut the link at the source; the destination keeps its address, as where a switch fails."""
    host = stage.at.far.a.lab
    switch(host, host.interfaces[0], "down")
    stage.afterwards(lambda: switch(host, host.interfaces[0], "up"))


async def _back_soon(stage: Stage, _: Phase) -> None:
    await asyncio.sleep(BREAK)  # it is the fault
    stage.mend()


async def _impatient(stage: Stage, phase: Phase) -> None:
    """A person waits until a post-copy is being taken up in vain, and then leaves it paused."""
    if phase is Phase.POSTCOPY and await stage.until(
        lambda at: Step.LISTENING_AGAIN in at.steps, within=60.0
    ):
        stage.signal(signal.SIGTERM)


async def _fill_disk(stage: Stage, _: Phase) -> None:
    """Leave no byte on the destination's file system; then the guest writes what is new."""
    path = stage.folder("b") / "somebody-else's"
    with path.open("wb") as file:
        with suppress(OSError):
            while True:
                file.write(b"x" * MIB)
                file.flush()
        with suppress(OSError):
            while True:
                os.write(file.fileno(), b"x")
    stage.afterwards(lambda: path.unlink(missing_ok=True))


async def _write_more(stage: Stage, phase: Phase) -> None:
    if phase in {Phase.MIRROR, Phase.FIRST, Phase.LATER}:
        with suppress(LabError, TimeoutError):
            async with asyncio.timeout(20.0), stage.at.redline(VM, "a") as guest:
                await guest.fill_disk("/dev/vda", DISK_FILL, at=2 * DISK_FILL)
                await guest.load_disk("/dev/vda", 4 * MIB, 0.5e6)


async def _take_port(stage: Stage, phase: Phase) -> None:
    """Sit on the port of the move as soon as it is free, and cut the link that used it.

    Early: sit on the first that disks are exported on.
    """
    if phase is Phase.BEFORE:
        _sit(stage, stage.at.far.b.lab.addresses[0], EXPORT_PORTS[0])
        return
    await _cut(stage, phase)
    entry = next(each for each in stage.entries if each.step is Step.PREPARED)
    _sit(stage, str(entry.fields["host"]), int(entry.fields["port"]))


def _sit(stage: Stage, host: str, port: int) -> None:
    def taken() -> socket.socket:
        taker = socket.socket()
        taker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taker.bind((host, port))
        taker.listen()
        return taker

    stage.afterwards(in_namespace(stage.at.far.b.lab.namespace, taken).close)


async def _free_port(stage: Stage, _: Phase) -> None:
    """Mend the link, and later free the port, when the move has tried and failed."""
    host = stage.at.far.a.lab
    switch(host, host.interfaces[0], "up")
    await stage.until(lambda at: Step.LISTENING_AGAIN in at.steps, within=60.0)
    await asyncio.sleep(BREAK)  # nothing tells of an attempt that failed
    stage.mend()


async def _starve(stage: Stage, phase: Phase) -> None:
    """Leave the destination's QEMU no memory beyond what it has; early: leave the host none."""
    if phase is Phase.BEFORE:
        await _claim_all(stage)
        return
    pid = stage.pid("b")
    assert pid is not None
    group = Path(f"/sys/fs/cgroup/memory/whimbrel-faults-{os.getpid()}")
    group.mkdir()
    stage.afterwards(lambda: _remove_group(group))
    (group / "cgroup.procs").write_text(str(pid))
    # Charges are not moved along (cgroups v1): from here on it may have so much more.
    (group / "memory.limit_in_bytes").write_text(str(MIB))


async def _claim_all(stage: Stage) -> None:
    """Let another move, in this process, claim what memory the destination has."""
    place = stage.folder("b") / "claims"
    place.mkdir(mode=0o700, exist_ok=True)
    path = place / "somebody-elses.json"
    owner = {"pid": os.getpid(), "start": start_time(os.getpid()), "boot": boot_id()}
    claim = {"vm": "other", "bytes": free_memory(), "page_size": 0, "owner": owner}
    path.write_text(json.dumps({**claim, "expires": time.time() + 600}))
    stage.afterwards(lambda: path.unlink(missing_ok=True))


def _remove_group(group: Path) -> None:
    for line in (group / "cgroup.procs").read_text().split():
        with suppress(OSError):
            (group.parent / "cgroup.procs").write_text(line)
    group.rmdir()


async def _lose_ssh(stage: Stage, _: Phase) -> None:
    far = stage.at.far
    far.a.kill_sshd()
    far.b.kill_sshd()


async def _ssh_back(stage: Stage, _: Phase) -> None:
    far = stage.at.far
    await asyncio.gather(far.a.stopped(), far.b.stopped())
    await asyncio.gather(far.a.start_sshd(), far.b.start_sshd())


def _close_qmp(host: str) -> Inject:
    async def close(stage: Stage, _: Phase) -> None:
        pid = stage.pid(host)
        assert pid is not None
        if not _shut(pid, str(stage.folder(host) / "vms" / VM / "qmp")):
            raise Missed("nobody was connected")

    return close


def _shut(pid: int, path: str) -> int:
    """Shut the connections of a process to its UNIX socket, as a broken client would."""
    lines = Path(f"/proc/{pid}/net/unix").read_text().splitlines()[1:]
    words = [line.split() for line in lines]
    # Connected sockets of a listening one have its path, and are in state 03 (proc(5)).
    inodes = {
        f"socket:[{each[6]}]"
        for each in words
        if each[7:] in ([path], [f"{path}-spare"]) and each[5] == "03"
    }
    library = ctypes.CDLL(None, use_errno=True)
    handle = os.pidfd_open(pid)
    found = 0
    try:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(FileNotFoundError):
                if str(entry.readlink()) in inodes:
                    taken = library.syscall(438, handle, int(entry.name), 0)  # pidfd_getfd
                    assert taken >= 0, errno.errorcode[ctypes.get_errno()]
                    with socket.socket(fileno=taken) as connection:
                        connection.shutdown(socket.SHUT_RDWR)
                    found += 1
    finally:
        os.close(handle)
    return found


INJECTIONS: dict[Fault, Injection] = {
    Fault.WHIMBREL: Injection(_kill_whimbrel),
    Fault.SOURCE: Injection(_kill_qemu("a")),
    Fault.DESTINATION: Injection(_kill_qemu("b")),
    Fault.LINK_BREAK: Injection(_cut, _back_soon),
    Fault.LINK: Injection(_cut, _impatient),
    Fault.DISK: Injection(_fill_disk, _write_more, early=True, disks=True),
    Fault.PORT: Injection(_take_port, _free_port, early=True, disks=True),
    Fault.MEMORY: Injection(_starve, early=True),
    Fault.SSH: Injection(_lose_ssh, _ssh_back),
    Fault.QMP_HERE: Injection(_close_qmp("a")),
    Fault.QMP_THERE: Injection(_close_qmp("b")),
}

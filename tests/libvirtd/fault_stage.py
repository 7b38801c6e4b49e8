"""A guest that moves between two libvirt hosts by the real command, seen from outside.

    control    link 0: SSH, and libvirt's own connections over it
    migration  link 1: what the matrix slows down and cuts

Nothing here asks whimbrel: the journal is read as it is written, and libvirt is asked by virsh
over its own socket of each host.
"""

import os
import re
import shlex
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from far.control import switch
from faults.stage import FAST, reshape
from faults.underway import DISK, VM, UnderWay
from libvirtd.daemons import Libvirt, said, two_libvirts
from libvirtd.person import Person, person
from libvirtd.test_moves import persisted
from storage.guests import CONTROL, disk_vm, sparse
from whimbrel.lab.namespaces import inhabitants
from whimbrel.lab.redline import Redline
from whimbrel.model.inventory import Disk
from whimbrel.model.scenario import Load, Pattern
from whimbrel.model.units import MIB
from whimbrel.practice.history import unfinished

LOAD = Load(fill=24 * MIB, pattern=Pattern.RANDOM, hot=8 * MIB, dirty_rate=20e6)
"""More than the slow link carries, so that a move over it never ends by itself."""

_OURS = ("sshd", "libvirtd")
_BOOTS_WITHIN = 120.0
"""Seconds for a guest to boot, beside whatever else runs on this machine."""

_WIDE = "2000"
"""Columns in which no command that is advised is broken into lines."""


@dataclass
class LibvirtStage(UnderWay):
    """Two hosts, a defined guest on the first, and the move that is under way.

    Attributes:
        at: Who types the commands.
    """

    at: Person

    async def begin(self, *words: str) -> None:
        """Type the command of the move."""
        self.process = await self.at.started("move", VM, "--to", "b", "--survey", "none", *words)

    def pid(self, host: str) -> int | None:
        """Return the pid of the guest's QEMU on a host; None where none lives."""
        try:
            pid = self.at.host(host).pid(VM)
            os.kill(pid, 0)
        except (OSError, ValueError):
            return None
        return pid

    async def listed(self, host: str, *which: str) -> list[str]:
        """Return the VMs that a host's libvirt lists."""
        words = ["virsh", "--quiet", "--connect", self.at.host(host).uri]
        return (await said([*words, "list", "--name", *which])).split()

    async def running(self) -> tuple[str, ...]:
        """Return the hosts whose libvirt says that the guest runs there."""
        return tuple([each for each in "ab" if VM in await self.listed(each, "--state-running")])

    async def defined(self) -> tuple[str, ...]:
        """Return the hosts whose libvirt remembers the VM beyond its end."""
        which = ("--all", "--persistent")
        return tuple([each for each in "ab" if VM in await self.listed(each, *which)])

    def link(self, rate: float) -> None:
        """Let the migration link carry so many bytes per second, both ways."""
        for host in (self.at.libvirts.a.lab, self.at.libvirts.b.lab):
            reshape(host, host.interfaces[1], rate)

    def cut(self) -> None:
        """Cut the migration link at the source until the world is mended."""
        host = self.at.libvirts.a.lab
        switch(host, host.interfaces[1], "down")
        self.afterwards(lambda: switch(host, host.interfaces[1], "up"))

    async def advised(self, words: str) -> list[str]:
        """Carry out the commands of virsh that were advised; return those that failed."""
        failed = []
        found = re.findall(rf"virsh -c '[^']+' (?:destroy|start) {VM}\b", words)
        for line in dict.fromkeys(found):
            command = self.at.libvirts.a.lab.enter(["sh", "-c", '"$@" 2>&1 || echo FAILED'])
            told = await said([*command, "sh", *shlex.split(line)])
            if "FAILED" in told:
                failed.append(f"{line}: {told}")
        return failed

    async def left_over(self, runs_on: str | None) -> list[str]:
        """Name all that is left over, where the guest runs on this host and nowhere else."""
        found = [f"open journal {each.path.name}" for each in unfinished(folder=self.journals)]
        for host in "ab":
            for name in ("moves", "claims", "images", "probes"):
                files = (self.at.folder / host / name).glob("*")
                found += [f"{name}/{each.name} on {host}" for each in files if each.name != "lock"]
            known = await self.listed(host, "--all")
            if known != ([VM] if host == runs_on else []):
                found.append(f"libvirt on {host} knows {known}")
            found += [f"{each} on {host}" for each in self._programs(self.at.host(host), runs_on)]
        return found

    def _programs(self, libvirt: Libvirt, runs_on: str | None) -> list[str]:
        own = libvirt.pids | ({self.pid(libvirt.name)} if libvirt.name == runs_on else set())
        found = []
        for pid in inhabitants(libvirt.lab.namespace):
            with suppress(OSError):
                name = Path(f"/proc/{pid}/comm").read_text().strip()
                if pid not in own and not name.startswith(_OURS):
                    found.append(f"process {name}")
        return found


@asynccontextmanager
async def libvirt_stage(*, peer: bool = False) -> AsyncIterator[LibvirtStage]:
    """Hold two libvirt hosts and a guest whose memory is written all the time.

    Args:
        peer: The source's libvirt leads the move, over a connection of its own.
    """
    async with two_libvirts(FAST, count=2) as libvirts:
        folder = libvirts.folder / "at"
        folder.mkdir()
        async with person(libvirts, folder) as at:
            at.environment["COLUMNS"] = _WIDE
            at.write(peer=peer)
            _over_the_second_link(at)
            journals = folder / "state" / "whimbrel" / "journals"
            play = LibvirtStage(at, journals=journals)
            vm = replace(disk_vm([Disk("vda", sparse(folder / "vda.img", 64 * MIB))]), name=VM)
            async with libvirts.a.opened() as host:
                await persisted(host, vm)
            control = libvirts.a.folder / "sockets" / f"{VM}-{CONTROL}"
            async with Redline.connect(control, _BOOTS_WITHIN) as guest:
                await guest.ready()
                await guest.fill(LOAD)
                await guest.fill_disk(DISK, 8 * MIB)
            try:
                yield play
            finally:
                play.mend()
                if not play.ended:
                    play.signal(signal.SIGCONT)


def _over_the_second_link(at: Person) -> None:
    """Let moves go over the second link; control stays on the first."""
    text = at.config.read_text()
    for libvirt in (at.libvirts.a, at.libvirts.b):
        control, migration = libvirt.lab.addresses
        text = text.replace(f'address = "{control}"', f'address = "{migration}"')
    at.config.write_text(text)

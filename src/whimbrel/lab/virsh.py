"""A move by `virsh migrate --live`, as a person types it, between two libvirtds of the lab.

libvirt alone conducts it: whimbrel measures, and calls it off when its time is over
(`virsh domjobabort`). What is added to what people type is where the sockets of the guest's
channels lie at the destination (`--xml`), since both hosts are this one machine.
"""

import asyncio
import tempfile
import time
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from whimbrel.errors import HostError
from whimbrel.hypervisors.libvirt.domain_xml import at_destination
from whimbrel.hypervisors.libvirt.machine import LibvirtMachine
from whimbrel.hypervisors.qemu.process import kill
from whimbrel.lab.libvirts import LabLibvirt
from whimbrel.lab.stage import End, Stage
from whimbrel.model.migration import Phase, PhaseChange, Side
from whimbrel.model.outcome import Ending, Outcome
from whimbrel.model.units import format_time
from whimbrel.practice.move import Moved, Request, Watcher

_ABORTS_WITHIN = 30.0
_LOOK_EVERY = 0.02


async def by_virsh(
    flags: Sequence[str], request: Request, watcher: Watcher, stage: Stage, end: End
) -> Moved:
    """Move a guest that libvirt runs, and return how that ended and where it runs now.

    Args:
        flags: What is added to `virsh migrate --live`.
        request: What shall be moved; its tuning and address do not count.
        watcher: Is told when the destination is there, and when it is over.
        stage: The lab.
        end: Where the guest runs.

    Raises:
        HostError: It is not run by libvirt, or libvirt does not answer. The guest runs where
            it was.
    """
    source, destination = request.source, request.destination
    machine = request.machine
    if not (
        isinstance(source, LabLibvirt)
        and isinstance(destination, LabLibvirt)
        and isinstance(machine, LibvirtMachine)
    ):
        raise HostError("virsh moves what libvirt runs.")
    xml = at_destination(
        await (await machine.domain()).xml(movable=True), destination.sockets(machine.vm), None
    )
    address = stage.other(end).host.addresses[0]
    with tempfile.NamedTemporaryFile("w", prefix="whimbrel-", suffix=".xml") as file:
        file.write(xml)
        file.flush()
        words = ["migrate", "--live", *flags, "--xml", file.name]
        words += [machine.vm.name, destination.uri, f"tcp://{address}"]
        return await _Journey(source, destination, machine, request.timeout, watcher).run(words)


@dataclass
class _Seen:
    """What was seen of the destination, seconds since the request."""

    machine: LibvirtMachine | None = None
    arrival: float | None = None


class _Journey:
    """One such move."""

    def __init__(
        self,
        source: LabLibvirt,
        destination: LabLibvirt,
        machine: LibvirtMachine,
        timeout: float,
        watcher: Watcher,
    ) -> None:
        self._source, self._destination, self._machine = source, destination, machine
        self._timeout, self._watcher = timeout, watcher
        self._seen = _Seen()
        self._late = False
        self._began = time.monotonic()

    async def run(self, words: Sequence[str]) -> Moved:
        """Carry it out."""
        self._began = time.monotonic()
        looking = asyncio.create_task(self._look())
        try:
            code, said = await self._virsh(words)
            if code == 0:
                with suppress(TimeoutError):
                    await asyncio.wait_for(asyncio.shield(looking), _ABORTS_WITHIN)
        finally:
            looking.cancel()
        ended = time.monotonic() - self._began
        arrived = code == 0 and self._seen.arrival is not None
        phase = Phase.COMPLETED if arrived else Phase.CANCELLED if self._late else Phase.FAILED
        self._watcher.happened(PhaseChange(phase, ended))
        return await (self._arrived(ended, words) if arrived else self._stayed(said, ended))

    async def _virsh(self, words: Sequence[str]) -> tuple[int, str]:
        """Run virsh until it ends; when time is over, let libvirt abort the move."""
        virsh = ["virsh", "--quiet", "--connect", self._source.uri]
        process = await asyncio.create_subprocess_exec(
            *virsh, *words, stdin=DEVNULL, stdout=DEVNULL, stderr=PIPE
        )
        said = asyncio.create_task(process.communicate())
        try:
            done, _ = await asyncio.wait({said}, timeout=self._timeout)
            if not done:
                self._late = True
                abort = await asyncio.create_subprocess_exec(
                    *virsh, "domjobabort", self._machine.vm.name, stdout=DEVNULL, stderr=DEVNULL
                )
                await abort.wait()
                await asyncio.wait({said}, timeout=_ABORTS_WITHIN)
        finally:
            kill(process)
        _, error = await asyncio.shield(said)
        return process.returncode or 0, error.decode(errors="replace").strip()

    async def _look(self) -> None:
        """See the destination being built, and the guest running there."""
        there = await self._destination.arriving(self._machine.vm)
        self._seen.machine = there
        self._watcher.prepared(there)
        while not (await there.state()).runs:  # noqa: ASYNC110 - libvirt is asked
            await asyncio.sleep(_LOOK_EVERY)
        self._seen.arrival = time.monotonic() - self._began
        self._watcher.arrived(there)

    async def _arrived(self, ended: float, words: Sequence[str]) -> Moved:
        """Return a move that completed; by post-copy the source is needed until virsh returns."""
        wall = ended if "--postcopy" in words else self._seen.arrival
        outcome = Outcome(
            Ending.COMPLETED,
            "",
            Side.DESTINATION,
            wall_time=wall,
            arrival_time=self._seen.arrival,
        )
        return Moved(outcome, self._seen.machine)

    async def _stayed(self, said: str, ended: float) -> Moved:
        ending = Ending.TIMEOUT if self._late else Ending.FAILED
        reason = f"not done after {format_time(self._timeout)}" if self._late else said
        outcome = Outcome(ending, reason, Side.SOURCE, wall_time=ended)
        if await self._machine.running():
            return Moved(outcome, self._machine)
        return Moved(replace(outcome, runs_on=None), None)

"""The disks of one QEMU: facts, exports at a destination, mirrors at a source.

    source QEMU                                        destination QEMU
                                     nbd-server-start, block-export-add NAME
    blockdev-add nbd HOST:PORT/NAME
    blockdev-mirror ═══════ blocks, again where written ═══════► the image
    ready … in step
    (the guest stands still)
    block-job-cancel, not forced: the rest, a flush ═══════════► whole
    blockdev-del                                       nbd-server-stop

A copy that ends so has never been the source's disk; the source keeps its own in every case.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from whimbrel.errors import CommandRefused, HostError, HostUnreachable, Unsupported
from whimbrel.hypervisors.qemu.block_devices import block_nodes
from whimbrel.hypervisors.qemu.migration import HANDSHAKE_WITHIN
from whimbrel.hypervisors.qemu.monitor import Events, Monitor
from whimbrel.hypervisors.qemu.storage_translate import (
    PREFIX,
    client_node,
    copying_from,
    device_of,
    disks_from,
    export_arguments,
    job_of,
    mirror_arguments,
    server_arguments,
    speed,
    top_node,
    writes_from,
)
from whimbrel.model.inventory import Disk, MigrationAddress
from whimbrel.model.storage import (
    EXPORT_PORTS,
    Copying,
    CopyMode,
    DiskFacts,
    DiskWrites,
    Extent,
)

FINISHES_WITHIN = 120.0
"""Seconds for what is left of a copy once its guest stands still; a decision is due far sooner."""

HANDED_OVER_WITHIN = 20.0
"""Seconds for the last bytes of a copy that is in step, while the guest stands still for them:
what the guest wrote in a moment. Where the link has broken it goes on with its own disk then."""

_LET_GO_WITHIN = 1.0
"""Seconds for an abandoned copy to end before its connection is cut."""

_ASK_AGAIN = 0.02
_CHANGES = "JOB_STATUS_CHANGE"

Credentials = Callable[[Monitor, MigrationAddress, str], Awaitable[str]]
"""Makes TLS credentials in a QEMU as an address asks, for "server" or "client".

Returns the id of the object; empty where the address asks for no encryption."""


async def no_credentials(_monitor: Monitor, address: MigrationAddress, _endpoint: str) -> str:
    """Make none; `Unsupported` where encryption is asked for."""
    if address.encrypted:
        raise Unsupported("This QEMU was reached in a way that cannot encrypt its disks.")
    return ""


async def no_cut(_port: int) -> None:
    """Cut nothing: where QEMU's connections cannot be reached from outside."""


class QemuMirror:
    """The port's `Mirror`: one block job."""

    def __init__(self, monitor: Monitor, disk: str, place: str, source: str) -> None:
        self.disk = disk
        self._monitor = monitor
        self._place, self._source = place, source
        self._mode = CopyMode.BACKGROUND
        self._gone = False
        self._last = Copying(0, 0)

    async def progress(self) -> Copying:
        """See `ports.Mirror.progress`."""
        job = await self._job()
        if job is None:
            return self._last
        self._last = copying_from(job, self._mode)
        return self._last

    async def block_writes(self) -> None:
        """See `ports.Mirror.block_writes`."""
        if self._mode is CopyMode.WRITE_BLOCKING:
            return
        change = {"id": job_of(self.disk), "type": "mirror", "copy-mode": "write-blocking"}
        await self._monitor.execute("block-job-change", change)
        self._mode = CopyMode.WRITE_BLOCKING

    async def limit(self, rate: float | None) -> None:
        """See `ports.Mirror.limit`."""
        arguments = {"device": job_of(self.disk), "speed": speed(rate)}
        await self._monitor.execute("block-job-set-speed", arguments)

    async def finish(self) -> None:
        """See `ports.Mirror.finish`; a ready job that is cancelled gently completes its copy."""
        job = await self._job()
        if job is None or not job.get("ready"):
            raise HostError(self._not_whole(str(job.get("error", "")) if job else ""))
        gently = {"device": job_of(self.disk), "force": False}
        await self._conclude("block-job-cancel", gently, HANDED_OVER_WITHIN)
        await remove_nodes(self._monitor, self._place)

    async def pivot(self) -> None:
        """See `ports.Mirror.pivot`."""
        await self._conclude("job-complete", {"id": job_of(self.disk)}, FINISHES_WITHIN)
        await remove_nodes(self._monitor, self._source)

    async def abandon(self) -> None:
        """See `ports.Mirror.abandon`."""
        if self._gone:
            return
        await _give_up(self._monitor, job_of(self.disk), [self._place])
        self._gone = True
        await remove_nodes(self._monitor, self._place)

    async def _job(self) -> Mapping[str, Any] | None:
        return None if self._gone else await _find(self._monitor, job_of(self.disk))

    async def _conclude(self, command: str, arguments: Mapping[str, Any], within: float) -> None:
        """End the job by a command, and raise when the copy is not whole."""
        events = self._monitor.listen(_CHANGES)
        try:
            await self._monitor.execute(command, arguments)
            if not await _ended(self._monitor, events, job_of(self.disk), within):
                raise HostError(self._not_whole("the rest did not go through in time"))
        finally:
            events.close()
        job = await self._job()
        if job is None:
            raise HostError(self._not_whole("its job is gone"))
        await self._monitor.execute("job-dismiss", {"id": job_of(self.disk)})
        self._last = copying_from(job, self._mode)
        self._gone = True
        if self._last.failure:
            await remove_nodes(self._monitor, self._place)
            raise HostError(self._not_whole(self._last.failure))

    def _not_whole(self, why: str) -> str:
        return f"The copy of disk {self.disk} is not whole: {why or 'it is not in step yet'}."


class QemuExport:
    """The port's `Export`: QEMU's NBD server."""

    def __init__(self, monitor: Monitor, address: MigrationAddress) -> None:
        self.address = address
        self._monitor = monitor
        self._stopped = False

    async def stop(self) -> None:
        """See `ports.Export.stop`."""
        if not self._stopped:
            self._stopped = True
            await self._monitor.execute("nbd-server-stop")


class QemuStorage:
    """The port's `Storage`.

    Args:
        monitor: QEMU's control connection.
        disks: The names of the VM's disks, in the order in which they are plugged.
        credentials: Makes TLS credentials where an address has a key.
        cut: Shuts QEMU's connections to a far port from outside.
    """

    def __init__(
        self,
        monitor: Monitor,
        disks: Sequence[str],
        credentials: Credentials = no_credentials,
        cut: Callable[[int], Awaitable[None]] = no_cut,
    ) -> None:
        self._cut = cut
        self._monitor = monitor
        self._names = tuple(disks)
        self._credentials = credentials

    async def disks(self) -> tuple[DiskFacts, ...]:
        """See `ports.Storage.disks`."""
        devices = await self._monitor.execute("query-block")
        jobs = await self._monitor.execute("query-block-jobs")
        return tuple(disks_from(devices, jobs, self._names))

    async def writes(self) -> Mapping[str, DiskWrites]:
        """See `ports.Storage.writes`."""
        return writes_from(await self._monitor.execute("query-blockstats"), self._names)

    async def export(self, address: MigrationAddress, disks: Sequence[str]) -> QemuExport:
        """See `ports.Storage.export`."""
        nodes = {disk: await self._node(disk) for disk in disks}
        credentials = await self._credentials(self._monitor, address, "server")
        # Each disk is written over one connection; one more for one that breaks and returns.
        port = await self._listen(address, 2 * len(nodes), credentials)
        export = QemuExport(self._monitor, replace(address, port=port))
        try:
            for disk, node in nodes.items():
                await self._monitor.execute("block-export-add", export_arguments(disk, node))
        except BaseException:
            await export.stop()
            raise
        return export

    async def mirror(
        self,
        disk: str,
        place: MigrationAddress | Disk,
        extent: Extent,
        rate: float | None = None,
    ) -> QemuMirror:
        """See `ports.Storage.mirror`."""
        await self._dismiss(disk)
        source = await self._node(disk)
        name = f"{PREFIX}{secrets.token_hex(4)}"
        arguments = mirror_arguments(job_of(disk), source, name, extent, rate)
        try:
            for node in await self._nodes(name, disk, place):
                await self._add(node, place)
            await self._monitor.execute("blockdev-mirror", arguments)
        except BaseException:
            await remove_nodes(self._monitor, name)
            raise
        return QemuMirror(self._monitor, disk, name, source)

    async def release(self) -> None:
        """See `ports.Storage.release`."""
        nodes = await self._monitor.execute("query-named-block-nodes", {"flat": True})
        far = [str(n["node-name"]) for n in nodes if n["drv"] == "nbd" and _ours(n["node-name"])]
        for job in await self._monitor.execute("query-block-jobs"):
            if _ours(job["device"]):
                await _give_up(self._monitor, str(job["device"]), far)
        if any(_ours(each["id"]) for each in await self._monitor.execute("query-block-exports")):
            await self._monitor.execute("nbd-server-stop")
        await self._remove_unused()

    async def _remove_unused(self) -> None:
        """Close the nodes of copies; those that a disk or a copy on its way uses stay."""
        devices = await self._monitor.execute("query-block")
        used = {top_node(device) for device in devices if "inserted" in device}
        for node in await self._monitor.execute("query-named-block-nodes", {"flat": True}):
            name = str(node["node-name"])
            if _ours(name) and name not in used:
                await remove_nodes(self._monitor, name)

    async def _dismiss(self, disk: str) -> None:
        """Clear away a copy that has ended while nobody looked on."""
        job = await _find(self._monitor, job_of(disk))
        if job is not None and job["status"] == "concluded":
            await self._monitor.execute("job-dismiss", {"id": job_of(disk)})
            await self._remove_unused()

    async def _nodes(
        self, name: str, disk: str, place: MigrationAddress | Disk
    ) -> Sequence[Mapping[str, Any]]:
        if isinstance(place, Disk):
            return block_nodes(replace(place, name=name))
        credentials = await self._credentials(self._monitor, place, "client")
        return [client_node(name, disk, place, credentials)]

    async def _add(self, node: Mapping[str, Any], place: MigrationAddress | Disk) -> None:
        """Add a node; a far end that accepts and keeps silent would hold up QEMU and its guest."""
        if isinstance(place, Disk):
            await self._monitor.execute("blockdev-add", node)
            return
        try:
            async with asyncio.timeout(HANDSHAKE_WITHIN):
                await self._monitor.execute("blockdev-add", node)
        except TimeoutError as error:
            await self._cut(place.port)
            raise HostUnreachable(
                f"The disks' export at {place.host}, port {place.port}, did not shake hands "
                f"within {HANDSHAKE_WITHIN:.0f} s, and was left.",
                "See whether the destination's QEMU hangs or another program holds that port.",
            ) from error

    async def _node(self, disk: str) -> str:
        device = device_of(await self._monitor.execute("query-block"), disk)
        if device is None or "inserted" not in device:
            raise CommandRefused(f"The VM has no disk {disk}.", f"It has {self._names}.")
        return top_node(device)

    async def _listen(self, address: MigrationAddress, connections: int, credentials: str) -> int:
        ports = [address.port] if address.port else list(_ports(address))
        for port in ports:
            arguments = server_arguments(address.host, port, connections, credentials)
            try:
                await self._monitor.execute("nbd-server-start", arguments)
            except CommandRefused as error:
                if "in use" not in error.what or port == ports[-1]:
                    hint = f"See whether {address.host} is an address of this host, and a port of "
                    hint += f"{ports[0]} to {ports[-1]} is free."
                    raise CommandRefused(error.what, hint) from error
            else:
                return port
        raise CommandRefused("No port was given for the disks' export.")


def _ports(address: MigrationAddress) -> range:
    """Return the ports of which an export may choose."""
    if address.ports is None:
        return EXPORT_PORTS
    return range(address.ports[0], address.ports[1] + 1)


def _ours(name: object) -> bool:
    return str(name).startswith(PREFIX)


async def remove_nodes(monitor: Monitor, name: str) -> None:
    """Close a disk's nodes; one stays that is in use, or was not added by its name."""
    for node in (name, f"{name}-file"):
        with suppress(CommandRefused):
            await monitor.execute("blockdev-del", {"node-name": node})


async def _find(monitor: Monitor, job: str) -> Mapping[str, Any] | None:
    jobs = await monitor.execute("query-block-jobs")
    return next((each for each in jobs if each["device"] == job), None)


async def _give_up(monitor: Monitor, job: str, nodes: Sequence[str]) -> None:
    """End a job in any state; where the connection of one of these nodes hangs, cut it."""
    events = monitor.listen(_CHANGES)
    try:
        with suppress(CommandRefused):  # it is ending by itself, or has ended
            await monitor.execute("block-job-cancel", {"device": job, "force": True})
        if nodes and not await _ended(monitor, events, job, _LET_GO_WITHIN):
            with suppress(CommandRefused):  # not a connection: nothing to cut
                cut = [{"type": "block-node", "node-name": node} for node in nodes]
                await monitor.execute("yank", {"instances": cut})
        if not await _ended(monitor, events, job, FINISHES_WITHIN):
            raise HostError(f"The copying job {job} does not end.", "Look at the host's disks.")
    finally:
        events.close()
    with suppress(CommandRefused):  # gone already
        await monitor.execute("job-dismiss", {"id": job})


async def _ended(monitor: Monitor, events: Events, job: str, within: float) -> bool:
    with suppress(TimeoutError):
        async with asyncio.timeout(within):
            while (found := await _find(monitor, job)) and found["status"] != "concluded":
                await events.next(_ASK_AGAIN)
            return True
    return False

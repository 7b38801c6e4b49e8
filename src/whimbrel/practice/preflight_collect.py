"""Collects the facts of a preflight from both hosts, as much at once as can be.

    first   both hosts · the machine · the destination's QEMU · a trial of the way · bridges
    then    each image at both hosts · memory of the kind that the machine needs

A host that refuses one question makes that one fact unknown, and no other.
"""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from whimbrel.errors import HostError
from whimbrel.model.inventory import MigrationAddress, Vm
from whimbrel.model.method import Transport, Tuning
from whimbrel.model.preflight import (
    BridgeFacts,
    DiskState,
    HostFacts,
    HypervisorFacts,
    ImageSight,
    MachineFacts,
    MemoryFacts,
    MptcpFacts,
    PinFacts,
    PlaceFacts,
    RdmaFacts,
    TrialFacts,
    Unknown,
)
from whimbrel.model.storage import EXPORT_PORTS, Extent
from whimbrel.model.tls import CLIENT_FILES, SERVER_FILES
from whimbrel.ports import Examiner, Machine, Site
from whimbrel.practice.images import READS_WITHIN
from whimbrel.practice.nics import mptcp_facts
from whimbrel.practice.preflight_facts import (
    address_facts,
    bridge_facts,
    host_facts,
    memory_facts,
    place_facts,
)
from whimbrel.practice.rdma import rdma_facts
from whimbrel.practice.storage_places import DiskCopy

_Fact = TypeVar("_Fact")

Folder = Mapping[str, PlaceFacts]
"""What lies in a folder, by name."""


@dataclass(frozen=True)
class PreflightSubject:
    """The move that is to be checked.

    Attributes:
        machine: The VM, at the source.
        source: The host it runs on.
        destination: The host it shall run on.
        source_examiner: What asks the source's hypervisor.
        destination_examiner: What asks the destination's.
        address: Where the destination would listen; port 0: any that is free.
        tuning: How it would be moved, for what transports need; the default needs nothing.
        arrival: The VM as the destination will build it; None: with the same paths.
        copies: The disks that are copied along; all others must be seen by both hosts.
        move: The identity of the move that asks, where it has marked the VM already.
        further: The destination's addresses on further NICs that both hosts share.
        choosing: Whether the way is still to be chosen, so that what hinders RDMA is a warning.
        zero_copy: Whether pages would be sent without copying them.
    """

    machine: Machine
    source: Site
    destination: Site
    source_examiner: Examiner
    destination_examiner: Examiner
    address: MigrationAddress
    tuning: Tuning = field(default_factory=Tuning)
    arrival: Vm | None = None
    copies: tuple[DiskCopy, ...] = ()
    move: str = ""
    further: tuple[str, ...] = ()
    choosing: bool = False
    zero_copy: bool = False

    @property
    def there(self) -> Vm:
        """The VM as the destination will build it."""
        return self.arrival or self.machine.vm


@dataclass(frozen=True)
class DiskSight:
    """One disk with its images as both hosts see them.

    Attributes:
        disk: The disk.
        shared: The images that both hosts must see, the one that is written to first.
        here: What lies at the source's path of a disk that is copied; None: it is not copied.
        place: What lies where its copy shall be; None: it is not copied.
        data: Bytes that its copy needs.
    """

    disk: DiskState
    shared: tuple[ImageSight, ...] = ()
    here: PlaceFacts | None = None
    place: PlaceFacts | None = None
    data: int = 0


@dataclass(frozen=True)
class Facts:
    """All that the checks need; `Unknown` where it could not be had."""

    source: HostFacts
    destination: HostFacts
    machine: MachineFacts | Unknown
    hypervisor: HypervisorFacts | Unknown
    trial: TrialFacts | Unknown
    bridges_here: Mapping[str, BridgeFacts | None] | Unknown
    bridges_there: Mapping[str, BridgeFacts | None] | Unknown
    memory: MemoryFacts | Unknown
    huge_pages: MemoryFacts | Unknown
    disks: Mapping[str, DiskSight | Unknown]
    nics: tuple[MptcpFacts, MptcpFacts] | Unknown | None = None
    export: TrialFacts | Unknown | None = None
    certificates: tuple[Folder, Folder] | Unknown | None = None
    rdma: tuple[RdmaFacts, RdmaFacts] | Unknown | None = None
    pins: PinFacts | Unknown | None = None


async def known(question: Awaitable[_Fact]) -> _Fact | Unknown:
    """Return the answer, or why there is none."""
    try:
        return await question
    except HostError as error:
        return Unknown(error.what)


async def collect(subject: PreflightSubject, source: HostFacts, destination: HostFacts) -> Facts:
    """Return everything beyond the hosts themselves."""
    machine_asked = asyncio.ensure_future(known(_machine(subject)))
    bridges = sorted({nic.bridge for nic in subject.there.nics if nic.bridge is not None})
    nics = asyncio.ensure_future(known(_nics(subject)))
    folders = asyncio.ensure_future(known(_certificates(subject)))
    devices = asyncio.ensure_future(known(_rdma(subject, source, destination)))
    (
        hypervisor,
        (trial, export),
        here,
        there,
        machine,
        (memory, pages, disks),
    ) = await asyncio.gather(
        known(subject.destination_examiner.hypervisor(subject.there)),
        _trials(subject),
        known(_bridges(subject.source, bridges)),
        known(_bridges(subject.destination, bridges)),
        machine_asked,
        _of_machine(subject, machine_asked, source, destination),
    )
    return Facts(
        source=source,
        destination=destination,
        machine=machine,
        hypervisor=hypervisor,
        trial=trial,
        bridges_here=here,
        bridges_there=there,
        memory=memory,
        huge_pages=pages,
        disks=disks,
        nics=await nics,
        export=export,
        certificates=await folders,
        rdma=await devices,
        pins=await known(_pins(subject)),
    )


async def ask_host(site: Site, vm: Vm) -> HostFacts:
    """Return what a host says of itself; raises `HostError`."""
    files = [str(path) for path in (vm.kernel, vm.initrd, vm.firmware) if path is not None]
    # The program is started and sent by the first question: its time is not the clock's error.
    await site.ask("preflight_bridges", names=[])
    asked, began = time.time(), time.monotonic()
    answer = await site.ask("preflight_host", folder=site.folder, files=files)
    return host_facts(site.name, answer, asked, time.monotonic() - began)


async def _machine(subject: PreflightSubject) -> MachineFacts:
    return await subject.source_examiner.machine(subject.machine)


async def _bridges(site: Site, names: list[str]) -> Mapping[str, BridgeFacts | None]:
    answer = await site.ask("preflight_bridges", names=names)
    return {name: bridge_facts(answer[name]) for name in names}


async def _nics(subject: PreflightSubject) -> tuple[MptcpFacts, MptcpFacts] | None:
    if not subject.further:
        return None
    here, there = await asyncio.gather(
        mptcp_facts(subject.source), mptcp_facts(subject.destination)
    )
    return here, there


def weighs_rdma(subject: PreflightSubject, source: HostFacts, destination: HostFacts) -> bool:
    """Tell whether RDMA is wanted, or would be weighed where both hosts have a device."""
    if subject.tuning.transport is Transport.RDMA:
        return True
    return subject.choosing and bool(source.rdma) and bool(destination.rdma)


async def _rdma(
    subject: PreflightSubject, source: HostFacts, destination: HostFacts
) -> tuple[RdmaFacts, RdmaFacts] | None:
    if not (weighs_rdma(subject, source, destination) and source.rdma and destination.rdma):
        return None
    address = subject.address.host
    here, there = await asyncio.gather(
        rdma_facts(subject.source, address), rdma_facts(subject.destination, address)
    )
    return here, there


async def _pins(subject: PreflightSubject) -> PinFacts | None:
    if not subject.zero_copy or subject.machine.pid is None:
        return None
    answer = await subject.source.ask("preflight_pins", pid=subject.machine.pid)
    return PinFacts(answer["limit"], answer["held"], answer["may_be_raised"])


async def _certificates(subject: PreflightSubject) -> tuple[Folder, Folder] | None:
    used = subject.address.credentials
    if used is None or not used.source:  # libvirt finds its own by itself
        return None
    here, there = await asyncio.gather(
        _files(subject.source, used.source, CLIENT_FILES),
        _files(subject.destination, used.destination, SERVER_FILES),
    )
    return here, there


async def _files(site: Site, folder: str, names: Sequence[str]) -> Folder:
    asked = (site.ask("preflight_disk", path=f"{folder}/{name}") for name in names)
    return dict(zip(names, map(place_facts, await asyncio.gather(*asked)), strict=True))


async def _trials(
    subject: PreflightSubject,
) -> tuple[TrialFacts | Unknown, TrialFacts | Unknown | None]:
    """Try the way of memory, and that of disks where some are copied: a firewall may differ."""
    address = subject.address
    memory = await known(_trial(subject, _candidates(address, range(1))))
    if not subject.copies:
        return memory, None
    return memory, await known(_trial(subject, _candidates(address, EXPORT_PORTS)))


def _candidates(address: MigrationAddress, otherwise: range) -> Sequence[int]:
    """Return the ports of which the destination may choose; 0: any."""
    if address.port:
        return [address.port]
    return otherwise if address.ports is None else range(address.ports[0], address.ports[1] + 1)


async def _trial(subject: PreflightSubject, ports: Sequence[int]) -> TrialFacts:
    """Let the destination listen for a moment and the source connect to it."""
    address, token = subject.address, secrets.token_hex(16)
    listening: Mapping[str, Any] = {}
    for port in ports:
        listening = await subject.destination.ask(
            "preflight_listen", address=address.host, port=port, token=token
        )
        if listening.get("error") != "EADDRINUSE":
            break
    if "port" not in listening:
        return TrialFacts(listen_error=listening["error"])
    port = listening["port"]
    said: Mapping[str, Any] = {"error": "not tried"}
    try:
        said = await subject.source.ask(
            "preflight_connect", address=address.host, port=port, token=token
        )
    finally:
        patience = 0.0 if "error" in said else 1.0
        heard = await subject.destination.ask("preflight_heard", token=token, patience=patience)
    return TrialFacts(
        port=port,
        connect_error=said.get("error", ""),
        heard=heard,
        seconds=said.get("seconds", 0.0),
    )


async def _of_machine(
    subject: PreflightSubject,
    asked: asyncio.Future[MachineFacts | Unknown],
    source: HostFacts,
    destination: HostFacts,
) -> tuple[MemoryFacts | Unknown, MemoryFacts | Unknown, Mapping[str, DiskSight | Unknown]]:
    machine = await asked
    if isinstance(machine, Unknown):
        return await known(_memory(subject, 0)), machine, {}
    sights = (known(_sight(subject, disk, source, destination)) for disk in machine.disks)
    memory, pages, found = await asyncio.gather(
        known(_memory(subject, 0)),
        known(_memory(subject, machine.huge_page)),
        asyncio.gather(*sights),
    )
    names = [disk.name for disk in machine.disks]
    return memory, pages, dict(zip(names, found, strict=True))


async def _memory(subject: PreflightSubject, page_size: int) -> MemoryFacts:
    site = subject.destination
    vm = subject.there.name
    return memory_facts(
        await site.ask("memory_left", folder=site.folder, vm=vm, page_size=page_size)
    )


async def _sight(
    subject: PreflightSubject, disk: DiskState, source: HostFacts, destination: HostFacts
) -> DiskSight:
    copy = next((each for each in subject.copies if each.place.name == disk.name), None)
    paths = {each.name: each.path for each in subject.there.disks}
    there = [paths.get(disk.name, disk.chain[0]), *disk.chain[1:]]
    pairs = list(zip(disk.chain, there, strict=True))
    if copy is not None:
        pairs = pairs[1:] if copy.extent is Extent.TOP else []
    shared = await asyncio.gather(
        *(_image(subject, here, over, source, destination) for here, over in pairs)
    )
    if copy is None:
        return DiskSight(disk, tuple(shared))
    shared = [await _read_whole(subject, sight) for sight in shared]
    here, place = await asyncio.gather(
        look(subject.source, disk.chain[0], source),
        look(subject.destination, copy.place.path, destination),
    )
    whole = copy.extent is Extent.WHOLE
    return DiskSight(disk, tuple(shared), here, place, disk.allocated if whole else copy.data)


async def _read_whole(subject: PreflightSubject, sight: ImageSight) -> ImageSight:
    """Compare all bytes of a file that is only read, where it is not seen to be the same one."""
    here, there = sight.here, sight.there
    alike = here.kind == there.kind == "file" and here.size == there.size
    if not alike or sight.probe or here.identities & there.identities:
        return sight
    mine, other = await asyncio.gather(
        subject.source.ask("image_fingerprint", path=here.path, within=READS_WITHIN),
        subject.destination.ask("image_fingerprint", path=there.path, within=READS_WITHIN),
    )
    return replace(sight, equal=mine == other)


async def _image(
    subject: PreflightSubject, path: str, over: str, source: HostFacts, destination: HostFacts
) -> ImageSight:
    here, there = await asyncio.gather(
        look(subject.source, path, source), look(subject.destination, over, destination)
    )
    if here.kind != "file" or there.kind != "file":
        return ImageSight(here, there)
    return ImageSight(here, there, await _probe(subject, here, there))


async def look(site: Site, path: str, host: HostFacts) -> PlaceFacts:
    """Return what lies at a path, or at an address that QEMU opens by itself."""
    if "://" in path:
        return address_facts(path, await site.ask("preflight_image", address=path), host)
    return place_facts(await site.ask("preflight_disk", path=path))


async def _probe(subject: PreflightSubject, here: PlaceFacts, there: PlaceFacts) -> bool | None:
    """Tell whether a file written beside an image here is seen beside it there."""
    token = secrets.token_hex(16)
    folder = here.real.rpartition("/")[0]
    try:
        if not await subject.source.ask("preflight_probe", folder=folder, token=token):
            return None
        other = there.real.rpartition("/")[0]
        seen = await subject.destination.ask("preflight_probe_seen", folder=other, token=token)
        return bool(seen)
    finally:
        await subject.source.ask("preflight_probe_gone", folder=folder, token=token)
